"""Checks of this host: FUSE, the kernel's features and the driver that they give, directories and disk.

Never: leaves a file or a mount; writes into a directory of another user.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from r2fs import drivers
from r2fs.doctor.findings import Finding, failed, of_error, ok, warning
from r2fs.drivers import kmount
from r2fs.drivers.kernel import trial
from r2fs.drivers.kernel.wire import Init
from r2fs.drivers.mount_path import check_fuse
from r2fs.model import amounts, kernel_features, owned_paths
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.settings import MIB, Settings

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
# Features that the driver uses where the kernel has them, and the first Linux that does.
FEATURES: Final = (
    (Init.PASSTHROUGH, kernel_features.PASSTHROUGH),
    (Init.HAS_RESEND, kernel_features.RESEND),
    (Init.DIRECT_IO_ALLOW_MMAP, kernel_features.MMAP),
    (Init.HAS_EXPIRE_ONLY, kernel_features.EXPIRY),
    (Init.EXPLICIT_INVAL_DATA, kernel_features.PAGES),
)
SAMPLE_BYTES: Final = 16 * MIB
SLOW_BYTES_S: Final = 20 * MIB  # below it a close() is felt, which waits until the bytes are synced
LOW_BYTES: Final = 512 * MIB


def fuse(allow_other: bool) -> Finding:
    """Device and privileges for a mount."""
    try:
        check_fuse(allow_other, kmount.HELPER)
    except R2fsError as error:
        return of_error("fuse", error)
    if kmount.privileged():
        return ok("fuse", f"{kmount.DEVICE} can be opened, and this process may call mount(2)")
    return ok("fuse", f"{kmount.DEVICE} can be opened; mounts by {shutil.which(kmount.HELPER)}")


def kernel(settings: Settings | None) -> Iterator[Finding]:
    """Features of the kernel, by a mount for a moment, and the driver that a mount would get."""
    try:
        found = trial.offered()
    except R2fsError as error:
        yield of_error("kernel", error, "a trial mount fails: ")
        return
    has = [name for flag, name in FEATURES if found.has(flag)]
    lacks = [f"{name} (Linux {kernel_features.SINCE[name]})" for _, name in FEATURES if name not in has]
    version = ".".join(map(str, found.version))
    text = f"Linux {platform.release()}, FUSE {version}: {', '.join(has) or 'none of the features'}"
    if lacks:
        text += f"; without {', '.join(lacks)}"
        yield warning("kernel", text, "a newer kernel makes the mount faster")
    else:
        yield ok("kernel", text)
    try:
        name = drivers.choose(settings or trial.NOTHING).__name__
    except R2fsError as error:
        yield of_error("driver", error)
        return
    if name != "KernelDriver":
        yield ok("driver", f"{name}: every read passes through the daemon")
    elif not found.has(Init.PASSTHROUGH):
        yield ok("driver", f"{name}, without passthrough: the kernel offers none")
    elif not kmount.privileged():
        yield ok("driver", f"{name}, without passthrough, which needs root: reads use the page cache")
    else:
        yield ok("driver", f"{name} with passthrough")


# ------------------------------------------------------------------ directories
def directories(settings: Settings) -> Iterator[Finding]:
    """Owner, space and speed of the cache's and the state's directory, or of what will hold them."""
    yield _directory("cache", settings.cache_dir, settings.cache_size)
    yield _directory("state", settings.state_dir, 0)


def _directory(what: str, path: Path, wanted: int) -> Finding:
    check = f"{what} directory"
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    shown = str(path) if there == path else f"{path} (not made yet; below {there})"
    try:
        owned_paths.make_sure(there)
        status = os.statvfs(there)
        rate = _write_rate(there)
    except OSError as error:
        remedy = "make room on this disk" if error.errno in FULL else "change its owner or mode"
        return failed(
            check,
            f"{shown} cannot be used: {error.strerror}",
            f"{remedy}, or choose another by --{what}-dir",
            LocalError.exit_code,
        )
    free = status.f_bavail * status.f_frsize
    text = f"{shown}: {amounts.size(free)} free, {amounts.size(rate)}/s written and synced, {kmount.file_system_of(there) or 'unknown file system'}"
    if free < LOW_BYTES or (status.f_files and not status.f_favail):
        return failed(check, text, "make room on this disk: writers soon get no space", LocalError.exit_code)
    if rate < SLOW_BYTES_S:
        return warning(check, text, f"each close() waits for this disk: choose a faster one by --{what}-dir")
    if free < wanted:
        return warning(
            check, f"{text}; cache_size is {amounts.size(wanted)}", "make room, or set a smaller cache_size"
        )
    return ok(check, text)


def _write_rate(directory: Path) -> float:
    """Bytes per second of one file of SAMPLE_BYTES, written and synced. The file has no name."""
    sample = os.urandom(MIB)
    with tempfile.TemporaryFile(dir=directory) as file:
        begun = time.monotonic()
        for _ in range(SAMPLE_BYTES // MIB):
            file.write(sample)
        file.flush()
        os.fsync(file.fileno())
        return SAMPLE_BYTES / max(time.monotonic() - begun, 1e-6)
