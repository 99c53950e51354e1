"""The settings file: TOML with shared values and one table for each mount; and its commented template.

    cache_size = "20GiB"                 # shared by all mounts; [defaults] is the same

    [mount.takes]                        # `r2fs mount takes DIR`
    url = "r2://studio/takes"
    cache_size = "50GiB"

    [buckets.audiobooks]                 # of this bucket, in whatever mount
    public_url = "https://media.example.com"

    [programs.thumbnailers]              # rule for these programs, in all mounts
    comm = ["tumblerd"]
    read = "header"

Fails: SettingsError with file and line.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from r2fs.model import owned_paths
from r2fs.model.errors import SettingsError
from r2fs.model.settings.options import BY_NAME, GROUPS, OF_A_BUCKET, Option
from r2fs.model.settings.program_rules import ProgramRule, rule_of

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+|\"[^\"]*\")\s*=")
MAX_BYTES = 1 << 20
GROUPS_OF_TABLES = ("mount", "defaults", "buckets", "programs")
PATIENCE_S = 10.0  # for a pipe: a password manager may ask its user first
MOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # also a systemd instance and an fstab word


@dataclass(frozen=True, slots=True)
class FileValue:
    raw: object
    where: str  # "/etc/r2fs/config.toml:12 [mount.takes]"


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """Content of one settings file; empty without a file."""

    path: Path
    exists: bool = False
    shared: Mapping[str, FileValue] = field(default_factory=dict)
    mounts: Mapping[str, Mapping[str, FileValue]] = field(default_factory=dict)
    buckets: Mapping[str, Mapping[str, FileValue]] = field(default_factory=dict)
    programs: tuple[ProgramRule, ...] = ()  # in the order of the file


def near(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Hint in brackets with similar names, or an empty text."""
    import difflib  # for wrong names alone

    close = difflib.get_close_matches(name.replace("-", "_"), list(known), 3, likeness)
    return f" (is {' or '.join(close)} meant?)" if close else ""


