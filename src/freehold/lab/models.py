"""Models made by seed: complete folders in the shape of a published Llama, with weights that only look trained.

Why: what freehold does to models (store, pack, compare, serve, repair) needs models of any size on any machine, with no
hub and no foreign license; and a failing test must be able to name the model by six words. The same arguments give the
same bytes on every machine (see `weights` for what that rests on). The same seed and size in safetensors and in GGUF are
the same model, as a converter would have made the one from the other.

They answer with noise. Fine-tunes of them are made in `finetune`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.formats.gguf import Typed, write_gguf
from freehold.formats.safetensors import write_safetensors
from freehold.lab.card import write_card
from freehold.lab.outputs import GITATTRIBUTES, MIT, whole_folder
from freehold.lab.shape import LlamaShape, Place, llama_of
from freehold.lab.tokens import BOS, EOS, VOCABULARY, tokenizer
from freehold.nouns.progress import Listener, Progress, silent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.generic]

#: (name, dtype, row-major shape, data), as the writers take them.
StoredTensor = tuple[str, str, tuple[int, ...], memoryview]
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}
LEAST_MB, MOST_MB = 1.0, 256.0


@dataclass(frozen=True, slots=True)
class MadeModel:
    """What was made: `files` relative to `folder`, `weight_bytes` of all tensors."""

    folder: Path
    name: str
    files: tuple[str, ...]
    parameters: int
    weight_bytes: int


def make_model(
    out: Path,
    *,
    seed: int,
    size_mb: float = 10.0,
    format: str = "safetensors",  # noqa: A002 - the word of the command line
    arch: str = "llama",
    dtype: str = "BF16",
    sharded: int = 1,
    license_id: str = "mit",
    license_text: str | None = None,
    listener: Listener = silent,
) -> MadeModel:
    """Write a model of about `size_mb` MB (10^6 bytes of weights) into the new folder `out`.

    `format` is safetensors or gguf, `dtype` BF16, F16 or F32 (norms in GGUF are always F32), `sharded` the number of
    weight files.

    FreeholdError lab-argument-invalid, lab-out-not-empty, lab-folder-unwritable.
    """
    _check(seed, size_mb, format, arch, dtype, sharded)
    shape = llama_of(round(size_mb * 1e6 / ITEM_BYTES[dtype]), VOCABULARY)
    places = list(shape.places())
    if sharded > len(places):
        raise _wrong("sharded", f"a model of {len(places)} tensors cannot lie in {sharded} files")
    name = f"lab-llama-{shape.parameters / 1e6:.1f}M-s{seed}"
    tensors = []
    for at, place in enumerate(places):
        listener(Progress("drawing weights", at, len(places), unit="tensors"))
        tensors.append(_drawn(place, shape, seed, dtype, gguf=format == "gguf"))
    listener(Progress("drawing weights", len(places), len(places), unit="tensors"))
    with whole_folder(out) as folder:
        for file, data in _texts(shape, dtype, name, format, license_id, license_text).items():
            (folder / file).write_bytes(data)
        shards = list(split_tensors(tensors, sharded))
        if format == "gguf":
            write_gguf_files(folder, f"{name}-{dtype}", _gguf_metadata(shape, dtype, name, license_id), shards, listener)
        else:
            write_safetensors_files(folder, shards, {"format": "pt"}, listener)
        files = tuple(sorted(p.name for p in folder.iterdir()))
    return MadeModel(out, name, files, shape.parameters, sum(t[3].nbytes for t in tensors))


def split_tensors(tensors: Sequence[StoredTensor], count: int) -> Iterator[list[StoredTensor]]:
    """`count` runs of neighbours of about equal bytes, none empty."""
    total = sum(t[3].nbytes for t in tensors)
    start, done = 0, 0
    for shard in range(count):
        stop = start + 1
        done += tensors[start][3].nbytes
        while stop < len(tensors) - (count - shard - 1) and (shard == count - 1 or done < total * (shard + 1) / count):
            done += tensors[stop][3].nbytes
            stop += 1
        yield list(tensors[start:stop])
        start = stop


def write_safetensors_files(
    folder: Path, shards: Sequence[Sequence[StoredTensor]], metadata: dict[str, str], listener: Listener = silent
) -> None:
    """model.safetensors, or its shards with their index."""
    count = len(shards)
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)] if count > 1 else ["model.safetensors"]
    for at, (name, tensors) in enumerate(zip(names, shards, strict=True)):
        listener(Progress("writing", at, count, unit="files", item=name))
        failpoint("lab.writing-file")
        with (folder / name).open("wb") as file:
            write_safetensors(file, tensors, metadata)
    if count > 1:
        index = {
            "metadata": {"total_size": sum(t[3].nbytes for shard in shards for t in shard)},
            "weight_map": {
                t[0]: name for name, shard in zip(names, shards, strict=True) for t in sorted(shard, key=lambda t: t[0])
            },
        }
        (folder / "model.safetensors.index.json").write_bytes(to_json(index))


def write_gguf_files(
    folder: Path, stem: str, metadata: dict[str, Any], shards: Sequence[Sequence[StoredTensor]], listener: Listener = silent
) -> None:
    """One file, or as many as there are shards, in the way that llama.cpp splits a model."""
    count, total = len(shards), sum(len(shard) for shard in shards)
    for at, tensors in enumerate(shards):
        name = f"{stem}-{at + 1:05}-of-{count:05}.gguf" if count > 1 else f"{stem}.gguf"
        listener(Progress("writing", at, count, unit="files", item=name))
        told = dict(metadata) if at == 0 else {}
        if count > 1:
            told |= {
                "split.no": Typed("uint16", at),
                "split.count": Typed("uint16", count),
                "split.tensors.count": Typed("int32", total),
            }
        failpoint("lab.writing-file")
        with (folder / name).open("wb") as file:
            write_gguf(file, told, tensors)


def to_json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _check(seed: int, size_mb: float, format_: str, arch: str, dtype: str, sharded: int) -> None:
    for argument, value, known in (
        ("format", format_, ("safetensors", "gguf")),
        ("arch", arch, ("llama",)),
        ("dtype", dtype, tuple(ITEM_BYTES)),
    ):
        if value not in known:
            raise _wrong(argument, f"{argument} is one of {', '.join(known)}, not {value!r}")
    if not LEAST_MB <= size_mb <= MOST_MB:
        raise _wrong("size_mb", f"a lab model has {LEAST_MB:g} to {MOST_MB:g} MB of weights, not {size_mb:g}")
    if sharded < 1:
        raise _wrong("sharded", f"a model lies in at least 1 file, not {sharded}")
    if seed < 0:
        raise _wrong("seed", f"a seed is 0 or more, not {seed}")


def _wrong(argument: str, message: str) -> FreeholdError:
    return FreeholdError("lab-argument-invalid", message, argument=argument)


def _drawn(place: Place, shape: LlamaShape, seed: int, dtype: str, *, gguf: bool) -> StoredTensor:
    from freehold.lab.weights import draw, to_bits

    values = draw(place, seed)
    if place.role == "head":
        values[list(tokenizer().unreadable)] *= 0.2  # as rare tokens' rows are; else most of a greedy answer is no text
    if not gguf:
        return place.name, dtype, place.shape, to_bits(values, dtype).data.cast("B")
    if place.role in ("q", "k"):
        heads = shape.heads if place.role == "q" else shape.kv_heads
        values = paired(values, heads)
    kept = "F32" if place.role == "norm" else dtype
    return place.gguf_name, kept, place.shape, to_bits(values, kept).data.cast("B")


def paired(values: Array, heads: int) -> Array:
    """Rows of a query or key matrix in llama.cpp's order: it turns neighbours where Hugging Face turns halves of a head."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _gguf_metadata(shape: LlamaShape, dtype: str, name: str, license_id: str) -> dict[str, Any]:
    head: dict[str, Any] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "general.author": "freehold lab",
        "general.license": license_id,
        "general.file_type": FILE_TYPES[dtype],
    }
    return head | shape.gguf() | tokenizer().gguf


