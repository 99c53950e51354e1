"""Listing merge: changes of the inode table by LIST and HEAD.

Pending changes of this host, and changes made after the request began, win over the bucket's view. `began` is
`Tree.tick` before the request was sent.

Locks: every function is called with Core.lock held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from r2fs.engine.inodes.children import Children, pack
from r2fs.engine.inodes.inode import NEVER, Node, listing_of, take_attributes, unpack_below
from r2fs.engine.inodes.table import Tree
from r2fs.model.keys import is_conflict_name, is_link, is_name, nfc, shown_name
from r2fs.model.records import ObjectInfo


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The changes by which a directory shows a whole LIST."""

    marker: ObjectInfo | None  # the object at the directory's own key
    refreshed: Sequence[tuple[Node, ObjectInfo]]  # versions already shown, with another LastModified
    objects: Sequence[ObjectInfo]  # to be shown as files and links
    directories: Sequence[str]  # to be shown, in the bucket's spelling and the order of keys
    missing: Sequence[Node]  # children that the LIST does not name
    hidden: frozenset[str]  # keys that cannot be shown


class _Entry(Enum):
    """An object of a LIST among the names of its directory."""

    SHOWN = "shown"
    UNKNOWN_VERSION = "unknown version"  # without an ETag: a node already under the name stays
    UNSHOWABLE = "unshowable"  # not a valid name, or another entry's name
    DELETED = "deleted"  # by this host: pending, or carried out since the LIST began


def merge_listing(
    tree: Tree, directory: Node, objects: Iterable[ObjectInfo], prefixes: Iterable[str], began: int
) -> None:
    """Make `directory` show exactly this whole LIST, but for this host's own changes."""
    _apply(tree, directory, plan_merge(tree, directory, objects, prefixes, began), began)


def plan_merge(
    tree: Tree, directory: Node, objects: Iterable[ObjectInfo], prefixes: Iterable[str], began: int
) -> MergePlan:
    """Return the changes by a LIST. Nothing is changed, but packed files may get nodes."""
    prefix, children, hidden = tree.key(directory), directory.children(), set[str]()
    spellings = _directory_names(prefix, prefixes, hidden)
    seen = set(spellings)  # a directory hides a file of its name
    marker, shown, refreshed = None, list[ObjectInfo](), list[tuple[Node, ObjectInfo]]()
    for info in objects:
        name = info.key[len(prefix) :]
        if _is_unchanged(children, name, info, seen):  # nearly every entry of a large directory, or as next
            continue
        child = children.get(name)
        if child is not None and name not in seen and child.is_as_listed(info):
            seen.add(name)
            if child.touched <= began and child.modified_ns != info.modified_ns:
                refreshed.append((child, info))
        elif name == "":
            if not tree.hides(info.key, info.etag, began):
                marker = info
                hidden.update({info.key} if info.size else ())
        else:
            name = shown_name(name, info.size)
            match _judge(tree, children.get(nfc(name)), name, info, seen, began):
                case _Entry.SHOWN:
                    seen.add(nfc(name))
                    shown.append(info)
                case _Entry.UNKNOWN_VERSION:
                    hidden.update(() if nfc(name) in children else (info.key,))
                    seen.add(nfc(name))
                case _Entry.UNSHOWABLE:
                    hidden.add(info.key)
    return MergePlan(
        marker=marker,
        refreshed=refreshed,
        objects=shown,
        directories=sorted(spellings.values()),  # a walk lists directories in the order of keys
        missing=_missing(tree, directory, seen, began),
        hidden=frozenset(hidden),
    )


def _is_unchanged(children: Children, name: str, info: ObjectInfo, seen: set[str]) -> bool:
    """True for a packed file of exactly this version and LastModified, which is added to `seen`."""
    packed = children.packed.get(name)
    if packed is None or name in seen or packed != pack(info.etag, info.size, info.modified_ns):
        return False
    seen.add(name)
    return True


def _directory_names(prefix: str, prefixes: Iterable[str], hidden: set[str]) -> dict[str, str]:
    """Return the directories by the name that is shown (NFC), as the bucket spells each; add the others to `hidden`.

    A server that distinguishes spellings may have two of the same name: NFC is shown.
    """
    names: dict[str, str] = {}
    for raw in sorted((each[len(prefix) : -1] for each in prefixes), key=lambda raw: (raw != nfc(raw), raw)):
        if not is_name(raw) or nfc(raw) in names:
            hidden.add(f"{prefix}{raw}/")
        else:
            names[nfc(raw)] = raw
    return names


def _judge(
    tree: Tree, child: Node | None, shown: str, info: ObjectInfo, seen: set[str], began: int
) -> _Entry:
    """Classify an object of a LIST. `child` has the name `shown` now; `seen`: names of entries before it."""
    if not is_name(shown) or nfc(shown) in seen:
        return _Entry.UNSHOWABLE
    if not info.etag:
        return _Entry.UNKNOWN_VERSION
    if child is not None and child.base == info.version:
        return _Entry.SHOWN  # a delete of this version was meant for an earlier object of the key
    return _Entry.DELETED if tree.hides(info.key, info.etag, began) else _Entry.SHOWN


