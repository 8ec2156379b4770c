"""A folder or a single file of this machine as a source: what lies there, hashed, under a native commit.

Why hash at resolving: the digests decide what is kept already, so that taking the same folder in again reads it once and
writes nothing. Links that lead out of the folder, hidden files and caches stay behind: what is taken in must be what the user
sees there. The folder is only read. A file that changes under the reader is an error, never a mixture.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from freehold.errors import FreeholdError
from freehold.formats import git
from freehold.keep.sources.source import MAX_FILES, Resolved, SourceFile, checked_files, evidence_among
from freehold.nouns.digest import Digest
from freehold.nouns.files import LFS_THRESHOLD
from freehold.nouns.ids import RepoId
from freehold.nouns.progress import Listener, Progress, silent
from freehold.nouns.reference import PathReference
from freehold.vault import Part

_CHUNK = 1 << 20
_CACHES = frozenset({"__pycache__", "__MACOSX"})


class FolderSource:
    """`name` overrides the model id, which else is `local/<name of the folder or file>`."""

    def __init__(self, name: RepoId | None = None) -> None:
        self._name = name

    def resolve(self, reference: PathReference, listener: Listener = silent) -> Resolved:
        """FreeholdError keep-path-not-found, keep-path-unreadable, keep-folder-empty, keep-listing-invalid."""
        root = Path(reference.path).expanduser()
        try:
            root = root.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise FreeholdError(
                "keep-path-not-found", f"there is no file or folder {reference.path!r}", path=reference.path
            ) from error
        except ValueError as error:
            raise FreeholdError("keep-path-not-found", f"not a path: {reference.path!r}", path=reference.path) from error
        found = dict(_walk(root)) if root.is_dir() else {root.name: root}
        if not found:
            raise FreeholdError("keep-folder-empty", f"{root} holds no files", path=root)
        total, done = sum(_stat(p).st_size for p in found.values()), 0
        files = []
        for path, place in sorted(found.items()):
            files.append(_hashed(path, place, done, total, listener))
            done += files[-1].size
        newest = max(_stat(p).st_mtime_ns for p in found.values()) // 1_000_000_000 * 1_000_000
        listing = checked_files(files, str(root))
        return Resolved(
            source="folder",
            locator=_shown(root),
            repo=self._name or _id_of(root),
            files=listing,
            title=f"Taken from the {'folder' if root.is_dir() else 'file'} {_shown(root).rpartition('/')[2]}",
            at=max(newest, 0),
            etag=f"tree:{_tree_of(listing)}",
            detail={"path": _shown(root), "newest_change": max(newest, 0)},
            evidence=evidence_among(listing),
            place=str(root if root.is_dir() else root.parent),
        )

    def fetch(self, resolved: Resolved, file: SourceFile, part: Part, listener: Listener = silent) -> None:  # noqa: ARG002
        """FreeholdError keep-path-unreadable, keep-changed, vault-disk-full."""
        if part.size > file.size:
            part.truncate()
        try:
            with _open(Path(file.locator)) as source:
                if os.fstat(source.fileno()).st_size != file.size:
                    part.truncate()
                    raise FreeholdError("keep-changed", f"{file.locator} changed while it was taken in", path=file.locator)
                source.seek(part.size)
                while part.size < file.size and (chunk := source.read(min(_CHUNK, file.size - part.size))):
                    part.append(chunk)
                    listener(Progress("copy", part.size, file.size, item=file.path))
        except OSError as error:
            raise _unreadable(Path(file.locator), error) from error
        if part.size != file.size:
            part.truncate()
            raise FreeholdError("keep-changed", f"{file.locator} became shorter while it was taken in", path=file.locator)

    def forget(self, resolved: Resolved) -> None:
        """Nothing was spooled."""


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """(path in the model, real file) of all regular files below `root` that are not hidden and not outside it."""
    count = 0

    def stop(error: OSError) -> None:
        raise _unreadable(Path(error.filename or root), error) from error

    for at, folders, names in os.walk(root, onerror=stop):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _CACHES)
        for name in sorted(names):
            place = Path(at, name)
            if name.startswith("."):
                continue
            real = _inside(root, place)
            if real is None:
                continue
            count += 1
            if count > MAX_FILES:
                raise FreeholdError("keep-listing-invalid", f"{root} holds more than {MAX_FILES} files", path=root)
            yield place.relative_to(root).as_posix(), real


def _inside(root: Path, place: Path) -> Path | None:
    """The regular file that `place` is or links to; None for what leads outside, is gone or is no regular file."""
    try:
        real = place.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    if not real.is_relative_to(root) or not stat.S_ISREG(_stat(real).st_mode):
        return None
    return real


def _hashed(path: str, place: Path, before: int, total: int, listener: Listener) -> SourceFile:
    sha256 = hashlib.sha256()
    try:
        with _open(place) as source:
            size = os.fstat(source.fileno()).st_size
            oid = git.BlobHasher(size)
            done = 0
            while chunk := source.read(_CHUNK):
                done += len(chunk)
                if done > size:
                    break
                sha256.update(chunk)
                if size < LFS_THRESHOLD:
                    oid.update(chunk)
                listener(Progress("read", before + done, total, item=path))
    except OSError as error:
        raise _unreadable(place, error) from error
    if done != size:
        raise FreeholdError("keep-changed", f"{place} changed while it was read", path=place)
    large = size >= LFS_THRESHOLD
    return SourceFile(
        path, size, Digest.sha256(sha256.hexdigest()), git_oid=None if large else oid.oid(), lfs=large, locator=str(place)
    )


def _tree_of(files: tuple[SourceFile, ...]) -> str:
    """The id that git gives to the whole: what tells whether the folder is as it was."""
    return git.build_trees(
        (f.path, f.mode, f.git_oid or git.blob_oid(git.lfs_pointer(f.sha256.hex if f.sha256 else "", f.size))) for f in files
    ).root


def _open(place: Path) -> BinaryIO:
    return place.open("rb")


def _stat(place: Path) -> os.stat_result:
    try:
        return place.stat()
    except OSError as error:
        raise _unreadable(place, error) from error


def _shown(path: Path) -> str:
    """The path as text that can be written anywhere, whatever bytes the file system has."""
    return os.fsencode(path).decode("utf-8", "replace")


def _unreadable(place: Path, error: OSError) -> FreeholdError:
    return FreeholdError("keep-path-unreadable", f"cannot read {place}: {error.strerror or error}", path=place)


def _id_of(root: Path) -> RepoId:
    """`local/<name>`, with characters that no id may hold turned into `-`. FreeholdError keep-name-needed if nothing is left."""
    stem = root.stem if root.is_file() else root.name
    name = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", stem))).strip("-.")[:96].rstrip("-.")
    try:
        return RepoId.parse(f"local/{name}")
    except FreeholdError as error:
        raise FreeholdError("keep-name-needed", f"no model id follows from the name {stem!r}", path=root) from error
