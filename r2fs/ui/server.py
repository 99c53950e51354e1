"""HTTP server of the page, on 127.0.0.1.

Owns:    the headers of every answer, the files of the page, and the limits of connections.
Never:   answers a request that the guard refuses; runs or shows a file of a mount as a part of the page.
Threads: serve() in the caller's; each connection has a thread, at most CONNECTIONS.
Fails:   InvalidArgument where the port is taken. A failed request is answered, and ends no other.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from r2fs.daemon.loopback import LoopbackServer
from r2fs.model.errors import InvalidArgument, R2fsError
from r2fs.model.metadata import content_type
from r2fs.ui import beneath
from r2fs.ui.guard import Guard
from r2fs.ui.mounts import Mounts, failure
from r2fs.ui.routes import Routes, status_of

log = logging.getLogger(__name__)

ADDRESS: Final = "127.0.0.1"
CONNECTIONS: Final = 32  # a browser opens six; each may wait for a mount
PLAYERS: Final = 8  # files read at once: a mount that hangs leaves connections for the other requests
CLIENT_S: Final = 30.0  # of silence between requests
PLAYER_S: Final = 5.0  # a player that pauses asks again later: its open file would be in the way of umount
MAX_BODY: Final = 1 << 16  # bytes of a POST
CHUNK: Final = 1 << 16  # bytes of a read

PAGE: Final = {
    "": "index.html",
    **{
        name: name
        for name in (
            "style.css", "page.js", "text.js", "charts.js", "queue.js", "map.js", "takes.js", "waveform.js", "icon.svg",
        )
    },
}  # fmt: skip
MEDIA: Final = ("audio/", "video/")  # shown by the browser's players, which run nothing
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
FILE_POLICY: Final = {"Content-Security-Policy": "default-src 'none'; sandbox"}


class Extent(NamedTuple):
    start: int
    stop: int  # the byte after the last


class Unsatisfiable(Exception):
    """No byte of the range is in the file."""


def parse_range(header: str | None, size: int) -> Extent | None:
    """The range of a Range header (RFC 9110, section 14) for a file of `size` bytes; None: all of the file, also for
    several ranges.

    >>> [parse_range(text, 10) for text in ("bytes=2-", "bytes=-3", "bytes=0-99", "bytes=0-1,4-5")]
    [Extent(start=2, stop=10), Extent(start=7, stop=10), Extent(start=0, stop=10), None]
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
        if found[2] and int(found[2]) < start:
            return None  # no range at all, which a server ignores
    if start >= stop:
        raise Unsatisfiable
    return Extent(start, stop)


