"""Judgement of an answer before anything is made of it: success, S3 error, or no answer of an S3 server.

Owns:    the bounds of size and time of an answer's body, the statuses of success by operation, and the difference
         between an S3 error and a web page. A document that was read is `Answer.document`.
Never:   reads the body of a GET that succeeded; follows a redirect.
Threads: any; an Answer belongs to the context of one request.
Fails:   Malformed for anything but an S3 answer; boto3's own errors for a connection that breaks.

`requests.py` uses the verdict. boto3 would read bodies of any size, and take a web page for an empty listing: so
`client.py` gives it no body to parse, and of an error a new one, of code and message alone.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import botocore.exceptions as boto_errors

from r2fs.model.keys import printable
from r2fs.store.s3.xml import (
    FORMS,
    Document,
    Malformed,
    error_in,
    error_of_body,
    read_document,
    region_of_error,
)

# A thousand keys of 1,024 bytes, each byte written as three, are 3.1 MB; with the XML around them 3.6.
LARGE_BYTES = 6 << 20
LARGE = frozenset({"ListObjectsV2", "DeleteObjects", "ListMultipartUploads", "ListBuckets"})
SMALL_BYTES = 64 << 10  # any other answer: a few hundred as a rule
READ = 64 << 10
TOO_LONG = b"<"  # in place of an error's body that is too long for S3: counts as a web page
SLOWEST = 2  # a body of this size may take so many times the longest silence of a connection
# AWS and MinIO send the status at once, and then white space for as long as they copy or put together: minutes.
AT_WORK = frozenset({"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
AT_WORK_S = 1800.0

# Statuses of success. After any other status below 300 the outcome is not known.
DONE: Mapping[str, frozenset[int]] = {
    "GetObject": frozenset({200, 206}),
    "PutObject": frozenset({200, 201, 204}),
    "UploadPart": frozenset({200, 201, 204}),
    "DeleteObject": frozenset({200, 204}),
    "AbortMultipartUpload": frozenset({200, 204}),
    "DeleteBucketCors": frozenset({200, 204}),
    "DeleteBucketLifecycle": frozenset({200, 204}),
}
ONLY_200 = frozenset({200})
# Documents of a bucket's administration: bounded and of their form here, read by boto3.
PARSED_BY_BOTO3 = frozenset(
    {"GetBucketCors", "GetBucketLifecycleConfiguration", "ListMultipartUploads", "ListBuckets"}
)

# Statuses by which a proxy before the server refuses, without an S3 error.
WITHOUT_CODE = frozenset({401, 403, 413, 429, 507})


_answer: ContextVar[Answer | None] = ContextVar("_answer", default=None)


class Answer:
    """Answer to the one request that is sent inside the `with` block."""

    __slots__ = ("_token", "arrived", "document")
    _token: Token[Answer | None]

    def __init__(self) -> None:
        self.arrived = False  # status line and headers have come: an error from here on is the answer's
        self.document: Document | None = None

    def read(self) -> Document:
        if self.document is None:
            raise Malformed("no document")
        return self.document

    def __enter__(self) -> Self:
        self._token = _answer.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _answer.reset(self._token)


class Sent(Protocol):
    """A request that is on its way."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str: ...


class Came(Protocol):
    """The answer to it, with the body unread. `headers` are looked up by names in lower case."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def raw(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome that an answer states. `code` is "" for a refusal without an S3 error; `is_open`: a GET's body is unread."""

    status: int
    is_open: bool = False
    code: str = ""
    message: str = ""
    region: str = ""  # where the bucket is, as AWS says it
    body: bytes = b""  # of an answer that boto3 parses


def receive(raw: Any, size: int, url: str, broken: Callable[[str, Exception], Exception]) -> bytes:
    """Read part of a body by one call of the socket: `read` would wait until all of `size` has come.

    `broken` makes the error of a connection that broke.
    """
    try:
        data: bytes = raw.read1(size)
        return data
    except boto_errors.ReadTimeoutError:  # an OSError, too
        raise
    except TimeoutError as error:
        raise boto_errors.ReadTimeoutError(endpoint_url=url, error=error) from error
    except (http.client.HTTPException, OSError) as error:
        raise broken(url, error) from error


