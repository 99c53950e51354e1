"""The journal's table of pins: keys whose content stays on this host.

Owns:    the SQL of the table `pin` (its columns: schema.py).
Threads: every method is thread-safe, by the journal's lock.
Fails:   as the journal does.
"""

from __future__ import annotations

from collections.abc import Iterable

from r2fs.disk.database import Database
from r2fs.model.records import Pin


class PinRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Pin]:
        """Return the pins, by key."""
        return [
            Pin(*values)
            for values in self._database.query("SELECT key, session, since_s FROM pin ORDER BY key, session")
        ]

    def put(self, pins: Iterable[Pin]) -> None:
        """Keep the pins in one transaction; those that exist keep their time."""
        with self._database.transaction():
            for pin in pins:
                self._database.run(
                    "INSERT OR IGNORE INTO pin VALUES (?, ?, ?)", (pin.key, pin.session, pin.since_s)
                )

    def drop(self, pins: Iterable[Pin]) -> None:
        with self._database.transaction():
            for pin in pins:
                self._database.run("DELETE FROM pin WHERE key = ? AND session = ?", (pin.key, pin.session))
