"""Weights drawn by seed that look trained to whoever counts their bits.

What a store or a codec sees of a trained model is the histogram of its exponents: one normal distribution gives BF16 an
order-0 entropy of 65.7 %, trained ones have 67.0 %, since tensors, rows and columns differ in scale and tails are heavy.
Drawn here are normals scaled by the tensor's role and depth, by row and by column, with a share of large ones.

Same seed, same bytes, on any machine: the only source of chance is PCG64's raw 64-bit stream (which numpy guarantees),
normals come from a table of quantiles, and what follows are single IEEE operations in float32. Not used are numpy's own
normals (their stream may change between versions) and reductions (their order depends on the processor). What is left
to the C library are `log` and `exp2`, whose results are rounded to 20 bits before use.

`draw_move` draws what a fine-tune adds to a tensor, by the same rules. They know nothing: a model made of them writes noise.
"""

from __future__ import annotations

import hashlib
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.lab.shape import Place

Array = npt.NDArray[Any]

#: Typical standard deviation by role, at the first and the last layer, in units of 1/sqrt(inputs).
_SPREAD = {
    "embed": (0.45, 0.45),
    "head": (0.8, 0.8),
    "q": (1.3, 0.8),
    "k": (1.4, 0.9),
    "v": (0.45, 0.8),
    "o": (0.35, 0.6),
    "gate": (0.75, 0.9),
    "up": (0.65, 0.75),
    "down": (0.5, 0.65),
}
#: Spread of the logarithm (base 2) of the scale of rows and of columns.
_ROWS, _COLUMNS = 0.28, 0.16
#: One in 16 weights is this much larger.
_TAIL = np.float32(1.8)
#: The same for the moves of a fine-tune, and the spread of single ones.
_MOVED_ROWS, _MOVED_COLUMNS, _MOVED_WEIGHTS = 1.0, 0.6, 0.4
_GRAIN = 2.0**20


def stream(seed: int, name: str) -> np.random.PCG64:
    """The bits of one tensor: they depend on the seed and its name only, not on what was drawn before."""
    return np.random.PCG64(int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:16], "little"))


def normals(bits: np.random.PCG64, count: int) -> Array:
    """`count` draws, float32, from a normal distribution (two quantile steps of 16 bits each: it ends at 5.9)."""
    table = _quantiles()
    pairs = _words(bits, 2 * count)
    first, second = pairs[:count], pairs[count:]
    return np.asarray(np.float32(0.8) * table[first] + np.float32(0.6) * table[second])


def draw(place: Place, seed: int) -> Array:
    """The tensor's values, float32, in its shape."""
    bits = stream(seed, place.name)
    if place.role == "norm":
        return _rounded(1.0 + (0.15 + 0.5 * place.depth) * np.abs(normals(bits, place.shape[0]).astype(np.float64)) - 0.1)
    rows, columns = place.shape
    low, high = _SPREAD[place.role]
    spread = (low + (high - low) * place.depth) / np.sqrt(float(columns))
    by_row = _rounded(spread * np.exp2(_ROWS * normals(bits, rows).astype(np.float64)))
    by_column = _rounded(np.exp2(_COLUMNS * normals(bits, columns).astype(np.float64)))
    heavy = (_words(bits, rows * columns) & 15 == 0).reshape(rows, columns)
    values = normals(bits, rows * columns).reshape(rows, columns)
    values *= by_row[:, None]
    values *= by_column
    np.multiply(values, _TAIL, out=values, where=heavy)
    return values


def draw_move(name: str, shape: tuple[int, ...], seed: int, rank: int | None = None) -> Array:
    """A fine-tune's move of a tensor, float32, in its shape; its scale means nothing. With `rank` of at most that rank."""
    bits = stream(seed, f"move {name}")
    if rank is not None and len(shape) == 2:
        left, right = normals(bits, shape[0] * rank).reshape(rank, -1, 1), normals(bits, shape[1] * rank).reshape(rank, 1, -1)
        low_rank = np.zeros(shape, dtype=np.float32)
        for column, row in zip(left, right, strict=True):  # one rank at a time: BLAS would sum in an order of its own
            low_rank += column * row
        return low_rank
    count = int(np.prod(shape, dtype=np.int64))
    move = normals(bits, count) * _powers()[_words(bits, count)]
    move = move.reshape(shape)
    if len(shape) == 2:
        move *= _rounded(np.exp2(_MOVED_ROWS * normals(bits, shape[0]).astype(np.float64)))[:, None]
        move *= _rounded(np.exp2(_MOVED_COLUMNS * normals(bits, shape[1]).astype(np.float64)))
    return np.asarray(move)


def to_bits(values: Array, dtype: str) -> Array:
    """float32 values as the stored integers of BF16, F16 or F32, rounded to nearest even."""
    if dtype == "F32":
        return np.ascontiguousarray(values, dtype="<f4").view("<u4")
    if dtype == "F16":
        return np.ascontiguousarray(values.astype("<f2")).view("<u2")
    wide = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    return ((wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def from_bits(bits: Array, dtype: str) -> Array:
    """Inverse of `to_bits`, as float32."""
    if dtype == "F32":
        return np.asarray(bits.view("<f4"))
    if dtype == "F16":
        return np.asarray(bits.view("<f2").astype("<f4"))
    return np.asarray((bits.astype("<u4") << np.uint32(16)).view("<f4"))


def plane_entropy(bits: Array) -> float:
    """Order-0 entropy of 16-bit weights as a share of their size, exponent byte and sign-and-mantissa byte apart (BF16)."""
    turned = ((bits << np.uint16(1)) | (bits >> np.uint16(15))).astype("<u2")
    planes = ((turned >> np.uint16(8)).astype(np.uint8), (turned & np.uint16(255)).astype(np.uint8))
    total = 0.0
    for plane in planes:
        counts = np.bincount(plane.ravel(), minlength=256)
        shares = counts[counts > 0] / plane.size
        total += float(-(shares * np.log2(shares)).sum())
    return total / 16


@cache
def _powers() -> Array:
    """2 to the power of a normal of the spread of single weights, by 16 bits of chance."""
    return _rounded(np.exp2(_MOVED_WEIGHTS * _quantiles().astype(np.float64)))


@cache
def _quantiles() -> Array:
    normal = NormalDist()
    half = [round(normal.inv_cdf((i + 0.5) / 65536) * _GRAIN) / _GRAIN for i in range(32768, 65536)]
    return np.array([-x for x in reversed(half)] + half, dtype=np.float32)


def _words(bits: np.random.PCG64, count: int) -> Array:
    """`count` uniform 16-bit numbers."""
    raw = np.asarray(bits.random_raw(-(-count // 4)), dtype="<u8")
    return raw.view("<u2")[:count]


def _rounded(values: Array) -> Array:
    """To 20 bits after the point relative to a power of two, so that the last bit of a C library's exp2 has no say."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(mantissa * _GRAIN) / _GRAIN, exponent), dtype=np.float32)
