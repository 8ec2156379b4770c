"""GGUF: what is written is read back, and what breaks a rule is refused by code, quickly and without eating memory."""

from __future__ import annotations

import contextlib
import io
import struct
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.formats import ggml, gguf
from freehold.formats.gguf import Deferred, Typed, read_deferred, read_gguf, write_gguf
from freehold.formats.source import BytesSource


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def header(
    *keys: bytes, tensors: tuple[bytes, ...] = (), version: int = 3, key_count: int | None = None, tensor_count: int | None = None
) -> bytes:
    """A GGUF header made by hand, independent of the writer."""
    counts = (len(tensors) if tensor_count is None else tensor_count, len(keys) if key_count is None else key_count)
    return struct.pack("<4sIQQ", b"GGUF", version, *counts) + b"".join(keys) + b"".join(tensors)


def string_key(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def pair(elements: int) -> bytes:
    """The header of two F32 tensors, the second at byte 32 of the data."""
    return header(tensors=(entry("a", (elements,), 0, 0), entry("b", (8,), 0, 32)))


def body(head: bytes, data: bytes = b"", alignment: int = 32) -> BytesSource:
    return BytesSource(head.ljust(-(-len(head) // alignment) * alignment, b"\0") + data)


def refused(source: BytesSource) -> str:
    with pytest.raises(FreeholdError) as caught:
        read_gguf(source)
    assert caught.value.row.code == caught.value.code, "every code stands in the table"
    return caught.value.code


def written(metadata: dict[str, Any], tensors: list[tuple[str, str, tuple[int, ...], bytes]]) -> BytesSource:
    out = io.BytesIO()
    write_gguf(out, metadata, tensors)
    return BytesSource(out.getvalue())


def test_a_file_made_by_hand_is_read_with_absolute_offsets_and_row_major_shapes() -> None:
    head = header(string_key("general.architecture", "llama"), tensors=(entry("a", (4, 2), 0, 0), entry("b", (32,), 3, 32)))
    source = body(head, bytes(32) + bytes(20))
    file = read_gguf(source)
    assert file.metadata == {"general.architecture": "llama"}
    first, second = file.tensors
    assert (first.name, first.dtype, first.shape) == ("a", "F32", (2, 4))
    assert (second.dtype, second.shape, second.stop - second.start) == ("Q4_1", (32,), 20)
    assert first.start == file.data_start == -(-len(head) // 32) * 32
    assert second.stop == source.size


def test_what_the_writer_writes_the_reader_reads() -> None:
    metadata = {
        "general.architecture": "llama",
        "general.alignment": 64,
        "llama.context_length": 2048,
        "big": 2**40,
        "below": -3,
        "deep": -(2**40),
        "rate": 0.5,
        "yes": True,
        "list": ["a", "ü"],
        "numbers": [1, -2],
        "flags": [True, False],
        "typed": Typed("uint8", 7),
        "typed list": Typed("float64", [0.1]),
        "none": Typed("string", []),
    }
    data = bytes(range(18)) + bytes(18)
    source = written(metadata, [("w", "Q4_0", (2, 32), data), ("b", "BF16", (3,), b"abcdef"), ("scalar", "F32", (), b"1234")])
    file = read_gguf(source)
    plain = {k: v.value if isinstance(v, Typed) else v for k, v in metadata.items()}
    assert file.metadata == plain
    assert [file.types[k] for k in ("llama.context_length", "big", "below", "deep", "rate", "numbers", "typed", "none")] == [
        "uint32", "uint64", "int32", "int64", "float32", "int32", "uint8", "string",
    ]  # fmt: skip
    assert [(t.name, t.dtype, t.shape) for t in file.tensors] == [
        ("w", "Q4_0", (2, 32)),
        ("b", "BF16", (3,)),
        ("scalar", "F32", ()),
    ]
    assert all(t.start % 64 == 0 for t in file.tensors)
    assert source.pread(file.tensors[0].start, 36) == data
    assert (file.gaps, file.trailing) == (0, 0)


_values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=200),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=1, max_size=200),
)
_keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda k: k != "general.alignment")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_keys, _values, max_size=8))
def test_any_metadata_comes_back_as_it_went_in_long_values_when_asked_for(metadata: dict[str, Any]) -> None:
    source = written(metadata, [])
    found = {k: read_deferred(source, v) if isinstance(v, Deferred) else v for k, v in read_gguf(source).metadata.items()}
    assert found == metadata


