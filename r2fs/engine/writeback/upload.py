"""Upload: carries one claimed attempt to the bucket: a body, parts of one, or a copy inside.

Owns:    the way of the bytes: one PUT, equal parts above the threshold (resumed after a restart), or a
         server-side copy where only the name or the metadata is new.
Never:   changes a state: returns the new version, or raises (`writeback/resolve.py`).
Threads: `send` runs on an upload thread; parts run on the part threads beside it.
Locks:   takes Core.lock only for the journal's rows of a multipart upload, and for metadata read since the claim.
Fails:   StoreError; BodyWithdrawn after an open for writing; LocalError; SyncFailed.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from r2fs.disk.body import FileBody, MemoryBody, part_digest
from r2fs.disk.filecalls import local_error
from r2fs.engine.content.digests import CopiedFiles, is_version
from r2fs.engine.content.jobs import JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.metadata import UploadMetadata, with_type
from r2fs.model.errors import (
    BodyWithdrawn,
    ObjectMissing,
    PreconditionFailed,
    R2fsError,
    RangeInvalid,
    Refused,
    SyncFailed,
    UploadMissing,
)
from r2fs.model.keys import nfc, printable
from r2fs.model.metadata import Facts, remembered
from r2fs.model.pending import UNSYNCED
from r2fs.model.ports import Body
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Condition, Kind, MultipartState, Part, PartDigests, Proof, Version

log = logging.getLogger(__name__)

COPIED_FROM = 1 << 20  # bytes: a smaller file is sent in the time of a copy's HEADs


class Sent(NamedTuple):
    """The object's new version, and the metadata stored with it."""

    version: Version
    facts: Facts


