"""The record of a mount for its state directory: the given settings, and the command that mounts it again.

Never: records a key, a secret or a token; of keys only their source.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from r2fs import __version__
from r2fs.model.mount_record import MountRecord
from r2fs.model.settings import Settings, places
from r2fs.model.settings.options import TABLE, Option
from r2fs.model.settings.sources import ENVIRONMENT, FILE, FLAG, Values
from r2fs.model.settings.units import BucketNames, Patterns, Switch

CGROUP = Path("/proc/self/cgroup")
# Defaults of directories, below the home directory.
_PLACES = {"cache_dir": ".cache/r2fs", "state_dir": ".local/state/r2fs"}
_NOT_IN_A_COMMAND = ("url", "mountpoint", "run_dir", "log_level", "log_file")


def record_of(values: Values, settings: Settings, directory: Path, environ: Mapping[str, str]) -> MountRecord:
    bucket = settings.bucket
    given = {o.name: o.kind.write(values.get(o.name)) for o in TABLE if _is_given(values, o)}
    return MountRecord(
        scheme=bucket.scheme,
        bucket=bucket.name,
        prefix=bucket.prefix,
        endpoint=bucket.endpoint_url,
        region=bucket.region,
        url=bucket.url,
        mountpoint=str(directory),
        command=_command(values, settings, directory, environ),
        keys="" if bucket.scheme == "file" else _keys(values),
        name=settings.name,
        version=__version__,
        settings=given,
    )


def _is_given(values: Values, option: Option) -> bool:
    rank = values.rank(option.name)[0]
    return not option.secret and option.name != "access_key_id" and rank in (FILE, ENVIRONMENT, FLAG)


def _keys(values: Values) -> str:
    if values.get("anonymous"):
        return "none: requests without a signature"
    named = [
        name for name in ("access_key_id", "secret_access_key", "profile") if values.get(name) is not None
    ]
    return (
        ", ".join(f"{name}: {values.source(name)}" for name in named) or "where AWS's own tools have theirs"
    )


# ------------------------------------------------------------------ the command
def _command(
    values: Values, settings: Settings, directory: Path, environ: Mapping[str, str]
) -> tuple[str, ...]:
    if unit := _unit(environ):
        return unit
    words = ["r2fs", "mount", "--background"]
    if values.file.exists:
        words += ["--config", str(values.file.path)]
    in_url = () if settings.bucket.every or settings.name else ("bucket",)
    for option in TABLE:
        if option.name in (*_NOT_IN_A_COMMAND, *in_url) or not option.flag:
            continue
        if _has_to_be_said(values, option):
            words += _flag(option, values)
    return (*words, settings.name or settings.bucket.url, str(directory))


def _has_to_be_said(values: Values, option: Option) -> bool:
    """True for a value of a flag or a variable, which a later command lacks, and for a directory other than the default."""
    if option.name in _PLACES:
        return bool(values.get(option.name) != _home() / _PLACES[option.name])
    return not option.secret and values.rank(option.name)[0] in (ENVIRONMENT, FLAG)


def _home() -> Path:
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return places.home({})


def _flag(option: Option, values: Values) -> list[str]:
    value = values.get(option.name)
    if isinstance(option.kind, Switch):
        return [option.flag_name if value else f"--no-{option.flag_name[2:]}"]
    if isinstance(option.kind, BucketNames):
        return [word for name in value for word in (option.flag_name, name)]
    text = ",".join(value) if isinstance(option.kind, Patterns) else option.kind.write(value)
    return [
        option.flag_name,
        str(value) if text.startswith('"') and isinstance(value, str | Path) else text.strip('"'),
    ]


def _unit(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The systemctl command for a daemon of systemd: its keys may be credentials of the unit."""
    if not environ.get("NOTIFY_SOCKET") or not environ.get("INVOCATION_ID"):
        return ()
    try:
        path = CGROUP.read_text().strip().rpartition("\n")[2].rpartition(":")[2]
    except OSError:
        return ()
    unit = path.rpartition("/")[2]
    if not unit.endswith(".service"):
        return ()
    return ("systemctl", *(["--user"] if "/user@" in path else []), "start", unit)
