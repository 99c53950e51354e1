"""KernelDriver: the file system on /dev/fuse, without libfuse, with passthrough.

Owns:    the parts of a mounted session and the order in which they start and end.
Never:   knows a file's content or its source: translates the kernel's requests (wire.py) to verbs.
Threads: serve() is the dispatcher. Lanes and the notifier have threads of their own, which start
         inside serve(), after any fork.
Fails:   FuseMissing, MountPointBad, MountPointStale from mount(); Busy from unmount().

    wire.py                layout of the messages
    session.py             reading requests, answering, waiting, INTERRUPT
    negotiation.py         INIT
    lanes.py               threads of requests that wait
    name_handlers.py       lookup, forget, mkdir, unlink, rename …
    directory_handlers.py  readdirplus
    attribute_handlers.py  getattr, setattr, extended attributes
    file_handlers.py       open, read, write, flush, release …  (openfiles.py: their table)
    passthrough.py         open files that the kernel reads without the daemon
    notify.py              invalidation of the kernel's caches
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final

from r2fs.drivers import kmount
from r2fs.drivers.kernel.attribute_handlers import AttributeHandlers
from r2fs.drivers.kernel.directory_handlers import DirectoryHandlers
from r2fs.drivers.kernel.file_handlers import FileHandlers
from r2fs.drivers.kernel.lanes import Lanes
from r2fs.drivers.kernel.name_handlers import NameHandlers
from r2fs.drivers.kernel.negotiation import READ_AHEAD, WANTED, Offer, SessionState
from r2fs.drivers.kernel.notify import KernelNotifier
from r2fs.drivers.kernel.openfiles import OpenFiles
from r2fs.drivers.kernel.passthrough import DeviceBacking, OpenMode, OpenModes
from r2fs.drivers.kernel.session import Session
from r2fs.drivers.kernel.wire import Init, Op
from r2fs.drivers.mount_path import absolute, check_mount_point, set_readahead
from r2fs.model.ports import NoKernelCache, SessionMemory
from r2fs.model.records import Inheritance, Kind
from r2fs.model.settings import Settings
from r2fs.model.verbs import ROOT, Verbs

log = logging.getLogger(__name__)

OPCODES: Final = frozenset(Op)
# Seconds until a computing thread gives way to the dispatcher; a tenth of Python's default.
SWITCH_S: Final = 0.0005


class KernelDriver:
    """`passthrough=False` keeps to the page cache; `memory` records the state that a successor needs."""

    def __init__(
        self,
        fs: Verbs,
        settings: Settings,
        mountpoint: Path,
        *,
        passthrough: bool = True,
        memory: SessionMemory | None = None,
    ) -> None:
        # constant
        self._fs = fs
        self._settings = settings
        self._path = absolute(mountpoint)  # resolved once: a look at the mount itself would hang
        self._passthrough = passthrough
        self._memory = memory
        self.ready = threading.Event()  # INIT is answered, so all other requests are too
        # set by mount() or adopt(), in the thread of serve()
        self._fd = -1
        self._state: SessionState | None = None
        self._inheritance: Inheritance | None = None
        # set by serve(); other threads read them
        self._session: Session | None = None
        self._modes: OpenModes | None = None
        self._detached = False

    @classmethod
    def probe(cls) -> None:
        """Raise FuseMissing, with the remedy, where this driver cannot run."""
        kmount.check_possible()

    # ------------------------------------------------------------------ life
    def mount(self) -> None:
        """Mount. Programs then see the mount, and wait until serve() answers them."""
        if self._fd < 0:
            check_mount_point(Path(self._path))
            self._fd = kmount.mount(self._path, self._settings)

    def adopt(self, fd: int, state: SessionState, inheritance: Inheritance) -> None:
        """Continue the session of an earlier daemon, instead of mount().

        Inode numbers and engine handles must keep their meaning; the engine sees to this.
        """
        self._fd, self._state, self._inheritance = fd, state, inheritance

    def serve(self) -> None:
        """Answer the kernel until the mount has ended or detach() is called; mount first if necessary."""
        self.mount()
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        lanes = Lanes()
        offer = Offer(self._wanted(), self._stack_depth())
        session = Session(self._fd, lanes, offer, ready=self._negotiated)
        modes = self._open_modes(session)
        notifier = KernelNotifier(lambda: modes.unavailable is None)
        left = self._inheritance
        files = OpenFiles(self._fs, modes, self._memory, left.handles.values() if left else None)
        session.route(NameHandlers(self._fs, session, notifier, modes).handlers())
        session.route(DirectoryHandlers(self._fs, session, notifier).handlers())
        session.route(AttributeHandlers(self._fs, session, notifier, files).handlers())
        session.route(FileHandlers(self._fs, session, notifier, modes, files).handlers())
        self._session, self._modes, self._detached = session, modes, False
        self._fs.set_kernel_cache(notifier)
        notifier.start(session.fd)
        if left is not None:
            directories = [node.ino for node in left.nodes.values() if node.kind == Kind.DIRECTORY.value]
            notifier.resend([ROOT, *directories])
            log.info(
                "continues with %s: %d inodes, %d open files", self._path, len(left.nodes), len(left.handles)
            )
            self.ready.set()
        try:
            session.run()
        finally:
            self._end(session, notifier, lanes, files)

    def detach(self) -> None:
        """End serve() soon. The mount stays, and the descriptor stays open for the successor. Any thread."""
        self._detached = True
        if self._session is not None:
            self._session.stop()

    def unmount(self, lazy: bool = False) -> None:
        """End the mount, and with it serve(). Not in serve()'s own thread. Raises Busy while files are open there.

        With `lazy`, the name is removed at once and serve() returns when the last file is closed.
        """
        if kmount.mounted_at(self._path) is not None:
            kmount.unmount(self._path, lazy)

    # ------------------------------------------------------------------ for status
    def mode_of_open_files(self) -> tuple[OpenMode, ...]:
        """Mode of each open inode, with its reason. A copy; any thread."""
        modes = self._modes
        return modes.view() if modes is not None else ()

    def state(self) -> SessionState | None:
        """The state that an adopting daemon needs; None until INIT."""
        return self._state

    def fileno(self) -> int:
        """The session's descriptor, for a holder to keep; -1 without a mount."""
        return self._fd

    def requests(self) -> dict[str, int]:
        """Number of requests of each kind that the kernel has sent."""
        counts = self._session.counts if self._session is not None else []
        return {Op(op).name.lower(): n for op, n in enumerate(counts) if n and op in OPCODES}

    # ------------------------------------------------------------------ start and end
    def _open_modes(self, session: Session) -> OpenModes:
        unavailable = None if self._passthrough else "passthrough is switched off"
        modes = OpenModes(DeviceBacking(session.fd), unavailable)
        if self._state is not None and not self._state.has(Init.PASSTHROUGH):
            modes.disable("the kernel offers no passthrough")
        return modes

    def _wanted(self) -> Init:
        wanted = WANTED | Init.PASSTHROUGH if self._passthrough else WANTED
        # A directory's move changes the targets of its links: the kernel must not cache them.
        return wanted & ~Init.CACHE_SYMLINKS if self._settings.links == "inside" else wanted

    def _stack_depth(self) -> int:
        """Number of file systems that may lie below this mount; an overlay counts as one more."""
        below = (self._settings.cache_dir, self._settings.staging_dir)
        return 2 if any(kmount.file_system_of(path) == "overlay" for path in below) else 1

    def _negotiated(self, state: SessionState) -> None:
        """Take over the result of INIT, in the dispatcher. No other request has been read yet."""
        assert self._modes is not None
        self._state = state
        if not state.has(Init.PASSTHROUGH):
            self._modes.disable("the kernel offers no passthrough")
        else:
            # any file in the cache directory; an unwritable directory is reported elsewhere
            with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=self._settings.cache_dir) as file:
                self._modes.probe(file.fileno())
        set_readahead(self._path, READ_AHEAD)  # INIT can only lower the kernel's 128 KiB
        log.info("mounted on %s: %s", self._path, self._modes.unavailable or "passthrough")
        self.ready.set()

    def _end(self, session: Session, notifier: KernelNotifier, lanes: Lanes, files: OpenFiles) -> None:
        """End the parts after the last request. Requests on a lane get no answer, or are resent to the successor."""
        self.ready.clear()
        if self._detached:
            session.leave()
        session.cancel_waiting()
        lanes.stop()
        quiet = notifier.stop() and not session.waiting()
        self._fs.set_kernel_cache(NoKernelCache())
        self._session = self._modes = None
        session.close()
        if self._detached:
            return
        files.close_all()
        if quiet:  # else a thread may still write to the descriptor: the end of the process closes it
            os.close(self._fd)
        self._fd = -1
