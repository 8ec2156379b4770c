"""llama.cpp in a child process: the laws of an engine, and what happens when the child dies."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.engines.engine import Chunk
from freehold.engines.llamacpp import LlamaCppEngine, Restarts
from freehold.errors import FreeholdError
from freehold.nouns.serving import Deployment
from freehold.testing import engine as suite


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner, deployment: Deployment) -> Iterator[LlamaCppEngine]:
    made = LlamaCppEngine(deployment)
    runner.run(made.start())
    yield made
    runner.run(made.close())


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_every_law_of_an_engine(runner: asyncio.Runner, engine: LlamaCppEngine, check: suite.Check) -> None:
    async def story() -> None:
        await check(engine)

    runner.run(story())


@pytest.mark.parametrize("check", suite.LAST_CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_laws_of_ending(runner: asyncio.Runner, deployment: Deployment, check: suite.Check) -> None:
    async def story() -> None:
        async with suite.running(LlamaCppEngine(replace(deployment, context=4096))) as made:
            await check(made)

    runner.run(story())


def test_it_listens_where_only_this_user_may_enter_and_only_with_its_key(runner: asyncio.Runner, engine: LlamaCppEngine) -> None:
    command = Path(f"/proc/{engine.pid}/cmdline").read_bytes() + Path(f"/proc/{engine.pid}/environ").read_bytes()
    assert engine.key.encode() not in command
    sockets = [Path(line.split()[-1]) for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith("engine.sock")]
    folders = [path.parent for path in sockets if path.exists() and path.parent.stat().st_uid == os.getuid()]
    assert folders
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
    assert runner.run(engine.facts()).memory


def _kill(engine: LlamaCppEngine) -> None:
    assert engine.pid
    os.kill(engine.pid, signal.SIGKILL)


def test_a_crash_in_the_middle_of_an_answer_ends_it_with_a_code_and_the_next_request_starts_it_again(
    runner: asyncio.Runner, deployment: Deployment
) -> None:
    async def story() -> None:
        async with suite.running(LlamaCppEngine(replace(deployment, context=4096))) as made:
            assert isinstance(made, LlamaCppEngine)
            seen: list[Chunk] = []
            with pytest.raises(FreeholdError) as caught:
                async for chunk in made.chat(suite.body(max_tokens=4000, ignore_eos=True)):
                    seen.append(chunk)
                    if len(seen) == 3:
                        _kill(made)
            assert caught.value.code == "engines-crashed"
            assert caught.value.context["exit"] == "killed by SIGKILL"
            assert seen[-1].so_far.generated == sum(chunk.tokens for chunk in seen)
            assert not await made.healthy()
            answer = await suite.collect(made.chat(suite.body(max_tokens=4)))
            assert answer.usage.generated == 4
            assert await made.healthy()
            assert (await made.facts()).starts == 2

    runner.run(story())


def test_an_engine_that_keeps_crashing_is_given_up_for_a_while(runner: asyncio.Runner, deployment: Deployment) -> None:
    async def story() -> None:
        made = LlamaCppEngine(deployment, restarts=Restarts(most=1, window=60, first=0.01))
        async with suite.running(made):
            for _ in range(2):
                await suite.collect(made.chat(suite.body(max_tokens=1)))
                _kill(made)
            for _ in range(2):
                with pytest.raises(FreeholdError) as caught:
                    await suite.collect(made.chat(suite.body(max_tokens=1)))
                assert caught.value.code == "engines-unavailable"
                assert 0 < caught.value.context["retry_after"] <= 60
            assert (await made.facts()).starts == 2

    runner.run(story())
    assert [Restarts().wait(n) for n in (1, 2, 3, 9)] == [0, 0.25, 0.5, 5.0]


@pytest.mark.parametrize("what", ["cut", "garbage", "absent", "empty", "folder"])
def test_a_file_that_cannot_be_loaded_says_why(runner: asyncio.Runner, deployment: Deployment, tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.gguf"
    whole = deployment.path.read_bytes() if deployment.path else b""
    contents = {"cut": whole[: len(whole) // 2], "garbage": b"garbage" * 100, "empty": b""}
    if what == "folder":
        path.mkdir()
    elif what != "absent":
        path.write_bytes(contents[what])
    made = LlamaCppEngine(replace(deployment, path=path))
    with pytest.raises(FreeholdError) as caught:
        runner.run(made.start())
    runner.run(made.close())
    assert caught.value.code == "engines-load-failed"
    words = {"cut": "not within the file bounds", "absent": "no such file", "folder": "no such file"}
    assert words.get(what, "load") in caught.value.message
    assert "Traceback" not in caught.value.message


def test_a_load_that_takes_too_long_is_ended(runner: asyncio.Runner, deployment: Deployment) -> None:
    made = LlamaCppEngine(deployment, load_seconds=0.005)
    with pytest.raises(FreeholdError) as caught:
        runner.run(made.start())
    runner.run(made.close())
    assert caught.value.code == "engines-load-failed"
    assert "not loaded within" in caught.value.message


def test_without_the_package_it_says_what_to_install(
    runner: asyncio.Runner, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(FreeholdError) as caught:
        runner.run(LlamaCppEngine(deployment).start())
    assert (caught.value.code, "freehold[llama]" in caught.value.hint) == ("engines-not-installed", True)


def test_a_start_that_is_given_up_leaves_nothing_behind(
    runner: asyncio.Runner, deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        made = LlamaCppEngine(deployment)
        asking = [asyncio.create_task(suite.collect(made.chat(suite.body()))) for _ in range(3)]
        await asyncio.sleep(0.03)
        await made.close()
        for result in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(result, FreeholdError), result
            assert result.code == "engines-unavailable"
        assert made.pid is None

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runner.run(story())
    assert list(tmp_path.iterdir()) == []


def test_its_log_is_kept_and_turned_over_when_it_has_grown(
    runner: asyncio.Runner, deployment: Deployment, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "engine.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * (5 << 20))
    (tmp_path / "bad.gguf").write_bytes(b"garbage")
    made = LlamaCppEngine(replace(deployment, path=tmp_path / "bad.gguf"), log=log)
    with pytest.raises(FreeholdError):
        runner.run(made.start())
    runner.run(made.close())
    assert log.with_suffix(".1").stat().st_size == 5 << 20
    assert "failed to load" in log.read_text()


def test_the_child_dies_with_a_gateway_that_is_killed(deployment: Deployment, tmp_path: Path) -> None:
    code = f"""
        import asyncio
        from pathlib import Path
        from freehold.engines.llamacpp import LlamaCppEngine
        from freehold.nouns.serving import Deployment, EngineKind
        async def main():
            path = Path({str(deployment.path)!r})
            engine = LlamaCppEngine(Deployment("x", EngineKind.LLAMACPP, path=path, context=256, threads=1))
            await engine.start()
            print(engine.pid, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}) as gateway:
        assert gateway.stdout is not None
        pid = int(gateway.stdout.readline())
        memory = Path(f"/proc/{pid}/statm")
        assert memory.exists()
        gateway.kill()
    until = time.monotonic() + 5
    while memory.exists() and memory.read_text().split()[0] != "0" and time.monotonic() < until:
        time.sleep(0.02)
    assert not memory.exists() or memory.read_text().split()[0] == "0"
