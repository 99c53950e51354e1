"""Service: the daemon of one mount, put together.

Owns:    what is built from what, the start and stop order, every thread but a driver's own, and
         what signals mean.
Never:   parses arguments, prints, or forks (background.py does, before this).
Threads: run() in the main thread, where the driver serves; each other is started by _start, named.
Locks:   none of its own.
Fails:   run() raises whatever keeps the mount from coming up; after that it returns an exit code.

Start: a session of a daemon before this one, if there is one → bucket check → directories → lock and journal →
engine → threads → control socket → mount → ready, once the mount answers. A start that fails takes away what it
made on this host and what owes nothing. Stop: unmount → drain →
engine's threads → store, cache, journal → outcome to who asked → control socket. Restart: the mount stays
with its keeper (keeper.py), this process becomes its own successor by execve().
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2fs import __version__, drivers
from r2fs.daemon import client, directories, metrics, mountpoint, starting, states
from r2fs.daemon.control import ControlServer, Request
from r2fs.daemon.keeper import Again
from r2fs.daemon.prober import Prober
from r2fs.daemon.protocol import HEARTBEAT_S
from r2fs.daemon.stopping import Outcome, Stopping, count_left, left_text
from r2fs.daemon.systemd import Notifier, run_watchdog
from r2fs.daemon.takeover import Left, TakeOver
from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.disk.sessionlog import SessionLog
from r2fs.drivers.kernel import KernelDriver
from r2fs.drivers.mountpoint import absolute
from r2fs.engine.build import build
from r2fs.engine.core import Core
from r2fs.engine.fs import FileSystem
from r2fs.model.errors import MountError, R2fsError
from r2fs.model.mount_record import MountRecord
from r2fs.model.ports import Clock, CrashPoint, SystemClock, no_crash
from r2fs.model.settings import Credentials, Settings
from r2fs.model.views import QueueView
from r2fs.store import open_store

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RESTART_SIGNAL = signal.SIGUSR2
POLL_S = 0.02  # how often a mount that comes up is asked whether it answers
WORKERS_END_S = 15.0  # a thread that is in a request ends with it; what it sends is journalled
LAST_ANSWERS_S = 3.0  # for clients of the control socket, before it goes
RESTART_END_S = 3.0  # who uses the mount waits for the successor: what is in a request then is made again
LOCKED_S = 10.0  # a daemon that was killed gives its lock back when the kernel has cleared it away
TIDY_S = 60.0  # how often the session's log is looked at: has it grown?
DETACHED_S = 5.0  # a lazily detached mount whose files stay open is ended with the process


@dataclass(slots=True)
class _Parts:
    """What run() has built."""

    settings: Settings
    engine: FileSystem
    store: Any
    driver: drivers.Driver
    takeover: TakeOver
    adopted: bool  # another daemon mounted it


class Service:
    """`again`: how this daemon is started once more, `supervised` also by its holder when it was killed."""

    def __init__(
        self,
        settings: Settings,
        target: Path,
        environ: MutableMapping[str, str],
        clock: Clock | None = None,
        credentials: Callable[[], Credentials] | None = None,
        crash_point: CrashPoint = no_crash,
        again: Again | None = None,
        supervised: bool = False,
        about: MountRecord | None = None,
    ) -> None:
        """`credentials` reads them again where they came from, for when the bucket refuses the ones in use.

        `about` is kept in the state directory, for whoever looks for what is unsent; None: nothing is.
        """
        # constant
        self._crash_point = crash_point
        self._settings = settings
        self._credentials = credentials
        self._target = target
        self._environ = environ
        self._again = again
        self._supervised = supervised
        self._about = about
        self._clock = clock or SystemClock()
        self._notifier = Notifier(environ)
        self._ended = threading.Event()
        self._journal: Journal | None = None
        self._leaving = threading.Event()  # this process is about to become its successor
        self._threads: list[threading.Thread] = []

    def run(self, ready: Callable[[], None]) -> int:
        """Mount, serve until unmounted, drain. `ready` is called once, when the mount answers."""
        signal.pthread_sigmask(
            signal.SIG_BLOCK, (*STOP_SIGNALS, RESTART_SIGNAL)
        )  # before any thread: all inherit it
        starting.raise_descriptor_limit()
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
    def _build(self, closing: ExitStack) -> _Parts:
        directories.prepare_run(self._settings)  # before anything in it is believed
        daemons = client.daemons(self._environ, self._settings.run_dir)
        self._target = Path(absolute(self._target))
        kind = drivers.choose(self._settings)
        again = self._again if self._supervised else None
        stem, target = starting.socket_name(self._settings), str(self._target)
        takeover = TakeOver(self._settings, stem, target, self._environ, self._notifier, again)
        left = takeover.find(kind)  # before anybody looks at the mount: it may be served by nobody
        if left is None:
            self._target = mountpoint.check(self._target, self._settings, daemons)
        store = open_store(self._settings.bucket, self._clock, credentials=self._credentials)
        closing.callback(store.close)
        with starting.interruptible(STOP_SIGNALS):
            # Before anything is made on this host: a wrong key or name leaves nothing behind.
            away = left is None and not starting.answers(store, self._settings)
        store.health.tell = starting.tell_health
        settings = directories.prepare(self._settings)
        self._journal = journal = starting.open_journal(
            settings, LOCKED_S if left else 0.0, self._crash_point
        )
        closing.callback(journal.close)
        if self._about is not None:
            states.write_record(settings, self._about, self._environ)
            states.warn_of_others(settings, self._environ)
        cache = CleanCache(
            settings.cache_dir, limit_bytes=settings.cache_size, ttl_s=settings.cache_ttl_s, clock=self._clock
        )
        closing.callback(cache.close)
        memory = takeover.open_log(kind)
        core = Core(settings, store, journal, cache, self._clock, self._crash_point, memory)
        engine = build(core, left.inheritance if left else None)
        closing.callback(lambda: engine.close(leave=self._leaving.is_set()))
        if away:
            engine.assume_away()
        driver = self._driver(kind, engine, settings, memory, left)
        return _Parts(settings, engine, store, driver, takeover, left is not None)

    def _driver(
        self,
        kind: type[drivers.Driver],
        engine: FileSystem,
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

    def _start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """A daemon thread: one that hangs in a request does not keep the process."""

        def guarded() -> None:
            try:
                work()
            except Exception:
                log.exception("the thread %s ended by an unexpected error", name)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _serve(self, parts: _Parts, ready: Callable[[], None], closing: ExitStack) -> int:
        settings = parts.settings
        stopping = Stopping(self._target, settings.stop_timeout_s, self._notifier, self._clock)
        operations = Operations(parts, stopping, str(self._target), lambda: self._restart(parts, stopping))
        control = ControlServer(
            settings.run_dir, starting.socket_name(settings), operations.table(), self._start
        )
        control.open(self._card(settings))
        end = _End(self, parts, stopping, control, closing)
        self._threads += [self._start(name, work) for name, work in parts.engine.workers()]
        end.control_thread = self._start("control", control.run)
        self._start("signals", lambda: self._take_signals(parts, stopping))
        self._start("session-log", lambda: self._tidy(parts.takeover))
        if parts.adopted:
            self._start("check", lambda: starting.check_late(parts.store))
        try:
            self._start("ready", lambda: self._await_answer(ready, operations, parts))
            self._start("stop", lambda: self._unmount(parts, stopping, end))
            parts.driver.serve()
        except BaseException:
            end.abandon()
            raise
        if self._leaving.is_set():
            end.succeed()
        stopping.unmounted.set()
        return end.run()

    def _card(self, settings: Settings) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "mountpoint": str(self._target),
            "url": settings.bucket.url,
            "name": settings.name,
            "version": __version__,
            "state_dir": str(settings.state_dir),
            "since": time.time_ns(),  # tells it from the one before, which may have had its pid
        }

    def _await_answer(self, ready: Callable[[], None], operations: Operations, parts: _Parts) -> None:
        prober = Prober(self._target)
        try:
            self._attend(prober, ready, operations, parts)
        finally:
            prober.close()

    def _attend(
        self, prober: Prober, ready: Callable[[], None], operations: Operations, parts: _Parts
    ) -> None:
        while not self._ended.is_set():
            if mountpoint.is_ours(self._target) and prober.answers():
                break
            self._clock.wait(self._ended, POLL_S)
        else:
            return
        parts.takeover.keep(parts.driver)
        operations.state = "running"
        url = self._settings.bucket.url
        log.info("%s is mounted on %s", url, self._target)
        ready()
        self._notifier.ready(f"{url} on {self._target}")
        run_watchdog(self._notifier, prober.answers, self._ended, self._clock)

    def _tidy(self, takeover: TakeOver) -> None:
        while not self._clock.wait(self._ended, TIDY_S):
            takeover.tidy()

    def _take_signals(self, parts: _Parts, stopping: Stopping) -> None:
        """Signals are blocked in every thread and taken here: libfuse's loop would never let a handler run."""
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
    def _restart(self, parts: _Parts, stopping: Stopping) -> None:
        """Make place for a successor: the same command, perhaps of a newer r2fs. MountError where none can come."""
        held = parts.takeover.describe()
        if held["held_by"] is None or self._again is None or not isinstance(parts.driver, KernelDriver):
            why = held["why_not"] or "its command is not known"
            raise MountError(f"{self._target} cannot be kept over a restart: {why}")
        if stopping.asked.is_set():
            raise MountError(f"{self._target} is being unmounted")
        log.info("restarting; %s stays mounted", self._target)
        self._leaving.set()
        parts.driver.detach()

    def execute_again(self, takeover: TakeOver, fd: int) -> None:
        """Become the successor. Everything is closed but the session."""
        assert self._again is not None
        takeover.leave(fd)
        logging.shutdown()
        os.chdir(self._again.cwd)
        os.execve(self._again.argv[0], self._again.argv, self._environ)

    # ------------------------------------------------------------------ stop
    def _unmount(self, parts: _Parts, stopping: Stopping, end: _End) -> None:
        stopping.unmount_when_asked(parts.driver.unmount, parts.engine)
        if self._clock.wait(stopping.unmounted, DETACHED_S):
            return
        # Detached, but somebody still has files open there: the driver goes on until this process ends.
        code = end.run()
        log.warning("%s was in use to the last: what is open there fails from now on", self._target)
        logging.shutdown()
        os._exit(code)


