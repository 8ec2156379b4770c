"""Reading: the files of one revision under study, with each header, card and configuration read at most once.

A class, because it holds state: what was read. The parts of a study ask it for the same headers, and a tokenizer of 30 MB
should be parsed once. It draws no conclusion from what it read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from freehold.formats.card import Card, parse_card
from freehold.formats.source import ByteSource
from freehold.study.beside import Beside, read_beside
from freehold.study.weights import Survey, survey

#: The front matter of a card lies within its first bytes.
_CARD_BYTES = 4 * 2**20


class Reading:
    """`files` maps paths to sources, which must stay open as long as it is used. Errors of the sources themselves pass."""

    def __init__(self, files: Mapping[str, ByteSource]) -> None:
        self.files = files
        self._beside: dict[str, Beside] = {}

    @cached_property
    def survey(self) -> Survey:
        return survey(self.files)

    @cached_property
    def card(self) -> Card:
        """The front matter of the README.md at the top; empty if there is none."""
        source = next((self.files[p] for p in ("README.md", "readme.md", "Readme.md") if p in self.files), None)
        if source is None:
            return Card()
        data = source.pread(0, _CARD_BYTES)
        return parse_card(data if source.size <= _CARD_BYTES else data[: data.rfind(b"\n") + 1])

    def beside(self, folder: str) -> Beside:
        """The small files of `folder` (`.` is the top)."""
        if folder not in self._beside:
            self._beside[folder] = read_beside(self.files, folder)
        return self._beside[folder]


Files = Mapping[str, ByteSource] | Reading


def as_reading(files: Files) -> Reading:
    return files if isinstance(files, Reading) else Reading(files)
