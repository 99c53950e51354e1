"""A pass: lists the bucket, walks the directory, and touches each name in the work queue that is not in step.

Never:   changes either side; decides about names below a directory that could not be read.
Threads: one at a time.
Fails:   StoreError of a listing; LocalError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from r2fs.disk.mirror_record import InStep
from r2fs.disk.plain_tree import Local
from r2fs.mirror.decide import Action
from r2fs.mirror.names import LocalOnly, NotMirrored
from r2fs.mirror.queue import Hint, Verb, WorkQueue
from r2fs.mirror.settle import Parts, Settler
from r2fs.model.errors import LocalError
from r2fs.model.keys import printable
from r2fs.model.ports import pages
from r2fs.model.records import ObjectInfo

log = logging.getLogger(__name__)

VERBS = {
    Action.UPLOAD: Verb.UPLOAD,
    Action.COMPARE: Verb.UPLOAD,
    Action.DELETE: Verb.DELETE,
}


class Skipped:
    """Names that are not mirrored, each logged once. Changed by one thread at a time."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        if self._reasons.get(name) != reason:
            self._reasons[name] = reason
            log.warning(
                "not mirrored: %s", reason if printable(name) in reason else f"{printable(name)}: {reason}"
            )

    def keep_only(self, names: set[str]) -> None:
        self._reasons = {name: reason for name, reason in self._reasons.items() if name in names}

    def all(self) -> dict[str, str]:
        return dict(self._reasons)


@dataclass(slots=True)
class _Sides:
    local: dict[str, Local] = field(default_factory=dict)
    there: dict[str, ObjectInfo] = field(default_factory=dict)
    obstructed: set[str] = field(default_factory=set)  # names of objects that are directories as well
    odd: set[str] = field(default_factory=set)  # paths and keys that are not mirrored
    closed: set[str] = field(default_factory=set)  # paths of which, and below which, nothing is known

    def is_closed(self, name: str) -> bool:
        while name:
            if name in self.closed:
                return True
            name = name.rpartition("/")[0]
        return "" in self.closed


class Passes:
    def __init__(self, parts: Parts, settler: Settler, queue: WorkQueue) -> None:
        # constant
        self._parts = parts
        self._settler = settler
        self._queue = queue
        self.skipped = Skipped()

    def run(self, stopped: Callable[[], bool]) -> int:
        """Compare both sides; returns the number of names with work."""
        self._parts.tree.require_id(self._parts.record.tree_id())
        sides = _Sides()
        self._list(sides, stopped)
        self._walk(sides, [""])
        self._drop_obstructed(sides)
        rows = self._parts.record.all()
        work = 0
        for name in sorted({*sides.local, *sides.there, *rows}):
            if stopped():
                break
            if not sides.is_closed(name) and name not in sides.obstructed:
                work += self._compare(name, sides, rows.get(name, InStep()))
        self.skipped.keep_only(sides.odd)
        return work

    def run_here(self, paths: Iterable[str]) -> None:
        """Touch each changed name at and below these paths of the directory, without a listing of the bucket."""
        self._parts.tree.require_id(self._parts.record.tree_id())
        sides = _Sides()
        paths = list(paths)
        self._walk(sides, paths)
        record = self._parts.record
        rows = record.all() if "" in paths else {n: record.get(n) for p in paths for n in self.known_below(p)}
        for name in {*sides.local, *rows}:
            local = sides.local.get(name)
            if not sides.is_closed(name) and local != rows.get(name, InStep()).local:
                verb = Verb.DELETE if local is None else Verb.UPLOAD
                self._queue.touch(name, verb, 0 if local is None else local.size)

    def known_below(self, path: str) -> list[str]:
        """The recorded names at and below a path."""
        try:
            name = self._parts.names.of_path(path)
        except NotMirrored:
            return []
        own = [name] if self._parts.record.get(name) != InStep() else []
        return own + self._parts.record.below(name)

    def _list(self, sides: _Sides, stopped: Callable[[], bool]) -> None:
        for page in pages(self._parts.store, self._parts.settings.bucket.prefix):
            for info in page.objects:
                self._take_object(info, sides)
            if stopped():
                return

    def _take_object(self, info: ObjectInfo, sides: _Sides) -> None:
        if info.key == self._parts.settings.bucket.prefix:
            return
        try:
            name = self._parts.names.of_key(info.key)
            if not info.key.endswith("/"):
                if name in sides.there:
                    raise NotMirrored(
                        f"{printable(info.key)} has the name of another object, in other characters"
                    )
                sides.there[name] = info
            elif info.size:
                raise NotMirrored(f"{printable(info.key)} holds bytes at the key of a directory")
            elif self._settler.brings:
                self._parts.tree.make_directory(self._parts.names.path(name))
        except LocalOnly as reason:
            log.debug("%s", reason)
        except (NotMirrored, LocalError) as reason:
            sides.odd.add(info.key)
            self.skipped.add(info.key, str(reason))

    def _walk(self, sides: _Sides, paths: Iterable[str]) -> None:
        for below in paths:
            for found in self._parts.tree.walk(below):
                try:
                    name = self._parts.names.of_path(found.path) if found.path else ""
                    if found.local is None:
                        raise NotMirrored(found.reason)
                    if name in sides.local and self._parts.names.path(name) != found.path:
                        raise NotMirrored(
                            f"{printable(found.path)} has the name of another file, in other characters"
                        )
                except LocalOnly as reason:
                    log.debug("%s", reason)
                except NotMirrored as reason:
                    sides.odd.add(found.path)
                    sides.closed.add(found.path)
                    self.skipped.add(found.path, str(reason))
                else:
                    sides.local[name] = found.local

    def _drop_obstructed(self, sides: _Sides) -> None:
        """Leave out each object with the name of a directory of other objects."""
        for name in [*sides.there]:
            directory = name.rpartition("/")[0]
            while directory:
                other = sides.there.get(directory)
                if other is not None:
                    del sides.there[directory]
                    sides.odd.add(other.key)
                    sides.obstructed.add(directory)
                    self.skipped.add(
                        other.key, f"{printable(other.key)} is also the directory of {printable(name)}"
                    )
                directory = directory.rpartition("/")[0]

    def _compare(self, name: str, sides: _Sides, step: InStep) -> bool:
        local, info = sides.local.get(name), sides.there.get(name)
        etag = None if info is None else info.etag
        action = self._settler.decide(step, local, etag)
        if action is Action.NOTHING and step.attempt is None:
            return False
        size = info.size if action is Action.DOWNLOAD and info is not None else local.size if local else 0
        verb = VERBS.get(action, Verb.DOWNLOAD)
        self._queue.touch(name, verb, size, hint=None if step.attempt else Hint(info))
        return True
