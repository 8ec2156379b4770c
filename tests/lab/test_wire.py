"""The small rules beneath the lab's origin: ranges, addresses and card edits, each against its plain meaning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from freehold.formats.card import parse_card
from freehold.lab.address import Address, read_address
from freehold.lab.card import set_body, set_field, write_card
from freehold.lab.wire import read_range


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_span_is_what_slicing_gives(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    for header, wanted in ((f"bytes={first}-{last}", data[first : last + 1]), (f"bytes={first}-", data[first:])):
        span = read_range(header, size)
        if last < first and header.endswith(str(last)):
            assert span == read_range(None, size), "a range that ends before it begins is ignored"
        elif first >= size:
            assert span is None
        else:
            assert span is not None
            assert (span.partial, data[span.start : span.stop]) == (True, wanted)
    suffix = read_range(f"bytes=-{last}", size)
    assert (suffix is None) == (last == 0 or size == 0)
    if suffix is not None:
        assert data[suffix.start : suffix.stop] == data[-last:]


@given(st.text(max_size=30))
def test_no_range_header_breaks_the_origin(header: str) -> None:
    span = read_range(header, 10)
    assert span is None or 0 <= span.start <= span.stop <= 10


@given(st.text(max_size=80))
def test_no_path_breaks_the_origin(path: str) -> None:
    assert isinstance(read_address(path), Address)


def test_addresses_keep_revisions_with_slashes_and_models_without_a_namespace() -> None:
    expected = {
        "/api/models/org/m/tree/refs%2Fpr%2F1/a/b": Address("tree", "org/m", "refs/pr/1", "a/b"),
        "/api/models/gpt2": Address("info", "gpt2"),
        "/api/models/gpt2/revision/v1.0": Address("info", "gpt2", "v1.0"),
        "/api/models/org/m/revision/feature%2Fx": Address("info", "org/m", "feature/x"),
        "/api/models/org/tree/tree/main": Address("tree", "org/tree", "main"),
        "/api/models/org/m/paths-info/main": Address("paths-info", "org/m", "main"),
        "/gpt2/resolve/main/config.json": Address("resolve", "gpt2", "main", "config.json"),
        "/org/m/resolve/refs%2Fpr%2F1/a/b%20c": Address("resolve", "org/m", "refs/pr/1", "a/b c"),
        "/org/resolve/resolve/main/x": Address("resolve", "org/resolve", "main", "x"),
        "/datasets/org/d/resolve/main/x": Address("resolve", "org/d", "main", "x", "datasets"),
        "/api/models": Address("list"),
        "/api/models/org/m/commit/main": Address(""),
    }
    assert {path: read_address(path) for path in expected} == expected


LICENSES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f\x85\xa0", exclude_categories=["C", "Z"]),
    min_size=1,
)


@given(LICENSES, LICENSES)
def test_an_edited_card_reads_back_and_keeps_its_other_lines(license_: str, base: str) -> None:
    text = write_card({"license": "mit", "tags": ["a", "b"], "pipeline_tag": "text-generation"}, "# Title\n\n---\nnot metadata\n")
    edited = set_field(set_field(text, "license", license_), "base_model", base)
    card = parse_card(edited)
    assert (card.license, card.base_models, card.tags, card.pipeline_tag) == (license_, (base,), ("a", "b"), "text-generation")
    assert edited.endswith("# Title\n\n---\nnot metadata\n")
    assert parse_card(set_field(edited, "tags", None)).tags == ()
    assert parse_card(set_body(edited, "new\n")).license == license_


def test_a_text_without_metadata_gets_some_and_keeps_its_words() -> None:
    for text in ("", "# only a title\n", "---\nnever: closed\n"):
        edited = set_field(text, "license", "mit")
        assert parse_card(edited).license == "mit"
        assert edited.endswith(text)
