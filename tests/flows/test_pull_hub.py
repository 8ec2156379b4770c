"""Pulling from a hub over real HTTP: what arrives is what was announced, whatever the hub does on the way."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold import jobs
from freehold.app import House, house
from freehold.errors import FreeholdError, error_table
from freehold.flows import events, models
from freehold.flows.pull import pull
from freehold.keep.sources import hub
from freehold.lab.models import make_model
from freehold.lab.upstream import Upstream, running_upstream
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.job import JobState
from freehold.nouns.origin import Admission, Evidence
from freehold.nouns.progress import Progress

MODEL = "acme/tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """acme/tiny, once for all tests: they change the upstream's history, never the folder."""
    root = tmp_path_factory.mktemp("upstream")
    make_model(root / MODEL, seed=5, size_mb=1, format="safetensors")
    return root


@pytest.fixture
def upstream(made: Path, tmp_path: Path) -> Iterator[Upstream]:
    with running_upstream(made) as running:
        yield running
        running.restore()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("FREEHOLD_NET__RETRIES", "1")
    with house(str(tmp_path / "home")) as opened:
        yield opened


def _files(root: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (root / MODEL).iterdir()}


def _kept(home: House, name: str = MODEL, revision: str = "main") -> dict[str, str]:
    """Path to SHA-256 of what the vault really gives."""
    view = models.show_model(home.parts, home.caller, name, revision)
    return {e.path: hashlib.sha256(b"".join(home.parts.vault.read(e.sha256))).hexdigest() for e in view.manifest}


def _fails(code: str, home: House, upstream: Upstream, reference: str = f"hf:{MODEL}", **options: object) -> FreeholdError:
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, reference, endpoint=upstream.url, **options)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value
    assert code in error_table()
    assert caught.value.hint
    return caught.value


def _nothing_is_kept(home: House) -> bool:
    return not models.list_models(home.parts, home.caller) and not events.list_events(home.parts, home.caller)


def _start(header: str | None) -> int:
    return int((header or "").removeprefix("bytes=").removesuffix("-"))


def _weight_requests(upstream: Upstream) -> list[str | None]:
    """The Range headers with which the weights were asked for, redirects to the CDN apart."""
    return [r.range for r in upstream.requests if "/resolve/" in r.path and r.path.endswith(WEIGHTS)]


def test_a_model_comes_in_whole_with_its_commit_its_origin_and_its_facts(home: House, upstream: Upstream, made: Path) -> None:
    done = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert (done.already, done.admission, done.ref) == (False, Admission.ADMITTED, "heads/main")
    assert done.commit == upstream.head(MODEL)
    assert _kept(home) == _files(made)
    assert done.bytes == done.new_bytes == sum(p.stat().st_size for p in (made / MODEL).iterdir())
    view = models.show_model(home.parts, home.caller, MODEL)
    assert view.revision.kind == "foreign"
    assert view.revision.tree_oid == upstream.repository(MODEL).resolve("main").tree
    assert view.facts["architecture"] == "llama"
    assert view.license["agreement"] == "agree"
    (origin,) = view.origins
    assert (origin.source, origin.locator, origin.upstream_etag) == ("hf", f"hf:{MODEL}@{done.commit}", done.commit)
    assert origin.detail["endpoint"] == upstream.url
    assert origin.evidence is not None
    assert origin.detail["evidence"]["README.md"] == origin.evidence.hex == _files(made)["README.md"]
    assert "LICENSE" in origin.detail["evidence"]
    (event,) = events.list_events(home.parts, home.caller)
    assert (event.kind, event.subject, event.payload["commit"]) == ("model.pulled", MODEL, done.commit)


def test_each_byte_of_upstream_is_read_once(home: House, upstream: Upstream, made: Path) -> None:
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    asked = [r.path for r in upstream.requests if "/resolve/" in r.path]
    assert len(asked) == len(set(asked)) == len(_files(made))
    size = sum(p.stat().st_size for p in (made / MODEL).iterdir())
    assert sum(r.sent for r in upstream.requests if r.status == 200 and not r.path.startswith("/api/")) == size


def test_a_second_pull_says_already_and_fetches_no_file(home: House, upstream: Upstream) -> None:
    first = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    upstream.forget()
    second = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert (second.already, second.new_bytes, second.commit) == (True, 0, first.commit)
    assert not [r for r in upstream.requests if "/resolve/" in r.path]
    assert len(events.list_events(home.parts, home.caller)) == 1
    assert second.findings == first.findings


