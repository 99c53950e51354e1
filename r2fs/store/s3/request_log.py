"""Requests in the log, at level debug: one line each, as soon as its answer is here.

Owns:    what a line tells: verb, key, status, duration, bytes, attempt. Nothing that is signed or secret: no header,
         and of the query only what names an object's part or a listing's place.
Never:   logs a body; costs anything while the level is higher.
Threads: a request is begun and answered by one thread.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from r2fs.model.keys import printable
from r2fs.store.retry import attempt_number

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.hooks import BaseEventHooks

log = logging.getLogger(__name__)

SHOWN = ("prefix", "delimiter", "start-after", "max-keys", "partNumber")  # of the query

_begun = threading.local()


def attach(events: BaseEventHooks) -> None:
    events.register("before-send.s3", _sent)
    events.register("response-received.s3", _answered)


def _sent(request: AWSPreparedRequest, event_name: str, **_: object) -> None:
    if log.isEnabledFor(logging.DEBUG):
        _begun.what = (event_name.rpartition(".")[2], request.method, request.url, _length(request.headers))
        _begun.at_s = time.monotonic()


def _answered(
    response_dict: dict[str, Any] | None, exception: BaseException | None = None, **_: object
) -> None:
    what = getattr(_begun, "what", None)
    if what is None:
        return
    _begun.what = None
    verb, method, url, sent = what
    took_ms = (time.monotonic() - _begun.at_s) * 1000
    if response_dict is None:
        status, received = f"no answer ({type(exception).__name__})", 0
    else:
        status, received = str(response_dict["status_code"]), _length(response_dict["headers"])
    log.debug(
        "%s %s %s: %s in %.0f ms, %d bytes sent, %d received, attempt %d",
        verb, method, printable(_place(url)), status, took_ms, sent, received, attempt_number.get(),
    )  # fmt: skip


def _length(headers: Any) -> int:
    text = headers.get("Content-Length") or "0"
    text = text.decode() if isinstance(text, bytes) else str(text)
    return int(text) if text.isdigit() else 0


def _place(url: str) -> str:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    shown = [f"{name}={query[name][0]}" for name in SHOWN if name in query]
    return unquote(parts.path) + (f" ({', '.join(shown)})" if shown else "")
