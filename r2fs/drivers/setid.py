"""The set-id bits of a file that somebody changes: which have to go, and taking them.

Owns:  the rule, where the kernel leaves it to a FUSE daemon.
Never: asks whether the caller may change the file: the kernel has.
"""

from __future__ import annotations

import stat
from pathlib import Path

from r2fs.model.ports import Caller, KernelCache
from r2fs.model.records import AttributeChange, Kind
from r2fs.model.verbs import Verbs


def drop_set_id(fs: Verbs, kernel: KernelCache, caller: Caller, ino: int) -> None:
    """Take set-user-id, and set-group-id where it means that, from a file that somebody changes.

    Called before the change: a call that has to wait, and comes again, then finds them gone.
    The kernel, which asked for this, goes on showing the mode that it remembers unless told.
    """
    found = fs.getattr(caller, ino).attributes
    if found.kind is Kind.DIRECTORY:
        return
    mode = found.mode & ~stat.S_ISUID
    # without S_IXGRP the bit once meant mandatory locking, and stays for who is of the group
    if mode & stat.S_IXGRP or not _is_of(found.gid, caller):
        mode &= ~stat.S_ISGID
    if mode != found.mode:
        fs.setattr(caller, ino, AttributeChange(mode=mode))
        kernel.forget_attributes(ino)


def _is_of(gid: int, caller: Caller) -> bool:
    """Is the caller of this group? FUSE tells only the first of its groups."""
    if gid == caller.gid:
        return True
    try:
        status = Path(f"/proc/{caller.pid}/status").read_text()
    except OSError:  # it has ended, or is of another namespace
        return False
    groups = next((line for line in status.splitlines() if line.startswith("Groups:")), "")
    return str(gid) in groups.split()[1:]