def test_long_arrays_and_texts_are_left_in_the_file_until_asked_for() -> None:
    tokens = [f"token{i}" for i in range(50_000)]
    metadata = {"tokens": tokens, "scores": [float(i) for i in range(1000)], "text": "x" * (gguf.KEPT_STRING + 1), "short": "y"}
    source = written(metadata, [])
    file = read_gguf(source)
    late = file.metadata["tokens"]
    assert isinstance(late, Deferred)
    assert late.count == 50_000
    assert read_deferred(source, late) == tokens
    assert read_deferred(source, file.metadata["scores"]) == metadata["scores"]
    assert read_deferred(source, file.metadata["text"]) == metadata["text"]
    assert file.metadata["short"] == "y"


@pytest.mark.parametrize("dtype", [t for t in ggml.TYPES.values() if t.block > 1], ids=lambda t: t.name)
def test_a_quantised_row_must_be_whole_blocks(dtype: ggml.GgmlType) -> None:
    data = bytes(dtype.bytes_per_block * 2)
    good = read_gguf(written({}, [("t", dtype.name, (2, dtype.block), data)])).tensors[0]
    assert good.stop - good.start == len(data)
    head = header(tensors=(entry("t", (dtype.block // 2, 4), dtype.number, 0),))
    assert refused(body(head, data)) == "formats-gguf-invalid"


def test_what_is_not_gguf_is_named() -> None:
    assert refused(BytesSource(b"")) == "formats-gguf-magic"
    assert refused(BytesSource(b"<!DOCTYPE html>")) == "formats-gguf-magic"
    assert refused(BytesSource(header(version=1))) == "formats-gguf-version"
    assert refused(BytesSource(header(version=4))) == "formats-gguf-version"
    assert refused(BytesSource(struct.pack(">4sIQQ", b"GGUF", 3, 0, 0))) == "formats-gguf-big-endian"
    assert read_gguf(BytesSource(header(version=2))).version == 2


def test_a_file_cut_at_any_byte_is_refused_and_whole_it_is_not() -> None:
    source = written({"general.architecture": "llama", "list": ["a", "b"]}, [("t", "F32", (8,), bytes(32))])
    whole = source.pread(0, source.size)
    assert read_gguf(source).tensors[0].stop == len(whole)
    for length in range(len(whole)):
        assert refused(BytesSource(whole[:length])) in ("formats-gguf-truncated", "formats-gguf-magic")


HUGE = 2**63
HOSTILE = {
    "a billion tensors": (header(tensor_count=10**9), "formats-gguf-limit"),
    "more tensors than bytes": (header(tensor_count=100_000), "formats-gguf-truncated"),
    "a billion keys": (header(key_count=2**64 - 1), "formats-gguf-limit"),
    "more keys than bytes": (header(key_count=60_000), "formats-gguf-truncated"),
    "a key past the end": (header(struct.pack("<Q", HUGE) + bytes(9)), "formats-gguf-truncated"),
    "a string past the end": (header(text("k") + struct.pack("<IQ", 8, HUGE)), "formats-gguf-truncated"),
    "a key too long": (header(struct.pack("<Q", 5000) + bytes(6000)), "formats-gguf-limit"),
    "an array past the end": (header(text("k") + struct.pack("<IIQ", 9, 4, HUGE)), "formats-gguf-limit"),
    "a short array past the end": (header(text("k") + struct.pack("<IIQ", 9, 4, 1000)), "formats-gguf-truncated"),
    "strings without end": (header(text("k") + struct.pack("<IIQ", 9, 8, HUGE)), "formats-gguf-limit"),
    "an array of arrays": (header(text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(64)), "formats-gguf-limit"),
    "an unknown value type": (header(text("k") + struct.pack("<I", 13) + bytes(64)), "formats-gguf-unsupported"),
    "an unknown element type": (header(text("k") + struct.pack("<IIQ", 9, 77, 1) + bytes(64)), "formats-gguf-unsupported"),
    "a key twice": (header(string_key("k", "a"), string_key("k", "b")), "formats-gguf-invalid"),
    "a key that is no text": (header(struct.pack("<Q", 1) + b"\xff" + struct.pack("<IQ", 8, 0)), "formats-gguf-invalid"),
    "a tensor twice": (header(tensors=(entry("t", (8,), 0, 0), entry("t", (8,), 0, 32))) + bytes(128), "formats-gguf-invalid"),
    "tensors that overlap": (pair(16) + bytes(128), "formats-gguf-invalid"),
    "a tensor within another": (pair(64) + bytes(512), "formats-gguf-invalid"),
    "a tensor past the end": (header(tensors=(entry("t", (8,), 0, HUGE),)) + bytes(128), "formats-gguf-truncated"),
    "a tensor off the alignment": (header(tensors=(entry("t", (8,), 0, 4),)) + bytes(128), "formats-gguf-invalid"),
    "an unknown tensor type": (header(tensors=(entry("t", (8,), 4, 0),)) + bytes(128), "formats-gguf-unsupported"),
    "five dimensions": (header(tensors=(entry("t", (1,) * 5, 0, 0),)) + bytes(128), "formats-gguf-invalid"),
    "four billion dimensions": (header(tensors=(text("t") + struct.pack("<I", 2**32 - 1) + bytes(64),)), "formats-gguf-invalid"),
    "an overflowing shape": (header(tensors=(entry("t", (2**32, 2**32, 2**32), 0, 0),)) + bytes(128), "formats-gguf-limit"),
    "an alignment of zero": (header(text("general.alignment") + struct.pack("<II", 4, 0)), "formats-gguf-invalid"),
    "an alignment of three": (header(text("general.alignment") + struct.pack("<II", 4, 3)), "formats-gguf-invalid"),
    "a huge alignment": (header(text("general.alignment") + struct.pack("<II", 4, 2**31)), "formats-gguf-invalid"),
    "an alignment that is text": (header(string_key("general.alignment", "32")), "formats-gguf-invalid"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_at_once(name: str) -> None:
    data, code = HOSTILE[name]
    begun = time.perf_counter()
    assert refused(BytesSource(data)) == code
    assert time.perf_counter() - begun < 0.5


class _Endless:
    """A sparse file: a small beginning and then zeros; counts what is read of it."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head, self.size, self.read = head, size, 0

    def pread(self, offset: int, length: int, /) -> bytes:
        length = min(length, self.size - offset)
        self.read += length
        return self._head[offset : offset + length].ljust(length, b"\0")


def test_a_header_beyond_the_limit_is_given_up_not_walked() -> None:
    many = header(text("k") + struct.pack("<IIQ", 9, 10, 40_000_000), key_count=2)
    source = _Endless(many, 2**40)
    with pytest.raises(FreeholdError) as caught:
        read_gguf(source)
    assert caught.value.code == "formats-gguf-limit"
    assert source.read <= 2 * gguf._WINDOW


def test_a_huge_sparse_model_costs_only_its_header() -> None:
    head = header(tensors=(entry("t", (2**20, 2**15), 0, 0),))
    source = _Endless(head, 2**40)
    assert read_gguf(source).tensors[0].elements == 2**35
    assert source.read <= gguf._WINDOW


def test_bytes_between_and_after_tensors_are_counted_not_hidden() -> None:
    head = header(tensors=(entry("a", (1,), 0, 0), entry("b", (1,), 0, 96)))
    clean = read_gguf(written({}, [("a", "F32", (1,), b"abcd")]))
    assert (clean.gaps, clean.trailing) == (0, 0)
    odd = read_gguf(body(head, bytes(96) + bytes(32) + b"payload"))
    assert (odd.gaps, odd.trailing) == (64, 7)


def test_text_that_is_not_utf8_is_shown_with_replacement_marks() -> None:
    raw = header(text("k") + struct.pack("<IQ", 8, 3) + b"a\xffb")
    assert read_gguf(BytesSource(raw)).metadata == {"k": "a�b"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_header_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    source = written(
        {"general.architecture": "llama", "l": ["a", "bc"], "n": [1, 2, 3], "f": 1.5},
        [("t", "F32", (8,), bytes(32)), ("u", "Q8_0", (32,), bytes(34))],
    )
    raw = bytearray(source.pread(0, source.size))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FreeholdError):
        read_gguf(BytesSource(raw))


@pytest.mark.parametrize(
    ("metadata", "tensors"),
    [
        ({"k": []}, []),
        ({"k": [1, "a"]}, []),
        ({"k": [True, 1]}, []),
        ({"k": None}, []),
        ({"k": 2**64}, []),
        ({"k": "\ud800"}, []),
        ({"k": Typed("uint8", 256)}, []),
        ({"k": Typed("uint9", 1)}, []),
        ({"k": Typed("string", 1)}, []),
        ({"general.alignment": 12}, []),
        ({}, [("t", "F32", (2,), b"1234")]),
        ({}, [("t", "Q4_0", (16,), bytes(9))]),
        ({}, [("t", "F33", (1,), b"1234")]),
        ({}, [("t", "F32", (1,) * 5, b"1234")]),
        ({}, [("t", "F32", (1,), b"1234"), ("t", "F32", (1,), b"1234")]),
    ],
)
def test_what_does_not_fit_is_refused_before_a_byte_is_written(metadata: dict[str, Any], tensors: list[Any]) -> None:
    out = io.BytesIO()
    with pytest.raises(FreeholdError) as caught:
        write_gguf(out, metadata, tensors)
    assert caught.value.row.code == "formats-tensors-unwritable"
    assert out.getvalue() == b""
