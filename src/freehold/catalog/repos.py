"""Repositories and their names, unique without regard to case, with aliases for renames."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Row, text

from freehold.errors import FreeholdError
from freehold.nouns.ids import RepoId, RepoKind, uuid7

_COLUMNS = "r.id, r.uuid, r.kind, r.namespace, r.name, r.private, r.gated, r.created_at, r.updated_at"


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository row; `row` is the surrogate integer that never leaves the house, `uuid` the id that may."""

    row: int
    uuid: str
    id: RepoId
    private: bool
    gated: str
    created_at: int
    updated_at: int


def _repo(row: Row[tuple[object, ...]]) -> Repo:
    repo_id = RepoId(name=row.name, namespace=row.namespace, kind=RepoKind(row.kind))
    return Repo(row.id, row.uuid, repo_id, bool(row.private), row.gated, row.created_at, row.updated_at)


def find_repo(tx: Connection, repo_id: RepoId) -> Repo | None:
    """By name or by an alias left by a rename; None if there is none."""
    sql = (
        f"SELECT {_COLUMNS} FROM repos r WHERE r.key = :key "
        f"UNION ALL SELECT {_COLUMNS} FROM aliases a JOIN repos r ON r.id = a.repo_id WHERE a.key = :key LIMIT 1"
    )
    row = tx.execute(text(sql), {"key": repo_id.key}).first()
    return _repo(row) if row else None


def get_repo(tx: Connection, repo_id: RepoId) -> Repo:
    """FreeholdError catalog-repo-not-found if absent."""
    repo = find_repo(tx, repo_id)
    if repo is None:
        raise FreeholdError("catalog-repo-not-found", f"no {repo_id.kind} {repo_id} in this house", repo=str(repo_id))
    return repo


def ensure_repo(tx: Connection, repo_id: RepoId, at: int) -> Repo:
    """The repository, made if it does not exist."""
    found = find_repo(tx, repo_id)
    if found:
        return found
    sql = (
        "INSERT INTO repos (uuid, kind, namespace, name, key, created_at, updated_at) "
        "VALUES (:uuid, :kind, :namespace, :name, :key, :at, :at)"
    )
    values = {"uuid": uuid7(at), "kind": repo_id.kind, "namespace": repo_id.namespace, "name": repo_id.name}
    tx.execute(text(sql), values | {"key": repo_id.key, "at": at})
    return get_repo(tx, repo_id)


def list_repos(tx: Connection, kind: RepoKind = RepoKind.MODEL) -> list[Repo]:
    """All of one kind, by name."""
    rows = tx.execute(text(f"SELECT {_COLUMNS} FROM repos r WHERE r.kind = :kind ORDER BY r.key"), {"kind": kind})
    return [_repo(row) for row in rows]


def remove_repo(tx: Connection, repo: Repo) -> None:
    """Forget the repository with its refs, revisions and facts; events stay."""
    commits = (
        "SELECT 'commit:' || sha FROM commits WHERE repo_id = :id AND sha NOT IN (SELECT sha FROM commits WHERE repo_id <> :id)"
    )
    tx.execute(text(f"DELETE FROM findings WHERE subject IN ({commits})"), {"id": repo.row})
    tx.execute(text("DELETE FROM refs WHERE repo_id = :id"), {"id": repo.row})
    tx.execute(text("DELETE FROM commits WHERE repo_id = :id"), {"id": repo.row})
    tx.execute(text("DELETE FROM repos WHERE id = :id"), {"id": repo.row})
