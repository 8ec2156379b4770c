"""Any OpenAI-compatible URL as an engine: vLLM, SGLang, Ollama, another freehold, a proprietary API.

Its counts are marked as reported: they are the remote's word. Where it gives none, chunks are counted and marked as
estimated too. What closing an answer does over there cannot be seen from here: the connection is closed, and every server
worth the name stops then. The operator named the URL, so it may lie in a private network; redirects are not followed, and
with local only on, nothing but loopback is asked.

It does not retry: a generation may have been billed. It does not check the remote's health by generating.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from freehold.engines.engine import Asked, Chunk, check_chat, check_completion
from freehold.engines.tally import ReportedTally
from freehold.engines.wire import Refusal, ask, get_json
from freehold.errors import FreeholdError
from freehold.net.async_http import AsyncHttp
from freehold.net.guard import Guard
from freehold.net.urls import parse_url
from freehold.nouns.serving import Deployment, EngineFacts, EngineKind

#: Fields that overrule `max_tokens` or `n` on one server or another; `stream_options` are ours to set.
_LEFT_OUT = frozenset(
    {"stream_options", "n_predict", "n_cmpl", "num_predict", "max_new_tokens", "max_length", "best_of", "options"}
)


class RemoteEngine:
    """`deployment.url` is what the official SDKs call the base URL; `/v1` is added to one that has no path."""

    kind = EngineKind.REMOTE

    def __init__(self, deployment: Deployment, *, guard: Guard, ca_file: Path | None = None, read_timeout: float = 600.0) -> None:
        target = parse_url(deployment.url or "")
        self._deployment = deployment
        self._base = target.url.rstrip("/") if target.path not in ("", "/") else f"{target.url.rstrip('/')}/v1"
        self._headers = {"Authorization": f"Bearer {deployment.api_key}"} if deployment.api_key else {}
        if target.authorization and not self._headers:
            self._headers = {"Authorization": target.authorization}
        self._place = target.place
        self._http = AsyncHttp(guard, trusted=frozenset({target.place}), ca_file=ca_file)
        self._read_timeout = read_timeout
        self._takes_stream_options = True
        self._busy = 0
        self._closed = False

    async def start(self) -> None:
        """Nothing is asked: a remote that is down now may be up when it is needed."""
        if self._closed:
            raise self._stopped()

    async def close(self) -> None:
        self._closed = True
        await self._http.close()

    async def healthy(self) -> bool:
        """Whether it lists its models."""
        if self._closed:
            return False
        try:
            await get_json(self._http, f"{self._base}/models", self._headers, read_timeout=5.0)
        except (FreeholdError, Refusal, ValueError):
            return False
        return True

    async def models(self) -> list[str]:
        """The names that the remote lists. FreeholdError of this room and of the room net."""
        try:
            listing = await get_json(self._http, f"{self._base}/models", self._headers)
            return [str(entry["id"]) for entry in listing["data"]]
        except Refusal as refusal:
            raise self._translate(refusal) from refusal
        except (ValueError, LookupError, TypeError) as error:
            raise FreeholdError(
                "engines-malformed", f"{self._place} does not list its models as OpenAI does", host=self._place
            ) from error

    async def chat(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        asked = check_chat(request)
        async with contextlib.aclosing(self._stream("/chat/completions", request, asked, chat=True)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def complete(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        asked = check_completion(request)
        async with contextlib.aclosing(self._stream("/completions", request, asked, chat=False)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def count_prompt(self, request: Mapping[str, Any]) -> int | None:
        """None: no remote can be relied on to count beforehand."""
        check_chat(request)
        return None

    async def facts(self) -> EngineFacts:
        return EngineFacts(self.kind, self._deployment.model, None, None, self._busy, exact=False)

    async def _stream(self, path: str, request: Mapping[str, Any], asked: Asked, *, chat: bool) -> AsyncGenerator[Chunk, None]:
        if self._closed:
            raise self._stopped()
        body = {k: v for k, v in request.items() if k not in _LEFT_OUT}
        body |= {"model": self._deployment.upstream_model or self._deployment.model, "stream": True}
        body |= {name: asked.max_tokens for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None}
        tally = ReportedTally(self._deployment.model, chat=chat)
        self._busy += 1
        try:
            async with contextlib.aclosing(self._frames(path, body)) as frames:
                async for frame in frames:
                    for chunk in tally.end() if frame is None else tally.feed(frame):
                        yield chunk
        except Refusal as refusal:
            raise self._translate(refusal) from refusal
        except FreeholdError as error:
            if self._closed:
                raise self._stopped() from error
            if error.code == "net-cut":
                message = f"{self._place} broke off its answer"
                raise FreeholdError("engines-cut", message, host=self._place, generated=tally.counts.generated) from error
            raise
        finally:
            self._busy -= 1

    async def _frames(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any] | None, None]:
        """The frames, asking for the usage; asked again without where a server refuses that very field."""
        url = self._base + path
        wanted = {**body, "stream_options": {"include_usage": True}} if self._takes_stream_options else body
        try:
            async with contextlib.aclosing(
                ask(self._http, url, self._headers, wanted, read_timeout=self._read_timeout)
            ) as frames:
                async for frame in frames:
                    yield frame
        except Refusal as refusal:
            if wanted is body or refusal.status not in (400, 422) or "stream_options" not in refusal.message:
                raise
            self._takes_stream_options = False
        else:
            return
        async with contextlib.aclosing(ask(self._http, url, self._headers, body, read_timeout=self._read_timeout)) as frames:
            async for frame in frames:
                yield frame

    def _translate(self, refusal: Refusal) -> FreeholdError:
        said = refusal.message.replace(self._deployment.api_key or "\0", "***")
        context: dict[str, Any] = {"host": self._place, "status": refusal.status, "model": self._deployment.model}
        if refusal.status in (401, 403):
            return FreeholdError("engines-upstream-denied", f"{self._place} refuses the key: {said}", **context)
        if refusal.status == 429:
            if refusal.retry_after is not None:
                context["retry_after"] = max(1, round(refusal.retry_after))
            return FreeholdError("engines-busy", f"{self._place} takes no more requests now: {said}", **context)
        if "context_length" in str(refusal.details.get("code")) or "exceed_context" in str(refusal.details.get("type")):
            return FreeholdError("engines-context-exceeded", f"{self._place}: {said}", **context)
        if refusal.status in (400, 413, 415, 422):
            return FreeholdError("engines-bad-request", f"{self._place}: {said}", **context)
        return FreeholdError("engines-failed", f"{self._place} failed: {said}", **context)

    def _stopped(self) -> FreeholdError:
        return FreeholdError(
            "engines-unavailable", f"the engine of {self._deployment.model} was stopped", model=self._deployment.model
        )
