"""The writer: the ledger as the event loop uses it, without ever blocking on it.

One per open ledger and process: it owns this process's presence and its group commits, and it ends what dead processes
left before it admits anything. A caller that goes away while it waits never leaves a reservation behind: what was handed
to the writer is done, and a reservation that nobody came back for is released.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path

from freehold.db import Database
from freehold.failpoints import failpoint
from freehold.nouns.moment import Clock
from freehold.nouns.usage import Outcome, TokenCounts, UsageRecord
from freehold.use import ledger
from freehold.use.commits import GroupCommit
from freehold.use.ledger import Ending, Reservation, Terms
from freehold.use.presence import Presence, is_alive, sweep


class LedgerWriter:
    """Reserve, note and close requests of this process. Made by `open_writer`."""

    def __init__(self, database: Database, folder: Path, clock: Clock) -> None:
        self._clock = clock
        self._presence = Presence(folder)
        self._commits = GroupCommit(database)
        sweep(folder)
        self._commits.submit(lambda tx: ledger.recover(tx, lambda owner: is_alive(folder, owner), clock()))

    async def reserve(self, id_: str, terms: Terms) -> Reservation:
        """Admit a request; durable when it returns. FreeholdError use-budget-exhausted, db-*."""
        future = self._commits.submit(lambda tx: ledger.reserve(tx, id_, self._presence.id, terms, self._clock()))
        try:
            reservation = await asyncio.wrap_future(future, loop=asyncio.get_running_loop())
        except asyncio.CancelledError:
            self._abandon(future)
            raise
        failpoint("use.reserved")
        return reservation

    def note(self, reservation: Reservation, counts: TokenCounts, first_token_us: int | None) -> None:
        """Note how far the request is; returns at once, and a note that fails costs nothing but its precision."""
        at = self._clock()
        self._commits.submit(lambda tx: ledger.note(tx, reservation, counts, first_token_us, at))

    async def close(self, reservation: Reservation, ending: Ending) -> UsageRecord:
        """End the request; durable when it returns, and done even if the caller is cancelled meanwhile. FreeholdError db-*."""
        failpoint("use.closing")
        future = self._commits.submit(lambda tx: ledger.close(tx, reservation, ending, self._clock()))
        return await asyncio.shield(asyncio.wrap_future(future))

    def shut(self) -> None:
        """Finish what waits and leave."""
        self._commits.close()
        self._presence.close()

    def _abandon(self, future: Future[Reservation]) -> None:
        """Whoever asked is gone: take the work back, or release what it reserved."""

        def release(done: Future[Reservation]) -> None:
            if not done.cancelled() and done.exception() is None:
                ending, at = Ending(Outcome.RELEASED, "client-gone"), self._clock()
                self._commits.submit(lambda tx: ledger.close(tx, done.result(), ending, at))

        future.add_done_callback(release)


def end_dead(database: Database, folder: Path, clock: Clock) -> list[UsageRecord]:
    """End what dead processes left open; the records made. Writes only if there is something to end."""
    with database.read() as tx:
        found = ledger.owners(tx)
    if all(is_alive(folder, owner) for owner in found):
        return []
    with database.write() as tx:
        return ledger.recover(tx, lambda owner: is_alive(folder, owner), clock())


_LOCK = threading.Lock()
_WRITERS: weakref.WeakKeyDictionary[Database, LedgerWriter] = weakref.WeakKeyDictionary()


def open_writer(database: Database, folder: Path, clock: Clock) -> LedgerWriter:
    """This process's writer for the open `database`; it goes with it. `folder` holds the signs of life of a home."""
    with _LOCK:
        writer = _WRITERS.get(database)
        if writer is None:
            writer = _WRITERS[database] = LedgerWriter(database, folder, clock)
        return writer
