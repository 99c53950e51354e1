"""Cache care: comparison of cached files with their ETags, and removal of all clean content without handles.

Never:   touches bytes unknown to the bucket: staging has them, not the cache; sends a request.
Threads: every public method; `check` reads files without a lock.
Locks:   takes Core.lock (30) for a moment.
Fails:   never: an unreadable file counts as damaged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from r2fs.disk.body import has_digests
from r2fs.disk.cache.audit import Entry
from r2fs.engine.content.digests import known_digests
from r2fs.engine.content.local_file import Contents
from r2fs.engine.inodes.core import Core
from r2fs.model.keys import printable
from r2fs.model.views import CacheCheckView, CacheView

log = logging.getLogger(__name__)


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
        digests, size = known_digests(self._core, entry.version), entry.version.size
        fd = self._core.cache.audit.open(entry) if entry.whole and digests is not None else None
        if fd is None or digests is None:
            return CacheCheckView(view.checked, view.bytes, view.skipped + 1, view.damaged)
        try:
            good = os.fstat(fd).st_size == size and has_digests(os.pread, fd, size, digests)
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
        return CacheCheckView(view.checked + 1, view.bytes + size, view.skipped, damaged)
