"""FileSystem: the verbs of model/verbs.py, by inode number and handle.

Owns:    the order in which the engine starts and stops.
Never:   knows FUSE, S3 or SQL; starts a thread (`workers()` names what service.py is to start).
Threads: every public method is thread-safe.
Locks:   Core.lock, inside the parts.
Fails:   R2fsError's subclasses; WouldWait where the caller may not wait.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from r2fs.engine.content.storage import Storage
from r2fs.engine.files.open_files import Files
from r2fs.engine.files.sparse import Sparse
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.statfs import StatFs
from r2fs.engine.jobs import DownloadQueue, Job, JobQueue
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.named_paths import Scopes
from r2fs.engine.namespace.receipts import Receipts
from r2fs.engine.namespace.rename import Renaming
from r2fs.engine.namespace.setattr import SetAttr
from r2fs.engine.namespace.special_files import SpecialFiles
from r2fs.engine.namespace.xattrs import ExtendedAttributes, is_stored
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.progress import Status
from r2fs.engine.writeback.worker import COPY_THREADS
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import Exists, InvalidArgument, NotFound, R2fsError
from r2fs.model.keys import check_file_name, check_name, check_target, printable
from r2fs.model.ports import Caller, KernelCache
from r2fs.model.records import AttributeChange, DirEntry, Entry, FileSystemStats, Kind, Opened
from r2fs.model.settings import Settings
from r2fs.model.views import AsideView, CacheView, QueueView, RoomView, TransferView

log = logging.getLogger(__name__)

LISTERS = 8  # directories asked for at once: a few requests that hang leave some for the others
SWEEP_S = 60.0  # how often the cache is swept for entries past their time to live, at least
SWEEP_SHARE = 10  # and with each such part of that time, so that nothing outlasts it by more
SWEEP_LEAST_S = 0.1

Worker = tuple[str, Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Queues:
    """Work for threads, by kind."""

    downloads: DownloadQueue
    parts: JobQueue  # of large uploads
    listings: JobQueue
    background: JobQueue  # what nobody waits for

    def submit_listing(self, job: Job, priority: int) -> None:
        self.listings.submit(job, priority)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The engine's parts, as `build.py` puts them together."""

    records: Records
    storage: Storage
    writeback: WriteBack
    queues: Queues
    freshness: Freshness
    names: Names
    renaming: Renaming
    special: SpecialFiles
    statfs: StatFs
    files: Files
    sparse: Sparse
    set_attr: SetAttr
    xattrs: ExtendedAttributes
    scopes: Scopes
    receipts: Receipts
    status: Status


