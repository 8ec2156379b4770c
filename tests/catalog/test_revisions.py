"""Repositories, revisions and refs."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from freehold.catalog import facts, repos, revisions
from freehold.catalog.repos import Repo
from freehold.catalog.revisions import CommitKind, NewRevision, Revision
from freehold.db import Database
from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.origin import Admission, Evidence, Finding, Lineage, Origin, Relation, Severity

A, B = CommitId("a" * 40), CommitId("ab" * 20)


def _manifest(*contents: str) -> Manifest:
    entries = [FileEntry(f"f{i}", i, Digest.sha256(c * 64), c * 40) for i, c in enumerate(contents)]
    return Manifest(tuple(entries))


def _add(tx: Connection, repo: Repo, commit: CommitId, manifest: Manifest, at: int = 5) -> Revision:
    new = NewRevision(commit, CommitKind.FOREIGN, commit.sha[::-1], manifest, "title", "author", 4)
    return revisions.add_revision(tx, repo, new, at)


def test_names_are_unique_without_regard_to_case_and_keep_their_spelling(catalog: Database) -> None:
    with catalog.write() as tx:
        first = repos.ensure_repo(tx, RepoId.parse("Org/Name"), 1)
        assert repos.ensure_repo(tx, RepoId.parse("org/name"), 2) == first
        assert str(repos.get_repo(tx, RepoId.parse("ORG/NAME")).id) == "Org/Name"
        assert repos.find_repo(tx, RepoId.parse("name")) is None


def test_an_alias_leads_to_the_renamed_repository(catalog: Database) -> None:
    with catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse("new/name"), 1)
        tx.execute(text("INSERT INTO aliases VALUES ('model:old/name', :r)"), {"r": repo.row})
        assert repos.get_repo(tx, RepoId.parse("old/Name")) == repo


def test_the_same_sha_may_stand_in_two_repositories(catalog: Database) -> None:
    with catalog.write() as tx:
        one, two = (repos.ensure_repo(tx, RepoId.parse(n), 1) for n in ("x/one", "x/two"))
        _add(tx, one, A, _manifest("1"))
        _add(tx, two, A, _manifest("2"))
        for repo, content in ((one, "1"), (two, "2")):
            found = revisions.get_manifest(tx, revisions.resolve(tx, repo, A.sha))
            assert found.find("f0").sha256.hex == content * 64


def test_a_revision_resolves_by_branch_tag_full_and_short_sha(catalog: Database) -> None:
    with catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse("x/y"), 1)
        a, b = _add(tx, repo, A, _manifest("1")), _add(tx, repo, B, _manifest("1", "2"))
        revisions.set_ref(tx, repo, "heads/main", A, 6)
        revisions.set_ref(tx, repo, "tags/v1", B, 6)
        for name, expected in [("main", a), ("v1", b), ("refs/heads/main", a), (B.sha, b), (B.sha[:7], b), ("a" * 8, a)]:
            assert revisions.resolve(tx, repo, name) == expected
        for name in ("dev", "aaa", "f" * 40, "refs/main", "", "../x"):
            with pytest.raises(FreeholdError) as caught:
                revisions.resolve(tx, repo, name)
            assert caught.value.code == "catalog-revision-not-found"


def test_an_ambiguous_short_sha_is_not_guessed(catalog: Database) -> None:
    with catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse("x/y"), 1)
        for last in "bc":
            _add(tx, repo, CommitId("d" * 39 + last), _manifest("1"))
        with pytest.raises(FreeholdError):
            revisions.resolve(tx, repo, "d" * 10)


def test_adding_a_commit_twice_changes_nothing(catalog: Database) -> None:
    with catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse("x/y"), 1)
        first = _add(tx, repo, A, _manifest("1"))
        assert _add(tx, repo, A, _manifest("1"), at=99) == first


def test_a_ref_moves_only_from_where_the_mover_saw_it(catalog: Database) -> None:
    with catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse("x/y"), 1)
        _add(tx, repo, A, _manifest("1"))
        _add(tx, repo, B, _manifest("2"))
        ref = revisions.set_ref(tx, repo, "heads/main", A, 1, expected=0)
        revisions.set_ref(tx, repo, "heads/main", B, 2, expected=ref.version)
        with pytest.raises(FreeholdError) as caught:
            revisions.set_ref(tx, repo, "heads/main", A, 3, expected=ref.version)
        assert caught.value.code == "catalog-ref-moved"
        assert [r.commit for r in revisions.list_refs(tx, repo)] == [B]


def test_facts_come_back_as_they_went_in_and_an_undecided_revision_is_quarantined(catalog: Database) -> None:
    with catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse("x/y"), 1)
        revision = _add(tx, repo, A, _manifest("1"))
        assert facts.admission(tx, revision) is Admission.QUARANTINED
        facts.admit(tx, revision, Admission.ADMITTED, "policy", "no findings", 2)
        assert facts.admission(tx, revision) is Admission.ADMITTED
        facts.admit(tx, revision, Admission.REFUSED, "owner", "changed my mind", 3)
        assert facts.admission(tx, revision) is Admission.REFUSED
        origin = Origin("hf", "x/y@main", 7, "etag", Digest.sha256("0" * 64), {"endpoint": "http://h", "n": 1})
        facts.add_origin(tx, revision, origin)
        assert facts.list_origins(tx, revision) == [origin]
        edge = Lineage("p/q", Relation.QUANTIZED, Evidence.DECLARED)
        facts.add_lineage(tx, revision, [edge, edge], 3)
        assert facts.list_lineage(tx, revision) == [edge]
        finding = Finding("commit:" + A.sha, "pickle-file", Severity.WARNING, "files-1", {"path": "x.bin"})
        facts.add_findings(tx, [finding, finding], 4)
        assert facts.list_findings(tx, finding.subject) == [finding]


def test_removing_a_repository_frees_only_what_nothing_else_names(catalog: Database) -> None:
    with catalog.write() as tx:
        one, two = (repos.ensure_repo(tx, RepoId.parse(n), 1) for n in ("x/one", "x/two"))
        _add(tx, one, A, _manifest("1", "2"))
        _add(tx, two, B, _manifest("2"))
        everything = {Digest.sha256(c * 64) for c in "12"}
        assert revisions.digests_in_use(tx) == everything
        repos.remove_repo(tx, one)
        assert revisions.digests_in_use(tx, everything) == {Digest.sha256("2" * 64)}
        assert [str(r.id) for r in repos.list_repos(tx)] == ["x/two"]
        repos.remove_repo(tx, two)
        for name in ("repos", "commits", "trees", "entries", "refs", "origins", "lineage", "admissions"):
            assert tx.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() == 0, name
