"""`freehold usage`: sums, requests, the check of the ledger, budgets."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_USE__ECHO", "true")
    monkeypatch.setenv("FREEHOLD_USE__GENERATED_PRICE", "2000000")


@pytest.fixture
def freehold(run: Any) -> Callable[..., Any]:
    """Run a command that must end with `code`; its JSON if it was asked for, else all that it said."""

    def call(*args: str, code: int = 0) -> Any:
        done = run(*args)
        assert done.code == code, done.err
        return json.loads(done.out) if "--json" in args and done.out else done.out + done.err

    return call


def test_an_empty_ledger_says_so_and_adds_up(freehold: Any) -> None:
    assert "Nothing was used" in freehold("usage")
    assert freehold("usage", "--json") == []
    assert freehold("usage", "--check", "--json")["ok"] is True


def test_what_was_used_is_summed_and_the_ledger_checked(freehold: Any, tmp_path: Path) -> None:
    freehold("chat", "echo", "one two three", "--max-tokens", "5")
    (row,) = freehold("usage", "--json")
    assert (row["name"], row["requests"], row["generated"], row["cost"], row["currency"]) == ("echo", 1, 5, 10, "EUR")
    assert "0.00001 EUR" in freehold("usage", "--by", "key", "--since", "1h")
    assert freehold("usage", "--until", "1h", "--json") == []
    assert freehold("usage", "--since", "2999-01-01", "--json") == []
    assert "the ledger adds up" in freehold("usage", "--check")
    database = sqlite3.connect(tmp_path / "home" / "ledger.db")
    database.execute("DROP TRIGGER usage_keep_fields")
    database.execute("UPDATE usage SET cost = 1")
    database.commit()
    database.close()
    assert "BROKEN" in freehold("usage", "--check", code=65)


def test_a_key_is_given_a_budget_and_let_go_of_it(freehold: Any) -> None:
    freehold("key", "create", "--name", "laptop")
    (key,) = freehold("key", "list", "--json")
    assert freehold("usage", "--credit", key["id"], "1.25", "--json")["balance"] == 1_250_000
    assert freehold("usage", "--credit", key["id"], "0.5", "--json")["floor"] == 0
    assert "1.75 EUR, no limit" in freehold("usage", "--no-limit", key["id"])
    assert [e["kind"] for e in freehold("events", "--json")][:3] == ["budget.lifted", "budget.credited", "budget.credited"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--since", "yesterday"), 2),
        (("--since", "999999999999999w"), 2),
        (("--credit", "x", "-1"), 2),
        (("--credit", "x", "NaN"), 2),
        (("--credit", "x", "1e99"), 2),
        (("--credit", "nobody", "1"), 66),
        (("--check", "--requests", "1"), 2),
        (("--by", "moon"), 2),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(freehold: Any, args: tuple[str, ...], code: int) -> None:
    said = freehold("usage", *args, code=code)
    assert "Traceback" not in said
    assert "internal-bug" not in said
