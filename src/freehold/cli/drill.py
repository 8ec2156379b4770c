"""`freehold drill`: prove that work goes on when a source is gone."""

from __future__ import annotations

import sys

import click

from freehold.cli.render import emit, json_option, open_house, progress


@click.command()
@json_option
def drill(as_json: bool) -> None:
    """Cut a model's source and repeat the dependants' calls with stock clients; exit code 0 only if all go on.

    The source is a lab upstream on this machine, so that it can be killed; the control is that the same call to the dead
    source fails.
    """
    from freehold.flows import drill as flow

    def show(check: flow.Check) -> None:
        if not as_json:
            mark = click.style("✓", fg="green") if check.ok else click.style("✗", fg="red")
            click.echo(f"{mark} {check.name}: {check.detail}")

    with open_house() as house, progress(quiet=as_json) as listener:
        report = flow.drill(house.parts, house.caller, listener=listener, on_check=show)
    verdict = "work goes on without the source" if report.ok else "the drill FAILED: see the checks above"
    emit(report.as_dict(), as_json, lambda: click.echo(f"\n{verdict} ({report.seconds:.1f} s); model kept as {report.model}"))
    sys.exit(0 if report.ok else 1)
