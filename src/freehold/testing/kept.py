"""Models put into a home directly, for tests of what reads them: real bytes in the vault, real git ids in the catalog.

A test of a door should not depend on a source; a test of pulling should not use this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from freehold.catalog import facts, repos, revisions
from freehold.catalog.revisions import CommitKind, NewRevision
from freehold.flows.models import FACTS, LICENSE
from freehold.flows.parts import Parts
from freehold.formats import git
from freehold.nouns.digest import Digest
from freehold.nouns.files import LFS_THRESHOLD, FileEntry, Manifest
from freehold.nouns.ids import CommitId, RepoId, RepoKind
from freehold.nouns.origin import Admission, Finding, Severity


def keep(
    parts: Parts,
    name: str,
    files: Mapping[str, bytes],
    *,
    refs: tuple[str, ...] = ("heads/main",),
    title: str = "first",
    admission: Admission = Admission.ADMITTED,
    reason: str = "",
    private: bool = False,
    gated: str = "",
    kind: RepoKind = RepoKind.MODEL,
    lfs_from: int = LFS_THRESHOLD,
    model_facts: Mapping[str, Any] | None = None,
    license_view: Mapping[str, Any] | None = None,
) -> str:
    """Keep one revision of `name` with `files` (path to bytes) and point `refs` at it; its commit. Files of `lfs_from` bytes and
    more are large files."""
    now = parts.clock()
    entries = tuple(_entry(parts, path, files[path], lfs_from) for path in sorted(files))
    tree = git.build_trees((e.path, e.mode, e.git_oid) for e in entries).root
    who = git.Signature("freehold", "freehold@localhost", now)
    raw = git.commit_bytes(tree, [], who, who, f"{title}\n")
    commit = CommitId(git.object_oid("commit", raw))
    with parts.catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse(name, kind), now)
        tx.execute(
            text("UPDATE repos SET private = :p, gated = :g WHERE id = :r"), {"p": int(private), "g": gated, "r": repo.row}
        )
        new = NewRevision(commit, CommitKind.NATIVE, tree, Manifest(entries), title, "freehold", now, raw)
        found = revisions.add_revision(tx, repo, new, now)
        facts.admit(tx, found, admission, "test", reason, now)
        studied = [(FACTS, model_facts), (LICENSE, license_view)]
        subject = f"commit:{commit}"
        facts.add_findings(tx, [Finding(subject, k, Severity.INFO, "test-1", dict(d)) for k, d in studied if d is not None], now)
        for ref in refs:
            revisions.set_ref(tx, repo, ref, commit, now)
    return commit.sha


def _entry(parts: Parts, path: str, data: bytes, lfs_from: int) -> FileEntry:
    stored = parts.vault.put(data)
    lfs = len(data) >= lfs_from
    oid = git.blob_oid(git.lfs_pointer(stored.sha256.hex, stored.size) if lfs else data)
    return FileEntry(path, len(data), Digest.sha256(stored.sha256.hex), oid, lfs)