class Uploader:
    def __init__(self, records: Records, parts: JobQueue, copied_files: CopiedFiles) -> None:
        self._core = core = records.core
        self._copied_files = copied_files
        self._store = core.store
        self._metadata = UploadMetadata(records)
        self._parts = parts

    def send(self, job: UploadJob) -> Sent:
        """Send the job. The file's bytes are on this disk before the bucket has them: the cache keeps the file."""
        sent = self._send(job)
        version = sent.version
        # The cache may remember other metadata of this version. Of a new one the journal's row tells all.
        if job.copy or job.kind is Kind.DIRECTORY or version.etag == job.expected_etag:
            self._core.cache.remember(version.key, version.etag, remembered(sent.facts))
        return sent

    def _send(self, job: UploadJob) -> Sent:
        if job.copy:
            return self._copy(job)
        job = self._metadata.completed(job)
        if job.body is not None:
            return self._put(job, MemoryBody(job.body))
        job = with_type(job)
        self._sync(job)
        begun = self._resume(job) if job.begun else None
        copied = self._copy_source(job) if begun is None and job.size >= COPIED_FROM else None
        if copied is not None:
            return copied
        if begun is not None or job.size >= self._core.settings.multipart_threshold:
            return self._multipart(job, begun)
        return self._put(job, FileBody(job.fd, 0, job.size, job.gate, job.sent))

    def _sync(self, job: UploadJob) -> None:
        try:
            os.fdatasync(job.fd)
        except OSError as error:
            # The kernel reports it once; later reads may give older bytes of the disk.
            if error.errno == errno.EIO:
                raise SyncFailed(UNSYNCED) from error
            raise local_error(error, job.key) from error

    # ------------------------------------------------------------------ one request
    def _put(self, job: UploadJob, body: Body) -> Sent:
        etag = self._store.put(job.key, body, self._metadata.of_body(job), condition=job.condition)
        return Sent(Version(job.key, etag, len(body)), job.facts)

    def _copy(self, job: UploadJob) -> Sent:
        """Copy the base to another name, or onto itself with other metadata."""
        assert job.base is not None
        limits = self._store.limits
        merge = self._metadata.of_merge(job) if limits.r2_copies else None
        if merge is not None and job.base.size <= limits.max_copy:
            try:
                etag = self._store.copy(job.base, job.key, meta=merge, condition=job.condition)
                return Sent(Version(job.key, etag, job.base.size), job.facts)
            except Refused as error:  # the directive, perhaps: else the next request is refused as well
                log.info("%s: copied with all its metadata: %s", printable(job.key), error)
        source = self._store.head(job.base.key)
        if source.etag != job.base.etag:
            raise PreconditionFailed(f"{job.base.key} was changed by somebody else", source=True)
        facts, meta = self._metadata.of_copy(job, source)
        etag = self._store.copy(job.base, job.key, meta=meta, condition=job.condition)
        return Sent(Version(job.key, etag, job.base.size), facts)

    def _copy_source(self, job: UploadJob) -> Sent | None:
        """Copy the object that a program has copied the file from, if that has the same bytes; None: send the bytes."""
        with self._core.lock:
            source = self._copied_files.source_locked(job.ino)
        if source is None or nfc(source.key) == nfc(job.key):
            return None
        if not is_version(self._core, source, job.fd, job.size):
            return None
        try:
            return self.copy_of(source, job)
        except PreconditionFailed as error:
            if not error.source:
                raise
            return None
        except (ObjectMissing, Refused) as error:
            log.info("%s: sent, and not copied: %s", printable(job.key), error)
            return None

    def copy_of(self, source: Version, job: UploadJob) -> Sent:
        """Make the job's object from another one of the same bytes, with the job's own metadata."""
        meta = self._metadata.of_body(job)
        meta = replace(meta, headers=meta.headers or {})  # none of the source's
        etag = self._store.copy(source, job.key, meta=meta, condition=job.condition)
        version = Version(job.key, etag, source.size)
        digests = self._core.cache.recall_parts(source)
        if digests is not None:
            self._core.cache.remember_parts(version, digests)
        return Sent(version, job.facts)

    # ------------------------------------------------------------------ parts
    def _multipart(self, job: UploadJob, begun: MultipartState | None) -> Sent:
        earlier = self._core.cache.recall_parts(job.base) if job.base is not None else None
        state = begun or self._begin(job, earlier)
        try:
            run = _PartRun(self._core, self._parts, job, state, earlier)
            done, digests = run.run(), run.digests()
            self._core.crash_point("parts_sent")
            etag = self._store.complete_upload(job.key, state.upload_id, done, condition=job.condition)
            self._core.crash_point("multipart_completed")
        except UploadMissing:
            self._forget(job)  # expired, aborted, or refused as unequal: the next attempt begins anew
            raise
        except PreconditionFailed:
            self._store.abort_upload(job.key, state.upload_id)
            self._forget(job)
            raise
        self._forget(job)
        version = Version(job.key, etag, job.size)
        if digests is not None:
            self._core.cache.remember_parts(version, digests)
        return Sent(version, job.facts)

    def begun_locked(self, ino: int, key: str, fd: int | None) -> tuple[bool, MultipartState | None]:
        """True if an earlier attempt began a multipart upload; its state, if of the same bytes and metadata."""
        self._core.assert_held()
        state = self._core.journal.multipart(ino) if fd is not None else None
        if state is None or fd is None:
            return False, None
        same = bool(state.attempt) and state.key == key and state.proof == _proof(fd)
        return True, state if same else None

    def _resume(self, job: UploadJob) -> MultipartState | None:
        """The upload that this attempt continues. One of other bytes or metadata is aborted."""
        with self._core.lock:
            state = self._core.journal.multipart(job.ino)
        if state is None:
            return None
        if state.attempt == job.attempt:
            return state
        self._store.abort_upload(state.key, state.upload_id)
        self._forget(job)
        return None

    def _begin(self, job: UploadJob, earlier: PartDigests | None) -> MultipartState:
        wanted = earlier.part_size if earlier is not None else self._core.settings.part_size
        size = self._store.limits.part_size(job.size, wanted)
        proof = _proof(job.fd)
        upload_id = self._store.create_upload(job.key, self._metadata.of_body(job))
        self._core.crash_point("multipart_created")
        with self._core.lock:
            # A change in the meantime has withdrawn the job, and found no upload to outdate.
            attempt = "" if job.gate.closed else job.attempt
            state = MultipartState(upload_id, job.ino, job.key, attempt, size, proof, ())
            self._core.journal.put_multipart(state)
        self._core.crash_point("multipart_begun")
        return state

    def _forget(self, job: UploadJob) -> None:
        with self._core.lock:
            self._core.journal.drop_multipart(job.ino)


