"""An engine without a model: it says the last user message again, word by word, at a set pace.

Why it is shipped: gateways, meters and clients are tested and measured against something exact, that costs nothing, and
that can be told to fail. A token is a word with the space before it; with `max_tokens` the words are repeated until then,
without it they are said once. The same request always has the same text. It does not understand anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any

from freehold.engines.engine import Asked, Chunk, check_chat, check_completion, refuse_other_parts, text_of
from freehold.errors import FreeholdError
from freehold.nouns.serving import Deployment, EngineFacts, EngineKind
from freehold.nouns.usage import TokenCounts


class EchoEngine:
    """`seconds` gives the `created` of its frames. `crash_after` of the deployment counts tokens over its life, once."""

    kind = EngineKind.ECHO

    def __init__(self, deployment: Deployment, *, seconds: Callable[[], float] = time.time) -> None:
        self._deployment = deployment
        self._seconds = seconds
        self._slots = asyncio.Semaphore(deployment.slots)
        self._numbers = itertools.count(1)
        self._until_crash = deployment.crash_after
        self._busy = 0
        self._starts = 0
        self._up = False
        self._closed = False

    async def start(self) -> None:
        if self._closed:
            raise self._stopped()
        if not self._up:
            self._up = True
            self._starts += 1

    async def close(self) -> None:
        self._up, self._closed = False, True

    async def healthy(self) -> bool:
        return self._up

    async def facts(self) -> EngineFacts:
        made = self._deployment
        return EngineFacts(self.kind, made.model, made.context, made.slots, self._busy, starts=self._starts)

    async def count_prompt(self, request: Mapping[str, Any]) -> int | None:
        check_chat(request)
        refuse_other_parts(request)
        return _prompt_tokens(request)

    async def chat(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        asked = check_chat(request)
        refuse_other_parts(request)
        users = [message for message in request["messages"] if message["role"] == "user"]
        words = text_of(users[-1] if users else request["messages"][-1]).split()
        async with contextlib.aclosing(self._say(words, _prompt_tokens(request), asked, chat=True)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def complete(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        asked = check_completion(request)
        prompt = request["prompt"]
        words = prompt.split() if isinstance(prompt, str) else [str(token) for token in prompt]
        async with contextlib.aclosing(self._say(words, len(words), asked, chat=False)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _say(self, words: list[str], prompt: int, asked: Asked, *, chat: bool) -> AsyncGenerator[Chunk, None]:
        made = self._deployment
        if prompt > made.context:
            message = f"the prompt has {prompt} tokens, and {made.model} takes {made.context}"
            raise FreeholdError("engines-context-exceeded", message, model=made.model, prompt_tokens=prompt, context=made.context)
        words = words or ["..."]
        limit = min(len(words) if asked.max_tokens is None else asked.max_tokens, made.context - prompt)
        head = self._head(chat=chat)
        counts = TokenCounts(prompt=prompt)
        async with self._slots:
            await self.start()
            self._busy += 1
            try:
                for index in range(asked.n):
                    if chat:
                        yield Chunk(_frame(head, index, {"delta": {"role": "assistant", "content": ""}}), 0, so_far=counts)
                    began, watch, pending = asyncio.get_running_loop().time(), _StopWatch(asked.stop), 0
                    for number in range(limit):
                        await self._next_token(began, number)
                        counts = replace(counts, generated=counts.generated + 1)
                        pending += 1
                        if text := watch.feed((" " if number else "") + words[number % len(words)]):
                            yield Chunk(_frame(head, index, _piece(text, chat=chat)), pending, so_far=counts)
                            pending = 0
                        if watch.stopped:
                            break
                    if watch.held:
                        yield Chunk(_frame(head, index, _piece(watch.held, chat=chat)), pending, so_far=counts)
                        pending = 0
                    done = watch.stopped or (asked.max_tokens is None and limit == len(words))
                    yield Chunk(_frame(head, index, _piece("", chat=chat), "stop" if done else "length"), pending, so_far=counts)
            finally:
                self._busy -= 1
        usage = {"prompt_tokens": prompt, "completion_tokens": counts.generated, "total_tokens": prompt + counts.generated}
        yield Chunk({**head, "choices": [], "usage": usage}, 0, usage=counts, so_far=counts)

    async def _next_token(self, began: float, number: int) -> None:
        """Wait for token `number` (from 0) of an answer that began at loop time `began`; fail if told to."""
        if self._until_crash is not None:
            if self._until_crash <= 0:
                self._until_crash, self._up = None, False
                raise FreeholdError(
                    "engines-crashed",
                    f"the engine of {self._deployment.model} crashed, as it was told to",
                    model=self._deployment.model,
                )
            self._until_crash -= 1
        pace = self._deployment.tokens_per_second
        due = began + (number + 1) / pace - asyncio.get_running_loop().time() if pace else 0.0
        await asyncio.sleep(max(0.0, due))
        if self._closed:
            raise self._stopped()

    def _head(self, *, chat: bool) -> dict[str, Any]:
        name, kind = ("chatcmpl", "chat.completion.chunk") if chat else ("cmpl", "text_completion")
        number = f"{name}-echo-{next(self._numbers)}"
        return {"id": number, "object": kind, "created": int(self._seconds()), "model": self._deployment.model}

    def _stopped(self) -> FreeholdError:
        return FreeholdError(
            "engines-unavailable", f"the engine of {self._deployment.model} was stopped", model=self._deployment.model
        )


class _StopWatch:
    """Text on its way out: holds back what may become a stop word, and ends where one stands."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self.held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """What of the held text and `text` may go out now."""
        self.held += text
        found = [at for word in self._stop if (at := self.held.find(word)) >= 0]
        if found:
            self.stopped = True
            ready, self.held = self.held[: min(found)], ""
            return ready
        keep = max((n for word in self._stop for n in range(1, len(word)) if self.held.endswith(word[:n])), default=0)
        cut = len(self.held) - keep
        ready, self.held = self.held[:cut], self.held[cut:]
        return ready


def _prompt_tokens(request: Mapping[str, Any]) -> int:
    return sum(len(text_of(message).split()) for message in request["messages"])


def _piece(text: str, *, chat: bool) -> dict[str, Any]:
    if chat:
        return {"delta": {"content": text} if text else {}}
    return {"text": text}


def _frame(head: Mapping[str, Any], index: int, piece: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {**head, "choices": [{"index": index, **piece, "logprobs": None, "finish_reason": reason}]}
