"""Presence: how many bytes of a file are on this host: open, staged, or in the cache.

Owns:  the one definition, for the attribute `user.r2fs.cached` and for commands.
Never: counts as a use of the cache's entry; opens a file.
"""

from __future__ import annotations

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node


def bytes_here_locked(core: Core, node: Node) -> int:
    """Return the number of the file's bytes on this disk; 0 for a directory. Takes the cache's lock inside."""
    here = open_or_staged_locked(core, node)
    if here is not None:
        return here
    if node.base is None or node.is_dir:
        return 0
    return core.cache.bytes_of(node.base)


def open_or_staged_locked(core: Core, node: Node) -> int | None:
    """Return the number of bytes in the file's open or staged content; None: no such content, and the cache counts."""
    core.assert_held()
    if node.content is not None:
        return node.content.size if node.content.complete else node.content.snapshot().present.total()
    if node.pending is not None and node.pending.staged is not None:
        return node.pending.size
    return None
