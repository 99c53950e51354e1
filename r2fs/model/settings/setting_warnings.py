"""Warnings about settings that are in force and should not stay so.

Owns:  what is looked at: names of variables, and the modes of files that hold secrets.
Never: keeps a mount from coming up; lets a secret into a message.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from r2fs.model.settings.options import BY_NAME, TABLE
from r2fs.model.settings.settings_file import SettingsFile, near

log = logging.getLogger(__name__)

OTHERS = 0o007


def of_misspelled(environ: Mapping[str, str]) -> None:
    known = {option.own_variable: option for option in TABLE}
    for variable in environ:
        if variable.startswith("R2FS_") and variable not in known and (hint := near(variable, known, 0.85)):
            log.warning("the variable %s is no setting%s", variable, hint)


def of_readable_secrets(file: SettingsFile, mount: str, key_files: Mapping[str, Path]) -> None:
    """Secrets that every user can read, also where another source is the stronger now: they are there to be read."""
    named = {*file.shared, *file.mounts.get(mount, {})}
    held = [(file.path, option.name) for option in TABLE if option.secret and option.name in named]
    held += [(path, part) for part, path in key_files.items() if BY_NAME[part].secret]
    for path, name in held:
        if _is_open(path):
            log.warning("%s holds %s and every user can read it: chmod 600 it", path, name)


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False  # what cannot be read is told where it is needed
