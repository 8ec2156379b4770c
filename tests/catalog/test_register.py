"""The register says of every repository what the point queries say."""

from __future__ import annotations

from freehold.catalog import facts, repos, revisions
from freehold.catalog.register import list_heads
from freehold.catalog.revisions import CommitKind, NewRevision
from freehold.db import Database
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.origin import Admission, Finding, Origin, Severity


def test_the_register_agrees_with_the_point_queries(catalog: Database) -> None:
    with catalog.write() as tx:
        for n, (name, ref) in enumerate([("z/one", "heads/main"), ("a/two", "tags/v1"), ("m/none", None)]):
            repo = repos.ensure_repo(tx, RepoId.parse(name), n)
            entries = tuple(FileEntry(f"f{i}", 10 + i, Digest.sha256(str(n) * 64), "0" * 40) for i in range(n + 1))
            commit = CommitId(str(n) * 40)
            new = NewRevision(commit, CommitKind.FOREIGN, "t" + name, Manifest(entries), "t", "a", 1)
            revision = revisions.add_revision(tx, repo, new, 5)
            if ref:
                revisions.set_ref(tx, repo, ref, commit, 6)
        one = repos.get_repo(tx, RepoId.parse("z/one"))
        revision = revisions.resolve(tx, one, "main")
        facts.admit(tx, revision, Admission.ADMITTED, "policy", "fine", 7)
        facts.add_origin(tx, revision, Origin("hf", "z/one@main", 70))
        facts.add_origin(tx, revision, Origin("folder", "/x", 80))
        for value in (1, 2):
            facts.add_findings(tx, [Finding("commit:" + "0" * 40, "model-facts", Severity.INFO, "f-1", {"n": value})], 8)
        two, first = list_heads(tx, ("model-facts", "license-view"))
        assert [str(line.repo.id) for line in (two, first)] == ["a/two", "z/one"]
        assert (first.repo, first.sha, first.admission) == (one, "0" * 40, facts.admission(tx, revision))
        assert (first.size, first.files) == (revisions.get_manifest(tx, revision).size, 1)
        assert first.details == {"model-facts": {"n": 2}}
        assert (first.source, first.taken_at) == ("hf", 70)
        assert (two.files, two.size, two.admission, two.details, two.source) == (2, 21, Admission.QUARANTINED, {}, None)
