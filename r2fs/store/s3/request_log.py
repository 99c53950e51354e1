"""Requests on their way: counted when they are sent and when they end; at level debug a line in the log for each.

Owns:    the fields of a line: verb, key, status, duration, bytes, attempt; of the query the parameters in SHOWN.
Never:   logs a header, a signature or a body.
Threads: a request begins and ends in one thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from r2fs.model import flow
from r2fs.model.keys import printable
from r2fs.store.counting import RequestCounter
from r2fs.store.retry import attempt_number
from r2fs.store.s3.failures import NOT_REACHED

log = logging.getLogger(__name__)

SHOWN = ("prefix", "delimiter", "start-after", "max-keys", "partNumber")  # of the query


class Request(Protocol):
    @property
    def method(self) -> str | None: ...
    @property
    def url(self) -> str: ...


class Exchange:
    """A request that is about to be sent. One of `answered` and `failed` ends it."""

    __slots__ = ("_begun_s", "_counter", "_request", "_sent")

    def __init__(
        self, counter: RequestCounter, operation: str, key: str, request: Request, sent_bytes: int
    ) -> None:
        self._counter = counter
        self._request = request
        self._sent = counter.request(operation, key, sent_bytes)
        self._begun_s = flow.spent_s(time.monotonic())

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        took_s = flow.spent_s(time.monotonic()) - self._begun_s
        self._counter.answered(self._sent, took_s, status)
        if log.isEnabledFor(logging.DEBUG):
            length = headers.get("content-length") or "0"
            self._log(str(status), took_s, int(length) if length.isdecimal() else 0)

    def failed(self, error: BaseException | None) -> None:
        took_s = flow.spent_s(time.monotonic()) - self._begun_s
        if isinstance(error, NOT_REACHED):
            self._counter.not_sent(self._sent)
        else:
            self._counter.answered(self._sent, took_s, None)
        if log.isEnabledFor(logging.DEBUG):
            self._log(f"no answer ({type(error).__name__})", took_s, 0)

    def _log(self, status: str, took_s: float, received: int) -> None:
        log.debug(
            "%s %s %s: %s in %.0f ms, %d bytes sent, %d received, attempt %d",
            self._sent.verb, self._request.method, printable(_place(self._request.url)), status, took_s * 1000,
            self._sent.size, received, attempt_number.get(),
        )  # fmt: skip


def _place(url: str) -> str:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    shown = [f"{name}={query[name][0]}" for name in SHOWN if name in query]
    return unquote(parts.path) + (f" ({', '.join(shown)})" if shown else "")
