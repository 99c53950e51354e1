"""An ObjectStore in memory, with R2's rules, for unit and model tests: no socket, no sleeping.

Owns:  what a bucket holds and when it says no: conditions, equal parts, limits, NFC identity of keys.
       `tests/contract` holds it to the port; `strict.py` serves it over HTTP, with R2's rules of that.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from r2fs.model.addresses import SignedUrl, UrlRequest
from r2fs.model.errors import (
    BodyDamaged,
    ObjectLocked,
    ObjectMissing,
    PreconditionFailed,
    RangeInvalid,
    Refused,
    StoreError,
    UploadMissing,
)
from r2fs.model.keys import nfc
from r2fs.model.ports import Body, Limits
from r2fs.model.records import Condition, ListPage, ObjectInfo, ObjectMeta, Part, Version


@dataclass
class Stored:
    key: str
    data: bytes
    etag: str
    modified_ns: int
    meta: ObjectMeta

    def info(self, listed: bool = False) -> ObjectInfo:
        return ObjectInfo(
            self.key,
            len(self.data),
            self.etag,
            self.modified_ns,
            None if listed else self.meta.content_type,
            None if listed else dict(self.meta.metadata),
            None if listed else dict(self.meta.headers or {}),
            md5=None if listed or "-" in self.etag else self.etag,
        )


class MemoryDownload:
    def __init__(self, stored: Stored, start: int, stop: int) -> None:
        self.info = stored.info()
        self.data = stored.data[start:stop]

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        for at in range(0, len(self.data), size):
            yield self.data[at : at + size]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


@dataclass
class Upload:
    key: str
    meta: ObjectMeta
    parts: dict[int, bytes] = field(default_factory=dict)


class MemoryStore:
    """`calls` counts requests by name; `before(name, key)` may raise, or change the bucket, before each.

    `locked` objects cannot be deleted or replaced, as by a lock rule of R2.
    `now_ns` dates the objects, no two alike; without it they are of a day long ago. `page`: keys of a LIST.
    """

    def __init__(
        self, limits: Limits | None = None, now_ns: Callable[[], int] = lambda: 0, page: int = 1000
    ) -> None:
        self.url = "memory://bucket"
        self.page = page
        self.limits = limits or Limits(min_part=1, max_part=1 << 40, key_write_interval_s=0.0)
        self.objects: dict[str, Stored] = {}  # by NFC key
        self.tells_spellings_apart = False  # as AWS does, and R2 does not
        self.uploads: dict[str, Upload] = {}
        self.calls: list[tuple[str, str]] = []
        self.expected: list[tuple[str, int]] = []  # by `connect_ahead`
        self.before = lambda name, key: None
        self.after = lambda name, key: None
        self.locked: set[str] = set()
        self._lock = threading.RLock()
        self._now_ns = now_ns
        self._tick = 1_700_000_000_000_000_000
        self._made = 0  # uploads begun

    # ---- another client's hands
    def set(self, key: str, data: bytes, **metadata: str) -> str:
        with self._lock:
            return self.store_version(key, data, ObjectMeta("application/octet-stream", metadata))

    def set_metadata(self, key: str, **metadata: str) -> None:
        """New metadata beside the same bytes: the ETag stays, LastModified moves."""
        with self._lock:
            stored = self.objects[nfc(key)]
            self.store_version(key, stored.data, ObjectMeta(stored.meta.content_type, metadata), stored.etag)

    def metadata(self, key: str) -> Mapping[str, str]:
        return self.objects[nfc(key)].meta.metadata

    def data(self, key: str) -> bytes:
        return self.objects[self._identity(key)].data

    def keys(self) -> list[str]:
        with self._lock:
            return sorted((stored.key for stored in self.objects.values()), key=str.encode)

    def contents(self) -> dict[str, bytes]:
        """What another client finds: every key and its bytes, markers of directories apart."""
        with self._lock:
            stored = sorted(self.objects.values(), key=lambda one: one.key.encode())
            return {one.key: one.data for one in stored if not one.key.endswith("/")}

    def remove(self, key: str) -> None:
        with self._lock:
            self.objects.pop(self._identity(key), None)

    # ---- the port
    def connect_ahead(self, key: str, count: int) -> None:
        self.expected.append((key, count))

    def check(self) -> None:
        self._call("check", "")

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        self._call("list", prefix)
        limit = min(limit, self.page)
        with self._lock:
            objects: list[ObjectInfo] = []
            prefixes: list[str] = []
            last = token or start_after
            for key in self.keys():
                if not key.startswith(prefix) or key.encode() <= last.encode():
                    continue
                if token and delimiter and token.endswith(delimiter) and key.startswith(token):
                    continue
                rest = key[len(prefix) :]
                if delimiter and delimiter in rest:
                    common = prefix + rest.split(delimiter)[0] + delimiter
                    if prefixes and prefixes[-1] == common:
                        continue
                    if len(objects) + len(prefixes) == limit:
                        return ListPage(tuple(objects), tuple(prefixes), last)
                    prefixes.append(common)
                    last = common
                else:
                    if len(objects) + len(prefixes) == limit:
                        return ListPage(tuple(objects), tuple(prefixes), last)
                    objects.append(self.objects[self._identity(key)].info(listed=True))
                    last = key
            return ListPage(tuple(objects), tuple(prefixes), None)

    def head(self, key: str) -> ObjectInfo:
        self._call("head", key)
        with self._lock:
            return self._get(key).info()

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> MemoryDownload:
        self._call("get", key)
        if start < 0 or (length is not None and length <= 0):
            raise RangeInvalid(key)
        with self._lock:
            stored = self._get(key)
            if if_match is not None and stored.etag != if_match:
                raise PreconditionFailed(key)
            if start >= len(stored.data) and (start or length is not None):
                raise RangeInvalid(key)
            return MemoryDownload(stored, start, len(stored.data) if length is None else start + length)

    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        self._call("put", key)
        data = read_whole(key, body)
        with self._lock:
            self._condition(key, condition)
            etag = self.store_version(key, data, meta)
        self.after("put", key)
        return etag

    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        self._call("create_upload", key)
        with self._lock:
            self._made += 1
            upload_id = f"upload-{self._made}"
            self.uploads[upload_id] = Upload(key, meta)
            return upload_id

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        self._call("put_part", key)
        data = read_whole(key, body)
        with self._lock:
            self._upload(upload_id).parts[number] = data
        return Part(number, _md5(data), len(data))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        self._call("copy_part", key)
        with self._lock:
            stored = self._source(source)
            data = stored.data[start : start + length]
            if len(data) < length:
                raise RangeInvalid(source.key)
            self._upload(upload_id).parts[number] = data
            return Part(number, _md5(data), len(data))

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition | None = None,
    ) -> str:
        self._call("complete_upload", key)
        with self._lock:
            upload = self._upload(upload_id)
            bodies = self._fitting(key, upload, parts)
            self._condition(key, condition)
            del self.uploads[upload_id]
            etag = _md5(b"".join(bytes.fromhex(_md5(body)) for body in bodies)) + f"-{len(bodies)}"
            result = self.store_version(key, b"".join(bodies), upload.meta, etag)
        self.after("complete_upload", key)
        return result

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._call("abort_upload", key)
        self.uploads.pop(upload_id, None)

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        self._call("copy", key)
        with self._lock:
            stored = self._source(source)
            self._condition(key, condition)
            kept = meta or stored.meta
            kept = kept if kept.headers is not None else replace(kept, headers=stored.meta.headers)
            etag = self.store_version(key, stored.data, kept)
        self.after("copy", key)
        return etag

    def delete(self, key: str) -> None:
        self._call("delete", key)
        self._require_unlocked(key)
        self.remove(key)
        self.after("delete", key)

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        if len(keys) > self.limits.delete_batch:
            raise Refused(f"{self.url}: at most {self.limits.delete_batch} keys in one delete request")
        if not keys:
            return {}
        self._call("delete_many", keys[0])
        refused = [key for key in keys if key in self.locked]
        for key in keys:
            if key not in refused:
                self.remove(key)
        return {key: ObjectLocked(f"{key}: it is locked") for key in refused}

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        return SignedUrl(f"memory://{key}?expires={request.expires_s}")

    def close(self) -> None:
        pass

    # ---- inside
    def _identity(self, key: str) -> str:
        return key if self.tells_spellings_apart else nfc(key)

    def _call(self, name: str, key: str) -> None:
        self.calls.append((name, key))
        self.before(name, key)

    def count(self, name: str) -> int:
        return sum(call == name for call, _ in self.calls)

    def _get(self, key: str) -> Stored:
        try:
            return self.objects[self._identity(key)]
        except KeyError:
            raise ObjectMissing(key) from None

    def _source(self, source: Version) -> Stored:
        stored = self._get(source.key)
        if stored.etag != source.etag:
            raise PreconditionFailed(source.key, source=True)
        return stored

    def _upload(self, upload_id: str) -> Upload:
        try:
            return self.uploads[upload_id]
        except KeyError:
            raise UploadMissing(upload_id) from None

    def _fitting(self, key: str, upload: Upload, parts: Sequence[Part]) -> list[bytes]:
        """The bodies of `parts`; R2's rules are looked at now, and not before."""
        bodies = [upload.parts.get(part.number) for part in parts]
        found = [body for body in bodies if body is not None]
        if (
            not parts
            or len(found) < len(parts)
            or any(part.etag != _md5(body) for part, body in zip(parts, found, strict=True))
        ):
            raise UploadMissing(f"{key}: a part is not there")
        sizes = {len(body) for body in found[:-1]}
        if len(sizes) > 1 or (sizes and len(found[-1]) > min(sizes)):
            raise UploadMissing(f"{key}: parts are not equal")
        if sizes and min(sizes) < self.limits.min_part:
            raise UploadMissing(f"{key}: parts are too small")
        return found

    def _require_unlocked(self, key: str) -> None:
        if key in self.locked and nfc(key) in self.objects:
            raise ObjectLocked(f"{key}: it is locked")

    def _condition(self, key: str, condition: Condition | None) -> None:
        self._require_unlocked(key)  # R2 looks at the lock first
        there = self.objects.get(self._identity(key))
        if condition is not None and not condition.holds(there.etag if there else None):
            raise PreconditionFailed(key)

    def store_version(self, key: str, data: bytes, meta: ObjectMeta, etag: str | None = None) -> str:
        self._tick = max(self._tick + 1_000_000, self._now_ns())
        stored = Stored(key, bytes(data), etag or _md5(data), self._tick, meta)
        self.objects[self._identity(key)] = stored
        return stored.etag


def read_whole(key: str, body: Body) -> bytes:
    """A request's body; BodyDamaged if it ends before its length."""
    body.seek(0)
    data = b"".join(iter(lambda: body.read(65536), b""))
    if len(data) < len(body):
        raise BodyDamaged(f"{key}: the body is shorter than was said")
    return data


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
