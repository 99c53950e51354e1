"""Frozen values that travel between floors.

Owns:  their fields and units. Times are integers of nanoseconds since 1970 (`_ns`) or
       floats of seconds (`_s`); sizes are bytes; ETags have no quotes.
Never: behaves: no I/O, no locks, no defaults that hide a choice.
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
# Kinds by their type bits that mknod(2) makes besides files: names without bytes, opened by the kernel alone.
SPECIAL_KINDS: Final[Mapping[int, Kind]] = {
    TYPE_BITS[kind]: kind for kind in (Kind.FIFO, Kind.SOCKET, Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)
}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one object: it never changes. `key` is spelled as the bucket spells it."""

    key: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition of a write on the object at its key. No condition is None in its place: the write replaces any."""

    etag: str | None  # of the version that the key must hold; None: it must hold no object

    @classmethod
    def absent(cls) -> Condition:
        return cls(None)

    @classmethod
    def matches(cls, etag: str) -> Condition:
        return cls(etag)

    def holds(self, etag: str | None) -> bool:
        """True if a key allows the write. `etag` is that of its object, None where there is none."""
        return etag == self.etag


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing, HEAD, GET or PUT told of an object. `metadata` is None from a listing."""

    key: str
    size: int
    etag: str
    modified_ns: int
    content_type: str | None = None
    metadata: Mapping[str, str] | None = None  # user metadata, names in lower case, no x-amz-meta-
    headers: Mapping[str, str] | None = None  # what else is said of the bytes: of `model.metadata.HEADERS`
    md5: str | None = None  # of the bytes, in hex, where HEAD or GET told it; None: not known

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
    """What is stored beside the bytes. R2 takes 8,192 bytes of user metadata."""

    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] | None = None  # as ObjectInfo has them; None: a copy keeps its source's
    merge: bool = (
        False  # of a copy where `Limits.r2_copies`: the source's user metadata stay, but for those named
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part of a multipart upload. Numbers begin at 1."""

    number: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class PartDigests:
    """What the bytes of a version are, part by part: `part_size` bytes each, the last perhaps fewer."""

    part_size: int
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat() shows."""

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
    st_ino: int  # the number that programs are shown: the same over mounts
    rdev: int = 0  # a device's number, as the kernel encodes it in 32 bits


@dataclass(frozen=True, slots=True)
class Entry:
    """A name's inode, and for how many seconds a driver may let the kernel remember both."""

    attributes: Attributes
    valid_s: float

    @property
    def ino(self) -> int:
        return self.attributes.ino


@dataclass(frozen=True, slots=True)
class DirEntry:
    """One line of a directory. `offset` resumes after it and is stable while the handle is open."""

    name: str
    ino: int
    kind: Kind
    offset: int
    st_ino: int  # as Attributes has it


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """What setattr is to change; None leaves a field alone."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class Opened(NamedTuple):
    """The answer to open and create.

    handle   names the open file in every later call, until release
    local    a descriptor of the complete local file (LOCAL): a driver may read and write it
             itself, or register it with the kernel; it then calls `wrote(handle)` after
             writes of its own. It stays the engine's: valid until release. None: STREAM,
             every read and write goes through the engine (also where a writer is to be slowed).
    version  changes when the content does other than through this mount: the kernel's pages
             of an earlier open are good while it is the same
    file     device and inode of what `local` is, where they are known already
    """

    handle: int
    local: int | None
    version: int
    file: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FileSystemStats:
    """statfs: sizes in bytes."""

    total: int
    free: int
    files: int
    files_free: int
    block: int = 4096
    name_max: int = 255


@dataclass(frozen=True, slots=True)
class Proof:
    """fstat of a staging file: equal at the last writer's close means nothing was written."""

    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class PendingInode:
    """A journal row: an inode of which the bucket lacks something. The schema's comments rule."""

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
    """A row of the journal's table of attributes. The schema's comments rule."""

    key: str  # in NFC
    etag: str
    size: int
    st_ino: int
    metadata: Mapping[str, str | int]  # as model.metadata.remembered makes it
    ctime_ns: int | None
    shown_ns: int | None
    target: str | None
    modified_ns: int | None
    stored_s: float


@dataclass(frozen=True, slots=True)
class PendingDelete:
    """A journal row: an object that is to go from the bucket."""

    seq: int
    key: str
    etag: str | None  # the version it is meant for; None: only attempts of this host
    after_ino: int | None  # waits until that inode owes nothing
    watch_until_s: float | None  # a late attempt of ours is looked for until then


@dataclass(frozen=True, slots=True)
class Attempt:
    """An upload attempt, journalled before it is sent."""

    id: str
    ino: int
    key: str
    started_s: float
    unknown: bool  # sent, and nobody saw the outcome


@dataclass(frozen=True, slots=True)
class MultipartState:
    """A multipart upload to go on with after a restart."""

    upload_id: str
    ino: int
    key: str
    attempt: str
    part_size: int
    proof: Proof
    parts: tuple[Part, ...]


# ------------------------------------------------------------------ what a successor has to know
class KnownNode(NamedTuple):
    """An inode number that the kernel was told, and what it stands for. A tuple: the log holds its fields."""

    ino: int
    parent: int  # 0: it has no name any more
    name: str
    kind: str  # Kind's value
    base: tuple[str, str, int] | None  # Version's fields
    mtime_ns: int
    ctime_ns: int
    mode: int | None
    uid: int | None
    gid: int | None
    known: bool  # these fields are all that the version's metadata says: it need not be asked again
    mtime_known: bool
    st_ino: int = 0  # 0: nobody was shown it (a log of an earlier version has none)
    modified_ns: int | None = None  # LastModified of the base's object, where it was seen


class KnownHandle(NamedTuple):
    """A file handle that the kernel was given, and what its answer said."""

    fh: int  # the kernel's number
    handle: int  # the engine's
    ino: int
    flags: int  # open(2)'s
    unique: int  # of the request: one that was not answered comes again under it
    backing_id: int  # 0: not by passthrough
    file: tuple[int, int]  # device and inode of the complete local file; zeros: there was none


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What one daemon leaves to the next that goes on with its session."""

    nodes: Mapping[int, KnownNode]  # by inode number; the last told last
    handles: Mapping[int, KnownHandle]  # by the kernel's number

    @property
    def writers(self) -> frozenset[int]:
        """Inodes that are open for writing."""
        return frozenset(h.ino for h in self.handles.values() if h.flags & O_ACCMODE)
