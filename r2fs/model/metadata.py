"""Attributes of a file as user metadata of its object, in the names that rclone and s3fs use.

    mtime         seconds since 1970 with a fraction (rclone, s3fs)
    mode          st_mode as an octal number that begins with 0, type bits included: rclone reads octal numbers
                  (backend/local/metadata.go), s3fs any that C knows (strtoll, base 0). s3fs writes decimal ones
    uid, gid      decimal numbers (s3fs, rclone)
    rdev          a device's number, hexadecimal (rclone); the object is empty, its type is in `mode`
    r2fs-attempt  which upload attempt of which host made this object
    all others    kept as they are when r2fs writes the object again, but for checksums of its bytes

Headers that say more of the bytes (`HEADERS`) are in `Facts.extra` as well, each name behind a colon, as HTTP/2
spells what is no header of its own: no name of user metadata can have one.

Owns:  reading and writing these. A value that cannot be read, or is out of range, is as if it were not there, and
       is kept as it is: other tools' metadata is data, not a reason to fail.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import reduce
from operator import and_

from r2fs.model.keys import SYMLINK_SUFFIX
from r2fs.model.records import SPECIAL_KINDS, Kind, ObjectInfo, ObjectMeta

MTIME, MODE, UID, GID, ATTEMPT = "mtime", "mode", "uid", "gid", "r2fs-attempt"
DEVICE = "rdev"
OURS = frozenset({MTIME, MODE, UID, GID, ATTEMPT})
MODIFIED = "modified_ns"  # in the local attribute cache: the object's LastModified
SECOND_NS = 10**9
MAX_TIME_NS = (1 << 63) - 1  # the year 2262, as in the journal's integers
MAX_ID = (1 << 32) - 2  # Linux's uid_t; the last number says "none" in chown(2)
MAX_DIGITS = 20  # of a number: int() takes time by the square of them
# What HTTP and S3 say of an object's bytes besides their type: whoever writes the object again says it again.
HEADERS = (
    "cache-control", "content-disposition", "content-encoding", "content-language", "expires",
    "website-redirect-location", "storage-class",
)  # fmt: skip
_COLON = ":"
_TYPES = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})
# checksums by rclone and s3cmd: void once the bytes change
OF_THE_BYTES = frozenset({"md5chksum", "s3cmd-attrs"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What metadata tells of a file. None: it does not say."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    content_type: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)  # further user metadata, and headers
    kind: Kind | None = None  # of a FIFO, socket or device; None: what the key says


def attributes_from(info: ObjectInfo) -> Facts:
    """The facts of a HEAD's or GET's answer."""
    metadata = info.metadata or {}
    empty = info.size == 0 and _type_by(info.key) == stat.S_IFREG
    mode = mode_of(metadata.get(MODE), info.key, empty)
    understood: dict[str, int | None] = {
        MODE: None if mode is None else stat.S_IMODE(mode),
        UID: _id(_number(metadata.get(UID))),
        GID: _id(_number(metadata.get(GID))),
        MTIME: _nanoseconds(metadata.get(MTIME)),
    }
    kept = {name for name, value in understood.items() if value is None} | (metadata.keys() - OURS)
    extra = {name: value for name, value in metadata.items() if name in kept}
    return Facts(
        mode=understood[MODE],
        uid=understood[UID],
        gid=understood[GID],
        mtime_ns=understood[MTIME],
        content_type=info.content_type,
        extra=extra | {_COLON + name: value for name, value in (info.headers or {}).items()},
        kind=SPECIAL_KINDS.get(stat.S_IFMT(mode)) if mode is not None and empty else None,
    )


def metadata_for(facts: Facts, file_type: int, attempt: str, content_type: str) -> ObjectMeta:
    """Metadata to store beside the bytes. `file_type` is the type bits of st_mode."""
    metadata = {name: value for name, value in facts.extra.items() if not name.startswith(_COLON)}
    if facts.mtime_ns is not None:
        seconds, fraction = divmod(abs(facts.mtime_ns), 10**9)
        metadata[MTIME] = f"{'-' if facts.mtime_ns < 0 else ''}{seconds}.{fraction:09d}"
    if facts.mode is not None:
        metadata[MODE] = f"0{file_type | facts.mode:o}"
    if facts.uid is not None:
        metadata[UID] = str(facts.uid)
    if facts.gid is not None:
        metadata[GID] = str(facts.gid)
    metadata[ATTEMPT] = attempt
    return ObjectMeta(content_type, metadata, headers_of(facts.extra))


def headers_of(extra: Mapping[str, str]) -> dict[str, str]:
    """The headers among further metadata, by their names in HTTP."""
    return {name[1:]: value for name, value in extra.items() if name.startswith(_COLON)}


def without_header(extra: Mapping[str, str], header: str) -> dict[str, str]:
    return {name: value for name, value in extra.items() if name != _COLON + header}


def device_number(extra: Mapping[str, str]) -> int:
    """The device's number in further metadata; 0 where there is none that the kernel could take (32 bits)."""
    text = extra.get(DEVICE, "")
    number = int(text, 16) if re.fullmatch(r"[0-9a-fA-F]{1,16}", text) else 0
    return number if number < 1 << 32 else 0


