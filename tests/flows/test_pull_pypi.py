"""Pulling from a package index with the real pip: the wheel comes once, is checked, and nothing of it is run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.app import House, house
from freehold.errors import FreeholdError, error_table
from freehold.flows import events, models
from freehold.flows.pull import pull
from freehold.keep.sources.pip import pip_version
from freehold.keep.sources.pypi import PypiSource
from freehold.lab.models import make_model
from freehold.nouns.origin import Evidence
from freehold.nouns.progress import Progress
from freehold.nouns.reference import parse_reference
from freehold.testing.package_index import PackageIndex, make_wheel, running_index

REFERENCE = "pypi:tiny-model==1.0"
#: Requests for one wheel: before 23.1 pip itself asks a second time where the index has separate metadata, in one and the
#: same run; its HTTP cache answers that where the index allows caching, which this one does not.
ONCE = 2 if pip_version() < (23, 1) else 1
MODEL = "pypi/tiny-model"
GGUF = "tiny.Q4.gguf"
DESCRIPTION = f"""# tiny-model
Holds [{GGUF}](https://huggingface.co/quants/Tiny-GGUF/blob/0123456789abcdef0123456789abcdef01234567/{GGUF}), a quantized
version of the [Tiny](https://huggingface.co/makers/Tiny) model. See also [Other](https://huggingface.co/makers/Other).
"""


@dataclass
class Shop:
    index: PackageIndex
    weights: bytes


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: one that holds a model, one that holds none, one as source archive only."""
    folder = tmp_path_factory.mktemp("index")
    made = make_model(tmp_path_factory.mktemp("model") / "tiny", seed=7, size_mb=1, format="gguf")
    weights = next(made.folder.glob("*.gguf")).read_bytes()
    legal = (made.folder / "LICENSE").read_text("utf-8")
    files = {f"tiny_model/{GGUF}": weights, "tiny_model/__init__.py": b"raise SystemExit('nobody runs me')\n"}
    headers = {
        "Summary": "A tiny model",
        "License": "MIT",
        "Author": "Somebody",
        "Description-Content-Type": "text/markdown",
    }
    make_wheel(folder, "tiny-model", "1.0", files, headers=headers, description=DESCRIPTION, license_text=legal)
    make_wheel(folder, "tiny-model", "0.9", {f"tiny_model/{GGUF}": weights}, headers=headers, license_text=legal)
    make_wheel(folder, "no-model", "1.0", {"no_model/__init__.py": b""})
    make_wheel(folder, "wrong-record", "1.0", {"wrong_record/a.gguf": weights}, wrong_record=True)
    (folder / "only_source-1.0.tar.gz").write_bytes(b"never opened")
    (folder / ".weights").write_bytes(weights)
    return folder


@pytest.fixture
def shop(goods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with running_index(goods) as index:
        for name, value in index.settings(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        yield Shop(index, (goods / ".weights").read_bytes())


@pytest.fixture(scope="module")
def commits() -> set[str]:
    """What several tests saw."""
    return set()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(str(tmp_path / "home")) as opened:
        yield opened


def _fails(code: str, home: House, reference: str) -> FreeholdError:
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, reference)
    assert caught.value.code == code, caught.value
    assert code in error_table()
    assert models.list_models(home.parts, home.caller) == []
    return caught.value


def _spooled(home: House) -> list[Path]:
    return [p for p in home.parts.home.spool.rglob("*") if p.is_file() and p.suffix != ".lock"]


@pytest.mark.parametrize("metadata", [True, False], ids=["index with metadata", "index without metadata"])
def test_a_package_is_taken_in_with_one_download_and_all_that_it_says(
    shop: Shop, home: House, metadata: bool, commits: set[str]
) -> None:
    shop.index.metadata = metadata
    heard: list[Progress] = []
    done = pull(home.parts, home.caller, REFERENCE, listener=heard.append)
    assert shop.index.fetched("tiny_model-1.0-py3-none-any.whl") == (ONCE if metadata else 1)
    assert (str(done.id), done.already, done.admission) == (MODEL, False, "admitted")
    view = models.show_model(home.parts, home.caller, MODEL)
    assert [e.path for e in view.manifest] == ["LICENSE", "METADATA", GGUF]
    entry = view.manifest.find(GGUF)
    assert b"".join(home.parts.vault.read(entry.sha256)) == shop.weights
    (origin,) = view.origins
    wheel = (shop.index.folder / "tiny_model-1.0-py3-none-any.whl").read_bytes()
    assert (origin.source, origin.locator) == ("pypi", REFERENCE)
    assert origin.detail["wheel_sha256"] == hashlib.sha256(wheel).hexdigest()
    assert (origin.detail["package"], origin.detail["version"]) == ("tiny-model", "1.0")
    assert origin.detail["metadata"]["summary"] == "A tiny model"
    assert origin.detail["says_copied_from"][0]["model"] == "quants/Tiny-GGUF"
    assert origin.evidence == view.manifest.find("METADATA").sha256
    (edge,) = view.lineage
    assert (edge.parent, edge.relation, edge.evidence) == ("makers/Tiny", "quantized", Evidence.DECLARED)
    assert view.facts["quantized_by"] is None
    assert (view.license["declared"], view.license["agreement"]) == ("mit", "agree")
    assert view.revision.kind == "native"
    assert _spooled(home) == []
    assert "unpack" in {p.stage for p in heard}
    commits.add(done.commit)
    assert len(commits) == 1, "taken twice, in two houses, it is the same commit"


def test_what_is_kept_is_never_fetched_again_under_any_name(shop: Shop, home: House) -> None:
    first = pull(home.parts, home.caller, REFERENCE)
    shop.index.requests.clear()
    again = pull(home.parts, home.caller, REFERENCE)
    assert (again.already, again.commit) == (True, first.commit)
    other = pull(home.parts, home.caller, "pypi:Tiny_Model==1.0", name="mine/tiny")
    assert (str(other.id), other.new_bytes, other.commit) == ("mine/tiny", 0, first.commit)
    assert models.show_model(home.parts, home.caller, "mine/tiny").lineage
    assert shop.index.requests == []
    assert len(events.list_events(home.parts, home.caller)) == 2


def test_without_a_version_the_newest_is_taken_and_recognised(shop: Shop, home: House) -> None:
    first = pull(home.parts, home.caller, "pypi:tiny-model")
    assert first.locator == REFERENCE
    assert pull(home.parts, home.caller, "pypi:tiny-model").already
    assert shop.index.fetched(".whl") == ONCE
    older = pull(home.parts, home.caller, "pypi:tiny-model==0.9")
    assert not older.already
    assert older.commit != first.commit
    assert older.new_bytes < len(shop.weights)
    back = pull(home.parts, home.caller, REFERENCE)
    assert (back.already, back.ref) == (True, "heads/main")
    assert models.show_model(home.parts, home.caller, MODEL).revision.commit.sha == first.commit


def test_a_wheel_that_waits_whole_in_the_spool_is_not_fetched_again_unless_it_was_damaged(
    shop: Shop, home: House, tmp_path: Path
) -> None:
    PypiSource(home.parts.home.spool / "wheels").resolve(parse_reference(REFERENCE))  # and then, say, the power fails
    with house(str(tmp_path / "other")) as other:
        shutil.copytree(home.parts.home.spool / "wheels", other.parts.home.spool / "wheels")
        (wheel,) = other.parts.home.spool.rglob("*.whl")
        wheel.write_bytes(wheel.read_bytes()[:-1000])
        assert shop.index.fetched(".whl") == ONCE
        pull(home.parts, home.caller, REFERENCE)
        assert shop.index.fetched(".whl") == ONCE
        pull(other.parts, other.caller, REFERENCE)
        assert shop.index.fetched(".whl") == 2 * ONCE
    assert _spooled(home) == []


def test_absent_packages_versions_and_wheels_are_told_apart(shop: Shop, home: House) -> None:
    _fails("keep-package-not-found", home, "pypi:nothing-like-it==1.0")
    error = _fails("keep-package-not-found", home, "pypi:tiny-model==7.0")
    assert "0.9, 1.0" in error.message
    _fails("keep-only-source", home, "pypi:only-source==1.0")
    _fails("keep-no-weights", home, "pypi:no-model==1.0")
    _fails("keep-hash-mismatch", home, "pypi:wrong-record==1.0")
    assert [p for p in _spooled(home) if "no_model" in p.name] == []


def test_an_index_that_is_away_or_refuses_is_named_as_such(shop: Shop, home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.index.status = 403
    _fails("keep-index-refused", home, REFERENCE)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    _fails("keep-index-unreachable", home, REFERENCE)


def test_a_wheel_that_is_not_what_the_index_announced_is_thrown_away(shop: Shop, home: House) -> None:
    shop.index.spoil = True
    _fails("keep-hash-mismatch", home, REFERENCE)
    assert _spooled(home) == []
    shop.index.spoil = False
    assert pull(home.parts, home.caller, REFERENCE).admission == "admitted"


def test_local_only_and_a_python_without_pip_are_said_before_anything_is_asked(
    shop: Shop, home: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    def none(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError("pip")

    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", none)
        _fails("keep-pip-missing", home, REFERENCE)
    monkeypatch.setenv("FREEHOLD_NET__LOCAL_ONLY", "true")
    with house(str(tmp_path / "local")) as local:
        _fails("net-local-only", local, REFERENCE)
    assert shop.index.requests == []
