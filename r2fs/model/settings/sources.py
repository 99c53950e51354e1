"""Values of settings, each with its source: from the settings file, the environment and flags.

Precedence, the stronger last:

    default < file: top level < [defaults] < [mount.NAME]
            < variables: AWS_… < STORAGE_… < R2_… < R2FS_… < $CREDENTIALS_DIRECTORY
              (each family: of `env_file` < of the process)
            < file: [buckets.NAME], of that bucket alone
            < flags and -o

The URL and mount point of a mount named on the command line rank with the flags, so that no variable
replaces them. The parts of a key (id, secret, token) are of one family of variables, never of two.

Never: asks the bucket; lets a secret into a message.
Fails: SettingsError naming the setting, its source and what is allowed.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2fs.model import owned_paths
from r2fs.model.errors import SettingsError
from r2fs.model.settings import env_file, places, setting_warnings, settings_file
from r2fs.model.settings.options import BY_NAME, FAMILIES, KEY_PARTS, TABLE, Option
from r2fs.model.settings.settings_file import SettingsFile, near

log = logging.getLogger(__name__)

Rank = tuple[int, int]
DEFAULT: Rank = (0, 0)
FILE, ENVIRONMENT, FLAG = 1, 2, 3
_OWN_VARIABLE, _CREDENTIAL = len(FAMILIES), len(FAMILIES) + 1  # ranks above the families of variables
OF_BUCKET: Rank = (ENVIRONMENT, _CREDENTIAL + 1)  # a bucket's own table names it, and variables do not
HIDDEN = "(hidden)"
MAX_KEY = 1 << 16  # bytes of a file with a key; session tokens have a few thousand


@dataclass(frozen=True, slots=True)
class Candidate:
    """Value of a setting from one source, not yet parsed."""

    raw: object
    source: str
    rank: Rank
    base: Path | None = None  # directory of relative paths


@dataclass(frozen=True, slots=True)
class Value:
    value: Any  # parsed, of the type of the setting's field
    source: str
    rank: Rank


NO_VALUE = Value(None, "default", DEFAULT)


@dataclass(frozen=True, slots=True)
class Flag:
    """Value on the command line: `raw` is text, or True and False for a switch."""

    raw: object
    source: str  # "flag --cache-size"


@dataclass(frozen=True)
class Values:
    """All values, with their sources."""

    file: SettingsFile
    name: str  # of the mount, or ""
    by_name: Mapping[str, Value]

    def get(self, name: str) -> Any:
        return self.by_name.get(name, NO_VALUE).value

    def rank(self, name: str) -> Rank:
        return self.by_name.get(name, NO_VALUE).rank

    def source(self, name: str) -> str:
        return self.by_name.get(name, NO_VALUE).source

    def shown(self, option: Option) -> str:
        """Value in TOML; secrets hidden; "" without a value."""
        value = self.get(option.name)
        if value is None:
            return ""
        return HIDDEN if option.secret else option.kind.write(value)

    def secrets(self) -> set[str]:
        """Every secret that is read, or stands in the settings file, of other mounts too: to be redacted."""
        found = {str(self.get(option.name)) for option in TABLE if option.secret and self.get(option.name)}
        for table in (self.file.shared, *self.file.mounts.values(), *self.file.buckets.values()):
            found |= {str(value.raw) for name, value in table.items() if BY_NAME[name].secret}
        return found

    def for_bucket(self, name: str) -> Values:
        """These values, with those of the table [buckets.NAME] of the settings file."""
        table = self.file.buckets.get(name, {})
        values = dict(self.by_name)
        for option_name, found in table.items():
            if self.rank(option_name) < OF_BUCKET:
                own = Candidate(found.raw, found.where, OF_BUCKET, self.file.path.parent)
                value = _strongest(BY_NAME[option_name], [own])
                assert value is not None
                values[option_name] = value
        _read_key_files(values)
        return replace(self, by_name=values)

    def files(self) -> tuple[Path, ...]:
        """All files that a value may be from: a change of one changes the settings."""
        env_file = self.get("env_file")
        keys = (path for paths in self.key_files().values() for path in paths)
        return (self.file.path, *([env_file] if env_file else []), *keys)

    def key_files(self) -> dict[str, list[Path]]:
        """The files that hold parts of keys, by the part: of the mount, and of its buckets."""
        of_all = (self, *(self.for_bucket(name) for name in self.file.buckets))
        found = {
            part: list(dict.fromkeys(path for values in of_all if (path := values.get(f"{part}_file"))))
            for part in KEY_PARTS
        }
        env_file = self.get("env_file")
        for part in KEY_PARTS:
            if env_file is not None and self.source(part).endswith(f" of {env_file}"):
                found[part].append(env_file)
        return found

    @property
    def mountpoint(self) -> Path | None:
        value: Path | None = self.get("mountpoint")
        return value


def gather(
    target: str | None = None,
    *,
    flags: Mapping[str, Flag] | None = None,
    environ: Mapping[str, str] | None = None,
    config_file: Path | None = None,
    base: Path | None = None,
    warn: bool = True,
) -> Values:
    """Gather all values for `target`: a URL, a mount's name in the settings file, or None.

    `base`: directory of relative paths in flags and variables; by default the working directory.
    """
    environ = os.environ if environ is None else environ
    base = base or Path.cwd()
    path = config_file or places.settings_file(environ)
    named = config_file is not None or bool(environ.get("R2FS_CONFIG"))
    file = settings_file.read(
        Path(os.path.normpath(base / path)), must_exist=named, trusted=config_file is None
    )
    name, url = _target(target, file)
    candidates: dict[str, list[Candidate]] = {option.name: [] for option in TABLE}
    for option_name, candidate in _of_file(file, name):
        candidates[option_name].append(candidate)
    in_file, env_path = _of_env_file(candidates["env_file"], environ, flags or {}, base)
    for option_name, candidate in _of_environment({**in_file, **_set(environ)}, base):
        candidates[option_name].append(_from_env_file(candidate, in_file, environ, env_path))
    if warn:
        setting_warnings.of_misspelled(environ)
    if url:
        candidates["url"].append(Candidate(url, "command line", (FLAG, 0)))
    for option_name, flag in (flags or {}).items():
        candidates[option_name].append(_of_flag(option_name, flag, base))
    values = {n: v for n, found in candidates.items() if (v := _strongest(BY_NAME[n], found)) is not None}
    _read_key_files(values)
    _of_this_host(values, environ)
    gathered = Values(file, name, values)
    if warn:
        setting_warnings.of_readable_secrets(file, name, gathered.key_files())
    return gathered


# ------------------------------------------------------------------ sources
_URL_WITH_A_SLIP = re.compile(r"(r2|s3|file)(?::/?|//)([^/:].*)", re.IGNORECASE)


def _target(target: str | None, file: SettingsFile) -> tuple[str, str]:
    """(mount's name, URL), one of them empty."""
    if not target:
        return "", ""
    target = target.removeprefix("r2fs#")  # fstab's older spelling of a FUSE source
    if "://" in target:
        if target.lower().startswith(("http://", "https://")):
            raise SettingsError(  # without the address, which may hold a key
                "url: http:// and https:// are a server's address: give that, without the bucket, as endpoint_url "
                "(--endpoint-url), and the bucket as s3://BUCKET; for R2, account_id and r2://BUCKET are enough"
            )
        return "", target
    if target not in file.mounts:
        if (slip := _URL_WITH_A_SLIP.fullmatch(target)) is not None:
            scheme, rest = slip[1].lower(), slip[2]
            meant = f"{scheme}://{'/' if scheme == 'file' else ''}{rest}"
            raise SettingsError(f"{target!r} is not a URL as r2fs has them: is {meant} meant?")
        if target.startswith(("/", "./", "../", "~/")):
            directory = os.path.abspath(os.path.expanduser(target))
            raise SettingsError(f"{target} is a path: a directory in place of a bucket is file://{directory}")
        where = f"{file.path} has no [mount.{target}]"
        if file.mounts:
            where += near(target, file.mounts) or f" (it has {', '.join(sorted(file.mounts))})"
        elif not file.exists:
            where = f"there is no settings file {file.path}"
        raise SettingsError(f"{target!r} is neither a URL (r2://BUCKET) nor a mount's name: {where}")
    return target, ""


def _of_file(file: SettingsFile, name: str) -> Iterator[tuple[str, Candidate]]:
    base = file.path.parent
    for option_name, value in file.shared.items():
        within = 1 if value.where.endswith("[defaults]") else 0
        yield option_name, Candidate(value.raw, value.where, (FILE, within), base)
    for option_name, value in file.mounts.get(name, {}).items():
        rank = (FLAG, 0) if option_name in ("url", "mountpoint") else (FILE, 2)
        yield option_name, Candidate(value.raw, value.where, rank, base)


def _of_environment(environ: Mapping[str, str], base: Path) -> Iterator[tuple[str, Candidate]]:
    """Values of variables. Empty variables are ignored."""
    family = _key_family(environ)
    for option in TABLE:
        yield from ((option.name, found) for found in _of_own_variable(option, environ, base))
        for variable in option.variables:
            own_family = variable.split("_")[0]
            if option.name in KEY_PARTS and own_family != family:
                continue
            if raw := environ.get(variable):
                yield (
                    option.name,
                    Candidate(raw, f"variable {variable}", (ENVIRONMENT, FAMILIES.index(own_family))),
                )
                break
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        for name in KEY_PARTS:
            path = Path(directory) / name
            if places.is_there(path):
                source = f"systemd credential {name}"
                yield name, Candidate(_file_text(path, source), source, (ENVIRONMENT, _CREDENTIAL))


def _of_own_variable(option: Option, environ: Mapping[str, str], base: Path) -> Iterator[Candidate]:
    if raw := environ.get(option.own_variable):
        yield Candidate(raw, f"variable {option.own_variable}", (ENVIRONMENT, _OWN_VARIABLE), base)


def _of_flag(name: str, flag: Flag, base: Path) -> Candidate:
    if BY_NAME[name].secret:
        raise SettingsError(f"{flag.source}: {name} is secret and cannot be an argument: use a file")
    return Candidate(flag.raw, flag.source, (FLAG, 0), base)


def _of_env_file(
    candidates: list[Candidate], environ: Mapping[str, str], flags: Mapping[str, Flag], base: Path
) -> tuple[dict[str, str], Path | None]:
    """Variables of the setting `env_file`, and its path. It is read only where a person has named it."""
    option = BY_NAME["env_file"]
    found = [*candidates, *_of_own_variable(option, environ, base)]
    if (flag := flags.get("env_file")) is not None:
        found.append(_of_flag("env_file", flag, base))
    named = _strongest(option, found)
    if named is None:
        return {}, None
    return _set(env_file.read(named.value, settings_file.PATIENCE_S)), named.value


def _set(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if value}


def _from_env_file(
    candidate: Candidate, in_file: Mapping[str, str], environ: Mapping[str, str], path: Path | None
) -> Candidate:
    """The candidate with its source's file, where the variable is not the process's own; paths are relative to it."""
    variable = candidate.source.removeprefix("variable ")
    if path is None or environ.get(variable) or variable not in in_file:
        return candidate
    base = path.parent if candidate.base is not None else None
    return replace(candidate, source=f"{candidate.source} of {path}", base=base)


def _key_family(environ: Mapping[str, str]) -> str:
    """The strongest family of variables with a whole key; else with a part of a key."""
    for wanted in (KEY_PARTS[:2], KEY_PARTS[:1], KEY_PARTS[1:2], KEY_PARTS[2:]):
        for family in reversed(FAMILIES):
            if all(environ.get(f"{family}_{name.upper()}") for name in wanted):
                return family
    return ""


def _strongest(option: Option, candidates: list[Candidate]) -> Value | None:
    """Parse the value with the highest rank. Values of lower rank are not checked."""
    if not candidates:
        return None if option.default is None else Value(option.default, "default", DEFAULT)
    best = max(candidates, key=lambda candidate: candidate.rank)
    try:
        value = option.kind.parse(best.raw)
    except ValueError as error:
        what = f"{option.name} has a wrong value" if option.secret else f"{option.name}: {error}"
        what = re.sub(r"//[^/\s]*@", f"//{HIDDEN}@", what)  # a key in a URL
        raise SettingsError(f"{what} ({best.source}); allowed: {option.kind.allowed}") from None
    if isinstance(value, Path):
        value = Path(os.path.normpath((best.base or Path.cwd()) / value))
    return Value(value, best.source, best.rank)


def _read_key_files(values: dict[str, Value]) -> None:
    """Replace parts of the key by the contents of `secret_access_key_file` and the like, if these rank higher."""
    for name in KEY_PARTS:
        named = values.get(f"{name}_file")
        direct = values.get(name)
        if named is None or (direct is not None and direct.rank >= named.rank):
            continue
        text = _file_text(named.value, f"{name}_file, {named.source}")
        values[name] = Value(BY_NAME[name].kind.parse(text), f"{named.value} ({named.source})", named.rank)


def _file_text(path: Path, source: str) -> str:
    """Read a key from a file. The content is never part of a message."""
    try:
        text = owned_paths.read_named(path, MAX_KEY, settings_file.PATIENCE_S).decode("ascii").strip()
    except owned_paths.UnsafePath as error:
        raise SettingsError(f"{error.strerror}, which no key is ({source})") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror} ({source})") from None
    except UnicodeDecodeError:
        text = ""
    if len(text.split()) != 1 or not text.isprintable():
        raise SettingsError(f"{path} must hold one line with the key and nothing else ({source})")
    return text


def _of_this_host(values: dict[str, Value], environ: Mapping[str, str]) -> None:
    """Add defaults of this host: directories, user, name."""
    places_found = {name: places.base_dir(name, environ) for name in ("cache_dir", "state_dir")}
    places_found["run_dir"] = places.run_dir(environ)
    for name, (path, variable) in places_found.items():
        source = f"default (variable {variable})" if variable else "default"
        values.setdefault(name, Value(path, source, DEFAULT))
    found = {"uid": os.getuid(), "gid": os.getgid(), "host": socket.gethostname() or "localhost"}
    for name, value in found.items():
        values.setdefault(name, Value(value, "default (of this host)", DEFAULT))
