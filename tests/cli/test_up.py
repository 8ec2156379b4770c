"""`freehold up` as a process: what it prints, whom it refuses, how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from freehold.app import house
from freehold.db.home import open_home, running_server
from freehold.testing.kept import keep


class Up:
    """A running `freehold up`."""

    def __init__(self, home: Path, *args: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "freehold", "--home", str(home), "up", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> str:
        until = time.monotonic() + 30
        while time.monotonic() < until and self.process.poll() is None:
            if (self.home / "run").exists() and (url := running_server(open_home(self.home))):
                return url
            time.sleep(0.02)
        raise AssertionError(self.process.communicate(timeout=5))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextlib.contextmanager
def up(home: Path, *args: str) -> Iterator[Up]:
    started = Up(home, *args)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait(timeout=10)
        for stream in (started.process.stdout, started.process.stderr):
            if stream:
                stream.close()


def test_the_first_start_prints_a_key_once_and_a_signal_ends_it_cleanly(tmp_path: Path) -> None:
    """And while it runs it is small, and a second one on the same home is sent to it."""
    with up(tmp_path / "h", "--port", "0") as first:
        url = first.ready()
        for _ in range(20):
            with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
                assert json.load(answer)["status"] == "ok"
        status = Path(f"/proc/{first.process.pid}/status").read_text("ascii")
        kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
        assert kilobytes < 110_000
        with up(tmp_path / "h", "--port", "0") as second:
            code, _, err = second.end(0)
        assert (code, "server-already-running" in err, url in err) == (69, True, True)
        code, out, err = first.end()
    assert code == 0
    assert f"HF_ENDPOINT={url}" in out
    assert f"OPENAI_BASE_URL={url}/v1" in out
    assert f"{url}/-/" in out
    assert len(re.findall(r"\bfh_[a-z0-9]{12}_", out)) == 1
    assert "stopped" in err
    assert running_server(open_home(tmp_path / "h")) is None
    with up(tmp_path / "h", "--port", "0", "--json") as again:
        again.ready()
        code, out, _ = again.end(signal.SIGINT)
    assert code == 0
    told = json.loads(out)
    assert told["admin_key"] is None, "a key is shown once"
    assert told["hub"] == told["url"]


def test_a_taken_port_is_said_to_be_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, up(tmp_path / "h", "--port", str(other.getsockname()[1])) as refused:
        code, _, err = refused.end(0)
    assert code == 69
    assert "server-port-taken" in err


def test_an_address_that_is_not_ours_is_a_clear_error(tmp_path: Path) -> None:
    with house(str(tmp_path / "h")) as opened:
        from freehold.flows import serving

        assert serving.first_key(opened.parts, opened.caller)
    with up(tmp_path / "h", "--host", "192.0.2.1", "--port", "0") as refused:
        code, _, err = refused.end(0)
    assert code == 69
    assert "server-bind-failed" in err


def test_beyond_this_machine_it_listens_only_once_there_is_a_key(tmp_path: Path) -> None:
    with up(tmp_path / "h", "--host", "0.0.0.0", "--port", "0") as refused:
        code, out, err = refused.end(0)
    assert code == 77
    assert "server-open-without-keys" in err
    assert "fh_" not in out + err, "no key is made by a start that is refused"
    with house(str(tmp_path / "h")) as opened:
        from freehold.flows import serving

        assert serving.first_key(opened.parts, opened.caller)
    with up(tmp_path / "h", "--host", "0.0.0.0", "--port", "0") as taken:
        assert taken.ready().startswith("http://127.0.0.1:")
        assert taken.end()[0] == 0


def test_a_running_transfer_may_end_after_the_signal_and_new_ones_are_refused(tmp_path: Path) -> None:
    data = os.urandom(30_000_000)
    with house(str(tmp_path / "h")) as opened:
        keep(opened.parts, "org/model", {"weights.bin": data})
    with up(tmp_path / "h", "--port", "0", "--quiet") as server:
        url = server.ready()
        with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)) as connection:
            connection.request("GET", "/org/model/resolve/main/weights.bin")
            answer = connection.getresponse()
            got = answer.read(1000)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError, match=r"refused|reset"):
                socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=5).close()
            got += answer.read()
        assert got == data
        assert server.process.wait(timeout=15) == 0


@pytest.mark.faults
def test_a_client_that_never_reads_cannot_keep_it_from_ending(tmp_path: Path) -> None:
    with house(str(tmp_path / "h")) as opened:
        keep(opened.parts, "org/model", {"weights.bin": bytes(30_000_000)})
    with up(tmp_path / "h", "--port", "0", "--quiet") as server:
        url = urlsplit(server.ready())
        with socket.create_connection((url.hostname, url.port), timeout=5) as client:
            client.sendall(b"GET /org/model/resolve/main/weights.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)  # a second signal ends the wait
            assert server.process.wait(timeout=5) == 0


@pytest.mark.faults
def test_a_killed_server_leaves_a_home_that_the_next_one_takes(tmp_path: Path) -> None:
    """With --quiet, which prints only what would be lost: the key."""
    with up(tmp_path / "h", "--port", "0", "--quiet") as first:
        first.ready()
        first.process.kill()
        out, err = first.process.communicate(timeout=10)
    assert (out[:3], len(out.split()), err) == ("fh_", 1, "")
    with up(tmp_path / "h", "--port", "0", "--quiet") as second:
        second.ready()
        code, out, err = second.end()
    assert (code, out, err) == (0, "", "")
