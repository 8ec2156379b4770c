"""Settings: TOML file, typed and frozen. Flag > environment `FREEHOLD_SECTION__KEY` > file > default.

Secrets stand in files of their own; a setting ending in `_file` names one. An unknown key is an error, since a setting
that is silently ignored is worse than none. Only `app` reads this module; rooms get plain values.
"""

from __future__ import annotations

import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freehold.errors import FreeholdError

PREFIX = "FREEHOLD_"
#: Environment names with this prefix that are not settings.
OTHER_NAMES = frozenset(
    {
        "FREEHOLD_HOME",
        "FREEHOLD_FAILPOINTS",
        "FREEHOLD_FAILPOINT_LOG",
        "FREEHOLD_LAB_TOKEN",
        "FREEHOLD_DEBUG",
        "FREEHOLD_TEST_DATA",
    }
)


def _doc(default: Any, text: str) -> Any:
    return field(default=default, metadata={"doc": text})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """[server]: the one port."""

    host: str = _doc("127.0.0.1", "Address to listen on. Anything but loopback needs a key in the home first.")
    port: int = _doc(8411, "Port to listen on; 0 takes a free one.")
    base_url: str = _doc("", "Public URL behind a reverse proxy, for links in answers (https://models.example.org/hub).")
    anonymous_read: bool = _doc(True, "Whether models may be read without a key. Chat, keys and usage always need one.")
    max_body_bytes: int = _doc(33_554_432, "Largest request body taken, in bytes.")


@dataclass(frozen=True, slots=True)
class HubSettings:
    """[hub]: the Hugging Face-compatible API."""

    upstreams: tuple[str, ...] = _doc((), "Hugging Face-compatible endpoints asked, in order, for a model not yet kept.")
    offline: bool = _doc(False, "Never ask an upstream.")
    token_file: str = _doc("", "File that holds the token for the upstreams.")


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """[keep]: pulling."""

    endpoint: str = _doc("https://huggingface.co", "Hub that `freehold pull hf:` asks when no --endpoint is given.")
    token_file: str = _doc("", "File that holds the token for that hub.")
    parallel: int = _doc(2, "Files fetched at the same time.")


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """[vault]: bytes on disk."""

    read_policy: str = _doc("scrubbed", "verify: hash every block as it is sent; scrubbed: rely on a full check within max_age.")
    max_age_hours: int = _doc(720, "How old a full check may be under `scrubbed` before reads verify again.")
    reserve_mb: int = _doc(64, "Free space, in MB, that writes leave on the disk.")


@dataclass(frozen=True, slots=True)
class UseSettings:
    """[use]: serving models."""

    context: int = _doc(4096, "Context window in tokens, at most what the model was made for.")
    idle_minutes: int = _doc(30, "Stop an engine that nobody asked for so long.")
    max_engines: int = _doc(2, "Engines that may run at the same time.")
    remote_url: str = _doc("", "An OpenAI-compatible URL whose models are offered beside the house's own.")
    remote_key_file: str = _doc("", "File that holds the key for that URL.")
    echo: bool = _doc(False, "Offer the model `echo`, which repeats its input at a set pace, for load tests.")
    currency: str = _doc("EUR", "Currency of prices and costs.")
    prompt_price: int = _doc(0, "Price of a million prompt tokens, in micro-units of the currency.")
    generated_price: int = _doc(0, "Price of a million generated tokens, in micro-units of the currency.")


@dataclass(frozen=True, slots=True)
class NetSettings:
    """[net]: the one way out."""

    local_only: bool = _doc(False, "Refuse every connection beyond this machine.")
    timeout_seconds: int = _doc(30, "Seconds without a byte after which a connection counts as lost.")
    retries: int = _doc(4, "How often a failed request is tried again.")


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections."""

    server: ServerSettings = field(default_factory=ServerSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    keep: KeepSettings = field(default_factory=KeepSettings)
    vault: VaultSettings = field(default_factory=VaultSettings)
    use: UseSettings = field(default_factory=UseSettings)
    net: NetSettings = field(default_factory=NetSettings)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key with its value and where that came from (default, file, environment, flag)."""

    key: str
    type: str
    value: Any
    source: str
    doc: str


