"""An origin's contents and conduct: the models it has, who may have them, and what it does wrong on command.

Why apart from HTTP: every command is a method here, so that a test calls it, the control door translates to it, and both
mean the same. All methods may be called from any thread; a request sees the state as it is at that moment.

It does not persist conduct: deletions, gates, tokens and faults end with the process, histories stay.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from freehold.errors import FreeholdError
from freehold.formats.card import parse_card
from freehold.lab.card import set_field
from freehold.lab.faults import Fault, FaultKind, Faults, OpenRequest, Request
from freehold.lab.history import Commit, ModelFolder, Repository, make_commit
from freehold.nouns.ids import RepoId
from freehold.nouns.moment import Clock

_MOST_REQUESTS = 100_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How the origin treats one model. `gated` is auto, manual or None; `accepted` tokens pass a gate and see a private model."""

    deleted: bool = False
    disabled: bool = False
    private: bool = False
    gated: str | None = None
    accepted: frozenset[str] = frozenset()
    moved_to: str | None = None


def system_clock() -> int:
    """UTC microseconds."""
    return time.time_ns() // 1000


class Site:
    """The models of a folder as an origin serves them; see `upstream` for the server around it."""

    def __init__(self, folder: Path, clock: Clock = system_clock) -> None:
        """FreeholdError lab-folder-missing, lab-folder-unreadable, lab-folder-unwritable, lab-history-broken."""
        self.clock = clock
        self.faults = Faults()
        self._folder = ModelFolder(folder, clock)
        self._lock = threading.RLock()
        self._repos: dict[str, Repository] = {}
        self._standing: dict[str, Standing] = {}
        self._tokens: dict[str, str] = {}
        self._log: list[OpenRequest] = []
        self.refresh()
        self._begun = dict(self._repos)

    @property
    def folder(self) -> Path:
        return self._folder.root

    # --- what it has ------------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Ids of the models that are not deleted or moved, sorted."""
        with self._lock:
            shown = [r for key, r in self._repos.items() if not self._stand(key).deleted and not self._stand(key).moved_to]
            return sorted(str(r.id) for r in shown)

    def repository(self, repo: str) -> Repository:
        """FreeholdError lab-model-unknown for a model that is not in the folder."""
        with self._lock:
            found = self._repos.get(RepoId.parse(repo).key)
        if found is None:
            raise FreeholdError("lab-model-unknown", f"the upstream has no model {repo!r}", id=repo)
        return found

    def standing(self, repo: str) -> Standing:
        return self._stand(RepoId.parse(repo).key)

    def head(self, repo: str, revision: str = "main") -> str:
        """The commit that `revision` names."""
        return self.repository(repo).resolve(revision).sha

    def bytes_of(self, commit: Commit, path: str) -> bytes:
        """FreeholdError catalog-entry-not-found."""
        return self.blob(commit.manifest.find(path).sha256.hex).read_bytes()

    def blob(self, sha256: str) -> Path:
        return self._folder.blob(sha256)

    def card(self, commit: Commit) -> dict[str, Any]:
        """The metadata of README.md, empty without one."""
        entry = commit.find("README.md")
        return dict(parse_card(self.blob(entry.sha256.hex).read_bytes()).fields) if entry else {}

    # --- changes of contents ----------------------------------------------------------------------------------------

    def refresh(self, repo: str | None = None) -> list[str]:
        """Look at the folder again: new models appear, changed ones get a commit. Returns the ids looked at."""
        with self._lock:
            known = {str(r.id): None for r in self._repos.values()} | self._folder.models()
            chosen = [repo] if repo is not None else sorted(known)
            for id_ in chosen:
                if id_ not in known:
                    raise FreeholdError("lab-model-unknown", f"the folder has no model {id_!r}", id=id_)
                loaded = self._folder.load(RepoId.parse(id_), known[id_])
                if loaded.commits:
                    self._repos[loaded.id.key] = loaded
            return chosen

    def commit(self, repo: str, changes: Mapping[str, bytes | None], message: str = "Change files") -> str:
        """A new commit on main with these bytes (None removes the file); returns its sha."""
        with self._lock:
            return self._keep(self._folder.commit(self.repository(repo), changes, message)).refs["refs/heads/main"]

    def mutate(self, repo: str, path: str | None = None, *, silent: bool = False) -> str:
        """Other bytes, as many as before, in one file of main: `path`, or the largest. Returns main's sha.

        Silent: no new commit; the same sha lists and serves the other bytes, as only a dishonest origin would.
        """
        with self._lock:
            repository = self.repository(repo)
            head = repository.resolve("main")
            path = path or max(head.manifest, key=lambda e: (e.size, e.path)).path
            data = bytearray(self.bytes_of(head, path))
            if not data:
                raise FreeholdError("lab-nothing-to-change", f"{path} of {repo} is empty", id=repo, path=path)
            data[int.from_bytes(hashlib.sha256(data).digest()[:8]) % len(data)] ^= 0x5A
            if not silent:
                return self.commit(repo, {path: bytes(data)}, f"Update {path}")
            entry = self._folder.store_bytes(path, bytes(data))
            manifest = replace(head.manifest, entries=tuple(entry if e.path == path else e for e in head.manifest))
            commits = {**repository.commits, head.sha: replace(head, manifest=manifest)}
            return self._keep(replace(repository, commits=commits)).refs["refs/heads/main"]

    def relicense(self, repo: str, license_: str, text: str | None = None) -> str:
        """A commit that changes the card's license tag and the LICENSE file; returns its sha."""
        with self._lock:
            head = self.repository(repo).resolve("main")
            old = self.bytes_of(head, "README.md").decode("utf-8", "replace") if head.find("README.md") else ""
            card = set_field(set_field(old, "license_name", None), "license_link", None)
            card = set_field(card, "license", license_)
            notice = text if text is not None else f"From this revision on the model is licensed under {license_}.\n"
            changes: dict[str, bytes | None] = {"README.md": card.encode(), "LICENSE": notice.encode()}
            return self.commit(repo, changes, f"Change the license to {license_}")

    def rewrite(self, repo: str) -> str:
        """Every ref gets a new root commit with the same files, and all commits before are gone; returns main's sha."""
        with self._lock:
            repository = self.repository(repo)
            anew = Repository(repository.id, {}, {})
            for ref, sha in repository.refs.items():
                old = repository.commits[sha]
                made = make_commit(old.manifest, None, self.clock(), "Rewrite the history", f"was {old.sha[:12]}")
                anew = anew.with_commit(made, ref)
            return self._keep(anew).refs["refs/heads/main"]

    def tag(self, repo: str, name: str, revision: str = "main") -> str:
        """A tag `name` at `revision` (moved if it exists); returns its sha."""
        return self._name(repo, f"refs/tags/{name}", revision)

    def branch(self, repo: str, name: str, revision: str = "main") -> str:
        """A branch `name` at `revision` (moved if it exists); returns its sha."""
        return self._name(repo, f"refs/heads/{name}", revision)

    # --- conduct ----------------------------------------------------------------------------------------------------

    def delete(self, repo: str) -> None:
        self._treat(repo, deleted=True)

    def disable(self, repo: str) -> None:
        """As a hub does after a complaint: 403 for everyone."""
        self._treat(repo, disabled=True)

    def hide(self, repo: str, accept: Iterable[str] = ()) -> None:
        """Make it private: it exists only for the tokens in `accept`."""
        self._treat(repo, private=True, accepted=self._accept(accept))

    def gate(self, repo: str, accept: Iterable[str] = (), mode: str = "auto") -> None:
        """Files only for the tokens in `accept`: 401 GatedRepo without a token, 403 with another. `mode`: auto or manual."""
        if mode not in ("auto", "manual"):
            raise FreeholdError("lab-argument-invalid", f"a gate is auto or manual, not {mode!r}", mode=mode)
        self._treat(repo, gated=mode, accepted=self._accept(accept))

    def ungate(self, repo: str) -> None:
        self._treat(repo, gated=None)

    def rename(self, repo: str, to: str) -> None:
        """Move the model; its old name redirects, as on the hub."""
        with self._lock:
            repository, target = self.repository(repo), RepoId.parse(to)
            if target.key in self._repos:
                raise FreeholdError("lab-argument-invalid", f"the upstream has a model {to!r} already", id=to)
            self._repos[target.key] = self._folder.keep(replace(repository, id=target))
            self._standing[target.key] = self._stand(repository.id.key)
            self._treat(repo, moved_to=to)

    def add_token(self, token: str, user: str) -> None:
        """A token that the origin knows: an unknown one is refused with 401."""
        with self._lock:
            self._tokens[token] = user

    def user_of(self, token: str) -> str | None:
        with self._lock:
            return self._tokens.get(token)

    def fail(
        self, repo: str = "*", *, status: int = 503, times: int | None = None, retry_after: float | None = None, path: str = "*"
    ) -> None:
        """Answer `status` (429 or 5xx ...) instead, with Retry-After in seconds if given."""
        if not 400 <= status <= 599:
            raise FreeholdError("lab-argument-invalid", f"not an HTTP error status: {status}", status=status)
        self.faults.add(Fault(FaultKind.FAIL, repo, path, times, status=status, retry_after=retry_after))

    def slow(self, repo: str = "*", *, bytes_per_second: int, times: int | None = None, path: str = "*") -> None:
        """Send bodies at this speed."""
        if bytes_per_second < 1:
            raise FreeholdError("lab-argument-invalid", "a speed is at least 1 byte a second", bytes_per_second=bytes_per_second)
        self.faults.add(Fault(FaultKind.SLOW, repo, path, times, bytes_per_second=bytes_per_second))

    def cut(self, repo: str = "*", *, after: int, times: int | None = None, path: str = "*") -> None:
        """Close the connection after `after` bytes of the body."""
        self.faults.add(Fault(FaultKind.CUT, repo, path, times, after=after))

    def stall(self, repo: str = "*", *, after: int = 0, seconds: float = 60.0, times: int | None = None, path: str = "*") -> None:
        """Send `after` bytes of the body, then nothing for `seconds`, then the rest."""
        self.faults.add(Fault(FaultKind.STALL, repo, path, times, after=after, seconds=seconds))

    def corrupt(self, repo: str = "*", *, offset: int | None = None, times: int | None = None, path: str = "*") -> None:
        """Invert one byte of the body: the file's byte at `offset`, or the middle one of what is asked."""
        self.faults.add(Fault(FaultKind.CORRUPT, repo, path, times, offset=offset))

    def mislength(self, repo: str = "*", *, delta: int, times: int | None = None, path: str = "*") -> None:
        """Say `delta` bytes more or less than there are; with less the body ends there as if all were well."""
        self.faults.add(Fault(FaultKind.MISLENGTH, repo, path, times, delta=delta))

    def ignore_range(self, repo: str = "*", *, times: int | None = None, path: str = "*") -> None:
        """Answer ranged requests with 200 and the whole file."""
        self.faults.add(Fault(FaultKind.IGNORE_RANGE, repo, path, times))

    def heal(self, repo: str | None = None) -> None:
        """Take the faults away (those that name exactly `repo`, or all); contents and gates stay."""
        self.faults.clear(repo)

    def restore(self, repo: str | None = None) -> None:
        """One model, or all: no faults, gates, deletions or moves, and the history as it was when the origin started."""
        with self._lock:
            self.faults.clear(repo)
            keys = set(self._repos) if repo is None else {self.repository(repo).id.key}
            for key in keys:
                self._standing.pop(key, None)
                if key in self._begun:
                    self._repos[key] = self._folder.keep(self._begun[key])
                elif repo is None:
                    self._repos.pop(key)

    # --- what was asked ---------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """Every request since the start or the last `forget`, in order of arrival."""
        with self._lock:
            return [entry.seen() for entry in self._log]

    @property
    def bytes_sent(self) -> int:
        """Body bytes of all recorded requests."""
        with self._lock:
            return sum(entry.sent for entry in self._log)

    def forget(self) -> None:
        """Empty the record of requests."""
        with self._lock:
            self._log = []

    def record(self, request: OpenRequest) -> None:
        """Keep the most recent requests, bounded."""
        with self._lock:
            self._log.append(request)
            del self._log[:-_MOST_REQUESTS]

    def describe(self) -> dict[str, Any]:
        """Models with heads and standing, faults in force, counts."""
        with self._lock:
            rows = []
            for key, repository in sorted(self._repos.items()):
                stand = self._stand(key)
                row: dict[str, Any] = {"id": str(repository.id), "main": repository.refs.get("refs/heads/main")}
                row |= {"commits": len(repository.commits), "refs": dict(repository.refs)}
                row |= {name: getattr(stand, name) for name in ("deleted", "disabled", "private", "gated", "moved_to")}
                rows.append(row)
            sent = sum(entry.sent for entry in self._log)
            return {"models": rows, "faults": self.faults.as_list(), "requests": len(self._log), "bytes_sent": sent}

    # --- inside -----------------------------------------------------------------------------------------------------

    def _stand(self, key: str) -> Standing:
        with self._lock:
            return self._standing.get(key, Standing())

    def _treat(self, repo: str, **changes: Any) -> None:
        with self._lock:
            key = self.repository(repo).id.key
            self._standing[key] = replace(self._stand(key), **changes)

    def _accept(self, tokens: Iterable[str]) -> frozenset[str]:
        with self._lock:
            accepted = frozenset(tokens)
            for token in accepted:
                self._tokens.setdefault(token, f"user-{len(self._tokens) + 1}")
            return accepted

    def _keep(self, repository: Repository) -> Repository:
        self._repos[repository.id.key] = self._folder.keep(repository)
        return repository

    def _name(self, repo: str, ref: str, revision: str) -> str:
        with self._lock:
            repository = self.repository(repo)
            sha = repository.resolve(revision).sha
            self._keep(repository.with_ref(ref, sha))
            return sha
