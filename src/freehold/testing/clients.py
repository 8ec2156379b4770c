"""Stock clients for tests: each set in a venv of its own, kept between runs, and a script run in it.

Why kept in the user's cache: making a venv takes 10 to 60 s, and the requirements are pinned, so one venv serves all tests
and all runs. A client that cannot be installed (no package index) is not a failure of freehold: the test is skipped, and
says "not run:", which CI counts as a failure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import FreeholdError
from freehold.procs.child import minimal_environment, run
from freehold.procs.venvs import client_venv

HUGGINGFACE_HUB = ("huggingface_hub==2.4.0",)


def clients_root() -> Path:
    """The folder of all test clients' venvs: `freehold/clients` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "freehold" / "clients"


def client_python(requirements: Sequence[str]) -> Path:
    """The python of a venv with `requirements`; skips the test ("not run: ...") if they cannot be installed."""
    try:
        return client_venv(clients_root(), requirements)
    except FreeholdError as error:
        pytest.skip(f"not run: cannot install {', '.join(requirements)}: {error.message}")


def run_client(python: Path, script: str, *args: str, env: Mapping[str, str], seconds: float = 120.0) -> Any:
    """What `script` printed on its last line, as JSON. AssertionError with the end of its output if it failed or hung."""
    lines: list[str] = []
    environment = minimal_environment(**env, NO_PROXY="127.0.0.1,localhost")
    ended = run([str(python), "-I", "-c", script, *args], env=environment, on_line=lines.append, timeout=seconds)
    if not ended.exit.ok:
        raise AssertionError(f"the client failed ({ended.exit}):\n{ended.tail}")
    return json.loads(lines[-1])
