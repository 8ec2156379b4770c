"""A small model in GGUF, made by seed, and a loop that outlives one check."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.engines.llamacpp import LlamaCppEngine
from freehold.lab.models import make_model
from freehold.nouns.serving import Deployment, EngineKind


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One megabyte that answers with noise."""
    pytest.importorskip("xllamacpp", reason="needs the extra 'llama'")
    made = make_model(tmp_path_factory.mktemp("gguf") / "model", seed=3, size_mb=1, format="gguf")
    return next(made.folder.glob("*.gguf"))


@pytest.fixture(scope="session")
def deployment(gguf: Path) -> Deployment:
    return Deployment("lab/noise", EngineKind.LLAMACPP, path=gguf, context=256, slots=2, threads=1)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for a module, since an engine belongs to one."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def served(runner: asyncio.Runner, deployment: Deployment) -> Iterator[LlamaCppEngine]:
    """A running llama.cpp that listens on loopback."""
    engine = LlamaCppEngine(deployment, loopback=True)
    runner.run(engine.start())
    yield engine
    runner.run(engine.close())
