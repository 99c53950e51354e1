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
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

SESSION_VARIABLE = "R2FS_TEST_SESSION"
LEAVE_WITHIN_S = 10.0  # a server that was told to end may need some seconds

# What people have in their environment is not to decide a test.
FOREIGN_VARIABLES = re.compile(r"^(R2|STORAGE|AWS|R2FS)_(?!CA_BUNDLE|NODE_MODULES|TEST_)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked `long` too (many minutes)")


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if FOREIGN_VARIABLES.match(name)]:
        del os.environ[name]
    os.environ[SESSION_VARIABLE] = uuid.uuid4().hex


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


# ------------------------------------------------------------------ nothing is left behind
@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end no mount and no process of this session may be left. Ends them, and says so."""
    ours = f"{tmp_path_factory.getbasetemp().resolve()}/"  # another session's mounts are its own affair
    yield
    deadline = time.monotonic() + LEAVE_WITHIN_S
    while (our_processes() or r2fs_mounts(ours)) and time.monotonic() < deadline:
        time.sleep(0.05)
    mounts = r2fs_mounts(ours)
    processes = our_processes()
    for mount in mounts:
        subprocess.run(["fusermount3", "-u", "-z", mount], check=False, capture_output=True, timeout=20)
    for pid in processes:
        end_process(pid)
    left = [f"mount {mount}" for mount in mounts] + [f"process {p}: {c}" for p, c in processes.items()]
    if left:
        pytest.fail("tests left behind (ended now):\n" + "\n".join(left), pytrace=False)


def r2fs_mounts(below: str) -> set[str]:
    """Mount points below a directory whose type or source is r2fs."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, source, *_ = after.split(" ")
        if kind.startswith("fuse") and ("r2fs" in kind or source.startswith(("r2fs", "s3:", "r2:", "file:"))):
            found.add(before.split(" ")[4].replace("\\040", " "))
    return {path for path in found if path.startswith(below)}


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
