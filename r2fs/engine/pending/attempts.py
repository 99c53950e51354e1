"""Attempts: uploads that were sent, so that an object that appears in the bucket is recognised as this host's.

Owns:  attempt ids, in the journal before they are sent and in the object's metadata after; the copy of an inode's
       state that one attempt sends.
Never: sends; decides the fate of an object of this host's (`writeback/verdict.py`, `writeback/deletes.py`).
Locks: Core.lock around every method; each change asserts that. Takes the journal's inside.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from r2fs.disk.body import Gate
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.deletes import LATE_ATTEMPT_S
from r2fs.engine.pending.store import PendingStore
from r2fs.model.keys import nfc
from r2fs.model.metadata import ATTEMPT, Facts
from r2fs.model.ranges import Range
from r2fs.model.records import Attempt, Condition, Kind, MultipartState, ObjectInfo, Version


@dataclass(frozen=True, slots=True)
class UploadJob:
    """The input of one attempt, copied under the lock when its inode is claimed.

    An upload thread reads the job and no node, so that a change made meanwhile cannot mix into the attempt.
    """

    ino: int
    kind: Kind
    key: str
    keys: Collection[str]  # in NFC, written or copied from
    name: str
    attempt: str
    expected_etag: str | None
    facts: Facts
    known: bool  # `facts` has all of the base's metadata
    stored: Facts | None  # the base's metadata when last seen; None: not known
    base: Version | None
    copy: bool  # the bytes are the base's, copied inside the bucket
    body: bytes | None  # a directory's or a symbolic link's
    fd: int  # of the staged file, ours to close; -1: none
    size: int
    gate: Gate
    sent: Callable[[int], None]
    edits: tuple[Range, ...] | None = None  # where the bytes differ from the base's; None: anywhere
    begun: bool = False  # the journal has a multipart upload of the inode, of these bytes or of earlier ones

    @property
    def condition(self) -> Condition:
        return Condition(self.expected_etag)

    @property
    def replaces_base(self) -> bool:
        """True if the file's metadata were read from the object to be overwritten."""
        if self.kind is Kind.DIRECTORY:
            return self.expected_etag is not None
        return self.base is not None and (self.base.key, self.base.etag) == (self.key, self.expected_etag)


