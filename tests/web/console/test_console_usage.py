"""Usage in the console: the same numbers as the ledger's records, an admin sees all keys and others their own."""

from __future__ import annotations

import re
from typing import Any

from freehold.use.ledger import list_usage
from freehold.web.console.pictures import columns, plat, tints
from freehold.web.console.words import ago, count, grouped, moment, money, size, ticks

THIN = "\u202f"


def _say(home: Any, role: str, text: str) -> None:
    browser = home.browser(role)
    fields = {"csrf": browser.get("/-/chat").token(), "model": "echo", "text": text, "history": "[]", "limit": "20"}
    assert browser.post("/-/chat", fields).status == 200


def _figure(page: str, title: str) -> str:
    found = re.search(rf"<dt>{title}</dt>\s*<dd[^>]*?(?: title=\"([^\"]*)\")?>([^<]*)</dd>", page)
    assert found, title
    return found[1] or found[2]


def test_totals_and_tables_are_those_of_the_records(own: Any) -> None:
    for role, text in (("admin", "one two"), ("chat", "three"), ("chat", "four five six")):
        _say(own, role, text)
    with own.house.parts.ledger.read() as tx:
        records = list_usage(tx)
    page = own.browser("admin").get("/-/usage").text
    assert _figure(page, "Requests") == "3"
    assert _figure(page, "Generated tokens") == grouped(sum(r.counts.generated for r in records))
    assert _figure(page, "Prompt tokens") == grouped(sum(r.counts.prompt for r in records))
    for title in ("By model", "By key", "By day"):
        assert f">{title}</h2>" in page
    assert 'scope="row">echo' in page
    assert "chat key" in page
    assert "admin key" in page
    bars = re.findall(r"<title>\d\d-\d\d, (generated|prompt): ([\d\u202f]+)</title>", page)
    assert {kind: int(amount.replace(THIN, "")) for kind, amount in bars} == {
        "generated": sum(r.counts.generated for r in records),
        "prompt": sum(r.counts.prompt for r in records),
    }


def test_a_key_that_is_no_admin_sees_its_own_requests_only(own: Any) -> None:
    _say(own, "admin", "secret words")
    _say(own, "chat", "own words")
    page = own.browser("chat").get("/-/usage").text
    assert _figure(page, "Requests") == "1"
    assert "admin key" not in page
    assert own.browser("read").get("/-/usage").status == 403


def test_a_span_without_requests_says_so(own: Any) -> None:
    _say(own, "admin", "long ago")
    own.pass_time(10 * 86_400)
    browser = own.browser("admin")
    assert "No request in these 7 days" in browser.get("/-/usage?days=7").text
    assert _figure(browser.get("/-/usage?days=30").text, "Requests") == "1"
    assert "since" in browser.get("/-/usage?days=nonsense").text


def test_numbers_read_as_people_write_them() -> None:
    assert [size(n) for n in (0, 999, 1000, 98_362_432, 14_483_464_192, 2 * 10**15)] == [
        f"{a}{THIN}{u}" for a, u in (("0", "B"), ("999", "B"), ("1.0", "kB"), ("98.4", "MB"), ("14.5", "GB"), ("2000.0", "TB"))
    ]
    assert [count(n) for n in (None, 0, 999, 134_515_008, 7_241_732_096)] == ["–", "0", "999", f"134.5{THIN}M", f"7.2{THIN}B"]
    assert grouped(1_234_567) == f"1{THIN}234{THIN}567"
    assert [money(m, "EUR") for m in (0, 1_250_000, -10_000, 1, 1_234_567_890_000, 120)] == [
        f"{text}{THIN}EUR" for text in ("0.00", "1.25", "-0.01", "0.000001", f"1{THIN}234{THIN}567.89", "0.00012")
    ]
    assert [ago(0, s * 1_000_000) for s in (5, 60, 7200, 200_000)] == [
        "just now",
        f"1{THIN}min ago",
        f"2{THIN}h ago",
        f"2{THIN}d ago",
    ]
    assert moment(0) == "1970-01-01 00:00 UTC"


def test_hints_become_code_between_backticks_and_nothing_else() -> None:
    assert str(ticks("run `freehold <ls>` & go")) == "run <code>freehold &lt;ls&gt;</code> &amp; go"
    assert str(ticks("one ` alone <b>")) == "one ` alone &lt;b&gt;"


def test_a_plot_is_divided_in_proportion_and_leaves_nothing_out() -> None:
    amounts = {"Q4_1": 66_355_200, "Q8_0": 30_081_024, "F32": 140_544, "none": 0}
    plots = plat(amounts, 240, 150)
    area = sum(p.width * p.height for p in plots)
    assert abs(area - 240 * 150) < 1
    assert {p.label for p in plots} == {"Q4_1", "Q8_0", "F32"}
    for p in plots:
        assert abs(p.width * p.height / (240 * 150) - amounts[p.label] / sum(amounts.values())) < 0.001
        assert 0 <= p.x <= p.x + p.width <= 240.01
        assert 0 <= p.y <= p.y + p.height <= 150.01
    assert plat({}, 10, 10) == ()
    assert plat({"x": 0}, 10, 10) == ()


def test_bars_stand_on_the_ground_and_below_the_scale() -> None:
    coloured = tints(("a", "b"))
    picture = columns([("mon", {"a": 3, "b": 1}), ("tue", {}), ("wed", {"a": 10})], 300, 100, coloured)
    top = picture.ticks[-1].amount
    assert top >= 10
    assert picture.ticks[-1].y == 0
    by = {b.label: b for b in picture.bars}
    assert set(by) == {"mon, a", "mon, b", "wed, a"}
    assert by["mon, a"].y + by["mon, a"].height == 100
    assert abs(by["mon, b"].y + by["mon, b"].height - by["mon, a"].y) < 0.02
    assert by["wed, a"].height == 100 * 10 / top
    assert columns([], 300, 100, coloured).bars == ()
    assert columns([("x", {"a": 0})], 300, 100, coloured).ticks == ()
