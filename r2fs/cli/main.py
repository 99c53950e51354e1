"""`r2fs`: the commands, and the handling of every error.

Owns:  the command names, and the form of errors on standard error. A command's module is imported when the command
       runs: `r2fs status` must not wait for boto3.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NoReturn

import click

from r2fs.cli import streams
from r2fs.cli.usage import Group
from r2fs.model.errors import R2fsError
from r2fs.model.exit_codes import DEFECT, DONE, INTERRUPTED
from r2fs.model.keys import printable
from r2fs.model.redaction import redact

log = logging.getLogger(__name__)

# Headings of the list of commands, as in README. Of each command: its module below r2fs.cli, with `:NAME` where the module
# has several, and its line in the list.
SECTIONS = {
    "Mount and set up": {
        "mount": ("mount", "Mount a bucket on a directory."),
        "umount": ("umount", "Unmount, waiting for uploads."),
        "restart": ("restart", "Start a mount's daemon anew, without unmounting."),
        "mirror": ("mirror", "Keep a plain directory and a bucket in step, without FUSE."),
        "service": ("service", "Make a mount a service of systemd, and take it back."),
        "config": ("config", "Write and show settings."),
        "completion": ("completion", "Print the completion script of a shell."),
    },
    "Look": {
        "status": ("status", "Show mounts: pending changes, cache, requests."),
        "ui": ("ui", "Show mounts on a page: transfers, cache, price, conflicts."),
        "ls": ("ls", "List a directory: what of each file is on this host, and its state."),
        "info": ("ls:info", "Show a file in detail: object, state, version."),
        "url": ("url", "Print a URL of a file: presigned, or public."),
        "key": ("keys", "Print the object key of a file."),
        "path": ("keys:path", "Print the path of an object key."),
        "cost": ("cost", "Show requests, storage and their price."),
        "doctor": ("doctor", "Check this host, a bucket and mounts; say what to do."),
    },
    "Send and repair": {
        "flush": ("flush", "Send what is not yet in the bucket."),
        "wait": ("wait", "Return when the bucket holds exactly the bytes of files."),
        "refresh": ("refresh", "Forget names and attributes: the next use asks the bucket."),
        "limit": ("limit", "Show and set bandwidth limits."),
        "queue": ("queue", "List, retry, export or drop what is not in the bucket."),
    },
    "Cache": {
        "warm": ("warm", "Download files into the cache."),
        "pin": ("pin", "Keep files on this host."),
        "unpin": ("pin:unpin", "Let pinned files be evicted again."),
        "evict": ("cache:evict", "Drop cached content."),
        "cache": ("cache", "Check and clear cached files."),
    },
    "Objects and buckets": {
        "rm": ("rm", "Delete objects, and report what was deleted."),
        "set": ("set_headers", "Set Content-Type and headers of objects."),
        "migrate": ("migrate", "Give objects other keys, by a map or a rule."),
        "grant": ("grant", "Make temporary credentials for a prefix."),
        "bucket": ("bucket", "Create and check buckets; their CORS and lifecycle rules."),
    },
}
COMMANDS = {name: found for section in SECTIONS.values() for name, found in section.items()}
# Started by programs alone: in no list.
INTERNAL = {"client-store": ("storing", "Serve r2fs.client without a mount.")}
# of click from 8.2 on; before, help was shown in its place
HELP_WANTED: tuple[type[click.UsageError], ...] = tuple(
    kind for kind in (getattr(click.exceptions, "NoArgsIsHelpError", None),) if kind is not None
)
PIPE_CLOSED = 141  # exit code, as of a program that SIGPIPE ended
HELPER_NAMES = ("mount.r2fs", "mount.fuse.r2fs")  # of calls by mount(8)


class LazyGroup(Group):
    """Imports a command's module when the command is used, not for the list of commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name) or INTERNAL.get(cmd_name)
        if found is None:
            return None
        module, _, name = found[0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"r2fs.cli.{module}"), name or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()])


def _show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the version and end the command."""
    if wanted and not ctx.resilient_parsing:
        from r2fs.cli import version

        click.echo(f"{version.text()}\n{version.kernel()}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Begin with:
  export R2_ACCOUNT_ID=… R2_ACCESS_KEY_ID=… R2_SECRET_ACCESS_KEY=…
  r2fs mount --background r2://BUCKET DIR
  r2fs doctor DIR        if something is wrong
  r2fs umount DIR        sends what is pending first

r2fs COMMAND --help has more. Exit codes: 0 is success, each cause of a failure has one of its own; README and r2fs(1)
list them.""",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, its commit, and the features of this kernel.",
)
@click.option("--debug", is_flag=True, help="Log in detail, and show the traceback of a defect.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """A Cloudflare R2 (or any S3) bucket as a local directory."""
    ctx.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    program, *words = sys.argv if arguments is None else ["r2fs", *arguments]
    streams.make_safe()
    code = run(Path(program).name, words)
    for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            # the reader or the terminal is closed; the interpreter's own flush would end with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
    sys.exit(code)


def run(program: str, words: list[str]) -> int:
    """Run a command and return the exit code. `program` is the name of the call: mount(8) has names of its own."""
    debug = "--debug" in words
    streams.install_early_warnings()
    try:
        if program in HELPER_NAMES or is_bare_mount(words, COMMANDS | INTERNAL):
            from r2fs.cli.fstab import helper_arguments

            words = helper_arguments(words)
            if not words:
                return DONE
        result = cli.main(words, prog_name="r2fs", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else DONE
    except click.exceptions.Exit as end:
        return end.exit_code
    except HELP_WANTED as error:  # no command: its help, as help looks
        error.show(sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        return _say(_usage(error), error.exit_code)
    except R2fsError as error:
        return _say(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return PIPE_CLOSED
    except Exception as error:
        if debug:
            log.exception("unexpected error")
        return _say(f"unexpected error: {error!r} (with --debug: where)", DEFECT)


def is_bare_mount(words: list[str], commands: Container[str]) -> bool:
    """mount.fuse calls `r2fs SPEC DIR -o …`: two words before any option, the first no command."""
    return (
        len(words) >= 3
        and not words[0].startswith("-")
        and not words[1].startswith("-")
        and words[0] not in commands
        and "-o" in words[2:]
    )


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" ({context.command_path} --help has more)" if context else ""
    return f"{error.format_message().rstrip('.')}{hint}"


def _say(sentence: str, code: int) -> int:
    print(f"r2fs: {printable(redact(' '.join(sentence.split())))}", file=sys.stderr)
    return code
