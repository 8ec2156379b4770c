"""URLs of the Hub API mean what they mean on the hub: encoded slashes, missing namespaces, keywords as names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import FreeholdError
from freehold.nouns.ids import RepoKind
from freehold.web.hub.urls import HubUrl, parse_url

M, D = RepoKind.MODEL, RepoKind.DATASET


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("/api/models", HubUrl("list")),
        ("/api/models/", HubUrl("list")),
        ("/api/datasets", HubUrl("list", D)),
        ("/api/models/gpt2", HubUrl("info", M, (None, "gpt2"))),
        ("/api/models/org/name", HubUrl("info", M, ("org", "name"))),
        ("/api/models/gpt2/revision/main", HubUrl("revision", M, (None, "gpt2"), "main")),
        ("/api/models/o/n/revision/refs%2Fpr%2F1", HubUrl("revision", M, ("o", "n"), "refs/pr/1")),
        ("/api/models/o/n/tree/main", HubUrl("tree", M, ("o", "n"), "main")),
        ("/api/models/o/n/tree/main/a%2Fb", HubUrl("tree", M, ("o", "n"), "main", "a/b")),
        ("/api/models/o/n/tree/feature%2Fx/a/b", HubUrl("tree", M, ("o", "n"), "feature/x", "a/b")),
        ("/api/models/o/n/refs", HubUrl("refs", M, ("o", "n"))),
        ("/api/models/o/n/auth-check/write", HubUrl("auth-check", M, ("o", "n"), path="write")),
        ("/api/models/tree/tree/tree/main", HubUrl("tree", M, ("tree", "tree"), "main")),
        ("/gpt2/resolve/main/config.json", HubUrl("resolve", M, (None, "gpt2"), "main", "config.json", api=False)),
        ("/o/n/resolve/main/a/b%20c.txt", HubUrl("resolve", M, ("o", "n"), "main", "a/b c.txt", api=False)),
        ("/o/n/resolve/refs%2Fpr%2F1/x", HubUrl("resolve", M, ("o", "n"), "refs/pr/1", "x", api=False)),
        ("/o/resolve/resolve/main/x", HubUrl("resolve", M, ("o", "resolve"), "main", "x", api=False)),
        ("/datasets/o/n/resolve/main/x", HubUrl("resolve", D, ("o", "n"), "main", "x", api=False)),
        ("/o/n", HubUrl("info", M, ("o", "n"), api=False)),
        ("/api/whoami-v2", HubUrl("whoami")),
        ("/api/telemetry/a/b", HubUrl("telemetry")),
    ],
)
def test_a_url_is_understood(raw: str, expected: HubUrl) -> None:
    assert parse_url(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "/",
        "/api",
        "/api/nothing",
        "/a/b/c",
        "/a/b/c/d/e/f",
        "/api/models/o/n/commit/main",
        "/api/spaces/o/n",
        "/o/n.git/info/lfs",
    ],
)
def test_what_is_no_route_is_none(raw: str) -> None:
    assert parse_url(raw) is None


@pytest.mark.parametrize(
    "raw", ["/o/n/resolve/main/%00", "/o/n/resolve/main/a%0d%0aSet-Cookie:x", "/%ff/n", "/o/n/resolve/%7f/x"]
)
def test_control_characters_and_bad_encodings_are_refused(raw: str) -> None:
    with pytest.raises(FreeholdError) as caught:
        parse_url(raw)
    assert caught.value.code == "server-bad-request"


@given(st.text(alphabet="/%.abc0125eEfF-~\\ resolve", max_size=60))
def test_no_path_breaks_the_parser(raw: str) -> None:
    try:
        parse_url("/" + raw)
    except FreeholdError as error:
        assert error.code == "server-bad-request"
