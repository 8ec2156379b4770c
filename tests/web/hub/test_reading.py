"""The reading routes over real HTTP: bytes, headers, pages, failures."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

LARGE = "/org/model/resolve/main/model.safetensors"


def test_a_large_file_has_all_headers_that_clients_act_on(ask: Any, kept: Any) -> None:
    data = kept.files["model.safetensors"]
    sha256 = hashlib.sha256(data).hexdigest()
    for method in ("HEAD", "GET"):
        got = ask(method, LARGE)
        assert got.status == 200
        assert got.body == (data if method == "GET" else b"")
        expected = {
            "etag": f'"{sha256}"', "x-linked-etag": f'"{sha256}"', "x-linked-size": str(len(data)),
            "content-length": str(len(data)), "x-repo-commit": kept.commit, "accept-ranges": "bytes",
            "content-type": "application/octet-stream",
            "content-disposition": "inline; filename*=UTF-8''model.safetensors; filename=\"model.safetensors\";",
        }  # fmt: skip
        assert {k: got.headers[k] for k in expected} == expected
        assert not [name for name in got.headers if "xet" in name]


def test_a_small_file_has_its_git_id_as_etag(ask: Any) -> None:
    got = ask("GET", "/org/model/resolve/main/config.json")
    data = got.body
    assert got.headers["etag"] == f'"{hashlib.sha1(b"blob %d" % len(data) + bytes(1) + data, usedforsecurity=False).hexdigest()}"'


@pytest.mark.parametrize(
    "revision", ["main", "v1", "refs%2Fheads%2Fmain", "refs/pr/1", "refs%2Fpr%2F1", "feature%2Fx", "SHA", "SHORT"]
)
def test_every_way_to_name_a_revision_leads_to_the_same_bytes(ask: Any, kept: Any, revision: str) -> None:
    name = {"SHA": kept.commit, "SHORT": kept.commit[:8]}.get(revision, revision)
    got = ask("GET", f"/org/model/resolve/{name}/README.md")
    if revision == "refs/pr/1":
        assert got.status == 404, "an unencoded slash ends the revision, as on the hub"
        return
    assert (got.status, got.body, got.headers["x-repo-commit"]) == (200, b"# A model\n", kept.commit)


def test_names_match_without_regard_to_case_and_without_namespace(ask: Any) -> None:
    assert ask("GET", "/ORG/Model/resolve/main/README.md").body == b"# A model\n"
    assert ask("GET", "/bare/resolve/main/config.json").body == b"{}"
    assert ask("GET", "/api/models/bare").json["id"] == "bare"


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1), ("bytes=-7", -7, None), ("bytes=11999990-", 11999990, None), ("bytes=1000-1999", 1000, 2000),
        ("bytes=262000-9000000", 262000, 9000001), ("bytes=5-99999999999", 5, None),
    ],
)  # fmt: skip
def test_a_range_is_exact(ask: Any, kept: Any, header: str, start: int, stop: int | None) -> None:
    data = kept.files["model.safetensors"]
    got = ask("GET", LARGE, {"Range": header})
    assert got.status == 206
    assert got.body == data[start:stop]
    first = start % len(data)
    assert got.headers["content-range"] == f"bytes {first}-{first + len(got.body) - 1}/{len(data)}"
    assert got.headers["content-length"] == str(len(got.body))


def test_an_impossible_range_is_416_with_the_size(ask: Any) -> None:
    got = ask("GET", LARGE, {"Range": "bytes=12000000-"})
    assert (got.status, got.headers["content-range"]) == (416, "bytes */12000000")
    assert ask("GET", "/org/model/resolve/main/empty.txt", {"Range": "bytes=0-"}).status == 416


def test_several_ranges_or_nonsense_are_answered_with_the_whole(ask: Any) -> None:
    for header in ("bytes=0-1,4-5", "lines=1-2", "bytes=9-3"):
        got = ask("GET", "/org/model/resolve/main/README.md", {"Range": header})
        assert (got.status, got.body) == (200, b"# A model\n")


def test_etags_save_transfers_and_guard_resumption(ask: Any) -> None:
    etag = ask("HEAD", LARGE).headers["etag"]
    fresh = ask("GET", LARGE, {"If-None-Match": etag})
    assert (fresh.status, fresh.body, fresh.headers["etag"]) == (304, b"", etag)
    assert ask("GET", LARGE, {"Range": "bytes=0-3", "If-Range": etag}).status == 206
    assert ask("GET", LARGE, {"Range": "bytes=0-3", "If-Range": '"other"'}).status == 200


def test_an_empty_file_is_served(ask: Any) -> None:
    got = ask("GET", "/org/model/resolve/main/empty.txt")
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/org/none/resolve/main/x", 404, "RepoNotFound"),
        ("/api/models/org/none", 404, "RepoNotFound"),
        ("/api/datasets/org/model", 404, "RepoNotFound"),
        ("/datasets/org/model/resolve/main/x", 404, "RepoNotFound"),
        ("/org/model/resolve/nope/README.md", 404, "RevisionNotFound"),
        ("/api/models/org/model/revision/nope", 404, "RevisionNotFound"),
        ("/api/models/org/model/tree/nope", 404, "RevisionNotFound"),
        ("/org/model/resolve/main/nope", 404, "EntryNotFound"),
        ("/org/model/resolve/main/notes", 404, "EntryNotFound"),
        ("/api/models/org/model/tree/main/nope", 404, "EntryNotFound"),
        ("/api/models/org/model/tree/main/additional_chat_templates", 404, "EntryNotFound"),
        ("/org/gated/resolve/main/config.json", 401, "GatedRepo"),
        ("/org/bad/resolve/main/evil.pkl", 403, "GatedRepo"),
        ("/api/models/a/b/c/d", 404, None),
        ("/api/spaces/org/model", 404, None),
    ],
)
def test_failures_carry_the_codes_that_clients_know(ask: Any, path: str, status: int, code: str | None) -> None:
    for method in ("GET", "HEAD"):
        got = ask(method, path)
        assert (got.status, got.headers.get("x-error-code")) == (status, code)
        assert got.headers["x-error-message"]
        if method == "GET":
            assert got.json["error"] == got.headers["x-error-message"] or not got.json["error"].isascii()


def test_a_missing_file_says_of_which_commit_so_that_clients_may_remember(ask: Any, kept: Any) -> None:
    assert ask("HEAD", "/org/model/resolve/main/nope").headers["x-repo-commit"] == kept.commit


def test_a_quarantined_or_refused_revision_gives_out_nothing_but_the_reason(ask: Any, kept: Any) -> None:
    for repo, reason in (("org/bad", "imports os.system"), ("org/refused", "the license forbids it")):
        for path in (
            f"/api/models/{repo}",
            f"/api/models/{repo}/tree/main",
            f"/{repo}/resolve/main/evil.pkl",
            f"/api/models/{repo}/commits/main",
        ):
            got = ask("GET", path, key=kept.keys["admin"])
            assert got.status == 403, path
            assert got.json["code"] == "hub-quarantined"
            assert reason in got.json["error"]
    listed = [row["id"] for row in ask("GET", "/api/models", key=kept.keys["admin"]).json]
    assert "org/bad" not in listed
    assert "org/private" in listed, "control: an admin does see private models"


def test_writing_is_refused_in_words(ask: Any, kept: Any) -> None:
    for method, path in [
        ("POST", "/api/repos/create"), ("DELETE", "/api/repos/delete"), ("POST", "/api/repos/move"),
        ("POST", "/api/models/org/model/preupload/main"), ("POST", "/api/models/org/model/commit/main"),
        ("PUT", "/api/models/org/model/settings"), ("POST", "/org/model.git/info/lfs/objects/batch"),
        ("POST", "/api/models/org/model/branch/x"), ("POST", "/api/models/org/model/tag/main"),
    ]:  # fmt: skip
        got = ask(method, path, body=b"{}", key=kept.keys["admin"])
        assert (got.status, got.json["code"]) == (501, "hub-read-only"), path
    for method, path, allow in [
        ("POST", "/api/models", "GET, HEAD"),
        ("DELETE", "/api/models/org/model", "GET, HEAD"),
        ("PUT", LARGE, "GET, HEAD"),
        ("GET", "/api/models/org/model/paths-info/main", "POST"),
    ]:
        got = ask(method, path, body=b"{}" if method != "GET" else None)
        assert (got.status, got.headers["allow"]) == (405, allow), path


def test_a_long_tree_is_paged_and_pages_stay_on_the_commit_they_began_with(ask: Any, kept: Any) -> None:
    path, rows = "/api/models/org/model/tree/main?recursive=true&limit=3", []
    while True:
        got = ask("GET", path)
        assert len(got.json) <= 3
        rows += got.json
        match = re.fullmatch(r'<(http://[^/]+)(/[^>]+)>; rel="next"', got.headers.get("link", ""))
        if not match:
            break
        assert match[1] == kept.url, "links lead to this server"
        assert f"/tree/{kept.commit}" in match[2]
        path = match[2]
    paths = [row["path"] for row in rows]
    assert paths == sorted([*kept.files, "notes", "notes/deep"])
    oids = {row["path"]: row["oid"] for row in rows}
    tree = b"tree 34\x00100644 er.txt\x00" + bytes.fromhex(oids["notes/deep/er.txt"])
    assert oids["notes/deep"] == hashlib.sha1(tree, usedforsecurity=False).hexdigest()


def test_lists_search_sort_and_page(ask: Any) -> None:
    ids = [row["id"] for row in ask("GET", "/api/models?sort=id").json]
    assert ids == ["bare", "org/gated", "org/model"]
    assert [row["id"] for row in ask("GET", "/api/models?search=MOD&author=ORG").json] == ["org/model"]
    assert [row["id"] for row in ask("GET", "/api/models?filter=safetensors&filter=license:apache-2.0").json] == ["org/model"]
    assert ask("GET", "/api/models?filter=gguf").json == []
    first = ask("GET", "/api/models?sort=id&limit=2")
    assert [row["id"] for row in first.json] == ids[:2]
    match = re.search(r"<http://[^/]+(/[^>]+)>", first.headers["link"])
    assert match
    second = ask("GET", match[1])
    assert [row["id"] for row in second.json] == ids[2:]
    assert "link" not in second.headers
    assert ask("GET", "/api/datasets").json == []


def test_expand_gives_only_what_was_asked_for(ask: Any, kept: Any) -> None:
    got = ask("GET", "/api/models/org/model?expand=sha&expand[]=tags").json
    assert sorted(got) == ["_id", "id", "sha", "tags"]
    assert got["sha"] == kept.commit
    assert ask("GET", "/api/models/org/model?expand=nonsense").status == 400
    full = ask("GET", "/api/models/org/model?blobs=true&securityStatus=true").json
    assert full["siblings"][0] == {"rfilename": "README.md", "size": 10, "blobId": "c06b64da4b222b355e7a83daac91e2572f67e525"}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "limit=99999999999", "cursor=%ff", "cursor=abc"])
def test_bad_parameters_are_told(ask: Any, query: str) -> None:
    got = ask("GET", f"/api/models?{query}")
    assert (got.status, got.json["code"]) == (400, "server-bad-request")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"paths=config.json&paths=notes&paths=nope&expand=true"),
        ("application/json", b'{"paths": ["config.json", "notes", "nope"], "expand": true}'),
    ],
)
def test_paths_info_takes_forms_and_json(ask: Any, kind: str, body: bytes) -> None:
    got = ask("POST", "/api/models/org/model/paths-info/main", {"Content-Type": kind}, body)
    assert [(row["type"], row["path"]) for row in got.json] == [("file", "config.json"), ("directory", "notes")]
    assert got.json[0]["lastCommit"]["title"] == "old", "config.json did not change since the first commit"
    assert got.json[1].get("lastCommit", {}).get("title") in (None, "new")


@pytest.mark.parametrize("body", [b"[", b"[1]", b'{"paths": 3}', b'{"paths": [1]}', b"[" * 100_000])
def test_paths_info_refuses_what_is_not_paths(ask: Any, body: bytes) -> None:
    got = ask("POST", "/api/models/org/model/paths-info/main", {"Content-Type": "application/json"}, body)
    assert (got.status, got.json["code"]) == (400, "server-bad-request")


def test_history_is_paged(ask: Any) -> None:
    first = ask("GET", "/api/models/org/model/commits/main?limit=1")
    assert ([c["title"] for c in first.json], first.headers["x-total-count"]) == (["new"], "2")
    match = re.search(r"<http://[^/]+(/[^>]+)>", first.headers["link"])
    assert match
    assert [c["title"] for c in ask("GET", match[1]).json] == ["old"]


def test_who_a_key_is(ask: Any, kept: Any) -> None:
    assert ask("GET", "/api/whoami-v2").status == 401
    got = ask("GET", "/api/whoami-v2", key=kept.keys["write"]).json
    assert (got["name"], got["auth"]["accessToken"]["role"]) == ("write key", "write")
    bad = ask("GET", "/api/whoami-v2", key="hf_nonsense")
    assert (bad.status, bad.headers["x-error-message"]) == (401, "Invalid credentials in Authorization header")
    assert ask("GET", "/api/models/org/model/auth-check/write", key=kept.keys["read"]).status == 403
    assert ask("GET", "/api/models/org/model/auth-check/write", key=kept.keys["write"]).status == 200


def test_agents_and_telemetry_are_answered_at_once(ask: Any) -> None:
    assert ask("GET", "/api/agent-harnesses").json == {}
    assert ask("HEAD", "/api/telemetry/ping").status == 200


def test_pages_of_the_hub_lead_to_the_console(ask: Any) -> None:
    for path in ("/org/model", "/org/model/tree/main", "/org/model/blob/main/config.json", "/org/none"):
        got = ask("GET", path)
        assert got.status == 302
        assert got.headers["location"] == f"/-/models/{'/'.join(path.split('/')[1:3])}", "whether it exists is not told here"


@pytest.mark.parametrize(
    "path",
    [
        "/org/model/resolve/main/../../../etc/passwd", "/org/model/resolve/main/%2e%2e/%2e%2e/etc/passwd",
        "/org/model/resolve/main/..%2f..%2f..%2fetc%2fpasswd", "/org/model/resolve/main//etc/passwd",
        "/org/model/resolve/main/notes/../README.md", "/org/model/resolve/main/%2e/README.md",
        "/org/model/resolve/main/README.md%5c",
        "/..%2f..%2f/model/resolve/main/x", "/org/model/resolve/..%2fmain/x",
    ],
)  # fmt: skip
def test_paths_never_leave_the_listing(ask: Any, path: str) -> None:
    got = ask("GET", path)
    assert got.status in (400, 404)
    assert b"root:" not in got.body


def test_what_a_caller_writes_never_becomes_a_header(ask: Any) -> None:
    for path in (
        "/org/no%0d%0aset-cookie:x/resolve/main/x",
        "/org/model/resolve/main/%0d%0aset-cookie:%20x",
        "/org/model/resolve/a%E2%80%A8b/x",
    ):
        got = ask("GET", path)
        assert got.status in (400, 404)
        assert "set-cookie" not in got.headers


def test_a_file_with_a_strange_name_has_a_safe_disposition(ask: Any) -> None:
    got = ask("GET", "/org/model/resolve/main/notes/%C3%BCber%20uns.txt")
    assert got.headers["content-disposition"] == "inline; filename*=UTF-8''%C3%BCber%20uns.txt; filename=\"?ber uns.txt\";"
