"""Listing a directory tree in the order in which a bucket lists its keys.

Owns:  that order (UTF-8 bytes of the whole key), and which subtrees need not be read.
Never: knows side files: whether a directory is an object is its caller's question.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

OWN = ".r2fs"  # r2fs's own directory in the root: never listed


class Walk:
    """Yields (key, stat) for files and directories (key ends with `/`), (prefix, None) for prefixes.

    `after` is a key, or, with `is_token`, a key or common prefix that was listed already.
    """

    def __init__(self, root: Path, prefix: str, delimiter: str, after: str, is_token: bool) -> None:
        self._root = root
        self._prefix = prefix
        self._delimiter = delimiter
        self._after = after
        self._is_token = is_token

    def __iter__(self) -> Iterator[tuple[str, os.stat_result | None]]:
        return self._below("")

    def _below(self, directory: str) -> Iterator[tuple[str, os.stat_result | None]]:
        for key, entry in self._children(directory):
            if not key.startswith(self._prefix):
                if key.endswith("/") and self._prefix.startswith(key):
                    yield from self._below(key)  # the prefix is further down
                continue
            if not key.endswith("/"):
                if key > self._after:
                    yield from self._stat(key, entry)
            elif self._delimiter and key != self._prefix:
                if key > self._after or self._begins_inside(key):
                    yield key, None
            else:
                if key > self._after:
                    yield from self._stat(key, entry)
                if key > self._after or self._after.startswith(key):
                    yield from self._below(key)

    def _begins_inside(self, key: str) -> bool:
        """start-after names a key below this prefix: the prefix still has keys to show."""
        return not self._is_token and self._after != key and self._after.startswith(key)

    def _stat(self, key: str, entry: os.DirEntry[str]) -> Iterator[tuple[str, os.stat_result]]:
        try:
            yield key, entry.stat()
        except FileNotFoundError:
            return  # another program removed it meanwhile

    def _children(self, directory: str) -> list[tuple[str, os.DirEntry[str]]]:
        """In key order: a directory sorts as its name with the slash."""
        found = []
        try:
            with os.scandir(self._root / directory) as entries:
                for entry in entries:
                    name = listed_name(entry)
                    if name is not None and not (not directory and entry.name == OWN):
                        found.append((directory + name, entry))
        except (FileNotFoundError, NotADirectoryError):
            pass  # removed while the listing went on
        # Code points sort as their UTF-8 bytes do.
        return sorted(found, key=lambda pair: pair[0])


def listed_name(entry: os.DirEntry[str]) -> str | None:
    """The name as part of a key; None for what cannot be an object.

    Links to directories are not followed: they may lead in circles.
    """
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return None
    if entry.is_dir(follow_symlinks=False):
        return entry.name + "/"
    return entry.name if entry.is_file() else None