def _texts(shape: LlamaShape, dtype: str, name: str, format_: str, license_id: str, license_text: str | None) -> dict[str, bytes]:
    files: dict[str, bytes] = {
        ".gitattributes": GITATTRIBUTES.encode(),
        "README.md": _card(shape, dtype, name, format_, license_id).encode(),
    }
    text = license_text if license_text is not None else MIT if license_id == "mit" else None
    if text is not None:
        files["LICENSE"] = text.encode()
    if format_ == "gguf":
        return files
    generation = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": BOS, "do_sample": False}
    return (
        files | {"config.json": to_json(shape.config(dtype)), "generation_config.json": to_json(generation)} | tokenizer().files
    )


def _card(shape: LlamaShape, dtype: str, name: str, format_: str, license_id: str) -> str:
    fields: dict[str, str | list[str]] = {
        "license": license_id,
        "language": ["en"],
        "library_name": "gguf" if format_ == "gguf" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["freehold-lab", "llama", *_also(format_)],
    }
    return write_card(
        fields,
        f"# {name}\n\n"
        f"A Llama of {shape.parameters:,} parameters in {dtype}, made by `freehold lab model`: {shape.layers} layers, "
        f"{shape.hidden} wide, {shape.heads} heads, a vocabulary of {shape.vocabulary}.\n\n"
        "Its weights were drawn by seed, not trained: it serves to test how models are stored, sent, compared and served, and\n"
        "answers with noise. The tokenizer works.\n",
    )


def _also(format_: str) -> Iterable[str]:
    return ["gguf"] if format_ == "gguf" else []
