"""A client that leaves, at any moment, loses neither the usage record nor the engine's slot."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from freehold.flows.chat import ChatAnswer
from freehold.nouns.usage import Outcome

routes = importlib.import_module("freehold.web.openai.routes")  # the package has a function of this name

LONG = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 4000}


def _until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def _head(gateway: Any, body: bytes) -> bytes:
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {gateway.key}")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()


async def _leave_after(gateway: Any, frames: int) -> str:
    """Stream, read so many frames with text, close the connection; the text that was read."""
    text = ""
    async with aiohttp.ClientSession() as session:
        body = {**LONG, "stream": True}
        got = await session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers())
        async for line in got.content:
            if line.startswith(b"data: "):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                frames -= bool(text)
            if frames <= 0:
                break
        got.close()
    return text


def test_a_client_that_disconnects_in_the_middle_is_recorded_and_frees_the_slot(open_gateway: Callable[..., Any]) -> None:
    gateway = open_gateway({"FREEHOLD_USE__GENERATED_PRICE": "1000000"}, tokens_per_second=200.0, slots=1)
    read = len(asyncio.run(_leave_after(gateway, 10)).split())
    (record,) = gateway.records(1)
    assert (record.outcome, record.reason) == (Outcome.INTERRUPTED, "cancelled")
    assert record.counts.generated >= record.counts.delivered >= read > 0
    assert record.counts.generated < 100, "the engine went on"
    assert record.cost == record.counts.delivered
    assert gateway.busy() == 0
    began = time.monotonic()
    asyncio.run(_leave_after(gateway, 1))
    assert time.monotonic() - began < 3, "the only slot was not free"
    assert len(gateway.records(2)) == 2


def test_control_without_closing_the_answer_the_record_is_missing_and_the_slot_taken(
    open_gateway: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would see if the door did not watch the client and close the chain."""
    kept: list[ChatAnswer] = []

    class Blind:
        def __init__(self, _receive: object) -> None: ...
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> bool:
            return False

    class Open:
        def __init__(self, answer: ChatAnswer) -> None:
            kept.append(answer)

        async def __aenter__(self) -> AsyncIterator[dict[str, Any]]:
            return kept[-1]

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr(routes, "WhileConnected", Blind)
    monkeypatch.setattr(routes, "aclosing", Open)
    gateway = open_gateway(tokens_per_second=200.0, slots=1)
    asyncio.run(_leave_after(gateway, 10))
    time.sleep(0.5)
    assert gateway.records() == []
    assert gateway.busy() == 1


def test_a_client_that_leaves_a_whole_answer_before_it_is_there_pays_nothing(open_gateway: Callable[..., Any]) -> None:
    gateway = open_gateway({"FREEHOLD_USE__GENERATED_PRICE": "1000000"}, tokens_per_second=50.0, slots=1)

    async def go() -> None:
        timeout = aiohttp.ClientTimeout(total=0.4)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            with pytest.raises(TimeoutError):
                await session.post(f"{gateway.url}/v1/chat/completions", json=LONG, headers=gateway.headers())

    asyncio.run(go())
    (record,) = gateway.records(1)
    assert (record.outcome, record.counts.delivered, record.cost) == (Outcome.INTERRUPTED, 0, 0)
    assert record.counts.generated > 0
    assert gateway.busy() == 0


def test_a_client_that_leaves_while_it_waits_for_a_slot_is_released(open_gateway: Callable[..., Any]) -> None:
    gateway = open_gateway(tokens_per_second=50.0, slots=1)

    async def go() -> None:
        async with aiohttp.ClientSession() as session:
            url, headers = f"{gateway.url}/v1/chat/completions", gateway.headers()
            first = await session.post(url, json={**LONG, "stream": True}, headers=headers)
            await first.content.readline()
            with pytest.raises(TimeoutError):
                await session.post(url, json={**LONG, "stream": True}, headers=headers, timeout=aiohttp.ClientTimeout(total=0.3))
            first.close()

    asyncio.run(go())
    records = gateway.records(2)
    assert {r.outcome for r in records} == {Outcome.RELEASED, Outcome.INTERRUPTED}
    assert _until(lambda: gateway.busy() == 0)


def test_a_client_that_resets_its_connection_is_as_gone_as_one_that_closes_it(open_gateway: Callable[..., Any]) -> None:
    gateway = open_gateway(tokens_per_second=200.0, slots=1)
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({**LONG, "stream": True}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(_head(gateway, body) + body)
        assert connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    (record,) = gateway.records(1)
    assert record.outcome is Outcome.INTERRUPTED
    assert gateway.busy() == 0


def test_a_client_that_stops_reading_is_let_go_after_a_while(
    open_gateway: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "STALL_SECONDS", 0.3)
    gateway = open_gateway({"FREEHOLD_USE__CONTEXT": "10000000"}, slots=1)
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({**LONG, "max_tokens": 1_000_000, "stream": True}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(_head(gateway, body) + body)
        assert _until(lambda: len(gateway.records()) == 1, 20)
    (record,) = gateway.records(1)
    assert record.outcome is Outcome.INTERRUPTED
    assert record.counts.generated < 1_000_000
    assert _until(lambda: gateway.busy() == 0)


def test_of_many_clients_of_which_a_third_leaves_every_request_has_exactly_one_record(open_gateway: Callable[..., Any]) -> None:
    gateway = open_gateway({"FREEHOLD_USE__GENERATED_PRICE": "1000000"}, tokens_per_second=300.0, slots=16)

    async def go() -> tuple[int, int]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(number: int) -> int:
                body = {**LONG, "max_tokens": 20, "stream": True}
                got = await session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers())
                seen = 0
                async for line in got.content:
                    seen += b'"content":"' in line and b'"content":""' not in line
                    if number % 3 == 0 and seen == 5:
                        got.close()
                        return 0
                assert line == b"\n"
                return seen

            whole = [n for n in await asyncio.gather(*(one(i) for i in range(60))) if n]
            return len(whole), sum(whole)

    finished, tokens = asyncio.run(go())
    records = gateway.records(60)
    settled = [r for r in records if r.outcome is Outcome.SETTLED]
    assert len(settled) == finished == 40
    assert sum(r.counts.delivered for r in settled) == tokens == 800
    assert all(r.cost == r.counts.delivered <= r.counts.generated for r in records)
    assert all(5 <= r.counts.delivered <= 20 for r in records if r.outcome is Outcome.INTERRUPTED)
    assert gateway.busy() == 0
