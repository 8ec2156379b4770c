"""`freehold usage`: requests, tokens and cost; the single requests; the ledger's check; budgets of keys."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.render import ago, emit, json_option, note, open_house, table
from freehold.nouns.moment import iso, parse_iso

if TYPE_CHECKING:
    from freehold.flows.usage import Account
    from freehold.nouns.usage import UsageRecord

_AGO = re.compile(r"(\d{1,6})(min|h|d|w)")
_UNIT_US = {"min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}


@click.command()
@click.option("--since", metavar="WHEN", help="From when: 24h, 7d, 2026-01-31, or a full RFC 3339 time.")
@click.option("--until", metavar="WHEN", help="Until when, likewise.")
@click.option("--by", type=click.Choice(["model", "key", "day"]), default="model", show_default=True, help="What to sum by.")
@click.option("--requests", "newest", type=click.IntRange(1, 10_000), metavar="N", help="Show the newest N requests instead.")
@click.option("--check", is_flag=True, help="Recompute the ledger's invariants; exit code 65 if one does not hold.")
@click.option("--credit", nargs=2, metavar="KEY AMOUNT", help="Add AMOUNT to the budget of KEY, which is prepaid from then on.")
@click.option("--no-limit", metavar="KEY", help="Let KEY spend without a budget again.")
@json_option
def usage(
    since: str | None, until: str | None, by: Any, newest: int | None, check: bool,
    credit: tuple[str, str] | None, no_limit: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what was used: requests, tokens and cost, counted by the engines themselves."""
    if sum(map(bool, (newest, check, credit, no_limit))) > 1:
        raise click.UsageError("--requests, --check, --credit and --no-limit exclude one another")
    if check:
        _check(as_json)
    elif credit or no_limit:
        _budget(credit, no_limit, as_json)
    elif newest:
        _requests(_when(since), _when(until), newest, as_json)
    else:
        _sums(_when(since), _when(until), by, as_json)


def _sums(since: int | None, until: int | None, by: Any, as_json: bool) -> None:
    from freehold.flows import usage as flow

    with open_house() as house:
        rows = flow.usage(house.parts, house.caller, since, until, by)

    def human() -> None:
        cells = [
            (
                row.label or row.name,
                row.requests,
                row.interrupted,
                f"{row.prompt:,}",
                f"{row.generated:,}",
                f"{row.delivered:,}",
                f"{_money(row.cost)} {row.currency}" if row.cost else "-",
            )
            for row in rows
        ]
        table([by, "requests", "cut short", "prompt", "generated", "delivered", "cost"], cells, right=[1, 2, 3, 4, 5, 6])
        if not rows:
            note("Nothing was used in this time: `freehold chat MODEL`, or any OpenAI client against `freehold up`.")
        if any(row.interrupted for row in rows):
            note(flow.RULE)

    emit([dataclasses.asdict(row) for row in rows], as_json, human)


def _requests(since: int | None, until: int | None, limit: int, as_json: bool) -> None:
    from freehold.flows import usage as flow

    with open_house() as house:
        found, now = flow.requests(house.parts, house.caller, since, until, limit), house.parts.clock()

    def human() -> None:
        cells = [
            (
                r.reservation,
                ago(r.at, now),
                r.principal,
                r.model,
                r.counts.prompt,
                r.counts.generated,
                r.counts.delivered,
                f"{r.first_token_us / 1000:.0f} ms" if r.first_token_us is not None else "-",
                r.outcome if r.outcome == "settled" else f"{r.outcome}: {r.reason}",
            )
            for r in found
        ]
        headers = ["request", "when", "who", "model", "prompt", "generated", "delivered", "first token", "ended"]
        table(headers, cells, right=[4, 5, 6, 7])

    emit([_record(r) for r in found], as_json, human)


def _check(as_json: bool) -> None:
    from freehold.flows import usage as flow

    with open_house() as house:
        audit, ended = flow.check_ledger(house.parts, house.caller)
    data = {"ok": audit.ok, **dataclasses.asdict(audit), "ended_of_dead_processes": ended, "rule": flow.RULE}

    def human() -> None:
        if ended:
            note(f"{ended} requests of processes that died were ended as interrupted. {flow.RULE}")
        for f in audit.flows:
            went = f"settled {_money(f.settled)} + released {_money(f.released)} + open {_money(f.open)}"
            money = f"reserved {_money(f.reserved)} = {went}"
            click.echo(f"{f.currency}: {f.requests:,} requests, {f.open_requests} open; {money}")
        click.echo(
            f"{audit.records:,} usage records, {audit.transfers:,} transfers: {'the ledger adds up' if audit.ok else 'BROKEN'}"
        )
        for sentence in audit.broken:
            click.echo(f"  {sentence}")

    emit(data, as_json, human)
    if not audit.ok:
        sys.exit(65)


def _budget(credit: tuple[str, str] | None, no_limit: str | None, as_json: bool) -> None:
    from freehold.flows import usage as flow

    with open_house() as house:
        if credit:
            account = flow.credit_key(house.parts, house.caller, credit[0], _micro(credit[1]))
        else:
            account = flow.lift_limit(house.parts, house.caller, no_limit or "")
    emit(dataclasses.asdict(account), as_json, lambda: click.echo(_standing(account)))


def _standing(account: Account) -> str:
    limit = "no limit" if account.floor is None else "prepaid"
    return f"{account.principal}: {_money(account.balance)} {account.currency}, {limit}"


def _when(text: str | None) -> int | None:
    """UTC microseconds of `24h` (ago), a date or an RFC 3339 time."""
    if text is None:
        return None
    if match := _AGO.fullmatch(text):
        return time.time_ns() // 1000 - int(match[1]) * _UNIT_US[match[2]]
    try:
        return parse_iso(f"{text}T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no time: write 24h, 7d, 2026-01-31 or 2026-01-31T12:00:00Z") from error


def _micro(text: str) -> int:
    """Micro-units of an amount like 12.50."""
    try:
        amount = Decimal(text) * 1_000_000
        whole = int(amount)
    except (InvalidOperation, OverflowError, ValueError) as error:
        raise click.BadParameter(f"{text!r} is no amount: write 12.50") from error
    if whole != amount or not 0 < whole < 10**15:
        raise click.BadParameter(f"{text!r} is no amount: more than 0, at most six decimals")
    return whole


def _money(micro: int) -> str:
    return f"{Decimal(micro) / 1_000_000:,.6f}".rstrip("0").rstrip(".")


def _record(r: UsageRecord) -> dict[str, Any]:
    return {
        "request": r.reservation, "id": r.id, "at": iso(r.at), "finished_at": iso(r.finished_at), "principal": r.principal,
        "model": r.model, "engine": str(r.engine), **dataclasses.asdict(r.counts), "outcome": str(r.outcome), "reason": r.reason,
        "first_token_us": r.first_token_us, "cost": r.cost, "currency": r.currency,
    }  # fmt: skip
