"""Facts come from the file itself, each from its own place, and what no file says stays unknown."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from freehold.errors import FreeholdError
from freehold.formats.gguf import write_gguf
from freehold.formats.git import lfs_pointer
from freehold.formats.safetensors import write_safetensors
from freehold.formats.source import ByteSource, BytesSource
from freehold.study.inspect import inspect, inspect_each, require_model, tensors

TOKENS = [f"t{n}" for n in range(100)]
LLAMA = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.license": "apache-2.0",
    "general.file_type": 3,
    "llama.context_length": 512,
    "llama.embedding_length": 32,
    "llama.block_count": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.chat_template": "{{ messages }}",
}
Q4_1 = ("blk.0.w", "Q4_1", (4, 32), bytes(80))
NORM = ("norm", "F32", (32,), bytes(128))


def gguf(metadata: dict[str, Any] = LLAMA, tensors: Any = (Q4_1, NORM)) -> ByteSource:
    out = io.BytesIO()
    write_gguf(out, metadata, list(tensors))
    return BytesSource(out.getvalue())


def safetensors(*names: str, dtype: str = "BF16", shape: tuple[int, ...] = (2, 3)) -> ByteSource:
    size = {"BF16": 2, "F32": 4, "I32": 4}[dtype] * shape[0] * shape[1]
    out = io.BytesIO()
    write_safetensors(out, [(n, dtype, shape, bytes(size)) for n in names])
    return BytesSource(out.getvalue())


def js(value: Any) -> ByteSource:
    return BytesSource(json.dumps(value).encode())


def text(value: str) -> ByteSource:
    return BytesSource(value.encode())


CONFIG = {
    "model_type": "llama",
    "hidden_size": 3,
    "num_hidden_layers": 1,
    "max_position_embeddings": 64,
    "vocab_size": 128,
    "torch_dtype": "bfloat16",
}


def test_a_gguf_file_says_what_it_is() -> None:
    facts = inspect({"tiny.gguf": gguf()})
    assert (facts.format, facts.architecture, facts.parameters) == ("gguf", "llama", 4 * 32 + 32)
    assert (facts.context, facts.layers, facts.hidden) == (512, 2, 32)
    assert (facts.tokenizer, facts.vocabulary, facts.chat_template) == ("gpt2", 100, "{{ messages }}")
    assert (facts.license_declared, facts.quantization) == ("apache-2.0", "Q4_1")
    assert facts.dtypes == {"Q4_1": 80, "F32": 128}
    assert facts.file_bytes == gguf().size
    assert facts.extra["tokenizer_pre"] == "smollm"


def test_what_the_file_does_not_say_is_unknown_even_if_its_name_does() -> None:
    facts = inspect({"TheBloke/Llama-2-7B-chat.Q4_K_M.gguf": gguf({}, [NORM])})
    assert facts.architecture is facts.quantization is facts.quantized_by is facts.context is facts.license_declared is None
    assert facts.tokenizer is facts.vocabulary is facts.chat_template is None
    assert facts.declared_bases == ()


def test_the_declared_quantization_is_told_apart_from_the_counted_one() -> None:
    agreed = inspect({"a.gguf": gguf()}).extra
    assert (agreed["quantization_declared"], agreed["quantization_counted"], agreed["quantization_fits"]) == (
        "Q4_1",
        "Q4_1",
        True,
    )
    odd = inspect({"a.gguf": gguf(LLAMA | {"general.file_type": 15})})
    assert (odd.quantization, odd.extra["quantization_counted"], odd.extra["quantization_fits"]) == ("Q4_K_M", "Q4_1", False)
    recipe = gguf(LLAMA | {"general.file_type": 15}, [("w", "Q4_K", (1, 256), bytes(144))])
    assert inspect({"a.gguf": recipe}).extra["quantization_fits"] is True
    silent = {k: v for k, v in LLAMA.items() if k != "general.file_type"}
    counted = inspect({"a.gguf": gguf(silent)})
    assert counted.quantization == "Q4_1"
    assert "quantization_declared" not in counted.extra


def test_bases_and_the_quantizer_are_those_that_the_file_names() -> None:
    named = LLAMA | {
        "general.quantized_by": "someone",
        "general.base_model.count": 3,
        "general.base_model.0.repo_url": "https://hub.example/org/base-1",
        "general.base_model.0.name": "Base 1",
        "general.base_model.1.name": "Base 2",
    }
    facts = inspect({"a.gguf": gguf(named)})
    assert facts.declared_bases == ("org/base-1", "Base 2")
    assert facts.quantized_by == "someone"


def test_metadata_of_a_wrong_type_counts_as_absent() -> None:
    wrong = {
        "general.architecture": "llama",
        "llama.context_length": "512",
        "general.license": 3,
        "tokenizer.ggml.tokens": "a",
        "general.base_model.count": 2**31,
        "general.file_type": True,
        "tokenizer.chat_template": ["a"],
    }
    facts = inspect({"a.gguf": gguf(wrong)})
    assert facts.context is facts.license_declared is facts.vocabulary is facts.chat_template is None
    assert facts.quantization == "Q4_1"


def test_safetensors_with_what_lies_beside_them() -> None:
    files = {
        "model.safetensors": safetensors("a", "b"),
        "config.json": js(CONFIG),
        "tokenizer.json": js({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}),
        "tokenizer_config.json": js({"tokenizer_class": "X", "chat_template": "old"}),
        "chat_template.jinja": text("new"),
        "additional_chat_templates/rag.jinja": text("rag"),
        "README.md": text("---\nlicense: mit\nbase_model: org/base\nbase_model_relation: finetune\n---\n"),
    }
    facts = inspect(files)
    assert (facts.format, facts.architecture, facts.parameters, facts.context) == ("safetensors", "llama", 12, 64)
    assert (facts.tokenizer, facts.vocabulary, facts.chat_template) == ("BPE", 2, "new")
    assert facts.extra["chat_templates"] == ["default", "rag"]
    assert (facts.license_declared, facts.declared_bases, facts.quantization) == ("mit", ("org/base",), None)
    assert (facts.extra["dtype_declared"], facts.extra["dtype_counted"], facts.extra["vocabulary_configured"]) == (
        "bfloat16",
        "BF16",
        128,
    )


def test_packed_elements_are_not_counted_as_parameters() -> None:
    config = js(CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4, "modules": ["a"]}})
    facts = inspect({"model.safetensors": safetensors("qweight", dtype="I32"), "config.json": config})
    assert (facts.quantization, facts.parameters, facts.extra["elements_stored"]) == ("gptq 4-bit", None, 6)
    plain = inspect({"model.safetensors": safetensors("qweight", dtype="I32"), "config.json": js(CONFIG)})
    assert plain.parameters == 6


def test_shards_are_one_model_and_two_quantizations_are_two() -> None:
    index = {
        "metadata": {"total_size": 24},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    files = {
        "model.safetensors.index.json": js(index),
        "model-00001-of-00002.safetensors": safetensors("a"),
        "model-00002-of-00002.safetensors": safetensors("b"),
    }
    facts = inspect(files)
    assert (facts.parameters, facts.file_bytes) == (12, safetensors("a").size * 2)
    assert "models" not in facts.extra
    two = {"big.gguf": gguf(), "small.gguf": gguf(LLAMA | {"general.file_type": 0}, [NORM])}
    each = inspect_each(two)
    assert list(each) == ["big.gguf", "small.gguf"]
    main = inspect(two)
    assert main.extra["main"] == "big.gguf"
    assert {name: m["quantization"] for name, m in main.extra["models"].items()} == {"big.gguf": "Q4_1", "small.gguf": "F32"}


def test_a_projector_beside_a_language_model_is_not_the_main_one() -> None:
    files = {"mmproj.gguf": gguf({"general.architecture": "clip"}, [("v", "F32", (100, 100), bytes(40000))]), "text.gguf": gguf()}
    assert inspect(files).architecture == "llama"


def test_a_split_gguf_is_one_model() -> None:
    files = {
        "m-00001-of-00002.gguf": gguf(),
        "m-00002-of-00002.gguf": gguf({"split.no": 1}, [("blk.1.w", "Q4_1", (4, 32), bytes(80))]),
    }
    facts = inspect(files)
    assert (facts.architecture, facts.parameters, facts.extra["main"]) == ("llama", 4 * 32 * 2 + 32, "m.gguf")


def test_an_adapter_names_its_base() -> None:
    files = {
        "adapter_model.safetensors": safetensors("lora_A"),
        "adapter_config.json": js({"base_model_name_or_path": "org/base"}),
    }
    assert inspect(files).declared_bases == ("org/base",)


def test_damaged_weights_are_reported_and_the_rest_is_still_told() -> None:
    whole = gguf()
    cut = BytesSource(whole.pread(0, whole.size - 40))
    facts = inspect({"a.gguf": cut, "README.md": text("---\nlicense: mit\n---\n")})
    assert facts.parameters is None
    assert facts.license_declared == "mit"
    assert "ends at byte" in facts.extra["unreadable"]["a.gguf"]
    assert inspect({"a.gguf": cut, "b.gguf": whole}).parameters == 160


def test_a_configuration_that_cannot_be_read_costs_its_own_facts_only() -> None:
    facts = inspect(
        {"model.safetensors": safetensors("a"), "config.json": text("{"), "tokenizer_config.json": js({"chat_template": "t"})}
    )
    assert (facts.architecture, facts.chat_template, facts.parameters) == (None, "t", 6)
    assert list(facts.extra["refused"]) == ["config.json"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "none of its 0 files"),
        ({"main.py": text("x"), "README.md": text("# hi")}, "none of its 2 files"),
        ({"model.gguf": text("<!DOCTYPE html>")}, "is not what its name says"),
        ({"model.safetensors": BytesSource(lfs_pointer("a" * 64, 9))}, "is an LFS pointer"),
        ({"data.pkl": BytesSource(b"\x80\x04N.")}, "none of its 1 files"),
    ],
)
def test_what_holds_no_weights_is_no_model(files: dict[str, ByteSource], why: str) -> None:
    with pytest.raises(FreeholdError, match=why) as caught:
        require_model(files)
    assert caught.value.row.code == "study-not-a-model"
    assert require_model(files | {"a.gguf": gguf()}).survey.sets


def test_a_damaged_source_is_not_taken_for_a_damaged_model() -> None:
    class Broken(BytesSource):
        def pread(self, offset: int, length: int, /) -> bytes:
            if offset > 0 or length > 64:
                raise FreeholdError("vault-corrupt-block", "block 0 does not match")
            return super().pread(offset, length)

    source = gguf()
    with pytest.raises(FreeholdError) as caught:
        inspect({"a.gguf": Broken(source.pread(0, source.size))})
    assert caught.value.code == "vault-corrupt-block"


def test_the_tensors_of_a_file_are_listed_with_their_place() -> None:
    listed = tensors(gguf(), "a.gguf")
    assert [(t.name, t.dtype, t.shape) for t in listed] == [("blk.0.w", "Q4_1", (4, 32)), ("norm", "F32", (32,))]
    assert listed[1].stop == gguf().size
    for source, code in (
        (text("x"), "study-not-a-model"),
        (BytesSource(b"\x89HDF\r\n\x1a\n"), "study-no-tensors"),
        (BytesSource(b"GGUF"), "formats-gguf-truncated"),
    ):
        with pytest.raises(FreeholdError) as caught:
            tensors(source, "x")
        assert caught.value.row.code == code
