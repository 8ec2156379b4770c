"""The story against the public hub; on demand: `make smoke-online`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.online, pytest.mark.timeout(1800)]

MODEL = "hf-internal-testing/tiny-random-LlamaForCausalLM"


def _freehold(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "freehold", "--home", str(home), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False, env=os.environ)


def test_a_model_of_the_public_hub_is_kept_and_verifies(tmp_path: Path) -> None:
    pulled = _freehold(tmp_path / "home", "pull", f"hf:{MODEL}", "--json")
    if "net-unreachable" in pulled.stderr or "keep-hub-unreachable" in pulled.stderr or "net-" in pulled.stderr:
        pytest.skip(f"not run: the public hub is out of reach: {pulled.stderr.strip().splitlines()[-1]}")
    assert pulled.returncode == 0, pulled.stderr
    shown = json.loads(_freehold(tmp_path / "home", "show", MODEL, "--json").stdout)
    assert shown["files"]
    assert shown["commit_kind"] == "foreign"
    assert _freehold(tmp_path / "home", "verify").returncode == 0
    again = json.loads(_freehold(tmp_path / "home", "pull", f"hf:{MODEL}", "--json").stdout)
    assert again["already"] is True
