"""Group commit: many small transactions of one process share one commit, so that each need not wait for its own fsync.

Why: two durable commits a request are what an honest ledger costs. One thread writes; whatever waits when it is free goes
into one database transaction. If one piece is refused, all are done anew, each under a savepoint, so that the refused one
undoes itself alone; if the transaction itself is lost (a full disk does that), each is tried alone. So work must bear to be
done anew. Nothing is reported as done before the commit that holds it. Without contention work is committed at once.

It does not order work among processes: they meet at SQLite's lock.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection

from freehold.db import Database
from freehold.errors import FreeholdError

T = TypeVar("T")
Piece = tuple[Callable[[Connection], Any], Future[Any]]
Done = tuple[Future[Any], Any, Exception | None]

#: Most pieces of work in one commit: bounds how long the first waits for the last.
BATCH = 256


class GroupCommit:
    """The one writing thread of a database in this process. Thread-safe. It does not keep the database open: work that
    is handed in must not outlive it."""

    def __init__(self, database: Database) -> None:
        self._database = weakref.ref(database)
        self._lock = threading.Lock()
        self._waiting: list[Piece] = []
        self._awake = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"freehold-{database.name}")

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Have `work` done and committed; the future has its result once that is durable, or what it raised. Cancelled
        before its turn, it is not done at all."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((work, future))
            if not self._awake:
                self._writer.submit(self._drain)
                self._awake = True
        return future

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._writer.shutdown(wait=True)

    def _drain(self) -> None:
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._awake = bool(waiting)
            if not waiting:
                return
            for future, result, failure in self._done([piece for piece in waiting if piece[1].set_running_or_notify_cancel()]):
                if failure is not None:
                    future.set_exception(failure)
                else:
                    future.set_result(result)

    def _done(self, batch: list[Piece]) -> list[Done]:
        """Together, as cheaply as can be; if one is refused, together under savepoints; if the transaction was lost, apart."""
        for run in (_bare, _guarded) if len(batch) > 1 else ():
            try:
                with self._open().write() as tx:
                    return [run(tx, *piece) for piece in batch]
            except Exception:  # noqa: BLE001, S112 - told to the one it belongs to when it fails again
                continue
        return [self._alone(*piece) for piece in batch]

    def _alone(self, work: Callable[[Connection], Any], future: Future[Any]) -> Done:
        """One piece in a transaction of its own."""
        try:
            with self._open().write() as tx:
                result = work(tx)
        except Exception as error:  # noqa: BLE001 - it belongs to the one who waits, and this thread must go on
            return future, None, error
        return future, result, None

    def _open(self) -> Database:
        database = self._database()
        if database is None:
            raise FreeholdError("internal-bug", "work was handed to a database that is closed")
        return database


def _bare(tx: Connection, work: Callable[[Connection], Any], future: Future[Any]) -> Done:
    return future, work(tx), None


def _guarded(tx: Connection, work: Callable[[Connection], Any], future: Future[Any]) -> Done:
    tx.exec_driver_sql("SAVEPOINT piece")
    try:
        result, failure = work(tx), None
    except FreeholdError as error:
        tx.exec_driver_sql("ROLLBACK TO piece")
        result, failure = None, error
    tx.exec_driver_sql("RELEASE piece")
    return future, result, failure
