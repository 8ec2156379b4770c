"""`freehold pull` as people type it: what it prints, what it returns, and what it never shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.cli import main
from freehold.lab.models import make_model
from freehold.lab.upstream import Upstream, running_upstream

MODEL = "acme/tiny"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    root = tmp_path_factory.mktemp("upstream")
    make_model(root / MODEL, seed=5, size_mb=1, format="gguf")
    with running_upstream(root) as running:
        running.add_token("hf_of_mine", "me")
        running.gate(MODEL, accept=["hf_of_mine"])
        yield running


@dataclass(frozen=True)
class Ran:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`freehold ARGUMENTS` with the home of the test (see conftest) and this environment besides."""

    def command(*arguments: str, **environment: str) -> Ran:
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            for name, value in environment.items():
                patch.setenv(name, value)
            main(list(arguments))
        shown = capsys.readouterr()
        return Ran(int(ended.value.code or 0), shown.out, shown.err)

    return command


def test_a_pull_prints_what_came_and_what_to_do_next(upstream: Upstream, run: Run, tmp_path: Path) -> None:
    done = run("pull", f"hf:{MODEL}", "--endpoint", upstream.url, HF_TOKEN="hf_of_mine")
    assert done.returncode == 0, done.stderr
    assert f"kept: {MODEL} at {upstream.head(MODEL)[:12]}" in done.stdout
    assert f"next: freehold show {MODEL}" in done.stderr
    assert "hf_of_mine" not in done.stdout + done.stderr
    again = run("pull", f"hf:{MODEL}", "--endpoint", upstream.url, "--json", HF_TOKEN="hf_of_mine")
    shown = json.loads(again.stdout)
    assert (shown["id"], shown["already"], shown["commit"]) == (MODEL, True, upstream.head(MODEL))


def test_a_token_file_is_read_and_a_missing_one_named(upstream: Upstream, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hf_of_mine\n")
    wanted = ["pull", f"hf:{MODEL}", "--endpoint", upstream.url, "--name", "me/copy", "--json"]
    done = run(*wanted, "--token-file", str(file))
    assert json.loads(done.stdout)["id"] == "me/copy"
    missing = run(*wanted, "--token-file", str(tmp_path / "nothing"))
    assert (missing.returncode, "keep-token-unreadable" in missing.stderr) == (66, True)


def test_a_refusal_has_its_code_hint_and_exit_code(upstream: Upstream, run: Run, tmp_path: Path) -> None:
    gated = run("pull", f"hf:{MODEL}", "--endpoint", upstream.url)
    assert gated.returncode == 77
    assert "keep-gated" in gated.stderr
    assert "hint:" in gated.stderr
    wrong = run("pull", "ftp://x")
    assert (wrong.returncode, "keep-reference-invalid" in wrong.stderr) == (64, True)
    nowhere = run("pull", str(tmp_path / "nothing"))
    assert (nowhere.returncode, "keep-path-not-found" in nowhere.stderr) == (66, True)


def test_a_model_in_quarantine_is_said_to_be(run: Run, tmp_path: Path) -> None:
    made = make_model(tmp_path / "model", seed=1, size_mb=1, format="gguf")
    weights = next(made.folder.glob("*.gguf"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = run("pull", str(made.folder), "--name", "me/broken")
    assert done.returncode == 0, done.stderr
    assert "quarantined" in done.stdout
    assert "it will not be served" in done.stdout
