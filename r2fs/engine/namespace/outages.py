"""Outages: whether each bucket of the mount answers, by the last request for a listing or a name.

Locks:   Core.lock around changes; a look needs none.
"""

from __future__ import annotations

from r2fs.engine.inodes.bucket_roots import bucket_of
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.writeback.failures import BUCKET_WIDE
from r2fs.model.errors import R2fsError, Retryable

AWAY = (Retryable, *BUCKET_WIDE)  # errors without information on the directory


class Outages:
    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._away: dict[str, bool] = {}  # by bucket: the last request got no answer
        self._assumed = False  # of a bucket without a request so far

    def at_key(self, key: str) -> bool:
        """True if the last request in the key's bucket got no answer."""
        bucket = self._core.settings.bucket
        return self._away.get(bucket.split(key)[0] if bucket.several else "", self._assumed)

    def at(self, node: Node) -> bool:
        """True if the last request in the node's bucket got no answer."""
        return self._away.get(bucket_of(self._core, node), self._assumed)

    def heard_locked(self, node: Node, error: R2fsError | None) -> None:
        """Note the end of a request in the node's bucket."""
        self._core.assert_held()
        self._away[bucket_of(self._core, node)] = isinstance(error, AWAY)

    def silent(self, node: Node) -> None:
        """Note a request in the node's bucket that has no answer after NEWS_WAIT_S."""
        with self._core.lock:
            self._away[bucket_of(self._core, node)] = True

    def assume(self) -> None:
        """Note an outage before the first request."""
        with self._core.lock:
            self._assumed = True

    def assume_none(self) -> None:
        """Wait for the next answers again: a person wants news."""
        with self._core.lock:
            self._away.clear()
            self._assumed = False