def of_new_bytes(extra: Mapping[str, str]) -> dict[str, str]:
    """What of an earlier version's further metadata still holds for other bytes."""
    return {name: value for name, value in extra.items() if name not in OF_THE_BYTES}


def remembered(facts: Facts) -> dict[str, str | int]:
    """Facts as the local attribute cache keeps them."""
    numbers = {MODE: facts.mode, UID: facts.uid, GID: facts.gid, "mtime_ns": facts.mtime_ns}
    out: dict[str, str | int] = {name: value for name, value in numbers.items() if value is not None}
    if facts.content_type is not None:
        out["content_type"] = facts.content_type
    if facts.kind is not None:
        out["kind"] = facts.kind.value
    out.update({f"extra.{name}": value for name, value in facts.extra.items()})
    return out


def remembered_of(info: ObjectInfo) -> dict[str, str | int]:
    """`remembered`, of a HEAD's or GET's answer, with the LastModified that goes with them."""
    return {**remembered(attributes_from(info)), MODIFIED: info.modified_ns}


def is_older(kept: Mapping[str, str | int], modified_ns: int | None) -> bool:
    """True if the cache kept the metadata from before another host changed them."""
    then = kept.get(MODIFIED)
    return isinstance(then, int) and modified_ns is not None and not same_moment(then, modified_ns)


def same_moment(one_ns: int, other_ns: int) -> bool:
    """Two LastModified of one object, perhaps the same. HEAD and GET tell whole seconds, listings more."""
    if one_ns % SECOND_NS == 0 or other_ns % SECOND_NS == 0:
        return one_ns // SECOND_NS == other_ns // SECOND_NS
    return one_ns == other_ns


def recalled(kept: Mapping[str, str | int]) -> Facts:
    """The reverse of `remembered`."""

    def number(name: str) -> int | None:
        value = kept.get(name)
        return value if isinstance(value, int) else None

    content_type = kept.get("content_type")
    mode = number(MODE)
    return Facts(
        mode=mode if mode is not None and 0 <= mode <= 0o7777 else None,
        uid=_id(number(UID)),
        gid=_id(number(GID)),
        mtime_ns=_within(number("mtime_ns")),
        content_type=content_type if isinstance(content_type, str) else None,
        extra={name[6:]: str(value) for name, value in kept.items() if name.startswith("extra.")},
        kind=next((kind for kind in SPECIAL_KINDS.values() if kind.value == kept.get("kind")), None),
    )


def _number(text: str | None) -> int | None:
    plain = text is not None and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    return int(text) if plain and text is not None else None


def _id(number: int | None) -> int | None:
    return number if number is not None and 0 <= number <= MAX_ID else None


def mode_of(text: str | None, key: str, empty: bool = False) -> int | None:
    """Permission bits, and type bits where they say more than the key, by a `mode` that rclone (octal) or s3fs
    (decimal) wrote; None: it is neither. Only an `empty` object with a file's key can be a FIFO, a socket or a device.

    The type bits tell the two apart: no number is a file, a directory or a link by its key in both spellings.
    Without them, what both spellings allow counts, and no set-id bit: never more than was meant.
    """
    decimal = _number(text)
    if text is None or decimal is None:
        return None
    octal = int(text, 8) if not set(text) & {"8", "9"} else None
    if text.startswith("0"):
        return octal if octal is not None and _is_one_of(octal, _TYPES | SPECIAL_KINDS.keys()) else None
    readings = [number for number in (octal, decimal) if number is not None]
    for number in readings:
        if number <= 0o177777 and stat.S_IFMT(number) == _type_by(key):
            return number
    special = [n for n in readings if n <= 0o177777 and stat.S_IFMT(n) in SPECIAL_KINDS and not n & 0o7000]
    if empty and len(special) == 1:
        return special[0]
    readings = [number for number in readings if _is_one_of(number, _TYPES)]
    modest = [number & 0o777 for number in readings if not number & 0o7000] or [n & 0o777 for n in readings]
    return reduce(and_, modest) if modest else None


def _is_one_of(number: int, types: Container[int]) -> bool:
    """True for an st_mode without type bits, or with those of a type that is stored."""
    return number <= 0o7777 or (number <= 0o177777 and stat.S_IFMT(number) in types)


def _type_by(key: str) -> int:
    if key.endswith("/"):
        return stat.S_IFDIR
    return stat.S_IFLNK if key.endswith(SYMLINK_SUFFIX) else stat.S_IFREG


def _nanoseconds(text: str | None) -> int | None:
    """`1700000000.25` → 1700000000250000000; None for anything that is not a time."""
    if text is None:
        return None
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        return None
    bound = MAX_TIME_NS // 10**9 + 1
    if not seconds.is_finite() or not -bound <= seconds <= bound:  # first: it may have any exponent
        return None
    return _within(int(seconds * 10**9))


def _within(time_ns: int | None) -> int | None:
    return time_ns if time_ns is not None and abs(time_ns) <= MAX_TIME_NS else None
