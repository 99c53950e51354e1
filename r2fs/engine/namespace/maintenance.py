"""Maintenance: parts of the repair commands and of their views, put together for the daemon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r2fs.engine.content.cache_care import CacheCare
from r2fs.engine.content.prefetch import Prefetch
from r2fs.engine.namespace.discard import Discards
from r2fs.engine.namespace.file_views import FileViews
from r2fs.engine.namespace.named_paths import Scopes
from r2fs.engine.namespace.shares import Shares
from r2fs.engine.namespace.stored_sizes import StoredSizes
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.transfers import Transfers
from r2fs.model.settings import Settings
from r2fs.model.values import dataclass
from r2fs.model.views import TransferView


@dataclass(frozen=True, slots=True, eq=False)
class Maintenance:
    records: Records
    scopes: Scopes
    transfers: Transfers
    prefetch: Prefetch
    file_views: FileViews
    shares: Shares
    discards: Discards
    stored_sizes: StoredSizes
    cache_care: CacheCare

    @property
    def settings(self) -> Settings:
        """The settings in force: a changed file has replaced limits and prices."""
        return self.records.core.settings

    def set_frugal(self, frugal: bool) -> None:
        """Fetch nothing ahead of need, from now on or no more: the month's budget is used up."""
        with self.records.core.lock:
            self.records.core.set_frugal_locked(frugal)

    def surplus(self) -> int:
        """Return the number of files fetched ahead and not opened."""
        with self.records.core.lock:
            return self.prefetch.surplus

    def paths_of(self, inos: Sequence[int]) -> dict[int, str]:
        """Return the paths of the inodes with a name."""
        tree = self.records.tree
        with self.records.core.lock:
            nodes = [node for node in map(tree.find, inos) if node is not None and not node.deleted]
            return {node.ino: tree.path(node) for node in nodes}

    def pending_pages(self, paths: Sequence[str]) -> Iterator[tuple[TransferView, ...]]:
        """Yield all pending uploads and deletes at and below these paths (none: anywhere)."""
        return self.transfers.pages(self.scopes.of(paths, must_be=False))
