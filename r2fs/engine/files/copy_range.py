"""Copy range: copy_file_range(2) between two open files, by the file system of the cache.

Owns:    the download of what the source lacks, a piece at a time; the note from which version a file was copied.
         A whole file of which bytes are missing here is copied inside the bucket, where `bucket_copy.py` can.
Never:   copies a file that streams: its bytes may be released meanwhile. Decides what is uploaded.
Threads: `copy` is thread-safe.
Locks:   takes Core.lock; not while bytes are downloaded or copied.
Fails:   NotSupported where the kernel has to read and write; BadHandle; ReadFailed and Stale of a download.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.source import Source
from r2fs.engine.content.storage import Storage
from r2fs.engine.files.bucket_copy import BucketCopy
from r2fs.engine.files.open_files import Files
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import BadHandle, NotSupported
from r2fs.model.ports import Caller
from r2fs.model.records import Version

MOST: Final = 1 << 30  # bytes copied for one answer on this host: as long
PIECE: Final = 16 << 20  # bytes downloaded for one answer: a program that is interrupted waits for no more


@dataclass(frozen=True, slots=True)
class _Pair:
    """The local files of two handles."""

    source: Node
    target: Node
    there: SparseFile  # the source's
    into: SparseFile  # the target's
    missing: Source | None  # where the source's missing bytes come from; None: it is complete
    version: Version | None  # of a source whose bytes are in the bucket


class CopyRange:
    def __init__(self, records: Records, storage: Storage, files: Files, bucket_copy: BucketCopy) -> None:
        self._core = records.core
        self._pending = records.pending
        self._contents = storage.contents
        self._reader = storage.reader
        self._copied = storage.copied_files
        self._files = files
        self._bucket_copy = bucket_copy

    def copy(
        self, caller: Caller, handle: int, offset: int, target: int, target_offset: int, length: int
    ) -> int:
        """Copy bytes from one handle to another; return their number, which may be smaller than `length`."""
        caller.about_to_wait()
        if offset == target_offset == 0 and (whole := self._whole(caller, handle, target, length)):
            return whole
        with self._core.lock:
            if offset >= self._contents.of(self._files.handles.get(handle).node).size:
                return 0
            pair = self._pair_locked(handle, target)
        there, into = pair.there, pair.into
        length = max(0, min(length, MOST, there.size - offset))
        if pair.missing is not None and length:
            length = min(length, PIECE)
            self._reader.ensure(pair.missing, offset, offset + length, caller)
        self._files.pressure.pace(caller, target_offset + length - into.size)
        done = _copy(there, into, length, offset, target_offset) if length else 0
        if not there.covers(offset, offset + done) or there.streams:
            raise NotSupported("copy_file_range: bytes were released meanwhile")
        with self._core.lock:
            if pair.version is not None and pair.version == pair.source.base and offset == target_offset:
                self._copied.note_locked(pair.target.ino, pair.version, offset, offset + done)
        return done

    def _whole(self, caller: Caller, number: int, target_number: int, length: int) -> int:
        """Copy the whole file inside the bucket; return its bytes, or 0: it cannot be copied so, or not at once."""
        with self._core.lock:
            source, target = self._files.handles.get(number), self._files.handles.get(target_number)
            version = source.node.base
            if version is None or length < version.size or not target.writes or target.descriptor:
                return 0
        if not self._bucket_copy.copy(caller, source.node, target.node):
            return 0
        return version.size

    def _pair_locked(self, number: int, target_number: int) -> _Pair:
        self._core.assert_held()
        source, target = self._files.handles.get(number), self._files.handles.get(target_number)
        if not target.writes:
            raise BadHandle("the target of copy_file_range is not open for writing")
        there, into = self._contents.of(source.node), self._contents.of(target.node)
        pending = target.node.pending
        if (
            source.rule is not None
            or there.streams
            or not into.complete
            or pending is None
            or pending.lists_ranges
        ):
            raise NotSupported("copy_file_range: some bytes are missing")
        self._pending.note_open_write(target.node)
        into.unwatch()
        version = source.node.base if source.node.has_bytes_of_base else None
        return _Pair(source.node, target.node, there, into, self._contents.source(source.node), version)


def _copy(there: SparseFile, into: SparseFile, length: int, offset: int, target_offset: int) -> int:
    try:
        return os.copy_file_range(there.fd, into.fd, length, offset, target_offset)
    except OSError as error:
        # The kernel reads and writes the bytes instead: a write makes room, and each tells which of the files fails.
        raise NotSupported(f"copy_file_range: {error.strerror}") from error
