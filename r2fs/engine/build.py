"""Build: puts the engine together. No other module makes one part and hands it to another."""

from __future__ import annotations

from r2fs.engine.content.storage import build_records_and_storage
from r2fs.engine.core import Core
from r2fs.engine.files.open_files import Files
from r2fs.engine.files.sparse import Sparse
from r2fs.engine.fs import FileSystem, Parts, Queues
from r2fs.engine.inodes.stat import AttributeView
from r2fs.engine.inodes.statfs import StatFs
from r2fs.engine.jobs import DownloadQueue, JobQueue
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.named_paths import Scopes
from r2fs.engine.namespace.receipts import Receipts
from r2fs.engine.namespace.rename import Renaming
from r2fs.engine.namespace.setattr import SetAttr
from r2fs.engine.namespace.special_files import SpecialFiles
from r2fs.engine.namespace.xattrs import ExtendedAttributes
from r2fs.engine.recovery.handover import restore_handles
from r2fs.engine.recovery.replay import Replay
from r2fs.engine.writeback.progress import Status
from r2fs.engine.writeback.write_back import build_write_back
from r2fs.model.records import Inheritance


def build(core: Core, inheritance: Inheritance | None = None) -> FileSystem:
    """The file system, with all that the journal holds restored.

    `inheritance`: what the session of a predecessor still has open. Fails as `Replay.run`.
    """
    queues = Queues(
        DownloadQueue(core.settings.download_threads, core.clock), JobQueue(), JobQueue(), JobQueue()
    )
    records, storage = build_records_and_storage(core, queues.downloads)
    tree, contents = records.tree, storage.contents
    writeback = build_write_back(records, storage, queues.parts)
    freshness = Freshness(records, queues.submit_listing, writeback.deletes.found_locked)
    names = Names(records, storage.staged_files, freshness, writeback, AttributeView(core))
    statfs = StatFs(core, tree)
    files = Files(records, storage, writeback, queues.background, statfs)
    set_attr = SetAttr(records, files, contents, writeback.queue)
    xattrs, scopes = ExtendedAttributes(core, tree, set_attr), Scopes(records, names)
    Replay(records, storage, writeback, inheritance).run()
    if inheritance is not None:
        restore_handles(core, tree, contents, files, inheritance)
    return FileSystem(
        Parts(
            records=records,
            storage=storage,
            writeback=writeback,
            queues=queues,
            freshness=freshness,
            names=names,
            renaming=Renaming(records, storage, freshness, writeback, names),
            special=SpecialFiles(core, tree, names),
            statfs=statfs,
            files=files,
            sparse=Sparse(records, contents, files.handles),
            set_attr=set_attr,
            xattrs=xattrs,
            scopes=scopes,
            receipts=Receipts(records, scopes, xattrs),
            status=Status(records, writeback),
        )
    )