def test_a_new_commit_upstream_brings_only_what_changed(home: House, upstream: Upstream) -> None:
    first = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    upstream.relicense(MODEL, "apache-2.0")
    upstream.forget()
    second = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert second.commit == upstream.head(MODEL) != first.commit
    fetched = {r.path.rpartition("/")[2] for r in upstream.requests if "/resolve/" in r.path}
    assert fetched == {"README.md", "LICENSE"}
    assert models.show_model(home.parts, home.caller, MODEL).revision.commit.sha == second.commit
    assert models.show_model(home.parts, home.caller, MODEL, first.commit).license["declared"] == "mit"


def test_a_transfer_that_breaks_off_goes_on_by_range(home: House, upstream: Upstream, made: Path) -> None:
    upstream.cut(MODEL, after=300_000, times=2, path=WEIGHTS)
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert _kept(home) == _files(made)
    first, second, third = _weight_requests(upstream)
    assert first is None
    assert 0 < _start(second) <= 300_000 < _start(third) <= 600_000


def test_a_pull_that_failed_goes_on_where_it_stopped(
    home: House, upstream: Upstream, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_BARREN", 2)  # less patience than in life, for the test's sake
    upstream.cut(MODEL, after=200_000, times=1, path=WEIGHTS)
    upstream.cut(MODEL, after=0, path=WEIGHTS)
    error = _fails("keep-truncated", home, upstream)
    received = error.context["received"]
    assert 0 < received <= 200_000
    assert _nothing_is_kept(home)
    upstream.heal()
    upstream.forget()
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert _weight_requests(upstream) == [f"bytes={received}-"]
    assert _kept(home) == _files(made)


def test_a_hub_that_ignores_ranges_is_read_on_from_the_right_byte(home: House, upstream: Upstream, made: Path) -> None:
    upstream.cut(MODEL, after=400_000, times=1, path=WEIGHTS)
    upstream.ignore_range(MODEL)
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert _kept(home) == _files(made)


@pytest.mark.parametrize("delta", [-1000, 1000])
def test_a_wrong_content_length_does_not_make_a_wrong_file(home: House, upstream: Upstream, made: Path, delta: int) -> None:
    upstream.mislength(MODEL, delta=delta, times=1, path=WEIGHTS)
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert _kept(home) == _files(made)


@pytest.mark.parametrize("path", [WEIGHTS, "config.json"])
def test_wrong_bytes_are_thrown_away_and_named(home: House, upstream: Upstream, made: Path, path: str) -> None:
    upstream.corrupt(MODEL, times=1, path=path)
    error = _fails("keep-hash-mismatch", home, upstream)
    assert path in error.message
    assert _nothing_is_kept(home)
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert _kept(home) == _files(made)


def test_a_file_that_changes_without_a_commit_while_it_is_fetched_is_noticed(home: House, upstream: Upstream) -> None:
    def mutate(progress: Progress) -> None:
        if progress.stage == "fetch" and not mutated:
            mutated.append(True)
            upstream.mutate(MODEL, WEIGHTS, silent=True)

    mutated: list[bool] = []
    upstream.slow(MODEL, bytes_per_second=2_000_000, path=WEIGHTS)
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url, listener=mutate)
        pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert caught.value.code in ("keep-changed", "keep-hash-mismatch", "keep-history-forged")


def test_other_files_under_a_kept_commit_are_refused_and_the_copy_stands(home: House, upstream: Upstream, made: Path) -> None:
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    upstream.mutate(MODEL, WEIGHTS, silent=True)
    _fails("keep-history-forged", home, upstream)
    assert _kept(home) == _files(made)


def test_a_branch_that_moves_during_the_pull_does_not_mix_two_commits(home: House, upstream: Upstream, made: Path) -> None:
    moved: list[str] = []

    def move(progress: Progress) -> None:
        if progress.stage == "fetch" and not moved:
            moved.append(upstream.mutate(MODEL, WEIGHTS))

    before = upstream.head(MODEL)
    done = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url, listener=move)
    assert moved
    assert done.commit == before != upstream.head(MODEL)
    assert _kept(home) == _files(made)


