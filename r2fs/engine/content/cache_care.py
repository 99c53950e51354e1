"""Cache care: comparison of cached files with their ETags, and removal of all clean content without handles.

Never:   touches bytes unknown to the bucket: staging has them, not the cache; sends a request.
Threads: every public method; `check` reads files without a lock.
Locks:   takes Core.lock (30) for a moment.
Fails:   never: an unreadable file counts as damaged.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable

from r2fs.disk.body import part_digest
from r2fs.disk.cache.audit import Entry
from r2fs.engine.content.local_file import Contents
from r2fs.engine.inodes.core import Core
from r2fs.model.keys import printable
from r2fs.model.records import PartDigests
from r2fs.model.views import CacheCheckView, CacheView

log = logging.getLogger(__name__)

PIECE = 1 << 20  # bytes read at once
_MD5 = re.compile(r"[0-9a-f]{32}\Z")  # the ETag of an object made by a PUT


class CacheCare:
    def __init__(self, core: Core, contents: Contents) -> None:
        self._core = core
        self._contents = contents

    def clear(self) -> tuple[CacheView, CacheView]:
        """Remove all clean content without handles; return the cache before and after."""
        before = self._core.cache.view()
        with self._core.lock:
            self._contents.retire_idle()
        self._core.cache.evict(before.bytes + before.limit)
        return before, self._core.cache.view()

    def check(
        self,
        progress: Callable[[CacheCheckView], None] = lambda view: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> CacheCheckView:
        """Compare each whole file with its ETag, or with the digests of its parts; drop different files.

        `progress` gets the comparison so far, after each file.
        """
        with self._core.lock:
            self._contents.retire_idle()
        view = CacheCheckView(0, 0, 0, ())
        for entry in self._core.cache.audit.entries():
            if cancelled() or self._core.stopping:
                break
            view = self._with(view, entry)
            progress(view)
        return view

    def _with(self, view: CacheCheckView, entry: Entry) -> CacheCheckView:
        etag, parts = entry.version.etag, self._core.cache.recall_parts(entry.version)
        plain = self._core.settings.bucket.md5_etags and _MD5.match(etag) is not None
        fd = self._core.cache.audit.open(entry) if entry.whole and (plain or parts) else None
        if fd is None:
            return CacheCheckView(view.checked, view.bytes, view.skipped + 1, view.damaged)
        try:
            good = _has_digest(fd, entry, None if plain else parts)
        except OSError as error:
            log.warning("%s: the cached file cannot be read: %s", printable(entry.version.key), error)
            good = False
        finally:
            os.close(fd)
        damaged = view.damaged
        if not good and self._core.cache.audit.drop(entry):
            key = printable(entry.version.key)
            log.warning("%s: the cached file differs from its ETag; it is fetched again", key)
            with self._core.lock:
                self._contents.distrust_version(entry.version)
            damaged = (*damaged, key)
        return CacheCheckView(view.checked + 1, view.bytes + entry.version.size, view.skipped, damaged)


def _has_digest(fd: int, entry: Entry, parts: PartDigests | None) -> bool:
    """True if the file has the digests of its parts; without these, the MD5 that its ETag is."""
    size = os.fstat(fd).st_size
    if size != entry.version.size:
        return False
    if parts is not None:
        starts = range(0, size, parts.part_size)
        return parts.digests == tuple(part_digest(os.pread, fd, at, parts.part_size) for at in starts)
    md5 = hashlib.md5(usedforsecurity=False)
    for at in range(0, size, PIECE):
        md5.update(os.pread(fd, PIECE, at))
    return md5.hexdigest() == entry.version.etag
