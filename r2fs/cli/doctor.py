"""`r2fs doctor`: check this host, a bucket and its mounts, and print findings with their remedies."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from r2fs.cli import config, show
from r2fs.cli.asking import nobody_at
from r2fs.cli.options import config_option, json_option
from r2fs.cli.setting_flags import complete_target
from r2fs.cli.status_text import without_details
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client, logs, state_directories
from r2fs.daemon.client import Daemon
from r2fs.doctor import bundle as bundling
from r2fs.doctor import mounts
from r2fs.doctor.examination import examine
from r2fs.doctor.findings import Finding, Level, exit_code, of_error
from r2fs.model import redaction
from r2fs.model.errors import R2fsError, SettingsError
from r2fs.model.mount_record import MountRecord
from r2fs.model.settings import Settings
from r2fs.model.settings.loading import settings_of
from r2fs.model.settings.options import BY_NAME
from r2fs.model.settings.sources import Flag, Values, gather

_OF_THE_MOUNT = ("url", "mountpoint")


@click.command("doctor", cls=Command)
@click.argument("target", metavar="[URL|NAME|DIR]", required=False, shell_complete=complete_target)
@click.option("--write-test", is_flag=True, help="Also store, read and delete one object of its own.")
@json_option("Print as JSON.")
@click.option("--bundle", metavar="FILE", type=PathText(), help="Also write findings, settings, status and logs to a tar file, without secrets.")  # fmt: skip
@config_option
def command(
    target: str | None, write_test: bool, as_json: bool, bundle: str | None, config_file: Path | None
) -> int:
    """Check this host, a bucket, and the mounts, and say what is wrong and what to do.

    Without an argument: FUSE, the kernel, all mounts, unsent changes, and the bucket that the settings name, if any.
    With a URL, a mount's name or a directory of a mount: also its directories and disk, the way to the bucket, the
    clock, what the credentials may do, and what the bucket holds. Nothing is changed, but for the probe object of
    --write-test, and a daemon may be running.

    Each line is a finding: ok, warning or failed. The exit code is 0, or that of the first failed check.

    Example: r2fs doctor r2://my-bucket --write-test --bundle r2fs.tar.gz
    """
    debug = bool(click.get_current_context().obj["debug"])
    logs.to_stderr("debug" if debug else "critical", os.environ)
    found: list[Finding] = []
    values, settings = None, None
    try:
        values, settings = _chosen(target, config_file)
    except R2fsError as error:
        found.append(of_error("settings" if isinstance(error, SettingsError) else "mount", error))
    if settings is not None:
        logs.hide(settings.bucket.credentials)
    run_dir = settings.run_dir if settings is not None else None
    found += _shown(found, examine(settings, os.environ, run_dir, write_test), as_json)
    code = exit_code(found)
    if as_json:
        place = settings.bucket.url if settings is not None else None
        show.as_json({"target": place, "findings": [asdict(each) for each in found], "exit_code": code})
    else:
        print(_summary(found))
    if bundle is not None:
        _write_bundle(Path(bundle), found, values, settings)
        show.complain(f"wrote {bundle}: look it through before you give it to others")
    return code


def _shown(before: list[Finding], findings: Iterator[Finding], as_json: bool) -> Iterator[Finding]:
    """Print each finding when it is there: some checks take seconds."""
    if as_json:
        yield from findings
        return
    for finding in before:
        print(_text(finding))
    for finding in findings:
        print(_text(finding), flush=True)
        yield finding


def _text(finding: Finding) -> str:
    text = without_details(redaction.redact(finding.text))
    pairs = [(f"{finding.level.value:<8} {finding.check:<20}", text)]
    if finding.remedy:
        pairs.append(("", f"→ {redaction.redact(finding.remedy)}"))
    return show.labelled(pairs)


def _summary(found: list[Finding]) -> str:
    counts = {level: sum(each.level is level for each in found) for level in Level}
    return ", ".join(f"{number} {level.value}" for level, number in counts.items() if number)


# ------------------------------------------------------------------ the target
def _chosen(target: str | None, config_file: Path | None) -> tuple[Values, Settings | None]:
    """The settings to check; None where nothing names a bucket."""
    if target is not None and "://" not in target:
        daemon = client.owner_of(target, client.daemons(os.environ))
        if daemon is not None:
            return _of_mount(daemon, config_file)
        if "/" in target or target in (".", ".."):
            raise nobody_at(target)
    values = gather(target, config_file=config_file)
    if target is None and not values.get("url") and not values.get("bucket"):
        return values, None
    return values, state_directories.settle(settings_of(values))


def _of_mount(daemon: Daemon, config_file: Path | None) -> tuple[Values, Settings]:
    """The settings of a mount, as its record has them; the key is read where these settings name it."""
    mount = client.ask_once(daemon, "status")["mount"]
    record = state_directories.read_record(Path(mount["state_dir"]))
    flags = _flags(record) if record is not None else {}
    values = gather(daemon.name or daemon.url, flags=flags, config_file=config_file)
    state, cache, staging = (Path(mount[name]) for name in ("state_dir", "cache_dir", "staging_dir"))
    return values, replace(settings_of(values), state_dir=state, cache_dir=cache, staging=staging)


def _flags(record: MountRecord) -> dict[str, Flag]:
    given: dict[str, Flag] = {}
    for name, text in record.settings.items():
        if name in BY_NAME and name not in _OF_THE_MOUNT and not BY_NAME[name].secret:
            value: Any = tomllib.loads(f"value = {text}")["value"]
            given[name] = Flag(value, f"record of the mount on {record.mountpoint}")
    return given


# ------------------------------------------------------------------ the bundle
def _write_bundle(path: Path, found: list[Finding], values: Values | None, settings: Settings | None) -> None:
    status = mounts.look(os.environ, settings.run_dir if settings is not None else None).status
    states = [Path(each["mount"]["state_dir"]) for each in status]
    states += [state.path for state in state_directories.find(os.environ).states]
    log_files = []
    shown: dict[str, Any] = {}
    if settings is not None:
        states.append(settings.state_dir)
        log_files += [settings.log_file] if settings.log_file else []
    if values is not None:
        shown = config.as_data(values, {})
        for secret in values.secrets():
            redaction.hide(secret)
    contents = bundling.Contents(tuple(found), shown, tuple(status), tuple(log_files), tuple(states))
    bundling.write(path, contents, os.environ)
