"""The small files beside a set of weights: configuration, tokenizer, chat templates, the adapter's base.

Looked for in the folder of the weights, where loaders look. A file that cannot be read costs its own facts only and is named
with the reason. It does not know what the facts are used for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from freehold.errors import FreeholdError
from freehold.formats import config_json
from freehold.formats.config_json import ConfigFacts, TokenizerFacts
from freehold.formats.source import ByteSource, read_all

_MAX_TEMPLATE = 2**20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Beside:
    """`tokens` counts those of tokenizer.json; `auto_map` names code to load, by file; `refused` maps a path to the reason."""

    config: ConfigFacts | None = None
    tokenizer: str | None = None
    tokens: int | None = None
    chat_templates: dict[str, str] = field(default_factory=dict)
    adapter_base: str | None = None
    auto_map: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class _Folder:
    def __init__(self, files: Mapping[str, ByteSource], folder: str) -> None:
        self._files = files
        self.prefix = "" if folder in ("", ".") else f"{folder}/"
        self.refused: dict[str, str] = {}

    def names(self, start: str) -> list[str]:
        """Paths in the folder, without it, that begin with `start`."""
        return sorted(p.removeprefix(self.prefix) for p in self._files if p.startswith(self.prefix + start))

    def read(self, name: str, limit: int, parse: Callable[[bytes, str], _T]) -> _T | None:
        path = self.prefix + name
        if path not in self._files:
            return None
        try:
            return parse(read_all(self._files[path], limit, path), path)
        except FreeholdError as error:
            if not error.code.startswith("formats-") or error.code == "formats-source-unreadable":
                raise
            self.refused[path] = error.message
            return None


def read_beside(files: Mapping[str, ByteSource], folder: str = "") -> Beside:
    """What the files of `folder` say. Errors of the sources themselves pass."""
    here = _Folder(files, folder)
    config = here.read("config.json", config_json.MAX_CONFIG, config_json.parse_config)
    declared = here.read("tokenizer_config.json", config_json.MAX_CONFIG, config_json.parse_tokenizer_config) or TokenizerFacts()
    counted = here.read("tokenizer.json", config_json.MAX_TOKENIZER, config_json.parse_tokenizer) or TokenizerFacts()
    templates = dict(declared.chat_templates)
    templates |= here.read("chat_template.json", config_json.MAX_CONFIG, config_json.parse_chat_template_json) or {}
    for name in ("chat_template.jinja", *here.names("additional_chat_templates/")):
        text = here.read(name, _MAX_TEMPLATE, _text) if name.endswith(".jinja") else None
        if text is not None:
            templates["default" if name == "chat_template.jinja" else name.rpartition("/")[2].removesuffix(".jinja")] = text
    code = {"config.json": config.auto_map if config else {}, "tokenizer_config.json": declared.auto_map}
    return Beside(
        config=config,
        tokenizer=counted.kind or declared.kind,
        tokens=counted.tokens,
        chat_templates=templates,
        adapter_base=here.read("adapter_config.json", config_json.MAX_CONFIG, config_json.parse_adapter_base),
        auto_map={here.prefix + name: found for name, found in code.items() if found},
        refused=here.refused,
    )


def _text(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FreeholdError("formats-config-invalid", f"{path} is not UTF-8", path=path) from error
