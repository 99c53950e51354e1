"""An HTTP server that answers as a test says, byte by byte, where a well-behaved one cannot be made to.

Owns:    its socket and threads: one for each connection.
Never:   understands S3: `reply(request)` gives the raw answer, in pieces that go out with pauses between them.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from r2fs.model.settings import Bucket, Credentials


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case


Reply = Callable[[Request], Iterable[bytes]]


def head(status: str = "200 OK", **headers: str) -> bytes:
    """The lines before a body; `_` in a header's name is a hyphen."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(data: bytes) -> bytes:
    """A body of no announced length."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"


class Canned:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.seen: list[Request] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="canned", daemon=True)
        self._thread.start()

    def settings(self, **changes: object) -> Bucket:
        port = self._listener.getsockname()[1]
        return Bucket(
            "s3",
            "bucket",
            endpoint_url=f"http://127.0.0.1:{port}",
            region="us-east-1",
            credentials=Credentials("key", "secret"),
            **changes,  # type: ignore[arg-type]
        )

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), name="canned-one", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as incoming, suppress(OSError):
            while line := incoming.readline():
                method, path, _ = line.decode().split(" ", 2)
                headers = {name.lower(): value for name, value in http.client.parse_headers(incoming).items()}
                incoming.read(int(headers.get("content-length", "0")))
                request = Request(method, path, headers)
                self.seen.append(request)
                for piece in self.reply(request):
                    sock.sendall(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
