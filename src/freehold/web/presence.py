"""Whether the client is still there: the work for one that left is cancelled at once.

Why not leave it to the framework: a server notices that a client is gone only where the application listens, and an
answer nobody reads would hold the engine's slot to its end. Cancellation comes once, as by `asyncio.timeout`, so that the
clean-up of the work may wait for what it has to write down.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from freehold.web.asgi import Receive


class WhileConnected:
    """`async with WhileConnected(receive) as client:` cancels the block when the client leaves; then `client.left` is true
    and the cancellation ends here. Enter it once the request body has been read."""

    def __init__(self, receive: Receive) -> None:
        self.left = False
        self._receive = receive
        self._work: asyncio.Task[object] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._cancelling = 0

    async def __aenter__(self) -> Self:
        self._work = asyncio.current_task()
        if self._work is not None:
            self._cancelling = self._work.cancelling()
        self._watch = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if self._watch is not None:
            self._watch.cancel()
        if not self.left or self._work is None:
            return False
        return self._work.uncancel() <= self._cancelling and kind is asyncio.CancelledError

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._work is not None:
            self._work.cancel("the client left")
