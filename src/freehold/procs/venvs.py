"""A venv of its own for each set of stock clients, made once and reused.

Why: the clients that freehold is judged by (huggingface_hub, the openai SDK, pytest suites of others) bring
dependencies that must neither enter freehold's environment nor fight one another. A venv's scripts hold its path, so
it is built where it will stay, under a lock, and counts only once its completion marker is written: a build that was
cut off is thrown away by the next one. It installs from wherever the user's pip is configured to.

It does not upgrade a venv: other requirements are another venv.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from freehold.errors import FreeholdError
from freehold.nouns.progress import Listener, Progress, silent
from freehold.procs.child import Finished, run, tail_of

_MARKER = "complete.json"
#: Variables that would bend the new interpreter towards the old environment.
_MISLEADING = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def client_venv(root: Path, requirements: Sequence[str], listener: Listener = silent, *, timeout: float = 1800.0) -> Path:
    """The python executable of the venv under `root` that holds `requirements` (pip's notation), made if need be.

    Safe when several processes or threads ask at once: one builds, the others wait. FreeholdError procs-venv-failed with
    the end of the log, procs-timeout after `timeout` seconds in one step.
    """
    folder = venv_folder(root, requirements)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if _complete(folder, python):
        return python
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock"), listener):
            if not _complete(folder, python):
                _build(folder, python, requirements, listener, timeout)
    except OSError as error:
        raise FreeholdError("procs-venv-failed", f"cannot make a venv in {root}: {error}", folder=str(root)) from error
    return python


def venv_folder(root: Path, requirements: Sequence[str]) -> Path:
    """Where that venv lies (or will): named by a hash of the requirements and of this Python."""
    return root / f"venv-{hashlib.sha256(_seal(requirements).encode()).hexdigest()[:16]}"


def _seal(requirements: Sequence[str]) -> str:
    facts = {"requirements": list(requirements), "python": sys.version, "machine": platform.machine(), "prefix": sys.base_prefix}
    return json.dumps(facts, sort_keys=True)


def _complete(folder: Path, python: Path) -> bool:
    return (folder / _MARKER).is_file() and python.exists()


def _build(folder: Path, python: Path, requirements: Sequence[str], listener: Listener, timeout: float) -> None:
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    env = {k: v for k, v in os.environ.items() if k not in _MISLEADING}

    def step(number: int, name: str, argv: list[str]) -> None:
        listener(Progress(name, number, 2, unit="steps", item=", ".join(requirements)))
        ended: Finished = run(argv, env=env, log=log, timeout=timeout)
        if not ended.exit.ok:
            raise FreeholdError(
                "procs-venv-failed",
                f"{name} failed ({ended.exit}): {_last_words(log)}",
                requirements=", ".join(requirements),
                log=str(log),
                tail=tail_of(log, 2000),
            )

    step(0, "making a venv", [sys.executable, "-m", "venv", str(folder)])
    if requirements:
        install = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        step(1, "installing clients", [*install, *requirements])
    marker = folder / _MARKER
    marker.with_suffix(".part").write_text(_seal(requirements), "utf-8")
    marker.with_suffix(".part").replace(marker)
    listener(Progress("installing clients", 2, 2, unit="steps"))


def _last_words(log: Path) -> str:
    """The last line that says something: pip writes its reason as `ERROR: ...`, then often a notice or nothing."""
    lines = [line.strip() for line in tail_of(log).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no output"])[-1]


@contextlib.contextmanager
def _locked(path: Path, listener: Listener) -> Iterator[None]:
    """Exclusive among processes and threads; let go by the kernel if the holder dies."""
    with path.open("ab") as file:
        waited = 0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited % 50 == 0:
                    listener(Progress("waiting for another process to make the venv", 0, unit="steps"))
                waited += 1
                time.sleep(0.1)
        yield
