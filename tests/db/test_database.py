"""Transactions, migrations and the translation of what SQLite says."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from freehold.db import open_database
from freehold.db.database import Database, migrations
from freehold.errors import FreeholdError

AT = 1_800_000_000_000_000


def _open(path: Path, name: str = "catalog") -> Database:
    return open_database(path / f"{name}.db", name, lambda: AT)


@pytest.mark.parametrize("name", ["catalog", "vault", "ledger"])
def test_a_new_database_is_migrated_once_and_opens_again(tmp_path: Path, name: str) -> None:
    first = _open(tmp_path, name)
    with first.read() as tx:
        applied = [tuple(r) for r in tx.execute(text("SELECT number, at FROM migrations"))]
    first.close()
    again = open_database(tmp_path / f"{name}.db", name, lambda: AT + 5)
    with again.read() as tx:
        assert [tuple(r) for r in tx.execute(text("SELECT number, at FROM migrations"))] == applied
    assert len(applied) == len(migrations(name)) >= 1
    again.close()


def test_what_a_failed_write_did_is_rolled_back(tmp_path: Path) -> None:
    database = _open(tmp_path)
    sql = "INSERT INTO principals (uuid, kind, name, created_at) VALUES ('u', 'user', 'n', 1)"
    with pytest.raises(RuntimeError), database.write() as tx:
        tx.execute(text(sql))
        raise RuntimeError
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM principals")).scalar_one() == 0
    with database.write() as tx:
        tx.execute(text(sql))
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM principals")).scalar_one() == 1
    database.close()


def test_a_database_of_a_newer_freehold_is_refused_and_left_alone(tmp_path: Path) -> None:
    _open(tmp_path).close()
    with sqlite3.connect(tmp_path / "catalog.db") as raw:
        raw.execute("INSERT INTO migrations VALUES (999, 'future', 1)")
    raw.close()
    with pytest.raises(FreeholdError) as caught:
        _open(tmp_path)
    assert caught.value.code == "home-newer-format"


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(FreeholdError) as caught:
        _open(tmp_path)
    assert caught.value.code == "db-corrupt"


def test_many_writers_each_see_the_last_value(tmp_path: Path) -> None:
    """Read-modify-write in a write transaction never loses an update: it begins IMMEDIATE."""
    database = _open(tmp_path)
    with database.write() as tx:
        tx.execute(text("INSERT INTO principals (id, uuid, kind, name, created_at) VALUES (1, 'u', 'user', 'n', 0)"))

    def add() -> None:
        for _ in range(20):
            with database.write() as tx:
                value = tx.execute(text("SELECT created_at FROM principals")).scalar_one()
                tx.execute(text("UPDATE principals SET created_at = :v"), {"v": value + 1})

    threads = [threading.Thread(target=add) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with database.read() as tx:
        assert tx.execute(text("SELECT created_at FROM principals")).scalar_one() == 100
    database.close()


def test_a_pending_migration_backs_up_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _open(tmp_path).close()
    steps = [*migrations("catalog"), (9000, "9000_more", "CREATE TABLE more (x INTEGER);")]
    monkeypatch.setattr("freehold.db.database.migrations", lambda _: steps)
    _open(tmp_path).close()
    backups = list(tmp_path.glob("catalog.db.schema-*.bak"))
    assert len(backups) == 1
    with sqlite3.connect(backups[0]) as old:
        names = {r[0] for r in old.execute("SELECT name FROM sqlite_master")}
    old.close()
    assert "events" in names
    assert "more" not in names


def test_disk_full_is_named(tmp_path: Path) -> None:
    database = _open(tmp_path)
    with pytest.raises(FreeholdError) as caught, database.write() as tx:
        tx.execute(text("PRAGMA max_page_count = 1"))
        pages = tx.execute(text("PRAGMA page_count")).scalar_one()
        tx.execute(text(f"PRAGMA max_page_count = {pages}"))
        for n in range(500):
            values = {"u": str(n), "n": str(n) + "x" * 2000}
            tx.execute(text("INSERT INTO principals (uuid, kind, name, created_at) VALUES (:u, 'user', :n, 1)"), values)
    assert caught.value.code == "db-disk-full"
    database.close()


def test_the_data_version_changes_with_every_commit_of_this_process_or_another(tmp_path: Path) -> None:
    """Caches live by it: a commit that goes unseen is a stale answer, a read that counts is a cache that never hits."""
    one = open_database(tmp_path / "catalog.db", "catalog", lambda: 1)
    other = open_database(tmp_path / "catalog.db", "catalog", lambda: 1)
    try:
        seen = one.data_version()
        with one.read() as tx:
            tx.execute(text("SELECT count(*) FROM repos"))
        assert one.data_version() == seen
        for number, writer in enumerate((one, other, one)):
            with writer.write() as tx:
                sql = "INSERT INTO principals (uuid, kind, name, created_at) VALUES (:u, 'user', :u, 1)"
                tx.execute(text(sql), {"u": str(number)})
            assert one.data_version() != seen
            seen = one.data_version()
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize("name", ["a?b", "100%25", "a#b", "with space", "模型"])
def test_a_path_of_odd_characters_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    _open(folder).close()
    assert (folder / "catalog.db").stat().st_size > 0
    assert [p.name for p in tmp_path.iterdir()] == [name]
