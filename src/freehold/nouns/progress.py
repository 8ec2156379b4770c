"""Progress of long work: a value handed to whoever listens; never printed below a door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` bytes (or steps, if `unit` says so); `total` None while it is unknown."""

    stage: str
    done: int
    total: int | None = None
    unit: str = "bytes"
    item: str = ""


Listener = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A listener for nobody."""
