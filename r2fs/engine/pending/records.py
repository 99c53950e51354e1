"""Records: inodes, pending state and attempts, which all rooms above read and change under Core.lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.engine.pending.attempts import Attempts
from r2fs.engine.pending.store import PendingStore


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    core: Core
    tree: Tree  # inodes, names and numbers
    pending: PendingStore
    attempts: Attempts

    @classmethod
    def of(cls, core: Core, staging_garbage: Callable[[str, Node], None]) -> Records:
        """Return empty ones; `staging_garbage` is called for each staged file after a commit has deleted the row."""
        pending = PendingStore(core, staging_garbage)
        return cls(core, Tree(core, pending.deletes.hides), pending, Attempts(core, pending))
