"""Beside the readers that everybody uses: they read what is written here, and accept and refuse the same files."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import FreeholdError
from freehold.formats.card import parse_card
from freehold.formats.ggml import BY_NAME
from freehold.formats.gguf import Deferred, Typed, read_deferred, read_gguf, write_gguf
from freehold.formats.safetensors import DTYPE_BITS, read_safetensors, write_safetensors
from freehold.formats.source import BytesSource
from freehold.testing.clients import client_python, run_client

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

READERS = ("gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6", "PyYAML==6.0.3")

_GGUF = """
import json, sys
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES
reader = GGUFReader(sys.argv[1])
def entry(t):
    return [t.name, t.tensor_type.name, [int(n) for n in t.shape][::-1], int(t.data_offset), int(t.n_bytes)]
json.dump({
    "fields": {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.") and f.types},
    "tensors": [entry(t) for t in reader.tensors],
    "sizes": {t.name: list(s) for t, s in GGML_QUANT_SIZES.items()},
}, open(sys.argv[2], "w"))
print("null")
"""

_SAFETENSORS = """
import base64, json, sys
import safetensors
def verdict(line):
    try:
        return sorted(name for name, _ in safetensors.deserialize(base64.b64decode(line)))
    except Exception:
        return None
json.dump([verdict(line) for line in open(sys.argv[1])], open(sys.argv[2], "w"))
print("null")
"""

_YAML = """
import json, sys
import yaml
def verdict(line):
    try:
        return yaml.load(json.loads(line), Loader=yaml.BaseLoader)
    except Exception:
        return None
json.dump([verdict(line) for line in open(sys.argv[1])], open(sys.argv[2], "w"))
print("null")
"""


def run(script: str, file: Path) -> Any:
    """What `script` makes of `file`; it answers through a file too, since there is much to say."""
    answer = file.with_suffix(".answer")
    run_client(client_python(READERS), script, str(file), str(answer), env={})
    return json.loads(answer.read_text("utf-8"))


def test_the_gguf_package_reads_what_is_written_here(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "llama", "general.alignment": 64, "a": -5, "b": 2**40, "c": 0.5, "d": True, "e": ["x", "ü"],
        "f": [1, -2], "g": Typed("float64", 1.25), "h": Typed("uint8", [1, 2]), "i": [f"t{n}" for n in range(300)],
    }  # fmt: skip
    tensors = [
        ("a", "F32", (2, 3), bytes(24)),
        ("q", "Q4_0", (2, 64), bytes(72)),
        ("k", "Q6_K", (1, 256), bytes(210)),
        ("s", "BF16", (5,), bytes(10)),
    ]
    out = io.BytesIO()
    write_gguf(out, metadata, tensors)
    (tmp_path / "m.gguf").write_bytes(out.getvalue())
    theirs = run(_GGUF, tmp_path / "m.gguf")
    source = BytesSource(out.getvalue())
    ours = read_gguf(source)
    assert {k: read_deferred(source, v) if isinstance(v, Deferred) else v for k, v in ours.metadata.items()} == theirs["fields"]
    assert [[t.name, t.dtype, list(t.shape), t.start, t.stop - t.start] for t in ours.tensors] == theirs["tensors"]
    # Q8_1 lives in memory only: there that package still counts an older layout.
    differ = {n for n, size in theirs["sizes"].items() if size != [BY_NAME[n].block, BY_NAME[n].bytes_per_block]}
    assert differ == {"Q8_1"}


def test_the_safetensors_package_accepts_and_refuses_the_same_files(tmp_path: Path) -> None:
    out = io.BytesIO()
    write_safetensors(out, [(d, d, (8,), bytes(bits)) for d, bits in DTYPE_BITS.items()], {"format": "pt"})
    files = [out.getvalue(), *_mutants(4000)]
    (tmp_path / "files").write_text("\n".join(base64.b64encode(f).decode() for f in files))
    theirs = run(_SAFETENSORS, tmp_path / "files")
    ours = [_names(f) for f in files]
    assert ours[0] == sorted(DTYPE_BITS)
    assert [base64.b64encode(f) for f, a, b in zip(files, ours, theirs, strict=True) if a != b] == []
    assert 100 < sum(v is not None for v in ours) < 3900, "the mutants hold both sound and broken files"


def test_where_a_card_is_read_a_yaml_reader_reads_the_same(tmp_path: Path) -> None:
    fronts = _fronts(4000)
    (tmp_path / "cards").write_text("\n".join(map(json.dumps, fronts)))
    compared = 0
    for front, theirs in zip(fronts, run(_YAML, tmp_path / "cards"), strict=True):
        card = parse_card(f"---\n{front}\n---\n")
        if card.problem or not isinstance(theirs, dict):
            assert card.problem or card.unreadable or not card.fields or theirs is not None
            continue
        compared += len(card.fields)
        assert {k: v for k, v in card.fields.items() if not _same(v, theirs.get(k))} == {}, front
    assert compared > 300


def _names(data: bytes) -> list[str] | None:
    try:
        return sorted(t.name for t in read_safetensors(BytesSource(data)).tensors)
    except FreeholdError:
        return None


def _mutants(count: int) -> list[bytes]:
    dice = random.Random(1)  # noqa: S311 - mutants that are the same in every run
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [8, 14]},
    }
    raw = json.dumps(header).encode()
    base = len(raw).to_bytes(8, "little") + raw + bytes(14)
    found = []
    for _ in range(count):
        data = bytearray(base)
        for _ in range(dice.randint(1, 2)):
            if dice.random() < 0.9:
                data[dice.randrange(len(data) - 14)] = dice.choice(b'0123456789[]{},:"-eE. abFU')
            else:
                data.append(0)
        found.append(bytes(data))
    return found


def _fronts(count: int) -> list[str]:
    dice = random.Random(2)  # noqa: S311 - the same
    parts = [
        "license: ",
        "mit",
        '"',
        "'",
        "\n",
        "\n  ",
        "\n- ",
        "\nkey: ",
        "value",
        "\n  - item",
        "\n  sub: v",
        " # c",
        "[",
        "]",
        ", ",
        ": ",
        "|",
        "~",
        "&a",
        "\\n",
        "é",
        "org/name",
    ]
    return ["license: " + "".join(dice.choices(parts, k=dice.randint(1, 7))) for _ in range(count)]


def _same(ours: Any, theirs: Any) -> bool:
    """YAML's BaseLoader keeps every scalar as text; ours tells nothing from text."""
    if isinstance(ours, list):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and ours.keys() == theirs.keys() and all(_same(ours[k], theirs[k]) for k in ours)
    return theirs in ("", "~", "null", "Null", "NULL") if ours is None else ours == theirs
