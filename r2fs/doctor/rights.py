"""Checks of a bucket by requests: the rights of these credentials, and the content of the bucket.

Never: writes or deletes an object, except for one probe object of its own with `write_test`.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from r2fs.disk.body import MemoryBody
from r2fs.doctor.endpoint import siblings
from r2fs.doctor.findings import Finding, failed, of_error, ok, warning
from r2fs.doctor.hidden_keys import HiddenKeys
from r2fs.model import amounts
from r2fs.model.addresses import UrlRequest
from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    ObjectMissing,
    PermissionRefused,
    R2fsError,
    Refused,
    Retryable,
)
from r2fs.model.keys import printable
from r2fs.model.ports import ObjectStore, SystemClock, pages
from r2fs.model.records import Condition, ObjectInfo, ObjectMeta
from r2fs.model.settings import Bucket
from r2fs.store import open_store

if TYPE_CHECKING:
    from r2fs.store.s3.reach import Endpoint

PROBE: Final = ".r2fs-doctor-"  # of the probe object's name
PROBE_BYTES: Final = b"r2fs doctor --write-test; may be deleted\n"
PAGES: Final = 10  # of 1,000 keys each, looked through for names that a mount cannot show
SHOWN: Final = 3  # of these keys
OLD_UPLOAD_S: Final = 86400.0
URL_LIFE_S: Final = 60

# Checks by the error of the first LIST.
CHECK_OF: Final[tuple[tuple[type[R2fsError], str], ...]] = (
    (ClockSkewed, "clock"),
    (BucketMissing, "bucket"),
    (PermissionRefused, "permission to list"),
    (BadCredentials, "credentials"),
    (Retryable, "network"),
    (Refused, "endpoint"),
)


class BucketChecks:
    """Checks of one bucket. `store` has sent nothing yet; `endpoint` is None for a directory."""

    def __init__(self, bucket: Bucket, store: ObjectStore, endpoint: Endpoint | None) -> None:
        # constant
        self._bucket = bucket
        self._store = store
        self._endpoint = endpoint

    def run(self, write_test: bool) -> Iterator[Finding]:
        try:
            self._store.check()
        except R2fsError as error:
            yield from self._refused(error)
            return
        first = self._first_object()
        yield ok("permission to list", f"{self._bucket.url}: the bucket is there, and can be listed")
        yield from self._reading(first)
        if write_test:
            yield from self._writing()
        if self._endpoint is not None:
            yield from self._presigned(self._endpoint, first)
            yield from self._unfinished()
        yield from self._hidden_keys()

    # ------------------------------------------------------------------ a refusal
    def _refused(self, error: R2fsError) -> Iterator[Finding]:
        check = next((name for kind, name in CHECK_OF if isinstance(error, kind)), "bucket")
        found = of_error(check, error)
        if isinstance(error, BucketMissing | PermissionRefused):
            if (name := self._jurisdiction()) is not None:
                said = f'jurisdiction = "{name}"' if name else "no jurisdiction"
                found = replace(
                    found,
                    check="jurisdiction",
                    remedy=f"the bucket answers at another endpoint of this account: set {said}",
                )
            elif seen := self._visible():
                text = f"{found.text}; these credentials see the buckets {seen}"
                found = replace(found, text=text)
        yield found

    def _jurisdiction(self) -> str | None:
        """The jurisdiction at whose endpoint the bucket answers these credentials; None: at no other one."""
        for name, other in siblings(self._bucket):
            with closing(open_store(other, SystemClock())) as store:
                try:
                    store.check()
                    return name
                except R2fsError:
                    continue
        return None

    def _visible(self) -> str:
        """The buckets that these credentials may list, in words; "" where they may not."""
        if self._endpoint is None:
            return ""
        from r2fs.store.s3.admin import BucketAdmin

        with closing(BucketAdmin(self._bucket, SystemClock())) as admin:
            try:
                return ", ".join(map(printable, admin.buckets()[:20]))
            except R2fsError:
                return ""  # most tokens of R2 are for one bucket

    # ------------------------------------------------------------------ rights
    def _first_object(self) -> ObjectInfo | None:
        page = self._store.list_page(self._bucket.prefix, limit=100)
        return next((each for each in page.objects if each.size), None)

    def _reading(self, first: ObjectInfo | None) -> Iterator[Finding]:
        check = "permission to read"
        if first is None:
            text = f"not tried: {self._bucket.url} has no object with bytes"
            yield warning(check, text, "store an object, or add --write-test")
        else:
            says = f"{printable(first.key)} can be read"
            yield _attempt(check, says, lambda: _read(self._store, first.key, 1))

    def _writing(self) -> Iterator[Finding]:
        """Store, read and delete one probe object under a name of its own."""
        key = f"{self._bucket.prefix}{PROBE}{secrets.token_hex(8)}"
        store = self._store

        def put() -> None:
            store.put(key, MemoryBody(PROBE_BYTES), ObjectMeta("text/plain"), condition=Condition.absent())

        wrote = _attempt("permission to write", "an object can be stored", put)
        yield wrote
        if wrote.exit_code:
            return
        try:
            if _read(store, key, len(PROBE_BYTES)) != PROBE_BYTES:
                text = f"{key} came back with other bytes"
                yield failed("write test", text, "check proxies and the service")
        except R2fsError as error:
            yield of_error("write test", error, f"{key} was stored and cannot be read: ")
        finally:
            deleted = _attempt("permission to delete", "an object can be deleted", lambda: store.delete(key))
            gone = deleted if deleted.exit_code else self._gone(key, deleted)
        yield gone

    def _gone(self, key: str, deleted: Finding) -> Finding:
        try:
            self._store.head(key)
        except ObjectMissing:
            return deleted
        except R2fsError as error:
            return of_error("permission to delete", error)
        return failed(
            "permission to delete",
            f"{printable(key)} is still there after its deletion was answered",
            "delete it, and look for a lock rule of the bucket",
        )

    # ------------------------------------------------------------------ URLs
    def _presigned(self, endpoint: Endpoint, first: ObjectInfo | None) -> Iterator[Finding]:
        """Use a presigned URL as a browser would, and the same address without its signature."""
        check = "presigned url"
        key = first.key if first is not None else f"{self._bucket.prefix}{PROBE}{secrets.token_hex(8)}"
        wanted = (200, 206) if first is not None else (404,)
        try:
            url = self._store.presign(key, UrlRequest(URL_LIFE_S)).url
            status = endpoint.ask(url, "GET", {"Range": "bytes=0-0"}).status
            bare = endpoint.ask(url.partition("?")[0], "GET", {"Range": "bytes=0-0"}).status
        except R2fsError as error:
            yield of_error(check, error)
            return
        if status not in wanted:
            yield failed(
                check,
                f"a URL signed just now is answered by {status}",
                "if the clock is right, the token may not read objects, or a proxy changes the request",
                PermissionRefused.exit_code,
            )
        else:
            yield ok(check, f"works, and is answered by {status}")
        if bare in (200, 206):
            yield warning(
                "public access",
                f"{printable(key)} can be read without a key or a signature",
                "make the bucket private, unless this is intended",
            )
        else:
            yield ok("public access", f"none: without a signature, the answer is {bare}")

    # ------------------------------------------------------------------ content
    def _unfinished(self) -> Iterator[Finding]:
        from r2fs.store.s3.admin import BucketAdmin

        check = "unfinished uploads"
        with closing(BucketAdmin(self._bucket, SystemClock())) as admin:
            try:
                found, whole = admin.uploads()
            except R2fsError as error:
                remedy = "a token that may list them shows their number"
                yield warning(check, f"not looked for: {error}", remedy)
                return
        if not found:
            yield ok(check, "none")
            return
        age_s = max(0.0, time.time() - min(each.begun_s for each in found))
        count = f"{'' if whole else 'at least '}{amounts.counted(len(found), 'multipart upload')}"
        text = f"{count}, the oldest {amounts.seconds(age_s)} old"
        rule = "a lifecycle rule AbortIncompleteMultipartUpload ends them (r2fs bucket lifecycle set)"
        yield (
            ok(check, text)
            if age_s < OLD_UPLOAD_S
            else warning(check, text, f"their parts are billed: {rule}")
        )

    def _hidden_keys(self) -> Iterator[Finding]:
        check, hidden, more = "hidden objects", HiddenKeys(self._bucket.prefix), False
        try:
            for page in islice(pages(self._store, self._bucket.prefix), PAGES):
                hidden.add(page.objects)
                more = page.token is not None
        except R2fsError as error:
            yield of_error(check, error)
            return
        counted = amounts.counted(hidden.seen, "object")
        among = f"of the first {counted}" if more else f"of {counted}"
        found = hidden.found()
        if not found:
            yield ok(check, f"none {among}")
            return
        reasons = ", ".join(f"{number}: {reason}" for reason, number in Counter(found.values()).items())
        keys = ", ".join(printable(key) for key in list(found)[:SHOWN])
        yield warning(
            check,
            f"{len(found)} {among} cannot be shown by a mount ({reasons}), such as {keys}",
            "r2fs migrate gives objects other keys",
        )


def _read(store: ObjectStore, key: str, length: int) -> bytes:
    with store.get(key, length=length) as download:
        return b"".join(download.chunks())


def _attempt(check: str, says: str, work: Callable[[], object]) -> Finding:
    try:
        work()
    except R2fsError as error:
        return of_error(check, error)
    return ok(check, says)
