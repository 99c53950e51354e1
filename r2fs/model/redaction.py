"""Redaction: the one filter for text on its way out of the process, whichever way that is.

Owns:    which secrets this process knows, and how text is freed of them. Errors of the bucket (model/errors.py),
         log lines, the control protocol and standard error all pass through it; what a server says has passed
         through store/server_text.py before, where it becomes text of ours.
Never:   keeps a secret anywhere but in memory; hides what is no secret from the person who set it.
Threads: any. The table is replaced, never changed.
Locks:   _lock, a leaf, held while it is replaced.
"""

from __future__ import annotations

import json
from threading import Lock
from typing import Final
from urllib.parse import quote, quote_plus

SHORTEST: Final = 8  # a secret of a test server may be a word or a letter: taking it out garbles every line
SHOWN: Final = "***"

_lock = Lock()
_secrets: tuple[str, ...] = ()  # in each spelling, the longest first
_identifiers: tuple[str, ...] = ()  # key ids: their user may see them, but need not be told them by a server


def hide(*secrets: str | None, identifier: str | None = None) -> None:
    """These are secret from now on, however they are spelled; `identifier`, where a server says it."""
    global _secrets, _identifiers
    spelled = [form for secret in secrets if secret for form in _spellings(secret)]
    with _lock:
        _secrets = _longest_first({*_secrets, *(s for s in spelled if len(s) >= SHORTEST)})
        if identifier and len(identifier) >= SHORTEST:
            _identifiers = _longest_first({*_identifiers, identifier})


def _spellings(secret: str) -> tuple[str, ...]:
    return secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe=""), quote_plus(secret)


def _longest_first(texts: set[str]) -> tuple[str, ...]:
    return tuple(sorted(texts, key=len, reverse=True))


def redact(text: str) -> str:
    """`text` without any secret that this process knows."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, SHOWN)
    return text


def redact_identifiers(text: str) -> str:
    """`redact`, and key ids, too."""
    text = redact(text)
    for identifier in _identifiers:
        text = text.replace(identifier, SHOWN)
    return text
