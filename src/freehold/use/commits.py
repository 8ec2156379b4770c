"""Group commit: many small transactions of one process share one commit, so that each need not wait for its own fsync.

Why: two durable commits a request are what an honest ledger costs. One thread writes; whatever waits when it is free goes
into one database transaction, each piece of work under a savepoint of its own, so that one that is refused undoes itself
alone. If the transaction itself is lost, each piece is tried again alone: work must bear to be done anew.
Nothing is reported as done before the commit that holds it. Without contention a piece of work is committed at once.

It does not order work among processes: they meet at SQLite's lock.
"""

from __future__ import annotations

import weakref
from collections import deque
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
        self._waiting: deque[Piece] = deque()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"freehold-{database.name}")

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Have `work` done and committed; the future has its result once that is durable, or what it raised. Cancelled
        before its turn, it is not done at all."""
        future: Future[T] = Future()
        self._waiting.append((work, future))
        self._writer.submit(self._drain)
        return future

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._writer.shutdown(wait=True)

    def _drain(self) -> None:
        waiting = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
        batch = [(work, future) for work, future in waiting if future.set_running_or_notify_cancel()]
        try:
            done = self._commit(batch) if batch else []
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait, and this thread must go on
            done = [(batch[0][1], None, error)] if len(batch) == 1 else [self._alone(*piece) for piece in batch]
        for future, result, failure in done:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

    def _commit(self, batch: list[Piece]) -> list[Done]:
        database = self._database()
        if database is None:
            raise FreeholdError("internal-bug", "work was handed to a database that is closed")
        with database.write() as tx:
            return [_attempt(tx, work, future) for work, future in batch]

    def _alone(self, work: Callable[[Connection], Any], future: Future[Any]) -> Done:
        """One piece in a transaction of its own, after the one of its batch was lost (a full disk undoes it whole)."""
        try:
            return self._commit([(work, future)])[0]
        except Exception as error:  # noqa: BLE001 - as above
            return future, None, error


def _attempt(tx: Connection, work: Callable[[Connection], Any], future: Future[Any]) -> Done:
    tx.exec_driver_sql("SAVEPOINT piece")
    try:
        result, failure = work(tx), None
    except FreeholdError as error:
        tx.exec_driver_sql("ROLLBACK TO piece")
        result, failure = None, error
    tx.exec_driver_sql("RELEASE piece")
    return future, result, failure
