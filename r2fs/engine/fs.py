"""FileSystem: the verbs of model/verbs.py, by inode number and handle.

Never:   knows FUSE, S3 or SQL; starts a thread or ends (`build.py` has the order of both).
Threads: every public method is thread-safe.
Locks:   Core.lock, inside the parts.
Fails:   R2fsError's subclasses; WouldWait where the caller may not wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from r2fs.engine.content.cache_care import CacheCare
from r2fs.engine.content.jobs import DownloadQueue, JobQueue, SlottedQueue
from r2fs.engine.content.storage import Storage
from r2fs.engine.files.copy_range import CopyRange
from r2fs.engine.files.open_files import Files
from r2fs.engine.files.sparse import Sparse
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.protected import check_entry
from r2fs.engine.inodes.table import Tree
from r2fs.engine.namespace.close_to_open import CloseToOpen
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.discard import Discards
from r2fs.engine.namespace.file_views import FileViews
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.header_changes import HeaderChanges
from r2fs.engine.namespace.local_copies import LocalCopies
from r2fs.engine.namespace.named_paths import Scopes
from r2fs.engine.namespace.pins import Pins
from r2fs.engine.namespace.receipts import Receipts
from r2fs.engine.namespace.refreshing import Refreshing
from r2fs.engine.namespace.remove_tree import TreeRemoval
from r2fs.engine.namespace.rename import Renaming
from r2fs.engine.namespace.setattr import SetAttr
from r2fs.engine.namespace.xattrs import TYPE, ExtendedAttributes, is_stored, not_ours
from r2fs.engine.writeback.progress import Status
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import Exists, InvalidArgument, NotFound, R2fsError
from r2fs.model.keys import check_file_name, check_name, check_target, printable
from r2fs.model.ports import Caller, KernelCache
from r2fs.model.records import AttributeChange, Entry, FileSystemStats, Kind, Opened
from r2fs.model.settings import Settings
from r2fs.model.views import QueueView, TransferView
from r2fs.model.xattrs import PREFIX


@dataclass(frozen=True, slots=True)
class Queues:
    """Work for threads, by kind."""

    downloads: DownloadQueue
    parts: SlottedQueue  # of large uploads
    listings: JobQueue
    background: JobQueue  # no caller waits for these
    bulk: JobQueue  # commands that may take hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The engine's parts, built by `build.py`."""

    core: Core
    tree: Tree
    storage: Storage
    writeback: WriteBack
    queues: Queues
    freshness: Freshness
    refreshing: Refreshing
    close_to_open: CloseToOpen
    names: Names
    renaming: Renaming
    files: Files
    sparse: Sparse
    copy_range: CopyRange
    set_attr: SetAttr
    xattrs: ExtendedAttributes
    scopes: Scopes
    receipts: Receipts
    local_copies: LocalCopies
    removal: TreeRemoval
    header_changes: HeaderChanges
    pins: Pins
    status: Status
    file_views: FileViews
    discards: Discards
    cache_care: CacheCare


