"""Holder: keeps a mount's descriptor while no daemon does, so that a crash does not take the mount away.

Owns:    a second descriptor of the session, `<run_dir>/<stem>.holder` (mode 0600), and starting the daemon
         again where it was told how.
Never:   reads or writes the descriptor; touches the mount; imports anything but small parts of the standard
         library: it is run as a file, by itself, and stays as small as Python can be.
Threads: one.
Fails:   never hangs: every socket has a time limit. When it ends, the kernel ends the connection, and whoever
         waits in the mount gets ENOTCONN.

One message is one JSON object, one packet (SOCK_SEQPACKET), with the descriptor beside it where it travels:

    keep   daemon → holder, first, over the inherited socket, with the descriptor: see `Deal`
    take   successor → holder: answered with the descriptor, unless a daemon has it
    leave  daemon → holder: it goes, and its successor comes
    end    the session is over; from anybody but the daemon only while there is none
    status anybody

The connection of `keep` or `take` stays open: its end, without `leave` or `end` before, is the daemon's death.
The descriptor is not polled while there is a daemon: each request of the mount would wake this process, too.
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

GRACE_S = 60.0  # how long a successor is waited for, if the daemon did not say
TICK_S = 0.2  # how often, without a daemon, the mount is looked at: is it gone?
TALK_S = 2.0  # a peer that does not take its answer
RESTART_FIRST_S, RESTART_CAP_S = 0.1, 10.0  # between a death and the next start
RESTARTS, WINDOW_S = 6, 600.0  # more deaths within the time than these: it is not started any more
MAX_PACKET = 1 << 16
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ONLY = "_R2FS_TAKE_OVER"  # in the environment of what it starts: take the mount over, or leave it

Message = dict[str, object]


def send(to: socket.socket, message: Message, fd: int = -1) -> None:
    socket.send_fds(to, [json.dumps(message).encode()], [fd] if fd >= 0 else [])


def receive(peer: socket.socket) -> tuple[Message | None, int]:
    """(message, descriptor or -1); (None, -1) where the peer has gone or talks nonsense."""
    try:
        data, fds, _, _ = socket.recv_fds(peer, MAX_PACKET, 4)
    except OSError:
        return None, -1
    for fd in fds:
        os.set_inheritable(fd, False)  # Python passes MSG_CMSG_CLOEXEC to recv_fds() on to nobody
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    kept = fds[:1] if isinstance(message, dict) else []
    for fd in fds[len(kept) :]:
        os.close(fd)
    return (message if isinstance(message, dict) else None), (kept[0] if kept else -1)


class Deal:
    """What the daemon said with `keep` or `take`; the last one counts."""

    def __init__(self, message: Message) -> None:
        self.pid = int(str(message["pid"]))
        self.grace_s = float(str(message.get("grace_s", GRACE_S)))
        self.card = message.get("card")  # for status: mountpoint, url …
        again = message.get("again")  # how it is started again; None: somebody else does that
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
        self._over = False

    def run(self) -> None:
        """Until the session is over, or nobody came for it."""
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
        """A signal: with a daemon there, which gets it as well, the end is the daemon's to tell."""
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
        now = time.monotonic()
        self._deaths = [t for t in self._deaths if now - t < WINDOW_S] + ([now] if died else [])
        self._plan()

    def _plan(self) -> None:
        if len(self._deaths) <= RESTARTS:
            wait = min(RESTART_CAP_S, RESTART_FIRST_S * 4 ** max(0, len(self._deaths) - 1))
            self._start_at = time.monotonic() + wait

    def _look_after(self) -> None:
        """There is no daemon: is the mount gone, does somebody come, is he to be started?"""
        now = time.monotonic()
        poll = select.poll()
        poll.register(self._fd, 0)
        if poll.poll(0) or now - self._alone_since > self._deal.grace_s:
            self._over = True
        elif self._start_at is not None and now >= self._start_at and not self._child:
            self._start_at = None
            self._child = start(self._deal.again or {})

    def _reap(self) -> None:
        if not self._child:
            return
        pid, _ = os.waitpid(self._child, os.WNOHANG)
        if pid:
            self._child = 0
            if self._daemon is None and self._start_at is None and self._deal.again is not None:
                self._deaths.append(time.monotonic())  # it ended before it took the mount
                self._plan()

    # ---- everybody
    def _answer(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # who knocked has left
        peer.settimeout(TALK_S)
        kept = False
        try:
            if may_ask(peer):
                kept = self._serve(peer)
        finally:
            if not kept:
                peer.close()

    def _serve(self, peer: socket.socket) -> bool:
        """One request; whether the connection stays, as the daemon's."""
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
            os.close(self._fd)  # before the answer: from now on nobody waits in the mount
            self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._tell(peer, {"ok": True})
        elif op == "take" and message is not None:
            try:
                deal = Deal(message)
            except (KeyError, ValueError):
                return False  # it does not say who it is
            if self._tell(peer, {"ok": True}, self._fd):
                self._daemon, self._deal, self._start_at = peer, deal, None
                return True
        return False

    def _status(self) -> Message:
        alone = None if self._daemon else round(time.monotonic() - self._alone_since, 3)
        return {
            "pid": os.getpid(),
            "daemon": self._deal.pid if self._daemon else None,
            "alone_s": alone,
            "grace_s": self._deal.grace_s,
            "starts_it": self._daemon is None and (self._start_at is not None or bool(self._child)),
            "card": self._deal.card,
        }

    def _tell(self, peer: socket.socket, message: Message, fd: int = -1) -> bool:
        try:
            send(peer, message, fd)
        except OSError:
            return False
        return True

    def _withdraw(self) -> None:
        """The socket, unless another holder has put its own there."""
        try:
            if os.stat(self._path).st_ino == self._bound:
                os.unlink(self._path)
        except OSError:
            pass  # gone already, with its directory


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
    """The same user, or root."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (0, os.getuid())


def check_directory(fd: int) -> None:
    """PermissionError where others than this user and root may write. The daemon has looked at the way to it."""
    found = os.fstat(fd)
    if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
        raise PermissionError("others may put sockets into this directory")


def listen(path: str) -> socket.socket:
    """At `path`, which may be longer than an address: through its directory's descriptor."""
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
    """`holder.py PATH`, with the daemon's socket as standard input."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # inherited from a daemon that blocks them
    for number in STOP_SIGNALS:  # until it is known whether there is a daemon, which gets them as well
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    (path,) = sys.argv[1:]
    daemon = socket.socket(fileno=os.dup(0))
    os.set_inheritable(daemon.fileno(), False)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    daemon.settimeout(None)
    message, fd = receive(daemon)  # none comes where the mount could not be made
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
