"""Installation of a mount as a service of systemd: its unit, its credentials, and their removal.

Files without the mark MARK are another program's: they are never replaced or removed. cli/service.py runs systemctl.
Fails:   DirectoryUnusable where a file cannot be written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from r2fs.model.errors import DirectoryUnusable

UNIT: Final = "r2fs@.service"
MARK: Final = "# Written by r2fs service install, which replaces this file; r2fs service remove deletes it.\n"
PROGRAM: Final = "/usr/bin/env r2fs"  # in the units as they are distributed
PACKAGED_PROGRAM: Final = "/usr/bin/r2fs"
PRIVATE, PUBLIC = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class Place:
    """Directories of the system's services, or of a user's."""

    units: Path
    config: Path  # of NAME.env
    credentials: Path | None  # systemd's store of credentials; None: keys are in NAME.env
    packaged: Path  # units of packages; one there suits the program of the package

    @property
    def for_user(self) -> bool:
        return self.credentials is None

    def environment_file(self, name: str) -> Path:
        return self.config / f"{name}.env"

    def credential(self, name: str, part: str) -> Path:
        assert self.credentials is not None
        return self.credentials / f"r2fs.{name}.{part}"


def system_place(root: Path = Path("/")) -> Place:
    packaged = root / "usr/lib/systemd/system"
    return Place(root / "etc/systemd/system", root / "etc/r2fs", root / "etc/credstore", packaged)


def user_place(environ: Mapping[str, str], home: Path) -> Place:
    given = environ.get("XDG_CONFIG_HOME", "")
    config = Path(given) if os.path.isabs(given) else home / ".config"
    return Place(config / "systemd/user", config / "r2fs", None, Path("/usr/lib/systemd/user"))


def unit_text(for_user: bool, program: Sequence[str]) -> str:
    """The unit of this version, started by `program`. The distributed text is in daemon/units."""
    folder = resources.files("r2fs.daemon") / "units"
    text = ((folder / "user" if for_user else folder) / UNIT).read_text()
    words = " ".join(_escaped(word) for word in program)
    return MARK + text.replace(f"ExecStart={PROGRAM} ", f"ExecStart={words} ")


def _escaped(word: str) -> str:
    """A word of ExecStart=, as systemd.service(5) has it."""
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return plain if re.fullmatch(r"[^\s\"';]+", plain) else f'"{plain}"'


def write_unit(place: Place, program: Sequence[str]) -> tuple[Path, bool]:
    """Write the unit. False: another's unit of this name is there, or the package's own, and is used."""
    path = place.units / UNIT
    if path.exists() and not _is_ours(path):
        return path, False
    if program == [PACKAGED_PROGRAM] and (place.packaged / UNIT).exists():
        path.unlink(missing_ok=True)  # of an installation before the package
        return place.packaged / UNIT, False
    _write(path, unit_text(place.for_user, program), PUBLIC)
    return path, True


def write_credentials(
    place: Place, name: str, key: Mapping[str, str], variables: Mapping[str, str]
) -> list[Path]:
    """Write the parts of the key, and settings that came from variables, which a service has not. Returns the files."""
    written = []
    if place.credentials is not None:
        for part, secret in key.items():
            path = place.credential(name, part)
            _write(path, secret, PRIVATE)
            written.append(path)
        key = {}
    values = {f"R2FS_{part.upper()}": value for part, value in (*variables.items(), *key.items())}
    path = place.environment_file(name)
    if values and (not path.exists() or _is_ours(path)):
        lines = [f"{variable}={quoted(value)}\n" for variable, value in values.items()]
        _write(path, MARK + "".join(lines), PRIVATE)
        written.append(path)
    return written


def quoted(value: str) -> str:
    """A value of an EnvironmentFile=, as systemd.exec(5) has it."""
    return '"' + re.sub(r'([\\"`$])', r"\\\1", value) + '"'


def remove(place: Place, name: str, keep_unit: bool = False) -> list[Path]:
    """Remove the files of `name`, and the unit if no other mount is enabled. Returns the removed files."""
    removed = []
    for path in _files_of(place, name):
        with suppress(FileNotFoundError):
            path.unlink()
            removed.append(path)
    unit = place.units / UNIT
    if unit.exists() and _is_ours(unit) and not keep_unit and not _others(place, name):
        unit.unlink()
        removed.append(unit)
    return removed


def _files_of(place: Place, name: str) -> Iterator[Path]:
    if place.credentials is not None:
        yield from (
            place.credential(name, part) for part in ("access_key_id", "secret_access_key", "session_token")
        )
    path = place.environment_file(name)
    if path.exists() and _is_ours(path):
        yield path


def _others(place: Place, name: str) -> list[str]:
    """Other mounts whose unit is enabled."""
    found = {path.name for path in place.units.glob("*.wants/r2fs@*.service")}
    return sorted(found - {f"r2fs@{name}.service"})


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(errors="replace").startswith(MARK)
    except OSError:
        return False


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file atomically, with its mode from the beginning: no other user reads a secret in it."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o755 if mode == PUBLIC else 0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(fd, "w") as file:
            os.fchmod(fd, mode)
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise DirectoryUnusable(f"{path} cannot be written: {error.strerror}") from None
