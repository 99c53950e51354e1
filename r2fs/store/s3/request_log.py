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


def begin(verb: str, method: str, url: str, sent: int) -> None:
    """Call just before a request is sent; `end` or `fail` follows in the same thread."""
    if log.isEnabledFor(logging.DEBUG):
        _begun.what = verb, method, url, sent
        _begun.at_s = time.monotonic()


def end(status: int, headers: Any) -> None:
    _tell(str(status), _length(headers))


def fail(error: BaseException | None) -> None:
    _tell(f"no answer ({type(error).__name__})", 0)


def _tell(status: str, received: int) -> None:
    what = getattr(_begun, "what", None)
    if what is None:
        return
    _begun.what = None
    verb, method, url, sent = what
    took_ms = (time.monotonic() - _begun.at_s) * 1000
    log.debug(
        "%s %s %s: %s in %.0f ms, %d bytes sent, %d received, attempt %d",
        verb, method, printable(_place(url)), status, took_ms, sent, received, attempt_number.get(),
    )  # fmt: skip


def attach(events: BaseEventHooks) -> None:
    """To boto3's client."""
    events.register("before-send.s3", _sent)
    events.register("response-received.s3", _answered)


def _sent(request: AWSPreparedRequest, event_name: str, **_: object) -> None:
    begin(event_name.rpartition(".")[2], str(request.method), request.url, _length(request.headers))


def _answered(
    response_dict: dict[str, Any] | None, exception: BaseException | None = None, **_: object
) -> None:
    if response_dict is None:
        fail(exception)
    else:
        end(response_dict["status_code"], response_dict["headers"])


def _length(headers: Any) -> int:
    text = headers.get("content-length") or "0"
    text = text.decode() if isinstance(text, bytes) else str(text)
    return int(text) if text.isdigit() else 0


def _place(url: str) -> str:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    shown = [f"{name}={query[name][0]}" for name in SHOWN if name in query]
    return unquote(parts.path) + (f" ({', '.join(shown)})" if shown else "")
