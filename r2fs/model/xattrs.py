"""Extended attributes of the namespace `user.` as user metadata of the object, and back.

    user.NAME   metadata NAME, where a header carries both as they are: other tools see it, and what
                they stored is seen here
    the others  (capitals, underscores, binary values …) together in one entry `xattr`, as s3fs has it:
                JSON of names and values in base64, percent-encoded

Owns:  which of the two an attribute goes into.
Never: knows attributes that r2fs itself makes up (`user.r2fs.*`, `user.mime_type`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from r2fs.model.metadata import DEVICE, OURS

PREFIX = "user."
TOGETHER = "xattr"
# What s3fs and rclone keep for themselves, and no program has set.
FOREIGN = frozenset({TOGETHER, DEVICE, "atime", "ctime", "md5chksum", "btime"})
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")  # no underscore: proxies drop such headers
_LONGEST = 1000  # characters of a value in a header of its own


def attributes(extra: Mapping[str, str]) -> dict[str, bytes]:
    """All of them, by full name."""
    found = {
        PREFIX + name: value.encode("utf-8", "surrogateescape")
        for name, value in extra.items()
        if name not in OURS and name not in FOREIGN
    }
    return found | _together(extra)


def with_attribute(extra: Mapping[str, str], name: str, value: bytes) -> dict[str, str]:
    """`extra` with `user.NAME` set."""
    after = without(extra, name)
    short = name.removeprefix(PREFIX)
    taken = short in OURS or short in FOREIGN
    text = _text(value)
    if text is not None and _NAME.fullmatch(short) and not taken:
        after[short] = text
        return after
    return _put_together(after, _together(after) | {name: value})


def without(extra: Mapping[str, str], name: str) -> dict[str, str]:
    """`extra` with `user.NAME` removed, wherever it is."""
    short, after = name.removeprefix(PREFIX), dict(extra)
    if short not in OURS and short not in FOREIGN:
        after.pop(short, None)
    others = _together(after)
    if others.pop(name, None) is not None:
        after = _put_together(after, others)
    return after


def size(extra: Mapping[str, str]) -> int:
    """Bytes of names and values, as they travel: what is not ASCII as encoded words."""
    return sum(
        len(name) + (len(value) if value.isascii() else 2 * len(value.encode("utf-8", "surrogateescape")))
        for name, value in extra.items()
    )


def _text(value: bytes) -> str | None:
    """The value, if a header carries it unchanged; store/headers.py encodes what is not ASCII."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    plain = text.isprintable() and text == text.strip() and "=?" not in text
    return text if text and plain and len(text) <= _LONGEST else None


def _together(extra: Mapping[str, str]) -> dict[str, bytes]:
    """What `xattr` holds. What cannot be read is as if it were not there: it is another tool's."""
    try:
        found = json.loads(unquote(extra.get(TOGETHER, "{}"), errors="surrogateescape"))
        return {
            name: base64.b64decode(value, validate=True)
            for name, value in found.items()
            if name.startswith(PREFIX)
        }
    except (ValueError, TypeError, AttributeError, binascii.Error):
        return {}


def _put_together(extra: dict[str, str], values: Mapping[str, bytes]) -> dict[str, str]:
    extra.pop(TOGETHER, None)
    if values:
        text = {name: base64.b64encode(value).decode() for name, value in values.items()}
        extra[TOGETHER] = quote(
            json.dumps(text, separators=(",", ":"), ensure_ascii=False), safe="", errors="surrogateescape"
        )
    return extra
