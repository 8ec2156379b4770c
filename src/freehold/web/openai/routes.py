"""The routes of the OpenAI API: what comes over the wire is parsed here, what goes back is rendered here.

A stream is server-sent events exactly as OpenAI sends them: `data: {...}`, an empty line, at the end `data: [DONE]`. If the
engine fails in the middle, the failure is a frame of its own and there is no [DONE], so that nobody takes half an answer
for a whole one. Each answer carries `x-request-id`, the id under which the ledger has the request.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.routing import Route

from freehold.app import House
from freehold.errors import FreeholdError
from freehold.flows.chat import ChatAnswer, chat, complete
from freehold.flows.keys import identify
from freehold.flows.offered import Offer, find_offer, list_offers
from freehold.nouns.caller import Caller
from freehold.nouns.ids import uuid7
from freehold.web.asgi import Message, Receive, Scope, Send, bearer, json_answer
from freehold.web.front import read_body
from freehold.web.openai.errors import error_answer, error_body
from freehold.web.presence import WhileConnected

#: A client that takes no byte for so long counts as gone, since it holds an engine's slot.
STALL_SECONDS = 60.0

#: Half a character, written as an escape: JSON allows it, UTF-8 (and so every answer) does not.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DONE = b"data: [DONE]\n\n"
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
Flow = Callable[..., Awaitable[ChatAnswer]]
Handle = Callable[["_Call"], Awaitable[None]]


def routes(house: House) -> list[Route]:
    """All under /v1; what is unknown there is refused in OpenAI's own words."""

    def route(path: str, methods: tuple[str, ...], handle: Handle) -> Route:
        return Route(path, _Endpoint(house, methods, handle))

    return [
        route("/v1/models", ("GET", "HEAD"), _list_models),
        route("/v1/models/{model:path}", ("GET", "HEAD"), _show_model),
        route("/v1/chat/completions", ("POST",), lambda call: _answer(call, chat)),
        route("/v1/completions", ("POST",), lambda call: _answer(call, complete)),
        route("/v1/{rest:path}", (), _no_route),
    ]


class _Call:
    """One request at this door. `id` is what the ledger and the client know it by."""

    def __init__(self, house: House, scope: Scope, receive: Receive, send: Send) -> None:
        self.parts = house.parts
        self.scope, self.receive = scope, receive
        self.id = uuid7(house.parts.clock())
        self.started = False
        self._send = send

    async def caller(self) -> Caller:
        """FreeholdError access-key-missing, access-key-invalid."""
        token = bearer(self.scope)
        if token is None:
            raise FreeholdError("access-key-missing", "you did not provide an API key in the header 'Authorization: Bearer'")
        found = await asyncio.to_thread(identify, self.parts, token, "openai")
        self.scope["freehold.principal"] = found.principal
        return found

    async def send(self, message: Message) -> None:
        """FreeholdError use-client-stalled if the client takes nothing for too long."""
        self.started = True
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._send(message)
        except TimeoutError as error:
            raise FreeholdError("use-client-stalled", f"the client took nothing for {STALL_SECONDS:.0f} s") from error

    async def json(self, data: Mapping[str, Any]) -> None:
        await json_answer(data, headers=((b"x-request-id", self.id.encode()),))(self.scope, self.receive, self.send)

    def check_method(self, allowed: tuple[str, ...]) -> None:
        """FreeholdError use-method-not-allowed; no methods allow all."""
        if allowed and self.scope["method"] not in allowed:
            said = f"{self.scope['path']} takes {', '.join(allowed)}, not {self.scope['method']}"
            raise FreeholdError("use-method-not-allowed", said, allow=", ".join(allowed))


class _Endpoint:
    """An ASGI application for one route; an instance, so that Starlette hands it the bare connection."""

    def __init__(self, house: House, methods: tuple[str, ...], handle: Handle) -> None:
        self._house, self._methods, self._handle = house, methods, handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = _Call(self._house, scope, receive, send)
        try:
            call.check_method(self._methods)
            await self._handle(call)
        except FreeholdError as error:
            if call.started:
                raise
            await error_answer(error, call.id)(scope, receive, send)


async def _list_models(call: _Call) -> None:
    offers = await list_offers(call.parts, await call.caller())
    await call.json({"object": "list", "data": [_model(offer) for offer in offers]})


async def _show_model(call: _Call) -> None:
    await call.json(_model(await find_offer(call.parts, await call.caller(), call.scope["path_params"]["model"])))


async def _no_route(call: _Call) -> None:
    scope = call.scope
    raise FreeholdError("use-no-route", f"unknown request URL: {scope['method']} {scope['path']}")


async def _answer(call: _Call, flow: Flow) -> None:
    """Both kinds of completion, streamed or whole. The client is watched from the moment its request is complete."""
    caller = await call.caller()
    body = _parse(await read_body(call.receive))
    async with WhileConnected(call.receive), aclosing(await flow(call.parts, caller, body, request_id=call.id)) as answer:
        if answer.streams:
            await _stream(call, answer)
        else:
            await call.json(await anext(answer))


async def _stream(call: _Call, answer: ChatAnswer) -> None:
    headers = [*_STREAM_HEADERS, (b"x-request-id", call.id.encode())]
    await call.send({"type": "http.response.start", "status": 200, "headers": headers})
    last = _DONE
    try:
        async for payload in answer:
            await call.send({"type": "http.response.body", "body": _frame(payload), "more_body": True})
    except FreeholdError as error:
        last = _frame(error_body(error))
    await call.send({"type": "http.response.body", "body": last})


def _frame(payload: Mapping[str, Any]) -> bytes:
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def _parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. FreeholdError use-request-invalid."""
    try:
        found = json.loads(body, parse_constant=_refuse)
        if _SURROGATE.search(body):
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise FreeholdError("use-request-invalid", f"we could not parse the JSON body of your request: {error}") from error
    if not isinstance(found, dict):
        raise FreeholdError("use-request-invalid", "the body of your request must be a JSON object")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _model(offer: Offer) -> dict[str, Any]:
    """OpenAI's four fields, and what freehold knows beyond them under a name of its own."""
    own = {
        "origin": "local" if offer.local else "remote",
        "engine": str(offer.engine),
        "context": offer.context,
        "revision": offer.revision,
        "file": offer.file,
        "license": offer.license,
    }
    seconds = offer.created // 1_000_000
    return {"id": offer.id, "object": "model", "created": seconds, "owned_by": offer.owned_by, "freehold": own}