class FileSystem:
    def __init__(self, parts: Parts) -> None:
        # constant
        self._core = parts.records.core
        self._tree = parts.records.tree
        self._pending = parts.records.pending
        self._storage = parts.storage
        self._contents = parts.storage.contents
        self._staging_gc = parts.storage.staging_gc
        self._writeback = parts.writeback
        self._queues = parts.queues
        self._freshness = parts.freshness
        self._names = parts.names
        self._renaming = parts.renaming
        self._special = parts.special
        self._statfs = parts.statfs
        self._files = parts.files
        self._sparse = parts.sparse
        self._set_attr = parts.set_attr
        self._xattrs = parts.xattrs
        self._scopes = parts.scopes
        self.receipts = parts.receipts
        self._status = parts.status

    # ------------------------------------------------------------------ life
    def workers(self) -> list[Worker]:
        """Name and main of each thread that service.py is to start, after the fork."""
        settings = self._core.settings
        return [
            *((f"upload-{n}", self._writeback.worker.work) for n in range(settings.upload_threads)),
            *((f"copy-{n}", self._writeback.worker.copies.run) for n in range(COPY_THREADS)),
            *((f"part-{n}", self._queues.parts.run) for n in range(settings.part_threads)),
            *((f"download-{n}", self._queues.downloads.run) for n in range(self._queues.downloads.threads)),
            *((f"list-{n}", self._queues.listings.run) for n in range(LISTERS)),
            *((f"complete-{n}", self._queues.background.run) for n in range(2)),
            ("spares", self._core.staging.spares.run),
            ("leaving", self._staging_gc.run),
            ("sweep", self._sweep),
            ("room", self._files.pressure.watch),
        ]

    def stop(self) -> None:
        """Workers return soon; what is on its way is cut off, and stays owed."""
        settings = self._core.settings
        self._writeback.worker.stop()
        self._queues.parts.stop(settings.part_threads)
        self._queues.downloads.stop(self._queues.downloads.threads)
        self._queues.listings.stop(LISTERS)
        self._queues.background.stop(2)
        self._core.staging.spares.stop()
        self._files.pressure.stop()
        self._staging_gc.stop()

    def close(self, leave: bool = False) -> None:
        """After the workers have returned: clean content goes to the cache, staged bytes to the disk.

        `leave`: another daemon goes on with what is open; nobody is made to wait for a disk.
        """
        for handle in self._files.handles.all() if not leave else ():
            self.release(handle.number)
        with self._core.lock:
            self._contents.retire_idle()
        if not leave:
            self._storage.disk_sync.sync_pending()
        with self._core.lock:
            for node in self._pending.inodes.values():
                if node.content is not None:
                    node.content.close()
        self._sweep_out()
        self._names.recalls.flush(everything=True)
        self._freshness.last.save(everything=True)
        self._core.cache.close()
        self._core.journal.close()

    def _sweep_out(self) -> None:
        try:
            self._staging_gc.sweep()
        except (OSError, R2fsError) as error:  # the next start does it
            log.error("staging could not be tidied: %s", error)

    def drain(
        self, timeout_s: float | None, progress: Callable[[QueueView], None] | None = None
    ) -> QueueView:
        """Send everything that can be sent, without delay; what is left."""
        self._status.wait(None, timeout_s, progress)
        return self._status.view()

    def flush_paths(
        self,
        paths: Sequence[str],
        timeout_s: float | None,
        progress: Callable[[QueueView], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until the bucket is as the mount shows it at and below these paths (relative to the mount; none: everywhere).

        Raises NotFound. False: something is left (an open file does not count), or all is refused."""
        return self._status.wait(self._scopes.of(paths), timeout_s, progress, cancelled, unless_refused=True)

    def retry_parked(self, paths: Sequence[str]) -> int:
        """Release the parked files and deletes at and below these paths (none: anywhere); returns their number."""
        return self._status.retry(self._scopes.of(paths))

    def parked_at(self, paths: Sequence[str]) -> tuple[TransferView, ...]:
        """Parked files and deletes at and below these paths (none: anywhere)."""
        return self._status.parked(self._scopes.of(paths, must_be=False))

    def refusal(self) -> str | None:
        """Why the bucket refuses everything; None: it does not, as far as is known."""
        return self._status.refusal()

    def path_of(self, ino: int) -> str | None:
        """From the mount's root; None for an inode without a name."""
        with self._core.lock:
            node = self._tree.find(ino)
            return None if node is None or node.deleted else self._tree.path(node)

    def queue_view(self) -> QueueView:
        return self._status.view()

    def cache_view(self) -> CacheView:
        return self._core.cache.view()

    def room_view(self) -> RoomView:
        return self._files.pressure.view()

    def aside_view(self) -> AsideView:
        """What lies in the state directory for a person to look at."""
        return self._core.journal.aside()

    def damaged_view(self) -> tuple[str, ...]:
        """Objects whose bytes are not those of their ETags, each with its reason."""
        return self._storage.downloader.damaged()

    def set_kernel_cache(self, kernel_cache: KernelCache) -> None:
        self._core.kernel = kernel_cache

    def change_settings(self, settings: Settings) -> None:
        """Take up other limits, times and patterns; `daemon/reload.py` says which settings these can be."""
        with self._core.lock:
            self._core.change_settings_locked(settings)
            self._core.changed.notify_all()  # writers wait for the dirty limit
            for node in list(self._pending.inodes.values()):
                self._writeback.queue.schedule_locked(node)  # it may have another name for `local_patterns`
        self._core.cache.change_limits(settings.cache_size, settings.cache_ttl_s)

    def assume_away(self) -> None:
        """The bucket did not answer just now: what is kept of it is shown without waiting."""
        self._freshness.assume_away()

    def _sweep(self) -> None:
        ttl_s = self._core.settings.cache_ttl_s
        pause_s = max(SWEEP_LEAST_S, min(SWEEP_S, ttl_s / SWEEP_SHARE)) if ttl_s else SWEEP_S
        while not self._core.stopping:
            self._sweep_once()
            self._core.ended.wait(pause_s)

    def _sweep_once(self) -> None:
        with self._core.lock:
            self._contents.retire_expired()
        self._core.cache.sweep()
        self._names.recalls.flush()
        self._freshness.last.save()

    # ------------------------------------------------------------------ names
    def lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        return self._names.lookup(caller, parent, name)

    def forget(self, ino: int, count: int) -> None:
        with self._core.lock:
            self._tree.forget(ino, count)

    def mkdir(self, caller: Caller, parent: int, name: str, mode: int) -> Entry:
        return self._referenced(self._names.mkdir(caller, parent, name, mode))

    def symlink(self, caller: Caller, parent: int, name: str, target: str) -> Entry:
        return self._referenced(self._names.symlink(caller, parent, name, target))

    def mknod(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Entry:
        return self._referenced(self._special.make(caller, parent, name, mode, device))

    def readlink(self, caller: Caller, ino: int) -> str:
        with self._core.lock:
            node = self._tree.get(ino)
            if node.kind is not Kind.SYMLINK:
                raise InvalidArgument(f"{self._tree.path(node)} is not a symbolic link")
            if node.target is not None:
                return check_target(self._tree.path(node), node.target, self._core.settings.links)
            caller.about_to_fetch()
        target = os.fsdecode(self._storage.hydration.read_whole(node, caller))
        with self._core.lock:
            node.target = target
            if not node.handles:
                self._contents.closed(node)
            return check_target(self._tree.path(node), target, self._core.settings.links)

    def unlink(self, caller: Caller, parent: int, name: str) -> None:
        self._names.unlink(caller, parent, name)

    def rmdir(self, caller: Caller, parent: int, name: str) -> None:
        self._names.rmdir(caller, parent, name)

    def rename(
        self, caller: Caller, parent: int, name: str, new_parent: int, new_name: str, flags: int = 0
    ) -> None:
        self._renaming.rename(caller, parent, name, new_parent, new_name, flags)

    def readdir(self, caller: Caller, ino: int) -> Sequence[DirEntry]:
        return self._names.readdir(caller, ino)

    def readdir_entry(self, caller: Caller, ino: int, name: str) -> Entry | None:
        with self._core.lock:
            directory = self._tree.find(ino)
            node = directory.children().get(name) if directory is not None and directory.is_dir else None
            if node is None or not self._names.is_exact(node):
                return None  # looked up by itself, then
            entry = self._names.listed_entry(node)
            if node.stored_kind not in (None, node.kind):
                return None
            self._tree.refer(node)
            return entry

    def _referenced(self, node: Node) -> Entry:
        with self._core.lock:
            return self._names.referred(node)

    def st_ino(self, ino: int) -> int:
        with self._core.lock:
            return self._names.entry(self._tree.get(ino)).attributes.st_ino

    # ------------------------------------------------------------------ attributes
    def getattr(self, caller: Caller, ino: int, handle: int | None = None) -> Entry:
        with self._core.lock:
            node = self._tree.get(ino)
            parent = node.parent
            fresh = (
                node.pending
                or node.handles
                or node.deleted
                or parent is None
                or self._names.valid_s(node) > 0
            )
        if not fresh and parent is not None:
            with suppress(NotFound):
                self._names.child(caller, parent.ino, node.name)
        self._names.make_exact(caller, node)
        with self._core.lock:
            return self._names.entry(self._tree.get(ino))

    def setattr(self, caller: Caller, ino: int, change: AttributeChange, handle: int | None = None) -> Entry:
        with self._core.lock:
            node = self._tree.get(ino)
        if node.is_dir:
            self._names.learn(caller, node)  # whether it has an object, and what that says of it
        if change.size is not None:
            if node.kind is not Kind.FILE:
                raise InvalidArgument("only files have a size to set")
            self._files.truncate(caller, node, change.size, handle)
        self._set_attr.apply(caller, node, change)
        with self._core.lock:
            return self._names.entry(node)

    def statfs(self, caller: Caller) -> FileSystemStats:
        return self._statfs.stats()

    def getxattr(self, caller: Caller, ino: int, name: str) -> bytes:
        node = self._known(caller, ino) if is_stored(name) else None
        with self._core.lock:
            return self._xattrs.get(node or self._tree.get(ino), name)

    def listxattr(self, caller: Caller, ino: int) -> Sequence[str]:
        node = self._known(caller, ino)
        with self._core.lock:
            return self._xattrs.names(node)

    def setxattr(self, caller: Caller, ino: int, name: str, value: bytes, flags: int) -> None:
        node = self._known(caller, ino) if is_stored(name) else None
        with self._core.lock:
            self._xattrs.set(node or self._tree.get(ino), name, value, flags)

    def removexattr(self, caller: Caller, ino: int, name: str) -> None:
        node = self._known(caller, ino) if is_stored(name) else None
        with self._core.lock:
            self._xattrs.remove(node or self._tree.get(ino), name)

    def _known(self, caller: Caller, ino: int) -> Node:
        """A node whose metadata is known: one HEAD, if nobody has asked yet."""
        with self._core.lock:
            node = self._tree.get(ino)
        self._names.learn(caller, node)
        return node

    # ------------------------------------------------------------------ open files
    def create(self, caller: Caller, parent: int, name: str, mode: int, flags: int) -> tuple[Entry, Opened]:
        name = check_name(name)
        try:
            node = self._names.child(caller, parent, name)
        except NotFound:
            return self._create_new(caller, parent, check_file_name(name), mode, flags)
        if flags & os.O_EXCL:
            raise Exists(f"{printable(name)} exists")
        opened = self._files.open(caller, node, flags)
        return self._referenced(node), opened

    def _create_new(
        self, caller: Caller, parent: int, name: str, mode: int, flags: int
    ) -> tuple[Entry, Opened]:
        self._files.writable()
        self._files.admit_writer(caller)
        with self._core.lock:
            directory = self._tree.directory(parent)
            key = self._tree.child_key(directory, name)
            node = self._names.new_node(caller, directory, name, Kind.FILE, mode)
            try:
                with self._pending.transaction():
                    self._files.new_file(node, key, self._storage.local_only.expected_etag_at(key))
            except BaseException:
                self._tree.detach(node)
                self._contents.discard(node)
                raise
            self._core.crash_point("created")
            opened = self._files.created(node, flags)
            return self._referenced(node), opened

    def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        with self._core.lock:
            node = self._tree.get(ino)
        return self._files.open(caller, node, flags)

    def read(self, caller: Caller, handle: int, offset: int, size: int) -> bytes:
        return self._files.read(caller, handle, offset, size)

    def write(
        self, caller: Caller, handle: int, offset: int, data: bytes | memoryview, paged: bool = False
    ) -> int:
        return self._files.write(caller, handle, offset, data, paged)

    def wrote(self, handle: int) -> None:
        """Nothing to do: size and times are asked of the file, and the last close compares them."""

    def fallocate(self, caller: Caller, handle: int, mode: int, offset: int, length: int) -> None:
        self._sparse.fallocate(caller, handle, mode, offset, length)

    def lseek(self, caller: Caller, handle: int, offset: int, whence: int, paged: bool = False) -> int:
        return self._sparse.lseek(handle, offset, whence, paged)

    def flush(self, caller: Caller, handle: int) -> None:
        self._files.flush(caller, handle)

    def fsync(self, caller: Caller, handle: int, data_only: bool) -> None:
        self._files.fsync(caller, handle)

    def fsync_directory(self, caller: Caller, ino: int) -> None:
        caller.about_to_wait()
        self._core.journal.barrier()

    def release(self, handle: int) -> None:
        self._files.release(handle)
