"""Runner: carries out a list of operations on the world and on the reference, and compares after each.

An operation is a dict: `op` names it, the rest are its arguments, so that a list of them is all
that a failure needs to be seen again. `plan` says what happens at which request of the operation:
a fault, or operations of others (in the middle of an upload: of programs here, too).

Where a crash leaves open whether an operation was done, or a remote change whether it came
before, there are two models for a while; what the mount shows decides.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from r2fs.model.errors import CannotDiscard, NoSpace, NotFound, NotSupported, R2fsError
from r2fs.model.keys import nfc
from r2fs.model.metadata import ATTEMPT
from r2fs.model.pending import check as check_pending
from r2fs.model.records import AttributeChange, Opened, Proof
from r2fs.model.reports import BulkReport
from r2fs.model.verbs import RENAME_EXCHANGE, ROOT
from r2fs.model.views import Export
from tests.model.bucket import digest
from tests.model.match import Mismatch, Seen, look, match, match_bucket, peek, same
from tests.model.reference import File, Model, Refused, parent
from tests.model.world import Crash, World
from tests.support.engine import Engine

Operation = Mapping[str, Any]
REMOTE = {"remote_set", "remote_remove", "remote_mkdir", "remote_rmdir", "deliver"}
DISTURBED = {"ReadFailed", "NoSpace"}  # what a program may get when a request or a commit failed
RACED = {"NotFound", "Stale", "Busy", "Exists", "DirectoryNotEmpty"}  # when another client came between
OPEN = {"w": os.O_RDWR, "c": os.O_CREAT, "x": os.O_EXCL, "t": os.O_TRUNC, "a": os.O_APPEND}


def content(tag: int, size: int) -> bytes:
    """Bytes that no other operation writes."""
    piece = f"<{tag}>".encode()
    return (piece * (size // len(piece) + 1))[:size]


class Runner:
    def __init__(self, base: Path, config: Mapping[str, Any]) -> None:
        random.seed(0)  # the engine's jitter
        self.world = World(base, config)
        self.world.inner = self._inner
        self.models = [Model(self.world.bucket, self.world.prefix)]
        self.opened: dict[str, Opened] = {}
        self.raced = False
        self.stale_until = 0.0
        self.steps = 0

    @property
    def model(self) -> Model:
        return self.models[0]

    def run(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            self.step(operation)

    def step(self, operation: Operation) -> None:
        self.steps += 1
        self.raced = False
        try:
            with self.world.planned(operation.get("plan", {})):
                self._do(operation)
        except Crash:
            self._crashed()
        self.verify(read=operation["op"] == "check")

    def _do(self, operation: Operation) -> None:
        arguments = {name: value for name, value in operation.items() if name not in ("op", "plan")}
        getattr(self, "do_" + operation["op"])(**arguments)

    def _inner(self, operations: Sequence[Operation], local: bool) -> None:
        for operation in operations:
            if operation["op"] in REMOTE or local:
                self._do(operation)
                if local:
                    self.verify()

    # ------------------------------------------------------------------ comparing
    def verify(self, read: bool = False) -> None:
        world = self.world
        if world.faulty and world.requests:
            self.stale_until = world.clock.monotonic() + 5.1
        if world.outage:
            armed, world.armed = world.armed, None  # who looks is no program
            self._verify_pending()
            world.armed = armed
            return
        if world.clock.monotonic() < self.stale_until and not world.depth:
            world.clock.advance(self.stale_until - world.clock.monotonic())
        world.faulty = False
        seen = look(world, read)
        self._keep(lambda model: match(world, model, seen))
        with world.undisturbed():
            self._invariants()

    def _keep(self, test: Callable[[Model], None]) -> None:
        """Only the models that pass."""
        passed, failures = [], []
        for model in self.models:
            try:
                test(model)
                passed.append(model)
            except Mismatch as failure:
                failures.append(failure)
        if not passed:
            raise failures[0]
        self.models = list(
            {model.fingerprint(): model for model in passed}.values() if len(passed) > 1 else passed
        )

    def _verify_pending(self) -> None:
        """While the bucket does not answer: what is not yet there must still be seen."""
        engine = self.world.engine
        for path, file in self.model.files.items() if len(self.models) == 1 else ():
            node = self.world.node(path)
            if not file.pending or path in self.model.touched or node is None or node.pending is None:
                continue
            attributes = engine.entry(path).attributes
            seen = Seen(attributes, True, peek(self.world, node), node.state.value)
            if not same(seen, file):
                raise Mismatch(f"{path}: shows {seen}, should be {file} (the bucket is away)")

    def _invariants(self) -> None:
        with self.world.engine.lock:
            check(self.world.engine)

    def _crashed(self) -> None:
        self.world.depth = 0
        self.world.after_crash()
        self._ended()
        for model in self.models:
            model.forget()  # what an upload that was just committed had not yet told the cache

    def _ended(self) -> None:
        self.opened.clear()
        for model in self.models:
            model.ended()

    # ------------------------------------------------------------------ one call of a program
    def verb(
        self,
        engine: Callable[[], Any],
        model: Callable[[Model], Any],
        path: str | None = None,
        writes: bool = False,
        begun: Callable[[Model], Any] | None = None,
        slot: str | None = None,
    ) -> Any:
        """The same call on both. Returns the engine's answer; None where both refuse.

        `path` or `slot`: of a file whose bytes it may need, and which may be gone with their version. `writes`: it changes
        bytes, in part perhaps where the disk is full. A change of names is carried out or not. `begun`: what a
        kill in the middle may leave of it.
        """
        earlier = dict(self.world.bucket.objects)
        self.raced = False
        for one in self.models:
            one.sync(earlier) if not self.world.outage else None
        answer, error = None, None
        try:
            answer = engine()
        except Crash:
            variants = [*self.models, *self._later()]
            for change in (model, begun) if begun is not None else (model,):
                self.models += [
                    after for one in variants if (after := self._applied(one, change)) is not None
                ]
            raise
        except R2fsError as refused:
            error = type(refused).__name__
            refused.__traceback__ = None
        fragile = (slot is not None and self._fragile(slot)) or any(
            nfc(path) in one.files and one.files[nfc(path)].fragile for one in self.models if path is not None
        )
        self._judge(model, answer, error, fragile, writes)
        return answer if error is None else None

    def _applied(self, one: Model, change: Callable[[Model], Any]) -> Model | None:
        after = one.copy()
        try:
            change(after)
        except Refused:
            return None
        return after

    def _judge(
        self, change: Callable[[Model], Any], answer: Any, error: str | None, fragile: bool, writes: bool
    ) -> None:
        excused = self._excused(error) or (fragile and error in ("Stale", "ReadFailed"))
        variants = self.models + self._later()
        survivors, wanted = [], []
        for one in variants:
            untouched = one.copy() if error is not None else one
            try:
                want = change(one)
            except Refused as refused:
                wanted.append(f"error {'/'.join(refused.names)}")
                if error in refused.names or excused:
                    survivors.append(untouched)
                continue
            wanted.append(repr(want)[:80])
            if error is None:
                survivors.append(one)
            elif excused:
                survivors.append(untouched)
                if error == "NoSpace" and writes:
                    survivors.append(one)
        if not survivors:
            raise Mismatch(f"answered {error or repr(answer)[:80]}, should be {' or '.join(wanted)}")
        self.models = survivors

    def _later(self) -> list[Model]:
        """What another client did in the middle of the call may have come before it."""
        later = [one.copy() for one in self.models] if self.raced else []
        for one in later:
            one.sync(self.world.bucket.objects)
        return later

    def _excused(self, error: str | None) -> bool:
        disturbed = self.world.faulty or self.world.outage
        return (error in DISTURBED and disturbed) or (error in RACED and self.raced)

    def _fragile(self, slot: str) -> bool:
        return any(slot in one.slots and one.slots[slot][0].fragile for one in self.models)

    # ------------------------------------------------------------------ programs: names
    def do_mkdir(self, path: str) -> None:
        self.verb(lambda: self.world.engine.mkdir(path), lambda m: m.mkdir(nfc(path)))

    def do_rmdir(self, path: str) -> None:
        self.verb(lambda: self.world.engine.rmdir(path), lambda m: m.rmdir(nfc(path)))

    def do_unlink(self, path: str) -> None:
        self.verb(lambda: self.world.engine.unlink(path), lambda m: m.unlink(nfc(path)))

    def do_rename(self, old: str, new: str) -> None:
        self.verb(lambda: self.world.engine.rename(old, new), lambda m: m.rename(nfc(old), nfc(new)))

    def do_exchange(self, one: str, other: str) -> None:
        if any(path in model.directories() for model in self.models for path in (nfc(one), nfc(other))):
            return
        self.verb(
            lambda: self.world.engine.rename(one, other, RENAME_EXCHANGE),
            lambda m: m.exchange(nfc(one), nfc(other)),
        )

    def do_symlink(self, path: str, tag: int) -> None:
        target = content(tag, 12).decode()
        engine = self.world.engine

        def make() -> None:
            engine.fs.symlink(engine.caller, *engine.parent(path), target)

        self.verb(make, lambda m: m.symlink(nfc(path), target))

    def do_attributes(self, path: str, mode: int | None = None, mtime_ns: int | None = None) -> None:
        engine = self.world.engine

        def change() -> None:
            engine.fs.setattr(
                engine.caller, engine.entry(path).ino, AttributeChange(mode=mode, mtime_ns=mtime_ns)
            )

        self.verb(change, lambda m: m.set_attributes(nfc(path), mode, mtime_ns))

    # ------------------------------------------------------------------ programs: files
    def do_open(self, slot: str, path: str, flags: str) -> bool:
        if slot in self.opened:
            return False
        bits = sum(bit for letter, bit in OPEN.items() if letter in flags)
        opened = self.verb(
            lambda: self.world.engine.open(path, bits),
            lambda m: m.open(slot, nfc(path), flags),
            path,
            writes="t" in flags,
            # Its row is there, and the file not cut yet: it is sent as it was.
            begun=(lambda m: m.open(slot, nfc(path), flags.replace("t", ""))) if "t" in flags else None,
        )
        if opened is not None:
            self.opened[slot] = opened
            return True
        for one in self.models:
            if slot in one.slots:  # it was cut, and not opened
                one.close(slot)
        return False

    def do_write(self, slot: str, at: int, size: int, tag: int, direct: bool = False) -> None:
        if slot not in self.opened:
            return
        engine, opened = self.world.engine, self.opened[slot]
        data = content(tag, size)

        def write() -> None:
            handle = engine.files.handles.get(opened.handle)
            if direct and opened.local is not None and handle.writes:
                where = os.fstat(opened.local).st_size if handle.appends else at
                os.pwrite(opened.local, data, where)
                engine.fs.wrote(opened.handle)
            else:
                engine.fs.write(engine.caller, opened.handle, at, data)

        self.verb(write, lambda m: m.write(slot, at, data), writes=True)

    def do_read(self, slot: str, at: int, size: int) -> None:
        if slot not in self.opened:
            return
        engine, opened = self.world.engine, self.opened[slot]
        fragile = self._fragile(slot)

        def read() -> bytes | None:
            try:
                return engine.fs.read(engine.caller, opened.handle, at, size)
            except R2fsError as error:
                if type(error).__name__ in ("Stale", "ReadFailed") and (fragile or self.raced):
                    return None
                raise

        answer = self.verb(read, lambda m: m.read(slot, at, size))
        if answer is not None:
            self._keep(lambda m: _equal(answer, m.read(slot, at, size)))

    def do_truncate_open(self, slot: str, size: int) -> None:
        if slot not in self.opened:
            return
        engine, opened = self.world.engine, self.opened[slot]

        def cut() -> None:
            handle = engine.files.handles.get(opened.handle)
            engine.fs.setattr(engine.caller, handle.node.ino, AttributeChange(size=size), opened.handle)

        if all(one.slots[slot][1] for one in self.models):
            self.verb(cut, lambda m: m.truncate_open(slot, size), writes=True)

    def do_fsync(self, slot: str) -> None:
        if slot not in self.opened:
            return
        engine, opened = self.world.engine, self.opened[slot]
        try:
            engine.fs.fsync(engine.caller, opened.handle, False)
        except R2fsError as error:
            if not self._fragile(slot) and not self._excused(type(error).__name__):
                raise

    def do_close(self, slot: str) -> None:
        if slot not in self.opened:
            return
        engine, opened = self.world.engine, self.opened.pop(slot)
        fragile = self._fragile(slot)

        def close() -> None:
            try:
                engine.fs.flush(engine.caller, opened.handle)
            except R2fsError as error:
                if not fragile and not self._excused(type(error).__name__):
                    raise
            engine.fs.release(opened.handle)

        self.verb(close, lambda m: m.close(slot))

    def do_save(self, path: str, size: int, tag: int, flags: str = "wct", at: int = 0) -> None:
        """Open, write, close: an overwrite, an edit in place or an append."""
        slot = f"save{tag}"
        if self.do_open(slot, path, flags):
            self.do_write(slot, at, size, tag)
            self.do_close(slot)

    def do_replace(self, path: str, size: int, tag: int) -> None:
        """The atomic save."""
        self.do_save(path + ".tmp", size, tag)
        self.do_rename(path + ".tmp", path)

    def do_truncate(self, path: str, size: int) -> None:
        self.verb(
            lambda: self.world.engine.truncate(path, size),
            lambda m: m.truncate(nfc(path), size),
            path,
            writes=True,
        )

    def do_readall(self, path: str) -> None:
        slot = "readall"
        if self.do_open(slot, path, "r"):
            self.do_read(slot, 0, 1 << 20)
            self.do_close(slot)

    def do_cp(self, old: str, new: str, tag: int, edit: int = 0) -> None:
        """As cp inside the mount: by copy_file_range, or by read and write where the daemon refuses that."""
        if nfc(old) == nfc(new) or not self.do_open(f"from{tag}", old, "r"):
            return
        if self.do_open(f"to{tag}", new, "wct"):
            self._copy(f"from{tag}", f"to{tag}")
            if edit:
                self.do_write(f"to{tag}", 0, edit, tag)
            self.do_close(f"to{tag}")
        self.do_close(f"from{tag}")

    def _copy(self, source: str, target: str) -> None:
        if source not in self.opened or target not in self.opened:
            return
        fs, caller = self.world.engine.fs, self.world.engine.caller
        one, other = self.opened[source].handle, self.opened[target].handle

        def run() -> None:
            at = 0
            try:
                while done := fs.copy_file_range(caller, one, at, other, at, 1 << 20):
                    at += done
            except NotSupported:
                while data := fs.read(caller, one, at, 1 << 20):
                    at += fs.write(caller, other, at, data)

        self.verb(run, lambda m: m.write(target, 0, m.read(source, 0, 1 << 20)), writes=True, slot=source)

    def do_rmtree(self, path: str) -> None:
        """`r2fs rm -r`, undisturbed: what follows is not."""
        path = nfc(path)
        if self.world.outage or any(path in model.files for model in self.models):
            return
        below = nfc(self.world.prefix + path + "/")
        with self.world.undisturbed():
            for model in self.models:
                model.sync(self.world.bucket.objects)
            for key, stored in self.world.bucket.objects.items():
                if key.startswith(below):
                    self.world.bucket.doomed.add((key, stored.etag))
                    for model in self.models:
                        model.gone.setdefault(model.path(key), set()).add(stored.etag)
            report = BulkReport()
            self.world.engine.fs.removal.run(path, report, recursive=True, dry_run=False, cancelled=Event())
            assert not report.failed, report.errors
            for model in self.models:
                model.remove_tree(path)

    def do_drop(self, path: str) -> None:
        """`r2fs queue drop` of a file that was exported."""
        node = self.world.node(nfc(path))
        data = peek(self.world, node) if node is not None and not node.is_dir else None
        if data is None:
            return
        with self.world.undisturbed():
            export = Export(len(data), hashlib.sha256(data).hexdigest())
            try:
                self.world.engine.fs.discards.discard(nfc(path), export)
            except (CannotDiscard, NotFound):
                return
            # One that a crash left open may hold that the name is gone: it was there to be given up.
            dropped = [self._applied(one, lambda m: m.drop(nfc(path))) for one in self.models]
            self.models = [one for one in dropped if one is not None]
            if not self.models:
                raise Mismatch(f"{path}: given up, and should not be there")

    # ------------------------------------------------------------------ another client
    def _touch(self, path: str) -> None:
        self.raced = True
        key = nfc(self.world.prefix + path)
        node = self.world.node(nfc(path))
        pending = node.pending if node is not None else None
        flight = pending.in_flight if pending is not None else None
        for suffix in ("", ".rclonelink"):
            old = self.world.bucket.objects.get(key + suffix)
            made_by = old.meta.metadata.get(ATTEMPT) if old is not None else None
            unheard = flight is not None and made_by == flight.attempt
            etag = old.etag if old is not None else None
            sent = pending is not None and not pending.changed and pending.expected_etag == etag
            for model in self.models:
                model.touch(nfc(path), etag, unheard, sent)

    def do_remote_set(self, path: str, size: int, tag: int) -> None:
        file = self.model.files.get(nfc(path))
        if any(path in m.directories() for m in self.models) or (file is not None and file.link):
            return
        self._touch(path)
        with self.world.bucket.another_client():
            self.world.bucket.set(self.world.prefix + path, content(tag, max(size, 8)), tagged=str(tag))

    def do_remote_remove(self, path: str) -> None:
        self._touch(path)
        with self.world.bucket.another_client():
            for suffix in ("", ".rclonelink"):
                self.world.bucket.remove(self.world.prefix + path + suffix)

    def do_remote_mkdir(self, path: str) -> None:
        if any(path in m.gone_dirs or path in m.files or m.dirs.get(path) for m in self.models):
            return
        if self.world.engine.pending_store.deletes.any_at(f"{self.world.prefix}{path}/"):
            return  # markers are all alike: a delete that is pending would take the new one for the old
        self.raced = True
        with self.world.bucket.another_client():
            self.world.bucket.set(f"{self.world.prefix}{path}/", b"")

    def do_remote_rmdir(self, path: str) -> None:
        """The marker alone goes."""
        if any(m.dirs.get(path) for m in self.models):
            return
        self.raced = True
        with self.world.bucket.another_client():
            self.world.bucket.remove(f"{self.world.prefix}{path}/")

    def do_deliver(self) -> None:
        """Requests that were given up arrive."""
        self.world.bucket.deliver()

    # ------------------------------------------------------------------ the engine, the daemon, the world
    def do_pump(self) -> None:
        try:
            self.world.pump()
        except NoSpace:
            if not self.world.faulty:
                raise

    def do_background(self) -> None:
        try:
            self.world.background()
        except NoSpace:
            if not self.world.faulty:
                raise

    def do_advance(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    def do_clock_back(self, seconds: float) -> None:
        self.world.clock.set_back(seconds)

    def do_outage(self, on: bool) -> None:
        self.world.outage = on
        self.world.bucket.was_away = True
        self.world.clock.advance(0.0 if on else 6.0)

    def do_full(self, commits: int) -> None:
        self.world.full = commits

    def do_arm(self, point: str, times: int) -> None:
        """The daemon is killed when it passes the point for the so many'th time."""
        self.world.armed = (point, times)

    def do_kill(self) -> None:
        with self.world.undisturbed():
            self.world.kill()
        self._ended()

    def do_remount(self) -> None:
        with self.world.undisturbed():
            self.world.remount()
        self._ended()

    def do_forget(self) -> None:
        """The cache directory is removed while it is in use."""
        shutil.rmtree(self.world.engine.settings.cache_dir, ignore_errors=True)
        for model in self.models:
            model.forget()

    def do_check(self) -> None:
        """Every file is read, by step()."""

    def do_drain(self, deep: bool = False) -> None:
        self.world.outage, self.world.armed, self.world.full = False, None, 0
        with self.world.undisturbed():
            if deep:
                self.world.bucket.deliver()
            done = self.world.drain(deep)
        self.world.faulty = True  # what was listed meanwhile may be believed for a while
        self.world.requests = 1
        self.verify(read=True)
        if done:
            self._keep(lambda model: match_bucket(self.world, model, deep))
        for model in self.models:
            model.touched = {
                path for path in model.touched if path in model.files and model.files[path].pending
            }


