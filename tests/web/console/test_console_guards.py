"""Who gets in, and what is refused: sessions, forms from elsewhere, keys that may less."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Mount, Route

from freehold.catalog import events
from freehold.flows import keys

routes = importlib.import_module("freehold.web.console.routes")  # the package has a function of this name


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(console: Any) -> None:
    entered = console.browser().log_in(console.keys["admin"])
    assert entered.status == 303
    session = next(c for c in entered.cookies if c.startswith("freehold_session="))
    for part in ("HttpOnly", "SameSite=strict", "Path=/-/"):
        assert part in session
    assert "Secure" not in session  # plain http on loopback: a Secure cookie would never come back
    age = re.search(r"Max-Age=(\d+)", session)
    assert age
    assert 0 < int(age[1]) <= 12 * 3600
    assert console.keys["admin"] not in session
    assert any(c.startswith("freehold_login=") and "Max-Age=0" in c for c in entered.cookies)


def test_a_wrong_key_is_refused_and_not_repeated(console: Any) -> None:
    for key in ("fh_aaaaaaaaaaaa_" + "b" * 43, "", "nonsense", console.keys["admin"][:-1], "\x00", "ü" * 100):
        refused = console.browser().log_in(key)
        assert refused.status == 401
        assert 'role="alert"' in refused.text
        assert not any(c.startswith("freehold_session=") for c in refused.cookies)
        assert not key or key not in refused.text


@pytest.mark.parametrize("path", ["/-/chat", "/-/keys", "/-/usage", "/-/events", "/-/events/chain", "/-/keys/abc/revoke"])
def test_without_a_key_the_page_asks_for_one_and_comes_back(console: Any, path: str) -> None:
    browser = console.browser()
    asked = browser.get(f"{path}?x=1")
    assert asked.status == 303
    assert asked.place.startswith("/-/login?return=%2F-%2F")
    entered = browser.log_in(console.keys["admin"], back=f"{path}?x=1")
    assert entered.place == f"{path}?x=1"
    live = console.browser().get(path, HX_Request="true", HX_Target="log")
    assert live.headers["hx-redirect"].startswith("/-/login?return=")


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/", "//evil.example/", "/\\evil.example/", "/-/\\..\\evil", "/-/../evil", "/-//evil.example",
        "javascript:alert(1)", "/-/a\nb", "/elsewhere", "http:/-/", "\t//evil.example", "/-/../../evil",
    ],
)  # fmt: skip
def test_login_leads_nowhere_but_into_the_console(console: Any, target: str) -> None:
    assert console.browser().log_in(console.keys["chat"], back=target).place == "/-/"


def _posts() -> list[str]:
    return [r.path for r in routes._routes() if isinstance(r, Route) and "POST" in (r.methods or ())]


def test_every_form_without_its_token_is_refused_and_changes_nothing(console: Any) -> None:
    browser = console.browser("admin")
    assert len(_posts()) >= 6
    for path in _posts():
        for token in ("", "0" * 64, console.browser("admin").get("/-/keys").token()):
            fields = {"csrf": token, "name": "stolen", "scope": "admin", "days": "0", "text": "hello", "model": "echo"}
            refused = browser.post("/-" + path.replace("{key}", "abc"), fields)
            assert refused.status == 403, path
            assert "console-form-refused" in refused.text
    after = browser.get("/-/keys").text
    assert "chat key" in after  # the control: the list is there, and the session too
    assert "stolen" not in after


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_form_from_another_origin_is_refused_even_with_its_token(own: Any, origin: str) -> None:
    browser = own.browser("admin")
    fields = {"csrf": browser.get("/-/keys").token(), "name": "stolen", "scope": "admin", "days": "0"}
    assert browser.post("/-/keys", fields, Origin=origin).status == 403
    assert "stolen" not in browser.get("/-/keys").text
    assert browser.post("/-/keys", fields).status == 303  # the control: the same form from here


def test_a_token_of_the_login_page_is_no_token_of_a_session(console: Any) -> None:
    browser = console.browser()
    early = browser.get("/-/login").token()
    browser.log_in(console.keys["admin"])
    assert browser.post("/-/logout", {"csrf": early}).status == 403
    assert browser.get("/-/keys").status == 200


def test_bodies_that_are_no_form_are_refused_in_words(console: Any) -> None:
    browser = console.browser("admin")
    plain = browser._ask("POST", "/-/keys", b"{}", {"Content-Type": "application/json", "Origin": console.url})
    assert plain.status == 400
    assert "server-bad-request" in plain.text
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": console.url}
    assert browser._ask("POST", "/-/keys", b"csrf=%ff%fe&\xff", form).status == 400
    assert browser._ask("POST", "/-/keys", b"&".join(b"a=%d" % i for i in range(500)), form).status == 400
    assert browser._ask("POST", "/-/usage", b"", form).status == 405


def test_logging_out_ends_the_session_itself_not_the_cookie_alone(console: Any) -> None:
    browser = console.browser("admin")
    stolen = dict(browser.jar)
    gone = browser.post("/-/logout", {"csrf": browser.get("/-/").token()})
    assert gone.status == 303
    assert "freehold_session" not in browser.jar
    again = console.browser()
    again.jar.update(stolen)
    answer = again.get("/-/keys")
    assert answer.status == 303
    assert "freehold_session" not in again.jar  # taken back, since it is dead


def test_a_session_ends_with_its_time(own: Any) -> None:
    browser = own.browser("admin")
    assert browser.get("/-/keys").status == 200
    own.pass_time(12 * 3600 - 60)
    assert browser.get("/-/keys").status == 200
    own.pass_time(120)
    assert browser.get("/-/keys").status == 303
    assert browser.get("/-/").status == 200


def test_a_session_ends_with_its_key_at_once(own: Any) -> None:
    browser, other = own.browser("chat"), own.browser("admin")
    assert browser.get("/-/chat").status == 200
    public = own.keys["chat"].split("_")[1]
    keys.revoke_key(own.house.parts, own.house.caller, public)
    answer = browser.get("/-/chat")
    assert answer.status == 303
    assert "Your session has ended" in other.get("/-/login").text or other.get("/-/login").status == 303
    assert other.get("/-/keys").status == 200


def test_who_comes_with_an_ended_session_is_told_so(own: Any) -> None:
    browser = own.browser("chat")
    keys.revoke_key(own.house.parts, own.house.caller, own.keys["chat"].split("_")[1])
    page = browser.get("/-/login")
    assert "Your session has ended" in page.text
    assert browser.log_in(own.keys["admin"]).status == 303


def test_a_key_that_may_less_sees_less(console: Any) -> None:
    chat, read = console.browser("chat"), console.browser("read")
    assert chat.get("/-/chat").status == 200
    for browser in (chat, read):
        assert browser.get("/-/").status == 200
        for path in ("/-/keys", "/-/events", "/-/events/chain"):
            page = browser.get(path)
            assert page.status == 403
            assert "access-scope-missing" in page.text
            assert "Log out" in page.text
    assert read.get("/-/chat").status == 403
    token = read.get("/-/").token()
    assert read.post("/-/chat", {"csrf": token, "model": "echo", "text": "hello"}).status == 403
    assert read.post("/-/keys", {"csrf": token, "name": "x", "scope": "admin", "days": "0"}).status == 403


def test_a_house_that_is_closed_to_the_anonymous_asks_for_a_key_and_gives_files_to_a_session(
    tmp_path: Path, open_home: Any
) -> None:
    with open_home(tmp_path / "home", anonymous_read=False) as found:
        stranger = found.browser()
        for path in ("/-/", "/-/models/lab/atlas", "/-/models/lab/atlas/-/files"):
            assert stranger.get(path).status == 303
        browser = found.browser("read")
        page = browser.get("/-/models/lab/atlas")
        link = re.search(r'href="(/-/models/lab/atlas/-/raw/[0-9a-f]{40}/[^"]*safetensors)\?download=true"', page.text)
        assert link
        got = browser.get(link[1])
        assert got.status == 200
        assert got.headers["content-disposition"].startswith("attachment")
        assert got.headers["content-type"] == "application/octet-stream"
        files = [p.read_bytes() for p in (tmp_path / "lab" / "atlas").glob("*.safetensors")]
        assert got.body in files
        assert len(got.body) == int(got.headers["content-length"])
        assert stranger.get(link[1]).status == 303


def test_the_log_is_paged_filtered_and_its_chain_is_checked(own: Any) -> None:
    parts = own.house.parts
    for i in range(120):
        with parts.catalog.write() as tx:
            events.append_event(tx, parts.clock(), "owner", "model.pulled", f"lab/m{i:03}", {"files": i})
    browser = own.browser("admin")
    first = browser.get("/-/events")
    older = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert older
    seen = re.findall(r"lab/m\d{3}", first.text) + re.findall(r"lab/m\d{3}", browser.get(older[1].replace("&amp;", "&")).text)
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) > 90
    only = browser.get("/-/events?kind=key").text
    assert "key.created" in only
    assert "model.pulled" not in only
    assert re.findall(r">(lab/m\d{3})<", browser.get("/-/events?q=lab/m042").text) == ["lab/m042"]
    assert "No event matches" in browser.get("/-/events?q=nothing+like+it").text
    assert "chain verified" in browser.get("/-/events/chain").text
    with parts.catalog.write() as tx:
        tx.exec_driver_sql("DROP TRIGGER events_keep_fields")
        tx.exec_driver_sql("UPDATE events SET subject = 'forged' WHERE seq = 50")
    broken = browser.get("/-/events/chain", HX_Target="chain")
    assert "The chain is broken" in broken.text
    assert "50" in broken.text


def test_all_routes_stand_under_the_consoles_own_path(console: Any) -> None:
    made = routes.routes(console.house)
    assert all(r.path.startswith("/-") for r in made if isinstance(r, Route | Mount))
