"""Hubs differ, and some lie: listings without sizes, in pages, or with paths that lead elsewhere; bodies that do not fit."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.db import open_database
from freehold.errors import FreeholdError, error_table
from freehold.formats import git
from freehold.keep.sources import hub_listing
from freehold.keep.sources.hub import HubSource
from freehold.keep.sources.source import Resolved, SourceFile
from freehold.net.egress import Egress, Patience
from freehold.nouns.reference import parse_reference
from freehold.vault import LocalStore, Vault

SHA = "0123456789abcdef0123456789abcdef01234567"
REFERENCE = parse_reference("hf:acme/tiny")
PAGE = "/api/models/acme/tiny/revision/main"
TREE = f"/api/models/acme/tiny/tree/{SHA}"
WEIGHTS = b"weights " * 50_000
CARD = b"---\nlicense: mit\n---\n"


def _row(path: str, data: bytes, *, lfs: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git.blob_oid(data)}
    if lfs:
        sha256 = hashlib.sha256(data).hexdigest()
        row |= {"oid": git.blob_oid(git.lfs_pointer(sha256, len(data))), "lfs": {"oid": sha256, "size": len(data)}}
    return row


@dataclass
class Dialect:
    """A hub as a table: path to (status, headers, body). What is not in it is 404."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def says(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = (status, {k.replace("_", "-"): v for k, v in headers.items()}, data)


@pytest.fixture
def hub() -> Iterator[Dialect]:
    dialect = Dialect()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            dialect.asked.append(self.path)
            known = dialect.answers.get(self.path) or dialect.answers.get(self.path.partition("?")[0]) or (404, {}, b"{}")
            status, headers, body = known
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    dialect.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    dialect.says(PAGE, {"id": "acme/tiny", "sha": SHA, "siblings": [{"rfilename": "README.md"}, {"rfilename": "model.gguf"}]})
    dialect.says(TREE, [_row("README.md", CARD), _row("model.gguf", WEIGHTS, lfs=True)])
    dialect.says(f"/acme/tiny/resolve/{SHA}/README.md", CARD)
    dialect.says(f"/acme/tiny/resolve/{SHA}/model.gguf", WEIGHTS)
    yield dialect
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def source(hub: Dialect) -> Iterator[HubSource]:
    with Egress(patience=Patience(attempts=1)) as egress:
        yield HubSource(egress, hub.url, pause=lambda _: None)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    def clock() -> int:
        return time.time_ns() // 1000

    database = open_database(tmp_path / "vault.db", "vault", clock)
    yield Vault(LocalStore(tmp_path / "objects"), database, tmp_path / "spool", clock)
    database.close()


def _refused(source: HubSource) -> str:
    with pytest.raises(FreeholdError) as caught:
        source.resolve(REFERENCE)
    assert caught.value.code in error_table()
    return caught.value.code


def _weights(resolved: Resolved) -> SourceFile:
    return next(f for f in resolved.files if f.path == "model.gguf")


def test_a_page_without_sizes_sends_the_reader_to_the_tree(hub: Dialect, source: HubSource) -> None:
    resolved = source.resolve(REFERENCE)
    assert [(f.path, f.size, f.lfs) for f in resolved.files] == [
        ("README.md", len(CARD), False),
        ("model.gguf", len(WEIGHTS), True),
    ]
    assert _weights(resolved).sha256 is not None


