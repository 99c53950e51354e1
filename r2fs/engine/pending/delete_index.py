"""Delete index: pending deletes by seq, by key and by prefix, and which of them are parked.

Owns:  the indexes, in memory. The rows are in the journal; `pending/store.py` changes both together.
Never: decides anything. That a delete is parked is in memory alone: the next start tries it again.
Locks: every method is called with Core.lock held.
Keys:  compared as R2 does, in NFC.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from r2fs.model.keys import nfc
from r2fs.model.records import PendingDelete


class Refusal(NamedTuple):
    """Why a delete is parked, and since when (Clock.monotonic())."""

    reason: str
    since_s: float


class DeleteIndex:
    def __init__(self) -> None:
        self.rows: dict[int, PendingDelete] = {}  # by seq
        self.parked: dict[int, Refusal] = {}  # by seq; these hide nothing
        self._by_key: dict[str, set[int]] = {}
        self._below: Counter[str] = Counter()  # those under each prefix that hide something

    def add(self, row: PendingDelete, parked: Refusal | None = None) -> None:
        self.rows[row.seq] = row
        self._by_key.setdefault(nfc(row.key), set()).add(row.seq)
        if parked is None:
            self._below.update(prefixes(row.key))
        else:
            self.parked[row.seq] = parked

    def remove(self, seq: int) -> None:
        row = self.rows.pop(seq)
        seqs = self._by_key[nfc(row.key)]
        seqs.discard(seq)
        if not seqs:
            del self._by_key[nfc(row.key)]
        if self.parked.pop(seq, None) is None:
            self._uncover(row)

    def park(self, seq: int, refusal: Refusal) -> None:
        self.parked[seq] = refusal
        self._uncover(self.rows[seq])

    def release(self, seq: int) -> PendingDelete:
        del self.parked[seq]
        row = self.rows[seq]
        self._below.update(prefixes(row.key))
        return row

    def _uncover(self, row: PendingDelete) -> None:
        for prefix in prefixes(row.key):
            self._below[prefix] -= 1
            if self._below[prefix] <= 0:
                del self._below[prefix]

    def at(self, key: str) -> list[int]:
        found = self._by_key.get(nfc(key))
        return sorted(found) if found else []

    def parked_at(self, key: str) -> list[int]:
        return [seq for seq in self.at(key) if seq in self.parked] if self.parked else []

    def any_at(self, key: str) -> bool:
        return nfc(key) in self._by_key

    def any_below(self, prefix: str) -> bool:
        """Parked ones do not count."""
        return self._below[nfc(prefix)] > 0


def prefixes(key: str) -> list[str]:
    """Of `a/b/c`: `a/` and `a/b/`; of a directory's key that itself, too. In NFC."""
    key = nfc(key)
    parts = key.rstrip("/").split("/")
    above = ["/".join(parts[:n]) + "/" for n in range(1, len(parts))]
    return [*above, key] if key.endswith("/") else above
