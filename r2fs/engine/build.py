"""Build: construction of the engine's parts, in this module alone; start and end of the engine's threads.

Never:   starts a thread.
Locks:   takes Core.lock (30).
Fails:   `close` softly: pending inodes stay pending, and the next start tidies staging.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from r2fs.engine.content.cache_care import CacheCare
from r2fs.engine.content.jobs import DownloadQueue, JobQueue, SlottedQueue
from r2fs.engine.content.storage import build_records_and_storage
from r2fs.engine.files.bucket_copy import BucketCopy
from r2fs.engine.files.copy_range import CopyRange
from r2fs.engine.files.open_files import Files
from r2fs.engine.files.sparse import Sparse
from r2fs.engine.fs import FileSystem, Parts, Queues
from r2fs.engine.inodes.core import Core
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
from r2fs.engine.namespace.xattrs import ExtendedAttributes
from r2fs.engine.recovery.handover import restore_handles
from r2fs.engine.recovery.replay import Replay
from r2fs.engine.writeback.progress import Status
from r2fs.engine.writeback.worker import COPY_THREADS
from r2fs.engine.writeback.write_back import build_write_back
from r2fs.model.errors import R2fsError
from r2fs.model.records import Inheritance
from r2fs.model.settings import Settings

log = logging.getLogger(__name__)

LISTERS = 8  # concurrent listings: a few hung requests leave some for the others
COMPLETERS = 2
BULK = 4  # commands at work at once; further ones wait
SWEEP_S = 60.0  # how often the cache is swept for entries past `cache_ttl`, at least
SWEEP_SHARE = 10  # of `cache_ttl`: an entry outlasts the limit by a tenth at most
SWEEP_LEAST_S = 0.1

Worker = tuple[str, Callable[[], None]]


class Engine(FileSystem):
    """A FileSystem, with its threads and its end."""

    @property
    def settings(self) -> Settings:
        """The settings in force: a changed settings file replaces some."""
        return self._core.settings

    def workers(self) -> list[Worker]:
        """Return name and main of each thread, to be started by service.py after the fork, and those that are new after
        each change of the settings."""
        settings, queues, worker = self._core.settings, self._queues, self._writeback.worker
        return [
            *((f"upload-{n}", partial(worker.work, n)) for n in range(settings.upload_threads)),
            *((f"copy-{n}", worker.copies.run) for n in range(COPY_THREADS)),
            *((f"part-{n}", queues.parts.run) for n in range(queues.parts.threads)),
            *((f"download-{n}", queues.downloads.run) for n in range(queues.downloads.threads)),
            *((f"list-{n}", queues.listings.run) for n in range(LISTERS)),
            *((f"complete-{n}", queues.background.run) for n in range(COMPLETERS)),
            *((f"bulk-{n}", queues.bulk.run) for n in range(BULK)),
            ("spares", self._core.staging.spares.run),
            ("leaving", self._storage.staging_gc.run),
            ("sweep", self._sweep),
            ("pins", self.pins.follow),
            ("room", self._files.pressure.watch),
        ]

    def stop(self) -> None:
        """End the threads soon: requests on their way are cut off, and their inodes stay pending."""
        self._writeback.worker.stop()
        self._queues.parts.stop(self._queues.parts.threads)
        self._queues.downloads.stop(self._queues.downloads.threads)
        self._queues.listings.stop(LISTERS)
        self._queues.background.stop(COMPLETERS)
        self._queues.bulk.stop(BULK)
        self._core.staging.spares.stop()
        self._files.pressure.stop()
        self._storage.staging_gc.stop()
        self.pins.stop()

    def close(self, leave: bool = False) -> None:
        """After the threads have ended: hand clean content to the cache, and sync staged bytes.

        `leave`: another daemon adopts the open files, and nothing waits for the disk.
        """
        if not leave:
            for handle in self._files.handles.all():
                self.release(handle.number)
        with self._core.lock:
            self._contents.retire_idle()
        if not leave:
            self._storage.disk_sync.sync_pending()
        self._storage.disk_sync.close_pending()
        self._sweep_staging()
        self._names.recalls.flush(everything=True)
        self._freshness.last.save(everything=True)
        self._core.cache.close()
        self._core.journal.close()

    def _sweep_staging(self) -> None:
        try:
            self._storage.staging_gc.sweep()
        except (OSError, R2fsError) as error:  # the next start removes the rest
            log.error("staging could not be tidied: %s", error)

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


def build(core: Core, inheritance: Inheritance | None = None) -> Engine:
    """Return the engine, restored from the journal.

    `inheritance`: open files of a predecessor's session. Fails as `Replay.run`.
    """
    downloads = DownloadQueue(core.settings.download_threads, core.clock)
    queues = Queues(downloads, SlottedQueue(core.settings.part_threads), JobQueue(), JobQueue(), JobQueue())
    records, storage = build_records_and_storage(core, queues.downloads, queues.background)
    tree, contents = records.tree, storage.contents
    writeback = build_write_back(records, storage, queues.parts)
    found = writeback.deletes.found_locked
    freshness = Freshness(records, storage.space.idle, queues.listings, found)
    names = Names(records, storage.staged_files, freshness, writeback)
    files = Files(records, storage, writeback, queues.background)
    set_attr = SetAttr(records, contents, writeback.queue)
    xattrs, scopes = ExtendedAttributes(records, set_attr, writeback.queue), Scopes(records, names)
    copies = LocalCopies(records, storage, freshness, scopes)
    Replay(records, storage, writeback, inheritance).run()
    if inheritance is not None:
        restore_handles(core, tree, contents, files, inheritance)
    return Engine(
        Parts(
            core=core,
            tree=tree,
            storage=storage,
            writeback=writeback,
            queues=queues,
            freshness=freshness,
            refreshing=Refreshing(records, freshness),
            close_to_open=CloseToOpen(records, freshness, queues.listings),
            names=names,
            renaming=Renaming(records, storage, freshness, writeback, names),
            files=files,
            sparse=Sparse(records, contents, files.handles),
            copy_range=CopyRange(
                records, storage, files, BucketCopy(records, storage, writeback, files.sessions)
            ),
            set_attr=set_attr,
            xattrs=xattrs,
            scopes=scopes,
            receipts=Receipts(records, scopes, xattrs),
            local_copies=copies,
            header_changes=HeaderChanges(records, names, copies, xattrs, queues.listings),
            pins=Pins(records, copies, freshness.listed),
            removal=TreeRemoval(records, names, writeback),
            status=Status(records, writeback),
            file_views=FileViews(records, names, xattrs, writeback),
            discards=Discards(records, storage, writeback, names),
            cache_care=CacheCare(core, contents),
        )
    )
