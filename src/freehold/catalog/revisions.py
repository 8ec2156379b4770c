"""Revisions and the refs that name them: immutable commits, movable names with compare-and-swap.

A *native* commit is a real git object made here; a *foreign* one keeps its upstream sha as an opaque name, since its
exact bytes cannot be rebuilt from the HTTP API.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Row, text

from freehold.catalog.repos import Repo
from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.ids import CommitId

_SHORT = re.compile(r"[0-9a-f]{7,40}")


class CommitKind(StrEnum):
    NATIVE = "native"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of one repository. `manifest_digest` names the vault object that lists it, for rebuilding from the vault."""

    row: int
    repo_row: int
    commit: CommitId
    kind: CommitKind
    tree_row: int
    tree_oid: str
    title: str
    author: str
    authored_at: int
    added_at: int
    manifest_digest: Digest | None


@dataclass(frozen=True, slots=True)
class NewRevision:
    """What `add_revision` records; `raw` are the bytes of a native git commit object."""

    commit: CommitId
    kind: CommitKind
    tree_oid: str
    manifest: Manifest
    title: str
    author: str
    authored_at: int
    raw: bytes | None = None
    manifest_digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Ref:
    """`name` is heads/<branch>, tags/<tag> or pr/<n>; `version` counts its moves."""

    name: str
    commit: CommitId
    version: int
    moved_at: int


_SELECT = (
    "SELECT c.id, c.repo_id, c.sha, c.kind, c.tree_id, t.oid AS tree_oid, c.title, c.author, c.authored_at, c.added_at, "
    "c.manifest_sha256 FROM commits c JOIN trees t ON t.id = c.tree_id "
)


def _revision(row: Row[tuple[object, ...]]) -> Revision:
    digest = Digest.sha256(row.manifest_sha256) if row.manifest_sha256 else None
    return Revision(
        row.id, row.repo_id, CommitId(row.sha), CommitKind(row.kind), row.tree_id, row.tree_oid,
        row.title, row.author, row.authored_at, row.added_at, digest,
    )  # fmt: skip


def add_revision(tx: Connection, repo: Repo, new: NewRevision, at: int) -> Revision:
    """Record a revision; the same commit again returns the one that stands (a commit is immutable)."""
    standing = tx.execute(text(_SELECT + "WHERE c.repo_id = :r AND c.sha = :s"), {"r": repo.row, "s": new.commit.sha}).first()
    if standing:
        return _revision(standing)
    tree = _ensure_tree(tx, repo, new.tree_oid, new.manifest)
    sql = (
        "INSERT INTO commits (repo_id, sha, kind, raw, tree_id, title, author, authored_at, manifest_sha256, added_at) "
        "VALUES (:repo, :sha, :kind, :raw, :tree, :title, :author, :authored_at, :manifest, :at)"
    )
    values = {
        "repo": repo.row, "sha": new.commit.sha, "kind": new.kind, "raw": new.raw, "tree": tree, "title": new.title,
        "author": new.author, "authored_at": new.authored_at, "at": at,
        "manifest": new.manifest_digest.hex if new.manifest_digest else None,
    }  # fmt: skip
    tx.execute(text(sql), values)
    tx.execute(text("UPDATE repos SET updated_at = :at WHERE id = :r"), {"at": at, "r": repo.row})
    return _revision(
        tx.execute(text(_SELECT + "WHERE c.repo_id = :r AND c.sha = :s"), {"r": repo.row, "s": new.commit.sha}).one()
    )


def _ensure_tree(tx: Connection, repo: Repo, oid: str, manifest: Manifest) -> int:
    key = {"r": repo.row, "o": oid}
    row = tx.execute(text("SELECT id FROM trees WHERE repo_id = :r AND oid = :o"), key).first()
    if row:
        return int(row.id)
    tx.execute(text("INSERT INTO trees (repo_id, oid) VALUES (:r, :o)"), key)
    tree = int(tx.execute(text("SELECT id FROM trees WHERE repo_id = :r AND oid = :o"), key).scalar_one())
    sql = (
        "INSERT INTO entries (tree_id, path, mode, git_oid, sha256, size, lfs, xet_hash) "
        "VALUES (:tree, :path, :mode, :git_oid, :sha256, :size, :lfs, :xet)"
    )
    rows = [
        {"tree": tree, "path": e.path, "mode": e.mode, "git_oid": e.git_oid, "sha256": e.sha256.hex, "size": e.size,
         "lfs": int(e.lfs), "xet": e.xet_hash} for e in manifest
    ]  # fmt: skip
    if rows:
        tx.execute(text(sql), rows)
    return tree


