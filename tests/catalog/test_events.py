"""The event log: append-only, and every tampering is found."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from freehold.catalog.events import append_event, latest_events, list_events, verify_chain
from freehold.db import Database
from freehold.errors import FreeholdError


def _fill(catalog: Database, count: int = 5) -> None:
    for n in range(count):
        with catalog.write() as tx:
            append_event(tx, 10 + n, "owner", "model.pulled", f"x/{n}", {"n": n, "name": "模型"})


def test_rows_are_chained_from_the_first(catalog: Database) -> None:
    _fill(catalog)
    with catalog.read() as tx:
        assert verify_chain(tx) == 5
        assert [e.seq for e in list_events(tx, after=2)] == [3, 4, 5]
        assert [e.seq for e in latest_events(tx, limit=2)] == [5, 4]
        assert [e.seq for e in latest_events(tx, before=3)] == [2, 1]
        assert [e.subject for e in list_events(tx, subject="x/3")] == ["x/3"]


@pytest.mark.parametrize("sql", ["DELETE FROM events WHERE seq = 2", "UPDATE events SET actor = 'x' WHERE seq = 2"])
def test_the_database_refuses_to_change_a_row(catalog: Database, sql: str) -> None:
    _fill(catalog)
    with pytest.raises(FreeholdError), catalog.write() as tx:
        tx.execute(text(sql))
    with catalog.read() as tx:
        assert verify_chain(tx) == 5


@pytest.mark.parametrize(
    ("sql", "seq"),
    [
        ("UPDATE events SET actor = 'mallory' WHERE seq = 3", 3),
        ("UPDATE events SET payload_json = '{}' WHERE seq = 1", 1),
        ("UPDATE events SET at = at + 1 WHERE seq = 5", 5),
        ("DELETE FROM events WHERE seq = 2", 3),
        ("UPDATE events SET prev_hash = hash WHERE seq = 4", 4),
    ],
)
def test_tampering_behind_the_database_is_found_and_the_row_named(catalog: Database, tmp_path: Path, sql: str, seq: int) -> None:
    _fill(catalog)
    with sqlite3.connect(tmp_path / "catalog.db") as raw:
        raw.execute("DROP TRIGGER events_keep_rows")
        raw.execute("DROP TRIGGER events_keep_fields")
        raw.execute(sql)
    raw.close()
    with pytest.raises(FreeholdError) as caught, catalog.read() as tx:
        verify_chain(tx)
    assert caught.value.code == "catalog-chain-broken"
    assert caught.value.context["seq"] == seq


def test_concurrent_writers_make_one_chain(catalog: Database) -> None:
    threads = [threading.Thread(target=_fill, args=(catalog, 10)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with catalog.read() as tx:
        assert verify_chain(tx) == 40
