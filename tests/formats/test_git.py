"""Git objects: every id is the one that git itself computes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.formats import git
from freehold.formats.git import (
    BlobHasher,
    Signature,
    TreeEntry,
    blob_oid,
    build_trees,
    commit_bytes,
    commit_oid,
    lfs_pointer,
    parse_lfs_pointer,
    tree_bytes,
    tree_oid,
)

ANN = Signature("Ann Ü", "ann@example.org", 1_700_000_000_999_999, 90)
BOB = Signature("Bob", "bob@example.org", 1_700_000_001_000_000, -210)


class RealGit:
    """git itself in an empty repository, with no configuration but its own defaults."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        self("init", "-q")

    def __call__(self, *arguments: str, stdin: bytes = b"", **env: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self._folder, env=self._env | env, input=stdin, capture_output=True, check=True
        )
        return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealGit:
    return RealGit(tmp_path_factory.mktemp("git"))


def test_blob_ids_are_those_of_hash_object(real: RealGit) -> None:
    for data in (b"", b"x\n", bytes(range(256)) * 99):
        assert blob_oid(data) == real("hash-object", "-w", "--stdin", stdin=data)
        hasher = BlobHasher(len(data))
        for at in range(0, len(data), 1000):
            hasher.update(data[at : at + 1000])
        assert hasher.oid() == blob_oid(data)


def test_a_blob_of_another_length_than_announced_has_no_id() -> None:
    for size in (2, 4):
        hasher = BlobHasher(size)
        hasher.update(b"abc")
        with pytest.raises(FreeholdError) as caught:
            hasher.oid()
        assert caught.value.row.code == "formats-git-invalid"


def test_tree_ids_are_those_of_mktree_with_gits_own_order(real: RealGit) -> None:
    blob, empty = real("hash-object", "-w", "--stdin", stdin=b"x"), real("mktree")
    names = ["a.b", "a-b", "a0", "A", "ä", "z"]
    entries = [TreeEntry(git.FILE, n, blob) for n in names] + [
        TreeEntry(git.FOLDER, "a", empty),
        TreeEntry(git.EXECUTABLE, "run", blob),
        TreeEntry(git.LINK, "l", blob),
    ]
    kinds = {git.FOLDER: "tree"}
    listing = "".join(f"{e.mode:06o} {kinds.get(e.mode, 'blob')} {e.oid}\t{e.name}\0" for e in entries)
    assert tree_oid(entries) == tree_oid(reversed(entries)) == real("mktree", "-z", stdin=listing.encode())
    assert tree_oid([]) == empty
    order = [row.split(b" ", 1)[1] for row in tree_bytes(entries).split(b"\0")[:1]]
    assert order == [b"A"]


@settings(max_examples=12, deadline=None)
@given(
    st.sets(
        st.lists(st.sampled_from(["a", "a.b", "a-b", "a0", "B", "é", "a b"]), min_size=1, max_size=3).map("/".join),
        min_size=1,
        max_size=8,
    )
)
def test_the_trees_of_a_listing_are_those_of_write_tree(real: RealGit, paths: set[str]) -> None:
    paths = {p for p in paths if not any(other.startswith(p + "/") for other in paths)}
    blob = real("hash-object", "-w", "--stdin", stdin=b"x")
    real("read-tree", "--empty")
    real("update-index", "-z", "--index-info", stdin="".join(f"100644 {blob}\t{p}\0" for p in paths).encode())
    trees = build_trees((p, git.FILE, blob) for p in paths)
    assert trees.root == real("write-tree")
    for oid, data in trees.objects.items():
        assert real("hash-object", "-t", "tree", "--stdin", stdin=data) == oid


