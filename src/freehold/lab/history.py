"""The git-like history of each model in a folder: real blob, tree and commit ids, and the bytes of every revision.

Why the lab keeps one: what a mirror must survive is change over time (a file replaced under the same ref, a history
rewritten, a license swapped), and a bare folder has no time. The user's folder is only read: bytes are copied under
`FOLDER/.lab/blobs` by sha256, the history lies in `FOLDER/.lab/history`, and both may be deleted to begin anew.

It does not speak HTTP, and it is no git repository: only the ids are git's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from freehold.errors import FreeholdError
from freehold.formats import git
from freehold.nouns.digest import Digest
from freehold.nouns.files import LFS_THRESHOLD, FileEntry, Manifest, check_path
from freehold.nouns.ids import RepoId
from freehold.nouns.moment import Clock

#: What the lab keeps beside the models, in their folder.
LAB = ".lab"
AUTHOR = "freehold-lab"
_EMAIL = "lab@freehold.invalid"
#: Names that a hub keeps as large files whatever their size (its default .gitattributes).
_LFS_NAMES = re.compile(
    r".*\.(7z|arrow|bin|bz2|ckpt|ftz|gguf|gz|h5|joblib|mlmodel|model|msgpack|npy|npz|onnx|ot|parquet|pb|pickle|pkl|pt|pth|rar"
    r"|safetensors|tar|tflite|tgz|wasm|xz|zip|zst)"
)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Commit:
    """One revision. `at` in UTC microseconds (git keeps the seconds); `tree` is the root tree's id."""

    sha: str
    tree: str
    parent: str | None
    at: int
    title: str
    message: str
    manifest: Manifest

    def find(self, path: str) -> FileEntry | None:
        return next((e for e in self.manifest if e.path == path), None)


@dataclass(frozen=True, slots=True)
class Repository:
    """A model with its history; a new value for each change. `refs` has full names (refs/heads/main) in order of making."""

    id: RepoId
    refs: Mapping[str, str]
    commits: Mapping[str, Commit]

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, tag, full ref name or sha (or its first 7 digits and more).

        FreeholdError catalog-revision-not-found.
        """
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [sha for sha in self.commits if sha.startswith(revision)]
            if len(found) == 1:
                return self.commits[found[0]]
        raise FreeholdError(
            "catalog-revision-not-found", f"{self.id} has no revision {revision!r}", id=str(self.id), revision=revision
        )

    def log(self, revision: str) -> Iterator[Commit]:
        """The commit and its ancestors, newest first."""
        commit: Commit | None = self.resolve(revision)
        while commit is not None:
            yield commit
            commit = self.commits.get(commit.parent) if commit.parent else None

    def last_change(self, revision: str) -> dict[str, Commit]:
        """For each path of the revision the commit that gave it its present bytes."""
        history = list(self.log(revision))
        result: dict[str, Commit] = {}
        for commit, before in zip(history, [*history[1:], None], strict=True):
            old = {e.path: e.git_oid for e in before.manifest} if before else {}
            now = {e.path: e.git_oid for e in commit.manifest}
            for entry in history[0].manifest:
                same = now.get(entry.path) == entry.git_oid
                if entry.path not in result and same and old.get(entry.path) != entry.git_oid:
                    result[entry.path] = commit
        return result

    def with_commit(self, commit: Commit, ref: str = "refs/heads/main") -> Repository:
        return replace(self, commits={**self.commits, commit.sha: commit}, refs={**self.refs, ref: commit.sha})

    def with_ref(self, ref: str, sha: str) -> Repository:
        return replace(self, refs={**self.refs, ref: sha})


def folder_ids(manifest: Iterable[FileEntry]) -> dict[str, str]:
    """The git tree id of each folder of the listing; the root's is at the empty path."""
    inside: dict[str, list[git.TreeEntry]] = {"": []}
    for entry in manifest:
        *above, name = entry.path.split("/")
        for depth in range(len(above)):
            inside.setdefault("/".join(above[: depth + 1]), [])
        inside["/".join(above)].append(git.TreeEntry(entry.mode, name, entry.git_oid))
    result: dict[str, str] = {}
    for folder in sorted(inside, key=lambda f: (f == "", -f.count("/"), f)):  # the deepest first, the root last
        result[folder] = git.tree_oid(inside[folder])
        parent, _, name = folder.rpartition("/")
        if folder:
            inside[parent].append(git.TreeEntry(git.FOLDER, name, result[folder]))
    return result


