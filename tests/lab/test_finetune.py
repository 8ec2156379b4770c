"""Fine-tunes made by seed: the relative change is the one asked for, and the difference has the entropy of real training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from freehold.errors import FreeholdError
from freehold.formats.card import parse_card
from freehold.formats.gguf import read_gguf, write_gguf
from freehold.formats.safetensors import read_safetensors
from freehold.formats.source import FileSource
from freehold.lab.finetune import finetune, relative_changes
from freehold.lab.models import make_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("lab") / "org" / "base", seed=2, size_mb=3).folder


def bits_of(file: Path) -> dict[str, np.ndarray]:
    with file.open("rb") as opened:
        source = FileSource(opened)
        return {t.name: np.frombuffer(source.pread(t.start, t.stop - t.start), "<u2") for t in read_safetensors(source).tensors}


def delta_entropy(base: np.ndarray, tuned: np.ndarray) -> float:
    """Share of the size that an ideal coder of ordered differences needs, given the base's exponent."""

    def ordered(bits: np.ndarray) -> np.ndarray:
        return np.where(bits >> 15, bits ^ 0xFFFF, bits ^ 0x8000).astype(np.uint16).astype(np.int32)

    step = (ordered(tuned) - ordered(base)).astype(np.int16).astype(np.int32)
    zigzag = ((step << 1) ^ (step >> 15)) & 0xFFFF
    exponent = (base >> 7) & 0xFF
    total = 0.0
    for value in np.unique(exponent):
        counts = np.bincount(zigzag[exponent == value])
        shares = counts[counts > 0] / counts.sum()
        total -= float((shares * np.log2(shares)).sum()) * float(counts.sum())
    return total / (16 * base.size)


@pytest.mark.parametrize(("relative", "expected"), [(0.0019, 0.092), (0.013, 0.242), (0.072, 0.383)])
def test_the_change_is_the_asked_one_and_its_entropy_that_of_real_training(
    base: Path, tmp_path: Path, relative: float, expected: float
) -> None:
    made = finetune(base, tmp_path / "ft", relative_change=relative, seed=5)
    changes = relative_changes(base / "model.safetensors", made.folder / "model.safetensors")
    matrices = {n: c for n, c in changes.items() if "norm" not in n}
    assert all(change == pytest.approx(relative, rel=0.01) for change in matrices.values())
    old, new = bits_of(base / "model.safetensors"), bits_of(made.folder / "model.safetensors")
    both = [np.concatenate([side[n] for n in matrices]) for side in (old, new)]
    assert delta_entropy(*both) == pytest.approx(expected, abs=0.015)


