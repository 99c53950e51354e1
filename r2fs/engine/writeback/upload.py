"""Sender: carries one claimed attempt to the bucket: a body, parts of one, or a copy inside.

Owns:    how bytes go: one PUT, equal parts above the threshold (resumed after a restart), or a
         server-side copy where only the name or the metadata is new.
Never:   changes a state: it returns the new version, or raises; `writeback/queue.py` decides.
Threads: `send` runs on an upload worker; parts run on the part threads beside it.
Locks:   none of its own; takes Core.lock only to journal a part.
Fails:   StoreError; BodyWithdrawn (somebody opened the file for writing); LocalError.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from dataclasses import replace
from typing import NamedTuple

from r2fs.disk.body import FileBody, MemoryBody
from r2fs.disk.digests import part_digest
from r2fs.disk.durable import local_error
from r2fs.engine.core import Core
from r2fs.engine.inodes.stat import merged, together
from r2fs.engine.jobs import JobQueue
from r2fs.engine.pending.upload_job import UploadJob
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
from r2fs.model.keys import printable
from r2fs.model.metadata import (
    MAX_TIME_NS,
    Facts,
    attributes_from,
    headers_of,
    metadata_for,
    of_new_bytes,
    without_header,
)
from r2fs.model.mime import DEFAULT, SNIFF_BYTES, content_type
from r2fs.model.pending import UNSYNCED
from r2fs.model.ports import Body
from r2fs.model.ranges import RangeSet
from r2fs.model.records import (
    TYPE_BITS,
    Kind,
    MultipartState,
    ObjectInfo,
    ObjectMeta,
    Part,
    PartDigests,
    Proof,
    Version,
)

log = logging.getLogger(__name__)

GZIP = b"\x1f\x8b"  # RFC 1952: how compressed bytes begin

BODILESS_TYPES = {Kind.DIRECTORY: "application/x-directory", Kind.SYMLINK: "text/plain"}


class Sent(NamedTuple):
    """The version that the bucket has now, and the facts stored with it."""

    version: Version
    facts: Facts


class Uploader:
    def __init__(self, core: Core, parts: JobQueue) -> None:
        self._core = core
        self._store = core.store
        self._parts = parts

    def send(self, claim: UploadJob) -> Sent:
        """What the bucket has now. The file's bytes are synced to this disk before they are there."""
        if claim.copy:
            return self._copy(claim)
        if not claim.known:
            claim = self._with_facts(claim)
        elif claim.stored is not None and claim.replaces_base:
            claim = self._with_news(claim, claim.stored)
        if claim.body is not None:
            return Sent(self._put(claim, MemoryBody(claim.body), len(claim.body)), claim.facts)
        claim = self._with_type(claim)
        self._sync(claim)
        begun = self._resume(claim)
        if begun is not None or claim.size >= self._core.settings.multipart_threshold:
            return Sent(self._multipart(claim, begun), claim.facts)
        body = FileBody(claim.fd, 0, claim.size, claim.gate, claim.sent)
        return Sent(self._put(claim, body, claim.size), claim.facts)

    def _sync(self, claim: UploadJob) -> None:
        try:
            os.fdatasync(claim.fd)
        except OSError as error:
            if (
                error.errno == errno.EIO
            ):  # told once: what is read from now on may be what the disk had before
                raise SyncFailed(UNSYNCED) from error
            raise local_error(error, claim.key) from error

    def _with_facts(self, claim: UploadJob) -> UploadJob:
        """Overwritten without having been read: what its metadata says and we never asked for, stays."""
        assert claim.base is not None
        try:
            info = self._store.head(claim.base.key)
        except ObjectMissing:
            return claim
        # What is to be replaced may be an earlier attempt of ours, which took the metadata over.
        ours = claim.expected_etag if claim.key == claim.base.key else None
        if info.etag not in (claim.base.etag, ours):
            return claim  # the condition decides
        facts = together(attributes_from(info), claim.facts)
        return replace(claim, facts=replace(facts, extra=of_new_bytes(facts.extra)))

    def _with_news(self, claim: UploadJob, stored: Facts) -> UploadJob:
        """Merge another host's change of the metadata alone: it leaves the ETag, and so the PUT's condition, as it was."""
        try:
            info = self._store.head(claim.key)
        except ObjectMissing:
            return claim
        if info.etag != claim.expected_etag:
            return claim  # the condition decides
        facts = self._merge(claim, stored, info)
        if facts != claim.facts:
            with self._core.lock:  # an upload that was begun has the metadata of its beginning
                self._core.journal.outdate_multipart(claim.ino)
        return replace(claim, facts=facts)

    def _merge(self, claim: UploadJob, stored: Facts, info: ObjectInfo) -> Facts:
        there = attributes_from(info)
        if not claim.copy:
            there = replace(there, extra=of_new_bytes(there.extra))
        facts = merged(there, claim.facts, stored, claim.kind is Kind.DIRECTORY)
        if facts != claim.facts:
            log.info("%s: another host has changed its metadata: both changes are kept", printable(claim.key))
        return facts

    # ------------------------------------------------------------------ one request
    def _put(self, claim: UploadJob, body: Body, size: int) -> Version:
        etag = self._store.put(claim.key, body, self._meta(claim), condition=claim.condition)
        return Version(claim.key, etag, size)

    def _with_type(self, claim: UploadJob) -> UploadJob:
        """By the name, else by the first bytes, unless somebody has said another."""
        facts = claim.facts
        encoding = headers_of(facts.extra).get("content-encoding", "")
        if claim.kind is not Kind.FILE or (facts.content_type is not None and encoding != "gzip"):
            return claim
        head = claim.gate.pread(claim.fd, SNIFF_BYTES, 0) if claim.fd >= 0 else b""
        if encoding == "gzip" and not head.startswith(GZIP):  # written anew: nobody could decode it
            facts = replace(facts, extra=without_header(facts.extra, "content-encoding"))
        kind = facts.content_type or content_type(claim.name, head)
        return replace(claim, facts=replace(facts, content_type=kind))

    def _meta(self, claim: UploadJob) -> ObjectMeta:
        kind = claim.facts.content_type or BODILESS_TYPES.get(claim.kind, DEFAULT)
        return metadata_for(claim.facts, TYPE_BITS[claim.kind], claim.attempt, kind)

    def _copy(self, claim: UploadJob) -> Sent:
        """Another name, or other metadata. What the source's metadata says and we do not know, stays."""
        assert claim.base is not None
        info = self._store.head(claim.base.key)
        if info.etag != claim.base.etag:
            raise PreconditionFailed(f"{claim.base.key} was changed by somebody else", source=True)
        # What is known is all there is: an extended attribute that was removed does not come back.
        if not claim.known:
            facts = together(attributes_from(info), claim.facts)
        else:
            facts = claim.facts if claim.stored is None else self._merge(claim, claim.stored, info)
        if facts.mtime_ns is None:
            facts = replace(facts, mtime_ns=min(info.modified_ns, MAX_TIME_NS))
        named = DEFAULT if claim.kind is Kind.DIRECTORY else content_type(claim.name)
        by_bytes = info.content_type if named == DEFAULT and info.content_type else named
        kind = facts.content_type or by_bytes
        meta = metadata_for(facts, TYPE_BITS[claim.kind], claim.attempt, kind)
        meta = replace(meta, headers={**(info.headers or {}), **(meta.headers or {})})
        etag = self._store.copy(claim.base, claim.key, meta=meta, condition=claim.condition)
        return Sent(Version(claim.key, etag, claim.base.size), facts)

    # ------------------------------------------------------------------ parts
    def _multipart(self, claim: UploadJob, begun: MultipartState | None) -> Version:
        earlier = self._core.cache.recall_parts(claim.base) if claim.base is not None else None
        state = begun or self._begin(claim, earlier)
        try:
            run = _PartRun(self._core, self._parts, claim, state, earlier)
            done, digests = run.run(), run.digests()
            self._core.crash_point("parts_sent")
            etag = self._store.complete_upload(claim.key, state.upload_id, done, condition=claim.condition)
            self._core.crash_point("multipart_completed")
        except UploadMissing:
            self._forget(claim)  # expired, aborted, or refused as unequal: the next attempt begins anew
            raise
        except PreconditionFailed:
            self._store.abort_upload(claim.key, state.upload_id)
            self._forget(claim)
            raise
        self._forget(claim)
        version = Version(claim.key, etag, claim.size)
        self._core.cache.remember_parts(version, digests)
        return version

    def resumable(self, ino: int, key: str, fd: int | None) -> MultipartState | None:
        """The upload that an earlier attempt began of these very bytes and metadata. With Core.lock held."""
        state = self._core.journal.multipart(ino) if fd is not None else None
        if state is None or fd is None or not state.attempt:
            return None
        return state if state.key == key and state.proof == _proof(fd) else None

    def _resume(self, claim: UploadJob) -> MultipartState | None:
        """The upload that this attempt goes on with. One of other bytes or metadata is given up."""
        with self._core.lock:
            state = self._core.journal.multipart(claim.ino)
        if state is None:
            return None
        if state.attempt == claim.attempt:
            return state
        self._store.abort_upload(state.key, state.upload_id)
        self._forget(claim)
        return None

    def _begin(self, claim: UploadJob, earlier: PartDigests | None) -> MultipartState:
        wanted = earlier.part_size if earlier is not None else self._core.settings.part_size
        size = self._store.limits.part_size(claim.size, wanted)
        proof = _proof(claim.fd)
        upload_id = self._store.create_upload(claim.key, self._meta(claim))
        self._core.crash_point("multipart_created")
        with self._core.lock:
            # What changed meanwhile has withdrawn the claim, and found no upload to outdate.
            attempt = "" if claim.gate.closed else claim.attempt
            state = MultipartState(upload_id, claim.ino, claim.key, attempt, size, proof, ())
            self._core.journal.put_multipart(state)
        self._core.crash_point("multipart_begun")
        return state

    def _forget(self, claim: UploadJob) -> None:
        with self._core.lock, self._core.journal.transaction() as journal:
            journal.drop_multipart(claim.ino)


