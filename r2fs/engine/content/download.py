"""Fetching: one range of a version comes from the bucket into its local file, and is what it should be.

Owns:    the GET, its answer's version, and the comparison of a whole object with its MD5.
Never:   mixes versions: an answer that is of another one than was asked for is refused, whatever the server made
         of the condition; lets anybody see bytes of a whole object that its MD5 denies.
Threads: `bring` runs on download threads.
Locks:   `_lock`, a leaf, around what is shown; none while bytes are waited for.
Fails:   StoreError; ReadFailed (wrong bytes, again and again); NoSpace and LocalError of the disk.

What is compared: an object that comes in one GET (up to `small_file`), where its answer tells the MD5 of the
bytes: the ETag of a single PUT, unless it is encrypted by a key of its own (SSE-C, SSE-KMS). Its bytes are held
back until the last has come. What comes in ranges is protected by the connection's own checks alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from threading import Lock

from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.source import Source
from r2fs.engine.content.streaming import Streams
from r2fs.engine.core import Core
from r2fs.model.errors import BodyDamaged, NoSpace, PreconditionFailed, ReadFailed
from r2fs.model.keys import printable
from r2fs.model.records import ObjectInfo, Version

log = logging.getLogger(__name__)

# Bytes of an answer that are written into the file at once. A virtual machine may have given larger pieces of free
# memory than this back to its host: a cold read then takes twice as long (measured where that begins at 128 KiB).
CHUNK = 64 << 10
# Where the kernel reads the file without us: what is written in larger pieces lies in larger folios of the page
# cache, and is read faster ever after, by up to a third (measured on ext4).
SHARED_CHUNK = 256 << 10  # somebody may wait for the first of them
SHARED_LARGE_CHUNK = 1 << 20  # of a large GET, which runs ahead
LARGE = 8 << 20  # bytes of such a GET
BODY_RETRIES = 4  # answers cut in a row before the range is given up
WRONG_TRIES = 2  # answers whose bytes are not the object's before it is given up
SHOWN = 100  # damaged objects that status can name


class _Check:
    """The bytes of one whole object on their way."""

    def __init__(self, files: int) -> None:
        self.expected: str | None = None  # MD5; None: no answer has told one
        self.files = files  # SparseFile.files, as it was when the first byte was held back
        self.digest = hashlib.md5(usedforsecurity=False)

    @property
    def wrong(self) -> bool:
        return self.expected is not None and self.digest.hexdigest() != self.expected


class Fetching:
    def __init__(self, core: Core, streams: Streams, moved: Callable[[int], None], space: DiskSpace) -> None:
        # constant
        self._moved = moved  # told of each chunk; may raise TooSlow
        self._core = core
        self._streams = streams
        self._space = space
        # guarded by: _lock
        self._lock = Lock()
        self._damaged: dict[str, str] = {}  # by key: what was wrong with what came

    def damaged(self) -> tuple[str, ...]:
        """Objects whose bytes are not what their ETags say, as the last attempt to read each has shown."""
        with self._lock:
            return tuple(self._damaged.values())

    def bring(self, source: Source, version: Version, start: int, stop: int) -> None:
        """[start, stop) is here when this returns."""
        reason = f"{printable(version.key)}: its local file was given up meanwhile"
        for left in reversed(range(WRONG_TRIES)):
            check = _Check(source.content.files) if (start, stop) == (0, version.size) else None
            self._bring_pinned(source, version, start, stop, check)
            if check is None or check.expected is None:
                return
            if not check.wrong:
                if source.content.accept(start, stop, check.files):
                    self._tell(version, None)
                    return
                continue
            reason = (
                f"{printable(version.key)}: the {version.size} bytes that came have the MD5"
                f" {check.digest.hexdigest()}, and its ETag is {check.expected}: store it anew, or set"
                " md5_etags = false if the ETags of this server are no MD5s"
            )
            if left:
                log.warning("%s; fetching it again", reason)
            else:
                self._tell(version, reason)
        raise ReadFailed(reason)

    def _tell(self, version: Version, reason: str | None) -> None:
        with self._lock:
            if reason is None:
                self._damaged.pop(version.key, None)
            elif len(self._damaged) < SHOWN:
                self._damaged[version.key] = reason

    def _bring_pinned(
        self, source: Source, version: Version, start: int, stop: int, check: _Check | None
    ) -> None:
        cut = 0
        while start < stop:
            here = self._bring_once(source, version, start, stop, check)
            cut = 0 if here > start else cut + 1
            if cut > BODY_RETRIES:
                raise BodyDamaged(f"{version.key}: {cut} answers in a row were cut at byte {start}")
            start = here

    def _bring_once(
        self, source: Source, version: Version, start: int, stop: int, check: _Check | None
    ) -> int:
        """One GET; where it ended, which is before `stop` if the answer was cut."""
        log.debug("%s: asked for bytes %d to %d", printable(version.key), start, stop)
        with self._core.store.get(
            version.key, start=start, length=stop - start, if_match=version.etag or None
        ) as download:
            _require(version, download.info)
            source.on_info(download.info)
            if check is not None and start == 0:
                check.expected = download.info.md5
            if check is not None and check.expected is None:
                check = None
            try:
                for chunk in download.chunks(self._chunk(stop - start)):
                    self._fill(source, start, chunk, check)
                    start += len(chunk)
                    self._moved(len(chunk))
            except BodyDamaged:
                log.info("%s: the answer was cut at byte %d; going on from there", version.key, start)
        return start

    def _chunk(self, length: int) -> int:
        if not self._core.kernel.shares_pages:
            return CHUNK
        return SHARED_LARGE_CHUNK if length >= LARGE else SHARED_CHUNK

    def _fill(self, source: Source, start: int, chunk: bytes, check: _Check | None) -> None:
        """Write a chunk. On a full disk: evict, then give back parts of this file, then read it in memory."""
        if check is not None:
            check.digest.update(chunk)
        write = source.content.fill if check is None else source.content.hold
        try:
            write(start, chunk)
            return
        except NoSpace:
            self._space.make(len(chunk))  # or somebody else did just now
        try:
            write(start, chunk)
            return
        except NoSpace:
            gave = self._streams.give_way(source, start, len(chunk))
        if gave:
            try:
                write(start, chunk)
                return
            except NoSpace:
                log.debug("%s: giving back was not enough", printable(source.version.key))
        self._streams.to_memory(source, start if check is not None else 0)
        if check is not None:
            check.files = source.content.files
        write(start, chunk)


def _require(version: Version, info: ObjectInfo) -> None:
    """The answer is of the version that the file began as; PreconditionFailed where it is not."""
    if (version.etag and info.etag != version.etag) or info.size != version.size:
        raise PreconditionFailed(
            f"{printable(version.key)}: the answer is of another version ({info.etag}, {info.size} bytes)"
            f" than was asked for ({version.etag}, {version.size} bytes)"
        )
