"""A directory in place of a bucket, for development and tests: `file:///dir`. Objects are plain files.

Owns:    `ROOT/.r2fs/`: `lock`, `tmp/` (files before they get their name), `meta/` (sidecar.py),
         `uploads/` (parts.py). Every other file in ROOT is an object.
Never:   changes a file in place: an object is replaced by a rename, so that an open download
         keeps its version.
Threads: every method is thread-safe, over processes too: a flock on `lock` is held for the
         comparison and the rename, never while a body is received.
Fails:   StoreError's subclasses; errors of a Body being read, unchanged.

An object `dir/` is a directory with a side file. An empty directory without a side file is no object: a
kill between the removal of a file and of its directory leaves an empty directory, which is not listed. Keys that
cannot be paths (`a//b`, `..`, a part of more than 255 bytes, `a` beside `a/b`, `.r2fs`) are refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from r2fs.model.addresses import SignedUrl, UrlRequest
from r2fs.model.errors import (
    BucketMissing,
    NotImplementedThere,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    RangeInvalid,
    Refused,
    StoreError,
)
from r2fs.model.etags import EMPTY_MD5, multipart_etag
from r2fs.model.keys import printable
from r2fs.model.ports import Body, Clock, Limits
from r2fs.model.records import Condition, ListPage, ObjectInfo, ObjectMeta, Part, Version
from r2fs.model.settings import Bucket
from r2fs.store.bodies import Outgoing
from r2fs.store.counting import RequestCounter
from r2fs.store.local.files import (
    CHUNK,
    OWN,
    LocalDownload,
    NoPath,
    make_directories,
    path_of,
    sync_directory,
    translated,
    write_whole,
)
from r2fs.store.local.listing import Tree, Walk
from r2fs.store.local.parts import Uploads
from r2fs.store.local.sidecar import Sidecars, SideData, chosen_meta
from r2fs.store.retry import RetryingStore

LIMITS = Limits(key_write_interval_s=0.0)
_ABSENT = (FileNotFoundError, NotADirectoryError, NoPath)


def connect(bucket: Bucket, clock: Clock, limits: Limits | None = None) -> RetryingStore:
    counter = RequestCounter()
    store = LocalDirStore(Path(bucket.name), limits=limits or LIMITS, counter=counter)
    return RetryingStore(store, clock, counter=counter)


class LocalDirStore:
    """One bucket. See the head of the file; the contract is `ObjectStore`'s."""

    def __init__(self, root: Path, *, limits: Limits = LIMITS, counter: RequestCounter | None = None) -> None:
        # constant
        self.url = f"file://{root}"
        self.limits = limits
        self._root = root
        self._own = root / OWN
        self._counter = counter or RequestCounter()
        self._sidecars = Sidecars(self._own / "meta")
        self._uploads = Uploads(self._own / "uploads", limits.min_part)
        self._tree = Tree(root, self._is_marker)

    # ---- requests, the lock, the state of an object
    @contextmanager
    def _request(
        self, verb: str, key: str = "", outgoing: Outgoing | None = None, named: str | None = None
    ) -> Iterator[None]:
        """Count a request, and translate errors of the disk. `named`: in messages, in place of the key."""
        self._counter.request(verb, key, len(outgoing) if outgoing else 0)
        try:
            yield
        except OSError as error:
            if outgoing is not None and outgoing.failure is not None:
                raise
            raise translated(
                self._root, error, printable(key if named is None else named) or self.url
            ) from error

    @contextmanager
    def _locked(self, exclusive: bool = True) -> Iterator[None]:
        """Hold the lock of the bucket, in this process and others: exclusively for a commit, shared for a reader."""
        if exclusive:
            self._root.stat()  # never made: a missing root may be an unmounted disk
            self._own.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(self._own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            if exclusive:
                raise
            yield  # no r2fs has written to this bucket, or this one may not
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def _stat(self, key: str) -> os.stat_result:
        """Stat of the object `key`. Raises one of _ABSENT if there is none."""
        stat = path_of(self._root, key).stat()
        if not (self._is_marker(key) if key.endswith("/") else S_ISREG(stat.st_mode)):
            raise FileNotFoundError(errno.ENOENT, "no such object")
        return stat

    def _is_marker(self, key: str) -> bool:
        try:
            stat = path_of(self._root, key).stat()
        except _ABSENT:
            return False
        return S_ISDIR(stat.st_mode) and self._sidecars.stored(key, stat) is not None

    def _info(self, key: str, stat: os.stat_result) -> ObjectInfo:
        side = self._sidecars.read(key, stat)
        size = 0 if S_ISDIR(stat.st_mode) else stat.st_size
        return ObjectInfo(
            key, size, side.etag, stat.st_mtime_ns, side.content_type, side.metadata, side.headers
        )

    # ---- the bucket as a whole
    def connect_ahead(self, key: str, count: int) -> None:
        pass

    def check(self) -> None:
        with self._request("ListObjectsV2"):
            if not S_ISDIR(self._root.stat().st_mode):
                raise BucketMissing(f"{self.url}: is not a directory")
            if not os.access(self._root, os.R_OK | os.X_OK):
                raise PermissionRefused(f"{self.url}: not readable: check its owner and mode")

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        if delimiter not in ("", "/"):
            raise NotImplementedThere(f"{self.url}: lists by the delimiter '/' or none")
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        with self._request("ListObjectsV2", prefix, named=""), self._locked(exclusive=False):
            self._root.stat()
            for key, stat in Walk(self._tree, prefix, delimiter, token or start_after, bool(token)):
                if len(objects) + len(prefixes) >= min(limit, 1000):
                    return ListPage(tuple(objects), tuple(prefixes), last)
                if stat is None:
                    prefixes.append(key)
                else:
                    info = self._info(key, stat)
                    objects.append(ObjectInfo(key, info.size, info.etag, info.modified_ns))
                last = key
        return ListPage(tuple(objects), tuple(prefixes), None)

    # ---- reading
    def head(self, key: str) -> ObjectInfo:
        with self._request("HeadObject", key), self._locked(exclusive=False):
            return self._info(key, self._look(key))

    def _look(self, key: str) -> os.stat_result:
        try:
            return self._stat(key)
        except NoPath as error:
            raise ObjectMissing(f"{printable(key)}: there is no such object") from error

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> LocalDownload:
        with self._request("GetObject", key):
            return self._open(key, start, length, if_match)

    def _open(self, key: str, start: int, length: int | None, if_match: str | None) -> LocalDownload:
        with self._locked(exclusive=False):
            self._look(key)
            descriptor = os.open(path_of(self._root, key), os.O_RDONLY | os.O_CLOEXEC)
            stat = os.fstat(descriptor)
            info = self._info(key, stat)
        try:
            if if_match is not None and info.etag != if_match:
                raise PreconditionFailed(f"{printable(key)}: the object is another version by now")
            whole = start == 0 and length is None
            if start < 0 or (length is not None and length <= 0) or (start >= info.size and not whole):
                raise RangeInvalid(f"{printable(key)}: no bytes in that range")
            stop = info.size if length is None else min(info.size, start + length)
            return LocalDownload(descriptor, info, stat, range(start, stop), self._counter)
        except BaseException:
            os.close(descriptor)
            raise

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        raise Refused(
            f"{self.url} is a directory and signs no URLs: serve the directory by a web server, set its address as "
            "`public_url`, and use --public"
        )

    @contextmanager
    def _source(self, source: Version, start: int = 0, length: int | None = None) -> Iterator[LocalDownload]:
        try:
            download = self._open(source.key, start, length, source.etag)
        except PreconditionFailed as error:
            raise PreconditionFailed(str(error), source=True) from error
        with download:
            yield download

    # ---- writing
    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        outgoing = Outgoing(body, printable(key))
        with self._request("PutObject", key, outgoing):
            return self._store(key, _chunks(outgoing), meta, condition)

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        with self._request("CopyObject", key, named=f"{source.key} → {key}"):
            path_of(self._root, key)
            with self._source(source) as download:
                return self._store(key, download.chunks(CHUNK), chosen_meta(download.info, meta), condition)

    def _store(
        self,
        key: str,
        data: Iterator[bytes],
        meta: ObjectMeta,
        condition: Condition | None,
        etag: str | None = None,
    ) -> str:
        """Publish an object if `condition` holds. `etag`: of a multipart upload; None: the MD5 of the bytes."""
        path = path_of(self._root, key)
        if key.endswith("/"):
            if any(data):
                raise Refused(f"{printable(key)}: a directory's marker holds no bytes in a file:// bucket")
            with self._locked():
                self._require(key, condition)
                make_directories(path)
                self._sidecars.write(key, path.stat(), SideData.of(EMPTY_MD5, meta))
            return EMPTY_MD5
        with self._temporary() as temporary:
            side = SideData.of(write_whole(temporary, data), meta)
            if etag is not None:
                side = SideData.of(etag, meta)
            with self._locked():
                self._require(key, condition)
                self._publish(temporary, key, path, side)
        return side.etag

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A new name on the file system of the root. Removed at the end, if a file still has it."""
        self._root.stat()
        directory = self._own / "tmp"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / secrets.token_hex(16)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _require(self, key: str, condition: Condition | None) -> None:
        """Check the condition of a write, with the lock held until the rename."""
        if condition is None:
            return
        try:
            found: str | None = self._info(key, self._stat(key)).etag
        except _ABSENT:
            found = None
        if not condition.holds(found):
            raise PreconditionFailed(f"{printable(key)}: the object is another version by now")

    def _publish(self, temporary: Path, key: str, path: Path, side: SideData) -> None:
        """Give a finished file its name, the side file first. The lock is held."""
        make_directories(path.parent)
        if path.is_dir():
            if path.is_symlink() or self._tree.holds_object(key + "/"):
                raise IsADirectoryError(errno.EISDIR, "a directory is in its place")
            for directory, _, _ in os.walk(path, topdown=False):  # empty ones, left by a kill
                os.rmdir(directory)
        try:
            old: os.stat_result | None = path.stat()
        except FileNotFoundError:
            old = None
        self._sidecars.write(key, temporary.stat(), side)
        temporary.replace(path)
        sync_directory(path.parent)
        if old is not None:
            self._sidecars.drop(key, old)

    def delete(self, key: str) -> None:
        with self._request("DeleteObject", key):
            self._delete(key)

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        if len(keys) > self.limits.delete_batch:
            raise Refused(f"{self.url}: at most {self.limits.delete_batch} keys in one delete request")
        self._counter.request("DeleteObjects", keys[0] if keys else "")
        failed: dict[str, StoreError] = {}
        for key in keys:
            try:
                self._delete(key)
            except OSError as error:
                failed[key] = translated(self._root, error, printable(key))
        return failed

    def _delete(self, key: str) -> None:
        with self._locked():
            try:
                stat, path = self._stat(key), path_of(self._root, key)
            except _ABSENT:
                return
            if not key.endswith("/"):
                path.unlink()
                sync_directory(path.parent)
                path = path.parent
            self._sidecars.drop(key, stat)
            self._remove_empty(path)

    def _remove_empty(self, directory: Path) -> None:
        """Remove `directory` and each parent that gets empty, up to one with a marker."""
        while directory != self._root and not self._is_marker(f"{directory.relative_to(self._root)}/"):
            try:
                directory.rmdir()
            except OSError:
                return  # not empty; or it stays, and is no object
            directory = directory.parent

    # ---- multipart
    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        with self._request("CreateMultipartUpload", key):
            path_of(self._root, key)
            self._root.stat()
            return self._uploads.create(key, meta)

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        outgoing = Outgoing(body, printable(key))
        with self._request("UploadPart", key, outgoing):
            return self._store_part(key, upload_id, number, _chunks(outgoing))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        with self._request("UploadPartCopy", key), self._source(source, start, length) as download:
            return self._store_part(key, upload_id, number, download.chunks(CHUNK))

    def _store_part(self, key: str, upload_id: str, number: int, data: Iterator[bytes]) -> Part:
        self._uploads.meta(key, upload_id)
        with self._temporary() as temporary:
            etag = write_whole(temporary, data)
            part = Part(number, etag, temporary.stat().st_size)
            self._uploads.add(upload_id, temporary, part)
        return part

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[Part], *, condition: Condition | None = None
    ) -> str:
        with self._request("CompleteMultipartUpload", key):
            meta = self._uploads.meta(key, upload_id)
            data = self._uploads.read(key, upload_id, parts)
            etag = self._store(key, data, meta, condition, multipart_etag(parts))
            self._uploads.remove(key, upload_id)
            return etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._request("AbortMultipartUpload", key):
            self._uploads.remove(key, upload_id)

    def close(self) -> None:
        """End the use of the store: does nothing, since no file is open between calls."""


def _chunks(body: Outgoing) -> Iterator[bytes]:
    while data := body.read(CHUNK):
        yield data