class _PartRun:
    """All missing parts of one upload, several at once. The first failure stops the rest.

    Parts with the same bytes at the same place of the base are copied inside the bucket. A copy proves nothing of the
    version that it was made from: one proof, after the last part, is for all of them, and none is journalled before.
    """

    def __init__(
        self,
        core: Core,
        queue: JobQueue,
        job: UploadJob,
        state: MultipartState,
        earlier: PartDigests | None,
    ) -> None:
        self._core = core
        self._queue = queue
        self._job = job
        self._state = state
        self._earlier = earlier if earlier and earlier.part_size == state.part_size else None
        self._edits = None if job.edits is None else RangeSet(job.edits)
        self._lock = threading.Lock()
        # guarded by: _lock
        self._done = {part.number: part for part in state.parts}
        self._part_digests: dict[int, str] = {}
        self._copied: set[int] = set()
        # False: the service has no copies of parts, the server refused one, or the base is gone.
        copies = core.store.limits.part_copies
        self._copies = copies and job.base is not None and bool(job.base.etag)
        self._failure: BaseException | None = None
        self._left = 0
        self._idle = threading.Event()

    def run(self) -> list[Part]:
        for part in self._done.values():
            self._job.sent(part.size)
        count = -(-self._job.size // self._state.part_size)
        self._all([number for number in range(1, count + 1) if number not in self._done])
        if self._copied and not self._is_base_proven():
            log.info("%s: replaced meanwhile, its parts are sent and not copied", printable(self._job.key))
            self._copies = False
            for number in self._copied:
                self._job.sent(-self._done[number].size)
            self._all(sorted(self._copied))
        return [self._done[number] for number in sorted(self._done)]

    def _all(self, numbers: list[int]) -> None:
        """Send or copy these parts; raise the first failure."""
        if not numbers:
            return
        self._idle.clear()
        self._left = len(numbers)
        for number in numbers:
            if not self._queue.submit(partial(self._one, number)):
                self._ended(BodyWithdrawn("the mount is stopping"))
        self._idle.wait()
        if self._failure is not None:
            raise self._failure

    def _is_base_proven(self) -> bool:
        """True if the base was there during each copy: it is there after the last, or Complete's condition demands it."""
        job, store = self._job, self._core.store
        base = job.base
        assert base is not None
        if (
            store.limits.conditional_complete
            and job.key == base.key
            and job.condition == Condition(base.etag)
        ):
            return True
        found = self._core.head(base.key)
        return found is not None and found.etag == base.etag

    def _one(self, number: int) -> None:
        with self._lock:
            failure: BaseException | None = self._failure
        try:
            if failure is None:
                self._send(number)
        except (R2fsError, OSError) as error:
            failure = error
        except BaseException as error:
            failure = error
            raise
        finally:
            self._ended(failure)

    def _ended(self, failure: BaseException | None) -> None:
        """Count a part that was sent or failed."""
        with self._lock:
            self._failure = self._failure or failure
            self._left -= 1
            if not self._left:
                self._idle.set()

    def _send(self, number: int) -> None:
        job, state = self._job, self._state
        start, length = self._range(number)
        part = self._copy(number, start, length) if self._is_kept(number, start, length) else None
        copied = part is not None
        if part is None:
            body = FileBody(job.fd, start, length, job.gate, job.sent)
            part = self._core.store.put_part(job.key, state.upload_id, number, body)
        self._core.crash_point("part_stored")
        if job.base is not None:  # the next edit may come before PartHasher
            self._digest(number)
        if not copied:
            with self._core.lock:
                self._core.journal.put_part(job.ino, part)
        with self._lock:
            self._done[number] = part
            if copied:
                self._copied.add(number)
        self._core.crash_point("part_sent")

    def _range(self, number: int) -> tuple[int, int]:
        """Start and length."""
        start = (number - 1) * self._state.part_size
        return start, min(self._state.part_size, self._job.size - start)

    def _is_kept(self, number: int, start: int, length: int) -> bool:
        """True if the base has the same bytes in this place."""
        base, earlier = self._job.base, self._earlier
        if base is None or not self._copies or base.size < start + length:
            return False
        if self._edits is not None:
            return not self._edits.within(start, start + length)
        return earlier is not None and earlier.digests[number - 1 : number] == (self._digest(number),)

    def _copy(self, number: int, start: int, length: int) -> Part | None:
        """Copy the part inside the bucket. None: refused, and the part is to be sent."""
        job, upload_id = self._job, self._state.upload_id
        assert job.base is not None
        try:
            part = self._core.store.copy_part(job.key, upload_id, number, job.base, start, length)
        except (PreconditionFailed, ObjectMissing, RangeInvalid, Refused) as error:
            log.info("%s: sent whole, since parts cannot be copied: %s", printable(job.key), error)
            self._copies = False
            return None
        job.sent(length)
        return part

    def _digest(self, number: int) -> str:
        known = self._part_digests.get(number)
        if known is None:
            start, length = self._range(number)
            known = self._part_digests[number] = part_digest(
                self._job.gate.pread, self._job.fd, start, length
            )
        return known

    def digests(self) -> PartDigests | None:
        """Digests of all parts after an edit; None: PartHasher takes them later."""
        if self._part_digests.keys() != self._done.keys():
            return None
        return PartDigests(
            self._state.part_size, tuple(self._part_digests[number] for number in sorted(self._done))
        )


def _proof(fd: int) -> Proof:
    """Proof of the bytes alone, without the ctime, which a rename of the staged file changes."""
    found = os.fstat(fd)
    return Proof(found.st_size, found.st_mtime_ns, 0)
