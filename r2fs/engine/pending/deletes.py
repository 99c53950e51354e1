"""Pending deletes: objects to be deleted from the bucket, by seq, key and prefix, and objects deleted lately.

Owns:  the rows of the journal's table `pending_delete`, their indexes in memory, and the record by which a listing
       that began before a delete is not believed.
Never: sends a request (`writeback/deleter.py`). A delete is parked in memory alone: the next start tries it again.
Locks: Core.lock around every method; each change asserts that. Takes the journal's inside.
Keys:  in rows in the bucket's spelling; in the indexes in NFC, as R2 compares.
Fails: NoSpace or StateDamaged from the journal: memory is unchanged then.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, TypeVar

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.tally import is_local
from r2fs.model import causes
from r2fs.model.keys import SYMLINK_SUFFIX, nfc
from r2fs.model.records import PendingDelete

LATE_ATTEMPT_S = 600.0  # an attempt of unknown outcome may still appear: R2 drops an idle body after 15 s
REMEMBER_DELETES = 10_000  # of deletes carried out

T = TypeVar("T")


class Refusal(NamedTuple):
    """Reason and time (Clock.monotonic()) of parking."""

    reason: str
    since_s: float


class PendingDeletes:
    def __init__(self, core: Core) -> None:
        # constant
        self._core = core
        self._journal = core.journal
        # guarded by: Core.lock
        self.rows: dict[int, PendingDelete] = {}  # by seq; changed by this class alone
        self.parked: dict[int, Refusal] = {}  # by seq; a parked delete hides no object
        self.programs: dict[int, str] = {}  # by seq, of deletes that a program has caused
        self.claimed: set[int] = set()  # seqs of deletes on their way
        self.watches = 0  # rows that wait for a late attempt
        self._by_key: dict[str, set[int]] = {}
        self._below: Counter[str] = Counter()  # number of unparked deletes under each prefix
        self._done: dict[str, tuple[str, int]] = {}  # key: (ETag, tick) of a delete carried out
        self._done_below: dict[str, int] = {}  # prefix: tick of the last delete carried out below
        self._cleared: dict[str, str] = {}  # key: ETag of a version that is no late attempt

    # ------------------------------------------------------------------ rows
    def add(
        self, key: str, etag: str | None, after: Node | None = None, watch: bool = False
    ) -> PendingDelete:
        """Enter the delete of version `etag`; None: of any object of a late attempt, while `watch`.
        `after`: an inode without pending state first."""
        until = self._core.clock.time() + LATE_ATTEMPT_S if watch else None
        row = PendingDelete(self._journal.next_seq(), key, etag, after.ino if after else None, until)
        with self._journal.transaction:
            if not watch:
                self.void_parked(key, etag)
            self._journal.put_delete(row)
            self.adopt(row)
            if (program := causes.program()) is not None:
                self.programs[row.seq] = program
            if etag is not None and after is None:
                self._journal.on_commit(
                    lambda: self._core.history.note(0, key, "removed", f"ETag {etag}", program or "")
                )
            self._journal.on_rollback(lambda: self._leave(row.seq))
        return row

    def adopt(self, row: PendingDelete) -> None:
        """Enter a row that the journal has."""
        self._enter(row, None)

    def drop(self, seq: int, tick: int | None = None) -> None:
        """Remove a row: void or withdrawn, or carried out at `tick`, for comparison with listings on their way."""
        row, refusal = self.rows[seq], self.parked.get(seq)
        with self._journal.transaction:
            self._journal.drop_delete(seq)
            if tick is not None and row.etag is not None:
                self._journal.attributes.forget(row.key, row.etag)
            self._journal.on_rollback(lambda: self._enter(row, refusal))
            self._leave(seq)
        if tick is not None and row.etag is not None:
            self.carried_out(row.key, row.etag, tick)
        self._core.changed.notify_all()

    def expected_etag_at(self, key: str) -> str | None:
        """Return the ETag that a new inode at `key` will replace, and void its pending delete. In a transaction."""
        return None if is_local(key, self._core.settings.local_patterns) else self.take_over(key)

    def take_over(self, key: str) -> str | None:
        """Void the deletes at `key`, where a new object is to be, that are not on their way; return the ETag to
        expect.

        Overwriting is one request where delete and put would be two, and leaves no moment without the name.
        """
        expected_etag = None
        for seq in self._at(key):
            row = self.rows[seq]
            if seq not in self.claimed and row.watch_until_s is None:
                expected_etag = row.etag or expected_etag
                self.drop(seq)
        return expected_etag

    def of_version(self, key: str, etag: str) -> PendingDelete | None:
        """The delete of exactly this version that is pending, and neither parked nor on its way."""
        for seq in self._at(key):
            row = self.rows[seq]
            if row.key == key and row.etag == etag and row.watch_until_s is None:
                if seq not in self.parked and seq not in self.claimed:
                    return row
        return None

    def of_others(self, key: str, etag: str) -> list[PendingDelete]:
        """Return the deletes of other versions at `key` that are not on their way, in the order of their rows."""
        rows = [self.rows[seq] for seq in self._at(key) if seq not in self.claimed]
        return [row for row in rows if row.watch_until_s is None and row.etag != etag]

    def renumber(self, row: PendingDelete) -> PendingDelete:
        """Enter a row anew, as the latest of its key, whose version `take_over` returns. The caller schedules it."""
        refusal, program = self.parked.get(row.seq), self.programs.get(row.seq)
        latest = row._replace(seq=self._journal.next_seq())
        with self._journal.transaction:
            self.drop(row.seq)
            self._journal.put_delete(latest)
            self._enter(latest, refusal)
            if program is not None:
                self.programs[latest.seq] = program
            self._journal.on_rollback(lambda: self._leave(latest.seq))
        return latest

    def any_at(self, key: str) -> bool:
        """True if a delete at exactly `key` is pending, parked ones included."""
        return nfc(key) in self._by_key

    # ------------------------------------------------------------------ refused by the bucket
    def park(self, seq: int, reason: str) -> None:
        """Stop trying a delete that the bucket refuses. Its object is shown again."""
        self._core.assert_held()
        self.parked[seq] = Refusal(reason, self._core.clock.monotonic())
        self._uncover(self.rows[seq])
        self._core.changed.notify_all()

    def release(self, seq: int) -> PendingDelete:
        """End the parking of a delete; the caller schedules the delete."""
        self._core.assert_held()
        del self.parked[seq]
        row = self.rows[seq]
        self._below.update(_prefixes(row.key))
        return row

    def is_refused(self, key: str, etag: str) -> bool:
        """True if a delete of exactly this version is parked."""
        return any(self.rows[seq].etag == etag for seq in self._parked_at(key))

    def void_parked(self, key: str, etag: str | None = None) -> None:
        """Drop parked deletes at `key` (of version `etag`; None: of any): their name was shown again, and is now
        used or deleted anew. In a transaction."""
        for seq in self._parked_at(key):
            if etag is None or self.rows[seq].etag == etag:
                self.drop(seq)

    # ------------------------------------------------------------------ visibility in listings
    def hides(self, key: str, etag: str | None, began: int) -> bool:
        """True if the delete of this version is pending, or was carried out since tick `began`."""
        for seq in self._at(key):
            if self.rows[seq].etag == etag and seq not in self.parked:
                return True
        done = self._done.get(nfc(key))
        return done is not None and done[1] > began and done[0] == etag

    def any_below(self, prefix: str, began: int) -> bool:
        """True if a delete below `prefix` is pending and not parked, or was carried out since tick `began`."""
        prefix = nfc(prefix)
        return self._below[prefix] > 0 or self._done_below.get(prefix, 0) > began

    def any_added_below(self, prefix: str, seq: int) -> bool:
        """True if a delete below `prefix` that was added after row `seq` is pending and not parked.

        The watch for a late attempt is none: the file itself may be there.
        """
        prefix = nfc(prefix)
        return self._below[prefix] > 0 and any(
            row.seq > seq
            and row.watch_until_s is None
            and row.seq not in self.parked
            and nfc(row.key).startswith(prefix)
            for row in self.rows.values()
        )

    def any_lately(self, key: str) -> bool:
        """True if a delete at or below `key` (without a slash at the end) is pending or was carried out lately."""
        names = (nfc(key), nfc(key + SYMLINK_SUFFIX), nfc(key + "/"))
        return any(name in self._by_key or name in self._done for name in names) or self.any_below(
            names[2], 0
        )

    def carried_out(self, key: str, etag: str, tick: int) -> None:
        """Record that this version was deleted at `tick`: listings that began before are stale."""
        self.suspect_again(key)  # a late attempt of the same bytes has the same ETag
        _remember_last(self._done, nfc(key), (etag, tick))
        for prefix in _prefixes(key):
            _remember_last(self._done_below, prefix, tick)

    # ------------------------------------------------------------------ late attempts
    def watched(self, key: str) -> PendingDelete | None:
        """The row that waits for an attempt of unknown outcome at `key`."""
        for seq in self._at(key):
            if self.rows[seq].watch_until_s is not None:
                return self.rows[seq]
        return None

    def is_suspect(self, key: str, etag: str) -> bool:
        """True if this object may be a late attempt of this host: a HEAD decides, and `cleared` records a no."""
        return self.watched(key) is not None and self._cleared.get(nfc(key)) != etag

    def cleared(self, key: str, etag: str) -> None:
        """Record, after the commit, that this version is no late attempt, or has a delete of its own."""
        self._journal.on_commit(lambda: _remember_last(self._cleared, nfc(key), etag))

    def suspect_again(self, key: str) -> None:
        """Suspect any version at `key`, which an inode has left: an attempt of that inode is late now."""
        self._cleared.pop(nfc(key), None)

    # ------------------------------------------------------------------ indexes
    def _at(self, key: str) -> list[int]:
        found = self._by_key.get(nfc(key))
        return sorted(found) if found else []

    def _parked_at(self, key: str) -> list[int]:
        return [seq for seq in self._at(key) if seq in self.parked] if self.parked else []

    def _enter(self, row: PendingDelete, refusal: Refusal | None) -> None:
        self._core.assert_held()
        self.rows[row.seq] = row
        self.watches += row.watch_until_s is not None
        self._by_key.setdefault(nfc(row.key), set()).add(row.seq)
        if refusal is None:
            self._below.update(_prefixes(row.key))
        else:
            self.parked[row.seq] = refusal

    def _leave(self, seq: int) -> None:
        self._core.assert_held()
        row = self.rows.pop(seq)
        self.watches -= row.watch_until_s is not None
        self.programs.pop(seq, None)
        seqs = self._by_key[nfc(row.key)]
        seqs.discard(seq)
        if not seqs:
            del self._by_key[nfc(row.key)]
        if self.parked.pop(seq, None) is None:
            self._uncover(row)

    def _uncover(self, row: PendingDelete) -> None:
        for prefix in _prefixes(row.key):
            self._below[prefix] -= 1
            if self._below[prefix] <= 0:
                del self._below[prefix]


def _prefixes(key: str) -> list[str]:
    """Of `a/b/c`: `a/` and `a/b/`; of a directory's key also the key. In NFC."""
    key = nfc(key)
    parts = key.rstrip("/").split("/")
    above = ["/".join(parts[:n]) + "/" for n in range(1, len(parts))]
    return [*above, key] if key.endswith("/") else above


def _remember_last(memory: dict[str, T], key: str, value: T) -> None:
    """Keep the newest last; drop the oldest beyond REMEMBER_DELETES."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > REMEMBER_DELETES:
        del memory[next(iter(memory))]
