"""What was used: one immutable row per admitted request, and the money of it in integer micro-units."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Every admitted request ends in exactly one of these."""

    SETTLED = "settled"
    RELEASED = "released"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """As the engine counted them. `delivered` are those handed to the transport; `reported`: counts are a remote's word;
    `estimated`: the remote said nothing, so the chunks were counted."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    delivered: int = 0
    reported: bool = False
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One request. `cost` in micro-units of `currency`; times in UTC microseconds; `reason` in one word why it ended
    (stop, length, client-gone, engine-failed, process-died ...)."""

    id: str
    at: int
    principal: str
    model: str
    engine: str
    counts: TokenCounts
    outcome: Outcome
    finished_at: int
    first_token_us: int | None
    cost: int
    currency: str
    reservation: str
    reason: str = ""
