"""A directory that plays the bucket: `file:///dir`. Objects are plain files for any tool.

Owns:    `ROOT/.r2fs/`: `lock`, `tmp/` (files before they get their name), `meta/` (sidecar.py),
         `uploads/` (multipart), `emptied/` (empty.py). Everything else in ROOT belongs to whoever put it there.
Never:   changes a file in place: an object is replaced by a rename, so that who reads the old one
         goes on reading it.
Threads: every method is thread-safe, over processes too: a flock on `lock` is held for the
         comparison and the rename, never while a body is received.
Fails:   StoreError's subclasses; what a Body raises while it is read comes out as it is.

An object `dir/` is a directory with a side file, or an empty one. Keys that cannot be paths
(`a//b`, `..`, a part of more than 255 bytes, `a` beside `a/b`, `.r2fs`) are refused.
"""

from __future__ import annotations

import errno
import fcntl
import logging
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
    Unavailable,
)
from r2fs.model.keys import MAX_KEY_BYTES, is_name, printable
from r2fs.model.ports import Body, Clock, Limits
from r2fs.model.records import Condition, ListPage, ObjectInfo, ObjectMeta, Part, Version
from r2fs.model.settings import Bucket
from r2fs.store.bodies import Outgoing
from r2fs.store.counting import RequestCounter
from r2fs.store.etags import multipart_etag
from r2fs.store.local import parts as multipart
from r2fs.store.local.empty import Emptied
from r2fs.store.local.files import CHUNK, LocalDownload, is_empty, read_chunks, write_whole
from r2fs.store.local.listing import OWN, Walk
from r2fs.store.local.sidecar import EMPTY_MD5, Facts, Sidecars, chosen_meta, facts_of, sync_directory
from r2fs.store.retry import RetryingStore

log = logging.getLogger(__name__)

LIMITS = Limits(key_write_interval_s=0.0)

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IMPOSSIBLE = (errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EXDEV)


class NoPath(Refused):
    """The key cannot be a path below the root."""


def connect(bucket: Bucket, clock: Clock, limits: Limits | None = None) -> RetryingStore:
    counter = RequestCounter()
    store = LocalDirStore(Path(bucket.name), limits=limits or LIMITS, counter=counter)
    try:
        store.finish_removals()
    except OSError as error:
        log.warning("%s: directories that a kill left empty stay: %s", store.url, error)
    return RetryingStore(store, clock, counter=counter)


