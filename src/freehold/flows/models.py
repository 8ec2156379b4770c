"""Models as people ask for them: what is kept, what one is, and letting one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from freehold.catalog import events, facts, repos, revisions
from freehold.catalog.register import Line, list_heads
from freehold.catalog.repos import Repo
from freehold.catalog.revisions import Ref, Revision
from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.digest import Digest
from freehold.nouns.files import Manifest
from freehold.nouns.ids import RepoId
from freehold.nouns.origin import Admission, Finding, Lineage, Origin

#: Kinds of the findings that hold a whole study rather than a remark: detail = ModelFacts, LicenseView.
FACTS, LICENSE = "model-facts", "license-view"


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One line of `freehold ls`. `size` in bytes; `facts` as recorded at the pull, empty if none; `source` and
    `taken_at` are of its first origin; times in UTC microseconds."""

    id: RepoId
    commit: str
    size: int
    files: int
    admission: Admission
    facts: dict[str, Any]
    license: dict[str, Any]
    updated_at: int
    source: str | None = None
    taken_at: int | None = None


@dataclass(frozen=True, slots=True)
class ModelView:
    """All that is known of one revision of a model."""

    id: RepoId
    revision: Revision
    refs: tuple[Ref, ...]
    manifest: Manifest
    admission: Admission
    facts: dict[str, Any]
    license: dict[str, Any]
    origins: tuple[Origin, ...]
    lineage: tuple[Lineage, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """What left: `freed` bytes of files that no other model names; `shared` files stay because another does."""

    id: RepoId
    freed: int
    files: int
    shared: int


def list_models(parts: Parts, caller: Caller) -> list[ModelSummary]:
    """All models that the caller may see, by name."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        return [_summary(line) for line in list_heads(tx, (FACTS, LICENSE)) if visible(caller, line.repo)]


def show_model(parts: Parts, caller: Caller, name: str, revision: str = "main") -> ModelView:
    """One revision with everything known of it. Raises catalog-repo-not-found, catalog-revision-not-found."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        repo = visible_repo(tx, caller, RepoId.parse(name))
        found = revisions.resolve(tx, repo, revision)
        recorded = facts.list_findings(tx, f"commit:{found.commit}")
        return ModelView(
            id=repo.id,
            revision=found,
            refs=tuple(revisions.list_refs(tx, repo)),
            manifest=revisions.get_manifest(tx, found),
            admission=facts.admission(tx, found),
            facts=_detail(recorded, FACTS),
            license=_detail(recorded, LICENSE),
            origins=tuple(facts.list_origins(tx, found)),
            lineage=tuple(facts.list_lineage(tx, found)),
            findings=tuple(f for f in recorded if f.kind not in (FACTS, LICENSE)),
        )


def remove_model(parts: Parts, caller: Caller, name: str) -> Removed:
    """Forget the model, then free the files that nothing else names. A crash in between leaves unreferenced bytes only."""
    caller.require(Scope.WRITE)
    now = parts.clock()
    with parts.catalog.write() as tx:
        repo = visible_repo(tx, caller, RepoId.parse(name))
        named = _digests_of(tx, repo)
        size = {e.sha256: e.size for r in revisions.list_revisions(tx, repo) for e in revisions.get_manifest(tx, r)}
        repos.remove_repo(tx, repo)
        still = revisions.digests_in_use(tx, named)
        orphans = named - still
        freed = sum(size.get(d, 0) for d in orphans)
        payload = {"files": len(size), "freed": freed, "shared": len(still)}
        events.append_event(tx, now, caller.principal, "model.removed", str(repo.id), payload)
    failpoint("rm.forgotten")
    for digest in sorted(orphans):
        with parts.catalog.read() as tx:
            if revisions.digests_in_use(tx, {digest}):
                continue
        parts.vault.remove(digest)
    return Removed(repo.id, freed, len(size), len(still))


def visible_repo(tx: Connection, caller: Caller, repo_id: RepoId) -> Repo:
    """The repository, if the caller may see it; one that may not be seen answers exactly as an absent one."""
    repo = repos.get_repo(tx, repo_id)
    require_visible(caller, repo, repo_id)
    return repo


def require_visible(caller: Caller, repo: Repo, asked: RepoId) -> None:
    """FreeholdError catalog-repo-not-found, word for word as if there were none."""
    if not visible(caller, repo):
        raise FreeholdError("catalog-repo-not-found", f"no {asked.kind} {asked} in this house", repo=str(asked))


def visible(caller: Caller, repo: Repo) -> bool:
    """Whether the caller may know that the repository exists."""
    return not repo.private or caller.may(Scope.ADMIN)


def _summary(line: Line) -> ModelSummary:
    return ModelSummary(
        id=line.repo.id,
        commit=line.sha,
        size=line.size,
        files=line.files,
        admission=line.admission,
        facts=line.details.get(FACTS, {}),
        license=line.details.get(LICENSE, {}),
        updated_at=line.repo.updated_at,
        source=line.source,
        taken_at=line.taken_at,
    )


def _detail(recorded: list[Finding], kind: str) -> dict[str, Any]:
    """The newest detail of `kind`; empty if it was not studied."""
    return next((f.detail for f in reversed(recorded) if f.kind == kind), {})


def _digests_of(tx: Connection, repo: Repo) -> set[Digest]:
    found: set[Digest] = set()
    for revision in revisions.list_revisions(tx, repo):
        found |= {e.sha256 for e in revisions.get_manifest(tx, revision)}
        if revision.manifest_digest:
            found.add(revision.manifest_digest)
    return found
