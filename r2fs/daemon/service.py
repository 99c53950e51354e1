"""Service: composes the daemon of one mount, and runs it.

Start: an earlier daemon's session, if one is kept → bucket check → directories → lock and journal → engine →
threads → control socket → mount → ready, once the mount answers. A failed start removes the files that it made on
this host, but none with pending changes. Stop: shutdown.py. Restart: the mount stays with its keeper (keeper.py),
and this process becomes its own successor by execve().

Threads: run() in the main thread, where the driver serves; each other is started through threads.py, named.
Fails:   run() raises any error that keeps the mount from starting; later it returns an exit code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from r2fs import drivers
from r2fs.daemon import client, core_dumps, directories, mountpoint, starting, state_directories
from r2fs.daemon.control import ControlServer
from r2fs.daemon.handover.keeper import Again
from r2fs.daemon.handover.takeover import Left, TakeOver
from r2fs.daemon.operations import table_of_mount
from r2fs.daemon.parts import Parts
from r2fs.daemon.prober import Prober
from r2fs.daemon.reload import Reload, Source
from r2fs.daemon.shutdown import Shutdown
from r2fs.daemon.spending import Spending
from r2fs.daemon.stopping import Stopping
from r2fs.daemon.systemd import ServiceManager, run_watchdog
from r2fs.daemon.threads import Threads
from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.disk.sessionlog import SessionLog
from r2fs.disk.spent import SpentFile
from r2fs.drivers.kernel.kernel_driver import KernelDriver
from r2fs.drivers.mount_path import absolute
from r2fs.engine.build import Engine, build
from r2fs.engine.inodes.core import Core
from r2fs.model.errors import MountError, R2fsError
from r2fs.model.mount_record import MountRecord
from r2fs.model.ports import Clock, CrashPoint, SystemClock, no_crash
from r2fs.model.settings import Credentials, Settings
from r2fs.store import open_buckets

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RESTART_SIGNAL = signal.SIGUSR2
POLL_S = 0.02  # between two probes of a starting mount
LOCKED_S = 10.0  # for the lock of a killed daemon, which ends with the process
TIDY_S = 60.0  # between two checks of the session log's size, and two trims of the heap
DETACHED_S = 5.0  # for the last files of a lazily detached mount; then the process ends it
CONNECTIONS = 4  # opened at the start: for both ends of a file, and its neighbours


@dataclass(frozen=True, slots=True)
class Launch:
    """Command and mode of this daemon's start, for the start of another."""

    environ: MutableMapping[str, str]
    again: Again | None = None  # the command; None: no restart is possible
    supervised: bool = False  # the holder runs the command when the daemon was killed
    source: Source | None = None  # of the settings; None: they are not taken up again
    credentials: Callable[[str], Credentials] | None = None  # reads a bucket's again, after its refusal
    record: MountRecord | None = None  # to be kept in the state directory


