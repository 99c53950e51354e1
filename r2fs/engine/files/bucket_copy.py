"""Bucket copy: the copy of a file whose bytes are not on this host into a new file, by one request inside the bucket.

Owns:    the request, sent while the program waits in copy_file_range(2), and the new file's way to a clean object.
Never:   copies into a file of which a program has a descriptor, as passthrough gives: its writes would be unseen.
Durable: the bucket has the copy before the call is answered. Afterwards nothing of it depends on the source.
Threads: `copy` is thread-safe.
Locks:   takes Core.lock; none during the request.
Fails:   NoSpace and LocalError of the journal. An error of the bucket is no failure: the bytes are downloaded.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.storage import Storage
from r2fs.engine.files.write_session import WriteSessions
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.tally import stays_here
from r2fs.engine.writeback.metadata import job_of_copy, keep_locked
from r2fs.engine.writeback.schedule import keys_of
from r2fs.engine.writeback.upload import Sent
from r2fs.engine.writeback.verdict import may_be_stored
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import R2fsError
from r2fs.model.keys import printable
from r2fs.model.pending import State
from r2fs.model.ports import Caller
from r2fs.model.records import Proof, Version

log = logging.getLogger(__name__)

LEAST: Final = 1 << 20  # missing bytes from which on a copy is worth its request: fewer are downloaded in one


@dataclass(frozen=True, slots=True)
class _Begun:
    """A copy on its way."""

    job: UploadJob
    source: Version
    content: SparseFile  # the target's, empty
    proof: Proof  # of that
    ctime_ns: int  # of the target: moved by each change of its attributes
    mtime_ns: int  # of the copy


class BucketCopy:
    def __init__(
        self, records: Records, storage: Storage, writeback: WriteBack, sessions: WriteSessions
    ) -> None:
        self._records = records
        self._core = records.core
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._disk_sync = storage.disk_sync
        self._queue = writeback.queue
        self._resolver = writeback.resolver
        self._uploader = writeback.uploader
        self._sessions = sessions

    def copy(self, caller: Caller, source: Node, target: Node) -> bool:
        """Make the target, new and empty, a copy of the source. False: it cannot be copied so, or the bucket refused."""
        with self._core.lock:
            if not self._fits_locked(source, target):
                return False
            caller.about_to_fetch()
            begun = self._begin_locked(source, target)
        try:
            sent = self._uploader.copy_of(begun.source, begun.job)
        except BaseException as error:
            with self._core.lock:
                self._queue.over_locked(begun.job.keys)
                if isinstance(error, R2fsError) and not may_be_stored(error):
                    self._attempts.drop(begun.job.attempt)
                else:
                    self._attempts.doubt(begun.job.attempt)
            if not isinstance(error, R2fsError):
                raise
            log.info("%s: downloaded, and not copied: %s", printable(begun.source.key), error)
            return False
        with self._core.lock:
            self._queue.over_locked(begun.job.keys)
            return self._stored_locked(target, begun, sent)

    # ---- before
    def _fits_locked(self, source: Node, target: Node) -> bool:
        """True for a source in the bucket with missing bytes, and a new target that nothing there is in the way of."""
        self._core.assert_held()
        version, pending = source.base, target.pending
        if version is None or not _is_worth_it(source, version):
            return False
        if (
            source.pending is not None
            and self._queue.dependencies.put_blocker_locked(source, keys_of(source)) is not None
        ):
            return False  # its own request is on its way
        if (
            pending is None
            or pending.state is not State.DIRTY
            or pending.staged is None
            or pending.in_flight is not None
            or pending.hold is not None
            or target.base is not None
            or target.deleted
            or target.handles != 1
            or self._contents.of(target).size
        ):
            return False
        return self._is_key_free_locked(target, pending.key, version)

    def _is_key_free_locked(self, target: Node, key: str, version: Version) -> bool:
        self._core.assert_held()
        split = self._core.settings.bucket.split
        return (
            split(key)[0] == split(version.key)[0]
            and not stays_here(target.pending, self._core.settings.local_patterns)
            and not self._pending.deletes.any_at(key)
            and not self._attempts.any_at(key)
            and not self._disk_sync.has_copied(key)
            and not self._pending.based_on(key)
            and self._queue.dependencies.put_blocker_locked(target, keys_of(target)) is None
            and self._queue.pace.free_at(key) <= self._core.clock.monotonic()
        )

    def _begin_locked(self, source: Node, target: Node) -> _Begun:
        """Journal the attempt: an object that appears without an answer is known as this host's."""
        self._core.assert_held()
        version, pending = source.base, target.pending
        assert version is not None and pending is not None
        attempt = self._attempts.begin(target, pending.key, None, version)
        mtime_ns = int(self._core.clock.time() * 1e9)
        job = job_of_copy(target, attempt, version, mtime_ns)
        self._queue.dependencies.begin_locked(job.keys)
        content = self._contents.of(target)
        return _Begun(job, version, content, self._contents.proof(target), target.ctime_ns, mtime_ns)

    # ---- after
    def _stored_locked(self, target: Node, begun: _Begun, sent: Sent) -> bool:
        """Make the target a clean file open for writing, with all bytes missing. False: it has changed meanwhile."""
        self._core.assert_held()
        job = begun.job
        if not self._is_as_begun_locked(target, begun):
            # Without the attempt nothing tells that the object is this host's.
            with self._pending.transaction:
                self._attempts.drop(job.attempt)
                self._resolver.left_behind_locked(job, sent.version, None if target.deleted else target)
            return False
        earlier = begun.content, target.size, target.metadata_known

        def undo() -> None:
            if target.content is not begun.content:
                self._contents.discard(target)
            target.content, target.size, target.metadata_known = earlier

        with self._pending.transaction:
            self._pending.on_rollback(undo)
            self._attempts.arrived(target.ino, job.attempt)
            self._pending.deletes.cleared(job.key, sent.version.etag)
            self._pending.commit(target, None, base=sent.version, mtime_ns=begun.mtime_ns)
            keep_locked(self._records, target, *sent)
            target.content, target.size, target.metadata_known = None, sent.version.size, True
            self._sessions.make_dirty(target)
        begun.content.close()
        self._records.tree.arrived(target)
        self._queue.gone_locked([job.key])
        log.info("%s: copied in the bucket (%d bytes)", printable(job.key), sent.version.size)
        return True

    def _is_as_begun_locked(self, target: Node, begun: _Begun) -> bool:
        """False for a target that was removed, renamed, written or given attributes meanwhile, or opened: a second
        writer may have the descriptor of the empty file."""
        self._core.assert_held()
        pending = target.pending
        return (
            not target.deleted
            and target.handles == 1
            and pending is not None
            and pending.state is State.DIRTY
            and pending.key == begun.job.key
            and target.content is begun.content
            and self._contents.proof(target) == begun.proof
            and target.ctime_ns == begun.ctime_ns
        )


def _is_worth_it(source: Node, version: Version) -> bool:
    """True for a file in the bucket of which much is missing here."""
    if not source.has_bytes_of_base or source.content is None or source.base_missing == version:
        return False
    missing = source.content.missing(0, version.size)
    return bool(version.etag) and sum(stop - start for start, stop in missing) >= LEAST
