"""Frozen values passed between packages.

Times are integers of nanoseconds since 1970 (`_ns`) or floats of seconds (`_s`); sizes are bytes; ETags have no quotes.
Values made at every call or commit are tuples: to make a frozen dataclass takes five times as long,
and `_replace` a third of `dataclasses.replace`.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from os import O_ACCMODE
from typing import Final, NamedTuple

from r2fs.model.ranges import Range


class Kind(Enum):
    __hash__ = object.__hash__  # Enum's own, in Python, takes longer than all else of a look-up by kind

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"


# File type bits of st_mode, stat(2).
TYPE_BITS: Final[Mapping[Kind, int]] = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}
# Kinds other than files that mknod(2) makes, by their type bits. The kernel alone opens them.
SPECIAL_KINDS: Final[Mapping[int, Kind]] = {
    TYPE_BITS[kind]: kind for kind in (Kind.FIFO, Kind.SOCKET, Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)
}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one object. `key` is spelled as in the bucket."""

    key: str
    etag: str
    size: int


class Pin(NamedTuple):
    """A key whose content is kept on this host."""

    key: str  # of a file; or of a directory, with all below: ends with `/`, or is empty
    session: str  # key of the session file that refers to it; "": pinned for itself
    since_s: float  # seconds since 1970

    @property
    def is_tree(self) -> bool:
        return not self.key or self.key.endswith("/")


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition of a write on the object at its key. None in place of a Condition: the write replaces any object."""

    etag: str | None  # of the version that the key must hold; None: no object

    @classmethod
    def absent(cls) -> Condition:
        return cls(None)

    @classmethod
    def matches(cls, etag: str) -> Condition:
        return cls(etag)

    def holds(self, etag: str | None) -> bool:
        """True if the write is allowed. `etag`: of the object at the key; None: no object."""
        return etag == self.etag


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Object as of an answer to LIST, HEAD, GET or PUT. `metadata` is None from a listing."""

    key: str
    size: int
    etag: str
    modified_ns: int
    content_type: str | None = None
    metadata: Mapping[str, str] | None = None  # user metadata, names in lower case, no x-amz-meta-
    headers: Mapping[str, str] | None = None  # further headers of the bytes: of `model.metadata.HEADERS`
    md5: str | None = None  # of the bytes, in hex, by HEAD or GET; None: unknown

    @property
    def version(self) -> Version:
        return Version(self.key, self.etag, self.size)


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a listing, in key order. `token` is None on the last."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]  # common prefixes, each ending with the delimiter
    token: str | None


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """Content-Type, user metadata and headers of an object. R2 accepts 8,192 bytes of user metadata."""

    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] | None = None  # as in ObjectInfo; None: a copy keeps its source's
    # of a copy where `Limits.r2_copies`: the source's user metadata stay, but for those named
    merge: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part of a multipart upload. Numbers begin at 1."""

    number: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class PartDigests:
    """Digests of a version's bytes, part by part: `part_size` bytes each, the last perhaps fewer."""

    part_size: int
    digests: tuple[str, ...]


class Attributes(NamedTuple):
    """Result of stat(2)."""

    ino: int  # the inode's number between engine and driver
    kind: Kind
    size: int
    mode: int  # permission bits only
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    nlink: int
    blocks: int  # of 512 bytes
    st_ino: int  # inode number shown to programs: the same over mounts
    rdev: int = 0  # a device's number, in the kernel's encoding of 32 bits


class Entry(NamedTuple):
    """A name's inode. The kernel may remember both for `valid_s` seconds."""

    attributes: Attributes
    valid_s: float

    @property
    def ino(self) -> int:
        return self.attributes.ino


