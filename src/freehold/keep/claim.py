"""The claim on a piece of work: one process at a time, noticed at once when that process is gone.

Why a lock beside the job's lease: the lease is what other machines and the console see, but it runs on for a while after
a `kill -9`; a file lock falls with its process. Whoever gets the lock while the lease still runs knows that the owner is dead,
and goes on from the checkpoint without waiting. A thread renews the lease while the work lasts.

It does not know what the work is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freehold import jobs
from freehold.db import Database
from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.nouns.job import Job, JobState
from freehold.nouns.moment import Clock

#: How long others wait for an owner on another machine that says nothing, in microseconds.
LEASE_US = 60_000_000
_RENEW_SECONDS = 15.0


class Claim:
    """Held work. `job` is the row as it was claimed."""

    def __init__(self, database: Database, clock: Clock, job: Job) -> None:
        self.job = job
        self._database = database
        self._clock = clock
        self._lost: FreeholdError | None = None
        self._also: list[Callable[[], None]] = []

    def checkpoint(self, values: dict[str, Any]) -> None:
        """Note how far the work is. FreeholdError jobs-taken if the claim was lost."""
        self.check()
        with self._database.write() as tx:
            jobs.checkpoint_job(tx, self.job, self._clock(), values)

    def also_renew(self, renew: Callable[[], None]) -> None:
        """Call `renew` now and whenever the lease is renewed: for other claims that must last as long as this one."""
        renew()
        self._also.append(renew)

    def check(self) -> None:
        """FreeholdError jobs-taken if another process has taken over meanwhile."""
        if self._lost is not None:
            raise self._lost

    def renew(self) -> None:
        """Say that the work goes on; a busy database is no reason to stop, a lost lease is."""
        try:
            with self._database.write() as tx:
                jobs.renew_lease(tx, self.job, self._clock(), LEASE_US)
            for renew in self._also:
                renew()
        except FreeholdError as error:
            if error.code == "jobs-taken":
                self._lost = error


@contextmanager
def claimed(database: Database, clock: Clock, folder: Path, kind: str, params: dict[str, Any], identity: str) -> Iterator[Claim]:
    """Hold the job of this kind and identity for the length of the block: done at its end, failed (and open) if it raises.

    `folder` is for lock files. FreeholdError jobs-taken while a living process holds it, keep-spool-unwritable.
    """
    with database.write() as tx:
        job = jobs.submit_job(tx, kind, params, clock(), identity=identity)
    with _locked(folder / f"job-{job.id}.lock", job):
        owner = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
        with database.write() as tx:
            job = jobs.submit_job(tx, kind, params, clock(), identity=identity)
            if job.state == JobState.RUNNING and _was_here(job):
                jobs.fail_job(tx, job, clock(), {"code": "jobs-owner-died", "message": f"{job.owner} ended without a word"})
            job = jobs.claim_job(tx, job, owner, clock(), LEASE_US)
        failpoint("job.claimed")
        claim = Claim(database, clock, job)
        try:
            with _renewing(claim):
                yield claim
        except FreeholdError as error:
            _fail(database, clock, job, error.as_dict())
            raise
        except BaseException as error:
            code = "interrupted" if isinstance(error, KeyboardInterrupt) else "internal-bug"
            _fail(database, clock, job, {"code": code, "message": repr(error)})
            raise
        with database.write() as tx:
            jobs.finish_job(tx, job, clock())
        failpoint("job.finished")


def _was_here(job: Job) -> bool:
    """The owner ran on this machine, so the lock that we hold proves its end."""
    return (job.owner or "").startswith(f"{socket.gethostname()}:")


def _fail(database: Database, clock: Clock, job: Job, error: dict[str, Any]) -> None:
    """Note the failure; if even that fails (a full disk), the failure itself is what counts."""
    with contextlib.suppress(FreeholdError, OSError), database.write() as tx:
        jobs.fail_job(tx, job, clock(), error)


@contextmanager
def _renewing(claim: Claim) -> Iterator[None]:
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            claim.renew()

    thread = threading.Thread(target=renew, name="freehold-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _locked(path: Path, job: Job) -> Iterator[None]:
    """The file lock of a job; the file goes with the lock. FreeholdError jobs-taken."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FreeholdError("keep-spool-unwritable", f"cannot lock {path}: {error.strerror}", path=path) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise FreeholdError(
                "jobs-taken", f"another process works on this {job.kind} already", job=job.id, kind=job.kind
            ) from error
        if _is_still(fd, path):
            break
        os.close(fd)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(fd)


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
