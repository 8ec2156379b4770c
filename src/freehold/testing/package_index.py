"""A package index on loopback, and wheels made on the spot: real HTTP for the real pip, with every request counted.

It speaks the simple repository API as HTML (PEP 503), with hashes (or without), with separate metadata (PEP 658) or without,
and can be told to go wrong. It ends with the block that started it.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def make_wheel(
    folder: Path,
    package: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    headers: Mapping[str, str] | None = None,
    description: str = "",
    license_text: str | None = None,
    wrong_record: bool = False,
) -> Path:
    """A wheel in `folder` with `files` (path in the wheel to bytes), dates fixed, so that the same input gives the same bytes.

    `wrong_record` writes hashes into RECORD that do not hold.
    """
    name = package.replace("-", "_")
    dist = f"{name}-{version}.dist-info"
    fields = {"Metadata-Version": "2.1", "Name": package, "Version": version, **(headers or {})}
    metadata = "".join(f"{k}: {v}\n" for k, v in fields.items()) + f"\n{description}"
    members = {**files, f"{dist}/METADATA": metadata.encode()}
    members[f"{dist}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: freehold\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if license_text is not None:
        members[f"{dist}/LICENSE"] = license_text.encode()
    record = "".join(f"{path},sha256={_urlsafe(b'?' if wrong_record else data)},{len(data)}\n" for path, data in members.items())
    members[f"{dist}/RECORD"] = (record + f"{dist}/RECORD,,\n").encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(path, (2025, 2, 7, 7, 2, 54)), data, zipfile.ZIP_DEFLATED)
    return wheel


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@dataclass
class PackageIndex:
    """`url` is the index. What may be changed while it runs: `hashes` and `metadata` (whether they are offered), `status` (what
    to answer instead of anything), `spoil` (serve a wheel with one byte changed), `cut` (close in the middle of a wheel)."""

    folder: Path
    url: str = ""
    hashes: bool = True
    metadata: bool = True
    status: int | None = None
    spoil: bool = False
    cut: bool = False
    requests: list[str] = field(default_factory=list)

    def fetched(self, suffix: str) -> int:
        """How many requests asked for a path with this end."""
        return sum(1 for path in self.requests if path.endswith(suffix))

    def settings(self, folder: Path) -> dict[str, str]:
        """pip's settings for this index alone, whatever the machine's own are; `folder` is for its cache."""
        return {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": self.url,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "PIP_DEFAULT_TIMEOUT": "5",
            "PIP_CONSTRAINT": "",
            "XDG_CACHE_HOME": str(folder),
        }


@contextmanager
def running_index(folder: Path) -> Iterator[PackageIndex]:
    """An index of the wheels and source archives that lie in `folder` at the moment of asking."""
    index = PackageIndex(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, index)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    index.url = f"http://127.0.0.1:{server.server_address[1]}/simple/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, index: PackageIndex) -> None:
    path = handler.path.partition("?")[0]
    index.requests.append(path)
    if index.status is not None:
        _send(handler, index.status, b"no")
    elif path.startswith("/simple/"):
        page = _page(index, path.removeprefix("/simple/").strip("/"))
        _send(handler, 200 if page else 404, page, "text/html")
    elif path.endswith(".metadata") and index.metadata:
        _send(handler, 200, _metadata(index.folder / path.rpartition("/")[2].removesuffix(".metadata")))
    elif (file := index.folder / path.rpartition("/")[2]).is_file():
        data = file.read_bytes()
        if index.spoil:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        _send(handler, 200, data, "application/octet-stream", cut=index.cut)
    else:
        _send(handler, 404, b"")


def _page(index: PackageIndex, project: str) -> bytes:
    rows = []
    for file in sorted(index.folder.iterdir()):
        if not file.is_file() or not file.name.replace("_", "-").lower().startswith(f"{project}-"):
            continue
        digest = f"#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}" if index.hashes else ""
        separate = ""
        if index.metadata and file.suffix == ".whl":
            separate = f' data-core-metadata="sha256={hashlib.sha256(_metadata(file)).hexdigest()}"'
            separate += separate.replace("core", "dist-info")
        rows.append(f'<a href="/files/{file.name}{digest}"{separate}>{file.name}</a><br/>')
    return f"<!DOCTYPE html><html><body>{''.join(rows)}</body></html>".encode() if rows else b""


def _metadata(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA")))


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str = "text/plain", *, cut: bool = False) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2] if cut else body)
    if cut:
        handler.close_connection = True
