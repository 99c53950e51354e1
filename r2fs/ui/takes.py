"""Takes: the versions of one file that two hosts wrote at the same time, side by side, and the choice among them.

Owns:    the choice: one take gets the file's name, each other a name of its own, or is deleted on request.
Never:   replaces a file; removes a file whose evidence is not that of the take that was shown; leaves the file's name
         without a file.
Fails:   Busy where a take was changed meanwhile: nothing is lost, and the page shows the takes anew; the errors of
         beneath.py.

Takes are renamed and unlinked in the mount or the mirror's directory, as by any program: a crash between two steps
leaves each take under one of the names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from r2fs.daemon.client import Daemon
from r2fs.disk.filecalls import open_unless_writable, renameat2
from r2fs.disk.plain_tree import Local
from r2fs.model.errors import Busy, InvalidArgument, NotFound, R2fsError
from r2fs.model.keys import conflict_origin, conflict_original, is_name, other_take_name, printable
from r2fs.model.metadata import content_type
from r2fs.model.verbs import RENAME_EXCHANGE, RENAME_NOREPLACE
from r2fs.ui import beneath
from r2fs.ui.beneath import ref_of
from r2fs.ui.mounts import Answer, ask, understood

SHOWN = 20  # files with takes
STAYS = (
    "In the bucket the other takes stay under their names, too: this mirror carries no removals (--delete)."
)
PLAYED = ("audio/", "video/")  # beginnings of content types that have a player


def original_of(copy: str) -> str:
    """The path of the file of a conflict copy; the copy's own path if its name is not that of a conflict copy."""
    above, slash, name = copy.rpartition("/")
    original = conflict_original(name)
    return copy if original is None or not is_name(original) else above + slash + original


def all_takes(daemon: Daemon) -> Answer:
    """The files with conflict copies, at most SHOWN, each with its takes, the file's own first."""
    status = ask(daemon, "status")
    with understood(daemon):
        grouped: dict[str, list[str]] = {}
        for copy in status["queue"]["conflicts"]:
            grouped.setdefault(original_of(copy), []).append(copy)
        mount = status["mount"]
        mirror, is_read_only = status.get("mirror"), bool(mount.get("read_only"))
        note = STAYS if mirror is not None and not mirror["carries_removals"] else ""
    files = []
    for original, copies in list(grouped.items())[:SHOWN]:
        takes = [_take(daemon, path, mirror is not None) for path in dict.fromkeys([original, *copies])]
        files.append(
            {
                "path": printable(original),
                "ref": ref_of(original),
                "takes": [take for take in takes if take is not None],
            }
        )
    why_not = "this mount is read-only" if is_read_only else ""
    return {"files": files, "more": max(0, len(grouped) - SHOWN), "why_not": why_not, "note": note}


def _take(daemon: Daemon, path: str, is_mirror: bool) -> Answer | None:
    """One take, and the evidence of its content; None if it is gone."""
    above, _, name = path.rpartition("/")
    try:
        with beneath.directory(daemon.mountpoint, above) as directory:
            found = _lstat(directory, name)
        known = {} if is_mirror else ask(daemon, "file", path=path)
    except NotFound:
        return None
    kind = content_type(name)
    with understood(daemon):
        return {
            "path": printable(path),
            "name": printable(name),
            "ref": ref_of(path),
            "origin": _origin(name),
            "size": found.st_size,
            "modified_at_s": found.st_mtime,
            "whole": known.get("whole", True),
            "state": known.get("state", "clean"),
            "open": known.get("open", 0),
            "plays": stat.S_ISREG(found.st_mode) and kind.startswith(PLAYED),
            "evidence": _evidence(found),
        }


def _origin(name: str) -> Answer | None:
    found = conflict_origin(name)
    return None if found is None else {"host": printable(found[0]), "day": found[1]}


@dataclass(frozen=True, slots=True)
class Kept:
    """Outcome of a choice; names within the file's directory."""

    name: str  # of the take that was kept
    aside: tuple[str, ...]  # new names of other takes
    deleted: tuple[str, ...]


def settle(daemon: Daemon, original: str, kept: str, seen: Mapping[str, str], delete: bool) -> Kept:
    """`keep`, in the mount or mirror of a daemon. Busy if a take to delete is being written."""
    is_mirror = "mirror" in ask(daemon, "status")
    for path in seen if delete else ():
        if path != kept and _is_written(daemon, path, is_mirror):
            raise Busy(f"{printable(path)} is being written by a program: nothing was done")
    with beneath.errors(original):
        return keep(daemon.mountpoint, original, kept, seen, delete)


