"""Every reading route x every role x every visibility: nobody gets more than they may, and private looks like absent."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from freehold.web import hub

ROUTES = {
    "info": ("GET", "/api/models/{id}"),
    "revision": ("GET", "/api/models/{id}/revision/main"),
    "tree": ("GET", "/api/models/{id}/tree/main"),
    "paths-info": ("POST", "/api/models/{id}/paths-info/main"),
    "refs": ("GET", "/api/models/{id}/refs"),
    "commits": ("GET", "/api/models/{id}/commits/main"),
    "auth-check": ("GET", "/api/models/{id}/auth-check"),
    "auth-check write": ("GET", "/api/models/{id}/auth-check/write"),
    "resolve": ("GET", "/{id}/resolve/main/config.json"),
    "resolve head": ("HEAD", "/{id}/resolve/main/config.json"),
    "raw": ("GET", "/{id}/raw/main/config.json"),
    "expand": ("GET", "/api/models/{id}?expand=sha"),
    "dataset": ("GET", "/api/datasets/{id}"),
    "write": ("POST", "/api/models/{id}/commit/main"),
}
ROLES = ("anonymous", "read", "chat", "admin")
MODELS = {"public": "org/model", "private": "org/private", "quarantined": "org/bad", "absent": "org/absent1"}
_READERS = {"anonymous", "read", "admin"}


def _expected(route: str, role: str, visibility: str) -> set[int]:
    if route == "write":
        return {501}
    if route == "dataset":
        return {404} if role in _READERS else {403}
    if role not in _READERS:
        return {403}
    if visibility == "absent" or (visibility == "private" and role != "admin"):
        return {404}
    if visibility == "quarantined" and route not in ("refs", "auth-check", "auth-check write"):
        return {403}
    if route == "auth-check write":
        return {200} if role == "admin" else {401, 403}
    return {200}


@pytest.mark.parametrize("route", ROUTES)
def test_every_combination_is_as_it_should_be(ask: Any, kept: Any, route: str) -> None:
    method, pattern = ROUTES[route]
    body = b"paths=config.json" if method == "POST" else None
    for role, (visibility, name) in itertools.product(ROLES, MODELS.items()):
        got = ask(method, pattern.format(id=name), body=body, key=kept.keys.get(role))
        assert got.status in _expected(route, role, visibility), (route, role, visibility, got)


@pytest.mark.parametrize("route", [r for r in ROUTES if r != "write"])
@pytest.mark.parametrize("role", [r for r in ROLES if r != "admin"])
def test_private_and_absent_cannot_be_told_apart(ask: Any, kept: Any, route: str, role: str) -> None:
    """Same status, same headers, same body but for the name itself (both names have the same length) and the request's id."""
    method, pattern = ROUTES[route]
    body = b"paths=config.json" if method == "POST" else None
    answers = []
    for name in ("org/private", "org/absent1"):
        got = ask(method, pattern.format(id=name), {"X-Request-Id": "same"}, body, kept.keys.get(role))
        headers = {k: v.replace(name, "NAME") for k, v in got.headers.items() if k != "date"}
        answers.append((got.status, headers, got.body.replace(name.encode(), b"NAME")))
    assert answers[0] == answers[1]


def test_every_route_about_a_repository_is_in_the_matrix() -> None:
    """A new route cannot be forgotten: the table that the reference is made from must be covered here."""
    covered = {pattern.partition("?")[0] for _, pattern in ROUTES.values()} | {"/{id}"}  # the last one only redirects, unseen
    listed = set()
    for _, pattern, _ in hub.ROUTES:
        if "{id}" in pattern:
            plain = pattern.replace("{revision}", "main").replace("[/{path}]", "").replace("{path}", "config.json")
            listed |= {plain.replace("[/write]", ""), plain.replace("[/write]", "/write")}
    assert listed - covered == set()


def test_the_comparison_would_see_a_difference(ask: Any, kept: Any) -> None:
    """Control: for an admin the two do differ."""
    one, two = (ask("GET", f"/api/models/{name}", key=kept.keys["admin"]) for name in ("org/private", "org/absent1"))
    assert (one.status, two.status) == (200, 404)


def test_lists_show_private_models_to_admins_only(ask: Any, kept: Any) -> None:
    for role in ROLES:
        got = ask("GET", "/api/models", key=kept.keys.get(role))
        if role == "chat":
            assert got.status == 403
            continue
        assert ("org/private" in [row["id"] for row in got.json]) is (role == "admin")
