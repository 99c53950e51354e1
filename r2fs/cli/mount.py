"""`r2fs mount`: gather settings, then run the daemon, in the foreground or the background.

Owns:  the flags, and the choice between foreground and background.
Never: imports the service (and with it boto3) before the settings are checked.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from r2fs.cli.remount import record_of
from r2fs.cli.setting_flags import complete_target, flags_from, settings_flags
from r2fs.cli.streams import early_warnings, open_log, show_bucket_warnings
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client, state_directories
from r2fs.daemon.handover.keeper import Again
from r2fs.drivers.mount_path import absolute
from r2fs.model.errors import DaemonDied, SettingsError
from r2fs.model.mount_record import MountRecord
from r2fs.model.settings import Credentials, Settings, setting_warnings
from r2fs.model.settings.loading import credentials_at, settings_of
from r2fs.model.settings.sources import Values, gather

log = logging.getLogger(__name__)


@click.command("mount", cls=Command)
@click.argument("target", metavar="[URL|NAME]", required=False, shell_complete=complete_target)
@click.argument("directory", metavar="[DIR]", required=False, type=PathText())
@click.option(
    "--background", "-b", is_flag=True, help="Return once the mount answers, and serve in the background."
)
@click.option("--unless-mounted", is_flag=True, hidden=True)
@settings_flags
def command(
    target: str | None,
    directory: str | None,
    background: bool,
    unless_mounted: bool,
    words: tuple[str, ...],
    config_file: Path | None,
    **given: Any,
) -> int:
    """Mount a bucket on a directory.

    URL is r2://BUCKET/PREFIX, s3://BUCKET/PREFIX or file:///DIRECTORY; r2:// with --bucket A --bucket B has a
    directory for each bucket, and without --bucket for each of the account. NAME is a mount of the
    settings file; without DIR, its mountpoint is used. With DIR alone, the bucket is taken
    from the settings (R2_BUCKET and its like). Ctrl-C and `r2fs umount` stop the mount after all changes are sent.

    Each option is a setting, with its default in brackets: `r2fs config init` writes a file of all, `r2fs config show`
    prints those in force. SIZE is 500M or 10GiB, TIME is 30s, 15m or 24h.

    \b
    Examples:
      r2fs mount --background r2://my-bucket ~/studio
      r2fs mount --read-only --cache-size 50G r2://my-bucket/books /mnt/books
      r2fs mount takes                 [mount.takes] of the settings file
    """
    if not target:
        raise click.UsageError(
            "no bucket is named: give a bucket and a directory, as in r2fs mount r2://BUCKET DIR"
        )
    alone = directory is None and "/" in target and "://" not in target
    if alone:
        directory = target
    sources: dict[str, Any] = {
        "target": None if alone else target,
        "flags": flags_from(given, words),
        "config_file": config_file,
        "base": Path.cwd(),  # the daemon's own is another
    }
    values = gather(**sources)
    if directory is None and values.mountpoint is None:
        raise SettingsError(f"no directory: give one after {target}, or set mountpoint in {values.file.path}")
    settings = state_directories.settle(settings_of(values))
    level = "debug" if click.get_current_context().obj["debug"] else settings.log_level
    at = Path(absolute(directory or str(values.mountpoint)))
    if unless_mounted and _is_served(at, settings):
        click.echo(f"r2fs: {at} is mounted already", err=True)
        return 0
    about = record_of(values, settings, at, os.environ)
    return _run(settings, about, level, background, values.files(), lambda: gather(**sources, warn=False))


def _is_served(at: Path, settings: Settings) -> bool:
    """True if a daemon of another process serves this mount: `mount -a` calls its helper again for each NAME in fstab."""
    wanted = (str(at), settings.bucket.url)
    found = client.daemons(os.environ, settings.run_dir)
    return any((one.mountpoint, one.url) == wanted and one.pid != os.getpid() for one in found)


def _run(
    settings: Settings,
    about: MountRecord,
    level: str,
    background: bool,
    files: tuple[Path, ...],
    read: Callable[[], Values],
) -> int:
    from r2fs.daemon import log_format, logs

    directory = Path(about.mountpoint)
    credentials = settings.bucket.credentials
    log_file = settings.log_file
    if not background:
        open_log(settings, level)
    _warn_of_plain_http(settings, to_file=log_file is not None)
    again = _command(directory)
    for member in settings.bucket.members:
        logs.hide(member.credentials)

    def credentials_now(bucket: str) -> Credentials:
        found = credentials_at(read(), bucket)
        logs.hide(found)
        return found

    def work(ready: Callable[[], None]) -> int:
        # Modules stay: to look for garbage among them takes a tenth of a start. freeze_modules() ends this.
        gc.disable()
        try:
            from r2fs.daemon.reload import Source
            from r2fs.daemon.service import Launch, Service

            source = Source(files, lambda: settings_of(read()))
            launch = Launch(os.environ, again, background, source, credentials_now, about)
            end_of_warnings = show_bucket_warnings() if background or log_file is not None else lambda: None

            def answers() -> None:
                end_of_warnings()
                ready()

            return Service(settings, directory, launch).run(answers)
        finally:
            gc.enable()

    if not background:
        return work(lambda: None)
    from r2fs.daemon import directories

    with directories.made_by_a_start(settings):
        own = log_file or settings.state_dir / "r2fs.log"
        fresh = not own.exists()
        option = "--log-file" if log_file else "--state-dir"
        logs.to_file(own, level, credentials, option, log_file is None, settings.log_format)
        log_format.set_level(level, settings.log_misses)
        early_warnings.replay()
        return _in_background(work, own, fresh)


def _in_background(work: Callable[[Callable[[], None]], int], log_file: Path, fresh: bool) -> int:
    """Run in the background. A start that fails with an error leaves no new log; a start that dies silently does."""
    from r2fs.daemon.background import run_in_background

    try:
        return run_in_background(work, f": see {log_file}")
    except DaemonDied:
        raise
    except BaseException:
        if fresh:
            log_file.unlink(missing_ok=True)
        raise


def _warn_of_plain_http(settings: Settings, to_file: bool) -> None:
    warning = setting_warnings.of_plain_http(settings.bucket)
    if warning is None:
        return
    log.warning("%s", warning)
    if to_file:  # a log file is not seen by the user
        click.echo(f"r2fs: warning: {warning}", err=True)


def _command(directory: Path) -> Again:
    """This command, for another start, in a directory outside of the mount."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = "/"
    within = f"{cwd}/".startswith(f"{directory}/")
    return Again((sys.executable, *sys.orig_argv[1:]), "/" if within else cwd)
