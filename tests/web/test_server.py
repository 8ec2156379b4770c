"""The one port: which face answers what, and what belongs to none."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from freehold.app import house
from freehold.testing.server import running_server
from freehold.web.server import build, route_table


def test_each_face_answers_under_its_own_paths(ask: Any, kept: Any) -> None:
    assert ask("GET", "/api/models").json[0]["id"]
    assert ask("GET", "/v1/models", key=kept.keys["chat"]).json["object"] == "list"
    console = ask("GET", "/-/")
    assert console.status == 200
    assert b"<html" in console.body


def test_the_root_leads_to_the_console(ask: Any) -> None:
    for path in ("/", "/-"):
        got = ask("GET", path)
        assert (got.status, got.headers["location"]) == (307, "/-/")


def test_every_documented_route_answers(ask: Any, kept: Any) -> None:
    """The reference lists no route that the server does not know."""
    fill = {
        "{id}": "org/model",
        "{revision}": "main",
        "[/{path}]": "",
        "{path}": "config.json",
        "[/write]": "",
        "{model}": "none",
    }
    for methods, pattern, _ in route_table():
        path = pattern
        for name, value in fill.items():
            path = path.replace(name, value)
        for method in methods:
            got = ask(method, path, body=b"{}" if method == "POST" else None, key=kept.keys["admin"])
            assert got.status != 405, (method, path)
            known = got.status != 404 or (b"route" not in got.body and b"no page" not in got.body)
            assert known, (method, path, got.body[:200])


def test_a_route_that_is_not_there_would_be_noticed(ask: Any) -> None:
    """Control of the test above."""
    assert b"route" in ask("GET", "/api/models/a/b/c/d").body
    assert b"no page" in ask("GET", "/-/nothing").body


def test_signs_of_life_and_what_browsers_ask_for(ask: Any) -> None:
    assert ask("GET", "/healthz").json["status"] == "ok"
    icon = ask("GET", "/favicon.ico")
    assert (icon.status, icon.headers["content-type"]) == (200, "image/svg+xml")
    assert b"Disallow: /" in ask("GET", "/robots.txt").body


def test_failures_speak_the_language_of_the_face(ask: Any) -> None:
    assert isinstance(ask("GET", "/v1/models/no-such").json["error"], dict)
    assert isinstance(ask("GET", "/api/models/no/such").json["error"], str)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused_and_the_server_goes_on(ask: Any, request_: bytes) -> None:
    try:
        got = ask.raw(request_.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    except ConnectionError:
        got = b""
    assert got[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.1 431")
    assert ask("GET", "/healthz").status == 200


def test_a_websocket_upgrade_is_answered_as_a_plain_request(ask: Any) -> None:
    got = ask(
        "GET",
        "/healthz",
        {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    )
    assert got.status in (200, 400, 426)


def test_without_anonymous_reading_everything_needs_a_key(tmp_path: Path, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_SERVER__ANONYMOUS_READ", "false")
    with house(str(tmp_path / "h")) as opened, running_server(build(opened)) as url:
        closed = type(ask)(url)
        for path in ("/api/models", "/api/models/a/b", "/a/b/resolve/main/c", "/api/datasets/a/b"):
            got = closed("GET", path)
            assert (got.status, got.json["code"]) == (401, "access-key-missing"), path
            assert got.headers["www-authenticate"].startswith("Bearer")


def test_health_tells_when_the_home_cannot_be_read(tmp_path: Path, ask: Any) -> None:
    with house(str(tmp_path / "h")) as opened, running_server(build(opened)) as url:
        opened.parts.catalog.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{opened.parts.catalog.path}{suffix}").unlink(missing_ok=True)
        opened.parts.catalog.path.write_bytes(b"no database " * 1000)
        got = type(ask)(url)("GET", "/healthz")
        assert (got.status, got.json["status"]) == (503, "failing")


def test_many_slow_clients_do_not_keep_others_waiting(ask: Any, kept: Any) -> None:
    """Sixty clients that read nothing of a large file, and one that wants an answer."""
    host = urlsplit(kept.url)
    idle = []
    try:
        for _ in range(60):
            connection = socket.create_connection((host.hostname, host.port), timeout=20)
            connection.sendall(b"GET /org/model/resolve/main/model.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n")
            idle.append(connection)
        assert ask("GET", "/org/model/resolve/main/config.json").status == 200
        assert ask("GET", "/api/models").status == 200
    finally:
        for connection in idle:
            connection.close()
