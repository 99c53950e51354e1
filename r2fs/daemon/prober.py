"""Prober: checks that the mount answers, by a process of its own.

A thread of the daemon that waits for the daemon's own mount cannot be killed: the kernel releases the thread
only once its request is answered, and until then keeps /dev/fuse open, so that no program notices the
daemon's death. kill -9 at such a moment would leave a mount that hangs for good, and the state
directory locked. A service manager kills at exactly that moment: when the mount no longer answers.

Threads: `answers` in one thread; `close` in any, after the last `answers`.
Fails:   OSError where no process can be started.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from r2fs.daemon.mountpoint import GONE

_ASK = """
import os, sys
while os.read(0, 1):
    code = 0
    try:
        os.statvfs(sys.argv[1])
    except OSError as error:
        code = error.errno
    try:
        os.write(1, b"%d\\n" % code)
    except BrokenPipeError:  # the daemon ended while it was asked
        break
"""


class Prober:
    def __init__(self, target: Path) -> None:
        # constant
        self._target = target
        # written by the thread of `answers`
        self._process: subprocess.Popen[bytes] | None = None

    def answers(self) -> bool:
        """True if the daemon answers statfs(2), which the kernel does not cache. Hangs while the daemon hangs."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _ASK, str(self._target)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd="/",
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"?")
        said = self._process.stdout.readline()
        return said != b"" and int(said) not in GONE

    def close(self) -> None:
        """End the process. It also ends by itself with the daemon, whatever ends the daemon."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
