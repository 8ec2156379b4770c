"""The writer: many at once, callers that go away, processes that die."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from freehold.db import Database
from freehold.errors import FreeholdError
from freehold.nouns.ids import uuid7
from freehold.nouns.usage import Outcome, TokenCounts, UsageRecord
from freehold.use import ledger
from freehold.use.audit import check
from freehold.use.charge import Price
from freehold.use.commits import GroupCommit
from freehold.use.ledger import Ending, Terms
from freehold.use.writer import LedgerWriter, open_writer

PRICE = Price(1_000_000, 1_000_000, "EUR")
TERMS = Terms("key:a", "org/model", "echo", PRICE, 100)
DONE = Ending(Outcome.SETTLED, "stop", TokenCounts(prompt=3, generated=5, delivered=5))

#: Opens the home's ledger as a process of its own and does what its argument says.
_CHILD = """
import asyncio, sys, time
from pathlib import Path
from freehold.db import open_database
from freehold.errors import FreeholdError
from freehold.nouns.ids import uuid7
from freehold.nouns.usage import TokenCounts
from freehold.use.charge import Price
from freehold.use.ledger import Terms
from freehold.use.writer import open_writer

clock = lambda: time.time_ns() // 1000
folder = Path(sys.argv[1])
database = open_database(folder / "ledger.db", "ledger", clock)
writer = open_writer(database, folder, clock)
terms = Terms("key:a", "org/model", "echo", Price(1_000_000, 1_000_000, "EUR"), 100)

async def ask():
    try:
        return await writer.reserve(uuid7(clock()), terms)
    except FreeholdError as error:
        assert error.code == "use-budget-exhausted"

async def main():
    if sys.argv[2] == "many":
        print(sum(r is not None for r in await asyncio.gather(*(ask() for _ in range(50)))), flush=True)
    else:
        reservation = await ask()
        writer.note(reservation, TokenCounts(prompt=7, generated=20, delivered=12), 900)
        again = await ask()
        print("reserved", flush=True)
    time.sleep(60)

