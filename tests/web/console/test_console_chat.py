"""Chat in the console, over plain HTTP: whole and streamed answers, many turns, escaping, clients that leave."""

from __future__ import annotations

import html
import json
import re
import socket
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from freehold.nouns.usage import Outcome
from freehold.use.ledger import list_usage

ATTACK = "<script>alert(1)</script>**bold** &amp; <img src=x onerror=alert(2)>"


def _fields(browser: Any, text: str, **more: str) -> dict[str, str]:
    return {"csrf": browser.get("/-/chat").token(), "model": "echo", "text": text, "history": "[]", "limit": "200"} | more


def _events(body: str) -> list[tuple[str, dict[str, Any]]]:
    frames = [frame.split("\n") for frame in body.split("\n\n") if frame]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in frames]


def test_without_scripts_a_form_brings_the_whole_answer_and_the_next_turn_knows_the_last(console: Any) -> None:
    browser = console.browser("chat")
    page = browser.post("/-/chat", _fields(browser, "first words"))
    assert page.status == 200
    said = re.findall(r'<p class="said">(.*?)</p>', page.text, re.DOTALL)
    assert said[0] == "first words"
    assert "first words" in said[1]
    assert re.search(r"\d+ tokens in [\d.]+ s", page.text)
    history = re.search(r'name="history" value="([^"]*)"', page.text)
    assert history
    kept = html.unescape(history[1])
    assert [t["role"] for t in json.loads(kept)] == ["user", "assistant"]
    second = browser.post("/-/chat", _fields(browser, "second words", history=kept))
    assert len(re.findall(r'<li class="turn (?:user|assistant)">', second.text)) == 4


def test_what_a_model_says_is_text_in_both_ways(console: Any) -> None:
    browser = console.browser("chat")
    page = browser.post("/-/chat", _fields(browser, ATTACK))
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text
    assert "<b>" not in page.text
    assert page.text.count(html.escape(ATTACK, quote=True)) + page.text.count(html.escape(ATTACK, quote=False)) >= 2
    streamed = browser.post("/-/chat/stream", _fields(browser, ATTACK))
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["x-content-type-options"] == "nosniff"
    assert ATTACK in "".join(d["text"] for kind, d in _events(streamed.text) if kind == "text")


def test_a_stream_ends_with_what_the_ledger_has(console: Any) -> None:
    browser = console.browser("chat")
    found = _events(browser.post("/-/chat/stream", _fields(browser, "one two three four five")).text)
    assert [kind for kind, _ in found[:-1]] == ["text"] * (len(found) - 1)
    assert len(found) > 3
    kind, data = found[-1]
    assert kind == "end"
    with console.house.parts.ledger.read() as tx:
        record = list_usage(tx, limit=1)[0]
    assert f"{record.counts.generated} tokens in" in data["meter"]
    assert record.principal == f"key:{console.keys['chat'].split('_')[1]}"


def test_a_failure_before_the_first_word_is_a_status_with_code_and_hint(console: Any) -> None:
    browser = console.browser("chat")
    unknown = browser.post("/-/chat/stream", _fields(browser, "hello", model="lab/none"), Accept="text/event-stream")
    assert unknown.status == 404
    assert json.loads(unknown.text)["code"] == "use-model-not-found"
    page = browser.post("/-/chat", _fields(browser, "hello there", model="lab/none"))
    assert page.status == 404
    assert 'id="failure"' in page.text
    assert ">hello there</textarea>" in page.text  # what was asked is not lost
    for wrong in (
        {"text": " "},
        {"history": "{"},
        {"history": '[{"role": "system", "content": "x"}]'},
        {"limit": "-1"},
        {"limit": "0"},
    ):
        assert browser.post("/-/chat", _fields(browser, "hello") | wrong).status == 400, wrong
        assert browser.post("/-/chat/stream", _fields(browser, "hello") | wrong).status == 400, wrong


def test_instructions_go_before_the_conversation(console: Any) -> None:
    browser = console.browser("chat")
    page = browser.post("/-/chat", _fields(browser, "hello", system="be brief"))
    assert ">be brief</textarea>" in page.text
    history = re.search(r'name="history" value="([^"]*)"', page.text)
    assert history
    assert "be brief" not in history[1]


def test_a_browser_that_leaves_ends_the_generation_and_is_on_record(console: Any) -> None:
    browser = console.browser("chat")
    body = urlencode(_fields(browser, "word " * 50, limit="1000000")).encode()
    cookie = "; ".join(f"{k}={v}" for k, v in browser.jar.items())
    head = (
        f"POST /-/chat/stream HTTP/1.1\r\nHost: {urlsplit(console.url).netloc}\r\nCookie: {cookie}\r\nOrigin: {console.url}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with console.house.parts.ledger.read() as tx:
        before = len(list_usage(tx, limit=1000))
    with socket.create_connection((urlsplit(console.url).hostname, urlsplit(console.url).port), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        seen = b""
        while b"event: text" not in seen:
            seen += connection.recv(4096)
    until = time.monotonic() + 10
    records: list[Any] = []
    while time.monotonic() < until and len(records) <= before:
        time.sleep(0.05)
        with console.house.parts.ledger.read() as tx:
            records = list_usage(tx, limit=1000)
    assert len(records) == before + 1
    assert records[0].outcome == Outcome.INTERRUPTED
    assert 0 < records[0].counts.generated < 1_000_000
