"""Lines: the names of a directory for READDIR, with the numbers that stat shows.

Locks: Core.lock, held by the caller. The numbers of packed files are computed later, without.
"""

from __future__ import annotations

from r2fs.engine.inodes.children import Children, etag_of
from r2fs.engine.inodes.inode_numbers import derived_of
from r2fs.model.directory_lines import DirectoryLines, encoded
from r2fs.model.keys import nfc


def lines_of(children: Children, key: str, valid_s: float) -> DirectoryLines:
    """Return the names of the directory `key`, fresh for `valid_s` seconds."""
    prefix = encoded(nfc(key))
    names, packed = list(children.packed), list(children.packed.values())

    def numbers(start: int, stop: int) -> list[int]:
        each = zip(names[start:stop], packed[start:stop], strict=True)
        return [derived_of(prefix, name, etag_of(line)) for name, line in each]

    nodes = [(node.name, node.kind, node.st_ino) for node in children.nodes()]
    return DirectoryLines(nodes, names, numbers, valid_s)
