"""Run by a stock huggingface_hub in a venv of its own: what it got from the endpoint, as one line of JSON.

HF_ENDPOINT=... HF_HOME=<empty> python hub_client_story.py BASIC|FULL COMMIT KEY
"""

import hashlib
import json
import os
import pathlib
import sys

import huggingface_hub
from huggingface_hub import (
    HfApi,
    HfFileSystem,
    file_download,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)

full, commit, key = sys.argv[1] == "FULL", sys.argv[2], sys.argv[3]
api = HfApi()
found = {"version": huggingface_hub.__version__}


def hashes(folder):
    folder = pathlib.Path(folder)
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".cache" not in p.parts
    }


def failure(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001
        return [type(error).__name__, *[type(error.__cause__).__name__ if error.__cause__ else ""], str(error)]
    return None


found["snapshots"] = {
    name: [pathlib.Path(folder := snapshot_download("org/model", revision=name)).name, hashes(folder)]
    for name in ("main", "v1", commit, commit[:10], "feature/x", "refs/pr/1")
}
found["bare"] = hashes(snapshot_download("bare"))
found["files"] = api.list_repo_files("org/model")
found["old files"] = api.list_repo_files("org/model", revision="v0")
found["one file"] = pathlib.Path(hf_hub_download("org/model", "notes/über uns.txt")).read_text("utf-8")
found["etags"] = {name: get_hf_file_metadata(hf_hub_url("org/model", name)).etag for name in ("config.json", "model.safetensors")}

# Resume: half of the large file is there already. Older clients find it in their cache; newer ones resume within one download.
blobs = pathlib.Path(os.environ["HF_HOME"]) / "again"
cache = blobs / "hub" / "models--org--model" / "blobs"
cache.mkdir(parents=True)
etag = found["etags"]["model.safetensors"]
whole = next(pathlib.Path(huggingface_hub.constants.HF_HUB_CACHE).rglob(etag)).read_bytes()
if full and huggingface_hub.__version__ >= "2":
    resumed = cache / "part"
    resumed.write_bytes(whole[: len(whole) // 2])
    with resumed.open("r+b") as file:
        file.seek(0, 2)
        file_download.http_get(
            hf_hub_url("org/model", "model.safetensors"), file, resume_size=len(whole) // 2, expected_size=len(whole)
        )
else:
    (cache / f"{etag}.incomplete").write_bytes(whole[: len(whole) // 2])
    resumed = pathlib.Path(hf_hub_download("org/model", "model.safetensors", cache_dir=blobs / "hub"))
found["resumed"] = hashlib.sha256(resumed.read_bytes()).hexdigest()

found["failures"] = {
    "repo": failure(api.model_info, "org/none"),
    "repo file": failure(hf_hub_download, "org/none", "config.json"),
    "private": failure(api.model_info, "org/private"),
    "revision": failure(api.model_info, "org/model", revision="nope"),
    "entry": failure(hf_hub_download, "org/model", "nope.bin"),
    "gated": failure(hf_hub_download, "org/gated", "config.json"),
    "quarantined": failure(snapshot_download, "org/bad"),
    "dataset": failure(api.dataset_info, "org/model"),
    "bad key": failure(api.model_info, "org/model", token="hf_nonsense"),
    "write": failure(api.create_repo, "org/new", token=key),
}
found["gated with key"] = hashes(snapshot_download("org/gated", token=key))
found["whoami"] = api.whoami(token=key)["name"]
found["models"] = sorted(m.id for m in api.list_models())
found["searched"] = sorted(m.id for m in api.list_models(search="MOD", author="org", limit=5))

if full:
    info = api.model_info("org/model", files_metadata=True)
    found["siblings"] = {s.rfilename: [s.size, s.blob_id, s.lfs.sha256 if s.lfs else None] for s in info.siblings}
    found["info"] = [info.sha, info.library_name, info.tags, info.last_modified is not None]
    found["expanded"] = api.model_info("org/model", expand=["sha", "tags"]).sha
    found["tree"] = [[type(e).__name__, e.path] for e in api.list_repo_tree("org/model", recursive=True)]
    found["folder"] = [e.path for e in api.list_repo_tree("org/model", "notes", expand=True)]
    found["paths"] = [
        [type(e).__name__, e.path] for e in api.get_paths_info("org/model", ["notes", "config.json", "nope"], expand=True)
    ]
    refs = api.list_repo_refs("org/model", include_pull_requests=True)
    found["refs"] = {kind: sorted(r.name for r in getattr(refs, kind)) for kind in ("branches", "tags", "pull_requests")}
    found["commits"] = [c.title for c in api.list_repo_commits("org/model")]
    found["exists"] = [
        api.repo_exists("org/model"),
        api.repo_exists("org/none"),
        api.file_exists("org/model", "nope"),
        api.revision_exists("org/model", "v1"),
        api.revision_exists("org/model", "v9"),
    ]
    found["auth check"] = [failure(api.auth_check, "org/model"), failure(api.auth_check, "org/private") is not None]
    fs = HfFileSystem()
    found["ls"] = sorted(fs.ls("org/model", detail=False))
    found["glob"] = sorted(fs.glob("org/model/**/*.txt"))
    with fs.open("org/model/model.safetensors", "rb", block_size=70_000) as file:
        file.seek(5_000_000)
        found["range"] = hashlib.sha256(file.read(200_000)).hexdigest()
        file.seek(-3, 2)
        found["tail"] = file.read().hex()
    local = snapshot_download("org/model", local_dir=blobs / "local")
    found["local"] = hashes(local)

print(json.dumps(found))
