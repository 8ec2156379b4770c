"""Stock huggingface_hub, new and old, against the server: HF_ENDPOINT is all that it is told."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import FreeholdError
from freehold.procs.child import minimal_environment, run
from freehold.procs.venvs import client_venv

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

STORY = Path(__file__).with_name("hub_client_story.py")
CLIENTS = {
    "2.4.0": (["huggingface_hub==2.4.0"], "FULL"),
    "1.6.0": (["huggingface_hub==1.6.0"], "FULL"),
    "0.36.2": (["huggingface_hub==0.36.2"], "BASIC"),
}


def _venvs() -> Path:
    """Venvs are kept between runs: they are made from exact versions."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "freehold" / "clients"


def tell(url: str, commit: str, key: str, version: str, hf_home: Path, **env: str) -> dict[str, Any]:
    """What this version of the client got from the endpoint `url`."""
    requirements, extent = CLIENTS[version]
    try:
        python = client_venv(_venvs(), requirements)
    except FreeholdError as error:
        pytest.skip(f"not run: {error.message}")
    cache = {"HF_HOME": str(hf_home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1,localhost"}
    lines: list[str] = []
    environment = minimal_environment(HF_ENDPOINT=url, **cache, **env)
    done = run([str(python), str(STORY), extent, commit, key], env=environment, on_line=lines.append, timeout=240)
    assert done.exit.ok, done.tail
    found: dict[str, Any] = json.loads(lines[-1])
    assert found["version"] == version
    return found


@pytest.fixture(params=list(CLIENTS))
def told(request: pytest.FixtureRequest, kept: Any, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    return request.param, tell(kept.url, kept.commit, kept.keys["read"], request.param, tmp_path / "hf")


def test_a_stock_client_gets_every_byte_and_the_right_exception(kept: Any, told: tuple[str, dict[str, Any]]) -> None:
    """One long story, since a client's start takes seconds: snapshots, resume, ETags, exceptions, keys, lists."""
    version, found = told
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in kept.files.items()}
    for name, (commit, files) in found["snapshots"].items():
        assert (commit, files) == (kept.commit, hashes), name
    assert found["files"] == sorted(hashes)
    assert found["old files"] == ["README.md", "config.json"]
    assert found["one file"] == "umlaut and space\n"
    assert found["etags"]["model.safetensors"] == found["resumed"] == hashes["model.safetensors"]
    assert len(found["etags"]["config.json"]) == 40, "a small file's ETag is its git id"
    assert list(found["bare"]) == list(found["gated with key"]) == ["config.json"]
    expected = {
        "repo": "RepositoryNotFoundError", "repo file": "RepositoryNotFoundError", "private": "RepositoryNotFoundError",
        "revision": "RevisionNotFoundError", "entry": "EntryNotFoundError", "gated": "GatedRepoError",
        "quarantined": "GatedRepoError", "dataset": "RepositoryNotFoundError", "bad key": "HfHubHTTPError",
        "write": "HfHubHTTPError",
    }  # fmt: skip
    got = {what: failure[0].replace("RemoteEntry", "Entry") for what, failure in found["failures"].items()}
    assert got == expected
    assert "imports os.system" in " ".join(found["failures"]["quarantined"])
    assert "Hub API of this server only reads" in found["failures"]["write"][2]
    assert found["whoami"] == "read key"
    assert found["models"] == ["bare", "org/gated", "org/model"], "private and quarantined ones are not listed"
    assert found["searched"] == ["org/model"]
    half = len(kept.files["model.safetensors"]) // 2
    assert _requests(kept, "GET", "model.safetensors", 206, half) >= 1, "the resumed download asked for the second half only"
    assert version in CLIENTS


def test_what_newer_clients_ask_is_answered_in_full(kept: Any, tmp_path: Path) -> None:
    """Trees, paths, refs, history, file system: once, with the newest client."""
    found = tell(kept.url, kept.commit, kept.keys["read"], "2.4.0", tmp_path / "hf")
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in kept.files.items()}
    assert {path: size for path, (size, _, _) in found["siblings"].items()} == {p: len(d) for p, d in kept.files.items()}
    assert found["siblings"]["model.safetensors"][2] == hashes["model.safetensors"]
    assert found["siblings"]["README.md"][2] is None
    assert found["info"] == [kept.commit, "transformers", ["safetensors", "license:apache-2.0"], True]
    assert found["expanded"] == kept.commit
    assert ["RepoFolder", "notes/deep"] in found["tree"]
    assert ["RepoFile", "notes/deep/er.txt"] in found["tree"]
    assert found["folder"] == ["notes/deep", "notes/über uns.txt"]
    assert found["paths"] == [["RepoFolder", "notes"], ["RepoFile", "config.json"]]
    assert found["refs"] == {"branches": ["feature/x", "main"], "tags": ["v0", "v1"], "pull_requests": ["1"]}
    assert found["commits"] == ["new", "old"]
    assert found["exists"] == [True, False, False, True, False]
    assert found["auth check"] == [None, True]
    assert "org/model/notes" in found["ls"]
    assert found["glob"] == ["org/model/empty.txt", "org/model/notes/deep/er.txt", "org/model/notes/über uns.txt"]
    weights = kept.files["model.safetensors"]
    assert found["range"] == hashlib.sha256(weights[5_000_000:5_200_000]).hexdigest()
    assert found["tail"] == weights[-3:].hex()
    assert found["local"] == hashes


def _requests(kept: Any, method: str, name: str, status: int, length: int) -> int:
    import time

    time.sleep(1.3)  # the log is written once a second
    lines = (kept.house.parts.home.logs / "access.log").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return sum(
        1
        for row in rows
        if (row["method"], row["status"], row["bytes"]) == (method, status, length) and row["path"].endswith(name)
    )
