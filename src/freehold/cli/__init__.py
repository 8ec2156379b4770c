"""The command line: `freehold COMMAND`, one file per command, each loaded only when it is called.

A door: it parses, calls a flow and renders. Loading lazily keeps `freehold --help` free of numpy and sqlalchemy.
"""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Any

import click

from freehold.errors import FreeholdError

#: command -> (module:attribute, one line of help). Order is the order of the help page.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("freehold.cli.demo:demo", "Show the whole promise on a real model, step by step."),
    "up": ("freehold.cli.up:up", "Serve hub, OpenAI API and console on one port."),
    "pull": ("freehold.cli.pull:pull", "Take a model into the house from a hub, a package or a folder."),
    "ls": ("freehold.cli.models:ls", "List the models that are kept."),
    "show": ("freehold.cli.models:show", "Show what a model is: facts, license, origin, files, findings."),
    "rm": ("freehold.cli.models:rm", "Remove a model from the house."),
    "verify": ("freehold.cli.verify:verify", "Re-read the bytes that are kept and check every hash."),
    "drill": ("freehold.cli.drill:drill", "Prove that work goes on when a model's source is gone."),
    "chat": ("freehold.cli.chat:chat", "Talk with a model that is kept."),
    "usage": ("freehold.cli.usage:usage", "Show what was used: requests, tokens, cost."),
    "key": ("freehold.cli.key:key", "Create, list and revoke API keys."),
    "events": ("freehold.cli.events:events", "Show what happened, and check the log's hash chain."),
    "doctor": ("freehold.cli.doctor:doctor", "Check this machine and this home."),
    "config": ("freehold.cli.config:config", "Show the settings in force and where they come from."),
    "lab": ("freehold.cli.lab:lab", "Make models by seed, and an upstream that misbehaves on command."),
    "completion": ("freehold.cli.completion:completion", "Print the completion script for your shell."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when called; the help page needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--home", metavar="FOLDER", envvar="FREEHOLD_HOME", help="The folder that holds everything. [default: ~/.freehold]")
@click.version_option(None, "--version", package_name="freehold", message="freehold %(version)s")
@click.pass_context
def root(ctx: click.Context, home: str | None) -> None:
    """Keep, use, study, modify and distribute the open models you depend on, even when their source goes away.

    Start with `freehold demo`, or `freehold pull hf:ORG/NAME` and `freehold up`.
    """
    ctx.obj = {"home": home}


def main(argv: list[str] | None = None) -> Any:
    """Entry point: every failure becomes a message with its code and hint, and the exit code of the errors table."""
    try:
        root.main(args=argv, prog_name="freehold", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("aborted", err=True)
        sys.exit(130)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FreeholdError as error:
        from freehold.cli.render import show_error

        show_error(error)
        sys.exit(error.row.exit)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - the last door: a bug is shown as one, with its code
        from freehold.cli.render import show_bug

        if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            click.echo(f"error: the output could not be written: {error.strerror}", err=True)
            sys.exit(74)
        show_bug(error)
        sys.exit(70)
    sys.exit(0)
