"""`r2fs completion`: the script by which a shell completes commands, options, names of mounts and paths."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from r2fs.cli.usage import Command

VARIABLE = "_R2FS_COMPLETE"  # click's name for a program r2fs


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(r2fs completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc;
    fish: r2fs completion fish > ~/.config/fish/completions/r2fs.fish

    Example: r2fs completion bash
    """
    kind = get_completion_class(shell)
    assert kind is not None
    group = click.get_current_context().find_root().command
    click.echo(ShellComplete.source(kind(group, {}, "r2fs", VARIABLE)))