class LocalDirStore:
    """See the head of the file; the contract is `ObjectStore`'s."""

    def __init__(self, root: Path, *, limits: Limits = LIMITS, counter: RequestCounter | None = None) -> None:
        # constant
        self._root = root
        self._own = root / OWN
        self._limits = limits
        self._counter = counter or RequestCounter()
        self._sidecars = Sidecars(self._own / "meta")
        self._uploads = multipart.Uploads(self._own / "uploads", limits)
        self._emptied = Emptied(root, self._own / "emptied", self._has_marker)

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    @property
    def limits(self) -> Limits:
        return self._limits

    # ---- what every method stands on
    @contextmanager
    def _request(self, verb: str, key: str = "", outgoing: Outgoing | None = None) -> Iterator[None]:
        """Counts, and translates what the disk says."""
        self._counter.request(verb, len(outgoing) if outgoing else 0)
        name = printable(key) or self.url
        try:
            yield
        except OSError as error:
            if outgoing is not None and outgoing.failure is not None:
                raise
            raise self._translated(error, name) from error

    def _translated(self, error: OSError, name: str) -> StoreError:
        why = f"{name}: {error.strerror or error}"
        if error.errno in _MISSING:
            if not self._root.is_dir():
                return BucketMissing(f"{self.url}: there is no such directory: make it, or mount its disk")
            return ObjectMissing(f"{name}: there is no such object")
        if error.errno in _DENIED:
            return PermissionRefused(f"{why}: check the owner and mode below {self._root}")
        if error.errno in _FULL:
            return Refused(f"{why}: free space on the disk of {self._root}")
        if error.errno in _IMPOSSIBLE:
            return Refused(f"{why}: this key cannot be a file below {self._root}")
        return Unavailable(why)

    def _path(self, key: str) -> Path:
        """Where the object is, or NoPath. A marker's path is the directory."""
        parts = key.removesuffix("/").split("/")
        if not all(is_name(part) for part in parts) or parts[0] == OWN:
            raise NoPath(f"{printable(key)}: cannot be a file below {self._root}: choose another name")
        try:
            if len(key.encode()) > MAX_KEY_BYTES:
                raise NoPath(f"{printable(key[:60])}…: a key may have {MAX_KEY_BYTES} bytes")
        except UnicodeEncodeError:
            raise NoPath(f"{printable(key)}: object keys are UTF-8; this one is not") from None
        return self._root.joinpath(*parts)

    def _existing_path(self, key: str) -> Path:
        try:
            return self._path(key)
        except NoPath as error:
            raise ObjectMissing(f"{printable(key)}: there is no such object") from error

    @contextmanager
    def _locked(self, exclusive: bool = True) -> Iterator[None]:
        """No two commits at once, whichever process makes them; no reader between two halves of one."""
        if exclusive:
            self._root.stat()  # a root that is gone (a disk not mounted) must not come back as an empty one
            self._own.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(self._own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            if exclusive:
                raise
            yield  # nobody has written here yet, or we never can
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            if exclusive:
                self._emptied.finish()
            yield
        finally:
            os.close(descriptor)

    def _stat(self, key: str) -> os.stat_result:
        """Of the object `key`: FileNotFoundError where there is none."""
        stat = self._existing_path(key).stat()
        is_object = self._is_marker(key, stat) if key.endswith("/") else S_ISREG(stat.st_mode)
        if not is_object:
            raise FileNotFoundError(errno.ENOENT, "no such object")
        return stat

    def _has_marker(self, directory: Path) -> bool:
        marker = directory.relative_to(self._root).as_posix() + "/"
        return self._sidecars.stored(marker, directory.stat()) is not None

    def _is_marker(self, key: str, stat: os.stat_result) -> bool:
        if not S_ISDIR(stat.st_mode):
            return False
        return self._sidecars.stored(key, stat) is not None or is_empty(self._path(key))

    def _info(self, key: str, stat: os.stat_result, facts: Facts) -> ObjectInfo:
        size = 0 if S_ISDIR(stat.st_mode) else stat.st_size
        said = (facts.content_type, dict(facts.metadata), dict(facts.headers))
        return ObjectInfo(key, size, facts.etag, stat.st_mtime_ns, *said)

    # ---- the bucket as a whole
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
        with self._request("ListObjectsV2"), self._locked(exclusive=False):
            self._root.stat()
            walk = Walk(
                self._root, prefix, delimiter, token if token is not None else start_after, bool(token)
            )
            objects: list[ObjectInfo] = []
            prefixes: list[str] = []
            last = ""
            for key, stat in walk:
                if len(objects) + len(prefixes) >= min(limit, 1000):
                    return ListPage(tuple(objects), tuple(prefixes), last)
                if stat is None:
                    prefixes.append(key)
                elif not key.endswith("/") or self._is_marker(key, stat):
                    facts = self._sidecars.facts(key, stat)
                    size = 0 if S_ISDIR(stat.st_mode) else stat.st_size
                    objects.append(ObjectInfo(key, size, facts.etag, stat.st_mtime_ns))
                else:
                    continue
                last = key
            return ListPage(tuple(objects), tuple(prefixes), None)

    # ---- one object
    def head(self, key: str) -> ObjectInfo:
        with self._request("HeadObject", key), self._locked(exclusive=False):
            stat = self._stat(key)
            return self._info(key, stat, self._sidecars.facts(key, stat))

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> LocalDownload:
        with self._request("GetObject", key):
            return self._open(key, start, length, if_match)

    def _open(self, key: str, start: int, length: int | None, if_match: str | None) -> LocalDownload:
        with self._locked(exclusive=False):
            self._stat(key)
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
            stat = os.fstat(descriptor)
            info = self._info(key, stat, self._sidecars.facts(key, stat))
        try:
            if if_match is not None and info.etag != if_match:
                raise PreconditionFailed(f"{printable(key)}: the object is another version by now")
            whole = start == 0 and length is None
            if start < 0 or (length is not None and length <= 0) or (start >= info.size and not whole):
                raise RangeInvalid(f"{printable(key)}: no bytes in that range")
            stop = info.size if length is None else min(info.size, start + length)
            return LocalDownload(descriptor, info, stat, start, stop, self._counter)
        except BaseException:
            os.close(descriptor)
            raise

    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        path = self._path(key)
        outgoing = Outgoing(body, printable(key))
        with self._request("PutObject", key, outgoing):
            if key.endswith("/"):
                return self._put_marker(key, len(outgoing), meta, condition)
            with self._temporary() as temporary:
                etag = write_whole(temporary, read_chunks(outgoing))
                facts = facts_of(etag, meta)
                with self._locked():
                    self._require(key, condition)
                    self._publish(temporary, key, path, facts)
            return etag

    def _put_marker(self, key: str, size: int, meta: ObjectMeta, condition: Condition | None) -> str:
        if size:
            raise Refused(f"{printable(key)}: a directory's marker holds no bytes in a file:// bucket")
        with self._locked():
            self._require(key, condition)
            path = self._path(key)
            # The side file first, and one directory's is named like another's. A kill between the two
            # would leave a directory that counts as a marker only until there is something in it.
            facts = facts_of(EMPTY_MD5, meta)
            self._sidecars.write(key, self._root.stat(), facts)
            try:
                self._make_directories(path)
            except Exception:  # something else is in its place, so no marker was there either
                self._sidecars.drop(key, self._root.stat())
                raise
        return EMPTY_MD5

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A new name on the root's file system; what is still there afterwards is removed."""
        self._root.stat()
        directory = self._own / "tmp"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / secrets.token_hex(16)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _require(self, key: str, condition: Condition | None) -> None:
        """The condition of a write; the lock is held, so that it is still true at the rename."""
        if condition is None:
            return
        try:
            found: str | None = self._sidecars.facts(key, self._stat(key)).etag
        except (FileNotFoundError, NotADirectoryError, ObjectMissing):
            found = None
        if not condition.holds(found):
            raise PreconditionFailed(f"{printable(key)}: the object is another version by now")

    def _publish(self, temporary: Path, key: str, path: Path, facts: Facts) -> None:
        """Gives a finished file its name, the side file first. The lock is held."""
        self._make_directories(path.parent)
        try:
            old: os.stat_result | None = path.stat()
        except FileNotFoundError:
            old = None
        if old is not None and S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory is in its place")
        new = temporary.stat()
        self._sidecars.write(key, new, facts)
        temporary.replace(path)
        sync_directory(path.parent)
        if old is not None:
            self._sidecars.drop(key, old)

    def _make_directories(self, path: Path) -> None:
        """`mkdir -p`, durable; a file in the way is Refused, not a missing object."""
        missing = []
        while not path.is_dir():
            if path.exists() or path.is_symlink():
                raise FileExistsError(errno.EEXIST, f"{path} is a file, and the key needs a directory there")
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            sync_directory(directory.parent)

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        raise Refused(
            f"{self.url} is a directory, which signs no URLs: serve it by a web server, whose address is `public_url`, "
            "and use --public"
        )

    def delete(self, key: str) -> None:
        with self._request("DeleteObject", key):
            self._delete(key)

    def _delete(self, key: str) -> None:
        try:
            with self._locked():
                stat = self._stat(key)
                path = self._path(key)
                with self._emptied.by_removing(path):
                    if not key.endswith("/"):
                        path.unlink()
                        sync_directory(path.parent)
                    self._sidecars.drop(key, stat)
        except (FileNotFoundError, NotADirectoryError, ObjectMissing):
            if not self._root.is_dir():
                raise

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        if len(keys) > self._limits.delete_batch:
            raise Refused(f"{self.url}: at most {self._limits.delete_batch} keys in one delete request")
        self._counter.request("DeleteObjects")
        failed: dict[str, StoreError] = {}
        for key in keys:
            try:
                self._delete(key)
            except OSError as error:
                failed[key] = self._translated(error, printable(key))
        return failed

    def finish_removals(self) -> None:
        """Those that a kill broke off, here or in another process: their directories would count as objects."""
        if self._emptied.is_due():
            with self._locked():
                pass  # whoever holds it has them ended

    # ---- multipart
    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        self._path(key)
        with self._request("CreateMultipartUpload", key):
            self._root.stat()
            return self._uploads.create(key, meta)

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        outgoing = Outgoing(body, printable(key))
        with self._request("UploadPart", key, outgoing):
            return self._store_part(key, upload_id, number, read_chunks(outgoing))

    def _store_part(self, key: str, upload_id: str, number: int, data: Iterator[bytes]) -> Part:
        directory = self._uploads.directory(key, upload_id)
        with self._temporary() as temporary:
            etag = write_whole(temporary, data)
            part = Part(number, etag, temporary.stat().st_size)
            multipart.adopt(directory, temporary, part)
        return part

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        with self._request("UploadPartCopy", key):
            with self._source(source, start, length) as download:
                return self._store_part(key, upload_id, number, download.chunks(CHUNK))

    @contextmanager
    def _source(self, source: Version, start: int = 0, length: int | None = None) -> Iterator[LocalDownload]:
        try:
            download = self._open(source.key, start, length, source.etag)
        except PreconditionFailed as error:
            raise PreconditionFailed(str(error), source=True) from error
        with download:
            yield download

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition | None = None,
    ) -> str:
        with self._request("CompleteMultipartUpload", key):
            meta = self._uploads.meta(key, upload_id)
            files = self._uploads.files(key, upload_id, parts)
            etag = multipart_etag(parts)
            assert etag is not None, "parts.py takes no parts but those that it named by their MD5"
            facts = facts_of(etag, meta)
            with self._temporary() as temporary:
                write_whole(temporary, multipart.read_all(files, CHUNK))
                with self._locked():
                    self._require(key, condition)
                    self._publish(temporary, key, self._path(key), facts)
            self._uploads.remove(key, upload_id)
            return facts.etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._request("AbortMultipartUpload", key):
            self._uploads.remove(key, upload_id)

    # ---- copy
    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        path = self._path(key)
        with self._request("CopyObject", f"{source.key} → {key}"):
            with self._source(source) as download:
                chosen = chosen_meta(download.info, meta)
                if key.endswith("/"):
                    return self._put_marker(key, download.info.size, chosen, condition)
                with self._temporary() as temporary:
                    etag = write_whole(temporary, download.chunks(CHUNK))
                    facts = facts_of(etag, chosen)
                    with self._locked():
                        self._require(key, condition)
                        self._publish(temporary, key, path, facts)
                    return etag

    def close(self) -> None:
        """Nothing is held open between calls."""
