"""A strict double of R2 on a real socket: what R2 refuses it refuses, and what r2fs must never send it notes.

Owns:    the HTTP side of R2's rules; the objects lie in a MemoryStore (`bucket`), which tests look into.
Never:   checks signatures, but of temporary credentials whose parent is in `parents`; the key id and the session
         token it does (401 and 403 as R2 has them).
Threads: one for each connection; the state is guarded by the MemoryStore's lock or `_lock`.
Fails:   `faults` names each request that broke a rule. Who uses the double asserts at its end that
         there are none.

Not every refusal is a fault: 412 and 429 are answers that a client lives with. The faults are what
r2fs could have known: Expect, trailers and chunked bodies, two integrity headers, Content-Encoding,
keys and metadata past their limits, more than 1,000 keys a delete, unequal or small parts, XML that
is none, and operations and parameters that R2 does not have.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from r2fs.model.errors import (
    ObjectLocked,
    ObjectMissing,
    PreconditionFailed,
    RangeInvalid,
    UploadMissing,
)
from r2fs.model.keys import nfc
from r2fs.model.metadata import HEADERS
from r2fs.model.ports import Limits
from r2fs.model.records import Condition, ObjectMeta, Part, Version
from tests.support import strict_xml as xml
from tests.support.bodies import BytesBody
from tests.support.memory_store import MemoryStore, Stored
from tests.support.r2_grants import Granted, NotGranted, granted
from tests.support.servers import ACCESS_KEY, BUCKET, SECRET_KEY, Endpoint

KEY_BYTES, METADATA_BYTES, DELETE_KEYS = 1024, 8192, 1000
LIST_PARAMETERS = {"list-type", "prefix", "delimiter", "start-after", "continuation-token",
                   "encoding-type", "max-keys", "fetch-owner"}  # fmt: skip
NAMES = {name: f"x-amz-{name}" for name in ("website-redirect-location", "storage-class")}
INTEGRITY = ("content-md5", "x-amz-checksum-")
OPERATIONS = {"uploads", "uploadId", "partNumber", "delete", "x-id"}  # parameters of all but LIST


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer that is no success."""

    status: int
    code: str
    message: str = ""


