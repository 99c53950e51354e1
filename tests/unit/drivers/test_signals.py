from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from r2fs.drivers.kernel.signals import wants_to_stop

BLOCKED = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); print(flush=True); input()"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that leaves its signals pending."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BLOCKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def test_harmless_signals(process: subprocess.Popen[bytes]) -> None:
    assert not wants_to_stop(process.pid)
    for number in (signal.SIGURG, signal.SIGCHLD, signal.SIGALRM, signal.SIGWINCH, signal.SIGUSR1):
        process.send_signal(number)
    assert not wants_to_stop(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_that_ask_to_stop(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    process.send_signal(number)
    deadline = time.monotonic() + 5
    while not wants_to_stop(process.pid):
        assert time.monotonic() < deadline


def test_who_cannot_be_seen_is_not_kept_waiting() -> None:
    assert wants_to_stop(2**22 + 1)
