"""Download of one object into the tree: complete, compared, on the disk, and only then under its name.

Never:   replaces a file that is not the expected one, or that a program has open for writing.
Fails:   StoreError, PreconditionFailed where the object is another version by now; Changed; LocalError, NoSpace.
"""

from __future__ import annotations

import hashlib
import os

from r2fs.disk.filecalls import local_error, pwrite_all
from r2fs.disk.mirror_record import MirrorRecord
from r2fs.disk.plain_tree import WHOLE, Local, PlainTree
from r2fs.model.errors import BodyDamaged, NoSpace
from r2fs.model.keys import printable
from r2fs.model.metadata import attributes_from
from r2fs.model.ports import Download, ObjectStore
from r2fs.model.records import ObjectInfo

TRIES = 2  # of an object whose bytes are not those of its MD5


class Downloader:
    def __init__(self, store: ObjectStore, tree: PlainTree, record: MirrorRecord, umask: int) -> None:
        # constant
        self._store = store
        self._tree = tree
        self._record = record
        self._umask = umask

    def fetch(self, info: ObjectInfo, path: str, expected: Local | None) -> Local:
        """Put the object's version `info` under the name `path`, in place of the file `expected`. Returns its evidence."""
        own, fd = self._tree.new_file()
        made: Local | None = None
        try:
            try:
                self._fill(fd, info)
            finally:
                os.close(fd)
            made = self._tree.evidence(own)
            if expected is not None:
                part, own = own, self._tree.new_name(WHOLE)
                self._record.add_leaving(own, path, made.ino)
                self._tree.complete(part, own)
            placed = self._tree.place(own, made, path, expected)
        except BaseException:
            if made is None:
                self._tree.discard(own)
            elif self._tree.discard_own(own, made):
                self._record.drop_leaving(own)
            raise
        if expected is not None:
            self._record.drop_leaving(own)
        return placed

    def _fill(self, fd: int, info: ObjectInfo) -> None:
        for number in range(1, TRIES + 1):
            with self._store.get(info.key, if_match=info.etag) as download:
                try:
                    self._write(fd, info, download)
                except BodyDamaged:
                    if number == TRIES:
                        raise
                    continue
                known = attributes_from(download.info)
            try:
                os.fchmod(fd, 0o666 & ~self._umask if known.mode is None else known.mode & 0o777)
                mtime_ns = download.info.modified_ns if known.mtime_ns is None else known.mtime_ns
                os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.fsync(fd)
            except OSError as error:
                raise local_error(error, printable(info.key)) from error
            return

    def _write(self, fd: int, info: ObjectInfo, download: Download) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        at = 0
        try:
            os.ftruncate(fd, 0)
            for data in download.chunks():
                digest.update(data)
                if pwrite_all(fd, data, at) < len(data):
                    raise NoSpace(f"{printable(info.key)}: no space left on this disk")
                at += len(data)
        except OSError as error:
            raise local_error(error, printable(info.key)) from error
        if at != download.info.size or download.info.md5 not in (None, digest.hexdigest()):
            raise BodyDamaged(
                f"{printable(info.key)}: the bytes that came are not the object's (MD5 {digest.hexdigest()})"
            )
