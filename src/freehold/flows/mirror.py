"""Mirror, first form: a model that is asked for and not kept is pulled from the first upstream that has it, and then served.

What is kept is never asked for again, so an upstream that is slow, dead or malicious cannot touch it. However many ask for the
same, one transfer runs: within a process by a lock, between processes by the pull's own claim. Names that only this house gives
(packages, folders) are never asked for: an upstream could answer with anything.

It does not refresh what is kept, and it does not remember what upstream does not have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from freehold.catalog import repos, revisions
from freehold.errors import FreeholdError
from freehold.flows.models import visible_repo
from freehold.flows.parts import Parts
from freehold.flows.pull import pull
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import RepoId, RepoKind
from freehold.nouns.reference import HubReference

#: Namespaces that only this house gives.
OWN = frozenset({"pypi", "local"})
_ABSENT = {
    "keep-repo-not-found": "catalog-repo-not-found",
    "keep-withdrawn": "catalog-repo-not-found",
    "keep-revision-not-found": "catalog-revision-not-found",
}
_WAIT_SECONDS = 0.25

_locks: dict[tuple[str, str, str], tuple[threading.Lock, int]] = {}
_guard = threading.Lock()


def ensure(parts: Parts, caller: Caller, repo_id: RepoId, revision: str = "main") -> None:
    """Return when `revision` of the model is kept. Waits while another process pulls it.

    FreeholdError catalog-repo-not-found and catalog-revision-not-found if no upstream has it or none may be asked; study-*,
    keep-*, net-*, vault-* if taking it in failed.
    """
    caller.require(Scope.READ)
    if _is_kept(parts, caller, repo_id, revision):
        return
    upstreams = parts.upstreams
    if repo_id.kind is not RepoKind.MODEL or upstreams.offline or not upstreams.endpoints or repo_id.namespace in OWN:
        raise _absent(parts, repo_id, revision)
    with _alone((str(parts.home.path), repo_id.key, revision)):
        while not _is_kept(parts, caller, repo_id, revision):
            try:
                _pull_from_first(parts, caller, repo_id, revision)
            except FreeholdError as error:
                if error.code != "jobs-taken":
                    raise
                time.sleep(_WAIT_SECONDS)
            else:
                return


def _pull_from_first(parts: Parts, caller: Caller, repo_id: RepoId, revision: str) -> None:
    """Ask the upstreams in order. "Not here" counts only if all say so; a failure that may be mended is what is reported."""
    mirror = Caller("mirror", frozenset({Scope.READ, Scope.WRITE}), caller.via)
    failure: FreeholdError | None = None
    for endpoint in parts.upstreams.endpoints:
        try:
            pull(parts, mirror, str(HubReference(repo_id, revision)), endpoint=endpoint, token=parts.upstreams.token)
        except FreeholdError as error:
            if error.code == "jobs-taken":
                raise
            if failure is None or (failure.code in _ABSENT and error.code not in _ABSENT):
                failure = error
        else:
            return
    if failure is not None and failure.code not in _ABSENT and not _has_any(parts, repo_id):
        raise failure
    raise _absent(parts, repo_id, revision) from failure


def _is_kept(parts: Parts, caller: Caller, repo_id: RepoId, revision: str) -> bool:
    """FreeholdError catalog-repo-not-found for a model that is kept but not for this caller: upstream's is not asked for then."""
    with parts.catalog.read() as tx:
        if repos.find_repo(tx, repo_id) is None:
            return False
        repo = visible_repo(tx, caller, repo_id)
        try:
            revisions.resolve(tx, repo, revision)
        except FreeholdError as error:
            if error.code != "catalog-revision-not-found":
                raise
            return False
        return True


def _has_any(parts: Parts, repo_id: RepoId) -> bool:
    with parts.catalog.read() as tx:
        return repos.find_repo(tx, repo_id) is not None


def _absent(parts: Parts, repo_id: RepoId, revision: str) -> FreeholdError:
    if _has_any(parts, repo_id):
        message = f"{repo_id} has no revision {revision!r}"
        return FreeholdError("catalog-revision-not-found", message, repo=str(repo_id), revision=revision)
    return FreeholdError("catalog-repo-not-found", f"no {repo_id.kind} {repo_id} in this house", repo=str(repo_id))


@contextmanager
def _alone(key: tuple[str, str, str]) -> Iterator[None]:
    """One at a time for each key; the table holds only keys that somebody waits for."""
    with _guard:
        lock, count = _locks.get(key, (threading.Lock(), 0))
        _locks[key] = (lock, count + 1)
    try:
        with lock:
            yield
    finally:
        with _guard:
            lock, count = _locks[key]
            if count == 1:
                del _locks[key]
            else:
                _locks[key] = (lock, count - 1)
