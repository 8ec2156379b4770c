"""Behind nginx with TLS and a path of its own: the configuration that is shipped, as it is shipped, on other ports."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from freehold.app import house
from freehold.flows import keys
from freehold.nouns.caller import Scope
from freehold.procs.child import minimal_environment, run
from freehold.testing.kept import keep
from freehold.testing.server import running_server
from freehold.web.asgi import json_answer

pytestmark = [pytest.mark.proxy, pytest.mark.timeout(300)]

SHIPPED = Path(__file__).parents[2] / "packaging" / "nginx.conf"
FILES = {"config.json": b"{}", "a/b c.txt": b"space", "model.safetensors": os.urandom(11_000_000)}
_AROUND = """
daemon off; {user}worker_processes 1; pid {folder}/pid; error_log {folder}/error.log info;
events {{ worker_connections 128; }}
http {{ access_log off; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
  uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t; include {folder}/site.conf; }}
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def _slow_engine(scope: Any, receive: Any, send: Any) -> None:
    """An OpenAI-compatible server that says eight words, one each 50 ms."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"].endswith("/models"):
        await json_answer({"object": "list", "data": [{"id": "slow", "object": "model"}]})(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    frame: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "slow"}
    for number in range(9):
        choice = {
            "index": 0,
            "delta": {"content": "word "} if number < 8 else {},
            "finish_reason": None if number < 8 else "stop",
        }
        usage = {"usage": {"prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}} if number == 8 else {}
        body = f"data: {json.dumps(frame | {'choices': [choice]} | usage)}\n\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


class Proxied:
    """`ask` goes through nginx; `url` is the public one."""

    def __init__(self, url: str, certificate: Path, commit: str, key: str) -> None:
        self.url, self.certificate, self.commit, self.key = url, certificate, commit, key
        self._context = ssl.create_default_context(cafile=str(certificate))

    def open(self) -> http.client.HTTPSConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=30, context=self._context)

    def __call__(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        with closing(self.open()) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with running_server(_slow_engine) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Proxied]:
    for program in ("nginx", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"not run: {program} is not installed")
    folder = tmp_path_factory.mktemp("proxy")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    inner, outer = _free_port(), _free_port()
    url = f"https://localhost:{outer}/hub"
    with house(str(folder / "home")) as opened:
        commit = keep(opened.parts, "org/model", FILES)
        keep(opened.parts, "org/model", FILES, refs=("pr/1",))
        token = keys.create_key(opened.parts, opened.caller, "test", frozenset({Scope.ADMIN})).token
    site = SHIPPED.read_text("utf-8")
    changes = [
        ("server 127.0.0.1:8411", f"server 127.0.0.1:{inner}"), ("listen 443 ssl", f"listen 127.0.0.1:{outer} ssl"),
        ("server_name models.example.org", "server_name localhost"), ("/etc/ssl/models.example.org.pem", str(certificate)),
        ("/etc/ssl/models.example.org.key", str(key)),
    ]  # fmt: skip
    for shipped, here in changes:
        assert shipped in site
        site = site.replace(shipped, here)
    (folder / "site.conf").write_text(site, "utf-8")
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, user="user root; " if os.getuid() == 0 else ""), "utf-8")
    arguments = [
        sys.executable,
        "-m",
        "freehold",
        "--home",
        str(folder / "home"),
        "up",
        "--port",
        str(inner),
        "--base-url",
        url,
        "--quiet",
    ]
    server = subprocess.Popen(arguments, env=os.environ | {"FREEHOLD_USE__REMOTE_URL": engine})
    proxy = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        until = time.monotonic() + 30
        while not (_listens(inner) and _listens(outer)):
            assert time.monotonic() < until, (folder / "error.log").read_text("utf-8")
            time.sleep(0.05)
        yield Proxied(url, certificate, commit, token)
    finally:
        for child in (proxy, server):
            child.terminate()
            child.wait(timeout=20)


def test_files_pass_whole_and_in_part(proxied: Proxied) -> None:
    data = FILES["model.safetensors"]
    status, headers, body = proxied("GET", "/hub/org/model/resolve/main/model.safetensors")
    assert (status, hashlib.sha256(body).digest()) == (200, hashlib.sha256(data).digest())
    assert headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    status, headers, body = proxied("GET", "/hub/org/model/resolve/main/model.safetensors", {"Range": "bytes=5-99"})
    assert (status, body, headers["content-range"]) == (206, data[5:100], f"bytes 5-99/{len(data)}")


def test_encoded_slashes_in_revisions_survive_the_proxy(proxied: Proxied) -> None:
    assert proxied("GET", "/hub/org/model/resolve/refs%2Fpr%2F1/a/b%20c.txt")[::2] == (200, b"space")


def test_links_lead_to_the_public_url_with_its_path(proxied: Proxied) -> None:
    _, headers, first = proxied("GET", "/hub/api/models/org/model/tree/main?recursive=true&limit=2")
    match = re.fullmatch(r'<([^>]+)>; rel="next"', headers["link"])
    assert match
    assert match[1].startswith(f"{proxied.url}/api/models/org/model/tree/{proxied.commit}?")
    status, _, second = proxied("GET", match[1].removeprefix(proxied.url.removesuffix("/hub")))
    assert status == 200
    assert len(json.loads(first)) == 2
    assert json.loads(second)


def test_redirects_and_the_console_stay_under_the_path(proxied: Proxied) -> None:
    assert proxied("GET", "/hub")[1]["location"].endswith("/hub/")
    assert proxied("GET", "/hub/")[1]["location"] == "/hub/-/"
    assert proxied("GET", "/hub/org/model")[1]["location"] == "/hub/-/models/org/model"
    status, _, page = proxied("GET", "/hub/-/")
    assert status == 200
    links = re.findall(r'(?:href|src|action)="([^"#]+)"', page.decode())
    assert links
    assert [link for link in links if not link.startswith(("/hub/", "http", "data:"))] == []
    for link in {link for link in links if link.startswith("/hub/-/")}:
        assert proxied("GET", link)[0] in (200, 303), link


def test_a_stream_of_tokens_is_not_held_back(proxied: Proxied) -> None:
    """The pieces arrive as they are made, not all at the end."""
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "say eight words"}]}
    headers = {"Authorization": f"Bearer {proxied.key}", "Content-Type": "application/json"}
    with closing(proxied.open()) as connection:
        connection.request("POST", "/hub/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        arrivals = []
        while line := answer.readline():
            if line.startswith(b"data: "):
                arrivals.append(time.monotonic())
    assert len(arrivals) >= 9
    assert arrivals[7] - arrivals[0] > 0.25, "eight words, one each 50 ms: they cannot have come in one piece"


def test_the_client_is_known_by_its_address_and_the_request_by_its_id(proxied: Proxied, tmp_path: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", proxied("GET", "/hub/healthz")[1]["x-request-id"]), "nginx's id is kept"


@pytest.mark.clients
def test_a_stock_client_works_through_the_proxy(proxied: Proxied, tmp_path: Path) -> None:
    from freehold.procs.venvs import client_venv

    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "freehold" / "clients"
    python = client_venv(cache, ["huggingface_hub==2.4.0"])
    script = (
        "import hashlib, pathlib; from huggingface_hub import snapshot_download, HfApi\n"
        "folder = pathlib.Path(snapshot_download('org/model'))\n"
        "digest = hashlib.sha256((folder / 'model.safetensors').read_bytes()).hexdigest()\n"
        "print(folder.name, digest, len(HfApi().list_repo_files('org/model')))"
    )
    lines: list[str] = []
    env = minimal_environment(
        HF_ENDPOINT=proxied.url, HF_HOME=str(tmp_path / "hf"), SSL_CERT_FILE=str(proxied.certificate),
        REQUESTS_CA_BUNDLE=str(proxied.certificate), HF_HUB_DISABLE_PROGRESS_BARS="1", NO_PROXY="localhost",
    )  # fmt: skip
    done = run([str(python), "-c", script], env=env, on_line=lines.append, timeout=120)
    assert done.exit.ok, done.tail
    assert lines[-1].split() == [proxied.commit, hashlib.sha256(FILES["model.safetensors"]).hexdigest(), "3"]
