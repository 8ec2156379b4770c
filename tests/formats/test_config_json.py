"""Configurations: facts under each of their usual names, and nothing made up from a wrong type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.formats import config_json as c


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_usual_config_is_read() -> None:
    facts = c.parse_config(
        encode(
            {
                "_name_or_path": "/home/x/model",
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": 576,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "max_position_embeddings": 8192,
                "vocab_size": 49152,
                "torch_dtype": "bfloat16",
                "quantization_config": {"quant_method": "gptq", "bits": 4},
                "auto_map": {"AutoModel": "modeling_x.X", "AutoTokenizer": ["org/r--tok.Slow", None]},
            }
        )
    )
    assert (facts.architectures, facts.model_type) == (("LlamaForCausalLM",), "llama")
    assert (facts.hidden, facts.layers, facts.heads, facts.kv_heads) == (576, 30, 9, 3)
    assert (facts.context, facts.vocabulary, facts.dtype) == (8192, 49152, "bfloat16")
    assert facts.quantization == {"quant_method": "gptq", "bits": 4}
    assert facts.auto_map == {"AutoModel": "modeling_x.X", "AutoTokenizer": "org/r--tok.Slow"}
    assert (facts.name_or_path, facts.section) == ("/home/x/model", None)


def test_older_names_and_the_language_part_of_a_multimodal_model_are_found() -> None:
    old = c.parse_config(encode({"n_embd": 768, "n_layer": 12, "n_positions": 1024, "dtype": "float16"}))
    assert (old.hidden, old.layers, old.context, old.dtype) == (768, 12, 1024, "float16")
    many = c.parse_config(
        encode(
            {
                "model_type": "gemma3",
                "text_config": {"hidden_size": 2560, "torch_dtype": "bfloat16"},
                "vision_config": {"hidden_size": 1},
            }
        )
    )
    assert (many.hidden, many.dtype, many.section) == (2560, "bfloat16", "text_config")


def test_a_value_of_the_wrong_type_is_absent() -> None:
    facts = c.parse_config(
        encode(
            {
                "hidden_size": "576",
                "num_hidden_layers": True,
                "vocab_size": -1,
                "architectures": "X",
                "model_type": 3,
                "auto_map": 1,
                "quantization_config": [],
            }
        )
    )
    assert facts == c.ConfigFacts()


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda s: (
            st.lists(s, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "auto_map",
                        "text_config",
                        "model",
                        "vocab",
                        "added_tokens",
                        "id",
                        "chat_template",
                        "name",
                        "template",
                        "hidden_size",
                        "architectures",
                    ]
                ),
                s,
                max_size=4,
            )
        ),
    )
)
def test_any_json_is_read_or_refused_but_never_crashes(value: Any) -> None:
    for parse in (c.parse_config, c.parse_tokenizer_config, c.parse_tokenizer, c.parse_chat_template_json, c.parse_adapter_base):
        if isinstance(value, dict):
            parse(encode(value))
        else:
            with pytest.raises(FreeholdError) as caught:
                parse(encode(value))
            assert caught.value.row.code == "formats-config-invalid"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a":NaN}', b"[" * 100_000, b'{"a":' + b"1" * 5000 + b"}"])
def test_what_is_no_object_is_refused_with_the_files_name(data: bytes) -> None:
    with pytest.raises(FreeholdError, match=r"sub/config\.json") as caught:
        c.parse_config(data, "sub/config.json")
    assert caught.value.code == "formats-config-invalid"


def test_chat_templates_of_both_forms() -> None:
    one = c.parse_tokenizer_config(
        encode({"chat_template": "{{x}}", "tokenizer_class": "GPT2Tokenizer", "model_max_length": 8192})
    )
    assert (one.chat_templates, one.kind, one.max_length) == ({"default": "{{x}}"}, "GPT2Tokenizer", 8192)
    many = c.parse_tokenizer_config(
        encode(
            {
                "chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}, {"name": 1}],
                "model_max_length": 1e30,
            }
        )
    )
    assert (many.chat_templates, many.max_length) == ({"default": "a", "tool_use": "b"}, None)
    assert c.parse_chat_template_json(encode({"chat_template": "t"})) == {"default": "t"}


def test_tokens_are_counted_by_id_added_ones_once() -> None:
    bpe = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}},
        "added_tokens": [{"id": 1, "content": "b"}, {"id": 2, "content": "<s>"}],
    }
    assert c.parse_tokenizer(encode(bpe)) == c.TokenizerFacts(kind="BPE", tokens=3)
    unigram = {"model": {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.0]]}}
    assert c.parse_tokenizer(encode(unigram)).tokens == 2


def test_an_adapter_names_its_base() -> None:
    assert c.parse_adapter_base(encode({"base_model_name_or_path": "org/base"})) == "org/base"
    assert c.parse_adapter_base(encode({"base_model_name_or_path": None})) is None
