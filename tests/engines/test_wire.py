"""Server-sent streams as servers really send them."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines.wire import events
from freehold.errors import FreeholdError


def _read(*pieces: bytes) -> list[tuple[str, str]]:
    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def story() -> list[tuple[str, str]]:
        return [event async for event in events(source())]

    return asyncio.run(story())


STREAM = (
    'data: {"a": "ü🤖"}\n\n: ping\n\ndata: one\ndata: two\r\n\r\nid: 7\nevent: x\ndata:three\n\n'
    'error: {"code": 500}\n\ndata: [DONE]\n\n'
).encode()
WHOLE = [("data", '{"a": "ü🤖"}'), ("data", "one\ntwo"), ("data", "three"), ("error", '{"code": 500}'), ("data", "[DONE]")]


def test_comments_line_ends_and_other_fields_are_read_as_the_standard_says() -> None:
    assert _read(STREAM) == WHOLE
    assert _read(STREAM.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")) == WHOLE
    assert _read(STREAM, b"data: cut off") == WHOLE


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_the_events_are_the_same_however_the_transport_cuts_the_bytes(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    assert _read(*(STREAM[a:b] for a, b in itertools.pairwise(at))) == WHOLE


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    for endless in (b"x" * 65536, b"data: x\n" * 8192):
        with pytest.raises(FreeholdError) as caught:
            _read(*([b"data: "] + [endless] * 1000))
        assert caught.value.code == "engines-malformed"
