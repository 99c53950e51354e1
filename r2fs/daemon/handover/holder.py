"""Holder: keeps a mount's descriptor while no daemon runs, so that a crash does not end the mount.

Owns:    a second descriptor of the session, `<run_dir>/<stem>.holder` (mode 0600), and starting the daemon
         again, if the daemon gave its command.
Never:   reads or writes the descriptor; touches the mount; imports more than small parts of the standard
         library: it is run as a file, by itself, and stays as small as Python can be.
Threads: one.
Fails:   never hangs: every socket has a time limit. When the holder ends, the kernel ends the connection, and
         calls that wait in the mount get ENOTCONN.

One message is one JSON object, one packet (SOCK_SEQPACKET), with the descriptor attached where it is passed:

    keep   daemon → holder, first, over the inherited socket, with the descriptor: see `Deal`
    take   successor → holder: answered with the descriptor, unless a daemon has it
    leave  daemon → holder: the daemon's process becomes its own successor by execve(); while that runs, no other
           is started
    end    the session is over; from other processes than the daemon only while no daemon runs
    status from any process

The connection of `keep` or `take` stays open: its end, without `leave` or `end` before, is the daemon's death.
The descriptor is not polled while a daemon runs: each request of the mount would wake this process, too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time

GRACE_S = 60.0  # wait for a successor, where the daemon set none
TICK_S = 0.2  # between two looks at the mount, without a daemon
TALK_S = 2.0  # for a peer that does not read its answer
RESTART_FIRST_S, RESTART_CAP_S = 0.1, 10.0  # between a death and the next start
RESTARTS, WINDOW_S = 6, 600.0  # after more deaths within the window the daemon is not started again
MAX_PACKET = 1 << 16
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ONLY = "_R2FS_TAKE_OVER"  # in the environment of a started daemon: take the mount over, or end

Message = dict[str, object]


def send(to: socket.socket, message: Message, fd: int = -1) -> None:
    socket.send_fds(to, [json.dumps(message).encode()], [fd] if fd >= 0 else [])


def receive(peer: socket.socket) -> tuple[Message | None, int]:
    """(message, descriptor or -1); (None, -1) where the peer has left or sent no JSON object."""
    try:
        data, fds, _, _ = socket.recv_fds(peer, MAX_PACKET, 4)
    except OSError:
        return None, -1
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds() ignores MSG_CMSG_CLOEXEC
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    kept = fds[:1] if isinstance(message, dict) else []
    for fd in fds[len(kept) :]:
        os.close(fd)
    return (message if isinstance(message, dict) else None), (kept[0] if kept else -1)


class Deal:
    """The fields of `keep` or `take`; the last message counts."""

    def __init__(self, message: Message) -> None:
        self.pid = int(str(message["pid"]))
        self.grace_s = float(str(message.get("grace_s", GRACE_S)))
        self.card = message.get("card")  # for status: mountpoint, url …
        again = message.get("again")  # command of the next start; None: the holder starts none
        self.again: dict[str, object] | None = again if isinstance(again, dict) else None


class Holder:
    def __init__(
        self, daemon: socket.socket, listener: socket.socket, path: str, fd: int, deal: Deal
    ) -> None:
        self._daemon: socket.socket | None = daemon
        self._listener = listener
        self._path = path
        self._fd = fd
        self._deal = deal
        self._bound = os.stat(path).st_ino
        self._alone_since = 0.0  # time.monotonic()
        self._deaths: list[float] = []
        self._start_at: float | None = None  # time.monotonic()
        self._child = 0
        self._successor = -1  # a pidfd, from `leave` until the process takes the session over or ends
        self._over = False

    def run(self) -> None:
        """Serve until the session is over, or the grace time has passed."""
        self._listener.setblocking(False)
        while not self._over:
            waiting = [self._listener] + ([self._daemon] if self._daemon else [])
            busy = self._daemon is None or self._child
            ready, _, _ = select.select(waiting, [], [], TICK_S if busy else None)
            if self._daemon in ready:
                self._hear_daemon()
            if self._listener in ready:
                self._answer()
            self._reap()
            if self._daemon is None and not self._over:
                self._look_after()
        os.close(self._fd)
        self._withdraw()

    def stop(self, number: int, frame: object) -> None:
        """Handle a signal. While a daemon runs, which gets the signal as well, the daemon decides."""
        self._over = self._over or self._daemon is None

    # ---- the daemon
    def _hear_daemon(self) -> None:
        assert self._daemon is not None
        message, _ = receive(self._daemon)
        op = message and message.get("op")
        if op == "end":
            self._over = True
            self._tell(self._daemon, {"ok": True})
        elif op == "leave":
            self._tell(self._daemon, {"ok": True})
            self._alone(died=False)
        else:
            self._alone(died=True)

    def _alone(self, died: bool) -> None:
        if self._daemon is not None:
            self._daemon.close()
        self._daemon, self._alone_since, self._start_at = None, time.monotonic(), None
        if self._deal.again is None:
            return
        if not died:
            self._successor = follow(self._deal.pid)
        now = time.monotonic()
        self._deaths = [t for t in self._deaths if now - t < WINDOW_S] + ([now] if died else [])
        if self._successor < 0:
            self._plan()

    def _plan(self) -> None:
        if len(self._deaths) <= RESTARTS:
            wait = min(RESTART_CAP_S, RESTART_FIRST_S * 4 ** max(0, len(self._deaths) - 1))
            self._start_at = time.monotonic() + wait

    def _look_after(self) -> None:
        """Without a daemon: end with the mount or after the grace time, and start the daemon when due."""
        now = time.monotonic()
        poll = select.poll()
        poll.register(self._fd, 0)
        if poll.poll(0) or now - self._alone_since > self._deal.grace_s:
            self._over = True
        elif self._successor >= 0:
            if has_ended(self._successor):
                self._forget_successor()
                self._deaths.append(now)  # ended before it took the mount over
                self._plan()
        elif self._start_at is not None and now >= self._start_at and not self._child:
            self._start_at = None
            self._child = start(self._deal.again or {})

    def _forget_successor(self) -> None:
        if self._successor >= 0:
            os.close(self._successor)
        self._successor = -1

    def _reap(self) -> None:
        if not self._child:
            return
        pid, _ = os.waitpid(self._child, os.WNOHANG)
        if pid:
            self._child = 0
            if self._daemon is None and self._start_at is None and self._deal.again is not None:
                self._deaths.append(time.monotonic())  # ended before it took the mount over
                self._plan()

    # ---- requests of any process
    def _answer(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # the peer has left
        peer.settimeout(TALK_S)
        kept = False
        try:
            if may_ask(peer):
                kept = self._serve(peer)
        finally:
            if not kept:
                peer.close()

    def _serve(self, peer: socket.socket) -> bool:
        """Answer one request; True if the connection stays, as the daemon's."""
        message, fd = receive(peer)
        if fd >= 0:
            os.close(fd)
        op = message.get("op") if message is not None else None
        if op == "status":
            self._tell(peer, self._status())
        elif self._daemon is not None:
            self._tell(peer, {"error": "a daemon has it", **self._status()})
        elif op == "end":
            self._over = True
            os.close(self._fd)  # before the answer: calls that wait in the mount fail now
            self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._tell(peer, {"ok": True})
        elif op == "take" and message is not None:
            try:
                deal = Deal(message)
            except (KeyError, ValueError):
                return False  # without a pid
            if self._tell(peer, {"ok": True}, self._fd):
                self._daemon, self._deal, self._start_at = peer, deal, None
                self._forget_successor()
                return True
        return False

    def _status(self) -> Message:
        alone = None if self._daemon else round(time.monotonic() - self._alone_since, 3)
        return {
            "pid": os.getpid(),
            "daemon": self._deal.pid if self._daemon else None,
            "alone_s": alone,
            "grace_s": self._deal.grace_s,
            "starts_it": self._daemon is None
            and (self._start_at is not None or bool(self._child) or self._successor >= 0),
            "card": self._deal.card,
        }

    def _tell(self, peer: socket.socket, message: Message, fd: int = -1) -> bool:
        try:
            send(peer, message, fd)
        except OSError:
            return False
        return True

    def _withdraw(self) -> None:
        """Remove the socket, unless another holder has bound its own at the path."""
        try:
            if os.stat(self._path).st_ino == self._bound:
                os.unlink(self._path)
        except OSError:
            pass  # removed already, with its directory


