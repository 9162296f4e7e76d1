"""A small key-value file that several processes may read and write at once."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

WAIT = 60.0
"""Seconds to wait for another process that is writing."""


class Store:
    """Values by key in one SQLite file.

    Journalled (WAL): a record that was being written when its process died is gone, all others are
    intact. What a key was given first stays, so that two processes agree.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

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
