"""The lab's story: make a model, make a fine-tune of it, serve them as an origin, tell that origin to misbehave.

No Caller is asked for: nothing here reads or changes what the house keeps, who may use it, or what it costs; models are
written to folders of the person's own, and the origin's control door has a token of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.lab.models import MadeModel
from freehold.lab.tell import announce, announced, ask, tell
from freehold.lab.verbs import VERBS, Argument, Verb
from freehold.nouns.progress import Listener, silent

if TYPE_CHECKING:
    from freehold.lab.upstream import Upstream

__all__ = [
    "VERBS",
    "Argument",
    "MadeModel",
    "Verb",
    "describe",
    "fine_tune",
    "make_model",
    "requests",
    "serve_upstream",
    "tell_upstream",
]


def make_model(
    out: Path,
    *,
    seed: int,
    size_mb: float = 10.0,
    format: str = "safetensors",  # noqa: A002 - the word of the command line
    arch: str = "llama",
    dtype: str = "BF16",
    sharded: int = 1,
    license_id: str = "mit",
    license_text: str | None = None,
    listener: Listener = silent,
) -> MadeModel:
    """A model by seed in the new folder `out`; see `lab.models.make_model`."""
    from freehold.lab import models

    return models.make_model(
        out,
        seed=seed,
        size_mb=size_mb,
        format=format,
        arch=arch,
        dtype=dtype,
        sharded=sharded,
        license_id=license_id,
        license_text=license_text,
        listener=listener,
    )


def fine_tune(
    base: Path,
    out: Path,
    *,
    relative_change: float,
    seed: int,
    lora: int | None = None,
    keep: Sequence[str] = (),
    base_id: str | None = None,
    listener: Listener = silent,
) -> MadeModel:
    """A fine-tune of the model in `base` in the new folder `out`; see `lab.finetune.finetune`."""
    from freehold.lab.finetune import finetune

    return finetune(
        base, out, relative_change=relative_change, seed=seed, lora=lora, keep=keep, base_id=base_id, listener=listener
    )


@contextlib.contextmanager
def serve_upstream(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    control_token: str | None = None,
    cdn_host: str | None = None,
    lifetime: float | None = None,
) -> Iterator[Upstream]:
    """An origin over `folder` for the length of the block, found by `tell_upstream` under the folder's name.

    `lifetime` in seconds, None for no end. FreeholdError lab-upstream-running, and those of `lab.upstream.Upstream`.
    """
    from freehold.lab.upstream import running_upstream

    options: dict[str, Any] = {"host": host, "port": port, "control_token": control_token, "cdn_host": cdn_host}
    with running_upstream(folder, **options, lifetime=lifetime) as upstream:
        word = announce(upstream.folder, upstream.url, upstream.control_url, upstream.control_token)
        try:
            yield upstream
        finally:
            with contextlib.suppress(OSError):
                word.unlink(missing_ok=True)


def tell_upstream(target: str, token: str | None, verb: str, values: dict[str, Any]) -> dict[str, Any]:
    """Have the origin of a folder, or at a control URL, obey one of VERBS; `done` and `result` of what it answered.

    FreeholdError lab-control-unreachable, lab-control-refused, lab-verb-unknown, lab-argument-invalid, or its own.
    """
    url, secret = _door(target, token)
    return tell(url, secret, verb, values)


def describe(target: str, token: str | None = None) -> dict[str, Any]:
    """The origin's models with their heads and standing, faults in force, counts."""
    return ask(*_door(target, token), "state")


def requests(target: str, token: str | None = None) -> list[dict[str, Any]]:
    """Every request that the origin has recorded, in order."""
    rows: list[dict[str, Any]] = ask(*_door(target, token), "requests")["requests"]
    return rows


def _door(target: str, token: str | None) -> tuple[str, str]:
    if target.startswith("http://"):
        return target, token or ""
    told = announced(Path(target))
    return told["control_url"], token or told["token"]
