"""The requests that are many, without boto3: GET, HEAD, LIST, PUT, a part, DELETE of one object.

Owns:    how their arguments become a request, and their answer's headers boto3's fields: arguments and fields have
         boto3's names, so that either may send a request (`sender.py`).
Never:   retries; believes an answer that `wire.py` has not judged.
Threads: any.
Fails:   ClientError for a refusal, as boto3 raises it; Malformed for an answer that is not understood; else what
         `connections.py` and `signing.py` raise.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Protocol

import botocore.exceptions as boto_errors

from r2fs import __version__
from r2fs.model import flow
from r2fs.model.values import dataclass, field
from r2fs.store.counting import RequestCounter
from r2fs.store.s3 import request_log
from r2fs.store.s3.connections import Request
from r2fs.store.s3.failures import NOT_REACHED
from r2fs.store.s3.route import Route
from r2fs.store.s3.signing import Signer, encoded_key, encoded_query
from r2fs.store.s3.wire import Came, Judge, Verdict
from r2fs.store.s3.xml import Malformed

META = "x-amz-meta-"
_LENGTH = re.compile(r"[0-9]{1,19}\Z")

# boto3's names, and where their values travel.
_HEADERS = {
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "ContentType": "content-type",
    "IfMatch": "if-match",
    "IfNoneMatch": "if-none-match",
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


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    query: dict[str, str] = field(default_factory=dict)


OPERATIONS: Mapping[str, Operation] = {
    "GetObject": Operation("GET"),
    "HeadObject": Operation("HEAD"),
    "ListObjectsV2": Operation("GET", {"list-type": "2", "encoding-type": "url"}),
    "PutObject": Operation("PUT"),
    "UploadPart": Operation("PUT"),
    "DeleteObject": Operation("DELETE"),
}

SIZED = frozenset({"GetObject", "HeadObject"})  # their answers say an object's length and time

# True where the GET or HEAD that runs in this context takes bytes that are stored packed as they are.
_takes_gzip: ContextVar[bool] = ContextVar("_takes_gzip", default=False)
takes_gzip = _takes_gzip.get


@contextmanager
def accepting_gzip() -> Iterator[None]:
    """GetObject and HeadObject say that they take gzip, in this context alone. Nothing is unpacked here."""
    token = _takes_gzip.set(True)
    try:
        yield
    finally:
        _takes_gzip.reset(token)


class Connections(Protocol):
    def send(self, request: Request, limit_s: float | None = None) -> Came: ...
    def connect_ahead(self, url: str) -> None: ...
    def close(self) -> None: ...


class Requests:
    """To one bucket. `signer` None: requests are not signed."""

    def __init__(
        self,
        route: Route,
        signer: Signer | None,
        connections: Connections,
        judge: Judge,
        counter: RequestCounter,
    ) -> None:
        # constant
        self._route = route
        self._signer = signer
        self._connections = connections
        self._judge = judge
        self._counter = counter

    def send(self, operation: str, asked: Mapping[str, Any], limit_s: float | None = None) -> dict[str, Any]:
        """Send, and return the answer's fields. Of a GET, `Body` is to be read and closed.

        `limit_s`: of each wait for the server; None: as the settings have it.
        """
        request = self._request(OPERATIONS[operation], asked)
        size = int(request.headers.get("content-length", "0"))
        sent = self._counter.request(operation, asked.get("Key") or asked.get("Prefix") or "", size)
        request_log.begin(operation, request.method, request.url, size)
        begun_s = flow.spent_s()
        try:
            response = self._connections.send(request, limit_s)
            verdict = self._judge.judge(request, operation, response)
        except Exception as error:
            if isinstance(error, NOT_REACHED):
                self._counter.not_sent(sent)
            else:
                self._counter.answered(sent, flow.spent_s() - begun_s, None)
            request_log.fail(error)
            raise
        self._counter.answered(sent, flow.spent_s() - begun_s, verdict.status)
        request_log.end(verdict.status, response.headers)
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

    def connect_ahead(self) -> None:
        self._connections.connect_ahead(f"{self._route.scheme}://{self._route.host}")

    def close(self) -> None:
        self._connections.close()

    def _request(self, operation: Operation, asked: Mapping[str, Any]) -> Request:
        headers = {"host": self._route.host, **_headers(asked)}
        query = operation.query | {_QUERY[name]: str(asked[name]) for name in asked if name in _QUERY}
        key = "/" + encoded_key(asked["Key"]) if "Key" in asked else ""
        path = self._route.base + key or "/"
        sent_query = encoded_query(query)
        body = asked.get("Body") or None
        if self._signer is not None:
            headers = self._signer.signed(operation.method, path, sent_query, headers)
        headers["user-agent"] = f"r2fs/{__version__}"
        # Past the signature: proxies change this header.
        headers["accept-encoding"] = "gzip" if takes_gzip() else "identity"
        if operation.method == "PUT":
            headers["content-length"] = str(len(body) if body is not None else 0)
        target = f"{path}?{sent_query}" if sent_query else path
        url = f"{self._route.scheme}://{self._route.host}{target}"
        return Request(operation.method, url, target, headers, body)


def _headers(asked: Mapping[str, Any]) -> dict[str, str]:
    found = {_HEADERS[name]: asked[name] for name in asked if name in _HEADERS}
    if "Expires" in asked:
        found["expires"] = format_datetime(asked["Expires"].astimezone(UTC), usegmt=True)
    for name, value in asked.get("Metadata", {}).items():
        found[META + name] = value
    return found


def _fields(headers: Mapping[str, str], is_sized: bool = True) -> dict[str, Any]:
    """Return boto3's fields of an answer, as far as the store reads them. Malformed for a length or time that is none.

    `is_sized`: length and time are those of an object.
    """
    found: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in headers.items():
        name = name.lower()
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


def _moment(text: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise Malformed("a Last-Modified that is none") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _refusal(operation: str, verdict: Verdict, headers: Mapping[str, str]) -> boto_errors.ClientError:
    """As boto3 has it: without an S3 error its status is the code."""
    code = verdict.code or str(verdict.status)
    message = verdict.message if verdict.code else http.client.responses.get(verdict.status, "")
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": verdict.status, "HTTPHeaders": headers},
    }
    return boto_errors.ClientError(answer, operation)