class Service:
    """The daemon of one mount: built from settings, run once."""

    def __init__(
        self,
        settings: Settings,
        target: Path,
        launch: Launch,
        clock: Clock | None = None,
        crash_point: CrashPoint = no_crash,
    ) -> None:
        # constant
        self._settings = settings
        self._launch = launch
        self._crash_point = crash_point
        self._clock = clock or SystemClock()
        self._manager = ServiceManager(launch.environ)
        self._threads = Threads()
        self._restarting = threading.Event()  # this process is about to become its successor
        # written before any thread starts
        self._target = target
        self._journal: Journal | None = None

    def run(self, ready: Callable[[], None]) -> int:
        """Mount, serve until unmounted, drain. `ready` is called once, when the mount answers."""
        # before any thread: all inherit the mask
        signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, RESTART_SIGNAL))
        starting.raise_descriptor_limit()
        starting.bound_heap()
        core_dumps.forbid()
        try:
            with directories.made_by_a_start(self._settings), ExitStack() as closing:
                try:
                    parts = self._build(closing)
                    return self._serve(parts, ready, closing)
                except BaseException:
                    if self._journal is not None:
                        self._journal.abandon()
                    raise
        except starting.Stopped as signal_name:
            log.info("%s: ended before there was a mount", signal_name)
            return 0

    # ------------------------------------------------------------------ start
    def _build(self, closing: ExitStack) -> Parts:
        directories.prepare_run(self._settings)  # before its files are trusted
        daemons = client.daemons(self._launch.environ, self._settings.run_dir)
        self._target = Path(absolute(self._target))
        kind = drivers.choose(self._settings)
        again = self._launch.again if self._launch.supervised else None
        takeover = TakeOver(self._settings, str(self._target), self._launch.environ, self._manager, again)
        left = takeover.find(kind)  # before any look at the mount: it may be unserved
        if left is None:
            self._target = mountpoint.check(self._target, self._settings, daemons)
        store = open_buckets(self._settings.bucket, self._clock, self._launch.credentials)
        closing.callback(store.close)
        store.bandwidth.change(self._settings.upload_limit, self._settings.download_limit)
        with starting.interruptible(STOP_SIGNALS):
            # Before files are made on this host: a wrong key or name leaves none behind.
            away = left is None and not starting.answers(store, self._settings)
        store.listen(starting.tell_health)
        starting.freeze_modules()
        settings = directories.prepare(self._settings)
        self._journal = journal = starting.open_journal(
            settings, LOCKED_S if left else 0.0, self._crash_point
        )
        closing.callback(journal.close)
        starting.check_buckets(journal, settings)
        if self._launch.record is not None:
            state_directories.write_record(settings, self._launch.record, self._launch.environ)
            state_directories.warn_of_others(settings, self._launch.environ)
        cache = CleanCache(
            settings.cache_dir, limit_bytes=settings.cache_size, ttl_s=settings.cache_ttl_s, clock=self._clock
        )
        closing.callback(cache.close)
        memory = takeover.open_log(kind)
        core = Core(settings, store, journal, cache, self._clock, self._crash_point, memory)
        engine = build(core, left.inheritance if left else None)
        closing.callback(lambda: engine.close(leave=self._restarting.is_set()))
        if away:
            engine.assume_away()
        file = SpentFile(settings.state_dir)
        spending = Spending(file, store.counter, lambda: engine.settings, engine.set_frugal, self._clock)
        closing.callback(spending.save)
        driver = self._driver(kind, engine, settings, memory, left)
        return Parts(
            settings,
            str(self._target),
            self._launch.environ,
            engine,
            store,
            driver,
            takeover,
            left is not None,
            spending,
        )

    def _driver(
        self,
        kind: type[drivers.Driver],
        engine: Engine,
        settings: Settings,
        memory: SessionLog | None,
        left: Left | None,
    ) -> drivers.Driver:
        if not issubclass(kind, KernelDriver):
            return kind(engine, settings, self._target)
        driver = KernelDriver(engine, settings, self._target, memory=memory)
        if left is not None:
            driver.adopt(left.fd, left.state, left.inheritance)
        return driver

    def _serve(self, parts: Parts, ready: Callable[[], None], closing: ExitStack) -> int:
        settings = parts.settings
        stopping = Stopping(self._target, settings.stop_timeout_s, self._manager, self._clock)
        operations = table_of_mount(parts, stopping, lambda: self._restart(parts, stopping))
        control = ControlServer(
            settings.run_dir, starting.socket_name(settings), operations, self._threads.start
        )
        control.open(starting.card(settings, self._target))
        end = Shutdown(parts, stopping, control, self._threads, closing)
        self._threads.start_workers(parts.engine.workers())
        self._threads.start("control", control.run)
        self._threads.start("signals", lambda: self._take_signals(parts, stopping))
        self._threads.start("spending", lambda: parts.spending.run(self._threads.ended), joined=True)
        self._threads.start("tidy", lambda: self._tidy(parts.takeover))
        if self._launch.source is not None:
            reload = Reload(self._launch.source, parts, stopping, self._threads, self._clock)
            self._threads.start("settings", lambda: reload.run(self._threads.ended))
        if settings.metrics is not None:
            # imports prometheus_client: only where metrics are set
            from r2fs.daemon.exposition import (
                exporter_of,
            )

            exporter = exporter_of(settings.metrics, parts)
            self._threads.start("metrics", lambda: exporter.run(self._threads.ended), joined=True)
        # by a thread: looking for a key may take a while
        self._threads.start("connect", lambda: parts.store.connect_ahead("", CONNECTIONS))
        if parts.adopted:
            self._threads.start("check", lambda: starting.check_late(parts.store))
        try:
            self._threads.start("ready", lambda: self._await_answer(ready, parts))
            self._threads.start("stop", lambda: self._unmount(parts, stopping, end))
            parts.driver.serve()
        except BaseException:
            end.abandon()
            raise
        if self._restarting.is_set():
            end.succeed(lambda: self._execute_again(parts))
        stopping.unmounted.set()
        return end.run()

    def _await_answer(self, ready: Callable[[], None], parts: Parts) -> None:
        """Tell that the mount is ready once it answers; then feed the service manager's watchdog."""
        with contextlib.closing(Prober(self._target)) as prober:
            while not (mountpoint.is_ours(self._target) and prober.answers()):
                if self._clock.wait(self._threads.ended, POLL_S):
                    return
            parts.takeover.keep(parts.driver)
            parts.mounted.set()
            directories.mark_cache(parts.settings)  # not before: a failed start leaves no file
            url = self._settings.bucket.url
            log.info("%s is mounted on %s", url, self._target)
            ready()
            self._manager.ready(f"{url} on {self._target}")
            run_watchdog(self._manager, prober.answers, self._threads.ended, self._clock)

    def _tidy(self, takeover: TakeOver) -> None:
        while not self._clock.wait(self._threads.ended, TIDY_S):
            takeover.tidy()
            starting.trim_heap()

    def _take_signals(self, parts: Parts, stopping: Stopping) -> None:
        """Take signals, which are blocked in every thread: libfuse's loop would run no handler."""
        while True:
            number = signal.sigwait((*STOP_SIGNALS, RESTART_SIGNAL))
            if number != RESTART_SIGNAL:
                stopping.signal(signal.Signals(number).name)
                continue
            try:
                self._restart(parts, stopping)
            except R2fsError as error:
                log.error("%s", error)

    # ------------------------------------------------------------------ restart
    def _restart(self, parts: Parts, stopping: Stopping) -> None:
        """End this daemon for a successor: the same command, perhaps of a newer r2fs. MountError where none is possible."""
        held = parts.takeover.describe()
        if (
            held["held_by"] is None
            or self._launch.again is None
            or not isinstance(parts.driver, KernelDriver)
        ):
            why = held["why_not"] or "its command is not known"
            raise MountError(f"{self._target} cannot be kept over a restart: {why}")
        if stopping.requested.is_set():
            raise MountError(f"{self._target} is being unmounted")
        log.info("restarting; %s stays mounted", self._target)
        self._restarting.set()
        parts.driver.detach()

    def _execute_again(self, parts: Parts) -> None:
        """Become the successor by execve(). Everything is closed but the session."""
        again = self._launch.again
        assert again is not None
        assert isinstance(parts.driver, KernelDriver)
        parts.takeover.leave(parts.driver.fileno())
        logging.shutdown()
        os.chdir(again.cwd)
        os.execve(again.argv[0], again.argv, self._launch.environ)

    # ------------------------------------------------------------------ stop
    def _unmount(self, parts: Parts, stopping: Stopping, end: Shutdown) -> None:
        stopping.unmount_on_request(parts.driver.unmount, parts.engine)
        if self._clock.wait(stopping.unmounted, DETACHED_S):
            return
        # Detached, but programs still have files open: the driver serves them until this process ends.
        code = end.run()
        log.warning("%s was still in use: open files fail from now on", self._target)
        logging.shutdown()
        os._exit(code)
