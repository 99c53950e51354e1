"""Control socket of one daemon: receives requests, calls operations, sends their answers.

Owns:    `<run_dir>/<slug>.sock` (mode 0600), for the same user and root, and the card `<slug>.json` beside it, by
         which commands find the daemon.
Threads: run() in one, which accepts connections and notices clients that leave; each request is handled
         in a thread that `spawn` makes.
Fails:   DirectoryUnusable where the socket cannot be made.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2fs.daemon.protocol import (
    HEARTBEAT_S,
    MAX_LINE,
    UNKNOWN,
    Message,
    decode,
    encode,
    failure,
    is_believed,
    short_address,
)
from r2fs.model import causes, owned_paths
from r2fs.model.causes import Cause
from r2fs.model.errors import DirectoryUnusable, InvalidArgument, NotPermitted, R2fsError

log = logging.getLogger(__name__)

MAX_CLIENTS = 32  # more are a mistake: further ones wait in the socket's queue
REQUEST_TIMEOUT_S = 10.0  # for receiving one line
ANSWER_TIMEOUT_S = 10.0  # for a client that does not read
MAX_CARD = 1 << 16  # bytes; a path and a URL are far less
MAX_PID = 1 << 22  # Linux's own limit

Operation = Callable[["Request"], Mapping[str, object]]
Spawn = Callable[[str, Callable[[], None]], object]


class Request:
    """A request and its connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.message: Message = {}
        self.gone = threading.Event()  # set when the client has left
        self._progress_s = time.monotonic()  # of the last line, or of the start

    def read(self) -> None:
        """Receive the request. NotPermitted for another user's, InvalidArgument if it is no line of JSON."""
        _check_peer(self.connection)
        self.message = _read_request(self.connection)
        self.connection.settimeout(ANSWER_TIMEOUT_S)

    def progress(self, **fields: object) -> None:
        """Send a line before the last. After a client has left, lines are dropped."""
        self._progress_s = time.monotonic()
        self.send({**fields, "done": False})

    def heartbeat(self, **fields: object) -> None:
        """Send a line of progress, unless the last was sent less than HEARTBEAT_S ago."""
        if time.monotonic() - self._progress_s >= HEARTBEAT_S:
            self.progress(**fields)

    def send(self, message: Mapping[str, object]) -> None:
        if self.gone.is_set():
            return
        try:
            self.connection.sendall(encode(message))
        except OSError:
            self.gone.set()

    def number(self, name: str, default: float | None = None) -> float | None:
        """A number of the request, not negative. InvalidArgument otherwise."""
        value = self.message.get(name, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise InvalidArgument(f"{name} is a number, not {value!r}")
        return value

    def text(self, name: str) -> str:
        """A text of the request. InvalidArgument otherwise."""
        value = self.message.get(name)
        if not isinstance(value, str):
            raise InvalidArgument(f"{name} is a text, not {value!r}")
        return value

    def paths(self) -> list[str]:
        """The list `paths` of the request; empty if there is none. InvalidArgument for another form."""
        value = self.message.get("paths")
        if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise InvalidArgument("paths is a list of texts")
        return value or []

    def flag(self, name: str) -> bool:
        return self.message.get(name) is True


def operations_of(*owners: object) -> dict[str, Operation]:
    """The public methods of `owners`, by name: each carries out the operation of its name, in a thread of its own and
    many at once. A refusal is an R2fsError."""
    return {name: getattr(owner, name) for owner in owners for name in dir(owner) if not name.startswith("_")}


class ControlServer:
    def __init__(self, run_dir: Path, slug: str, operations: Mapping[str, Operation], spawn: Spawn) -> None:
        # constant
        self.path = run_dir / f"{slug}.sock"
        self.card = run_dir / f"{slug}.json"
        self._operations = operations
        self._spawn = spawn
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = threading.Event()
        self._accepting = threading.Lock()  # held by run()
        self._withdrawn = False  # written by the thread that ends the daemon
        # guarded by: _lock
        self._lock = threading.Lock()
        self._requests: set[Request] = set()
        self._finished: set[Request] = set()

    def open(self, card: Mapping[str, object]) -> None:
        """Bind the socket, then write `card`. The state's lock is held, so existing files are a dead daemon's."""
        try:
            with short_address(self.path) as address:
                for path in (self.card, self.path):
                    path.unlink(missing_ok=True)
                before = os.umask(0o177)
                try:
                    self._listener.bind(address)
                finally:
                    os.umask(before)
            self._listener.listen(MAX_CLIENTS)
            self._listener.setblocking(False)
            self._write_card(card)
        except OSError as error:
            raise DirectoryUnusable(
                f"no control socket can be made in {self.path.parent} ({error.strerror}): "
                "make it writable, or choose another by --run-dir"
            ) from error

    def _write_card(self, card: Mapping[str, object]) -> None:
        with owned_paths.directory(self.card.parent) as directory:
            owned_paths.replace_file(directory, self.card.name, json.dumps(card).encode())

    def run(self) -> None:
        """Accept requests until stop()."""
        with self._accepting:
            while not self._stopping.is_set():
                self._accept_or_reap()

    def _accept_or_reap(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        with self._lock:
            self._reap_locked()
            if len(self._requests) < MAX_CLIENTS:
                poll.register(self._listener, select.POLLIN)
            watched = {r.connection.fileno(): r for r in self._requests if not r.gone.is_set()}
        for descriptor in watched:
            poll.register(descriptor, select.POLLRDHUP)
        for descriptor, _ in poll.poll():
            if descriptor in watched:
                watched[descriptor].gone.set()
            elif descriptor == self._wake:
                os.eventfd_read(self._wake)
            else:
                self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # the client has left
        connection.settimeout(REQUEST_TIMEOUT_S)
        request = Request(connection)
        with self._lock:
            self._requests.add(request)
        self._spawn("control-request", lambda: self._serve(request))

    def _serve(self, request: Request) -> None:
        """Answer one request, in a thread of its own. Only the accepting thread closes connections."""
        try:
            request.send(self._answer(request))
        finally:
            with self._lock:
                self._finished.add(request)
            self._poke()

    def _answer(self, request: Request) -> Mapping[str, object]:
        try:
            request.read()
            name = str(request.message.get("op"))
            operation = self._operations.get(name)
            if operation is None:
                raise InvalidArgument(f"{UNKNOWN} {request.message.get('op')!r}")
            with causes.caused_by(Cause(causes.R2FS, name)):
                return {**operation(request), "done": True}
        except R2fsError as error:
            return failure(error)
        except Exception as error:
            log.exception("the control request failed")
            return failure(R2fsError(f"the daemon could not carry out the request: {error!r}"))

    def _reap_locked(self) -> None:
        for request in self._finished:
            self._requests.discard(request)
            request.connection.close()
        self._finished.clear()

    def _poke(self) -> None:
        with suppress(OSError):  # closed meanwhile: no thread is to be woken
            os.eventfd_write(self._wake, 1)

    def finish(self, limit_s: float) -> None:
        """Wait for the last answers, end run(), close everything; `limit_s` seconds at most for each wait."""
        deadline = time.monotonic() + limit_s
        while self._busy() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.stop()
        if self._accepting.acquire(timeout=limit_s):
            self._accepting.release()
        self.close()

    def stop(self) -> None:
        """End run() soon. Requests that are under way may still answer."""
        self._stopping.set()
        self._poke()

    def _busy(self) -> bool:
        """True while a request lacks its last answer."""
        with self._lock:
            return bool(self._requests - self._finished)

    def withdraw(self) -> None:
        """Take the files away, while the state's lock is still held: the next daemon makes its own."""
        if not self._withdrawn:
            self._withdrawn = True
            for path in (self.card, self.path):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the sockets and remove their files; after run() has returned."""
        self.withdraw()
        self._listener.close()
        with self._lock:
            for request in self._requests:
                request.connection.close()
            self._requests.clear()
        os.close(self._wake)


def _check_peer(connection: socket.socket) -> None:
    """The directory's mode keeps others out already; root may ask any daemon."""
    if not is_believed(connection):
        raise NotPermitted("only the user of the mount, and root, may ask its daemon")


def _read_request(connection: socket.socket) -> Message:
    line = b""
    while not line.endswith(b"\n"):
        try:
            more = connection.recv(65536)
        except OSError as error:
            raise InvalidArgument(f"no request came: {error}") from None
        if not more or len(line) > MAX_LINE:
            raise InvalidArgument("a request is one line of JSON")
        line += more
    try:
        return decode(line)
    except ValueError as error:
        raise InvalidArgument(f"a request is one line of JSON: {error}") from None


def read_card(name: str, directory: int) -> dict[str, Any] | None:
    """Read a daemon's card in the directory of this descriptor; None if missing or not a card."""
    try:
        card = owned_paths.load_json(owned_paths.read_file(name, MAX_CARD, dir_fd=directory))
    except (OSError, ValueError):
        return None
    pid = card.get("pid") if isinstance(card, dict) else None
    return card if isinstance(pid, int) and 0 < pid < MAX_PID else None
