"""A folder as source: what the user sees there is what is taken, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from freehold.errors import FreeholdError
from freehold.keep.sources.folder import FolderSource
from freehold.keep.sources.source import Resolved
from freehold.keep.take import native_commit
from freehold.nouns.files import LFS_THRESHOLD, FileEntry, Manifest
from freehold.nouns.ids import RepoId
from freehold.nouns.reference import PathReference


def _resolve(path: Path | str, name: str | None = None) -> Resolved:
    return FolderSource(RepoId.parse(name) if name else None).resolve(PathReference(str(path)))


def _code(path: Path | str) -> str:
    with pytest.raises(FreeholdError) as caught:
        _resolve(path)
    return caught.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "my model (v2)"
    (root / "sub").mkdir(parents=True)
    (root / "model.gguf").write_bytes(b"weights")
    (root / "sub" / "config.json").write_bytes(b"{}")
    return root


def test_the_id_follows_from_the_name_or_is_given(folder: Path) -> None:
    assert str(_resolve(folder).repo) == "local/my-model-v2"
    assert str(_resolve(folder / "model.gguf").repo) == "local/model"
    assert str(_resolve(folder, "me/mine").repo) == "me/mine"


def test_a_name_from_which_no_id_follows_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "模型").mkdir()
    (tmp_path / "模型" / "a.gguf").write_bytes(b"1")
    assert _code(tmp_path / "模型") == "keep-name-needed"
    assert str(_resolve(tmp_path / "模型", "me/mine").repo) == "me/mine"


def test_hidden_files_caches_and_links_that_lead_out_stay_behind(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"x")
    (folder / ".env").write_bytes(b"x")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / "out.gguf").symlink_to(outside)
    (folder / "outside").symlink_to(tmp_path)
    (folder / "gone.gguf").symlink_to(folder / "nothing")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    (folder / "same.gguf").symlink_to("model.gguf")
    assert [f.path for f in _resolve(folder).files] == ["model.gguf", "same.gguf", "sub/config.json"]


def test_what_is_not_there_empty_or_unreadable_is_told_apart(folder: Path, tmp_path: Path) -> None:
    assert _code(tmp_path / "nothing") == "keep-path-not-found"
    assert _code("no\0path") == "keep-path-not-found"
    (tmp_path / "empty").mkdir()
    assert _code(tmp_path / "empty") == "keep-folder-empty"
    if os.geteuid() != 0:
        (folder / "model.gguf").chmod(0)
        assert _code(folder) == "keep-path-unreadable"


def test_a_name_that_git_cannot_hold_is_refused_before_anything_is_copied(folder: Path) -> None:
    (folder / "git~1").write_bytes(b"x")
    assert _code(folder) == "keep-listing-invalid"


def test_the_same_files_have_the_same_tree_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "sub").mkdir(parents=True)
    (copy / "model.gguf").write_bytes(b"weights")
    (copy / "sub" / "config.json").write_bytes(b"{}")
    assert _resolve(folder).etag == _resolve(copy).etag
    (copy / "model.gguf").write_bytes(b"Weights")
    assert _resolve(folder).etag != _resolve(copy).etag


def test_the_native_commit_is_the_one_that_git_itself_makes(folder: Path, tmp_path: Path) -> None:
    resolved = _resolve(folder)
    entries = tuple(FileEntry(f.path, f.size, f.sha256, f.git_oid or "") for f in resolved.files if f.sha256)
    sha, tree, _ = native_commit(Manifest(entries), "Title", 1_700_000_000_000_000)
    who = {"NAME": "freehold", "EMAIL": "freehold@localhost", "DATE": "1700000000 +0000"}
    env = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}
    env |= {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "Title")
    assert git("rev-parse", "HEAD^{tree}") == tree
    assert git("rev-parse", "HEAD") == sha


def test_large_files_are_marked_as_such(folder: Path) -> None:
    with (folder / "large.gguf").open("wb") as file:
        file.truncate(LFS_THRESHOLD)
    by_path = {f.path: f for f in _resolve(folder).files}
    assert (by_path["large.gguf"].lfs, by_path["model.gguf"].lfs) == (True, False)


def test_names_that_are_no_text_are_refused_as_files_and_shown_as_folders(tmp_path: Path) -> None:
    root = Path(os.fsdecode(bytes(tmp_path) + b"/model-\xff"))
    root.mkdir()
    (root / "a.gguf").write_bytes(b"1")
    resolved = _resolve(root)
    assert resolved.locator.endswith("model-\ufffd")
    json.dumps(resolved.detail, ensure_ascii=False).encode()
    Path(os.fsdecode(bytes(root) + b"/b\xff.gguf")).write_bytes(b"2")
    assert _code(root) == "keep-listing-invalid"