class PageServer(ThreadingMixIn, LoopbackServer):
    daemon_threads = True  # one that waits for a mount does not keep the process
    request_queue_size = CONNECTIONS

    def __init__(self, mounts: Mounts, port: int = 0) -> None:
        # constant
        self.guard = Guard()
        self.routes = Routes(mounts)
        self.players = BoundedSemaphore(PLAYERS)
        self.page = {name: (files(__package__) / "page" / file).read_bytes() for name, file in PAGE.items()}
        self._connections = BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise InvalidArgument(
                f"port {port} cannot be used ({error.strerror}): choose another by --port, or none for a free one"
            ) from None

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.socket.getsockname()[1]}/{self.guard.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_S
    disable_nagle_algorithm = True

    def version_string(self) -> str:
        return "r2fs"

    # ------------------------------------------------------------------ requests
    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        refusal = self.server.guard.refusal(self.command, parts.path, self.headers)
        if refusal is not None:
            self._refuse(*refusal)
            return
        route = parts.path.lstrip("/").partition("/")[2]
        try:
            if self.command == "POST":
                self._json(self.server.routes.post(route, self._body()))
            elif route in self.server.page:
                self._page(route)
            else:
                self._get(route, dict(parse_qsl(parts.query, keep_blank_values=True)))
        except R2fsError as error:
            self._json(failure(error), status_of(error))
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the browser has left: a player that seeks, a page that is closed
        except Exception as error:
            log.exception("a request of the page failed")
            self.close_connection = True
            self._json({"error": f"unexpected error: {error!r}"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _get(self, route: str, parameters: Mapping[str, str]) -> None:
        if route == "file":
            self._file(parameters)
        else:
            self._json(self.server.routes.get(route, parameters))

    def _body(self) -> Mapping[str, Any]:
        """The JSON object of a POST. No other site's form can send this type."""
        self.close_connection = True  # the rest of a body that is not read is no request
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not length.isdigit():
            raise InvalidArgument("a request is JSON of a known length")
        if int(length) > MAX_BODY:
            raise InvalidArgument(f"a request has {MAX_BODY} bytes at most")
        try:
            message = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise InvalidArgument(f"a request is JSON: {error}") from None
        if not isinstance(message, dict):
            raise InvalidArgument("a request is a JSON object")
        return message

    # ------------------------------------------------------------------ answers
    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True
        self._send(status, {"Content-Type": "text/plain; charset=utf-8"}, f"r2fs: {text}\n".encode())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is no HTTP: with the headers of all answers, and without its text."""
        self.command = self.command or "GET"
        self._refuse(HTTPStatus(code), HTTPStatus(code).phrase)

    def _json(self, value: Mapping[str, Any] | None, status: HTTPStatus = HTTPStatus.OK) -> None:
        if value is None:
            value, status = {"error": "no such route"}, HTTPStatus.NOT_FOUND
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _page(self, route: str) -> None:
        kind = content_type(PAGE[route])
        charset = "" if kind.startswith("image/") else "; charset=utf-8"
        self._send(HTTPStatus.OK, {"Content-Type": kind + charset}, self.server.page[route])

    def _send(self, status: HTTPStatus, headers: Mapping[str, str], body: bytes) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    # ------------------------------------------------------------------ files of a mount
    def _file(self, parameters: Mapping[str, str]) -> None:
        if not self.server.players.acquire(blocking=False):
            self._json({"error": "too many files are read at once"}, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        try:
            root, path = self.server.routes.file(parameters)
            with beneath.file(root, path) as (fd, found):
                self._send_file(fd, found.st_size, path)
        finally:
            self.server.players.release()

    def _send_file(self, fd: int, size: int, path: str) -> None:
        kind = content_type(path.rpartition("/")[2])
        if not kind.startswith(MEDIA):
            kind = "application/octet-stream"
        headers = {**FILE_POLICY, "Content-Type": kind, "Accept-Ranges": "bytes"}
        if not kind.startswith(MEDIA):
            headers["Content-Disposition"] = "attachment"
        try:
            extent = parse_range(self.headers.get("Range"), size)
        except Unsatisfiable:
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {**headers, "Content-Range": f"bytes */{size}"}, b"")  # fmt: skip
            return
        start, stop = extent or (0, size)
        first = b""
        if self.command != "HEAD":
            with beneath.errors(path):  # an error is an answer, while nothing of the file is sent
                first = os.pread(fd, min(CHUNK, stop - start), start)
        status = HTTPStatus.OK
        if extent is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._head(status, {**headers, "Content-Length": str(stop - start)})
        if self.command != "HEAD":
            self.connection.settimeout(PLAYER_S)
            self._stream(fd, first, start, stop)
            self.connection.settimeout(CLIENT_S)

    def _stream(self, fd: int, chunk: bytes, at: int, stop: int) -> None:
        """Send the file's bytes from `at` to `stop`; the first are read. The connection ends where they do not come."""
        while at < stop:
            if not chunk:
                self.close_connection = True  # the file has become shorter
                return
            self.wfile.write(chunk)
            at += len(chunk)
            try:
                chunk = os.pread(fd, min(CHUNK, stop - at), at) if at < stop else b""
            except OSError as error:
                log.info("a file cannot be read further: %s", error.strerror)
                chunk = b""

    def log_message(self, format: str, *args: Any) -> None:
        """Log without the address, which has the token."""
        log.debug("%s answered", self.command)
