"""What is known of a revision: origins, lineage, findings, admission; each with its source and method version."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import Connection, text

from freehold.catalog.revisions import Revision
from freehold.nouns.digest import Digest
from freehold.nouns.origin import Admission, Evidence, Finding, Lineage, Origin, Relation, Severity


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def add_origin(tx: Connection, revision: Revision, origin: Origin) -> None:
    """One more way by which this revision entered the house."""
    sql = (
        "INSERT INTO origins (commit_id, source, locator, upstream_etag, taken_at, evidence, detail_json) "
        "VALUES (:c, :source, :locator, :etag, :at, :evidence, :detail)"
    )
    values = {
        "c": revision.row, "source": origin.source, "locator": origin.locator, "etag": origin.upstream_etag,
        "at": origin.taken_at, "evidence": str(origin.evidence) if origin.evidence else None,
        "detail": _canonical(origin.detail),
    }  # fmt: skip
    tx.execute(text(sql), values)


def list_origins(tx: Connection, revision: Revision) -> list[Origin]:
    rows = tx.execute(text("SELECT * FROM origins WHERE commit_id = :c ORDER BY id"), {"c": revision.row})
    return [
        Origin(
            r.source,
            r.locator,
            r.taken_at,
            r.upstream_etag,
            Digest.parse(r.evidence) if r.evidence else None,
            json.loads(r.detail_json),
        )
        for r in rows
    ]


def add_lineage(tx: Connection, child: Revision, edges: Iterable[Lineage], at: int) -> None:
    """Record edges; the same edge by the same method once only."""
    sql = (
        "INSERT INTO lineage (child_commit_id, parent, relation, evidence, score, method, at) "
        "VALUES (:c, :parent, :relation, :evidence, :score, :method, :at) ON CONFLICT DO NOTHING"
    )
    for edge in edges:
        values = {"parent": edge.parent, "relation": edge.relation, "evidence": edge.evidence, "score": edge.score}
        tx.execute(text(sql), values | {"c": child.row, "method": edge.method, "at": at})


def list_lineage(tx: Connection, child: Revision) -> list[Lineage]:
    rows = tx.execute(text("SELECT * FROM lineage WHERE child_commit_id = :c ORDER BY id"), {"c": child.row})
    return [Lineage(r.parent, Relation(r.relation), Evidence(r.evidence), r.score, r.method) for r in rows]


def add_findings(tx: Connection, findings: Iterable[Finding], at: int) -> None:
    """Record findings; an equal one by the same method version stands once."""
    sql = (
        "INSERT INTO findings (subject, kind, severity, method, detail_json, at) "
        "VALUES (:subject, :kind, :severity, :method, :detail, :at) ON CONFLICT DO NOTHING"
    )
    for f in findings:
        values = {"subject": f.subject, "kind": f.kind, "severity": f.severity, "method": f.method}
        tx.execute(text(sql), values | {"detail": _canonical(f.detail), "at": at})


def list_findings(tx: Connection, subject: str) -> list[Finding]:
    """All findings of `subject` (`commit:<sha>` or a digest), oldest first."""
    rows = tx.execute(text("SELECT * FROM findings WHERE subject = :s ORDER BY id"), {"s": subject})
    return [Finding(r.subject, r.kind, Severity(r.severity), r.method, json.loads(r.detail_json)) for r in rows]


def admit(tx: Connection, revision: Revision, state: Admission, by: str, reason: str, at: int) -> None:
    """Record a decision; the newest one counts, the older ones stay."""
    sql = "INSERT INTO admissions (commit_id, state, decided_by, reason, at) VALUES (:c, :state, :by, :reason, :at)"
    tx.execute(text(sql), {"c": revision.row, "state": state, "by": by, "reason": reason, "at": at})


def admission(tx: Connection, revision: Revision) -> Admission:
    """The newest decision; a revision that nobody decided on is quarantined."""
    sql = "SELECT state FROM admissions WHERE commit_id = :c ORDER BY id DESC LIMIT 1"
    row = tx.execute(text(sql), {"c": revision.row}).first()
    return Admission(row.state) if row else Admission.QUARANTINED


def decision(tx: Connection, revision: Revision) -> tuple[Admission, str]:
    """The newest decision with its reason; a revision that nobody decided on is quarantined."""
    sql = "SELECT state, reason FROM admissions WHERE commit_id = :c ORDER BY id DESC LIMIT 1"
    row = tx.execute(text(sql), {"c": revision.row}).first()
    return (Admission(row.state), row.reason) if row else (Admission.QUARANTINED, "nobody has decided on it yet")
