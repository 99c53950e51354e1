"""Connections of HTTP/1.1 to one server, kept for the next request: the last used goes first.

A request that finds none takes the first that comes: one that another request gives back, or a new one, which takes a far
server two round trips. The one that is not needed is kept.

Owns:    sockets, TLS and their timeouts; when a connection may be used again.
Never:   follows a redirect, uses a proxy, unpacks a body, or sends anything twice; has more connections than requests
         at once have asked for, or `connect_ahead`.
Threads: any. A connection belongs to one request until its answer has been read. Each is opened by a thread of its own,
         which then ends.
Locks:   Connections._lock, a leaf: for a few assignments.
Fails:   botocore's exceptions, as its own HTTP session raises them, until there is an answer; http.client's
         and OSError while its body is read.

http.client reads the answers: it bounds the status line, and finds where a body ends.
"""

from __future__ import annotations

import http.client
import io
import logging
import math
import re
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from types import FunctionType
from typing import NamedTuple, Protocol

import botocore.exceptions as boto_errors

log = logging.getLogger(__name__)

BLOCK = 64 << 10  # bytes of a body that are sent at once: each has the whole of `read_s`
IDLE = 64  # connections kept: more than all transfer threads of a mount use at once
FAR_S = 0.02  # for opening a connection, from which on that is done before it is needed
LINE_BYTES = 65536  # of a header line, and
LINES = 100  # of an answer's head, the empty one included: as http.client has it
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)\r\n")


