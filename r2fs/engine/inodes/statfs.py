"""StatFs: bytes and files of the mount, summed over the known inodes, for statfs and for the quota.

A directory that was never listed counts as empty: its size would cost a listing of the whole bucket.
"""

from __future__ import annotations

from r2fs.engine.inodes.children import unpack
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.model.errors import NoSpace
from r2fs.model.records import FileSystemStats

BUCKET_BYTES = 1 << 50  # a bucket has no size; no program needs more than 1 PiB
BUCKET_FILES = 1 << 32
KEPT_S = 1.0  # age of a sum: programs call statfs in loops


class StatFs:
    def __init__(self, core: Core, tree: Tree) -> None:
        # constant
        self._core = core
        self._tree = tree
        # guarded by: Core.lock
        self._summed_at_s = float("-inf")  # Clock.monotonic()
        self._used = self._files = 0

    def stats(self) -> FileSystemStats:
        used, files = self._sums()
        total = self._core.settings.quota or BUCKET_BYTES
        return FileSystemStats(
            total=max(total, used),
            free=max(0, total - used),
            files=BUCKET_FILES,
            files_free=BUCKET_FILES - files,
        )

    def admit(self) -> None:
        """Raise NoSpace if the quota is reached. Called before a write."""
        quota = self._core.settings.quota
        if quota and self._sums()[0] >= quota:
            raise NoSpace(f"the mount holds {self._used} bytes: quota is {quota}")

    def _sums(self) -> tuple[int, int]:
        with self._core.lock:
            now = self._core.clock.monotonic()
            if now - self._summed_at_s >= KEPT_S:
                nodes = [node for node in self._tree.all_nodes() if not node.deleted]
                packed = [line for node in nodes if node.is_dir for line in node.children().packed.values()]
                self._used = sum(map(_size, nodes)) + sum(unpack(line).size for line in packed)
                self._files = len(nodes) + len(packed)
                self._summed_at_s = now
            return self._used, self._files


def _size(node: Node) -> int:
    if node.is_dir:
        return 0
    if node.content is not None and node.writers:
        return node.content.size
    return node.pending.size if node.pending is not None and node.pending.staged else node.size
