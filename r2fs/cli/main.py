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

# Module, with `:NAME` of the command where it has several, and the line in the list of commands.
COMMANDS = {
    "mount": ("r2fs.cli.mount", "Mount a bucket on a directory."),
    "mirror": ("r2fs.cli.mirror", "Keep a plain directory and a bucket in step, without FUSE."),
    "umount": ("r2fs.cli.umount", "Unmount, waiting for uploads."),
    "status": ("r2fs.cli.status", "Show mounts: pending changes, cache, requests."),
    "ui": ("r2fs.cli.ui", "Show mounts on a page: transfers, cache, price, conflicts."),
    "ls": ("r2fs.cli.ls", "List a directory: what of each file is on this host, and its state."),
    "info": ("r2fs.cli.ls:info", "Show a file in detail: object, state, version."),
    "flush": ("r2fs.cli.flush", "Send what is not yet in the bucket."),
    "limit": ("r2fs.cli.limit", "Show and set bandwidth limits."),
    "wait": ("r2fs.cli.wait", "Return when the bucket holds exactly the bytes of files."),
    "queue": ("r2fs.cli.queue", "List, retry, export or drop what is not in the bucket."),
    "cache": ("r2fs.cli.cache", "Check and clear cached files."),
    "cost": ("r2fs.cli.cost", "Show requests, storage and their price."),
    "refresh": ("r2fs.cli.refresh", "Forget names and attributes: the next use asks the bucket."),
    "url": ("r2fs.cli.url", "Print a URL of a file: presigned, or public."),
    "key": ("r2fs.cli.keys", "Print the object key of a file."),
    "path": ("r2fs.cli.keys:path", "Print the path of an object key."),
    "warm": ("r2fs.cli.warm", "Download files into the cache."),
    "pin": ("r2fs.cli.pin", "Keep files on this host."),
    "unpin": ("r2fs.cli.pin:unpin", "Let pinned files be evicted again."),
    "evict": ("r2fs.cli.cache:evict", "Drop cached content."),
    "rm": ("r2fs.cli.rm", "Delete objects, and report what was deleted."),
    "set": ("r2fs.cli.set_headers", "Set Content-Type and headers of objects."),
    "migrate": ("r2fs.cli.migrate", "Give objects other keys, by a map or a rule."),
    "doctor": ("r2fs.cli.doctor", "Check this host, a bucket and mounts; say what to do."),
    "grant": ("r2fs.cli.grant", "Make temporary credentials for a prefix."),
    "bucket": ("r2fs.cli.bucket", "Create and check buckets; their CORS and lifecycle rules."),
    "service": ("r2fs.cli.service", "Make a mount a service of systemd, and take it back."),
    "completion": ("r2fs.cli.completion", "Print the completion script of a shell."),
    "restart": ("r2fs.cli.restart", "Start a mount's daemon anew, without unmounting."),
    "config": ("r2fs.cli.config", "Write and show settings."),
}
# Headings of the list of commands, as in README; what is in none comes last.
SECTIONS = {
    "Mount and set up": ("mount", "umount", "restart", "mirror", "service", "config", "completion"),
    "Look": ("status", "ui", "ls", "info", "url", "key", "path", "cost", "doctor"),
    "Send and repair": ("flush", "wait", "refresh", "limit", "queue"),
    "Cache": ("warm", "pin", "unpin", "evict", "cache"),
    "Objects and buckets": ("rm", "set", "migrate", "grant", "bucket"),
}
# Started by programs alone: in no list.
INTERNAL = {"client-store": ("r2fs.cli.storing", "Serve r2fs.client without a mount.")}
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
        command: click.Command = getattr(importlib.import_module(module), name or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        listed = {name for names in SECTIONS.values() for name in names}
        rest = tuple(name for name in COMMANDS if name not in listed)
        for title, names in (*SECTIONS.items(), ("Other commands", rest)):
            if names:
                with formatter.section(title):
                    formatter.write_dl([(name, COMMANDS[name][1]) for name in names])


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
        except (
            OSError
        ):  # the reader or the terminal is closed; the interpreter's own flush would end with 120
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
