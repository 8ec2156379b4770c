"""The lab's origin is judged by the stock client: huggingface_hub, unchanged, in a venv of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from freehold.lab.models import make_model
from freehold.lab.shape import llama_of
from freehold.lab.tokens import VOCABULARY
from freehold.lab.upstream import Upstream, running_upstream
from freehold.testing.clients import HUGGINGFACE_HUB, client_python, run_client

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

COMMON = """
import hashlib, json, os, sys
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub import errors
api = HfApi()
def name_of(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"
def hashes(folder):
    files = [p for p in Path(folder).rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
out = {}
"""

READ = (
    COMMON
    + """
repo, tag, sha = sys.argv[1:4]
info = api.model_info(repo, files_metadata=True, securityStatus=True)
out["info"] = [info.id, info.sha, info.card_data.license, info.gated, info.private, info.disabled, info.config["model_type"]]
out["sizes"] = {s.rfilename: [s.size, s.lfs.sha256 if s.lfs else None] for s in info.siblings}
out["parameters"] = api.model_info(repo, expand=["safetensors"]).safetensors.parameters
out["expanded"] = api.model_info(repo, expand=["sha", "gated"]).sha
out["at_tag"] = api.model_info(repo, revision=tag).sha
out["files"] = api.list_repo_files(repo)
out["tree"] = sorted([type(e).__name__, e.path] for e in api.list_repo_tree(repo, recursive=True, expand=True))
out["paths"] = sorted(e.path for e in api.get_paths_info(repo, ["config.json", "sub", "absent"], expand=True))
out["exists"] = [api.file_exists(repo, "config.json"), api.file_exists(repo, "absent")]
out["exists"] += [api.repo_exists(repo), api.revision_exists(repo, "no")]
refs = api.list_repo_refs(repo, include_pull_requests=True)
out["refs"] = [[r.name for r in named] for named in (refs.branches, refs.tags)]
out["commits"] = [c.title for c in api.list_repo_commits(repo, formatted=True)]
out["models"] = [m.id for m in api.list_models(author=repo.split("/")[0], full=True)]
out["limited"] = [m.id for m in api.list_models(search="TINY", limit=1)]
for revision in ("main", tag, sha):
    out[f"snapshot {revision}"] = hashes(snapshot_download(repo, revision=revision, cache_dir=f"cache-{revision}"))
out["one"] = hashlib.sha256(Path(hf_hub_download(repo, "model.safetensors", cache_dir="one")).read_bytes()).hexdigest()
fs = HfFileSystem()
out["listing"] = sorted(fs.ls(repo, detail=False))
with fs.open(f"{repo}/model.safetensors", "rb", block_size=4096) as file:
    file.seek(1000)
    out["range"] = file.read(100).hex()
out["small"] = fs.cat_file(f"{repo}/sub/note.txt").decode()
out["errors"] = [
    name_of(lambda: hf_hub_download(repo, "absent.bin", cache_dir="e")),
    name_of(lambda: hf_hub_download(repo, "config.json", revision="absent", cache_dir="e")),
    name_of(lambda: api.model_info("org/absent")),
    name_of(lambda: api.list_repo_files(repo, revision="absent")),
    name_of(lambda: snapshot_download("org/absent", cache_dir="e")),
]
print(json.dumps(out))
"""
)

GATED = (
    COMMON
    + """
repo = sys.argv[1]
get = lambda token: hf_hub_download(repo, "config.json", cache_dir=f"c-{token}", token=token)
out["info"] = api.model_info(repo).gated
out["errors"] = [name_of(lambda: get(False)), name_of(lambda: get("hf_other")), name_of(lambda: get("hf_good"))]
out["auth"] = [name_of(lambda: api.auth_check(repo, token=t)) for t in (False, "hf_other", "hf_good")]
out["who"] = api.whoami(token="hf_good")["name"]
out["unknown"] = name_of(lambda: api.whoami(token="hf_unknown"))
print(json.dumps(out))
"""
)

TROUBLE = (
    COMMON
    + """
repo = sys.argv[1]
out["cut"] = hashlib.sha256(Path(hf_hub_download(repo, "model.safetensors", cache_dir="a")).read_bytes()).hexdigest()
out["moved"] = api.model_info(sys.argv[2]).id
print(json.dumps(out))
"""
)


@pytest.fixture(scope="module")
def python() -> Path:
    return client_python(HUGGINGFACE_HUB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = make_model(tmp_path / "models" / "org" / "tiny", seed=1, size_mb=1)
    (made.folder / "sub").mkdir()
    (made.folder / "sub" / "note.txt").write_text("a note")
    return tmp_path / "models"


def ask(python: Path, up: Upstream, work: Path, script: str, *args: str) -> Any:
    work.mkdir()
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
    prologue = f"import os; os.chdir({str(work)!r})\n"
    return run_client(python, prologue + script, *args, env={"HF_ENDPOINT": up.url, "HF_HOME": str(work / "hf"), **quiet})


def hashes(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_the_stock_client_reads_everything_it_knows_to_ask(python: Path, folder: Path, tmp_path: Path) -> None:
    model = folder / "org" / "tiny"
    with running_upstream(folder) as up:
        up.tag("org/tiny", "v1")
        old = up.head("org/tiny")
        new = up.commit("org/tiny", {"added.txt": b"later"}, "Add a file")
        out = ask(python, up, tmp_path / "work", READ, "org/tiny", "v1", old)
    before = hashes(model)
    after = before | {"added.txt": hashlib.sha256(b"later").hexdigest()}
    weights = model / "model.safetensors"
    assert out["info"] == ["org/tiny", new, "mit", False, False, False, "llama"]
    assert out["sizes"]["model.safetensors"] == [weights.stat().st_size, before["model.safetensors"]]
    assert (out["expanded"], out["at_tag"]) == (new, old)
    assert out["parameters"] == {"BF16": llama_of(500_000, VOCABULARY).parameters}
    assert sorted(out["files"]) == sorted(after)
    assert ["RepoFolder", "sub"] in out["tree"]
    assert out["paths"] == ["config.json", "sub"]
    assert out["exists"] == [True, False, True, False]
    assert out["refs"] == [["main"], ["v1"]]
    assert out["commits"] == ["Add a file", "initial commit"]
    assert out["models"] == out["limited"] == ["org/tiny"]
    assert (out["snapshot main"], out["snapshot v1"], out[f"snapshot {old}"]) == (after, before, before)
    assert out["one"] == before["model.safetensors"]
    assert "org/tiny/config.json" in out["listing"]
    assert bytes.fromhex(out["range"]) == weights.read_bytes()[1000:1100]
    assert out["small"] == "a note"
    missing = ["RemoteEntryNotFoundError", "RevisionNotFoundError"]
    assert out["errors"] == [*missing, "RepositoryNotFoundError", "RevisionNotFoundError", "RepositoryNotFoundError"]


def test_the_stock_client_takes_a_gate_for_a_gate(python: Path, folder: Path, tmp_path: Path) -> None:
    with running_upstream(folder) as up:
        up.gate("org/tiny", accept=["hf_good"], mode="manual")
        up.add_token("hf_good", "alice")
        up.add_token("hf_other", "bob")
        out = ask(python, up, tmp_path / "work", GATED, "org/tiny")
    assert out["info"] == "manual"
    assert out["errors"] == ["GatedRepoError", "GatedRepoError", "nothing"]
    assert out["auth"] == ["GatedRepoError", "GatedRepoError", "nothing"]
    assert (out["who"], out["unknown"]) == ("alice", "HfHubHTTPError")


@pytest.mark.parametrize("cdn_host", [None, "localhost"])
def test_the_stock_client_gets_over_what_a_client_should(
    python: Path, folder: Path, tmp_path: Path, cdn_host: str | None
) -> None:
    """A cut body is asked for again, a rename followed; to another host the token is not carried."""
    expected = hashes(folder / "org" / "tiny")["model.safetensors"]
    with running_upstream(folder, cdn_host=cdn_host) as up:
        up.add_token("hf_me", "me")
        up.rename("org/tiny", "org/small")
        up.cut("org/small", after=300_000, times=2, path="*.safetensors")
        prologue = "import os; os.environ['HF_TOKEN'] = 'hf_me'\n"
        out = ask(python, up, tmp_path / "work", prologue + TROUBLE, "org/small", "org/tiny")
        assert (out["cut"], out["moved"]) == (expected, "org/small")
        bodies = [r for r in up.requests if r.method == "GET" and r.path.startswith("/-/cdn/")]
    size = (folder / "org" / "tiny" / "model.safetensors").stat().st_size
    assert [r.sent for r in bodies] == [300_000, 300_000, size], "this client drops what it has of a chunk of 10 MB"
    assert {r.authorized for r in bodies} == {cdn_host is None}
