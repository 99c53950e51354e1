"""A mirror without threads: one pass and its work, in the calling thread, over any store.

Owns:  a directory, and the state of its mirror, below `base`. Each run is a mirror of its own, as after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r2fs.disk.mirror_record import MirrorRecord
from r2fs.disk.plain_tree import OWN, Obstructed, PlainTree
from r2fs.mirror.decide import Way
from r2fs.mirror.mirror import Mirror
from r2fs.mirror.names import Names, NotMirrored
from r2fs.mirror.passes import Passes
from r2fs.mirror.queue import Counts, WorkQueue
from r2fs.mirror.settle import Parts, Rules, Settler
from r2fs.model.ports import ObjectStore, SystemClock
from r2fs.model.settings import Bucket, Settings

ROUNDS = 5  # of a queue that does not get empty


class MirrorRig:
    def __init__(self, base: Path, store: ObjectStore, prefix: str = "", **settings: Any) -> None:
        self.dir = base / "dir"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.store = store
        self.settings = Settings(
            bucket=Bucket("s3", "bucket", prefix),
            cache_dir=base / "cache",
            state_dir=base / "state",
            run_dir=base / "run",
            host="here",
            **{"upload_delay_s": 0.0, **settings},
        )
        self.skipped: dict[str, str] = {}

    # ---- files
    def write(self, name: str, data: bytes = b"x", mtime_ns: int | None = None) -> Path:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if mtime_ns is not None:
            os.utime(path, ns=(mtime_ns, mtime_ns))
        return path

    def contents(self) -> dict[str, bytes]:
        found = {}
        for path in self.dir.rglob("*"):
            name = path.relative_to(self.dir).as_posix()
            if path.is_file() and not path.is_symlink() and name.split("/")[0] != OWN:
                found[name] = path.read_bytes()
        return found

    def on_their_way(self) -> list[str]:
        return sorted(name for name in os.listdir(self.dir / OWN) if name != "id")

    # ---- mirrors
    @contextmanager
    def parts(self) -> Iterator[Parts]:
        record = MirrorRecord(self.settings.state_dir)
        tree = PlainTree(self.dir, "tag")
        try:
            names = Names(self.settings.bucket.prefix, self.settings.local_patterns)
            yield Parts(self.store, tree, record, names, self.settings)
        finally:
            tree.close()
            record.close()

    def run(self, way: Way = Way.BOTH, delete: bool = False) -> Counts:
        """One pass and its work."""
        with self.parts() as parts:
            rules, queue = Rules(way, delete), WorkQueue(SystemClock())
            settler = Settler(parts, rules, lambda name: touched.append(name))
            touched: list[str] = []
            Mirror(parts, rules, SystemClock(), None).open()
            passes = Passes(parts, settler, queue)
            passes.run(lambda: False)
            self.skipped = passes.skipped.all()
            work = [(item.name, item.hint) for item in queue.items()]
            counts = Counts()
            for name, hint in work:
                counts += self._step(settler, name, hint)
            for name in touched:
                counts += self._step(settler, name, None)
            return counts

    def _step(self, settler: Settler, name: str, hint: Any) -> Counts:
        try:
            return settler.step(name, hint, True)
        except (NotMirrored, Obstructed) as error:
            self.skipped[name] = str(error)
            return Counts()
