"""`freehold events`: the log of what happened."""

from __future__ import annotations

import dataclasses

import click

from freehold.cli.render import emit, json_option, open_house, table
from freehold.nouns.moment import iso


@click.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many rows, newest first.")
@click.option("--after", type=int, help="Instead: oldest first, from this row number on.")
@click.option("--verify", is_flag=True, help="Recompute the hash chain over all rows.")
@json_option
def events(limit: int, after: int | None, verify: bool, as_json: bool) -> None:
    """Show what happened in this house, newest first."""
    from freehold.flows import events as flow

    with open_house() as house:
        if verify:
            count = flow.verify_events(house.parts, house.caller)
            emit({"rows": count, "chain": "holds"}, as_json, lambda: click.echo(f"the chain holds: {count} rows"))
            return
        rows = flow.list_events(house.parts, house.caller, after=after, limit=limit)

    def human() -> None:
        cells = [(e.seq, iso(e.at)[:19].replace("T", " "), e.kind, e.subject, e.actor, e.hash[:12]) for e in rows]
        table(["#", "time (utc)", "what", "subject", "by", "hash"], cells, right=[0])

    emit([dataclasses.asdict(e) | {"at": iso(e.at)} for e in rows], as_json, human)
