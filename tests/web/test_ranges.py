"""Range, If-Range and If-None-Match as RFC 9110 has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.web.ranges import etag_matches, parse_range, range_applies


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=10-1000", (10, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes = 5 - 7", (5, 8)),
        ("bytes=00000-0004", (0, 5)),
    ],
)
def test_one_range_is_understood(header: str, expected: tuple[int, int]) -> None:
    found = parse_range(header, 100)
    assert found is not None
    assert (found.start, found.stop) == expected
    assert found.content_range == f"bytes {expected[0]}-{expected[1] - 1}/100"


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1,3-4", "items=0-1", "bytes=1-2x", "bytes=--1"],
)
def test_what_is_not_understood_or_not_single_means_the_whole(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_range_without_a_byte_is_refused_with_the_size(header: str, size: int) -> None:
    with pytest.raises(FreeholdError) as caught:
        parse_range(header, size)
    assert caught.value.code == "hub-range-not-satisfiable"
    assert caught.value.context["size"] == size


@given(st.text(max_size=40), st.integers(0, 2**63))
def test_no_header_breaks_the_parser(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except FreeholdError:
        return
    assert found is None or 0 <= found.start < found.stop <= size


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ('"abc"', True),
        ("abc", True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"abcd"', False),
        ("", False),
    ],
)
def test_if_none_match(header: str | None, matches: bool) -> None:
    assert etag_matches(header, "abc") is matches


@pytest.mark.parametrize(
    ("header", "applies"),
    [(None, True), ('"abc"', True), ('W/"abc"', False), ('"abd"', False), ("Sat, 21 Nov 2026 00:00:00 GMT", False)],
)
def test_if_range_needs_the_same_strong_etag(header: str | None, applies: bool) -> None:
    assert range_applies(header, "abc") is applies
