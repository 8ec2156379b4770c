"""Keys in the console: a secret is shown once, and revoking asks first."""

from __future__ import annotations

import re
from typing import Any

import pytest

from freehold.flows import keys

TOKEN = re.compile(r"fh_[a-z0-9]{12}_[A-Za-z0-9_-]{43}")


def _fields(browser: Any, **more: str) -> list[tuple[str, str]]:
    fields = {"csrf": browser.get("/-/keys").token(), "name": "a new one", "days": "30"} | more
    return [*fields.items(), ("scope", "read"), ("scope", "chat")]


def test_a_new_secret_is_shown_once_and_works(own: Any) -> None:
    browser = own.browser("admin")
    made = browser.post("/-/keys", _fields(browser))
    assert made.status == 303
    assert not TOKEN.search(made.place)
    page = browser.get(made.place)
    assert page.headers["cache-control"] == "no-store"
    found = TOKEN.search(page.text)
    assert found
    assert len(TOKEN.findall(page.text)) == 1
    caller = keys.identify(own.house.parts, found[0], "test")
    assert {str(s) for s in caller.scopes} == {"read", "chat"}
    count = len(keys.list_keys(own.house.parts, own.house.caller))
    again = browser.get(made.place)
    assert not TOKEN.search(again.text)
    assert "shown once" in again.text
    assert not TOKEN.search(browser.get("/-/keys").text)
    assert not TOKEN.search(browser.get("/-/events").text)
    assert len(keys.list_keys(own.house.parts, own.house.caller)) == count
    assert own.browser().log_in(found[0]).status == 303


def test_a_new_secret_is_for_the_session_that_made_it_and_not_for_long(own: Any) -> None:
    browser, other = own.browser("admin"), own.browser("admin")
    place = browser.post("/-/keys", _fields(browser)).place
    assert not TOKEN.search(other.get(place).text)
    assert TOKEN.search(browser.get(place).text)
    place = browser.post("/-/keys", _fields(browser)).place
    own.pass_time(301)
    assert not TOKEN.search(browser.get(place).text)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "x" * 81}, {"name": "a\x00b"}, {"days": "7"}, {"days": "x"}, {"scope": "root"}]
)
def test_a_wrong_field_is_said_and_what_was_typed_stays(own: Any, wrong: dict[str, str]) -> None:
    browser = own.browser("admin")
    before = len(keys.list_keys(own.house.parts, own.house.caller))
    page = browser.post("/-/keys", _fields(browser, **wrong))
    assert page.status == 400
    assert 'role="alert"' in page.text
    assert "checked" in page.text
    assert len(keys.list_keys(own.house.parts, own.house.caller)) == before


def test_a_key_needs_a_scope(own: Any) -> None:
    browser = own.browser("admin")
    assert browser.post("/-/keys", {"csrf": browser.get("/-/keys").token(), "name": "n", "days": "0"}).status == 400


def test_revoking_asks_first_then_ends_the_key(own: Any) -> None:
    browser = own.browser("admin")
    public = own.keys["read"].split("_")[1]
    assert f'href="/-/keys/{public}/revoke"' in browser.get("/-/keys").text
    page = browser.get(f"/-/keys/{public}/revoke")
    assert "read key" in page.text
    assert own.browser().log_in(own.keys["read"]).status == 303  # asking has ended nothing
    assert browser.post(f"/-/keys/{public}/revoke", {"csrf": page.token()}).place == "/-/keys"
    assert own.browser().log_in(own.keys["read"]).status == 401
    assert "revoked" in browser.get("/-/keys").text
    assert browser.get("/-/keys/nokey/revoke").status == 404


def test_revoking_ones_own_key_says_so_and_ends_ones_session(own: Any) -> None:
    browser = own.browser("admin")
    public = own.keys["admin"].split("_")[1]
    page = browser.get(f"/-/keys/{public}/revoke")
    assert "the key you are signed in with" in page.text
    assert browser.post(f"/-/keys/{public}/revoke", {"csrf": page.token()}).place == "/-/"
    assert browser.get("/-/keys").status == 303