class _End:
    """The end, run once, by whichever thread comes first; the other waits for it."""

    def __init__(
        self, service: Service, parts: _Parts, stopping: Stopping, control: ControlServer, closing: ExitStack
    ) -> None:
        self._service = service
        self._parts = parts
        self._stopping = stopping
        self._control = control
        self._closing = closing
        self.control_thread: threading.Thread | None = None
        self._lock = threading.Lock()  # held for the whole of it
        self._code: int | None = None

    def run(self) -> int:
        with self._lock:
            if self._code is None:
                self._code = self._run()
            return self._code

    def _run(self) -> int:
        self._parts.takeover.end()
        outcome = self._stopping.drain(self._parts.engine)
        self._stop_threads(WORKERS_END_S)
        self._control.withdraw()
        self._closing.close()
        self._say(outcome)
        self._stopping.finish(outcome)
        self._close_control()
        return outcome.exit_code

    def _stop_threads(self, limit_s: float) -> None:
        self._service._ended.set()
        self._parts.engine.stop()
        deadline = time.monotonic() + limit_s
        for thread in self._service._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if alive := [thread.name for thread in self._service._threads if thread.is_alive()]:
            log.info("still in a request at the end: %s", ", ".join(alive))

    def _say(self, outcome: Outcome) -> None:
        view = outcome.left
        if not count_left(view):
            log.info("everything is in the bucket")
            states.forget(self._parts.settings, self._service._environ)
            return
        log.warning("not in the bucket: %s; kept, and sent at the next mount", left_text(view, parked=True))

    def _close_control(self) -> None:
        deadline = time.monotonic() + LAST_ANSWERS_S
        while self._control.busy() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._control.stop()
        if self.control_thread is not None:
            self.control_thread.join(LAST_ANSWERS_S)
        self._control.close()

    def abandon(self) -> None:
        """The mount did not come up: nothing to drain, everything to close."""
        with self._lock:
            self._code = MountError.exit_code
            if not self._parts.adopted:
                self._parts.driver.unmount(lazy=True)  # where serve() failed after it had mounted
                self._parts.takeover.end()
            self._stop_threads(WORKERS_END_S)
            self._close_control()

    def succeed(self) -> None:
        """Close everything but the session, and become its next daemon. Does not return."""
        with self._lock:
            assert isinstance(self._parts.driver, KernelDriver)
            self._stop_threads(RESTART_END_S)
            self._control.withdraw()
            self._closing.close()
            self._close_control()
            self._service.execute_again(self._parts.takeover, self._parts.driver.fileno())


