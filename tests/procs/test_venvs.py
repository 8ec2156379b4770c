"""Venvs for stock clients."""

import sys
import threading
import zipfile
from pathlib import Path

import pytest

from freehold.errors import FreeholdError
from freehold.nouns.progress import Progress
from freehold.procs.child import minimal_environment, run
from freehold.procs.venvs import client_venv, venv_folder


def _wheel(folder: Path) -> Path:
    """A wheel of one module, so that nothing is downloaded."""
    path = folder / "fh_probe-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("fh_probe.py", "ANSWER = 42\n")
        wheel.writestr("fh_probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fh-probe\nVersion: 1.0\n")
        wheel.writestr(
            "fh_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("fh_probe-1.0.dist-info/RECORD", "")
    return path


def test_two_who_ask_at_once_get_one_working_venv_and_a_cut_off_build_is_thrown_away(tmp_path: Path) -> None:
    requirements = ["--no-index", str(_wheel(tmp_path))]
    root = tmp_path / "venvs"
    cut_off = venv_folder(root, requirements)
    (cut_off / "bin").mkdir(parents=True)
    (cut_off / "bin" / "python").symlink_to(sys.executable)
    seen: list[Progress] = []
    answers: list[Path] = []
    askers = [threading.Thread(target=lambda: answers.append(client_venv(root, requirements, seen.append))) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    python = answers[0]
    assert answers == [python, python]
    assert [p.stage for p in seen].count("making a venv") == 1
    probe = [str(python), "-c", "import fh_probe, sys; print(fh_probe.ANSWER, sys.prefix)"]
    assert run(probe, env=minimal_environment()).tail.split() == ["42", str(python.parent.parent)]
    again: list[Progress] = []
    assert client_venv(root, requirements, again.append) == python
    assert again == [], "a finished venv costs nothing"


@pytest.mark.clients
def test_a_requirement_that_cannot_be_met_says_what_pip_said(tmp_path: Path) -> None:
    with pytest.raises(FreeholdError) as caught:
        client_venv(tmp_path, ["--no-index", "fh-no-such-package"])
    assert caught.value.code == "procs-venv-failed"
    assert "fh-no-such-package" in caught.value.message
    assert Path(caught.value.context["log"]).is_file()


def test_a_folder_that_cannot_be_made_is_a_clear_error() -> None:
    with pytest.raises(FreeholdError) as unwritable:
        client_venv(Path(sys.executable) / "below-a-file", [])
    assert unwritable.value.code == "procs-venv-failed"
