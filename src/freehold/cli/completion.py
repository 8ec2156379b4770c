"""`freehold completion`: the script that makes the shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from freehold.cli.render import note


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for your shell (bash >= 4.4, zsh, fish)."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the argument's choices are click's own three
    click.echo(kind(ctx.find_root().command, {}, "freehold", "_FREEHOLD_COMPLETE").source())
    where = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/freehold.fish"}[shell]
    note(f"To keep it: freehold completion {shell} >> {where}")
