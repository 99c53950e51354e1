"""Digests: the proof that a file on this host has the bytes of a version in the bucket.

Owns:    the background job that hashes the parts of large clean files, after the last close of a completely downloaded
         file and after the upload of a file: of the next edit only parts with another digest are uploaded. An upload
         that compares its parts knows them itself (`writeback/upload.py`). Hints of which version a program has
         copied a staged file, so that the bucket can copy as well; in memory alone.
Never:   sends a request; keeps digests of bytes that a program may have changed meanwhile; trusts a hint without the
         proof.
Threads: jobs of the background queue.
Locks:   methods of the classes are called with Core.lock held, and a job takes it for each part. The functions read
         files without it.
"""

from __future__ import annotations

import logging
import os

from r2fs.disk.body import has_digests, part_digest
from r2fs.engine.content.jobs import AHEAD, JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.attempts import UploadJob
from r2fs.model.errors import R2fsError
from r2fs.model.etags import is_md5
from r2fs.model.keys import printable
from r2fs.model.records import Kind, ObjectInfo, PartDigests, Version

COPIES_MAX = 1000  # hints; a lost one costs an upload

log = logging.getLogger(__name__)


class PartHasher:
    def __init__(self, core: Core, jobs: JobQueue) -> None:
        # constant
        self._core = core
        self._jobs = jobs
        # guarded by: Core.lock
        self._under_way: set[Version] = set()

    def closing(self, node: Node) -> None:
        """Queue the job at the last close, while the content is still open. With Core.lock held."""
        if node.content is not None and node.content.complete and self._is_wanted(node):
            self._submit(node, node.content.reader())

    def uploaded(self, node: Node, fd: int) -> None:
        """Queue the job after an upload. `fd`: of the bytes that were sent; the job reads a copy. With Core.lock held."""
        if not self._is_wanted(node):
            return
        try:
            own = os.dup(fd)
        except OSError as error:  # no descriptor is left: the end of the upload must not fail for this
            log.info("%s: its parts are not hashed: %s", printable(node.name), error)
            return
        self._submit(node, own)

    def _is_wanted(self, node: Node) -> bool:
        settings, version = self._core.settings, node.base
        return (
            version is not None
            and version.size >= settings.multipart_threshold  # a smaller one is sent in one PUT
            and not settings.read_only
            and node.kind is Kind.FILE
            and node.pending is None
            and not node.deleted
            and version not in self._under_way
            and self._core.cache.recall_parts(version) is None
        )

    def _submit(self, node: Node, fd: int) -> None:
        assert node.base is not None
        version = node.base
        self._under_way.add(version)
        if not self._jobs.submit(lambda: self._take(node, version, fd), AHEAD):
            os.close(fd)

    def _take(self, node: Node, version: Version, fd: int) -> None:
        try:
            size = self._core.store.limits.part_size(version.size, self._core.settings.part_size)
            digests: list[str] = []
            for start in range(0, version.size, size):
                with self._core.lock:
                    if self._core.stopping or not self._is_clean(node, version):
                        return
                digests.append(part_digest(os.pread, fd, start, min(size, version.size - start)))
            with self._core.lock:
                if self._is_clean(node, version):
                    self._core.cache.remember_parts(version, PartDigests(size, tuple(digests)))
        finally:
            os.close(fd)
            with self._core.lock:
                self._under_way.discard(version)

    def _is_clean(self, node: Node, version: Version) -> bool:
        """True if no program wrote: an open for writing makes the inode pending, and an upload gives it another base."""
        return node.pending is None and node.base == version


class CopiedFiles:
    """Versions from which programs have copied staged files, by inode."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._copies: dict[int, tuple[Version, int]] = {}  # source and bytes copied, by inode number

    def note_locked(self, ino: int, source: Version, start: int, stop: int) -> None:
        """Note that [start, stop) of the source was copied to the same place of the inode's file."""
        self._core.assert_held()
        before, copied = self._copies.pop(ino, (source, 0))
        if start == 0 or (before == source and start == copied):
            self._copies[ino] = (source, stop)
            if len(self._copies) > COPIES_MAX:
                del self._copies[next(iter(self._copies))]

    def source_locked(self, ino: int) -> Version | None:
        """Return the version that was copied from its begin to its end; None: there is none."""
        self._core.assert_held()
        source, copied = self._copies.get(ino, (None, 0))
        return source if source is not None and copied == source.size else None


def known_digests(core: Core, version: Version) -> PartDigests | str | None:
    """Return the digests by which a file can be compared with a version: its ETag if that is an MD5, else those of its
    parts; None: none are known."""
    if core.settings.bucket.md5_etags and is_md5(version.etag):
        return version.etag
    return core.cache.recall_parts(version)


def is_version(core: Core, version: Version, fd: int, size: int) -> bool:
    """True if the file has exactly the bytes of the version, as far as digests of the version are known."""
    digests = known_digests(core, version)
    return size == version.size and digests is not None and has_digests(os.pread, fd, size, digests)


def has_bytes_of(claim: UploadJob, info: ObjectInfo) -> bool:
    """True if the object has the upload's bytes: after a power cut a host has forgotten its last attempts."""
    if claim.fd < 0 or info.size != claim.size or not is_md5(info.etag):
        return False
    try:
        return has_digests(claim.gate.pread, claim.fd, claim.size, info.etag)
    except (R2fsError, OSError):  # withdrawn meanwhile: the next attempt decides
        return False
