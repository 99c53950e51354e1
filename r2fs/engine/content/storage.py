"""Storage: the parts of this room, put together: an inode's bytes on this host, and downloads of missing ones."""

from __future__ import annotations

from dataclasses import dataclass

from r2fs.engine.content.digests import CopiedFiles, PartHasher
from r2fs.engine.content.disk_space import DiskSpace, StagingGc
from r2fs.engine.content.download import Downloader
from r2fs.engine.content.durability import DiskSync
from r2fs.engine.content.hydrate import Reader
from r2fs.engine.content.idle import IdleFiles
from r2fs.engine.content.inode_hydration import Hydration
from r2fs.engine.content.jobs import DownloadQueue, JobQueue
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.own_copies import OwnCopies
from r2fs.engine.content.prefetch import Prefetch
from r2fs.engine.content.staged_files import StagedFiles
from r2fs.engine.content.streaming import Streams
from r2fs.engine.content.warm import Warm
from r2fs.engine.inodes.core import Core
from r2fs.engine.pending.records import Records


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    staging_gc: StagingGc
    space: DiskSpace
    streams: Streams
    downloader: Downloader
    contents: Contents
    staged_files: StagedFiles
    reader: Reader
    hydration: Hydration
    own_copies: OwnCopies
    prefetch: Prefetch
    warm: Warm
    disk_sync: DiskSync
    copied_files: CopiedFiles
    part_hasher: PartHasher


def build_records_and_storage(
    core: Core, downloads: DownloadQueue, background: JobQueue
) -> tuple[Records, Storage]:
    """Build both: the records hand each staged file whose row is gone to the storage."""
    staging_gc = StagingGc(core)
    space = DiskSpace(core, IdleFiles(core), staging_gc)
    streams = Streams(core)
    downloader = Downloader(core, streams, downloads.moved, space)
    records = Records.of(core, staging_gc.add)
    contents = Contents(records, streams, space)
    staged_files = StagedFiles(records, contents)
    reader = Reader(core, downloads, streams, downloader)
    return records, Storage(
        staging_gc,
        space,
        streams,
        downloader,
        contents,
        staged_files,
        reader,
        Hydration(core, contents, reader),
        OwnCopies(records),
        Prefetch(core, contents, reader, space, downloads),
        Warm(core, contents, reader, space),
        DiskSync(records, contents, staged_files),
        CopiedFiles(core),
        PartHasher(core, background),
    )
