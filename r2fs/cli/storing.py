"""The bucket of a command that works without a mount: its settings, and its store.

`r2fs client-store`, which r2fs.client starts, serves such a store to a program.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from r2fs.cli.usage import Command
from r2fs.daemon import core_dumps, logs
from r2fs.model.errors import ObjectMissing, R2fsError, Refused, SettingsError
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Settings
from r2fs.model.settings.loading import credentials_at, settings_of
from r2fs.model.settings.sources import gather
from r2fs.store import open_store
from r2fs.store.retry import RetryingStore


def settings_at(target: str | None, config_file: Path | None) -> Settings:
    """The settings of a URL, or of a mount's name in the settings file. The command's log is standard error."""
    settings = settings_of(gather(target, config_file=config_file))
    if settings.bucket.several:
        raise SettingsError(f"{settings.bucket.url} names several buckets, or none: this command takes one")
    debug = bool(click.get_current_context().obj["debug"])
    logs.to_stderr("debug" if debug else "warning", os.environ, settings.bucket.credentials)
    return settings


@contextmanager
def store_of(
    settings: Settings, target: str | None, config_file: Path | None, check: bool = True
) -> Iterator[RetryingStore]:
    """The bucket. Credentials, bucket and clock are checked first; without `check` only after an error, for its remedy."""
    store = open_store(
        settings.bucket,
        SystemClock(),
        credentials=lambda: credentials_at(
            gather(target, config_file=config_file, warn=False), settings.bucket.name
        ),
    )
    store.bandwidth.change(settings.upload_limit, settings.download_limit)
    try:
        if check:
            store.check()
        try:
            yield store
        except (Refused, ObjectMissing):
            if not check:
                store.check()
            raise
    finally:
        store.close()


@click.command("client-store", cls=Command, hidden=True)
@click.argument("target", metavar="[URL|NAME]", default="")
def command(target: str) -> int:
    """Serve r2fs.client, whose socket is the standard input, until it closes that.

    Without URL the bucket is that of the settings (R2_BUCKET and its like). No person starts this command.
    """
    from r2fs.daemon.store_process import StoreProcess, ready, unusable
    from r2fs.daemon.threads import Threads

    if not stat.S_ISSOCK(os.fstat(sys.stdin.fileno()).st_mode):
        raise click.UsageError("r2fs.client starts this command: its standard input is a socket")
    core_dumps.forbid()
    channel = socket.socket(fileno=sys.stdin.fileno())
    try:
        settings = settings_at(target or None, None)
        with store_of(settings, target or None, None) as store:
            ready(channel)
            StoreProcess(store, settings, Threads().start).run(channel)
    except R2fsError as error:
        unusable(channel, error)
        return error.exit_code
    except ConnectionError:
        return 0  # the program has gone
    finally:
        channel.detach()
    return 0
