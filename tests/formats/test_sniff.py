"""What a file is stands in its bytes: a name deceives nobody, and near misses are not taken for the thing."""

from __future__ import annotations

import io
import pickle
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.formats.gguf import write_gguf
from freehold.formats.git import lfs_pointer
from freehold.formats.safetensors import write_safetensors
from freehold.formats.sniff import FileKind, sniff
from freehold.formats.source import BytesSource


def _gguf() -> bytes:
    out = io.BytesIO()
    write_gguf(out, {"general.architecture": "llama"}, [])
    return out.getvalue()


def _safetensors() -> bytes:
    out = io.BytesIO()
    write_safetensors(out, [("t", "U8", (3,), b"abc")])
    return out.getvalue()


def _zip(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return out.getvalue()


def _field(number: int, value: bytes | int) -> bytes:
    return bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value


ONNX = _field(1, 8) + _field(2, b"pytorch") + _field(7, b"graph") + _field(8, b"opset")
KINDS = {
    FileKind.GGUF: _gguf(),
    FileKind.SAFETENSORS: _safetensors(),
    FileKind.PYTORCH: _zip("archive/data.pkl", "archive/data/0"),
    FileKind.PICKLE: pickle.dumps({"a": 1}),
    FileKind.ONNX: ONNX,
    FileKind.HDF5: b"\x89HDF\r\n\x1a\n" + bytes(100),
    FileKind.LFS_POINTER: lfs_pointer("a" * 64, 5),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_kind_is_told_by_its_bytes(kind: FileKind) -> None:
    assert sniff(BytesSource(KINDS[kind])) is kind


def test_torch_files_from_before_zips_are_told_from_other_pickles() -> None:
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2) + b"storage"
    assert sniff(BytesSource(legacy)) is FileKind.PYTORCH
    assert sniff(BytesSource(pickle.dumps(0x1950A86A20F9469CFC6D, protocol=2))) is FileKind.PICKLE


@pytest.mark.parametrize(
    "data",
    [
        b"", b"G", b"GGML" + bytes(60), b"# Title\n", b"{}", bytes(100), b"\x08" * 50,
        _zip("a/b.txt"), b"PK\x03\x04", b"\x80\x04", pickle.dumps(1)[:-1], lfs_pointer("a" * 64, 5)[:-1],
        ONNX[:-1], _field(1, 8) + _field(2, b"no graph"), _field(2, b"first") + ONNX,
        (1).to_bytes(8, "little") + b"{", (10**9).to_bytes(8, "little") + b"{}",
    ],
)  # fmt: skip
def test_near_misses_are_no_kind(data: bytes) -> None:
    assert sniff(BytesSource(data)) is None


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(KINDS.values())), st.integers(0, 200), st.binary(max_size=30))
def test_any_bytes_can_be_asked(data: bytes, cut: int, added: bytes) -> None:
    sniff(BytesSource(data[:cut] + added))
