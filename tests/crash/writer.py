"""The writer: a process whose threads work in a mount like programs do, each in a directory of its own.

Owns:    what programs do, as lists of system calls; each call is in the manifest before it is made, and
         after it has returned.
Never:   knows of the daemon: it goes on until a call says that the mount is gone.

A line of standard input begins a round, a line of standard output ends it: `tests/crash/rig.py`.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from tests.crash.manifest import DIRECTORY, FILE, LINK, Manifest, Op, pattern

GONE = (errno.ENOTCONN, errno.ECONNABORTED)  # the daemon has been killed
DIRECTORIES = ("", "", "", "d0", "d1", "d1/e")
NAMES = tuple(f"n{number}" for number in range(9))
MOST_FILES = 22  # in one area
CREATE = os.O_WRONLY | os.O_CREAT


class MountGone(Exception):
    """The end of a round."""


class Wrong(Exception):
    """What the mount answers is not what it was told."""


class Area:
    """One thread's directory, and its manifest."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.reference = manifest.reference
        self.files: dict[int, int] = {}  # handle: descriptor
        self.rng = random.Random()
        self.big = 0.0  # share of writes that are large enough for several parts
        self.sizes = (0, 0)  # of these, in bytes
        self.directories = True
        self.swaps = 0.0  # share of programs that let two files change their names
        self._handle = 0

    def round(self, order: dict[str, Any]) -> None:
        """Until so many programs have run, or the mount is gone."""
        self.manifest.catch_up()
        self.rng = random.Random(f"{order['seed']} {self.root.name}")
        self.big, self.sizes, self.directories = order["big"], order["sizes"], order["directories"]
        self.swaps = order["swaps"]
        try:
            for _ in range(order["count"]):
                for op in self._program():
                    self.do(op)
                if self.rng.random() < 0.3:
                    self._look()
                time.sleep(self.rng.random() * order["pause_s"])
            for handle in list(self.files):
                self.do({"do": "close", "h": handle})
        except MountGone:
            pass
        except Wrong as error:
            self.manifest.say_wrong(str(error))
        finally:
            for descriptor in self.files.values():
                try:
                    os.close(descriptor)
                except OSError:
                    pass  # the mount is gone, as it says
            self.files.clear()

    # ------------------------------------------------------------------ one call
    def do(self, op: Op) -> None:
        self.manifest.begin(op)
        try:
            only = getattr(self, f"_{op['do']}")(op)
        except OSError as error:
            if self._is_gone(error):
                raise MountGone from error
            raise Wrong(f"{op}: {error}") from error
        self.manifest.done(only)
        if only is not None:
            self._after_a_short_write(op, only)

    def _is_gone(self, error: OSError) -> bool:
        """EIO as well is what a call gets that the daemon was just taking when it was killed."""
        if error.errno != errno.EIO:
            return error.errno in GONE
        try:
            os.statvfs(self.root)
        except OSError as second:
            return second.errno in GONE
        return False

    def _after_a_short_write(self, op: Op, only: int) -> None:
        """The daemon was killed between two pieces of it, or before it answered the next: that is under way."""
        at = None if op["at"] is None else op["at"] + only
        self.manifest.begin({**op, "at": at, "skip": only})
        try:
            os.fsync(self.files[op["h"]])
        except OSError as error:
            if self._is_gone(error):
                raise MountGone from error
            raise
        raise Wrong(f"{op}: {only} bytes written, and the mount is there")

    def _open(self, op: Op) -> None:
        self.files[op["h"]] = os.open(self.root / op["path"], op["flags"], 0o644)

    def _write(self, op: Op) -> int | None:
        data, fd = pattern(op["fill"], op["size"]), self.files[op["h"]]
        done = os.write(fd, data) if op["at"] is None else os.pwrite(fd, data, op["at"])
        return None if done == len(data) else done

    def _ftruncate(self, op: Op) -> None:
        os.ftruncate(self.files[op["h"]], op["size"])

    def _truncate(self, op: Op) -> None:
        os.truncate(self.root / op["path"], op["size"])

    def _fsync(self, op: Op) -> None:
        os.fsync(self.files[op["h"]])

    def _close(self, op: Op) -> None:
        os.close(self.files.pop(op["h"]))  # closed in any case, also where it fails

    def _rename(self, op: Op) -> None:
        os.rename(self.root / op["path"], self.root / op["new"])

    def _unlink(self, op: Op) -> None:
        os.unlink(self.root / op["path"])

    def _mkdir(self, op: Op) -> None:
        os.mkdir(self.root / op["path"])

    def _rmdir(self, op: Op) -> None:
        os.rmdir(self.root / op["path"])

    def _symlink(self, op: Op) -> None:
        os.symlink(op["target"], self.root / op["path"])

    def _chmod(self, op: Op) -> None:
        os.chmod(self.root / op["path"], op["mode"])

    # ------------------------------------------------------------------ looking
    def _look(self) -> None:
        """A directory and some files, while all else goes on."""
        directory = self.rng.choice(["", *self._having(DIRECTORY)])
        try:
            found = set(os.listdir(self.root / directory))
            if found != self.reference.children(directory):
                raise Wrong(
                    f"{directory or 'the area'} holds {sorted(found)}, not "
                    f"{sorted(self.reference.children(directory))}"
                )
            for path in self._some(self._having(FILE), 2):
                if (self.root / path).read_bytes() != self.reference.names[path].data:
                    raise Wrong(f"{path} holds other bytes than were written")
        except OSError as error:
            if self._is_gone(error):
                raise MountGone from error
            raise Wrong(f"looking at {directory or 'the area'}: {error}") from error

    # ------------------------------------------------------------------ choosing
    def _having(self, kind: str) -> list[str]:
        return [path for path, node in self.reference.names.items() if node.kind == kind]

    def _some(self, paths: list[str], most: int) -> list[str]:
        return self.rng.sample(paths, min(most, len(paths)))

    def _any(self, kind: str = FILE) -> str | None:
        paths = self._having(kind)
        return self.rng.choice(paths) if paths else None

    def _new_path(self) -> Generator[Op, None, str]:
        """Makes the directories that a new path needs; the path is the generator's value."""
        while True:
            directory = self.rng.choice(DIRECTORIES) if self.directories else ""
            path = f"{directory}/{self.rng.choice(NAMES)}".lstrip("/")
            node = self.reference.names.get(path)
            if node is None or node.kind == FILE:
                break
        for count in range(1, directory.count("/") + 2 if directory else 1):
            above = "/".join(directory.split("/")[:count])
            if above not in self.reference.names:
                yield {"do": "mkdir", "path": above}
        return path

    def _number(self) -> int:
        self._handle += 1
        return self._handle

    def _size(self) -> int:
        rng = self.rng
        if rng.random() < self.big:
            return rng.randint(*self.sizes)
        return rng.choice([0, 1, rng.randrange(200), rng.randrange(200), 4096, rng.randrange(20_000)])

    def _bytes(self, handle: int, at: int | None, size: int) -> Op:
        return {"do": "write", "h": handle, "at": at, "size": size, "fill": self.rng.getrandbits(40)}

    # ------------------------------------------------------------------ programs
    def _program(self) -> Iterator[Op]:
        files = len(self._having(FILE))
        if files > MOST_FILES:
            return self._remove()
        if files < 3:
            return self._create()
        if self.swaps and self.rng.random() < self.swaps:
            return self._swap()
        programs = self.PROGRAMS if self.directories else self.PROGRAMS[: -self.OF_DIRECTORIES]
        chosen = self.rng.choices([p for p, _ in programs], [weight for _, weight in programs])[0]
        return chosen(self)

    def _whole(self, path: str, sync: float = 0.2) -> Iterator[Op]:
        """open(O_TRUNC), writes, perhaps fsync, close."""
        handle, at = self._number(), 0
        yield {"do": "open", "h": handle, "path": path, "flags": CREATE | os.O_TRUNC}
        for _ in range(self.rng.choice([0, 1, 1, 1, 2, 3])):
            op = self._bytes(handle, at, self._size())
            at += op["size"]
            yield op
        if self.rng.random() < sync:
            yield {"do": "fsync", "h": handle}
        yield {"do": "close", "h": handle}

    def _create(self) -> Iterator[Op]:
        path = yield from self._new_path()
        yield from self._whole(path)

    def _burst(self) -> Iterator[Op]:
        """O_TRUNC over a file that still waits for its upload, again and again."""
        path = self._any() or (yield from self._new_path())
        for _ in range(self.rng.randint(2, 4)):
            yield from self._whole(path, sync=0.1)

    def _save(self) -> Iterator[Op]:
        """The atomic save."""
        path = self._any() or (yield from self._new_path())
        temporary = f"{path}.tmp"
        yield from self._whole(temporary, sync=0.5)
        yield {"do": "rename", "path": temporary, "new": path}

    def _append(self) -> Iterator[Op]:
        path, handle = self._any(), self._number()
        if path is not None:
            yield {"do": "open", "h": handle, "path": path, "flags": os.O_WRONLY | os.O_APPEND}
            for _ in range(self.rng.randint(1, 3)):
                yield self._bytes(handle, None, self.rng.randrange(1, 3000))
            yield {"do": "close", "h": handle}

    def _patch(self) -> Iterator[Op]:
        """Edits in place, past the end too, and a cut; or nothing at all between open and close."""
        path, handle = self._any(), self._number()
        if path is None:
            return
        size = len(self.reference.names[path].data)
        yield {"do": "open", "h": handle, "path": path, "flags": os.O_RDWR}
        for _ in range(self.rng.randint(0, 3)):
            if self.rng.random() < 0.15:
                yield {"do": "ftruncate", "h": handle, "size": self.rng.randrange(size + 3000)}
            else:
                yield self._bytes(handle, self.rng.randrange(size + 3000), self.rng.randrange(1, 3000))
        if self.rng.random() < 0.2:
            yield {"do": "fsync", "h": handle}
        yield {"do": "close", "h": handle}

    def _wav(self) -> Iterator[Op]:
        """A header that is patched at the end."""
        path = yield from self._new_path()
        handle, size = self._number(), self.rng.randrange(1, 30_000)
        yield {"do": "open", "h": handle, "path": path, "flags": CREATE | os.O_TRUNC}
        yield self._bytes(handle, 0, 44)
        yield self._bytes(handle, 44, size)
        yield self._bytes(handle, 0, 44)
        yield {"do": "close", "h": handle}

    def _hold(self) -> Iterator[Op]:
        """A file that stays open over other programs' work, and is written now and then."""
        if self.files and self.rng.random() < 0.7:
            handle = self.rng.choice(list(self.files))
            if self.rng.random() < 0.5:
                yield {"do": "close", "h": handle}
            else:
                at = self.rng.randrange(5000)
                yield self._bytes(handle, None if self._appends(handle) else at, self.rng.randrange(1, 3000))
        elif len(self.files) < 3 and (path := self._any()) is not None:
            flags = os.O_RDWR | self.rng.choice([0, os.O_TRUNC, os.O_APPEND])
            yield {"do": "open", "h": self._number(), "path": path, "flags": flags}

    def _appends(self, handle: int) -> bool:
        return self.reference.handles[handle][1]

    def _cut(self) -> Iterator[Op]:
        path = self._any()
        if path is not None:
            size = self.rng.choice([0, len(self.reference.names[path].data), self.rng.randrange(5000)])
            yield {"do": "truncate", "path": path, "size": size}

    def _mode(self) -> Iterator[Op]:
        path = self._any()
        if path is not None:
            yield {"do": "chmod", "path": path, "mode": self.rng.choice([0o600, 0o640, 0o644, 0o755])}

    def _remove(self) -> Iterator[Op]:
        for path in self._some(self._having(FILE), self.rng.choice([1, 1, 2, 6])):
            yield {"do": "unlink", "path": path}

    def _remove_open(self) -> Iterator[Op]:
        path, handle = self._any(), self._number()
        if path is not None:
            yield {"do": "open", "h": handle, "path": path, "flags": os.O_RDWR}
            yield {"do": "unlink", "path": path}
            yield self._bytes(handle, 0, 100)
            yield {"do": "close", "h": handle}

    def _move(self) -> Iterator[Op]:
        """A file under another name, that of an existing file more often than not."""
        path = self._any()
        new = yield from self._new_path()
        if path is not None and path in self.reference.names and path != new:
            yield {"do": "rename", "path": path, "new": new}

    def _swap(self) -> Iterator[Op]:
        pair = self._some(self._having(FILE), 2)
        if len(pair) == 2 and f"{pair[0]}.swap" not in self.reference.names:  # left by a kill
            first, second = pair
            between = f"{first}.swap"
            yield {"do": "rename", "path": first, "new": between}
            yield {"do": "rename", "path": second, "new": first}
            yield {"do": "rename", "path": between, "new": second}

    def _tree(self) -> Iterator[Op]:
        """A directory with files, renamed: to a new name, or over an empty directory."""
        name = f"t{self.rng.randrange(3)}"
        if name not in self.reference.names:
            yield {"do": "mkdir", "path": name}
            for number in range(self.rng.randint(0, 3)):
                yield from self._whole(f"{name}/{number}", sync=0.0)
        new = f"t{self.rng.randrange(3)}"
        if new == name:
            return
        if new in self.reference.names:
            yield from self._clear(new, keep=self.rng.random() < 0.7)
        if self.reference.names[name].kind == DIRECTORY:
            yield {"do": "rename", "path": name, "new": new}

    def _clear(self, top: str, keep: bool = False) -> Iterator[Op]:
        """rm -r; `keep`: the directory itself stays."""
        for path in sorted(self.reference.below(top), reverse=True):
            is_directory = self.reference.names[path].kind == DIRECTORY
            yield {"do": "rmdir" if is_directory else "unlink", "path": path}
        if not keep:
            yield {"do": "rmdir", "path": top}

    def _remove_tree(self) -> Iterator[Op]:
        top = self._any(DIRECTORY)
        if top is not None and not any(node for node, _ in self.reference.handles.values()):
            yield from self._clear(top)

    def _empty_directory(self) -> Iterator[Op]:
        path = f"v{self.rng.randrange(3)}"
        if path in self.reference.names:
            yield {"do": "rmdir", "path": path}
        else:
            yield {"do": "mkdir", "path": path}

    def _link(self) -> Iterator[Op]:
        path = self._any(LINK)
        if path is None or len(self._having(LINK)) < 3:
            yield {"do": "symlink", "path": f"l{self._number()}", "target": f"to {self.rng.random()}"}
        elif self.rng.random() < 0.5:
            yield {"do": "unlink", "path": path}
        else:
            yield {"do": "rename", "path": path, "new": f"l{self._number()}"}

    PROGRAMS: tuple[tuple[Callable[[Area], Iterator[Op]], int], ...] = (
        (_create, 6), (_burst, 4), (_save, 4), (_append, 3), (_patch, 5), (_wav, 2), (_hold, 4), (_cut, 2),
        (_mode, 1), (_remove, 4), (_remove_open, 1), (_move, 3), (_swap, 2), (_link, 1),
        (_tree, 3), (_remove_tree, 1), (_empty_directory, 1),
    )  # fmt: skip
    OF_DIRECTORIES = 3  # the last so many


def main() -> None:
    """Arguments: the mount, the directory of the manifests, the areas' names."""
    mount, manifests, *names = sys.argv[1:]
    areas = [Area(Path(mount) / name, Manifest(Path(manifests) / name)) for name in names]
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        threads = [threading.Thread(target=area.round, args=(order,)) for area in areas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("done", flush=True)


if __name__ == "__main__":
    main()
