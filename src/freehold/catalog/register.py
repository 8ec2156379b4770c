"""The register: every repository with its head revision and what is known of it, in one query.

The head is the branch main, else the first ref by name; a repository without a ref has none and is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from freehold.catalog.repos import Repo
from freehold.nouns.ids import RepoId, RepoKind
from freehold.nouns.origin import Admission


@dataclass(frozen=True, slots=True)
class Line:
    """One repository at its head: `size` in bytes; `details` by kind of finding (newest of each); `source` and `taken_at`
    of its first origin."""

    repo: Repo
    sha: str
    size: int
    files: int
    admission: Admission
    details: dict[str, dict[str, Any]]
    source: str | None
    taken_at: int | None


_DETAIL = (
    "(SELECT f.detail_json FROM findings f WHERE f.subject = 'commit:' || c.sha AND f.kind = :{0} ORDER BY f.id DESC LIMIT 1)"
)
_SQL = text(
    "SELECT r.id, r.uuid, r.kind, r.namespace, r.name, r.private, r.gated, r.created_at, r.updated_at, c.sha, "
    "(SELECT COALESCE(SUM(e.size), 0) FROM entries e WHERE e.tree_id = c.tree_id) AS size, "
    "(SELECT COUNT(*) FROM entries e WHERE e.tree_id = c.tree_id) AS files, "
    "(SELECT a.state FROM admissions a WHERE a.commit_id = c.id ORDER BY a.id DESC LIMIT 1) AS state, "
    f"{_DETAIL.format('first')} AS one, {_DETAIL.format('second')} AS two, "
    "o.source, o.taken_at FROM repos r "
    "JOIN refs h ON h.repo_id = r.id AND h.name = "
    "(SELECT name FROM refs WHERE repo_id = r.id ORDER BY name <> 'heads/main', name LIMIT 1) "
    "JOIN commits c ON c.repo_id = r.id AND c.sha = h.sha "
    "LEFT JOIN origins o ON o.id = (SELECT MIN(id) FROM origins WHERE commit_id = c.id) "
    "WHERE r.kind = :kind ORDER BY r.key"
)


def list_heads(tx: Connection, kinds: tuple[str, str], kind: RepoKind = RepoKind.MODEL) -> list[Line]:
    """All repositories of one kind, by name; `kinds` are the two kinds of findings whose details are wanted."""
    found = []
    for row in tx.execute(_SQL, {"kind": kind, "first": kinds[0], "second": kinds[1]}):
        repo_id = RepoId(name=row.name, namespace=row.namespace, kind=RepoKind(row.kind))
        repo = Repo(row.id, row.uuid, repo_id, bool(row.private), row.gated, row.created_at, row.updated_at)
        details = {name: json.loads(raw) for name, raw in zip(kinds, (row.one, row.two), strict=True) if raw}
        state = Admission(row.state) if row.state else Admission.QUARANTINED
        found.append(Line(repo, row.sha, row.size, row.files, state, details, row.source, row.taken_at))
    return found
