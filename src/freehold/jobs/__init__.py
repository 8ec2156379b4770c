"""Resumable work: one table for the command line and the server.

A job is claimed by lease; a handler is a function of idempotent steps that notes a checkpoint after each. When its worker
dies, the lease runs out and the next claim goes on from the checkpoint.
"""

from freehold.jobs.table import (
    checkpoint_job,
    claim_job,
    fail_job,
    finish_job,
    list_jobs,
    renew_lease,
    submit_job,
)

__all__ = ["checkpoint_job", "claim_job", "fail_job", "finish_job", "list_jobs", "renew_lease", "submit_job"]
