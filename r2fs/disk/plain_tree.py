"""A plain directory tree: its files by relative path, put in place, set aside and removed without losing a write.

A file is replaced by exchanging both names (renameat2(2)): the former file is then compared, and only then removed.
Files on their way into or out of the tree lie in its directory OWN.

Never:   follows a symbolic link below the root; replaces or removes a file that is not the expected one: such a file
         is put back, or stays in OWN until `Recovery` has given it a name.
Threads: every method; one path belongs to one thread at a time.
Fails:   Obstructed where a path cannot be a file here, Changed where a file is not the expected one, LocalError and
         NoSpace of the disk.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from r2fs.disk.filecalls import local_error, local_errors, open_unless_writable, renameat2
from r2fs.model.errors import LocalError
from r2fs.model.keys import printable
from r2fs.model.verbs import RENAME_EXCHANGE, RENAME_NOREPLACE

OWN = ".r2fs-mirror"  # never mirrored
ID = "id"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PART, WHOLE, OUT = "part-", "whole-", "out-"  # beginnings of names in OWN


class Obstructed(LocalError):
    """The path is no file here: a link, a special file, or a part of the path is not a directory."""


class Changed(LocalError):
    """The file is not the expected one any more."""


class Local(NamedTuple):
    """Evidence of a file's content: equal evidence means that no program wrote to the file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int

    @classmethod
    def of(cls, found: os.stat_result) -> Local:
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def is_content_of(self, found: os.stat_result) -> bool:
        """Compare without ctime, which a rename changes."""
        return stat.S_ISREG(found.st_mode) and self[:2] + self[3:] == Local.of(found)[:2] + (found.st_ino,)


class Found(NamedTuple):
    """One entry of a walk. `local` is None where the entry, or all below it, cannot be mirrored: `reason` says why."""

    path: str
    local: Local | None
    reason: str = ""