def test_a_gate_is_named_as_one_and_opens_to_a_token(home: House, upstream: Upstream, made: Path) -> None:
    upstream.add_token("hf_good", "somebody")
    upstream.gate(MODEL, accept=["hf_good"])
    _fails("keep-gated", home, upstream)
    _fails("keep-token-refused", home, upstream, token="hf_unknown")
    assert _nothing_is_kept(home)
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url, token="hf_good")
    assert _kept(home) == _files(made)


def test_the_token_stands_in_no_record_of_the_house(home: House, upstream: Upstream, tmp_path: Path) -> None:
    upstream.add_token("hf_secret_of_mine", "somebody")
    pull(
        home.parts,
        home.caller,
        f"hf:{MODEL}",
        endpoint=upstream.url.replace("://", "://me:pass_word@"),
        token="hf_secret_of_mine",
    )
    for file in (tmp_path / "home").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert b"hf_secret_of_mine" not in data
            assert b"pass_word" not in data


def test_absence_withdrawal_and_a_dead_hub_are_told_apart(home: House, upstream: Upstream) -> None:
    _fails("keep-repo-not-found", home, upstream, "hf:acme/nothing")
    _fails("keep-revision-not-found", home, upstream, f"hf:{MODEL}@v9")
    upstream.disable(MODEL)
    assert _fails_any(home, upstream) in ("keep-withdrawn", "keep-forbidden")
    upstream.restore()
    upstream.delete(MODEL)
    _fails("keep-repo-not-found", home, upstream)
    upstream.restore()
    upstream.dead()
    _fails("keep-hub-unreachable", home, upstream)
    upstream.revive()
    assert _nothing_is_kept(home)


def _fails_any(home: House, upstream: Upstream) -> str:
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    return caught.value.code


def test_a_busy_hub_is_obeyed_and_then_named(home: House, upstream: Upstream) -> None:
    upstream.fail(MODEL, status=429, retry_after=120)
    error = _fails("keep-rate-limited", home, upstream)
    assert error.context["retry_after"] == "120"
    upstream.heal()
    upstream.fail(MODEL, status=500)
    _fails("keep-hub-unreachable", home, upstream)


def test_a_hub_that_asks_to_wait_a_moment_gets_it(tmp_path: Path, upstream: Upstream) -> None:
    upstream.fail(MODEL, status=429, retry_after=0.2, times=1)
    upstream.fail(MODEL, status=503, times=1, path=WEIGHTS)
    with house(str(tmp_path / "home")) as home:
        assert pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url).admission == "admitted"


def test_a_login_page_is_no_hub(home: House, upstream: Upstream) -> None:
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.control_url)
    assert caught.value.code.startswith("keep-")


def test_a_tag_and_a_bare_commit_are_kept_under_their_own_names(home: House, upstream: Upstream) -> None:
    first = upstream.head(MODEL)
    upstream.tag(MODEL, "v1")
    upstream.relicense(MODEL, "apache-2.0")
    tagged = pull(home.parts, home.caller, f"hf:{MODEL}@v1", endpoint=upstream.url)
    assert (tagged.ref, tagged.commit) == ("tags/v1", first)
    main = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert main.ref == "heads/main"
    bare = pull(home.parts, home.caller, f"hf:{MODEL}@{first}", endpoint=upstream.url)
    assert (bare.already, bare.commit) == (True, first)
    assert models.show_model(home.parts, home.caller, MODEL).revision.commit.sha == main.commit


def test_a_bare_commit_alone_becomes_the_main_branch_of_this_house(home: House, upstream: Upstream) -> None:
    first = upstream.head(MODEL)
    upstream.relicense(MODEL, "apache-2.0")
    assert pull(home.parts, home.caller, f"hf:{MODEL}@{first}", endpoint=upstream.url).ref == "heads/main"
    assert models.show_model(home.parts, home.caller, MODEL).revision.commit.sha == first


