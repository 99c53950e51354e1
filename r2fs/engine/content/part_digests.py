"""Part digests of large clean files: after an edit only parts with another digest are uploaded.

Owns:    the background job that computes them after the last close of a completely downloaded file; a file uploaded
         by this host has them from its upload (`writeback/upload.py`).
Never:   sends a request; keeps digests of bytes that a program may have changed meanwhile.
Threads: jobs of the background queue.
Locks:   `closing` is called with Core.lock held; a job takes it at its begin and end.
"""

from __future__ import annotations

import os

from r2fs.disk.body import has_digests, part_digest
from r2fs.engine.content.jobs import AHEAD, JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.attempts import UploadJob
from r2fs.model.errors import R2fsError
from r2fs.model.etags import is_md5
from r2fs.model.records import Kind, ObjectInfo, PartDigests, Version


class PartHasher:
    def __init__(self, core: Core, jobs: JobQueue) -> None:
        # constant
        self._core = core
        self._jobs = jobs
        # guarded by: Core.lock
        self._under_way: set[Version] = set()

    def closing(self, node: Node) -> None:
        """Queue the job at the last close, while the content is still open. With Core.lock held."""
        settings, version, content = self._core.settings, node.base, node.content
        if (
            settings.read_only
            or version is None
            or version.size < settings.multipart_threshold
            or node.kind is not Kind.FILE
            or node.pending is not None
            or node.deleted
            or content is None
            or not content.complete
            or version in self._under_way
            or self._core.cache.recall_parts(version) is not None
        ):
            return
        fd = content.reader()
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


def known_digests(core: Core, version: Version) -> PartDigests | str | None:
    """Return the digests by which a file can be compared with a version: its ETag if that is an MD5, else those of its
    parts; None: none are known."""
    if core.settings.bucket.md5_etags and is_md5(version.etag):
        return version.etag
    return core.cache.recall_parts(version)


def has_bytes_of(claim: UploadJob, info: ObjectInfo) -> bool:
    """True if the object has the upload's bytes: after a power cut a host has forgotten its last attempts."""
    if claim.fd < 0 or info.size != claim.size or not is_md5(info.etag):
        return False
    try:
        return has_digests(claim.gate.pread, claim.fd, claim.size, info.etag)
    except (R2fsError, OSError):  # withdrawn meanwhile: the next attempt decides
        return False
