"""Pictures of numbers as plain rectangles: computed here, drawn by templates as SVG, the same without JavaScript and in print.

Coordinates are in the units of the picture's own view box, origin at the upper left. Each picture stands beside a table with
the same numbers: it adds a look, never a fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: How many tints the style sheet has; what comes after shares the last.
TINTS = 6


@dataclass(frozen=True, slots=True)
class Plot:
    """One rectangle. `share` of the whole, 0 to 1; `tint` 1 to TINTS; `amount` in the unit of what is shown."""

    x: float
    y: float
    width: float
    height: float
    label: str
    amount: int
    share: float
    tint: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the scale at height `y` with its value."""

    y: float
    amount: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Bars that stand on one ground line; `names` are (middle of the bar, label) for those that get one."""

    bars: tuple[Plot, ...]
    ticks: tuple[Tick, ...]
    names: tuple[tuple[float, str], ...]
    width: float
    height: float


def tints(labels: Sequence[str]) -> dict[str, int]:
    """A tint for each label, in order, so that one picture and its legend agree."""
    return {label: min(i, TINTS) for i, label in enumerate(labels, 1)}


def plat(amounts: Mapping[str, int], width: float, height: float, coloured: Mapping[str, int] | None = None) -> tuple[Plot, ...]:
    """A plot of land divided by `amounts`, largest first, each cut along the longer side; empty if there is nothing."""
    rows = sorted(((n, a) for n, a in amounts.items() if a > 0), key=lambda row: (-row[1], row[0]))
    whole = sum(a for _, a in rows)
    coloured = coloured or tints([n for n, _ in rows])
    return tuple(_divide(rows, 0.0, 0.0, width, height, whole, coloured)) if whole else ()


def _divide(
    rows: list[tuple[str, int]], x: float, y: float, width: float, height: float, whole: int, coloured: Mapping[str, int]
) -> list[Plot]:
    if len(rows) == 1:
        name, amount = rows[0]
        return [Plot(round(x, 2), round(y, 2), round(width, 2), round(height, 2), name, amount, amount / whole, coloured[name])]
    total, cut, first = sum(a for _, a in rows), 1, rows[0][1]
    while cut < len(rows) - 1 and first + rows[cut][1] <= total / 2:
        first += rows[cut][1]
        cut += 1
    part = first / total
    if width >= height:
        left = _divide(rows[:cut], x, y, width * part, height, whole, coloured)
        return left + _divide(rows[cut:], x + width * part, y, width * (1 - part), height, whole, coloured)
    upper = _divide(rows[:cut], x, y, width, height * part, whole, coloured)
    return upper + _divide(rows[cut:], x, y + height * part, width, height * (1 - part), whole, coloured)


def columns(
    stacks: Sequence[tuple[str, Mapping[str, int]]], width: float, height: float, coloured: Mapping[str, int], names: int = 8
) -> Columns:
    """One bar for each (name, {label: amount}), its labels stacked upwards; about `names` bars are named."""
    top = _round_up(max((sum(s.values()) for _, s in stacks), default=0))
    step = width / max(1, len(stacks))
    bar = min(step * 0.78, 48.0)
    bars, named = [], []
    every = max(1, -(-len(stacks) // names))
    for i, (name, stack) in enumerate(stacks):
        x, y = i * step + (step - bar) / 2, height
        for label in coloured:
            amount = stack.get(label, 0)
            if amount > 0:
                tall = height * amount / top
                y -= tall
                what = f"{name}, {label}" if len(coloured) > 1 else name
                bars.append(
                    Plot(round(x, 2), round(y, 2), round(bar, 2), round(tall, 2), what, amount, amount / top, coloured[label])
                )
        if i % every == 0:
            named.append((round(x + bar / 2, 2), name))
    ticks = [Tick(round(height - height * part / 2, 2), top * part // 2) for part in (1, 2)] if top else []
    return Columns(tuple(bars), tuple(ticks), tuple(named), width, height)


def _round_up(amount: int) -> int:
    """The next 1, 2, 4, 5 or 10 times a power of ten; even, so that half of it is whole."""
    if amount <= 2:
        return 2 if amount else 0
    power = 10 ** (len(str(amount)) - 1)
    steps: list[int] = [m * power for m in (1, 2, 4, 5, 10) if m * power % 2 == 0]
    return min(step for step in steps if step >= amount)
