"""Presence: how many bytes of a file are on this host: open, staged, or in the cache.

Owns:  the one definition, for the attribute `user.r2fs.cached` and for commands.
Never: counts as a use of the cache's entry; opens a file.
"""

from __future__ import annotations

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node


def bytes_here_locked(core: Core, node: Node) -> int:
    """Return the number of the file's bytes on this disk; 0 for a directory. Takes the cache's lock inside."""
    core.assert_held()
    if node.content is not None:
        return node.content.size if node.content.complete else node.content.snapshot().present.total()
    if node.pending is not None and node.pending.staged is not None:
        return node.pending.size
    if node.base is None or node.is_dir:
        return 0
    return core.cache.bytes_of(node.base)
