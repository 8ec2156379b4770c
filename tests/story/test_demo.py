"""The story that the README shows is the one that is told."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
readme = runpy.run_path(str(ROOT / "scripts" / "readme.py"))

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


def _freehold(home: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "freehold", "--home", str(home), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, env=os.environ | env)


def test_the_demo_holds_and_prints_what_the_readme_shows_and_holds_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = _freehold(home, "demo")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "admin key, shown once: fh_" in first.stdout
    for name in ("README.md", "README.zh.md"):
        assert readme["masked"](readme["output_in"](ROOT / name)) == readme["masked"](first.stdout)
    began = time.monotonic()
    again = _freehold(home, "demo", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    steps = [json.loads(line) for line in again.stdout.splitlines()]
    assert [s["name"] for s in steps] == ["keep", "study", "use", "hub", "drill"]
    assert all(s["ok"] for s in steps)
    assert time.monotonic() - began < 120
    assert _freehold(home, "events", "--verify").returncode == 0
    assert _freehold(home, "usage", "--check").returncode == 0


def test_the_demo_fails_when_the_package_index_is_away(tmp_path: Path) -> None:
    """Control: nothing in the story is canned."""
    dead = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "0", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    dead |= {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    done = _freehold(tmp_path / "home", "demo", **dead)
    assert done.returncode == 1
    assert "keep-" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(_freehold(tmp_path / "home", "ls", "--json").stdout) == []
