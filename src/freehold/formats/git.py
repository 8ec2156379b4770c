"""Git objects: the bytes of blobs, trees and commits and their ids, and the pointer text of Git LFS.

A kept revision is named by a real git commit, so its id must be the one that git itself would compute: entries sorted
as git sorts them (a folder as if its name ended in `/`), modes in octal without a leading zero, seconds and a zone.
Names that git or a checkout would trip over (`.git`, `..`, a slash) are refused here, before they are in a history.

It keeps no repository and speaks no protocol. SHA-1 object ids only; large files enter as LFS pointers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from freehold.errors import FreeholdError

Kind = Literal["blob", "tree", "commit", "tag"]

FILE, EXECUTABLE, LINK, FOLDER, SUBMODULE = 0o100644, 0o100755, 0o120000, 0o040000, 0o160000
_MODES = frozenset({FILE, EXECUTABLE, LINK, FOLDER, SUBMODULE})
_OID = re.compile(r"[0-9a-f]{40}")
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n")
#: A longer file is no pointer, whatever it begins with.
MAX_POINTER = 1024


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One line of a tree: `name` is a single path segment, `oid` 40 hex digits."""

    mode: int
    name: str
    oid: str


@dataclass(frozen=True, slots=True)
class Signature:
    """Who and when: `at` in UTC microseconds (git keeps whole seconds), `zone` in minutes east of UTC."""

    name: str
    email: str
    at: int
    zone: int = 0


@dataclass(frozen=True, slots=True)
class TreeSet:
    """All trees of one revision: `root` is an oid, `objects` maps each tree's oid to its bytes."""

    root: str
    objects: dict[str, bytes]


class BlobHasher:
    """The oid of a blob that is fed in parts; `size` must be known first, since git hashes it first."""

    def __init__(self, size: int) -> None:
        self._hash = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        self._left = size

    def update(self, part: bytes | memoryview) -> None:
        self._left -= memoryview(part).nbytes
        self._hash.update(part)

    def oid(self) -> str:
        """40 hex digits; FreeholdError formats-git-invalid if other than `size` bytes were fed."""
        if self._left:
            raise _invalid(f"a blob was {abs(self._left)} bytes {'short of' if self._left > 0 else 'over'} its announced size")
        return self._hash.hexdigest()


def object_oid(kind: Kind, data: bytes | memoryview) -> str:
    """40 hex digits: SHA-1 over `<kind> <size>\\0<data>`."""
    digest = hashlib.sha1(b"%s %d\0" % (kind.encode(), memoryview(data).nbytes), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


def blob_oid(data: bytes | memoryview) -> str:
    return object_oid("blob", data)


def tree_bytes(entries: Iterable[TreeEntry]) -> bytes:
    """The tree object of `entries`, in any order; FreeholdError formats-git-invalid for a name or mode that git refuses."""
    rows: dict[bytes, tuple[bytes, bytes]] = {}
    for entry in entries:
        name = _segment(entry.name)
        if entry.mode not in _MODES:
            raise _invalid(f"{entry.name!r} has the mode {entry.mode:o}, which git does not know")
        if name in rows:
            raise _invalid(f"{entry.name!r} stands twice in one folder")
        key = name + b"/" if entry.mode == FOLDER else name
        rows[name] = (key, b"%o %s\0" % (entry.mode, name) + bytes.fromhex(_oid(entry.oid)))
    return b"".join(row for _, row in sorted(rows.values()))


def tree_oid(entries: Iterable[TreeEntry]) -> str:
    return object_oid("tree", tree_bytes(entries))


def build_trees(files: Iterable[tuple[str, int, str]]) -> TreeSet:
    """All trees of a listing of (path, mode, blob oid); FreeholdError formats-git-invalid if they are no tree."""
    folders: dict[str, dict[str, TreeEntry]] = {"": {}}
    for path, mode, oid in files:
        parent, _, name = path.rpartition("/")
        if path.startswith("/"):
            raise _invalid(f"the path {path!r} is absolute")
        _open_folders(folders, parent)
        if name in folders[parent]:
            raise _invalid(f"the path {path!r} stands twice, or is a folder too")
        folders[parent][name] = TreeEntry(mode, name, oid)
    objects: dict[str, bytes] = {}
    for path in sorted(folders.keys() - {""}, key=lambda p: p.count("/"), reverse=True):  # the deepest first
        parent, _, name = path.rpartition("/")
        folders[parent][name] = TreeEntry(FOLDER, name, _store(folders[path], objects))
    return TreeSet(_store(folders[""], objects), objects)


def commit_bytes(tree: str, parents: Iterable[str], author: Signature, committer: Signature, message: str) -> bytes:
    """The commit object; the message ends with one line break, as git writes it. FreeholdError formats-git-invalid."""
    if "\0" in message:
        raise _invalid("a commit message holds a NUL")
    head = [
        f"tree {_oid(tree)}",
        *(f"parent {_oid(p)}" for p in parents),
        f"author {_who(author)}",
        f"committer {_who(committer)}",
    ]
    return _encode("\n".join([*head, "", message.rstrip("\n") + "\n"]), "a commit")


def commit_oid(tree: str, parents: Iterable[str], author: Signature, committer: Signature, message: str) -> str:
    return object_oid("commit", commit_bytes(tree, parents, author, committer, message))


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git holds in the place of a large file (git-lfs pointer v1); an empty file is its own pointer."""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or size < 0:
        raise _invalid(f"not an LFS object: sha256 {sha256!r} of {size} bytes")
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode() if size else b""


def parse_lfs_pointer(data: bytes) -> tuple[str, int] | None:
    """(sha256, size) if `data` is a canonical pointer without extensions, else None. Inverse of `lfs_pointer` for size > 0."""
    match = _POINTER.fullmatch(data) if len(data) <= MAX_POINTER else None
    return (match[1].decode(), int(match[2])) if match else None


def _open_folders(folders: dict[str, dict[str, TreeEntry]], path: str) -> None:
    """Enter `path` and the folders above it, each with a placeholder in its parent until its oid is known."""
    above = ""
    for name in path.split("/") if path else ():
        here = f"{above}/{name}" if above else name
        if here not in folders:
            if name in folders[above]:
                raise _invalid(f"{here!r} is a file and a folder")
            folders[above][name] = TreeEntry(FOLDER, name, "")
            folders[here] = {}
        above = here


def _store(folder: dict[str, TreeEntry], objects: dict[str, bytes]) -> str:
    data = tree_bytes(folder.values())
    oid = object_oid("tree", data)
    objects[oid] = data
    return oid


def _segment(name: str) -> bytes:
    lowered = name.lower().rstrip(". ")
    if name in ("", ".", "..") or lowered in (".git", "git~1") or "/" in name or "\0" in name:
        raise _invalid(f"{name!r} cannot be a name in a git tree")
    return _encode(name, "a file name")


def _who(signature: Signature) -> str:
    for text in (signature.name, signature.email):
        if any(c in text for c in "<>\n\0"):
            raise _invalid(f"{text!r} cannot stand in a commit: it holds '<', '>', a line break or NUL")
    sign, (hours, minutes) = "-" if signature.zone < 0 else "+", divmod(abs(signature.zone), 60)
    return f"{signature.name} <{signature.email}> {signature.at // 1_000_000} {sign}{hours:02}{minutes:02}"


def _oid(oid: str) -> str:
    if not _OID.fullmatch(oid):
        raise _invalid(f"not an object id: {oid!r}")
    return oid


def _encode(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _invalid(f"{what} holds half of a surrogate pair") from error


def _invalid(message: str) -> FreeholdError:
    return FreeholdError("formats-git-invalid", message)
