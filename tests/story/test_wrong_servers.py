"""What goes wrong while the house is served: ports, keys, engines that die, servers that are killed, two at once.

An answer that cannot be finished says so; the next request works; every request has its one usage record; a killed server's
home is sound and the next server takes it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from freehold.app import house

GGUF, TENSORS = "acme/talker", "acme/tensors"
CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 2000, "ignore_eos": True, "temperature": 0}

needs_engine = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("xllamacpp") is None,
    reason="not run: the engine (extra `llama`) is not installed",
)


def question(model: str = GGUF, content: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


# The start


def test_a_taken_port_a_second_server_and_an_open_door_are_refused(stocked: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        stocked("up", "--port", port).refused("server-port-taken", port)
    stocked("up", "--host", "0.0.0.0", "--port", "0").refused("server-open-without-keys", "0.0.0.0")
    with stocked.serve() as first:
        stocked("up", "--port", "0").refused("server-already-running", first.url)
        assert first.ask("/healthz")[0] == 200
        stocked.sound(GGUF)


@pytest.mark.faults
def test_an_address_of_another_machine_and_a_name_that_is_none_are_refused(stocked: Any) -> None:
    stocked("key", "create", "--name", "admin", "--scope", "admin").fine()
    stocked("up", "--host", "192.0.2.1", "--port", "0").refused("server-bind-failed", "192.0.2.1")
    stocked("up", "--host", "no such host", "--port", "0").refused("server-bind-failed", "no such host")


# The doors


@pytest.mark.faults
def test_a_wrong_revoked_or_expired_key_opens_no_door(stocked: Any, upstream: Any) -> None:
    made = stocked("key", "create", "--name", "gone", "--scope", "read", "--scope", "chat", "--json").json()
    stocked("key", "revoke", made["id"]).fine()
    late = stocked("key", "create", "--name", "late", "--expires", "1h", "--json").json()
    with house(str(stocked.home)) as opened, opened.parts.catalog.write() as tx:
        tx.execute(text("UPDATE keys SET expires_at = 1 WHERE public_id = :id"), {"id": late["id"]})
    reader = stocked("key", "create", "--name", "reader", "--scope", "read", "--json").json()["key"]
    doors = [(CHAT, question()), ("/v1/models", None), (f"/api/models/{GGUF}", None), (f"/{GGUF}/resolve/main/README.md", None),
             ("/api/whoami-v2", None)]  # fmt: skip
    with stocked.serve() as server:
        for key in ("nonsense", "fh_abcdefghijkl_" + "x" * 43, made["key"], late["key"], made["key"][:-1] + "?"):
            for path, body in doors:
                status, told = server.ask(path, body, key=key)
                said = f"{path} {key[:6]}: {status} {told}"
                assert status == 401, said
                inner = told["error"]["freehold"] if path.startswith("/v1") else told
                assert inner["code"] == "access-key-invalid", said
                assert inner["hint"], said
        status, told = server.ask(CHAT, question(), key=reader)
        assert (status, told["error"]["freehold"]["code"]) == (403, "access-scope-missing")
        assert "chat" in told["error"]["message"]
        status, told = server.ask(CHAT, question())
        assert (status, told["error"]["freehold"]["code"]) == (401, "access-key-missing")
        for path in ("/-/keys", "/-/usage", "/-/events", "/-/chat"):
            status, page = server.ask(path)
            assert status in (303, 307, 401, 403), path
            assert "fh_" not in str(page)
        for key in ("nonsense", made["key"], late["key"]):
            status, page = _log_in(server, key)
            assert status == 401, page
            assert "unknown, revoked or expired" in page
            assert key not in page, "what was typed is not shown again"
        assert _log_in(server, reader)[0] == 303, "control: a key that is valid opens the console"
        assert server.ask(f"/api/models/{GGUF}")[0] == 200, "reading is open by default on loopback"
    with stocked.serve(FREEHOLD_SERVER__ANONYMOUS_READ="false") as server:
        status, told = server.ask(f"/api/models/{GGUF}")
        assert status == 401
        assert told["hint"]
        assert server.ask(f"/api/models/{GGUF}", key=reader)[0] == 200
    assert stocked("usage", "--check", "--json").json()["records"] == 0
    stocked.sound(GGUF)


@pytest.mark.faults
def test_what_is_no_request_is_answered_as_one(stocked: Any) -> None:
    with stocked.serve() as server:
        key = server.key
        bad: list[tuple[Any, int]] = [
            ({}, 400), ([], 400), (question("acme/nothing"), 404), (question("../../etc/passwd"), 404),
            (question("a\u0000b"), 404), (question(max_tokens=-1), 400), (question(max_tokens=1e99), 400),
            (question(n=1000), 400),
            (question(temperature="hot"), 400), (question(content="x " * 30_000), 400), ({"model": GGUF, "messages": "hi"}, 400),
            (question(stream="yes"), 400),
        ]  # fmt: skip
        for body, status in bad:
            found, told = server.ask(CHAT, body, key=key)
            assert found == status, (body, told)
            assert told["error"]["message"]
            assert told["error"]["freehold"]["hint"], told
            assert "Traceback" not in json.dumps(told)
        for raw in (b"{", b"\xff\xfe", b"[" * 100_000, b'{"model": NaN}'):
            assert _raw(server.url, CHAT, raw, key) == 400
        assert _raw(server.url, CHAT, bytes(34_000_000), key) == 413
        for path in (
            "/..%2f..%2fetc/passwd",
            "/%00",
            "/a/b/resolve/main/../../x",
            "/" + "x" * 3000,
            "/-/%2e%2e/x",
            "/api/models/%ff",
        ):
            status, told = server.ask(path)
            assert 400 <= status < 500, (path, status, told)
        assert server.ask("/healthz")[0] == 200
    stocked.sound(GGUF)


# Engines


@pytest.fixture
def without_engine(tmp_path: Path) -> dict[str, str]:
    """An environment in which the engine's package is not installed: site-packages without it, everything else as it is."""
    import xllamacpp

    installed = Path(xllamacpp.__file__).parent.parent
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in installed.iterdir():
        if not entry.name.startswith("xllamacpp"):
            (packages / entry.name).symlink_to(entry)
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        f"import sys\nsys.path = [{str(packages)!r} if p == {str(installed)!r} else p for p in sys.path]\n"
    )
    return {"PYTHONPATH": str(hook)}