class PlainTree:
    def __init__(self, root: Path, tag: str) -> None:
        """`tag` distinguishes the files in OWN of several mirrors of one directory."""
        # constant
        self.root = root
        self._tag = tag
        # Path and inode of directories whose names are on the disk.
        self._synced = set[tuple[str, int]]()
        with local_errors(root):
            with suppress(FileExistsError):
                os.mkdir(root / OWN, 0o700)
            self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._own = os.open(OWN, DIRECTORY, dir_fd=self._root_fd)

    def close(self) -> None:
        os.close(self._own)
        os.close(self._root_fd)

    def read_id(self) -> str | None:
        """The tree's id; None: it has none, or the directory at the root's path is another one by now."""
        try:
            return (self.root / OWN / ID).read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise LocalError(f"{self.root / OWN / ID}: {error}") from None

    def require_id(self, wanted: str | None) -> None:
        """Raise LocalError if this is not the tree of that id: the directory was removed, or its disk is not mounted."""
        if self.read_id() != wanted:
            raise LocalError(
                f"{self.root} is not the directory that was mirrored: nothing is removed in the bucket"
            )

    def make_id(self) -> str:
        """Give the tree a new id, durably."""
        made = secrets.token_hex(16)
        with self._errors(OWN):
            fd = os.open(
                ID,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=self._own,
            )
            try:
                os.write(fd, made.encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.fsync(self._own)
        return made

    # ------------------------------------------------------------------ looking
    def walk(self, below: str = "") -> Iterator[Found]:
        """Yield every file at or below `below`, and every entry that cannot be mirrored."""
        waiting = [below]
        while waiting:
            directory = waiting.pop()
            try:
                with os.scandir(self.root / directory) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                yield from self._one(directory)
                continue
            except OSError as error:
                yield Found(directory, None, f"cannot be read: {error.strerror}")
                continue
            for entry in found:
                path = f"{directory}/{entry.name}" if directory else entry.name
                if path == OWN:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                else:
                    yield from self._one(path)

    def _one(self, path: str) -> Iterator[Found]:
        try:
            local = self.stat(path)
        except LocalError as error:
            yield Found(path, None, str(error))
            return
        if local is not None:
            yield Found(path, local)

    def stat(self, path: str) -> Local | None:
        """Evidence of the file at `path`; None: there is none."""
        try:
            with self._parent(path) as (directory, name):
                found = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise local_error(error, printable(path)) from error
        if not stat.S_ISREG(found.st_mode):
            raise Obstructed(f"{printable(path)} is {_kind(found.st_mode)}")
        return Local.of(found)

    def open(self, path: str) -> int:
        """A descriptor to read the file at `path`."""
        with self._errors(path), self._parent(path) as (directory, name):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise Obstructed(f"{printable(path)} is no file")
            return fd

    def is_open_for_writing(self, path: str) -> bool:
        """True if a program has the file open for writing. False on a file system without leases."""
        with self._errors(path), self._parent(path) as (directory, name):
            fd = open_unless_writable(Path(f"/proc/self/fd/{directory}/{name}"))
            if fd is None:
                return True
            os.close(fd)
            return False

    def sync_name(self, path: str) -> None:
        """Make the name, and those of its directories, survive a power cut."""
        with self._errors(path):
            directory = os.path.dirname(path)
            while directory:
                with self._parent(directory) as (parent, name):
                    made = directory, os.lstat(name, dir_fd=parent).st_ino
                    if made in self._synced:
                        break
                    os.fsync(parent)
                self._synced.add(made)
                directory = os.path.dirname(directory)
            with self._parent(path) as (parent, _):
                os.fsync(parent)

    # ------------------------------------------------------------------ putting in place
    def new_file(self) -> tuple[str, int]:
        """A new file in OWN: its name there, and a descriptor to write."""
        name = self.new_name(PART)
        with self._errors(OWN):
            return name, os.open(
                name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._own
            )

    def evidence(self, own_name: str) -> Local:
        with self._errors(OWN):
            return Local.of(os.lstat(own_name, dir_fd=self._own))

    def complete(self, part: str, whole: str) -> None:
        """Rename a file of `new_file` that is to replace another one: under `whole`, either may be found after a kill."""
        with self._errors(OWN):
            os.rename(part, whole, src_dir_fd=self._own, dst_dir_fd=self._own)

    def new_name(self, kind: str) -> str:
        """A free name in OWN, of the kind WHOLE or OUT."""
        return f"{kind}{self._tag}-{secrets.token_hex(8)}"

    def discard(self, name: str) -> None:
        """Remove a file of OWN, if it is there."""
        with self._errors(OWN), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._own)

    def discard_own(self, name: str, made: Local) -> bool:
        """Remove a file of OWN that was made there. False: it is another one, which a program has written."""
        with self._errors(OWN), suppress(FileNotFoundError):
            if os.lstat(name, dir_fd=self._own).st_ino != made.ino:
                return False
            os.unlink(name, dir_fd=self._own)
        return True

    def place(self, whole: str, new: Local, path: str, expected: Local | None) -> Local:
        """Give the file `whole` of OWN, whose evidence is `new`, the name `path`, in place of the file `expected` (None: of none).

        Returns the evidence of the new file, as no program has written to it. Raises Changed if another file is there.
        """
        with self._errors(path), self._parent(path, make=True) as (directory, name):
            if expected is None:
                _move(self._own, whole, directory, name, path)
            else:
                self._exchange(whole, new, directory, name, path, expected)
            os.fsync(directory)
            placed = os.lstat(name, dir_fd=directory)
        return new._replace(ctime_ns=placed.st_ctime_ns)

    def _exchange(
        self, whole: str, new: Local, directory: int, name: str, path: str, expected: Local
    ) -> None:
        if not renameat2(self._own, whole, directory, name, RENAME_EXCHANGE):
            # The window between this comparison and the rename is the price of a file system without an exchange.
            if not expected.is_content_of(os.lstat(name, dir_fd=directory)):
                raise Changed(f"{printable(path)} was changed")
            os.rename(whole, name, src_dir_fd=self._own, dst_dir_fd=directory)
            return
        if not expected.is_content_of(os.lstat(whole, dir_fd=self._own)):
            renameat2(self._own, whole, directory, name, RENAME_EXCHANGE)
            raise Changed(f"{printable(path)} was changed")
        os.unlink(whole, dir_fd=self._own)

    def rename(self, path: str, new_path: str) -> None:
        """Give a file another name, of which there is no file yet; durably. Raises Changed if there is one."""
        with self._errors(path), self._parent(path) as (directory, name):
            with self._parent(new_path, make=True) as (new_directory, new_name):
                _move(directory, name, new_directory, new_name, new_path)
                os.fsync(new_directory)

    def remove(self, path: str, out: str, expected: Local) -> None:
        """Remove the file `expected`, by the name `out` in OWN, and directories that get empty.

        Raises Changed if it is another file, which stays.
        """
        with self._errors(path), self._parent(path) as (directory, name):
            os.rename(name, out, src_dir_fd=directory, dst_dir_fd=self._own)
            if not expected.is_content_of(os.lstat(out, dir_fd=self._own)):
                _move(self._own, out, directory, name, path)
                raise Changed(f"{printable(path)} was changed")
            os.unlink(out, dir_fd=self._own)
            os.fsync(directory)
        parent = os.path.dirname(path)
        with suppress(OSError):  # not empty
            while parent:
                os.rmdir(self.root / parent)
                parent = os.path.dirname(parent)

    def make_directory(self, path: str) -> None:
        with self._errors(path), self._parent(f"{path}/x", make=True):
            pass

    # ------------------------------------------------------------------ after a kill
    def left(self) -> dict[str, os.stat_result]:
        """Files of OWN that a killed mirror left, by name."""
        with self._errors(OWN):
            kinds = tuple(f"{kind}{self._tag}-" for kind in (PART, WHOLE, OUT))
            names = [name for name in os.listdir(self._own) if name.startswith(kinds)]
            return {name: os.lstat(name, dir_fd=self._own) for name in names}

    def put_back(self, own_name: str, path: str) -> None:
        """Give a file of OWN the name `path`. Raises Changed if there is another file."""
        with self._errors(path), self._parent(path, make=True) as (directory, name):
            _move(self._own, own_name, directory, name, path)
            os.fsync(directory)

    # ------------------------------------------------------------------ paths
    @contextmanager
    def _parent(self, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """Descriptor of the directory of `path`, reached without a symbolic link, and the last part."""
        *directories, name = path.split("/")
        fd = os.dup(self._root_fd)
        try:
            for part in directories:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o777, dir_fd=fd)
                        os.fsync(fd)
                try:
                    deeper = os.open(part, DIRECTORY, dir_fd=fd)
                except NotADirectoryError:
                    if not make and stat.S_ISREG(os.lstat(part, dir_fd=fd).st_mode):
                        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
                    raise Obstructed(f"{printable(path)}: {printable(part)} is no directory") from None
                os.close(fd)
                fd = deeper
            yield fd, name
        finally:
            os.close(fd)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise Changed(f"{printable(path)} is gone") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Obstructed(f"{printable(path)} is a symbolic link") from None
            if error.errno == errno.EISDIR:
                raise Obstructed(f"{printable(path)} is a directory") from None
            raise local_error(error, printable(path)) from error


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a directory" if stat.S_ISDIR(mode) else "no regular file"


def _move(old_fd: int, old: str, new_fd: int, new: str, path: str) -> None:
    """Rename without replacing. Raises Changed if there is a file under the new name."""
    try:
        if renameat2(old_fd, old, new_fd, new, RENAME_NOREPLACE):
            return
        os.link(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
        os.unlink(old, dir_fd=old_fd)
    except FileExistsError:
        raise Changed(f"{printable(path)} was made meanwhile") from None