def _equal(answer: bytes, want: bytes) -> None:
    if answer != want:
        raise Mismatch(f"read {answer[:60]!r}…, should be {want[:60]!r}…")


def check(engine: Engine) -> None:
    """The engine's own books, with Core.lock held."""
    pending_store, tree = engine.pending_store, engine.inodes
    engine.check_tree()
    names = set()
    for ino, node in pending_store.inodes.items():
        assert node.ino == ino and node.pending is not None
        assert tree.find(ino) is node, f"{node.name}: owes, and has no number"
        check_pending(node.pending)
        path = engine.staged_path(node)
        if path is not None:
            assert path.exists(), f"{node.name}: {path} is missing"
            assert path.name not in names, f"{node.name}: staged twice"
            names.add(path.name)
    rows = {row.ino: row for row in engine.journal.read().inodes}
    assert set(rows) == set(pending_store.inodes), "journal and memory disagree on who owes"
    for ino, row in rows.items():
        pending = pending_store.inodes[ino].pending
        staged, checkpoint = pending.staged, pending.checkpoint
        proven = pending.open and staged is not None and isinstance(staged.baseline, Proof)
        changed = (checkpoint is not None and checkpoint.changed) if proven else pending.changed
        file = None if staged is None else staged.file
        have = (row.key, row.state, row.staged, row.changed, row.expected_etag, row.seq)
        want = (pending.key, pending.state.value, file, changed, pending.expected_etag, pending.seq)
        assert have == want, f"journal {have}, memory {want}"
    assert {row.seq for row in engine.journal.read().deletes} == set(pending_store.deletes.rows), (
        "deletes disagree"
    )
    there = {path.name for path in engine.staged_files() if path.stat().st_size}
    assert there <= names | engine.staging_garbage(), f"in staging for nothing: {there - names}"
    assert engine.staging_garbage() == set(engine.journal.read().staging_gc), (
        "journal and memory: what leaves"
    )
    there_bytes = sum(n.pending.size for n in pending_store.inodes.values() if n.pending and n.pending.staged)
    assert pending_store.staged_bytes == there_bytes, (
        f"{pending_store.staged_bytes} staged bytes counted, {there_bytes} there"
    )
    numbers = [node.st_ino for node in tree.all_nodes() if node.st_ino]
    assert len(set(numbers)) == len(numbers), "two inodes show one number"
    for node in tree.all_nodes():
        if node.content is not None and not node.content.closed:
            node.content.check()


__all__ = ["Runner", "File", "parent", "ROOT", "copy", "digest"]
