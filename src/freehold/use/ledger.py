"""The ledger: money is set aside before an engine is asked, and every admitted request ends in exactly one usage record.

Rules:
- A movement of money is a transfer: entries that add up to zero in one currency. A balance is the sum of its entries.
- `reserve` moves the most that a request may cost from the principal's account to `reserved`; it fails if that would take
  an account below its floor. `settle`, `release` and `interrupt` empty the reservation again: what `charge` says goes to
  `revenue`, the rest back. All of it in the transaction that writes the usage record.
- An account without a floor is a tab: it may fall as far as it is used. With one (0 is prepaid), no charge takes it below,
  even if an engine reports more than was reserved: the house bears the rest.
- The prices are those agreed at the reservation.
- Amounts of zero write no entries: billing off costs nothing.
- A reservation is closed once; closing it again returns the record that stands.

Functions over a ledger transaction. It does not know tokens' makers: counts come from the meter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, Row, text

from freehold.errors import FreeholdError
from freehold.nouns.ids import uuid7
from freehold.nouns.usage import Outcome, TokenCounts, UsageRecord
from freehold.use.charge import Price, charge


@dataclass(frozen=True, slots=True)
class Account:
    """A principal's account in one currency. `floor` is the lowest balance allowed, None for a tab without limit."""

    row: int
    principal: str
    currency: str
    balance: int
    floor: int | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request is admitted for: who asks which model, at what price, and the most it may cost."""

    principal: str
    model: str
    engine: str
    price: Price
    amount: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """An admitted request. `owner` is the process that answers it (see `presence`)."""

    id: str
    at: int
    owner: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended: engine-side counts, a reason in one word, microseconds to the first token."""

    outcome: Outcome
    reason: str
    counts: TokenCounts = field(default_factory=TokenCounts)
    first_token_us: int | None = None


_FIND = text("SELECT id, balance, floor FROM accounts WHERE kind = :kind AND name = :name AND currency = :currency")
_OPEN = text(
    "INSERT INTO accounts (kind, name, currency, created_at) VALUES (:kind, :name, :currency, :at) ON CONFLICT DO NOTHING"
)
_ENTRY = text(
    "INSERT INTO entries (transfer, at, kind, account_id, amount, reservation, memo) "
    "VALUES (:transfer, :at, :kind, :account, :amount, :reservation, :memo)"
)
_RESERVE = text(
    "INSERT INTO reservations (id, at, owner, principal, model, engine, currency, amount, prompt_price, generated_price) "
    "VALUES (:id, :at, :owner, :principal, :model, :engine, :currency, :amount, :prompt_price, :generated_price)"
)
_NOTE = text(
    "UPDATE reservations SET prompt = :prompt, cached = :cached, generated = :generated, delivered = :delivered, "
    "reported = :reported, estimated = :estimated, first_token_us = :first, noted_at = :at WHERE id = :id AND state = 'open'"
)
_CLOSE = text("UPDATE reservations SET state = :state WHERE id = :id AND state = 'open'")
_RECORD = text(
    "INSERT INTO usage (id, reservation, at, finished_at, principal, model, engine, prompt, cached, generated, delivered, "
    "reported, estimated, outcome, reason, first_token_us, cost, currency) "
    "VALUES (:id, :reservation, :at, :finished_at, :principal, :model, :engine, :prompt, :cached, :generated, :delivered, "
    ":reported, :estimated, :outcome, :reason, :first, :cost, :currency)"
)
_USAGE_OF = text("SELECT * FROM usage WHERE reservation = :id")
_OWNERS = text("SELECT DISTINCT owner FROM reservations WHERE state = 'open'")
_OPEN_OF = text("SELECT * FROM reservations WHERE state = 'open' AND owner = :owner ORDER BY id")


def get_account(tx: Connection, principal: str, currency: str) -> Account | None:
    """The account, or None if nothing was ever booked on it."""
    row = tx.execute(_FIND, {"kind": "principal", "name": principal, "currency": currency}).first()
    return Account(row.id, principal, currency, row.balance, row.floor) if row else None


