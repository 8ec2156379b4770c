"""A claim is held by one living process at a time, and a dead one's falls at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold import jobs
from freehold.db import Database, open_database
from freehold.errors import FreeholdError
from freehold.keep.claim import claimed
from freehold.nouns.job import Job, JobState


def _clock() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "catalog.db", "catalog", _clock)
    yield opened
    opened.close()


def _job(database: Database) -> Job:
    with database.read() as tx:
        (job,) = jobs.list_jobs(tx)
    return job


def test_the_second_is_turned_away_until_the_first_is_done(database: Database, tmp_path: Path) -> None:
    with claimed(database, _clock, tmp_path, "pull", {"a": 1}, "x") as claim:
        claim.checkpoint({"files": 3})
        with pytest.raises(FreeholdError) as caught, claimed(database, _clock, tmp_path, "pull", {"a": 1}, "x"):
            pass
        assert caught.value.code == "jobs-taken"
        with claimed(database, _clock, tmp_path, "pull", {"a": 1}, "another"):
            pass
        assert claim.job.state == JobState.RUNNING
    with database.read() as tx:
        assert {j.state for j in jobs.list_jobs(tx)} == {JobState.DONE}
    assert not list(tmp_path.glob("*.lock"))


def test_a_failure_is_noted_and_the_checkpoint_survives_it(database: Database, tmp_path: Path) -> None:
    def fail() -> None:
        with claimed(database, _clock, tmp_path, "pull", {}, "x") as claim:
            claim.checkpoint({"files": 3})
            raise FreeholdError("keep-truncated", "broke off")

    with pytest.raises(FreeholdError):
        fail()
    job = _job(database)
    assert (job.state, job.error and job.error["code"], job.checkpoint) == (JobState.FAILED, "keep-truncated", {"files": 3})
    with claimed(database, _clock, tmp_path, "pull", {}, "x") as claim:
        assert (claim.job.id, claim.job.attempt, claim.job.checkpoint) == (job.id, 2, {"files": 3})


def test_the_claim_of_a_killed_process_falls_at_once(database: Database, tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from freehold.db import open_database
        from freehold.keep.claim import claimed
        clock = lambda: time.time_ns() // 1000
        folder = Path(sys.argv[1])
        with claimed(open_database(folder / "catalog.db", "catalog", clock), clock, folder, "pull", {}, "x"):
            print("held", flush=True)
            time.sleep(60)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(FreeholdError) as caught, claimed(database, _clock, tmp_path, "pull", {}, "x"):
            pass
        assert caught.value.code == "jobs-taken"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    assert _job(database).state == JobState.RUNNING
    with claimed(database, _clock, tmp_path, "pull", {}, "x") as claim:
        assert claim.job.attempt == 2


def test_an_owner_on_another_machine_is_waited_for_until_its_lease_ends(database: Database, tmp_path: Path) -> None:
    now = _clock()
    with database.write() as tx:
        job = jobs.submit_job(tx, "pull", {}, now, identity="x")
        jobs.claim_job(tx, job, "elsewhere:1:1", now, 60_000_000)
    with pytest.raises(FreeholdError) as caught, claimed(database, _clock, tmp_path, "pull", {}, "x"):
        pass
    assert caught.value.code == "jobs-taken"
    with claimed(database, lambda: now + 61_000_000, tmp_path, "pull", {}, "x") as claim:
        assert claim.job.attempt == 2


def test_a_claim_that_was_taken_over_stops_its_work(database: Database, tmp_path: Path) -> None:
    with pytest.raises(FreeholdError) as caught, claimed(database, _clock, tmp_path, "pull", {}, "x") as claim:
        with database.write() as tx:
            jobs.fail_job(tx, claim.job, _clock(), {"code": "x"})
            jobs.claim_job(tx, claim.job, "elsewhere:1:1", _clock(), 60_000_000)
        claim.check()
        claim.renew()
        claim.check()
    assert caught.value.code == "jobs-taken"