class Judge:
    """Reads answers, without the body of a GET that succeeded. `seconds`: the longest silence of a connection."""

    def __init__(self, seconds: float) -> None:
        # constant
        self._within_s = seconds * SLOWEST

    def judge(self, request: Sent, operation: str, response: Came) -> Verdict:
        """Judge an answer. Its document goes into the Answer of this context."""
        answer = _answer.get() or Answer()
        answer.arrived = True
        try:
            return self._judged(request, operation, response, answer)
        except BaseException:
            response.raw.close()  # the rest of the body must not be taken for the next answer
            raise

    def _judged(self, request: Sent, operation: str, response: Came, answer: Answer) -> Verdict:
        status: int = response.status_code
        if status >= 300:
            body = self._read(request, response, SMALL_BYTES, self._within_s)
            return _refused(request, response, TOO_LONG if body is None else body)
        if status not in DONE.get(operation, ONLY_200):
            raise Malformed(f"status {status}")
        if operation == "GetObject":
            return Verdict(status, is_open=True)
        within_s = max(AT_WORK_S, self._within_s) if operation in AT_WORK else self._within_s
        body = self._body(request, response, LARGE_BYTES if operation in LARGE else SMALL_BYTES, within_s)
        form = FORMS.get(operation)
        if form is not None:
            answer.document = read_document(body, form)
            error = error_in(answer.document)
            if error is None and answer.document.root not in form.roots:
                raise Malformed(f"{answer.document.root} in place of {' or '.join(form.roots)}")
        else:
            error = error_of_body(body) if body.strip() else None
            if error is None and body.strip():
                raise Malformed("a body where there is none, as of a web page")
        if error is not None:  # S3 answers 200 before it has copied or put together
            return Verdict(500, code=error[0], message=error[1])
        return Verdict(status, body=body if operation in PARSED_BY_BOTO3 else b"")

    def _body(self, request: Sent, response: Came, limit: int, within_s: float) -> bytes:
        body = self._read(request, response, limit, within_s)
        if body is None:
            raise Malformed(f"more than {limit} bytes")
        said = response.headers.get("content-length", "")
        if request.method != "HEAD" and said.isascii() and said.isdigit() and int(said) > len(body):
            raise Malformed(f"{len(body)} bytes in place of {said}")
        return body

    def _read(self, request: Sent, response: Came, limit: int, within_s: float) -> bytes | None:
        """Read a whole body; None where it is longer than `limit`, and the connection ends."""

        def broken(url: str, error: Exception) -> Exception:
            return boto_errors.ConnectionClosedError(error=error, request=request, endpoint_url=url)

        end = time.monotonic() + within_s
        pieces, length = [], 0
        while piece := receive(response.raw, READ, request.url, broken):
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                response.raw.close()
                return None
            if time.monotonic() > end:
                raise boto_errors.ReadTimeoutError(endpoint_url=request.url, error="it drips")
        return b"".join(pieces)


def _refused(request: Sent, response: Came, body: bytes) -> Verdict:
    """Return the verdict of an S3 error, or of a status alone. Malformed for the answer of another kind of server."""
    status: int = response.status_code
    error = error_of_body(body) if request.method != "HEAD" else None
    if error is not None:
        return Verdict(status, code=error[0], message=error[1], region=region_of_error(body))
    is_page = request.method != "HEAD" and bool(body.strip())
    if status < 400 and "x-amz-bucket-region" not in response.headers:
        raise Malformed(f"status {status}{_to(response)}, which is not followed")
    if is_page and status < 500 and status not in WITHOUT_CODE:
        raise Malformed(f"status {status} with a body that is no S3 error")
    return Verdict(status)


def _to(response: Came) -> str:
    """Return scheme and host of a redirect's target, for a message; without them, nothing."""
    try:
        parts = urlsplit(response.headers.get("location", ""))
    except ValueError:
        return ""
    return f" (to {printable(f'{parts.scheme}://{parts.netloc}'[:100])})" if parts.netloc else ""
