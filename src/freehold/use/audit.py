"""The ledger's invariants, recomputed from its rows; each is a query for the rows that break it.

- Every transfer, and so every currency, adds up to zero.
- Every balance is the sum of its entries, and none is below its floor.
- Per currency: reserved = settled + released + open, from the entries; the account `reserved` holds what is open.
- A closed reservation holds no money, an open one all of it; revenue of a reservation is its record's cost.
- Every closed reservation has exactly one usage record, of the same outcome; an open one has none; no record lacks one.
- No record counts more delivered than generated, and a released one costs nothing.

It finds what was changed behind the triggers' back. It does not repair: a broken ledger is compared with a backup.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Flow:
    """Per currency, in micro-units: what was ever `reserved`, and where it went."""

    currency: str
    reserved: int
    settled: int
    released: int
    open: int
    requests: int
    open_requests: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What was checked; `broken` names each invariant that does not hold, with a row that shows it."""

    flows: tuple[Flow, ...]
    transfers: int
    records: int
    broken: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.broken


#: (sentence with the row's fields, query for rows that break it)
_RULES: tuple[tuple[str, str], ...] = (
    (
        "transfer {transfer} does not add up to zero: {total}",
        "SELECT transfer, sum(amount) AS total FROM entries GROUP BY transfer HAVING sum(amount) <> 0",
    ),
    (
        "transfer {transfer} mixes currencies",
        (
            "SELECT e.transfer FROM entries e JOIN accounts a ON a.id = e.account_id GROUP BY e.transfer "
            "HAVING count(DISTINCT a.currency) > 1"
        ),
    ),
    (
        "the entries in {currency} add up to {total}, not to zero",
        (
            "SELECT a.currency, sum(e.amount) AS total FROM entries e JOIN accounts a ON a.id = e.account_id "
            "GROUP BY a.currency HAVING sum(e.amount) <> 0"
        ),
    ),
    (
        "account {kind} {name} {currency} has balance {balance}, its entries say {total}",
        (
            "SELECT a.kind, a.name, a.currency, a.balance, COALESCE(sum(e.amount), 0) AS total FROM accounts a "
            "LEFT JOIN entries e ON e.account_id = a.id GROUP BY a.id HAVING a.balance <> COALESCE(sum(e.amount), 0)"
        ),
    ),
    (
        "account {name} {currency} is at {balance}, below its floor {floor}",
        "SELECT name, currency, balance, floor FROM accounts WHERE balance < floor",
    ),
    (
        "reserved holds {balance} {currency}, open requests add up to {total}",
        (
            "SELECT a.currency, a.balance, (SELECT COALESCE(sum(amount), 0) FROM reservations r WHERE r.state = 'open' "
            "AND r.currency = a.currency) AS total FROM accounts a WHERE a.kind = 'reserved' AND a.balance <> total"
        ),
    ),
    (
        "request {id} ({state}) holds {held} of {amount}",
        (
            "SELECT r.id, r.state, r.amount, COALESCE(sum(e.amount), 0) AS held FROM reservations r "
            "LEFT JOIN (entries e JOIN accounts a ON a.id = e.account_id AND a.kind = 'reserved') ON e.reservation = r.id "
            "GROUP BY r.id HAVING held <> CASE r.state WHEN 'open' THEN r.amount ELSE 0 END"
        ),
    ),
    (
        "request {id} brought {earned}, its usage record says {cost}",
        (
            "SELECT u.reservation AS id, u.cost, COALESCE(sum(e.amount), 0) AS earned FROM usage u "
            "LEFT JOIN (entries e JOIN accounts a ON a.id = e.account_id AND a.kind = 'revenue') "
            "ON e.reservation = u.reservation GROUP BY u.reservation HAVING earned <> u.cost"
        ),
    ),
    (
        "request {id} is {state} and has {records} usage records",
        (
            "SELECT r.id, r.state, count(u.id) AS records FROM reservations r LEFT JOIN usage u ON u.reservation = r.id "
            "GROUP BY r.id HAVING records <> (r.state <> 'open')"
        ),
    ),
    (
        "request {id} is {state}, its usage record says {outcome}",
        (
            "SELECT r.id, r.state, u.outcome FROM reservations r JOIN usage u ON u.reservation = r.id "
            "WHERE r.state <> 'open' AND r.state <> u.outcome"
        ),
    ),
    (
        "usage record {id} has no reservation",
        "SELECT u.id FROM usage u LEFT JOIN reservations r ON r.id = u.reservation WHERE r.id IS NULL",
    ),
    ("usage record {id} counts more delivered than generated", "SELECT id FROM usage WHERE delivered > generated"),
    ("usage record {id} was released and costs {cost}", "SELECT id, cost FROM usage WHERE outcome = 'released' AND cost <> 0"),
)

_FLOWS = text(
    "SELECT r.currency, sum(r.amount) AS reserved, sum(CASE WHEN r.state = 'open' THEN r.amount ELSE 0 END) AS open, "
    "sum(CASE WHEN r.state = 'open' THEN 0 ELSE min(r.amount, u.cost) END) AS settled, count(*) AS requests, "
    "sum(r.state = 'open') AS open_requests, "
    "(SELECT COALESCE(-sum(e.amount), 0) FROM entries e JOIN accounts a ON a.id = e.account_id "
    "  WHERE a.kind = 'reserved' AND e.amount < 0 AND a.currency = r.currency) AS emptied "
    "FROM reservations r LEFT JOIN usage u ON u.reservation = r.id GROUP BY r.currency ORDER BY r.currency"
)


def check(tx: Connection) -> Audit:
    """Recompute every invariant over the whole ledger."""
    broken = []
    for sentence, sql in _RULES:
        row = tx.execute(text(sql + " LIMIT 1")).mappings().first()
        if row:
            broken.append(sentence.format(**row))
    flows = []
    for r in tx.execute(_FLOWS):
        flow = Flow(r.currency, r.reserved, r.settled or 0, r.emptied - (r.settled or 0), r.open, r.requests, r.open_requests)
        flows.append(flow)
        if flow.reserved != flow.settled + flow.released + flow.open:
            broken.append(f"{flow.currency}: reserved {flow.reserved} is not settled + released + open: {flow}")
    transfers = int(tx.execute(text("SELECT count(DISTINCT transfer) FROM entries")).scalar_one())
    records = int(tx.execute(text("SELECT count(*) FROM usage")).scalar_one())
    return Audit(tuple(flows), transfers, records, tuple(broken))
