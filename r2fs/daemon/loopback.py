"""Loopback HTTP: a server at an address of this host alone, and the check of the Host header of its requests."""

from __future__ import annotations

import logging
import re
import sys
from http.server import HTTPServer
from socketserver import TCPServer
from typing import Any, Final

log = logging.getLogger(__name__)

_PORT: Final = re.compile(r":\d{1,5}$")
_OWN_NAMES: Final = frozenset({"localhost", "[::1]"})
_OWN_ADDRESS: Final = re.compile(r"127(\.\d{1,3}){3}")


class LoopbackServer(HTTPServer):
    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's looks the host's name up, which may take seconds
        self.server_name, self.server_port = "localhost", 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.info("a request failed: %r", sys.exc_info()[1])


def is_own_name(host: str) -> bool:
    """True for a Host header that names loopback, with any port. A web page has its own name, even if that resolves to loopback.

    >>> is_own_name("127.0.0.1:9464"), is_own_name("localhost"), is_own_name("127.evil.example")
    (True, True, False)
    """
    name = _PORT.sub("", host).lower()
    return name in _OWN_NAMES or _OWN_ADDRESS.fullmatch(name) is not None
