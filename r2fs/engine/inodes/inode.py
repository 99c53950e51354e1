"""Node: one inode of the mount, and Listing: the known children of a directory.

A node is the identity that open handles keep: a version that another host puts in a name's place is another node.
`inodes/table.py` moves nodes, `pending/store.py` puts `pending` in place. Core.lock guards every field unless noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.inodes.children import Children
from r2fs.model.errors import R2fsError
from r2fs.model.metadata import Facts, content_type
from r2fs.model.pending import SENDING, Pending, State
from r2fs.model.ports import SessionMemory
from r2fs.model.records import Kind, KnownNode, ObjectInfo, Version

NEVER = float("-inf")  # a monotonic time before every other
ABSENT_MAX = 1000  # names in a directory; beyond, the kernel may hold any name as absent


@dataclass(slots=True, eq=False)
class Refresh:
    """A LIST or HEAD on its way, for every thread that waits for the answer."""

    heard_s: float  # Clock.monotonic() of the last page, or of the start; written by its job alone
    done: Event = field(default_factory=Event)
    error: R2fsError | None = None  # written before `done` is set
    begun: bool = False  # the request is on its way; guarded by Core.lock

    def is_answered(self, none: tuple[type[R2fsError], ...]) -> bool:
        """True once the bucket has answered; `none`: errors that are no answer."""
        return self.done.is_set() and not isinstance(self.error, none)


@dataclass(slots=True, eq=False)
class Listing:
    """The known children of a directory."""

    children: Children  # written by Tree alone
    directories: int = 0  # children that are directories; likewise
    listed_at_s: float = NEVER  # Clock.monotonic() when the LIST began
    whole: bool = False  # every page was read
    provisional: bool = False  # as an earlier mount has saved the directory: the first LIST has not ended
    # name: Clock.monotonic() of a lookup of this name alone
    probed: dict[str, float] = field(default_factory=dict)
    forgotten_s: float = NEVER  # Clock.monotonic(): answers to requests from before do not make it fresh
    removed: dict[str, int] = field(default_factory=dict)  # name: Tree.tick of its removal by this host
    absent: set[str] | None = None  # names that the kernel may hold as absent, but for `removed`; None: none
    any_absent: bool = False  # the kernel may hold any name as absent
    hidden: frozenset[str] = frozenset()  # keys that cannot be shown
    refreshing: Refresh | None = None  # on its way
    refused: str | None = None  # why the last answer was no listing; None: a listing
    refused_until_s: float = 0.0  # Clock.monotonic(): no LIST before, then
    marker: Version | None = (
        None  # the object at the directory's own key; of r2fs empty, of others perhaps not
    )
    object: Node | None = None  # the read-only file that shows the marker's bytes, if any: Tree.object_of
    # the cost of a LIST of the whole directory, for namespace/name_lookup.py
    pages: int = 1  # of the last LIST, at least
    took_s: float = 0.0  # the last LIST
    probe_count: int = 0  # lookups of single names since the last LIST, or in this window
    probe_window_s: float = NEVER  # Clock.monotonic(): when the window began

    def listed(self, began_s: float) -> None:
        """Note that the directory shows a whole LIST, which began at Clock.monotonic() `began_s`."""
        self.provisional = False
        self.listed_at_s, self.whole = began_s if began_s >= self.forgotten_s else NEVER, True
        self.probed.clear()

    def forget(self, now_s: float) -> None:
        """End the freshness of the listing, and of answers that are under way."""
        self.listed_at_s, self.forgotten_s = NEVER, now_s
        self.probed.clear()
        self.refused, self.refused_until_s = None, 0.0

    def note_absent(self, name: str) -> None:
        """Record an answer to the kernel that a name is absent."""
        if self.absent is None:
            self.absent = set()
        self.absent.add(name)
        if len(self.absent) > ABSENT_MAX:
            self.absent, self.any_absent = None, True


@dataclass(slots=True, eq=False)
class Node:
    ino: int  # constant
    kind: Kind  # constant
    name: str
    parent: Node | None  # None: the root, or no longer in the tree
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    # ---- attributes
    mode: int | None = None  # None: the mount's default
    uid: int | None = None
    gid: int | None = None
    spelled: str | None = None  # a directory's name in the bucket's spelling, if not NFC
    size: int = 0  # of the base, in bytes; a node with content has the content's
    target: str | None = None  # a symbolic link's
    content_type: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)  # further user metadata
    metadata_known: bool = False  # mode, mtime … are stored with the version, not guessed from a listing
    mtime_known: bool = False  # mtime_ns is the file's, not the object's LastModified
    modified_ns: int | None = None  # its object's LastModified; None: not seen since this host wrote it
    outdated: bool = False  # another host changed the metadata in the bucket: HEAD before stat
    shown: bool = False  # stat has shown the attributes: fixed while the file is unchanged
    pinned: Facts | None = None  # mode, owner and mtime as shown, if the stored ones were learned afterwards
    stored_kind: Kind | None = None  # FIFO, socket or device by the metadata; in listings a file
    attr_cache_checked: bool = False  # the local attribute cache was searched
    st_ino: int = 0  # the number that stat shows; 0: none was shown yet
    inherited: bool = False  # a file of the daemon before, of unknown metadata: its row is not read yet
    kept_ns: tuple[int, int] | None = None  # a directory's mtime and ctime, as the journal has them
    read_only: bool = False  # constant: shows the bytes of its directory's own object (protected.py)
    # ---- bytes and the bucket
    base: Version | None = None
    base_missing: Version | None = None  # a base that the bucket was seen to have no more
    listing: Listing | None = None  # a directory's
    content: SparseFile | None = None  # open, or staged and touched
    version: int = 0  # Opened.version
    pending: Pending | None = None  # put in place by PendingStore alone
    # Metadata that the bucket is known to have beside the base, while `pending` is set: later changes by
    # other hosts are merged with this host's.
    base_metadata: Facts | None = None
    stale_staged_name: str | None = None  # a name in staging/data that its content still has, and no row
    synced_on_disk: bool = False  # a row on the disk may state that its present bytes are synced
    sync_failed: bool = False  # an fsync of its staged bytes failed: reading may return older ones
    # ---- kernel and handles
    lookups: int = 0  # references of the kernel
    kernel_knows: bool = False  # Core.memory has the node, and gets each change of name or version
    handles: int = 0
    writers: int = 0
    flushed_s: float = NEVER  # Clock.monotonic() of the last FLUSH: a descriptor is about to be closed
    # ---- name
    touched: int = 0  # Tree.tick when this host last made or moved the name
    deleted: bool = False  # unlinked by this host, or replaced by another
    is_dir: bool = field(init=False)  # constant

    def __post_init__(self) -> None:
        self.is_dir = self.kind is Kind.DIRECTORY

    @property
    def state(self) -> State:
        return self.pending.state if self.pending else State.CLEAN

    @property
    def carries_body(self) -> bool:
        """True if the object is sent whole with its metadata, never copied: a link's is its target, a marker or
        special file is empty."""
        if self.is_dir:
            return self.own_bytes is None
        if self.kind is Kind.SYMLINK:
            return self.target is not None
        return self.kind is not Kind.FILE

    @property
    def own_bytes(self) -> Version | None:
        """The object at a directory's own key, if another tool has stored bytes in that object."""
        if self.listing is None:
            return None
        version = self.listing.marker or self.base
        return version if version is not None and version.size else None

    @property
    def sending(self) -> bool:
        return self.pending is not None and self.pending.state in SENDING

    @property
    def has_bytes_of_base(self) -> bool:
        """True if nothing but another name or other metadata is to be stored, or nothing at all."""
        pending = self.pending
        return pending is None or not (pending.changed or pending.staged is not None)

    @property
    def needs_base(self) -> bool:
        """True if a write to the base's key in the bucket would destroy bytes that this node still needs."""
        if self.base is None or self.base == self.base_missing:
            return False
        partial = self.content is not None and not self.content.complete
        if self.pending is None:
            return partial and self.handles > 0
        if self.pending.changed:
            return partial or self.pending.lists_ranges
        return self.pending.key != self.base.key or (partial and self.handles > 0)

    def is_as_listed(self, info: ObjectInfo) -> bool:
        """True for a clean file of exactly this version."""
        base = self.base
        return (
            base is not None
            and self.pending is None
            and base.key == info.key
            and base.etag == info.etag
            and base.size == info.size
        )

    @property
    def has_new_times(self) -> bool:
        """True for a directory whose shown times differ from those in the journal."""
        return bool(self.st_ino) and not self.deleted and self.kept_ns != (self.mtime_ns, self.ctime_ns)

    def children(self) -> Children:
        """The children by name, for reading: only Tree changes this."""
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


