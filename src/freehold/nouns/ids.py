"""Names of repositories and commits, and ids of rows that leave the house."""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from freehold.errors import FreeholdError

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|[A-Za-z0-9_]")
_COMMIT = re.compile(r"[0-9a-f]{40}")

#: First path segments of the server that no namespace or bare repository may take (URLs of one port).
RESERVED = frozenset({"-", "api", "v1", "v2", "xet", "datasets", "spaces", "models", "healthz", "favicon.ico", "robots.txt"})


class RepoKind(StrEnum):
    MODEL = "model"
    DATASET = "dataset"


@dataclass(frozen=True, slots=True)
class RepoId:
    """A repository's name: `org/name`, or `name` alone (some hubs have repositories without a namespace).

    Two ids that differ only in case are the same repository: compare `key`.
    """

    name: str
    namespace: str | None = None
    kind: RepoKind = RepoKind.MODEL

    def __post_init__(self) -> None:
        for part in filter(None, (self.namespace, self.name)):
            if not _NAME.fullmatch(part) or len(part) > 96 or "--" in part or ".." in part or part.endswith(".git"):
                raise FreeholdError("catalog-id-invalid", f"not a model id: {str(self)!r}", id=str(self))
        if (self.namespace or self.name).lower() in RESERVED:
            raise FreeholdError("catalog-id-invalid", f"'{self.namespace or self.name}' is reserved by the server", id=str(self))

    @classmethod
    def parse(cls, text: str, kind: RepoKind = RepoKind.MODEL) -> Self:
        """Inverse of `str`; FreeholdError catalog-id-invalid if malformed."""
        parts = text.split("/")
        if len(parts) > 2 or not all(parts):
            raise FreeholdError("catalog-id-invalid", f"not a model id: {text!r}", id=text)
        return cls(name=parts[-1], namespace=parts[0] if len(parts) == 2 else None, kind=kind)

    @property
    def key(self) -> str:
        """The case-blind identity, kind included: `model:org/name`."""
        return f"{self.kind}:{str(self).lower()}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class CommitId:
    """40 hex digits; unique within one repository (the same sha may stand in two)."""

    sha: str

    def __post_init__(self) -> None:
        if not _COMMIT.fullmatch(self.sha):
            raise FreeholdError("catalog-revision-not-found", f"not a commit id: {self.sha!r}", revision=self.sha)

    def __str__(self) -> str:
        return self.sha


def uuid7(at: int) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) for the moment `at` (UTC microseconds); random beyond the millisecond."""
    value = (at // 1000 & (1 << 48) - 1) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))
