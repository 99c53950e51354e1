"""Settling of one name: look at file and object, decide, carry the decision out, and record what is in step.

The bytes are durable on both sides before their row says so: after a kill at any step the next mirror decides rightly.

Never:   removes a file or an object by a listing alone, or one that changed since it was in step.
Threads: `step` in several, for different names.
Fails:   Later where a name has to wait; NotMirrored, StoreError and LocalError of its parts.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from r2fs.disk.mirror_record import InStep, MirrorRecord
from r2fs.disk.plain_tree import OUT, OWN, PART, Changed, Local, Obstructed, PlainTree
from r2fs.mirror.decide import Action, Way, decide
from r2fs.mirror.download import Downloader
from r2fs.mirror.names import Names
from r2fs.mirror.queue import Counts, Hint
from r2fs.mirror.upload import Job, Uploader, is_same
from r2fs.model.errors import BodyWithdrawn, ObjectMissing, PreconditionFailed
from r2fs.model.keys import conflict_name, printable
from r2fs.model.metadata import ATTEMPT
from r2fs.model.ports import ObjectStore
from r2fs.model.records import ObjectInfo
from r2fs.model.settings import Settings

log = logging.getLogger(__name__)

OPEN_STILL_S = 10.0  # a file open for writing is sent after so long without a write
LOOK_AGAIN_S = 0.5  # for a file that a program writes, or an object that another host writes
DECISIONS = 3  # of one step; then another host or a program is at work


class Later(Exception):
    """The name has to wait: a program or another host is at work."""

    def __init__(self, seconds: float, is_open: bool = False) -> None:
        """Wait for `seconds`; with `is_open` for a program that has the file open for writing."""
        super().__init__(seconds)
        self.seconds = seconds
        self.is_open = is_open


@dataclass(frozen=True, slots=True)
class Rules:
    way: Way = Way.BOTH
    delete: bool = False  # carry removals to the other side


@dataclass(slots=True, eq=False)
class Parts:
    """The two sides, the record of both, and the settings, which a reload replaces."""

    store: ObjectStore
    tree: PlainTree
    record: MirrorRecord
    names: Names
    settings: Settings


@dataclass(frozen=True, slots=True)
class _Seen:
    """The file and the object of a name, as of one moment. `certain`: the object by a request of its own."""

    name: str
    step: InStep
    local: Local | None
    info: ObjectInfo | None
    certain: bool

    @property
    def etag(self) -> str | None:
        return None if self.info is None else self.info.etag


class Settler:
    def __init__(self, parts: Parts, rules: Rules, touched: Callable[[str], None]) -> None:
        """`touched` gets the name of each new conflict copy."""
        # constant
        self._touched = touched
        self._store = parts.store
        self._tree = parts.tree
        self._record = parts.record
        self._names = parts.names
        self._parts = parts
        self._rules = rules
        self.uploader = Uploader(parts.store, parts.tree, parts.record, lambda: parts.settings)
        self._downloader = Downloader(parts.store, parts.tree, parts.record, parts.settings.umask)
        self._actions = {
            Action.FORGET: self._forget,
            Action.UPLOAD: self._upload,
            Action.DOWNLOAD: self._download,
            Action.DELETE: self._delete,
            Action.REMOVE: self._remove,
            Action.LEAVE: self._leave,
            Action.COMPARE: self._compare,
        }

    def step(self, name: str, hint: Hint | None, hurried: bool) -> Counts:
        """Bring `name` into step. `hint`: the object as a listing showed it; `hurried`: without the usual delay."""
        for number in range(DECISIONS):
            seen = self._look(name, hint if not number else None, certain=number > 0)
            if seen is None:
                return Counts()
            action = self.decide(seen.step, seen.local, seen.etag)
            if not seen.certain and self._needs_certainty(action, seen):
                seen = self._certain(seen)
                action = self.decide(seen.step, seen.local, seen.etag)
            if action is Action.NOTHING:
                if seen.certain and seen.step.attempt is not None and seen.local == seen.step.local:
                    self._record.put(name, replace(seen.step, attempt=None))
                return Counts()
            if action.sends and seen.local is not None:
                self._require_still(name, seen.local, hurried)
            try:
                return self._actions[action](seen)
            except (PreconditionFailed, ObjectMissing, Changed, BodyWithdrawn) as error:
                log.debug("%s: looked at again: %s", printable(name), error)
        raise Later(LOOK_AGAIN_S)

    @property
    def brings(self) -> bool:
        """True if objects come down."""
        return self._rules.way is not Way.UP

    def decide(self, step: InStep, local: Local | None, etag: str | None) -> Action:
        return decide(step, local, etag, self._rules.way, self._rules.delete)

    # ------------------------------------------------------------------ looking
    def _look(self, name: str, hint: Hint | None, certain: bool) -> _Seen | None:
        """None: nothing has changed here, and nothing is known of the bucket."""
        step, local = self._record.get(name), self._tree.stat(self._names.path(name))
        if hint is not None:
            return _Seen(name, step, local, hint.info, False)
        if not certain:
            if local == step.local and step.attempt is None:
                return None
            if step == InStep():
                return _Seen(name, step, local, None, False)  # the condition of the upload looks
        return self._certain(_Seen(name, step, local, None, False))

    def _needs_certainty(self, action: Action, seen: _Seen) -> bool:
        """True if a listing, or no look at all, is not enough to act on."""
        if action is Action.DOWNLOAD:
            return seen.step.attempt is not None
        return not (action is Action.UPLOAD and seen.info is None and seen.step == InStep())

    def _certain(self, seen: _Seen) -> _Seen:
        """Send a HEAD. An object of an earlier upload of this mirror, of which the answer was lost, counts as in step."""
        info = self._head(self._names.key(seen.name))
        step = seen.step
        if step.attempt is not None and info is not None and info.etag != step.etag:
            if (info.metadata or {}).get(ATTEMPT) == step.attempt:
                step = replace(step, etag=info.etag)
                self._record.put(seen.name, step)
        return _Seen(seen.name, step, seen.local, info, True)

    def _head(self, key: str) -> ObjectInfo | None:
        try:
            return self._store.head(key)
        except ObjectMissing:
            return None

    def _require_still(self, name: str, local: Local, hurried: bool) -> None:
        """Raise Later for a file that may not be complete: just changed, or open for writing."""
        age_s = time.time() - local.ctime_ns / 1e9
        delay_s = 0.0 if hurried else self._parts.settings.upload_delay_s
        if 0 <= age_s < delay_s:
            raise Later(max(0.05, delay_s - age_s))
        if age_s < OPEN_STILL_S and self._tree.is_open_for_writing(self._names.path(name)):
            raise Later(LOOK_AGAIN_S, is_open=True)

    def _require_no_writer(self, seen: _Seen) -> None:
        if seen.local is not None and self._tree.is_open_for_writing(self._names.path(seen.name)):
            raise Later(LOOK_AGAIN_S, is_open=True)

    # ------------------------------------------------------------------ actions
    def _forget(self, seen: _Seen) -> Counts:
        self._record.put(seen.name, InStep())
        return Counts()

    def _leave(self, seen: _Seen) -> Counts:
        self._record.put(seen.name, InStep(seen.local, seen.etag))
        kept = "the object stays" if seen.local is None else "the file stays"
        log.info("%s: removed on one side only, without --delete %s", printable(seen.name), kept)
        return Counts()

    def _upload(self, seen: _Seen) -> Counts:
        assert seen.local is not None
        attempt = seen.step.attempt or secrets.token_hex(16)
        if seen.step.attempt is None:
            self._record.begin_attempt(seen.name, attempt)
        key = self._names.key(seen.name)
        etag, size = self.uploader.send(Job(self._names.path(seen.name), key, seen.local, seen.info, attempt))
        self._record.put(seen.name, InStep(seen.local, etag))
        log.debug("%s: sent", printable(seen.name))
        return Counts(sent=1, sent_bytes=size)

    def _download(self, seen: _Seen) -> Counts:
        assert seen.info is not None
        self._require_no_writer(seen)
        local = self._downloader.fetch(seen.info, self._names.path(seen.name), seen.local)
        self._record.put(seen.name, InStep(local, seen.info.etag))
        log.debug("%s: fetched", printable(seen.name))
        return Counts(fetched=1, fetched_bytes=seen.info.size)

    def _delete(self, seen: _Seen) -> Counts:
        assert seen.info is not None
        self._tree.require_id(self._record.tree_id())
        self._store.delete(seen.info.key)
        self._record.put(seen.name, InStep())
        log.info("%s: removed here, and now in the bucket", printable(seen.name))
        return Counts(deleted=1)

    def _remove(self, seen: _Seen) -> Counts:
        assert seen.local is not None
        self._require_no_writer(seen)
        path, out = self._names.path(seen.name), self._tree.new_name(OUT)
        self._record.add_leaving(out, path, 0)
        self._tree.remove(path, out, seen.local)
        self._record.drop_leaving(out)
        self._record.put(seen.name, InStep())
        log.info("%s: removed in the bucket, and now here", printable(seen.name))
        return Counts(removed=1)

    def _compare(self, seen: _Seen) -> Counts:
        """Both sides are new: in step if their bytes are equal, else both are kept."""
        assert seen.local is not None
        assert seen.info is not None
        self._require_no_writer(seen)
        fd = self._tree.open(self._names.path(seen.name))
        try:
            size = seen.local.size
            equal = is_same(self._store, fd, size, seen.info, self.uploader.part_size(size))
            if Local.of(os.fstat(fd)) != seen.local:
                raise Changed(f"{printable(seen.name)} was changed")
            if equal:  # before the row: a file that is missing after a power cut must have been removed
                os.fsync(fd)
        finally:
            os.close(fd)
        if equal:
            self._tree.sync_name(self._names.path(seen.name))
            self._record.put(seen.name, InStep(seen.local, seen.info.etag))
            return Counts()
        kept = self._keep_both(seen)
        return kept + self._download(replace(seen, local=None))

    # ------------------------------------------------------------------ conflicts
    def _keep_both(self, seen: _Seen) -> Counts:
        """Give the file a conflict name; the object keeps the name."""
        assert seen.local is not None
        directory, slash, last = self._names.path(seen.name).rpartition("/")
        for number in range(1, 1000):
            new = directory + slash + conflict_name(last, self._parts.settings.host, time.time(), number)
            if self._is_taken(new):
                continue
            self._tree.rename(self._names.path(seen.name), new)
            log.warning(
                "%s: another host wrote it first; this host's content is kept as %s",
                printable(seen.name),
                printable(new),
            )
            self._record.put(seen.name, InStep(None, seen.step.etag))
            self._touched(self._names.of_path(new))
            return Counts(conflicts=1)
        raise Obstructed(f"{printable(seen.name)}: no conflict name is free")

    def _is_taken(self, path: str) -> bool:
        name = self._names.of_path(path)
        if self._tree.stat(path) is not None or self._record.get(name) != InStep():
            return True
        return self._head(self._names.key(name)) is not None

    # ------------------------------------------------------------------ after a kill
    def recover(self) -> None:
        """Settle the files and uploads that a killed mirror left on their way."""
        entries = {entry.own: entry for entry in self._record.leaving()}
        for own, found in self._tree.left().items():
            entry = entries.get(own)
            if own.startswith(PART) or (entry is not None and found.st_ino == entry.ino):
                self._tree.discard(own)  # a download
                continue
            if entry is None:  # its row was lost in a power cut
                log.warning(
                    "%s is kept: a file that was being replaced or removed", self._tree.root / OWN / own
                )
                continue
            known = self._record.get(self._names.of_path(entry.path)).local
            if known is not None and known.is_content_of(found):
                self._tree.discard(own)  # the file that was to be replaced or removed
                continue
            self._put_back(own, entry.path)
        for own in entries:
            self._record.drop_leaving(own)
        for key, upload_id in self._record.multiparts():
            self.uploader.abort(key, upload_id)

    def _put_back(self, own: str, path: str) -> None:
        """Give a program's file its name back, or a conflict name."""
        directory, slash, last = path.rpartition("/")
        named = partial(conflict_name, last, self._parts.settings.host, time.time())
        for new in (path, *(directory + slash + named(number) for number in range(1, 1000))):
            try:
                self._tree.put_back(own, new)
            except Changed:
                continue
            log.warning(
                "%s: written while the last mirror was killed; it is kept as %s",
                printable(path),
                printable(new),
            )
            return