class Source(Protocol):
    """A body, from its start."""

    def __len__(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...


class Request(NamedTuple):
    """A request to be sent. `target`: path and query, encoded. `headers`: names in lower case, `host` among them."""

    method: str
    url: str
    target: str
    headers: Mapping[str, str]
    body: Source | None = None

    def head(self) -> bytes:
        lines = "\r\n".join(map(": ".join, self.headers.items()))
        return f"{self.method} {self.target} HTTP/1.1\r\n{lines}\r\n\r\n".encode("ascii")


def _header_lines(fp: io.BufferedIOBase) -> Mapping[str, str] | http.client.HTTPMessage:
    """Read the header lines of an answer: a dict with names in lower case, if all have the usual form.

    Others (a name that comes twice, a folded line, one without a colon) are read by http.client: its parser of e-mail
    takes longer than all else of an answer's head.
    """
    lines = []
    while True:
        line = fp.readline(LINE_BYTES + 1)
        if len(line) > LINE_BYTES:
            raise http.client.LineTooLong("header line")
        lines.append(line)
        if len(lines) > LINES:
            raise http.client.HTTPException(f"got more than {LINES} headers")
        if line in (b"\r\n", b"\n", b""):
            break
    head = b"".join(lines)
    # Before and after each field: nothing, and the empty line at the end.
    parts = _FIELD.split(head.decode("latin-1"))
    found = dict(zip(map(str.lower, parts[1::3]), parts[2::3], strict=True))
    if len(found) == len(lines) - 1 and parts[-1] == "\r\n" and not any(parts[:-1:3]):
        return found
    return http.client.parse_headers(io.BytesIO(head))


class _Response(http.client.HTTPResponse):
    """http.client's response, which finds where a body ends, with `_header_lines` in place of its header parser."""

    begin = FunctionType(
        http.client.HTTPResponse.begin.__code__, vars(http.client) | {"parse_headers": _header_lines}
    )


class Received:
    """An answer: status, headers (names in lower case; values of the same name are joined), and the body to be read.

    The connection can be used again once the body has been read to its end; `close` before that closes it.
    """

    def __init__(self, response: http.client.HTTPResponse, done: Callable[[bool], None]) -> None:
        # constant
        self._response = response
        self.status_code = response.status
        headers: Mapping[str, str] | http.client.HTTPMessage = response.headers
        self.headers = headers if isinstance(headers, dict) else _joined(headers)
        # one thread at a time; None: the connection is free, or has ended
        self._done: Callable[[bool], None] | None = done
        self._end_if_read()

    @property
    def raw(self) -> Received:
        return self

    def read1(self, size: int) -> bytes:
        """Read up to `size` bytes by one call of the socket; none at the end, and where the body was cut."""
        data = self._response.read1(size) if self._done is not None else b""
        self._end_if_read()
        return data

    def close(self) -> None:
        self._end(False)

    def _end_if_read(self) -> None:
        response = self._response
        if response.isclosed() or (response.length == 0 and not response.chunked):
            # After an interim answer (101, 103) another one may follow.
            self._end(not response.will_close and not response.length and self.status_code >= 200)

    def _end(self, again: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._response.close()
            done(again)


def _joined(headers: Mapping[str, str] | http.client.HTTPMessage) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers.items():
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


class Connections:
    """`address`: host name and port. `context` None: without TLS. Times in seconds; `read_s` is of one call."""

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext | None, connect_s: float, read_s: float
    ) -> None:
        # constant
        self._address = address
        self._context = context
        self._connect_s = connect_s
        self._read_s = read_s
        # added to with _lock held; taken from by single operations of deque: the last used is the last
        self._idle: deque[socket.socket] = deque()
        # guarded by: _lock
        self._lock = threading.Lock()
        # requests without a connection: no more than connections are being opened
        self._waiting: deque[SimpleQueue[socket.socket | Exception]] = deque()
        self._opening = 0
        self._is_closed = False
        # set by any thread
        self._tls_session: ssl.SSLSession | None = None
        self._opened_s = math.inf  # least time for opening a connection; unknown: the server may be far

    def send(self, request: Request, limit_s: float | None = None) -> Received:
        """Send `request` and return its answer, the body unread. `limit_s`: of each wait, in place of the usual ones."""
        head = request.head()
        sock = self._kept() or self._first(request.url, limit_s or 2 * self._connect_s)  # TCP, and TLS
        try:
            if sock.gettimeout() != (limit_s := limit_s or self._read_s):  # a system call
                sock.settimeout(limit_s)
            response, is_sent = self._asked(sock, head, request)
        except BaseException:
            sock.close()
            raise
        return Received(response, lambda again: self._keep(sock, again and is_sent))

    def connect_ahead(self, url: str, count: int) -> None:
        """Begin to open what is missing of connections for `count` further requests: from a far server, two round trips.

        An error is logged alone: the next request meets it, and reports it. `url`: the server's, for the log.
        """
        if self._opened_s < FAR_S:
            return
        with self._lock:
            missing = max(0, min(count, IDLE) - len(self._idle) - (self._opening - len(self._waiting)))
            self._opening += missing
        for _ in range(missing):
            self._start_opening(url)

    def close(self) -> None:
        """Close the idle connections now, and those in use or being opened after their answers."""
        with self._lock:
            self._is_closed = True
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()

    # ---- one connection
    def _kept(self) -> socket.socket | None:
        while self._idle:
            try:
                sock = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if _is_usable(sock):
                return sock
            sock.close()
        return None

    def _first(self, url: str, limit_s: float) -> socket.socket:
        """Return the first connection that comes within `limit_s`. Raises the error of opening one if nothing else came."""
        place: SimpleQueue[socket.socket | Exception] = SimpleQueue()
        with self._lock:
            sock = self._kept()
            if sock is not None:
                return sock
            self._waiting.append(place)
            opens = self._opening < len(self._waiting)
            self._opening += opens
        try:
            if opens:
                self._start_opening(url)
            came = place.get(timeout=limit_s)
        except BaseException as error:  # a signal, too
            with self._lock:
                if place in self._waiting:
                    self._waiting.remove(place)
                elif not place.empty() and isinstance(late := place.get(), socket.socket):  # it came just now
                    self._give_locked(late, self._idle.append)
            if isinstance(error, Empty):
                raise boto_errors.ConnectTimeoutError(endpoint_url=url, error=error) from error
            raise
        if isinstance(came, Exception):
            raise came
        return came

    def _start_opening(self, url: str) -> None:
        """With the connection counted in `_opening`."""
        try:
            threading.Thread(target=self._open, args=(url,), name="connect", daemon=True).start()
        except RuntimeError:  # no thread can be started
            self._open(url)

    def _open(self, url: str) -> None:
        """Thread: open a connection, for the request that has waited longest, or for a later one."""
        try:
            sock = self._connected(url)
        except Exception as error:  # noqa: BLE001 - raised where a request waits for it
            with self._lock:
                self._opening -= 1
                if len(self._waiting) > self._opening:
                    self._waiting.popleft().put(error)
                    return
            log.debug("no connection ahead of need: %s", error)
            return
        with self._lock:
            self._opening -= 1
            self._give_locked(sock, self._idle.appendleft)  # those that were used go first

    def _keep(self, sock: socket.socket, again: bool) -> None:
        if not again or (self._waiting and not _is_usable(sock)):
            sock.close()
            return
        if isinstance(sock, ssl.SSLSocket):
            self._tls_session = sock.session
        with self._lock:
            self._give_locked(sock, self._idle.append)

    def _give_locked(self, sock: socket.socket, keep: Callable[[socket.socket], None]) -> None:
        if self._waiting:
            self._waiting.popleft().put(sock)
        elif self._is_closed or len(self._idle) >= IDLE:
            sock.close()
        else:
            keep(sock)

    def _connected(self, url: str) -> socket.socket:
        begun_s = monotonic()
        try:
            sock = socket.create_connection(self._address, self._connect_s)
        except TimeoutError as error:
            raise boto_errors.ConnectTimeoutError(endpoint_url=url, error=error) from error
        except OSError as error:
            raise boto_errors.EndpointConnectionError(endpoint_url=url, error=error) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._context is not None:
                sock = self._context.wrap_socket(
                    sock, server_hostname=self._address[0], session=self._tls_session
                )
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise boto_errors.ConnectTimeoutError(endpoint_url=url, error=error) from error
            if isinstance(error, OSError | ValueError):
                raise boto_errors.SSLError(endpoint_url=url, error=error) from error
            raise
        self._opened_s = min(self._opened_s, monotonic() - begun_s)
        return sock

    def _asked(
        self, sock: socket.socket, head: bytes, request: Request
    ) -> tuple[http.client.HTTPResponse, bool]:
        """Return the answer's head, and False if a part of the body was not sent: a server may refuse before."""
        response = _Response(sock, method=request.method)
        try:
            refused = _written(sock, head, request.body)
            response.begin()
        except BaseException as error:
            response.close()
            if isinstance(error, TimeoutError):
                raise boto_errors.ReadTimeoutError(endpoint_url=request.url, error=error) from error
            if isinstance(error, OSError | http.client.HTTPException):
                raise boto_errors.ConnectionClosedError(
                    endpoint_url=request.url, request=request, error=error
                ) from error
            raise
        return response, refused is None


def _written(sock: socket.socket, head: bytes, body: Source | None) -> OSError | None:
    """Send the head with the first block of the body, then the rest. An error returned ended that: the server may have
    answered already."""
    left = len(body) if body is not None else 0
    data = head
    while True:
        if body is not None and left:
            block = body.read(min(BLOCK, left))
            left -= len(block)
            data += block
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            return error
        if not left:
            return None
        data = b""


def _is_usable(sock: socket.socket) -> bool:
    """False if the server has closed the connection, or sent bytes that belong to no request."""
    return not _is_readable(sock) or _has_ticket(sock)


def _has_ticket(sock: socket.socket) -> bool:
    """True if TLS alone has data to read: tickets for later sessions, which a server sends after the handshake."""
    if not isinstance(sock, ssl.SSLSocket):
        return False
    sock.setblocking(False)
    try:
        sock.recv(1)
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
    return False


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
