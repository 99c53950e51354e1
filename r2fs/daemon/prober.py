"""Prober: does the mount answer? Asked by a process of its own, never by the daemon's.

A thread of the daemon that waits for the daemon's own mount cannot be killed: the kernel lets it go
only once its request is answered, and until it goes keeps /dev/fuse open, so that nobody is told that
the daemon has gone. kill -9 at such a moment would leave a mount that hangs for good, and the state
directory locked. A service manager kills just then: when the mount no longer answers.

Owns:    the process that asks, from the first question to `close`.
Never:   touches the mount itself.
Threads: `answers` in one thread; `close` in any, once nobody asks any more.
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
        # of the thread that asks
        self._process: subprocess.Popen[bytes] | None = None

    def answers(self) -> bool:
        """Asks the daemon, not the kernel's cache. Hangs where the daemon hangs."""
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
        """It ends by itself once nobody can ask: at the daemon's end, too, however that comes."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
