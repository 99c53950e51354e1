"""Requests about open files: opening, reading, writing, syncing and closing them.

Owns:    their translation to verbs, and reads and writes of a LOCAL descriptor.
Never:   fetches or stages content.
Threads: handlers run in the dispatcher, or on a lane after a verb had to wait.
Locks:   none.

A passthrough file still sends OPEN, FLUSH, FSYNC, FALLOCATE, LSEEK and RELEASE, and READ for
fadvise(2).
"""

from __future__ import annotations

import errno
import os

from r2fs.drivers.kernel import codec, wire
from r2fs.drivers.kernel.codec import text
from r2fs.drivers.kernel.negotiation import MAX_WRITE
from r2fs.drivers.kernel.notify import KernelNotifier
from r2fs.drivers.kernel.openfiles import OpenFile, OpenFiles
from r2fs.drivers.kernel.passthrough import OpenModes
from r2fs.drivers.kernel.session import Handler, Session
from r2fs.drivers.kernel.wire import Op
from r2fs.drivers.setid import drop_set_id
from r2fs.model.errors import WouldWait
from r2fs.model.ports import Caller
from r2fs.model.verbs import Verbs

MAX_COPY = (1 << 32) - 1  # bytes of one answer: its field has 32 bits


class FileHandlers:
    def __init__(
        self, fs: Verbs, session: Session, kernel: KernelNotifier, modes: OpenModes, files: OpenFiles
    ) -> None:
        # constant
        self._fs = fs
        self._session = session
        self._kernel = kernel
        self._modes = modes
        self._files = files
        # the dispatcher's own
        self._scratch = memoryview(bytearray(MAX_WRITE))  # a READ's bytes on their way
        self._nowait = os.RWF_NOWAIT  # 0 after a file system did not support the call

    def handlers(self) -> dict[Op, Handler]:
        return {
            Op.OPEN: self.open,
            Op.CREATE: self.create,
            Op.READ: self.read,
            Op.WRITE: self.write,
            Op.FLUSH: self.flush,
            Op.FSYNC: self.fsync,
            Op.RELEASE: self.release,
            Op.FALLOCATE: self.fallocate,
            Op.LSEEK: self.lseek,
            Op.COPY_FILE_RANGE: self.copy_file_range,
            Op.COPY_FILE_RANGE_64: self.copy_file_range_64,
            Op.IOCTL: self.ioctl,
        }

    # ------------------------------------------------------------------ opening and closing
    def open(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        flags, more = wire.OPEN_IN.unpack_from(body)
        if unique & wire.UNIQUE_RESEND:
            self._files.supersede(unique)
        # write(2) by any user but root removes the set-id bits; a passed-through write is not seen here: they go at the open
        writes_past_us = caller.uid and flags & os.O_ACCMODE and not self._modes.unavailable
        if more & wire.OPEN_KILL_SUIDGID or writes_past_us:
            drop_set_id(self._fs, self._kernel, caller, nodeid)
        opened = self._fs.open(caller, nodeid, flags)
        fh, grant = self._files.add(nodeid, opened, flags, unique)
        answer = wire.OPEN_REPLY.pack(wire.OPEN_REPLY.size, 0, unique, fh, grant.fopen, grant.backing_id)
        if not self._session.send(answer):
            self._files.close(fh)

    def create(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        flags, mode, _, _ = wire.CREATE_IN.unpack_from(body)
        if unique & wire.UNIQUE_RESEND:  # its first reader may have made the file
            flags &= ~os.O_EXCL
            self._files.supersede(unique)
        epoch, name = self._kernel.epoch(), text(body[wire.CREATE_IN.size : -1])
        entry, opened = self._fs.create(caller, nodeid, name, mode & 0o7777, flags)
        try:
            fh, grant = self._files.add(entry.ino, opened, flags, unique)
        except BaseException:
            self._fs.forget(entry.ino, 1)
            raise
        self._kernel.with_cached_names.add(nodeid)
        valid_s = entry.valid_s if self._kernel.epoch() == epoch else 0.0
        if not self._session.send(
            codec.create_reply(unique, entry, valid_s, fh, grant.fopen, grant.backing_id)
        ):
            self._files.close(fh)
            self._fs.forget(entry.ino, 1)

    def flush(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        """close(2) waits for this answer. ENOSYS would end FLUSH for the whole mount."""
        file = self._files.get(wire.FLUSH_IN.unpack_from(body)[0], nodeid, caller)
        if file.writes:
            self._fs.flush(caller, file.handle)
        self._session.done(unique)

    def release(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        """Close a handle. No program waits for this request, and the next OPEN may be on its way already."""
        self._files.close(wire.RELEASE_IN.unpack_from(body)[0])
        self._session.done(unique)

    # ------------------------------------------------------------------ reading
    def read(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        fh, offset, size, _, _, flags, _ = wire.READ_IN.unpack_from(body)
        file = self._files.get(fh, nodeid, caller, flags)
        if file.local is None:
            self._session.send_data(unique, self._fs.read(caller, file.handle, offset, size))
        elif caller.may_wait:
            self._session.send_data(unique, self._read_local(file, caller, offset, size))
        else:
            self._session.send_data(unique, self._read_cached(file.local, offset, size))

    def _read_local(self, file: OpenFile, caller: Caller, offset: int, size: int) -> bytes:
        assert file.local is not None
        try:
            return os.pread(file.local, size, offset)
        except OSError:
            # the engine reports the cause and retries
            return self._fs.read(caller, file.handle, offset, size)

    def _read_cached(self, local: int, offset: int, size: int) -> memoryview:
        """Read from the page cache alone; WouldWait where the disk has to be read."""
        room = self._scratch[:size]
        try:
            n = os.preadv(local, (room,), offset, self._nowait)
        except BlockingIOError:
            raise WouldWait from None
        except OSError as e:
            if e.errno != errno.EOPNOTSUPP or not self._nowait:
                raise WouldWait from e  # `_read_local` reports the disk's error
            self._nowait = 0
            n = os.preadv(local, (room,), offset)
        # a short answer would mean the end of the file
        if n < size and offset + n < os.fstat(local).st_size:
            raise WouldWait
        return room[:n]

    def lseek(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        fh, offset, whence, _ = wire.LSEEK_IN.unpack_from(body)
        file = self._files.get(fh, nodeid, caller)
        found = self._fs.lseek(caller, file.handle, offset, whence, paged=not file.passthrough)
        self._session.send_data(unique, wire.LSEEK_OUT.pack(found))

    # ------------------------------------------------------------------ writing
    def write(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        fh, offset, size, more, _, flags, _ = wire.WRITE_IN.unpack_from(body)
        if more & wire.WRITE_KILL_SUIDGID:
            drop_set_id(self._fs, self._kernel, caller, nodeid)
        file = self._files.get(fh, nodeid, caller, flags)
        data, paged = body[wire.WRITE_IN.size : wire.WRITE_IN.size + size], bool(more & wire.WRITE_CACHE)
        done = self._write(file, caller, offset, data, paged)
        self._session.send(wire.WRITE_REPLY.pack(wire.WRITE_REPLY.size, 0, unique, done, 0))

    def _write(self, file: OpenFile, caller: Caller, offset: int, data: memoryview, paged: bool) -> int:
        if file.local is None or (file.appends and not paged):
            return self._fs.write(caller, file.handle, offset, data, paged)
        try:
            done = os.pwrite(file.local, data, offset)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return self._fs.write(caller, file.handle, offset, data, paged)  # the engine can free disk space
        self._fs.wrote(file.handle)
        if paged and done < len(data):  # of pages the kernel hears an error, and no smaller number
            done += self._fs.write(caller, file.handle, offset + done, data[done:], paged)
        return done

    def fsync(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        fh, flags, _ = wire.FSYNC_IN.unpack_from(body)
        file = self._files.get(fh, nodeid, caller)
        self._fs.fsync(caller, file.handle, bool(flags & wire.FSYNC_FDATASYNC))
        self._session.done(unique)

    def fallocate(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        fh, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(body)
        file = self._files.get(fh, nodeid, caller)
        self._fs.fallocate(caller, file.handle, mode, offset, length)
        self._session.done(unique)

    def copy_file_range(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        done = self._copy(nodeid, caller, body)
        self._session.send_data(unique, wire.WRITE_OUT.pack(done, 0))

    def copy_file_range_64(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        done = self._copy(nodeid, caller, body)
        self._session.send_data(unique, wire.COPY_FILE_RANGE_OUT.pack(done))

    def _copy(self, nodeid: int, caller: Caller, body: memoryview) -> int:
        """Into a local file: the file system of the cache copies, or shares the blocks where it can (reflink).

        The kernel clears set-id bits of the target by SETATTR before, and drops its pages after.
        """
        fh, offset, target_node, target_fh, target_offset, length, _ = wire.COPY_FILE_RANGE_IN.unpack_from(
            body
        )
        source = self._files.get(fh, nodeid, caller, os.O_RDONLY)
        target = self._files.get(target_fh, target_node, caller)
        length = min(length, MAX_COPY)
        done = self._fs.copy_file_range(caller, source.handle, offset, target.handle, target_offset, length)
        self._fs.wrote(target.handle)
        return done

    def ioctl(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        """isatty(3) at each open of a Python program; nothing else is known here either."""
        self._session.error(unique, errno.ENOTTY)
