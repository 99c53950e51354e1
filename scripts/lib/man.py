"""Man pages of r2fs, made from the commands' own help, so that both say the same.

python -m scripts.lib.man DIRECTORY      writes r2fs.1, r2fs-COMMAND.1 …, and mount.r2fs.8
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from r2fs import __version__
from r2fs.cli.main import cli
from r2fs.model.settings.options import TABLE

CODES = "EXIT STATUS"
README = Path(__file__).resolve().parents[2] / "README.md"
MOUNT_HELPER = """A line of fstab(5), whose type is r2fs:

    takes              /mnt/takes  r2fs  _netdev,nofail                      0 0
    r2://studio/books  /mnt/books  r2fs  _netdev,nofail,ro,cache_size=50G    0 0

The first field is the NAME of a mount in /etc/r2fs/config.toml, or a URL. Options are settings with or without a value, words of mount(8), and those that begin with x-. Settings:"""


def pages() -> dict[str, str]:
    """Every page, by its file's name."""
    found = {"r2fs.1": _page("r2fs", cli)}
    for path, command in _commands(cli):
        found[f"{path.replace(' ', '-')}.1"] = _page(path, command)
    found["mount.r2fs.8"] = _helper()
    return found


def _commands(group: click.Group, before: str = "r2fs") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{before} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before} {name}")


def _page(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    help_text = inspect.cleandoc(command.help or command.get_short_help_str(200))
    first, _, rest = help_text.partition("\n")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        _head(path.replace(" ", "-"), 1),
        ".SH NAME",
        f"{_plain(path.replace(' ', '-'))} \\- {_plain(first)}",
    ]
    lines += [".SH SYNOPSIS", f".B {_plain(path)}", _plain(usage)]
    if rest.strip():
        lines += [".SH DESCRIPTION", *_paragraphs(rest)]
    shown = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    options = [record for p in shown if (record := p.get_help_record(context)) is not None]
    if options:
        lines.append(".SH OPTIONS")
        for names, text in options:
            lines += [".TP", f".B {_plain(names)}", _plain(" ".join(text.split()))]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            lines += [
                ".TP",
                f".BR {_plain(path.replace(' ', '-'))}-{_plain(name)} (1)",
                _plain(inner.get_short_help_str(200)),
            ]
    lines.append(f".SH {CODES}")
    if command is cli:
        lines += [line for code, text in exit_codes() for line in (".TP", f".B {code}", _plain(text))]
    else:
        lines.append(_plain("0 on success. r2fs(1) lists the others, and the cause that each names."))
    lines += [".SH SEE ALSO", ".BR r2fs (1), mount.r2fs (8)"]
    return "\n".join(lines) + "\n"


def exit_codes() -> list[tuple[str, str]]:
    """Exit codes and their meanings, of the table in README, which tests compare with the code."""
    rows = README.read_text().partition("| exit code | meaning |")[2].partition("\n\n")[0]
    return [
        (code, text.replace("`", ""))
        for code, text in re.findall(r"^\| (\d+) \| (.*) \|$", rows, re.MULTILINE)
    ]


def _helper() -> str:
    lines = [_head("mount.r2fs", 8), ".SH NAME", "mount.r2fs \\- mount a bucket from fstab or by mount(8)"]
    lines += [".SH SYNOPSIS", ".B mount \\-t r2fs", "NAME|URL DIR [\\-o option,...]", ".SH DESCRIPTION"]
    lines += _paragraphs(MOUNT_HELPER)
    for option in TABLE:
        if option.flag:
            lines += [".TP", f".B {_plain(option.name)}", _plain(option.help)]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR r2fs (1), r2fs-mount (1), fstab (5)"]) + "\n"


def _head(name: str, section: int) -> str:
    return f'.TH "{name.upper()}" "{section}" "" "r2fs {__version__}" "r2fs"'


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs are filled; lines that are set in stay as they are, and those after click's mark (\\b)."""
    for block in text.strip("\n").split("\n\n"):
        if block.strip() == "":
            continue
        yield ".PP"
        marked = block.startswith("\b")
        block = block.replace("\b", "").strip("\n")
        if marked or block.startswith("    "):
            yield from (".nf", *(_plain(line) for line in block.splitlines()), ".fi")
        else:
            yield _plain(" ".join(block.split()))


def _plain(text: str) -> str:
    """Text without meaning to roff: no line begins with a dot or a quote, hyphens stay hyphens."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m scripts.lib.man DIRECTORY", file=sys.stderr)
        return 2
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (target / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