def test_a_page_with_sizes_needs_no_tree(hub: Dialect, source: HubSource) -> None:
    row = _row("model.gguf", WEIGHTS, lfs=True)
    sibling = {
        "rfilename": "model.gguf",
        "size": row["size"],
        "blobId": row["oid"],
        "lfs": {"sha256": row["lfs"]["oid"], "size": row["size"]},
    }
    hub.says(PAGE, {"id": "acme/tiny", "sha": SHA, "siblings": [sibling]})
    resolved = source.resolve(REFERENCE)
    assert _weights(resolved).sha256 == _weights(resolved).sha256
    assert not [path for path in hub.asked if path.startswith(TREE)]


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute link", "relative link"])
def test_a_tree_in_pages_is_read_to_its_end(hub: Dialect, source: HubSource, absolute: bool) -> None:
    following = f"{TREE}?recursive=true&cursor=x"
    link = f'<{hub.url if absolute else ""}{following}>; rel="next"'
    folder = {"type": "directory", "path": "sub", "oid": SHA, "size": 0}
    hub.says(TREE, [folder, _row("README.md", CARD)], Link=link)
    hub.says(following, [_row("model.gguf", WEIGHTS, lfs=True)])
    assert [f.path for f in source.resolve(REFERENCE).files] == ["README.md", "model.gguf"]


def test_a_tree_that_does_not_end_or_continues_elsewhere_is_refused(hub: Dialect, source: HubSource) -> None:
    hub.says(TREE, [_row("README.md", CARD)], Link=f'<{TREE}?recursive=true>; rel="next"')
    assert _refused(source) == "keep-hub-invalid"
    hub.says(TREE, [_row("README.md", CARD)], Link='<http://elsewhere.example/x>; rel="next"')
    assert _refused(source) == "keep-hub-invalid"


@pytest.mark.parametrize(
    "rows",
    [
        [_row("../up.gguf", b"x")],
        [_row("/etc/passwd", b"x")],
        [_row("a\\b.gguf", b"x")],
        [_row("a.gguf", b"x"), _row("a.gguf", b"y")],
        [_row("a", b"x"), _row("a/b", b"y")],
        [_row(".git/config", b"x")],
        [_row("a.gguf", b"x") | {"size": -1}],
        [_row("a.gguf", b"x") | {"size": 1 << 60}],
    ],
)  # fmt: skip
def test_paths_that_lead_elsewhere_and_impossible_sizes_are_refused(hub: Dialect, source: HubSource, rows: list[Any]) -> None:
    hub.says(TREE, rows)
    assert _refused(source) == "keep-listing-invalid"


@pytest.mark.parametrize(
    "page",
    [
        b"<html>Please log in</html>", b"", b"[]", b"null", b"{}", b'{"sha": "main"}', b"[" * 100_000,
        json.dumps({"sha": SHA, "siblings": [{"rfilename": 3}]}).encode(),
        json.dumps({"sha": SHA, "siblings": ["x"]}).encode(),
    ],
)  # fmt: skip
def test_a_page_that_is_none_is_named_as_such(hub: Dialect, source: HubSource, page: bytes) -> None:
    hub.says(PAGE, page)
    assert _refused(source) == "keep-hub-invalid"


def test_halves_of_characters_in_an_answer_are_written_as_question_marks(hub: Dialect, source: HubSource) -> None:
    page = {"id": "acme/tiny", "sha": SHA, "author": "a\ud800b", "siblings": [{"rfilename": "README.md"}]}
    hub.says(PAGE, page)
    hub.says(f"/api/models/acme/tiny/commits/{SHA}", [{"id": SHA, "title": "t\udfff", "date": "2026-01-01T00:00:00.000Z"}])
    resolved = source.resolve(REFERENCE)
    assert (resolved.title, resolved.detail["author"]) == ("t?", "a?b")
    hub.says(TREE, [_row("\ud800.gguf", b"x")])
    assert _refused(source) == "keep-listing-invalid"


