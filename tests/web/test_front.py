"""What stands before every face: hosts, prefixes, proxies, bounds, headers, bugs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from freehold.testing.server import running_server
from freehold.web.asgi import json_answer
from freehold.web.front import Front, FrontSettings, public_url, read_body
from freehold.web.logs import ServerLog


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was told; /bug fails, /late-bug fails after the start of its answer."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"].endswith("/bug"):
        raise KeyError("a secret detail")
    if scope["path"].endswith("/late-bug"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise KeyError("a secret detail")
    body = await read_body(receive)
    told = {
        "public": public_url(scope), "path": scope["path"], "raw": scope["raw_path"].decode(), "root": scope.get("root_path", ""),
        "scheme": scope["scheme"], "client": scope["client"][0], "body": len(body),
        "host": next((v.decode() for k, v in scope["headers"] if k == b"host"), ""),
    }  # fmt: skip
    await json_answer(told)(scope, receive, send)


@contextmanager
def fronted(folder: Path, asker: Any, **changed: Any) -> Iterator[Any]:
    settings = FrontSettings(**({"base_url": "", "loopback_only": True, "max_body": 1000} | changed))
    front = Front(_echo, settings, ServerLog(folder))
    with running_server(front) as url:
        yield asker(url)


@pytest.fixture
def asker(ask: Any) -> Any:
    return type(ask)


@pytest.mark.parametrize(
    "host", ["evil.example", "192.0.2.1", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b", "evil.example:8411"]
)
def test_on_loopback_a_foreign_host_name_is_refused(tmp_path: Path, asker: Any, host: str) -> None:
    """DNS rebinding: a web page gives its own name our address."""
    with fronted(tmp_path, asker) as ask:
        got = ask("GET", "/x", {"Host": host})
        assert (got.status, got.json["code"]) == (421, "server-host-unknown")
        assert ask("GET", "/x", {"Host": host, "X-Forwarded-Host": "localhost"}).status == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1:1", "[::1]:8411", "127.8.8.8", "my.localhost"])
def test_loopback_names_are_taken(tmp_path: Path, asker: Any, host: str) -> None:
    with fronted(tmp_path, asker) as ask:
        assert ask("GET", "/x", {"Host": host}).json["public"] == f"http://{host}"


def test_a_server_for_others_takes_every_name(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path, asker, loopback_only=False) as ask:
        assert ask("GET", "/x", {"Host": "models.example.org"}).json["public"] == "http://models.example.org"


def test_a_base_url_is_what_others_are_told_and_its_prefix_may_or_may_not_come(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path, asker, base_url="https://models.example.org/hub") as ask:
        for path in ("/api/a%2Fb", "/hub/api/a%2Fb"):
            got = ask("GET", path, {"Host": "models.example.org"}).json
            assert (got["public"], got["root"]) == ("https://models.example.org/hub", "/hub")
            assert (got["path"], got["raw"]) == ("/hub/api/a/b", "/hub/api/a%2Fb")
        assert ask("GET", "/hubble", {"Host": "localhost"}).json["path"] == "/hub/hubble", "a prefix ends at a slash"


def test_forwarded_headers_of_a_local_proxy_are_believed(tmp_path: Path, asker: Any) -> None:
    sent = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "m.example",
        "X-Forwarded-For": "9.9.9.9, 203.0.113.7",
        "X-Forwarded-Prefix": "/p/q/",
    }
    with fronted(tmp_path, asker) as ask:
        got = ask("GET", "/x", sent).json
        assert (got["public"], got["scheme"], got["client"], got["root"]) == (
            "https://m.example/p/q",
            "https",
            "203.0.113.7",
            "/p/q",
        )
        odd = {
            "X-Forwarded-Proto": "gopher",
            "X-Forwarded-Host": "m example/x",
            "X-Forwarded-For": "nobody",
            "X-Forwarded-Prefix": "//evil",
        }
        got = ask("GET", "/x", odd).json
        assert (got["scheme"], got["client"], got["root"]) == ("http", "127.0.0.1", "")
        assert got["host"] == urlsplit(got["public"]).netloc


def test_forwarded_headers_of_strangers_are_not_believed(tmp_path: Path, asker: Any) -> None:
    """Without a base_url, a peer that is not on this machine is no proxy of ours."""

    class FromAfar(Front):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope["client"] = ("198.51.100.4", 5)
            await super().__call__(scope, receive, send)

    sent = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "m.example",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Prefix": "/p",
    }
    for base, trusted in (("", False), ("https://m.example", True)):
        settings = FrontSettings(base_url=base, loopback_only=False, max_body=1000)
        with running_server(FromAfar(_echo, settings, ServerLog(tmp_path))) as url:
            got = asker(url)("GET", "/x", sent).json
            assert (got["client"] == "203.0.113.7") is trusted
            assert (got["scheme"] == "https") is trusted
            assert got["root"] == ""


def test_a_body_beyond_the_bound_is_refused_whether_announced_or_not(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path, asker) as ask:
        assert ask("POST", "/x", body=b"x" * 1000).json["body"] == 1000
        got = ask("POST", "/x", body=b"x" * 1001)
        assert (got.status, got.json["code"]) == (413, "server-too-large")
        chunked = (
            b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3e8\r\n" + b"x" * 1000 + b"\r\n" + b"1\r\nx\r\n0\r\n\r\n"
        )
        assert ask.raw(chunked).startswith(b"HTTP/1.1 413")
        assert ask("POST", "/v1/x", body=b"x" * 1001).json["error"]["code"] == "server-too-large", "OpenAI's form on its face"


def test_a_bug_is_json_with_an_id_and_its_traceback_stays_in_the_log(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path, asker) as ask:
        got = ask("GET", "/bug", {"X-Request-Id": "req-1"})
        assert (got.status, got.json["code"], got.headers["x-request-id"]) == (500, "internal-bug", "req-1")
        assert b"secret" not in got.body
        assert b"Traceback" not in got.body
        late = ask.raw(b"GET /late-bug HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert late.partition(b"\r\n\r\n")[2] == b"x", "the connection ends short of what was promised"
    log = (tmp_path / "server.log").read_text("utf-8")
    assert "request req-1" in log
    assert "a secret detail" in log


def test_request_ids_are_echoed_only_if_harmless(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path, asker) as ask:
        assert ask("GET", "/x", {"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
        for bad in ("a b", "x" * 65, "<script>"):
            assert ask("GET", "/x", {"X-Request-Id": bad}).headers["x-request-id"] != bad


def test_every_answer_has_safe_headers(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path, asker) as ask:
        for path in ("/x", "/bug"):
            headers = ask("GET", path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["referrer-policy"] == "no-referrer"


def test_the_access_log_has_what_happened_and_no_secret(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path, asker) as ask:
        ask("GET", "/x%0ay?token=hf_secret1", {"Cookie": "hf_secret2"}, key="hf_secret3")
        ask("POST", "/y", body=b"hf_secret4")
        until = time.monotonic() + 5
        while not (tmp_path / "access.log").exists() and time.monotonic() < until:
            time.sleep(0.05)
    text = (tmp_path / "access.log").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(r["method"], r["path"], r["status"]) for r in rows] == [("GET", "/x\ny", 200), ("POST", "/y", 200)]
    assert "secret" not in text
    assert rows[0]["bytes"] > 10


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path, asker: Any) -> None:
    with fronted(tmp_path / "no" / "such" / "folder", asker) as ask:
        assert ask("GET", "/bug").status == 500
        assert ask("GET", "/x").status == 200


def test_logs_are_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.web.logs._ROTATE_BYTES", 100)
    log = ServerLog(tmp_path)
    for number in range(5):
        log.note(f"{number} " + "x" * 60)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["server.log", "server.log.1"]
    assert "4 x" in (tmp_path / "server.log").read_text("utf-8")
