"""Fine-tunes made by seed: every weight moved as an optimiser would have moved it.

Why so: an Adam-like optimiser moves a weight by an amount that hardly depends on its size, and a mapping of 16 bits keeps
of that only what a step of the number's own grid shows; delta coders live from both. The moves drawn here are normals
scaled by row, by column and by weight, so that the entropy of the BF16 difference given the base's exponent is what real
training leaves: 9.1 % at a relative change of 0.0019, 24.1 % at 0.013 and 39.5 % at 0.072 (measured on trained pairs: 9.2,
24.2 and 38.3). The relative change is the Frobenius norm of the difference over that of the base, tensor by tensor, as stored.

With `lora` the move of each projection has that rank, and all other tensors are the base's to the byte. Same base, seed
and arguments, same bytes; the scale of a tensor's move rests on a float64 sum, whose last bits may differ between
processors, which the rounding to the stored type hides but for rare single steps. A GGUF and a safetensors base of the
same model get different moves. It learns nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.formats.card import parse_card
from freehold.formats.gguf import Deferred, Typed, read_deferred, read_gguf, write_gguf
from freehold.formats.safetensors import read_safetensors, write_safetensors
from freehold.formats.source import FileSource
from freehold.lab.card import set_body, set_field
from freehold.lab.models import ITEM_BYTES, MadeModel, StoredTensor
from freehold.lab.outputs import whole_folder
from freehold.nouns.progress import Listener, Progress, silent
from freehold.nouns.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_NOT_PROJECTIONS = ("*embed*", "*lm_head*", "token_embd.*", "output.*", "*norm*")
_IGNORED = shutil.ignore_patterns(".git", ".cache", ".lab")


@dataclass(frozen=True, slots=True)
class _Move:
    """How the weights are moved; `keep` are shell patterns of tensor names that stay as they are."""

    relative: float
    seed: int
    lora: int | None
    keep: tuple[str, ...]

    def spares(self, tensor: TensorInfo) -> bool:
        if any(fnmatchcase(tensor.name, pattern) for pattern in self.keep):
            return True
        projection = len(tensor.shape) == 2 and not any(fnmatchcase(tensor.name, p) for p in _NOT_PROJECTIONS)
        return self.lora is not None and not projection


def finetune(
    base: Path,
    out: Path,
    *,
    relative_change: float,
    seed: int,
    lora: int | None = None,
    keep: Sequence[str] = (),
    base_id: str | None = None,
    listener: Listener = silent,
) -> MadeModel:
    """Write a fine-tune of the model in the folder `base` into the new folder `out`; other files are copied.

    `base_id` is the name by which the card declares its base (without it the last two folders of `base`).
    FreeholdError lab-argument-invalid, lab-folder-missing, lab-not-finetunable (no weights, or quantised ones),
    lab-folder-unreadable, lab-out-not-empty, lab-folder-unwritable, and formats-* for a file that is not what it says.
    """
    if not 0 < relative_change <= 1:
        said = f"a relative change is above 0 and at most 1, not {relative_change:g}"
        raise FreeholdError("lab-argument-invalid", said, argument="relative_change")
    if seed < 0 or (lora is not None and lora < 1):
        raise FreeholdError("lab-argument-invalid", "a seed is 0 or more, a rank 1 or more", argument="seed")
    if not base.is_dir():
        raise FreeholdError("lab-folder-missing", f"not a folder: {base}", folder=str(base))
    weights = sorted(p for p in base.iterdir() if p.suffix in (".safetensors", ".gguf"))
    if not weights:
        raise FreeholdError("lab-not-finetunable", f"{base} has no .safetensors or .gguf file", folder=str(base))
    move = _Move(relative_change, seed, lora, tuple(keep))
    declared = base_id or f"{base.resolve().parent.name}/{base.resolve().name}"
    name = f"{base.resolve().name}-ft-s{seed}"
    counts = [0, 0]
    with whole_folder(out) as folder:
        for file in sorted(base.iterdir()):
            if file.is_dir() and file.name not in (".git", ".cache", ".lab"):
                shutil.copytree(file, folder / file.name, ignore=_IGNORED)
            elif file.is_file() and file not in weights:
                shutil.copyfile(file, folder / file.name)
        for file in weights:
            failpoint("lab.writing-file")
            moved = _safetensors if file.suffix == ".safetensors" else _gguf
            tensors = moved(file, folder / file.name, move, declared, listener)
            counts[0] += sum(t.elements for t in tensors)
            counts[1] += sum(t.stop - t.start for t in tensors)
        _write_card(base, folder, declared, name, move)
        files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
    return MadeModel(out, name, files, counts[0], counts[1])


def relative_changes(base: Path, tuned: Path) -> dict[str, float]:
    """The relative change of each tensor that two weight files of one format share by name, shape and type.

    FreeholdError as for `finetune`.
    """
    import numpy as np

    result: dict[str, float] = {}
    with base.open("rb") as old_file, tuned.open("rb") as new_file:
        old, new = FileSource(old_file), FileSource(new_file)
        others = {t.name: t for t in _header(new, tuned)}
        for tensor in _header(old, base):
            other = others.get(tensor.name)
            if other is not None and (other.shape, other.dtype) == (tensor.shape, tensor.dtype) and tensor.dtype in ITEM_BYTES:
                before, after = (_values(s, t).astype(np.float64) for s, t in ((old, tensor), (new, other)))
                result[tensor.name] = float(np.linalg.norm(after - before) / (np.linalg.norm(before) or 1.0))
    return result


def _header(source: FileSource, file: Path) -> tuple[TensorInfo, ...]:
    return read_safetensors(source).tensors if file.suffix == ".safetensors" else read_gguf(source).tensors


def _safetensors(file: Path, target: Path, move: _Move, declared: str, listener: Listener) -> tuple[TensorInfo, ...]:
    del declared
    with file.open("rb") as opened:
        source = FileSource(opened)
        header = read_safetensors(source)
        tensors = _moved(source, header.tensors, move, listener)
    with target.open("wb") as out:
        write_safetensors(out, tensors, header.metadata or None)
    return header.tensors


def _gguf(file: Path, target: Path, move: _Move, declared: str, listener: Listener) -> tuple[TensorInfo, ...]:
    with file.open("rb") as opened:
        source = FileSource(opened)
        header = read_gguf(source)
        metadata: dict[str, Any] = {}
        for key, value in header.metadata.items():
            plain = read_deferred(source, value) if isinstance(value, Deferred) else value
            metadata[key] = Typed(header.types[key], plain)
        tensors = _moved(source, header.tensors, move, listener)
    if "general.architecture" in metadata:  # the first file of a split model has the metadata
        metadata |= {"general.base_model.count": 1, "general.base_model.0.name": declared.rpartition("/")[2]}
        metadata["general.base_model.0.organization"] = declared.rpartition("/")[0] or "unknown"
    with target.open("wb") as out:
        write_gguf(out, metadata, tensors)
    return header.tensors


def _moved(source: FileSource, tensors: Sequence[TensorInfo], move: _Move, listener: Listener) -> list[StoredTensor]:
    result: list[StoredTensor] = []
    total = sum(t.stop - t.start for t in tensors)
    done = 0
    for tensor in tensors:
        listener(Progress("moving weights", done, total, item=tensor.name))
        done += tensor.stop - tensor.start
        if tensor.dtype not in ITEM_BYTES:
            said = f"{tensor.name} is {tensor.dtype}; only BF16, F16 and F32 weights can be moved"
            raise FreeholdError("lab-not-finetunable", said, tensor=tensor.name, dtype=tensor.dtype)
        if move.spares(tensor):
            data = memoryview(source.pread(tensor.start, tensor.stop - tensor.start))
        else:
            data = _step(_values(source, tensor), tensor, move)
        result.append((tensor.name, tensor.dtype, tensor.shape, data))
    listener(Progress("moving weights", total, total))
    return result


def _values(source: FileSource, tensor: TensorInfo) -> Array:
    import numpy as np

    from freehold.lab.weights import from_bits

    raw = source.pread(tensor.start, tensor.stop - tensor.start)
    bits = np.frombuffer(raw, dtype="<u4" if tensor.dtype == "F32" else "<u2")
    return from_bits(bits, tensor.dtype).reshape(tensor.shape)


def _step(before: Array, tensor: TensorInfo, move: _Move) -> memoryview:
    """The tensor's new bytes: the drawn move, scaled until its relative change as stored is the one asked for."""
    import numpy as np

    from freehold.lab.weights import draw_move, from_bits, to_bits

    drawn = draw_move(tensor.name, tensor.shape, move.seed, move.lora)
    size = float(np.sqrt(np.square(before, dtype=np.float64).sum()))
    length = float(np.sqrt(np.square(drawn, dtype=np.float64).sum()))
    scale = move.relative * size / length if length else 0.0
    stored = to_bits(before, tensor.dtype)
    for _ in range(8 if size and length else 0):
        stored = to_bits(before + np.float32(scale) * drawn, tensor.dtype)
        difference = from_bits(stored, tensor.dtype).astype(np.float64) - before
        measured = float(np.sqrt(np.square(difference).sum())) / size
        if abs(measured / move.relative - 1) < 0.002:
            break
        scale *= move.relative / measured if measured else 2.0
    return stored.data.cast("B")


def _write_card(base: Path, folder: Path, declared: str, name: str, move: _Move) -> None:
    card = base / "README.md"
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    for field in ("base_model_relation", "base_model"):
        value = "finetune" if field == "base_model_relation" else declared
        text = set_field(text, field, value)
    how = f"a merged adapter of rank {move.lora}" if move.lora else "all weights"
    body = (
        f"# {name}\n\nA fine-tune of {declared} made by `freehold lab finetune`: {how}, relative change {move.relative:g}.\n\n"
        "Its weights were moved by seed, not trained: it serves to test how derived models are stored, proved and compared.\n"
    )
    text = set_body(text, body)
    if parse_card(text).problem is not None:
        raise FreeholdError("lab-not-finetunable", f"{card} has no readable metadata: {parse_card(text).problem}", file=str(card))
    (folder / "README.md").write_text(text, "utf-8")
