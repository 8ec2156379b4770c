"""The drill, first form: a model's source is cut off, and the same client calls must go on through this house.

The model is a small one of the lab, so that the source is ours to kill. What makes it a proof is the control: after the
cut, the same client pointed at the dead source must *fail*; if it does not, the drill proves nothing and says so.
Scenarios beyond "gone", and the user's own models, are not covered by this form.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.db.home import running_server
from freehold.errors import FreeholdError
from freehold.flows import keys, models, stage
from freehold.flows.parts import Parts
from freehold.flows.pull import pull
from freehold.lab.models import make_model
from freehold.lab.upstream import running_upstream
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.progress import Listener, Progress, silent

#: The name under which the drill's model is kept, and what it is asked.
MODEL = "lab/drill"
PROMPT = "Who owns the ground you stand on?"
_TOKENS = 24
_SEED = 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold. A `control` had to go wrong: `ok` says that it did."""

    name: str
    ok: bool
    detail: str
    control: bool = False


@dataclass(frozen=True, slots=True)
class DrillReport:
    """`ok` only if every check holds, the controls included. `seconds` without the making of the clients' venvs."""

    model: str
    checks: tuple[Check, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(c.ok for c in self.checks)

    def as_dict(self) -> dict[str, Any]:
        checks = [{"name": c.name, "ok": c.ok, "control": c.control, "detail": c.detail} for c in self.checks]
        return {"model": self.model, "ok": self.ok, "seconds": round(self.seconds, 2), "checks": checks}


def drill(
    parts: Parts, caller: Caller, *, listener: Listener = silent, on_check: Callable[[Check], None] | None = None
) -> DrillReport:
    """Run the drill on this home. A server that runs on it is used; else one is started, and restarted after the cut."""
    caller.require(Scope.ADMIN)
    stage.prepare_clients(parts, listener)
    checks: list[Check] = []

    def check(name: str, ok: bool, detail: str, control: bool = False) -> None:
        checks.append(Check(name, ok, detail, control))
        if on_check:
            on_check(checks[-1])

    began = time.monotonic()
    _forget(parts, caller)
    with tempfile.TemporaryDirectory(prefix="drill-", dir=parts.home.run) as folder, _temporary_key(parts, caller) as key:
        listener(Progress("making a small model", 0, 1, "models", MODEL))
        make_model(Path(folder) / MODEL, seed=_SEED, size_mb=6, format="gguf")
        with running_upstream(Path(folder)) as upstream:
            source = upstream.url
            direct = stage.hub_client(parts, source, MODEL)
            check("the source serves the stock client", direct.ok, direct.error or _counted(direct))
            with _house(parts, caller, source, listener) as url:
                first = stage.hub_client(parts, url, MODEL)
                same = first.ok and direct.ok and first.result["files"] == direct.result["files"]
                check("through freehold: the same bytes", same, first.error or _counted(first))
                answer = stage.chat_client(parts, url, key, MODEL, PROMPT, _TOKENS)
                check("the model answers", answer.ok and bool(answer.result["text"]), answer.error or _quoted(answer))
        dead = stage.hub_client(parts, source, MODEL)
        detail = "it still answered: this drill proves nothing" if dead.ok else dead.error
        check("control: the same call to the dead source fails", not dead.ok, detail, control=True)
        with _house(parts, caller, source, listener) as url:
            after = stage.hub_client(parts, url, MODEL)
            same = after.ok and direct.ok and after.result["files"] == direct.result["files"]
            check("source gone, through freehold: the same bytes", same, after.error or _counted(after))
            again = stage.chat_client(parts, url, key, MODEL, PROMPT, _TOKENS)
            equal = again.ok and answer.ok and again.result["text"] == answer.result["text"]
            check("source gone: the same answer (greedy)", equal, again.error or _quoted(again))
    return DrillReport(MODEL, tuple(checks), time.monotonic() - began)


@contextmanager
def _house(parts: Parts, caller: Caller, source: str, listener: Listener) -> Iterator[str]:
    """The server's URL: the one that runs, with the model pulled beforehand, or one whose mirror fetches it on first ask."""
    running = running_server(parts.home)
    if running is None:
        with stage.serving(parts, FREEHOLD_HUB__UPSTREAMS=source) as own:
            yield own.url
        return
    try:
        models.show_model(parts, caller, MODEL)
    except FreeholdError:
        pull(parts, caller, f"hf:{MODEL}", endpoint=source, listener=listener)
    yield running


@contextmanager
def _temporary_key(parts: Parts, caller: Caller) -> Iterator[str]:
    made = keys.create_key(parts, caller, "drill", frozenset({Scope.READ, Scope.CHAT}))
    try:
        yield made.token
    finally:
        keys.revoke_key(parts, caller, made.row.public_id)


def _forget(parts: Parts, caller: Caller) -> None:
    """A drill begins without the model, else nothing would be fetched through the mirror."""
    try:
        models.remove_model(parts, caller, MODEL)
    except FreeholdError as error:
        if error.code != "catalog-repo-not-found":
            raise


def _counted(run: stage.ClientRun) -> str:
    return f"{len(run.result['files'])} files, {run.result['bytes']:,} bytes by {run.result['client']}"


def _quoted(run: stage.ClientRun) -> str:
    text = " ".join(run.result["text"].split())
    return f"“{text[:60]}{'…' if len(text) > 60 else ''}”"
