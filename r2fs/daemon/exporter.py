"""Exporter: offers metrics at a loopback address, at a unix socket, or in a textfile for node_exporter.

Requests under a name of another host are refused: a web page may have a name that resolves to loopback.
A place that cannot be used is logged once and tried again; the mount goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any, Final

from r2fs.daemon.loopback import LoopbackServer, is_own_name
from r2fs.model import owned_paths

log = logging.getLogger(__name__)

POLL_S: Final = 0.2  # until the end of the service is noticed
CLIENT_S: Final = 5.0  # of silence of a client: another one waits
AGAIN_S: Final = 10.0  # between two tries of a place that cannot be used
TEXTFILE_S: Final = 15.0  # between two writes of the textfile: Prometheus' usual interval
UNIX: Final = "unix:"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Exporter:
    """`place`: the setting `metrics`. `name`: of this mount's textfile, without its ending."""

    def __init__(self, place: str, name: str, text: Callable[[], bytes]) -> None:
        # constant
        self._place = place
        self._name = name
        self._text = text
        # run()'s thread alone
        self._warned = ""

    def run(self, ended: Event) -> None:
        """Offer the metrics until `ended`."""
        while not ended.is_set():
            try:
                if self._place.startswith("/"):
                    self._write_files(Path(self._place), ended)
                else:
                    self._serve(ended)
            except OSError as error:
                self._warn(f"metrics cannot be offered at {self._place}: {error.strerror or error}; each mount needs a place of its own")  # fmt: skip
                ended.wait(AGAIN_S)

    def _warn(self, text: str) -> None:
        if text != self._warned:
            log.warning("%s", text)
        self._warned = text

    # ------------------------------------------------------------------ a textfile
    def _write_files(self, directory: Path, ended: Event) -> None:
        """Replace the file again and again. It is removed at the end: no old values are taken for new ones."""
        name = f"r2fs-{self._name}.prom"
        try:
            while True:
                with owned_paths.directory(directory) as fd:
                    owned_paths.replace_file(fd, name, self._text())
                    os.chmod(name, 0o644, dir_fd=fd)  # node_exporter is another user
                if ended.wait(TEXTFILE_S):
                    return
        finally:
            (directory / name).unlink(missing_ok=True)

    # ------------------------------------------------------------------ a socket
    def _serve(self, ended: Event) -> None:
        path = Path(self._place.removeprefix(UNIX)) if self._place.startswith(UNIX) else None
        server = self._server(path)
        try:
            server.timeout = POLL_S
            log.info("metrics are at %s", self._place)
            while not ended.is_set():
                server.handle_request()
        finally:
            server.server_close()
            if path is not None:
                path.unlink(missing_ok=True)

    def _server(self, path: Path | None) -> LoopbackServer:
        handler = _handler(self._text)
        if path is not None:
            return _UnixServer(path, handler)
        host, _, port = self._place.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        kind = type("_FamilyServer", (LoopbackServer,), {"address_family": family})
        server: LoopbackServer = kind((host.strip("[]"), int(port)), handler)
        return server


class _UnixServer(LoopbackServer):
    """A socket for this user and root. A socket that a killed daemon left is replaced."""

    address_family = socket.AF_UNIX

    def __init__(self, path: Path, handler: type[BaseHTTPRequestHandler]) -> None:
        self._path = path
        super().__init__(os.fspath(path), handler)  # type: ignore[arg-type]  # typed for TCP

    def server_bind(self) -> None:
        owned_paths.make_sure(self._path.parent)
        if self._path.exists() and stat.S_ISSOCK(self._path.lstat().st_mode) and not _answers(self._path):
            self._path.unlink()
        self.socket.bind(os.fspath(self._path))
        os.chmod(self._path, 0o600)  # before listen(): until then no connection is possible


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _handler(text: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_S

        def do_GET(self) -> None:
            if not is_own_name(self.headers.get("Host") or "localhost"):
                self.send_error(403, "not a name of this host")
            elif self.path.partition("?")[0] not in ("/metrics", "/"):
                self.send_error(404, "only /metrics")
            else:
                body = text()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug("metrics: %s", format % args)

    return Handler
