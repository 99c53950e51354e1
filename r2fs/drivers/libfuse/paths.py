"""Path table of libfuse's driver: the inode of each path, and the name that libfuse shows it under.

libfuse's own table has one node for each (directory, name); the kernel's inode, and with it its
pages, belongs to that node. A `Dentry` stands for one node, and moves as libfuse's node does.

Owns:    the dentries by (parent's inode, name), their references in the engine, and the rules of the
         kernel's caching: a node's pages are those of the version that was last opened through
         it. Keys hold the parent's inode, so the rename of a directory keeps all keys below it valid.
Never:   knows libfuse's types.
Threads: every method is thread-safe. libfuse serializes two changes of one path, not lookups.
Locks:   self._changed (a Condition), over the tables; no verb is called under it, so that the
         engine may call the KernelCache methods under any of its locks.
Fails:   NotFound, and errors of the verbs. Stale: call `distrust` on the path and repeat once.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from r2fs.model.errors import NotFound, Stale
from r2fs.model.keys import nfc
from r2fs.model.ports import Caller
from r2fs.model.records import Entry, Opened
from r2fs.model.verbs import RENAME_EXCHANGE, ROOT, Verbs

MAX_DENTRIES = 20_000  # some 5 MB; the least recently looked up is evicted first
RETURN_S = 0.05  # libfuse hides, then renames, within microseconds: many times that
LOOKS = 4  # for a name that returns, and is removed again meanwhile
MAX_GONE = 1000  # names of files that were unlinked while open, and are now closed

# What libfuse renames an open file to, instead of unlinking it (fuse.c, hidden_name).
_HIDDEN = re.compile(r"\.fuse_hidden[0-9a-f]{16}")

Key = tuple[int, str]  # the parent's inode, the name in NFC


@dataclass(slots=True)
class Dentry:
    """One of libfuse's nodes. Fields are guarded by: PathTable._changed."""

    ino: int
    expires: float = 0.0  # monotonic: until then `ino` need not be looked up again
    references: int = 0  # references of ours that the engine counts on `ino`
    handles: int = 0
    cached: int = 0  # handles that read through the kernel's pages
    shown: tuple[int, int] | None = None  # inode and version that these pages belong to
    hidden: Key | None = None  # its name while open and unlinked


@dataclass(slots=True)
class _Hide:
    """A name that libfuse has removed, perhaps in order to put another file in its place."""

    thread: int
    until: float  # monotonic
    done: bool = False  # another file has the name by now


