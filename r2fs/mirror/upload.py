"""Upload of one file: a PUT, parts, or a copy of the object onto itself where only time or mode are new; and the comparison
of a file with an object.

Never:   publishes a mixture of two contents: each read is followed by a look at the file, and a change breaks the
         request off before its last byte.
Threads: `send` in several; the parts of a large file in a pool of its own.
Fails:   StoreError (PreconditionFailed where another host was faster), BodyWithdrawn where a program writes.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from r2fs.disk.body import FileBody
from r2fs.disk.filecalls import local_error, outwait_file_time
from r2fs.disk.mirror_record import MirrorRecord
from r2fs.disk.plain_tree import Changed, Local, PlainTree
from r2fs.model.errors import BodyWithdrawn, StoreError
from r2fs.model.keys import printable
from r2fs.model.metadata import (
    DEFAULT_TYPE,
    SNIFF_BYTES,
    attributes_from,
    content_type,
    headers_of,
    metadata_for,
    of_new_bytes,
    without_header,
)
from r2fs.model.ports import ObjectStore
from r2fs.model.records import Condition, ObjectInfo, ObjectMeta, Part
from r2fs.model.settings import Settings

GZIP = b"\x1f\x8b"  # RFC 1952
PIECE = 1 << 20  # bytes in memory at once
_OF_PARTS = re.compile(r"([0-9a-f]{32})-(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Job:
    """One file to be sent, and the object that it replaces (None: it replaces none)."""

    path: str
    key: str
    local: Local
    replaces: ObjectInfo | None
    attempt: str

    @property
    def condition(self) -> Condition:
        return Condition.absent() if self.replaces is None else Condition.matches(self.replaces.etag)


class UnchangedBody(FileBody):
    """A file's region that is sent only while the file stays as it is: the last byte follows the last look."""

    def __init__(self, fd: int, start: int, length: int, local: Local) -> None:
        super().__init__(fd, start, length)
        self._descriptor = fd
        self._local = local

    def read(self, size: int = -1, /) -> bytes:
        data = super().read(size)
        require_unchanged(self._descriptor, self._local)
        return data


def require_unchanged(fd: int, local: Local) -> None:
    if Local.of(os.fstat(fd)) != local:
        raise BodyWithdrawn("the file was written while it was being sent")