def set_floor(tx: Connection, principal: str, currency: str, floor: int | None, at: int) -> Account:
    """Set the lowest balance allowed: 0 makes the account prepaid, None lifts the limit.

    FreeholdError use-floor-above-balance if the balance is below it already."""
    row = _account(tx, "principal", principal, currency, at)
    if floor is not None and row.balance < floor:
        raise FreeholdError(
            "use-floor-above-balance", f"the balance of {principal} is {row.balance}, below {floor}", principal=principal
        )
    tx.execute(text("UPDATE accounts SET floor = :floor WHERE id = :id"), {"floor": floor, "id": row.id})
    return Account(row.id, principal, currency, row.balance, floor)


def credit(tx: Connection, principal: str, currency: str, amount: int, at: int, memo: str = "") -> Account:
    """Book `amount` > 0 micro-units to the principal. FreeholdError use-amount-invalid."""
    if amount <= 0:
        raise FreeholdError("use-amount-invalid", f"not an amount to credit: {amount}", amount=amount)
    account = _account(tx, "principal", principal, currency, at)
    funding = _account(tx, "funding", "", currency, at)
    _transfer(tx, "credit", at, None, {funding.id: -amount, account.id: amount}, memo)
    return Account(account.id, principal, currency, account.balance + amount, account.floor)


def reserve(tx: Connection, id_: str, owner: str, terms: Terms, at: int) -> Reservation:
    """Admit a request. FreeholdError use-budget-exhausted if its most would take the account below its floor."""
    price = terms.price
    account = _account(tx, "principal", terms.principal, price.currency, at) if terms.amount else None
    if account and account.floor is not None and account.balance - terms.amount < account.floor:
        raise FreeholdError(
            "use-budget-exhausted",
            f"the budget of {terms.principal} does not cover this request",
            principal=terms.principal,
            available=account.balance - account.floor,
            needed=terms.amount,
            currency=price.currency,
        )
    values = {
        "id": id_, "at": at, "owner": owner, "principal": terms.principal, "model": terms.model, "engine": terms.engine,
        "currency": price.currency, "amount": terms.amount, "prompt_price": price.prompt, "generated_price": price.generated,
    }  # fmt: skip
    tx.execute(_RESERVE, values)
    if account:
        reserved = _account(tx, "reserved", "", price.currency, at)
        _transfer(tx, "reserve", at, id_, {account.id: -terms.amount, reserved.id: terms.amount})
    return Reservation(id_, at, owner, terms)


def note(tx: Connection, reservation: Reservation, counts: TokenCounts, first_token_us: int | None, at: int) -> None:
    """Note how far an open request is: what recovery charges if this process dies. A closed one stays as it is."""
    values = {
        "id": reservation.id, "first": first_token_us, "at": at,
    }  # fmt: skip
    tx.execute(_NOTE, values | _columns(counts))


def close(tx: Connection, reservation: Reservation, ending: Ending, at: int) -> UsageRecord:
    """End a request: empty its reservation and write its one usage record; the record that stands if it was closed before."""
    done = tx.execute(_CLOSE, {"id": reservation.id, "state": ending.outcome})
    if done.rowcount != 1:
        return _record(tx.execute(_USAGE_OF, {"id": reservation.id}).one())
    cost = _book(tx, reservation, charge(reservation.terms.price, ending.counts, ending.outcome), ending.outcome, at)
    id_, terms, counts = uuid7(at), reservation.terms, ending.counts
    values = {
        "id": id_, "reservation": reservation.id, "at": reservation.at, "finished_at": at, "principal": terms.principal,
        "model": terms.model, "engine": terms.engine, "outcome": ending.outcome, "reason": ending.reason,
        "first": ending.first_token_us, "cost": cost, "currency": terms.price.currency,
    }  # fmt: skip
    tx.execute(_RECORD, values | _columns(counts))
    return UsageRecord(
        id_, reservation.at, terms.principal, terms.model, terms.engine, counts, ending.outcome, at,
        ending.first_token_us, cost, terms.price.currency, reservation.id, ending.reason,
    )  # fmt: skip


