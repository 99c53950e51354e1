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
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

from r2fs.model.errors import NotSupported
from r2fs.model.metadata import DEVICE, OURS

PREFIX = "user."
TOGETHER = "xattr"
# What s3fs and rclone keep for themselves, and no program has set.
FOREIGN = frozenset({TOGETHER, DEVICE, "atime", "ctime", "md5chksum", "btime"})
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")  # no underscore: proxies drop such headers
_LONGEST_NAME = 255  # XATTR_NAME_MAX
_LONGEST = 1000  # characters of a value in a header of its own


def attributes(extra: Mapping[str, str]) -> dict[str, bytes]:
    """All of them that a program can ask for, by full name."""
    found = {
        PREFIX + name: _bytes(value)
        for name, value in extra.items()
        if name not in OURS and name not in FOREIGN and _can_be_asked(PREFIX + name)
    }
    return found | _together(extra)


def with_attribute(extra: Mapping[str, str], name: str, value: bytes) -> dict[str, str]:
    """`extra` with `user.NAME` set. NotSupported where it has to go into an `xattr` that cannot be read."""
    after = without(extra, name)
    short = name.removeprefix(PREFIX)
    taken = short in OURS or short in FOREIGN
    text = _text(value)
    if text is not None and _NAME.fullmatch(short) and not taken:
        after[short] = text
        return after
    entries = _entries(after)
    if entries is None:
        raise NotSupported(f"{name}: the metadata `{TOGETHER}` of the object is another tool's, and is kept")
    return _put_together(after, entries | {name: base64.b64encode(value).decode()})


def without(extra: Mapping[str, str], name: str) -> dict[str, str]:
    """`extra` with `user.NAME` removed, wherever it is."""
    short, after = name.removeprefix(PREFIX), dict(extra)
    if short not in OURS and short not in FOREIGN:
        after.pop(short, None)
    others = _entries(after)
    if others is not None and others.pop(name, None) is not None:
        after = _put_together(after, others)
    return after


def size(extra: Mapping[str, str]) -> int:
    """Bytes of names and values, as they travel: what is not ASCII as encoded words."""
    return sum(
        len(name) + (len(value) if value.isascii() else 2 * len(_bytes(value)))
        for name, value in extra.items()
    )


def _text(value: bytes) -> str | None:
    """The value, if a header carries it unchanged; store/s3/headers.py encodes what is not ASCII."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    plain = text.isprintable() and text == text.strip() and "=?" not in text
    return text if text and plain and len(text) <= _LONGEST else None


def _bytes(text: str) -> bytes:
    """Of a stored value: it may hold lone surrogates of either kind, from file systems or from JSON."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _can_be_asked(name: str) -> bool:
    """Linux has names of 255 bytes, without NUL; `:` marks a header (metadata.py)."""
    if not name.startswith(PREFIX) or "\0" in name or name.startswith(PREFIX + ":") or name == PREFIX:
        return False
    try:
        return len(name.encode("utf-8", "surrogateescape")) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def _entries(extra: Mapping[str, str]) -> dict[str, Any] | None:
    """Entries of `xattr`, name and base64, as they are; None where it cannot be read: it is another tool's."""
    text = extra.get(TOGETHER, "")
    try:
        found = json.loads(unquote(text, errors="surrogateescape")) if text else {}
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _together(extra: Mapping[str, str]) -> dict[str, bytes]:
    """The entries of `xattr` that can be read. The others are as if they were not there."""
    found = {}
    for name, value in (_entries(extra) or {}).items():
        if _can_be_asked(name):
            with suppress(ValueError, TypeError, binascii.Error):
                found[name] = base64.b64decode(value, validate=True)
    return found


def _put_together(extra: dict[str, str], entries: Mapping[str, Any]) -> dict[str, str]:
    extra.pop(TOGETHER, None)
    if entries:
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
        try:
            extra[TOGETHER] = quote(text, safe="", errors="surrogateescape")
        except UnicodeEncodeError:  # a lone surrogate of another tool's
            extra[TOGETHER] = quote(json.dumps(entries, separators=(",", ":")), safe="")
    return extra
