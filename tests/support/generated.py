"""A bucket of any number of objects that nobody stores: names, ETags, sizes and bytes come from arithmetic.

Owns:    the order of its keys, which are those of a tree of equal directories; LISTs in the time that a page takes,
         at any place of a bucket of millions; the number of requests.
Never:   is written to: a PUT or DELETE is answered 501. What another host does is `added`.

`GeneratedStore` is the port for an engine in a test, `GeneratedServer` the same over HTTP, for mounts and scripts/bench.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from r2fs.model.records import ListPage, ObjectInfo
from tests.support.memory_store import MemoryStore, Stored
from tests.support.servers import Endpoint

MODIFIED_NS = 1_790_000_000 * 10**9
MODIFIED = "2026-09-21T14:13:20.000Z"
HTTP_MODIFIED = "Mon, 21 Sep 2026 14:13:20 GMT"
PAGE = 1000
LAST = "\U0010ffff"  # after all that may follow a common prefix


@dataclass
class Generated:
    """The bucket. `levels`: directories at each level, then files in each of the last ones: (1000, 1000) is a
    million files in a thousand directories, (100000,) a single large directory."""

    levels: tuple[int, ...]
    top: str = ""  # before each key
    salt: int = 0  # another one: every object in another version
    added: dict[str, int] = field(default_factory=dict)  # further keys, and their sizes
    requests: Counter[str] = field(default_factory=Counter)  # by operation

    def __post_init__(self) -> None:
        self.count = 1
        for one in self.levels:
            self.count *= one

    # ---- arithmetic
    def key(self, number: int) -> str:
        """The key at a place in the order of all."""
        parts: list[str] = []
        for depth in range(len(self.levels) - 1, -1, -1):
            number, at = divmod(number, self.levels[depth])
            width = len(str(self.levels[depth] - 1))
            parts.append(f"f{at:0{width}}.wav" if depth == len(self.levels) - 1 else f"d{at:0{width}}")
        return self.top + "/".join(reversed(parts))

    def number(self, key: str) -> int | None:
        """The place of a key; None: there is no such object."""
        at = self._rank(key)
        return at if at < self.count and self.key(at) == key else None

    def info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, self.size(key), self.etag(key), MODIFIED_NS)

    def size(self, key: str) -> int:
        return self.added[key] if key in self.added else 100 + len(key)

    def etag(self, key: str) -> str:
        return blake2b(f"{self.salt}{self.size(key)}{key}".encode(), digest_size=16).hexdigest()

    def holds(self, key: str) -> bool:
        return key in self.added or self.number(key) is not None

    def data(self, key: str) -> bytes:
        return bytes(self.size(key))

    def _rank(self, bound: str) -> int:
        """How many keys come before `bound`."""
        return bisect_left(range(self.count), bound.encode(), key=lambda at: self.key(at).encode())

    # ---- LIST
    def page(
        self, prefix: str, delimiter: str, start_after: str = "", token: str | None = None, limit: int = PAGE
    ) -> ListPage:
        """As S3 answers: after the key `start_after`, or after the last line of an earlier page, its token."""
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = token or start_after
        position = max(prefix, f"{last}\0" if last else "")
        if token and delimiter and token.endswith(delimiter):
            position = max(prefix, token + LAST)
        added = sorted((key for key in self.added if key >= position), reverse=True)
        at = self._rank(position)
        while True:
            key = self.key(at) if at < self.count else None
            if added and (key is None or added[-1] < key):
                key = added.pop()
            else:
                at += 1
            if key is None or not key.startswith(prefix):
                return ListPage(tuple(objects), tuple(prefixes), None)
            if len(objects) + len(prefixes) == limit:
                return ListPage(tuple(objects), tuple(prefixes), last)
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                last = key
                objects.append(self.info(key))
                continue
            last = key[: end + 1]
            prefixes.append(last)
            at = self._rank(last + LAST)
            while added and added[-1].startswith(last):
                added.pop()


# ------------------------------------------------------------------ the port
class GeneratedStore(MemoryStore):
    """What a program writes lies in memory beside; a LIST does not show it."""

    def __init__(self, generated: Generated) -> None:
        super().__init__()
        self.generated = generated

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
        self.generated.requests["LIST"] += 1
        return self.generated.page(prefix, delimiter, start_after, token, min(limit, self.page))

    def _get(self, key: str) -> Stored:
        if self.generated.holds(key):
            info = self.generated.info(key)
            return Stored(key, self.generated.data(key), info.etag, info.modified_ns, self._plain)
        return super()._get(key)


# ------------------------------------------------------------------ over HTTP
class GeneratedServer:
    """Answers for the bucket `bucket` on loopback."""

    def __init__(self, generated: Generated, bucket: str = "generated") -> None:
        self.generated = generated
        self._server = _Server(("127.0.0.1", 0), _Request)
        self._server.double = self
        self.endpoint = Endpoint(f"http://127.0.0.1:{self._server.server_port}", bucket)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="generated", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    double: GeneratedServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        generated = self.server.double.generated
        if key:
            generated.requests["GET"] += 1
            self._object(key, with_body=True)
            return
        generated.requests["LIST"] += 1
        asked = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        prefix, limit = asked.get("prefix", ""), min(int(asked.get("max-keys", PAGE)), PAGE)
        after, token = asked.get("start-after", ""), asked.get("continuation-token")
        page = generated.page(prefix, asked.get("delimiter", ""), after, token, limit)
        self._answer(200, _listing(bucket, prefix, page), {"Content-Type": "application/xml"})

    def do_HEAD(self) -> None:
        key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]
        self.server.double.generated.requests["HEAD"] += 1
        if key:
            self._object(key, with_body=False)
        else:
            self._answer(200, b"", {})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(501, b"<Error><Code>NotImplemented</Code><Message>read only</Message></Error>", {})

    do_POST = do_DELETE = do_PUT

    def _object(self, key: str, with_body: bool) -> None:
        generated = self.server.double.generated
        if not generated.holds(key):
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>-</Message></Error>", {})
            return
        data = generated.data(key)
        headers = {
            "ETag": f'"{generated.etag(key)}"',
            "Last-Modified": HTTP_MODIFIED,
            "Content-Type": "audio/wav",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, data, headers, with_body)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self._answer(206, data[start : end + 1], headers, with_body)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(body)


def _listing(bucket: str, prefix: str, page: ListPage) -> bytes:
    rows = [
        f"<Contents><Key>{quote(one.key)}</Key><LastModified>{MODIFIED}</LastModified><ETag>&quot;{one.etag}&quot;</ETag>"
        f"<Size>{one.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for one in page.objects
    ]
    rows += [f"<CommonPrefixes><Prefix>{quote(one)}</Prefix></CommonPrefixes>" for one in page.prefixes]
    token = f"<NextContinuationToken>{page.token}</NextContinuationToken>" if page.token else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>{bucket}</Name><Prefix>{quote(prefix)}</Prefix>'
        f"<KeyCount>{len(rows)}</KeyCount><MaxKeys>{PAGE}</MaxKeys><EncodingType>url</EncodingType>"
        f"<IsTruncated>{'true' if page.token else 'false'}</IsTruncated>{token}{''.join(rows)}</ListBucketResult>"
    ).encode()
