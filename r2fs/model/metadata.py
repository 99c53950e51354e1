"""Attributes of a file as user metadata of its object, in the names that rclone and s3fs use.

    mtime         seconds since 1970 with a fraction (rclone, s3fs)
    mode          st_mode as an octal number that begins with 0, type bits included: rclone reads octal numbers
                  (backend/local/metadata.go), s3fs any that C knows (strtoll, base 0). s3fs writes decimal ones
    uid, gid      decimal numbers (s3fs, rclone)
    rdev          a device's number, hexadecimal (rclone); the object is empty, its type is in `mode`
    r2fs-attempt  the upload attempt that made this object
    all others    kept when r2fs writes the object again, except checksums of its bytes

Further headers of the bytes (`HEADERS`) are in `Facts.extra` as well, each name after a colon, which no name of
user metadata can have. A value out of range, or in another form, counts as missing and is kept unchanged: other
tools' metadata is data, not a reason to fail.
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
MAX_ID = (1 << 32) - 2  # Linux's uid_t; the largest number means "none" in chown(2)
MAX_DIGITS = 20  # of a number: int() takes quadratic time
# Headers of HTTP and S3 about an object's bytes, besides their type: sent again with each write of the object.
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
    """Attributes of a file by its metadata. None: unknown."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    content_type: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)  # further user metadata, and headers
    kind: Kind | None = None  # of a FIFO, socket or device; None: by the key


def attributes_from(info: ObjectInfo) -> Facts:
    """Attributes by an answer to HEAD or GET."""
    headers = {_COLON + name: value for name, value in (info.headers or {}).items()}
    if not (metadata := info.metadata or {}):  # as of most objects by other tools
        return Facts(content_type=info.content_type, extra=headers)
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
        extra=extra | headers,
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
    """Headers in further metadata, by their names in HTTP."""
    return {name[1:]: value for name, value in extra.items() if name.startswith(_COLON)}


