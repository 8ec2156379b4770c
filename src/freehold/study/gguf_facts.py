"""What a GGUF file says of itself, from its metadata and from the list of its tensors.

The name of the quantisation in the metadata (Q4_K_M) is a recipe, the types of the tensors are what was done: the first is
told as declared, the second is counted, and whether the declared name fits the counted type is told too. They may differ
honestly: a recipe falls back to another type where rows are too short for its blocks.

A key of an unexpected type counts as absent. Nothing is taken from the file's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from freehold.formats import ggml
from freehold.formats.gguf import Deferred, GgufFile
from freehold.nouns.tensors import ModelFacts, TensorInfo

_MAX_BASES = 64
_HUB = re.compile(r"https?://[^/]+/([\w.-]+/[\w.-]+?)/?")
# Types in which the recipe of this name stores most elements, where it is not the type of the same name.
_RECIPES = {
    "Q4_1_SOME_F16": {"Q4_1"},
    "Q2_K_S": {"Q2_K"},
    "IQ3_XS": {"IQ3_XXS", "IQ3_S"},
    "IQ3_M": {"IQ3_S"},
    "IQ2_M": {"IQ2_S"},
    "IQ2_S": {"IQ2_S", "IQ2_XS"},
    "MXFP4_MOE": {"MXFP4"},
}


def gguf_facts(header: GgufFile, tensors: Iterable[TensorInfo]) -> ModelFacts:
    """`tensors` are those of all parts of the model, `header` the first part's. Sizes in bytes are left to the caller."""
    tensors = tuple(tensors)
    say = _Metadata(header)
    architecture = say.text("general.architecture")
    of = f"{architecture}." if architecture else ""
    tokens = say.count("tokenizer.ggml.tokens")
    declared, counted, fits = _quantization(say.number("general.file_type"), tensors)
    extra: dict[str, Any] = {
        "gguf_version": header.version,
        "name": say.text("general.name"),
        "organization": say.text("general.organization"),
        "basename": say.text("general.basename"),
        "finetune": say.text("general.finetune"),
        "size_label": say.text("general.size_label"),
        "languages": say.texts("general.languages"),
        "license_name": say.text("general.license.name"),
        "license_link": say.text("general.license.link"),
        "source_url": say.text("general.source.url") or say.text("general.url"),
        "quantization_declared": declared,
        "quantization_counted": counted,
        "quantization_fits": fits,
        "heads": say.number(of + "attention.head_count"),
        "kv_heads": say.number(of + "attention.head_count_kv"),
        "feed_forward": say.number(of + "feed_forward_length"),
        "experts": say.number(of + "expert_count"),
        "tokenizer_pre": say.text("tokenizer.ggml.pre"),
        "chat_templates": say.template_names(),
        "tensors": len(tensors),
    }
    return ModelFacts(
        format="gguf",
        architecture=architecture,
        parameters=sum(t.elements for t in tensors) or None,
        quantization=declared or counted,
        context=say.number(of + "context_length"),
        layers=say.number(of + "block_count"),
        hidden=say.number(of + "embedding_length"),
        tokenizer=say.text("tokenizer.ggml.model"),
        vocabulary=tokens if tokens is not None else say.number(of + "vocab_size"),
        chat_template=say.text("tokenizer.chat_template"),
        license_declared=say.text("general.license"),
        declared_bases=_bases(say),
        quantized_by=say.text("general.quantized_by"),
        extra={k: v for k, v in extra.items() if v not in (None, [], ())},
    )


class _Metadata:
    """Typed looks into the metadata of a file: what is not of the type asked for is absent."""

    def __init__(self, header: GgufFile) -> None:
        self._all = header.metadata

    def text(self, key: str) -> str | None:
        value = self._all.get(key)
        return value if isinstance(value, str) and value else None

    def texts(self, key: str) -> list[str]:
        value = self._all.get(key)
        return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []

    def number(self, key: str) -> int | None:
        value = self._all.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def count(self, key: str) -> int | None:
        value = self._all.get(key)
        return value.count if isinstance(value, Deferred) else len(value) if isinstance(value, list) else None

    def template_names(self) -> list[str]:
        named = [k.removeprefix("tokenizer.chat_template.") for k in self._all if k.startswith("tokenizer.chat_template.")]
        return sorted(["default", *named] if self.text("tokenizer.chat_template") else named)


def _quantization(file_type: int | None, tensors: tuple[TensorInfo, ...]) -> tuple[str | None, str | None, bool | None]:
    """Name as declared, type of most elements of the matrices as counted, whether they fit (None: nothing to compare)."""
    elements = Counter[str]()
    for tensor in tensors:
        if len(tensor.shape) > 1:
            elements[tensor.dtype] += tensor.elements
    counted = max(elements, key=lambda d: (elements[d], d)) if elements else None
    declared = ggml.FILE_TYPES.get(file_type) if file_type is not None else None
    if declared is None or counted is None:
        return declared, counted, None
    wanted = _RECIPES.get(declared) or {declared, re.sub(r"_[SML]$", "", declared)}
    return declared, counted, counted in wanted


def _bases(say: _Metadata) -> tuple[str, ...]:
    """The models that `general.base_model.*` names: `org/name` where a hub's URL is given, else as written."""
    found = []
    for n in range(min(say.number("general.base_model.count") or 0, _MAX_BASES)):
        url = say.text(f"general.base_model.{n}.repo_url")
        match = _HUB.fullmatch(url) if url else None
        name = match[1] if match else url or say.text(f"general.base_model.{n}.name")
        if name:
            found.append(name)
    return tuple(dict.fromkeys(found))
