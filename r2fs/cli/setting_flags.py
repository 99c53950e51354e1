"""Flags of settings, made from the table in model/settings/options.py.

Never: parses a value: sources.py does, so that every source has the same error texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from r2fs.cli.fstab import flags_of
from r2fs.cli.options import config_option
from r2fs.cli.usage import PathText
from r2fs.model.errors import SettingsError
from r2fs.model.settings.options import BY_NAME, TABLE, Option
from r2fs.model.settings.sources import Flag, gather
from r2fs.model.settings.timetable import BandwidthLimit
from r2fs.model.settings.units import BucketNames, Choice, Count, Duration, FilePath, Kind, Size, Switch

F = TypeVar("F", bound=Callable[..., Any])

_METAVAR: dict[type, str] = {
    BandwidthLimit: "LIMIT",
    Size: "SIZE",
    Duration: "TIME",
    Count: "N",
    FilePath: "PATH",
}


# Settings without a meaning for a mirror, which has neither a cache nor FUSE: its --help leaves their flags out.
MOUNT_ONLY = frozenset(
    {
        "cache_dir", "cache_size", "min_free", "cache_ttl", "freshness", "consistency", "mtime", "read_timeout",
        "small_file", "read_ahead", "download_threads", "dirty_limit", "dirty_wait", "quota", "driver", "allow_other",
        "noexec", "links", "uid", "gid", "take_over", "log_misses", "metrics", "warn_cache_size",
        "warn_hit_rate", "prefetch_cost",
    }
)  # fmt: skip


def settings_flags(function: F) -> F:
    """Add a flag for each setting, `-o`, and `--config`; their values are in **given."""
    return _with_flags(function, frozenset())


def mirror_flags(function: F) -> F:
    """Add the flags of `settings_flags`; those of MOUNT_ONLY are accepted, but not shown."""
    return _with_flags(function, MOUNT_ONLY)


def _with_flags(function: F, hidden: frozenset[str]) -> F:
    for option in reversed(TABLE):
        if option.flag:
            function = _click_option(option, option.name in hidden)(function)
    words = click.option("-o", "words", multiple=True, metavar="A,B=C", help="Settings in fstab's style.")
    return config_option(words(function))


def _click_option(option: Option, hidden: bool) -> Callable[[F], F]:
    names: tuple[str, ...] = (option.flag_name, option.name)
    if isinstance(option.kind, Switch):
        return click.option(
            f"{names[0]}/--no-{names[0][2:]}", names[1], default=None, help=option.help, hidden=hidden
        )
    shown = option.help if option.default is None else f"{option.help}  [{_written(option)}]"
    if isinstance(option.kind, BucketNames):
        return click.option(
            *names, metavar="NAME", help=f"{shown} May be repeated.", multiple=True, hidden=hidden
        )
    kind = PathText() if isinstance(option.kind, FilePath) else None  # a shell completes the path
    metavar = _metavar(option.kind)
    return click.option(*names, default=None, metavar=metavar, help=shown, type=kind, hidden=hidden)


def _written(option: Option) -> str:
    """The default as a person writes it on a command line: 10GiB, or A,B."""
    value: Any = option.default
    return ",".join(value) if isinstance(value, tuple) else option.kind.write(value).strip('"')


def complete_target(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of mounts in the settings file; else directories, for a mount of the settings."""
    try:
        named = gather(config_file=ctx.params.get("config_file"), warn=False).file.mounts
    except SettingsError:
        named = {}
    found = [CompletionItem(name) for name in sorted(named) if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def _metavar(kind: Kind) -> str:
    if isinstance(kind, Choice):
        return "|".join(value for value in kind.values if value)
    return _METAVAR.get(type(kind), "TEXT")


def flags_from(given: Mapping[str, Any], words: tuple[str, ...]) -> dict[str, Flag]:
    """The given flags, by setting; a flag is stronger than the same setting in `-o`."""
    flags = flags_of(words)
    for name, raw in given.items():
        if raw is None or raw == ():
            continue
        option = BY_NAME[name]
        text = option.flag_name if raw is not False else f"--no-{option.flag_name[2:]}"
        flags[name] = Flag(raw, f"flag {text}")
    return flags
