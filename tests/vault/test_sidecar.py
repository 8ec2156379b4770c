"""The table and the manifest: one encoding for each value, and nothing but it is accepted. Golden files pin the bytes."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.vault.hashing import Hashes, hash_stream, object_id, object_id_of
from freehold.vault.sidecar import FileManifest, Segment, Table, decode_manifest, decode_table, table_length

GOLDEN = Path(__file__).parent / "golden"
BLOCK = 262_144
CASES = {p.stem: p for p in sorted(GOLDEN.glob("*.json"))}


def hashes_of(data: bytes) -> Hashes:
    rest = [data]

    def fill(buffer: memoryview) -> int:
        taken = rest[0][: len(buffer)]
        buffer[: len(taken)] = taken
        rest[0] = rest[0][len(taken) :]
        return len(taken)

    return hash_stream(fill, len(data))


def pattern(seed: int, length: int) -> bytes:
    """The content of the golden cases: BLAKE3 output stream of the seed's decimal digits."""
    return blake3(str(seed).encode()).digest(length=length) if length else b""


def refused(data: bytes) -> str:
    with pytest.raises(FreeholdError) as caught:
        decode_table(data)
    return caught.value.code


def resealed(body: bytes) -> bytes:
    """A forged table whose checksum is right: only the rules can refuse it."""
    return body + struct.pack("<32sQ8s", blake3(body).digest(), len(body) + 48, b"FHTEND\r\n")


@pytest.mark.parametrize("name", CASES)
def test_golden_tables_are_read_and_written_to_the_bit(name: str) -> None:
    case = json.loads(CASES[name].read_text("utf-8"))
    content = pattern(case["seed"], case["length"])
    table = Table.of_loose_file(hashes_of(content))
    stored = bytes.fromhex(case["table"])
    assert case["sha256"] == hashlib.sha256(content).hexdigest()
    assert table.encode() == stored
    assert decode_table(stored) == table
    assert table.objects[0].id == Digest("blake3", case["object_id"])
    assert table.files[0].id == Digest("blake3", case["manifest_id"])
    assert table_length(case["length"]) == len(stored)
    (offset,) = table.manifest_offsets()
    encoded = table.files[0].encode()
    assert stored[offset : offset + len(encoded)] == encoded


def test_the_golden_cases_stand_at_the_borders_of_a_block() -> None:
    lengths = {json.loads(p.read_text("utf-8"))["length"] for p in CASES.values()}
    assert lengths == {0, 1, 1000, BLOCK, BLOCK + 1, 3 * BLOCK - 7}


def test_an_object_id_follows_the_written_rule() -> None:
    data = pattern(7, 2 * BLOCK + 5)
    leaves = b"".join(blake3(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK))
    by_hand = blake3(struct.pack("<QI", len(data), BLOCK) + leaves, derive_key_context="freehold vault 2026 object id v1")
    assert object_id_of(data) == hashes_of(data).object_id == Digest("blake3", by_hand.hexdigest())
    assert object_id(len(data) - 1, leaves) != object_id_of(data)


