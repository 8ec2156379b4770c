"""The lab's origin: it speaks the hub's read API truthfully until told to misbehave, and then does exactly that."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from freehold.errors import FreeholdError
from freehold.lab.tell import ask, tell
from freehold.lab.upstream import Upstream, running_upstream

WEIGHTS = bytes(range(256)) * 400
CARD = "---\nlicense: mit\ntags:\n- lab\nbase_model: org/base\n---\n# A model\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "models" / "org" / "tiny"
    (model / "sub").mkdir(parents=True)
    (model / "README.md").write_text(CARD)
    (model / "LICENSE").write_text("MIT\n")
    (model / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (model / "sub" / "note.txt").write_text("n")
    return tmp_path / "models"


@pytest.fixture
def up(folder: Path) -> Iterator[Upstream]:
    with running_upstream(folder) as upstream:
        yield upstream


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> object:
        return json.loads(self.body)


def ask_for(up: Upstream, path: str, method: str = "GET", follow: bool = True, body: str | None = None, **headers: str) -> Answer:
    url = path if path.startswith("http") else up.url + path
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, named)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()
    if follow and answer.status in (302, 307):
        target = answer.headers["location"]
        return ask_for(up, target, method, follow, body, **headers)
    return answer


def test_ids_are_those_that_git_itself_gives(up: Upstream, folder: Path, tmp_path: Path) -> None:
    """The large file stands in git as its LFS pointer, as on the hub."""
    head = up.repository("org/tiny").resolve("main")
    work = tmp_path / "work"
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    for entry in head.manifest:
        target = work / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = (folder / "org/tiny" / entry.path).read_bytes()
        if entry.lfs:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256.hex}\nsize {entry.size}\n".encode()
        target.write_bytes(data)
    git = ["git", "-C", str(work), "-c", "user.name=freehold-lab", "-c", "user.email=lab@freehold.invalid"]
    subprocess.run([*git, "add", "-A"], check=True)
    when = f"{head.at // 1_000_000} +0000"
    env = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when, "PATH": "/usr/bin:/bin:/usr/local/bin"}
    subprocess.run([*git, "commit", "-q", "--cleanup=verbatim", "-m", head.title], check=True, env=env)
    said = subprocess.run([*git, "rev-parse", "HEAD", "HEAD^{tree}"], check=True, capture_output=True, text=True).stdout.split()
    assert said == [head.sha, head.tree]


def test_info_names_card_files_and_sizes(up: Upstream) -> None:
    info = ask_for(up, "/api/models/org/tiny?blobs=true").json
    assert isinstance(info, dict)
    assert info["cardData"] == {"license": "mit", "tags": ["lab"], "base_model": "org/base"}
    assert {"license:mit", "base_model:org/base"} <= set(info["tags"])
    files = {s["rfilename"]: s for s in info["siblings"]}
    assert files["model.safetensors"]["lfs"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert files["model.safetensors"]["size"] == len(WEIGHTS)
    assert "lfs" not in files["config.json"]
    only = ask_for(up, "/api/models/org/tiny?expand=sha&expand=gated").json
    assert isinstance(only, dict)
    assert set(only) == {"_id", "id", "sha", "gated"}


def test_a_tree_comes_in_pages_that_link_to_this_host(up: Upstream) -> None:
    seen, url = [], "/api/models/org/tiny/tree/main?recursive=true&limit=2"
    while url:
        answer = ask_for(up, url)
        assert isinstance(answer.json, list)
        seen += [row["path"] for row in answer.json]
        link = answer.headers.get("link", "")
        assert not link or link.startswith(f"<{up.url}/")
        url = link[1 : link.index(">")] if link else ""
    assert sorted(seen) == ["LICENSE", "README.md", "config.json", "model.safetensors", "sub", "sub/note.txt"]
    flat = ask_for(up, "/api/models/org/tiny/tree/main").json
    assert isinstance(flat, list)
    assert "sub/note.txt" not in [row["path"] for row in flat]


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=5-999999999", 206, slice(5, None)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("bytes=9-5", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
        (f"bytes={len(WEIGHTS)}-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
    ],
)
def test_ranges_are_answered_as_the_rfc_says(up: Upstream, asked: str, status: int, part: slice) -> None:
    answer = ask_for(up, "/org/tiny/resolve/main/model.safetensors", Range=asked)
    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(WEIGHTS)}"
    else:
        assert answer.body == WEIGHTS[part]


def test_a_large_file_redirects_to_a_signed_url_with_its_facts_in_headers(up: Upstream) -> None:
    first = ask_for(up, "/org/tiny/resolve/main/model.safetensors", "HEAD", follow=False)
    assert first.status == 302
    assert first.headers["x-linked-size"] == str(len(WEIGHTS))
    assert first.headers["x-linked-etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert first.headers["x-repo-commit"] == up.head("org/tiny")
    assert ask_for(up, first.headers["location"]).body == WEIGHTS
    forged = first.headers["location"].replace("Signature=", "Signature=0")
    assert ask_for(up, forged).status == 403
    small = ask_for(up, "/org/tiny/resolve/main/config.json", "HEAD", follow=False)
    assert (small.status, small.headers["etag"]) == (
        200,
        f'"{up.repository("org/tiny").resolve("main").find("config.json").git_oid}"',
    )


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/org/absent", 401, "RepoNotFound"),
        ("/org/absent/resolve/main/x", 401, "RepoNotFound"),
        ("/api/models/org/tiny/revision/nope", 404, "RevisionNotFound"),
        ("/org/tiny/resolve/nope/config.json", 404, "RevisionNotFound"),
        ("/org/tiny/resolve/main/absent.json", 404, "EntryNotFound"),
        ("/api/models/org/tiny/tree/main/absent", 404, "EntryNotFound"),
        ("/api/datasets/org/tiny", 401, "RepoNotFound"),
    ],
)
def test_what_is_not_there_is_refused_in_the_hubs_words(up: Upstream, path: str, status: int, code: str) -> None:
    answer = ask_for(up, path)
    assert (answer.status, answer.headers["x-error-code"]) == (status, code)
    assert answer.headers["x-error-message"]


def test_nothing_can_be_written(up: Upstream) -> None:
    for method, path in [
        ("PUT", "/org/tiny/resolve/main/config.json"),
        ("POST", "/api/models/org/tiny"),
        ("DELETE", "/api/models/org/tiny"),
    ]:
        assert ask_for(up, path, method).status == 405
    assert ask_for(up, "/api/repos/create", "POST", body="{}").status in (404, 405)


def test_paths_info_takes_forms_and_json(up: Upstream) -> None:
    path = "/api/models/org/tiny/paths-info/main"
    form = ask_for(up, path, "POST", body="paths=config.json&paths=sub&paths=absent&expand=False")
    told = ask_for(up, path, "POST", body='{"paths": ["config.json", "sub"], "expand": true}', Content_Type="application/json")
    for answer in (form.json, told.json):
        assert isinstance(answer, list)
        assert [(row["type"], row["path"]) for row in answer] == [("file", "config.json"), ("directory", "sub")]
    assert told.json[0]["lastCommit"]["id"] == up.head("org/tiny")  # type: ignore[index]
    assert ask_for(up, path, "POST", body="x" * 2_000_000).json == [], "an oversized body is not kept"


def test_a_gate_lets_in_the_accepted_token_only(up: Upstream) -> None:
    up.gate("org/tiny", accept=["hf_good"])
    up.add_token("hf_other", "someone")
    path = "/org/tiny/resolve/main/config.json"
    assert ask_for(up, path).status == 401
    assert ask_for(up, path).headers["x-error-code"] == "GatedRepo"
    assert ask_for(up, path, Authorization="Bearer hf_other").status == 403
    assert ask_for(up, path, Authorization="Bearer hf_unknown").headers.get("x-error-code") is None
    assert ask_for(up, path, Authorization="Bearer hf_good").status == 200
    info = ask_for(up, "/api/models/org/tiny").json
    assert isinstance(info, dict)
    assert info["gated"] == "auto"


def test_deleted_disabled_and_renamed_models_answer_as_on_the_hub(up: Upstream) -> None:
    up.rename("org/tiny", "org/small")
    moved = ask_for(up, "/api/models/org/tiny", follow=False)
    assert (moved.status, moved.headers["location"]) == (307, "/api/models/org/small")
    up.disable("org/small")
    assert ask_for(up, "/api/models/org/small").headers["x-error-message"] == "Access to this resource is disabled."
    up.delete("org/small")
    assert ask_for(up, "/api/models/org/small").headers["x-error-code"] == "RepoNotFound"
    assert ask_for(up, "/api/models").json == []
    up.restore()
    assert ask_for(up, "/api/models/org/tiny").status == 200


def test_a_mutation_is_a_new_commit_and_a_silent_one_is_not(up: Upstream) -> None:
    path = "/org/tiny/resolve/main/model.safetensors"
    before = up.head("org/tiny")
    after = up.mutate("org/tiny")
    changed = ask_for(up, path).body
    assert (len(changed), changed != WEIGHTS, after != before) == (len(WEIGHTS), True, True)
    assert ask_for(up, path.replace("main", before)).body == WEIGHTS, "the old commit keeps its bytes"
    assert up.mutate("org/tiny", silent=True) == after
    silent = ask_for(up, path)
    assert silent.body not in (changed, WEIGHTS)
    assert silent.headers["etag"] == f'"{hashlib.sha256(silent.body).hexdigest()}"'
    up.restore()
    assert (up.head("org/tiny"), ask_for(up, path).body) == (before, WEIGHTS)


def test_relicensing_changes_tag_and_text_in_one_commit(up: Upstream) -> None:
    up.relicense("org/tiny", "cc-by-nc-4.0", text="No commerce.\n")
    info = ask_for(up, "/api/models/org/tiny").json
    assert isinstance(info, dict)
    assert info["cardData"] == {"license": "cc-by-nc-4.0", "tags": ["lab"], "base_model": "org/base"}
    assert ask_for(up, "/org/tiny/resolve/main/LICENSE").body == b"No commerce.\n"
    assert ask_for(up, "/org/tiny/resolve/main/README.md").body.endswith(b"# A model\n")


def test_a_rewritten_history_has_lost_its_old_commits(up: Upstream) -> None:
    up.tag("org/tiny", "v1")
    old = up.commit("org/tiny", {"extra.txt": b"x"})
    new = up.rewrite("org/tiny")
    assert ask_for(up, f"/api/models/org/tiny/revision/{old}").headers["x-error-code"] == "RevisionNotFound"
    assert ask_for(up, "/org/tiny/resolve/main/extra.txt").headers["x-repo-commit"] == new
    assert ask_for(up, "/org/tiny/resolve/v1/extra.txt").headers["x-error-code"] == "EntryNotFound"


def test_errors_come_as_often_as_asked(up: Upstream) -> None:
    up.fail("org/tiny", status=429, retry_after=3, times=2, path="*/resolve/*")
    path = "/org/tiny/resolve/main/config.json"
    refused = ask_for(up, path)
    assert (refused.status, refused.headers["retry-after"]) == (429, "3")
    assert ask_for(up, "/api/models/org/tiny").status == 200, "the pattern spares the API"
    assert [ask_for(up, path).status for _ in range(2)] == [429, 200]
    up.fail(status=502)
    assert ask_for(up, "/api/models/org/tiny").status == 502
    up.heal()
    assert ask_for(up, "/api/models/org/tiny").status == 200


def test_a_cut_body_stops_at_the_byte_and_resumes_by_range(up: Upstream) -> None:
    up.cut("org/tiny", after=1000, times=1, path="*.safetensors")
    path = "/org/tiny/resolve/main/model.safetensors"
    with pytest.raises(IncompleteRead) as caught:
        ask_for(up, path)
    assert caught.value.partial == WEIGHTS[:1000]
    assert ask_for(up, path, Range="bytes=1000-").body == WEIGHTS[1000:]


def test_wrong_bytes_lengths_and_ranges_come_on_command(up: Upstream) -> None:
    path = "/org/tiny/resolve/main/model.safetensors"
    up.corrupt("org/tiny", offset=70_000, times=1)
    wrong = ask_for(up, path).body
    assert [i for i in range(len(WEIGHTS)) if wrong[i] != WEIGHTS[i]] == [70_000]
    up.mislength("org/tiny", delta=-5, times=1)
    short = ask_for(up, path)
    assert (short.body, short.headers["content-length"]) == (WEIGHTS[:-5], str(len(WEIGHTS) - 5))
    up.mislength("org/tiny", delta=5, times=1)
    with pytest.raises(IncompleteRead):
        ask_for(up, path)
    up.ignore_range("org/tiny", times=1)
    assert ask_for(up, path).body == WEIGHTS, "a request without a range does not use the rule up"
    whole = ask_for(up, path, Range="bytes=5-9")
    assert (whole.status, whole.body) == (200, WEIGHTS)
    assert ask_for(up, path, Range="bytes=5-9").body == WEIGHTS[5:10]


def test_slow_bodies_take_their_time_and_a_stall_ends(up: Upstream) -> None:
    path = "/org/tiny/resolve/main/model.safetensors"
    up.slow("org/tiny", bytes_per_second=400_000, times=1)
    start = time.monotonic()
    assert ask_for(up, path).body == WEIGHTS
    assert 0.2 < time.monotonic() - start < 3
    up.stall("org/tiny", after=500, seconds=0.3, times=1)
    start = time.monotonic()
    assert ask_for(up, path).body == WEIGHTS
    assert 0.25 < time.monotonic() - start < 3


def test_a_dead_upstream_refuses_connections_and_comes_back_on_the_same_port(up: Upstream) -> None:
    up.dead()
    with pytest.raises(ConnectionRefusedError):
        ask_for(up, "/api/models/org/tiny")
    assert ask(up.control_url, up.control_token, "state")["alive"] is False
    tell(up.control_url, up.control_token, "revive", {})
    assert ask_for(up, "/api/models/org/tiny").status == 200
    assert up.alive


def test_death_drops_a_transfer_under_way(up: Upstream) -> None:
    up.slow("org/tiny", bytes_per_second=2000)
    parts = urlsplit(ask_for(up, "/org/tiny/resolve/main/model.safetensors", "HEAD", follow=False).headers["location"])
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    response = connection.getresponse()
    assert response.read(10) == WEIGHTS[:10]
    start = time.monotonic()
    up.dead()
    with pytest.raises((ConnectionResetError, IncompleteRead)):
        response.read()
    assert time.monotonic() - start < 3
    connection.close()


def test_every_request_is_counted_with_its_bytes(up: Upstream) -> None:
    up.forget()
    ask_for(up, "/org/tiny/resolve/main/model.safetensors", Range="bytes=0-99", Authorization="Bearer hf_x")
    ask_for(up, "/org/tiny/resolve/main/config.json", "HEAD")
    refused, head = up.requests
    assert (refused.method, refused.status, refused.range, refused.authorized) == ("GET", 401, "bytes=0-99", True)
    assert (head.method, head.status, head.sent) == ("HEAD", 200, 0)
    up.forget()
    ask_for(up, "/org/tiny/resolve/main/model.safetensors", Range="bytes=0-99")
    assert [(r.status, r.sent) for r in up.requests][1] == (206, 100)
    assert up.bytes_sent == sum(r.sent for r in up.requests)


def test_history_survives_the_process_and_the_folder_is_left_alone(folder: Path) -> None:
    with running_upstream(folder) as up:
        up.tag("org/tiny", "v1")
        old, new = up.head("org/tiny"), up.commit("org/tiny", {"config.json": b"{}"})
    assert "llama" in (folder / "org/tiny/config.json").read_text()
    with running_upstream(folder) as up:
        assert (up.head("org/tiny"), up.head("org/tiny", "v1")) == (new, old)
        (folder / "org/tiny/LICENSE").write_text("changed by hand\n")
        up.refresh()
        assert ask_for(up, "/org/tiny/resolve/main/LICENSE").body == b"changed by hand\n"
        assert len(up.repository("org/tiny").commits) == 3


def test_the_control_door_asks_for_its_token_and_names_what_is_wrong(up: Upstream) -> None:
    with pytest.raises(FreeholdError) as refused:
        tell(up.control_url, "wrong", "delete", {"repo": "org/tiny"})
    assert refused.value.code == "lab-control-refused"
    assert ask_for(up, "/api/models/org/tiny").status == 200, "nothing was done"
    assert ask_for(up, f"{up.control_url}/-/lab/delete", "POST", body="{}").status == 401
    for verb, values, code in [
        ("fly", {}, "lab-verb-unknown"),
        ("delete", {}, "lab-argument-invalid"),
        ("delete", {"repo": "org/absent"}, "lab-model-unknown"),
        ("cut", {"after": "soon"}, "lab-argument-invalid"),
        ("cut", {"after": -1}, "lab-argument-invalid"),
        ("mutate", {"repo": "org/tiny", "path": "absent"}, "catalog-entry-not-found"),
        ("delete", {"repo": "../../etc"}, "catalog-id-invalid"),
    ]:
        with pytest.raises(FreeholdError) as wrong:
            tell(up.control_url, up.control_token, verb, values)
        assert wrong.value.code == code
    assert tell(up.control_url, up.control_token, "mutate", {"repo": "org/tiny"})["result"] == up.head("org/tiny")
    with pytest.raises(FreeholdError) as gone:
        ask("http://127.0.0.1:9", "t", "state")
    assert gone.value.code == "lab-control-unreachable"


def test_bad_folders_and_ports_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FreeholdError) as missing:
        Upstream(tmp_path / "absent")
    assert missing.value.code == "lab-folder-missing"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(FreeholdError) as busy:
        Upstream(folder, port=taken.getsockname()[1])
    assert busy.value.code == "lab-port-taken"
    with running_upstream(folder):
        pass
    (folder / ".lab/history/org/tiny.json").write_text('{"version": 1, "refs"')
    with pytest.raises(FreeholdError) as broken:
        Upstream(folder)
    assert broken.value.code == "lab-history-broken"


def test_an_upstream_ends_by_itself_after_its_lifetime(folder: Path) -> None:
    up = Upstream(folder, lifetime=0.2).start()
    assert up.wait(5)
    with pytest.raises(ConnectionRefusedError):
        ask_for(up, "/api/models")
    up.stop()
