"""Open files: open, read, write, truncate, fsync and close, by inode and handle.

Owns:    what each call on a handle (`files/handles.py`) waits for.
Never:   downloads (`content/hydrate.py`), uploads (`writeback/queue.py`) or writes rows (`files/write_session.py`).
Threads: every public method is thread-safe; those called with the lock held are documented so.
Locks:   takes Core.lock (30); never while waiting for bytes, room or an fsync.
Fails:   FileError's subclasses; NoSpace past the quota, the dirty limit or the disk; LocalError if the disk fails;
         WouldWait if the caller may not wait.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from r2fs.disk.open_file import ContentClosed
from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.jobs import SLOW, URGENT, JobQueue
from r2fs.engine.content.source import Source
from r2fs.engine.content.storage import Storage
from r2fs.engine.files.backpressure import BackPressure
from r2fs.engine.files.handles import Handle, Handles
from r2fs.engine.files.write_session import WriteSessions
from r2fs.engine.files.writer_hydration import WriterHydration
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.protected import check_writable
from r2fs.engine.inodes.statfs import StatFs
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import (
    BadHandle,
    IsADirectory,
    LocalError,
    NoSpace,
    R2fsError,
    Stale,
)
from r2fs.model.pending import Staged
from r2fs.model.ports import Caller
from r2fs.model.programs import PROGRAMS
from r2fs.model.records import Kind, Opened
from r2fs.model.settings.program_rules import ProgramRule, chosen
from r2fs.model.transitions import created

log = logging.getLogger(__name__)


class Files:
    def __init__(self, records: Records, storage: Storage, writeback: WriteBack, jobs: JobQueue) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._reader = storage.reader
        self._hydration = storage.hydration
        self._prefetch = storage.prefetch
        self._disk_sync = storage.disk_sync
        self._part_hasher = storage.part_hasher
        self.statfs = StatFs(records.core, records.tree)
        self.handles = Handles()
        self.sessions = WriteSessions(records, storage, writeback.queue)
        self.hydration = WriterHydration(records, storage, jobs, self.handles.fail_writers)
        self.pressure = BackPressure(records, self.handles.written.keys(), storage.space)

    # ---- open
    def open(self, caller: Caller, node: Node, flags: int) -> Opened:
        """Open a file, and truncate it for O_TRUNC. Raises WouldWait if the disk or the network is needed."""
        if node.kind is not Kind.FILE:
            raise IsADirectory(f"{self._tree.path(node)} is not a file")
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            return self._open_to_write(caller, node, flags)
        return self._open_to_read(caller, node, flags)

    def _open_to_write(self, caller: Caller, node: Node, flags: int) -> Opened:
        truncates = bool(flags & os.O_TRUNC)
        check_writable(self._core, node)
        self.admit_writer(caller)
        if not truncates:
            self._fetch_small(caller, node)
        with self.sessions.changing(caller, node):
            self._check_there(node)
            self._contents.wake(node)
            moved = not (node.pending and node.pending.staged)  # its bytes move into staging
            if moved:
                caller.about_to_wait()
            self.sessions.make_dirty(node, truncate=truncates)
            handle, source = self._add_handle(node, flags)
            if not node.writers:  # open(O_RDONLY | O_TRUNC)
                self.sessions.seal_or_later(node)
        try:
            if source is not None:
                self.hydration.later(node)
            if moved and not truncates:
                self.sessions.outwait_ctime(node)
            return self._opened(handle)
        except R2fsError:
            self.release(handle.number)
            raise

    def _open_to_read(self, caller: Caller, node: Node, flags: int) -> Opened:
        """Open a file for reading; a small one with missing bytes is downloaded first: then every read is local."""
        rule = self._rule(caller) if self._core.settings.programs else None
        with self._core.lock:
            handle, awaited = self._add_reader(caller, node, flags, rule)
        try:
            if rule is None:
                self._prefetch.start()
            if awaited is not None:
                slow = rule is not None and rule.slow
                with suppress(ContentClosed):
                    self._reader.whole(awaited, caller, SLOW if slow else URGENT)
            return self._opened(handle)
        except R2fsError:
            self.release(handle.number)
            raise

    def _add_reader(
        self, caller: Caller, node: Node, flags: int, rule: ProgramRule | None
    ) -> tuple[Handle, Source | None]:
        """Add a handle for reading; with it, the Source of a small file to download first. With Core.lock held."""
        is_use = rule is None or not rule.passes_by
        if node.deleted:
            self._check_there(node)
        if node.content is not None:
            self._contents.wake(node, is_use)
        content = self._contents.of(node, is_use)
        here = content.complete  # read once: the last range may arrive meanwhile
        small = not here and self._comes_whole(content, rule)
        if rule is None and self._prefetch.opened(node, cold=not here):
            small = False
        if small:
            caller.about_to_fetch()
        handle, source = (self.handles.add(node, flags), None) if here else self._add_handle(node, flags)
        if source is not None and not small:
            self.handles.note_opener(handle, caller.pid)
        handle.rule = rule
        return handle, source if small else None

    def _add_handle(self, node: Node, flags: int) -> tuple[Handle, Source | None]:
        """Add a handle, and keep the base object of a file whose bytes are missing. With Core.lock held."""
        handle = self.handles.add(node, flags)
        source = self._contents.source(node)
        if source is not None:
            self._pending.watch_base(node)
        return handle, source

    def _fetch_small(self, caller: Caller, node: Node) -> None:
        """Download a small file before it is opened for writing: then every write is local."""
        while True:
            with self._core.lock:
                self._check_there(node)
                if not self._comes_whole(self._contents.of(node)):
                    return
                caller.about_to_fetch()
            if self._hydration.whole(node, caller):
                return

    def _check_there(self, node: Node) -> None:
        """Raise Stale for an inode without name, handle and pending state: the kernel then looks the name up again."""
        if node.deleted and not node.handles and node.pending is None:
            raise Stale(f"{node.name} was replaced or removed")

    def _rule(self, caller: Caller) -> ProgramRule | None:
        """Return the rule of the settings for the caller's program; without any, no process is looked at."""
        rules = self._core.settings.programs
        return chosen(rules, PROGRAMS.name(caller.pid)) if rules else None

    def _comes_whole(self, content: SparseFile, rule: ProgramRule | None = None) -> bool:
        """True for a small file with missing bytes: open waits for them, and every read is local."""
        if content.complete or content.size > self._core.settings.small_file:
            return False
        return rule is None or rule.allows_whole(content.size)

    def fetches_locked(self, caller: Caller, node: Node, flags: int) -> bool:
        """True if an open with these flags sends a GET for the whole file, by its version, and none is under way."""
        self._core.assert_held()
        version = node.base
        if flags & os.O_TRUNC or version is None or node.content is not None:
            return False
        small = 0 < version.size <= self._core.settings.small_file and self._rule(caller) is None
        return small and not self._core.cache.contains(version)

    def created(self, caller: Caller, node: Node, flags: int) -> Opened:
        """Add the handle of an inode that `new_file` has just made. With Core.lock held.

        One that may become a copy inside the bucket gets no descriptor: with passthrough its bytes could not be missing.
        """
        handle = self.handles.add(node, flags)
        if not handle.writes:  # open(O_CREAT | O_RDONLY)
            self.sessions.seal_or_later(node)
        elif self.handles.is_about_to_copy(caller.pid):
            handle.descriptor = False
            return Opened(handle.number, None, node.version, None)
        return self._opened(handle)

    def new_file(self, node: Node, key: str) -> None:
        """Make content and journal row of a new name, in the caller's transaction. With Core.lock held."""
        expected_etag = self._pending.deletes.expected_etag_at(key)
        staged = Staged(self._staged_files.create(node), boot=self._core.staging.boot)
        self._pending.commit(node, created(self._pending.begin(node, key, True, expected_etag, staged)))

    def _opened(self, handle: Handle) -> Opened:
        content = handle.node.content or self._contents.of(handle.node)
        complete = content.complete  # read once: the last range may arrive meanwhile
        pending = handle.node.pending
        watched = pending is not None and pending.lists_ranges  # each write changes its row
        if complete and handle.writes and not watched:
            # Writes are not seen from here on. While bytes are missing, fstat is no evidence of a write.
            with self._core.lock:
                self._pending.note_open_write(handle.node)
            content.unwatch()
        local = complete and (not handle.writes or (not watched and self.pressure.passes()))
        return Opened(
            handle.number, content.fd if local else None, handle.node.version, content.file if local else None
        )

    def admit_writer(self, caller: Caller) -> None:
        """Admit a writer. Raises NoSpace: past the quota at once, past the dirty limit after `dirty_wait`."""
        self.statfs.admit()
        self.pressure.admit(caller)

    # ---- read and write
    def read(self, caller: Caller, handle: int, offset: int, size: int) -> bytes:
        with self._core.lock:
            file = self.handles.get(handle)
            if file.opener:
                self.handles.forget_opener(file)
            content = file.node.content or self._contents.of(file.node)
            source = None if content.complete else self._contents.source(file.node)
            if file.rule is None:
                self._prefetch.read(file.node, offset, offset + size)
        if file.rule is None:
            self._prefetch.start()
        while True:
            if source is not None:
                if file.restored:
                    file.rule, file.restored = self._rule(caller), False
                if file.rule is None:
                    self._reader.ensure(source, offset, offset + size, caller)
                else:
                    self._reader.restrained(source, offset, offset + size, caller, file.rule)
            try:
                data = content.read(offset, size)
                if source is not None and content.complete:  # perhaps by this read
                    self.hydration.note_complete(file.node)
                return data
            except ValueError:  # evicted between download and read, to make room
                if source is None:
                    raise
            except LocalError:
                with self._core.lock:
                    self._contents.distrust(file.node)
                raise

    def write(
        self, caller: Caller, handle: int, offset: int, data: bytes | memoryview, paged: bool = False
    ) -> int:
        with self._core.lock:
            file = self.handles.get(handle)
            if not file.writes:
                raise BadHandle(f"{self._tree.path(file.node)} was not opened for writing")
            content = self._contents.of(file.node)
            self._pending.note_open_write(file.node)
        appends = file.appends and not paged
        self.pressure.pace(caller, len(data) if appends else offset + len(data) - content.size)
        pending = file.node.pending
        written = self.pressure.write(caller, content, None if appends else offset, data)
        if paged and written < len(data):  # write-back of pages fails whole: the kernel ignores a short count
            raise NoSpace(f"{self._tree.path(file.node)}: there is no room for all of it")
        if pending is not None and pending.lists_ranges:  # the row lists the range before the answer
            with self._core.lock:
                self._pending.note_write(file.node, content.size)
        return written

    def truncate(self, caller: Caller, node: Node, size: int, number: int | None) -> None:
        """ftruncate(2) with a handle, truncate(2) without: then the file is closed at once if it has no writer."""
        check_writable(self._core, node)
        if size > self._staged_size(node):
            self.admit_writer(caller)
        caller.about_to_wait()
        with self.sessions.changing(caller, node):
            self._check_there(node)
            self._contents.wake(node)
            self.sessions.make_dirty(node, truncate=size == 0)
            if size:
                self.sessions.truncate(node, size)
            if not node.writers:
                lacking = not self._contents.of(node).complete
                self.sessions.seal_or_later(node)
                self._contents.close_unused(node)
        if not node.writers and lacking:
            self.hydration.later(node)

    def _staged_size(self, node: Node) -> int:
        """Return the bytes of the file that count towards the limits already."""
        with self._core.lock:
            if node.pending is None or node.pending.staged is None:
                return 0
            content = node.content
            return node.pending.size if content is None or content.closed else content.size

    # ---- sync and close
    def flush(self, caller: Caller, handle: int) -> None:
        """Raise an error of background work, and wait at the dirty limit. Row and staged file exist since the open."""
        with self._core.lock:
            file = self.handles.get(handle)
            file.node.flushed_s = self._core.clock.monotonic()
            if not (file.writes and self.pressure.is_at_limit()):
                self._raise_error(file)
                return
        self.pressure.flush(caller, file.node)
        with self._core.lock:
            file.node.flushed_s = self._core.clock.monotonic()  # after the wait
            self._raise_error(file)

    def fsync(self, caller: Caller, handle: int) -> None:
        caller.about_to_wait()
        with self._core.lock:
            file = self.handles.get(handle)
            self._raise_error(file)
        self._disk_sync.sync(file.node)

    def _raise_error(self, file: Handle) -> None:
        error, file.error = file.error, None
        if error is not None:
            raise error

    def release(self, handle: int) -> None:
        with self._core.lock:
            file = self.handles.remove(handle)
            if file is None:
                return
            node = file.node
            try:
                if file.writes and not node.writers:
                    self.sessions.seal_or_later(node)
            finally:
                if not node.handles:
                    if node.size >= self._core.settings.multipart_threshold:
                        self._part_hasher.closing(node)
                    self._contents.close_unused(node)
                    if node.deleted:
                        self._tree.collect(node)
                if file.writes:
                    self._core.changed.notify_all()