def read(path: Path, *, must_exist: bool, trusted: bool = False) -> SettingsFile:
    """Read `path` and check every name. A missing file counts as empty, unless `must_exist`.

    `trusted`: the file must belong to this user or root, since no person named it on the command line.
    """
    try:
        text = owned_paths.read_named(path, MAX_BYTES, PATIENCE_S, trusted).decode()
    except FileNotFoundError:
        if must_exist:
            raise SettingsError(
                f"{path}: there is no such settings file (`r2fs config init` writes one)"
            ) from None
        return SettingsFile(path)
    except owned_paths.UnsafePath as error:
        raise SettingsError(
            f"the settings file {error.strerror}: if it is meant nevertheless, name it by --config"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{path}: the settings file cannot be read: {reason}") from None
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    return _checked(path, data, _lines(text))


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line numbers by (table, key), for messages. TOML's parser has none; odd spellings are left out."""
    lines: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = re.sub(r"[\s\"']", "", header[1])
            lines.setdefault((table, ""), number)
        elif key := _KEY.match(line):
            lines.setdefault((table, key[1].strip('"')), number)
    return lines


def _checked(path: Path, data: Mapping[str, object], lines: Mapping[tuple[str, str], int]) -> SettingsFile:
    plain = {name: raw for name, raw in data.items() if name not in GROUPS_OF_TABLES}
    shared = _table(path, "", plain, lines)
    shared |= _table(path, "defaults", data.get("defaults", {}), lines)
    mounts = _tables(path, "mount", "mount", data, lines)
    buckets = _tables(path, "buckets", "bucket", data, lines)
    for values in buckets.values():
        for setting in values.keys() - OF_A_BUCKET:
            raise SettingsError(
                f"{values[setting].where}: {setting} is a setting of a mount, not of one bucket; "
                f"of a bucket are {', '.join(sorted(OF_A_BUCKET))}"
            )
    return SettingsFile(path, True, shared, mounts, buckets, _programs(path, data.get("programs", {}), lines))


def _programs(path: Path, tables: object, lines: Mapping[tuple[str, str], int]) -> tuple[ProgramRule, ...]:
    """The rules of the tables [programs.NAME]."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SettingsError(f"{path}: programs is a table for each rule: [programs.NAME]")
    rules = []
    for name, table in tables.items():
        try:
            rules.append(rule_of(name, table))
        except ValueError as error:
            line = lines.get((f"programs.{name}", ""))
            where = f"{path}:{line}" if line else str(path)
            raise SettingsError(f"{where}: [programs.{name}]: {error}") from None
    return tuple(rules)


def _tables(
    path: Path, group: str, of: str, data: Mapping[str, object], lines: Mapping[tuple[str, str], int]
) -> dict[str, Mapping[str, FileValue]]:
    tables = data.get(group, {})
    if not isinstance(tables, dict):
        raise SettingsError(f"{path}: {group} is a table for each {of}: [{group}.NAME]")
    found: dict[str, Mapping[str, FileValue]] = {}
    for name, table in tables.items():
        if MOUNT_NAME.fullmatch(name) is None:
            raise SettingsError(f"{path}: [{group}.{name}]: a name has letters, digits, dots, - and _")
        if not isinstance(table, dict):
            raise SettingsError(
                f"{path}: {group}.{name}: settings of a {of} stand in a table, [{group}.{name}]"
            )
        found[name] = _table(path, f"{group}.{name}", table, lines)
    return found


def _table(
    path: Path, table: str, data: object, lines: Mapping[tuple[str, str], int]
) -> dict[str, FileValue]:
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: {table} is a table: [{table}]")
    values: dict[str, FileValue] = {}
    for name, raw in data.items():
        line = lines.get((table, name)) or lines.get((name, ""))
        where = f"{path}:{line}" if line else str(path)
        if name not in BY_NAME:
            what = "table" if isinstance(raw, dict) else "setting"
            hint = near(name, (*GROUPS_OF_TABLES, *BY_NAME))
            raise SettingsError(f"{where}: unknown {what} {name!r}{hint}")
        values[name] = FileValue(raw, f"{where} [{table}]" if table else where)
    return values


# ------------------------------------------------------------------ the template
_HEAD = """\
# Settings of r2fs. Lines that are commented out show the defaults.
# A variable R2FS_NAME replaces a value in this file, and a flag --name replaces both.
# Sizes: "10GiB" or "10G" (2^30), "10GB" (10^9). Times: "30s", "15m", "24h", "7d".
# `r2fs config show` prints each value in force and its source.
"""
_MOUNT = """

# ---- One table for each mount: `r2fs mount takes DIR`, or `systemctl start r2fs@takes`.
# A table may have every setting above; its values replace the shared ones.

# [mount.takes]
# url = "r2://BUCKET/PREFIX"
# mountpoint = "/mnt/takes"

# ---- Settings of one bucket, in whatever mount: credentials, endpoint, public_url, read_only.

# [buckets.NAME]
# public_url = "https://media.example.com"

# ---- Rules for programs by the name of their process, in all mounts: thumbnailers, indexers. Files on this host
# are read by all programs. read = "header": of other files the begin (`header` bytes) and the end alone are
# fetched, and further reads fail; "slow": they are fetched after what other programs wait for, and nothing more;
# prefetch = false: nothing is fetched ahead.

# [programs.thumbnailers]
# comm = ["tumblerd", "gnome-thumbnail*", "ffmpegthumbnailer"]
# read = "header"
# header = "1MiB"

# [programs.indexers]
# comm = ["tracker-*", "localsearch*", "baloo_file*", "updatedb*"]
# read = "slow"
"""


def template() -> str:
    """Settings file with every setting explained and commented out."""
    parts = [_HEAD]
    for title, options in GROUPS.items():
        parts.append(f"\n\n# ---- {title}.\n")
        parts += [_explained(option) for option in options]
    return "".join(parts) + _MOUNT


def _explained(option: Option) -> str:
    allowed = "" if option.kind.allowed in option.help else f" Allowed: {option.kind.allowed}."
    value = "" if option.default is None else f" {option.kind.write(option.default)}"
    return f"\n# {option.help}{allowed}\n# {option.name} ={value}\n"


def write_template(path: Path) -> None:
    """Write the template, readable by the owner alone, since it may get keys. Never replaces a file."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SettingsError(f"{path} is there already: it is not overwritten") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(template())
