"""Chat as a story: what is offered, what a real model answers, and what stands in the ledger afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from freehold.app import House, house
from freehold.engines.echo import EchoEngine
from freehold.engines.pool import EnginePool
from freehold.errors import FreeholdError
from freehold.flows import usage
from freehold.flows.chat import ChatAnswer, chat, close_engines
from freehold.flows.offered import find_deployment, find_offer, list_offers
from freehold.flows.parts import Prices
from freehold.lab.models import make_model
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.origin import Admission
from freehold.nouns.serving import EngineKind
from freehold.nouns.usage import Outcome
from freehold.testing.kept import keep
from freehold.use.writer import open_writer

ASK = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
CHATTER = Caller("key:chatter", frozenset({Scope.CHAT}), "test")


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("FREEHOLD_USE__ECHO", "true")
    with house(str(tmp_path / "home")) as found:
        yield found


def told(opened: House, story: Callable[[House], Any], **parts: Any) -> Any:
    """Run an async story in this house, its engines closed at the end. `parts` replace some of its parts."""
    changed = replace(opened, parts=replace(opened.parts, **parts))

    async def go() -> Any:
        try:
            return await story(changed)
        finally:
            await close_engines(changed.parts)

    return asyncio.run(go())


@asynccontextmanager
async def answering(opened: House, body: dict[str, Any], caller: Caller = CHATTER) -> AsyncIterator[ChatAnswer]:
    async with aclosing(await chat(opened.parts, caller, body)) as answer:
        yield answer


async def text_of(opened: House, body: dict[str, Any]) -> str:
    async with answering(opened, {**body, "stream": True}) as answer:
        return "".join([p["choices"][0]["delta"].get("content") or "" async for p in answer])


def sound(opened: House) -> None:
    audit, _ = usage.check_ledger(opened.parts, opened.caller)
    assert audit.ok, audit.broken


@pytest.fixture(scope="session")
def gguf_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model of one megabyte that answers with noise, and its card."""
    pytest.importorskip("xllamacpp", reason="not run: needs the extra 'llama'")
    folder = make_model(tmp_path_factory.mktemp("gguf") / "model", seed=3, size_mb=1, format="gguf").folder
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same in two files."""
    pytest.importorskip("xllamacpp", reason="not run: needs the extra 'llama'")
    folder = make_model(tmp_path_factory.mktemp("shards") / "model", seed=3, size_mb=1, format="gguf", sharded=2).folder
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_kept_gguf_model_answers_through_llama_cpp_and_is_metered(opened: House, gguf_files: dict[str, bytes]) -> None:
    commit = keep(opened.parts, "lab/noise", gguf_files, model_facts={"context": 256, "license_declared": "apache-2.0"})

    async def story(h: House) -> Any:
        offer = await find_offer(h.parts, CHATTER, "lab/noise")
        async with answering(h, {**ASK, "model": "LAB/Noise", "max_tokens": 12, "temperature": 0}) as answer:
            whole = await anext(answer)
        said = await text_of(h, {**ASK, "model": "lab/noise", "max_tokens": 12, "temperature": 0})
        return offer, whole, said

    offer, whole, said = told(opened, story)
    assert (offer.revision, offer.context, offer.license, offer.local) == (commit, 256, "apache-2.0", True)
    assert (whole["model"], whole["choices"][0]["message"]["content"]) == ("lab/noise", said)
    found = usage.requests(opened.parts, opened.caller)
    assert [(r.model, r.engine, r.counts.generated, r.counts.delivered) for r in found] == [("lab/noise", "llamacpp", 12, 12)] * 2
    assert all(r.counts.prompt == whole["usage"]["prompt_tokens"] > 0 for r in found)
    sound(opened)


def test_leaving_a_real_model_in_the_middle_charges_what_was_delivered(opened: House, gguf_files: dict[str, bytes]) -> None:
    keep(opened.parts, "lab/noise", gguf_files, model_facts={"context": 256})

    async def story(h: House) -> None:
        body = {**ASK, "model": "lab/noise", "max_tokens": 200, "stream": True, "logit_bias": {"2": -100}}
        async with answering(h, body) as answer:
            seen = 0
            async for payload in answer:
                seen += bool(payload["choices"][0]["delta"].get("content"))
                if seen == 5:
                    break

    told(opened, story, prices=Prices(1_000_000, 1_000_000, "EUR"))
    (record,) = usage.requests(opened.parts, opened.caller)
    assert record.outcome is Outcome.INTERRUPTED
    assert record.counts.generated >= record.counts.delivered >= 4
    assert record.counts.prompt > 0
    assert record.cost == record.counts.prompt + record.counts.delivered
    sound(opened)


def test_a_model_in_shards_is_laid_out_for_the_engine(opened: House, shards: dict[str, bytes]) -> None:
    assert sum(name.endswith(".gguf") for name in shards) == 2
    keep(opened.parts, "lab/shards", shards, model_facts={"context": 256})

    async def story(h: House) -> Any:
        offers = [o.id for o in await list_offers(h.parts, CHATTER)]
        return offers, await text_of(h, {**ASK, "model": "lab/shards", "max_tokens": 4})

    offers, _said = told(opened, story)
    assert offers == ["lab/shards", "echo"]
    assert usage.requests(opened.parts, opened.caller)[0].counts.generated == 4


def test_only_admitted_visible_language_models_are_offered(opened: House) -> None:
    weights = {"model.gguf": b"GGUF and so on", "README.md": b"#"}
    several = {"a-Q4_K_M.gguf": b"4", "a-Q8_0.gguf": b"8", "mmproj-a.gguf": b"p", "b-00001-of-00002.gguf": b"half"}
    keep(opened.parts, "org/good", weights, refs=("heads/main", "tags/v1"))
    keep(opened.parts, "org/old", weights, refs=("tags/v0",))
    keep(opened.parts, "org/several", several)
    keep(opened.parts, "org/private", weights, private=True)
    keep(opened.parts, "org/quarantined", weights, admission=Admission.QUARANTINED)
    keep(opened.parts, "org/refused", weights, admission=Admission.REFUSED)
    keep(opened.parts, "org/encoder", {"model.gguf": b"GGUF of another kind"}, model_facts={"architecture": "bert"})
    keep(opened.parts, "org/safetensors", {"model.safetensors": b"x"})

    async def story(h: House) -> Any:
        seen = [o.id for o in await list_offers(h.parts, CHATTER)]
        mine = [o.id for o in await list_offers(h.parts, h.caller)]
        named = {}
        for name in ("org/several", "org/several:q8_0", "org/several:a-Q8_0.gguf", "org/good@v1", "org/old@v0"):
            deployment = await find_deployment(h.parts, CHATTER, name)
            named[name] = (deployment.model, deployment.path.read_bytes() if deployment.path else b"")
        refused = []
        for name in (
            "org/private",
            "org/quarantined",
            "org/refused",
            "org/encoder",
            "org/old",
            "org/several:mmproj",
            "a/b/c",
            "org/good@v9",
        ):
            with pytest.raises(FreeholdError) as caught:
                await find_deployment(h.parts, CHATTER, name)
            refused.append((caught.value.code, caught.value.message.replace(name, "*")))
        return seen, mine, named, refused

    seen, mine, named, refused = told(opened, story)
    assert seen == ["org/good", "org/old@v0", "org/several:Q4_K_M", "org/several:Q8_0", "echo"]
    assert set(mine) - set(seen) == {"org/private"}
    assert named == {
        "org/several": ("org/several:Q4_K_M", b"4"),
        "org/several:q8_0": ("org/several:Q8_0", b"8"),
        "org/several:a-Q8_0.gguf": ("org/several:Q8_0", b"8"),
        "org/good@v1": ("org/good@v1", weights["model.gguf"]),
        "org/old@v0": ("org/old@v0", weights["model.gguf"]),
    }
    assert set(refused) == {("use-model-not-found", "no model '*' is offered for chat here")}, "what may not be seen is absent"


def test_a_model_file_that_no_engine_can_load_is_a_clear_error_and_costs_nothing(opened: House) -> None:
    pytest.importorskip("xllamacpp", reason="not run: needs the extra 'llama'")
    keep(opened.parts, "org/broken", {"model.gguf": b"GGUF" + bytes(100)})

    async def story(h: House) -> None:
        async with answering(h, {**ASK, "model": "org/broken"}):
            pass

    with pytest.raises(FreeholdError) as caught:
        told(opened, story, prices=Prices(1_000_000, 1_000_000, "EUR"))
    assert caught.value.code == "engines-load-failed"
    (record,) = usage.requests(opened.parts, opened.caller)
    assert (record.outcome, record.reason, record.cost) == (Outcome.RELEASED, "engines-load-failed", 0)
    sound(opened)


def test_an_answer_may_be_left_at_any_payload_and_is_recorded_once(opened: House) -> None:
    async def story(h: House) -> None:
        for stop in range(8):
            async with answering(h, {**ASK, "stream": True, "stream_options": {"include_usage": True}}) as answer:
                for _ in range(stop):
                    await anext(answer, None)

    told(opened, story)
    found = usage.requests(opened.parts, opened.caller)[::-1]
    assert [r.outcome for r in found] == [Outcome.INTERRUPTED] * 7 + [Outcome.SETTLED]
    assert [r.counts.delivered for r in found] == [0, 0, 0, 1, 2, 3, 3, 3], "a payload counts once the next one is asked for"
    sound(opened)


def test_a_task_that_is_cancelled_at_any_moment_leaves_one_record_or_none_and_no_slot(opened: House) -> None:
    engines: list[EchoEngine] = []

    def make(deployment: Any) -> EchoEngine:
        engines.append(EchoEngine(replace(deployment, tokens_per_second=300, slots=1)))
        return engines[-1]

    async def story(h: House) -> None:
        for step in range(12):
            task = asyncio.create_task(text_of(h, {**ASK, "max_tokens": 500}))
            await asyncio.sleep(step * 0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await engines[0].facts()).busy == 0
        assert await text_of(h, ASK) == "one two three"

    told(opened, story, pool=EnginePool(make=make))
    open_writer(opened.parts.ledger, opened.parts.home.run, opened.parts.clock).shut()
    audit, ended = usage.check_ledger(opened.parts, opened.caller)
    assert audit.ok, audit.broken
    assert ended == 0
    assert sum(flow.open_requests for flow in audit.flows) == 0


def test_reservation_covers_the_most_that_may_be_generated_and_the_rest_comes_back(opened: House) -> None:
    async def story(h: House) -> Any:
        async with answering(h, {**ASK, "max_tokens": 100, "stream": True}) as answer:
            await anext(answer)
            with h.parts.ledger.read() as tx:
                held = tx.exec_driver_sql("SELECT amount FROM reservations").scalar_one()
            async for _ in answer:
                pass
        return held, answer.record

    held, record = told(opened, story, prices=Prices(0, 1_000_000, "EUR"))
    assert (held, record.cost) == (100, 100)
    sound(opened)


def test_the_flow_authorises_before_anything_else(opened: House) -> None:
    for scopes, code in ((frozenset(), "access-key-missing"), (frozenset({Scope.READ}), "access-scope-missing")):
        nobody = Caller("anonymous" if not scopes else "key:r", scopes, "test")
        for call in (chat(opened.parts, nobody, {}), list_offers(opened.parts, nobody), find_offer(opened.parts, nobody, "x")):
            with pytest.raises(FreeholdError) as caught:
                asyncio.run(call)
            assert caught.value.code == code


def test_a_remote_model_is_offered_as_remote_and_its_counts_are_marked(
    opened: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from freehold.flows import keys
    from freehold.testing.server import running_server
    from freehold.web.server import build

    token = keys.create_key(opened.parts, opened.caller, "peer", frozenset({Scope.CHAT})).token
    secret = tmp_path / "key"
    secret.write_text(token + "\n", "utf-8")
    with ExitStack() as stack:
        url = stack.enter_context(running_server(build(opened)))
        for name, value in {"REMOTE_URL": f"{url}/v1", "REMOTE_KEY_FILE": str(secret), "ECHO": "false"}.items():
            monkeypatch.setenv(f"FREEHOLD_USE__{name}", value)
        near = stack.enter_context(house(str(tmp_path / "near")))

        async def story(h: House) -> Any:
            return await list_offers(h.parts, CHATTER), await text_of(h, ASK)

        (offer,), said = told(near, story)
        assert (offer.id, offer.engine, offer.local, said) == ("echo", EngineKind.REMOTE, False, "one two three")
        (record,) = usage.requests(near.parts, near.caller)
        assert record.counts.reported
        assert (record.counts.generated, record.counts.delivered, record.counts.prompt) == (3, 3, 3)
        assert usage.usage(near.parts, near.caller)[0].reported == 1


def test_a_remote_that_is_down_is_not_taken_for_one_without_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_USE__REMOTE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("FREEHOLD_USE__ECHO", "true")
    with house(str(tmp_path / "home")) as opened:

        async def story(h: House) -> Any:
            with pytest.raises(FreeholdError) as caught:
                await find_deployment(h.parts, CHATTER, "far/away")
            return [o.id for o in await list_offers(h.parts, CHATTER)], caught.value.code, await text_of(h, ASK)

        assert told(opened, story) == (["echo"], "net-unreachable", "one two three")
