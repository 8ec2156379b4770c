"""The OpenAI API as it stands on the wire: shapes, errors, frames, records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from freehold.nouns.usage import Outcome

CHAT = "/v1/chat/completions"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


async def _frames(gateway: Any, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[str]:
    async with aiohttp.ClientSession() as session, session.post(gateway.url + path, json=body, headers=gateway.headers()) as got:
        assert got.status == 200, await got.text()
        assert got.headers["content-type"].startswith("text/event-stream")
        text = (await got.read()).decode()
    assert text.endswith("\n\n")
    frames = text.removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames]


def test_a_whole_answer_has_openais_shape_and_its_record_has_its_counts(gateway: Any, ask: Any) -> None:
    status, answer, headers = ask(gateway, "/v1/chat/completions", HELLO)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "echo"
    assert answer["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "one two three"},
        }
    ]
    assert answer["usage"]["completion_tokens"] == answer["usage"]["prompt_tokens"] == 3
    (record,) = gateway.records(1)
    assert (record.counts.prompt, record.counts.generated, record.counts.delivered) == (3, 3, 3)
    assert (record.outcome, record.reason, record.engine, record.model) == (Outcome.SETTLED, "stop", "echo", "echo")
    assert record.principal.startswith("key:")
    assert record.first_token_us is not None
    assert record.at <= record.finished_at
    assert record.reservation in headers.getall("x-request-id")


def test_a_stream_ends_with_done_and_has_a_usage_frame_only_if_asked_for(gateway: Any) -> None:
    *chunks, done = asyncio.run(_frames(gateway, {**HELLO, "stream": True}))
    assert done == "[DONE]"
    payloads = [json.loads(chunk) for chunk in chunks]
    assert all(p["object"] == "chat.completion.chunk" and len(p["choices"]) == 1 for p in payloads)
    assert "".join(p["choices"][0]["delta"].get("content") or "" for p in payloads) == "one two three"
    assert [p["choices"][0]["finish_reason"] for p in payloads][-1] == "stop"
    asked = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    *others, usage, done = asyncio.run(_frames(gateway, asked))
    assert all(json.loads(other)["usage"] is None for other in others)
    assert done == "[DONE]"
    assert json.loads(usage)["choices"] == []
    assert json.loads(usage)["usage"]["total_tokens"] == 6
    assert [r.counts.delivered for r in gateway.records(2)] == [3, 3]


def test_the_record_is_durable_before_the_last_frame_is_sent(gateway: Any) -> None:
    async def go() -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(5):
                body = {**HELLO, "stream": True}
                async with session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers()) as got:
                    async for line in got.content:
                        if line.startswith(b"data: [DONE]"):
                            recorded = {r.reservation for r in gateway.records()}
                            assert recorded & set(got.headers.getall("x-request-id"))

    asyncio.run(go())


def test_completions_are_answered_too(gateway: Any, ask: Any) -> None:
    body = {"model": "echo", "prompt": "one two", "max_tokens": 3}
    status, answer, _ = ask(gateway, "/v1/completions", body)
    assert status == 200
    assert answer["object"] == "text_completion"
    assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("one two one", "length")
    *chunks, done = asyncio.run(_frames(gateway, {**body, "stream": True}, "/v1/completions"))
    assert done == "[DONE]"
    assert "".join(json.loads(c)["choices"][0]["text"] for c in chunks) == "one two one"
    assert [r.counts.generated for r in gateway.records(2)] == [3, 3]


def test_several_choices_come_back_whole_and_are_all_counted(gateway: Any, ask: Any) -> None:
    _, answer, _ = ask(gateway, "/v1/chat/completions", {**HELLO, "n": 3})
    assert [(c["index"], c["message"]["content"]) for c in answer["choices"]] == [(i, "one two three") for i in range(3)]
    assert gateway.records(1)[0].counts.generated == 9


def test_models_are_listed_with_where_they_run(gateway: Any, ask: Any) -> None:
    status, listing, _ = ask(gateway, "/v1/models")
    assert (status, listing["object"]) == (200, "list")
    (echo,) = listing["data"]
    assert (echo["id"], echo["object"], echo["owned_by"], echo["freehold"]["origin"]) == ("echo", "model", "freehold", "local")
    assert isinstance(echo["created"], int)
    assert ask(gateway, "/v1/models/echo")[1] == echo


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        (CHAT, {"messages": HELLO["messages"]}, 400, "use-request-invalid", "model"),
        (CHAT, {**HELLO, "model": "none/such"}, 404, "model_not_found", "model"),
        (CHAT, {**HELLO, "model": "../../etc/passwd"}, 404, "model_not_found", "model"),
        (CHAT, {"model": "echo"}, 400, "engines-bad-request", "messages"),
        (CHAT, {**HELLO, "messages": [7]}, 400, "engines-bad-request", "messages[0]"),
        (CHAT, {**HELLO, "stream": "yes"}, 400, "use-request-invalid", "stream"),
        (CHAT, {**HELLO, "temperature": 9}, 400, "use-request-invalid", "temperature"),
        (CHAT, {**HELLO, "max_tokens": 0}, 400, "engines-bad-request", "max_tokens"),
        (CHAT, {**HELLO, "stream_options": {}}, 400, "use-request-invalid", "stream_options"),
        (CHAT, [HELLO], 400, "use-request-invalid", None),
        (CHAT, {**HELLO, "messages": [{"role": "user", "content": "x " * 5000}]}, 400, "context_length_exceeded", None),
        ("/v1/embeddings", {"model": "echo", "input": "x"}, 404, "unknown_url", None),
        ("/v1/models/none/such", None, 404, "model_not_found", "model"),
    ],
)
def test_what_cannot_be_answered_says_why_in_openais_shape(
    gateway: Any, ask: Any, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    found, answer, _ = ask(gateway, path, body)
    error = answer["error"]
    assert (found, error["type"], error["code"], error["param"]) == (status, "invalid_request_error", code, param)
    assert error["message"]
    assert error["freehold"]["hint"]
    assert all(r.outcome is Outcome.RELEASED for r in gateway.records())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"model": NaN}', b'{"model": "\\ud800"}'])
def test_a_body_that_is_no_json_is_a_clear_error(gateway: Any, ask: Any, data: bytes) -> None:
    status, answer, _ = ask(gateway, "/v1/chat/completions", data=data)
    assert (status, answer["error"]["code"]) == (400, "use-request-invalid")
    assert gateway.records() == []


def test_a_key_is_needed_and_must_have_the_scope(gateway: Any, ask: Any) -> None:
    for headers, status, code in (
        ({}, 401, "invalid_api_key"),
        ({"Authorization": "Bearer fh_nonsense"}, 401, "invalid_api_key"),
        ({"Authorization": "Basic abc"}, 401, "invalid_api_key"),
        (gateway.headers(gateway.reader), 403, "insufficient_permissions"),
    ):
        for path, body in (
            ("/v1/chat/completions", HELLO),
            ("/v1/completions", {}),
            ("/v1/models", None),
            ("/v1/models/echo", None),
        ):
            found, answer, _ = ask(gateway, path, body, headers=headers)
            assert (found, answer["error"]["code"]) == (status, code), path
    assert gateway.records() == []


def test_another_method_is_refused_with_the_one_that_is_allowed(gateway: Any, ask: Any) -> None:
    status, answer, headers = ask(gateway, "/v1/chat/completions", method="GET")
    assert (status, headers["Allow"]) == (405, "POST")
    assert answer["error"]["type"] == "invalid_request_error"


def test_a_body_beyond_the_limit_is_refused(open_gateway: Callable[..., Any], ask: Any) -> None:
    gateway = open_gateway({"FREEHOLD_SERVER__MAX_BODY_BYTES": "1000"})
    big = {**HELLO, "messages": [{"role": "user", "content": "x" * 2000}]}
    status, answer, _ = ask(gateway, "/v1/chat/completions", big)
    assert (status, answer["error"]["code"]) == (413, "server-too-large")


def test_text_in_any_script_and_escapes_come_back_as_they_were(gateway: Any, ask: Any) -> None:
    text = 'καλημέρα 世界 🙂 \u2028 \\n "quoted" </data:'
    body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
    assert ask(gateway, "/v1/chat/completions", body)[1]["choices"][0]["message"]["content"].split() == text.split()
    *chunks, _ = asyncio.run(_frames(gateway, {**body, "stream": True}))
    assert "".join(json.loads(c)["choices"][0]["delta"].get("content") or "" for c in chunks).split() == text.split()


def test_an_engine_that_crashes_in_the_middle_gives_an_error_frame_no_done_and_an_interrupted_record(
    open_gateway: Callable[..., Any], ask: Any
) -> None:
    gateway = open_gateway(crash_after=5)
    body = {**HELLO, "max_tokens": 50, "stream": True}
    *chunks, error = asyncio.run(_frames(gateway, body))
    assert json.loads(error)["error"]["code"] == "engines-crashed"
    assert all("choices" in json.loads(chunk) for chunk in chunks)
    (record,) = gateway.records(1)
    assert (record.outcome, record.reason) == (Outcome.INTERRUPTED, "engines-crashed")
    assert (record.counts.generated, record.counts.delivered) == (5, 5)
    assert gateway.busy() == 0
    status, answer, _ = ask(gateway, "/v1/chat/completions", HELLO)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "one two three")


def test_an_engine_that_crashes_in_a_whole_answer_is_an_http_error_and_delivers_nothing(
    open_gateway: Callable[..., Any], ask: Any
) -> None:
    gateway = open_gateway(crash_after=5)
    status, answer, _ = ask(gateway, "/v1/chat/completions", {**HELLO, "max_tokens": 50})
    assert (status, answer["error"]["code"]) == (502, "engines-crashed")
    (record,) = gateway.records(1)
    assert (record.outcome, record.counts.delivered, record.counts.generated) == (Outcome.INTERRUPTED, 0, 5)


def test_a_budget_for_ten_admits_exactly_ten_of_many_parallel_requests(open_gateway: Callable[..., Any]) -> None:
    from freehold.use import ledger as book

    gateway = open_gateway({"FREEHOLD_USE__GENERATED_PRICE": "1000000"}, tokens_per_second=2.0)
    principal = f"key:{gateway.key.split('_')[1]}"
    with gateway.house.parts.ledger.write() as tx:
        book.credit(tx, principal, "EUR", 20, 1)
        book.set_floor(tx, principal, "EUR", 0, 1)

    async def go() -> list[int]:
        body = {**HELLO, "max_tokens": 2}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one() -> int:
                async with session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers()) as got:
                    if got.status == 429:
                        error = (await got.json())["error"]
                        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
                    return got.status

            return await asyncio.gather(*(one() for _ in range(60)))

    statuses = asyncio.run(go())
    assert statuses.count(200) == 10
    assert statuses.count(429) == 50
    assert [r.cost for r in gateway.records(10)] == [2] * 10
