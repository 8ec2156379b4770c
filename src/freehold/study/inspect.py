"""What a model is, read from its own files: architecture, parameters, quantisation, context, tokenizer, license, bases.

Of each fact there is one source, and where two speak (a GGUF names its quantisation, its tensors show one) both are kept and
told apart. The weights speak first, the configuration beside them second, the card third. What no file says is None:
nothing is guessed from a name, and who quantised a model is unknown unless the file says so.

It judges nothing; that is for the findings. It reads headers and small files, never the values of a tensor.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from freehold.errors import FreeholdError
from freehold.formats.card import Card
from freehold.formats.gguf import GgufFile
from freehold.formats.sniff import FileKind
from freehold.formats.source import ByteSource
from freehold.nouns.tensors import ModelFacts, TensorInfo
from freehold.study.beside import Beside
from freehold.study.gguf_facts import gguf_facts
from freehold.study.reading import Files, Reading, as_reading
from freehold.study.weights import WeightSet, read_header

_PACKED = frozenset({"U8", "I8", "U16", "I16", "I32", "U32", "I64", "U64"})


def require_model(files: Files) -> Reading:
    """The files, if there are weights among them; FreeholdError study-not-a-model if there are none."""
    reading = as_reading(files)
    found = reading.survey
    if not found.sets:
        pointers = [p for p, kind in found.kinds.items() if kind is FileKind.LFS_POINTER]
        if pointers:
            why = f"{pointers[0]} is an LFS pointer, not the file itself"
        elif found.misnamed:
            why = f"{found.misnamed[0]} is not what its name says"
        else:
            why = f"none of its {len(reading.files)} files holds weights in a format that is known"
        raise FreeholdError("study-not-a-model", f"this is not a model: {why}", files=len(reading.files))
    return reading


def inspect(files: Files) -> ModelFacts:
    """The facts of a whole revision: those of its main model, with `extra["models"]` for each if it holds several.

    Raises study-not-a-model; damaged weights are reported in `extra["unreadable"]`.
    """
    reading = require_model(files)
    sets = reading.survey.sets
    by_name = {s.name: _set_facts(s, reading) for s in sets}
    main = _with_card(by_name[sets[0].name], reading.card)
    extra = dict(main.extra) | {"main": sets[0].name}
    if len(by_name) > 1:
        extra["models"] = {name: _summary(facts) for name, facts in by_name.items()}
    unreadable = {f.path: f.error.message for s in sets for f in s.files if f.error is not None}
    if unreadable:
        extra["unreadable"] = unreadable
    return dataclasses.replace(main, extra=extra)


def inspect_each(files: Files) -> dict[str, ModelFacts]:
    """The facts of each model that a revision holds, by its file (of shards: their common name), the main one first."""
    reading = require_model(files)
    return {s.name: _set_facts(s, reading) for s in reading.survey.sets}


def tensors(source: ByteSource, path: str) -> tuple[TensorInfo, ...]:
    """The tensors that a file lists, in its order. Raises study-not-a-model, study-no-tensors, formats-*."""
    file = read_header(path, source)
    if file is None:
        raise FreeholdError("study-not-a-model", f"{path} holds no weights in a format that is known", path=path)
    if file.error is not None:
        raise file.error
    if file.header is None:
        raise FreeholdError(
            "study-no-tensors", f"{path} is a {file.kind} file, whose tensors are not listed", path=path, kind=file.kind
        )
    return file.tensors


def _set_facts(found: WeightSet, reading: Reading) -> ModelFacts:
    counted = Counter[str]()
    for tensor in found.tensors:
        counted[tensor.dtype] += tensor.stop - tensor.start
    first = found.files[0]
    if isinstance(first.header, GgufFile):
        own = gguf_facts(first.header, found.tensors)
        return dataclasses.replace(own, file_bytes=found.size, dtypes=dict(counted))
    beside = reading.beside(found.folder)
    facts = _beside_facts(beside, ModelFacts(format=str(found.kind)))
    packed = bool(beside.config and beside.config.quantization) and any(t.dtype in _PACKED for t in found.tensors)
    elements = sum(t.elements for t in found.tensors)
    extra = dict(facts.extra)
    if counted:
        extra["dtype_counted"] = max(counted, key=lambda d: counted[d])
    if packed:
        extra["elements_stored"] = elements  # several parameters share one stored element
    whole = bool(found.tensors) and all(f.error is None for f in found.files) and not packed
    return dataclasses.replace(
        facts, parameters=elements if whole else None, file_bytes=found.size, dtypes=dict(counted), extra=extra
    )


def _beside_facts(beside: Beside, facts: ModelFacts) -> ModelFacts:
    """What the configuration and tokenizer beside the weights say."""
    config = beside.config
    extra: dict[str, Any] = {}
    if config is not None:
        named = {
            "architectures": list(config.architectures),
            "heads": config.heads,
            "kv_heads": config.kv_heads,
            "experts": config.experts,
            "dtype_declared": config.dtype,
            "vocabulary_configured": config.vocabulary,
            "name_or_path": config.name_or_path,
            "config_section": config.section,
            "quantization_config": {k: v for k, v in (config.quantization or {}).items() if isinstance(v, str | int | float)},
        }
        extra |= {k: v for k, v in named.items() if v}
        facts = dataclasses.replace(
            facts,
            architecture=config.model_type or (config.architectures[0] if config.architectures else None),
            quantization=_quantization(config.quantization),
            context=config.context,
            layers=config.layers,
            hidden=config.hidden,
            vocabulary=config.vocabulary,
        )
    if beside.chat_templates:
        extra["chat_templates"] = sorted(beside.chat_templates)
    if beside.refused:
        extra["refused"] = dict(beside.refused)
    return dataclasses.replace(
        facts,
        tokenizer=beside.tokenizer,
        vocabulary=beside.tokens or facts.vocabulary,
        chat_template=beside.chat_templates.get("default"),
        declared_bases=(beside.adapter_base,) if beside.adapter_base else (),
        extra=extra,
    )


def _quantization(config: Mapping[str, Any] | None) -> str | None:
    """`gptq 4-bit`, as far as the quantization_config says."""
    if not config:
        return None
    method = config.get("quant_method")
    bits = (
        config.get("bits")
        or config.get("w_bit")
        or (4 if config.get("load_in_4bit") is True else 8 if config.get("load_in_8bit") is True else None)
    )
    parts = [
        method if isinstance(method, str) else "",
        f"{bits}-bit" if isinstance(bits, int) and not isinstance(bits, bool) else "",
    ]
    return " ".join(filter(None, parts)) or None


def _with_card(facts: ModelFacts, card: Card) -> ModelFacts:
    tags = card.texts("license")
    named = {
        "pipeline_tag": card.pipeline_tag,
        "library_name": card.library_name,
        "languages": list(card.languages),
        "tags": list(card.tags),
        "base_model_relation": card.base_model_relation,
        "license_name": card.license_name,
        "license_link": card.license_link,
    }
    return dataclasses.replace(
        facts,
        license_declared=", ".join(tags) or facts.license_declared,
        declared_bases=tuple(dict.fromkeys((*card.base_models, *facts.declared_bases))),
        extra=facts.extra | {k: v for k, v in named.items() if v},
    )


def _summary(facts: ModelFacts) -> dict[str, Any]:
    return {
        "format": facts.format,
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "quantization": facts.quantization,
        "file_bytes": facts.file_bytes,
    }
