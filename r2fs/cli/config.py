"""`r2fs config`: write a settings file, show the values in force and their sources."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import daemon_of
from r2fs.cli.options import json_option
from r2fs.cli.setting_flags import complete_target, flags_from, settings_flags
from r2fs.cli.usage import Group
from r2fs.daemon import client
from r2fs.model.errors import SettingsError
from r2fs.model.settings import places, settings_file
from r2fs.model.settings.loading import settings_of
from r2fs.model.settings.options import BY_NAME, GROUPS, Option
from r2fs.model.settings.sources import FLAG, HIDDEN, Flag, Value, Values, gather

IN_FORCE = "in force"


@click.group("config", cls=Group)
def command() -> None:
    """Write and show settings.

    The last one wins: default, settings file (top level, [defaults], [mount.NAME]), variables
    (AWS_*, STORAGE_*, R2_*, R2FS_*, systemd credentials), of one bucket [buckets.NAME] of the settings file, flags.
    """


@command.command("init")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="File to write."
)
def init(config_file: Path | None) -> None:
    """Write a settings file that explains every setting. Never overwrites a file."""
    path = config_file or Path(
        os.environ.get("R2FS_CONFIG") or places.base_dir("config_dir", os.environ)[0] / "config.toml"
    )
    settings_file.write_template(path)
    print(path)


@command.command("path")
def path() -> None:
    """Print the path of the settings file in use."""
    print(places.settings_file(os.environ))


@command.command("show")
@click.argument("target", metavar="[URL|NAME|DIR]", required=False, shell_complete=complete_target)
@json_option("Print as JSON.")
@settings_flags
def show_command(
    target: str | None, as_json: bool, words: tuple[str, ...], config_file: Path | None, **given: Any
) -> None:
    """Print each value and its source. Secrets are hidden.

    With URL or NAME, print the values of that mount. Takes the flags of `r2fs mount`, too. With DIR, a path in a
    mount, the values in force there; where they are not those that a new mount would have, their source is "in force".
    """
    target, values = _values(target, config_file, flags_from(given, words))
    derived = _derived(values) if target or values.get("url") or values.get("bucket") else {}
    if as_json:
        show.as_json(as_data(values, derived))
        return
    state = "" if values.file.exists else " (there is none)"
    print(f"# settings file: {values.file.path}{state}")
    if values.file.mounts:
        print(f"# mounts: {', '.join(sorted(values.file.mounts))}")
    rows: list[tuple[str, str, str]] = []
    for options in GROUPS.values():
        rows += [("", "", "")] if rows else []
        rows += [(o.name, values.shown(o) or "-", values.source(o.name)) for o in options]
    for name, table in values.file.buckets.items():
        own = values.for_bucket(name)
        rows.append(("", "", ""))
        rows += [(f"{name}: {o}", own.shown(BY_NAME[o]), own.source(o)) for o in table]
    for rule in values.file.programs:
        rows.append(("", "", ""))
        rows += [
            (f"{rule.name}: {name}", text, f"[programs.{rule.name}]") for name, text in rule.shown().items()
        ]
    if derived:
        rows += [("", "", ""), *((name, value, "derived from these") for name, value in derived.items())]
    show.table(["setting", "value", "from"], rows)


def _values(
    target: str | None, config_file: Path | None, flags: dict[str, Flag]
) -> tuple[str | None, Values]:
    """The values of a mount, or of a new one, and its URL or name."""
    running = _running(target, config_file)
    target, in_force = (target, {}) if running is None else running
    values = gather(target, flags=flags, config_file=config_file)
    other = {name: value for name, value in in_force.items() if value != values.get(name)}
    shown = {name: Value(value, IN_FORCE, (FLAG, 0)) for name, value in other.items()}
    return target, replace(values, by_name={**values.by_name, **shown})


def _running(target: str | None, config_file: Path | None) -> tuple[str, dict[str, Any]] | None:
    """Name or URL of the mount around a directory, and its settings in force; None: `target` is no directory."""
    if target is None or "://" in target or not os.path.isdir(target):
        return None
    named = gather(config_file=config_file, warn=False).file.mounts
    if target in named:
        return None
    daemon = daemon_of(target)
    written = client.ask_once(daemon, "settings")["settings"]
    return daemon.name if daemon.name in named else daemon.url, {
        name: BY_NAME[name].kind.parse(tomllib.loads(f"value = {text}")["value"])
        for name, text in written.items()
        if name in BY_NAME and not BY_NAME[name].secret
    }


def _derived(values: Values) -> dict[str, str]:
    """Values that follow from the settings; the error where they make no mount."""
    try:
        settings = settings_of(values)
    except SettingsError as error:
        return {"problem": str(error)}
    bucket = settings.bucket
    shown = {"mounts": bucket.url, "endpoint": bucket.endpoint_url or "", "region": bucket.region}
    shown |= {"cache directory": str(settings.cache_dir), "state directory": str(settings.state_dir)}
    return {
        name: value
        for name, value in shown.items()
        if value and not (bucket.scheme == "file" and name == "region")
    }


def as_data(values: Values, derived: dict[str, str]) -> dict[str, Any]:
    settings = {option.name: _as_row(values, option) for options in GROUPS.values() for option in options}
    return {
        "file": str(values.file.path),
        "exists": values.file.exists,
        "mount": values.name or None,
        "mounts": sorted(values.file.mounts),
        "settings": settings,
        "buckets": {
            name: {option: _as_row(values.for_bucket(name), BY_NAME[option]) for option in table}
            for name, table in values.file.buckets.items()
        },
        "programs": {rule.name: rule.shown() for rule in values.file.programs},
        "derived": derived,
    }


def _as_row(values: Values, option: Option) -> dict[str, Any]:
    value = values.get(option.name)
    shown = HIDDEN if option.secret and value is not None else value
    return {"value": shown, "source": values.source(option.name)}
