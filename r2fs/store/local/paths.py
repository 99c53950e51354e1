"""Paths of keys below the root of a local bucket, and StoreErrors for errors of the disk.

Fails: NoPath for a key that cannot be a path.
"""

from __future__ import annotations

import errno
from pathlib import Path

from r2fs.model.errors import (
    BucketMissing,
    ObjectMissing,
    PermissionRefused,
    Refused,
    StoreError,
    Unavailable,
)
from r2fs.model.keys import MAX_KEY_BYTES, is_name, printable

OWN = ".r2fs"  # r2fs's own directory in the root: never listed

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IMPOSSIBLE = (
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
    errno.EXDEV,
)


class NoPath(Refused):
    """The key cannot be a path below the root."""


def path_of(root: Path, key: str) -> Path:
    """Path of an object, or of the directory if `key` names a marker. Raises NoPath."""
    parts = key.removesuffix("/").split("/")
    if not all(is_name(part) for part in parts) or parts[0] == OWN:
        raise NoPath(f"{printable(key)}: cannot be a file below {root}: choose another name")
    try:
        if len(key.encode()) > MAX_KEY_BYTES:
            raise NoPath(f"{printable(key[:60])}…: a key may have {MAX_KEY_BYTES} bytes")
    except UnicodeEncodeError:
        raise NoPath(f"{printable(key)}: object keys are UTF-8; this one is not") from None
    return root.joinpath(*parts)


def translated(root: Path, error: OSError, name: str) -> StoreError:
    """Error of the bucket for an error of the disk. `name`: the key, or the bucket's URL."""
    why = f"{name}: {error.strerror or error}"
    if error.errno in _MISSING:
        if not root.is_dir():
            return BucketMissing(f"file://{root}: there is no such directory: make it, or mount its disk")
        return ObjectMissing(f"{name}: there is no such object")
    if error.errno in _DENIED:
        return PermissionRefused(f"{why}: check the owner and mode below {root}")
    if error.errno in _FULL:
        return Refused(f"{why}: free space on the disk of {root}")
    if error.errno in _IMPOSSIBLE:
        return Refused(f"{why}: this key cannot be a file below {root}")
    return Unavailable(why)