def _is_written(daemon: Daemon, path: str, is_mirror: bool) -> bool:
    """True if a program has the take open for writing; in a mirror's directory only where its file system tells."""
    if not is_mirror:
        return ask(daemon, "file", path=path).get("state") == "dirty"
    above, _, name = path.rpartition("/")
    with beneath.errors(path), beneath.directory(daemon.mountpoint, above) as directory:
        found = open_unless_writable(Path(f"/proc/self/fd/{directory}/{name}"))
        if found is None:
            return True
        os.close(found)
        return False


def keep(root: str, original: str, kept: str, seen: Mapping[str, str], delete: bool) -> Kept:
    """Give the take at the path `kept` the name of the file `original`, and its other takes names of their own.

    `seen` holds the evidence of each take that the person was shown, by its path. With `delete` the other takes are
    removed.
    """
    above = original.rpartition("/")[0]
    names = [_name_in(above, path, original) for path in seen]
    if kept not in seen:
        raise InvalidArgument(f"{printable(kept)} is none of the takes")
    evidence = dict(zip(names, seen.values(), strict=True))
    name, chosen = original.rpartition("/")[2], kept.rpartition("/")[2]
    with beneath.directory(root, above) as directory:
        for each, expected in evidence.items():
            _check(directory, each, expected)
        others = [each for each in names if each != chosen]
        if chosen != name:
            if name in evidence:
                chosen = _exchange(directory, chosen, name, evidence)
                others = [chosen if each == name else each for each in others]
                evidence[chosen] = evidence[name]
            elif not _rename_if_free(directory, chosen, name):
                raise Busy(f"{printable(name)} was made meanwhile: look at the takes again")
        aside, deleted = [], []
        for each in others:
            moved = _set_aside(directory, each, name)
            if delete and _evidence(_lstat(directory, moved)) == evidence[each]:
                os.unlink(moved, dir_fd=directory)
                deleted.append(printable(each))
            else:
                aside.append(printable(moved))
        os.fsync(directory)
    return Kept(printable(name), tuple(aside), tuple(deleted))


def _name_in(above: str, path: str, original: str) -> str:
    """The name of a take. InvalidArgument for a path that is neither the file's nor of a conflict copy of it."""
    if path != original and original_of(path) != original:
        raise InvalidArgument(f"{printable(path)} is no take of {printable(original)}")
    name = path[len(above) :].lstrip("/")
    if not name:
        raise InvalidArgument("a take has a name")
    return name


def _exchange(directory: int, chosen: str, name: str, evidence: Mapping[str, str]) -> str:
    """Exchange the names of two takes; return the name that the file's former take has then."""
    if renameat2(directory, chosen, directory, name, RENAME_EXCHANGE):
        try:
            _check(directory, name, evidence[chosen])
            _check(directory, chosen, evidence[name])
        except R2fsError:
            renameat2(directory, chosen, directory, name, RENAME_EXCHANGE)
            raise
        return chosen
    moved = _set_aside(directory, name, name)  # libfuse 2: the name is missing until the next call
    try:
        is_renamed = _rename_if_free(directory, chosen, name)
    except (R2fsError, OSError):
        _rename_if_free(directory, moved, name)
        raise
    if not is_renamed:
        raise Busy(f"{printable(name)} was made meanwhile; the former take is {printable(moved)}")
    return moved


def _set_aside(directory: int, name: str, original: str) -> str:
    """Give a take a name of its own, unless it has one; return that name."""
    if conflict_original(name) is None and name != original:
        return name
    for number in count(1):
        free = other_take_name(original, number)
        if _rename_if_free(directory, name, free):
            return free
    raise AssertionError("count() has no end")


def _rename_if_free(directory: int, old: str, new: str) -> bool:
    """Rename; False where there is a file of the new name."""
    try:
        if renameat2(directory, old, directory, new, RENAME_NOREPLACE):
            return True
        try:
            os.lstat(new, dir_fd=directory)
        except FileNotFoundError:
            os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
            return True
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise Busy(f"{printable(old)} was removed meanwhile: look at the takes again") from None
    return False


def _check(directory: int, name: str, expected: str) -> None:
    """Raise Busy unless the file is the one that was shown."""
    try:
        found = _evidence(_lstat(directory, name))
    except NotFound:
        found = ""
    if found != expected:
        raise Busy(f"{printable(name)} was changed meanwhile: look at the takes again; nothing was done")


def _lstat(directory: int, name: str) -> os.stat_result:
    try:
        return os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        raise NotFound(f"{printable(name)}: no such file or directory") from None


def _evidence(found: os.stat_result) -> str:
    """Size, time and inode of a file as text: it changes with the content, and not by a rename."""
    of = Local.of(found)
    return f"{of.size}-{of.mtime_ns}-{of.ino}"