def test_commit_ids_are_those_of_commit_tree(real: RealGit) -> None:
    tree = real("mktree")
    env = {"GIT_AUTHOR_NAME": "Ann Ü", "GIT_AUTHOR_EMAIL": "ann@example.org", "GIT_AUTHOR_DATE": "1700000000 +0130"}
    env |= {"GIT_COMMITTER_NAME": "Bob", "GIT_COMMITTER_EMAIL": "bob@example.org", "GIT_COMMITTER_DATE": "1700000001 -0330"}
    first = real("commit-tree", tree, "-m", "Pull org/name\n\nWith a body: ü", **env)
    assert commit_oid(tree, [], ANN, BOB, "Pull org/name\n\nWith a body: ü") == first
    second = real("commit-tree", tree, "-p", first, "-m", "Next", **env)
    assert commit_oid(tree, [first], ANN, BOB, "Next\n\n") == second
    assert commit_bytes(tree, [first], ANN, BOB, "Next").decode().rstrip("\n") == real("cat-file", "commit", second)


def test_git_itself_finds_no_fault_in_what_is_built(real: RealGit, tmp_path: Path) -> None:
    fresh = RealGit(tmp_path)
    blob = fresh("hash-object", "-w", "--stdin", stdin=b"x")
    trees = build_trees([("a/b/c.txt", git.FILE, blob), ("a.txt", git.FILE, blob)])
    for data in trees.objects.values():
        fresh("hash-object", "-w", "-t", "tree", "--stdin", stdin=data)
    commit = fresh("hash-object", "-w", "-t", "commit", "--stdin", stdin=commit_bytes(trees.root, [], ANN, BOB, "x"))
    fresh("update-ref", "refs/heads/main", commit)
    fresh("fsck", "--strict", "--full")
    assert fresh("ls-tree", "-r", "--name-only", "main") == "a.txt\na/b/c.txt"


@pytest.mark.parametrize("name", ["", ".", "..", ".git", ".GIT", ".git.", "git~1", "a/b", "a\0b", "\ud800"])
def test_names_that_git_would_trip_over_are_refused(name: str) -> None:
    with pytest.raises(FreeholdError) as caught:
        tree_bytes([TreeEntry(git.FILE, name, "0" * 40)])
    assert caught.value.code == "formats-git-invalid"
    assert tree_bytes([TreeEntry(git.FILE, ".gitattributes", "0" * 40)])


@pytest.mark.parametrize("paths", [["a", "a/b"], ["a/b", "a"], ["a", "a"], ["/a"], ["a//b"], ["a/"], ["a/../b"]], ids=str)
def test_listings_that_are_no_tree_are_refused(paths: list[str]) -> None:
    with pytest.raises(FreeholdError) as caught:
        build_trees((p, git.FILE, "0" * 40) for p in paths)
    assert caught.value.code == "formats-git-invalid"


def test_what_would_forge_a_commits_head_is_refused() -> None:
    for bad in (Signature("a\nparent x", "e", 0), Signature("a", "e>", 0)):
        with pytest.raises(FreeholdError, match="cannot stand"):
            commit_bytes("0" * 40, [], bad, BOB, "m")
    for tree, parents, message in (("x", [], "m"), ("0" * 40, ["HEAD"], "m"), ("0" * 40, [], "m\0")):
        with pytest.raises(FreeholdError):
            commit_bytes(tree, parents, ANN, BOB, message)
    with pytest.raises(FreeholdError, match="mode"):
        tree_bytes([TreeEntry(0o777, "a", "0" * 40)])


def test_a_pointer_is_the_text_of_the_specification_and_comes_back() -> None:
    sha = hashlib.sha256(b"x").hexdigest()
    pointer = lfs_pointer(sha, 1)
    assert pointer == f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize 1\n".encode()
    assert parse_lfs_pointer(pointer) == (sha, 1)
    assert lfs_pointer(hashlib.sha256(b"").hexdigest(), 0) == b""


def test_what_is_almost_a_pointer_is_none() -> None:
    sha = hashlib.sha256(b"x").hexdigest()
    pointer = lfs_pointer(sha, 10)
    for changed in (
        b"",
        pointer[:-1],
        pointer + b"\n",
        pointer.replace(b"\n", b"\r\n"),
        pointer.replace(b"size 10", b"size 010"),
        pointer.replace(b"sha256", b"md5"),
        pointer + bytes(2000),
    ):
        assert parse_lfs_pointer(changed) is None
    with pytest.raises(FreeholdError):
        lfs_pointer("A" * 64, 1)
