"""Errors of r2fs.client, and their tables from the errors of r2fs and from errno.

Error
├── NotFound       no such object; a FileNotFoundError too
├── AccessDenied   key, secret or permission; a PermissionError too
├── Unavailable    the bucket or the daemon does not answer now; a ConnectionError too
├── NotConfirmed   not in the bucket when time was up; a TimeoutError too. The change stays on its way
├── Refused        the bucket will not do this, however often it is tried
│   ├── BucketMissing
│   └── Replaced   the bucket holds another version of the object, or none: another writer was there
├── InvalidTarget  a text that is no key, or a path outside of the mount; a ValueError too
└── Misconfigured  the settings name no bucket, or have a wrong value
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from r2fs.model import errors
from r2fs.model.errors import R2fsError


class Error(Exception):
    """Base of all. The message names the object and, if possible, the remedy."""


class NotFound(Error, FileNotFoundError): ...


class AccessDenied(Error, PermissionError): ...


class Unavailable(Error, ConnectionError): ...


class NotConfirmed(Error, TimeoutError): ...


class Refused(Error): ...


class BucketMissing(Refused): ...


class Replaced(Refused): ...


class InvalidTarget(Error, ValueError): ...


class Misconfigured(Error): ...


# The first match counts.
TABLE: tuple[tuple[type[R2fsError], type[Error]], ...] = (
    (errors.NotFound, NotFound),
    (errors.NotADirectory, NotFound),
    (errors.ObjectMissing, NotFound),
    (errors.BadCredentials, AccessDenied),
    (errors.PermissionRefused, AccessDenied),
    (errors.AccessRefused, AccessDenied),
    (errors.NotPermitted, AccessDenied),
    (errors.BucketMissing, BucketMissing),
    (errors.Refused, Refused),
    (errors.Retryable, Unavailable),
    (errors.DaemonUnreachable, Unavailable),
    (errors.DaemonDied, Unavailable),
    (errors.BadName, InvalidTarget),
    (errors.NameTooLong, InvalidTarget),
    (errors.IsADirectory, InvalidTarget),
    (errors.InvalidArgument, InvalidTarget),
    (errors.MountPointBad, InvalidTarget),
    (errors.SettingsError, Misconfigured),
)

BY_ERRNO: dict[int, type[Error]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
    errno.EROFS: AccessDenied,
    errno.EIO: Unavailable,
    errno.ENOTCONN: Unavailable,
    errno.ECONNABORTED: Unavailable,
    errno.ETIMEDOUT: Unavailable,
    errno.ENOSPC: Refused,
    errno.ENAMETOOLONG: InvalidTarget,
    errno.EILSEQ: InvalidTarget,
    errno.EISDIR: InvalidTarget,
}


def of(error: R2fsError) -> Error:
    kind = next((ours for theirs, ours in TABLE if isinstance(error, theirs)), Error)
    return kind(str(error))


def of_kind(name: str, text: str) -> Error:
    """The error of a class of model/errors.py by its name."""
    found = vars(errors).get(name)
    known = isinstance(found, type) and issubclass(found, R2fsError)
    kind = next((ours for theirs, ours in TABLE if known and found and issubclass(found, theirs)), Refused)
    return kind(text)


@contextmanager
def translated() -> Iterator[None]:
    """Raise r2fs's errors as this module's."""
    try:
        yield
    except R2fsError as error:
        raise of(error) from None
