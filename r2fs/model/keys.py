"""Keys and names: the object of a path, and the path of an object.

The rules are S3's (UTF-8, at most 1,024 bytes a key), Linux's (255 bytes a name, no slash, no NUL, not `.` or `..`),
and R2's NFC identity of keys. A directory's key ends with `/` (the root's is the mount's prefix, perhaps empty); a
file's does not. Names in the tree are NFC; the key of a version is spelled as the bucket spells it.
"""

from __future__ import annotations

import re
import time
import unicodedata
from functools import partial

from r2fs.model.errors import AccessRefused, BadName, NameTooLong

_CONFLICT = re.compile(
    r" \(conflict of (?P<host>[^/]+), (?P<day>\d{4}-\d\d-\d\d)( \d+)?\)(?P<extension>\.[^/]{0,16})?\Z"
)

MAX_KEY_BYTES = 1024  # S3 and R2: an object key's UTF-8 length
SYMLINK_SUFFIX = ".rclonelink"  # rclone's convention: the object's bytes are the link's target
MAX_LINK_BYTES = 4095  # of a link's target: Linux's PATH_MAX, less its NUL
MAX_NAME_BYTES = 255  # Linux NAME_MAX
MAX_HOST_BYTES = 64  # of a host's name in a conflict name: Linux's HOST_NAME_MAX


nfc = partial(unicodedata.normalize, "NFC")  # the normal form in which R2 compares keys


def check_name(name: str) -> str:
    """`name` in NFC, as in the tree. Raises BadName or NameTooLong."""
    if len(name) > MAX_NAME_BYTES:
        raise NameTooLong(f"{printable(name[:40])}…: a name may have {MAX_NAME_BYTES} bytes")
    if "\0" in name or "/" in name:
        raise BadName(f"{printable(name)}: a name holds neither NUL nor a slash")
    if name.isascii():
        return name
    normal = nfc(name)
    try:
        longest = max(len(name.encode()), len(normal.encode()))  # composing may lengthen: U+0958 does
    except UnicodeEncodeError:
        raise BadName(f"{printable(name)}: object keys are UTF-8; this name is not") from None
    if longest > MAX_NAME_BYTES:
        raise NameTooLong(f"{printable(name)}: a name may have {MAX_NAME_BYTES} bytes")
    return normal


def check_file_name(name: str) -> str:
    """`name` of a file. Raises BadName if its object would be a symbolic link."""
    if name.endswith(SYMLINK_SUFFIX):
        raise BadName(
            f"{printable(name)}: objects whose names end in {SYMLINK_SUFFIX} are symbolic links: "
            "choose another name for a file"
        )
    return name


def is_link(key: str, size: int) -> bool:
    """True for a symbolic link's object. An object longer than any path is a file."""
    return key.endswith(SYMLINK_SUFFIX) and size <= MAX_LINK_BYTES


def shown_name(name: str, size: int) -> str:
    """The file name of a key's last part, of an object of `size` bytes."""
    return (name.removesuffix(SYMLINK_SUFFIX) or name) if is_link(name, size) else name


def spellings(text: str) -> tuple[str, ...]:
    """Spellings in which another tool may have stored a name: NFC, and NFD if different."""
    apart = text if text.isascii() else unicodedata.normalize("NFD", text)
    return (text,) if apart == text else (text, apart)


def check_target(link: str, target: str, links: str) -> str:
    """`target` of the symbolic link at the path `link` from the mount's root. Raises AccessRefused if `links` is
    "inside" and the target may be outside the mount.

    `..` is allowed only at the front: after a name, which may be another link, its meaning is unknown.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    if links == "inside" and (target.startswith("/") or ".." in parts[up:] or up > link.count("/")):
        raise AccessRefused(f"{printable(link)}: a symbolic link out of the mount, which `links` forbids")
    return target


def check_key(key: str) -> str:
    """`key`. Raises NameTooLong if S3 would refuse its length."""
    if len(key.encode()) > MAX_KEY_BYTES:
        raise NameTooLong(f"{printable(key[:60])}…: a path in a bucket may have {MAX_KEY_BYTES} bytes")
    return key


def is_name(part: str) -> bool:
    """True if this part of a key can be a file name."""
    return (
        part not in ("", ".", "..")
        and "\0" not in part
        and "/" not in part
        and len(part.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES
        and (part.isascii() or len(nfc(part).encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES)
    )


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped: safe for a terminal and a log."""
    if text.isprintable():  # no surrogate is
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def normal_prefix(prefix: str) -> str:
    """A mount's prefix in normal form: no leading slash, one trailing slash, or empty."""
    parts = [part for part in prefix.split("/") if part]
    return nfc("/".join(parts) + "/") if parts else ""


def is_conflict_name(name: str) -> bool:
    """True for a result of `conflict_name`, on any host."""
    return " (conflict of " in name and _CONFLICT.search(name) is not None


def conflict_original(name: str) -> str | None:
    """The name in a conflict name, if that was not cut; None for any other name."""
    found = _CONFLICT.search(name) if is_conflict_name(name) else None
    return None if found is None else name[: found.start()] + (found["extension"] or "")


def conflict_origin(name: str) -> tuple[str, str] | None:
    """Host and day (YYYY-MM-DD) in a conflict name; None for any other name."""
    found = _CONFLICT.search(name) if is_conflict_name(name) else None
    return None if found is None else (found["host"], found["day"])


def conflict_name(name: str, host: str, when_s: float, number: int = 1) -> str:
    """`take.wav` → `take (conflict of HOST, 2026-11-21).wav`, numbered from the second on.

    Cut to 255 bytes at a character; the extension stays.
    """
    host = (
        nfc(re.sub(r"[\x00-\x1f/\x7f]", "-", host))
        .encode(errors="replace")[:MAX_HOST_BYTES]
        .decode(errors="ignore")
    )
    day = time.strftime("%Y-%m-%d", time.localtime(when_s))
    count = f" {number}" if number > 1 else ""
    return _with_note(name, f" (conflict of {host}, {day}{count})")


def other_take_name(name: str, number: int = 1) -> str:
    """`take.wav` → `take (other take).wav`, numbered from the second on: the name of a file that lost a conflict."""
    return _with_note(name, f" (other take{f' {number}' if number > 1 else ''})")


def _with_note(name: str, note: str) -> str:
    """The name with a note before its extension, which stays. Cut to 255 bytes at a character."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > 16:
        stem, dot, extension = name, "", ""
    tail = note + dot + extension
    room = MAX_NAME_BYTES - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore") + tail
