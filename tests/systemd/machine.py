"""A machine of its own with a real systemd: booted over this one's files, which it cannot change.

Owns:    the container, its overlay of `/` and every command in it. All mounts are in a mount namespace of the
         container's process, and end with it.
Never:   uses a network: the container has loopback alone; changes a file of the host, but below `shared`.
Fails:   NotBooted with the end of the console.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.namespaces import WITHOUT_OTHER_MOUNTS

ROOT = Path(__file__).resolve().parents[2]
BOOT_S, COMMAND_S, END_S = 60.0, 60.0, 30.0
TARGET = "r2fs-test.target"

# What a server has running anyway is not to be waited for, and may want a network.
MASKED = ("systemd-timesyncd.service", "systemd-resolved.service", "systemd-networkd.service", "tmp.mount", "timers.target",
          "systemd-firstboot.service", "ldconfig.service", "systemd-hwdb-update.service", "e2scrub_reap.service")  # fmt: skip

# The target boots to a system with users' managers, and no more: nothing that this host has enabled. The network is a unit that says when it ends.
UNITS = {
    TARGET: """
        [Unit]
        Requires=basic.target
        Wants=dbus.socket systemd-logind.service systemd-user-sessions.service network-online.target remote-fs.target
        After=basic.target systemd-logind.service systemd-user-sessions.service
        AllowIsolate=yes
        """,
    "test-network.service": """
        [Unit]
        DefaultDependencies=no
        Before=network.target network-online.target
        Conflicts=shutdown.target
        Before=shutdown.target
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/bin/true
        ExecStop=/bin/sh -c "date +%%s.%%N > /srv/shared/network-ended"
        [Install]
        WantedBy=network-online.target
        """,
}

# Runs in a mount namespace of its own: nothing of it is left when the container has ended.
SETUP = """
set -e
mount --make-rprivate /
{without_other_mounts}
mount -t tmpfs -o mode=755 r2fs-machine {base}
mkdir {base}/upper {base}/work {base}/root {base}/dev {base}/run
for device in fuse autofs; do
    mknod {base}/dev/$device c $(stat -c "0x%t 0x%T" /dev/$device)
    chmod 666 {base}/dev/$device
done
mount -t overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work r2fs-machine {base}/root
mount --bind {base}/run /run
mkdir -p /run/systemd
cp -a {files}/. {base}/root/
{closed}
exec systemd-nspawn --quiet --directory {base}/root --machine r2fs-test --register=no --keep-unit \
    --private-network --bind {base}/dev/fuse:/dev/fuse --bind {base}/dev/autofs:/dev/autofs {binds} --bind {shared}:/srv/shared \
    --console=pipe --link-journal=no --boot systemd.unit={target} systemd.journald.forward_to_console=no
