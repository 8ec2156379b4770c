"""Model cards: what is read is what was written, and what is beyond the subset costs its own field only."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.formats.card import Card, parse_card


def card(front: str) -> Card:
    return parse_card(f"---\n{front}\n---\n# Title\n")


def test_the_fields_of_a_usual_card() -> None:
    found = parse_card(
        b"---\r\n"
        b"license: other # see below\r\n"
        b"license_name: 'llama3.2'\r\n"
        b'license_link: "https://example.org/LICENSE#top"\r\n'
        b"language:\r\n- en\r\n- no\r\n"
        b"base_model:\r\n  - meta-llama/Llama-3.2-1B\r\n  # the second\r\n\r\n  - org/other\r\n"
        b"base_model_relation: merge\r\n"
        b"tags: [a, \"b, c\", 'it''s']\r\n"
        b"pipeline_tag: text-generation\r\n"
        b"library_name: transformers\r\n"
        b"---\r\ntext\r\n"
    )
    assert found.problem is None
    assert found.unreadable == {}
    assert (found.license, found.license_name, found.license_link) == ("other", "llama3.2", "https://example.org/LICENSE#top")
    assert found.languages == ("en", "no")
    assert found.base_models == ("meta-llama/Llama-3.2-1B", "org/other")
    assert (found.base_model_relation, found.tags) == ("merge", ("a", "b, c", "it's"))
    assert (found.pipeline_tag, found.library_name) == ("text-generation", "transformers")


def test_one_base_and_many_bases_read_alike() -> None:
    assert (
        card("base_model: org/a").base_models
        == card("base_model:\n- org/a").base_models
        == card("base_model: [org/a]").base_models
        == ("org/a",)
    )


def test_nothing_is_read_where_there_is_no_front_matter() -> None:
    for text in ("", "# Title\nlicense: mit\n", "---\nlicense: mit\n", "license: mit\n---\n", "--- x\nlicense: mit\n---\n"):
        assert parse_card(text) == Card()
    assert parse_card("\ufeff\n---\nlicense: mit\n---").license == "mit"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mit", "mit"),
        ("  mit  ", "mit"),
        ("mit#x", "mit#x"),
        ("mit # x", "mit"),
        ("", None),
        ("~", None),
        ("null", None),
        ("# nothing", None),
        ("no", "no"),
        ("1.0", "1.0"),
        ("http://a/b", "http://a/b"),
        ("'a: b'", "a: b"),
        (r'"\x41\u00e9\U0001F600\n"', "Aé😀\n"),
        ("[]", []),
        ("[a, ]", ["a"]),
        ("[a, ~]", ["a", None]),
        ("[\n  a, # one\n  'b'\n]", ["a", "b"]),
        ("\n- a\n-\n- 'b'", ["a", None, "b"]),
        ("\n    - a # x\n    - b", ["a", "b"]),
        ("\n  a: 1\n  'b c': x y\n  d:", {"a": "1", "b c": "x y", "d": None}),
    ],
)
def test_a_value_within_the_subset_is_read_as_written(value: str, expected: object) -> None:
    found = card(f"field: {value}\nafter: x")
    assert found.unreadable == {}
    assert found.fields == {"field": expected, "after": "x"}


@pytest.mark.parametrize(
    "value",
    [
        "&anchor mit", "*alias", "!!str mit", "|\n  text", ">-\n  text", "a: b", "- a", "? a", "{a: b}", "@x", "%x", "`x", "]",
        ",", "a\n  b", "'a\n  b'", '"a\\\n  b"', '"a" b', "'a' b", '"\\q"', '"\\ud800"', '"\\x4"', "\tx", "a\tb",
        "[a, [b]]", "[a: b]", "[a b: c]", "[a,,b]", "[a] b", "[a, {b: c}]", "\n- a: b", "\n- - a", "\n- a\n  - b", "\n- |\n  x",
        "\n  a:\n    b: c", "\n  a: b\n    c: d", "\n  a: 1\n  a: 2",
    ],
)  # fmt: skip
def test_a_value_beyond_the_subset_is_reported_and_the_fields_around_it_stand(value: str) -> None:
    found = card(f"before: x\nfield: {value}\nafter: y")
    assert "field" not in found.fields
    assert found.fields["before"] == "x"
    assert found.fields["after"] == "y"
    assert found.unreadable["field"]


def test_a_line_that_is_no_field_is_reported() -> None:
    found = card("license: mit\nstray\ntags: [a]")
    assert found.problem == "a line is no field: 'stray'"
    assert (found.license, found.tags) == ("mit", ("a",))


def test_a_field_that_stands_twice_is_not_chosen_from() -> None:
    found = card("license: mit\ntags: [a]\nlicense: other\nlicense: x")
    assert found.license is None
    assert found.unreadable == {"license": "it stands twice"}
    assert found.tags == ("a",)


def test_a_field_inside_of_a_quoted_text_is_not_a_field() -> None:
    for hidden in (
        'note: "a\nlicense: mit\n"',
        "note:\n  'a\nlicense: mit\n'",
        "note: [a,\nlicense: mit\n]",
        'note:\n- "a\nlicense: mit\n"',
    ):
        assert card(hidden + "\ntags: [x]").license is None
        assert card(hidden + "\ntags: [x]").tags == ("x",)
    literal = card("note: |\n  'tis\nlicense: mit\nwidget:\n- text: >\n    \"Once\nlibrary_name: x")
    assert (literal.license, literal.library_name) == ("mit", "x")


def test_characters_on_which_readers_disagree_leave_nothing_read() -> None:
    for odd in ("\x00", "\x85", "\u2028", "\u2029", "\x0b", "\x1b"):
        found = card(f"a: b{odd}license: mit\nlicense: other")
        assert found.fields == {}
        assert found.problem
    assert parse_card(b"---\nlicense: \xff\n---\n").problem == "the card is not UTF-8"


_texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff\ufffe\uffff"), max_size=20)


def _single(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _double(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\' or not c.isascii() else c for c in text) + '"'


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True),
        st.one_of(_texts, st.lists(_texts, min_size=1, max_size=4)),
        max_size=6,
    ),
    st.data(),
)
def test_what_is_quoted_comes_back_whatever_it_holds(fields: dict[str, str | list[str]], data: st.DataObject) -> None:
    lines = []
    for key, value in fields.items():
        quote = data.draw(st.sampled_from([_single, _double]))
        if isinstance(value, str):
            lines.append(f"{key}: {quote(value)}")
        elif data.draw(st.booleans()):
            lines.append(f"{key}: [{', '.join(quote(v) for v in value)}]  # list")
        else:
            lines += [f"{key}:", *(f"  - {quote(v)}" for v in value)]
    found = card("\n".join(lines))
    assert found == Card(fields=dict(fields))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "license",
                ": ",
                "mit",
                '"',
                "'",
                "\n",
                "\n  ",
                "\n- ",
                "#",
                " ",
                "[",
                "]",
                "{",
                ",",
                "|",
                "&a",
                "~",
                "\\",
                "\t",
                "---",
                "é",
                "\x00",
            ]
        ),
        max_size=25,
    ).map("".join)
)
def test_any_text_is_read_or_reported_but_never_crashes(text: str) -> None:
    found = card(text)
    assert not set(found.fields) & set(found.unreadable)
    assert parse_card(text).problem is None or text


def test_a_hostile_card_costs_no_more_than_its_length() -> None:
    begun = time.perf_counter()
    for front in (
        "a: [" + "x, " * 150_000 + "]",
        "a:\n" + "- x\n" * 100_000,
        'a: "' + "\\" * 400_000,
        "\n".join(f'k{n}: "' for n in range(50_000)),
        "a: [" + "# \n" * 150_000,
        "a:\n" + "  - '\n" * 80_000,
        "- " * 200_000,
    ):
        card(front)
    assert time.perf_counter() - begun < 5
    assert card("license: mit\na: [" + "x, " * 150_000 + "]").license == "mit"
    assert parse_card("---\n" + "#" * 1_000_100 + "\nlicense: mit\n---\n").problem