class StrictR2:
    """One bucket. `url` is where it answers; `bucket` is what it holds.

    write_interval_s  R2's second between two writes of a key; 0: any pace
    conditions        does CompleteMultipartUpload heed If-Match and If-None-Match? (R2: nobody knows)
    """

    def __init__(
        self, *, write_interval_s: float = 1.0, min_part: int = 5 << 20, conditions: bool = False
    ) -> None:
        self.bucket = MemoryStore(Limits(min_part=min_part), now_ns=time.time_ns)
        self.write_interval_s = write_interval_s
        self.conditions = conditions
        self.merges = True  # CopyObject takes the directive MERGE
        self.there = True  # False: NoSuchBucket for everything
        self.keys: dict[str, str | None] = {ACCESS_KEY: None}  # key id: the session token that goes with it
        self.parents: dict[str, str] = {}  # key id: its secret, for the temporary credentials it has granted
        self.tokens_only = False  # True: no request of a parent itself is taken
        # guarded by: _lock
        self._lock = threading.Lock()
        self.faults: list[str] = []
        self.refusals: Counter[str] = Counter()  # by code
        self.requests: Counter[str] = Counter()  # by operation
        self._written: dict[str, float] = {}  # NFC key: time.monotonic() of the last write
        self._server = _Server(("127.0.0.1", 0), _Request)
        self._server.double = self
        self.endpoint = Endpoint(
            f"http://127.0.0.1:{self._server.server_port}", BUCKET, "auto", ACCESS_KEY, SECRET_KEY
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="strict-r2", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return self.endpoint.url

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # ---- for the requests
    def fault(self, what: str) -> None:
        with self._lock:
            self.faults.append(what)

    def count(self, operation: str, refused: str = "") -> None:
        with self._lock:
            self.requests[operation] += 1
            if refused:
                self.refusals[refused] += 1

    def pace(self, key: str) -> None:
        """One write of a key a second."""
        now = time.monotonic()
        with self._lock:
            last = self._written.get(nfc(key))
            if last is not None and now - last < self.write_interval_s:
                raise Refusal(429, "TooManyRequests", "Reduce your rate of writes to this key")

    def wrote(self, key: str) -> None:
        with self._lock:
            self._written[nfc(key)] = time.monotonic()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    double: StrictR2

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event; anything else is a defect of the double, and fails the test."""
        import sys
        import traceback

        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.double.fault(f"the double itself failed: {traceback.format_exc()}")


class _Cut(OSError):
    """The body ended before its length: nothing is published."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for head and body
    _granted: Granted | None = None  # of the request that is served

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        return True  # R2 does not answer it; `_check_headers` notes it

    # ---- one request
    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.double = cast(_Server, self.server).double
        bucket, _, key = unquote(parts.path, errors="surrogateescape").lstrip("/").partition("/")
        self.key, self.query = key, dict(parse_qsl(parts.query, keep_blank_values=True))
        self.heads = {name.lower(): value for name, value in self.headers.items()}
        self.meta = {n[11:]: v for n, v in self.heads.items() if n.startswith("x-amz-meta-")}
        self._length = int(self.heads.get("content-length") or 0)
        self._unread = self._length
        self._name = operation = self._operation()
        try:
            self._check_headers(operation)
            self._check_access()
            self._check_granted(parts.path, parts.query, bucket)
            if not self.double.there or bucket != self.double.endpoint.bucket:
                raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist.")
            getattr(self, f"_{operation}")()
        except _Cut:
            self.close_connection = True
            raise
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            self._refuse(refusal)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _operation(self) -> str:
        method, query = self.command, self.query
        copying = "x-amz-copy-source" in self.heads
        if not self.key:
            return {"GET": "list", "POST": "delete_many", "HEAD": "head_bucket"}.get(method, "unknown")
        if method == "PUT" and "partNumber" in query:
            return "copy_part" if copying else "put_part"
        if method == "PUT":
            return "copy" if copying else "put"
        if method == "POST":
            return "create_upload" if "uploads" in query else "complete" if "uploadId" in query else "unknown"
        if method == "DELETE":
            return "abort" if "uploadId" in query else "delete"
        return {"GET": "get", "HEAD": "head"}.get(method, "unknown")

    def _fault(self, what: str) -> None:
        self.double.fault(f"{self.command} {self.path[:200]}: {what}")

    def _forbid(self, what: str, refusal: Refusal) -> None:
        self._fault(what)
        raise refusal

    # ---- rules of every request
    def _check_headers(self, operation: str) -> None:
        heads = self.heads
        if "expect" in heads:
            self._fault("Expect: each such request waits a second for an answer that R2 does not give")
        if "x-amz-trailer" in heads or "chunked" in heads.get("transfer-encoding", ""):
            self.close_connection = True  # where its body ends is not known
            self._forbid("a trailer or a chunked body", Refusal(501, "NotImplemented"))
        if "content-encoding" in heads and not self._is_encoded():
            self._forbid("Content-Encoding on data", Refusal(501, "NotImplemented"))
        integrity = [name for name in heads if name.startswith(INTEGRITY)]
        if len(integrity) > 1:
            self._forbid(f"two integrity headers: {integrity}", Refusal(400, "InvalidRequest"))
        for name in heads:
            if name.startswith(("x-amz-acl", "x-amz-grant-", "x-amz-tagging", "x-amz-object-lock-")):
                self._forbid(f"{name} is not there on R2", Refusal(501, "NotImplemented"))
        known = LIST_PARAMETERS if operation == "list" else OPERATIONS
        if unknown := set(self.query) - known:
            self._forbid(f"R2 knows no parameter {sorted(unknown)}", Refusal(501, "NotImplemented"))
        if operation == "unknown":
            self._forbid("no operation of R2", Refusal(501, "NotImplemented"))
        if len(self.key.encode(errors="surrogateescape")) > KEY_BYTES:
            self._forbid("a key past 1,024 bytes", Refusal(400, "KeyTooLongError"))
        size = sum(len(name) + len(value.encode("latin-1")) for name, value in self.meta.items())
        if size > METADATA_BYTES:  # r2fs keeps what others stored, and its own fits beside it
            self._forbid("metadata past 8,192 bytes", Refusal(400, "MetadataTooLarge"))

    def _check_access(self) -> None:
        _, _, rest = self.heads.get("authorization", "").partition("Credential=")
        key_id = rest.split("/")[0]
        if key_id not in self.double.keys:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        token = self.double.keys[key_id]
        if token is not None and self.heads.get("x-amz-security-token") != token:
            raise Refusal(403, "ExpiredToken", "The provided token has expired.")

    def _check_granted(self, path: str, query: str, bucket: str) -> None:
        """Temporary credentials reach what their token says; a permanent key everything, or with `tokens_only` nothing."""
        self._granted = None
        key_id = self.heads.get("authorization", "").partition("Credential=")[2].split("/")[0]
        parent = self.double.parents.get(key_id)
        if parent is None or "x-amz-security-token" not in self.heads:
            if self.double.tokens_only:
                raise Refusal(403, "AccessDenied", "no token")
            return
        try:
            self._granted = granted(self.command, path, query, self.heads, key_id, parent)
            if self._name == "delete_many":  # its keys are checked with its body
                self._granted.check(
                    bucket, self._name, self._granted.prefixes[0] if self._granted.prefixes else ""
                )
                return
            self._granted.check(
                bucket, self._name, self.query.get("prefix", "") if self._name == "list" else self.key
            )
            if source := self.heads.get("x-amz-copy-source"):
                self._granted.check_key(unquote(source).lstrip("/").partition("/")[2])
        except NotGranted as error:
            raise Refusal(403, "AccessDenied", str(error)) from None

    # ---- bodies and answers
    def _body(self) -> bytes:
        data = bytearray()
        while self._unread:
            piece = self.rfile.read1(min(self._unread, 1 << 20))
            if not piece:
                raise _Cut("the connection ended within the body")
            data += piece
            self._unread -= len(piece)
        return bytes(data)

    def _answer(
        self,
        status: int = 200,
        heads: Mapping[str, str] | None = None,
        body: bytes | memoryview = b"",
        refused: str = "",
    ) -> None:
        self.double.count(self._name, refused)  # first: a test may look as soon as the client has its answer
        self.send_response(status)
        for name, value in (heads or {}).items():
            self.send_header(name, value)
        if status not in (204, 304) and "Content-Length" not in (heads or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _is_encoded(self) -> bool:
        """Has another client stored an object with a Content-Encoding, which has to be kept?"""
        stored = self.double.bucket.objects.values()
        return any("content-encoding" in (one.meta.headers or {}) for one in stored)

    def _refuse(self, refusal: Refusal) -> None:
        if self._unread:
            self._body()  # as far as it comes: the client reads the answer after it has sent
        body = b"" if self.command == "HEAD" else xml.error(refusal.code, refusal.message)
        self._answer(refusal.status, {"Content-Type": "application/xml"}, body, refusal.code)

    def _heads_of(self, stored: Stored) -> dict[str, str]:
        heads = {
            "ETag": f'"{stored.etag}"',
            "Last-Modified": self.date_time_string(stored.modified_ns // 1_000_000_000),
            "Content-Type": stored.meta.content_type,
            "Accept-Ranges": "bytes",
        }
        said = {NAMES.get(name, name): value for name, value in (stored.meta.headers or {}).items()}
        return heads | said | {f"x-amz-meta-{name}": value for name, value in stored.meta.metadata.items()}

    # ---- the bucket
    def _head_bucket(self) -> None:
        self._answer()

    def _list(self) -> None:
        query = self.query
        limit = int(query.get("max-keys", 1000))
        token = query.get("continuation-token")
        page = self.double.bucket.list_page(
            query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            start_after=query.get("start-after", ""),
            token=None if token is None else str(json.loads(token)),
            limit=min(limit, 1000),
        )
        next_token = None if page.token is None else json.dumps(page.token)
        url = query.get("encoding-type") == "url"
        self._answer(body=xml.listing(self.double.endpoint.bucket, query, page, next_token, url))

    def _delete_many(self) -> None:
        keys = xml.keys_to_delete(self._body())
        if keys is None or len(keys) > DELETE_KEYS:
            self._forbid("DeleteObjects of more than 1,000 keys, or no XML", Refusal(400, "MalformedXML"))
            return
        if not any(name.startswith(INTEGRITY) for name in self.heads):
            self._forbid("DeleteObjects without an integrity header", Refusal(400, "InvalidRequest"))
        if self._granted is not None:
            try:
                for key in keys:
                    self._granted.check_key(key)
            except NotGranted as error:
                raise Refusal(403, "AccessDenied", str(error)) from None
        self._answer(body=xml.deleted(self.double.bucket.delete_many(keys)))

    # ---- one object
    def _head(self) -> None:
        stored = self.double.bucket._get(self.key)
        self._answer(heads={**self._heads_of(stored), "Content-Length": str(len(stored.data))})

    def _get(self) -> None:
        stored = self.double.bucket._get(self.key)
        if (wanted := self.heads.get("if-match")) is not None and wanted.strip('"') != stored.etag:
            raise Refusal(412, "PreconditionFailed")
        heads, data = self._heads_of(stored), memoryview(stored.data)
        if (asked := self.heads.get("range")) is None:
            self._answer(200, heads, data)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            raise Refusal(416, "InvalidRange")
        heads["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self._answer(206, heads, data[start:stop])

    def _condition(self, prefix: str = "") -> Condition | None:
        """The condition in If-Match and If-None-Match, whose names begin with `prefix`."""
        match = self.heads.get(f"{prefix}if-match")
        if match is not None:
            return Condition.matches(match.strip('"'))
        return Condition.absent() if self.heads.get(f"{prefix}if-none-match") == "*" else None

    def _new_meta(self) -> ObjectMeta:
        said = {n: self.heads[NAMES.get(n, n)] for n in HEADERS if NAMES.get(n, n) in self.heads}
        return ObjectMeta(self.heads.get("content-type", "application/octet-stream"), dict(self.meta), said)

    def _put(self) -> None:
        data, double = self._body(), self.double
        double.pace(self.key)
        etag = double.bucket.put(self.key, BytesBody(data), self._new_meta(), condition=self._condition())
        double.wrote(self.key)
        self._answer(heads={"ETag": f'"{etag}"'})

    def _delete(self) -> None:
        self.double.bucket.delete(self.key)
        self._answer(204)

    def _source(self) -> Version:
        bucket, _, key = unquote(self.heads["x-amz-copy-source"]).lstrip("/").partition("/")
        if bucket != self.double.endpoint.bucket:
            raise Refusal(404, "NoSuchBucket")
        stored = self.double.bucket._get(key)
        wanted = self.heads.get("x-amz-copy-source-if-match")
        if wanted is not None and wanted.strip('"') != stored.etag:
            raise Refusal(412, "PreconditionFailed")
        return Version(key, stored.etag, len(stored.data))

    def _copy(self) -> None:
        """Conditions on the destination have names of R2's own; the common ones are ignored."""
        double, source = self.double, self._source()
        directive = self.heads.get("x-amz-metadata-directive", "COPY")
        meta = self._new_meta() if directive != "COPY" else None
        if directive == "MERGE" and not double.merges:
            raise Refusal(400, "InvalidArgument", "x-amz-metadata-directive")
        if meta is not None and directive == "MERGE":
            meta = replace(meta, metadata={**double.bucket._get(source.key).meta.metadata, **meta.metadata})
        double.pace(self.key)
        etag = double.bucket.copy(
            source,
            self.key,
            meta=meta,
            condition=self._condition("cf-copy-destination-"),
        )
        double.wrote(self.key)
        double.count(f"copy {directive}")
        self._answer(body=xml.copied("CopyObjectResult", etag))

    # ---- multipart
    def _create_upload(self) -> None:
        upload_id = self.double.bucket.create_upload(self.key, self._new_meta())
        self._answer(body=xml.upload_begun(self.double.endpoint.bucket, self.key, upload_id))

    def _put_part(self) -> None:
        bucket, upload_id, number = self.double.bucket, self.query["uploadId"], int(self.query["partNumber"])
        # Sent again, a part takes the place of the first; and if that fails, the first is lost as well.
        bucket._upload(upload_id).parts.pop(number, None)
        part = bucket.put_part(self.key, upload_id, number, BytesBody(self._body()))
        self._answer(heads={"ETag": f'"{part.etag}"'})

    def _copy_part(self) -> None:
        if any(name.startswith("x-amz-copy-source-if-") for name in self.heads):
            self._forbid("a condition on the source of a part copy", Refusal(501, "NotImplemented"))
        first, _, last = self.heads["x-amz-copy-source-range"].removeprefix("bytes=").partition("-")
        part = self.double.bucket.copy_part(
            self.key, self.query["uploadId"], int(self.query["partNumber"]), self._source(),
            int(first), int(last) + 1 - int(first),
        )  # fmt: skip
        self._answer(body=xml.copied("CopyPartResult", part.etag))

    def _complete(self) -> None:
        double, upload_id = self.double, self.query["uploadId"]
        listed = xml.parts_to_complete(self._body())
        upload = double.bucket._upload(upload_id)
        parts = [Part(n, etag, len(upload.parts.get(n, b""))) for n, etag in listed]
        double.pace(self.key)
        try:
            etag = double.bucket.complete_upload(
                self.key, upload_id, parts, condition=self._condition() if double.conditions else None
            )
        except UploadMissing as error:
            # all are there: they do not fit, and the client could know
            if all(part.number in upload.parts for part in parts):
                self._fault(f"{error}")
            raise Refusal(400, "InvalidPart", str(error)) from None
        double.wrote(self.key)
        self._answer(body=xml.completed(double.endpoint.bucket, self.key, etag))

    def _abort(self) -> None:
        if self.query["uploadId"] not in self.double.bucket.uploads:
            raise Refusal(404, "NoSuchUpload")
        self.double.bucket.abort_upload(self.key, self.query["uploadId"])
        self._answer(204)


def _refusal(error: Exception) -> Refusal | None:
    """How R2 says what MemoryStore raises."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, PreconditionFailed):
        return Refusal(412, "PreconditionFailed")
    if isinstance(error, ObjectLocked):
        return Refusal(409, "ObjectLockedByBucketPolicy", "The object is locked by the bucket policy.")
    if isinstance(error, ObjectMissing):
        return Refusal(404, "NoSuchKey", "The specified key does not exist.")
    if isinstance(error, UploadMissing):
        return Refusal(404, "NoSuchUpload")
    if isinstance(error, RangeInvalid):
        return Refusal(416, "InvalidRange")
    return None
