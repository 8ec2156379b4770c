"""An OpenAI-compatible URL as an engine: the laws, and what servers do that they should not."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from freehold.engines.engine import Engine
from freehold.engines.llamacpp import LlamaCppEngine
from freehold.engines.remote import RemoteEngine
from freehold.errors import FreeholdError
from freehold.net.guard import Guard
from freehold.nouns.serving import Deployment, EngineKind
from freehold.testing import engine as suite

Answer = Callable[[dict[str, Any]], bytes]


def _remote(url: str, guard: Guard | None = None, **options: Any) -> RemoteEngine:
    deployment = Deployment("far/model", EngineKind.REMOTE, url=url, **options)
    return RemoteEngine(deployment, guard=guard or Guard(proxies={}), read_timeout=5.0)


def _beside(served: LlamaCppEngine) -> RemoteEngine:
    return _remote(served.address or "", api_key=served.key, upstream_model="lab/noise")


@pytest.mark.parametrize("check", [*suite.CHECKS, *suite.LAST_CHECKS], ids=lambda check: check.__name__)
def test_it_keeps_every_law_of_an_engine(runner: asyncio.Runner, served: LlamaCppEngine, check: suite.Check) -> None:
    async def story() -> None:
        async with suite.running(_beside(served)) as engine:
            await check(engine)

    runner.run(story())


def test_closing_its_stream_frees_the_slot_over_there(runner: asyncio.Runner, served: LlamaCppEngine) -> None:
    async def story() -> None:
        async with suite.running(_beside(served)) as engine:
            stream = engine.chat(suite.body(max_tokens=200, ignore_eos=True))
            await anext(stream)
            await stream.aclose()
            async with asyncio.timeout(suite.SLOT_FREE):
                while (await served.facts()).busy:  # noqa: ASYNC110 - another process is waited for
                    await asyncio.sleep(0.01)

    runner.run(story())


def test_its_counts_are_the_remotes_word_and_marked_so(runner: asyncio.Runner, served: LlamaCppEngine) -> None:
    async def story() -> None:
        async with suite.running(_beside(served)) as engine:
            usage = (await suite.collect(engine.chat(suite.body()))).usage
            assert (usage.reported, usage.estimated) == (True, False)
            assert (await engine.facts()).exact is False
            assert isinstance(engine, RemoteEngine)
            assert await engine.models() == ["lab/noise"]

    runner.run(story())


async def _serve(answer: Answer, story: Callable[[str, list[dict[str, Any]]], Awaitable[None]]) -> None:
    """Run `story` against a server that gives every POST the raw bytes of `answer`; bodies and headers are kept."""
    seen: list[dict[str, Any]] = []
    talking: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
        body = json.loads(await reader.readexactly(length)) if length else {}
        seen.append({**body, "#head": head})
        raw = answer(body)
        writer.write(raw)
        await writer.drain()
        if b"X-Lingers" in raw:
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(asyncio.create_task(talk(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        await story(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", seen)
        await asyncio.wait_for(asyncio.gather(*talking), 5)


def _http(status: str, body: str, kind: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _stream(*frames: Any) -> bytes:
    return _http(
        "200 OK", "".join(f"data: {f if isinstance(f, str) else json.dumps(f)}\n\n" for f in frames), "text/event-stream"
    )


def _piece(text: str | None, reason: str | None = None) -> dict[str, Any]:
    delta = {"content": text} if text else {}
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


def _ask(answer: Answer, check: Callable[[Engine, list[dict[str, Any]]], Awaitable[None]], **options: Any) -> None:
    async def story(url: str, seen: list[dict[str, Any]]) -> None:
        async with suite.running(_remote(url, **options)) as engine:
            await check(engine, seen)

    asyncio.run(_serve(answer, story))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (_http("401 Unauthorized", '{"error": {"message": "bad key sk-hunter2"}}'), "engines-upstream-denied"),
        (_http("403 Forbidden", '{"error": "no"}'), "engines-upstream-denied"),
        (_http("429 Too Many", '{"error": {"message": "slow down"}}', Retry_After="7"), "engines-busy"),
        (_http("400 Bad", '{"error": {"message": "too long", "code": "context_length_exceeded"}}'), "engines-context-exceeded"),
        (_http("400 Bad", '{"detail": "what?"}'), "engines-bad-request"),
        (_http("422 Bad", '{"detail": [{"msg": "what?"}]}'), "engines-bad-request"),
        (_http("404 Not Found", "<html>", "text/html"), "engines-failed"),
        (_http("500 Oops", "\xff", "text/plain"), "engines-failed"),
        (_http("302 Found", "", Location="http://169.254.169.254/"), "engines-failed"),
        (_http("200 OK", "<html>hello</html>", "text/html"), "engines-malformed"),
        (_http("200 OK", "[1]"), "engines-malformed"),
        (_stream("not json"), "engines-malformed"),
        (_stream(_piece("a"), {"error": {"message": "gpu on fire", "code": 503}}), "engines-failed"),
        (_stream(_piece("a")), "engines-cut"),
        (_stream("[DONE]"), "engines-cut"),
        (_stream(_piece("a"), _piece(None, "stop"), "[DONE]")[:-40], "engines-cut"),
        (b"", "engines-cut"),
        (b"SSH-2.0\r\n", "engines-cut"),
    ],
)
def test_every_way_a_remote_can_fail_has_its_code_and_no_secret_in_it(answer: bytes, code: str) -> None:
    async def check(engine: Engine, _: list[dict[str, Any]]) -> None:
        with pytest.raises(FreeholdError) as caught:
            await suite.collect(engine.chat(suite.body()))
        assert caught.value.code == code
        assert "hunter2" not in str(caught.value.as_dict())
        if code == "engines-busy":
            assert caught.value.context["retry_after"] == 7
        assert (await engine.facts()).busy == 0

    _ask(lambda _: answer, check, api_key="sk-hunter2")


def test_a_remote_that_answers_in_one_piece_or_tells_no_usage_is_counted_and_marked() -> None:
    whole = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
    }

    async def check(engine: Engine, _: list[dict[str, Any]]) -> None:
        answer = await suite.collect(engine.chat(suite.body()))
        assert (answer.text(), answer.usage.estimated, answer.reasons()) == ("hi", True, [(0, "stop")])

    _ask(lambda _: _http("200 OK", json.dumps(whole)), check)
    _ask(lambda _: _stream(_piece("hi"), _piece(None, "stop")), check)


def test_a_server_that_does_not_hang_up_after_its_last_word_holds_nobody() -> None:
    lingering = b"HTTP/1.1 200 OK\r\nX-Lingers: 1\r\nContent-Type: text/event-stream\r\n\r\n"
    lingering += _stream(_piece("hi"), _piece(None, "stop"), "[DONE]").partition(b"\r\n\r\n")[2]

    async def check(engine: Engine, _: list[dict[str, Any]]) -> None:
        async with asyncio.timeout(3):
            assert (await suite.collect(engine.chat(suite.body()))).text() == "hi"

    _ask(lambda _: lingering, check)


def test_a_server_that_refuses_the_question_for_usage_is_asked_without_from_then_on() -> None:
    def answer(body: dict[str, Any]) -> bytes:
        if "stream_options" in body:
            return _http("400 Bad", '{"error": {"message": "Unrecognized request argument supplied: stream_options"}}')
        return _stream(_piece("hi"), _piece(None, "stop"), "[DONE]")

    async def check(engine: Engine, seen: list[dict[str, Any]]) -> None:
        for _ in range(2):
            assert (await suite.collect(engine.chat(suite.body()))).text() == "hi"
        assert ["stream_options" in body for body in seen] == [True, False, False]

    _ask(answer, check)


def test_it_asks_for_the_upstreams_name_with_its_key_and_answers_under_its_own() -> None:
    async def check(engine: Engine, seen: list[dict[str, Any]]) -> None:
        answer = await suite.collect(engine.chat(suite.body(model="whatever", user="me", max_tokens=9, max_completion_tokens=4)))
        assert {chunk.payload["model"] for chunk in answer.chunks} == {"far/model"}
        assert (seen[0]["model"], seen[0]["user"], seen[0]["stream"]) == ("up/stream", "me", True)
        assert (seen[0]["max_tokens"], seen[0]["max_completion_tokens"]) == (4, 4), "the lesser of two limits holds"
        assert "authorization: bearer sk-1" in seen[0]["#head"]
        assert "post /v1/chat/completions" in seen[0]["#head"]

    _ask(lambda _: _stream(_piece("hi"), _piece(None, "stop"), "[DONE]"), check, api_key="sk-1", upstream_model="up/stream")


def test_nobody_there_a_bad_url_and_local_only_have_the_codes_of_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]

    async def story() -> None:
        guard = Guard(local_only=True)
        for url, code in ((f"http://127.0.0.1:{port}", "net-unreachable"), ("https://api.example/v1", "net-local-only")):
            async with suite.running(_remote(url, guard)) as engine:
                assert not await engine.healthy()
                with pytest.raises(FreeholdError) as caught:
                    await suite.collect(engine.chat(suite.body()))
                assert caught.value.code == code
        assert guard.refusals == 2

    asyncio.run(story())
    with pytest.raises(FreeholdError) as malformed:
        _remote("ftp://x")
    assert malformed.value.code == "net-url-invalid"
