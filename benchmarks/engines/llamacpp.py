"""A local model in its child process: time to load, to the first token, tokens a second, memory; alone and on busy cores.

    python benchmarks/engines/llamacpp.py MODEL.gguf [--context 4096] [--slots 2] [--tokens 128]

`busy` is with one spinning process for each usable core beside it, and `busy_spin_default` the same with the variable that
freehold sets for the child (GOMP_SPINCOUNT) taken away again, as the reason why it is set. Memory is the resident set of
the child, then of this process, which holds the gateway's side of the engine and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freehold.engines import llamacpp
from freehold.engines.llamacpp import LlamaCppEngine
from freehold.nouns.serving import Deployment, EngineKind
from freehold.procs.child import Child, minimal_environment
from freehold.procs.cpus import usable_cores
from freehold.testing.engine import body, collect


@contextlib.contextmanager
def busy(cores: int) -> Iterator[None]:
    """As many processes that do nothing but spin."""
    spinning = [Child.start([sys.executable, "-c", "while True: pass"], env=minimal_environment()) for _ in range(cores)]
    try:
        yield
    finally:
        for child in spinning:
            child.stop(grace=0.5)


async def decode(engine: LlamaCppEngine, tokens: int, question: str) -> dict[str, float]:
    """Seconds to the first token and tokens a second after it."""
    began = time.perf_counter()
    first, counted = 0.0, 0
    async with contextlib.aclosing(engine.chat(body(question, max_tokens=tokens, ignore_eos=True))) as stream:
        async for chunk in stream:
            if chunk.tokens and not first:
                first = time.perf_counter()
                counted -= chunk.tokens
            counted += chunk.tokens
    return {"first_token_ms": round((first - began) * 1000, 1), "tokens_per_s": round(counted / (time.perf_counter() - first), 1)}


async def measure(deployment: Deployment, tokens: int) -> dict[str, Any]:
    found: dict[str, Any] = {"cores": usable_cores(), "context": deployment.context, "slots": deployment.slots}
    engine = LlamaCppEngine(deployment)
    began = time.perf_counter()
    await engine.start()
    try:
        found["load_s"] = round(time.perf_counter() - began, 2)
        found["cold"] = await decode(engine, tokens, "Tell me about the sea.")
        found["alone"] = await decode(engine, tokens, "Tell me about the mountains.")
        if deployment.slots > 1:
            began = time.perf_counter()
            asks = (collect(engine.chat(body(f"Story {n}", max_tokens=tokens, ignore_eos=True))) for n in range(deployment.slots))
            total = sum(answer.usage.generated for answer in await asyncio.gather(*asks))
            found["all_slots_tokens_per_s"] = round(total / (time.perf_counter() - began), 1)
        await collect(engine.chat(body("word " * (deployment.context // 2), max_tokens=2)))
        found["child_rss_mb"] = round(((await engine.facts()).memory or 0) / 1e6, 1)
        with busy(usable_cores()):
            found["busy"] = await decode(engine, tokens // 4, "Tell me about the rivers.")
    finally:
        await engine.close()
    found["own_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1)
    return found


async def measure_default_spin(deployment: Deployment, tokens: int) -> dict[str, float]:
    """On busy cores, with the child's environment as OpenMP would have it by default."""
    set_by_us = llamacpp.minimal_environment
    llamacpp.minimal_environment = lambda **_: set_by_us()
    try:
        engine = LlamaCppEngine(deployment)
        await engine.start()
        try:
            with busy(usable_cores()):
                return await decode(engine, tokens, "Tell me about the rivers.")
        finally:
            await engine.close()
    finally:
        llamacpp.minimal_environment = set_by_us


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    asked = parser.parse_args()
    deployment = Deployment("bench", EngineKind.LLAMACPP, path=asked.model, context=asked.context, slots=asked.slots)
    found = asyncio.run(measure(deployment, asked.tokens))
    found["busy_spin_default"] = asyncio.run(measure_default_spin(deployment, max(4, asked.tokens // 16)))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
