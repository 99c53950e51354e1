"""Servers and stores that fail on script.

Owns:    FaultyProxy, an HTTP proxy on loopback before a real S3 server, with one fault for each
         request that its script or rules name, and a round trip's latency; FaultyStore, the
         same for unit tests, over any ObjectStore and without a network.
Never:   changes what it lets through: signatures cover the Host header, which stays as it came.
Threads: one thread for each connection, ended by stop(). Scripts may be changed at any time.
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Self, TypeVar

from r2fs.model.addresses import SignedUrl, UrlRequest
from r2fs.model.errors import (
    BodyDamaged,
    PermissionRefused,
    StoreError,
    Throttled,
    Unavailable,
)
from r2fs.model.ports import Body, Download, Limits, ObjectStore
from r2fs.model.records import Condition, ListPage, ObjectInfo, ObjectMeta, Part, Version

CHUNK = 256 << 10
T = TypeVar("T")


class Kind(Enum):
    ANSWER = "answer"  # an error of the proxy's own; the server hears nothing
    DROP = "drop"  # the connection ends before the server hears anything
    STALL = "stall"  # nothing happens for a while, then the connection ends
    CUT_REQUEST = "cut_request"  # the server gets the beginning of the body alone
    CUT_ANSWER = "cut_answer"  # the client gets the beginning of the answer's body alone
    STALL_ANSWER = "stall_answer"  # as CUT_ANSWER, but the connection stays, silent
    LOSE_ANSWER = "lose_answer"  # the server has done it, and the client never hears


@dataclass(frozen=True)
class Fault:
    kind: Kind
    status: int = 0
    code: str = ""
    after: int = 0  # bytes of a body that still get through
    seconds: float = 0.0  # of a stall


def answer(status: int, code: str = "InternalError") -> Fault:
    return Fault(Kind.ANSWER, status=status, code=code)


def drop() -> Fault:
    return Fault(Kind.DROP)


def stall(seconds: float = 3600.0) -> Fault:
    return Fault(Kind.STALL, seconds=seconds)


def cut_request(after: int) -> Fault:
    return Fault(Kind.CUT_REQUEST, after=after)


def cut_answer(after: int) -> Fault:
    return Fault(Kind.CUT_ANSWER, after=after)


def stall_answer(after: int, seconds: float = 3600.0) -> Fault:
    return Fault(Kind.STALL_ANSWER, after=after, seconds=seconds)


def lose_answer() -> Fault:
    return Fault(Kind.LOSE_ANSWER)


@dataclass
class Seen:
    """A request that the proxy saw, and what the client was answered (0: nothing yet, or ever)."""

    method: str
    path: str  # with the query, as it was sent
    headers: Mapping[str, str]  # names in lower case
    fault: Fault | None = None
    status: int = 0


@dataclass
class Rule:
    fault: Fault
    method: str | None
    path: str
    times: int | None  # None: always

    def fits(self, seen: Seen) -> bool:
        return (self.method in (None, seen.method)) and self.path in seen.path and self.times != 0


class _Ended(Exception):
    """This connection is done with."""


class FaultyProxy:
    """Before the server at `upstream` (a URL; its path is kept in `url`)."""

    def __init__(self, upstream: str, *, latency_s: float = 0.0) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.latency_s = latency_s  # before each request goes on: a round trip to a far server
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        # guarded by: _lock
        self._lock = threading.Lock()
        self._script: deque[Fault | None] = deque()
        self._rules: list[Rule] = []
        self._seen: list[Seen] = []
        self._connections = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="faulty-proxy", daemon=True)
        self._acceptor.start()

    # ---- what tests say and ask
    def script(self, *faults: Fault | None) -> None:
        """One for each of the next requests, whatever they are; None lets one through."""
        with self._lock:
            self._script.extend(faults)

    def rule(self, fault: Fault, *, method: str | None = None, path: str = "", times: int | None = 1) -> None:
        """For requests of that method whose path and query hold `path`."""
        with self._lock:
            self._rules.append(Rule(fault, method, path, times))

    def clear(self) -> None:
        """No faults from now on, and nothing seen so far."""
        with self._lock:
            self._script.clear()
            self._rules.clear()
            self._seen.clear()

    @property
    def seen(self) -> list[Seen]:
        with self._lock:
            return list(self._seen)

    @property
    def connections(self) -> int:
        """How many were made so far."""
        with self._lock:
            return self._connections

    def stop(self) -> None:
        self._stopping.set()
        # shutdown() wakes accept() and recv(); close() alone would not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets, threads = list(self._open), list(self._threads)
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in [self._acceptor, *threads]:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # ---- connections
    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock,), name="faulty-proxy", daemon=True)
            with self._lock:
                self._open.add(sock)
                self._connections += 1
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        server = http.client.HTTPConnection(*self._upstream, timeout=120)
        try:
            with sock.makefile("rb") as incoming:
                while not self._stopping.is_set():
                    self._one_request(sock, incoming, server)
        except (_Ended, OSError, http.client.HTTPException):
            pass  # the client, the server or the script ended the connection: it is closed below
        finally:
            server.close()
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _one_request(self, sock: socket.socket, incoming, server: http.client.HTTPConnection) -> None:
        line = incoming.readline(65536)
        if not line:
            raise _Ended
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers = http.client.parse_headers(incoming)
        seen = Seen(method, path, {name.lower(): value for name, value in headers.items()})
        if "chunked" in headers.get("Transfer-Encoding", ""):
            raise NotImplementedError("this proxy knows bodies with a Content-Length")
        with self._lock:  # before the answer: who has that has a right to see this
            seen.fault = self._choose_locked(seen)
            self._seen.append(seen)
        if self.latency_s:
            self._stopping.wait(self.latency_s)
        body = _Reader(incoming, int(headers.get("Content-Length") or 0))
        self._act(sock, seen, headers.items(), body, server)
        if seen.fault is not None and seen.fault.kind is not Kind.ANSWER:
            raise _Ended

    def _choose_locked(self, seen: Seen) -> Fault | None:
        for rule in self._rules:
            if rule.fits(seen):
                if rule.times is not None:
                    rule.times -= 1
                return rule.fault
        return self._script.popleft() if self._script else None

    def _act(
        self,
        sock: socket.socket,
        seen: Seen,
        headers: Sequence[tuple[str, str]],
        body: _Reader,
        server: http.client.HTTPConnection,
    ) -> None:
        """Carries the request out, or fails as its fault says. The status is noted before the client can have it."""
        fault = seen.fault
        kind = fault.kind if fault else None
        if fault is not None and kind is Kind.ANSWER:
            body.drain()
            seen.status = fault.status
            sock.sendall(_error_answer(seen, fault))
            return
        if kind is Kind.DROP:
            return
        if fault is not None and kind is Kind.STALL:
            self._stopping.wait(fault.seconds)
            return
        self._send_on(
            seen, headers, body, server, fault.after if kind is Kind.CUT_REQUEST and fault else None
        )
        response = server.getresponse()
        if kind is Kind.LOSE_ANSWER:
            response.read()
            return
        seen.status = response.status
        self._answer_back(sock, seen, response, fault)

    def _send_on(
        self,
        seen: Seen,
        headers: Sequence[tuple[str, str]],
        body: _Reader,
        server: http.client.HTTPConnection,
        only: int | None,
    ) -> None:
        server.putrequest(seen.method, seen.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            server.putheader(name, value)
        server.endheaders()
        for data in body.chunks(only):
            server.send(data)
        if only is not None:
            server.close()
            raise _Ended

    def _answer_back(
        self, sock: socket.socket, seen: Seen, response: http.client.HTTPResponse, fault: Fault | None
    ) -> None:
        chunked = response.length is None and response.status not in (204, 304) and seen.method != "HEAD"
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "keep-alive"):
                lines.append(f"{name}: {value}")
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        cuts = fault is not None and fault.kind in (Kind.CUT_ANSWER, Kind.STALL_ANSWER)
        room = fault.after if fault is not None and cuts else None
        while data := response.read(CHUNK if room is None else min(CHUNK, room)):
            sock.sendall(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            room = None if room is None else room - len(data)
        if cuts:
            if fault is not None and fault.kind is Kind.STALL_ANSWER:
                self._stopping.wait(fault.seconds)
            raise _Ended
        if chunked:
            sock.sendall(b"0\r\n\r\n")


class _Reader:
    """A request's body, of known length."""

    def __init__(self, incoming, length: int) -> None:
        self._incoming = incoming
        self._left = length

    def chunks(self, only: int | None = None) -> Iterator[bytes]:
        if only is not None:
            self._left = min(self._left, only)
        while self._left:
            data = self._incoming.read1(min(CHUNK, self._left))
            if not data:
                raise _Ended
            self._left -= len(data)
            yield data

    def drain(self) -> None:
        for _ in self.chunks():
            pass


