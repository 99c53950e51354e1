"""The reference: what a mount is to show, as simply as it can be said.

Owns:  files and directories by path, open files by slot, and what each operation of a program
       does to them. `sync` lets the bucket's truth through wherever nothing is pending here.
Never: knows the engine: `match.py` compares the two.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

from r2fs.model.keys import SYMLINK_SUFFIX, nfc
from tests.model.bucket import ModelBucket, digest
from tests.support.memory_store import Stored

Objects = Mapping[str, Stored]  # by NFC key


class Refused(Exception):
    """The operation is to fail, with an error of one of these names."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.names = names


@dataclass(eq=False)
class File:
    """One inode: stays itself over renames; open slots keep it after it lost its name."""

    data: bytes
    link: bool = False
    pending: bool = True  # this host changed it, and the bucket may not know yet
    modified: bool = True  # it holds bytes that are this host's own since the bucket had them last
    at: str | None = None  # ETag that the bucket had under its name, as the mount showed it
    origins: set[str] = field(default_factory=set)  # ETags of versions that bytes may still come from
    fragile: bool = False  # another client took such a version away
    mode: int | None = None  # None: nobody set it
    mtime_ns: int | None = None
    mode_shown: bool = True  # False: only the bucket knows it for sure, since the cache was lost
    mtime_shown: bool = True
    tags: dict[str, str] = field(default_factory=dict)  # metadata of others, to be kept
    writers: int = 0
    broken: bool = False  # bytes are lost with the version they were to come from
    taken: bool = False  # sent, and taken away by another client before the journal here had the answer

    def __lt__(self, other: File) -> bool:
        return False  # for sorting by path, which is never equal


def parent(path: str) -> str:
    return path.rpartition("/")[0]