@needs_engine
@pytest.mark.faults
def test_without_an_engine_everything_but_talking_works(stocked: Any, without_engine: dict[str, str], upstream: Any) -> None:
    stocked("chat", GGUF, "hello", **without_engine).refused("engines-not-installed", "freehold[llama]")
    told = {d["name"]: d for d in json.loads(stocked("doctor", "--json", **without_engine).out)}
    assert told["engine"]["state"] == "warn"
    assert "freehold[llama]" in told["engine"]["hint"]
    with stocked.serve(**without_engine) as server:
        for body in (question(), question(stream=True)):
            status, answer = server.ask(CHAT, body, key=server.key)
            assert status == 503, answer
            assert answer["error"]["freehold"]["code"] == "engines-not-installed"
            assert "freehold[llama]" in answer["error"]["freehold"]["hint"]
        assert server.ask(f"/{GGUF}/resolve/main/README.md")[0] == 200
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url, **without_engine).fine()
    records = stocked("usage", "--requests", "10", "--json").json()
    assert {r["outcome"] for r in records} == {"released"}, "what was not answered is not charged"
    stocked.sound(GGUF, TENSORS)
    assert len(stocked("chat", GGUF, "hello", "--max-tokens", "3").fine().out) > 1, "control: with the engine it talks"


@needs_engine
@pytest.mark.faults
def test_an_engine_that_is_killed_in_the_middle_of_an_answer(stocked: Any) -> None:
    with stocked.serve() as server:
        with streamed(server, question(stream=True, **LONG)) as frames:
            assert _some_text(frames)
            for pid in server.children():
                os.kill(pid, signal.SIGKILL)
            rest = list(frames)
        failed = [f for f in rest if isinstance(f, dict) and "error" in f]
        assert len(failed) == 1, rest[-3:]
        assert failed[0]["error"]["freehold"]["code"] == "engines-crashed"
        assert failed[0]["error"]["freehold"]["hint"]
        assert rest[-1] == failed[0], "nothing follows the error, no [DONE] pretends an end"
        status, answer = server.ask(CHAT, question(max_tokens=3), key=server.key)
        assert status == 200, answer
        assert answer["usage"]["completion_tokens"] == 3
        with subprocess_answer(server, question(**LONG)) as waiting:
            for pid in server.children():
                os.kill(pid, signal.SIGKILL)
            status, answer = waiting()
        assert status == 502
        assert answer["error"]["freehold"]["code"] == "engines-crashed"
    newest = stocked("usage", "--requests", "10", "--json").json()
    assert sorted(r["outcome"] for r in newest) == ["interrupted", "interrupted", "settled"]
    assert {r["reason"] for r in newest if r["outcome"] == "interrupted"} == {"engines-crashed"}
    assert all(r["generated"] > 0 for r in newest)
    stocked.sound(GGUF)


