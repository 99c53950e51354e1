"""Write-back: the parts of this room, put together for the rooms above."""

from __future__ import annotations

from dataclasses import dataclass

from r2fs.engine.content.jobs import JobQueue
from r2fs.engine.content.storage import Storage
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.deletes import Deletes
from r2fs.engine.writeback.preparation import Preparation
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.engine.writeback.resolve import Resolver
from r2fs.engine.writeback.transfers import Transfers
from r2fs.engine.writeback.upload import Uploader
from r2fs.engine.writeback.worker import Worker


@dataclass(frozen=True, slots=True, eq=False)
class WriteBack:
    queue: UploadQueue
    deletes: Deletes
    resolver: Resolver
    worker: Worker
    uploader: Uploader
    transfers: Transfers


def build_write_back(records: Records, storage: Storage, parts: JobQueue) -> WriteBack:
    """Build the room. `parts`: the work queue of the parts of large uploads."""
    queue = UploadQueue(records)
    deletes = Deletes(records, storage.disk_sync, queue)
    uploader = Uploader(records, parts, storage.copied_files)
    preparation = Preparation(records, storage, queue, deletes, uploader)
    worker = Worker(records.core, queue, preparation)
    return WriteBack(queue, deletes, preparation.resolver, worker, uploader, Transfers(records, queue))