def test_another_commit_than_was_asked_for_is_refused(hub: Dialect, source: HubSource) -> None:
    other = SHA[::-1]
    hub.says(f"/api/models/acme/tiny/revision/{other}", {"sha": SHA, "siblings": []})
    with pytest.raises(FreeholdError) as caught:
        source.resolve(parse_reference(f"hf:acme/tiny@{other}"))
    assert caught.value.code == "keep-hub-invalid"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "", "keep-repo-not-found"), (401, "RepoNotFound", "keep-repo-not-found"), (401, "GatedRepo", "keep-gated"),
        (403, "GatedRepo", "keep-gated"), (403, "", "keep-forbidden"), (403, "DisabledRepo", "keep-withdrawn"),
        (410, "", "keep-withdrawn"), (451, "", "keep-withdrawn"), (404, "RevisionNotFound", "keep-revision-not-found"),
        (404, "EntryNotFound", "keep-file-gone"), (429, "", "keep-rate-limited"),
        (500, "", "keep-hub-unreachable"), (418, "", "keep-hub-invalid"),
    ],
)  # fmt: skip
def test_each_way_of_saying_no_has_its_code(hub: Dialect, source: HubSource, status: int, code: str, expected: str) -> None:
    hub.says(PAGE, b"no", status, X_Error_Code=code, X_Error_Message="for a\treason")
    assert _refused(source) == expected


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (200, {}, WEIGHTS + b"!", "keep-size-mismatch"),
        (206, {"Content_Range": f"bytes 5-9/{len(WEIGHTS)}"}, WEIGHTS[5:10], "keep-changed"),
        (206, {}, WEIGHTS, "keep-changed"),
        (416, {}, b"", "keep-size-mismatch"),
        (200, {"X_Linked_Etag": f'"{"0" * 64}"'}, WEIGHTS, "keep-changed"),
        (200, {}, WEIGHTS[:1000], "keep-truncated"),
        (404, {"X_Error_Code": "EntryNotFound"}, b"", "keep-file-gone"),
    ],
)
def test_a_body_that_does_not_fit_is_no_file(
    hub: Dialect, source: HubSource, vault: Vault, status: int, headers: dict[str, str], body: bytes, expected: str
) -> None:
    resolved = source.resolve(REFERENCE)
    hub.says(f"/acme/tiny/resolve/{SHA}/model.gguf", body, status, **headers)
    with vault.part("x") as part, pytest.raises(FreeholdError) as caught:
        source.fetch(resolved, _weights(resolved), part)
    assert caught.value.code == expected
    assert part.size == (1000 if expected == "keep-truncated" else 0)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut", "\x00"])
def test_a_token_that_is_none_is_refused_before_it_is_sent(hub: Dialect, token: str) -> None:
    with Egress() as egress, pytest.raises(FreeholdError) as caught:
        HubSource(egress, hub.url, token)
    assert caught.value.code == "keep-token-invalid"
    assert token not in caught.value.message


_WORDS = ["a.gguf", "file", SHA, SHA + "0" * 24, "\ud800"]
_PAGE_KEYS = ["sha", "siblings", "rfilename", "size", "blobId", "lfs", "sha256", "cardData", "license", "gated", "lastModified"]
_OTHER_KEYS = ["oid", "path", "type", "id", "title", "date", "authors", "user", "branches", "tags", "name"]
_leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(_WORDS)
_json = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_PAGE_KEYS + _OTHER_KEYS), inner, max_size=5),
    max_leaves=15,
)


@given(_json)
def test_no_json_of_a_hub_makes_the_reader_stumble(value: Any) -> None:
    info = value if isinstance(value, dict) else {"siblings": value, "cardData": value}
    for read in (
        lambda: hub_listing.commit_of(value, "x"),
        lambda: hub_listing.sibling_files(info, "x"),
        lambda: hub_listing.tree_files(value, "x"),
        lambda: hub_listing.tree_files([value], "x"),
    ):
        try:
            read()
        except FreeholdError as error:
            assert error.code == "keep-hub-invalid"
    json.dumps(hub_listing.upstream_facts(info), ensure_ascii=False).encode()
    hub_listing.commit_facts(value, SHA)
    hub_listing.commit_facts([value], SHA)
    hub_listing.ref_named(value, "main")
    hub_listing.moment_of(value)
