"""Listing a directory tree in the order in which a bucket lists its keys.

Owns:  the order (UTF-8 bytes of the whole key), and the choice of subtrees to read.
Never: reads side files: `is_marker` decides whether a directory is an object.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from r2fs.store.local.files import OWN

Listed = tuple[str, os.stat_result | None]  # a key and its stat, or a common prefix and None


@dataclass(frozen=True, slots=True)
class Tree:
    root: Path
    is_marker: Callable[[str], bool]  # of a directory's key

    def holds_object(self, directory: str) -> bool:
        """True if an object is at or below the key `directory`, which ends with a slash."""
        below = []
        for key, _ in self.children(directory):
            if not key.endswith("/"):
                return True
            below.append(key)
        return self.is_marker(directory) or any(map(self.holds_object, below))

    def children(self, directory: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Keys of files and directories in `directory`, in no order."""
        try:
            with os.scandir(self.root / directory) as entries:
                for entry in entries:
                    name = listed_name(entry)
                    if name is not None and (directory or entry.name != OWN):
                        yield directory + name, entry
        except (FileNotFoundError, NotADirectoryError):
            pass  # removed during the listing


@dataclass(frozen=True, slots=True)
class Walk:
    """One listing. `after` is a key, or, with `is_token`, a key or common prefix that was listed already."""

    tree: Tree
    prefix: str
    delimiter: str
    after: str
    is_token: bool

    def __iter__(self) -> Iterator[Listed]:
        return self._below("")

    def _below(self, directory: str) -> Iterator[Listed]:
        # Code points sort as their UTF-8 bytes do. A directory sorts as its name with the slash.
        for key, entry in sorted(self.tree.children(directory), key=lambda pair: pair[0]):
            if key.startswith(self.prefix):
                yield from self._listed(key, entry)
            elif key.endswith("/") and self.prefix.startswith(key):
                yield from self._below(key)

    def _listed(self, key: str, entry: os.DirEntry[str]) -> Iterator[Listed]:
        is_directory = key.endswith("/")
        if is_directory and self.delimiter and key != self.prefix:
            if (key > self.after or self._begins_inside(key)) and self.tree.holds_object(key):
                yield key, None
            return
        if key > self.after and (not is_directory or self.tree.is_marker(key)):
            yield from _stat(key, entry)
        if is_directory and (key > self.after or self.after.startswith(key)):
            yield from self._below(key)

    def _begins_inside(self, key: str) -> bool:
        """True if start-after names a key below this prefix, which may have more keys to list."""
        return not self.is_token and self.after != key and self.after.startswith(key)


def _stat(key: str, entry: os.DirEntry[str]) -> Iterator[Listed]:
    try:
        yield key, entry.stat()
    except FileNotFoundError:
        return  # removed by another program since


def listed_name(entry: os.DirEntry[str]) -> str | None:
    """Name as part of a key; None if it cannot be an object. Links to directories may form circles: not followed."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return None
    if entry.is_dir(follow_symlinks=False):
        return entry.name + "/"
    return entry.name if entry.is_file() else None
