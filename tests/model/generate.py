"""Random operations: a seed makes a configuration, and one operation after the other.

The generator looks at the reference to name paths that exist more often than not; what it made
stands in the list, and needs neither generator nor seed to be run again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.model.bucket import FAULTS
from tests.model.reference import Model
from tests.model.runner import Runner

NAMES = ["f0", "f1", "f2.wav", "f\u00fc", "fu\u0308"]  # the last two are one name
LINKS = ["l0", "l1"]
DIRS = ["d0", "d1", "d2"]
FLAGS = ["r", "w", "w", "w", "wc", "wct", "wca", "wt", "wcx", "rc"]
POINTS = [
    "commit:before", "commit:after", "commit:before", "commit:after", "unlinked", "renamed", "open_write_journalled",
    "sealed", "claimed", "sent", "put_committed", "multipart_begun", "part_sent", "delete_looked", "deleted",
    "conflict_journalled", "materialised", "bytes_synced", "sync_journalled", "leaving_safe", "left", "put:before", "put:after", "copy:before", "copy:after", "delete:before", "delete:after",
    "head:before", "list:before", "get:before", "complete_upload:before", "complete_upload:after", "put_part:before",
]  # fmt: skip

Op = dict[str, Any]


def configuration(seed: int) -> dict[str, Any]:
    rng = random.Random(f"config {seed}")
    return {
        "prefix": rng.choice(["", "", "a/b/"]),
        "small_file": rng.choice([0, 0, 300, 4 << 20]),
        "read_ahead": 256,
        "multipart_threshold": rng.choice([600, 1 << 30, 1 << 30]),
        "part_size": 256,
        "cache_size": rng.choice([8 << 10, 1 << 30]),
        "upload_delay_s": rng.choice([0.0, 1.0]),
    }


class Generator:
    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.tag = 0
        self.remote = rng.random() < 0.7  # is there another client at all?
        self.faults = rng.random() < 0.7
        self.crashes = rng.random() < 0.6
        self.full = rng.random() < 0.25
        self.lately: deque[str] = deque(maxlen=3)  # paths: what goes wrong is between calls on the same few

    # ------------------------------------------------------------------ arguments
    def _tag(self) -> int:
        self.tag += 1
        return self.tag

    def _size(self) -> int:
        return self.rng.choice([0, 1, self.rng.randrange(1, 100), self.rng.randrange(1, 2500)])

    def _dir(self, model: Model) -> str:
        known = sorted(model.directories())
        if known and self.rng.random() < 0.6:
            return self.rng.choice(known)
        return ""

    def _new(self, model: Model) -> str:
        return f"{self._dir(model)}/{self.rng.choice(NAMES)}".lstrip("/")

    def _file(self, model: Model) -> str:
        if self.lately and self.rng.random() < 0.35:
            return self.rng.choice(self.lately)
        known = sorted(model.files)
        if known and self.rng.random() < 0.8:
            return self.rng.choice(known)
        return self._new(model)

    def _plain(self, model: Model) -> str:
        path = self._file(model)
        return self._new(model) if _is_link(path) else path

    def _newdir(self, model: Model) -> str:
        above = self._dir(model)
        return f"{above}/{self.rng.choice(DIRS)}".lstrip("/") if above.count("/") < 2 else above

    def _anydir(self, model: Model) -> str:
        return self._dir(model) or self.rng.choice(DIRS)

    def _slot(self) -> str:
        return self.rng.choice("ABC")

    def _newlink(self, model: Model) -> str:
        # Links have names of their own: `x` and `x.rclonelink` are two objects, and the mount shows the first.
        return f"{self._dir(model)}/{self.rng.choice(LINKS)}".lstrip("/")

    def _exchange(self, model: Model) -> Op:
        one, other = self._file(model), self._file(model)
        return self._rename(model, other) if _is_link(one) != _is_link(other) else {
            "op": "exchange", "one": one, "other": other
        }  # fmt: skip

    def _rename(self, model: Model, new: str) -> Op:
        old = self._file(model)
        if _is_link(old) != _is_link(new):
            new = self._newlink(model) if _is_link(old) else self._new(model)
        return {"op": "rename", "old": old, "new": new}

    # ------------------------------------------------------------------ operations
    def next(self, runner: Runner) -> Op:
        model = runner.model
        kinds: list[tuple[float, Callable[[Model], Op]]] = [
            (30, self.program),
            (12, self.on_slot),
            (18, self.engine),
            (0.5, lambda model: {"op": "remount"}),
            (0.7, lambda model: {"op": "drain", "deep": self.rng.random() < 0.3}),
            (1, lambda model: {"op": "check"}),
            (0.2, lambda model: {"op": "forget"}),
            (1.5, self.time),
        ]
        if self.remote:
            kinds.append((6, self.another))
        if self.faults:
            kinds.append((0.7, lambda model: {"op": "outage", "on": not runner.world.outage}))
            kinds.append((1.0, lambda model: {"op": "deliver"}))
        if self.crashes:
            kinds.append((0.4, lambda model: {"op": "kill"}))
            kinds.append((1.5, self.arm))
        if self.full:
            kinds.append((2, lambda model: {"op": "full", "commits": self.rng.randrange(1, 6)}))
        make = self.rng.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]
        operation = make(model)
        named = (operation.get(name, "") for name in ("path", "old", "new", "one", "other"))
        self.lately.extend(path for path in named if path.rpartition("/")[2] in NAMES)
        if runner.world.outage and operation["op"] not in ("drain", "outage"):
            return operation
        if operation["op"] not in ("remount", "kill", "drain", "check", "advance"):
            plan = self.plan(model, operation["op"])
            if plan:
                operation["plan"] = plan
        return operation

    def program(self, model: Model) -> Op:
        rng = self.rng
        return _pick(rng, [
            lambda: {"op": "save", "path": self._plain(model), "size": self._size(), "tag": self._tag()},
            lambda: {"op": "save", "path": self._new(model), "size": self._size(), "tag": self._tag()},
            lambda: {"op": "replace", "path": self._plain(model), "size": self._size(), "tag": self._tag()},
            lambda: {"op": "save", "path": self._plain(model), "size": 1 + self._size() // 4, "tag": self._tag(),
                     "flags": rng.choice(["w", "wa"]), "at": rng.randrange(0, 2000)},
            lambda: {"op": "truncate", "path": self._plain(model), "size": rng.choice([0, rng.randrange(2500)])},
            lambda: {"op": "unlink", "path": self._file(model)},
            lambda: {"op": "unlink", "path": self._file(model)},
            lambda: self._rename(model, self._file(model)),
            lambda: self._rename(model, self._new(model)),
            lambda: self._exchange(model),
            lambda: {"op": "rename", "old": self._anydir(model), "new": self._newdir(model)},
            lambda: {"op": "mkdir", "path": self._newdir(model)},
            lambda: {"op": "rmdir", "path": self._anydir(model)},
            lambda: {"op": "symlink", "path": self._newlink(model), "tag": self._tag()},
            lambda: {"op": "attributes", "path": self._file(model), "mode": rng.choice([0o600, 0o640, 0o755])},
            lambda: {"op": "attributes", "path": self._file(model), "mtime_ns": rng.randrange(10**18)},
            lambda: {"op": "readall", "path": self._plain(model)},
            lambda: {"op": "cp", "old": self._plain(model), "new": self._plain(model), "tag": self._tag(),
                     "edit": rng.choice([0, 0, 0, 3])},
            lambda: {"op": "cp", "old": self._plain(model), "new": self._new(model), "tag": self._tag()},
            lambda: {"op": "rmtree", "path": self._anydir(model)},
            lambda: {"op": "drop", "path": self._plain(model)},
        ])  # fmt: skip

    def on_slot(self, model: Model) -> Op:
        rng, slot = self.rng, self._slot()
        if slot not in model.slots:
            return {"op": "open", "slot": slot, "path": self._plain(model), "flags": rng.choice(FLAGS)}
        return _pick(rng, [
            lambda: {"op": "write", "slot": slot, "at": rng.randrange(2000), "size": 1 + self._size() // 4,
                     "tag": self._tag(), "direct": rng.random() < 0.5},
            lambda: {"op": "read", "slot": slot, "at": rng.randrange(2000), "size": rng.randrange(1, 500)},
            lambda: {"op": "truncate_open", "slot": slot, "size": rng.randrange(2000)},
            lambda: {"op": "fsync", "slot": slot},
            lambda: {"op": "close", "slot": slot},
            lambda: {"op": "close", "slot": slot},
        ])  # fmt: skip

    def engine(self, model: Model) -> Op:
        return {"op": self.rng.choice(["pump", "pump", "pump", "background"])}

    def time(self, model: Model) -> Op:
        if self.rng.random() < 0.2:
            return {"op": "clock_back", "seconds": self.rng.choice([1.0, 100.0, 4000.0])}
        return {"op": "advance", "seconds": self.rng.choice([0.5, 1.5, 20.0, 700.0])}

    def another(self, model: Model) -> Op:
        rng = self.rng
        return _pick(rng, [
            lambda: {"op": "remote_set", "path": self._plain(model), "size": self._size(), "tag": self._tag()},
            lambda: {"op": "remote_set", "path": self._new(model), "size": self._size(), "tag": self._tag()},
            lambda: {"op": "remote_set", "path": f"{rng.choice(DIRS)}/{rng.choice(NAMES)}", "size": self._size(),
                     "tag": self._tag()},
            lambda: {"op": "remote_remove", "path": self._file(model)},
            lambda: {"op": "remote_mkdir", "path": self._newdir(model)},
            lambda: {"op": "remote_rmdir", "path": self._anydir(model)},
        ])  # fmt: skip

    def arm(self, model: Model) -> Op:
        return {"op": "arm", "point": self.rng.choice(POINTS), "times": self.rng.choice([1, 1, 1, 2, 5])}

    def plan(self, model: Model, op: str) -> dict[str, Any]:
        rng = self.rng
        plan: dict[str, Any] = {}
        for number in range(4):
            if self.faults and rng.random() < (0.08 if op in ("pump", "background") else 0.02):
                plan[str(number)] = rng.choice(FAULTS)
            elif rng.random() < (0.15 if op == "pump" else 0.02):
                makers = [self.another] if self.remote else []
                if op == "pump":
                    makers += [self.program, self.on_slot]
                if makers:
                    plan[str(number)] = [rng.choice(makers)(model) for _ in range(rng.choice([1, 1, 2, 3]))]
        return plan


def _pick(rng: random.Random, choices: list[Callable[[], Op]]) -> Op:
    return rng.choice(choices)()


def _is_link(path: str) -> bool:
    return path.rpartition("/")[2].startswith("l")
