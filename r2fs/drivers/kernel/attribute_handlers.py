"""Requests about attributes: stat, chmod, truncate, utimens, extended attributes, statfs.

Owns:    their translation to verbs, and the set-id bits, which HANDLE_KILLPRIV_V2 leaves to the daemon.
Never:   answers ENOSYS to a request for an extended attribute: the kernel would send no further one.
Threads: handlers run in the dispatcher, or on a lane after a verb had to wait.
"""

from __future__ import annotations

import errno
import stat
from typing import Final

from r2fs.drivers.kernel import codec, wire
from r2fs.drivers.kernel.codec import NS, text
from r2fs.drivers.kernel.notify import KernelNotifier
from r2fs.drivers.kernel.openfiles import OpenFiles
from r2fs.drivers.kernel.session import Handler, Session
from r2fs.drivers.kernel.wire import Op
from r2fs.drivers.setid import drop_set_id
from r2fs.model.directory_lines import encoded
from r2fs.model.errors import NoAttribute
from r2fs.model.ports import Caller
from r2fs.model.records import AttributeChange, Entry
from r2fs.model.verbs import Verbs

SIGN: Final = 1 << 63  # times before 1970 travel as two's complement


class AttributeHandlers:
    def __init__(self, fs: Verbs, session: Session, kernel: KernelNotifier, files: OpenFiles) -> None:
        self._fs = fs
        self._session = session
        self._kernel = kernel
        self._files = files

    def handlers(self) -> dict[Op, Handler]:
        return {
            Op.GETATTR: self.getattr,
            Op.SETATTR: self.setattr,
            Op.STATFS: self.statfs,
            Op.GETXATTR: self.getxattr,
            Op.LISTXATTR: self.listxattr,
            Op.SETXATTR: self.setxattr,
            Op.REMOVEXATTR: self.removexattr,
        }

    # ------------------------------------------------------------------ stat
    def getattr(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        flags, _, fh = wire.GETATTR_IN.unpack_from(body)
        epoch = self._kernel.epoch()
        handle = self._files.handle(fh) if flags & wire.GETATTR_FH else None
        self._show(unique, self._fs.getattr(caller, nodeid, handle), epoch)

    def setattr(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        fields = wire.SETATTR_IN.unpack_from(body)
        epoch, valid, fh = self._kernel.epoch(), fields[0], fields[2]
        change = _change(fields)
        if valid & _TAKES_SET_ID and change.mode is None:
            drop_set_id(self._fs, self._kernel, caller, nodeid)
        handle = self._files.handle(fh) if valid & wire.FATTR_FH else None
        self._show(unique, self._fs.setattr(caller, nodeid, change, handle), epoch)

    def _show(self, unique: int, entry: Entry, epoch: int) -> None:
        valid_s = entry.valid_s if self._kernel.epoch() == epoch else 0.0
        self._session.send(codec.attr_reply(unique, entry, valid_s))

    def statfs(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self._session.send_data(unique, codec.statfs_out(self._fs.statfs(caller)))

    # ------------------------------------------------------------------ extended attributes
    def getxattr(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        room, _ = wire.GETXATTR_IN.unpack_from(body)
        value = self._fs.getxattr(caller, nodeid, text(body[wire.GETXATTR_IN.size : -1]))
        self._sized(unique, room, value)

    def listxattr(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        room, _ = wire.GETXATTR_IN.unpack_from(body)
        names = self._fs.listxattr(caller, nodeid)
        self._sized(unique, room, b"".join(encoded(name) + b"\0" for name in names))

    def _sized(self, unique: int, room: int, value: bytes) -> None:
        """Answer with the value, or with its length where `room` is 0. ERANGE where `room` is too small."""
        if not room:
            self._session.send_data(unique, wire.GETXATTR_OUT.pack(len(value), 0))
        elif len(value) > room:
            self._session.error(unique, errno.ERANGE)
        else:
            self._session.send_data(unique, value)

    def setxattr(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        size, flags = wire.SETXATTR_IN.unpack_from(body)
        name, _, value = bytes(body[wire.SETXATTR_IN.size :]).partition(b"\0")
        if unique & wire.UNIQUE_RESEND:  # XATTR_CREATE or _REPLACE may have been obeyed already
            flags = 0
        self._fs.setxattr(caller, nodeid, text(name), value[:size], flags)
        self._session.done(unique)

    def removexattr(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        try:
            self._fs.removexattr(caller, nodeid, text(body[:-1]))
        except NoAttribute:
            if not unique & wire.UNIQUE_RESEND:
                raise
        self._session.done(unique)


# A change of owner drops the set-id bits, as on a local disk: the kernel leaves this to the daemon.
_TAKES_SET_ID: Final = wire.FATTR_KILL_SUIDGID | wire.FATTR_UID | wire.FATTR_GID


def _change(fields: tuple[int, ...]) -> AttributeChange:
    valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = fields
    return AttributeChange(
        size=size if valid & wire.FATTR_SIZE else None,
        mode=stat.S_IMODE(mode) if valid & wire.FATTR_MODE else None,
        uid=uid if valid & wire.FATTR_UID else None,
        gid=gid if valid & wire.FATTR_GID else None,
        atime_ns=_signed(atime) * NS + atime_ns if valid & wire.FATTR_ATIME else None,
        mtime_ns=_signed(mtime) * NS + mtime_ns if valid & wire.FATTR_MTIME else None,
    )


def _signed(seconds: int) -> int:
    return seconds - 2 * SIGN if seconds >= SIGN else seconds
