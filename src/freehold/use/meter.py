"""The meter: counts what an engine generates and what of it was delivered. It wraps the engine's stream directly.

The order of a stream is engine -> meter -> policy -> label -> transport. The meter stands next to the engine, so that what
later stages add (a label) is never billed and what they hold back is still counted as generated. Delivery is known only at
the other end: whoever hands a chunk to the transport says so with `handed`, once the transport has taken it. Stages between
carry `tokens` along in the chunks that they pass on.

It does not end requests: a flow reads `counts` and tells the ledger.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from freehold.engines.engine import Chunk
from freehold.nouns.moment import Clock
from freehold.nouns.usage import TokenCounts

#: How often an open request is noted in the ledger, in microseconds: what a dead process charges is at most so old.
NOTE_EVERY_US = 500_000


class Meter:
    """Counts of one request. `admitted_at` in UTC microseconds; `note` is called now and then with the counts so far."""

    def __init__(self, clock: Clock, admitted_at: int, note: Callable[[TokenCounts, int | None], None]) -> None:
        self.first_token_us: int | None = None
        self.finish: str | None = None
        self.began = False
        self._clock = clock
        self._admitted_at = admitted_at
        self._note = note
        self._noted_at = admitted_at
        self._so_far = TokenCounts()
        self._delivered = 0

    @property
    def counts(self) -> TokenCounts:
        """All that is known by now; `delivered` never exceeds `generated`."""
        return replace(self._so_far, delivered=min(self._delivered, self._so_far.generated))

    async def measure(self, stream: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
        """The stream, counted. Closing this closes it."""
        async with aclosing(stream):
            async for chunk in stream:
                self.began = True
                self._so_far = chunk.so_far
                if self.first_token_us is None and chunk.so_far.generated:
                    self.first_token_us = max(0, self._clock() - self._admitted_at)
                for choice in chunk.payload["choices"]:
                    self.finish = choice.get("finish_reason") or self.finish
                yield chunk

    def handed(self, chunk: Chunk) -> None:
        """The transport has taken the chunk."""
        self._delivered += chunk.tokens
        if not self._delivered:
            return
        now = self._clock()
        if now - self._noted_at >= NOTE_EVERY_US:
            self._noted_at = now
            self._note(self.counts, self.first_token_us)
