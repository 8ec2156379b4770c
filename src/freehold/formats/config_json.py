"""What the JSON beside the weights says: config.json, generation_config.json, tokenizer files, adapter_config.json.

The same fact has many names (n_embd, d_model, hidden_size); each is looked for under those that published models use, and
a multimodal model's language part is found in its `text_config`. A wrong type is as good as absent: it is not reported,
since it says nothing. `_name_or_path` is where somebody once loaded the model from, often a folder: a hint, not a base.

It checks no file against another and believes nothing: these are declarations beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from freehold.errors import FreeholdError
from freehold.formats.strict_json import parse_json

#: Configurations are read whole up to this many bytes, a tokenizer.json up to the second.
MAX_CONFIG = 16 * 2**20
MAX_TOKENIZER = 48 * 2**20
_TOKENIZER_MARKS = 12_000_000

_NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim", "model_dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "n_head_kv", "num_kv_heads"),
    "context": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "experts": ("num_local_experts", "n_routed_experts", "num_experts"),
}


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """What a config.json says. `quantization` is its quantization_config as it stands; `section` the part the sizes are from.

    `auto_map` maps a class of the library to the code that replaces it: `module.Class`, or `org/name--module.Class`."""

    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    context: int | None = None
    vocabulary: int | None = None
    experts: int | None = None
    dtype: str | None = None
    quantization: dict[str, Any] | None = None
    name_or_path: str | None = None
    auto_map: dict[str, str] = field(default_factory=dict)
    section: str | None = None


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """`kind` is the class or algorithm as named there; `tokens` counts distinct ids of a tokenizer.json, added ones included."""

    kind: str | None = None
    tokens: int | None = None
    chat_templates: dict[str, str] = field(default_factory=dict)
    auto_map: dict[str, str] = field(default_factory=dict)
    max_length: int | None = None


def parse_object(data: bytes, path: str, *, marks: int | None = None) -> dict[str, Any]:
    """A JSON object, of a key that stands twice the last, as loaders do; FreeholdError formats-config-invalid with the reason."""
    try:
        limit = {} if marks is None else {"marks": marks}
        found = parse_json(data, unique=False, **limit)
    except ValueError as error:
        raise FreeholdError("formats-config-invalid", f"{path} is refused: {error}", path=path) from error
    if not isinstance(found, dict):
        raise FreeholdError("formats-config-invalid", f"{path} is not a JSON object", path=path)
    return found


def parse_config(data: bytes, path: str = "config.json") -> ConfigFacts:
    """FreeholdError formats-config-invalid if it is no JSON object."""
    config = parse_object(data, path)
    section = next((s for s in ("text_config", "llm_config", "language_config") if isinstance(config.get(s), dict)), None)
    inner: Mapping[str, Any] = config[section] if section else {}
    numbers = {fact: _number(config, names) for fact, names in _NAMES.items()}
    from_section = {fact: _number(inner, _NAMES[fact]) for fact, value in numbers.items() if value is None}
    numbers |= from_section
    quantization = config.get("quantization_config", inner.get("quantization_config"))
    return ConfigFacts(
        architectures=_texts(config.get("architectures")),
        model_type=_text(config.get("model_type")),
        dtype=_text(config.get("dtype"))
        or _text(config.get("torch_dtype"))
        or _text(inner.get("dtype"))
        or _text(inner.get("torch_dtype")),
        quantization=quantization if isinstance(quantization, dict) else None,
        name_or_path=_text(config.get("_name_or_path")),
        auto_map=_auto_map(config),
        section=section if any(v is not None for v in from_section.values()) else None,
        **numbers,
    )


def parse_tokenizer_config(data: bytes, path: str = "tokenizer_config.json") -> TokenizerFacts:
    """FreeholdError formats-config-invalid if it is no JSON object."""
    config = parse_object(data, path)
    length = config.get("model_max_length")
    return TokenizerFacts(
        kind=_text(config.get("tokenizer_class")),
        chat_templates=chat_templates(config.get("chat_template")),
        auto_map=_auto_map(config),
        # Absent is written as an enormous float.
        max_length=length if isinstance(length, int) and not isinstance(length, bool) and length < 2**40 else None,
    )


def parse_tokenizer(data: bytes, path: str = "tokenizer.json") -> TokenizerFacts:
    """FreeholdError formats-config-invalid if it is no JSON object."""
    tokenizer = parse_object(data, path, marks=_TOKENIZER_MARKS)
    model = tokenizer.get("model")
    model = model if isinstance(model, dict) else {}
    vocabulary, added = model.get("vocab"), tokenizer.get("added_tokens")
    ids: set[Any] = set()
    if isinstance(vocabulary, dict):
        ids.update(v for v in vocabulary.values() if isinstance(v, int))
    elif isinstance(vocabulary, list):
        ids.update(range(len(vocabulary)))
    if isinstance(added, list):
        ids.update(t["id"] for t in added if isinstance(t, dict) and isinstance(t.get("id"), int))
    return TokenizerFacts(kind=_text(model.get("type")), tokens=len(ids) or None)


def parse_chat_template_json(data: bytes, path: str = "chat_template.json") -> dict[str, str]:
    """Templates by name of a chat_template.json; FreeholdError formats-config-invalid if it is no JSON object."""
    return chat_templates(parse_object(data, path).get("chat_template"))


def chat_templates(value: Any) -> dict[str, str]:
    """By name: a single template is called `default`; a list holds {name, template}."""
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        pairs = [(t.get("name"), t.get("template")) for t in value if isinstance(t, dict)]
        return {n: t for n, t in pairs if isinstance(n, str) and isinstance(t, str)}
    return {}


def parse_adapter_base(data: bytes, path: str = "adapter_config.json") -> str | None:
    """The base model that an adapter names; FreeholdError formats-config-invalid if it is no JSON object."""
    return _text(parse_object(data, path).get("base_model_name_or_path"))


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _auto_map(config: Mapping[str, Any]) -> dict[str, str]:
    """Flat: of a pair of (slow, fast) classes both are kept, joined by a comma."""
    found = config.get("auto_map")
    if isinstance(found, list):  # an older form in tokenizer files
        found = {"AutoTokenizer": found}
    if not isinstance(found, dict):
        return {}
    flat = {k: v if isinstance(v, str) else ",".join(_texts(v)) for k, v in found.items()}
    return {k: v for k, v in flat.items() if v}
