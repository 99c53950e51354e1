"""Storage: the parts of this room, put together: where bytes are on this host, and how missing ones come here."""

from __future__ import annotations

from dataclasses import dataclass

from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.download_slots import DownloadQueue
from r2fs.engine.content.durability import DiskSync
from r2fs.engine.content.hydrate import Hydration
from r2fs.engine.content.idle import IdleFiles
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.local_only import LocalOnly
from r2fs.engine.content.reader import Reader
from r2fs.engine.content.staging_gc import StagingGc
from r2fs.engine.core import Core
from r2fs.engine.pending.records import Records


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    staging_gc: StagingGc
    space: DiskSpace
    reader: Reader
    contents: Contents
    hydration: Hydration
    disk_sync: DiskSync
    local_only: LocalOnly


def build_records_and_storage(core: Core, downloads: DownloadQueue) -> tuple[Records, Storage]:
    """Together, since the records hand each staged file whose row is gone to the storage."""
    staging_gc = StagingGc(core)
    space = DiskSpace(core, IdleFiles(core), staging_gc)
    reader = Reader(core, downloads, space)
    records = Records.of(core, staging_gc.add)
    contents = Contents(records, reader, space)
    return records, Storage(
        staging_gc,
        space,
        reader,
        contents,
        Hydration(records, contents, reader),
        DiskSync(records, contents),
        LocalOnly(records),
    )
