"""Guard: refuses requests of other users and of other web pages, by the token, Host, Origin and Sec-Fetch-Site.

A web page may send requests to loopback, also under a name of its own that resolves to loopback: its Host or Origin is
not the page's. Another user of this host may send any header: that user lacks the token.
"""

from __future__ import annotations

import secrets
from email.message import Message
from http import HTTPStatus

from r2fs.daemon.loopback import is_own_name
from r2fs.model import redaction

TOKEN_BYTES = 32
METHODS = ("GET", "HEAD", "POST")


class Guard:
    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(TOKEN_BYTES)  # constant
        redaction.hide(self.token)

    def refusal(self, method: str, path: str, headers: Message) -> tuple[HTTPStatus, str] | None:
        """The reason to refuse a request; None for one of the page."""
        host = headers.get("Host")
        if host is None or not is_own_name(host):
            return (HTTPStatus.FORBIDDEN, "not a name of this host")
        if method not in METHODS:
            return (HTTPStatus.METHOD_NOT_ALLOWED, "not a method of this page")
        token, slash, route = path.lstrip("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.token.encode()):
            return (HTTPStatus.FORBIDDEN, "open the whole address that r2fs ui has printed")
        origin = headers.get("Origin")
        if origin not in (None, f"http://{host}") or (origin is None and method == "POST"):
            return (HTTPStatus.FORBIDDEN, "not a request of this page")
        navigates = method == "GET" and route == "" and headers.get("Sec-Fetch-Mode") == "navigate"
        if headers.get("Sec-Fetch-Site") not in (None, "none", "same-origin") and not navigates:
            return (HTTPStatus.FORBIDDEN, "not a request of this page")
        return None
