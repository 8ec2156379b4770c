"""Jobs: resumable work, one table for the command line and the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Job:
    """`owner` and `lease_until` say who works on it now; `checkpoint` is what a handler needs to go on after a crash."""

    id: str
    kind: str
    params: dict[str, Any]
    state: JobState
    owner: str | None = None
    lease_until: int = 0
    attempt: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    priority: int = 0
    team: str | None = None
    error: dict[str, Any] | None = None
    created_at: int = 0
    updated_at: int = 0
