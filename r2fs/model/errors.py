"""Every error that r2fs raises on purpose, with its meaning for a program and for a shell.

A class carries its consequence: `errno` for the program that called the file system (only a driver turns an error into
a reply), `exit_code` for the command line, `retry` for the sender of requests.
"""

from __future__ import annotations

import errno as _errno
from typing import ClassVar

from r2fs.model.redaction import redact


class R2fsError(Exception):
    """Base of all. The message names the object and, if possible, the remedy."""

    errno: ClassVar[int] = _errno.EIO
    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False
    unknown: bool = False  # an earlier try of the request may have been carried out, whatever the last answer


class WouldWait(Exception):
    """Not an error: the verb was called with `may_wait=False` and needs the network or a slow disk.

    Raised before the verb has changed any state, so that a thread that may wait can call the verb again.
    """


class WouldFetch(WouldWait):
    """WouldWait for a caller with `may_fetch=False`: the verb needs the network."""


# ------------------------------------------------------------------ file system calls
class FileError(R2fsError):
    """Error of a file system call. The program gets its errno."""


class NotFound(FileError):
    """No such name. A driver may remember the answer for `valid_s` seconds."""

    errno = _errno.ENOENT

    def __init__(self, message: str, valid_s: float = 0.0) -> None:
        super().__init__(message)
        self.valid_s = valid_s


class Exists(FileError):
    errno = _errno.EEXIST


class NotADirectory(FileError):
    errno = _errno.ENOTDIR


class IsADirectory(FileError):
    errno = _errno.EISDIR


class DirectoryNotEmpty(FileError):
    errno = _errno.ENOTEMPTY


class NameTooLong(FileError):
    errno = _errno.ENAMETOOLONG


class BadName(FileError):
    """The name cannot be part of a key (it is not UTF-8, or holds a NUL)."""

    errno = _errno.EILSEQ


class InvalidArgument(FileError):
    errno = _errno.EINVAL


class NotPermitted(FileError):
    errno = _errno.EPERM


class AccessRefused(FileError):
    errno = _errno.EACCES


class ReadOnly(FileError):
    errno = _errno.EROFS


class NoSpace(FileError):
    errno = _errno.ENOSPC


class FileTooLarge(FileError):
    errno = _errno.EFBIG


class Stale(FileError):
    """The inode does not exist any more; the kernel walks the path again."""

    errno = _errno.ESTALE


class BadHandle(FileError):
    errno = _errno.EBADF


class NotSupported(FileError):
    errno = _errno.EOPNOTSUPP


class NeedsCopy(FileError):
    """A rename that would move a file's bytes: `mv` and others copy then, as between file systems."""

    errno = _errno.EXDEV


class Interrupted(FileError):
    """The caller was signalled while its request waited."""

    errno = _errno.EINTR


class NoAttribute(FileError):
    errno = _errno.ENODATA


class NoSuchByte(FileError):
    errno = _errno.ENXIO


class Busy(FileError):
    errno = _errno.EBUSY


class ReadFailed(FileError):
    """Bytes not on this host could not be fetched."""

    errno = _errno.EIO


class ReadRefused(ReadFailed):
    """Bytes not on this host are refused to this key: a program can tell it from a bucket that does not answer."""

    errno = _errno.EACCES


# ------------------------------------------------------------------ the bucket
class StoreError(R2fsError):
    """Error answer of the bucket, or a missing answer. Secrets in the text are redacted."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class Retryable(StoreError):
    """Error of the network, or of the server for the moment. A command exits with the network's code."""

    retry = True
    exit_code = 11


class Unavailable(Retryable):
    """No answer, or a 5xx. The request may have been carried out."""


class TooSlow(Unavailable):
    """Body below the least rate. No single read of the body times out."""


class MalformedAnswer(Unavailable):
    """Answer of unknown meaning: the request may have been carried out.

    A captive portal, a proxy or a server with a defect answers so. The message names the missing or wrong field.
    """


class Throttled(Retryable):
    """429 or SlowDown: not carried out. Wait a second for that key at least."""


class BodyDamaged(Retryable):
    """IncompleteBody, BadDigest, a cut download: send or fetch again."""


class ObjectMissing(StoreError):
    errno = _errno.ENOENT


class PreconditionFailed(StoreError):
    """412: the key holds another version than the named one, or any version under "none".

    `source` is True if the object to copy from has changed.
    """

    errno = _errno.ESTALE

    def __init__(self, message: str, source: bool = False) -> None:
        super().__init__(message)
        self.source = source


class RangeInvalid(StoreError):
    """416: the object ends before the range begins."""


class UploadMissing(StoreError):
    """Multipart upload id unknown to the bucket (aborted, expired, or parts unequal on R2)."""


class Refused(StoreError):
    """Refusal for good: needs a person, not another try."""

    exit_code = 3


class BadCredentials(Refused):
    errno = _errno.EACCES
    exit_code = 4


class PermissionRefused(Refused):
    errno = _errno.EACCES
    exit_code = 4


class BucketMissing(Refused):
    exit_code = 5


class ClockSkewed(Refused):
    exit_code = 6


# Refusals by the whole bucket: a person mends the cause in one place, and no file is PARKED.
BUCKET_WIDE = (BadCredentials, PermissionRefused, BucketMissing, ClockSkewed)


class NotImplementedThere(Refused):
    errno = _errno.EOPNOTSUPP


class TooLargeThere(Refused):
    errno = _errno.EFBIG


class QuotaUsedUp(Refused):
    """No room in the bucket. Ends without a change on this host."""

    errno = _errno.ENOSPC


class ObjectLocked(Refused):
    """A lock rule keeps the object from being overwritten or deleted. R2 checks the rule before a condition."""

    errno = _errno.EPERM


# ------------------------------------------------------------------ this host
class LocalError(R2fsError):
    """Error of this host's own disk."""

    exit_code = 7


class StateLocked(LocalError):
    """Another daemon owns the state directory."""


class StateDamaged(LocalError):
    """A file of the state directory cannot be read."""


class DirectoryUnusable(LocalError):
    """The cache's or the state's directory cannot be written."""


class DiskReadOnly(LocalError):
    """The file system is read-only: the kernel makes it so after an error."""

    errno = _errno.EROFS


class CannotDiscard(R2fsError):
    """Local changes are kept: they are in use, or have no equal copy outside of the mount."""


class SyncFailed(R2fsError):
    """Written bytes did not reach this disk, and a read may return older bytes: the file must not be sent."""

    exit_code = 7


class BodyWithdrawn(LocalError):
    """The file of a request's body is being written, or became shorter. The request publishes no object."""


class MountError(R2fsError):
    """No mount could be made."""

    exit_code = 8


class MountPointBad(MountError):
    pass


class MountPointStale(MountError):
    pass


class AlreadyMounted(MountError):
    pass


class FuseMissing(MountError):
    pass


class SettingsError(R2fsError):
    exit_code = 2


class DaemonUnreachable(R2fsError):
    """No daemon answers at the control socket."""

    exit_code = 9


class DaemonDied(R2fsError):
    """The daemon ended before the mount answered, or met an unknown error."""

    exit_code = 70
