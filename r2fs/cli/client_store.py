"""`r2fs client-store`: the store of r2fs.client without a mount; r2fs.client starts it."""

from __future__ import annotations

import socket
import stat
import sys
from os import fstat

import click

from r2fs.cli.storing import settings_at, store_of
from r2fs.cli.usage import Command
from r2fs.daemon import core_dumps
from r2fs.daemon.store_process import StoreProcess, ready, unusable
from r2fs.daemon.threads import Threads
from r2fs.model.errors import R2fsError


@click.command("client-store", cls=Command, hidden=True)
@click.argument("target", metavar="[URL|NAME]", default="")
def command(target: str) -> int:
    """Serve r2fs.client, whose socket is the standard input, until it closes that.

    Without URL the bucket is that of the settings (R2_BUCKET and its like). No person starts this command.
    """
    if not stat.S_ISSOCK(fstat(sys.stdin.fileno()).st_mode):
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
