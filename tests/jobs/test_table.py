"""Jobs: one per piece of work, one worker at a time, resumed from the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from freehold import jobs
from freehold.db import Database, open_database
from freehold.errors import FreeholdError
from freehold.nouns.job import JobState

LEASE = 60


@pytest.fixture
def catalog(tmp_path: Path):
    database = open_database(tmp_path / "catalog.db", "catalog", lambda: 1)
    yield database
    database.close()


def test_the_same_work_asked_for_twice_is_one_job(catalog: Database) -> None:
    with catalog.write() as tx:
        one = jobs.submit_job(tx, "pull", {"a": 1}, 1, identity="x/y")
        assert jobs.submit_job(tx, "pull", {"a": 1}, 2, identity="x/y") == one
        assert jobs.submit_job(tx, "pull", {}, 2, identity="x/z").id != one.id


def test_a_second_worker_is_refused_until_the_lease_runs_out(catalog: Database) -> None:
    with catalog.write() as tx:
        job = jobs.submit_job(tx, "pull", {}, 1, identity="x/y")
        mine = jobs.claim_job(tx, job, "me", 10, LEASE)
        with pytest.raises(FreeholdError) as caught:
            jobs.claim_job(tx, job, "you", 10 + LEASE - 1, LEASE)
        assert caught.value.code == "jobs-taken"
        jobs.checkpoint_job(tx, mine, 20, {"step": 3})
        yours = jobs.claim_job(tx, job, "you", 10 + LEASE, LEASE)
        assert (yours.attempt, yours.checkpoint) == (2, {"step": 3})
        with pytest.raises(FreeholdError):
            jobs.renew_lease(tx, mine, 11 + LEASE, LEASE)
        jobs.renew_lease(tx, yours, 11 + LEASE, LEASE, {"done": 5})


def test_a_failed_job_stays_open_and_a_finished_one_does_not(catalog: Database) -> None:
    with catalog.write() as tx:
        job = jobs.claim_job(tx, jobs.submit_job(tx, "pull", {}, 1, identity="x"), "me", 1, LEASE)
        jobs.fail_job(tx, job, 2, {"code": "keep-gated"})
        again = jobs.submit_job(tx, "pull", {}, 3, identity="x")
        assert (again.id, again.state, again.error) == (job.id, JobState.FAILED, {"code": "keep-gated"})
        jobs.finish_job(tx, jobs.claim_job(tx, again, "you", 4, LEASE), 5)
        assert jobs.submit_job(tx, "pull", {}, 6, identity="x").id != job.id
        assert [j.state for j in jobs.list_jobs(tx)] == [JobState.QUEUED, JobState.DONE]
