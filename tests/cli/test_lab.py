"""`freehold lab` as a person uses it: make a model, serve it, break it, read it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def freehold(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "freehold", *map(str, args)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=os.environ | env)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "models"
    done = freehold("lab", "model", folder / "org" / "tiny", "--seed", "1", "--size-mb", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weight_bytes"] == pytest.approx(1e6, rel=0.05)
    return folder


@pytest.fixture
def served(folder: Path) -> Iterator[dict[str, Any]]:
    argv = [sys.executable, "-m", "freehold", "lab", "upstream", str(folder), "--lifetime", "60", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
        assert not (folder / ".lab" / "control.json").exists()


def status(url: str) -> int:
    try:
        return int(urllib.request.urlopen(url, timeout=10).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_fine_tune_is_made_from_a_made_model(folder: Path, tmp_path: Path) -> None:
    done = freehold("lab", "finetune", folder / "org" / "tiny", tmp_path / "ft", "--relative-change", "0.013", "--seed", "2")
    assert done.returncode == 0, done.stderr
    assert "base_model: org/tiny" in (tmp_path / "ft" / "README.md").read_text()


def test_an_upstream_is_told_by_its_folder_alone(folder: Path, served: dict[str, Any]) -> None:
    info = f"{served['url']}/api/models/org/tiny"
    assert (served["models"], status(info)) == (["org/tiny"], 200)
    told = freehold("lab", "tell", folder, "fail", "org/tiny", "--status", "502", "--times", "1")
    assert (told.returncode, told.stdout) == (0, "done: fail\n")
    assert [status(info), status(info)] == [502, 200]
    mutated = freehold("lab", "tell", folder, "mutate", "org/tiny", "--json")
    assert len(json.loads(mutated.stdout)["result"]) == 40
    state = json.loads(freehold("lab", "state", folder, "--json").stdout)
    assert state["models"][0]["main"] == json.loads(mutated.stdout)["result"]
    seen = json.loads(freehold("lab", "requests", folder, "--json").stdout)
    assert [r["status"] for r in seen] == [200, 502, 200]
    by_url = freehold("lab", "tell", served["control_url"], "gate", "org/tiny", FREEHOLD_LAB_TOKEN=served["control_token"])
    assert by_url.returncode == 0
    assert "gated (auto)" in freehold("lab", "state", folder).stdout
    assert "502" in freehold("lab", "requests", folder).stdout
    assert freehold("lab", "tell", folder, "restore").returncode == 0


def test_a_second_upstream_on_the_folder_is_refused(folder: Path, served: dict[str, Any]) -> None:
    again = freehold("lab", "upstream", folder, "--lifetime", "5")
    assert (again.returncode, "lab-upstream-running" in again.stderr) == (69, True)
    assert status(served["url"]) == 200


@pytest.mark.parametrize(
    ("args", "code", "exit_"),
    [
        (("state", "ABSENT"), "lab-control-unreachable", 69),
        (("tell", "http://127.0.0.1:9", "dead"), "lab-control-unreachable", 69),
        (("upstream", "ABSENT"), "lab-folder-missing", 66),
        (("model", "OUT", "--seed", "1", "--size-mb", "9999"), "lab-argument-invalid", 64),
        (("finetune", "ABSENT", "OUT", "--seed", "1", "--relative-change", "0.1"), "lab-folder-missing", 66),
    ],
)
def test_a_mistake_is_named_with_its_code(tmp_path: Path, args: tuple[str, ...], code: str, exit_: int) -> None:
    places = {"ABSENT": str(tmp_path / "absent"), "OUT": str(tmp_path / "out")}
    done = freehold("lab", *(places.get(a, a) for a in args))
    assert done.returncode == exit_
    assert code in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_labs_help_needs_neither_numpy_nor_a_server() -> None:
    code = (
        "import sys, freehold.cli\n"
        "try: freehold.cli.main(['lab', 'tell', 'x', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'sqlalchemy', 'starlette', 'uvicorn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
