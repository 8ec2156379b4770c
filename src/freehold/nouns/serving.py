"""Serving: which model is run by what, and what a running engine says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class EngineKind(StrEnum):
    LLAMACPP = "llamacpp"
    REMOTE = "remote"
    ECHO = "echo"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model under the name that callers use, and how it is run. Equal deployments share one running engine.

    llamacpp: `path` is the model file; `context` tokens for each of `slots` parallel answers; `threads` None: as many as
    cores may be used. remote: `url` is the base that ends before `/chat/completions`, `upstream_model` the name there
    (None: the same), `api_key` its secret. echo: `tokens_per_second` 0 is as fast as can be; `crash_after` tokens it fails.
    """

    model: str
    engine: EngineKind
    path: Path | None = None
    url: str | None = None
    upstream_model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    context: int = 4096
    slots: int = 2
    threads: int | None = None
    tokens_per_second: float = 0.0
    crash_after: int | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a running engine is: `context` in tokens for one answer (None: unknown), answers being generated now, bytes
    of memory resident (None: not on this machine or not measurable), starts so far, and whether its counts are exact."""

    kind: EngineKind
    model: str
    context: int | None
    slots: int | None
    busy: int
    memory: int | None = None
    pid: int | None = None
    starts: int = 1
    exact: bool = True
