"""A small key-value file that several processes may read and write at once."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock

WAIT = 60.0
"""Seconds to wait for another process that is writing."""


def connect(path: Path | None, table: str) -> sqlite3.Connection:
    """A journalled (WAL) SQLite file with one table, made where there is none.

    One process at a time opens it: giving a new file its journal fails at once, without waiting, while
    another process does the same.

    Args:
        path: the file; its folder is made too. None for a table in memory.
        table: name and columns, as in ``CREATE TABLE``.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if path is None else FileLock(f"{path}.lock", timeout=WAIT):
        connection = sqlite3.connect(path or ":memory:", timeout=WAIT, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
    return connection


class Store:
    """Values by key in one SQLite file, in memory where ``path`` is None.

    Journalled (WAL): a record that was being written when its process died is gone, all others are
    intact. What a key was given first stays, so that two processes agree.
    """

    def __init__(self, path: Path | None) -> None:
        self._connection = connect(path, "entry (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._connection.execute("PRAGMA synchronous=NORMAL")

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values there are, by key."""
        found = (self._connection.execute("SELECT key, value FROM entry WHERE key = ?", (key,)) for key in keys)
        return {key: value for rows in found for key, value in rows}

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Store values in one transaction; a key that has one keeps it."""
        rows: Sequence[tuple[str, bytes]] = list(entries.items())
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR IGNORE INTO entry VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
