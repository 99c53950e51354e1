"""Attempts: which uploads were sent, so that what appears in the bucket is known as ours.

Owns:  attempt ids, in the journal before they are sent and in the object's metadata after.
Never: sends; decides what an object of ours means (`writeback/verdict.py`, `writeback/deletes.py`).
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import replace

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.store import LATE_ATTEMPT_S, PendingStore
from r2fs.model.keys import nfc
from r2fs.model.metadata import ATTEMPT
from r2fs.model.records import Attempt, MultipartState, Version


class Attempts:
    def __init__(self, core: Core, pending_store: PendingStore) -> None:
        self._core = core
        self._pending = pending_store
        self._known: dict[str, Attempt] = {}

    def restore(self, attempts: tuple[Attempt, ...]) -> None:
        """At start: whatever was on its way then ended unseen."""
        for attempt in attempts:
            self._known[attempt.id] = replace(attempt, unknown=True)

    def begin(
        self, node: Node, key: str, resumed: MultipartState | None, copied: Version | None = None
    ) -> str:
        """A new attempt's id; that of the multipart upload of the very same bytes it goes on with.

        An id is of one content: who sees it in the bucket knows that these bytes are there. That of a copy
        says of which version.
        """
        attempt_id = resumed.attempt if resumed else uuid.uuid4().hex + (_of(copied) if copied else "")
        attempt = Attempt(attempt_id, node.ino, key, self._core.clock.time(), unknown=False)
        self._put(attempt)
        return attempt_id

    def doubt(self, attempt_id: str) -> None:
        """Nobody saw how it ended: its row stays, so that what appears is known as ours."""
        attempt = self._known.get(attempt_id)
        if attempt is not None:
            self._put(replace(attempt, unknown=True))

    def drop(self, attempt_id: str) -> None:
        """It was not carried out. One that a multipart upload goes on with stays."""
        attempt = self._known.get(attempt_id)
        if attempt is None:
            return
        begun = self._core.journal.multipart(attempt.ino)
        if begun is None or begun.attempt != attempt_id:
            self._forget(attempt)

    def arrived(self, ino: int, attempt_id: str) -> None:
        """This one is in the bucket. Others whose end nobody saw may still appear for a while.

        Those of inodes that still owe their keys stay however old: theirs may have appeared long ago,
        and what is found there is to be known as ours.
        """
        oldest = self._core.clock.time() - LATE_ATTEMPT_S
        for attempt in [a for a in self._known.values() if a.ino == ino or a.unknown]:
            recent = attempt.started_s > oldest or self._pending.watched(attempt.key)
            awaited = attempt.ino != ino and not self._has_left(attempt)
            if attempt.id == attempt_id or not (attempt.unknown and (recent or awaited)):
                self._forget(attempt)

    def accepted(self, metadata: Mapping[str, str] | None) -> None:
        """What is in the bucket is to stay, whichever attempt made it: that one is not looked for any more."""
        attempt = self._known.get((metadata or {}).get(ATTEMPT, ""))
        if attempt is not None:
            self._forget(attempt)

    def settle(self, ino: int) -> None:
        """Whatever the bucket has of this inode is good: nothing is expected, and nothing to be removed."""
        for attempt in [a for a in self._known.values() if a.ino == ino]:
            self._forget(attempt)

    def unwatched(self, key: str) -> None:
        """Nobody watches the key any more: attempts of inodes that are gone need no memory."""
        for attempt in [a for a in self._known.values() if nfc(a.key) == nfc(key)]:
            if attempt.ino not in self._pending.inodes:
                self._forget(attempt)

    def unknown_keys(self, ino: int) -> set[str]:
        """Where an object of this inode may yet appear."""
        return {a.key for a in self._known.values() if a.ino == ino and a.unknown}

    def any_at(self, key: str) -> bool:
        return any(nfc(a.key) == nfc(key) for a in self._known.values())

    def is_ours(self, metadata: Mapping[str, str] | None, key: str) -> bool:
        """Was the object at `key` made by an attempt of this host whose end nobody saw?"""
        attempt = self._known.get((metadata or {}).get(ATTEMPT, ""))
        return attempt is not None and nfc(attempt.key) == nfc(key)

    def is_copy(self, ino: int, of: Version, metadata: Mapping[str, str] | None) -> bool:
        """Was the object made by an attempt of this inode, whose end nobody saw, to copy that very version?"""
        attempt = self._known.get((metadata or {}).get(ATTEMPT, ""))
        return attempt is not None and attempt.ino == ino and attempt.id.endswith(_of(of))

    def may_be_copied(self, node: Node, version: Version) -> bool:
        """Is an attempt of this inode to copy that version on its way, or has nobody seen how it ended?"""
        return any(a.ino == node.ino and a.id.endswith(_of(version)) for a in self._known.values())

    def is_forsaken(self, metadata: Mapping[str, str] | None, key: str) -> bool:
        """Is it such an attempt, of an inode that has left that key since?"""
        attempt = self._known.get((metadata or {}).get(ATTEMPT, ""))
        return attempt is not None and nfc(attempt.key) == nfc(key) and self._has_left(attempt)

    def forsaken_keys(self) -> set[str]:
        """Keys at which an attempt of an inode may appear that has left them, or is gone."""
        return {a.key for a in self._known.values() if self._has_left(a)}

    def _has_left(self, attempt: Attempt) -> bool:
        node = self._pending.inodes.get(attempt.ino)
        return node is None or node.pending is None or nfc(node.pending.key) != nfc(attempt.key)

    def _put(self, attempt: Attempt) -> None:
        earlier = self._known.get(attempt.id)
        with self._pending.transaction():
            self._core.journal.put_attempt(attempt)
            self._pending.on_undo(lambda: self._restore(attempt.id, earlier))
            self._known[attempt.id] = attempt

    def _forget(self, attempt: Attempt) -> None:
        with self._pending.transaction():
            self._core.journal.drop_attempt(attempt.id)
            self._pending.on_undo(lambda: self._restore(attempt.id, attempt))
            del self._known[attempt.id]

    def _restore(self, attempt_id: str, attempt: Attempt | None) -> None:
        if attempt is None:
            self._known.pop(attempt_id, None)
        else:
            self._known[attempt_id] = attempt


def _of(version: Version) -> str:
    """An ETag may be long, and of any characters."""
    return "-of-" + hashlib.sha256(version.etag.encode()).hexdigest()[:16]
