"""Where a revision came from, what was derived from what, and what a study found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from freehold.nouns.digest import Digest


@dataclass(frozen=True, slots=True)
class Origin:
    """How a revision entered the house. `source` is pypi | hf | folder | upload; `locator` names it there.

    `detail` holds the source's own facts (package, version, wheel sha256; endpoint, revision asked for, commit)."""

    source: str
    locator: str
    taken_at: int
    upstream_etag: str | None = None
    evidence: Digest | None = None
    detail: dict[str, Any] = field(default_factory=dict)


class Relation(StrEnum):
    FINETUNE = "finetune"
    ADAPTER = "adapter"
    MERGE = "merge"
    QUANTIZED = "quantized"
    DISTILLED = "distilled"
    UNKNOWN = "unknown"


class Evidence(StrEnum):
    DECLARED = "declared"
    PROVED = "proved"
    RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class Lineage:
    """One edge: the child revision is said (or shown) to come from `parent`. `score` only where it was measured."""

    parent: str
    relation: Relation
    evidence: Evidence
    score: float | None = None
    method: str = "declaration-1"


class Severity(StrEnum):
    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one study of one subject (a digest or `commit:<sha>`), with the version of the method that found it."""

    subject: str
    kind: str
    severity: Severity
    method: str
    detail: dict[str, Any] = field(default_factory=dict)


class Admission(StrEnum):
    """Whether a revision may leave by any door."""

    ADMITTED = "admitted"
    QUARANTINED = "quarantined"
    REFUSED = "refused"
