"""Files of a revision: the listing that names them, and where their bytes lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest

#: Files of at least this size are "large": their ETag on the Hub API is a sha256, below it a git blob id.
LFS_THRESHOLD = 10 * 1024 * 1024


def check_path(path: str) -> str:
    """`path` if it is a clean relative POSIX path; FreeholdError catalog-entry-not-found otherwise (`..`, absolute, NUL)."""
    pure = PurePosixPath(path)
    clean = bool(path) and not pure.is_absolute() and str(pure) == path and path != "."
    if not clean or ".." in pure.parts or "\\" in path or any(ord(c) < 32 for c in path):
        raise FreeholdError("catalog-entry-not-found", f"not a path inside a model: {path!r}", path=path)
    return path


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a revision. `git_oid` is the git blob id of what git would store: the bytes, or for `lfs` the pointer."""

    path: str
    size: int
    sha256: Digest
    git_oid: str
    lfs: bool = False
    mode: int = 0o100644
    xet_hash: str | None = None

    def __post_init__(self) -> None:
        check_path(self.path)

    @property
    def etag(self) -> str:
        """As the Hub API gives it, without quotes: sha256 of a large file, git blob id of a small one."""
        return self.sha256.hex if self.lfs else self.git_oid


@dataclass(frozen=True, slots=True)
class Manifest:
    """The listing of one revision, sorted by path, no path twice."""

    entries: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        paths = [e.path for e in self.entries]
        if paths != sorted(set(paths)):
            raise ValueError("manifest entries must be sorted by path and distinct")

    def __iter__(self) -> Iterator[FileEntry]:
        return iter(self.entries)

    def find(self, path: str) -> FileEntry:
        """The entry at `path`; FreeholdError catalog-entry-not-found."""
        for entry in self.entries:
            if entry.path == path:
                return entry
        raise FreeholdError("catalog-entry-not-found", f"the revision has no file {path!r}", path=path)

    @property
    def size(self) -> int:
        return sum(e.size for e in self.entries)


@dataclass(frozen=True, slots=True)
class FileExtent:
    """Plain bytes that lie in a file as they are: may be sent by sendfile or mapped by an engine."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class DecodeExtent:
    """Bytes to be had by decoding an object; always authenticated."""

    object_id: Digest
    offset: int
    length: int


Extent = FileExtent | DecodeExtent