class PathTable:
    """Also the engine's KernelCache: without notifications to the kernel, it forgets its own records."""

    shares_pages = False

    def __init__(self, fs: Verbs, ttl_s: float) -> None:
        # constant
        self._fs = fs
        self._ttl_s = ttl_s
        self._changed = threading.Condition(threading.Lock())
        # guarded by: _changed
        self._dentries: OrderedDict[Key, Dentry] = OrderedDict()
        self._generation = 0  # a lookup from before a change is not recorded after it
        self._hides: dict[Key, _Hide] = {}
        self._gone: OrderedDict[Key, None] = OrderedDict()
        self._renaming: dict[Key, int] = {}  # names to which a rename is under way

    # ---- from a path to an inode
    def split(self, caller: Caller, path: str) -> tuple[int, str]:
        """The parent's inode and the last name."""
        *parents, name = path.split("/")[1:]
        ino = ROOT
        for part in parents:
            ino = self._step(caller, ino, part)
        return ino, name

    def ino(self, caller: Caller, path: str) -> int:
        """The path's inode, from a lookup within the time to live."""
        if path == "/":
            return ROOT
        return self._step(caller, *self.split(caller, path))

    def find(self, caller: Caller, path: str) -> Entry:
        """The path's inode and attributes, by a lookup of now."""
        if path == "/":
            return self._fs.getattr(caller, ROOT)
        parent, name = self.split(caller, path)
        if is_hidden(name):
            return self._fs.getattr(caller, self._hidden(parent, name))
        return self._lookup(caller, parent, name)

    def _step(self, caller: Caller, parent: int, name: str) -> int:
        if is_hidden(name):
            return self._hidden(parent, name)
        dentry = self._dentries.get((parent, nfc(name)))
        if dentry is not None and dentry.expires > time.monotonic():
            return dentry.ino
        return self._lookup(caller, parent, name).ino

    def _lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        key = (parent, nfc(name))
        for left in reversed(range(LOOKS)):
            generation = self._await_rename(key)
            try:
                entry = self._fs.lookup(caller, parent, name)
            except NotFound:
                if not left or not self._hides or not self._returns(key):
                    raise
                continue
            if key not in self._renaming:
                break
        self._remember(key, entry, generation)
        return entry

    def _await_rename(self, key: Key) -> int:
        """Wait for a running rename to this name, in libfuse's table too; return the generation then.

        A lookup answered before libfuse has moved its node would make a second node of that name, which libfuse
        then drops: an open through it would fail with ESTALE.
        """
        if self._renaming:
            with self._changed:
                while key in self._renaming:
                    self._changed.wait()
        return self._generation

    def _hidden(self, parent: int, name: str) -> int:
        with self._changed:
            dentry = self._dentries.get((parent, name))
            if dentry is None and (parent, name) in self._gone:
                raise Stale(f"{name}: the file was unlinked, and has been closed")  # the kernel looks again
            if dentry is None:
                raise NotFound(f"{name}: no such file")  # libfuse checks whether the name is free
            # Of the open file, not of the unlinked one, if another host had replaced the file.
            return dentry.shown[0] if dentry.shown is not None else dentry.ino

    # ---- the table
    def learned(self, parent: int, name: str, entry: Entry) -> None:
        """Record the inode of a name after a verb that counts a reference (create, mkdir, symlink, readdir_entry)."""
        self._remember((parent, nfc(name)), entry, self._generation)

    def _remember(self, key: Key, entry: Entry, generation: int) -> None:
        """Take over the reference that the engine has counted for `entry`."""
        returned: list[tuple[int, int]] = []
        with self._changed:
            dentry = self._dentries.get(key)
            if dentry is None:
                dentry = self._dentries[key] = Dentry(entry.ino)
                if len(self._dentries) > MAX_DENTRIES:
                    self._evict_locked(returned)
            elif dentry.ino != entry.ino:
                returned.append((dentry.ino, dentry.references))
                dentry.ino, dentry.references = entry.ino, 0
            dentry.references += 1
            fresh = generation == self._generation
            dentry.expires = time.monotonic() + min(entry.valid_s, self._ttl_s) if fresh else 0.0
            self._dentries.move_to_end(key)
        self._give_back(returned)

    def _evict_locked(self, returned: list[tuple[int, int]]) -> None:
        """Evict a dentry without handles; open ones move to the back of the queue."""
        for _ in range(len(self._dentries)):
            key, dentry = self._dentries.popitem(last=False)
            if dentry.handles == 0 and dentry.hidden is None:
                returned.append((dentry.ino, dentry.references))
                return
            self._dentries[key] = dentry

    def _give_back(self, returned: list[tuple[int, int]]) -> None:
        for ino, count in returned:
            if count:
                self._fs.forget(ino, count)

    def distrust(self, path: str) -> None:
        """Look up all names on the way again: an inode on it was missing."""
        ino = ROOT
        with self._changed:
            for part in path.split("/")[1:]:
                dentry = self._dentries.get((ino, nfc(part)))
                if dentry is None:
                    return
                dentry.expires, ino = 0.0, dentry.ino

    # ---- changes of names made here
    def removed(self, parent: int, name: str) -> None:
        with self._changed:
            self._generation += 1
            dentry = self._dentries.pop((parent, nfc(name)), None)
        if dentry is not None:
            self._give_back([(dentry.ino, dentry.references)])

    def rename(
        self, caller: Caller, parent: int, name: str, new_parent: int, new_name: str, flags: int
    ) -> None:
        """Rename by the verb, and move libfuse's nodes after it."""
        source, target = (parent, nfc(name)), (new_parent, nfc(new_name))
        with self._changed:
            self._renaming[target] = self._renaming.get(target, 0) + 1
        done = False
        try:
            self._fs.rename(caller, parent, name, new_parent, new_name, flags)
            self._moved(source, target, flags)
            done = True
        finally:
            self._renamed(target, done)

    def _moved(self, source: Key, target: Key, flags: int) -> None:
        with self._changed:
            self._generation += 1
            moved = self._dentries.pop(source, None)
            replaced = self._dentries.pop(target, None) if source != target else None
            if moved is not None:
                self._dentries[target] = moved
                moved.expires = 0.0
            if replaced is not None and flags & RENAME_EXCHANGE:
                self._dentries[source], replaced.expires = replaced, 0.0
                replaced = None
        if replaced is not None:
            self._give_back([(replaced.ino, replaced.references)])

    # ---- files that are unlinked while open
    def hide(self, caller: Caller, parent: int, name: str, hidden: str) -> None:
        """Unlink an open file. libfuse renames it to `hidden`; the engine needs no such name.

        libfuse does the same before it renames another file onto an open one, and does not
        distinguish the two. So the name is removed now, and a lookup in the
        next moment waits until the case is known (`_returns`).
        """
        key = (parent, nfc(name))
        ino = self._step(caller, parent, name)
        with self._changed:
            self._hides[key] = _Hide(threading.get_ident(), time.monotonic() + RETURN_S)
        try:
            self._fs.unlink(caller, parent, name)
        except BaseException:
            with self._changed:
                self._hides.pop(key, None)
                self._changed.notify_all()
            raise
        with self._changed:
            self._generation += 1
            self._forget_hides_locked(key)
            dentry = self._dentries.pop(key, None) or Dentry(ino)
            dentry.hidden = (parent, hidden)
            self._dentries[dentry.hidden] = dentry

    def _forget_hides_locked(self, key: Key) -> None:
        now = time.monotonic()
        self._hides = {k: hide for k, hide in self._hides.items() if k == key or hide.until > now}
        self._hides[key].until = now + RETURN_S

    def _renamed(self, target: Key, done: bool) -> None:
        with self._changed:
            self._renaming[target] -= 1
            if not self._renaming[target]:
                del self._renaming[target]
            hide = self._hides.get(target)
            if hide is not None and done:
                hide.done, hide.until = True, time.monotonic() + RETURN_S
            self._changed.notify_all()

    def _returns(self, key: Key) -> bool:
        """True if another thread hid the name a moment ago, and may have put a file in its place by now."""
        with self._changed:
            while (hide := self._hides.get(key)) is not None and hide.thread != threading.get_ident():
                left = hide.until - time.monotonic()
                if hide.done or key in self._renaming:
                    return True
                if left <= 0:
                    return False
                self._changed.wait(left)
        return False

    # ---- open files
    def opened(self, parent: int, name: str, ino: int, opened: Opened) -> tuple[Dentry, bool, bool]:
        """Count a handle. Returns the node, whether the kernel may keep its pages, and whether reads must bypass them.

        Pages of two versions, kept and newly read, would show a mixture.
        So pages are kept only if the same version was the last to be opened; and while
        older handles still read through them, reads of a new version bypass the pages.
        """
        version = (ino, opened.version)
        with self._changed:
            dentry = self._dentries.get((parent, name if is_hidden(name) else nfc(name)))
            if dentry is None:
                dentry = Dentry(ino)
            dentry.handles += 1
            if dentry.cached and dentry.shown != version:
                return dentry, False, True
            keep = dentry.shown == version
            dentry.shown = version
            dentry.cached += 1
            return dentry, keep, False

    def closed(self, dentry: Dentry, direct: bool) -> None:
        with self._changed:
            dentry.handles -= 1
            dentry.cached -= not direct
            if dentry.hidden is None or dentry.handles:
                return
            # libfuse unlinks the hidden name next, but not if the directory was removed before.
            self._dentries.pop(dentry.hidden, None)
            self._gone[dentry.hidden] = None
            if len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)
        self._give_back([(dentry.ino, dentry.references)])

    # ---- KernelCache
    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        key = (parent, nfc(name))
        with self._changed:
            self._generation += 1
            dentry = self._dentries.get(key)
            if dentry is not None:
                dentry.expires = 0.0
            if dentry is None or not gone or dentry.handles:
                return
            del self._dentries[key]
        self._give_back([(dentry.ino, dentry.references)])

    def forget_attributes(self, ino: int) -> None:
        """No action: the kernel reads the attributes again within the time to live."""

    def forget_content(self, ino: int) -> None:
        """No action: `opened` compares versions."""

    def settle(self, limit_s: float) -> None:
        """No action: the kernel gets no notifications."""


def is_hidden(name: str) -> bool:
    return name.startswith(".fuse_hidden") and _HIDDEN.fullmatch(name) is not None
