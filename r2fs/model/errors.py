"""Every error r2fs raises on purpose, with what it means to a program and to a shell.

Owns:  the tree below. A class carries its consequence: `errno` for the program that
       called the file system (only a driver turns it into a reply), `exit_code` for the
       command line, `retry` for whoever sends requests.
Never: knows FUSE, boto3 or click.

    R2fsError
    ├── FileError                 what a file system call gets
    │   ├── NotFound  Exists  NotADirectory  IsADirectory  DirectoryNotEmpty
    │   ├── NameTooLong  BadName  InvalidArgument  NotPermitted  AccessRefused  NeedsCopy
    │   ├── ReadOnly  NoSpace  FileTooLarge  Stale  BadHandle  NotSupported
    │   └── Interrupted  NoAttribute  NoSuchByte  Busy  ReadFailed
    ├── StoreError                what the bucket, or the way to it, answered
    │   ├── Retryable
    │   │   ├── Unavailable       no answer, 5xx: it may or may not have been done
    │   │   │   ├── TooSlow       a body that comes drop by drop
    │   │   │   └── MalformedAnswer   an answer that is none: a web page, a field that is missing, a loop
    │   │   ├── Throttled         429, SlowDown: it was not done
    │   │   └── BodyDamaged       the body arrived cut or wrong: it was not done
    │   ├── ObjectMissing         404 for a key
    │   ├── PreconditionFailed    412: the key does not hold what we expected
    │   ├── RangeInvalid          416
    │   ├── UploadMissing         404 NoSuchUpload: the multipart upload is gone
    │   └── Refused               the bucket will not do this, however often it is asked
    │       ├── BadCredentials  PermissionRefused  BucketMissing  ClockSkewed
    │       └── NotImplementedThere  TooLargeThere  QuotaUsedUp  ObjectLocked
    ├── LocalError                this host's own disk
    │   ├── StateLocked           another daemon owns the state directory
    │   ├── StateDamaged          a file of the state directory cannot be read
    │   ├── DirectoryUnusable     cache or state directory not writable
    │   ├── DiskReadOnly          the file system below is read-only (the kernel does that after an error)
    │   └── BodyWithdrawn         the file being sent was opened for writing, or became shorter
    ├── SyncFailed                what a file holds is no longer what was written to it
    ├── MountError                no mount could be made
    │   ├── MountPointBad  MountPointStale  FuseMissing  AlreadyMounted
    ├── SettingsError             a setting's value is wrong
    ├── DaemonUnreachable         no daemon answers at the control socket
    └── DaemonDied                one that was being started ended, or met a defect
"""

from __future__ import annotations

import errno as _errno
from typing import ClassVar

from r2fs.model.redaction import redact


class R2fsError(Exception):
    """Base of all. The message names the object and, where there is one, the remedy."""

    errno: ClassVar[int] = _errno.EIO
    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False
    unknown: bool = False  # an earlier try of the request may have been carried out, whatever this one says


class WouldWait(Exception):
    """Not an error: the verb was called with `may_wait=False` and needs the network or a slow disk.

    Raised before the verb has changed anything, so that it can be called again from a
    thread that may wait.
    """


class WouldFetch(WouldWait):
    """As WouldWait, of a caller with `may_fetch=False`: it is the network that would be waited for."""


# ------------------------------------------------------------------ file system calls
class FileError(R2fsError):
    """What a program that called the file system gets as errno."""


class NotFound(FileError):
    """No such name. `valid_s` says for how many seconds a driver may remember that."""

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
    """The inode is gone; the kernel walks the path again."""

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
    """Bytes that are not here could not be fetched."""

    errno = _errno.EIO


# ------------------------------------------------------------------ the bucket
class StoreError(R2fsError):
    """An error answer of the bucket, or none at all. Its text may repeat a secret: that is taken out here."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class Retryable(StoreError):
    """The way there, or the server at this moment: for a command, the network's exit code."""

    retry = True
    exit_code = 11


class Unavailable(Retryable):
    """No answer, or a 5xx. The request may have been carried out nevertheless."""


class TooSlow(Unavailable):
    """A body that comes drop by drop: as good as none, though no single read of it times out."""


class MalformedAnswer(Unavailable):
    """Answer that cannot be understood: it proves neither that the request was carried out nor that it was not.

    A captive portal, a proxy or a server with a defect answers so. Its message names what is missing or wrong.
    """


class Throttled(Retryable):
    """429 or SlowDown: not carried out. Wait a second for that key at least."""


class BodyDamaged(Retryable):
    """IncompleteBody, BadDigest, a cut download: send or fetch it again."""


class ObjectMissing(StoreError):
    errno = _errno.ENOENT


class PreconditionFailed(StoreError):
    """412: the key holds another version than the one we named, or any at all.

    `source` is True where the object to copy from is the one that changed.
    """

    errno = _errno.ESTALE

    def __init__(self, message: str, source: bool = False) -> None:
        super().__init__(message)
        self.source = source


class RangeInvalid(StoreError):
    """416: the object ends before the range begins."""


class UploadMissing(StoreError):
    """The multipart upload id is unknown there (aborted, expired, or parts unequal on R2)."""


class Refused(StoreError):
    """Asking again does not help; a person has to."""

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


class NotImplementedThere(Refused):
    errno = _errno.EOPNOTSUPP


class TooLargeThere(Refused):
    errno = _errno.EFBIG


class QuotaUsedUp(Refused):
    """Ends without anybody here: somebody frees space in the bucket, or buys some."""

    errno = _errno.ENOSPC


class ObjectLocked(Refused):
    """A rule keeps the object that is there from being overwritten or deleted. R2 says so before it looks at a
    condition."""

    errno = _errno.EPERM


# ------------------------------------------------------------------ this host
class LocalError(R2fsError):
    exit_code = 7


class StateLocked(LocalError):
    pass


class StateDamaged(LocalError):
    pass


class DirectoryUnusable(LocalError):
    pass


class DiskReadOnly(LocalError):
    errno = _errno.EROFS


class SyncFailed(R2fsError):
    """Written bytes could not be put on this disk, and reading them back may give older ones: not to be sent."""

    exit_code = 7


class BodyWithdrawn(LocalError):
    """A request's body cannot go on: its file is being written. The request publishes nothing."""

    retry = False


class MountError(R2fsError):
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
    exit_code = 9


class DaemonDied(R2fsError):
    """It ended before the mount answered, or met an error that r2fs does not know."""

    exit_code = 70