@needs_engine
@pytest.mark.faults
def test_a_model_file_that_cannot_be_loaded_is_told_and_others_work(stocked: Any, tmp_path: Path, models: Path) -> None:
    """Its structure is sound, so it is admitted; the engine finds that it lacks what its architecture needs."""
    from freehold.formats.gguf_writer import write_gguf

    folder = tmp_path / "hollow"
    folder.mkdir()
    with (folder / "m.gguf").open("wb") as file:
        write_gguf(file, {"general.architecture": "llama", "llama.context_length": 64}, [])
    pulled = stocked("pull", str(folder), "--name", "acme/hollow")
    assert "Traceback" not in pulled.err
    if "quarantined" in pulled.out:
        stocked("chat", "acme/hollow", "hi").refused("use-model-not-found")
        return
    stocked("chat", "acme/hollow", "hi").refused("engines-load-failed", "acme/hollow")
    with stocked.serve() as server:
        status, answer = server.ask(CHAT, question("acme/hollow"), key=server.key)
        assert status == 503, answer
        assert answer["error"]["freehold"]["code"] == "engines-load-failed"
        assert server.ask(CHAT, question(max_tokens=2), key=server.key)[0] == 200


# The end


@needs_engine
@pytest.mark.faults
def test_a_server_killed_while_it_answers_leaves_a_true_ledger(stocked: Any, until: Any) -> None:
    with stocked.serve() as server, streamed(server, question(stream=True, **LONG)) as frames:
        assert _some_text(frames)
        engines = server.children()
        server.process.kill()
        server.process.wait(10)
        with pytest.raises((http.client.HTTPException, OSError, ValueError)):
            raise ValueError(list(frames)[-1:])
    until(lambda: not any(_runs(pid) for pid in engines), "the engine ends with its server")
    checked = stocked("usage", "--check", "--json").json()
    assert checked["ok"]
    assert checked["ended_of_dead_processes"] == 1
    newest = stocked("usage", "--requests", "5", "--json").json()
    assert [r["outcome"] for r in newest] == ["interrupted"]
    stocked.sound(GGUF)
    with stocked.serve() as server:
        assert server.key is None, "the first key was shown before"
        key = stocked("key", "create", "--name", "again", "--json").json()["key"]
        assert server.ask(CHAT, question(max_tokens=3), key=key)[0] == 200
    stocked.sound(GGUF)


@pytest.mark.faults
def test_a_server_killed_while_it_fetches_goes_on_after_its_start(stocked: Any, upstream: Any, until: Any) -> None:
    mirror = {"FREEHOLD_HUB__UPSTREAMS": upstream.url}
    upstream.slow(TENSORS, bytes_per_second=400_000, path="*.safetensors")
    with stocked.serve(**mirror) as server:
        asking = threading.Thread(target=_quietly, args=(server, f"/api/models/{TENSORS}"))
        asking.start()
        until(lambda: _spooled(stocked.home) > 300_000, "some of it has arrived")
        server.process.kill()
        server.process.wait(10)
        asking.join(20)
    stocked.sound(GGUF)
    before = _spooled(stocked.home)
    upstream.heal()
    upstream.forget()
    with stocked.serve(**mirror) as server:
        status, told = server.ask(f"/api/models/{TENSORS}")
        assert status == 200, told
    asked = [r.range for r in upstream.requests if r.method == "GET" and "/cdn/" in r.path]
    assert asked == [f"bytes={before}-"]
    stocked.sound(GGUF, TENSORS)


@pytest.mark.faults
def test_a_signal_during_a_stream_ends_the_server_in_bounded_time(stocked: Any) -> None:
    with stocked.serve(FREEHOLD_USE__ECHO="true") as server:
        told: list[Any] = []
        with streamed(server, question("echo", "word " * 50, stream=True, max_tokens=100_000)) as frames:
            assert _some_text(frames)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            told.extend(frames)
            server.process.wait(25)
        assert time.monotonic() - began < 15
        assert server.process.returncode == 0
        ended = stocked.finish(server.process)
        assert "Traceback" not in ended.err, ended.err
    newest = stocked("usage", "--requests", "5", "--json").json()
    assert len(newest) == 1
    assert newest[0]["outcome"] in ("interrupted", "settled")
    assert stocked("usage", "--check", "--json").json()["ok"]
    stocked.sound(GGUF)


@needs_engine
@pytest.mark.faults
def test_the_command_line_works_beside_a_running_server(stocked: Any, upstream: Any) -> None:
    with stocked.serve() as server:
        with streamed(server, question(stream=True, **LONG)) as frames:
            assert _some_text(frames)
            stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).fine()
            assert server.ask(f"/api/models/{TENSORS}")[0] == 200, "seen at once"
            key = stocked("key", "create", "--name", "beside", "--json").json()
            assert server.ask("/v1/models", key=key["key"])[0] == 200
            stocked("key", "revoke", key["id"]).fine()
            assert server.ask("/v1/models", key=key["key"])[0] == 401, "refused at once"
            stocked("chat", GGUF, "hello", "--max-tokens", "3").fine()
            stocked("rm", TENSORS, "--yes").fine()
            assert server.ask(f"/api/models/{TENSORS}")[0] == 404
            assert server.url in stocked("doctor").out
            assert list(frames)[-1] == "[DONE]"
        stocked.sound(GGUF)


