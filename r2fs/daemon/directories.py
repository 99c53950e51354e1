"""Directories of a mount: made, checked, and linked so that content can move by rename.

Content moves between cache and staging by rename and hard link. Where the cache is on another
file system than the state, staging is `CACHE.staging/MOUNT`, beside the cache directory and
not in it, so that `rm -rf` of the cache removes nothing unsent. `STATE/staging` is then a
symbolic link to it, which the next mount follows, whatever its settings are.

Never: deletes bytes that may be unsent: an obstacle is reported.
Fails: DirectoryUnusable with the remedy.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from r2fs.disk.staging import Staging
from r2fs.model import owned_paths
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.settings import Settings

log = logging.getLogger(__name__)

MARKS = {
    # Cache Directory Tagging Specification: tar --exclude-caches, borg and restic leave such a directory out.
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# The cache of a mount of r2fs: all of it is in the bucket.\n",
    ".gitignore": "*\n",  # a cache may lie in a checkout
}


def prepare(settings: Settings) -> Settings:
    """Make and check the directories; return the settings with `staging` filled unless in the state directory."""
    _make(settings.cache_dir, "cache", close=True)
    _make(settings.state_dir, "state", close=True)
    prepare_run(settings)
    return replace(settings, staging=_staging(settings))


def prepare_run(settings: Settings) -> None:
    """Make and check the run directory, before its files are trusted. Others may use it too, as /run."""
    _make(settings.run_dir, "run", close=False)


@contextmanager
def made_by_a_start(settings: Settings) -> Iterator[None]:
    """On an exception, remove the directories that were made inside and are empty.

    Not the run directory: another start may be about to make its socket there, as several mounts of fstab do at a boot.
    """
    missing = [path for name in ("cache", "state") for path in _missing(getattr(settings, f"{name}_dir"))]
    try:
        yield
    except BaseException:
        for path in sorted(missing, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):  # not empty by now, or not made
                path.rmdir()
        raise


def _missing(path: Path) -> list[Path]:
    return [each for each in (path, *path.parents) if not each.exists()]


def _make(path: Path, what: str, close: bool) -> None:
    """Make a directory. `close`: only r2fs uses it, and other users may not read it."""
    try:
        with owned_paths.directory(path, make=True) as fd:
            status = os.fstat(fd)
            if close and status.st_mode & 0o077 and status.st_uid == os.geteuid():
                os.fchmod(fd, 0o700)
            probe = f".probe-{secrets.token_hex(8)}"
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd))
            os.unlink(probe, dir_fd=fd)
    except owned_paths.UnsafePath as error:
        raise DirectoryUnusable(
            f"the {what} directory {path} is not safe to use: {error.strerror}; choose another by --{what}-dir"
        ) from None
    except OSError as error:
        raise DirectoryUnusable(
            f"the {what} directory {path} cannot be written ({error.strerror}): "
            f"make it writable, or choose another by --{what}-dir"
        ) from error


def mark_cache(settings: Settings) -> None:
    """Tell backup programs and git that the mount's directory in the cache holds nothing of its own. Never the place of
    unsent bytes, which is to be in a backup."""
    try:
        with owned_paths.directory(settings.cache_dir) as fd:
            for name, text in MARKS.items():
                with suppress(FileExistsError):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    with open(os.open(name, flags, 0o600, dir_fd=fd), "w") as file:
                        file.write(text)
    except OSError as error:
        log.info("%s: not marked as a cache: %s", settings.cache_dir, error)


def _staging(settings: Settings) -> Path | None:
    """The path of staging outside the state directory; None where `STATE/staging` is the directory."""
    recorded = settings.state_dir / "staging"
    if recorded.is_symlink():
        target = Path(os.path.realpath(recorded))
        if not target.is_dir():
            raise DirectoryUnusable(
                f"unsent files are in {target}, which does not exist: mount its disk; "
                f"if the disk is lost for good, remove {recorded}"
            )
        _make(target, "cache", close=True)
        if _linkable(settings.cache_dir, target):
            return target
        _leave(settings, target)
        recorded.unlink()
    if _linkable(settings.cache_dir, settings.state_dir):
        return None
    if recorded.is_dir():
        _leave(settings, recorded)
    return _beside_the_cache(settings, recorded)


def _beside_the_cache(settings: Settings, recorded: Path) -> Path:
    base, mount = settings.cache_dir.parent, settings.cache_dir.name
    staging = base.with_name(f"{base.name}.staging") / mount
    _make(staging, "cache", close=True)
    if not _linkable(settings.cache_dir, staging):
        raise DirectoryUnusable(
            f"the cache directory {base} is the top of a file system, and unsent files lie beside it: "
            f"choose a directory below it by --cache-dir"
        )
    recorded.symlink_to(staging)
    return staging


def _leave(settings: Settings, staging: Path) -> None:
    """Give up a staging directory that holds nothing; DirectoryUnusable where it does."""
    earlier = Staging(staging)
    if not earlier.is_empty():
        raise DirectoryUnusable(
            f"unsent files are in {staging}, on another file system than the cache {settings.cache_dir}: "
            f"mount once with the --cache-dir of before, until all is sent"
        )
    with suppress(FileNotFoundError):
        earlier.clear_links()  # void, since no daemon runs
    earlier.remove_directories()


def _linkable(source: Path, target: Path) -> bool:
    """True if a file of `source` can be linked into `target`. Bind mounts may fail despite one device number."""
    probe, link = (path / f".probe-{secrets.token_hex(8)}" for path in (source, target))
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.link(probe, link)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            raise DirectoryUnusable(
                f"the file system of {source} has no hard links: choose another by --cache-dir and --state-dir"
            ) from None
        raise DirectoryUnusable(f"{target} cannot be written: {error.strerror}") from None
    finally:
        for path in (probe, link):
            path.unlink(missing_ok=True)
    return True
