"""Answers of an S3 server that is none, or a hostile one: raw, without a network or by a socket.

Owns:    `Raw`, one answer; good answers of every verb, to be changed (`good`); `Answers`, which takes the place
         of botocore's HTTP session in a store's client; `RawServer`, which sends the same by a socket.
Never:   parses or checks anything on the store's side.
"""

from __future__ import annotations

import hashlib
import io
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Self

from botocore.awsrequest import AWSResponse
from botocore.exceptions import HTTPClientError
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from r2fs.model.ports import Clock
from r2fs.model.records import ObjectMeta, Part, Version
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.s3.connections import Request
from r2fs.store.s3.store import S3Store
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock

DATA = b"takes of a day"
MD5 = hashlib.md5(DATA).hexdigest()
WHEN = "Sat, 28 Nov 2026 10:00:00 GMT"
META = ObjectMeta("audio/wav", {"mtime": "1.5", "r2fs-attempt": "mine"})
PARTS = [Part(1, MD5, len(DATA))]
WHOLE = hashlib.md5(bytes.fromhex(MD5)).hexdigest() + "-1"
SOURCE = Version("takes/source.wav", MD5, len(DATA))
KEY = "takes/07.wav"
PAGE = b"<html><head><title>Sign in</title></head><body><p>Welcome to the hotel<p></body></html>"
NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass(frozen=True)
class Raw:
    """An answer as it comes: status, headers in order (a name may come twice), body."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: bool = True  # False: no Content-Length of its own

    def having(self, **headers: str | None) -> Raw:
        """With these headers (`_` for `-`) in place of those of that name; None: without."""
        names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return replace(self, headers=kept + tuple((n, v) for n, v in names.items() if v is not None))


Answering = Callable[[Any], Raw]


class Answers:
    """An HTTP session that answers by `answering(request)`; `sent` is what was asked."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.sent: list[tuple[str, str]] = []

    def send(self, request: Any, limit_s: float | None = None) -> AWSResponse:
        self.sent.append((request.method, request.url))
        body = request.body
        if hasattr(body, "read"):
            while body.read(1 << 16):
                pass
        raw = self.answering(request)
        headers = list(raw.headers)
        if raw.length and not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(raw.body))))
        content = b"" if request.method == "HEAD" else raw.body
        try:
            response = HTTPResponse(
                io.BytesIO(content),
                HTTPHeaderDict(headers),
                raw.status,
                preload_content=False,
                decode_content=False,
                enforce_content_length=False,
            )
        except HTTPError as error:  # of lengths that differ: botocore's session makes that of it
            raise HTTPClientError(error=error) from error
        answer: Any = AWSResponse(request.url, raw.status, response.headers, response)  # type: ignore[arg-type]
        if isinstance(request, Request):
            answer.headers = {name.lower(): value for name, value in answer.headers.items()}
        elif not request.stream_output:
            answer.content  # noqa: B018 as botocore's own session reads it
        return answer

    def close(self) -> None:
        pass


def store_of(
    answering: Answering, clock: Clock | None = None, transport: str = "auto", **changes: Any
) -> tuple[S3Store, Answers]:
    """A store without retries whose requests are answered so, by boto3 or without it."""
    credentials = Credentials(access_key_id="id", secret_access_key="secret", session_token="token")
    bucket = Bucket(
        "s3", "bucket", endpoint_url="http://127.0.0.1:9", credentials=credentials, transport=transport
    )
    store = S3Store(replace(bucket, **changes), clock=clock or ManualClock())
    session = Answers(answering)
    answered_by(store, session)
    return store, session


def answered_by(store: S3Store, session: Any) -> None:
    """`session` in place of the connections of both transports."""
    clients = store._clients
    requests = clients.requests()
    assert (requests is None) == (clients._bucket.transport == "boto3")
    if requests is not None:
        requests._connections = session
    clients.current._endpoint.http_session = session


# ------------------------------------------------------------------ good answers
def entry(key: str, size: object = len(DATA), etag: str = MD5, when: str = "2026-11-28T10:00:00.000Z") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{when}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
        f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def listing(
    entries: Iterable[str] = (),
    prefixes: Iterable[str] = (),
    *,
    name: str = "bucket",
    prefix: str = "takes/",
    token: str | None = None,
) -> bytes:
    below = "".join(f"<CommonPrefixes><Prefix>{one}</Prefix></CommonPrefixes>" for one in prefixes)
    on = f"<NextContinuationToken>{token}</NextContinuationToken>" if token is not None else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult {NS}><Name>{name}</Name>'
        f"<Prefix>{prefix}</Prefix><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>"
        f"<IsTruncated>{'true' if token is not None else 'false'}</IsTruncated>{on}"
        f"{''.join(entries)}{below}</ListBucketResult>"
    ).encode()


def error(code: str, message: str = "scripted") -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()


OBJECT = Raw(
    200,
    (
        ("ETag", f'"{MD5}"'),
        ("Last-Modified", WHEN),
        ("Content-Type", "audio/wav"),
        ("x-amz-meta-mtime", "1.5"),
        ("x-amz-meta-r2fs-attempt", "mine"),
        ("Content-Length", str(len(DATA))),
    ),
)


