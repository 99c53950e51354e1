"""Attributes of a file as user metadata of its object, in the names that rclone and s3fs use.

    mtime         seconds since 1970 with a fraction (rclone, s3fs)
    mode          st_mode as a decimal number, type bits included (s3fs)
    uid, gid      decimal numbers (s3fs)
    rdev          a device's number, hexadecimal (rclone); the object is empty, its type is in `mode`
    r2fs-attempt  which upload attempt of which host made this object
    all others    kept as they are when r2fs writes the object again, but for checksums of its bytes

Owns:  reading and writing these. A value that cannot be read is as if it were not there: other
       tools' metadata is data, not a reason to fail.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from r2fs.model.records import SPECIAL_KINDS, Kind, ObjectInfo, ObjectMeta

MTIME, MODE, UID, GID, ATTEMPT = "mtime", "mode", "uid", "gid", "r2fs-attempt"
DEVICE = "rdev"
OURS = frozenset({MTIME, MODE, UID, GID, ATTEMPT})
MODIFIED = "modified_ns"  # in the local attribute cache: the object's LastModified
SECOND_NS = 10**9
MAX_TIME_NS = (1 << 63) - 1  # the year 2262, as in the journal's integers
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
    extra: Mapping[str, str] = field(default_factory=dict)
    kind: Kind | None = None  # of a FIFO, socket or device; None: what the key says


def attributes_from(info: ObjectInfo) -> Facts:
    """The facts of a HEAD's or GET's answer."""
    metadata = info.metadata or {}
    mode = _number(metadata.get(MODE))
    return Facts(
        mode=None if mode is None else stat.S_IMODE(mode),
        uid=_number(metadata.get(UID)),
        gid=_number(metadata.get(GID)),
        mtime_ns=_nanoseconds(metadata.get(MTIME)),
        content_type=info.content_type,
        extra={name: value for name, value in metadata.items() if name not in OURS},
        kind=SPECIAL_KINDS.get(stat.S_IFMT(mode)) if mode is not None and info.size == 0 else None,
    )


def metadata_for(facts: Facts, file_type: int, attempt: str, content_type: str) -> ObjectMeta:
    """What to store beside the bytes. `file_type` is stat's S_IFREG, S_IFDIR or S_IFLNK."""
    metadata = dict(facts.extra)
    if facts.mtime_ns is not None:
        seconds, fraction = divmod(abs(facts.mtime_ns), 10**9)
        metadata[MTIME] = f"{'-' if facts.mtime_ns < 0 else ''}{seconds}.{fraction:09d}"
    if facts.mode is not None:
        metadata[MODE] = str(file_type | facts.mode)
    if facts.uid is not None:
        metadata[UID] = str(facts.uid)
    if facts.gid is not None:
        metadata[GID] = str(facts.gid)
    metadata[ATTEMPT] = attempt
    return ObjectMeta(content_type, metadata)


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
    """Are what the cache kept the metadata of before another host changed them?"""
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
    return Facts(
        mode=number(MODE),
        uid=number(UID),
        gid=number(GID),
        mtime_ns=_within(number("mtime_ns")),
        content_type=content_type if isinstance(content_type, str) else None,
        extra={name[6:]: str(value) for name, value in kept.items() if name.startswith("extra.")},
        kind=next((kind for kind in SPECIAL_KINDS.values() if kind.value == kept.get("kind")), None),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 10 else None


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
