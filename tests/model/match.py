"""Does what the mount shows match the reference? And does the bucket, once nothing is pending?

Owns:  looking without leaving a trace where that can be (no file is opened or fetched for it), and
       what the engine may do by itself: settle what it has sent, keep a conflict's loser under a
       conflict name, lose a rename whose source another client took away.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import R2fsError
from r2fs.model.keys import nfc
from r2fs.model.records import Attributes, Kind
from r2fs.model.verbs import ROOT
from tests.model.bucket import digest
from tests.model.reference import File, Model, parent
from tests.model.world import World

UNKNOWN = object()


class Mismatch(AssertionError):
    pass


@dataclass
class Seen:
    """One name as the mount shows it."""

    attributes: Attributes
    owes: bool
    data: bytes | None  # None: could not be read, or not without a trace
    state: str
    awaits: bool = False  # an answer that a crash made it miss; until then its base may be another


def look(world: World, read: bool = False) -> dict[str, Seen]:
    """Every name below the root. `read`: by open and read, as a program would."""
    fs, caller = world.engine.fs, world.engine.caller
    found: dict[str, Seen] = {}

    def walk(ino: int, above: str) -> None:
        for entry in fs.readdir(caller, ino):
            path = f"{above}/{entry.name}".lstrip("/")
            with world.engine.lock:
                node = world.engine.inodes.get(ino).children()[entry.name]
            attributes = fs.getattr(caller, node.ino).attributes
            data = None
            if entry.kind is Kind.SYMLINK:
                data = os.fsencode(fs.readlink(caller, node.ino))
            elif entry.kind is Kind.FILE:
                data = _read(world, path) if read else peek(world, node)
            found[path] = Seen(
                attributes, node.pending is not None, data, node.state.value, _awaits(world, node)
            )
            if entry.kind is Kind.DIRECTORY:
                walk(node.ino, path)

    with world.undisturbed():
        walk(ROOT, "")
    return found


def _read(world: World, path: str) -> bytes | None:
    try:
        return world.engine.read(path)
    except R2fsError as error:
        if type(error).__name__ not in ("Stale", "ReadFailed"):
            raise
        return None


def peek(world: World, node: Node) -> bytes | None:
    """The bytes that a read would give, without reading; None where that is not known."""
    if node.target is not None:
        return os.fsencode(node.target)
    content = node.content
    if content is not None and not content.closed:
        if content.complete:
            return os.pread(content.fd, content.size, 0)
        snapshot = content.snapshot()
        data = bytearray(_base(world, node) or b"").ljust(content.size, b"\0")[: content.size]
        if _base(world, node) is None:
            return None
        for start, stop in snapshot.present:
            data[start:stop] = os.pread(content.fd, stop - start, start)
        return bytes(data)
    staged = world.engine.staged_path(node)
    if staged is not None:
        return staged.read_bytes()
    return _base(world, node)


def _awaits(world: World, node: Node) -> bool:
    """New metadata may have been copied onto it, and the daemon killed: it says so when it has asked."""
    pending = node.pending
    if pending is None or pending.changed:
        return False
    unknown = world.engine.attempts.unknown_keys(node.ino)
    return pending.in_flight is not None or nfc(pending.key) in map(nfc, unknown)


def _base(world: World, node: Node) -> bytes | None:
    if node.base is None:
        return None
    stored = world.bucket.objects.get(nfc(node.base.key))
    return stored.data if stored is not None and stored.etag == node.base.etag else None


def same(seen: Seen, file: File) -> bool:
    attributes = seen.attributes
    if attributes.kind is not (Kind.SYMLINK if file.link else Kind.FILE):
        return False
    if attributes.size != len(file.data):
        return False
    if seen.data is None:
        if not file.fragile and not seen.awaits:
            return False
    elif seen.data != file.data:
        return False
    if file.mode is not None and file.mode_shown and attributes.mode != file.mode:
        return False
    return file.mtime_ns is None or not file.mtime_shown or attributes.mtime_ns == file.mtime_ns


# ------------------------------------------------------------------ the mount
def match(world: World, model: Model, seen: dict[str, Seen]) -> None:
    """Raises Mismatch. What the engine did by itself is taken into the model."""
    objects = world.bucket.objects
    model.sync(objects)
    for path, file in list(model.files.items()):
        if not file.pending:
            continue
        here = seen.get(path)
        if here is not None and same(here, file):
            if not here.owes and not file.writers:
                _settle(world, model, path, file)
        else:
            _explain(world, model, path, file, seen)
    for path, pending in list(model.dirs.items()):
        node = world.node(path)
        if pending and node is not None and node.pending is None:
            if nfc(model.prefix + path + "/") in objects:
                model.dirs[path] = False
            elif _has_something_below(model, path, objects):
                # the bucket knows it by what is in it, as if its files alone had made it
                del model.dirs[path]
            elif not any(file.pending for name, file in model.files.items() if name.startswith(path + "/")):
                # (a file below may have replaced another host's, which kept the directory and is gone since)
                raise Mismatch(
                    f"{path}/: owes nothing, and the bucket has neither its marker nor anything in it"
                )
    model.sync(objects)
    _names(world, model, seen)
    for path, file in model.files.items():
        if not same(seen[path], file):
            raise Mismatch(f"{path}: shows {_text(seen[path])}, should be {_file_text(file)}")


def _settle(world: World, model: Model, path: str, file: File) -> None:
    key = nfc(model.key(path))
    if file.modified and (key, digest(file.data)) not in world.bucket.landed:
        raise Mismatch(f"{path}: owes nothing, and {file.data[:40]!r} has never been in the bucket")
    model.settled(path, file, world.bucket.objects.get(key))


def _explain(world: World, model: Model, path: str, file: File, seen: dict[str, Seen]) -> None:
    here = seen.get(path)
    what = f"{path}: shows {_text(here)}, should be {_file_text(file)}"
    if path not in model.touched and not file.fragile:
        raise Mismatch(what)
    if file.taken and (here is None or not here.owes):
        # The bucket had it, and another client removed or replaced it before the journal here had room for the answer.
        del model.files[path]
        return
    for other, candidate in seen.items():
        if other not in model.files and _is_conflict(other, path) and same(candidate, file):
            del model.files[path]
            model.files[other] = file
            file.at = None
            return
    for other, candidate in seen.items():
        if other in model.files or not _is_conflict(other, path) or not file.fragile or file.modified:
            continue
        newer = {stored.etag for stored in world.bucket.objects.values() if stored.data == candidate.data}
        if newer and candidate.data is not None:  # another host has changed both ends of a rename
            del model.files[path]
            model.files[other] = File(candidate.data, file.link, modified=False, at=None, origins=newer)
            return
    if file.fragile and not file.modified and here is None:
        del model.files[path]  # its rename's source is gone
        return
    if file.fragile and not file.modified and here is not None and here.data is not None:
        newer = {stored.etag for stored in world.bucket.objects.values() if stored.data == here.data}
        if newer:  # the newer version was renamed in its place, or changes of attributes are void
            newest = File(here.data, file.link, modified=False, at=file.at, origins=newer)
            model.files[path] = newest
            if not here.owes:
                _settle(world, model, path, newest)
            return
    if file.fragile and file.broken and here is not None:
        return
    raise Mismatch(what)


def _is_conflict(name: str, path: str) -> bool:
    """As model/keys.py names them: what follows the last dot stays the end of the name."""
    stem, dot, extension = path.rpartition("/")[2].rpartition(".")
    if not stem:
        stem, dot, extension = path.rpartition("/")[2], "", ""
    last = name.rpartition("/")[2]
    stem = re.sub(r" \(conflict of studio, [^)]*\)$", "", stem)  # a copy's copy is numbered, not nested
    begins, ends = f"{stem} (conflict of studio, ", f"){dot}{extension}"
    return parent(name) == parent(path) and last.startswith(begins) and last.endswith(ends)


def _names(world: World, model: Model, seen: dict[str, Seen]) -> None:
    model.fading.clear()
    for path in model.doubtful_dirs & set(seen):  # kept here, by an object that is to be made or has been
        if seen[path].owes or nfc(f"{model.prefix}{path}/") in world.bucket.objects:
            model.dirs[path] = seen[path].owes
    model.doubtful_dirs.clear()
    want = {*model.files, *model.directories()}
    have = set(seen)
    missing, extra = want - have, have - want
    for path in sorted(extra, key=len, reverse=True):
        # A directory may be shown until the last deletes below it have been carried out. Nor can a removal here tell of
        # another client's directory that was not known to be there.
        deletes = world.engine.pending_store.deletes
        below = [
            key
            for key in world.bucket.objects
            if key.startswith(nfc(model.prefix + path + "/"))
            and (deletes.any_at(key) or key in world.bucket.foreign)
        ]
        if seen[path].attributes.kind is Kind.DIRECTORY and below:
            model.fading.add(path)
            extra.discard(path)
    if missing or extra:
        raise Mismatch(f"missing: {sorted(missing)}; not expected: {sorted(extra)}")


# ------------------------------------------------------------------ the bucket, drained
def _has_something_below(model: Model, path: str, objects: Mapping[str, object]) -> bool:
    below = nfc(model.prefix + path + "/")
    return any(key.startswith(below) and key != below for key in objects)


def match_bucket(world: World, model: Model, deep: bool) -> None:
    objects, prefix = world.bucket.objects, model.prefix
    parked = {world.engine.inodes.path(node) for node in world.parked()}
    for path, file in model.files.items():
        if file.writers or (path in parked and file.fragile):
            continue
        if path in parked:
            raise Mismatch(f"{path}: parked, and nobody took its base away")
        stored = objects.get(nfc(model.key(path)))
        if stored is None or stored.data != file.data:
            raise Mismatch(
                f"{path}: the bucket has {stored and stored.data[:60]!r}, should be {_file_text(file)}"
            )
        _metadata(path, file, stored.meta.metadata)
    for path in model.dirs:
        if nfc(prefix + path + "/") not in objects and not _has_something_below(model, path, objects):
            raise Mismatch(f"{path}/: has no marker in the bucket, and nothing in it")
    known = {nfc(model.key(path)) for path in model.files} | {nfc(f"{prefix}{path}/") for path in model.dirs}
    for key in objects:
        watched = not deep and world.engine.pending_store.deletes.watched(key)
        if key.endswith("/") and model.path(key).rstrip("/") in model.directories():
            continue  # made when the last file went that the bucket had; others have come since
        if key.startswith(prefix) and key not in known and not watched:
            raise Mismatch(f"the bucket has {key}, which nobody should have left there")


def _metadata(path: str, file: File, metadata: object) -> None:
    assert isinstance(metadata, dict)
    for name, value in file.tags.items():
        if metadata.get(name) != value:
            raise Mismatch(f"{path}: lost the metadata {name}={value}")
    if file.mode is not None and metadata.get("mode") != (
        f"0{(0o120000 if file.link else 0o100000) | file.mode:o}"
    ):
        raise Mismatch(f"{path}: mode {metadata.get('mode')} in the bucket, should be {file.mode:o}")
    if file.mtime_ns is not None:
        want = f"{file.mtime_ns // 10**9}.{file.mtime_ns % 10**9:09d}"
        if metadata.get("mtime") != want:
            raise Mismatch(f"{path}: mtime {metadata.get('mtime')} in the bucket, should be {want}")


def _text(seen: Seen | None) -> str:
    if seen is None:
        return "nothing"
    return f"{seen.attributes.size} bytes {seen.data and seen.data[:40]!r} ({seen.state}, mode {seen.attributes.mode:o})"


def _file_text(file: File) -> str:
    return f"{len(file.data)} bytes {file.data[:40]!r} (mode {file.mode}, mtime {file.mtime_ns})"
