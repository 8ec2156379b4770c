"""The weights of a revision: which of its files hold them, their headers, and which files make one model together.

What a file is, is told from its bytes. Headers are read once and strictly; one that breaks a rule is kept with its error, so
that the study of the others goes on and the damage can be reported. Files belong together when an index or the numbering
of a split says so: `model-00001-of-00003.safetensors` and its sisters are one model, two quantisations side by side are two.

It reads headers, not values, and runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from freehold.errors import FreeholdError
from freehold.formats.gguf import GgufFile, read_gguf
from freehold.formats.safetensors import SafetensorsFile, ShardIndex, parse_index, read_safetensors
from freehold.formats.sniff import WEIGHTS, FileKind, sniff
from freehold.formats.source import ByteSource, read_all
from freehold.nouns.tensors import TensorInfo

#: An index names every tensor once: 300,000 tensors with long names.
MAX_INDEX = 64 * 2**20
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.[a-z]+)")
_INDEX = ".safetensors.index.json"
_CLAIMED = {".gguf": FileKind.GGUF, ".safetensors": FileKind.SAFETENSORS}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights. `header` is None for a kind without a reader, and where `error` says what is wrong with it."""

    path: str
    kind: FileKind
    size: int
    header: GgufFile | SafetensorsFile | None = None
    error: FreeholdError | None = None

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        return self.header.tensors if self.header is not None else ()


@dataclass(frozen=True, slots=True)
class WeightSet:
    """The files that make one model, in order. `faults` say what does not fit between them: a missing shard, a wrong index."""

    name: str
    files: tuple[WeightFile, ...]
    faults: tuple[str, ...] = ()

    @property
    def kind(self) -> FileKind:
        return self.files[0].kind

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        return tuple(t for f in self.files for t in f.tensors)

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.name).parent)


@dataclass(frozen=True, slots=True)
class Survey:
    """`kinds` of all files that show one; `sets` with the main one first; `misnamed` claim a format that they are not."""

    kinds: dict[str, FileKind]
    sets: tuple[WeightSet, ...]
    misnamed: tuple[str, ...]
    faults: dict[str, str] = field(default_factory=dict)


def survey(files: Mapping[str, ByteSource]) -> Survey:
    """What weights the files hold. Errors of the sources themselves pass; those of the formats are kept in the result."""
    kinds = {path: kind for path in sorted(files) if (kind := sniff(files[path])) is not None}
    weights = {path: _read(path, kind, files[path]) for path, kind in kinds.items() if kind in WEIGHTS}
    faults: dict[str, str] = {}
    indexes: dict[str, ShardIndex] = {}
    for path in sorted(files):
        if path.endswith(_INDEX):
            try:
                indexes[path] = parse_index(read_all(files[path], MAX_INDEX, path))
            except FreeholdError as error:
                faults[path] = _own(error).message
    claimed = [p for p in sorted(files) if _CLAIMED.get(PurePosixPath(p).suffix.lower()) not in (None, kinds.get(p))]
    return Survey(kinds, tuple(sorted(_sets(weights, indexes), key=_rank)), tuple(claimed), faults)


def read_header(path: str, source: ByteSource) -> WeightFile | None:
    """One file by itself; None if it holds no weights."""
    kind = sniff(source)
    return _read(path, kind, source) if kind in WEIGHTS and kind is not None else None


def _read(path: str, kind: FileKind, source: ByteSource) -> WeightFile:
    try:
        if kind is FileKind.GGUF:
            return WeightFile(path, kind, source.size, read_gguf(source))
        if kind is FileKind.SAFETENSORS:
            return WeightFile(path, kind, source.size, read_safetensors(source))
    except FreeholdError as error:
        return WeightFile(path, kind, source.size, error=_own(error))
    return WeightFile(path, kind, source.size)


def _own(error: FreeholdError) -> FreeholdError:
    """The error, if it speaks of the content; one of the source (a bad disk, a bad block) is raised on."""
    if not error.code.startswith("formats-") or error.code == "formats-source-unreadable":
        raise error
    return error


def _sets(weights: dict[str, WeightFile], indexes: dict[str, ShardIndex]) -> list[WeightSet]:
    left = dict(weights)
    found = []
    for path, index in indexes.items():
        folder = PurePosixPath(path).parent
        shards = {name: str(folder / name) for name in index.shards}
        members = tuple(left.pop(p) for p in shards.values() if p in left)
        if members:
            found.append(WeightSet(path.removesuffix(".index.json"), members, _index_faults(index, shards, members)))
    splits: dict[str, dict[int, WeightFile]] = {}
    counts: dict[str, int] = {}
    for path in list(left):
        match = _SPLIT.fullmatch(path)
        if match and 1 <= int(match["number"]) <= int(match["count"]):
            name = f"{match['stem']}{match['end']} ({match['count']})"
            splits.setdefault(name, {})[int(match["number"])] = left.pop(path)
            counts[name] = int(match["count"])
    for name, parts in splits.items():
        missing = counts[name] - len(parts)
        faults = (f"{missing} of {counts[name]} parts are missing",) if missing else ()
        found.append(WeightSet(name.rpartition(" ")[0], tuple(parts[n] for n in sorted(parts)), faults))
    found += [WeightSet(path, (file,)) for path, file in left.items()]
    return found


def _index_faults(index: ShardIndex, shards: dict[str, str], members: tuple[WeightFile, ...]) -> tuple[str, ...]:
    """Where an index and its shards disagree; silent about shards whose header could not be read."""
    by_path = {m.path: m for m in members}
    faults = [f"the shard {name} is missing" for name, path in shards.items() if path not in by_path]
    placed = {t.name: m.path for m in members for t in m.tensors}
    readable = {m.path for m in members if m.header is not None}
    wrong = [t for t, s in index.weight_map.items() if shards[s] in readable and placed.get(t) != shards[s]]
    unlisted = [t for t in placed if t not in index.weight_map]
    faults += [f"{len(wrong)} tensors are not in the shard that the index names, the first {wrong[0]!r}"] if wrong else []
    faults += [f"{len(unlisted)} tensors are in no line of the index, the first {unlisted[0]!r}"] if unlisted else []
    return tuple(faults)


def _rank(found: WeightSet) -> tuple[bool, bool, int, bool, int, str]:
    """The main one first: whole headers, language model before projector, top folder, `model.*`, the largest, by name."""
    projector = any(
        isinstance(f.header, GgufFile) and f.header.metadata.get("general.architecture") == "clip" for f in found.files
    )
    unread = any(f.header is None for f in found.files)
    depth = len(PurePosixPath(found.name).parts)
    return unread, projector, depth, not PurePosixPath(found.name).name.startswith("model."), -found.size, found.name
