"""Connections of HTTP/1.1 to one server, kept for the next request: the one that was used last goes first.

Owns:    sockets, TLS and their timeouts; when a connection may be used again.
Never:   follows a redirect, uses a proxy, unpacks a body, or sends anything twice.
Threads: any. A connection belongs to one request until its answer has been read.
Fails:   botocore's exceptions, as its own HTTP session raises them, until there is an answer; http.client's
         and OSError while its body is read.

http.client reads what is answered: it bounds status line and headers, and knows where a body ends.
"""

from __future__ import annotations

import http.client
import logging
import re
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

import botocore.exceptions as boto_errors

from r2fs.model.values import dataclass

log = logging.getLogger(__name__)

BLOCK = 64 << 10  # bytes of a body that are sent at once: each has the whole of `read_s`
IDLE = 64  # connections kept: more than all transfer threads of a mount use at once
AHEAD = 4  # connections opened before a request needs them: for both ends of a file, and its neighbours
_HEADERS = re.compile(r"[\x20-\x7e]*\Z")  # no line break, nothing that servers read differently


class Source(Protocol):
    """The bytes of a body, from their start."""

    def __len__(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request to be sent. `target`: path and query, encoded. `headers`: names in lower case, `host` among them.

    ValueError for a header's value that another one could hide in.
    """

    method: str
    url: str
    target: str
    headers: Mapping[str, str]
    body: Source | None = None

    def __post_init__(self) -> None:
        if not _HEADERS.match("".join(self.headers.values())):
            wrong = next(name for name, value in self.headers.items() if not _HEADERS.match(value))
            raise ValueError(f"{wrong}: not a header's value")

    def head(self) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"{self.method} {self.target} HTTP/1.1\r\n{lines}\r\n".encode("ascii")


class Received:
    """An answer: status, headers (names in lower case; what comes twice is joined), and its body to be read.

    Its connection is free as soon as the body has been read to its end; `close` before that ends it.
    """

    def __init__(self, response: http.client.HTTPResponse, done: Callable[[bool], None]) -> None:
        # constant
        self._response = response
        self.status_code = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.getheaders():
            name = name.lower()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
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
        # changed by single operations of deque: the last used is the last
        self._idle: deque[socket.socket] = deque()
        # set by any thread
        self._is_closed = False
        self._tls_session: ssl.SSLSession | None = None

    def send(self, request: Request, limit_s: float | None = None) -> Received:
        """Send `request` and return its answer, the body unread. `limit_s`: of each wait, in place of the usual ones."""
        head = request.head()
        sock = self._kept() or self._connected(request.url, limit_s or self._connect_s)
        try:
            sock.settimeout(limit_s or self._read_s)
            response, is_sent = self._asked(sock, head, request)
        except BaseException:
            sock.close()
            raise
        return Received(response, lambda again: self._keep(sock, again and is_sent))

    def connect_ahead(self, url: str) -> None:
        """Open connections until AHEAD are idle: to the first requests each would cost two round trips.

        An error is no concern: the next request meets it, and reports it. `url`: the server's, for the log.
        """
        try:
            while len(self._idle) < AHEAD and not self._is_closed:
                self._idle.appendleft(self._connected(url, self._connect_s))  # those that were used go first
        except boto_errors.BotoCoreError as error:
            log.debug("no connection ahead of need: %s", error)
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """No connection is kept from now on; those in use end with their answers."""
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
            if not _is_readable(sock) or _has_ticket(sock):
                return sock
            sock.close()  # the server has ended it, or says what nobody asked
        return None

    def _keep(self, sock: socket.socket, again: bool) -> None:
        if not again or len(self._idle) >= IDLE:
            sock.close()
            return
        if isinstance(sock, ssl.SSLSocket):
            self._tls_session = sock.session
        self._idle.append(sock)
        if self._is_closed:
            self.close()

    def _connected(self, url: str, limit_s: float) -> socket.socket:
        try:
            sock = socket.create_connection(self._address, limit_s)
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
        return sock

    def _asked(
        self, sock: socket.socket, head: bytes, request: Request
    ) -> tuple[http.client.HTTPResponse, bool]:
        """The answer's beginning, and whether all was sent: a server may refuse before it has read a body."""
        response = http.client.HTTPResponse(sock, method=request.method)
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
    """Send all of it. What is returned ended that: the answer may be there already."""
    left = len(body) if body is not None else 0
    try:
        sock.sendall(head)
    except (BrokenPipeError, ConnectionResetError) as error:
        return error
    while body is not None and left:
        data = body.read(min(BLOCK, left))
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            return error
        left -= len(data)
    return None


def _has_ticket(sock: socket.socket) -> bool:
    """True if all that has come is TLS's own: tickets for later sessions, which a server sends after the handshake."""
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
