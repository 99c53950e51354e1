"""Parsing of commands: options given once, and suggestions for unknown command names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

WHOLE = 500  # characters, more than any first sentence has
# Names in other tools → names in r2fs.
CALLED_OTHERWISE = {
    "unmount": "umount", "fusermount": "umount", "stop": "umount", "detach": "umount",
    "list": "ls", "dir": "ls", "stat": "info", "stats": "status", "mounts": "status", "df": "status",
    "web": "ui", "gui": "ui", "dashboard": "ui", "browse": "ui", "price": "cost", "pending": "queue",
    "sync": "flush", "upload": "flush",
    "delete": "rm", "remove": "rm", "purge": "rm", "setmeta": "set",
    "prefetch": "warm", "download": "warm", "keep": "pin", "drop": "evict",
    "presign": "url", "link": "url", "share": "url",
    "reload": "restart", "upgrade": "restart",
    "diagnose": "doctor", "check": "doctor", "debug": "doctor", "test": "doctor",
    "daemon": "service", "systemd": "service", "enable": "service", "complete": "completion",
    "settings": "config", "configure": "config",
    "version": "--version", "help": "--help",
}  # fmt: skip


class PathText(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A path as it is written, with completion by the shell.

    click's own type stats the path, which on a mount without a daemon would hang before a new one can be started.
    """

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


class Command(click.Command):
    """Refuses a repeated option that takes a value, and a repeated switch of two directions."""

    def make_parser(self, ctx: click.Context) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            found = parse(args)
            for param in dict.fromkeys(found[2]):
                if isinstance(param, click.Option) and _is_given_once(param) and found[2].count(param) > 1:
                    raise click.UsageError(
                        f"{param.opts[0]} is given {found[2].count(param)} times: give it once", ctx
                    )
            return found

        parser.parse_args = parse_once
        return parser


def _is_given_once(option: click.Option) -> bool:
    return not option.multiple and (not option.is_flag or bool(option.secondary_opts))


class Group(click.Group):
    """Suggests commands for an unknown name."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List each command with its whole first sentence; click cuts it at the line's end."""
        rows = [
            (name, command.get_short_help_str(WHOLE))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"there is no command {name!r}{self._near(ctx, name)}", ctx)

    def _near(self, ctx: click.Context, name: str) -> str:
        known = self.list_commands(ctx)
        called = CALLED_OTHERWISE.get(name.lower(), "")
        if called.startswith("--") or called in known:
            found = [called]
        else:
            import difflib

            found = difflib.get_close_matches(name.lower(), known, 3)
        return f" (is {' or '.join(f'{ctx.command_path} {each}' for each in found)} meant?)" if found else ""
