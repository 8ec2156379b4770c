"""Opens the house: reads the settings, builds the parts and joins them. Nothing else.

This is the only module that reads settings; every room gets plain values.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freehold.config import Setting, Settings, load_settings, read_secret, with_flags
from freehold.db import open_database, open_home
from freehold.engines.pool import EnginePool
from freehold.flows.parts import Parts, Prices, Remote, Upstreams
from freehold.net.egress import Egress, Patience
from freehold.net.guard import Guard
from freehold.nouns.caller import Caller, owner
from freehold.vault import LocalStore, Vault

_HOUR_US = 3600 * 1_000_000
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class House:
    """An open home: its parts, the settings in force with their sources, and the caller of the local command line."""

    parts: Parts
    settings: Settings
    rows: list[Setting]
    caller: Caller


def system_clock() -> int:
    """UTC microseconds."""
    return time.time_ns() // 1000


def home_path(home: str | None = None) -> Path:
    """The folder of the home: as given, else FREEHOLD_HOME, else ~/.freehold."""
    return Path(home or os.environ.get("FREEHOLD_HOME") or "~/.freehold").expanduser().absolute()


def read_settings(home: str | None = None) -> tuple[Settings, list[Setting]]:
    """The settings of a home without opening it."""
    return load_settings(home_path(home) / "freehold.toml")


@contextmanager
def house(home: str | None = None, **server_flags: Any) -> Iterator[House]:
    """The house at `home`, open for the length of the block. `server_flags` override the [server] section.

    Raises home-*, config-*, db-*."""
    settings, rows = read_settings(home)
    settings = with_flags(settings, "server", **server_flags)
    place = open_home(home_path(home))
    with ExitStack() as stack:
        databases = {}
        for name in ("catalog", "vault", "ledger"):
            databases[name] = open_database(place.database(name), name, system_clock)
            stack.callback(databases[name].close)
        vault = Vault(
            LocalStore(place.objects),
            databases["vault"],
            place.spool,
            system_clock,
            read_policy="verify" if settings.vault.read_policy == "verify" else "scrubbed",
            max_age_us=settings.vault.max_age_hours * _HOUR_US,
            reserve_bytes=settings.vault.reserve_mb * _MB,
        )
        guard = Guard(_named_hosts(settings), local_only=settings.net.local_only)
        egress = Egress(guard, patience=Patience(attempts=settings.net.retries + 1), timeout=settings.net.timeout_seconds)
        stack.callback(egress.close)
        pool = EnginePool(
            guard,
            log_folder=place.logs,
            max_engines=settings.use.max_engines,
            idle_seconds=settings.use.idle_minutes * 60,
        )
        remote = Remote(settings.use.remote_url, read_secret(settings.use.remote_key_file)) if settings.use.remote_url else None
        parts = Parts(
            home=place,
            clock=system_clock,
            catalog=databases["catalog"],
            ledger=databases["ledger"],
            vault=vault,
            egress=egress,
            pool=pool,
            endpoint=settings.keep.endpoint,
            endpoint_token=read_secret(settings.keep.token_file),
            parallel=settings.keep.parallel,
            upstreams=Upstreams(settings.hub.upstreams, settings.hub.offline, read_secret(settings.hub.token_file)),
            anonymous_read=settings.server.anonymous_read,
            base_url=settings.server.base_url.rstrip("/"),
            context=settings.use.context,
            prices=Prices(settings.use.prompt_price, settings.use.generated_price, settings.use.currency),
            remote=remote,
            echo=settings.use.echo,
        )
        yield House(parts, settings, rows, owner("cli"))


def _named_hosts(settings: Settings) -> set[str]:
    """host:port of every URL that the operator wrote into the settings: these may lie in a private network."""
    urls = [*settings.hub.upstreams, settings.keep.endpoint, *filter(None, [settings.use.remote_url])]
    ports = {"http": 80, "https": 443}
    parsed = [urlsplit(url) for url in urls]
    return {f"{u.hostname}:{u.port or ports[u.scheme]}" for u in parsed if u.hostname}
