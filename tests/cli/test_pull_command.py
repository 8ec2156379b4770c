"""`freehold pull` as people type it: what it prints, what it returns, and what it never shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def _run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"FREEHOLD_HOME": str(home)} | environment
    return subprocess.run(
        [sys.executable, "-m", "freehold", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_pull_prints_what_came_and_what_to_do_next(upstream: Upstream, tmp_path: Path) -> None:
    done = _run(tmp_path / "home", "pull", f"hf:{MODEL}", "--endpoint", upstream.url, HF_TOKEN="hf_of_mine")
    assert done.returncode == 0, done.stderr
    assert f"kept: {MODEL} at {upstream.head(MODEL)[:12]}" in done.stdout
    assert f"next: freehold show {MODEL}" in done.stderr
    assert "hf_of_mine" not in done.stdout + done.stderr
    again = _run(tmp_path / "home", "pull", f"hf:{MODEL}", "--endpoint", upstream.url, "--json", HF_TOKEN="hf_of_mine")
    shown = json.loads(again.stdout)
    assert (shown["id"], shown["already"], shown["commit"]) == (MODEL, True, upstream.head(MODEL))


def test_a_token_file_is_read_and_a_missing_one_named(upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hf_of_mine\n")
    wanted = ["pull", f"hf:{MODEL}", "--endpoint", upstream.url, "--name", "me/copy", "--json"]
    done = _run(tmp_path / "home", *wanted, "--token-file", str(file))
    assert json.loads(done.stdout)["id"] == "me/copy"
    missing = _run(tmp_path / "home", *wanted, "--token-file", str(tmp_path / "nothing"))
    assert (missing.returncode, "keep-token-unreadable" in missing.stderr) == (66, True)


def test_a_refusal_has_its_code_hint_and_exit_code(upstream: Upstream, tmp_path: Path) -> None:
    gated = _run(tmp_path / "home", "pull", f"hf:{MODEL}", "--endpoint", upstream.url)
    assert gated.returncode == 77
    assert "keep-gated" in gated.stderr
    assert "hint:" in gated.stderr
    wrong = _run(tmp_path / "home", "pull", "ftp://x")
    assert (wrong.returncode, "keep-reference-invalid" in wrong.stderr) == (64, True)
    nowhere = _run(tmp_path / "home", "pull", str(tmp_path / "nothing"))
    assert (nowhere.returncode, "keep-path-not-found" in nowhere.stderr) == (66, True)


def test_a_model_in_quarantine_is_said_to_be(tmp_path: Path) -> None:
    made = make_model(tmp_path / "model", seed=1, size_mb=1, format="gguf")
    weights = next(made.folder.glob("*.gguf"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = _run(tmp_path / "home", "pull", str(made.folder), "--name", "me/broken")
    assert done.returncode == 0, done.stderr
    assert "quarantined" in done.stdout
    assert "it will not be served" in done.stdout
