"""Pull-through at the door: an unknown model is fetched once, however many ask, and then served without its source."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from freehold.app import house
from freehold.testing.kept import keep
from freehold.testing.server import running_server
from freehold.web.send import SendfileProtocol
from freehold.web.server import build

_DATA = bytes(range(256)) * 3000
_HEADER = json.dumps({"w": {"dtype": "U8", "shape": [len(_DATA)], "data_offsets": [0, len(_DATA)]}}).encode()
WEIGHTS = len(_HEADER).to_bytes(8, "little") + _HEADER + _DATA
FILES = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": WEIGHTS}


def _transfers(folder: Path, name: str) -> int:
    time.sleep(1.2)  # the log is written once a second
    rows = [json.loads(line) for line in (folder / "access.log").read_text("utf-8").splitlines()]
    return sum(1 for row in rows if row["method"] == "GET" and row["path"].endswith(name))


def test_concurrent_first_asks_are_one_transfer_and_the_source_may_then_go(
    tmp_path: Path, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = type(ask)
    with house(str(tmp_path / "up")) as upstream:
        keep(upstream.parts, "org/model", FILES, lfs_from=1000)
        keep(upstream.parts, "org/private", FILES, private=True)
        with running_server(build(upstream), http=SendfileProtocol) as source:
            monkeypatch.setenv("FREEHOLD_HUB__UPSTREAMS", source)
            with house(str(tmp_path / "down")) as down, running_server(build(down), http=SendfileProtocol) as url:
                got: list[Any] = []
                path = "/org/model/resolve/main/model.safetensors"
                askers = [threading.Thread(target=lambda: got.append(asker(url)("GET", path))) for _ in range(12)]
                for thread in askers:
                    thread.start()
                for thread in askers:
                    thread.join(timeout=60)
                assert [(g.status, g.body == WEIGHTS) for g in got] == [(200, True)] * 12
                assert _transfers(upstream.parts.home.logs, "model.safetensors") == 1
                absent = asker(url)("GET", "/api/models/org/none")
                hidden = asker(url)("GET", "/api/models/org/private")
                assert (
                    (absent.status, absent.headers["x-error-code"])
                    == (hidden.status, hidden.headers["x-error-code"])
                    == (404, "RepoNotFound")
                )
                missing = asker(url)("HEAD", "/org/model/resolve/main/no-such-file")
                assert (missing.status, missing.headers["x-error-code"]) == (404, "EntryNotFound")
    monkeypatch.setenv("FREEHOLD_NET__RETRIES", "0")
    with house(str(tmp_path / "down")) as down, running_server(build(down), http=SendfileProtocol) as url:
        assert asker(url)("GET", path).body == WEIGHTS, "kept: nobody is asked"
        gone = asker(url)("GET", "/org/other/resolve/main/x")
        assert gone.status in (404, 502, 503, 504)
        assert gone.json["code"]


def test_a_client_that_leaves_does_not_stop_the_transfer(tmp_path: Path, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = type(ask)
    with house(str(tmp_path / "up")) as upstream:
        keep(upstream.parts, "org/model", FILES, lfs_from=1000)
        with running_server(build(upstream), http=SendfileProtocol) as source:
            monkeypatch.setenv("FREEHOLD_HUB__UPSTREAMS", source)
            with house(str(tmp_path / "down")) as down, running_server(build(down), http=SendfileProtocol) as url:
                with closing(HTTPConnection(urlsplit(url).netloc, timeout=5)) as impatient:
                    impatient.request("HEAD", "/org/model/resolve/main/model.safetensors")
                until = time.monotonic() + 20
                while not asker(url)("GET", "/api/models").json and time.monotonic() < until:
                    time.sleep(0.1)
                assert asker(url)("GET", "/org/model/resolve/main/model.safetensors").body == WEIGHTS
