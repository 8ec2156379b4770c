"""Parts: what a flow works with. Built by `app` alone; doors pass it on without looking inside."""

from __future__ import annotations

from dataclasses import dataclass

from freehold.db import Database, Home
from freehold.engines.pool import EnginePool
from freehold.net.egress import Egress
from freehold.nouns.moment import Clock
from freehold.vault import Vault


@dataclass(frozen=True, slots=True)
class Prices:
    """Per million tokens, in integer micro-units of `currency`."""

    prompt: int
    generated: int
    currency: str


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Where a model that is not kept may be fetched from on first ask; none when `offline`."""

    endpoints: tuple[str, ...]
    offline: bool
    token: str | None


@dataclass(frozen=True, slots=True)
class Remote:
    """An OpenAI-compatible URL whose models are offered beside the house's own."""

    url: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The open house. `endpoint` and `endpoint_token` are the hub of `freehold pull hf:`; `base_url` is this server's
    public URL or empty; `context` in tokens; `echo` offers the echo engine as a model."""

    home: Home
    clock: Clock
    catalog: Database
    ledger: Database
    vault: Vault
    egress: Egress
    pool: EnginePool
    endpoint: str
    endpoint_token: str | None
    parallel: int
    upstreams: Upstreams
    anonymous_read: bool
    base_url: str
    context: int
    prices: Prices
    remote: Remote | None
    echo: bool
