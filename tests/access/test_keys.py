"""Keys: recognised by their secret alone, ended at once, indistinguishable when invalid."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from freehold import access
from freehold.db import Database, open_database
from freehold.errors import FreeholdError
from freehold.nouns.caller import Caller, Scope, owner

READ = frozenset({Scope.READ})


@pytest.fixture
def catalog(tmp_path: Path):
    database = open_database(tmp_path / "catalog.db", "catalog", lambda: 1)
    yield database
    database.close()


def test_a_key_is_known_by_its_token_and_stored_only_as_a_hash(catalog: Database) -> None:
    with catalog.write() as tx:
        made = access.create_key(tx, 10, name="laptop", scopes=READ)
        caller, row = access.identify(tx, 11, made.token, "hub")
        assert caller == Caller(f"key:{made.row.public_id}", READ, "hub")
        assert row == made.row
        stored = [str(v) for r in tx.execute(text("SELECT * FROM keys")) for v in r]
    assert not any(made.token.split("_", 2)[2] in value for value in stored)


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda _: "fh_x", lambda _: "hf_abc", lambda t: t + "A"]
)
def test_a_wrong_token_is_refused(catalog: Database, spoil) -> None:
    with catalog.write() as tx:
        made = access.create_key(tx, 10, name="n", scopes=READ)
        with pytest.raises(FreeholdError) as caught:
            access.identify(tx, 11, spoil(made.token), "hub")
    assert caught.value.code == "access-key-invalid"


def test_expired_and_revoked_keys_look_like_unknown_ones(catalog: Database) -> None:
    said = set()
    with catalog.write() as tx:
        short = access.create_key(tx, 10, name="short", scopes=READ, expires_at=20)
        gone = access.create_key(tx, 10, name="gone", scopes=READ)
        access.identify(tx, 19, short.token, "hub")
        access.revoke_key(tx, 15, gone.row.public_id)
        for token in (short.token, gone.token, "fh_unknown12345_" + "x" * 43):
            with pytest.raises(FreeholdError) as caught:
                access.identify(tx, 20, token, "hub")
            said.add((caught.value.code, caught.value.message, str(caught.value.context)))
    assert len(said) == 1


def test_revoking_a_key_ends_its_sessions(catalog: Database) -> None:
    with catalog.write() as tx:
        made = access.create_key(tx, 10, name="n", scopes=READ)
        session = access.create_key(tx, 10, name=made.row.public_id, scopes=READ, kind="session")
        assert access.identify(tx, 11, session.token, "console")[0].principal == f"key:{made.row.public_id}"
        access.revoke_key(tx, 12, made.row.public_id)
        with pytest.raises(FreeholdError):
            access.identify(tx, 13, session.token, "console")


def test_revoking_what_is_not_there_says_so(catalog: Database) -> None:
    with pytest.raises(FreeholdError) as caught, catalog.write() as tx:
        access.revoke_key(tx, 1, "nothing")
    assert caught.value.code == "access-key-not-found"


def test_a_caller_needs_the_scope_and_admin_has_all() -> None:
    reader = Caller("key:x", READ, "hub")
    reader.require(Scope.READ)
    with pytest.raises(FreeholdError) as caught:
        reader.require(Scope.CHAT)
    assert caught.value.code == "access-scope-missing"
    with pytest.raises(FreeholdError) as caught:
        Caller("anonymous", frozenset(), "hub").require(Scope.READ)
    assert caught.value.code == "access-key-missing"
    for scope in Scope:
        owner().require(scope)
