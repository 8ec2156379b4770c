"""Usage: what was asked and answered, what it cost, whether the ledger adds up; and budgets for keys.

Whoever may chat sees what is their own, an admin sees all. Before anything is shown, requests that a dead process left open
are ended as interrupted, so that no sum depends on when somebody looks.
"""

from __future__ import annotations

from dataclasses import replace

from freehold import access
from freehold.catalog.events import append_event
from freehold.errors import FreeholdError
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.usage import UsageRecord
from freehold.use import ledger
from freehold.use.audit import Audit, check
from freehold.use.charge import RULE
from freehold.use.ledger import Account
from freehold.use.report import By, UsageRow, sum_usage
from freehold.use.writer import end_dead

__all__ = ["RULE", "Account", "Audit", "UsageRow", "budget", "check_ledger", "credit_key", "lift_limit", "requests", "usage"]


def usage(parts: Parts, caller: Caller, since: int | None = None, until: int | None = None, by: By = "model") -> list[UsageRow]:
    """Sums over since <= admission < until (UTC microseconds), by model, key or day."""
    principal = _whose(caller)
    _recover(parts)
    with parts.ledger.read() as tx:
        rows = sum_usage(tx, by, since=since, until=until, principal=principal)
    if by != "key":
        return rows
    with parts.catalog.read() as tx:
        names = {f"key:{row.public_id}": row.name for row in access.list_keys(tx)}
    return [replace(row, label=names.get(row.name, row.name)) for row in rows]


def requests(
    parts: Parts, caller: Caller, since: int | None = None, until: int | None = None, limit: int = 100
) -> list[UsageRecord]:
    """The newest records, one for each admitted request."""
    principal = _whose(caller)
    _recover(parts)
    with parts.ledger.read() as tx:
        return ledger.list_usage(tx, since=since, until=until, limit=limit, principal=principal)


def check_ledger(parts: Parts, caller: Caller) -> tuple[Audit, int]:
    """Recompute every invariant; the audit, and how many requests of dead processes were ended first."""
    caller.require(Scope.ADMIN)
    ended = _recover(parts)
    with parts.ledger.read() as tx:
        return check(tx), len(ended)


def budget(parts: Parts, caller: Caller, public_id: str) -> Account | None:
    """The account of a key in the house's currency; None if nothing was ever booked on it."""
    caller.require(Scope.ADMIN)
    with parts.ledger.read() as tx:
        return ledger.get_account(tx, _principal(parts, public_id), parts.prices.currency)


def credit_key(parts: Parts, caller: Caller, public_id: str, amount: int) -> Account:
    """Add `amount` micro-units to the key's budget; from then on it is prepaid: what the budget does not cover is refused.

    What an account without a limit owed until then stays with the house. FreeholdError access-key-not-found,
    use-amount-invalid."""
    caller.require(Scope.ADMIN)
    principal, currency, now = _principal(parts, public_id), parts.prices.currency, parts.clock()
    with parts.ledger.write() as tx:
        before = ledger.get_account(tx, principal, currency)
        if before is not None and before.floor is None and before.balance < 0:
            ledger.credit(tx, principal, currency, -before.balance, now, "owed before the budget")
        ledger.credit(tx, principal, currency, amount, now, f"budget by {caller.principal}")
        account = ledger.set_floor(tx, principal, currency, 0, now)
    _note(parts, caller, "budget.credited", public_id, {"amount": amount, "currency": currency, "balance": account.balance})
    return account


def lift_limit(parts: Parts, caller: Caller, public_id: str) -> Account:
    """Let the key spend without a limit again. FreeholdError access-key-not-found."""
    caller.require(Scope.ADMIN)
    principal, currency = _principal(parts, public_id), parts.prices.currency
    with parts.ledger.write() as tx:
        account = ledger.set_floor(tx, principal, currency, None, parts.clock())
    _note(parts, caller, "budget.lifted", public_id, {"currency": currency, "balance": account.balance})
    return account


def _whose(caller: Caller) -> str | None:
    """None for all principals."""
    if caller.may(Scope.ADMIN):
        return None
    caller.require(Scope.CHAT)
    return caller.principal


def _recover(parts: Parts) -> list[UsageRecord]:
    return end_dead(parts.ledger, parts.home.run, parts.clock)


def _principal(parts: Parts, public_id: str) -> str:
    with parts.catalog.read() as tx:
        if all(row.public_id != public_id for row in access.list_keys(tx)):
            raise FreeholdError("access-key-not-found", f"no key has the id {public_id!r}", key=public_id)
    return f"key:{public_id}"


def _note(parts: Parts, caller: Caller, kind: str, subject: str, payload: dict[str, object]) -> None:
    with parts.catalog.write() as tx:
        append_event(tx, parts.clock(), caller.principal, kind, subject, payload)
