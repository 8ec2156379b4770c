"""Child processes: started from an argument list, in a group of their own, and never left behind.

Why one layer: whoever starts a program must settle the same six things, and forgetting one shows only in production:
no shell; an environment that is written down, not inherited by accident; a session of its own, so that a signal to the
group reaches grandchildren too; output that can neither block the child nor fill memory; an end that is always noticed;
and death with the parent (see `launch.py` for how, and for what holds on other systems than Linux).

All children are started by one thread that lives as long as the process, since Linux ties "the parent died" to the
thread that forked. One waiting thread a child notices its end, kills what is left of its group and reaps it, so sync
and async callers see the same `Exit`. It does not restart anything: that is for whoever knows why the child runs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Required, TypedDict, Unpack

from freehold.errors import FreeholdError

#: How much of a child's output is kept for the error message, in bytes.
TAIL = 16 * 1024

#: What a child needs of the parent's environment to work at all; everything else is named by whoever starts it.
_BASE = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "SYSTEMROOT")

_LAUNCH = Path(__file__).with_name("launch.py")
_PIPE_ROOM = 60 * 1024


def minimal_environment(**extra: str) -> dict[str, str]:
    """PATH, HOME, locale and temporary folder of this process, and `extra`; no secret travels by accident."""
    return {k: os.environ[k] for k in _BASE if k in os.environ} | extra


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: by itself with `code`, or by `signal`; exactly one of them is set."""

    code: int | None
    signal: int | None = None

    @property
    def ok(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            return f"killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"killed by signal {self.signal}"


class Options(TypedDict, total=False):
    """How to start a child. `env` is its whole environment (see `minimal_environment`).

    `stdin` is what it reads; with `hold_stdin` (at most 60 KiB then) its input stays open until it ends or this process
    dies, so that a child can watch for that. Output goes to the end of the file `log`, or the last 16 KiB are kept;
    `on_line` takes standard output line by line instead, called in a thread; it must not raise. `limits`: names of RLIMIT in
    lower case (`as`, `nofile`, `cpu`) to values in their units.
    """

    env: Required[Mapping[str, str]]
    cwd: Path
    stdin: bytes
    hold_stdin: bool
    log: Path
    on_line: Callable[[str], None]
    limits: Mapping[str, int]


class _Spawner:
    """The thread that forks all children of this process; made anew after a fork of the process itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, make: Callable[[], Any]) -> Future[Any]:
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                self._pool, self._owner = ThreadPoolExecutor(1, thread_name_prefix="freehold-spawn"), os.getpid()
            return self._pool.submit(make)


_SPAWNER = _Spawner()
_LIVE: set[Child] = set()


class Child:
    """A running (or ended) child process. Make it with `start` or `start_async`; end it with `stop` or `stop_async`."""

    def __init__(
        self, popen: subprocess.Popen[bytes], argv: Sequence[str], log: Path | None, on_line: Callable[[str], None] | None
    ) -> None:
        self.pid = popen.pid
        self.argv = tuple(argv)
        self.owner = os.getpid()
        self._popen = popen
        self._log = log
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._lock = threading.Lock()
        self._reaped = False
        self._ended: Future[Exit] = Future()
        self._pumps = [
            threading.Thread(target=self._pump, args=(stream, sink), name=f"freehold-output-{self.pid}", daemon=True)
            for stream, sink in ((popen.stderr, self._keep), (popen.stdout, self._lines(on_line) if on_line else self._keep))
            if stream is not None
        ]
        for pump in self._pumps:
            pump.start()
        threading.Thread(target=self._watch, name=f"freehold-wait-{self.pid}", daemon=True).start()

    @classmethod
    def start(cls, argv: Sequence[str], **options: Unpack[Options]) -> Child:
        """Start `argv` as `Options` say. FreeholdError procs-program-missing, procs-start-failed."""
        return cls._spawn(argv, options).result()

    @classmethod
    async def start_async(cls, argv: Sequence[str], **options: Unpack[Options]) -> Child:
        """As `start`, without blocking the event loop. A start that is cancelled leaves no child."""
        future = cls._spawn(argv, options)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: None if done.exception() else done.result().kill())
            raise

    @classmethod
    def _spawn(cls, argv: Sequence[str], options: Options) -> Future[Child]:
        if any("\0" in part for part in argv):
            raise FreeholdError("procs-start-failed", f"a NUL byte in the arguments of {argv[0]!r}", program=argv[0])
        program = shutil.which(argv[0], path=options["env"].get("PATH"))
        if program is None:
            raise FreeholdError(
                "procs-program-missing", f"the program '{argv[0]}' is not installed or not on PATH", program=argv[0]
            )
        if options.get("hold_stdin") and len(options.get("stdin", b"")) > _PIPE_ROOM:
            raise FreeholdError("procs-start-failed", f"too much input to hold open for {argv[0]}", program=argv[0])
        spec = json.dumps({"parent": os.getpid(), "limits": dict(options.get("limits", {}))})
        command = [sys.executable, "-I", "-S", str(_LAUNCH), spec, program, *argv[1:]]

        def make() -> Child:
            try:
                popen = _popen(command, options)
            except (OSError, ValueError) as error:
                raise FreeholdError("procs-start-failed", f"cannot start {argv[0]}: {error}", program=argv[0]) from error
            child = cls(popen, argv, options.get("log"), options.get("on_line"))
            _LIVE.add(child)
            return child

        return _SPAWNER.submit(make)

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    def wait(self, timeout: float | None = None) -> Exit:
        """Block until it ends; TimeoutError after `timeout` seconds (the child goes on)."""
        return self._ended.result(timeout)

    async def wait_async(self) -> Exit:
        return await asyncio.shield(asyncio.wrap_future(self._ended))

    def send(self, number: int) -> None:
        """Send a signal to the whole group; nothing happens if the child has ended."""
        with self._lock:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def stop(self, grace: float = 5.0) -> Exit:
        """TERM to the group, `grace` seconds of patience, then KILL; returns when the child is reaped."""
        self.send(signal.SIGTERM)
        try:
            return self.wait(grace)
        except TimeoutError:
            self.kill()
            return self.wait()

    async def stop_async(self, grace: float = 5.0) -> Exit:
        """As `stop`; if cancelled while waiting, the child is killed at once."""
        self.send(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait_async(), grace)
        except TimeoutError:
            self.kill()
            return await self.wait_async()
        except asyncio.CancelledError:
            self.kill()
            raise

    def tail(self, limit: int = TAIL) -> str:
        """The last `limit` bytes of what it wrote, as text."""
        if self._log is None:
            with self._lock:
                return b"".join(self._tail)[-limit:].decode("utf-8", "replace")
        return tail_of(self._log, limit)

    def _watch(self) -> None:
        """Wait for the end without reaping, so that the group's number cannot pass to a stranger; sweep; reap."""
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._popen.wait()
        with self._lock:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            code = self._popen.wait()
            self._reaped = True
        for pump in self._pumps:
            pump.join(2.0)
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        _LIVE.discard(self)
        self._ended.set_result(Exit(code) if code >= 0 else Exit(None, -code))

    def _pump(self, stream: IO[bytes], sink: Callable[[bytes], None]) -> None:
        with stream:
            while piece := stream.read1(8192):  # type: ignore[attr-defined]  # a BufferedReader, typed as IO
                sink(piece)

    def _keep(self, piece: bytes) -> None:
        with self._lock:
            self._tail.append(piece)
            self._tail_size += len(piece)
            while self._tail_size - len(self._tail[0]) >= TAIL:
                self._tail_size -= len(self._tail.popleft())

    def _lines(self, on_line: Callable[[str], None]) -> Callable[[bytes], None]:
        """Split into lines; a line longer than the tail is cut, so that a child cannot fill memory by never ending one."""
        rest = bytearray()

        def sink(piece: bytes) -> None:
            rest.extend(piece)
            while (end := rest.find(b"\n")) >= 0:
                line = bytes(rest[: min(end, TAIL)])
                del rest[: end + 1]
                on_line(line.decode("utf-8", "replace"))
            del rest[TAIL:]

        return sink


def _popen(command: list[str], options: Options) -> subprocess.Popen[bytes]:
    log, stdin, hold = options.get("log"), options.get("stdin", b""), options.get("hold_stdin", False)
    separate = options.get("on_line") is not None
    with contextlib.ExitStack() as stack:
        sink: Any = subprocess.PIPE
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink = stack.enter_context(log.open("ab"))
        source: Any = subprocess.PIPE if hold else subprocess.DEVNULL
        if stdin and not hold:
            source = stack.enter_context(tempfile.TemporaryFile())
            source.write(stdin)
            source.seek(0)
        popen = subprocess.Popen(
            command,
            env=dict(options["env"]),
            cwd=options.get("cwd"),
            stdin=source,
            stdout=subprocess.PIPE if separate else sink,
            stderr=sink if separate or log is not None else subprocess.STDOUT,
            start_new_session=True,
        )
        if hold and popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                popen.stdin.write(stdin)
                popen.stdin.flush()
        return popen


def tail_of(log: Path, limit: int = TAIL) -> str:
    """The last `limit` bytes of a log file as text; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Finished:
    """A child that ran to its end, and the last 16 KiB of its output."""

    exit: Exit
    tail: str


def run(argv: Sequence[str], *, timeout: float | None = None, **options: Unpack[Options]) -> Finished:
    """Run to the end. FreeholdError procs-timeout after `timeout` seconds (the group is killed), and those of `start`."""
    child = Child.start(argv, **options)
    try:
        ended = child.wait(timeout)
    except TimeoutError:
        child.stop(grace=1.0)
        raise FreeholdError(
            "procs-timeout", f"{argv[0]} did not end within {timeout:g} seconds", program=argv[0], tail=child.tail(2000)
        ) from None
    except BaseException:
        child.kill()
        raise
    return Finished(ended, child.tail())


@atexit.register
def _end_all() -> None:
    """No child outlives an ordinary end of this process, on any system."""
    for child in list(_LIVE):
        if child.owner == os.getpid():
            child.kill()
