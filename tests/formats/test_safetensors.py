"""safetensors: a round trip, and every rule of the format held against a file that breaks just this one."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.formats.safetensors import DTYPE_BITS, parse_index, read_safetensors, write_safetensors
from freehold.formats.source import BytesSource
from freehold.formats.strict_json import parse_json


def made(header: Any, data: bytes = b"") -> BytesSource:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return BytesSource(len(raw).to_bytes(8, "little") + raw + data)


def one(**changes: Any) -> dict[str, Any]:
    return {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


def refused(source: BytesSource) -> str:
    with pytest.raises(FreeholdError) as caught:
        read_safetensors(source)
    assert caught.value.row.code == caught.value.code
    return caught.value.code


def test_a_file_made_by_hand_is_read() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [8, 12]},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "empty": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]},
    }
    source = made(header, bytes(12))
    file = read_safetensors(source)
    assert file.metadata == {"format": "pt"}
    assert [t.name for t in file.tensors] == ["a", "empty", "b"]
    assert (file.tensors[2].dtype, file.tensors[2].shape, file.tensors[2].stop) == ("BF16", (1, 2), source.size)


_tensors = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda n: n != "__metadata__"),
        st.sampled_from([d for d, bits in DTYPE_BITS.items() if bits % 8 == 0]),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
    ),
    unique_by=lambda t: t[0],
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    _tensors,
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.text("abc", max_size=5), max_size=3),
)
def test_what_the_writer_writes_the_reader_reads_and_every_tensor_is_aligned(tensors: Any, metadata: dict[str, str]) -> None:
    given_: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for number, (name, dtype, shape) in enumerate(tensors):
        size = DTYPE_BITS[dtype] // 8
        for dimension in shape:
            size *= dimension
        given_[name] = (dtype, shape, bytes([number + 1]) * size)
    out = io.BytesIO()
    write_safetensors(out, [(n, d, s, b) for n, (d, s, b) in given_.items()], metadata)
    source = BytesSource(out.getvalue())
    file = read_safetensors(source)
    assert {t.name: (t.dtype, t.shape, source.pread(t.start, t.stop - t.start)) for t in file.tensors} == given_
    assert file.metadata == metadata
    assert file.data_start % 8 == 0
    assert all(t.start % (DTYPE_BITS[t.dtype] // 8) == 0 for t in file.tensors)


def test_elements_smaller_than_a_byte_are_counted_in_bits() -> None:
    four = {"t": {"dtype": "F4", "shape": [2, 3], "data_offsets": [0, 3]}}
    assert read_safetensors(made(four, bytes(3))).tensors[0].elements == 6
    six = {"t": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}
    assert read_safetensors(made(six, bytes(3))).tensors[0].stop == made(six, bytes(3)).size
    odd = {"t": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}
    assert refused(made(odd, bytes(2))) == "formats-safetensors-invalid"


TWICE = b'{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"t":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}'
HOSTILE: dict[str, tuple[BytesSource, str]] = {
    "nothing": (BytesSource(b""), "truncated"),
    "half a length": (BytesSource(b"\x01\0\0"), "truncated"),
    "a header past the end": (BytesSource((50).to_bytes(8, "little") + b"{}"), "truncated"),
    "a header of 100 MB and one byte": (BytesSource((100_000_001).to_bytes(8, "little") + b"{}"), "limit"),
    "a header that is no object": (made(b"[]"), "invalid"),
    "a header after a space": (made(b" {}"), "invalid"),
    "a header that is no JSON": (made(b"{"), "invalid"),
    "a header that is not UTF-8": (made(b'{"\xff":1}'), "invalid"),
    "half a surrogate pair": (made(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "invalid"),
    "a deep nest": (made(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "invalid"),
    "a flood of brackets": (made(b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"), "invalid"),
    "a number without end": (made(b'{"t":' + b"9" * 10_000 + b"}"), "invalid"),
    "not a number": (made(b'{"t":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "invalid"),
    "a key twice": (made(TWICE, bytes(8)), "invalid"),
    "metadata of numbers": (made({"__metadata__": {"a": 1}}), "invalid"),
    "metadata that is a list": (made({"__metadata__": []}), "invalid"),
    "an entry that is a number": (made({"t": 3}), "invalid"),
    "an entry with more": (made(one(more=1), bytes(8)), "invalid"),
    "an unknown dtype": (made(one(dtype="F33"), bytes(8)), "unsupported"),
    "a dtype that is a list": (made(one(dtype=["F32"]), bytes(8)), "unsupported"),
    "a negative dimension": (made(one(shape=[-2]), bytes(8)), "invalid"),
    "a dimension that is true": (made(one(shape=[2, True]), bytes(8)), "invalid"),
    "a fraction of a dimension": (made(one(shape=[2.0]), bytes(8)), "invalid"),
    "an overflowing shape": (made(one(shape=[2**61, 2**61]), bytes(8)), "invalid"),
    "offsets turned round": (made(one(data_offsets=[8, 0]), bytes(8)), "invalid"),
    "three offsets": (made(one(data_offsets=[0, 8, 8]), bytes(8)), "invalid"),
    "a shape that is too small": (made(one(shape=[1]), bytes(8)), "invalid"),
    "a gap at the start": (made(one(data_offsets=[1, 9]), bytes(9)), "invalid"),
    "an overlap": (made(one() | {"u": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)), "invalid"),
    "a hole": (made(one() | {"u": {"dtype": "U8", "shape": [1], "data_offsets": [9, 10]}}, bytes(10)), "invalid"),
    "bytes after the end": (made(one(), bytes(9)), "invalid"),
    "bytes after no tensor": (made({}, b"payload"), "invalid"),
    "data cut short": (made(one(), bytes(7)), "truncated"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_the_same_file_without_the_fault_is_not(name: str) -> None:
    source, what = HOSTILE[name]
    assert refused(source) == f"formats-safetensors-{what}"
    assert read_safetensors(made(one(), bytes(8))).tensors[0].elements == 2


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    source = made(one() | {"__metadata__": {"format": "pt"}}, bytes(8))
    raw = bytearray(source.pread(0, source.size))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FreeholdError):
        read_safetensors(BytesSource(raw))


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ([("t", "F32", (2,), b"1234")], None),
        ([("t", "Q4_0", (32,), bytes(18))], None),
        ([("__metadata__", "F32", (1,), b"1234")], None),
        ([("t", "F32", (1,), b"1234"), ("t", "F32", (1,), b"1234")], None),
        ([], {"a": 1}),
    ],
)
def test_what_does_not_fit_is_refused_before_a_byte_is_written(tensors: Any, metadata: Any) -> None:
    out = io.BytesIO()
    with pytest.raises(FreeholdError) as caught:
        write_safetensors(out, tensors, metadata)
    assert caught.value.row.code == "formats-tensors-unwritable"
    assert out.getvalue() == b""


def test_an_index_names_its_shards() -> None:
    index = parse_index(
        b'{"metadata":{"total_size":12.0},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-1.safetensors"}}'
    )
    assert index.shards == ("m-1.safetensors", "m-2.safetensors")
    assert index.total_size == 12
    assert index.weight_map["c"] == "m-1.safetensors"


@pytest.mark.parametrize("shard", ["../m.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", "a\0b"])
def test_an_index_that_points_elsewhere_is_refused(shard: str) -> None:
    with pytest.raises(FreeholdError) as caught:
        parse_index(json.dumps({"weight_map": {"a": shard}}).encode())
    assert caught.value.row.code == "formats-index-invalid"


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"weight_map":{}}', b'{"weight_map":{"a":1}}', b'{"weight_map":{"a":"m"},"weight_map":{"a":"n"}}'],
)
def test_a_malformed_index_is_refused(data: bytes) -> None:
    with pytest.raises(FreeholdError) as caught:
        parse_index(data)
    assert caught.value.code == "formats-index-invalid"


def test_json_is_held_to_its_limit_of_marks_and_to_unique_keys() -> None:
    assert parse_json(b'{"a":[1,2]}', marks=5) == {"a": [1, 2]}
    with pytest.raises(ValueError, match="structural"):
        parse_json(b'{"a":[1,2]}', marks=4)
    with pytest.raises(ValueError, match="'a' stands twice"):
        parse_json(b'{"b":{"a":1,"a":2}}')
    assert parse_json(b'{"a":1,"a":2}', unique=False) == {"a": 2}
    with pytest.raises(ValueError, match="beyond a double"):
        parse_json(b"[1e999]")