"""


class NotBooted(Exception):
    """The machine did not come up."""


class Machine:
    """`shared` is /srv/shared inside, and outlives the machine. `files`: text by path, put in place before the boot."""

    def __init__(self, base: Path, shared: Path, files: Mapping[str, str]) -> None:
        self._console = base / "console"
        self._programs: list[subprocess.Popen[str]] = []
        mounts, staged = base / "machine", base / "files"
        for directory in (mounts, staged):
            directory.mkdir()
        self._stage(staged, files)
        fill = {"base": mounts, "files": staged, "shared": shared, "target": TARGET}
        script = SETUP.format(
            without_other_mounts=WITHOUT_OTHER_MOUNTS,
            **{k: shlex.quote(str(v)) for k, v in fill.items()},
            binds=_binds(),
            closed=_opened(mounts),
        )
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        try:
            self.until(self._is_up, BOOT_S)
        except AssertionError:
            self.stop()
            raise NotBooted(self._console.read_text(errors="replace")[-3000:]) from None

    def _stage(self, staged: Path, files: Mapping[str, str]) -> None:
        system = staged / "etc/systemd/system"
        system.mkdir(parents=True)
        for name in MASKED:
            (system / name).symlink_to("/dev/null")
        for name, text in UNITS.items():
            (system / name).write_text("\n".join(line.strip() for line in text.splitlines()))
        wanted = system / "network-online.target.wants"
        wanted.mkdir()
        (wanted / "test-network.service").symlink_to("../test-network.service")
        python = Path(sys.prefix) / "bin" / "python"
        # As pip's console script, but with this clone's code, whatever is installed beside the interpreter.
        lines = ("import sys", "sys.dont_write_bytecode = True", f"sys.path.insert(0, {str(ROOT)!r})")
        program = "\n".join((f"#!{python}", *lines, "from r2fs.cli.main import main", "main()", ""))
        for path, text in {"usr/local/bin/r2fs": program, **files}.items():
            target = staged / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o755 if text.startswith("#!") else 0o644)

    # ------------------------------------------------------------------ inside
    def _leader(self) -> int | None:
        """The process that is number 1 inside."""
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except OSError:
                continue
            line = next(each for each in status.splitlines() if each.startswith("NSpid:"))
            if line.split()[1:] == [str(pid), "1"]:
                return pid
            waiting += map(int, children)
        return None

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            raise NotBooted(self._console.read_text(errors="replace")[-3000:])
        return self._leader() is not None and self.ask("systemctl", "is-active", TARGET).stdout == "active\n"

    def _words(self, words: tuple[object, ...]) -> list[str]:
        leader = self._leader()
        assert leader is not None, "the machine has ended"
        enter = [
            "nsenter",
            f"--target={leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--root",
            "--wd",
        ]
        clean = [
            "env",
            "-i",
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME=/root",
            "LANG=C.UTF-8",
        ]
        return [*enter, *clean, *map(str, words)]

    def ask(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._words(words), capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL
        )

    def do(self, *words: object) -> str:
        """Run a command as root; its output. AssertionError with its errors."""
        done = self.ask(*words)
        assert done.returncode == 0, f"{words}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, unit: str) -> None:
        """Start a unit. AssertionError with its journal."""
        done = self.ask("systemctl", "start", unit)
        assert done.returncode == 0, f"{unit}: {done.stderr}{self.journal(unit)}"

    def begin(self, *words: object) -> subprocess.Popen[str]:
        """Start a program that the test talks to."""
        program = subprocess.Popen(
            self._words(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._programs.append(program)
        return program

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        said = self.do("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in said.splitlines())

    def journal(self, unit: str) -> str:
        return self.do("journalctl", "--no-pager", "--unit", unit)

    def until(self, true: Callable[[], object], within_s: float = COMMAND_S) -> None:
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.05)

    # ------------------------------------------------------------------ the end
    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def power_off(self) -> None:
        """Shut down in good order, and wait for the end."""
        self.ask("systemctl", "poweroff", "--no-wall")
        self._process.wait(END_S)

    def stop(self) -> None:
        """End the machine: in good order, else by its first process."""
        for program in self._programs:
            program.kill()
            program.communicate()
        if self.runs:
            try:
                self.power_off()
            except (subprocess.TimeoutExpired, AssertionError):
                for pid in (self._leader(), self._process.pid):
                    if pid is not None:
                        os.kill(pid, signal.SIGKILL)
                self._process.wait(END_S)


def _binds() -> str:
    """The clone and the interpreter, where they are not on the disk of `/`, or below /tmp, which is empty inside."""
    wanted = {ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    device = os.stat("/").st_dev
    apart = [p for p in sorted(wanted) if p.stat().st_dev != device or p.is_relative_to("/tmp")]
    return " ".join(f"--bind-ro={shlex.quote(str(path))}" for path in apart)


def _opened(mounts: Path) -> str:
    """Let ordinary users inside pass the directories on the way to the clone: of the overlay, not of the host."""
    commands = []
    for path in {ROOT, Path(sys.prefix).resolve()}:
        for parent in (path, *path.parents):
            if parent != Path("/") and parent.stat().st_mode & 0o005 != 0o005:
                commands.append(f"chmod o+rx {shlex.quote(f'{mounts}/root{parent}')}")
    return "\n".join(sorted(set(commands)))


def require() -> None:
    """Raise what is missing: a machine needs root and systemd-container."""
    for program, package in (("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            raise NotBooted(f"{program} is not installed: install the package {package}")