class _PartRun:
    """All missing parts of one upload, several at once. The first failure stops the rest.

    A part whose bytes the base has at the same place is copied inside the bucket.
    """

    def __init__(
        self,
        core: Core,
        jobs: JobQueue,
        claim: UploadJob,
        state: MultipartState,
        earlier: PartDigests | None,
    ) -> None:
        self._core = core
        self._jobs = jobs
        self._claim = claim
        self._state = state
        self._earlier = earlier if earlier and earlier.part_size == state.part_size else None
        self._edits = None if claim.edits is None else RangeSet(claim.edits)
        self._lock = threading.Lock()
        # guarded by: _lock
        self._done = {part.number: part for part in state.parts}
        self._part_hasher: dict[int, str] = {}
        self._copies = claim.base is not None and bool(
            claim.base.etag
        )  # False: the server refused one, or the base is gone
        self._failure: BaseException | None = None
        self._left = 0
        self._idle = threading.Event()

    def run(self) -> list[Part]:
        for part in self._done.values():
            self._claim.sent(part.size)
        count = -(-self._claim.size // self._state.part_size)
        missing = [number for number in range(1, count + 1) if number not in self._done]
        self._left = len(missing)
        for number in missing:
            if not self._jobs.submit(lambda n=number: self._one(n)):  # type: ignore[misc]
                self._ended(BodyWithdrawn("the mount is stopping"))
        if missing:
            self._idle.wait()
        if self._failure is not None:
            raise self._failure
        return [self._done[number] for number in sorted(self._done)]

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
        """One part, whatever came of it."""
        with self._lock:
            self._failure = self._failure or failure
            self._left -= 1
            if not self._left:
                self._idle.set()

    def _send(self, number: int) -> None:
        claim, state = self._claim, self._state
        start, length = self._range(number)
        part = self._copy(number, start, length) if self._is_kept(number, start, length) else None
        if part is None:
            body = FileBody(claim.fd, start, length, claim.gate, claim.sent)
            part = self._core.store.put_part(claim.key, state.upload_id, number, body)
        self._core.crash_point("part_stored")
        self._digest(number)
        with self._core.lock, self._core.journal.transaction() as journal:
            journal.put_part(claim.ino, part)
        with self._lock:
            self._done[number] = part
        self._core.crash_point("part_sent")

    def _range(self, number: int) -> tuple[int, int]:
        """Start and length."""
        start = (number - 1) * self._state.part_size
        return start, min(self._state.part_size, self._claim.size - start)

    def _is_kept(self, number: int, start: int, length: int) -> bool:
        """Has the base these very bytes in this place?"""
        base, earlier = self._claim.base, self._earlier
        if base is None or not self._copies or base.size < start + length:
            return False
        if self._edits is not None:
            return not self._edits.within(start, start + length)
        return earlier is not None and earlier.digests[number - 1 : number] == (self._digest(number),)

    def _copy(self, number: int, start: int, length: int) -> Part | None:
        """Inside the bucket; None where it cannot be, and the part is to be sent."""
        claim, upload_id = self._claim, self._state.upload_id
        assert claim.base is not None
        try:
            part = self._core.store.copy_part(claim.key, upload_id, number, claim.base, start, length)
        except (PreconditionFailed, ObjectMissing, RangeInvalid, Refused) as error:
            log.info("%s: sent whole, since parts cannot be copied: %s", printable(claim.key), error)
            self._copies = False
            return None
        claim.sent(length)
        return part

    def _digest(self, number: int) -> str:
        known = self._part_hasher.get(number)
        if known is None:
            start, length = self._range(number)
            known = self._part_hasher[number] = part_digest(
                self._claim.gate.pread, self._claim.fd, start, length
            )
        return known

    def digests(self) -> PartDigests:
        """Of all that was sent: for the next edit."""
        return PartDigests(
            self._state.part_size, tuple(self._digest(number) for number in sorted(self._done))
        )


def _proof(fd: int) -> Proof:
    """Of the bytes alone: a rename of the staged file changes its ctime, so that is left out."""
    found = os.fstat(fd)
    return Proof(found.st_size, found.st_mtime_ns, 0)
