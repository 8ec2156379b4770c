"""Models as people ask for them: seen, removed, verified; in a real home, from a real pull."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from freehold.app import House, house
from freehold.catalog import repos
from freehold.errors import FreeholdError
from freehold.flows import events, keys, models
from freehold.flows.doctor import examine
from freehold.flows.pull import pull
from freehold.flows.verify import rebuild, verify
from freehold.lab.models import make_model
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import RepoId


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lab") / "acme" / "tiny"
    make_model(out, seed=3, size_mb=1.0, format="safetensors")
    return out


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(str(tmp_path / "home")) as opened:
        yield opened


def _code(call) -> str:
    with pytest.raises(FreeholdError) as caught:
        call()
    return caught.value.code


def test_what_was_pulled_is_listed_and_shown_with_its_facts(home: House, folder: Path) -> None:
    pulled = pull(home.parts, home.caller, str(folder), name="acme/tiny")
    (line,) = models.list_models(home.parts, home.caller)
    assert (str(line.id), line.commit, line.admission) == ("acme/tiny", str(pulled.commit), "admitted")
    view = models.show_model(home.parts, home.caller, "ACME/tiny")
    assert view.facts["architecture"]
    assert view.facts["parameters"] > 100_000
    assert view.license["declared"] == "mit"
    assert view.license["agreement"] == "agree"
    assert [o.source for o in view.origins] == ["folder"]
    for entry in view.manifest:
        kept = b"".join(home.parts.vault.read(entry.sha256))
        assert kept == (folder / entry.path).read_bytes()


def test_a_private_model_looks_absent_to_those_who_may_not_see_it(home: House, folder: Path) -> None:
    pull(home.parts, home.caller, str(folder), name="acme/tiny")
    with home.parts.catalog.write() as tx:
        tx.execute(text("UPDATE repos SET private = 1"))
    reader = Caller("key:x", frozenset({Scope.READ}), "hub")
    said = set()
    for name in ("acme/tiny", "acme/nothing"):
        with pytest.raises(FreeholdError) as caught:
            models.show_model(home.parts, reader, name)
        said.add((caught.value.code, caught.value.message.replace(name, "X")))
    assert len(said) == 1
    assert models.list_models(home.parts, reader) == []
    assert len(models.list_models(home.parts, home.caller)) == 1


def test_removing_a_model_frees_its_own_bytes_and_keeps_what_another_shares(home: House, folder: Path) -> None:
    pull(home.parts, home.caller, str(folder), name="acme/one")
    before = set(home.parts.vault.digests())
    pull(home.parts, home.caller, str(folder), name="acme/two")
    gone = models.remove_model(home.parts, home.caller, "acme/one")
    assert gone.shared > 0
    assert gone.freed == 0
    kept = models.show_model(home.parts, home.caller, "acme/two")
    assert all(home.parts.vault.has(e.sha256) for e in kept.manifest)
    last = models.remove_model(home.parts, home.caller, "acme/two")
    assert last.freed == kept.manifest.size
    assert not before & set(home.parts.vault.digests())
    assert models.list_models(home.parts, home.caller) == []
    assert _code(lambda: models.remove_model(home.parts, home.caller, "acme/two")) == "catalog-repo-not-found"
    assert [e.kind for e in events.list_events(home.parts, home.caller, limit=2)] == ["model.removed"] * 2


def test_verify_names_the_file_whose_bytes_rotted_and_a_new_pull_heals_it(home: House, folder: Path) -> None:
    pull(home.parts, home.caller, str(folder), name="acme/tiny")
    assert verify(home.parts, home.caller).ok
    weights = models.show_model(home.parts, home.caller, "acme/tiny").manifest.find("model.safetensors")
    path = home.parts.vault.materialise(weights.sha256)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(weights.size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    found = verify(home.parts, home.caller, "acme/tiny")
    assert [d.files for d in found.damaged] == [("acme/tiny: model.safetensors",)]
    assert len(found.damaged[0].damage.blocks) == 1
    assert [d.damage.reason for d in verify(home.parts, home.caller).damaged] == ["blocks"]
    with pytest.raises(FreeholdError):
        b"".join(home.parts.vault.read(weights.sha256))
    pull(home.parts, home.caller, str(folder), name="acme/tiny")
    assert verify(home.parts, home.caller).ok


def test_a_lost_index_is_rebuilt_from_what_lies_on_disk(home: House, folder: Path) -> None:
    pull(home.parts, home.caller, str(folder), name="acme/tiny")
    with home.parts.vault._ground.database.write() as tx:
        for name in ("segments", "locations", "files", "objects", "containers"):
            tx.execute(text(f"DELETE FROM {name}"))
    assert home.parts.vault.stats().files == 0
    rebuild(home.parts, home.caller)
    held = home.parts.vault.stats().files
    assert held > 0
    assert verify(home.parts, home.caller).ok


def test_verify_takes_back_what_lies_on_disk_before_it_calls_anything_missing(home: House, folder: Path) -> None:
    pull(home.parts, home.caller, str(folder), name="acme/tiny")
    weights = models.show_model(home.parts, home.caller, "acme/tiny").manifest.find("model.safetensors")
    path = home.parts.vault.materialise(weights.sha256)
    for model in ("acme/tiny", None):
        with home.parts.vault._ground.database.write() as tx:
            for name in ("segments", "locations", "files", "objects", "containers"):
                tx.execute(text(f"DELETE FROM {name}"))
        found = verify(home.parts, home.caller, model)
        assert found.ok
        assert found.checked >= 2
    with home.parts.vault._ground.database.write() as tx:
        for name in ("segments", "locations", "files", "objects", "containers"):
            tx.execute(text(f"DELETE FROM {name}"))
    path.unlink()
    assert [d.files for d in verify(home.parts, home.caller).damaged] == [("acme/tiny: model.safetensors",)]


def test_the_doctor_sees_that_catalog_and_vault_do_not_belong_together(home: House, folder: Path) -> None:
    pull(home.parts, home.caller, str(folder), name="acme/tiny")

    def state() -> tuple[str, str]:
        found = next(d for d in examine(home.parts, home.caller) if d.name == "catalog")
        return found.state, found.detail

    assert state() == ("ok", "1 models")
    with home.parts.vault._ground.database.write() as tx:
        for name in ("segments", "locations", "files", "objects", "containers"):
            tx.execute(text(f"DELETE FROM {name}"))
    assert state()[0] == "bad"
    rebuild(home.parts, home.caller)
    assert state()[0] == "ok"
    with home.parts.catalog.write() as tx:
        repos.remove_repo(tx, repos.get_repo(tx, RepoId.parse("acme/tiny")))
    assert state()[0] == "warn"


def test_every_flow_refuses_a_caller_without_the_scope(home: House, folder: Path) -> None:
    nobody = Caller("anonymous", frozenset(), "hub")
    reader = Caller("key:x", frozenset({Scope.READ}), "hub")
    calls = {
        "list": lambda c: models.list_models(home.parts, c),
        "show": lambda c: models.show_model(home.parts, c, "a/b"),
        "rm": lambda c: models.remove_model(home.parts, c, "a/b"),
        "pull": lambda c: pull(home.parts, c, str(folder)),
        "verify": lambda c: verify(home.parts, c),
        "keys": lambda c: keys.list_keys(home.parts, c),
        "create": lambda c: keys.create_key(home.parts, c, "x", frozenset({Scope.READ})),
        "revoke": lambda c: keys.revoke_key(home.parts, c, "x"),
        "events": lambda c: events.list_events(home.parts, c),
        "chain": lambda c: events.verify_events(home.parts, c),
    }
    for name, call in calls.items():
        assert _code(lambda call=call: call(nobody)) == "access-key-missing", name
    for name in set(calls) - {"list", "show"}:
        assert _code(lambda name=name: calls[name](reader)) == "access-scope-missing", name


def test_a_session_ends_with_its_key_and_no_later_than_it(home: House) -> None:
    soon = home.parts.clock() + 60_000_000
    made = keys.create_key(home.parts, home.caller, "browser", frozenset({Scope.READ}), expires_at=soon)
    token, ends = keys.open_session(home.parts, made.token)
    assert ends == soon
    assert keys.identify(home.parts, token, "console").principal == f"key:{made.row.public_id}"
    keys.close_session(home.parts, token)
    assert _code(lambda: keys.identify(home.parts, token, "console")) == "access-key-invalid"
    other, _ = keys.open_session(home.parts, made.token)
    assert _code(lambda: keys.open_session(home.parts, other)) == "access-key-invalid"
    keys.revoke_key(home.parts, home.caller, made.row.public_id)
    assert _code(lambda: keys.identify(home.parts, other, "console")) == "access-key-invalid"
    assert [k.kind for k in keys.list_keys(home.parts, home.caller)] == ["api"]


def test_without_a_token_the_house_decides_whether_one_may_read(home: House) -> None:
    assert keys.identify(home.parts, None, "hub").may(Scope.READ)
    closed = replace(home.parts, anonymous_read=False)
    assert not keys.identify(closed, None, "hub").may(Scope.READ)
