"""Tensors as a file lists them, and what a model file says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `start` and `stop` are byte offsets in the file; `dtype` as the format spells it (BF16, Q4_1 ...)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the file says of itself. None means that it does not say; nothing here is guessed.

    `context` is in tokens, `file_bytes` in bytes, `parameters` counts elements of all tensors. `license_declared` is the
    tag as written; `declared_bases` are the parents that the file or its card names (unproved). `dtypes` maps a tensor
    type to the number of bytes stored in it.
    """

    format: str
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context: int | None = None
    layers: int | None = None
    hidden: int | None = None
    tokenizer: str | None = None
    vocabulary: int | None = None
    chat_template: str | None = None
    license_declared: str | None = None
    declared_bases: tuple[str, ...] = ()
    quantized_by: str | None = None
    file_bytes: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