def get_manifest(tx: Connection, revision: Revision) -> Manifest:
    """The files of a revision, by path."""
    sql = "SELECT path, mode, git_oid, sha256, size, lfs, xet_hash FROM entries WHERE tree_id = :t ORDER BY path"
    rows = tx.execute(text(sql), {"t": revision.tree_row})
    entries = [FileEntry(r.path, r.size, Digest.sha256(r.sha256), r.git_oid, bool(r.lfs), r.mode, r.xet_hash) for r in rows]
    return Manifest(tuple(sorted(entries, key=lambda e: e.path)))


def find_entry(tx: Connection, revision: Revision, path: str) -> FileEntry:
    """One file by point query; FreeholdError catalog-entry-not-found."""
    sql = "SELECT path, mode, git_oid, sha256, size, lfs, xet_hash FROM entries WHERE tree_id = :t AND path = :p"
    r = tx.execute(text(sql), {"t": revision.tree_row, "p": path}).first()
    if r is None:
        raise FreeholdError("catalog-entry-not-found", f"the revision has no file {path!r}", path=path)
    return FileEntry(r.path, r.size, Digest.sha256(r.sha256), r.git_oid, bool(r.lfs), r.mode, r.xet_hash)


def resolve(tx: Connection, repo: Repo, name: str = "main") -> Revision:
    """The revision that `name` means: a branch, a tag, `refs/...`, a full sha, or an unambiguous short one (7 or more).

    FreeholdError catalog-revision-not-found."""
    names = [name.removeprefix("refs/")] if name.startswith("refs/") else [f"heads/{name}", f"tags/{name}"]
    for ref in names:
        row = tx.execute(text("SELECT sha FROM refs WHERE repo_id = :r AND name = :n"), {"r": repo.row, "n": ref}).first()
        if row:
            found = tx.execute(text(_SELECT + "WHERE c.repo_id = :r AND c.sha = :s"), {"r": repo.row, "s": row.sha}).one()
            return _revision(found)
    if _SHORT.fullmatch(name):
        sql = _SELECT + "WHERE c.repo_id = :r AND c.sha >= :low AND c.sha < :high LIMIT 2"
        rows = tx.execute(text(sql), {"r": repo.row, "low": name, "high": name + "g"}).all()
        if len(rows) == 1:
            return _revision(rows[0])
    raise FreeholdError("catalog-revision-not-found", f"{repo.id} has no revision {name!r}", repo=str(repo.id), revision=name)


def list_revisions(tx: Connection, repo: Repo) -> list[Revision]:
    """All, newest first."""
    rows = tx.execute(text(_SELECT + "WHERE c.repo_id = :r ORDER BY c.added_at DESC, c.id DESC"), {"r": repo.row})
    return [_revision(row) for row in rows]


def list_refs(tx: Connection, repo: Repo) -> list[Ref]:
    rows = tx.execute(text("SELECT name, sha, version, moved_at FROM refs WHERE repo_id = :r ORDER BY name"), {"r": repo.row})
    return [Ref(r.name, CommitId(r.sha), r.version, r.moved_at) for r in rows]


def set_ref(tx: Connection, repo: Repo, name: str, commit: CommitId, at: int, *, expected: int | None = None) -> Ref:
    """Move or make the ref `name`. With `expected` (a version; 0 = must not exist) only if nobody moved it in between:
    FreeholdError catalog-ref-moved otherwise. The last step of any publication."""
    row = tx.execute(text("SELECT sha, version FROM refs WHERE repo_id = :r AND name = :n"), {"r": repo.row, "n": name}).first()
    version = row.version if row else 0
    if expected is not None and expected != version:
        raise FreeholdError("catalog-ref-moved", f"{repo.id} {name} was moved in between", repo=str(repo.id), ref=name)
    sql = (
        "INSERT INTO refs (repo_id, name, sha, version, moved_at) VALUES (:r, :n, :s, 1, :at) "
        "ON CONFLICT (repo_id, name) DO UPDATE SET sha = :s, version = refs.version + 1, moved_at = :at"
    )
    tx.execute(text(sql), {"r": repo.row, "n": name, "s": commit.sha, "at": at})
    return Ref(name, commit, version + 1, at)


def digests_in_use(tx: Connection, among: set[Digest] | None = None) -> set[Digest]:
    """The sha256 of every file (and manifest) that some revision names; limited to `among` if given."""
    sql = "SELECT DISTINCT sha256 AS d FROM entries UNION SELECT manifest_sha256 FROM commits WHERE manifest_sha256 IS NOT NULL"
    if among is None:
        return {Digest.sha256(row.d) for row in tx.execute(text(sql))}
    probe = "SELECT EXISTS (SELECT 1 FROM entries WHERE sha256 = :d) OR EXISTS (SELECT 1 FROM commits WHERE manifest_sha256 = :d)"
    return {d for d in among if tx.execute(text(probe), {"d": d.hex}).scalar_one()}
