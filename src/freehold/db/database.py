"""One SQLite database of a home: transactions that begin, commit and fail in one place.

SQLAlchemy's own transaction start is replaced, since sqlite3's legacy mode starts writes as deferred transactions, which
can fail half-way with "database is locked"; here a write begins IMMEDIATE and so waits at its start. Every driver error
leaves as a FreeholdError. It does not know any table.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, exc, text

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.nouns.moment import Clock

_BUSY_SECONDS = 30
_LEAST_ROOM = 64 * 1024


class Database:
    """`name` is catalog, vault or ledger. Thread-safe; several processes may hold the same file open."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)),  # not an f-string: a path may hold ? and %
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
            pool_size=8,
            max_overflow=32,
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(freehold_write=True)
        self._watch: sqlite3.Connection | None = None
        self._watching = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot; nothing written in it is kept."""
        with _translated(self), self._engine.connect() as tx, tx.begin() as transaction:
            yield tx
            transaction.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The one writer at a time. Commits at the end of the block, rolls back if it raises."""
        with _translated(self), self._writer.connect() as tx:
            with tx.begin():
                yield tx
                failpoint(f"{self.name}.before-commit")
            failpoint(f"{self.name}.committed")

    def data_version(self) -> int:
        """Changes when anybody committed, this process included: caches compare it. A few microseconds.

        It asks on a connection of its own that never writes, since SQLite counts for each connection the commits of others."""
        with self._watching, _translated(self):
            if self._watch is None:
                self._watch = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        with self._watching:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        self._engine.dispose()


def open_database(path: Path, name: str, clock: Clock) -> Database:
    """Open or create the database `name` at `path` and bring it to this version's schema.

    Migrations run forward only, each in its own transaction; a database that holds data is copied beside itself first.
    Raises home-newer-format if it was migrated by a newer freehold, db-corrupt, db-disk-full or db-io.
    """
    database = Database(path, name)
    try:
        _migrate(database, clock)
    except BaseException:
        database.close()
        raise
    return database


def migrations(name: str) -> list[tuple[int, str, str]]:
    """(number, name, SQL) of database `name`, in order; the one list that the schema reference is generated from."""
    folder = resources.files("freehold") / "db" / "migrations" / name
    found = [
        (int(f.name[:4]), f.name.removesuffix(".sql"), f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql")
    ]
    return sorted(found)


def _migrate(database: Database, clock: Clock) -> None:
    steps = migrations(database.name)
    done = _applied(database)
    newest = max(done, default=0)
    if newest > max((number for number, _, _ in steps), default=0):
        message = f"{database.path} has schema {newest}; this freehold knows up to {len(steps)}"
        raise FreeholdError("home-newer-format", message, path=database.path, found=newest, known=len(steps))
    pending = [step for step in steps if step[0] not in done]
    if pending and done:
        _backup(database, newest)
    for number, name, sql in pending:
        with database.write() as tx:
            if _is_applied(tx, number):
                continue
            for statement in _statements(sql):
                tx.exec_driver_sql(statement)
            tx.execute(
                text("INSERT INTO migrations (number, name, at) VALUES (:number, :name, :at)"),
                {"number": number, "name": name, "at": clock()},
            )


def _applied(database: Database) -> set[int]:
    with database.write() as tx:
        tx.execute(
            text("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, at BIGINT NOT NULL)")
        )
        return {row.number for row in tx.execute(text("SELECT number FROM migrations"))}


def _is_applied(tx: Connection, number: int) -> bool:
    return tx.execute(text("SELECT 1 FROM migrations WHERE number = :n"), {"n": number}).first() is not None


def _backup(database: Database, newest: int) -> None:
    target = database.path.with_name(f"{database.path.name}.schema-{newest}.bak")
    if not target.exists():
        source, copy = sqlite3.connect(database.path), sqlite3.connect(target)
        try:
            source.backup(copy)
        finally:
            source.close()
            copy.close()


def _statements(sql: str) -> Iterator[str]:
    """Split a script at statement ends; triggers keep their inner semicolons."""
    pending = ""
    for line in sql.splitlines():
        if line.strip().startswith("--"):
            continue
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            if pending.strip():
                yield pending.strip()
            pending = ""
    if pending.strip():
        raise ValueError(f"unterminated statement in migration: {pending.strip()[:60]}")


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_SECONDS * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("freehold_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _translated(database: Database) -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        raise _as_freehold(database, str(error.orig)) from error
    except sqlite3.Error as error:
        raise _as_freehold(database, str(error)) from error


def _as_freehold(database: Database, reason: str) -> FreeholdError:
    if "full" in reason or ("I/O error" in reason and _no_room(database.path)):
        code = "db-disk-full"
    elif "locked" in reason or "busy" in reason:
        code = "db-busy"
    elif "malformed" in reason or "not a database" in reason:
        code = "db-corrupt"
    elif "constraint" in reason or "append-only" in reason or "no such" in reason or "syntax" in reason:
        return FreeholdError("internal-bug", f"{database.name} database refused a statement: {reason}", path=database.path)
    else:
        code = "db-io"
    return FreeholdError(code, f"{database.path}: {reason}", path=database.path)


def _no_room(path: Path) -> bool:
    """Without room for its shared memory SQLite says only "disk I/O error"."""
    try:
        return shutil.disk_usage(path.parent).free < _LEAST_ROOM
    except OSError:
        return False
