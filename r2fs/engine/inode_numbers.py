"""Inode numbers as programs see them: the same over mounts, and no two live inodes with one number.

Owns:  the numbers in use, and how one is derived where none is kept: 63 bits of a hash of key and ETag, so
       that every mount, host and empty cache shows the same; of a directory's key alone, since its object
       says nothing of it. A file that is made here is shown the number of its node, which never comes twice on
       one state directory. What is shown and cannot be derived is kept (recall.py).
Never: is a number between engine and driver: that is Node.ino.
Locks: every method is called with Core.lock held.

Two live inodes of one number would be hard links to cp, tar and rsync. So a number that is in use (by chance;
by a directory that was renamed, while another is made under its old name) leads to the next of a fixed sequence.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from r2fs.model.keys import nfc
from r2fs.model.verbs import ROOT

_BITS: Final = (1 << 63) - 1  # SQLite's integers have a sign, and so have some programs'
_RESERVED: Final = frozenset({0, ROOT, 0xFFFFFFFF})  # none yet; the root's; FUSE's "unknown"


class InodeNumbers:
    def __init__(self) -> None:
        self._taken = set(_RESERVED)

    def claim(self, wanted: int) -> int:
        """`wanted`, or where a live inode has it, another that follows from it."""
        while wanted in self._taken:
            wanted = _hash(wanted.to_bytes(8, "big"))
        self._taken.add(wanted)
        return wanted

    def release(self, number: int) -> None:
        if number not in _RESERVED:
            self._taken.discard(number)


def derived(key: str, etag: str = "") -> int:
    """Of a version of an object; without an ETag, of the directory `key`."""
    return _hash(f"{etag}\0{nfc(key)}".encode("utf-8", "surrogateescape"))


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") & _BITS
