"""A hub of others stands between a stock client and the lab's origin, and everything passes through it unchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from freehold.lab.models import make_model
from freehold.lab.upstream import running_upstream
from freehold.testing.clients import HUGGINGFACE_HUB, client_python, run_client
from freehold.testing.foreign_hub import running_foreign_hub

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

READ = """
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
api, (repo, cache) = HfApi(), sys.argv[1:3]
info = api.model_info(repo)
folder = snapshot_download(repo, cache_dir=cache)
found = [p for p in Path(folder).rglob("*") if p.is_file()]
files = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}
try:
    hf_hub_download(repo, "absent.bin", cache_dir=cache)
except Exception as error:
    missing = type(error).__name__
print(json.dumps({"sha": info.sha, "license": info.card_data.license, "files": files, "missing": missing}))
"""


def test_a_hub_of_others_in_front_of_the_origin_hands_on_the_same_model(tmp_path: Path) -> None:
    python = client_python(HUGGINGFACE_HUB)
    model = make_model(tmp_path / "models" / "org" / "tiny", seed=1, size_mb=1)
    expected = {n: hashlib.sha256((model.folder / n).read_bytes()).hexdigest() for n in model.files}
    with running_upstream(tmp_path / "models") as up, running_foreign_hub(up.url, tmp_path / "hub") as url:
        env = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        for again in (False, True):
            up.forget()
            home = tmp_path / f"hf-{again}"
            out = run_client(python, READ, "org/tiny", str(home / "cache"), env=env | {"HF_HOME": str(home)})
            assert out["files"] == expected
            assert (out["sha"], out["license"], out["missing"]) == (up.head("org/tiny"), "mit", "RemoteEntryNotFoundError")
            bodies = [r.path.rpartition("/")[2] for r in up.requests if r.method == "GET" and r.status == 206 and r.sent]
            assert ("model.safetensors" in bodies) is not again, "the second time it has the bytes itself"