asyncio.run(main())
"""


def clock() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def writer(database: Database, tmp_path: Path) -> Iterator[LedgerWriter]:
    made = LedgerWriter(database, tmp_path, clock)
    yield made
    made.shut()


def prepaid(database: Database, amount: int) -> None:
    with database.write() as tx:
        ledger.credit(tx, "key:a", "EUR", amount, clock())
        ledger.set_floor(tx, "key:a", "EUR", 0, clock())


def records(database: Database) -> list[UsageRecord]:
    with database.read() as tx:
        audit = check(tx)
        assert audit.ok, audit.broken
        return ledger.list_usage(tx, limit=1000)


def test_work_that_waits_together_is_committed_together_and_a_failing_piece_undoes_itself_alone(database: Database) -> None:
    commits = GroupCommit(database)
    begun, gate = threading.Event(), threading.Event()
    transactions: list[Connection] = []

    def work(tx: Connection, name: str) -> str:
        transactions.append(tx)
        ledger.credit(tx, name, "EUR", 5, 1)
        if name == "bad":
            raise FreeholdError("use-amount-invalid", "no")
        return name

    def block(_: Connection) -> bool:
        begun.set()
        return gate.wait(10)

    blocker = commits.submit(block)
    assert begun.wait(10)
    futures = {name: commits.submit(lambda tx, name=name: work(tx, name)) for name in ("a", "bad", "b")}
    gate.set()
    assert (futures["a"].result(10), futures["b"].result(10), blocker.result(10)) == ("a", "b", True)
    with pytest.raises(FreeholdError, match="no"):
        futures["bad"].result(10)
    assert len(transactions) == 2 + 3, "once until the refusal, then all of them anew"
    assert len({id(tx) for tx in transactions[2:]}) == 1
    with database.read() as tx:
        names = {row.name for row in tx.execute(text("SELECT name FROM accounts WHERE kind = 'principal'"))}
    assert names == {"a", "b"}
    commits.close()


def test_two_hundred_parallel_requests_on_a_budget_for_ten_admit_exactly_ten(database: Database, writer: LedgerWriter) -> None:
    prepaid(database, 1000)

    async def ask() -> bool:
        try:
            reservation = await writer.reserve(uuid7(clock()), TERMS)
        except FreeholdError as error:
            assert error.code == "use-budget-exhausted"
            return False
        await asyncio.sleep(0)
        return reservation.terms == TERMS

    async def main() -> int:
        return sum(await asyncio.gather(*(ask() for _ in range(200))))

    assert asyncio.run(main()) == 10
    assert records(database) == []


def test_parallel_processes_on_one_budget_admit_exactly_what_it_covers(database: Database, tmp_path: Path) -> None:
    prepaid(database, 1000)
    argv = [sys.executable, "-c", _CHILD, str(tmp_path), "many"]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        admitted = [int(child.stdout.readline()) for child in children if child.stdout]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert sum(admitted) == 10
    assert records(database) == []


def test_what_a_killed_process_left_open_is_ended_as_interrupted_before_anything_is_admitted(
    database: Database, tmp_path: Path
) -> None:
    argv = [sys.executable, "-c", _CHILD, str(tmp_path), "one"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reserved\n"
        living = LedgerWriter(database, tmp_path, clock)
        asyncio.run(living.reserve(uuid7(clock()), TERMS))
        assert records(database) == [], "a living process keeps its reservations"
        child.send_signal(signal.SIGKILL)
        child.wait()
    writer = LedgerWriter(database, tmp_path, clock)
    asyncio.run(writer.reserve(uuid7(clock()), TERMS))
    ended = records(database)
    assert [(r.outcome, r.reason) for r in ended] == [(Outcome.INTERRUPTED, "process-died")] * 2
    assert sorted((r.cost, r.counts.delivered) for r in ended) == [(0, 0), (7 + 12, 12)]
    living.shut()
    writer.shut()


@pytest.mark.parametrize("place", ["ledger.before-commit", "ledger.committed", "use.reserved"])
def test_a_kill_at_any_step_of_an_admission_leaves_a_ledger_that_recovers(database: Database, tmp_path: Path, place: str) -> None:
    passages = 3 if place.startswith("ledger.") else 1
    argv = [sys.executable, "-c", _CHILD, str(tmp_path), "one"]
    child = subprocess.run(argv, env={"FREEHOLD_FAILPOINTS": f"{place}@{passages}=kill"}, capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL
    writer = LedgerWriter(database, tmp_path, clock)
    writer.shut()
    assert all(r.outcome is Outcome.INTERRUPTED for r in records(database))
    with database.read() as tx:
        assert ledger.owners(tx) == []


def test_a_caller_that_goes_away_while_it_waits_leaves_no_reservation_open(database: Database, writer: LedgerWriter) -> None:
    async def main() -> None:
        for pause in (0, 0.0005, 0.002):
            asking = asyncio.create_task(writer.reserve(uuid7(clock()), TERMS))
            await asyncio.sleep(pause)
            asking.cancel()
            try:
                reservation = await asking
            except asyncio.CancelledError:
                continue
            await writer.close(reservation, DONE)

    asyncio.run(main())
    writer.shut()
    with database.read() as tx:
        assert ledger.owners(tx) == []
    records(database)


def test_an_ending_is_recorded_even_if_the_one_who_waits_for_it_is_cancelled(database: Database, writer: LedgerWriter) -> None:
    async def main() -> None:
        reservation = await writer.reserve(uuid7(clock()), TERMS)
        closing = asyncio.create_task(writer.close(reservation, DONE))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    asyncio.run(main())
    writer.shut()
    assert [r.outcome for r in records(database)] == [Outcome.SETTLED]


def test_one_ledger_has_one_writer_in_a_process_and_it_goes_with_the_database(database: Database, tmp_path: Path) -> None:
    assert open_writer(database, tmp_path, clock) is open_writer(database, tmp_path, clock)


def test_a_full_disk_fails_the_admission_with_its_code_and_admits_nothing(database: Database, writer: LedgerWriter) -> None:
    with database.read() as tx:
        pages = tx.execute(text("PRAGMA page_count")).scalar_one()

    async def ask() -> None:
        for _ in range(200):
            await writer.reserve(uuid7(clock()), TERMS)

    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + 2}").close()

    event.listen(database._engine, "checkout", limit)
    with pytest.raises(FreeholdError) as caught:
        asyncio.run(ask())
    assert caught.value.code == "db-disk-full"
    assert records(database) == []

    async def more() -> list[object]:
        return await asyncio.gather(*(writer.reserve(uuid7(clock()), TERMS) for _ in range(20)), return_exceptions=True)

    refused = [r for r in asyncio.run(more()) if isinstance(r, FreeholdError)]
    assert refused
    assert {r.code for r in refused} == {"db-disk-full"}
