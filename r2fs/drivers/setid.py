"""Set-id bits of a file that is changed: the rule, and dropping them.

Owns:  the rule, where the kernel leaves it to a FUSE daemon.
Never: checks whether the caller may change the file: the kernel has.
"""

from __future__ import annotations

import stat
from pathlib import Path

from r2fs.model.ports import Caller, KernelCache
from r2fs.model.records import AttributeChange, Kind
from r2fs.model.verbs import Verbs


def drop_set_id(fs: Verbs, kernel: KernelCache, caller: Caller, ino: int) -> None:
    """Drop set-user-id, and set-group-id where it has that meaning, from a file about to be changed.

    Called before the change: a repeated call, after a wait, then finds the bits dropped.
    The kernel, which requested this, shows the old mode until notified.
    """
    found = fs.getattr(caller, ino).attributes
    if found.kind is Kind.DIRECTORY:
        return
    mode = found.mode & ~stat.S_ISUID
    # without S_IXGRP the bit once meant mandatory locking, and stays for members of the group
    if mode & stat.S_IXGRP or not _is_of(found.gid, caller):
        mode &= ~stat.S_ISGID
    if mode != found.mode:
        fs.setattr(caller, ino, AttributeChange(mode=mode))
        kernel.forget_attributes(ino)


def _is_of(gid: int, caller: Caller) -> bool:
    """True if the caller is of this group. A FUSE request carries only the first of its groups."""
    if gid == caller.gid:
        return True
    try:
        status = Path(f"/proc/{caller.pid}/status").read_text()
    except OSError:  # the process has ended, or is of another namespace
        return False
    groups = next((line for line in status.splitlines() if line.startswith("Groups:")), "")
    return str(gid) in groups.split()[1:]
