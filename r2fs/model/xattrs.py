"""Extended attributes of the namespace `user.` as user metadata of the object, and back.

    user.NAME   metadata NAME, if a header can carry name and value unchanged: shared with other tools
    all others  (capitals, underscores, binary values …) together in one entry `xattr`, as by s3fs:
                JSON of names and values in base64, percent-encoded

r2fs's own attributes (`user.r2fs.*`, `user.mime_type`) are not among them.
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
# Metadata of s3fs and rclone themselves, set by no program.
FOREIGN = frozenset({TOGETHER, DEVICE, "atime", "ctime", "md5chksum", "btime"})
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")  # no underscore: proxies drop such headers
_LONGEST_NAME = 255  # XATTR_NAME_MAX
_LONGEST = 1000  # characters of a value in a header of its own


def attributes(extra: Mapping[str, str]) -> dict[str, bytes]:
    """All attributes visible to programs, by full name."""
    found = {
        PREFIX + name: _bytes(value)
        for name, value in extra.items()
        if name not in OURS and name not in FOREIGN and _is_possible(PREFIX + name)
    }
    return found | _together(extra)


def with_attribute(extra: Mapping[str, str], name: str, value: bytes) -> dict[str, str]:
    """`extra` with `user.NAME` set. Raises NotSupported if its place is an `xattr` in an unknown form."""
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
    """`extra` without `user.NAME`, in either form."""
    short, after = name.removeprefix(PREFIX), dict(extra)
    if short not in OURS and short not in FOREIGN:
        after.pop(short, None)
    others = _entries(after)
    if others is not None and others.pop(name, None) is not None:
        after = _put_together(after, others)
    return after


def size(extra: Mapping[str, str]) -> int:
    """Bytes of names and values in a request: text other than ASCII as encoded words."""
    return sum(
        len(name) + (len(value) if value.isascii() else 2 * len(_bytes(value)))
        for name, value in extra.items()
    )


def _text(value: bytes) -> str | None:
    """Value as text, if a header can carry it; store/s3/headers.py encodes text other than ASCII."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    plain = text.isprintable() and text == text.strip() and "=?" not in text
    return text if text and plain and len(text) <= _LONGEST else None


def _bytes(text: str) -> bytes:
    """Bytes of a stored value, which may hold lone surrogates of either kind, from file systems or from JSON."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _is_possible(name: str) -> bool:
    """True for a possible name: of 255 bytes in Linux, without NUL; `:` marks a header (metadata.py)."""
    if not name.startswith(PREFIX) or "\0" in name or name.startswith(PREFIX + ":") or name == PREFIX:
        return False
    try:
        return len(name.encode("utf-8", "surrogateescape")) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def _entries(extra: Mapping[str, str]) -> dict[str, Any] | None:
    """Entries of `xattr`, name and base64; None if the entry is in another tool's form."""
    text = extra.get(TOGETHER, "")
    try:
        found = json.loads(unquote(text, errors="surrogateescape")) if text else {}
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _together(extra: Mapping[str, str]) -> dict[str, bytes]:
    """Readable entries of `xattr`. Others count as missing."""
    found = {}
    for name, value in (_entries(extra) or {}).items():
        if _is_possible(name):
            with suppress(ValueError, TypeError, binascii.Error):
                found[name] = base64.b64decode(value, validate=True)
    return found


def _put_together(extra: dict[str, str], entries: Mapping[str, Any]) -> dict[str, str]:
    extra.pop(TOGETHER, None)
    if entries:
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
        try:
            extra[TOGETHER] = quote(text, safe="", errors="surrogateescape")
        except UnicodeEncodeError:  # a lone surrogate, of another tool
            extra[TOGETHER] = quote(json.dumps(entries, separators=(",", ":")), safe="")
    return extra
