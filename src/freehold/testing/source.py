"""What every Source must do, as checks that any implementation runs.

Each check takes a `SourceCase` - a source, a reference that it can resolve to at least two non-empty files, one that names
nothing - and a vault to make parts in; its first line is the sentence that it protects, and it raises AssertionError. It does
not test what is special to one source: its protocol's refusals, its network's faults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.errors import FreeholdError, error_table
from freehold.formats import git
from freehold.keep.sources.source import Resolved, Source, SourceFile, checked_files
from freehold.nouns.progress import Progress
from freehold.vault import Part, Vault


@dataclass(frozen=True)
class SourceCase:
    """`absent` names nothing; `spool` is where the source may leave things until `forget` (None if it never does)."""

    source: Source[Any]
    reference: Any
    absent: Any
    spool: Path | None = None


Check = Callable[[SourceCase, Vault], None]


class _CountingPart(Part):
    """Counts the bytes that are appended: what a source brings, as against what was there."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.appended = 0

    def append(self, chunk: bytes | memoryview) -> None:
        super().append(chunk)
        self.appended += len(chunk)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _part(vault: Vault, name: str) -> _CountingPart:
    with vault.part(name) as part:
        path = part.path
    return _CountingPart(path)


def _bytes_of(case: SourceCase, vault: Vault, resolved: Resolved, file: SourceFile) -> bytes:
    with _part(vault, f"whole-{file.path}") as part:
        part.truncate()
        case.source.fetch(resolved, file, part)
        return part.pread(0, part.size)


def _largest(resolved: Resolved) -> SourceFile:
    return max(resolved.files, key=lambda f: f.size)


def a_listing_is_clean(case: SourceCase, vault: Vault) -> None:  # noqa: ARG001
    """Files are listed once each, sorted, under clean paths; the listing says where it comes from."""
    resolved = case.source.resolve(case.reference)
    _require(len(resolved.files) >= 2, "the case has at least two files")
    _require(checked_files(list(resolved.files), "the case") == resolved.files, "the listing is sorted and clean")
    _require(resolved.size == sum(f.size for f in resolved.files), "sizes add up")
    _require(bool(resolved.source) and bool(resolved.locator), "source and locator are named")
    _require(set(resolved.evidence) <= {f.path for f in resolved.files}, "evidence is among the files")


def resolving_again_gives_the_same(case: SourceCase, vault: Vault) -> None:  # noqa: ARG001
    """As long as nothing changes at the source, a second resolve gives an equal answer."""
    _require(case.source.resolve(case.reference) == case.source.resolve(case.reference), "both answers are equal")


def what_is_fetched_is_what_was_announced(case: SourceCase, vault: Vault) -> None:
    """Each file arrives with the announced size, SHA-256 and git id."""
    resolved = case.source.resolve(case.reference)
    for file in resolved.files:
        data = _bytes_of(case, vault, resolved, file)
        _require(len(data) == file.size, f"{file.path} has its size")
        sha256 = hashlib.sha256(data).hexdigest()
        _require(file.sha256 is None or file.sha256.hex == sha256, f"{file.path} has its SHA-256")
        stored = git.lfs_pointer(sha256, len(data)) if file.lfs else data
        _require(file.git_oid in (None, git.blob_oid(stored)), f"{file.path} has its git id")


def a_part_is_continued(case: SourceCase, vault: Vault) -> None:
    """A part that holds the beginning gets the rest appended, and nothing twice."""
    resolved = case.source.resolve(case.reference)
    file = _largest(resolved)
    whole = _bytes_of(case, vault, resolved, file)
    for have in (1, file.size // 2, file.size - 1):
        with _part(vault, f"begun-{have}") as part:
            part.append(whole[:have])
            part.appended = 0
            case.source.fetch(resolved, file, part)
            _require(part.pread(0, part.size) == whole, f"continued from {have}, the bytes are right")
            _require(part.appended == file.size - have, f"continued from {have}, only the rest is appended")


def a_finished_part_is_left_alone(case: SourceCase, vault: Vault) -> None:
    """A part that is complete gets nothing appended."""
    resolved = case.source.resolve(case.reference)
    file = _largest(resolved)
    with _part(vault, "finished") as part:
        part.append(_bytes_of(case, vault, resolved, file))
        part.appended = 0
        case.source.fetch(resolved, file, part)
        _require(part.appended == 0, "nothing is appended")
        _require(part.size == file.size, "the size stays")


def a_part_that_is_too_long_begins_anew(case: SourceCase, vault: Vault) -> None:
    """A part longer than the file cannot be its beginning and is not kept."""
    resolved = case.source.resolve(case.reference)
    file = _largest(resolved)
    whole = _bytes_of(case, vault, resolved, file)
    with _part(vault, "too-long") as part:
        part.append(b"?" * (file.size + 1))
        case.source.fetch(resolved, file, part)
        _require(part.pread(0, part.size) == whole, "the bytes are right")


def files_may_be_fetched_at_the_same_time(case: SourceCase, vault: Vault) -> None:
    """Several threads fetch different files of one listing, each gets its own bytes."""
    resolved = case.source.resolve(case.reference)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda f: hashlib.sha256(_bytes_of(case, vault, resolved, f)).hexdigest(), resolved.files))
    alone = [hashlib.sha256(_bytes_of(case, vault, resolved, f)).hexdigest() for f in resolved.files]
    _require(found == alone, "all bytes are right")


def progress_is_told(case: SourceCase, vault: Vault) -> None:
    """A listener hears of a file until it is whole, and never of more bytes than there are."""
    resolved = case.source.resolve(case.reference)
    file = _largest(resolved)
    heard: list[Progress] = []
    with _part(vault, "heard") as part:
        case.source.fetch(resolved, file, part, heard.append)
    _require(bool(heard) and heard[-1].done == file.size, "the last word is the whole size")
    _require(all(p.done <= file.size for p in heard), "no more than there is")
    _require([p.done for p in heard] == sorted(p.done for p in heard), "it only grows")


def what_does_not_exist_is_a_clear_error(case: SourceCase, vault: Vault) -> None:  # noqa: ARG001
    """An absent reference is one of this room's errors, with a hint."""
    try:
        case.source.resolve(case.absent)
    except FreeholdError as error:
        _require(error.code.startswith("keep-") and error.code in error_table(), f"{error.code} is listed")
        _require(bool(error.hint), "it says what to do")
        return
    raise AssertionError("resolving an absent reference does not raise")


def forgetting_leaves_nothing(case: SourceCase, vault: Vault) -> None:  # noqa: ARG001
    """After `forget` the source's own spool is empty, and forgetting again does no harm."""
    resolved = case.source.resolve(case.reference)
    case.source.forget(resolved)
    case.source.forget(resolved)
    left = [p for p in case.spool.rglob("*") if p.is_file()] if case.spool and case.spool.exists() else []
    _require(not left, f"left behind: {left}")


CHECKS: tuple[Check, ...] = (
    a_listing_is_clean,
    resolving_again_gives_the_same,
    what_is_fetched_is_what_was_announced,
    a_part_is_continued,
    a_finished_part_is_left_alone,
    a_part_that_is_too_long_begins_anew,
    files_may_be_fetched_at_the_same_time,
    progress_is_told,
    what_does_not_exist_is_a_clear_error,
    forgetting_leaves_nothing,
)
