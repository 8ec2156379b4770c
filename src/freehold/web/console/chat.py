"""Chat: a conversation that lives in the page, answered as a stream, or in whole for who has no scripts.

The page carries the conversation in its form and the server keeps none of it; the usage record is all that stays. What a
model says is text: it is shown as it came, never read as markup.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from freehold.errors import FreeholdError
from freehold.flows import chat
from freehold.flows.offered import list_offers
from freehold.nouns.usage import UsageRecord
from freehold.web.console.forms import Form
from freehold.web.console.page import render
from freehold.web.console.place import parts_of
from freehold.web.console.visitor import visitor
from freehold.web.console.words import grouped
from freehold.web.presence import WhileConnected

_MOST_TURNS = 400
_TOKENS = 1024
#: A browser that takes no byte for so long counts as gone, since it holds an engine's slot.
_STALL_SECONDS = 60.0

Turns = list[dict[str, str]]


async def show(request: Request) -> Response:
    """GET /-/chat?model=: an empty conversation."""
    return await _page(request, [], model=request.query_params.get("model", ""))


async def answer(request: Request, form: Form) -> Response:
    """POST /-/chat: the page with the whole answer in it."""
    turns = _turns(form)
    async with WhileConnected(request.receive):
        try:
            async with aclosing(await chat.chat(parts_of(request), visitor(request).caller, _body(form, turns, False))) as said:
                whole = await anext(said)
            turns.append({"role": "assistant", "content": whole["choices"][0]["message"]["content"] or ""})
        except FreeholdError as error:
            if error.row.http in (401, 403):
                raise
            *before, asked = turns
            return await _page(request, before, form.get("model"), form=form, error=error, draft=asked["content"])
        return await _page(request, turns, form.get("model"), form=form, meter=_meter(said.record))
    return Response(status_code=204)


async def stream(_request: Request, form: Form) -> Response:
    """POST /-/chat/stream: server-sent events `text`, then `end` with the counts or `failed` with code, message and hint."""
    return _Stream(_body(form, _turns(form), True))


def refusal(error: FreeholdError) -> Response:
    """A failure as the page's script reads it."""
    return JSONResponse(_told(error), error.row.http)


class _Stream(Response):
    """The answer as it comes. A browser that leaves ends the generation, and what it used is on record by then."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__()
        self._body, self._begun = body, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        parts, caller = parts_of(request), visitor(request).caller
        try:
            async with WhileConnected(receive), aclosing(await chat.chat(parts, caller, self._body)) as said:
                await self._start(send)
                async for payload in said:
                    if event := _event(payload):
                        await self._send(send, *event)
                await self._end(send, "end", {"meter": _meter(said.record)})
        except FreeholdError as error:
            if not self._begun:
                raise
            if error.code != "use-client-stalled":
                await self._end(send, "failed", _told(error))

    async def _start(self, send: Send) -> None:
        self._begun = True
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send(self, send: Send, kind: str, data: dict[str, Any], more: bool = True) -> None:
        frame = f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                await send({"type": "http.response.body", "body": frame, "more_body": more})
        except TimeoutError as error:
            raise FreeholdError("use-client-stalled", f"the browser took nothing for {_STALL_SECONDS:.0f} s") from error

    async def _end(self, send: Send, kind: str, data: dict[str, Any]) -> None:
        await self._send(send, kind, data, more=False)


def _told(error: FreeholdError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def _event(payload: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """What the page needs of one chunk: text of the answer, or of the thinking before it."""
    for choice in payload.get("choices") or ():
        delta = choice.get("delta") or {}
        if delta.get("content"):
            return "text", {"text": delta["content"]}
        if delta.get("reasoning_content"):
            return "thought", {"text": delta["reasoning_content"]}
    return None


def _turns(form: Form) -> Turns:
    """The conversation so far with the new question at its end. FreeholdError console-field-invalid."""
    try:
        told = json.loads(form.get("history") or "[]")
    except (ValueError, RecursionError) as error:
        raise FreeholdError("console-field-invalid", "the conversation that the page sent cannot be read") from error
    fits = isinstance(told, list) and all(
        isinstance(t, dict) and t.get("role") in ("user", "assistant") and isinstance(t.get("content"), str) for t in told
    )
    if not fits or len(told) > _MOST_TURNS:
        raise FreeholdError("console-field-invalid", f"a conversation is a list of at most {_MOST_TURNS} turns")
    text = form.get("text").strip()
    if not text:
        raise FreeholdError("console-field-invalid", "there is no question to answer", hint="Write one, then send it.")
    return [{"role": t["role"], "content": t["content"]} for t in told] + [{"role": "user", "content": text}]


def _body(form: Form, turns: Turns, streams: bool) -> dict[str, Any]:
    limit = form.get("limit") or str(_TOKENS)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 8):
        raise FreeholdError("console-field-invalid", f"the longest answer must be a number of tokens, not {limit!r}")
    system = form.get("system").strip()
    before = [{"role": "system", "content": system}] if system else []
    return {"model": form.get("model"), "messages": before + turns, "max_tokens": int(limit), "stream": streams}


def _meter(record: UsageRecord | None) -> str:
    """Counts and pace of a finished answer, as the ledger has them."""
    if record is None:
        return ""
    counts, seconds = record.counts, (record.finished_at - record.at) / 1e6
    first = (record.first_token_us or 0) / 1e6
    told = [f"{grouped(counts.generated)} tokens in {seconds:.1f} s", f"first after {first:.2f} s"]
    if counts.generated > 1 and seconds > first:
        told.append(f"{(counts.generated - 1) / (seconds - first):.1f} tokens/s")
    told.append(f"{grouped(counts.prompt)} in the prompt")
    return " · ".join(told) + (" · as reported by the remote" if counts.reported else "")


async def _page(
    request: Request, turns: Turns, model: str, *, form: Form | None = None, error: FreeholdError | None = None, meter: str = "",
    draft: str = "",
) -> Response:  # fmt: skip
    offers = await list_offers(parts_of(request), visitor(request).caller)
    chosen = next((o.id for o in offers if o.id == model or o.id.startswith((f"{model}:", f"{model}@"))), "") if model else ""
    return await asyncio.to_thread(
        render, request, "chat.html", error.row.http if error else 200, section="chat", offers=offers, chosen=chosen,
        wanted=model, turns=turns, history=json.dumps(turns, ensure_ascii=False), error=error, meter=meter, draft=draft,
        system=form.get("system") if form else "", limit=form.get("limit") if form else str(_TOKENS),
    )  # fmt: skip
