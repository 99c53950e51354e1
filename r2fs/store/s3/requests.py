"""Requests of reading and writing, without boto3: all but a bucket's administration.

Owns:    the conversion of boto3's arguments into a request, its document among it, and of an answer's headers into
         boto3's fields: with the same names boto3 can send the same request (`Clients.send`).
Never:   retries; uses an answer that `wire.py` has not judged.
Fails:   ClientError for a refusal, as boto3; Malformed for an answer that is not understood; the errors of
         `connections.py` and `signing.py`.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import Any, Protocol

import botocore.exceptions as boto_errors

from r2fs import __version__
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.connections import Request, Source
from r2fs.store.s3.request_log import Exchange
from r2fs.store.s3.route import Route
from r2fs.store.s3.signing import Signer, encoded_key, encoded_query
from r2fs.store.s3.wire import Came, Judge, Verdict
from r2fs.store.s3.xml import Malformed

META = "x-amz-meta-"
USER_AGENT = f"r2fs/{__version__}"
_VALUES = re.compile(r"[\x20-\x7e]*\Z")  # no line break, nothing that servers read differently
_LENGTH = re.compile(r"[0-9]{1,19}\Z")

# boto3's names of arguments, and the headers or query parameters that carry their values.
_HEADERS = {
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "ContentType": "content-type",
    "CopySourceIfMatch": "x-amz-copy-source-if-match",
    "CopySourceRange": "x-amz-copy-source-range",
    "IfMatch": "if-match",
    "IfNoneMatch": "if-none-match",
    "MetadataDirective": "x-amz-metadata-directive",
    "Range": "range",
    "StorageClass": "x-amz-storage-class",
    "WebsiteRedirectLocation": "x-amz-website-redirect-location",
}
_QUERY = {
    "ContinuationToken": "continuation-token",
    "Delimiter": "delimiter",
    "MaxKeys": "max-keys",
    "PartNumber": "partNumber",
    "Prefix": "prefix",
    "ResponseContentDisposition": "response-content-disposition",
    "StartAfter": "start-after",
    "UploadId": "uploadId",
}
_FIELDS = {
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "content-range": "ContentRange",
    "content-type": "ContentType",
    "date": "Date",
    "etag": "ETag",
    "expires": "ExpiresString",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-customer-algorithm": "SSECustomerAlgorithm",
    "x-amz-storage-class": "StorageClass",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
}


ADDED = "Headers"  # argument for headers that boto3 has no name for: `client.py` gives them to boto3


# ------------------------------------------------------------------ documents
class _Document(io.BytesIO):
    """A body that is in memory."""

    def __len__(self) -> int:
        return len(self.getbuffer())


_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escaped(text: str) -> str:
    """Return text as it stands between tags."""
    return text.translate(_MARKUP)


def _parts(asked: Mapping[str, Any]) -> str:
    """The document of a CompleteMultipartUpload."""
    listed = (
        f"<Part><PartNumber>{part['PartNumber']}</PartNumber><ETag>{escaped(part['ETag'])}</ETag></Part>"
        for part in asked["MultipartUpload"]["Parts"]
    )
    return f"<CompleteMultipartUpload {_NAMESPACE}>{''.join(listed)}</CompleteMultipartUpload>"


def _deletes(asked: Mapping[str, Any]) -> str:
    """The document of a DeleteObjects, whose answer names failures alone. `values.fits_xml` holds for the keys."""
    listed = (f"<Object><Key>{escaped(each['Key'])}</Key></Object>" for each in asked["Delete"]["Objects"])
    return f"<Delete {_NAMESPACE}>{''.join(listed)}<Quiet>true</Quiet></Delete>"


def key_of(asked: Mapping[str, Any]) -> str:
    """Return the key of an operation's object, or the prefix of a LIST; of several objects, the first."""
    objects = asked.get("Delete", {}).get("Objects", ())
    key = objects[0]["Key"] if objects else asked.get("Key") or asked.get("Prefix") or ""
    return str(key)


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    query: dict[str, str] = field(default_factory=dict)
    document: Callable[[Mapping[str, Any]], str] | None = None


OPERATIONS: Mapping[str, Operation] = {
    "GetObject": Operation("GET"),
    "HeadObject": Operation("HEAD"),
    "ListObjectsV2": Operation("GET", {"list-type": "2", "encoding-type": "url"}),
    "PutObject": Operation("PUT"),
    "UploadPart": Operation("PUT"),
    "DeleteObject": Operation("DELETE"),
    "DeleteObjects": Operation("POST", {"delete": ""}, _deletes),
    "CopyObject": Operation("PUT"),
    "CreateMultipartUpload": Operation("POST", {"uploads": ""}),
    "UploadPartCopy": Operation("PUT"),
    "CompleteMultipartUpload": Operation("POST", document=_parts),
    "AbortMultipartUpload": Operation("DELETE"),
    "HeadBucket": Operation("HEAD"),
}

SIZED = frozenset({"GetObject", "HeadObject"})  # their answers say an object's length and time

# True if the GET or HEAD of this context takes packed bytes, as they are stored.
_takes_gzip: ContextVar[bool] = ContextVar("_takes_gzip", default=False)
takes_gzip = _takes_gzip.get


@contextmanager
def accepting_gzip() -> Iterator[None]:
    """Send `Accept-Encoding: gzip` with GetObject and HeadObject of this context. Nothing is unpacked here."""
    token = _takes_gzip.set(True)
    try:
        yield
    finally:
        _takes_gzip.reset(token)


class Connections(Protocol):
    def send(self, request: Request, limit_s: float | None = None) -> Came: ...
    def connect_ahead(self, url: str, count: int) -> None: ...
    def close(self) -> None: ...