def follow(pid: int) -> int:
    """A pidfd of a process; -1 where it has ended."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def start(again: dict[str, object]) -> int:
    """Run the daemon's command once more, apart from this process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        try:
            os.chdir(str(again.get("cwd") or "/"))
        except OSError:
            os.chdir("/")
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        argv = again.get("argv")
        words = [str(word) for word in argv] if isinstance(argv, list) else []
        os.execve(words[0], words, {**os.environ, ONLY: "1"})
    finally:
        os._exit(127)


def may_ask(peer: socket.socket) -> bool:
    """True for the same user, and for root."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (0, os.getuid())


def check_directory(fd: int) -> None:
    """PermissionError where others than this user and root may write. The daemon has checked the path."""
    found = os.fstat(fd)
    if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
        raise PermissionError("others may put sockets into this directory")


def listen(path: str) -> socket.socket:
    """Listen at `path`, which may exceed an address's length: bound through its directory's descriptor."""
    directory, name = os.path.split(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check_directory(fd)
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass
        before = os.umask(0o177)
        listener.bind(f"/proc/self/fd/{fd}/{name}")
        os.umask(before)
    finally:
        os.close(fd)
    listener.listen(8)
    return listener


def main() -> int:
    """Run `holder.py PATH`, with the daemon's socket as standard input."""
    # the daemon blocks signals, and its child inherits the mask
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in STOP_SIGNALS:  # until a daemon is known to run, which gets them as well
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    (path,) = sys.argv[1:]
    daemon = socket.socket(fileno=os.dup(0))
    os.set_inheritable(daemon.fileno(), False)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    daemon.settimeout(None)
    message, fd = receive(daemon)  # without a message if the mount could not be made
    if message is None or message.get("op") != "keep" or fd < 0:
        return 0
    listener = listen(path)
    send(daemon, {"ok": True, "pid": os.getpid()})
    daemon.settimeout(TALK_S)
    holder = Holder(daemon, listener, path, fd, Deal(message))
    for number in STOP_SIGNALS:
        signal.signal(number, holder.stop)
    holder.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
