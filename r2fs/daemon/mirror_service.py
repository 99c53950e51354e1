"""Mirror service: composes and runs a mirror, once or until a signal.

Start: bucket check → directories → lock and record → files and uploads of a killed mirror → watch → threads → control
socket → first pass. A stop sends what is pending within `stop_timeout`; the rest stays in the directory for the next
mirror.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2fs.daemon import client, core_dumps, directories, starting
from r2fs.daemon.control import ControlServer
from r2fs.daemon.operations import table_of_mirror
from r2fs.daemon.parts import MirrorParts
from r2fs.daemon.reload import Reload, Source
from r2fs.daemon.shutdown import LAST_ANSWERS_S, threads_end_s
from r2fs.daemon.spending import Spending
from r2fs.daemon.stopping import Stopping, count_left, exit_code, left_text
from r2fs.daemon.systemd import ServiceManager
from r2fs.daemon.threads import Threads
from r2fs.disk import mirror_record
from r2fs.disk.mirror_record import MirrorRecord
from r2fs.disk.plain_tree import PlainTree
from r2fs.disk.spent import SpentFile
from r2fs.mirror.decide import Way
from r2fs.mirror.mirror import Mirror
from r2fs.mirror.names import Names
from r2fs.mirror.queue import Counts
from r2fs.mirror.settle import Parts, Rules
from r2fs.model.errors import AlreadyMounted, DirectoryUnusable, Retryable, SettingsError
from r2fs.model.ports import Clock, SystemClock
from r2fs.model.settings import Credentials, Settings
from r2fs.store import open_store

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TAG_CHARS = 8


@dataclass(frozen=True, slots=True)
class MirrorLaunch:
    """The mirror to run, and where its settings come from."""

    settings: Settings
    directory: Path
    rules: Rules
    environ: Mapping[str, str]
    credentials: Callable[[], Credentials] | None = None  # reads them again, after a refusal by the bucket
    source: Source | None = None  # of the settings, for a reload


class MirrorService:
    def __init__(self, launch: MirrorLaunch, clock: Clock | None = None) -> None:
        # constant
        self._launch = launch
        self._target = Path(os.path.realpath(launch.directory))
        self._settings = of_directory(launch.settings, self._target)
        self._clock = clock or SystemClock()
        self._threads = Threads()

    def once(
        self, progress: Callable[[int, int, Counts], None]
    ) -> tuple[Counts, list[tuple[str, str]], dict[str, str]]:
        """Compare both sides once and bring them into step. Returns the work done, the names that failed, and those
        that are not mirrored, each with its reason."""
        with self._built(None, wait_for_bucket=False) as (mirror, store), self._working(mirror, store):
            failed = mirror.run_once(progress)
            return mirror.counts(), failed, mirror.skipped()

    def run(self, every_s: float, ready: Callable[[], None]) -> int:
        """Mirror until a signal; `ready` is called when both sides were compared once. Returns the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # before any thread: all inherit the mask
        starting.raise_descriptor_limit()
        core_dumps.forbid()
        try:
            with self._built(every_s, wait_for_bucket=True) as (mirror, store):
                return self._serve(mirror, store, ready)
        except starting.Stopped as signal_name:
            log.info("%s: ended before there was a mirror", signal_name)
            return 0

    # ------------------------------------------------------------------ start
    @contextmanager
    def _built(self, every_s: float | None, wait_for_bucket: bool) -> Iterator[tuple[Mirror, Any]]:
        settings = self._settings
        self._check_places()
        with ExitStack() as closing:
            store = open_store(settings.bucket, self._clock, credentials=self._launch.credentials)
            closing.callback(store.close)
            store.bandwidth.change(settings.upload_limit, settings.download_limit)
            self._check_bucket(store, wait_for_bucket)
            store.listen(starting.tell_health)
            record = MirrorRecord(settings.state_dir)
            closing.callback(record.close)
            tree = PlainTree(self._target, _digest(settings.state_dir))
            closing.callback(tree.close)
            names = Names(settings.bucket.prefix, settings.local_patterns)
            rules = replace(self._launch.rules, way=Way.DOWN) if settings.read_only else self._launch.rules
            mirror = Mirror(Parts(store, tree, record, names, settings), rules, self._clock, every_s)
            mirror.open()
            yield mirror, store

    def _check_places(self) -> None:
        """Refuse a directory that is a mount of r2fs or a mirror, or that holds the state or the bucket."""
        settings, target = self._settings, self._target
        if settings.bucket.several:
            raise SettingsError(f"{settings.bucket.url} names several buckets: a mirror has one")
        if not target.is_dir():
            raise DirectoryUnusable(f"{target} is not a directory: make it, or name another")
        for daemon in client.daemons(self._launch.environ, settings.run_dir):
            if daemon.mountpoint == str(target) and daemon.url == settings.bucket.url:
                raise AlreadyMounted(f"{target} is mirrored already, by process {daemon.pid}")
        inner = {"the state directory": settings.state_dir}
        if settings.bucket.scheme == "file":
            inner["the bucket"] = Path(settings.bucket.name)
        for what, path in inner.items():
            real = Path(os.path.realpath(path))
            if real.is_relative_to(target) or (what == "the bucket" and target.is_relative_to(real)):
                raise DirectoryUnusable(
                    f"{target} and {what} {path} lie in one another: choose another place"
                )

    def _check_bucket(self, store: Any, wait_for_bucket: bool) -> None:
        """Raise the error of an unusable bucket. A silent one is waited for by a mirror that had it before."""
        known = (self._settings.state_dir / mirror_record.NAME).exists()
        try:
            if wait_for_bucket:
                with starting.interruptible(STOP_SIGNALS):
                    store.check()
            else:
                store.check()
        except Retryable as error:
            if not wait_for_bucket or not known:
                raise
            log.warning("the bucket does not answer: changes are sent later: %s", error)

    @contextmanager
    def _working(self, mirror: Mirror, store: Any) -> Iterator[None]:
        def stop() -> None:
            mirror.stop()
            store.bandwidth.lift()

        self._threads.start_workers(list(mirror.workers()))
        try:
            yield
        finally:
            self._threads.stop(stop, threads_end_s(mirror.queue_view()))

    # ------------------------------------------------------------------ run and stop
    def _serve(self, mirror: Mirror, store: Any, ready: Callable[[], None]) -> int:
        settings = self._settings
        directories.prepare_run(settings)
        manager = ServiceManager(self._launch.environ)
        stopping = Stopping(self._target, settings.stop_timeout_s, manager, self._clock)
        # No budget ends anything: a mirror fetches nothing ahead of need.
        of_mirror = lambda: replace(mirror.settings, prefetch_cost=0.0)  # noqa: E731
        file = SpentFile(settings.state_dir)
        spending = Spending(file, store.counter, of_mirror, lambda frugal: None, self._clock)
        parts = MirrorParts(str(self._target), mirror, store, spending)
        operations = table_of_mirror(parts, stopping)
        control = ControlServer(
            settings.run_dir, starting.socket_name(settings), operations, self._threads.start
        )
        control.open(starting.card(settings, self._target))
        try:
            with self._working(mirror, store):
                mirror.watch()
                self._threads.start("control", control.run)
                self._threads.start("signals", lambda: self._take_signals(stopping))
                self._threads.start("spending", lambda: spending.run(self._threads.ended), joined=True)
                self._reload(parts, stopping)
                self._threads.start("ready", lambda: self._await_first_pass(mirror, manager, ready))
                stopping.requested.wait()
                left = stopping.drain(mirror)
        except BaseException:
            control.finish(LAST_ANSWERS_S)
            raise
        spending.save()
        control.withdraw()
        if count_left(left):
            log.warning(
                "not in the bucket: %s; kept in %s, and sent by the next mirror",
                left_text(left, parked=True),
                self._target,
            )
        else:
            log.info("everything is in the bucket")
        stopping.finish(left)
        control.finish(LAST_ANSWERS_S)
        return exit_code(left)

    def _reload(self, parts: MirrorParts, stopping: Stopping) -> None:
        if self._launch.source is not None:
            reload = Reload(self._launch.source, parts, stopping, self._threads, self._clock)
            self._threads.start("settings", lambda: reload.run(self._threads.ended))

    def _await_first_pass(self, mirror: Mirror, manager: ServiceManager, ready: Callable[[], None]) -> None:
        while not self._threads.ended.is_set():
            if self._clock.wait(mirror.compared, 0.5):
                url = self._settings.bucket.url
                log.info("%s and %s are kept in step", url, self._target)
                ready()
                manager.ready(f"{url} and {self._target}")
                return

    def _take_signals(self, stopping: Stopping) -> None:
        while True:
            stopping.signal(signal.Signals(signal.sigwait(STOP_SIGNALS)).name)


def of_directory(settings: Settings, target: Path) -> Settings:
    """`settings` with the state directory of a mirror of `target`: a mount of the same bucket has another."""
    own = settings.state_dir
    return replace(settings, state_dir=own.with_name(f"{own.name}.mirror-{_digest(target)}"))


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:TAG_CHARS]
