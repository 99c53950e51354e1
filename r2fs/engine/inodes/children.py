"""Children: the known names of a directory, with a node for each name in use.

A file without a lookup since the listing is packed: ETag, size and LastModified in some 60 bytes, a tenth of a
node. No node is packed again: another thread may be about to use the node. For readers a Mapping of names to nodes.
Reading all `values` or `items` makes a node for each name: loops over directories or pending state go through
`nodes`.

Locks: Core.lock around every method: a lookup may make a node.
"""

from __future__ import annotations

import struct
from binascii import hexlify
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, NamedTuple, TypeVar, overload

from r2fs.engine.inodes.inode_numbers import derived_of
from r2fs.model.directory_lines import DirectoryLines, encoded
from r2fs.model.etags import is_md5
from r2fs.model.keys import nfc

if TYPE_CHECKING:
    from r2fs.engine.inodes.inode import Node

T = TypeVar("T")

# The low 32 bits of the size in bytes; its further bits, below PLAIN; LastModified in ns. The ETag follows.
_HEAD = struct.Struct("<IHq")
_PLAIN = 1 << 15  # the ETag is 16 bytes; else its text


class Packed(NamedTuple):
    """A file as a listing tells."""

    etag: str
    size: int
    modified_ns: int


def pack(etag: str, size: int, modified_ns: int) -> bytes:
    """Return the three as bytes, of which equal ones are equal. Sizes are below 128 TiB.

    >>> len(pack("0cc175b9c0f1b6a831c399e269772661", 5 << 40, 1_700_000_000_000_000_000))
    30
    >>> unpack(pack("0cc175b9c0f1b6a831c399e269772661-3", 1, -17))
    Packed(etag='0cc175b9c0f1b6a831c399e269772661-3', size=1, modified_ns=-17)
    """
    low, high = size & 0xFFFF_FFFF, size >> 32
    if is_md5(etag):
        return _HEAD.pack(low, high | _PLAIN, modified_ns) + bytes.fromhex(etag)
    return _HEAD.pack(low, high, modified_ns) + etag.encode("utf-8", "surrogateescape")


def unpack(packed: bytes) -> Packed:
    low, high, modified_ns = _HEAD.unpack_from(packed)
    rest = packed[_HEAD.size :]
    etag = rest.hex() if high & _PLAIN else rest.decode("utf-8", "surrogateescape")
    return Packed(etag, (high & ~_PLAIN) << 32 | low, modified_ns)


def etag_of(packed: bytes) -> bytes:
    """The ETag alone, as text in bytes."""
    rest = packed[_HEAD.size :]
    return hexlify(rest) if packed[5] & 0x80 else rest


class Children(Mapping[str, "Node"]):
    """`make(key, name, packed)` returns the node of a packed file."""

    def __init__(self, make: Callable[[str, str, Packed], Node]) -> None:
        self._make = make  # constant
        # guarded by: Core.lock
        self._nodes: dict[str, Node] = {}
        self._packed: dict[str, bytes] = {}
        self._prefix = ""  # the directory's key: no directory moves that has packed files
        self.unread = 0  # files packed since the rows of the attribute cache were read

    # ------------------------------------------------------------------ a mapping of nodes
    def __getitem__(self, name: str) -> Node:
        node = self._nodes.get(name)
        if node is None:
            node = self._make(self._prefix + name, name, unpack(self._packed[name]))
            self._nodes[name] = node
            del self._packed[name]
        return node

    @overload
    def get(self, name: str, /) -> Node | None: ...
    @overload
    def get(self, name: str, /, default: Node | T) -> Node | T: ...
    def get(self, name: str, /, default: object = None) -> object:
        """A lookup of an absent name raises no exception on the way."""
        node = self._nodes.get(name)
        if node is not None:
            return node
        return self[name] if name in self._packed else default

    def __contains__(self, name: object) -> bool:
        return name in self._nodes or name in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter([*self._packed, *self._nodes])

    def __len__(self) -> int:
        return len(self._nodes) + len(self._packed)

    def items(self) -> ItemsView[str, Node]:
        return self._all().items()

    def values(self) -> ValuesView[Node]:
        return self._all().values()

    def _all(self) -> Mapping[str, Node]:
        for name in list(self._packed):
            self[name]
        return self._nodes

    # ------------------------------------------------------------------ without making nodes
    def nodes(self) -> ValuesView[Node]:
        """The children that have a node: among them are all directories, and all with pending state or handles."""
        return self._nodes.values()

    @property
    def packed(self) -> Mapping[str, bytes]:
        """The other children, in the form of `pack`."""
        return self._packed

    def lines(self, key: str, valid_s: float) -> DirectoryLines:
        """Return the names for READDIR, of the directory `key` and fresh for `valid_s` seconds.

        The numbers of packed files are computed later, without the lock.
        """
        prefix = encoded(nfc(key))
        names, packed = list(self._packed), list(self._packed.values())

        def numbers(start: int, stop: int) -> list[int]:
            each = zip(names[start:stop], packed[start:stop], strict=True)
            return [derived_of(prefix, name, etag_of(line)) for name, line in each]

        nodes = [(node.name, node.kind, node.st_ino) for node in self.nodes()]
        return DirectoryLines(nodes, names, numbers, valid_s)

    # ------------------------------------------------------------------ changes, by this room alone
    def add(self, name: str, node: Node) -> None:
        self._nodes[name] = node

    def add_packed(self, prefix: str, name: str, packed: bytes) -> None:
        """Add a file of the directory with the key `prefix`."""
        self._packed[name], self._prefix = packed, prefix
        self.unread += 1

    def add_all_packed(self, prefix: str, names: Sequence[str], lines: Sequence[bytes]) -> None:
        """Add files, of which no name is known yet."""
        before, self._prefix = len(self), prefix
        self._packed.update(zip(names, lines, strict=True))
        self.unread += len(self) - before

    def were_read(self, count: int) -> None:
        """Note that of `count` unread files those with a row in the attribute cache have got a node."""
        self.unread -= count

    def remove(self, name: str) -> None:
        del self._nodes[name]

    def drop_packed(self) -> None:
        self._packed.clear()
