"""Kept metadata: what an object says of a file that has left its name, asked for before the object goes.

Owns:    nothing. A file that is overwritten without having been read keeps its metadata (a Content-Type, what
         other tools wrote beside it): its upload asks for them. Where it has another name by then, and a new file
         takes the old one, that file's upload asks first.
Never:   asks where everything is known: that is nearly always.
Locks:   takes Core.lock (30); none while the request is on its way.
Fails:   StoreError: then nothing is replaced yet.
"""

from __future__ import annotations

from dataclasses import replace

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import fill
from r2fs.engine.pending.records import Records
from r2fs.model.errors import ObjectMissing, R2fsError
from r2fs.model.metadata import attributes_from, of_new_bytes
from r2fs.model.records import ObjectInfo


class KeptMetadata:
    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._attempts = records.attempts
        self._pending = records.pending

    def before_replacing(self, key: str, by: Node) -> None:
        """To be called before a request that takes away what is at `key`, on behalf of another file."""
        with self._core.lock:
            if not self._asking(key, by):
                return
        try:
            info = self._core.store.head(key)
        except ObjectMissing:
            return
        with self._core.lock:
            for node in self._asking(key, by):
                self._learn(node, info)

    def _asking(self, key: str, by: Node) -> list[Node]:
        """Files that still want to know. With Core.lock held."""
        return [
            node
            for node in self._pending.based_on(key)
            if node is not by
            and not node.metadata_known
            and node.pending is not None
            and node.pending.changed
        ]

    def _learn(self, node: Node, info: ObjectInfo) -> None:
        if (
            node.base is None
            or node.base.etag != info.etag
            or self._attempts.is_ours(info.metadata, info.key)
        ):
            node.metadata_known = (
                True  # other bytes; or the same by another file of this host, which has its own
            )
            return
        facts = attributes_from(info)
        fill(node, replace(facts, extra=of_new_bytes(facts.extra)))
        node.metadata_known = True  # there is nobody else to ask
        try:
            assert node.pending is not None
            self._pending.commit(node, node.pending)
        except R2fsError:
            node.metadata_known = False  # asked again, for its row does not say so
            raise