def test_a_damaged_structure_goes_to_quarantine_and_does_not_replace_what_works(
    home: House, upstream: Upstream, made: Path
) -> None:
    good = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    weights = (made / MODEL / WEIGHTS).read_bytes()
    upstream.commit(MODEL, {WEIGHTS: weights[: len(weights) // 2]}, "Cut the weights")
    bad = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert (bad.admission, bad.ref) == (Admission.QUARANTINED, None)
    assert any(f.kind == "structure-error" for f in bad.findings)
    assert WEIGHTS in bad.reason
    assert models.show_model(home.parts, home.caller, MODEL).revision.commit.sha == good.commit
    again = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert (again.already, again.admission) == (True, Admission.QUARANTINED)


def test_a_first_revision_in_quarantine_is_listed_as_such(home: House, upstream: Upstream, made: Path) -> None:
    weights = (made / MODEL / WEIGHTS).read_bytes()
    upstream.commit(MODEL, {WEIGHTS: weights[:-100]}, "Cut the weights")
    assert pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url).admission == Admission.QUARANTINED
    (line,) = models.list_models(home.parts, home.caller)
    assert line.admission == Admission.QUARANTINED


def test_what_is_no_model_leaves_nothing_in_the_vault(home: House, upstream: Upstream) -> None:
    head = upstream.repository(MODEL).resolve("main")
    changes: dict[str, bytes | None] = {e.path: None for e in head.manifest}
    upstream.commit(MODEL, {**changes, "notes.txt": b"no model here\n"}, "Remove the model")
    _fails("study-not-a-model", home, upstream)
    assert list(home.parts.vault.digests()) == []
    assert _nothing_is_kept(home)


def test_a_card_that_names_a_base_gives_a_declared_edge(home: House, upstream: Upstream, made: Path) -> None:
    card = (
        (made / MODEL / "README.md").read_text().replace("---\n", "---\nbase_model: org/base\nbase_model_relation: finetune\n", 1)
    )
    upstream.commit(MODEL, {"README.md": card.encode()})
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    (edge,) = models.show_model(home.parts, home.caller, MODEL).lineage
    assert (edge.parent, edge.relation, edge.evidence) == ("org/base", "finetune", Evidence.DECLARED)


def test_the_record_in_the_vault_tells_the_whole_revision(home: House, upstream: Upstream) -> None:
    from freehold.keep.record import decode_record

    done = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    view = models.show_model(home.parts, home.caller, MODEL)
    assert view.revision.manifest_digest is not None
    data = b"".join(home.parts.vault.read(view.revision.manifest_digest))
    record = decode_record(data)
    assert (str(record.repo), record.commit.sha, record.manifest) == (MODEL, done.commit, view.manifest)
    assert record.origin == view.origins[0]
    assert record.encode() == data


def test_a_lost_file_is_fetched_again_by_a_pull(home: House, upstream: Upstream, made: Path) -> None:
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    entry = models.show_model(home.parts, home.caller, MODEL).manifest.find("config.json")
    assert home.parts.vault.remove(entry.sha256)
    mended = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert (mended.already, mended.new_bytes) == (False, entry.size)
    assert _kept(home) == _files(made)


def test_a_failed_pull_is_noted_with_its_error_and_taken_up_again(home: House, upstream: Upstream) -> None:
    upstream.fail(MODEL, status=500)
    _fails("keep-hub-unreachable", home, upstream)
    with home.parts.catalog.read() as tx:
        (job,) = jobs.list_jobs(tx)
    assert (job.kind, job.state, job.error and job.error["code"]) == ("pull", JobState.FAILED, "keep-hub-unreachable")
    upstream.heal()
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    with home.parts.catalog.read() as tx:
        (job,) = jobs.list_jobs(tx)
    assert (job.state, job.attempt, job.error) == (JobState.DONE, 2, None)


def test_a_caller_without_the_scope_asks_nobody(home: House, upstream: Upstream) -> None:
    reader = Caller("key:x", frozenset({Scope.READ}), "hub")
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, reader, f"hf:{MODEL}", endpoint=upstream.url)
    assert caught.value.code == "access-scope-missing"
    assert upstream.requests == []


def test_two_pulls_of_the_same_at_once_are_one(home: House, upstream: Upstream, made: Path) -> None:
    upstream.slow(MODEL, bytes_per_second=1_500_000, path=WEIGHTS)
    outcome: list[str] = []

    def work() -> None:
        try:
            pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
            outcome.append("done")
        except FreeholdError as error:
            outcome.append(error.code)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["done", "jobs-taken", "jobs-taken"]
    assert len(_weight_requests(upstream)) == 1
    assert _kept(home) == _files(made)


def test_two_models_that_share_their_weights_fetch_them_once(home: House, upstream: Upstream) -> None:
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    upstream.forget()
    copy = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url, name="mine/copy")
    assert _weight_requests(upstream) == []
    assert copy.new_bytes == 0
    assert _kept(home, "mine/copy") == _kept(home)


