"""Reading by revision and path: who may, which bytes, and never an answer that is older than the catalog."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from freehold.app import House, house
from freehold.catalog import facts, repos, revisions
from freehold.errors import FreeholdError
from freehold.flows import read_file
from freehold.flows.read_file import OpenRange
from freehold.flows.shelf import LONGEST, Shelf
from freehold.formats import git
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.origin import Admission
from freehold.testing.kept import keep

WEIGHTS = random.Random(3).randbytes(3_000_000)  # noqa: S311 - a seed, not a secret
FILES = {"config.json": b"{}", "a/b/deep.txt": b"deep", "a/c.txt": b"c", "model.safetensors": WEIGHTS}
MODEL = RepoId.parse("org/model")
ANONYMOUS = Caller("anonymous", frozenset({Scope.READ}), "hub")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[House]:
    with house(str(tmp_path / "h")) as found:
        yield found


def _read(opened: House, path: str, offset: int, length: int) -> bytes:
    file = read_file.open_file(opened.parts, ANONYMOUS, MODEL, "main", path)
    pieces = read_file.open_bytes(opened.parts, file, offset, length)
    try:
        found = b""
        for piece in pieces:
            if isinstance(piece, OpenRange):
                piece.file.seek(piece.offset)
                found += piece.file.read(piece.length)
            else:
                found += b"".join(piece)
        return found
    finally:
        read_file.close_bytes(pieces)


@pytest.mark.parametrize("policy", ["scrubbed", "verify"])
@pytest.mark.parametrize(("offset", "length"), [(0, 3_000_000), (262_143, 2), (2_999_999, 1), (5, 0)])
def test_a_range_is_exact_under_either_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, offset: int, length: int
) -> None:
    monkeypatch.setenv("FREEHOLD_VAULT__READ_POLICY", policy)
    with house(str(tmp_path / "h")) as opened:
        keep(opened.parts, "org/model", FILES)
        assert _read(opened, "model.safetensors", offset, length) == WEIGHTS[offset : offset + length]
        file = read_file.open_file(opened.parts, ANONYMOUS, MODEL, "main", "model.safetensors")
        assert read_file.read_bytes(opened.parts, file, offset, length) == WEIGHTS[offset : offset + length]


def _damage(opened: House, path: str, at: int) -> None:
    file = read_file.open_file(opened.parts, ANONYMOUS, MODEL, "main", path)
    stored = next(p for p in opened.parts.home.objects.rglob(file.entry.sha256.hex))
    stored.chmod(0o600)
    data = bytearray(stored.read_bytes())
    data[at] ^= 1
    stored.write_bytes(bytes(data))


def test_under_verify_a_damaged_block_is_an_error_and_other_blocks_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEHOLD_VAULT__READ_POLICY", "verify")
    with house(str(tmp_path / "h")) as opened:
        keep(opened.parts, "org/model", FILES)
        _damage(opened, "model.safetensors", 300_000)
        assert _read(opened, "model.safetensors", 0, 262_144) == WEIGHTS[:262_144]
        with pytest.raises(FreeholdError) as caught:
            _read(opened, "model.safetensors", 262_144, 10)
        assert caught.value.code == "vault-corrupt-block"


def test_a_file_that_is_gone_from_disk_is_an_error_with_a_code(opened: House) -> None:
    keep(opened.parts, "org/model", FILES)
    file = read_file.open_file(opened.parts, ANONYMOUS, MODEL, "main", "model.safetensors")
    next(p for p in opened.parts.home.objects.rglob(file.entry.sha256.hex)).unlink()
    with pytest.raises(FreeholdError) as caught:
        read_file.open_bytes(opened.parts, file, 0, 10)
    assert caught.value.code == "vault-missing"


def test_nothing_is_written_by_reading(opened: House) -> None:
    keep(opened.parts, "org/model", FILES)
    before = [d.data_version() for d in (opened.parts.catalog, opened.parts.ledger)]
    _read(opened, "model.safetensors", 0, 1000)
    read_file.repo_info(opened.parts, ANONYMOUS, MODEL)
    read_file.refs(opened.parts, ANONYMOUS, MODEL)
    assert [d.data_version() for d in (opened.parts.catalog, opened.parts.ledger)] == before


def test_every_question_needs_the_right_to_read(opened: House) -> None:
    keep(opened.parts, "org/model", FILES)
    nobody, chatter = Caller("anonymous", frozenset(), "hub"), Caller("key:x", frozenset({Scope.CHAT}), "hub")
    listing = read_file.read_listing(opened.parts, ANONYMOUS, MODEL, "main")
    for caller, code in ((nobody, "access-key-missing"), (chatter, "access-scope-missing")):
        for ask in (
            lambda c=caller: read_file.repo_info(opened.parts, c, MODEL),
            lambda c=caller: read_file.list_repos(opened.parts, c),
            lambda c=caller: read_file.describe_repos(opened.parts, c, []),
            lambda c=caller: read_file.refs(opened.parts, c, MODEL),
            lambda c=caller: read_file.commits(opened.parts, c, MODEL, "main"),
            lambda c=caller: read_file.last_commits(opened.parts, c, MODEL, "main", []),
            lambda c=caller: read_file.open_file(opened.parts, c, MODEL, "main", "config.json"),
            lambda c=caller: read_file.read_listing(opened.parts, c, MODEL, "main"),
            lambda c=caller: read_file.open_listed(c, MODEL, listing, "config.json"),
        ):
            with pytest.raises(FreeholdError) as caught:
                ask()
            assert caught.value.code == code


def _outcome(opened: House, caller: Caller, revision: str, path: str, shelf: Shelf | None) -> tuple[str, str]:
    """(code or commit, message or etag), from the catalog or from the shelf."""
    try:
        if shelf is None:
            found = read_file.open_file(opened.parts, caller, MODEL, revision, path)
        else:
            listing = shelf.listing(MODEL, revision)
            if listing is None:
                version = shelf.version()
                listing = read_file.read_listing(opened.parts, caller, MODEL, revision)
                shelf.put_listing(version, MODEL, revision, listing)
            found = read_file.open_listed(caller, MODEL, listing, path)
    except FreeholdError as error:
        return error.code, error.message
    return found.commit, found.entry.etag


def test_the_shelf_and_the_catalog_always_say_the_same(opened: House) -> None:
    """After each change - by another connection, as another process would - every caller gets the new truth at once."""
    parts, shelf, owner = opened.parts, Shelf(opened.parts), opened.caller

    def change(sql: str) -> None:
        with parts.catalog.write() as tx:
            tx.execute(text(sql))

    def decide(state: Admission) -> None:
        with parts.catalog.write() as tx:
            found = revisions.resolve(tx, repos.get_repo(tx, MODEL), "main")
            facts.admit(tx, found, state, "test", "because", 1)

    def move(sha: str) -> None:
        with parts.catalog.write() as tx:
            revisions.set_ref(tx, repos.get_repo(tx, MODEL), "heads/main", CommitId(sha), 2)

    first = keep(parts, "org/model", FILES)
    second = keep(parts, "org/model", FILES | {"config.json": b"{ }"}, title="second")
    seen = set()
    for step in (
        lambda: None,
        lambda: move(first),
        lambda: change("UPDATE repos SET private = 1"),
        lambda: change("UPDATE repos SET private = 0, gated = 'auto'"),
        lambda: change("UPDATE repos SET gated = ''"),
        lambda: decide(Admission.QUARANTINED),
        lambda: decide(Admission.ADMITTED),
        lambda: move(second),
        lambda: change("DELETE FROM refs"),
    ):
        step()
        for caller in (ANONYMOUS, owner):
            for revision, path in (
                ("main", "config.json"),
                ("main", "none"),
                (first, "config.json"),
                (second[:9], "config.json"),
                ("x", "y"),
            ):
                truth = _outcome(opened, caller, revision, path, None)
                for _ in range(2):
                    assert _outcome(opened, caller, revision, path, shelf) == truth
                seen.add(truth[0])
    codes = {"catalog-repo-not-found", "catalog-revision-not-found", "catalog-entry-not-found", "hub-quarantined", "hub-gated"}
    assert seen == codes | {first, second}, "every outcome was met"


def test_what_was_read_before_a_commit_is_not_shelved_after_it(opened: House) -> None:
    keep(opened.parts, "org/model", FILES)
    shelf = Shelf(opened.parts)
    version = shelf.version()
    listing = read_file.read_listing(opened.parts, ANONYMOUS, MODEL, "main")
    keep(opened.parts, "org/other", {"x": b"x"})
    shelf.put_listing(version, MODEL, "main", listing)
    assert shelf.listing(MODEL, "main") is None


def test_a_very_long_listing_is_left_to_the_catalog_and_many_push_out_the_oldest(
    opened: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(opened.parts, "org/model", FILES)
    shelf = Shelf(opened.parts)
    listing = read_file.read_listing(opened.parts, ANONYMOUS, MODEL, "main")
    assert len(listing.files) < LONGEST
    monkeypatch.setattr("freehold.flows.shelf.LONGEST", 3)
    shelf.put_listing(shelf.version(), MODEL, "main", listing)
    assert shelf.listing(MODEL, "main") is None
    assert shelf.is_long(MODEL, "main")
    monkeypatch.setattr("freehold.flows.shelf.LONGEST", 10)
    monkeypatch.setattr("freehold.flows.shelf.MOST_FILES", 9)
    for name in ("one", "two", "three"):
        shelf.put_listing(shelf.version(), MODEL, name, listing)
    assert [shelf.listing(MODEL, name) is not None for name in ("one", "two", "three")] == [False, True, True]


def test_folders_have_gits_own_ids(opened: House) -> None:
    keep(opened.parts, "org/model", FILES | {"a.txt": b"sorts around the folder a", "a-b": b"likewise"})
    manifest = read_file.repo_info(opened.parts, ANONYMOUS, MODEL).manifest
    trees = git.build_trees((e.path, e.mode, e.git_oid) for e in manifest)
    ids = read_file.folder_ids(manifest)
    assert sorted(ids) == ["", "a", "a/b"]
    assert ids[""] == trees.root
    assert set(ids.values()) == set(trees.objects)


def test_the_last_commit_of_a_path_is_the_one_that_brought_it_as_it_is(opened: House) -> None:
    first = keep(opened.parts, "org/model", {"same": b"1", "changed": b"1", "back": b"1"}, title="1")
    second = keep(opened.parts, "org/model", {"same": b"1", "changed": b"2", "back": b"2"}, title="2")
    third = keep(opened.parts, "org/model", {"same": b"1", "changed": b"2", "back": b"1", "new": b"1"}, title="3")
    found = read_file.last_commits(opened.parts, ANONYMOUS, MODEL, "main", ["same", "changed", "back", "new", "none"])
    assert {path: revision.commit.sha for path, revision in found.items()} == {
        "same": first,
        "changed": second,
        "back": third,
        "new": third,
    }
    assert [r.title for r in read_file.commits(opened.parts, ANONYMOUS, MODEL, "main")] == ["3", "2", "1"]