def make_commit(manifest: Manifest, parent: str | None, at: int, title: str, body: str = "") -> Commit:
    """The commit with git's own id for it."""
    tree = folder_ids(manifest)[""]
    who = git.Signature(AUTHOR, _EMAIL, at)
    sha = git.commit_oid(tree, [parent] if parent else [], who, who, f"{title}\n\n{body}" if body else title)
    return Commit(sha, tree, parent, at, title, body, manifest)


class ModelFolder:
    """FOLDER/org/name/files... and FOLDER/name/files..., with the history of each under FOLDER/.lab.

    Not safe for threads: whoever shares it holds a lock.
    """

    def __init__(self, root: Path, clock: Clock) -> None:
        """FreeholdError lab-folder-missing if `root` is no folder."""
        if not root.is_dir():
            raise FreeholdError("lab-folder-missing", f"not a folder: {root}", folder=str(root))
        self.root = root.resolve()
        self._clock = clock
        self._lab = self.root / LAB

    def blob(self, sha256: str) -> Path:
        return self._lab / "blobs" / sha256[:2] / sha256

    def models(self) -> dict[str, Path]:
        """Each model's id and folder. A first-level folder with a file directly in it is a model without a namespace."""
        found: dict[str, Path] = {}
        for first in _folders(self.root):
            if any(f.is_file() for f in first.iterdir()):
                found[first.name] = first
            else:
                found |= {f"{first.name}/{second.name}": second for second in _folders(first)}
        return {id_: path for id_, path in found.items() if _is_id(id_) and not id_.endswith(".part")}

    def load(self, id_: RepoId, folder: Path | None) -> Repository:
        """The model's history, with one commit more if its folder has changed since it was last looked at.

        FreeholdError lab-history-broken if the kept history cannot be read, lab-folder-unwritable.
        """
        repository, seen = self._read(id_)
        if folder is None or not folder.is_dir():
            return repository
        stored: dict[str, FileEntry] = {}
        now: dict[str, list[Any]] = {}
        for path, file in _files(folder):
            status = file.stat()
            stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
            before = seen.get(path)
            if before is not None and before[:3] == stamp and self.blob(before[3]).is_file():
                stored[path] = _entry(path, status.st_size, before[3], before[4])
            else:
                stored[path] = self.store_file(path, file)
            now[path] = [*stamp, stored[path].sha256.hex, stored[path].git_oid]
        if {p: row[3] for p, row in now.items()} != {p: row[3] for p, row in seen.items()} or not repository.commits:
            title = "initial commit" if not repository.commits else "Take over the folder's changes"
            parent = repository.refs.get("refs/heads/main")
            commit = make_commit(_manifest(stored.values()), parent, self._clock(), title)
            repository = repository.with_commit(commit)
        self._write(repository, now)
        return repository

    def commit(self, repository: Repository, changes: Mapping[str, bytes | None], title: str) -> Repository:
        """A commit on main with each changed path's new bytes (None removes it). The user's folder stays as it is.

        FreeholdError catalog-entry-not-found for a path to remove that is not there or a path outside the model.
        """
        parent = repository.resolve("main")
        entries = {e.path: e for e in parent.manifest}
        for path, data in changes.items():
            check_path(path)
            if data is None:
                if entries.pop(path, None) is None:
                    raise FreeholdError("catalog-entry-not-found", f"{repository.id} has no file {path!r}", path=path)
            else:
                entries[path] = self.store_bytes(path, data)
        made = make_commit(_manifest(entries.values()), parent.sha, self._clock(), title)
        return self.keep(repository.with_commit(made))

    def keep(self, repository: Repository) -> Repository:
        """Write the history down; what was seen of the user's folder stays as it was."""
        self._write(repository, self._read(repository.id)[1])
        return repository

    def store_bytes(self, path: str, data: bytes) -> FileEntry:
        return self._store(path, len(data), io.BytesIO(data))

    def store_file(self, path: str, file: Path) -> FileEntry:
        """FreeholdError lab-folder-unreadable."""
        try:
            with file.open("rb") as source:
                return self._store(path, os.fstat(source.fileno()).st_size, source)
        except OSError as error:
            raise FreeholdError("lab-folder-unreadable", f"cannot read {file}: {error.strerror}", file=str(file)) from error

    def _store(self, path: str, size: int, source: BinaryIO) -> FileEntry:
        sha, blob, written = hashlib.sha256(), git.BlobHasher(size), 0
        with self._writing(), tempfile.NamedTemporaryFile(dir=_made(self._lab / "blobs"), delete=False) as target:
            part = Path(target.name)
            try:
                while chunk := source.read(_CHUNK):
                    sha.update(chunk)
                    blob.update(chunk)
                    target.write(chunk)
                    written += len(chunk)
                target.flush()
                final = self.blob(sha.hexdigest())
                _made(final.parent)
                part.replace(final)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        if written != size:
            raise FreeholdError("lab-folder-unreadable", f"{path} changed while it was read", path=path)
        return _entry(path, size, sha.hexdigest(), blob.oid())

    def _history_file(self, id_: RepoId) -> Path:
        return self._lab / "history" / f"{id_}.json"

    def _read(self, id_: RepoId) -> tuple[Repository, dict[str, list[Any]]]:
        file = self._history_file(id_)
        try:
            kept = json.loads(file.read_bytes())
            commits = {row["sha"]: _commit_of(row) for row in kept["commits"]}
            repository = Repository(id_, dict(kept["refs"]), commits)
            lost = [ref for ref, sha in repository.refs.items() if sha not in commits]
            if not lost:
                return repository, dict(kept["seen"])
            said = f"{lost[0]} names no commit"
        except FileNotFoundError:
            return Repository(id_, {}, {}), {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = str(error)
        raise FreeholdError("lab-history-broken", f"cannot read {file}: {said}", file=str(file))

    def _write(self, repository: Repository, seen: Mapping[str, list[Any]]) -> None:
        rows = [
            {
                "sha": c.sha,
                "tree": c.tree,
                "parent": c.parent,
                "at": c.at,
                "title": c.title,
                "message": c.message,
                "entries": [[e.path, e.size, e.sha256.hex, e.git_oid, e.lfs] for e in c.manifest],
            }
            for c in repository.commits.values()
        ]
        text = json.dumps({"version": 1, "refs": dict(repository.refs), "commits": rows, "seen": dict(seen)})
        file = self._history_file(repository.id)
        with self._writing():
            part = _made(file.parent) / (file.name + ".part")
            part.write_text(text, "utf-8")
            part.replace(file)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FreeholdError(
                "lab-folder-unwritable", f"cannot write {self._lab}: {error.strerror}", folder=str(self._lab)
            ) from error


def _entry(path: str, size: int, sha256: str, plain_oid: str) -> FileEntry:
    """`plain_oid` is the git blob id of the bytes themselves; a large file's entry has that of its pointer."""
    large = size >= LFS_THRESHOLD or bool(_LFS_NAMES.fullmatch(path.lower()))
    if large:
        plain_oid = git.blob_oid(git.lfs_pointer(sha256, size))
    return FileEntry(path, size, Digest.sha256(sha256), plain_oid, lfs=large)


def _commit_of(row: Mapping[str, Any]) -> Commit:
    entries = tuple(FileEntry(p, size, Digest.sha256(sha), oid, lfs) for p, size, sha, oid, lfs in row["entries"])
    return Commit(row["sha"], row["tree"], row["parent"], row["at"], row["title"], row["message"], Manifest(entries))


def _manifest(entries: Iterable[FileEntry]) -> Manifest:
    return Manifest(tuple(sorted(entries, key=lambda e: e.path)))


def _is_id(text: str) -> bool:
    try:
        RepoId.parse(text)
    except FreeholdError:
        return False
    return True


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in (".git", ".cache", LAB))
        for name in sorted(names):
            file = Path(at, name)
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