class Attempts:
    def __init__(self, core: Core, pending_store: PendingStore) -> None:
        # constant
        self._core = core
        self._journal = core.journal
        self._pending = pending_store
        # guarded by: Core.lock
        self._known: dict[str, Attempt] = {}  # by id

    def restore(self, attempts: tuple[Attempt, ...]) -> None:
        """Enter, at start, the attempts of earlier daemons: the outcome of all is unknown."""
        for attempt in attempts:
            self._known[attempt.id] = attempt._replace(unknown=True)

    def begin(
        self, node: Node, key: str, resumed: MultipartState | None, copied: Version | None = None
    ) -> str:
        """Return a new attempt's id, or that of the multipart upload of the same bytes that is resumed.

        An id belongs to one content: any object in the bucket with this id has the same bytes. The id of a copy
        names the version `copied`.
        """
        attempt_id = resumed.attempt if resumed else uuid.uuid4().hex + (_of(copied) if copied else "")
        self._put(Attempt(attempt_id, node.ino, key, self._core.clock.time(), unknown=False))
        return attempt_id

    # ------------------------------------------------------------------ outcomes
    def doubt(self, attempt_id: str) -> None:
        """Mark the outcome unknown, so that the object is recognised as this host's if seen later."""
        attempt = self._known.get(attempt_id)
        if attempt is not None:
            self._put(attempt._replace(unknown=True))

    def drop(self, attempt_id: str) -> None:
        """Forget an attempt that stored nothing, unless a multipart upload resumes the attempt."""
        attempt = self._known.get(attempt_id)
        if attempt is None:
            return
        begun = self._journal.multipart(attempt.ino)
        if begun is None or begun.attempt != attempt_id:
            self._forget(attempt)

    def arrived(self, ino: int, attempt_id: str) -> None:
        """Forget an attempt that stored its object, and old ones of unknown outcome: these appear within
        LATE_ATTEMPT_S or never.

        Attempts of other inodes that still have their keys stay at any age: the objects may be old, and
        must be recognised.
        """
        oldest = self._core.clock.time() - LATE_ATTEMPT_S
        for attempt in [a for a in self._known.values() if a.ino == ino or a.unknown]:
            recent = attempt.started_s > oldest or self._pending.deletes.watched(attempt.key)
            awaited = attempt.ino != ino and not self._is_orphan(attempt)
            if attempt.id == attempt_id or not (attempt.unknown and (recent or awaited)):
                self._forget(attempt)

    def accepted(self, metadata: Mapping[str, str] | None) -> None:
        """Forget the attempt that made an object, known by its metadata, that is to stay in the bucket."""
        attempt = self._by(metadata)
        if attempt is not None:
            self._forget(attempt)

    def settle(self, ino: int) -> None:
        """Forget the inode's attempts: any object of theirs is to stay."""
        for attempt in [a for a in self._known.values() if a.ino == ino]:
            self._forget(attempt)

    def unwatched(self, key: str) -> None:
        """Forget attempts at a key that is no longer watched, of inodes with no pending state."""
        for attempt in [a for a in self._known.values() if nfc(a.key) == nfc(key)]:
            if attempt.ino not in self._pending.inodes:
                self._forget(attempt)

    # ------------------------------------------------------------------ recognition
    def unknown_keys(self, ino: int) -> set[str]:
        """Return the keys at which an object of this inode may still appear."""
        return {a.key for a in self._known.values() if a.ino == ino and a.unknown}

    def may_arrive(self, ino: int) -> bool:
        """True if an object of this inode may still appear in the bucket."""
        oldest = self._core.clock.time() - LATE_ATTEMPT_S
        return any(a.ino == ino and a.started_s > oldest for a in self._known.values())

    def any_at(self, key: str) -> bool:
        return any(nfc(a.key) == nfc(key) for a in self._known.values())

    def is_ours(self, metadata: Mapping[str, str] | None, key: str) -> bool:
        """True if the object at `key` was made by an attempt of this host."""
        attempt = self._by(metadata)
        return attempt is not None and nfc(attempt.key) == nfc(key)

    def is_copy(self, ino: int, of: Version, metadata: Mapping[str, str] | None) -> bool:
        """True if the object was made by an attempt of this inode to copy exactly the version `of`."""
        attempt = self._by(metadata)
        return attempt is not None and attempt.ino == ino and attempt.id.endswith(_of(of))

    def may_be_copied(self, node: Node, version: Version) -> bool:
        """True if an attempt of this inode to copy that version is on its way, or its outcome is unknown."""
        return any(a.ino == node.ino and a.id.endswith(_of(version)) for a in self._known.values())

    def is_orphaned(self, metadata: Mapping[str, str] | None, key: str) -> bool:
        """True if the object at `key` was made by an orphaned attempt: its inode has another key now, or none."""
        attempt = self._by(metadata)
        return attempt is not None and nfc(attempt.key) == nfc(key) and self._is_orphan(attempt)

    def is_late(self, info: ObjectInfo) -> bool:
        """True if an orphaned attempt made the object, and this host has stored no such version there since.

        A late attempt can replace an object by the same bytes: its If-Match holds, and the ETag stays.
        """
        if not self.is_orphaned(info.metadata, info.key):
            return False
        kept = self._journal.attributes.get(info.key)
        return kept is None or kept.etag != info.etag

    def orphaned_keys(self) -> set[str]:
        """Return the keys at which the object of an orphaned attempt may appear."""
        return {a.key for a in self._known.values() if self._is_orphan(a)}

    def _by(self, metadata: Mapping[str, str] | None) -> Attempt | None:
        return self._known.get((metadata or {}).get(ATTEMPT, ""))

    def _is_orphan(self, attempt: Attempt) -> bool:
        node = self._pending.inodes.get(attempt.ino)
        return node is None or node.pending is None or nfc(node.pending.key) != nfc(attempt.key)

    # ------------------------------------------------------------------ rows
    def _put(self, attempt: Attempt) -> None:
        self._core.assert_held()
        earlier = self._known.get(attempt.id)
        self._journal.put_attempt(attempt)
        self._journal.on_rollback(lambda: self._undo(attempt.id, earlier))
        self._known[attempt.id] = attempt

    def _forget(self, attempt: Attempt) -> None:
        self._core.assert_held()
        self._journal.drop_attempt(attempt.id)
        self._journal.on_rollback(lambda: self._undo(attempt.id, attempt))
        del self._known[attempt.id]

    def _undo(self, attempt_id: str, earlier: Attempt | None) -> None:
        if earlier is None:
            self._known.pop(attempt_id, None)
        else:
            self._known[attempt_id] = earlier


def _of(version: Version) -> str:
    """Return the end of the id of an attempt to copy `version`: a digest, since an ETag may have any characters."""
    return "-of-" + hashlib.sha256(version.etag.encode()).hexdigest()[:16]
