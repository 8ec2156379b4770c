"""Findings: each kind is raised by its cause and by nothing else."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from freehold.formats.gguf import write_gguf
from freehold.formats.git import lfs_pointer
from freehold.formats.safetensors import write_safetensors
from freehold.formats.source import ByteSource, BytesSource
from freehold.nouns.origin import Evidence, Relation, Severity
from freehold.study.findings import find
from freehold.study.revision import study_revision

APACHE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")


def text(value: str) -> ByteSource:
    return BytesSource(value.encode())


def js(value: Any) -> ByteSource:
    return text(json.dumps(value))


def weights(*names: str) -> ByteSource:
    out = io.BytesIO()
    write_safetensors(out, [(n, "U8", (3,), b"abc") for n in names or ("a",)])
    return BytesSource(out.getvalue())


def gguf(added: bytes = b"") -> ByteSource:
    out = io.BytesIO()
    write_gguf(out, {"general.architecture": "llama"}, [("a", "F32", (8,), bytes(32))])
    return BytesSource(out.getvalue() + added)


INDEX = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
CLEAN = {
    "model.safetensors": weights(),
    "README.md": text("---\nlicense: apache-2.0\n---\n"),
    "LICENSE": text(APACHE),
    "config.json": js({"model_type": "llama"}),
}


def kinds(files: dict[str, ByteSource]) -> list[tuple[str, str]]:
    found = find("commit:" + "0" * 40, files)
    assert all(f.method == "files-1" and f.detail["message"] for f in found)
    json.dumps([f.detail for f in found])
    return [(f.kind, str(f.detail.get("path", ""))) for f in found]


def test_a_clean_model_has_no_findings() -> None:
    assert kinds(CLEAN) == []


@pytest.mark.parametrize(
    ("added", "kind", "path"),
    [
        ({"pytorch_model.bin": BytesSource(pickle.dumps({"a": 1}))}, "pickle-file", "pytorch_model.bin"),
        ({"x.safetensors.pkl": text("proto 0 pickles have no mark")}, "pickle-file", "x.safetensors.pkl"),
        ({"modeling.py": text("import os")}, "remote-code", "modeling.py"),
        ({"config.json": js({"auto_map": {"AutoModel": "modeling_x.Model"}})}, "remote-code", "config.json"),
        ({"tokenizer_config.json": js({"auto_map": ["o/r--tok.Tok", None]})}, "remote-code", "tokenizer_config.json"),
        ({"model.safetensors": BytesSource(weights().pread(0, weights().size - 1))}, "structure-error", "model.safetensors"),
        ({"a.gguf": BytesSource(b"GGUF\1\0\0\0" + bytes(8))}, "unread-weights", "a.gguf"),
        ({"model.safetensors": text("not weights")}, "misnamed-file", "model.safetensors"),
        ({"model.safetensors": BytesSource(pickle.dumps([1, 2, 3]))}, "misnamed-file", "model.safetensors"),
        ({"model.safetensors": BytesSource(lfs_pointer("a" * 64, 5))}, "lfs-pointer", "model.safetensors"),
        ({"a.gguf": gguf(b"payload")}, "trailing-bytes", "a.gguf"),
        ({"m.safetensors.index.json": js(INDEX), "m-1.safetensors": weights("a")}, "structure-error", "m.safetensors"),
        ({"m.safetensors.index.json": text("{}")}, "structure-error", "m.safetensors.index.json"),
        ({"m-00001-of-00002.safetensors": weights("x")}, "structure-error", "m.safetensors"),
        ({"config.json": text("{")}, "unreadable-declaration", "config.json"),
        ({"README.md": text("---\nlicense: apache-2.0\nbase_model: &a x\n---\n")}, "unreadable-declaration", "README.md"),
        ({"README.md": text("---\nlicense: mit\n---\n")}, "license-conflict", ""),
        ({"LICENSE": text(APACHE + "No military use.")}, "license-text-changed", "LICENSE"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_each_cause_is_found_in_its_place(added: dict[str, ByteSource], kind: str, path: str) -> None:
    assert (kind, path) in kinds(CLEAN | added)


def test_sound_neighbours_of_a_cause_are_not_found() -> None:
    shards = {"m.safetensors.index.json": js(INDEX), "m-1.safetensors": weights("a"), "m-2.safetensors": weights("b")}
    assert kinds(CLEAN | shards) == []
    swapped = shards | {"m-1.safetensors": weights("b"), "m-2.safetensors": weights("a")}
    assert kinds(CLEAN | swapped) == [("structure-error", "m.safetensors")]
    assert kinds(CLEAN | {"a.gguf": gguf()}) == []


def test_a_missing_license_is_said_once() -> None:
    assert kinds({"model.safetensors": weights()}) == [("license-missing", "")]


def test_code_that_a_loader_is_told_to_run_weighs_more_than_code_that_lies_there() -> None:
    files = CLEAN | {
        "config.json": js({"auto_map": {"AutoModel": "modeling_x.Model"}}),
        "modeling_x.py": text(""),
        "setup.py": text(""),
    }
    found = {f.detail["path"]: f.severity for f in find("commit:x", files) if f.kind == "remote-code"}
    assert found == {"config.json": Severity.WARNING, "modeling_x.py": Severity.WARNING, "setup.py": Severity.NOTICE}


def test_a_whole_study_carries_declared_lineage_unproved() -> None:
    card = text("---\nlicense: apache-2.0\nbase_model: [org/a, org/b]\nbase_model_relation: merge\n---\n")
    study = study_revision("commit:x", CLEAN | {"README.md": card})
    assert [(e.parent, e.relation, e.evidence, e.score) for e in study.lineage] == [
        ("org/a", Relation.MERGE, Evidence.DECLARED, None),
        ("org/b", Relation.MERGE, Evidence.DECLARED, None),
    ]
    assert study.license.agreement == "agree"
    assert study.findings == ()
    odd = study_revision("commit:x", CLEAN | {"README.md": text("---\nbase_model: org/a\nbase_model_relation: cousin\n---\n")})
    assert odd.lineage[0].relation is Relation.UNKNOWN
