"""Studying what is kept: the facts come from the vault's bytes, and only those who may see a model may study it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import text

from freehold.app import House, house
from freehold.errors import FreeholdError
from freehold.flows.models import show_model
from freehold.flows.pull import pull
from freehold.flows.study import study_model, study_tensors
from freehold.formats.source import ByteSource
from freehold.lab.models import make_model
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.digest import Digest
from freehold.testing.byte_source import check_byte_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lab") / "tiny"
    make_model(out, seed=5, size_mb=1, format="safetensors")
    return out


@pytest.fixture
def home(tmp_path: Path, folder: Path) -> Iterator[House]:
    with house(str(tmp_path / "home")) as opened:
        pull(opened.parts, opened.caller, str(folder), name="acme/tiny")
        yield opened


def test_a_study_of_today_says_what_the_pull_recorded(home: House) -> None:
    view = study_model(home.parts, home.caller, "acme/tiny")
    recorded = show_model(home.parts, home.caller, "acme/tiny")
    assert str(view.id) == "acme/tiny"
    assert view.facts.parameters == recorded.facts["parameters"]
    assert view.facts.architecture == recorded.facts["architecture"]
    assert view.license.agreement == recorded.license["agreement"]
    assert [asdict(f) for f in view.findings] == [asdict(f) for f in recorded.findings]
    assert view.tensors == {}


def test_tensors_are_listed_when_asked_for_and_account_for_every_parameter(home: House) -> None:
    view = study_model(home.parts, home.caller, "acme/tiny", with_tensors=True)
    (path,) = view.tensors
    assert sum(t.elements for t in view.tensors[path]) == view.facts.parameters
    assert study_tensors(home.parts, home.caller, "acme/tiny", path) == view.tensors[path]
    for wrong, code in (("README.md", "study-not-a-model"), ("nowhere", "catalog-entry-not-found")):
        with pytest.raises(FreeholdError) as caught:
            study_tensors(home.parts, home.caller, "acme/tiny", wrong)
        assert caught.value.code == code


def test_who_may_not_see_a_model_may_not_study_it(home: House) -> None:
    nobody = Caller("anonymous", frozenset(), "hub")
    reader = Caller("key:x", frozenset({Scope.READ}), "hub")
    with pytest.raises(FreeholdError) as caught:
        study_model(home.parts, nobody, "acme/tiny")
    assert caught.value.code == "access-key-missing"
    assert study_model(home.parts, reader, "acme/tiny").facts.parameters
    with home.parts.catalog.write() as tx:
        tx.execute(text("UPDATE repos SET private = 1"))
    try:
        with pytest.raises(FreeholdError) as caught:
            study_model(home.parts, reader, "acme/tiny")
        assert caught.value.code == "catalog-repo-not-found"
    finally:
        with home.parts.catalog.write() as tx:
            tx.execute(text("UPDATE repos SET private = 0"))


def test_a_file_in_the_vault_is_a_byte_source_like_any_other(home: House) -> None:
    @contextlib.contextmanager
    def in_vault(data: bytes) -> Iterator[ByteSource]:
        stored = home.parts.vault.put(data)
        with home.parts.vault.open(Digest.sha256(stored.sha256.hex)) as file:
            yield file

    check_byte_source(in_vault)


def test_bytes_that_are_gone_are_not_told_as_damage_of_the_model(home: House) -> None:
    view = study_model(home.parts, home.caller, "acme/tiny", with_tensors=True)
    weights = next(e for e in show_model(home.parts, home.caller, "acme/tiny").manifest if e.path in view.tensors)
    home.parts.vault.remove(weights.sha256)
    with pytest.raises(FreeholdError) as caught:
        study_model(home.parts, home.caller, "acme/tiny")
    assert caught.value.code == "vault-missing"
