"""Options and arguments that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from r2fs.cli.usage import PathText
from r2fs.model.settings.units import Duration

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_S = 30 * 86400.0


class TimeText(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A duration in the units of settings, as seconds."""

    name = "time"

    def __init__(self, least_s: float = 0, most_s: float = LONGEST_S) -> None:
        self._kind = Duration(least_s, most_s)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return self._kind.parse(value)
        except ValueError as error:
            self.fail(f"{error}; allowed: {self._kind.allowed}", param, ctx)


def json_option(text: str = "Print the result as JSON.") -> Callable[[F], F]:
    return click.option("--json", "as_json", is_flag=True, help=text)


def timeout_option(text: str = "Longest time of --wait: 30s, 15m.") -> Callable[[F], F]:
    return click.option("--timeout", "timeout_s", type=TimeText(), help=text)


config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings file to read."
)
directory_argument = click.argument("directory", metavar="DIR", type=PathText())
paths_argument = click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
