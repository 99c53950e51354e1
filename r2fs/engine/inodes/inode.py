"""Node: one inode of the mount, and Owed: what the bucket still lacks of it.

Owns:  the fields, and who may touch them. A node is the identity that open handles keep: a
       version that another host put in a name's place is another node.
Never: does anything: `inodes/table.py` moves nodes, `pending/store.py` changes what they owe.
Locks: every field is guarded by Core.lock unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event

from r2fs.disk.sparse_file import SparseFile
from r2fs.model.errors import R2fsError
from r2fs.model.metadata import Facts
from r2fs.model.pending import SENDING, Pending, State
from r2fs.model.records import Kind, ObjectInfo, Version

NEVER = float("-inf")  # a monotonic time before every other


@dataclass(slots=True, eq=False)
class Refresh:
    """A LIST or HEAD on its way, for all who wait for it."""

    heard_s: float  # Clock.monotonic() of the last page, or of its beginning; written by its job alone
    done: Event = field(default_factory=Event)
    error: R2fsError | None = None  # written before `done` is set


@dataclass(slots=True, eq=False)
class Listing:
    """A directory's children as far as they are known."""

    children: dict[str, Node] = field(default_factory=dict)  # written by Tree._attach and _take alone
    listed_at_s: float = NEVER  # Clock.monotonic() when the LIST it comes from began
    whole: bool = False  # every page was read
    probed: dict[str, float] = field(default_factory=dict)  # name asked for by itself: when (monotonic)
    removed: dict[str, int] = field(default_factory=dict)  # name: Tree.tick of its removal here
    hidden: frozenset[str] = frozenset()  # keys that cannot be shown
    refreshing: Refresh | None = None  # on its way
    refused: str | None = None  # why what was answered last was no listing; None: it was one
    refused_until_s: float = 0.0  # Clock.monotonic(): not asked again before, then
    # The object at the directory's own key; r2fs makes it empty, others may not.
    marker: Version | None = None
    object: Node | None = None  # the read-only file that shows its bytes, where it holds any: Tree.object_of
    directories: int = 0  # children that are directories; likewise
    # what a LIST of it all costs, for probes.py
    pages: int = 1  # of the last one, at least
    took_s: float = 0.0  # the last one
    probe_count: int = 0  # names asked for by themselves since it, or in this window
    probe_window_s: float = NEVER  # Clock.monotonic(): when the window began


@dataclass(slots=True, eq=False)
class Node:
    ino: int  # constant
    kind: Kind  # constant
    name: str
    parent: Node | None  # None: the root, or no longer in the tree
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    mode: int | None = None  # None: the mount's default
    uid: int | None = None
    gid: int | None = None
    spelled: str | None = None  # a directory's name as the bucket spells it, where that is not NFC
    size: int = 0  # of the base; a node with content answers the content's
    target: str | None = None  # a symbolic link's
    content_type: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)  # further user metadata
    base: Version | None = None
    base_missing: Version | None = None  # a base that the bucket was seen to have no more
    metadata_known: bool = (
        False  # mode, mtime … are those stored with the version, not guessed from a listing
    )
    mtime_known: bool = False  # mtime_ns is the file's, not the object's LastModified
    modified_ns: int | None = None  # its object's LastModified; None: not seen since this host wrote it
    outdated: bool = (
        False  # its metadata changed in the bucket since they were known: HEAD before it is shown
    )
    shown: bool = (
        False  # a program was told its attributes, which stay what they are while nothing changes it
    )
    pinned: Facts | None = None  # mode, owner and mtime as shown, where those stored were learned afterwards
    stored_kind: Kind | None = (
        None  # a FIFO, socket or device by its metadata; this node, made from a listing, is a file
    )
    attr_cache_checked: bool = False  # the local attribute cache was asked for them
    listing: Listing | None = None  # a directory's
    content: SparseFile | None = None  # open, or staged and touched
    version: int = 0  # Opened.version
    pending: Pending | None = None  # put in place by PendingStore alone
    # Metadata that the bucket is known to have beside the base, while something is pending: what another host made of
    # them since is merged with what is set here.
    base_metadata: Facts | None = None
    lookups: int = 0  # references of the kernel
    stale_staged_name: str | None = (
        None  # a name that its content still has in staging/data, and that no row has
    )
    synced_on_disk: bool = False  # a row on the disk may say that its bytes, as they are now, are synced
    kernel_knows: bool = False  # Core.memory has it: a change of name or version goes there, too
    handles: int = 0
    writers: int = 0
    flushed_s: float = NEVER  # Clock.monotonic() of a FLUSH: a descriptor of it is about to be closed
    touched: int = 0  # Tree.tick of the last change here of its being under its name
    sync_failed: bool = False  # an fsync of its staged bytes failed: reading them may give older ones
    deleted: bool = False  # unlinked here, or replaced by what another host did
    st_ino: int = 0  # what stat shows as its number; 0: nobody was shown it yet
    kept_ns: tuple[int, int] | None = None  # a directory's mtime and ctime, as the journal has them
    read_only: bool = (
        False  # constant: it shows the bytes of its directory's own object (directory_objects.py)
    )

    @property
    def state(self) -> State:
        return self.pending.state if self.pending else State.CLEAN

    @property
    def is_dir(self) -> bool:
        return self.kind is Kind.DIRECTORY

    @property
    def carries_body(self) -> bool:
        """Sent whole with its metadata, never copied: a link's object is its target, a marker or special file empty."""
        if self.is_dir:
            return self.own_bytes is None
        if self.kind is Kind.SYMLINK:
            return self.target is not None
        return self.kind is not Kind.FILE

    @property
    def own_bytes(self) -> Version | None:
        """The object at a directory's own key, where it is no marker but holds another tool's bytes."""
        if self.listing is None:
            return None
        version = self.listing.marker or self.base
        return version if version is not None and version.size else None

    @property
    def sending(self) -> bool:
        return self.pending is not None and self.pending.state in SENDING

    @property
    def needs_base(self) -> bool:
        """Would a write to the base's key in the bucket take away bytes that this node still needs?"""
        if self.base is None or self.base == self.base_missing:
            return False
        partial = self.content is not None and not self.content.complete
        if self.pending is None:
            return partial and self.handles > 0
        if self.pending.changed:
            return partial or self.pending.lists_ranges
        return self.pending.key != self.base.key or (partial and self.handles > 0)

    def is_as_listed(self, info: ObjectInfo) -> bool:
        """True for a file of exactly this version with nothing pending."""
        base = self.base
        return (
            base is not None
            and self.pending is None
            and base.key == info.key
            and base.etag == info.etag
            and base.size == info.size
        )

    def children(self) -> Mapping[str, Node]:
        """To be looked at: Tree changes it."""
        assert self.listing is not None
        return self.listing.children


def is_below(node: Node, top: Node) -> bool:
    """True if `node` is at or below `top`."""
    above: Node | None = node
    while above is not None and above is not top:
        above = above.parent
    return above is top


def listing_of(directory: Node) -> Listing:
    assert directory.listing is not None, f"{directory.name}: no directory"
    return directory.listing
