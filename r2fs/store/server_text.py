"""Text of a server as a part of a sentence of ours.

Owns:   the filter at the way in: an answer is text of somebody else, may be of any length, hold what moves a
        terminal's cursor, and repeat the key, the token and the signature of the request that it answers.
Never:  touches names of ours: a key of 64 hexadecimal digits is a name like any other.
"""

from __future__ import annotations

import re
from typing import Final

from r2fs.model.keys import printable
from r2fs.model.redaction import SHOWN, redact_identifiers

SENTENCE: Final = 200  # characters that are shown

# A signature is another one for each request, so that no table can hold it.
_SIGNING = re.compile(
    r"(?P<name>signature|credential|authorization|security-token)(?P<is>\s*[=:]\s*)[^\s,;&<>\"']+"
    r"|(?<![0-9A-Za-z])[0-9A-Fa-f]{64}(?![0-9A-Za-z])",
    re.IGNORECASE,
)


def server_text(text: str, limit: int = SENTENCE) -> str:
    """One printable line, cut to `limit` characters, without secrets, key ids and signatures."""
    text = redact_identifiers(" ".join(text[: 100 * limit].split()))
    text = printable(_SIGNING.sub(_without_signature, text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _without_signature(found: re.Match[str]) -> str:
    return f"{found['name']}{found['is']}{SHOWN}" if found["name"] else SHOWN
