"""The record of a revision reads back as it was written, and nothing else reads as one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.keep.record import RevisionRecord, decode_record
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.origin import Evidence, Lineage, Origin, Relation

_hex = st.binary(min_size=32, max_size=32).map(bytes.hex)
_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
_records = st.builds(
    RevisionRecord,
    repo=st.just(RepoId("tiny", "acme")),
    commit=st.binary(min_size=20, max_size=20).map(lambda b: CommitId(b.hex())),
    kind=st.sampled_from(["native", "foreign"]),
    tree_oid=st.just("0" * 40),
    title=_text,
    author=_text,
    authored_at=st.integers(0, 1 << 60),
    raw=st.none() | st.binary(max_size=50),
    manifest=_hex.map(lambda h: Manifest((FileEntry("a/b.gguf", 5, Digest.sha256(h), "1" * 40, True, 0o100755, "2" * 64),))),
    origin=st.builds(
        Origin,
        source=_text,
        locator=_text,
        taken_at=st.integers(0, 1 << 60),
        upstream_etag=st.none() | _text,
        evidence=st.none() | _hex.map(Digest.sha256),
        detail=st.dictionaries(_text, _text | st.integers() | st.lists(_text)),
    ),
    lineage=st.tuples(st.builds(Lineage, parent=_text, relation=st.sampled_from(Relation), evidence=st.sampled_from(Evidence))),
)


@given(_records)
def test_a_record_reads_back(record: RevisionRecord) -> None:
    assert decode_record(record.encode()) == record
    assert decode_record(record.encode()).encode() == record.encode()


@given(_records, st.data())
def test_a_damaged_record_is_a_clear_error_or_another_record(record: RevisionRecord, data: st.DataObject) -> None:
    encoded = bytearray(record.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_record(bytes(encoded))
    except FreeholdError as error:
        assert error.code in ("keep-record-invalid", "keep-record-newer") or error.code.startswith("catalog-")


def test_a_newer_record_says_so() -> None:
    with pytest.raises(FreeholdError) as caught:
        decode_record(json.dumps({"format": "freehold-revision", "version": 2}).encode())
    assert caught.value.code == "keep-record-newer"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"null", b"[" * 100_000, b'{"format": 1, "version": {}}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(FreeholdError) as caught:
        decode_record(data)
    assert caught.value.code == "keep-record-invalid"