def load_settings(file: Path, environ: Mapping[str, str] | None = None) -> tuple[Settings, list[Setting]]:
    """The settings in force and the list that explains them.

    Raises config-unreadable, config-unknown-key, config-bad-value."""
    environ = os.environ if environ is None else environ
    given = _read(file)
    _refuse_unknown(given, environ, file)
    sections: dict[str, Any] = {}
    rows: list[Setting] = []
    for section in fields(Settings):
        kind = section.default_factory
        assert isinstance(kind, type)  # noqa: S101 - every section has a dataclass as factory
        hints = typing.get_type_hints(kind)
        values: dict[str, Any] = {}
        for f in fields(kind):
            key = f"{section.name}.{f.name}"
            value, source = f.default, "default"
            if f.name in given.get(section.name, {}):
                value, source = _typed(key, given[section.name][f.name], hints[f.name]), "file"
            name = f"{PREFIX}{section.name}__{f.name}".upper()
            if name in environ:
                value, source = _parsed(key, environ[name], hints[f.name]), "environment"
            values[f.name] = value
            rows.append(Setting(key, _type_name(hints[f.name]), value, source, f.metadata["doc"]))
        sections[section.name] = kind(**values)
    settings = Settings(**sections)
    _check(settings)
    return settings, rows


def with_flags(settings: Settings, section: str, **flags: Any) -> Settings:
    """`settings` with the flags that were given (not None) in `section`."""
    given = {k: v for k, v in flags.items() if v is not None}
    changed = replace(settings, **{section: replace(getattr(settings, section), **given)})
    _check(changed)
    return changed


def read_secret(path: str) -> str | None:
    """The secret that a `*_file` setting names; None for an empty setting. Raises config-bad-value."""
    if not path:
        return None
    try:
        return Path(path).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FreeholdError("config-bad-value", f"cannot read the secret file {path}: {error}", path=path) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise FreeholdError("config-unreadable", f"{file}: {error}", path=file) from error


def _refuse_unknown(given: dict[str, Any], environ: Mapping[str, str], file: Path) -> None:
    known = {s.name: {f.name for f in fields(typing.cast("Any", s.default_factory))} for s in fields(Settings)}
    for section, body in given.items():
        if section not in known or not isinstance(body, dict):
            raise FreeholdError("config-unknown-key", f"{file}: no section [{section}]", key=section, path=file)
        for key in body:
            if key not in known[section]:
                raise FreeholdError(
                    "config-unknown-key", f"{file}: [{section}] has no key '{key}'", key=f"{section}.{key}", path=file
                )
    names = {f"{PREFIX}{s}__{k}".upper() for s, keys in known.items() for k in keys} | OTHER_NAMES
    for name in environ:
        if name.startswith(PREFIX) and name not in names:
            raise FreeholdError("config-unknown-key", f"the environment variable {name} is no setting", key=name)


def _typed(key: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return tuple(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise FreeholdError("config-bad-value", f"{key} must be {_type_name(hint)}, not {value!r}", key=key)


def _parsed(key: str, value: str, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if hint is bool and value.lower() in ("1", "true", "yes", "0", "false", "no"):
        return value.lower() in ("1", "true", "yes")
    if hint is int and value.lstrip("-").isdigit():
        return int(value)
    if hint is str:
        return value
    raise FreeholdError("config-bad-value", f"{key} must be {_type_name(hint)}, not {value!r}", key=key)


def _check(settings: Settings) -> None:
    def require(ok: bool, key: str, what: str) -> None:
        if not ok:
            raise FreeholdError("config-bad-value", f"{key} must be {what}", key=key)

    require(0 <= settings.server.port <= 65535, "server.port", "0 to 65535")
    require(settings.vault.read_policy in ("verify", "scrubbed"), "vault.read_policy", "'verify' or 'scrubbed'")
    for url, key in [(settings.server.base_url, "server.base_url"), (settings.use.remote_url, "use.remote_url")]:
        require(not url or _is_url(url), key, "an http or https URL")
    for url in settings.hub.upstreams:
        require(_is_url(url), "hub.upstreams", "http or https URLs")
    require(_is_url(settings.keep.endpoint), "keep.endpoint", "an http or https URL")
    for key in ("vault.max_age_hours", "vault.reserve_mb", "use.prompt_price", "use.generated_price", "net.retries"):
        section, name = key.split(".")
        require(getattr(getattr(settings, section), name) >= 0, key, "0 or more")
    for key in (
        "keep.parallel",
        "use.context",
        "use.max_engines",
        "use.idle_minutes",
        "net.timeout_seconds",
        "server.max_body_bytes",
    ):
        section, name = key.split(".")
        require(getattr(getattr(settings, section), name) > 0, key, "above 0")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.GenericAlias) or typing.get_origin(hint) is tuple:
        return "list of strings"
    return {str: "string", int: "integer", bool: "boolean"}[hint]
