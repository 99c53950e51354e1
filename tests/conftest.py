"""What holds for every test: no unexpected warning in the log, and nothing left behind.

Owns:  the `--long` option, the marker `expect_warnings`, the fixture `repo_root`.
Never: starts a server or makes a mount; tests/support does.

A process that a test starts, a daemon included, inherits `R2FS_TEST_SESSION`: so the check
at the end finds exactly ours, whoever has adopted it since.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.fixtures"]

SESSION_VARIABLE = "R2FS_TEST_SESSION"
ABORT_AFTER_S = 15.0  # after a test's time is up
LEFT_BEHIND = 3  # the exit code of a run that left something behind: scripts/test gives it no second chance
LOG_HANDLER = "r2fs"  # its name, by r2fs/daemon/log_format.py
LEAVE_WITHIN_S = 10.0  # a server that was told to end may need some seconds

# What people have in their environment is not to decide a test.
FOREIGN_VARIABLES = re.compile(r"^(R2|STORAGE|AWS|R2FS)_(?!CA_BUNDLE|NODE_MODULES|TEST_)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked `long` too (many minutes)")


def pytest_configure(config: pytest.Config) -> None:
    # How long an example takes says something of the machine alone. The database would carry what one
    # run found into the next: a failure belongs in a test of its own.
    settings.register_profile(
        "r2fs", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    settings.load_profile("r2fs")
    # As the service does: engines in this process hold a descriptor for each file that is open, staged or spare.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for name in [name for name in os.environ if FOREIGN_VARIABLES.match(name)]:
        del os.environ[name]
    os.environ[SESSION_VARIABLE] = uuid.uuid4().hex
    # A shell starts what it runs in the background with SIGINT ignored; all that tests start would ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Some hundred commands and daemons start in a run: each would compile all of r2fs anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: --long runs it"))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------ warnings
class WarningKeeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.seen.append(text)


@pytest.fixture(autouse=True)
def no_unexpected_warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test in whose time something logged a WARNING or worse that it does not expect."""
    keeper = WarningKeeper()
    root = logging.getLogger()
    root.addHandler(keeper)
    yield
    root.removeHandler(keeper)
    marker = request.node.get_closest_marker("expect_warnings")
    if marker is not None and not marker.args:
        return
    patterns = marker.args if marker else ()
    unexpected = [text for text in keeper.seen if not any(re.search(p, text) for p in patterns)]
    if unexpected:
        pytest.fail("unexpected in the log:\n" + "\n".join(unexpected), pytrace=False)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Take back what commands that ran in this process have set: their handler, and levels of r2fs's loggers."""
    before = {logger: logger.level for logger in our_loggers()}
    yield
    for logger in our_loggers():
        if logger.level != before.get(logger, logging.NOTSET):
            logger.setLevel(before.get(logger, logging.NOTSET))
    for handler in [each for each in logging.root.handlers if each.get_name() == LOG_HANDLER]:
        logging.root.removeHandler(handler)


def our_loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.items())
    return [one for name, one in known if isinstance(one, logging.Logger) and name.split(".")[0] == "r2fs"]


# ------------------------------------------------------------------ a mount that hangs
@pytest.fixture(autouse=True)
def no_test_hangs(request: pytest.FixtureRequest, own_mounts: str) -> Iterator[None]:
    """Nothing wakes a call that waits in the kernel for a mount's daemon, but the end of the mount."""
    marker = request.node.get_closest_marker("timeout")
    limit_s = float(marker.args[0] if marker and marker.args else request.config.getini("timeout"))
    timer = threading.Timer(limit_s + ABORT_AFTER_S, abort_mounts, [own_mounts])
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


def abort_mounts(below: str) -> None:
    """Every call that waits in a mount of this session fails now."""
    for mount, connection in r2fs_mounts(below).items():
        print(f"{mount} hangs: aborting it", file=sys.stderr)
        try:
            Path(f"/sys/fs/fuse/connections/{connection}/abort").write_text("1")
        except OSError as error:
            print(f"{mount} cannot be aborted: {error}", file=sys.stderr)


@pytest.fixture(scope="session")
def own_mounts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Mounts of this session lie below this; another session's are its own affair."""
    return f"{tmp_path_factory.getbasetemp().resolve()}/"


# ------------------------------------------------------------------ nothing is left behind
@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(own_mounts: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """At the end no mount and no process of this session may be left. Ends them, and says so."""
    yield
    deadline = time.monotonic() + LEAVE_WITHIN_S
    while (our_processes() or r2fs_mounts(own_mounts)) and time.monotonic() < deadline:
        time.sleep(0.05)
    mounts = r2fs_mounts(own_mounts)
    processes = our_processes()
    for mount in mounts:
        subprocess.run(["fusermount3", "-u", "-z", mount], check=False, capture_output=True, timeout=20)
    for pid in processes:
        end_process(pid)
    left = [f"mount {mount}" for mount in mounts] + [f"process {p}: {c}" for p, c in processes.items()]
    if not left:
        return
    if (
        output := getattr(request.config, "workeroutput", None)
    ) is not None:  # pytest-xdist: the controller says it
        output["left_behind"] = left
    else:
        pytest.exit("tests left behind (ended now):\n" + "\n".join(left), returncode=LEFT_BEHIND)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """pytest-xdist sends reports as UTF-8: names that are none, in a log or a failure, are escaped."""
    outcome: Any = yield
    report = outcome.get_result()
    report.sections = [(name, encodable(text)) for name, text in report.sections]
    if report.longrepr is not None and encodable(text := str(report.longrepr)) != text:
        report.longrepr = encodable(text)


def encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


LEFT_IN_WORKERS = pytest.StashKey[list[str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of pytest-xdist has ended; `workeroutput` is what it hands to the controller."""
    node.config.stash.setdefault(LEFT_IN_WORKERS, []).extend(
        getattr(node, "workeroutput", {}).get("left_behind", [])
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash.get(LEFT_IN_WORKERS, []):
        session.exitstatus = LEFT_BEHIND


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT_IN_WORKERS, []):
        terminalreporter.section("tests left behind (ended now)")
        terminalreporter.write_line("\n".join(left))


def r2fs_mounts(below: str) -> dict[str, str]:
    """Mount points below a directory whose type or source is r2fs, with the FUSE connection's number."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, source, *_ = after.split(" ")
        _, _, device, _, path, *_ = before.split(" ")
        path = path.replace("\\040", " ")
        ours = "r2fs" in kind or source.startswith(("r2fs", "s3:", "r2:", "file:"))
        if kind.startswith("fuse") and ours and path.startswith(below):
            found[path] = device.partition(":")[2]
    return found


def our_processes() -> dict[int, str]:
    """Processes, other than this one, that carry this session's variable: pid and command line."""
    mark = f"{SESSION_VARIABLE}={os.environ[SESSION_VARIABLE]}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = command.strip()[:200]
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def end_process(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