@given(st.integers(0, 4 * BLOCK + 3), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_every_table_round_trips_in_exactly_the_announced_length(length: int, seed: int) -> None:
    table = Table.of_loose_file(hashes_of(pattern(seed, length)))
    encoded = table.encode()
    assert decode_table(encoded) == table
    assert decode_table(encoded).encode() == encoded
    assert len(encoded) == table_length(length)


def test_every_flipped_bit_and_every_truncation_is_refused() -> None:
    encoded = Table.of_loose_file(hashes_of(pattern(3, BLOCK + 1))).encode()
    for bit in range(len(encoded) * 8):
        bad = bytearray(encoded)
        bad[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(bad)) == "vault-sidecar-invalid", bit
    for length in range(len(encoded)):
        assert refused(encoded[:length]) == "vault-sidecar-invalid"
    assert refused(encoded + b"\0") == "vault-sidecar-invalid"


@given(st.integers(0, 10_000), st.integers(0, 7), st.integers(0, 2 * BLOCK))
@settings(max_examples=60, deadline=None)
def test_a_forged_table_with_a_right_checksum_is_refused_or_is_another_canonical_table(at: int, bit: int, length: int) -> None:
    body = bytearray(Table.of_loose_file(hashes_of(pattern(1, length))).encode()[:-48])
    at %= len(body)
    body[at] ^= 1 << bit
    forged = resealed(bytes(body))
    try:
        table = decode_table(forged)
    except FreeholdError as error:
        assert error.code in ("vault-sidecar-invalid", "vault-format-newer")
    else:
        pytest.fail(f"byte {at} of a table may be changed: {table}")


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_with_a_code(data: bytes) -> None:
    for decode in (decode_table, decode_manifest):
        with pytest.raises(FreeholdError):
            decode(data)
    assert refused(resealed(b"\x89FHT\r\n\x1a\n" + data)) in ("vault-sidecar-invalid", "vault-format-newer")


def test_a_newer_version_is_named_and_told_from_damage() -> None:
    body = bytearray(Table.of_loose_file(hashes_of(b"abc")).encode()[:-48])
    body[8:10] = struct.pack("<H", 2)
    assert refused(resealed(bytes(body))) == "vault-format-newer"
    body[8:10] = struct.pack("<H", 0)
    assert refused(resealed(bytes(body))) == "vault-sidecar-invalid"


def test_a_count_that_the_bytes_cannot_hold_is_refused_before_memory_is_taken() -> None:
    body = bytearray(Table.of_loose_file(hashes_of(b"abc")).encode()[:-48])
    body[16:24] = struct.pack("<Q", 2**60)
    body[64 + 40 : 64 + 56] = struct.pack("<QQ", 2**60, 2**60)
    body[64 + 60 : 64 + 64] = struct.pack("<I", 2**32 - 1)
    assert refused(resealed(bytes(body))) == "vault-sidecar-invalid"
    manifest = bytearray(Table.of_loose_file(hashes_of(b"abc")).files[0].encode())
    manifest[12:16] = struct.pack("<I", 2**32 - 1)
    with pytest.raises(FreeholdError, match="do not fit"):
        decode_manifest(bytes(manifest))


def segments() -> st.SearchStrategy[list[Segment]]:
    ids = st.sampled_from([Digest("blake3", c * 64) for c in "abc"])
    return st.lists(st.builds(Segment, ids, st.integers(0, 2**40), st.integers(1, 2**40)), min_size=1, max_size=8)


@given(segments())
def test_a_manifest_of_many_segments_round_trips_and_refuses_what_is_not_canonical(parts: list[Segment]) -> None:
    continued = any(a.object_id == b.object_id and a.offset + a.length == b.offset for a, b in itertools.pairwise(parts))
    size = sum(s.length for s in parts)
    manifest = FileManifest(size, Digest.sha256("d" * 64), tuple(parts))
    if not continued:
        assert decode_manifest(manifest.encode()) == manifest
    first = parts[0]
    split = (Segment(first.object_id, first.offset, 1), Segment(first.object_id, first.offset + 1, first.length))
    for wrong in (
        FileManifest(size + 1, manifest.sha256, manifest.segments),
        FileManifest(size + 1, manifest.sha256, (*split, *parts[1:])),
        FileManifest(size, manifest.sha256, (*parts, Segment(first.object_id, 0, 0))),
        FileManifest(0, manifest.sha256, ()),
    ):
        with pytest.raises(FreeholdError):
            decode_manifest(wrong.encode())


@pytest.mark.parametrize("name", CASES)
def test_a_second_reader_written_from_the_document_alone_agrees(name: str) -> None:
    case = json.loads(CASES[name].read_text("utf-8"))
    data = bytes.fromhex(case["table"])
    content = pattern(case["seed"], case["length"])
    blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    leaves = b"".join(blake3(block).digest() for block in blocks)
    sha = bytes.fromhex(case["sha256"])
    object_ = bytes.fromhex(case["object_id"])
    expected = [
        b"\x89FHT\r\n\x1a\n" + struct.pack("<HHIQ", 1, 1, BLOCK, len(content)) + sha + struct.pack("<II", 1, 1),
        object_ + struct.pack("<QQQHHI", 0, len(content), len(content), 0, 0, len(blocks)) + leaves,
        struct.pack("<I", 104) + b"\x89FHF\r\n\x1a\n" + struct.pack("<HHIQ", 1, 0, 1, len(content)) + sha,
        object_ + struct.pack("<QQ", 0, len(content)),
    ]
    body = b"".join(expected)
    assert data == body + blake3(body).digest() + struct.pack("<Q", len(data)) + b"FHTEND\r\n"