@dataclass(frozen=True, slots=True)
class DirEntry:
    """One name in a directory. `offset` resumes after the name, and is stable while the handle is open."""

    name: str
    kind: Kind
    offset: int
    st_ino: int  # as in Attributes


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """Fields for setattr to change; None leaves a field unchanged."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class Opened(NamedTuple):
    """Answer to open and create.

    handle   number of the open file in every later call, until release
    local    descriptor of the complete local file (LOCAL). A driver may read and write the file
             itself, or register the descriptor with the kernel; the driver then calls `wrote(handle)`
             after own writes. The engine owns the descriptor, which is valid until release. None
             (STREAM): every read and write passes through the engine, also to slow a writer.
    version  changes if the content changes other than through this mount: the kernel may keep the
             pages of an earlier open while the number is the same
    file     device and inode of `local`, if already known
    """

    handle: int
    local: int | None
    version: int
    file: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FileSystemStats:
    """Result of statfs(2). Sizes in bytes."""

    total: int
    free: int
    files: int
    files_free: int
    block: int = 4096
    name_max: int = 255


class Proof(NamedTuple):
    """fstat of a staging file. Equal at the last writer's close: not written to."""

    size: int
    mtime_ns: int
    ctime_ns: int


class PendingInode(NamedTuple):
    """Journal row of an inode not yet in the bucket. The schema's comments define the fields."""

    ino: int
    key: str | None
    kind: Kind
    state: str
    before: str | None
    seq: int
    mode: int | None
    uid: int | None
    gid: int | None
    mtime_ns: int | None
    extra: Mapping[str, str]
    content_type: str | None
    base: Version | None
    expected_etag: str | None
    changed: bool
    staged: str | None
    size: int
    own: tuple[Range, ...] | None
    base_limit: int
    proof: Proof | None
    closed_at_s: float | None
    boot: str
    synced: bool
    reason: str | None
    conflict_of: str | None
    target: str | None
    st_ino: int | None
    stored: Mapping[str, str | int] | None = None


@dataclass(frozen=True, slots=True)
class KeptAttributes:
    """Row of the journal's table of attributes. The schema's comments define the fields."""

    key: str  # in NFC
    etag: str
    size: int
    st_ino: int
    metadata: Mapping[str, str | int]  # result of model.metadata.remembered
    ctime_ns: int | None
    shown_ns: int | None
    target: str | None
    modified_ns: int | None
    stored_s: float


class PendingDelete(NamedTuple):
    """Journal row of an object to be deleted from the bucket."""

    seq: int
    key: str
    etag: str | None  # the version to delete; None: only objects of this host's attempts
    after_ino: int | None  # waits until this inode has nothing pending
    watch_until_s: float | None  # end of the watch for a late attempt of this host


class Attempt(NamedTuple):
    """Upload attempt, journalled before the request is sent."""

    id: str
    ino: int
    key: str
    started_s: float
    unknown: bool  # sent, and its outcome is unknown


@dataclass(frozen=True, slots=True)
class MultipartState:
    """Multipart upload to be continued after a restart."""

    upload_id: str
    ino: int
    key: str
    attempt: str
    part_size: int
    proof: Proof
    parts: tuple[Part, ...]


# ------------------------------------------------------------------ state for a succeeding daemon
class KnownNode(NamedTuple):
    """Inode number known to the kernel, with its name and attributes. A tuple, since the log holds the fields."""

    ino: int
    parent: int  # 0: the inode has no name any more
    name: str
    kind: str  # Kind's value
    base: tuple[str, str, int] | None  # Version's fields
    mtime_ns: int
    ctime_ns: int
    mode: int | None
    uid: int | None
    gid: int | None
    known: bool  # these fields are all of the version's metadata: no HEAD is needed
    mtime_known: bool
    st_ino: int = 0  # 0: not shown to a program (missing in a log of an earlier version)
    modified_ns: int | None = None  # LastModified of the base's object, if known


class KnownHandle(NamedTuple):
    """File handle known to the kernel, with the fields of the answer to open."""

    fh: int  # the kernel's number
    handle: int  # the engine's
    ino: int
    flags: int  # open(2)'s
    unique: int  # of the request: the kernel repeats an unanswered request with the same number
    backing_id: int  # 0: no passthrough
    file: tuple[int, int]  # device and inode of the complete local file; zeros: none


@dataclass(frozen=True, slots=True)
class Inheritance:
    """State left by one daemon to the next one of the same session."""

    nodes: Mapping[int, KnownNode]  # by inode number, in the order of the kernel's answers
    handles: Mapping[int, KnownHandle]  # by the kernel's number

    @property
    def writers(self) -> frozenset[int]:
        """Inodes open for writing."""
        return frozenset(h.ino for h in self.handles.values() if h.flags & O_ACCMODE)
