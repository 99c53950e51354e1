"""Spares: empty files made ahead of need, so that a program's create() does not wait.

Making a file costs a journalling file system more than all else of a create: 500 µs of 700
on ext4 for minutes after many files were deleted, which looks at each inode that was freed lately (27 µs
otherwise; measured). A spare keeps its name for life: no rename.

Never:   starts a thread (`run` is one's main); holds a written file.
Threads: `take`, `stop` from any thread.
Locks:   self._wanted (leaf).
Fails:   without a spare `take` makes a file on the spot, and raises as open(2) does.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from pathlib import Path
from threading import Condition

log = logging.getLogger(__name__)

READY = 1024  # enough for a burst of creates; each costs a descriptor and an inode
QUIET_S = 0.02  # after the last take: while a program creates, two makers in one directory slow each other


class Spares:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._wanted = Condition()
        # guarded by: _wanted
        self._files: list[tuple[Path, int]] = []
        self._active = False  # a file was created: spares are worth making
        self._taken = 0.0  # time.monotonic() of the last take
        self._idle = False  # `run` waits without a timeout
        self._stopping = False

    def take(self) -> tuple[Path, int]:
        """Return an empty file, open O_RDWR, that belongs to the caller."""
        with self._wanted:
            self._active, self._taken = True, time.monotonic()
            file = self._files.pop() if self._files else None
            if self._idle:
                self._wanted.notify()
        return file or self._make()

    def run(self) -> None:
        """Keep READY files until `stop`. A full disk's error is raised by `take`, not by this thread."""
        while self._await_need():
            try:
                file = self._make()
            except OSError as error:
                log.debug("no spare file could be made: %s", error)
                with self._wanted:
                    self._active = False  # until the next take
                continue
            with self._wanted:
                self._files.append(file)
        self._discard()  # a file that was being made while `stop` discarded the others

    def _await_need(self) -> bool:
        """Wait until a spare is wanted; False: stopped."""
        with self._wanted:
            while not self._stopping:
                self._idle = not self._active or len(self._files) >= READY
                busy_s = self._taken + QUIET_S - time.monotonic()
                if not self._idle and busy_s <= 0:
                    return True
                self._wanted.wait(None if self._idle else busy_s)
            return False

    def stop(self) -> None:
        """Make `run` return, and remove the files that were not taken."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify_all()
        self._discard()

    def _discard(self) -> None:
        with self._wanted:
            files, self._files = self._files, []
        for path, fd in files:
            os.close(fd)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:  # empty: the next start removes the file
                log.info("%s stays: %s", path, error)

    def _make(self) -> tuple[Path, int]:
        path = self._directory / secrets.token_hex(8)
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