def test_with_local_only_no_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_NET__LOCAL_ONLY", "true")
    with house(str(tmp_path / "home")) as home, pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, "hf:acme/tiny", endpoint="http://hub.invalid")
    assert caught.value.code == "net-local-only"


def test_a_renamed_model_is_followed_and_kept_under_the_name_that_was_asked_for(
    home: House, upstream: Upstream, made: Path
) -> None:
    upstream.rename(MODEL, "acme/renamed")
    done = pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert str(done.id) == MODEL
    assert models.show_model(home.parts, home.caller, MODEL).origins[0].detail["id"] == "acme/renamed"
    assert _kept(home) == _files(made)


def test_a_redirect_into_the_private_network_is_not_followed_unless_it_was_named(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_upstream(made, cdn_host="localhost") as upstream:
        upstream.add_token("hf_mine", "me")
        with house(str(tmp_path / "one")) as home:
            _fails("net-address-refused", home, upstream, token="hf_mine")
        monkeypatch.setenv("FREEHOLD_HUB__UPSTREAMS", f"http://localhost:{upstream.port}")  # names it as the operator's own
        upstream.forget()
        with house(str(tmp_path / "two")) as home:
            pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url, token="hf_mine")
            assert _kept(home) == _files(made)
        elsewhere = [r for r in upstream.requests if not r.path.startswith(("/api/", f"/{MODEL}/resolve/"))]
        assert elsewhere
        assert not any(r.authorized for r in elsewhere), "the token stays with the hub"
        assert all(r.authorized for r in upstream.requests if r not in elsewhere)


@pytest.mark.parametrize("revision", ["../main", "a b", "-x", "x" * 300, "\x00"])
def test_a_revision_that_can_be_none_is_not_asked_for(home: House, upstream: Upstream, revision: str) -> None:
    _fails("keep-revision-not-found", home, upstream, f"hf:{MODEL}@{revision}")
    assert upstream.requests == []


def test_a_model_that_does_not_fit_is_refused_before_its_first_byte(
    home: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(e.size for e in upstream.repository(MODEL).resolve("main").manifest)
    free = home.parts.vault.reserve_bytes + size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, free - 1))
    assert _fails("vault-disk-full", home, upstream).context["needed"] == size
    assert not [r for r in upstream.requests if "/resolve/" in r.path]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, free))
    assert not pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url).already


def test_an_interrupted_pull_ends_at_once_and_goes_on_later(upstream: Upstream, made: Path, tmp_path: Path) -> None:
    upstream.slow(MODEL, bytes_per_second=300_000, path=WEIGHTS)
    command = [
        sys.executable,
        "-m",
        "freehold",
        "--home",
        str(tmp_path / "home"),
        "pull",
        f"hf:{MODEL}",
        "--endpoint",
        upstream.url,
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 30
    while sum(r.sent for r in upstream.requests if not r.path.startswith("/api/")) < 200_000:
        assert time.monotonic() < until
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert child.returncode == 130
    upstream.heal()
    upstream.forget()
    with house(str(tmp_path / "home")) as home:
        with home.parts.catalog.read() as tx:
            (job,) = jobs.list_jobs(tx)
        assert (job.state, job.error and job.error["code"]) == (JobState.FAILED, "interrupted")
        pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
        assert _kept(home) == _files(made)
    assert _start(_weight_requests(upstream)[0]) > 0


def test_a_part_whose_bytes_are_in_the_vault_by_now_is_dropped(home: House, upstream: Upstream) -> None:
    entry = upstream.repository(MODEL).resolve("main").find(WEIGHTS)
    assert entry is not None
    data = upstream.bytes_of(upstream.repository(MODEL).resolve("main"), WEIGHTS)
    home.parts.vault.put(data)
    with home.parts.vault.part(f"sha256-{entry.sha256.hex}") as part:
        part.append(data[:1000])
    pull(home.parts, home.caller, f"hf:{MODEL}", endpoint=upstream.url)
    assert list(home.parts.home.spool.glob("*.part")) == []
    assert _weight_requests(upstream) == []