def document(root: str, inner: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><{root} {NS}>{inner}</{root}>'.encode()


@dataclass(frozen=True)
class Verb:
    """One request of the store: how it is made, and its good answer; `believed` is what it returns then."""

    name: str
    method: str
    marks: str  # what its URL or headers hold, where the method does not tell
    call: Callable[[S3Store], object]
    good: Raw
    believed: object = field(default=None)


def _read(store: S3Store, **asked: Any) -> bytes:
    with store.get(KEY, **asked) as download:
        return b"".join(download.chunks(5))


ENTRIES = [entry("takes/07.wav"), entry("takes/08.wav", 5)]
VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "list",
            "GET",
            "list-type",
            lambda s: [o.key for o in s.list_page("takes/").objects],
            Raw(200, (("Content-Type", "application/xml"),), listing(ENTRIES, ["takes/a/"])),
            ["takes/07.wav", "takes/08.wav"],
        ),
        Verb("head", "HEAD", "", lambda s: s.head(KEY).etag, OBJECT, MD5),
        Verb("get", "GET", "", lambda s: _read(s), replace(OBJECT, body=DATA), DATA),
        Verb(
            "range",
            "GET",
            "range",
            lambda s: _read(s, start=2, length=5),
            replace(OBJECT, status=206, body=DATA[2:7]).having(
                content_length="5", content_range=f"bytes 2-6/{len(DATA)}"
            ),
            DATA[2:7],
        ),
        Verb(
            "put",
            "PUT",
            "",
            lambda s: s.put(KEY, BytesBody(DATA), META),
            Raw(200, (("ETag", f'"{MD5}"'),)),
            MD5,
        ),
        Verb(
            "create",
            "POST",
            "uploads",
            lambda s: s.create_upload(KEY, META),
            Raw(body=document("InitiateMultipartUploadResult", "<UploadId>up-1</UploadId>")),
            "up-1",
        ),
        Verb(
            "part",
            "PUT",
            "partNumber",
            lambda s: s.put_part(KEY, "up-1", 1, BytesBody(DATA)).etag,
            Raw(200, (("ETag", f'"{MD5}"'),)),
            MD5,
        ),
        Verb(
            "copy_part",
            "PUT",
            "x-amz-copy-source-range",
            lambda s: s.copy_part(KEY, "up-1", 1, SOURCE, 0, 5).etag,
            Raw(body=document("CopyPartResult", f"<ETag>&quot;{MD5}&quot;</ETag>")),
            MD5,
        ),
        Verb(
            "complete",
            "POST",
            "uploadId",
            lambda s: s.complete_upload(KEY, "up-1", PARTS),
            Raw(body=document("CompleteMultipartUploadResult", f"<ETag>&quot;{WHOLE}&quot;</ETag>")),
            WHOLE,
        ),
        Verb("abort", "DELETE", "uploadId", lambda s: s.abort_upload(KEY, "up-1"), Raw(204)),
        Verb(
            "copy",
            "PUT",
            "x-amz-copy-source",
            lambda s: s.copy(SOURCE, KEY),
            Raw(body=document("CopyObjectResult", f"<ETag>&quot;{MD5}&quot;</ETag>")),
            MD5,
        ),
        Verb("delete", "DELETE", "", lambda s: s.delete(KEY), Raw(204)),
        Verb(
            "delete_many",
            "POST",
            "delete",
            lambda s: dict(s.delete_many([KEY, "takes/08.wav"])),
            Raw(body=document("DeleteResult", "")),
            {},
        ),
    )
}
WRITES = ("put", "part", "create", "complete", "copy", "copy_part", "delete_many", "delete", "abort")


def verb_of(request: Any) -> Verb:
    """Which of them a request is; the store's own HEADs too."""
    query = request.url.partition("?")[2]
    heads = {str(name).lower() for name in request.headers}
    names = {pair.partition("=")[0] for pair in query.split("&")}
    # the more special first: a copy of a part is a PUT with a part's number, too
    for name in ("copy_part", "part", "copy", "create", "complete", "abort", "delete_many", "list", "range"):
        verb = VERBS[name]
        if request.method == verb.method and (verb.marks in names or verb.marks in heads):
            return verb
    return next(v for v in VERBS.values() if v.method == request.method and not v.marks)


def all_good(request: Any) -> Raw:
    """As a right server answers."""
    verb = verb_of(request)
    if verb.name == "head" and "source" in request.url:
        return OBJECT
    return verb.good


def but(name: str, answer: Raw, besides: Answering = all_good) -> Answering:
    """`answer` to that verb; to all others what a right server answers."""
    return lambda request: answer if verb_of(request).name == name else besides(request)


# ------------------------------------------------------------------ by a socket
class RawServer:
    """Sends `answering()` to each request, byte for byte, and ends the connection."""

    def __init__(self, answering: Callable[[str], Iterable[bytes]]) -> None:
        self._answering = answering
        self.requests: list[SimpleNamespace] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, name="raw-server", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, suppress(OSError), sock.makefile("rb") as incoming:
                line = incoming.readline(65536).decode("latin-1")
                length = 0
                heads = []
                while (head := incoming.readline(65536)) not in (b"\r\n", b"\n", b""):
                    heads.append(head.decode("latin-1").rstrip())
                    name, _, value = heads[-1].partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                incoming.read(length)
                self.requests.append(SimpleNamespace(line=line.rstrip(), headers=heads))
                for piece in self._answering(line):
                    sock.sendall(piece)

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