@needs_engine
@pytest.mark.faults
def test_a_model_removed_while_it_answers_answers_to_the_end_and_then_not_again(stocked: Any) -> None:
    with stocked.serve() as server:
        with streamed(server, question(stream=True, **LONG)) as frames:
            assert _some_text(frames)
            ended = stocked("rm", GGUF, "--yes")
            assert ended.code == 0 or "hint: " in ended.err, ended
            assert "Traceback" not in ended.err
            rest = list(frames)
        assert rest[-1] == "[DONE]" or "error" in rest[-1]
        status, answer = server.ask(CHAT, question(max_tokens=2), key=server.key)
        assert status == (404 if ended.code == 0 else 200), answer
    stocked.sound(*stocked.kept())


@pytest.mark.faults
def test_the_disk_of_a_running_server_fills_up(stock: Path, cli: Any, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        shutil.copytree(stock, place / "home")
        cli.home = place / "home"
        with cli.serve(FREEHOLD_USE__ECHO="true") as server:
            assert server.ask(CHAT, question("echo", max_tokens=3), key=server.key)[0] == 200
            with (place / "fill").open("wb", buffering=0) as filling, suppress(OSError):
                while True:
                    filling.write(bytes(4096))
            seen = set()
            for _ in range(3):
                status, told = server.ask(CHAT, question("echo", max_tokens=3), key=server.key)
                assert status in (200, 507), told
                if status == 507:
                    assert told["error"]["freehold"]["code"] == "db-disk-full"
                    assert told["error"]["freehold"]["hint"]
                seen.add(status)
            assert server.ask(f"/{GGUF}/resolve/main/README.md")[0] == 200, "what is kept is still given out"
            (place / "fill").unlink()
            assert server.ask(CHAT, question("echo", max_tokens=3), key=server.key)[0] == 200, "it recovers by itself"
        assert cli("usage", "--check", "--json").json()["ok"]
        cli.sound(GGUF)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


# Parts of these stories


@contextmanager
def streamed(server: Any, body: dict[str, Any]) -> Iterator[Iterator[Any]]:
    """The frames of a stream: dictionaries, and the text "[DONE]"."""

    def frames(answer: http.client.HTTPResponse) -> Iterator[Any]:
        for line in answer:
            if line.startswith(b"data: "):
                data = line[6:].strip().decode()
                yield data if data == "[DONE]" else json.loads(data)

    with server.open(CHAT, body, key=server.key) as answer:
        assert answer.status == 200, answer.read()
        yield frames(answer)


@contextmanager
def subprocess_answer(server: Any, body: dict[str, Any]) -> Iterator[Any]:
    """A whole answer that is asked for beside us; called, it waits for (status, answer). Entered once the engine is at it."""
    found: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: found.append(server.ask(CHAT, body, key=server.key)))
    asking.start()
    time.sleep(0.3)
    yield lambda: (asking.join(30), found[0])[1]
    asking.join(30)


def _log_in(server: Any, key: str) -> tuple[int, str]:
    """Status and page of the console's login form, sent with `key`."""
    with contextlib.closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", "/-/login")
        form = connection.getresponse()
        page, cookies = form.read().decode(), "; ".join(c.split(";")[0] for c in form.headers.get_all("set-cookie") or [])
        found = re.search(r'name="csrf" value="([^"]+)"', page)
        assert found, page
        body = urllib.parse.urlencode({"csrf": found[1], "key": key})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookies, "Origin": server.url}
        connection.request("POST", "/-/login", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def _some_text(frames: Iterator[Any]) -> str:
    """Read on until ten pieces of text have come."""
    found: list[str] = []
    while len(found) < 10:
        frame = next(frames)
        found += [c["delta"]["content"] for c in frame["choices"] if c["delta"].get("content")]
    return "".join(found)


def _quietly(server: Any, path: str) -> None:
    with suppress(OSError, http.client.HTTPException):
        server.ask(path)


def _raw(url: str, path: str, body: bytes, key: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    with suppress(BrokenPipeError, ConnectionResetError):  # refused by its length before the body was read
        connection.request("POST", path, body, {"Authorization": f"Bearer {key}"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return False


def _spooled(home: Path) -> int:
    """Bytes of unfinished downloads."""
    return sum(p.stat().st_size for p in (home / "spool").glob("sha256-*.part"))