class Operations:
    """What the control socket can ask for."""

    def __init__(self, parts: _Parts, stopping: Stopping, target: str, restart: Callable[[], None]) -> None:
        self._parts = parts
        self._restart = restart
        self._stopping = stopping
        self._target = target
        self.state = "starting"  # written by the readiness thread, once

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {
            "ping": self.ping,
            "status": self.status,
            "flush": self.flush,
            "stop": self.stop,
            "restart": self.restart,
        }

    def ping(self, request: Request) -> dict[str, object]:
        return {"pid": os.getpid(), "version": __version__}

    def status(self, request: Request) -> dict[str, object]:
        parts = self._parts
        state = "stopping" if self._stopping.asked.is_set() else self.state
        return {
            "mount": {
                **metrics.mount(parts.settings, self._target, os.getpid(), state, parts.driver),
                **parts.takeover.describe(),
            },
            "queue": metrics.queue(parts.engine.queue_view()),
            "cache": metrics.cache(parts.engine.cache_view()),
            "room": metrics.room(parts.engine.room_view()),
            "aside": metrics.aside(parts.engine.aside_view()),
            "damaged": list(parts.engine.damaged_view()),
            "requests": metrics.requests(parts.store),
            "health": metrics.health(parts.store),
            "kernel": metrics.kernel(parts.driver, parts.engine.path_of),
        }

    def flush(self, request: Request) -> dict[str, object]:
        """Send now what is owed of `paths` (none: everything); wait for it, at most timeout_s.

        With `retry` what is parked there is tried once more.
        """
        told = time.monotonic()
        request.progress(
            queue=metrics.queue(self._parts.engine.queue_view())
        )  # what is left before it begins
        paths = request.texts("paths") or []
        if request.message.get("retry") is True:
            self._parts.engine.retry_parked(paths)

        def progress(view: QueueView) -> None:
            nonlocal told
            if time.monotonic() - told >= HEARTBEAT_S:
                told = time.monotonic()
                request.progress(queue=metrics.queue(view))

        engine, timeout_s = self._parts.engine, request.number("timeout_s")
        sent = engine.flush_paths(paths, timeout_s, progress, request.gone.is_set)
        parked, refusal = engine.parked_at(paths), engine.refusal()
        return {"sent": sent, **metrics.flushed(engine.queue_view(), parked, refusal)}

    def restart(self, request: Request) -> dict[str, object]:
        """Answered when it has begun: the successor's card says when it is there."""
        if self.state != "running":
            raise MountError(f"{self._target} is not mounted yet")
        self._restart()
        return {"pid": os.getpid()}

    def stop(self, request: Request) -> dict[str, object]:
        """Unmount, wait for uploads, end. Lines of progress until the outcome is known."""
        timeout_s, lazy = request.number("timeout_s"), request.message.get("lazy") is True
        request.progress(queue=metrics.queue(self._parts.engine.queue_view()))
        self._stopping.unmount_now(self._parts.driver.unmount, lazy, timeout_s)
        while True:
            progress, outcome = self._stopping.wait(HEARTBEAT_S)
            if outcome is not None:
                return {"queue": metrics.queue(outcome.left), "exit_code": outcome.exit_code}
            request.progress(queue=metrics.queue(progress or self._parts.engine.queue_view()))
