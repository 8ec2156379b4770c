"""llama.cpp as an engine: a model file, a child process that holds it, and what to do when that dies.

Why so: see `llamacpp_child.py` for the process of its own. It listens on a unix socket in a folder that only this user may
enter (on loopback where the path would be too long), under a random key. Requests wait here, not there, until a slot is
free, so that a caller who leaves while waiting costs nothing. Only known fields are passed on: the server's own extras
can overrule limits (`n_predict` beats `max_tokens`) or reach into other callers' slots.

GOMP_SPINCOUNT is small on purpose: with the default, threads that wait burn the cores that others need; measured on busy
cores, decoding falls from 88 to 1-2 tokens a second without it and to 9-13 with it, and nothing is lost when alone.

It does not choose what to run and keeps no model in the vault: it is given a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.engines.engine import Asked, Chunk, check_chat, check_completion, refuse_other_parts
from freehold.engines.tally import ExactTally
from freehold.engines.wire import Refusal, ask, get_json, post_json
from freehold.errors import FreeholdError
from freehold.net.async_http import AsyncHttp
from freehold.net.guard import Guard
from freehold.nouns.serving import Deployment, EngineFacts, EngineKind
from freehold.procs.child import Child, minimal_environment
from freehold.procs.cpus import usable_cores

_CHILD = Path(__file__).with_name("llamacpp_child.py")

#: Fields of a request that the child is given; everything else is left out (see the head of this file).
_PASSED_ON = frozenset({
    "messages", "prompt", "temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "presence_penalty", "frequency_penalty",
    "repeat_penalty", "repeat_last_n", "logit_bias", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice",
    "parallel_tool_calls", "chat_template_kwargs", "ignore_eos",
})  # fmt: skip

#: A unix socket's path holds at most 107 bytes on Linux, 103 on macOS.
_LONGEST_SOCKET = 100
_LOG_ROTATES_AT = 4 << 20
#: How long a child that broke the line is given to show that it has died.
_DEATH_SHOWS = 3.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """At most `most` crashes in `window` seconds; waits before a restart double from `first` to `longest` seconds, the
    first restart being at once."""

    most: int = 5
    window: float = 60.0
    first: float = 0.25
    longest: float = 5.0

    def wait(self, crashes: int) -> float:
        return 0.0 if crashes <= 1 else min(self.longest, self.first * 2.0 ** (crashes - 2))


@dataclass(slots=True)
class _Running:
    """One life of the child. `base` is the URL of its server, `headers` hold its key."""

    child: Child
    http: AsyncHttp
    base: str
    headers: dict[str, str]
    folder: Path | None

    async def stop(self) -> None:
        await self.http.close()
        await self.child.stop_async(grace=2.0)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class LlamaCppEngine:
    """`log`: the file that the child's warnings go to (None: the last 16 KiB are kept). `load_seconds` bounds a start.

    `loopback` makes it listen on 127.0.0.1 instead of a unix socket; then `address` and `key` let others reach it."""

    kind = EngineKind.LLAMACPP

    def __init__(
        self,
        deployment: Deployment,
        *,
        log: Path | None = None,
        load_seconds: float = 600.0,
        restarts: Restarts | None = None,
        loopback: bool = False,
    ) -> None:
        self._deployment = deployment
        self._log = log
        self._load_seconds = load_seconds
        self._restarts = restarts or Restarts()
        self._loopback = loopback
        self._starting: asyncio.Task[_Running] | None = None
        self._slots = asyncio.Semaphore(deployment.slots)
        self._running: _Running | None = None
        self._crashes: deque[float] = deque()
        self._starts = 0
        self._closed = False
        self.key = secrets.token_urlsafe(24)

    @property
    def address(self) -> str | None:
        """The base URL of the child's server; None while it does not run."""
        return self._running.base if self._running else None

    @property
    def pid(self) -> int | None:
        return self._running.child.pid if self._running else None

    async def start(self) -> None:
        """FreeholdError engines-not-installed, engines-load-failed, engines-unavailable."""
        await self._alive()

    async def close(self) -> None:
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        running, self._running = self._running, None
        if running is not None:
            await running.stop()

    async def healthy(self) -> bool:
        running = self._running
        if self._closed or running is None or running.child.exit is not None:
            return False
        try:
            return bool(
                (await get_json(running.http, f"{running.base}/health", running.headers, read_timeout=5.0))["status"] == "ok"
            )
        except (FreeholdError, Refusal, ValueError, LookupError):
            return False

    async def chat(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        asked = check_chat(request)
        refuse_other_parts(request)
        async with contextlib.aclosing(self._stream("/v1/chat/completions", request, asked, chat=True)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def complete(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        asked = check_completion(request)
        async with contextlib.aclosing(self._stream("/v1/completions", request, asked, chat=False)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def count_prompt(self, request: Mapping[str, Any]) -> int | None:
        check_chat(request)
        refuse_other_parts(request)
        running = await self._alive()
        body = {"messages": _messages(request), **{k: request[k] for k in ("tools", "chat_template_kwargs") if k in request}}
        try:
            counted = await post_json(running.http, f"{running.base}/v1/chat/completions/input_tokens", running.headers, body)
        except Refusal as refusal:
            raise self._translate(refusal) from refusal
        except FreeholdError as error:
            raise await self._explain(running, error) from error
        return int(counted["input_tokens"])

    async def facts(self) -> EngineFacts:
        running, busy, memory = self._running, 0, None
        if running is not None and running.child.exit is None:
            memory = _resident(running.child.pid)
            with contextlib.suppress(FreeholdError, Refusal, ValueError, LookupError):
                slots = await get_json(running.http, f"{running.base}/slots", running.headers, read_timeout=5.0)
                busy = sum(1 for slot in slots if slot["is_processing"])
        made = self._deployment
        return EngineFacts(self.kind, made.model, made.context, made.slots, busy, memory, self.pid, self._starts)

    async def _stream(self, path: str, request: Mapping[str, Any], asked: Asked, *, chat: bool) -> AsyncGenerator[Chunk, None]:
        if asked.n > self._deployment.slots:
            raise FreeholdError("engines-bad-request", f"'n' is at most {self._deployment.slots} for this model", param="n")
        body = {k: v for k, v in request.items() if k in _PASSED_ON and v is not None}
        if chat:
            body["messages"] = _messages(request)
        if asked.max_tokens is not None:
            body["max_tokens"] = asked.max_tokens
        body |= {
            "n": asked.n,
            "stop": list(asked.stop),
            "stream": True,
            "stream_options": {"include_usage": True},
            "timings_per_token": True,
        }
        tally = ExactTally(self._deployment.model, chat=chat)
        async with self._slots:
            for attempt in (1, 2):
                running = await self._alive()
                try:
                    frames = ask(running.http, running.base + path, running.headers, body, read_timeout=900.0)
                    async with contextlib.aclosing(frames):
                        async for frame in frames:
                            for chunk in tally.end() if frame is None else tally.feed(frame):
                                yield chunk
                except Refusal as refusal:
                    raise self._translate(refusal) from refusal
                except FreeholdError as error:
                    explained = await self._explain(running, error)
                    # It had died before it was asked, only nobody had noticed yet: the next one is asked instead.
                    if attempt == 2 or error.code != "net-unreachable" or explained.code != "engines-crashed":
                        raise explained from error
                else:
                    return

    async def _alive(self) -> _Running:
        """The running child; if there is none or it died, the next one, started once for all who wait."""
        if self._closed:
            raise self._unavailable("was stopped")
        if self._running is not None and self._running.child.exit is None:
            return self._running
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._revive(), name=f"start {self._deployment.model}")
            # Whoever asked may have left; then nobody else looks at how it ended.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.shield(self._starting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise self._unavailable("was stopped") from None

    async def _revive(self) -> _Running:
        now = asyncio.get_running_loop().time()
        if self._running is not None:
            dead, self._running = self._running, None
            await dead.stop()
            self._crashes.append(now)
        while self._crashes and self._crashes[0] < now - self._restarts.window:
            self._crashes.popleft()
        if len(self._crashes) > self._restarts.most:
            wait = self._crashes[0] + self._restarts.window - now
            raise self._unavailable(f"crashed {len(self._crashes)} times within {self._restarts.window:g} seconds", wait)
        await asyncio.sleep(self._restarts.wait(len(self._crashes)))
        self._running = await self._launch()
        self._starts += 1
        return self._running

    async def _launch(self) -> _Running:
        made = self._deployment
        if importlib.util.find_spec("xllamacpp") is None:
            raise FreeholdError("engines-not-installed", f"the engine that runs {made.model} is not installed")
        if made.path is None or not made.path.is_file():
            raise self._load_failed("there is no such file")
        folder = None if self._loopback else _socket_folder()
        listen = "127.0.0.1" if folder is None else str(folder / "engine.sock")
        config = {
            "model": str(made.path), "alias": made.model, "listen": listen, "key": self.key, "slots": made.slots,
            "context": made.context, "threads": made.threads or usable_cores(), "warmup": False,
        }  # fmt: skip
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            child = await self._spawn(config, answer)
        except BaseException:
            _discard(folder)
            raise
        try:
            ready = await self._first_words(child, answer)
        except BaseException:
            child.kill()
            _discard(folder)
            raise
        socket = folder / "engine.sock" if folder else None
        base = "http://engine" if socket else str(ready["ready"])
        # Every request has a connection of its own: the server holds a thread for each one that is kept open.
        http = AsyncHttp(Guard(local_only=True), trusted=frozenset({"127.0.0.1"}), unix_socket=socket, keep_alive=False)
        return _Running(child, http, base, {"Authorization": f"Bearer {self.key}"}, folder)

    async def _spawn(self, config: Mapping[str, Any], answer: asyncio.Future[str]) -> Child:
        loop = asyncio.get_running_loop()

        def hear(line: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, line)

        def settle(line: str) -> None:
            if not answer.done():
                answer.set_result(line)

        env = minimal_environment(GOMP_SPINCOUNT="3000")
        if "PYTHONPATH" in os.environ:
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        stdin = json.dumps(config).encode() + b"\n"
        argv = [sys.executable, "-P", str(_CHILD)]
        if self._log is None:
            return await Child.start_async(argv, env=env, stdin=stdin, hold_stdin=True, on_line=hear)
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > _LOG_ROTATES_AT:
                self._log.replace(self._log.with_suffix(".1"))
        return await Child.start_async(argv, env=env, stdin=stdin, hold_stdin=True, on_line=hear, log=self._log)

    async def _first_words(self, child: Child, answer: asyncio.Future[str]) -> dict[str, Any]:
        """What the child says when it is ready; FreeholdError if that is never."""
        ended = asyncio.ensure_future(child.wait_async())
        try:
            waited: set[asyncio.Future[Any]] = {answer, ended}
            await asyncio.wait(waited, timeout=self._load_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not answer.done():
            await child.stop_async(grace=0.5)
            reason = _last_error(child.tail()) or f"it ended while loading ({child.exit})"
            raise self._load_failed(
                reason if ended.done() and not ended.cancelled() else f"not loaded within {self._load_seconds:g} seconds"
            )
        said: dict[str, Any] = json.loads(answer.result())
        if "ready" in said:
            return said
        with contextlib.suppress(TimeoutError):  # it ends by itself, its log being written out
            await asyncio.wait_for(child.wait_async(), 5.0)
        await child.stop_async(grace=0.5)
        if said.get("error") == "not-installed":
            raise FreeholdError("engines-not-installed", f"the engine cannot be loaded: {said.get('reason')}")
        raise self._load_failed(_last_error(child.tail()) or str(said.get("reason")))

    async def _explain(self, running: _Running, error: FreeholdError) -> FreeholdError:
        """What a broken line means: the child died, was stopped, or only this answer broke off."""
        if not error.code.startswith("net-") and error.code != "engines-cut":
            return error
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running.child.wait_async(), _DEATH_SHOWS if error.code != "net-timeout" else 0.1)
        if self._closed:
            return self._unavailable("was stopped")
        if running.child.exit is None:
            return FreeholdError(
                "engines-cut", f"the answer of {self._deployment.model} broke off: {error.message}", model=self._deployment.model
            )
        return FreeholdError(
            "engines-crashed",
            f"the engine of {self._deployment.model} ended in the middle of its work ({running.child.exit})",
            model=self._deployment.model,
            exit=str(running.child.exit),
            log=running.child.tail(2000),
        )

    def _translate(self, refusal: Refusal) -> FreeholdError:
        kind, model = refusal.details.get("type"), self._deployment.model
        if kind == "exceed_context_size_error":
            asked, limit = refusal.details.get("n_prompt_tokens"), refusal.details.get("n_ctx")
            message = f"the prompt has {asked} tokens, and {model} takes {limit}"
            return FreeholdError("engines-context-exceeded", message, model=model, prompt_tokens=asked, context=limit)
        if 400 <= refusal.status < 500 or kind == "invalid_request_error":
            return FreeholdError("engines-bad-request", refusal.message, model=model)
        return FreeholdError("engines-failed", f"{model}: {refusal.message}", model=model, status=refusal.status)

    def _load_failed(self, reason: str) -> FreeholdError:
        return FreeholdError(
            "engines-load-failed",
            f"{self._deployment.model} cannot be loaded: {reason}",
            model=self._deployment.model,
            reason=reason,
        )

    def _unavailable(self, why: str, retry_after: float | None = None) -> FreeholdError:
        extra: dict[str, Any] = {} if retry_after is None else {"retry_after": max(1, round(retry_after))}
        return FreeholdError(
            "engines-unavailable", f"the engine of {self._deployment.model} {why}", model=self._deployment.model, **extra
        )


def _messages(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Chat templates know no 'developer'; it is what later APIs call 'system'."""
    return [{**m, "role": "system"} if m["role"] == "developer" else m for m in request["messages"]]


def _socket_folder() -> Path | None:
    """A new folder for this user alone; None where a socket in it would have too long a path."""
    folder = Path(tempfile.mkdtemp(prefix="freehold-"))
    if len(os.fsencode(folder / "engine.sock")) > _LONGEST_SOCKET:
        folder.rmdir()
        return None
    return folder


def _discard(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _last_error(log: str) -> str | None:
    """The reason in llama.cpp's log: the first error line of the last attempt (`0.00.055.519 E name: reason`)."""
    found: list[str] = re.findall(r"^[\d.]+ E +(.+)$", log, re.MULTILINE)
    reasons = [line.partition("error loading model: ")[2] for line in found if "error loading model: " in line]
    said: list[str] = reasons[-1:] or found[:1]
    return said[0] if said else None


def _resident(pid: int) -> int | None:
    """Bytes of resident memory; None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
