"""Requests about names: looking up, making, renaming and removing them.

Owns:    their translation to verbs.
Never:   decides which names exist.
Threads: handlers run in the dispatcher, or on a lane after a verb had to wait.

The kernel may cache an answer for the validity that the engine gives. An answer computed from data that was
read before a change being notified has no validity.

A resent request (its first reader died) may have been carried out already: a result that is already
present is success.
"""

from __future__ import annotations

import os
import stat

from r2fs.drivers.kernel import codec, wire
from r2fs.drivers.kernel.codec import text
from r2fs.drivers.kernel.notify import KernelNotifier
from r2fs.drivers.kernel.passthrough import OpenModes
from r2fs.drivers.kernel.session import Handler, Session
from r2fs.drivers.kernel.wire import Op
from r2fs.model.directory_lines import encoded
from r2fs.model.errors import Exists, NotFound, NotPermitted
from r2fs.model.ports import Caller
from r2fs.model.records import Entry
from r2fs.model.verbs import Verbs

_O_MAKE = os.O_RDWR | os.O_CREAT
_O_NEW = os.O_EXCL


class NameHandlers:
    def __init__(self, fs: Verbs, session: Session, kernel: KernelNotifier, modes: OpenModes) -> None:
        self._fs = fs
        self._session = session
        self._kernel = kernel
        self._modes = modes

    def handlers(self) -> dict[Op, Handler]:
        return {
            Op.LOOKUP: self.lookup,
            Op.FORGET: self.forget,
            Op.BATCH_FORGET: self.batch_forget,
            Op.MKDIR: self.mkdir,
            Op.MKNOD: self.mknod,
            Op.SYMLINK: self.symlink,
            Op.READLINK: self.readlink,
            Op.LINK: self.link,
            Op.UNLINK: self.unlink,
            Op.RMDIR: self.rmdir,
            Op.RENAME: self.rename,
            Op.RENAME2: self.rename2,
        }

    # ------------------------------------------------------------------ looking up
    def lookup(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        epoch = self._kernel.epoch()
        try:
            entry = self._fs.lookup(caller, nodeid, text(body[:-1]))
        except NotFound as missing:
            self._kernel.with_cached_names.add(nodeid)
            if missing.valid_s <= 0 or self._kernel.epoch() != epoch:
                raise
            self._session.send(codec.negative_reply(unique, missing.valid_s))
            return
        self._show(unique, nodeid, entry, epoch)

    def _show(self, unique: int, parent: int, entry: Entry, epoch: int) -> None:
        """Answer with an entry on which a verb has counted a reference."""
        self._kernel.with_cached_names.add(parent)
        valid_s = entry.valid_s if self._kernel.epoch() == epoch else 0.0
        if not self._session.send(codec.entry_reply(unique, entry, valid_s)):
            self._fs.forget(entry.ino, 1)

    def forget(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self._forget(nodeid, wire.FORGET_IN.unpack_from(body)[0])

    def batch_forget(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        count, _ = wire.BATCH_FORGET_IN.unpack_from(body)
        start = wire.BATCH_FORGET_IN.size
        for ino, references in wire.FORGET_ONE.iter_unpack(
            body[start : start + count * wire.FORGET_ONE.size]
        ):
            self._forget(ino, references)

    def _forget(self, ino: int, references: int) -> None:
        self._fs.forget(ino, references)
        self._modes.forgotten(ino)
        self._kernel.forgotten(ino)

    def readlink(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        target = self._fs.readlink(caller, nodeid)
        self._session.send_data(unique, encoded(target))

    # ------------------------------------------------------------------ making
    def mkdir(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        epoch, (mode, _) = self._kernel.epoch(), wire.MKDIR_IN.unpack_from(body)
        name = text(body[wire.MKDIR_IN.size : -1])
        try:
            entry = self._fs.mkdir(caller, nodeid, name, stat.S_IMODE(mode))
        except Exists:
            if not unique & wire.UNIQUE_RESEND:
                raise
            entry = self._fs.lookup(caller, nodeid, name)
        self._show(unique, nodeid, entry, epoch)

    def symlink(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        epoch = self._kernel.epoch()
        name, target = map(text, bytes(body).split(b"\0")[:2])
        try:
            entry = self._fs.symlink(caller, nodeid, name, target)
        except Exists:
            if not unique & wire.UNIQUE_RESEND:
                raise
            entry = self._fs.lookup(caller, nodeid, name)
        self._show(unique, nodeid, entry, epoch)

    def mknod(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        """mknod(2). open(2) with O_CREAT arrives as CREATE."""
        epoch, (mode, device, _, _) = self._kernel.epoch(), wire.MKNOD_IN.unpack_from(body)
        name = text(body[wire.MKNOD_IN.size : -1])
        if not stat.S_ISREG(mode):
            self._show(unique, nodeid, self._special(unique, nodeid, caller, name, mode, device), epoch)
            return
        flags = _O_MAKE if unique & wire.UNIQUE_RESEND else _O_MAKE | _O_NEW
        entry, opened = self._fs.create(caller, nodeid, name, stat.S_IMODE(mode), flags)
        self._fs.release(opened.handle)
        self._show(unique, nodeid, entry, epoch)

    def _special(self, unique: int, nodeid: int, caller: Caller, name: str, mode: int, device: int) -> Entry:
        """A FIFO, socket or device."""
        try:
            return self._fs.mknod(caller, nodeid, name, mode, device)
        except Exists:
            if not unique & wire.UNIQUE_RESEND:
                raise
            return self._fs.lookup(caller, nodeid, name)

    def link(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        raise NotPermitted("a bucket has no hard links")

    # ------------------------------------------------------------------ removing and renaming
    def unlink(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        try:
            self._fs.unlink(caller, nodeid, text(body[:-1]))
        except NotFound:
            if not unique & wire.UNIQUE_RESEND:
                raise
        self._session.done(unique)

    def rmdir(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        try:
            self._fs.rmdir(caller, nodeid, text(body[:-1]))
        except NotFound:
            if not unique & wire.UNIQUE_RESEND:
                raise
        self._session.done(unique)

    def rename(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        (new_parent,) = wire.RENAME_IN.unpack_from(body)
        self._rename(unique, nodeid, caller, new_parent, body[wire.RENAME_IN.size :], 0)

    def rename2(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        new_parent, flags, _ = wire.RENAME2_IN.unpack_from(body)
        self._rename(unique, nodeid, caller, new_parent, body[wire.RENAME2_IN.size :], flags)

    def _rename(
        self, unique: int, parent: int, caller: Caller, new_parent: int, names: memoryview, flags: int
    ) -> None:
        old, new = map(text, bytes(names).split(b"\0")[:2])
        try:
            self._fs.rename(caller, parent, old, new_parent, new, flags)
        except NotFound:
            if not unique & wire.UNIQUE_RESEND:
                raise
        # the kernel moves its own entries and now knows both directories
        self._kernel.with_cached_names.add(new_parent)
        self._session.done(unique)
