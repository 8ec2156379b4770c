"""The quickstart works as written: its blocks are run in order, in a new home."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="not run: the engine (extra `llama`) is not installed")
def test_the_tested_blocks_of_the_quickstart_work_in_order(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    blocks = re.findall(r"<!-- tested -->\n```\n(.*?)```", page, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "freehold"
        done = subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, timeout=90, check=False, cwd=tmp_path, env=os.environ
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