def _missing(tree: Tree, directory: Node, seen: set[str], began: int) -> list[Node]:
    """Children that another host has removed. Not a directory with pending state below."""
    children = directory.children()
    for name in [name for name in children.packed if name not in seen]:
        children[name]  # its node
    return [
        child
        for child in children.nodes()
        if child.name not in seen
        and child.pending is None
        and child.touched <= began
        and not tree.is_pending_below(child)
    ]


def _apply(tree: Tree, directory: Node, plan: MergePlan, began: int) -> None:
    as_bucket = directory.pending is None and directory.touched <= began
    if as_bucket:
        tree.forget_marker(directory)  # another host may have removed it
    if plan.marker is not None:
        tree.set_marker(directory, plan.marker.version)
        if as_bucket and directory is not tree.root:
            tree.refreshed(directory, plan.marker)
    for child, info in plan.refreshed:
        tree.refreshed(child, info)
    prefix = tree.key(directory)
    for info in plan.objects:
        merge_object(tree, directory, info, began, prefix)
    for spelled in plan.directories:
        merge_prefix(tree, directory, spelled, began)
    for child in plan.missing:
        tree.gone(child)
    listing = listing_of(directory)
    listing.removed = {name: tick for name, tick in listing.removed.items() if tick > began}
    tree.hide_keys(directory, plan.hidden)


def merge_object(
    tree: Tree, directory: Node, info: ObjectInfo, began: int, prefix: str | None = None
) -> None:
    """Show an object of the bucket, unless this host changed the name since, or the object has no ETag.

    `prefix`: the directory's key, of a caller with many objects.
    """
    if not info.etag:
        return
    prefix = tree.key(directory) if prefix is None else prefix
    name = nfc(shown_name(info.key[len(prefix) :], info.size))
    child = directory.children().get(name)
    if child is None:
        if listing_of(directory).removed.get(name, 0) <= began:
            _expire_absent(tree, directory, name)
            line = packed_line(info, prefix + name, name)
            if line is not None:
                directory.children().add_packed(prefix, name, line)
            else:
                tree.add_object(directory, name, info)
            tree.noticed(directory)
    elif child.pending or child.touched > began or child.is_dir:
        return
    elif child.base == info.version:
        tree.refreshed(child, info)
    elif not child.writers:
        tree.replace(child, info)


def packed_line(info: ObjectInfo, key: str, name: str) -> bytes | None:
    """Return an object of a listing, with `name` at `key`, as `Children` keep a file without a node.

    None: a link, another spelling, or a conflict copy.
    """
    if info.key != key or is_link(key, info.size) or is_conflict_name(name):
        return None
    return pack(info.etag, info.size, info.modified_ns)


def _expire_absent(tree: Tree, directory: Node, name: str) -> None:
    """Make the kernel look up a name that another host has made.

    Before the first whole LIST the kernel has no listing to drop, and may hold as absent only names of which an
    answer or a removal by this host said so.
    """
    listing = listing_of(directory)
    if (
        listing.whole
        or listing.any_absent
        or name in listing.removed
        or (listing.absent is not None and name in listing.absent)
    ):
        tree.expire_name(directory, name)


def merge_prefix(tree: Tree, directory: Node, spelled: str, began: int) -> None:
    """Show a directory below which the bucket holds keys. `spelled`: its name in these keys."""
    name = nfc(spelled)
    child = directory.children().get(name)
    if child is None:
        if listing_of(directory).removed.get(name, 0) <= began:
            _expire_absent(tree, directory, name)
            tree.add_prefix(directory, spelled)
            tree.noticed(directory)
    elif child.is_dir:
        if (child.spelled or name) != spelled and not tree.is_pending_below(child):
            unpack_below(child)
            _move_keys(child, spelled)
    elif not child.pending and child.touched <= began and not child.writers:
        tree.detach(child)
        tree.expire_name(directory, name)
        tree.add_prefix(directory, spelled)


def _move_keys(directory: Node, spelled: str) -> None:
    """Note another spelling of a directory's name in its keys: its listing was that of the former keys."""
    directory.spelled = spelled if spelled != directory.name else None
    listing = listing_of(directory)
    listing.listed_at_s = NEVER
    listing.probed.clear()


def as_stored(tree: Tree, node: Node) -> Node:
    """Return the node under the name, of the kind that the object's metadata have: listings show a FIFO as a file.

    The kernel keeps the type of a known inode, so that another kind is another node.
    """
    kind, parent = node.stored_kind, node.parent
    if kind is None or kind is node.kind or parent is None:
        return node
    if node.pending or node.handles or node.deleted:
        return node
    tree.detach(node)
    tree.expire_name(parent, node.name)
    found = tree.add(parent, node.name, kind, node.mtime_ns)
    take_attributes(found, node)
    return found