class Requests:
    """Requests to one bucket. `signer` None: they are not signed."""

    def __init__(
        self,
        route: Route,
        signer: Signer | None,
        connections: Connections,
        judge: Judge,
        counter: RequestCounter,
    ) -> None:
        # constant
        self._host = route.host
        self._server = f"{route.scheme}://{route.host}"
        self._bucket = route.base or "/"
        self._base = route.base + "/"
        self._signer = signer
        self._connections = connections
        self._judge = judge
        self._counter = counter

    def send(self, operation: str, asked: Mapping[str, Any], limit_s: float | None = None) -> dict[str, Any]:
        """Send a request, and return the answer's fields. `Body`, of a GET, must be read or closed.

        `limit_s`: of each wait for the server; None: the setting.
        """
        request = self._request(OPERATIONS[operation], asked)
        size = int(request.headers["content-length"]) if request.method == "PUT" else 0
        exchange = Exchange(self._counter, operation, key_of(asked), request, size)
        try:
            response = self._connections.send(request, limit_s)
            verdict = self._judge.judge(request, operation, response)
        except Exception as error:
            exchange.failed(error)
            raise
        exchange.answered(verdict.status, response.headers)
        if verdict.status >= 300:
            raise _refusal(operation, verdict, response.headers)
        try:
            fields = _fields(response.headers, operation in SIZED)
        except Malformed:
            response.raw.close()
            raise
        if verdict.is_open:
            fields["Body"] = response.raw
        return fields

    def presign(self, operation: str, asked: Mapping[str, Any], expires_s: int) -> str | None:
        """Return a URL for anybody; None: requests are not signed."""
        if self._signer is None:
            return None
        path = self._base + encoded_key(asked["Key"])
        query = {_QUERY[name]: str(value) for name, value in asked.items() if name in _QUERY}
        signed = self._signer.presign(OPERATIONS[operation].method, path, query, self._host, expires_s)
        return f"{self._server}{path}?{signed}"

    def connect_ahead(self, count: int) -> None:
        self._connections.connect_ahead(self._server, count)

    def close(self) -> None:
        self._connections.close()

    def _request(self, operation: Operation, asked: Mapping[str, Any]) -> Request:
        headers = {"host": self._host}
        query = dict(operation.query)
        _add_asked(asked, headers, query)
        body: Source | None = asked.get("Body") or None
        if operation.document is not None:
            body = _document(operation.document(asked).encode(), headers, "delete" in query)
        if not _VALUES.match("".join(headers.values())):
            wrong = next(name for name, value in headers.items() if not _VALUES.match(value))
            raise ValueError(f"{wrong}: not a header's value")
        target = path = self._base + encoded_key(asked["Key"]) if "Key" in asked else self._bucket
        canonical = encoded_query(query)
        if canonical:
            target = f"{path}?{canonical.removesuffix('=') if '' in operation.query.values() else canonical}"
        if self._signer is not None:
            self._signer.sign(operation.method, path, canonical, headers)
        headers["user-agent"] = USER_AGENT
        # Past the signature: proxies change this header.
        headers["accept-encoding"] = "gzip" if takes_gzip() else "identity"
        if operation.method in ("PUT", "POST"):
            headers["content-length"] = str(len(body) if body is not None else 0)
        return Request(operation.method, self._server + target, target, headers, body)


def _add_asked(asked: Mapping[str, Any], headers: dict[str, str], query: dict[str, str]) -> None:
    """Add boto3's arguments as headers and as parameters of the query."""
    for name, value in asked.items():
        if name in _HEADERS:
            headers[_HEADERS[name]] = value
        elif name in _QUERY:
            query[_QUERY[name]] = str(value)
    if "Expires" in asked:
        headers["expires"] = format_datetime(asked["Expires"].astimezone(UTC), usegmt=True)
    for name, value in asked.get("Metadata", {}).items():
        headers[META + name] = value
    if "CopySource" in asked:
        source = asked["CopySource"]
        headers["x-amz-copy-source"] = encoded_key(f"{source['Bucket']}/{source['Key']}")
        headers.update(asked.get(ADDED, {}))


def _document(data: bytes, headers: dict[str, str], is_delete: bool) -> Source:
    """Return a document as a body; DeleteObjects needs its MD5 among the headers."""
    if is_delete:
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        headers["content-md5"] = base64.b64encode(digest).decode()
    return _Document(data)


def _fields(headers: Mapping[str, str], is_sized: bool = True) -> dict[str, Any]:
    """Return the fields of an answer that the store reads. Malformed for an invalid length or time of an object.

    `is_sized`: length and time are those of an object.
    """
    found: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in headers.items():
        if name in _FIELDS:
            found[_FIELDS[name]] = value
        elif name.startswith(META):
            metadata[name.removeprefix(META)] = value
        elif not is_sized:
            continue
        elif name == "content-length":
            if not _LENGTH.match(value):
                raise Malformed("a Content-Length that is none")
            found["ContentLength"] = int(value)
        elif name == "last-modified":
            found["LastModified"] = _moment(value)
    found["Metadata"] = metadata
    return found


@lru_cache(512)  # files of one directory were often stored in the same second
def _moment(text: str) -> datetime:
    if text.count(",") > 1:
        raise Malformed("two of Last-Modified")
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise Malformed("a Last-Modified that is none") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _refusal(operation: str, verdict: Verdict, headers: Mapping[str, str]) -> boto_errors.ClientError:
    """Return the exception that boto3 would raise: without an S3 error the status is the code."""
    code = verdict.code or str(verdict.status)
    message = verdict.message if verdict.code else http.client.responses.get(verdict.status, "")
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": verdict.status, "HTTPHeaders": headers},
    }
    return boto_errors.ClientError(answer, operation)
