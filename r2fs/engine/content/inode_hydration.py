"""Hydration of an inode, open or not: all bytes of its base object that are missing on this host.

Never:   requests ranges (`content/hydrate.py`).
Threads: every public method is thread-safe.
Locks:   takes Core.lock (30). No request and no wait under it.
Fails:   as Reader does.
"""

from __future__ import annotations

from contextlib import suppress

from r2fs.disk.open_file import ContentClosed
from r2fs.engine.content.hydrate import Reader
from r2fs.engine.content.local_file import Contents
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.ports import Caller


class Hydration:
    def __init__(self, core: Core, contents: Contents, reader: Reader) -> None:
        self._core = core
        self._contents = contents
        self._reader = reader

    def whole(self, node: Node, caller: Caller, keep: bool = False) -> bool:
        """Download all missing bytes. False: the local file was closed meanwhile; where it is still needed, repeat.

        `keep`: the file is about to be this host's; all of it stays on the disk, whatever the cache's limit.
        """
        with self._core.lock:
            source = self._contents.source(node)
            if keep and source is not None:
                self._contents.keep_whole(node)
        if source is None:
            return True
        try:
            self._reader.whole(source, caller)
        except ContentClosed:
            return False
        return True

    def read_whole(self, node: Node, caller: Caller) -> bytes:
        """Return all bytes of an inode that need not be open: a symbolic link's target."""
        while True:
            with self._core.lock:
                self._contents.wake(node)
                content = self._contents.of(node)
            with suppress(ContentClosed):  # by another reader's last close meanwhile: repeat
                if self.whole(node, caller):
                    return content.read(0, content.size)
