"""Inode numbers for stat: the same over mounts, and no two live inodes with one number.

A number is 63 bits of a hash of key and ETag, equal on every mount and host, also with an empty cache; of a
directory's key alone, since the ETag of an empty object says nothing. A file made by this host shows the number of
its node, unique on one state directory. A number in use (by chance, or of a renamed directory while another is made
under its old name) is replaced by the next of a fixed sequence: to cp, tar and rsync, inodes of one number are hard
links.

Locks: Core.lock around every method. Between engine and driver the number is Node.ino.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from r2fs.model.keys import nfc
from r2fs.model.verbs import ROOT

_BITS: Final = (1 << 63) - 1  # integers of SQLite, and of some programs, have a sign
_RESERVED: Final = frozenset({0, ROOT, 0xFFFFFFFF})  # unset; the root; FUSE's "unknown"


class InodeNumbers:
    def __init__(self) -> None:
        self._taken = set(_RESERVED)

    def claim(self, wanted: int) -> int:
        """Take and return `wanted`, or the next free number of its sequence."""
        while wanted in self._taken:
            wanted = _hash(wanted.to_bytes(8, "big"))
        self._taken.add(wanted)
        return wanted

    def release(self, number: int) -> None:
        if number not in _RESERVED:
            self._taken.discard(number)


def derived(key: str, etag: str = "") -> int:
    """Return the number of a version of an object; without an ETag, of the directory `key`."""
    return _hash(f"{etag}\0{nfc(key)}".encode("utf-8", "surrogateescape"))


def derived_of(prefix: bytes, name: str, etag: bytes) -> int:
    """`derived`, for many names: `prefix` is the key of their directory in NFC, `name` is in NFC."""
    return _hash(b"%b\0%b%b" % (etag, prefix, name.encode("utf-8", "surrogateescape")))


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") & _BITS
