"""Only what a text says outright counts as a declaration."""

from __future__ import annotations

import pytest

from freehold.keep.declared import copied_from, lineage_in_text

URL = "https://huggingface.co/makers/Tiny"


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        (f"This is a quantized version of the [Tiny]({URL}) model.", "quantized"),
        (f"a quantised copy of [Tiny]({URL})", "quantized"),
        (f"A quantization of {URL}.", "quantized"),
        (f"It was fine-tuned from [Tiny]({URL}).", "finetune"),
        (f"A finetuned version of [Tiny]({URL}/)", "finetune"),
        (f"distilled from [Tiny]({URL})", "distilled"),
    ],
)
def test_an_outright_statement_is_an_edge(text: str, relation: str) -> None:
    (edge,) = lineage_in_text(text)
    assert (edge.parent, edge.relation, edge.evidence, edge.score) == ("makers/Tiny", relation, "declared", None)


@pytest.mark.parametrize(
    "text",
    [
        f"See [Tiny]({URL}).",
        f"Better than a quantized version. [Tiny]({URL})",
        "a quantized version of [Tiny](https://example.org/makers/Tiny)",
        "a quantized version of Tiny",
        "a quantized version of [Tiny](https://huggingface.co/datasets)",
        "",
    ],
)
def test_a_link_or_a_hint_is_not(text: str) -> None:
    assert lineage_in_text(text) == ()


def test_a_parent_named_twice_is_one_edge() -> None:
    assert len(lineage_in_text(f"A quantization of {URL}. Again: a quantized version of [it]({URL}).")) == 1


def test_a_link_to_a_file_of_the_same_name_says_where_it_was_copied_from() -> None:
    text = f"[a]({URL}/blob/main/sub/x.gguf) [b]({URL}/resolve/v1/other.gguf)"
    assert copied_from(text, ["x.gguf"]) == [{"file": "x.gguf", "model": "makers/Tiny", "revision": "main", "path": "sub/x.gguf"}]
    assert copied_from(text, ["y.gguf"]) == []


def test_a_long_hostile_text_ends_quickly() -> None:
    assert lineage_in_text("quantized version of [" * 50_000) == ()
    assert lineage_in_text("quantized version of the " * 50_000) == ()
