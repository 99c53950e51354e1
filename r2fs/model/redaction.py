"""Redaction: the filter for all text that leaves the process.

Errors of the bucket (model/errors.py), log lines, the control protocol and standard error all pass through this filter;
text of a server has passed through store/server_text.py before. Secrets stay in memory.

Threads: any. The table is replaced, never changed.
Locks:   _lock, a leaf, held while the table is replaced.
"""

from __future__ import annotations

import json
import re
from threading import Lock
from typing import Final
from urllib.parse import quote, quote_plus

SHORTEST: Final = 8  # characters: the removal of a test server's secret of one word would garble every line
SHOWN: Final = "***"

# Of a presigned URL or a signed request, whatever key it was signed with: whoever has it may use it.
_SIGNATURES: Final = re.compile(
    r"(?i)(X-Amz-(?:Signature|Credential|Security-Token)(?:=|%3D|:\s*)|Signature=|Authorization:\s*)[^&\s\"'<>,]+"
)

_lock = Lock()
_secrets: tuple[str, ...] = ()  # in each spelling, the longest first
_identifiers: tuple[str, ...] = ()  # key ids: shown to their user, but removed from a server's text


def hide(*secrets: str | None, identifier: str | None = None) -> None:
    """Redact these secrets from now on, in every spelling; `identifier` in text of a server only."""
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
    """`text` without the secrets known to this process."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, SHOWN)
    return text


def redact_identifiers(text: str) -> str:
    """`text` without secrets and key ids."""
    text = redact(text)
    for identifier in _identifiers:
        text = text.replace(identifier, SHOWN)
    return text


def redact_for_others(text: str) -> str:
    """`text` without secrets, key ids, and the parts of signed requests, for a file that is given to other people."""
    return _SIGNATURES.sub(lambda found: found[1] + SHOWN, redact_identifiers(text))


def leaked(text: str) -> bool:
    """True if `text` holds a secret known to this process."""
    return any(secret in text for secret in _secrets)
