"""All three sources pass the one conformance suite."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.db import open_database
from freehold.keep.sources.folder import FolderSource
from freehold.keep.sources.hub import HubSource
from freehold.keep.sources.pypi import PypiSource
from freehold.keep.sources.source import Resolved, SourceFile
from freehold.lab.models import make_model
from freehold.lab.upstream import running_upstream
from freehold.net.egress import Egress, Patience
from freehold.nouns.progress import Listener, silent
from freehold.nouns.reference import parse_reference
from freehold.testing.package_index import make_wheel, running_index
from freehold.testing.source import CHECKS, Check, SourceCase, a_part_is_continued
from freehold.vault import LocalStore, Part, Vault


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GGUF model of the lab, made once."""
    folder = tmp_path_factory.mktemp("models")
    made = make_model(folder / "org" / "tiny", seed=3, size_mb=1, format="gguf")
    return made.folder


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    def clock() -> int:
        return time.time_ns() // 1000

    database = open_database(tmp_path / "vault.db", "vault", clock)
    yield Vault(LocalStore(tmp_path / "objects"), database, tmp_path / "spool", clock)
    database.close()


@pytest.fixture(scope="module")
def packages(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceCase]:
    """Shared by all checks: a wheel that waits in the spool spares most of them a run of pip."""
    files, spool = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("wheels")
    make_wheel(files, "tiny-model", "1.0", {f"tiny_model/{p.name}": p.read_bytes() for p in model.iterdir()})
    with running_index(files) as index, pytest.MonkeyPatch.context() as patch:
        for name, value in index.settings(tmp_path_factory.mktemp("cache")).items():
            patch.setenv(name, value)
        yield SourceCase(PypiSource(spool), parse_reference("pypi:tiny-model==1.0"), parse_reference("pypi:nothing==1.0"), spool)


@pytest.fixture(params=["folder", "hub", "pypi"])
def case(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[SourceCase]:
    if request.param == "folder":
        yield SourceCase(FolderSource(), parse_reference(str(model)), parse_reference(str(tmp_path / "nothing")))
    elif request.param == "hub":
        with running_upstream(model.parent.parent) as upstream, Egress(patience=Patience(attempts=1)) as egress:
            source = HubSource(egress, upstream.url)
            yield SourceCase(source, parse_reference("hf:org/tiny"), parse_reference("hf:org/nothing"))
    else:
        yield request.getfixturevalue("packages")


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_source_keeps_the_contract(check: Check, case: SourceCase, vault: Vault) -> None:
    check(case, vault)


class _Forgetful(FolderSource):
    """Begins every file anew, whatever the part holds."""

    def fetch(self, resolved: Resolved, file: SourceFile, part: Part, listener: Listener = silent) -> None:
        part.truncate()
        super().fetch(resolved, file, part, listener)


def test_control_the_suite_finds_a_source_that_does_not_continue(model: Path, vault: Vault, tmp_path: Path) -> None:
    broken = SourceCase(_Forgetful(), parse_reference(str(model)), parse_reference(str(tmp_path / "nothing")))
    with pytest.raises(AssertionError, match="only the rest is appended"):
        a_part_is_continued(broken, vault)
