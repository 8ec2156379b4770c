"""Digest: the name of some bytes, always with its algorithm."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_LENGTHS = {"sha256": 64, "blake3": 64, "gitsha1": 40, "xet": 64}
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`sha256:...`, `blake3:...`, `gitsha1:...` or `xet:...`, lower-case hex."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = _LENGTHS.get(self.algorithm)
        if length is None or len(self.hex) != length or not _HEX.fullmatch(self.hex):
            raise ValueError(f"not a digest: {self.algorithm}:{self.hex}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`; ValueError if `text` is not algorithm:hex."""
        algorithm, _, hexed = text.partition(":")
        return cls(algorithm, hexed)

    @classmethod
    def sha256(cls, hexed: str) -> Self:
        return cls("sha256", hexed)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
