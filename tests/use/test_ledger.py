"""The ledger: no overdraft, one record a request, rows that nobody changes."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from freehold.db import Database
from freehold.errors import FreeholdError
from freehold.nouns.ids import uuid7
from freehold.nouns.usage import Outcome, TokenCounts
from freehold.use import ledger
from freehold.use.audit import check
from freehold.use.charge import Price
from freehold.use.ledger import Ending, Terms

NOW = 1_700_000_000_000_000
#: One micro-unit a token, both ways.
PRICE = Price(1_000_000, 1_000_000, "EUR")
DONE = Ending(Outcome.SETTLED, "stop", TokenCounts(prompt=3, generated=5, delivered=5), 1000)


def terms(amount: int = 100, principal: str = "key:a", price: Price = PRICE) -> Terms:
    return Terms(principal, "org/model", "echo", price, amount)


def balance(database: Database, principal: str = "key:a", currency: str = "EUR") -> int:
    with database.read() as tx:
        account = ledger.get_account(tx, principal, currency)
    return account.balance if account else 0


def sound(database: Database) -> None:
    with database.read() as tx:
        audit = check(tx)
    assert audit.ok, audit.broken


def prepaid(database: Database, amount: int, principal: str = "key:a") -> None:
    with database.write() as tx:
        ledger.credit(tx, principal, "EUR", amount, NOW)
        ledger.set_floor(tx, principal, "EUR", 0, NOW)


def test_settling_charges_what_was_delivered_and_gives_the_rest_back(database: Database) -> None:
    prepaid(database, 1000)
    with database.write() as tx:
        reservation = ledger.reserve(tx, uuid7(NOW), "p", terms(100), NOW)
    assert balance(database) == 900
    with database.write() as tx:
        record = ledger.close(tx, reservation, DONE, NOW + 5)
    assert (record.cost, record.reservation, record.reason, record.at, record.finished_at) == (
        8,
        reservation.id,
        "stop",
        NOW,
        NOW + 5,
    )
    assert balance(database) == 992
    sound(database)


@pytest.mark.parametrize(
    ("ending", "cost"),
    [
        (Ending(Outcome.RELEASED, "engine-failed"), 0),
        (Ending(Outcome.INTERRUPTED, "client-gone", TokenCounts(prompt=3, generated=9, delivered=4)), 7),
        (Ending(Outcome.INTERRUPTED, "client-gone", TokenCounts(prompt=3, generated=9, delivered=0)), 0),
        (Ending(Outcome.SETTLED, "stop", TokenCounts(prompt=3)), 3),
    ],
)
def test_each_way_to_end_charges_by_the_one_rule(database: Database, ending: Ending, cost: int) -> None:
    with database.write() as tx:
        record = ledger.close(tx, ledger.reserve(tx, uuid7(NOW), "p", terms(), NOW), ending, NOW)
    assert record.cost == cost
    assert balance(database) == -cost
    sound(database)


def test_the_prices_are_those_of_the_admission_and_rounded_in_the_callers_favour(database: Database) -> None:
    price = Price(150_000, 600_000, "USD")
    with database.write() as tx:
        reservation = ledger.reserve(tx, uuid7(NOW), "p", terms(10, price=price), NOW)
        record = ledger.close(tx, reservation, DONE, NOW)
    assert (record.cost, record.currency) == (3, "USD")  # 3 x 0.15 + 5 x 0.6 = 3.45


def test_closing_twice_returns_the_record_that_stands(database: Database) -> None:
    with database.write() as tx:
        reservation = ledger.reserve(tx, uuid7(NOW), "p", terms(), NOW)
        first = ledger.close(tx, reservation, DONE, NOW)
        again = ledger.close(tx, reservation, Ending(Outcome.RELEASED, "late"), NOW + 1)
    assert again == first
    sound(database)


def test_a_request_beyond_the_budget_is_refused_and_leaves_no_trace(database: Database) -> None:
    prepaid(database, 99)
    with pytest.raises(FreeholdError) as caught, database.write() as tx:
        ledger.reserve(tx, uuid7(NOW), "p", terms(100), NOW)
    assert caught.value.code == "use-budget-exhausted"
    assert caught.value.context["available"] == 99
    assert balance(database) == 99
    sound(database)


def test_an_engine_that_reports_more_than_was_reserved_never_takes_a_prepaid_account_below_its_floor(database: Database) -> None:
    prepaid(database, 110)
    huge = Ending(Outcome.SETTLED, "stop", TokenCounts(prompt=500, generated=500, delivered=500, reported=True))
    with database.write() as tx:
        record = ledger.close(tx, ledger.reserve(tx, uuid7(NOW), "p", terms(100), NOW), huge, NOW)
    assert record.cost == 110
    assert balance(database) == 0
    sound(database)


def test_a_tab_pays_what_was_used_even_beyond_the_reservation(database: Database) -> None:
    huge = Ending(Outcome.SETTLED, "stop", TokenCounts(prompt=500, generated=500, delivered=500, reported=True))
    with database.write() as tx:
        record = ledger.close(tx, ledger.reserve(tx, uuid7(NOW), "p", terms(100), NOW), huge, NOW)
    assert (record.cost, balance(database)) == (1000, -1000)
    sound(database)


def test_two_hundred_threads_on_a_budget_for_ten_admit_exactly_ten(database: Database) -> None:
    prepaid(database, 1000)
    start = threading.Barrier(200)

    def ask(_: int) -> str | None:
        start.wait()
        try:
            with database.write() as tx:
                return ledger.reserve(tx, uuid7(NOW), "p", terms(100), NOW).id
        except FreeholdError as error:
            assert error.code == "use-budget-exhausted"
            return None

    with ThreadPoolExecutor(200) as pool:
        admitted = [id_ for id_ in pool.map(ask, range(200)) if id_]
    assert len(set(admitted)) == len(admitted) == 10
    assert balance(database) == 0
    sound(database)


def test_the_database_itself_refuses_an_overdraft(database: Database) -> None:
    prepaid(database, 10)
    with pytest.raises(FreeholdError, match="CHECK constraint"), database.write() as tx:
        account = ledger.get_account(tx, "key:a", "EUR")
        assert account is not None
        sql = "INSERT INTO entries (transfer, at, kind, account_id, amount) VALUES ('t', 1, 'credit', :a, -11)"
        tx.execute(text(sql), {"a": account.row})


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE usage SET cost = 0",
        "DELETE FROM usage",
        "UPDATE entries SET amount = 1",
        "DELETE FROM entries",
        "DELETE FROM reservations",
        "UPDATE reservations SET state = 'open'",
        "UPDATE reservations SET amount = 1 WHERE state = 'open'",
        "UPDATE reservations SET generated_price = 0 WHERE state = 'open'",
    ],
)
def test_rows_that_were_written_stay_as_they_are(database: Database, sql: str) -> None:
    with database.write() as tx:
        ledger.close(tx, ledger.reserve(tx, uuid7(NOW), "p", terms(), NOW), DONE, NOW)
        ledger.reserve(tx, uuid7(NOW), "p", terms(), NOW)
    with pytest.raises(FreeholdError, match="append-only"), database.write() as tx:
        tx.execute(text(sql))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("INSERT INTO entries (transfer, at, kind, account_id, amount) VALUES ('t', 1, 'credit', 1, 5)", "add up to zero"),
        ("UPDATE accounts SET balance = balance + 1 WHERE kind = 'revenue'", "its entries say"),
        ("UPDATE accounts SET floor = balance + 1 WHERE kind = 'principal'", "below its floor"),
        ("DELETE FROM usage", "has 0 usage records"),
        ("UPDATE usage SET cost = cost + 1", "its usage record says"),
        ("UPDATE usage SET outcome = 'released'", "its usage record says"),
        ("UPDATE reservations SET state = 'settled' WHERE state = 'open'", "holds"),
        ("UPDATE reservations SET amount = amount + 1", "open requests add up to"),
        ("DELETE FROM reservations", "has no reservation"),
        ("UPDATE usage SET delivered = generated + 1", "more delivered"),
    ],
)
def test_the_check_finds_what_was_changed_behind_the_triggers(
    database: Database, ledger_path: Path, damage: str, says: str
) -> None:
    with database.write() as tx:
        ledger.close(tx, ledger.reserve(tx, uuid7(NOW), "p", terms(), NOW), DONE, NOW)
        ledger.reserve(tx, uuid7(NOW), "p", terms(), NOW)
    sound(database)
    behind = sqlite3.connect(ledger_path)
    for (name,) in behind.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        behind.execute(f"DROP TRIGGER {name}")
    behind.execute("PRAGMA ignore_check_constraints = ON")
    behind.execute(damage)
    behind.commit()
    behind.close()
    with database.read() as tx:
        audit = check(tx)
    assert any(says in sentence for sentence in audit.broken), audit.broken


def test_the_check_says_where_the_money_went(database: Database) -> None:
    with database.write() as tx:
        ledger.close(tx, ledger.reserve(tx, uuid7(NOW), "p", terms(100), NOW), DONE, NOW)
        ledger.close(tx, ledger.reserve(tx, uuid7(NOW), "p", terms(50), NOW), Ending(Outcome.RELEASED, "x"), NOW)
        ledger.reserve(tx, uuid7(NOW), "p", terms(7), NOW)
    with database.read() as tx:
        (flow,) = check(tx).flows
    assert (flow.reserved, flow.settled, flow.released, flow.open) == (157, 8, 142, 7)
    assert (flow.requests, flow.open_requests) == (3, 1)


def test_a_floor_above_the_balance_and_an_empty_credit_are_refused(database: Database) -> None:
    with pytest.raises(FreeholdError) as floor, database.write() as tx:
        ledger.set_floor(tx, "key:a", "EUR", 1, NOW)
    with pytest.raises(FreeholdError) as amount, database.write() as tx:
        ledger.credit(tx, "key:a", "EUR", 0, NOW)
    assert (floor.value.code, amount.value.code) == ("use-floor-above-balance", "use-amount-invalid")


def test_recovery_ends_only_what_dead_processes_left_and_charges_their_last_note(database: Database) -> None:
    with database.write() as tx:
        left = ledger.reserve(tx, uuid7(NOW), "dead", terms(100), NOW)
        silent = ledger.reserve(tx, uuid7(NOW), "dead", terms(100), NOW)
        living = ledger.reserve(tx, uuid7(NOW), "living", terms(100), NOW)
        ledger.note(tx, left, TokenCounts(prompt=3, generated=9, delivered=4), 700, NOW + 1)
    with database.write() as tx:
        records = ledger.recover(tx, lambda owner: owner == "living", NOW + 2)
        assert ledger.owners(tx) == ["living"]
    by_id = {r.reservation: r for r in records}
    assert set(by_id) == {left.id, silent.id}
    assert (by_id[left.id].cost, by_id[left.id].outcome, by_id[left.id].reason) == (7, Outcome.INTERRUPTED, "process-died")
    assert (by_id[left.id].first_token_us, by_id[silent.id].cost) == (700, 0)
    sound(database)
    with database.write() as tx:
        assert ledger.recover(tx, lambda _: True, NOW) == []
        ledger.note(tx, left, TokenCounts(generated=99, delivered=99), 1, NOW)
        assert ledger.close(tx, living, DONE, NOW).outcome is Outcome.SETTLED
        assert [r.counts.delivered for r in ledger.list_usage(tx) if r.reservation == left.id] == [4]


def test_records_are_listed_newest_first_within_the_time_asked_for(database: Database) -> None:
    with database.write() as tx:
        for second in range(5):
            at = NOW + second * 1_000_000
            ledger.close(tx, ledger.reserve(tx, uuid7(at), "p", terms(), at), DONE, at)
        found = ledger.list_usage(tx, since=NOW + 1_000_000, until=NOW + 4_000_000, limit=2)
    assert [(r.at - NOW) // 1_000_000 for r in found] == [3, 2]
