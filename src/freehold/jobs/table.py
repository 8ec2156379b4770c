"""The jobs table: submit, claim by lease, checkpoint, finish. All times UTC microseconds."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, text

from freehold.errors import FreeholdError
from freehold.nouns.ids import uuid7
from freehold.nouns.job import Job, JobState

_OPEN = "('queued', 'running', 'failed')"


def _job(row: Row[tuple[object, ...]]) -> Job:
    return Job(
        id=row.id, kind=row.kind, params=json.loads(row.params_json), state=JobState(row.state), owner=row.owner,
        lease_until=row.lease_until, attempt=row.attempt, progress=json.loads(row.progress_json),
        checkpoint=json.loads(row.checkpoint_json), parent=row.parent, priority=row.priority, team=row.team,
        error=json.loads(row.error_json) if row.error_json else None, created_at=row.created_at, updated_at=row.updated_at,
    )  # fmt: skip


def submit_job(tx: Connection, kind: str, params: dict[str, Any], at: int, *, identity: str, priority: int = 0) -> Job:
    """The open job of this kind and identity, or a new one: asking twice for the same work makes one job."""
    sql = f"SELECT * FROM jobs WHERE kind = :kind AND identity = :identity AND state IN {_OPEN} ORDER BY created_at LIMIT 1"
    row = tx.execute(text(sql), {"kind": kind, "identity": identity}).first()
    if row:
        return _job(row)
    insert = (
        "INSERT INTO jobs (id, kind, identity, params_json, state, priority, created_at, updated_at) "
        "VALUES (:id, :kind, :identity, :params, 'queued', :priority, :at, :at)"
    )
    id_ = uuid7(at)
    values = {"id": id_, "kind": kind, "identity": identity, "params": json.dumps(params), "priority": priority, "at": at}
    tx.execute(text(insert), values)
    return _get(tx, id_)


def claim_job(tx: Connection, job: Job, owner: str, at: int, lease_us: int) -> Job:
    """Take the job; FreeholdError jobs-taken while another owner's lease runs."""
    sql = (
        "UPDATE jobs SET state = 'running', owner = :owner, lease_until = :until, attempt = attempt + 1, updated_at = :at, "
        f"error_json = NULL WHERE id = :id AND state IN {_OPEN} AND (lease_until <= :at OR owner = :owner OR state <> 'running')"
    )
    done = tx.execute(text(sql), {"id": job.id, "owner": owner, "until": at + lease_us, "at": at})
    if done.rowcount != 1:
        raise FreeholdError("jobs-taken", f"another process works on this {job.kind} already", job=job.id, kind=job.kind)
    return _get(tx, job.id)


def renew_lease(tx: Connection, job: Job, at: int, lease_us: int, progress: dict[str, Any] | None = None) -> None:
    """Say that the work goes on; FreeholdError jobs-taken if the lease was lost meanwhile."""
    sql = (
        "UPDATE jobs SET lease_until = :until, updated_at = :at, progress_json = COALESCE(:progress, progress_json) "
        "WHERE id = :id AND owner = :owner AND state = 'running'"
    )
    values = {"id": job.id, "owner": job.owner, "until": at + lease_us, "at": at}
    done = tx.execute(text(sql), values | {"progress": None if progress is None else json.dumps(progress)})
    if done.rowcount != 1:
        raise FreeholdError("jobs-taken", f"another process took over this {job.kind}", job=job.id, kind=job.kind)


def checkpoint_job(tx: Connection, job: Job, at: int, checkpoint: dict[str, Any]) -> None:
    """Note how far the work is; what a successor gets as `checkpoint`."""
    sql = "UPDATE jobs SET checkpoint_json = :c, updated_at = :at WHERE id = :id"
    tx.execute(text(sql), {"id": job.id, "at": at, "c": json.dumps(checkpoint)})


def finish_job(tx: Connection, job: Job, at: int) -> None:
    sql = "UPDATE jobs SET state = 'done', owner = NULL, lease_until = 0, updated_at = :at WHERE id = :id"
    tx.execute(text(sql), {"id": job.id, "at": at})


def fail_job(tx: Connection, job: Job, at: int, error: dict[str, Any]) -> None:
    """Give up for now: the job stays open, the next claim tries again from the checkpoint."""
    sql = "UPDATE jobs SET state = 'failed', owner = NULL, lease_until = 0, updated_at = :at, error_json = :e WHERE id = :id"
    tx.execute(text(sql), {"id": job.id, "at": at, "e": json.dumps(error)})


def list_jobs(tx: Connection, *, limit: int = 100) -> list[Job]:
    """Newest first."""
    return [_job(row) for row in tx.execute(text("SELECT * FROM jobs ORDER BY created_at DESC LIMIT :n"), {"n": limit})]


def _get(tx: Connection, id_: str) -> Job:
    return _job(tx.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": id_}).one())
