"""Container: whether this process runs in one, and how /dev/fuse is made available to it.

Owns:  the signs that the usual runtimes leave.
Never: decides more by them than the words of a remedy.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path("/")
FLAGS = "--device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined"
# Left by Docker; Podman and CRI-O; systemd-nspawn and others that follow its container interface.
FILES = (".dockerenv", "run/.containerenv", "run/systemd/container")
VARIABLES = ("container", "KUBERNETES_SERVICE_HOST")
_CGROUPS = ("/docker", "/kubepods", "/lxc", "/libpod", "/containerd")


def is_one() -> bool:
    if any(os.environ.get(name) for name in VARIABLES):
        return True
    if any((ROOT / name).exists() for name in FILES):
        return True
    try:
        groups = (ROOT / "proc/self/cgroup").read_text()
    except OSError:
        return False
    return any(sign in groups for sign in _CGROUPS)


def fuse_remedy() -> str:
    """Remedy for a missing /dev/fuse: a container cannot load a module, and gets the host's device on request only."""
    if is_one():
        return (
            f"this is a container, which has to be started with it ({FLAGS}; "
            "the host needs the kernel module fuse)"
        )
    return "load the kernel module fuse (modprobe fuse)"
