"""Usage: who sees what, what dead processes left, budgets."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.app import House, house
from freehold.errors import FreeholdError
from freehold.flows import keys, usage
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import uuid7
from freehold.nouns.usage import Outcome, TokenCounts
from freehold.use import ledger
from freehold.use.charge import Price
from freehold.use.ledger import Ending, Terms

DAY = 86_400_000_000

#: Answers one request as the gateway does, and is killed where its failpoint says.
_ANSWER = """
import asyncio, sys
from freehold.app import house
from freehold.flows.chat import chat
async def main(h):
    answer = await chat(h.parts, h.caller, {"model": "echo", "messages": [{"role": "user", "content": "a b"}]})
    print(await anext(answer))
with house(sys.argv[1]) as h:
    asyncio.run(main(h))
"""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[House]:
    with house(str(tmp_path / "home")) as found:
        yield found


def book(opened: House, principal: str, model: str, at: int, outcome: Outcome = Outcome.SETTLED, tokens: int = 10) -> None:
    terms = Terms(principal, model, "echo", Price(0, 1_000_000, "EUR"), 100)
    ending = Ending(outcome, "stop", TokenCounts(prompt=2, generated=tokens, delivered=tokens), 5)
    with opened.parts.ledger.write() as tx:
        ledger.close(tx, ledger.reserve(tx, uuid7(at), "p", terms, at), ending, at)


def test_an_admin_sees_all_and_a_key_its_own(opened: House) -> None:
    made = keys.create_key(opened.parts, opened.caller, "laptop", frozenset({Scope.CHAT}))
    mine = f"key:{made.row.public_id}"
    book(opened, mine, "a", 1)
    book(opened, "key:other", "b", 2)
    key = Caller(mine, frozenset({Scope.CHAT}), "test")
    assert [r.name for r in usage.usage(opened.parts, key)] == ["a"]
    assert [r.principal for r in usage.requests(opened.parts, key)] == [mine]
    by_key = usage.usage(opened.parts, opened.caller, by="key")
    assert {(r.name, r.label) for r in by_key} == {(mine, "laptop"), ("key:other", "key:other")}
    for call in (usage.check_ledger, lambda p, c: usage.credit_key(p, c, made.row.public_id, 1)):
        with pytest.raises(FreeholdError) as caught:
            call(opened.parts, key)
        assert caught.value.code == "access-scope-missing"
    reader = Caller("key:r", frozenset({Scope.READ}), "test")
    for call in (usage.usage, usage.requests):
        with pytest.raises(FreeholdError) as caught:
            call(opened.parts, reader)
        assert caught.value.code == "access-scope-missing"


def test_sums_are_over_the_time_asked_for_and_by_model_or_day(opened: House) -> None:
    for day, model, outcome in (
        (0, "a", Outcome.SETTLED),
        (1, "a", Outcome.INTERRUPTED),
        (1, "b", Outcome.RELEASED),
        (2, "b", Outcome.SETTLED),
    ):
        book(opened, "owner", model, day * DAY + 5, outcome)
    rows = usage.usage(opened.parts, opened.caller)
    assert [(r.name, r.requests, r.interrupted, r.released, r.generated, r.cost) for r in rows] == [
        ("a", 2, 1, 0, 20, 20),
        ("b", 2, 0, 1, 20, 10),
    ]
    assert [(r.name, r.requests) for r in usage.usage(opened.parts, opened.caller, by="day")] == [
        ("1970-01-03", 1),
        ("1970-01-02", 2),
        ("1970-01-01", 1),
    ]
    assert [r.name for r in usage.usage(opened.parts, opened.caller, DAY, 2 * DAY, by="day")] == ["1970-01-02"]
    assert [r.at // DAY for r in usage.requests(opened.parts, opened.caller, limit=2)] == [2, 1]


@pytest.mark.parametrize(("place", "outcome"), [("use.reserved", Outcome.INTERRUPTED), ("use.closing", Outcome.INTERRUPTED)])
def test_a_request_whose_process_was_killed_between_reserve_and_settle_is_ended_before_anything_is_shown(
    opened: House, place: str, outcome: Outcome
) -> None:
    env = {"FREEHOLD_FAILPOINTS": f"{place}=kill", "FREEHOLD_USE__ECHO": "true", "FREEHOLD_USE__GENERATED_PRICE": "1000000"}
    argv = [sys.executable, "-c", _ANSWER, str(opened.parts.home.path)]
    child = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert child.stdout == "", "nothing was handed out before it was settled"
    (record,) = usage.requests(opened.parts, opened.caller)
    assert (record.outcome, record.reason, record.cost) == (outcome, "process-died", 0)
    audit, ended = usage.check_ledger(opened.parts, opened.caller)
    assert (audit.ok, ended) == (True, 0)


def test_control_the_same_request_that_is_not_killed_is_settled(opened: House) -> None:
    env = {"FREEHOLD_USE__ECHO": "true", "FREEHOLD_USE__GENERATED_PRICE": "1000000"}
    argv = [sys.executable, "-c", _ANSWER, str(opened.parts.home.path)]
    child = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    (record,) = usage.requests(opened.parts, opened.caller)
    assert (record.outcome, record.cost) == (Outcome.SETTLED, 2)


def test_a_budget_makes_a_key_prepaid_and_what_it_owed_before_stays_with_the_house(opened: House) -> None:
    made = keys.create_key(opened.parts, opened.caller, "laptop", frozenset({Scope.CHAT}))
    public = made.row.public_id
    assert usage.budget(opened.parts, opened.caller, public) is None
    book(opened, f"key:{public}", "a", 1)
    account = usage.credit_key(opened.parts, opened.caller, public, 95)
    assert (account.balance, account.floor) == (95, 0)
    with pytest.raises(FreeholdError) as caught:
        book(opened, f"key:{public}", "a", 2)
    assert caught.value.code == "use-budget-exhausted"
    assert usage.lift_limit(opened.parts, opened.caller, public).floor is None
    book(opened, f"key:{public}", "a", 3)
    audit, _ = usage.check_ledger(opened.parts, opened.caller)
    assert audit.ok, audit.broken
