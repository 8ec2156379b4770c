"""Every file of a model through the stock huggingface_hub client; prints one line of JSON.

Run in a venv of its own with HF_ENDPOINT and an empty HF_HOME: hub_download.py REPO REVISION
"""

import hashlib
import json
import pathlib
import sys

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, get_hf_file_metadata, hf_hub_url, snapshot_download

repo, revision = sys.argv[1], sys.argv[2]
folder = pathlib.Path(snapshot_download(repo, revision=revision))
files, etags, ranges = {}, {}, {}
for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    name = path.relative_to(folder).as_posix()
    with path.open("rb") as file:
        files[name] = hashlib.file_digest(file, "sha256").hexdigest()
    etags[name] = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision)).etag
largest = max(files, key=lambda name: (folder / name).stat().st_size)
size = (folder / largest).stat().st_size
start, length = size // 3, min(65536, size - size // 3)
with HfFileSystem().open(f"{repo}/{largest}", "rb", revision=revision, block_size=65536) as remote:
    remote.seek(start)
    got = remote.read(length)
with (folder / largest).open("rb") as local:
    local.seek(start)
    ranges[largest] = got == local.read(length)
print(
    json.dumps(
        {
            "client": f"huggingface_hub {huggingface_hub.__version__}",
            "commit": HfApi().model_info(repo, revision=revision).sha,
            "files": files,
            "etags": etags,
            "ranges": ranges,
            "bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
        }
    )
)
