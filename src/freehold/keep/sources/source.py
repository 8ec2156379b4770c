"""Source: a place that models come from, as everything above it sees it.

Two steps, since they fail differently: `resolve` says what there is (cheap, nothing kept), `fetch` brings one file's bytes
into a part of the vault's spool and goes on where the part ends. What a source says of its files (size, SHA-256, git id)
is an announcement: whoever publishes the part compares. Conformance suite: `freehold.testing.source`.

A source does not publish, does not judge licenses or structure, and does not know the catalog.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from freehold.errors import FreeholdError
from freehold.formats import git
from freehold.nouns.digest import Digest
from freehold.nouns.files import check_path
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.origin import Lineage
from freehold.nouns.progress import Listener, silent
from freehold.nouns.reference import Reference
from freehold.vault import Part

#: Most files of one revision: a listing is held in memory.
MAX_FILES = 200_000
#: Largest file that is believed in, in bytes.
MAX_SIZE = 1 << 50


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as its source announces it. `size` in bytes; at least one of `sha256`, `git_oid`, `etag` is set, or the
    bytes can only be taken as they come.

    `git_oid` is the id of what git stores: the bytes, or for `lfs` the pointer. `locator` is the source's own.
    """

    path: str
    size: int
    sha256: Digest | None = None
    git_oid: str | None = None
    lfs: bool = False
    etag: str | None = None
    locator: str = ""
    xet_hash: str | None = None
    mode: int = git.FILE

    @property
    def part_name(self) -> str:
        """The name of its unfinished file: the same bytes continue the same part, wherever they come from."""
        if self.sha256 is not None:
            return f"sha256-{self.sha256.hex}"
        if self.git_oid is not None and not self.lfs:
            return f"git-{self.git_oid}"
        return f"at-{hashlib.sha256(f'{self.locator} {self.etag} {self.size}'.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference means: the files of one revision and where that came from.

    `source` is pypi | hf | folder, `locator` the canonical reference. `commit` is the upstream's own, kept as a foreign
    name; None: the files get a native commit with `title`, `author` and `at` (UTC microseconds; the same contents give the
    same). `ref` is the name to move (heads/main), None to move none that stands. `evidence` lists the paths of the files on
    which declarations rest, the first being the chief. `place` is what `fetch` needs; it means nothing to others.
    """

    source: str
    locator: str
    repo: RepoId
    files: tuple[SourceFile, ...]
    title: str
    at: int
    author: str = ""
    commit: CommitId | None = None
    ref: str | None = "heads/main"
    etag: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    lineage: tuple[Lineage, ...] = ()
    evidence: tuple[str, ...] = ()
    place: str = ""

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)


R_contra = TypeVar("R_contra", bound=Reference, contravariant=True)


class Source(Protocol[R_contra]):
    """`R` is the form of reference that it understands. Safe for several threads fetching different files."""

    def resolve(self, reference: R_contra, listener: Listener = silent) -> Resolved:
        """FreeholdError keep-*, net-*: absent, refused, unreachable, malformed."""

    def fetch(self, resolved: Resolved, file: SourceFile, part: Part, listener: Listener = silent) -> None:
        """Append to `part` what is missing of `file`; it then has `file.size` bytes.

        A part that is longer than the file begins anew. After an error the part holds what came, ready to be continued.
        FreeholdError keep-*, net-*, vault-disk-full.
        """

    def forget(self, resolved: Resolved) -> None:
        """The files are in the vault: drop what was spooled on the way to them."""


def checked_files(files: list[SourceFile], what: str) -> tuple[SourceFile, ...]:
    """The listing sorted by path. FreeholdError keep-listing-invalid: unclean or doubled paths, sizes out of range, too many."""
    if len(files) > MAX_FILES:
        raise FreeholdError("keep-listing-invalid", f"{what} lists more than {MAX_FILES} files")
    seen: set[str] = set()
    for file in files:
        try:
            check_path(file.path)
        except FreeholdError as error:
            raise FreeholdError(
                "keep-listing-invalid", f"{what} lists a path that is none: {file.path!r}", path=file.path
            ) from error
        if file.path in seen:
            raise FreeholdError("keep-listing-invalid", f"{what} lists {file.path!r} twice", path=file.path)
        if not 0 <= file.size <= MAX_SIZE:
            raise FreeholdError("keep-listing-invalid", f"{what} says that {file.path!r} has {file.size} bytes", path=file.path)
        seen.add(file.path)
    try:
        git.build_trees((f.path, f.mode, "0" * 40) for f in files)
    except FreeholdError as error:
        raise FreeholdError("keep-listing-invalid", f"{what}: {error.message}") from error
    return tuple(sorted(files, key=lambda f: f.path))


_EVIDENCE = re.compile(
    r"(readme|license|licence|notice|copying|use_policy|acceptable_use_policy|metadata)([.-].*)?", re.IGNORECASE
)


def evidence_among(files: tuple[SourceFile, ...]) -> tuple[str, ...]:
    """Paths of the top folder's card and legal texts, the card first."""
    found = [f.path for f in files if "/" not in f.path and _EVIDENCE.fullmatch(f.path)]
    return tuple(sorted(found, key=lambda p: (not p.lower().startswith(("readme", "metadata")), p)))
