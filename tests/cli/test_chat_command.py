"""`freehold chat` on a terminal and in a pipe: answers, Ctrl-C, the record of it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_USE__ECHO", "true")


def records(run: Any) -> list[dict[str, Any]]:
    done = run("usage", "--requests", "10", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_prompt_is_answered_on_stdout_and_metered_as_the_owners(run: Any) -> None:
    done = run("chat", "echo", "one two three")
    assert (done.code, done.out, done.err) == (0, "one two three\n", "")
    piped = run("chat", "echo", "-", "--max-tokens", "3", "--json", stdin="one two")
    assert json.loads(piped.out) == {"model": "echo", "answer": "one two one", "ended": "length", "prompt": 2, "generated": 3}
    assert [(r["principal"], r["generated"], r["outcome"]) for r in records(run)] == [("owner", 3, "settled")] * 2


def test_without_a_model_it_lists_what_can_be_talked_with(run: Any) -> None:
    assert json.loads(run("chat", "--json").out) == [{"model": "echo", "engine": "echo", "origin": "local", "context": 4096}]


def test_an_unknown_model_is_a_failure_with_its_code(run: Any) -> None:
    done = run("chat", "no/such", "hi")
    assert done.code == 66
    assert "use-model-not-found" in done.err
    assert done.out == ""


def test_ctrl_c_stops_the_answer_cleanly_and_what_was_delivered_is_recorded(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_USE__CONTEXT", "100000000")
    argv = [sys.executable, "-u", "-m", "freehold", "chat", "echo", "word", "--max-tokens", "50000000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(20).startswith(b"word word")
        child.send_signal(signal.SIGINT)
        said = child.stdout.read().decode()
        told = child.stderr.read().decode()
        assert child.wait(20) == 130
    assert "Traceback" not in told
    assert "stopped" in told
    (record,) = records(run)
    assert (record["outcome"], record["reason"]) == ("interrupted", "cancelled")
    assert 0 < record["delivered"] <= record["generated"] < 50_000_000
    assert abs((20 + len(said)) / len(" word") - record["delivered"]) <= 2


def test_a_conversation_keeps_what_was_said_until_it_is_told_to_forget(run: Any) -> None:
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "freehold", "chat", "echo"]
    child = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    seen = b""

    def until(text: bytes, count: int) -> None:
        nonlocal seen
        end = time.monotonic() + 20
        while seen.count(text) < count and time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536)
        assert seen.count(text) >= count, seen

    try:
        until(b"> ", 1)
        for number, line in enumerate([b"one two", b"three", b"/new", b"four"], 2):
            os.write(master, line + b"\n")
            until(b"> ", number)
        os.write(master, b"\n")
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()
        os.close(master)
    assert [r["prompt"] for r in records(run)] == [1, 5, 2]
