"""Session log: the inode numbers and file handles that the kernel has, kept over kill -9 for the next daemon.

The log is a mapped file of the run directory, so that a record costs no system call: stores into a shared mapping
belong to the kernel's page cache at once. A record is a line of JSON, [kind, number, fields…];
without fields it revokes the earlier record of that number. Its first byte is stored last, so that a record
that was cut off by a kill does not count; no answer was sent by then. Blocks are allocated before
they are mapped: a store into a hole of a full file system would end the process (SIGBUS).

Never:   syncs: no session outlives the machine.
Threads: every public method.
Locks:   _lock (leaf), over the position and the mapping; held for a copy of a few hundred bytes.
Fails:   on a full disk the file is removed, which is logged once, and no daemon can take over.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self

from r2fs.model import owned_paths
from r2fs.model.records import Inheritance, KnownHandle, KnownNode

log = logging.getLogger(__name__)

CHUNK: Final = 1 << 18  # bytes by which the file grows
LARGE: Final = 4 << 20  # a smaller file is not worth rewriting
GROWTH: Final = 4  # times the bytes in use at the last rewriting
LARGEST: Final = 1 << 32  # bytes that are read: some ten million names and files
WRITTEN: Final = 1  # the first byte of a record that is whole
NODE, HANDLE, STATE = "n", "h", "s"

Table = dict[tuple[str, int], list[Any]]  # (kind, number): fields; the last written last

# As _line() makes them. Each create, open and close writes one, and an encoder would cost a third of all that
# either does.
NODE_LINE: Final = '\x01["n",%d,%d,%s,%s,%s,%d,%d,%s,%s,%s,%s,%s,%d,%s]\n'
_TRUTH: Final = {True: "true", False: "false"}
HANDLE_LINE: Final = b'\x01["h",%d,%d,%d,%d,%d,%d,[%d,%d]]\n'
NO_HANDLE_LINE: Final = b'\x01["h",%d]\n'

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class SessionLog:
    """A SessionMemory."""

    def __init__(self, path: Path, fd: int, mapping: mmap.mmap, end: int) -> None:
        # constant
        self.path = path
        # guarded by: _lock
        self._lock = Lock()
        self._fd = fd
        self._map: mmap.mmap | None = mapping  # None: closed, or given up
        self._end = end
        self._rewrite_at = max(LARGE, GROWTH * end)

    @classmethod
    def create(cls, path: Path, lines: Iterable[bytes] = ()) -> Self:
        """Replace a file at `path` by a new log, atomically. OSError."""
        return cls(path, *_put(path, b"".join(lines)))

    @classmethod
    def go_on(cls, path: Path, state: str, inheritance: Inheritance) -> Self:
        """Replace the log of a session that was taken over by one with the records that still count."""
        lines = [_line(STATE, 0, state)]
        lines += [_line(NODE, *node) for node in inheritance.nodes.values()]
        lines += [_line(HANDLE, *handle) for handle in inheritance.handles.values()]
        return cls.create(path, lines)

    # ------------------------------------------------------------------ SessionMemory
    def node(self, node: KnownNode) -> None:
        self._append(_node_line(node))

    def forget_node(self, ino: int) -> None:
        self._append(_line(NODE, ino))

    def handle(self, handle: KnownHandle) -> None:
        self._append(HANDLE_LINE % (*handle[:-1], *handle.file))

    def forget_handle(self, fh: int) -> None:
        self._append(NO_HANDLE_LINE % fh)

    # ------------------------------------------------------------------ the session
    def state(self, text: str) -> None:
        """Record the session's identity and the outcome of INIT."""
        self._append(_line(STATE, 0, text))

    @property
    def usable(self) -> bool:
        return self._map is not None

    def close(self) -> None:
        """Close; the file stays for the successor."""
        with self._lock:
            self._shut_locked()

    def remove(self) -> None:
        """Close and remove the file: the session has ended."""
        self.close()
        self.path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Rewrite the file once most records are revoked. Others append meanwhile."""
        with self._lock:
            end = self._end
            if self._map is None or end < self._rewrite_at:
                return
            data = self._map[:end]
        lines = [_line(*key, *fields) for key, fields in _parse(data).items()]
        with self._lock:
            if not self.usable:
                return
            try:
                made = _put(self.path, b"".join([*lines, self._map[end : self._end]]))
            except OSError as error:
                self._give_up_locked(error)
                return
            self._shut_locked()
            self._fd, self._map, self._end = made
            self._rewrite_at = max(LARGE, GROWTH * self._end)

    # ------------------------------------------------------------------ inside
    def _append(self, line: bytes) -> None:
        with self._lock:
            if self._map is None:
                return
            start, stop = self._end, self._end + len(line)
            if stop > len(self._map):
                try:
                    _grow(self._fd, self._map, stop)
                except OSError as error:
                    self._give_up_locked(error)
                    return
            self._map[start + 1 : stop] = line[1:]
            self._map[start] = WRITTEN
            self._end = stop

    def _give_up_locked(self, error: OSError) -> None:
        log.warning("%s cannot be written (%s): no daemon can take this mount over from now on",
                    self.path, error.strerror)  # fmt: skip
        self._shut_locked()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _shut_locked(self) -> None:
        if self._map is not None:
            self._map.close()
            os.close(self._fd)
            self._map = None


def read(path: Path) -> tuple[str, Inheritance] | None:
    """Return the session's state and its inodes and handles; None where no session can be continued."""
    try:
        with owned_paths.directory(path.parent) as directory:
            table = _parse(owned_paths.read_file(path.name, LARGEST, dir_fd=directory))
        (state,) = table.pop((STATE, 0))
        nodes = {number: _node(number, fields) for (kind, number), fields in table.items() if kind == NODE}
        handles = {
            number: _handle(number, fields) for (kind, number), fields in table.items() if kind == HANDLE
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s cannot be read, so nobody takes its mount over: %r", path, error)
        return None
    return state, Inheritance(nodes, handles)


def _node(number: int, fields: list[Any]) -> KnownNode:
    node = KnownNode(number, *fields)
    return node if node.base is None else node._replace(base=(node.base[0], node.base[1], node.base[2]))


def _handle(number: int, fields: list[Any]) -> KnownHandle:
    handle = KnownHandle(number, *fields)
    return handle._replace(file=(handle.file[0], handle.file[1]))


def _line(kind: str, number: int, *fields: object) -> bytes:
    return b"\x01%b\n" % _encode((kind, number, *fields)).encode("ascii")


def _node_line(node: KnownNode) -> bytes:
    """Return `_line(NODE, *node)`."""
    ino, parent, name, kind, base, mtime_ns, ctime_ns, mode, uid, gid, *known, st_ino, modified_ns = node
    line = NODE_LINE % (
        ino, parent, _quoted(name), _quoted(kind), "null" if base is None else _encode(base), mtime_ns, ctime_ns,
        _number(mode), _number(uid), _number(gid), *map(_TRUTH.__getitem__, known), st_ino, _number(modified_ns),
    )  # fmt: skip
    return line.encode("ascii")


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _parse(data: bytes) -> Table:
    """Return every record up to the first incomplete one."""
    table: Table = {}
    start = 0
    while start < len(data) and data[start] == WRITTEN:
        stop = data.index(b"\n", start)
        kind, number, *fields = owned_paths.load_json(data[start + 1 : stop])
        table.pop((kind, number), None)
        if fields:
            table[kind, number] = fields
        start = stop + 1
    return table


def _put(path: Path, data: bytes) -> tuple[int, mmap.mmap, int]:
    """Replace `path` by a file with these lines and room for more; return descriptor, mapping and end."""
    new = f"{path.name}.new"
    with owned_paths.directory(path.parent) as directory:
        with suppress(FileNotFoundError):  # of a daemon that was killed in the midst of this
            os.unlink(new, dir_fd=directory)
        fd = owned_paths.open_file(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=directory)
        try:
            size = -(-len(data) // CHUNK) * CHUNK + CHUNK
            os.posix_fallocate(fd, 0, size)
            mapping = mmap.mmap(fd, size)
            mapping[: len(data)] = data
            os.rename(new, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=directory)
            raise
    return fd, mapping, len(data)


def _grow(fd: int, mapping: mmap.mmap, least: int) -> None:
    size = -(-least // CHUNK) * CHUNK
    os.posix_fallocate(fd, len(mapping), size - len(mapping))
    mapping.resize(size)
