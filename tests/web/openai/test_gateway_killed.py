"""The gateway is killed again and again under load, while clients leave: no record is lost, none is invented."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from freehold.app import house
from freehold.flows import keys, usage
from freehold.nouns.caller import Scope
from freehold.nouns.usage import Outcome

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

ROUNDS, CLIENTS, TOKENS = 4, 24, 400


@dataclass
class Seen:
    """What one client saw of one answer: `done` if it ended with [DONE]; `left`: the client went of its own will."""

    request: str
    words: int = 0
    done: bool = False
    left: bool = False


async def _load(url: str, key: str, seen: list[Seen], dice: random.Random) -> None:
    """Many clients until the server is gone; a third of the answers is left in the middle."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, connector=connector) as session:

        async def client() -> None:
            while True:
                leave = dice.randrange(1, TOKENS) if dice.random() < 0.3 else None
                message = [{"role": "user", "content": "word"}]
                body = {"model": "echo", "messages": message, "max_tokens": TOKENS, "stream": True}
                try:
                    async with session.post(f"{url}/v1/chat/completions", json=body) as got:
                        seen.append(Seen(got.headers.getall("x-request-id")[0]))
                        await _read(got, seen[-1], leave)
                except aiohttp.ClientError:
                    return

        await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def _read(got: aiohttp.ClientResponse, found: Seen, leave: int | None) -> None:
    async for line in got.content:
        found.done = found.done or line.startswith(b"data: [DONE]")
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:])["choices"]
            found.words += bool(choices and choices[0]["delta"].get("content"))
        if found.words == leave:
            found.left = True
            got.close()
            return


def _round(argv: list[str], env: dict[str, str], key: str, seen: list[Seen], dice: random.Random) -> None:
    server = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = json.loads(next(line for line in server.stdout if line.startswith("{")))["url"]
        threading.Timer(dice.uniform(0.7, 1.5), server.kill).start()
        asyncio.run(_load(url, key, seen, dice))
    finally:
        server.kill()
        server.communicate()


def test_after_every_kill_each_request_has_exactly_one_record_and_no_token_is_charged_that_was_not_delivered(
    tmp_path: Path,
) -> None:
    home = str(tmp_path / "home")
    env = os.environ | {"FREEHOLD_USE__ECHO": "true", "FREEHOLD_USE__GENERATED_PRICE": "1000000"}
    with house(home) as opened:
        key = keys.create_key(opened.parts, opened.caller, "load", frozenset({Scope.CHAT})).token
    seen: list[Seen] = []
    argv = [sys.executable, "-m", "freehold", "--home", home, "up", "--port", "0", "--json"]
    for number in range(ROUNDS):
        _round(argv, env, key, seen, random.Random(number))  # noqa: S311 - a seed, not a secret
    with house(home) as opened:
        audit, ended = usage.check_ledger(opened.parts, opened.caller)
        records = {r.reservation: r for r in usage.requests(opened.parts, opened.caller, limit=1_000_000)}
    assert audit.ok, audit.broken
    assert sum(flow.open_requests for flow in audit.flows) == 0
    assert ended > 0, "the last kill left nothing open: the load was too light to mean anything"
    assert len({s.request for s in seen}) == len(seen)
    assert {s.request for s in seen} <= set(records), "a request that was answered has no record"
    for found in seen:
        record = records[found.request]
        assert record.cost == record.counts.delivered <= record.counts.generated <= TOKENS
        if found.done:
            assert (record.outcome, record.counts.delivered, found.words) == (Outcome.SETTLED, TOKENS, TOKENS)
        if record.reason == "cancelled":
            assert found.left
            assert record.counts.delivered >= found.words
    finished, left = sum(s.done for s in seen), sum(s.left for s in seen)
    print(
        f"{len(seen)} answers: {finished} finished, {left} left, {sum(r.reason == 'process-died' for r in records.values())} died"
    )
    assert finished > 0
    assert left > 0