class FileSystem:
    def __init__(self, parts: Parts) -> None:
        # constant
        self._core = parts.core
        self._tree = parts.tree
        self._storage = parts.storage
        self._contents = parts.storage.contents
        self._staging_gc = parts.storage.staging_gc
        self._writeback = parts.writeback
        self._queues = parts.queues
        self._freshness = parts.freshness
        self.refreshing = parts.refreshing
        self._close_to_open = parts.close_to_open
        self._names = parts.names
        self._renaming = parts.renaming
        self._statfs = parts.files.statfs
        self._files = parts.files
        self._sparse = parts.sparse
        self._set_attr = parts.set_attr
        self._xattrs = parts.xattrs
        self._scopes = parts.scopes
        self.receipts = parts.receipts
        self.local_copies = parts.local_copies
        self.removal = parts.removal
        self.header_changes = parts.header_changes
        self.pins = parts.pins
        self.file_views = parts.file_views
        self.discards = parts.discards
        self.cache_care = parts.cache_care
        self._status = parts.status
        # verbs and views that are one part's alone
        self.unlink, self.rmdir, self.readdir = parts.names.unlink, parts.names.rmdir, parts.names.readdir
        self.rename = parts.renaming.rename
        self.read, self.write = parts.files.read, parts.files.write
        self.flush, self.release = parts.files.flush, parts.files.release
        self.fallocate = parts.sparse.fallocate
        self.copy_file_range = parts.copy_range.copy
        self.queue_view = parts.status.view
        self.history = self._core.history
        self.cache_view = self._core.cache.view
        self.room_view = parts.files.pressure.view
        self.aside_view = self._core.journal.aside
        self.downloads_view = parts.storage.downloader.under_way
        self.damaged_view = parts.storage.downloader.damaged
        self.assume_away = parts.freshness.outages.assume
        self.in_background = parts.queues.bulk.submit  # a command's long job

    # ------------------------------------------------------------------ status
    def drain(
        self, timeout_s: float | None, progress: Callable[[QueueView], None] | None = None
    ) -> QueueView:
        """Send all pending inodes without delay; return the rest."""
        self._status.wait(None, timeout_s, progress)
        return self._status.view()

    def flush_paths(
        self,
        paths: Sequence[str],
        timeout_s: float | None,
        progress: Callable[[QueueView], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until the bucket is as the mount shows it at and below these paths (relative to the mount; none: all).

        False: something is left (an open file does not count), or all is refused. Raises NotFound.
        """
        return self._status.wait(self._scopes.of(paths), timeout_s, progress, cancelled, unless_refused=True)

    def retry_parked(self, paths: Sequence[str]) -> int:
        """Release the parked files and deletes at and below these paths (none: anywhere); returns their number."""
        return self._status.retry(self._scopes.of(paths))

    def parked_at(self, paths: Sequence[str]) -> tuple[TransferView, ...]:
        """Parked files and deletes at and below these paths (none: anywhere)."""
        return self._status.parked(self._scopes.of(paths, must_be=False))

    def pending_pages(self, paths: Sequence[str]) -> Iterator[tuple[TransferView, ...]]:
        """Yield all pending uploads and deletes at and below these paths (none: anywhere)."""
        return self._writeback.transfers.pages(self._scopes.of(paths, must_be=False))

    def paths_of(self, inos: Sequence[int]) -> dict[int, str]:
        """Return the paths of the inodes with a name."""
        with self._core.lock:
            nodes = [node for node in map(self._tree.find, inos) if node is not None and not node.deleted]
            return {node.ino: self._tree.path(node) for node in nodes}

    def surplus(self) -> int:
        """Return the number of files fetched ahead and not opened."""
        with self._core.lock:
            return self._storage.prefetch.surplus

    def set_frugal(self, frugal: bool) -> None:
        """Fetch nothing ahead of need, from now on or no more: the month's budget is used up."""
        with self._core.lock:
            self._core.set_frugal_locked(frugal)

    def refusal(self, paths: Sequence[str] = ()) -> R2fsError | None:
        """Return the refusal of every request by a bucket of these paths (none: any); None: none is known."""
        return self._status.refusal([path.lstrip("./").partition("/")[0] for path in paths])

    def set_kernel_cache(self, kernel_cache: KernelCache) -> None:
        self._core.kernel = kernel_cache

    def change_settings(self, settings: Settings) -> None:
        """Replace limits, times and patterns; `daemon/reload.py` says which settings these can be."""
        with self._core.lock:
            self._core.change_settings_locked(settings)
            self._core.changed.notify_all()  # writers wait for the dirty limit
            self._writeback.queue.schedule_all_locked()
        self._writeback.worker.resize()
        self._queues.parts.resize(settings.part_threads)
        self._queues.downloads.resize(settings.download_threads)
        self._core.cache.change_limits(settings.cache_size, settings.cache_ttl_s)

    # ------------------------------------------------------------------ names
    def lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        if self._core.settings.consistency == "close-to-open":
            self._close_to_open.before_lookup(caller, parent, name)
        return self._names.lookup(caller, parent, name)

    def forget(self, ino: int, count: int) -> None:
        with self._core.lock:
            self._tree.forget(ino, count)

    def mkdir(self, caller: Caller, parent: int, name: str, mode: int) -> Entry:
        return self._referenced(self._names.mkdir(caller, parent, name, mode))

    def symlink(self, caller: Caller, parent: int, name: str, target: str) -> Entry:
        return self._referenced(self._names.symlink(caller, parent, name, target))

    def mknod(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Entry:
        return self._referenced(self._names.mknod(caller, parent, name, mode, device))

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
            self._contents.close_unused(node)
            return check_target(self._tree.path(node), target, self._core.settings.links)

    def readdir_entry(self, caller: Caller, ino: int, name: str) -> Entry | None:
        with self._core.lock:
            directory = self._tree.find(ino)
            node = directory.children().get(name) if directory is not None and directory.is_dir else None
            if node is None or not self._names.is_exact_locked(node):
                return None  # the caller sends a lookup
            entry = self._names.listed_entry_locked(node)
            if node.stored_kind not in (None, node.kind):
                return None
            self._tree.refer(node)
            return entry

    def _referenced(self, node: Node) -> Entry:
        with self._core.lock:
            return self._names.referred_locked(node)

    def st_ino(self, ino: int) -> int:
        with self._core.lock:
            return self._names.entry_locked(self._tree.get(ino)).attributes.st_ino

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
            if fresh and self._names.is_exact_locked(node):
                return self._names.entry_locked(node)
        if not fresh and parent is not None:
            with suppress(NotFound):
                self._names.child(caller, parent.ino, node.name)
        self._names.make_exact(caller, node)
        with self._core.lock:
            return self._names.entry_locked(self._tree.get(ino))

    def setattr(self, caller: Caller, ino: int, change: AttributeChange, handle: int | None = None) -> Entry:
        with self._core.lock:
            node = self._tree.get(ino)
        if node.is_dir:
            self._names.learn(caller, node)  # its object, if any, and the metadata
        if change.size is not None:
            if node.kind is not Kind.FILE:
                raise InvalidArgument("only files have a size to set")
            self._files.truncate(caller, node, change.size, handle)
        self._set_attr.apply(caller, node, change)
        with self._core.lock:
            return self._names.entry_locked(node)

    def statfs(self, caller: Caller) -> FileSystemStats:
        return self._statfs.stats()

    def getxattr(self, caller: Caller, ino: int, name: str) -> bytes:
        if not name.startswith(PREFIX):
            raise not_ours(name)  # security.capability, before the first write to each new file
        node = self._known(caller, ino) if is_stored(name) else None
        with self._core.lock:
            node = node or self._tree.get(ino)
            value = self._xattrs.get(node, name)
        if name == TYPE:
            return self.header_changes.shown_type(caller, node, value.decode()).encode()
        return value

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
        """Return the node, with its metadata known: at most one HEAD."""
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
        self._names.make_exact(caller, node)
        with self._core.lock:
            node = self._names.loaded_locked(node)  # no look-up has: what is written keeps its attributes
        opened = self._files.open(caller, node, flags)
        return self._referenced(node), opened

    def _create_new(
        self, caller: Caller, parent: int, name: str, mode: int, flags: int
    ) -> tuple[Entry, Opened]:
        with self._core.lock:
            directory = self._tree.directory(parent)
        check_entry(self._core, directory, name)
        self._files.admit_writer(caller)
        with self._core.lock:
            key = self._tree.child_key(directory, name)
            node = self._names.new_node_locked(caller, directory, name, Kind.FILE, mode)
            try:
                with self._core.journal.transaction:
                    self._files.new_file(node, key)
            except BaseException:
                self._tree.detach(node)
                self._contents.discard(node)
                raise
            self._core.crash_point("created")
            opened = self._files.created(caller, node, flags)
            return self._referenced(node), opened

    def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        with self._core.lock:
            node = self._tree.get(ino)
        if self._core.settings.consistency != "close-to-open":
            return self._files.open(caller, node, flags)
        self._close_to_open.before_open(
            caller, node, lambda one: self._files.fetches_locked(caller, one, flags)
        )
        opened = self._files.open(caller, node, flags)
        self._close_to_open.opened(node)
        return opened

    def wrote(self, handle: int) -> None:
        """Ignored: stat reads size and times of the local file, and the last close compares both."""

    def lseek(self, caller: Caller, handle: int, offset: int, whence: int, paged: bool = False) -> int:
        return self._sparse.lseek(handle, offset, whence, paged)

    def fsync(self, caller: Caller, handle: int, data_only: bool) -> None:
        self._files.fsync(caller, handle)

    def fsync_directory(self, caller: Caller, ino: int) -> None:
        caller.about_to_wait()
        self._core.journal.barrier()
