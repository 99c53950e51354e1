"""Conflicts: two hosts wrote one name; both contents stay.

Owns:  how the loser of a race is named, and where it appears.
Never: decides that there is a conflict (the bucket's 412 does); discards bytes.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

import logging

from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.keys import MAX_KEY_BYTES, SYMLINK_SUFFIX, conflict_name, nfc, printable
from r2fs.model.records import Kind, ObjectInfo
from r2fs.model.transitions import conflict_renamed

log = logging.getLogger(__name__)


class Conflicts:
    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending

    def keep_both(self, node: Node, theirs: ObjectInfo) -> None:
        """The node takes a conflict name; what is in the bucket under its key keeps the name."""
        parent, name = node.parent, node.name
        assert parent is not None and node.pending is not None
        meant_for = node.pending.conflict_of or node.pending.key
        new_name = self._free_name(parent, _name_of(meant_for, node))
        new_key = self._tree.key(parent) + new_name + (SYMLINK_SUFFIX if node.kind is Kind.SYMLINK else "")
        self._pending.commit(node, conflict_renamed(node.pending, new_key, meant_for))
        self._core.crash_point("conflict_journalled")
        self._tree.move(node, parent, new_name)
        self._tree.show(parent, theirs)
        self._core.kernel.forget_name(parent.ino, name)
        self._core.kernel.forget_name(parent.ino, new_name)
        log.warning(
            "%s: another host wrote it first; this host's content is kept as %s",
            printable(name),
            printable(self._tree.path(node)),
        )

    def _free_name(self, parent: Node, name: str) -> str:
        host, when = self._core.settings.host, self._core.clock.time()
        room = MAX_KEY_BYTES - len((self._tree.key(parent) + SYMLINK_SUFFIX).encode())
        number = 1
        while True:
            candidate = conflict_name(name, host, when, number)
            if len(candidate.encode()) > room and len(name) > 1:
                name = name[1:]  # the key would be too long
            elif candidate in parent.children():
                number += 1
            else:
                return candidate


def _name_of(key: str, node: Node) -> str:
    """The name that the node was to have, as the tree shows it."""
    last = key.rpartition("/")[2]
    return nfc(last.removesuffix(SYMLINK_SUFFIX) if node.kind is Kind.SYMLINK else last)