def with_headers(extra: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    """`extra` with exactly these headers."""
    plain = {name: value for name, value in extra.items() if not name.startswith(_COLON)}
    return plain | {_COLON + name: value for name, value in headers.items()}


def without_header(extra: Mapping[str, str], header: str) -> dict[str, str]:
    return {name: value for name, value in extra.items() if name != _COLON + header}


def device_number(extra: Mapping[str, str]) -> int:
    """Device number in further metadata; 0 if missing, or larger than the kernel's 32 bits."""
    text = extra.get(DEVICE, "")
    number = int(text, 16) if re.fullmatch(r"[0-9a-fA-F]{1,16}", text) else 0
    return number if number < 1 << 32 else 0


def of_new_bytes(extra: Mapping[str, str]) -> dict[str, str]:
    """Further metadata of an earlier version, without checksums of its bytes."""
    return {name: value for name, value in extra.items() if name not in OF_THE_BYTES}


def remembered(facts: Facts) -> dict[str, str | int]:
    """`facts` in the form of the local attribute cache."""
    numbers = {MODE: facts.mode, UID: facts.uid, GID: facts.gid, "mtime_ns": facts.mtime_ns}
    out: dict[str, str | int] = {name: value for name, value in numbers.items() if value is not None}
    if facts.content_type is not None:
        out["content_type"] = facts.content_type
    if facts.kind is not None:
        out["kind"] = facts.kind.value
    out.update({f"extra.{name}": value for name, value in facts.extra.items()})
    return out


def remembered_of(info: ObjectInfo, facts: Facts | None = None) -> dict[str, str | int]:
    """`remembered` by an answer to HEAD or GET, with its LastModified. `facts`: its attributes, if known already."""
    return {**remembered(facts or attributes_from(info)), MODIFIED: info.modified_ns}


def is_older(kept: Mapping[str, str | int], modified_ns: int | None) -> bool:
    """True if the cached metadata are older than another host's change."""
    then = kept.get(MODIFIED)
    return isinstance(then, int) and modified_ns is not None and not same_moment(then, modified_ns)


def same_moment(one_ns: int, other_ns: int) -> bool:
    """True if two values of LastModified may be equal: HEAD and GET have whole seconds, listings fractions."""
    if one_ns % SECOND_NS == 0 or other_ns % SECOND_NS == 0:
        return one_ns // SECOND_NS == other_ns // SECOND_NS
    return one_ns == other_ns


def recalled(kept: Mapping[str, str | int]) -> Facts:
    """Inverse of `remembered`."""

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
    """Permission bits, and type bits if they tell more than the key, by a `mode` of rclone (octal) or s3fs (decimal).

    None for other text. Only an `empty` object with a file's key can be a FIFO, a socket or a device.

    The type bits tell octal from decimal: no number has the type bits of a file, a directory or a link in both.
    Without type bits, a permission counts if both readings have it, and no set-id bit: never more than was meant.
    """
    octal, decimal = _octal(text), _number(text)
    if text is not None and text.startswith("0"):
        return octal if octal is not None and _is_one_of(octal, _TYPES | SPECIAL_KINDS.keys()) else None
    readings = [number for number in (octal, decimal) if number is not None]
    for number in readings:
        if _type_of(number) == _type_by(key):
            return number
    special = [n for n in readings if _type_of(n) in SPECIAL_KINDS and not n & 0o7000]
    return special[0] if empty and len(special) == 1 else _common_permissions(readings)


def _octal(text: str | None) -> int | None:
    decimal = _number(text)
    return int(str(text), 8) if decimal is not None and not set(str(text)) & {"8", "9"} else None


def _type_of(mode: int) -> int | None:
    """Type bits of an st_mode; None for a larger number."""
    return stat.S_IFMT(mode) if mode <= 0o177777 else None


def _common_permissions(readings: list[int]) -> int | None:
    """Permissions that all readings have. Readings with set-id bits count only if all have such bits."""
    possible = [number for number in readings if _is_one_of(number, _TYPES)]
    modest = [number & 0o777 for number in possible if not number & 0o7000]
    modest = modest or [number & 0o777 for number in possible]
    return reduce(and_, modest) if modest else None


def _is_one_of(number: int, types: Container[int]) -> bool:
    """True for an st_mode without type bits, or with the bits of one of `types`."""
    return number <= 0o7777 or (number <= 0o177777 and stat.S_IFMT(number) in types)


def _type_by(key: str) -> int:
    if key.endswith("/"):
        return stat.S_IFDIR
    return stat.S_IFLNK if key.endswith(SYMLINK_SUFFIX) else stat.S_IFREG


def _nanoseconds(text: str | None) -> int | None:
    """`1700000000.25` → 1700000000250000000; None for other text."""
    if text is None:
        return None
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        return None
    bound = MAX_TIME_NS // 10**9 + 1
    # checked first: the exponent may have any size
    if not seconds.is_finite() or not -bound <= seconds <= bound:
        return None
    return _within(int(seconds * 10**9))


def _within(time_ns: int | None) -> int | None:
    return time_ns if time_ns is not None and abs(time_ns) <= MAX_TIME_NS else None


# ------------------------------------------------------------------ Content-Type
# The table is fixed, so that every host stores the same type for the same name, whatever its /etc/mime.types.
DEFAULT_TYPE = "application/octet-stream"
SNIFF_BYTES = 32

BY_EXTENSION = {
    # audio
    "wav": "audio/wav", "wave": "audio/wav", "rf64": "audio/wav", "bwf": "audio/wav", "w64": "audio/x-w64",
    "aif": "audio/aiff", "aiff": "audio/aiff", "aifc": "audio/aiff", "flac": "audio/flac", "mp3": "audio/mpeg",
    "mp2": "audio/mpeg", "m4a": "audio/mp4", "m4b": "audio/mp4", "m4r": "audio/mp4", "aac": "audio/aac",
    "ogg": "audio/ogg", "oga": "audio/ogg", "opus": "audio/ogg", "spx": "audio/ogg", "mka": "audio/x-matroska",
    "caf": "audio/x-caf", "au": "audio/basic", "snd": "audio/basic", "amr": "audio/amr", "ac3": "audio/ac3",
    "dts": "audio/vnd.dts", "wma": "audio/x-ms-wma", "wv": "audio/x-wavpack", "ape": "audio/x-ape",
    "mid": "audio/midi", "midi": "audio/midi", "m3u": "audio/x-mpegurl", "m3u8": "application/vnd.apple.mpegurl",
    "pls": "audio/x-scpls",
    # video
    "mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/quicktime", "mkv": "video/x-matroska",
    "webm": "video/webm", "avi": "video/x-msvideo", "mpg": "video/mpeg", "mpeg": "video/mpeg", "ts": "video/mp2t",
    # pictures
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "webp": "image/webp",
    "svg": "image/svg+xml", "tif": "image/tiff", "tiff": "image/tiff", "bmp": "image/bmp", "ico": "image/x-icon",
    # text and documents
    "txt": "text/plain", "log": "text/plain", "md": "text/markdown", "csv": "text/csv", "tsv": "text/tab-separated-values",
    "html": "text/html", "htm": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json",
    "xml": "application/xml", "yaml": "application/yaml", "yml": "application/yaml", "toml": "application/toml",
    "cue": "application/x-cue", "srt": "application/x-subrip", "vtt": "text/vtt", "pdf": "application/pdf",
    "doc": "application/msword", "epub": "application/epub+zip", "rtf": "application/rtf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    # archives and data
    "zip": "application/zip", "gz": "application/gzip", "tgz": "application/gzip", "bz2": "application/x-bzip2",
    "xz": "application/x-xz", "zst": "application/zstd", "tar": "application/x-tar", "7z": "application/x-7z-compressed",
    "sqlite": "application/vnd.sqlite3", "sqlite3": "application/vnd.sqlite3", "db": "application/vnd.sqlite3",
}  # fmt: skip

# (offset, bytes, type): the first match counts
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "audio/wav"),
    (8, b"AIFF", "audio/aiff"),
    (8, b"AIFC", "audio/aiff"),
    (8, b"WEBP", "image/webp"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf1", "audio/aac"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypM4B", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/x-matroska"),
    (0, b"%PDF", "application/pdf"),
    (0, b"\x89PNG", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
)


_OF_TEXT = bytes([*b"\t\n\r\f", *range(32, 256)])
_PLACES = tuple((offset, offset + len(magic), magic, kind) for offset, magic, kind in MAGIC)


def content_type(name: str, head: bytes = b"") -> str:
    """Type of a file with the name `name` and the first bytes `head`.

    >>> content_type("take.WAV")
    'audio/wav'
    """
    _, dot, extension = name.rpartition(".")
    by_name = BY_EXTENSION.get(extension.lower()) if dot else None
    if by_name is not None:
        return by_name
    if not head:
        return DEFAULT_TYPE
    for start, stop, magic, kind in _PLACES:
        if head[start:stop] == magic:
            return kind
    return DEFAULT_TYPE if head.translate(None, _OF_TEXT) else "text/plain"
