"""Files: open, read, write, truncate, fsync and close, by node and handle.

Owns:    the moment at which a file becomes dirty (OPEN_WRITE) and the one at which it is sealed.
Never:   fetches (`reader.py`) or sends (`writeback.py`) itself.
Threads: every public method is thread-safe; some are called with the lock held, and say so.
Locks:   takes Core.lock (30); never while it waits for bytes, for room or for an fsync.
Fails:   FileError's subclasses; NoSpace past the quota, the dirty limit and the disk; LocalError where the disk
         fails; WouldWait where the caller may not wait.

A writer's open is in the journal before it is answered, so that nothing of what it writes can
be forgotten: kill -9 at any moment after leaves a row and a file in staging.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from r2fs.disk.durable import outwait_file_time
from r2fs.engine.attributes import file_times
from r2fs.engine.backpressure import BackPressure
from r2fs.engine.contents import Contents
from r2fs.engine.core import Core
from r2fs.engine.digests import Digests
from r2fs.engine.filling import Filling
from r2fs.engine.handles import Handle, Handles
from r2fs.engine.jobs import JobQueue
from r2fs.engine.leaving import Leaving
from r2fs.engine.ledger import Ledger
from r2fs.engine.node import DOUBTFUL, Node, Owed
from r2fs.engine.reader import Reader
from r2fs.engine.room import Room
from r2fs.engine.space import Space
from r2fs.engine.tree import Tree
from r2fs.engine.writeback import WriteBack
from r2fs.model.errors import (
    BadHandle,
    IsADirectory,
    LocalError,
    NoSpace,
    R2fsError,
    ReadOnly,
    Stale,
)
from r2fs.model.metadata import of_new_bytes
from r2fs.model.ports import Caller
from r2fs.model.records import Kind, Opened
from r2fs.model.states import UNSEALED, Event, State

log = logging.getLogger(__name__)


class Files:
    def __init__(
        self,
        core: Core,
        tree: Tree,
        ledger: Ledger,
        contents: Contents,
        reader: Reader,
        writeback: WriteBack,
        jobs: JobQueue,
        leaving: Leaving,
        space: Space,
    ) -> None:
        self._core = core
        self._tree = tree
        self._ledger = ledger
        self._contents = contents
        self._reader = reader
        self._writeback = writeback
        self._jobs = jobs
        self._leaving = leaving
        self._syncing = writeback.syncing
        self._space = space
        self._digests = Digests(core, jobs)
        self.handles = Handles()
        self.filling = Filling(core, ledger, contents, reader, writeback, jobs, self.handles)
        self.room = Room(core, contents, leaving)
        self.pressure = BackPressure(core, ledger, self.handles, self.room)
        contents.make_room, reader.make_room = self.room.make_now, self.room.make
        writeback.on_unsealed = self.seal_unsealed

    # ------------------------------------------------------------------ opening
    def open(self, caller: Caller, node: Node, flags: int) -> Opened:
        """O_TRUNC is carried out here. Raises WouldWait for what needs a disk's or the network's time."""
        if node.kind is not Kind.FILE:
            raise IsADirectory(f"{self._tree.path(node)} is not a file")
        writes = bool(flags & os.O_ACCMODE) or bool(flags & os.O_TRUNC)
        if not writes and (opened := self._open_here(node, flags)) is not None:
            return opened
        if writes:
            self.writable()
            self.admit_writer(caller)
        if writes and not flags & os.O_TRUNC:
            self._fetch_small(caller, node)
        with self._changing(caller, node) if writes else self._core.lock:
            self._check_there(node)
            self._contents.wake(node)
            moved = writes and not (node.owed and node.owed.staged)
            if moved:
                caller.about_to_wait()
            small = not writes and self._comes_whole(node)
            if small:
                caller.about_to_wait()
            if writes:
                self.make_dirty(node, truncate=bool(flags & os.O_TRUNC))
            handle = self.handles.add(node, flags)
            source = self._contents.source(node)
            if source is not None:
                self._ledger.watch_base(node)
            if writes and not node.writers:  # open(O_RDONLY | O_TRUNC)
                self._seal_or_later(node)
        try:
            if source is not None and writes:
                self.filling.later(node)
            elif source is not None and small:
                self.filling.fetch(node, partial(self._reader.whole, source, caller))
            if moved and not flags & os.O_TRUNC:
                self._outwait_ctime(node)
            return self._opened(handle)
        except R2fsError:
            self.release(handle.number)
            raise

    def _open_here(self, node: Node, flags: int) -> Opened | None:
        """For reading, of what is all here: the most frequent open, which waits for nothing and tells nobody."""
        with self._core.lock:
            self._check_there(node)
            self._contents.wake(node)
            content = self._contents.of(node)
            if not content.complete:
                return None
            return Opened(self.handles.add(node, flags).number, content.fd, node.version, content.file)

    def _fetch_small(self, caller: Caller, node: Node) -> None:
        """A small file is here before it is opened for writing: then every write is local."""
        while True:
            with self._core.lock:
                self._check_there(node)
                if not self._comes_whole(node):
                    return
                caller.about_to_wait()
                source = self._contents.source(node)
            if source is None:
                return
            try:
                self.filling.fetch(node, partial(self._reader.whole, source, caller))
                return
            except ValueError:
                if not source.content.closed:
                    raise  # else somebody's last close meanwhile: once more

    def _check_there(self, node: Node) -> None:
        """A node that lost its name to another, and that nobody has open, is gone: look the name up again."""
        if node.deleted and not node.handles and node.owed is None:
            raise Stale(f"{node.name} was replaced or removed")

    def _comes_whole(self, node: Node) -> bool:
        """Small and not all here: then open waits for its bytes, and every read is local."""
        content = self._contents.of(node)
        return not content.complete and content.size <= self._core.settings.small_file

    def created(self, node: Node, flags: int) -> Opened:
        """A handle on a node that `new_file` has just made. With Core.lock held."""
        handle = self.handles.add(node, flags)
        if not handle.writes:  # open(O_CREAT | O_RDONLY): nobody will write
            self._seal_or_later(node)
        return self._opened(handle)

    def new_file(self, node: Node, key: str, expect: str | None) -> None:
        """Content and journal row of a new name, in the caller's transaction. With Core.lock held."""
        staged = self._contents.new_staged(node)
        self._ledger.apply(node, Event.CREATE, key=key, changed=True, expect=expect, staged=staged)

    def _opened(self, handle: Handle) -> Opened:
        content = self._contents.of(handle.node)
        complete = content.complete  # asked once: the last range may arrive now
        owed = handle.node.owed
        watched = owed is not None and owed.in_ranges  # its row is to hear of each write
        if complete and handle.writes and not watched:
            self._wrote(handle.node)  # unwatched from here on: only times tell, and only if not filling
            content.unwatch()
        local = complete and (not handle.writes or (not watched and self.pressure.passes()))
        return Opened(
            handle.number, content.fd if local else None, handle.node.version, content.file if local else None
        )

    def writable(self) -> None:
        if self._core.settings.read_only:
            raise ReadOnly("this mount is read-only")

    def admit_writer(self, caller: Caller) -> None:
        """Past the quota it gets ENOSPC at once, past the dirty limit after a while."""
        self._space.admit()
        self.pressure.admit(caller)

    def _outwait_ctime(self, node: Node) -> None:
        """Until the clock of file times has passed the move's ctime: then equal times prove "unchanged"."""
        proof = node.owed.proof if node.owed else None
        if proof is not None and not outwait_file_time(proof.ctime_ns):
            with self._core.lock:
                if node.owed is not None:
                    self._ledger.update(node, proof=None)

    # ------------------------------------------------------------------ becoming dirty, and sealed
    def make_dirty(self, node: Node, truncate: bool = False) -> None:
        """OPEN_WRITE: in the journal, and stop reading for an upload. With Core.lock held."""
        owed = node.owed
        if node.deleted and owed is None:  # unlinked: its bytes live as long as it is open, and owe nothing
            self._contents.of(node).make_writable()
            if truncate:
                self._truncate_locked(node, 0)
            return
        if owed is not None and owed.state in UNSEALED:
            # Not writable any more where the last close came as far as looking for other writers, and
            # the journal then had no room for its row.
            self._contents.of(node).make_writable()
            if truncate:
                self._truncate_locked(node, 0)
            return
        if owed is not None and owed.transfer is not None:
            owed.transfer.stop()  # nothing written from now on can reach that attempt
        if owed is not None and owed.staged is not None:
            self._contents.of(node).make_writable()
            staged, moved, made = owed.staged, False, False
        else:
            made = truncate and node.content is None
            if made:
                staged, moved = self._contents.new_staged(node), False
            else:
                staged, moved = self._contents.stage(node), True
        try:
            self._apply_open_write(node, staged, truncate)
        except R2fsError:
            if moved:
                self._contents.unstage(node)
            elif made:
                self._contents.discard(node)
            self._safe_again(node)
            raise
        self._core.crash_point("open_write_journalled")
        if truncate:
            self._truncate_opened(node, 0)

    def _safe_again(self, node: Node) -> None:
        """It was not opened: what `_changing` took back holds, if the journal has room to say so."""
        if node.owed is not None and node.owed.was_synced:
            with suppress(R2fsError):
                self._ledger.update(node, synced=True, was_synced=False)
                node.vouched = True

    def _apply_open_write(self, node: Node, staged: str, truncate: bool) -> None:
        owed, content = node.owed, self._contents.of(node)
        if owed is None:
            base = node.base
            assert base is not None
            extra = {"key": self._tree.key(node), "expect": base.etag}
        else:
            extra = {}
        filling = not truncate and not content.complete
        proof = None if truncate or filling else self._contents.proof(node)
        self._ledger.apply(
            node,
            Event.OPEN_WRITE,
            before=node.state if owed is None or owed.before is None else owed.before,
            # A row that says "not changed" with staged bytes would be copied from its base inside the
            # bucket at a crash: so it says "changed" until the proof at the last close.
            changed=True,
            was_changed=owed.changed if owed else False,
            was_rewritten=owed.rewritten if owed else False,
            staged=staged,
            size=content.size,
            proof=proof,
            filling=filling,
            written=False,
            rewritten=True,
            base_limit=content.base_limit,
            boot=self._core.journal.boot,
            edits=None,  # until it is closed
            **extra,
        )

    @contextmanager
    def _changing(self, caller: Caller, node: Node) -> Iterator[None]:
        """Core.lock, at a moment when no row on the disk counts on the node's bytes as they are.

        They are about to change, and may be on the disk before the row that tells: after a power cut
        a mixture would be taken for what was synced, or for what was sent.
        """
        while True:
            with self._core.lock:
                if not (node.vouched or node.left) or node.state in UNSEALED:
                    yield
                    return
                caller.about_to_wait()
                left = node.left
                if node.owed is not None and node.owed.synced:
                    self._ledger.update(node, synced=False, was_synced=True)
            self._core.journal.barrier()
            with self._core.lock:
                node.vouched = node.owed is not None and node.owed.synced
                if left is not None:
                    self._contents.drop_left(node, left)

    def seal_unsealed(self, node: Node) -> None:
        """The last writer closed while the journal could not be written."""
        with self._core.lock:
            if not node.writers:
                self._seal(node)
                self._contents_unused(node)

    def _seal_or_later(self, node: Node) -> None:
        """Where the journal cannot take it now, its row says DIRTY: sealed by a later attempt, or at the next start."""
        try:
            self._seal(node)
        except R2fsError as error:
            self._writeback.seal_later(node, error)

    def _seal(self, node: Node) -> None:
        """The last writer has closed. With Core.lock held."""
        owed = node.owed
        if owed is None or owed.state not in UNSEALED:
            return
        if self._is_untouched(node, owed):
            self._unchanged(node)
            return
        content = self._contents.of(node)
        synced = self._syncing.is_synced(node, owed)
        stat, opened_again, known_ns = os.fstat(content.fd), owed.before is not None, node.mtime_ns
        _, ctime_ns = file_times(node, stat)
        self._ledger.apply(
            node,
            Event.SEAL,
            before=None,
            changed=True,
            proof=None,
            size=stat.st_size,
            synced=synced,
            in_part=synced and isinstance(owed.synced_as, int),
            was_synced=False,
            boot=self._core.journal.boot,
            sealed_at_s=self._core.clock.time(),
            mtime_ns=stat.st_mtime_ns,
            extra=of_new_bytes(node.extra),
        )
        self._core.crash_point("sealed")
        node.size = stat.st_size
        node.ctime_ns = ctime_ns
        if opened_again and stat.st_mtime_ns != known_ns:
            # A mapping may have written, of which the kernel's attributes know nothing.
            self._core.kernel.forget_attributes(node.ino)
        if synced:
            self._vouch(node)
        self._writeback.seal_doubt(node)
        self._writeback.schedule(node)

    def _vouch(self, node: Node) -> None:
        """A program has waited for its bytes to be safe: that they are is to be on the disk, too."""
        node.vouched = True
        self._leaving.soon()

    def _is_untouched(self, node: Node, owed: Owed) -> bool:
        """Is there proof that nothing was written since OPEN_WRITE?"""
        if owed.filling:
            return not owed.written
        if owed.proof is None or self._contents.proof(node) != owed.proof:
            return False
        return self._contents.nobody_writes(node)  # a mapping may outlive its descriptor

    def _unchanged(self, node: Node) -> None:
        owed = node.owed
        assert owed is not None
        staged, was = owed.staged, owed.before
        if was is State.CLEAN:
            with self._ledger.transaction():
                self._contents.keep_name(node)
                self._ledger.apply(node, Event.UNCHANGED)
            self._core.crash_point("unchanged")
            assert staged is not None
            self._contents.settled(node, staged)
            return
        # Before: QUEUED, PARKED, or on its way. An attempt whose gate was closed ends by itself.
        synced = owed.synced or owed.was_synced or self._syncing.is_synced(node, owed)
        changes = {
            "changed": owed.was_changed,
            "rewritten": owed.was_rewritten,
            "synced": synced,
            "was_synced": False,
        }
        self._ledger.apply(node, Event.UNCHANGED, before=None, proof=None, **changes)
        if synced:
            self._vouch(node)
        self._writeback.schedule(node)

    # ------------------------------------------------------------------ bytes
    def read(self, caller: Caller, number: int, offset: int, size: int) -> bytes:
        with self._core.lock:
            handle = self.handles.get(number)
            source = self._contents.source(handle.node)
            content = self._contents.of(handle.node)
        while True:
            if source is not None:
                self.filling.fetch(
                    handle.node, partial(self._reader.ensure, source, offset, offset + size, caller)
                )
            try:
                data = content.read(offset, size)
                if source is not None and content.complete:  # by this read, perhaps
                    self.filling.tell_whole(handle.node)
                return data
            except ValueError:  # given back between the two, to make room
                if source is None:
                    raise
            except LocalError:
                with self._core.lock:
                    self._contents.distrust(handle.node)
                raise

    def write(self, caller: Caller, number: int, offset: int, data: bytes | memoryview, paged: bool) -> int:
        with self._core.lock:
            handle = self.handles.get(number)
            if not handle.writes:
                raise BadHandle(f"{self._tree.path(handle.node)} was not opened for writing")
            content = self._contents.of(handle.node)
            self._wrote(handle.node)
        appends = handle.appends and not paged
        self.pressure.pace(caller, len(data) if appends else offset + len(data) - content.size)
        owed = handle.node.owed
        written = self.pressure.write(caller, content, None if appends else offset, data)
        if paged and written < len(data):  # of pages the kernel hears an error, and no smaller number
            raise NoSpace(f"{self._tree.path(handle.node)}: there is no room for all of it")
        if (
            owed is not None and owed.in_ranges
        ):  # which bytes are ours must be known before the write is answered
            with self._core.lock:
                self._ledger.note_write(handle.node, content.size)
        return written

    def _wrote(self, node: Node) -> None:
        if node.owed is not None:
            node.owed.written = True

    def truncate(self, caller: Caller, node: Node, size: int, number: int | None) -> None:
        """ftruncate with a handle; truncate(2) without: then it is sealed at once if nobody else writes."""
        self.writable()
        if size > self._staged_size(node):
            self.admit_writer(caller)
        caller.about_to_wait()
        with self._changing(caller, node):
            self._check_there(node)
            self._contents.wake(node)
            self.make_dirty(node, truncate=size == 0)
            if size:
                self._truncate_opened(node, size)
            if not node.writers:
                lacking = not self._contents.of(node).complete
                self._seal_or_later(node)
                self._contents_unused(node)
        if not node.writers and lacking:
            self.filling.later(node)

    def _staged_size(self, node: Node) -> int:
        """Bytes of it that count towards the limits already."""
        with self._core.lock:
            if node.owed is None or node.owed.staged is None:
                return 0
            content = node.content
            return node.owed.size if content is None or content.closed else content.size

    def _truncate_opened(self, node: Node, size: int) -> None:
        """Where the journal has no room for the new size, nobody else may come by to close it."""
        try:
            self._truncate_locked(node, size)
        except R2fsError:
            if not node.writers:
                self._seal_or_later(node)
                self._contents_unused(node)
            raise

    def _truncate_locked(self, node: Node, size: int) -> None:
        content = self._contents.of(node)
        self._wrote(node)
        content.truncate(size)
        if size == 0 and node.owed is not None and node.owed.reason in DOUBTFUL:
            self._ledger.update(node, reason=None)  # nothing is left of what was doubtful
        node.sync_failed = node.sync_failed and size > 0
        self._core.crash_point("truncated")
        if node.owed is not None and (node.owed.in_ranges or node.owed.proof is not None):
            in_ranges = node.owed.in_ranges and size > 0
            self._ledger.update(
                node, proof=None, size=size, base_limit=content.base_limit, in_ranges=in_ranges
            )

    def _contents_unused(self, node: Node) -> None:
        if not node.handles:
            self._contents.closed(node)

    # ------------------------------------------------------------------ safe, and closed
    def flush(self, caller: Caller, number: int) -> None:
        """The row and the staged file exist since open; what is left is to tell an error met meanwhile."""
        with self._core.lock:
            handle = self.handles.get(number)
            handle.node.flushed_s = self._core.clock.monotonic()
        if handle.writes:
            self.pressure.flush(caller, handle.node)
        with self._core.lock:
            handle.node.flushed_s = self._core.clock.monotonic()  # it may have waited
            self._told(handle)

    def fsync(self, caller: Caller, number: int) -> None:
        caller.about_to_wait()
        with self._core.lock:
            handle = self.handles.get(number)
            self._told(handle)
        self._syncing.sync(handle.node)

    def _told(self, handle: Handle) -> None:
        error, handle.error = handle.error, None
        if error is not None:
            raise error

    def release(self, number: int) -> None:
        with self._core.lock:
            handle = self.handles.remove(number)
            if handle is None:
                return
            node = handle.node
            try:
                if handle.writes and not node.writers:
                    self._seal_or_later(node)
            finally:
                if not node.handles:
                    self._digests.closing(node)
                    self._contents.closed(node)
                    self._tree.collect(node)
                if handle.writes:
                    self._core.changed.notify_all()
