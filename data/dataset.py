"""What is recommended, to whom, and what was observed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from data.fingerprint import fingerprint
from data.histories import Histories
from data.types import FloatArray, IntArray


@dataclass(frozen=True)
class Domain:
    """The words a template uses for items of this data set; they fill its domain slots."""

    item: str = "item"
    items: str = "items"
    consume: str = "buy"
    consumed: str = "bought"
    consuming: str = "buying"
    consumer: str = "customer"


CATEGORY_FIELDS = ("genres", "genre", "categories", "category", "class")
"""Names that data sets give the field of :attr:`Catalogue.fields` with an item's categories, the usual ones first."""
SPACED_FIELDS = ("class", "genre")
"""Those of RecBole's MovieLens files, which may have nothing but blanks between categories."""


@dataclass(frozen=True)
class Catalogue:
    """Users and items with their texts; says nothing of who chose what.

    Args:
        name: name of the data set.
        user_ids: ids as in the source; the position is the dense user index.
        item_ids: ids as in the source; the position is the dense item index.
        titles: one title per item, never empty.
        fields: further texts per item, such as ``year`` or ``genres``; empty where unknown.
        domain: words for the domain slots of templates.
    """

    name: str
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domain: Domain = field(default_factory=Domain)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def named(self, items: IntArray) -> list[str]:
        """Titles of items given by their indices, shape ``[n]``."""
        return [self.titles[item] for item in items.tolist()]


@dataclass(frozen=True)
class Dataset:
    """Positive interactions of every user in chronological order, and the catalogue.

    Args:
        catalogue: users and items.
        histories: all items of each user, oldest first, no item twice; one row per user.
        timestamps: time of each entry of ``histories.items``, shape ``[n]``.
        notes: what was counted, repaired or left out while reading; one sentence each.
        ordinal: whether the timestamps of the source count each user's interactions (1, 2, 3, ..., give or take
            single rows), so that they cannot be compared between users.
    """

    catalogue: Catalogue
    histories: Histories
    timestamps: FloatArray
    notes: tuple[str, ...] = ()
    ordinal: bool = False

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.catalogue.name

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of users, items, texts and interactions."""
        return fingerprint(self.catalogue, self.histories, self.timestamps)