def _error_answer(seen: Seen, fault: Fault) -> bytes:
    body = b""
    if seen.method != "HEAD":
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{fault.code}</Code><Message>scripted</Message></Error>"
        ).encode()
    head = (
        f"HTTP/1.1 {fault.status} Scripted\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# ------------------------------------------------------------------ without a network
_RAISES: dict[str, Callable[[str], StoreError]] = {
    "!": lambda what: Unavailable(f"{what}: scripted, not done"),
    "t": lambda what: Throttled(f"{what}: scripted"),
    "b": lambda what: BodyDamaged(f"{what}: scripted"),
    "r": lambda what: PermissionRefused(f"{what}: scripted"),
}


@dataclass(frozen=True)
class Call:
    verb: str
    key: str
    step: str


class FaultyStore:
    """`inner`, where each call takes the next character of `script`; past its end all is well.

    `.` goes well, `!` Unavailable and not done, `t` Throttled, `b` BodyDamaged, `r` refused
    (403), `L` done, but the answer is lost (Unavailable), `c` a download that breaks off in the
    middle (BodyDamaged; other calls: as `b`).

    `only` names the verbs that the script is for. `before(verb, key)` runs ahead of each call: to
    change something at that very moment.
    """

    def __init__(
        self,
        inner: ObjectStore,
        script: Iterable[str] = "",
        *,
        only: Iterable[str] | None = None,
        before: Callable[[str, str], None] | None = None,
    ) -> None:
        self.inner = inner
        self.before = before
        self._only = None if only is None else frozenset(only)
        # guarded by: _lock
        self._lock = threading.Lock()
        self._script = deque(script)
        self._calls: list[Call] = []

    def then(self, script: Iterable[str]) -> None:
        """More of the script."""
        with self._lock:
            self._script.extend(script)

    @property
    def calls(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def verbs(self) -> list[str]:
        return [call.verb for call in self.calls]

    def _next(self, verb: str, key: str) -> str:
        if self.before is not None:
            self.before(verb, key)
        with self._lock:
            scripted = self._only is None or verb in self._only
            step = self._script.popleft() if scripted and self._script else "."
            self._calls.append(Call(verb, key, step))
        return step

    def _do(self, verb: str, key: str, call: Callable[[], T]) -> T:
        step = self._next(verb, key)
        what = f"{verb} {key}"
        if step in _RAISES:
            raise _RAISES[step](what)
        if step == "c":
            raise BodyDamaged(f"{what}: scripted")
        done = call()
        if step == "L":
            raise Unavailable(f"{what}: scripted, done")
        return done

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def limits(self) -> Limits:
        return self.inner.limits

    def connect_ahead(self, key: str, count: int) -> None:
        self.inner.connect_ahead(key, count)

    def check(self) -> None:
        self._do("check", "", self.inner.check)

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        return self._do(
            "list_page",
            prefix,
            lambda: self.inner.list_page(
                prefix, delimiter=delimiter, start_after=start_after, token=token, limit=limit
            ),
        )

    def head(self, key: str) -> ObjectInfo:
        return self._do("head", key, lambda: self.inner.head(key))

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Download:
        step = self._next("get", key)
        if step in _RAISES:
            raise _RAISES[step](f"get {key}")
        download = self.inner.get(key, start=start, length=length, if_match=if_match)
        return FaultyDownload(download, key) if step == "c" else download

    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        return self._do("put", key, lambda: self.inner.put(key, body, meta, condition=condition))

    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        return self._do("create_upload", key, lambda: self.inner.create_upload(key, meta))

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        return self._do("put_part", key, lambda: self.inner.put_part(key, upload_id, number, body))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        return self._do(
            "copy_part", key, lambda: self.inner.copy_part(key, upload_id, number, source, start, length)
        )

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition | None = None,
    ) -> str:
        return self._do(
            "complete_upload",
            key,
            lambda: self.inner.complete_upload(key, upload_id, parts, condition=condition),
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._do("abort_upload", key, lambda: self.inner.abort_upload(key, upload_id))

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        return self._do(
            "copy",
            key,
            lambda: self.inner.copy(source, key, meta=meta, condition=condition),
        )

    def delete(self, key: str) -> None:
        self._do("delete", key, lambda: self.inner.delete(key))

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        return self._do("delete_many", " ".join(keys), lambda: self.inner.delete_many(keys))

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        return self.inner.presign(key, request)

    def close(self) -> None:
        self.inner.close()


class FaultyDownload:
    """Ends after half of what was asked for."""

    def __init__(self, inner: Download, key: str) -> None:
        self._inner = inner
        self._key = key

    @property
    def info(self) -> ObjectInfo:
        return self._inner.info

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        whole = b"".join(self._inner.chunks(size))
        for at in range(0, len(whole) // 2, size):
            yield whole[at : min(at + size, len(whole) // 2)]
        raise BodyDamaged(f"get {self._key}: scripted, cut in the middle")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.__exit__(*exc)