def take_attributes(node: Node, other: Node) -> None:
    """Give a new node version and attributes of `other`, of which the object is of another kind."""
    node.ctime_ns, node.atime_ns, node.touched = other.ctime_ns, other.atime_ns, other.touched
    node.mode, node.uid, node.gid = other.mode, other.uid, other.gid
    node.content_type, node.extra, node.base = other.content_type, other.extra, other.base
    node.metadata_known, node.mtime_known = other.metadata_known, other.mtime_known
    node.attr_cache_checked = other.attr_cache_checked
    node.modified_ns = other.modified_ns


# ---- the nodes at and below a node. The tree may change between two steps: each directory's children are copied.
def walk(node: Node) -> Iterator[Node]:
    """Yield `node` and all known nodes below; packed files get nodes."""
    yield node
    if node.is_dir:
        for child in list(node.children().values()):
            yield from walk(child)


def walk_nodes(node: Node) -> Iterator[Node]:
    """Yield `node` and those below that have a node: all directories, and all with pending state or handles."""
    yield node
    if node.is_dir:
        for child in list(node.children().nodes()):
            yield from walk_nodes(child)


def unpack_below(node: Node) -> None:
    """Make the nodes of all files below: the keys of packed ones are those of their directory."""
    for _ in walk(node):
        pass


def is_pending_below(node: Node) -> bool:
    """True if a node at or below `node` has pending state."""
    return any(one.pending for one in walk_nodes(node))


# ---- the session
def remember(memory: SessionMemory | None, node: Node) -> None:
    """Record a node for a successor of this daemon, if the kernel knows the node.

    Called before the kernel learns the number, and after each change of name or version. Pending state is in the
    journal, which overrules this record. A file that shows a directory's own object is made anew by a successor.
    """
    if memory is not None and node.kernel_knows and not node.read_only:
        memory.node(known(node))


def known(node: Node) -> KnownNode:
    """Return a node's record, with the attributes that stat shows: a successor is to ask for the stored ones again."""
    base, parent, pinned = node.base, node.parent, node.pinned
    shown = pinned or node
    return KnownNode(
        node.ino,
        0 if node.deleted or parent is None else parent.ino,
        node.spelled or node.name,
        node.kind.value,
        None if base is None else (base.key, base.etag, base.size),
        node.mtime_ns if shown.mtime_ns is None else shown.mtime_ns,
        node.ctime_ns,
        shown.mode,
        shown.uid,
        shown.gid,
        pinned is None
        and node.metadata_known
        and not node.extra
        and (node.content_type is None or node.content_type == content_type(node.name)),
        node.mtime_known and pinned is None,
        node.st_ino,
        node.modified_ns,
    )
