"""A container runtime of a page: enough of the OCI's for an image's root directory and a service of compose.

    unshare --mount --pid --fork … python runtime.py CONFIG     becomes the service's process 1

Owns:   mounts of its own mount namespace, capabilities, process 1. Runs only what CONFIG names.
Never:  is imported by a test: it becomes another program. Uses a module of r2fs.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
import sys
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MNT_DETACH = 2
# Numbers of linux/capability.h for the names that compose files here use.
CAPABILITIES = {"SYS_ADMIN": 21}
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def call(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def fill(root: str, config: dict[str, Any]) -> None:
    """The mounts below `root`, in the order in which a runtime makes them."""
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("-t", "tmpfs", "-o", "mode=755", "dev", f"{root}/dev")
    for name, (major, minor) in NODES.items():
        os.mknod(f"{root}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for path in config["devices"]:
        os.mknod(root + path, stat.S_IFCHR | 0o666, os.stat(path).st_rdev)
    mount("-t", "tmpfs", "-o", "mode=755", "run", f"{root}/run")  # as a place for mount points alone
    for source, target, options in config["binds"]:
        if not os.path.isdir(root + target):
            os.makedirs(root + target)
        mount("--rbind", source, root + target)
        propagation = next((word for word in options if word in ("rshared", "rslave")), "rprivate")
        mount(f"--make-{propagation}", root + target)
        if "ro" in options:
            mount("-o", "remount,bind,ro", root + target)
    for entry in config["tmpfs"]:
        path, _, options = entry.partition(":")
        os.makedirs(root + path, exist_ok=True)
        mount("-t", "tmpfs", "-o", options or "mode=1777", "tmpfs", root + path)


def enter(root: str) -> None:
    os.chdir(root)
    call(LIBC.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."))
    call(LIBC.umount2(b".", MNT_DETACH))
    os.chdir("/")


def drop(config: dict[str, Any]) -> None:
    """Leave root the named capabilities: at execve(2) it has those of the bounding set."""
    kept = {CAPABILITIES[name] for name in config["capabilities"]}
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for number in range(last + 1):
        if number not in kept:
            call(LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
    if config["no_new_privileges"]:
        call(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def main() -> None:
    with open(sys.argv[1]) as file:
        config: dict[str, Any] = json.load(file)
    root = config["root"]
    mount("--rbind", config["image"], root)
    mount("--make-rprivate", root)
    fill(root, config)
    if config["read_only"]:
        mount("-o", "remount,bind,ro", root)
        mount("-o", "remount,ro", f"{root}/run")
    enter(root)
    drop(config)
    os.execve(config["command"][0], config["command"], config["environ"])


if __name__ == "__main__":
    main()
