"""Carries out steps of `cases.py` in its working directory, as whoever they say, and tells what came of each.

Owns:    the meaning of a step. A process of its own, since identities are a process's: `python -m
         tests.mount.syscalls.actor` reads a list of steps as JSON, one line a case, and answers with one line.
Never:   knows what is right: `test_posix.py` compares two actors in two file systems.

A step is a line of words: `[anna|bert|…] CALL ARGUMENT …`. After each step the whole tree is looked
at: every name's kind, mode, owner, links and size, and which of its times have moved. So a case
tests more than it says.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import stat
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

CLOCK_REALTIME_COARSE = 5
# uid, gid, further groups
WHO: dict[str, tuple[int, int, list[int]]] = {
    "root": (0, 0, []),
    "anna": (65534, 65534, []),
    "bert": (65533, 65533, []),
    "carl": (65532, 65534, []),  # of anna's group
    "dora": (65531, 65531, [65534]),  # in anna's group, too
}
LONG = {"{255}": "n" * 255, "{256}": "n" * 256, "{path}": "/".join(["p" * 200] * 21)}
TIMES = {"now": (1 << 30) - 1, "omit": (1 << 30) - 2}
libc = ctypes.CDLL(None, use_errno=True)


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def octal(text: str) -> int:
    return int(text, 8)


def flags_of(text: str) -> int:
    value = 0
    for word in text.split("|"):
        value |= getattr(os, f"O_{word}")
    return value


class Calls:
    """One method for each call; what it returns is compared. Paths are relative to the case's directory."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def end(self) -> None:
        for fd in self.held.values():
            os.close(fd)
        self.held.clear()

    # ---- by path
    def create(self, path: str, mode: str = "0644") -> None:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, octal(mode)))

    def open(self, path: str, flags: str, mode: str = "0644") -> None:
        os.close(os.open(path, flags_of(flags), octal(mode)))

    def mkdir(self, path: str, mode: str = "0755") -> None:
        os.mkdir(path, octal(mode))

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rename(self, old: str, new: str, flags: str = "0") -> None:
        checked(libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), int(flags)))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def chmod(self, path: str, mode: str) -> None:
        os.chmod(path, octal(mode))

    def chown(self, path: str, uid: str, gid: str) -> None:
        os.chown(path, int(uid), int(gid))

    def lchown(self, path: str, uid: str, gid: str) -> None:
        os.lchown(path, int(uid), int(gid))

    def truncate(self, path: str, size: str) -> None:
        os.truncate(path, int(size))

    def utimens(self, path: str, atime: str, mtime: str, follow: str = "follow") -> list[str]:
        given = [
            Timespec(0, TIMES[w]) if w in TIMES else Timespec(*map(int, w.split("."))) for w in (atime, mtime)
        ]
        both = (Timespec * 2)(*given)
        checked(libc.utimensat(-100, os.fsencode(path), both, 0 if follow == "follow" else 0x100))
        found = os.stat(path, follow_symlinks=follow == "follow")
        return [
            str(ns) if word not in TIMES else word
            for word, ns in ((atime, found.st_atime_ns), (mtime, found.st_mtime_ns))
        ]

    def times(self, path: str) -> list[int]:
        found = os.lstat(path)
        return [found.st_atime_ns, found.st_mtime_ns]

    def write(self, path: str, offset: str, text: str) -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(fd, text.encode(), int(offset))
        finally:
            os.close(fd)

    def append(self, path: str, text: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def read(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.read(fd, 1000).decode()
        finally:
            os.close(fd)

    def ls(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def access(self, path: str, mode: str) -> bool:
        return os.access(path, int(mode), effective_ids=True)

    def fallocate(self, path: str, offset: str, length: str) -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.posix_fallocate(fd, int(offset), int(length))
        finally:
            os.close(fd)

    def chdir(self, path: str) -> None:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(path)
            os.fchdir(here)
        finally:
            os.close(here)

    # ---- by descriptors that stay open
    def hold(self, name: str, path: str, flags: str, mode: str = "0644") -> None:
        self.held[name] = os.open(path, flags_of(flags), octal(mode))

    def close(self, name: str) -> None:
        os.close(self.held.pop(name))

    def fwrite(self, name: str, text: str) -> int:
        return os.write(self.held[name], text.encode())

    def fpwrite(self, name: str, offset: str, text: str) -> int:
        return os.pwrite(self.held[name], text.encode(), int(offset))

    def fread(self, name: str) -> str:
        return os.pread(self.held[name], 1000, 0).decode()

    def fstat(self, name: str) -> list[Any]:
        found = os.fstat(self.held[name])
        return [oct(found.st_mode), found.st_nlink, found.st_size, found.st_uid, found.st_gid]

    def ftruncate(self, name: str, size: str) -> None:
        os.ftruncate(self.held[name], int(size))

    def fchmod(self, name: str, mode: str) -> None:
        os.fchmod(self.held[name], octal(mode))

    def fchown(self, name: str, uid: str, gid: str) -> None:
        os.fchown(self.held[name], int(uid), int(gid))

    def fsync(self, name: str) -> None:
        os.fsync(self.held[name])


# ------------------------------------------------------------------ one step, one case
def act(calls: Calls, step: str) -> Any:
    """What the step came to: a value, or the name of its errno."""
    words = [LONG.get(word, word) for word in step.split(" ")]
    uid, gid, groups = WHO[words.pop(0)] if words[0] in WHO else WHO["root"]
    mask = octal(words.pop(0).removeprefix("umask=")) if words[0].startswith("umask=") else 0o022
    call: Callable[..., Any] = getattr(calls, words[0])
    os.setgroups(groups)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    before = os.umask(mask)
    try:
        return call(*words[1:])
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    finally:
        os.umask(before)
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups([])


def look(path: str = ".") -> dict[str, tuple[list[Any], int, int]]:
    """All there is: what does not change by itself, and the two times."""
    found = {}
    pending = [path]
    while pending:
        one = pending.pop()
        s = os.lstat(one)
        is_dir = stat.S_ISDIR(s.st_mode)
        found[one] = ([oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, 0 if is_dir else s.st_size], s.st_mtime_ns, s.st_ctime_ns)  # fmt: skip
        if is_dir:
            pending += [f"{one}/{name}" for name in os.listdir(one)]
    return found


def moved(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What a step changed: of each name its attributes, and which times moved; `gone` for those that left."""
    changes: dict[str, Any] = {}
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            changes[path] = "gone"
        elif before.get(path) != after[path]:
            attributes, mtime, ctime = after[path]
            times = "new"
            if path in before:
                times = "m" * (before[path][1] != mtime) + "c" * (before[path][2] != ctime)
            changes[path] = [*attributes, times]
    return changes


def tick() -> None:
    """Until the clock that file systems stamp times with has moved on."""
    began = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) == began:
        time.sleep(0.0005)


def run(name: str, steps: list[str]) -> list[Any]:
    calls = Calls()
    told: list[Any] = []
    home = os.open(".", os.O_RDONLY)
    os.mkdir(name)
    os.chdir(name)
    os.chmod(".", 0o777)
    try:
        before = look()
        for step in steps:
            tick()
            result = act(calls, step)
            after = look()
            told.append([step, result, moved(before, after)])
            before = after
    finally:
        calls.end()
        os.fchdir(home)
        os.close(home)
        shutil.rmtree(name)
    return told


def main() -> None:
    os.umask(0o022)
    for line in sys.stdin:
        name, steps = json.loads(line)
        try:
            told = run(name, steps)
        except Exception:  # one case is lost, and says why; the others go on
            told = [["the case itself", traceback.format_exc(), {}]]
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
