"""What the stories of failure share: the command line and the server as processes, and what every refusal must look like."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from freehold.app import house
from freehold.errors import error_table
from freehold.flows.events import verify_events
from freehold.flows.models import list_models
from freehold.flows.usage import check_ledger
from freehold.lab.models import make_model
from freehold.lab.upstream import Upstream, running_upstream

Until = Callable[..., None]
GGUF, TENSORS = "acme/talker", "acme/tensors"


@dataclass(frozen=True)
class Ended:
    """How a command ended. `refused` asserts the whole of what a user must be told."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    def fine(self) -> Ended:
        assert self.code == 0, f"{self.args}: exit {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err
        return self

    def refused(self, code: str, *words: str) -> Ended:
        """Ended with the table's exit code for `code`, which it names, with `words` in its message, a hint, and no traceback."""
        said = f"{self.args}: exit {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err, said
        assert f"error {code}: " in self.err, said
        assert self.code == error_table()[code].exit, said
        assert re.search(r"^  hint: \S.+$", self.err, re.MULTILINE), said
        for word in words:
            assert word in self.err, said
        return self

    def json(self) -> Any:
        return json.loads(self.fine().out)


@dataclass
class Cli:
    """`freehold --home HOME`, each call a process of its own."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FREEHOLD_") and k != "HF_TOKEN"}
        return subprocess.Popen(
            [sys.executable, "-m", "freehold", "--home", str(self.home), *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean | self.env | env,
        )  # fmt: skip

    def __call__(self, *args: str, **env: str) -> Ended:
        return finish(self.start(*args, **env), args)

    def finish(self, process: subprocess.Popen[str], args: tuple[str, ...] = (), seconds: float = 90.0) -> Ended:
        """Wait for a started command."""
        return finish(process, args, seconds)

    def kept(self) -> dict[str, str]:
        """Model -> commit, as `ls` lists them."""
        return {line["model"]: line["commit"] for line in self("ls", "--json").json()}

    @contextlib.contextmanager
    def serve(self, *args: str, **env: str) -> Iterator[Server]:
        """`freehold up --port 0 --json`, which ends with the block."""
        process = self.start("up", "--port", "0", "--json", *args, **env)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise AssertionError(finish(process).err)
            told = json.loads(line)
            yield Server(process, told["url"], told["admin_key"])
        finally:
            if process.poll() is None:
                process.terminate()
            if process.stdout is not None and not process.stdout.closed:
                finish(process, seconds=30)

    def sound(self, *models: str) -> None:
        """Everything that is kept is whole, and it is exactly `models`; the event log and the ledger hold."""
        verified = self("verify", "--json")
        assert verified.json()["ok"], verified.out
        with house(str(self.home)) as opened:
            listed = list_models(opened.parts, opened.caller)
            assert sorted(str(m.id) for m in listed) == sorted(models)
            verify_events(opened.parts, opened.caller)
            audit, _ = check_ledger(opened.parts, opened.caller)
            assert audit.ok, audit.broken


def finish(process: subprocess.Popen[str], args: tuple[str, ...] = (), seconds: float = 90.0) -> Ended:
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return Ended(args, process.returncode, out, err, time.monotonic() - began)


@dataclass
class Server:
    """A running `freehold up`."""

    process: subprocess.Popen[str]
    url: str
    key: str | None

    def ask(self, path: str, body: Any = None, *, key: str | None = None, method: str | None = None) -> tuple[int, Any]:
        """Status and the JSON of the answer (its text, if it is none)."""
        with self.open(path, body, key=key, method=method) as answer:
            data = answer.read()
        try:
            return answer.status, json.loads(data)
        except ValueError:
            return answer.status, data.decode()

    @contextlib.contextmanager
    def open(
        self, path: str, body: Any = None, *, key: str | None = None, method: str | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = None if body is None else json.dumps(body)
        with contextlib.closing(http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)) as connection:
            connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
            yield connection.getresponse()

    def end(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> Ended:
        self.process.send_signal(number)
        return finish(self.process, ("up",), seconds)

    def children(self) -> list[int]:
        """The processes of engines that this server started."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                after = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
                if int(after[1]) == self.process.pid and b"llamacpp_child" in (stat.parent / "cmdline").read_bytes():
                    found.append(int(stat.parent.name))
        return found


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two small models, one that talks and one of safetensors."""
    root = tmp_path_factory.mktemp("models")
    make_model(root / GGUF, seed=5, size_mb=1, format="gguf")
    make_model(root / TENSORS, seed=6, size_mb=2, format="safetensors")
    return root


@pytest.fixture
def upstream(models: Path, tmp_path: Path) -> Iterator[Upstream]:
    """A hub of its own for each test, over the same models."""
    folder = tmp_path / "upstream"
    for name in (GGUF, TENSORS):
        (folder / name).mkdir(parents=True)
        for file in (models / name).iterdir():
            (folder / name / file.name).hardlink_to(file)
    with running_upstream(folder) as running:
        yield running


@pytest.fixture(scope="session")
def stock(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that keeps the talker, to be copied."""
    home = tmp_path_factory.mktemp("stocked") / "home"
    Cli(home)("pull", str(models / GGUF), "--name", GGUF).fine()
    return home


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line on a new home."""
    return Cli(tmp_path / "home")


@pytest.fixture
def stocked(stock: Path, tmp_path: Path) -> Cli:
    """The command line on a home that keeps the talker; it was made elsewhere and copied here."""
    copy_tree(stock, tmp_path / "home")
    return Cli(tmp_path / "home")


def copy_tree(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


@pytest.fixture
def until() -> Until:
    return wait_until


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for `condition`; AssertionError with `what` if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
