"""URLs and headers as they may leave the house."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.net.urls import check_headers, join, parse_url, redact, without_secrets


@pytest.mark.parametrize(
    "text",
    ["file:///etc/passwd", "ftp://host/x", "gopher://host", "//host/x", "host/x", "http://", "http:///x", "http://host:0/",
     "http://host:99999/", "http://ho st/", "http://host/\r\nX: y", "http://host/a b", "http://[fe80::1%25eth0]/", "http://[::1/",
     "", "javascript:alert(1)"],
)  # fmt: skip
def test_what_is_not_an_http_url_is_refused_with_a_code(text: str) -> None:
    with pytest.raises(FreeholdError) as caught:
        parse_url(text)
    assert caught.value.code == "net-url-invalid"


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_or_the_redaction_fail_otherwise(text: str) -> None:
    redact(text)
    for candidate in (text, f"http://{text}", f"https://host/{text}"):
        redact(candidate)
        try:
            target = parse_url(candidate)
        except FreeholdError as error:
            assert error.code == "net-url-invalid"
        else:
            assert parse_url(target.url).origin == target.origin


def test_userinfo_becomes_a_header_and_leaves_the_url() -> None:
    target = parse_url("https://me:p%40ss@Host.test:8443/a?b=c#d")
    assert target.url == "https://host.test:8443/a?b=c"
    assert target.authorization == "Basic bWU6cEBzcw=="
    assert (target.place, parse_url("http://[::1]/").place) == ("host.test:8443", "[::1]:80")


def test_redaction_hides_userinfo_query_values_and_fragments() -> None:
    shown = redact("https://me:secret@host.test/path?X-Amz-Signature=secret&token=secret&plain#secret")
    assert shown == "https://host.test/path?X-Amz-Signature=***&token=***&plain=***"
    assert "secret" not in redact("me:secret@host?secret")
    assert "secret" not in redact("https://[broken?token=secret")
    assert "secret" not in redact("http://user:secret@[::1/")


def test_redirect_targets_are_joined_like_a_browser_does_but_carry_no_userinfo() -> None:
    base = parse_url("https://a.test/x/y?q")
    assert join(base, "../z").url == "https://a.test/z"
    assert join(base, "//b.test/w").url == "https://b.test/w"
    assert join(base, "https://u:p@c.test/").authorization is None
    with pytest.raises(FreeholdError):
        join(base, "file:///etc/passwd")


@pytest.mark.parametrize(
    ("name", "value"), [("X", "a\r\nB: c"), ("X", "a\nb"), ("X", "a\0"), ("X\r\n", "a"), ("X Y", "a"), ("", "a"), ("X", "日")]
)
def test_headers_that_could_be_two_are_refused_and_the_value_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(FreeholdError) as caught:
        check_headers({name: value})
    assert caught.value.code == "net-header-invalid"
    with pytest.raises(FreeholdError) as secret:
        check_headers({"Authorization": "Bearer hunter2\n"})
    assert "hunter2" not in str(secret.value.as_dict())


def test_secret_headers_stay_behind_whatever_their_case() -> None:
    assert without_secrets({"AUTHORIZATION": "x", "Cookie": "y", "X-Api-Key": "z", "Range": "bytes=0-"}) == {"Range": "bytes=0-"}