class Model:
    def __init__(self, bucket: ModelBucket, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.files: dict[str, File] = {}
        self.dirs: dict[str, bool] = {}  # directories of their own right; True: pending here
        self.gone: dict[str, set[str]] = {}  # path: ETags of versions that were deleted here
        self.gone_dirs: set[str] = set()
        self.fading: set[str] = set()  # directories that are shown until the last delete below is done
        # directories that have lost a file while their object, of another client, may be known to be gone, or not
        self.doubtful_dirs: set[str] = set()
        self.slots: dict[str, tuple[File, bool, bool]] = {}  # file, writes, appends
        self.touched: set[str] = set()  # paths at which another client changed something

    @property
    def was_away(self) -> bool:
        """Did the bucket ever not answer at all?"""
        return self.bucket.was_away

    def copy(self) -> Model:
        return copy.deepcopy(self, {id(self.bucket): self.bucket})

    def fingerprint(self) -> str:
        """Equal for models that will never be told apart."""
        identities = {id(file): path for path, file in self.files.items()}
        slots = {slot: (identities.get(id(f)), f, *flags) for slot, (f, *flags) in self.slots.items()}
        sets = [sorted(part) for part in (self.gone_dirs, self.doubtful_dirs, self.fading, self.touched)]
        return repr((sorted(self.files.items()), sorted(self.dirs.items()), sorted(slots.items()), sets, [
            (path, sorted(etags)) for path, etags in sorted(self.gone.items())
        ]))  # fmt: skip

    # ------------------------------------------------------------------ keys
    def key(self, path: str, file: File | None = None) -> str:
        file = file or self.files.get(path)
        return self.prefix + path + (SYMLINK_SUFFIX if file and file.link else "")

    def path(self, key: str) -> str:
        return nfc(key[len(self.prefix) :]).removesuffix(SYMLINK_SUFFIX)

    # ------------------------------------------------------------------ the bucket's truth
    def sync(self, objects: Objects) -> None:
        """What is not pending here is what the bucket has."""
        there: dict[str, Stored] = {}
        markers: dict[str, bool] = {}  # is it another client's?
        for key, stored in objects.items():
            if not key.startswith(self.prefix) or key == self.prefix:
                continue
            if key.endswith("/"):
                markers[self.path(key).rstrip("/")] = nfc(key) in self.bucket.foreign
            else:
                there[self.path(key)] = stored
        # What kept these shown may have been deleted in the middle of an operation, ahead of a program's next call.
        self.fading = {path for path in self.fading if self._has_below(path, objects)}
        for path, etags in list(self.gone.items()):
            if path not in there or there[path].etag not in etags:
                del self.gone[path]
        for path, file in list(self.files.items()):
            if file.pending or file.writers:
                continue
            if path not in there or there[path].etag != file.at or there[path].data != file.data:
                self._lose(path)
        for path, stored in there.items():
            if path not in self.files and nfc(stored.key) in self.bucket.foreign:
                if stored.etag not in self.gone.get(path, ()):
                    self.files[path] = self._foreign(stored)
        self._sync_dirs(markers)

    def _has_below(self, path: str, objects: Objects) -> bool:
        """True if the bucket holds an object in the directory; its marker counts as well."""
        return any(key.startswith(nfc(self.prefix + path + "/")) for key in objects)

    def _lose(self, path: str) -> None:
        del self.files[path]

    def _foreign(self, stored: Stored) -> File:
        tags = {name: value for name, value in stored.meta.metadata.items() if name.startswith("tag")}
        link = stored.key.endswith(SYMLINK_SUFFIX)
        return File(
            stored.data, link, pending=False, modified=False, at=stored.etag, origins={stored.etag}, tags=tags
        )

    def _sync_dirs(self, markers: Mapping[str, bool]) -> None:
        self.gone_dirs &= set(markers)
        for path, pending in list(self.dirs.items()):
            if not pending and path not in markers:
                del self.dirs[path]
        for path, foreign in markers.items():
            if foreign and path not in self.gone_dirs:  # one of ours that is not known has been removed since
                self.dirs.setdefault(path, False)

    def forget(self) -> None:
        """The cache is lost: what only the bucket knows of a file may not be shown."""
        for file in self.files.values():
            file.mode_shown = file.mtime_shown = False

    def touch(self, path: str, etag: str | None, unheard: bool, sent: bool) -> None:
        """Another client writes or removes what is at `path`; `etag` is of the version that goes.

        `unheard`: that is the upload of the file here, and its answer is not in the journal yet. `sent`: that has the
        bytes of the file here, of which attributes alone are pending.
        """
        self.touched.add(path)
        here = self.files.get(path)
        if here is not None and unheard:
            here.taken = True
        if here is not None and sent and etag is not None:
            here.modified = False
            here.origins.add(etag)
        if etag is not None:
            for file in [*self.files.values(), *(file for file, _, _ in self.slots.values())]:
                if etag in file.origins:
                    # Its metadata may never have been asked for, or not since the last crash.
                    file.fragile, file.tags, file.mode, file.mtime_ns = True, {}, None, None

    def settled(self, path: str, file: File, stored: Stored | None) -> None:
        """The engine owes nothing of this file any more."""
        file.pending = file.modified = False
        if stored is not None:
            file.at, file.origins, file.fragile = stored.etag, {stored.etag}, False

    # ------------------------------------------------------------------ what is to be seen
    def directories(self) -> set[str]:
        found = set()
        for path in [*self.files, *(path + "/" for path in {*self.dirs, *self.fading})]:
            while path := parent(path):
                found.add(path)
        return found

    def _is_needed(self, path: str) -> bool:
        """True if the directory is shown for its own right, or for a name below."""
        return any(name.startswith(path + "/") for name in [*self.files, *(each + "/" for each in self.dirs)])

    def children(self, path: str) -> set[str]:
        names = [*self.files, *self.directories()]
        return {name for name in names if parent(name) == path}

    # ------------------------------------------------------------------ names
    def _need_directory(self, path: str) -> None:
        if path and path not in self.directories():
            raise Refused("NotFound")

    def _need(self, path: str) -> File:
        self._need_directory(parent(path))
        if path not in self.files:
            raise Refused("NotFound")
        return self.files[path]

    def _doom(self, path: str, file: File) -> None:
        """A program here changes or removes what it saw."""
        for etag in {file.at, *file.origins} - {None}:
            self.bucket.doomed.add((nfc(self.key(path, file)), str(etag)))

    def _leave(self, path: str) -> File:
        """The name goes from here; a directory that only its files made stays."""
        file = self.files.pop(path)
        file.taken = False
        self._doom(path, file)
        if file.at is not None:
            self.gone.setdefault(path, set()).add(file.at)
        return file

    def _keep(self, path: str) -> None:
        """`path` has lost a child. Shown only until the deletes below are done, it is a program's directory from now on."""
        if path in self.fading and not self._is_needed(path):
            self.fading.discard(path)
        if path and path not in self.directories():
            self.dirs[path] = True
            self.gone_dirs.discard(path)
        elif self.dirs.get(path) is False and nfc(f"{self.prefix}{path}/") not in self.bucket.objects:
            self.doubtful_dirs.add(path)

    def unlink(self, path: str) -> None:
        self._need(path)
        self._leave(path)
        self._keep(parent(path))

    def mkdir(self, path: str) -> None:
        self._need_directory(parent(path))
        if path in self.directories() or path in self.files:
            raise Refused("Exists")
        self.dirs[path] = True
        self.gone_dirs.discard(path)

    def rmdir(self, path: str) -> None:
        self._need_directory(parent(path))
        if path not in self.directories():
            raise Refused("NotFound")
        if self.children(path):
            raise Refused("DirectoryNotEmpty")
        self.dirs.pop(path, None)
        self.fading.discard(path)
        self.gone_dirs.add(path)
        self._keep(parent(path))

    def remove_tree(self, path: str) -> None:
        """`r2fs rm -r`: every file and directory below goes, and so does `path`."""
        if path not in self.directories() and path not in self.fading:
            return
        for one in [one for one in self.files if one.startswith(path + "/")]:
            self._leave(one)
        for one in [one for one in {*self.dirs, *self.fading, path} if (one + "/").startswith(path + "/")]:
            self.dirs.pop(one, None)
            self.fading.discard(one)
            self.gone_dirs.add(one)
        self._keep(parent(path))

    def drop(self, path: str) -> None:
        """`r2fs queue drop`: the bucket's version counts, or the name is gone."""
        stored = self.bucket.objects.get(nfc(self.key(path)))
        if path not in self.files:
            raise Refused("NotFound")
        del self.files[path]
        if stored is not None:
            self.files[path] = self._foreign(stored)
        else:
            self._keep(parent(path))

    def symlink(self, path: str, target: str) -> None:
        self._need_directory(parent(path))
        if path in self.files or path in self.directories():
            raise Refused("Exists")
        file = self.files[path] = File(target.encode(), link=True)
        self._seal(file)

    def readlink(self, path: str) -> bytes:
        file = self._need(path)
        if not file.link:
            raise Refused("InvalidArgument")
        return file.data

    def rename(self, old: str, new: str) -> None:
        if old in self.directories():
            self._rename_directory(old, new)
            return
        file = self._need(old)
        self._need_directory(parent(new))
        if old == new:
            return
        if new in self.directories():
            raise Refused("IsADirectory")
        at = None
        if new in self.files:
            at = self._leave(new).at
        elif new in self.gone:
            at = None
        self._leave(old)
        self.files[new] = file
        file.at, file.pending = at, True
        self._keep(parent(old))

    def exchange(self, one: str, other: str) -> None:
        """RENAME_EXCHANGE of two files."""
        file, second = self._need(one), self._need(other)
        if file is second:
            return
        at, at_other = self._leave(one).at, self._leave(other).at
        self.files[other], self.files[one] = file, second
        file.at, second.at = at_other, at
        file.pending = second.pending = True

    def _rename_directory(self, old: str, new: str) -> None:
        self._need_directory(parent(new))
        if old == new:
            return
        if new == old or new.startswith(old + "/"):
            raise Refused("InvalidArgument")
        if new in self.files:
            raise Refused("NotADirectory")
        if new in self.directories():
            if self.children(new):
                raise Refused("DirectoryNotEmpty")
            if self.dirs.pop(new, None) is not None:
                self.gone_dirs.add(new)
            self.fading.discard(new)
        empty = not self.children(old)
        self.fading = {path for path in self.fading if not (path + "/").startswith(old + "/")}
        for path in [path for path in self.files if path.startswith(old + "/")]:
            file = self._leave(path)
            self.files[new + path[len(old) :]] = file
            file.at, file.pending = None, True
        for path in [path for path in self.dirs if path == old or path.startswith(old + "/")]:
            del self.dirs[path]
            self.gone_dirs.add(path)
            self.dirs[new + path[len(old) :]] = True
            self.gone_dirs.discard(new + path[len(old) :])
        if empty:
            self.dirs[new] = True
            self.gone_dirs.discard(new)
        self._keep(parent(old))

    # ------------------------------------------------------------------ open files
    def open(self, slot: str, path: str, flags: str) -> None:
        """Flags: r, w (read and write), c (create), x (exclusive), t (truncate), a (append)."""
        self._need_directory(parent(path))
        if path in self.directories():
            raise Refused("IsADirectory")
        if path not in self.files:
            if "c" not in flags:
                raise Refused("NotFound")
            self.files[path] = File(b"")
        elif "x" in flags:
            raise Refused("Exists")
        file = self.files[path]
        if file.link:
            raise Refused("IsADirectory", "InvalidArgument")
        writes = "w" in flags
        if writes:
            self._doom(path, file)
            file.pending = True
            file.writers += 1
        self.slots[slot] = (file, writes, "a" in flags)
        if "t" in flags:
            self._change(file, b"")

    def write(self, slot: str, offset: int, data: bytes) -> None:
        file, writes, appends = self._slot(slot)
        if not writes:
            raise Refused("BadHandle")
        offset = len(file.data) if appends else offset
        before = file.data[:offset].ljust(offset, b"\0")
        self._change(file, before + data + file.data[offset + len(data) :])

    def read(self, slot: str, offset: int, size: int) -> bytes:
        return self._slot(slot)[0].data[offset : offset + size]

    def truncate(self, path: str, size: int) -> None:
        file = self._need(path)
        if file.link:
            raise Refused("InvalidArgument")
        self._doom(path, file)
        self._cut(file, size)

    def truncate_open(self, slot: str, size: int) -> None:
        self._cut(self._slot(slot)[0], size)

    def _cut(self, file: File, size: int) -> None:
        file.pending = True
        self._change(file, file.data[:size].ljust(size, b"\0"))

    def close(self, slot: str) -> None:
        file, writes, _ = self._slot(slot)
        del self.slots[slot]
        file.writers -= writes
        self._seal(file)

    def set_attributes(self, path: str, mode: int | None, mtime_ns: int | None) -> None:
        file = self._need(path)
        self._doom(path, file)
        file.pending = True
        if mode is not None:
            file.mode, file.mode_shown = mode, True
        if mtime_ns is not None:
            file.mtime_ns, file.mtime_shown = mtime_ns, True

    def _slot(self, slot: str) -> tuple[File, bool, bool]:
        if slot not in self.slots:
            raise Refused("BadHandle")
        return self.slots[slot]

    def _change(self, file: File, data: bytes) -> None:
        if file.at not in file.origins:
            file.tags = {}  # renamed and rewritten: its old name may be taken before anybody asked for them
        file.data, file.modified, file.mtime_ns, file.taken = data, True, None, False
        self._seal(file)

    def _seal(self, file: File) -> None:
        if not file.writers:
            self.bucket.sealed.add(digest(file.data))

    # ------------------------------------------------------------------ the daemon ends
    def ended(self) -> None:
        """Every handle is gone; what was written so far is sealed."""
        for file, _, _ in self.slots.values():
            file.writers = 0
            self._seal(file)
        self.slots.clear()