class Uploader:
    def __init__(
        self, store: ObjectStore, tree: PlainTree, record: MirrorRecord, settings: Callable[[], Settings]
    ) -> None:
        """`settings` returns those in force."""
        # constant
        self._store = store
        self._tree = tree
        self._record = record
        self._settings = settings

    def part_size(self, size: int) -> int:
        return self._store.limits.part_size(size, self._settings().part_size)

    def send(self, job: Job) -> tuple[str, int]:
        """Send the file; returns the object's ETag and the number of bytes sent. Bytes and name are on this disk first:
        after a power cut a file that is missing here must have been removed, not lost."""
        fd = self._tree.open(job.path)
        try:
            if Local.of(os.fstat(fd)) != job.local:
                raise Changed(f"{printable(job.path)} was changed")
            outwait_file_time(job.local.ctime_ns)  # a later write gets another time
            os.fsync(fd)
            self._tree.sync_name(job.path)
            return self._send(fd, job)
        except OSError as error:
            raise local_error(error, printable(job.path)) from error
        finally:
            os.close(fd)

    def _send(self, fd: int, job: Job) -> tuple[str, int]:
        meta = self._meta(fd, job)
        size, there = job.local.size, job.replaces
        if there is not None and is_known_to_be(fd, size, there, self.part_size(size)):
            return self._describe(job, there, meta), 0
        if size >= self._settings().multipart_threshold:
            return self._send_parts(fd, job, meta), size
        body = UnchangedBody(fd, 0, size, job.local)
        return self._store.put(job.key, body, meta, condition=job.condition), size

    def _describe(self, job: Job, there: ObjectInfo, meta: ObjectMeta) -> str:
        """Store time and mode alone, if they differ."""
        known = attributes_from(there)
        wanted = attributes_from(replace(there, metadata=meta.metadata))
        if (known.mtime_ns, known.mode) == (wanted.mtime_ns, wanted.mode):
            return there.etag
        return self._store.copy(there.version, job.key, meta=meta, condition=job.condition)

    def _meta(self, fd: int, job: Job) -> ObjectMeta:
        head, found = os.pread(fd, SNIFF_BYTES, 0), os.fstat(fd)
        before = attributes_from(job.replaces or ObjectInfo(job.key, 0, "", 0))
        extra = of_new_bytes(before.extra)
        if headers_of(extra).get("content-encoding") == "gzip" and not head.startswith(GZIP):
            extra = without_header(extra, "content-encoding")
        kind = before.content_type
        if kind in (None, DEFAULT_TYPE):
            kind = content_type(job.path.rpartition("/")[2], head)
        mode = stat.S_IMODE(found.st_mode)
        now = replace(before, mtime_ns=found.st_mtime_ns, mode=mode, extra=extra)
        return metadata_for(now, stat.S_IFREG, job.attempt, kind or DEFAULT_TYPE)

    # ------------------------------------------------------------------ parts
    def _send_parts(self, fd: int, job: Job, meta: ObjectMeta) -> str:
        size = self.part_size(job.local.size)
        upload_id = self._store.create_upload(job.key, meta)
        self._record.add_multipart(job.key, upload_id)
        try:
            count = -(-job.local.size // size)
            with ThreadPoolExecutor(self._settings().part_threads, "mirror-part") as pool:
                parts = list(
                    pool.map(lambda n: self._send_part(fd, job, upload_id, n, size), range(1, count + 1))
                )
            require_unchanged(fd, job.local)
            etag = self._store.complete_upload(job.key, upload_id, parts, condition=job.condition)
        except BaseException:
            self.abort(job.key, upload_id)
            raise
        self._record.drop_multipart(upload_id)
        return etag

    def _send_part(self, fd: int, job: Job, upload_id: str, number: int, size: int) -> Part:
        start = (number - 1) * size
        body = UnchangedBody(fd, start, min(size, job.local.size - start), job.local)
        return self._store.put_part(job.key, upload_id, number, body)

    def abort(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload, now or by the next mirror."""
        try:
            self._store.abort_upload(key, upload_id)
        except StoreError:
            return  # its row stays
        self._record.drop_multipart(upload_id)


# ------------------------------------------------------------------ comparison by bytes
def md5_of(fd: int, start: int = 0, length: int | None = None) -> bytes:
    """MD5 of the file, or of a part of it."""
    digest = hashlib.md5(usedforsecurity=False)
    at, stop = start, os.fstat(fd).st_size if length is None else start + length
    while at < stop and (data := os.pread(fd, min(PIECE, stop - at), at)):
        digest.update(data)
        at += len(data)
    return digest.digest()


def is_known_to_be(fd: int, size: int, info: ObjectInfo, part_size: int) -> bool | None:
    """True if the file has the object's bytes, by their digests. None: the ETag does not tell.

    An object of several parts is compared as one of parts of `part_size`.
    """
    if size != info.size:
        return False
    if info.md5 is not None:
        return md5_of(fd).hex() == info.md5
    found = _OF_PARTS.fullmatch(info.etag)
    if found is None:
        return None
    count = -(-size // part_size)
    if count != int(found[2]):
        return None
    parts = b"".join(md5_of(fd, n * part_size, min(part_size, size - n * part_size)) for n in range(count))
    return True if hashlib.md5(parts, usedforsecurity=False).hexdigest() == found[1] else None


def is_same(store: ObjectStore, fd: int, size: int, info: ObjectInfo, part_size: int) -> bool:
    """Compare by digests, else by a download."""
    known = is_known_to_be(fd, size, info, part_size)
    if known is not None:
        return known
    at = 0
    with store.get(info.key, if_match=info.etag) as download:
        for data in download.chunks():
            if os.pread(fd, len(data), at) != data:
                return False
            at += len(data)
    return at == size