def test_the_size_of_a_move_hardly_depends_on_the_size_of_the_weight(base: Path, tmp_path: Path) -> None:
    made = finetune(base, tmp_path / "ft", relative_change=0.013, seed=5)
    name = "model.layers.0.mlp.up_proj.weight"
    sides = [bits_of(folder / "model.safetensors")[name].astype("<u4") << 16 for folder in (base, made.folder)]
    old, new = (np.abs(s.view("<f4")) if i == 0 else s.view("<f4") for i, s in enumerate(sides))
    moved = np.abs(new - sides[0].view("<f4"))
    order = np.argsort(old)
    small, large = moved[order[: len(order) // 4]].mean(), moved[order[-len(order) // 4 :]].mean()
    assert 0.7 < large / small < 1.5


def test_same_words_same_bytes_and_another_seed_another_model(base: Path, tmp_path: Path) -> None:
    weights = [
        finetune(base, tmp_path / n, relative_change=0.01, seed=s).folder / "model.safetensors"
        for n, s in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = (w.read_bytes() for w in weights)
    assert (a == b, a == c) == (True, False)


def test_kept_tensors_stay_to_the_byte(base: Path, tmp_path: Path) -> None:
    made = finetune(base, tmp_path / "ft", relative_change=0.05, seed=1, keep=["*norm*", "model.embed_tokens.*"])
    changes = relative_changes(base / "model.safetensors", made.folder / "model.safetensors")
    for name, change in changes.items():
        assert (change == 0) == ("norm" in name or "embed" in name), name


def test_a_merged_adapter_moves_projections_by_its_rank_only(base: Path, tmp_path: Path) -> None:
    made = finetune(base, tmp_path / "ft", relative_change=0.05, seed=1, lora=2)
    changes = relative_changes(base / "model.safetensors", made.folder / "model.safetensors")
    assert {n for n, c in changes.items() if c} == {n for n in changes if "_proj" in n}
    name = "model.layers.1.mlp.gate_proj.weight"
    old, new = (
        (bits_of(f / "model.safetensors")[name].astype("<u4") << 16).view("<f4").astype(np.float64) for f in (base, made.folder)
    )
    with (base / "model.safetensors").open("rb") as file:
        shape = next(t.shape for t in read_safetensors(FileSource(file)).tensors if t.name == name)
    singular = np.linalg.svd((new - old).reshape(shape), compute_uv=False)
    assert singular[1] > 20 * singular[2]


def test_the_card_declares_base_and_relation_and_keeps_the_license(base: Path, tmp_path: Path) -> None:
    card = parse_card((finetune(base, tmp_path / "a", relative_change=0.01, seed=1).folder / "README.md").read_bytes())
    assert (card.base_models, card.base_model_relation, card.license) == (("org/base",), "finetune", "mit")
    named = finetune(base, tmp_path / "b", relative_change=0.01, seed=1, base_id="other/name")
    assert parse_card((named.folder / "README.md").read_bytes()).base_models == ("other/name",)
    assert (named.folder / "LICENSE").read_bytes() == (base / "LICENSE").read_bytes()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_gguf_models_are_tuned_and_keep_their_metadata(tmp_path: Path, dtype: str) -> None:
    base = make_model(tmp_path / "org" / "g", seed=2, size_mb=2, format="gguf", dtype=dtype)
    tuned = finetune(base.folder, tmp_path / "ft", relative_change=0.02, seed=3)
    name = next(f for f in base.files if f.endswith(".gguf"))
    changes = relative_changes(base.folder / name, tuned.folder / name)
    assert all(c == pytest.approx(0.02, rel=0.01) for n, c in changes.items() if "norm" not in n)
    with (base.folder / name).open("rb") as a, (tuned.folder / name).open("rb") as b:
        old, new = read_gguf(FileSource(a)), read_gguf(FileSource(b))
    assert {k: v for k, v in new.types.items() if "base_model" not in k} == old.types
    assert new.metadata["general.base_model.0.organization"] == "org"
    assert new.metadata["general.name"] == old.metadata["general.name"]


def test_shards_keep_their_index(tmp_path: Path) -> None:
    base = make_model(tmp_path / "b", seed=2, size_mb=2, sharded=2)
    tuned = finetune(base.folder, tmp_path / "ft", relative_change=0.02, seed=3)
    index = "model.safetensors.index.json"
    assert (tuned.folder / index).read_bytes() == (base.folder / index).read_bytes()
    for name in (n for n in base.files if n.endswith(".safetensors")):
        assert (tuned.folder / name).stat().st_size == (base.folder / name).stat().st_size
        assert any(relative_changes(base.folder / name, tuned.folder / name).values())


def test_what_cannot_be_tuned_is_named_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    def code(folder: Path, change: float = 0.01) -> str:
        with pytest.raises(FreeholdError) as refused:
            finetune(folder, tmp_path / "out", relative_change=change, seed=1)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.part").exists()
        return refused.value.code

    assert code(tmp_path / "absent") == "lab-folder-missing"
    assert code(base, 0.0) == "lab-argument-invalid"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert code(empty) == "lab-not-finetunable"
    with (empty / "q.gguf").open("wb") as file:
        write_gguf(file, {"general.architecture": "llama"}, [("w", "Q4_0", (1, 32), bytes(18))])
    assert code(empty) == "lab-not-finetunable"
    (empty / "q.gguf").write_bytes((base / "model.safetensors").read_bytes()[:100])
    assert code(empty).startswith("formats-gguf-")