def recover(tx: Connection, alive: Callable[[str], bool], at: int) -> list[UsageRecord]:
    """End what dead processes left open as interrupted, charged by their last notes; the records made."""
    made = []
    for (owner,) in tx.execute(_OWNERS).all():
        if alive(owner):
            continue
        for row in tx.execute(_OPEN_OF, {"owner": owner}).all():
            ending = Ending(Outcome.INTERRUPTED, "process-died", _counts(row), row.first_token_us)
            made.append(close(tx, _reservation(row), ending, at))
    return made


def owners(tx: Connection) -> list[str]:
    """The processes with open reservations."""
    return [row.owner for row in tx.execute(_OWNERS)]


def list_usage(
    tx: Connection, *, since: int | None = None, until: int | None = None, limit: int = 100, principal: str | None = None
) -> list[UsageRecord]:
    """Newest first, by the moment of admission; since <= at < until; of one principal or of all."""
    sql = (
        "SELECT * FROM usage WHERE at >= COALESCE(:since, at) AND at < COALESCE(:until, at + 1) "
        "AND principal = COALESCE(:principal, principal) ORDER BY at DESC, id DESC LIMIT :limit"
    )
    values = {"since": since, "until": until, "limit": limit, "principal": principal}
    return [_record(row) for row in tx.execute(text(sql), values)]


def _book(tx: Connection, reservation: Reservation, cost: int, outcome: Outcome, at: int) -> int:
    """Empty the reservation: `cost` to revenue, the rest back; what was charged in the end."""
    amount, currency = reservation.terms.amount, reservation.terms.price.currency
    if not amount and not cost:
        return 0
    account = _account(tx, "principal", reservation.terms.principal, currency, at)
    if account.floor is not None:
        cost = min(cost, amount + account.balance - account.floor)
    reserved, revenue = _account(tx, "reserved", "", currency, at), _account(tx, "revenue", "", currency, at)
    kind = {Outcome.SETTLED: "settle", Outcome.RELEASED: "release", Outcome.INTERRUPTED: "interrupt"}[outcome]
    moves = {reserved.id: -amount, revenue.id: cost, account.id: amount - cost}
    _transfer(tx, kind, at, reservation.id, moves)
    return cost


def _account(tx: Connection, kind: str, name: str, currency: str, at: int) -> Row[tuple[int, int, int | None]]:
    """id, balance, floor; made at first use."""
    key = {"kind": kind, "name": name, "currency": currency}
    row = tx.execute(_FIND, key).first()
    if row is None:
        tx.execute(_OPEN, key | {"at": at})
        row = tx.execute(_FIND, key).one()
    return row


def _transfer(tx: Connection, kind: str, at: int, reservation: str | None, moves: dict[int, int], memo: str = "") -> None:
    """Book `moves`, account to amount; the entries of zero are left out."""
    if sum(moves.values()):
        raise FreeholdError("internal-bug", f"a transfer does not add up: {moves}")
    transfer = uuid7(at)
    rows = [
        {"transfer": transfer, "at": at, "kind": kind, "account": account, "amount": amount, "reservation": reservation,
         "memo": memo} for account, amount in moves.items() if amount
    ]  # fmt: skip
    if rows:
        tx.execute(_ENTRY, rows)


def _reservation(row: Row[tuple[object, ...]]) -> Reservation:
    price = Price(row.prompt_price, row.generated_price, row.currency)
    return Reservation(row.id, row.at, row.owner, Terms(row.principal, row.model, row.engine, price, row.amount))


def _record(row: Row[tuple[object, ...]]) -> UsageRecord:
    return UsageRecord(
        row.id, row.at, row.principal, row.model, row.engine, _counts(row), Outcome(row.outcome), row.finished_at,
        row.first_token_us, row.cost, row.currency, row.reservation, row.reason,
    )  # fmt: skip


def _columns(counts: TokenCounts) -> dict[str, int]:
    return {
        "prompt": counts.prompt, "cached": counts.cached, "generated": counts.generated, "delivered": counts.delivered,
        "reported": int(counts.reported), "estimated": int(counts.estimated),
    }  # fmt: skip


def _counts(row: Row[tuple[object, ...]]) -> TokenCounts:
    return TokenCounts(row.prompt, row.cached, row.generated, row.delivered, bool(row.reported), bool(row.estimated))
