"""`freehold doctor`: check this machine and this home."""

from __future__ import annotations

import dataclasses
import sys

import click

from freehold.cli.render import emit, json_option, open_house

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "red")}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine and this home; exit code 1 if something must be mended."""
    from freehold.flows import doctor as flow

    with open_house() as house:
        found = flow.examine(house.parts, house.caller)

    def human() -> None:
        for d in found:
            mark, color = _MARKS[d.state]
            click.echo(f"{click.style(mark, fg=color)} {d.name:<8} {d.detail}")
            if d.hint:
                click.echo(f"  {'':<8} {d.hint}")

    emit([dataclasses.asdict(d) for d in found], as_json, human)
    sys.exit(1 if any(d.state == "bad" for d in found) else 0)
