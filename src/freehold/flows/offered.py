"""Which models can be chatted with, under which names, and how each is run.

Offered are: every kept and admitted revision with a GGUF file that is a language model, the models of the remote URL if
one is set, and the echo if it is turned on. A local name hides a remote one.

Names: `org/name` is the main branch, `org/name@tag` another branch or tag, with `:file` behind it where a revision holds
several GGUF files (`org/name:Q4_K_M`); without it, the quantization that most people take.
"""

from __future__ import annotations

import asyncio
import re
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from freehold.catalog import facts, repos, revisions
from freehold.catalog.repos import Repo
from freehold.catalog.revisions import Revision
from freehold.engines.remote import RemoteEngine
from freehold.errors import FreeholdError
from freehold.flows.models import FACTS, visible, visible_repo
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.ids import RepoId
from freehold.nouns.origin import Admission
from freehold.nouns.serving import Deployment, EngineKind

ECHO = "echo"
#: GGUF architectures that encode or see, but do not answer.
_SILENT = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert",
     "gemma-embedding", "clip", "t5encoder", "wavtokenizer-dec"}
)  # fmt: skip
#: Files that are parts of a model rather than one: projectors, importance matrices, later shards.
_PART = re.compile(r"(^|/)mmproj|imatrix|-(?!0*1-of-)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
#: Taken first where a revision has several files and none was named.
_USUAL = ("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "Q5_K_M", "Q8_0")
_REMOTE_SECONDS, _RETRY_SECONDS = 30.0, 3.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A model under the name that callers use. `created` in UTC microseconds; `context` in tokens as it is run here,
    None if a remote decides; `revision` and `file` say which bytes answer, `license` what they declare (local models only)."""

    id: str
    engine: EngineKind
    created: int
    owned_by: str
    context: int | None = None
    revision: str | None = None
    file: str | None = None
    license: str | None = None

    @property
    def local(self) -> bool:
        return self.engine is not EngineKind.REMOTE


@dataclass(frozen=True, slots=True)
class _Kept:
    """One GGUF model of one revision, with the files that it consists of."""

    offer: Offer
    entries: tuple[FileEntry, ...]


async def list_offers(parts: Parts, caller: Caller) -> list[Offer]:
    """All that the caller may chat with, local ones first. A remote that cannot be reached offers nothing."""
    caller.require(Scope.CHAT)
    kept = await asyncio.to_thread(_list_kept, parts, caller)
    found = {k.offer.id: k.offer for k in kept}
    if parts.echo:
        found[ECHO] = _echo_offer(parts)
    for name in (await _remote_listing(parts)).names:
        found.setdefault(name, _remote_offer(name))
    return list(found.values())


async def find_offer(parts: Parts, caller: Caller, name: str) -> Offer:
    """One of them, by name; FreeholdError use-model-not-found."""
    caller.require(Scope.CHAT)
    if name == ECHO and parts.echo:
        return _echo_offer(parts)
    kept = await asyncio.to_thread(_find_kept, parts, caller, name)
    if kept:
        return kept.offer
    if await _is_remote(parts, name):
        return _remote_offer(name)
    raise FreeholdError("use-model-not-found", f"no model {name!r} is offered for chat here", param="model", model=name)


async def find_deployment(parts: Parts, caller: Caller, name: str) -> Deployment:
    """How the model `name` is run; FreeholdError use-model-not-found, and those of the vault if its bytes are damaged."""
    caller.require(Scope.CHAT)
    if name == ECHO and parts.echo:
        return Deployment(ECHO, EngineKind.ECHO, context=parts.context, slots=256)
    deployment = await asyncio.to_thread(_deploy, parts, caller, name)
    if deployment:
        return deployment
    if await _is_remote(parts, name):
        return _remote_deployment(parts, name)
    raise FreeholdError("use-model-not-found", f"no model {name!r} is offered for chat here", param="model", model=name)


def _deploy(parts: Parts, caller: Caller, name: str) -> Deployment | None:
    kept = _find_kept(parts, caller, name)
    if kept is None:
        return None
    context = kept.offer.context or parts.context
    return Deployment(kept.offer.id, EngineKind.LLAMACPP, path=_materialised(parts, kept), context=context)


def _find_kept(parts: Parts, caller: Caller, name: str) -> _Kept | None:
    base, _, file = name.partition(":")
    base, _, revision = base.partition("@")
    try:
        with parts.catalog.read() as tx:
            repo = visible_repo(tx, caller, RepoId.parse(base))
            found = revisions.resolve(tx, repo, revision or "main")
            models = _models_of(tx, repo, found, revision, parts.context)
    except FreeholdError as error:
        if error.code in ("catalog-id-invalid", "catalog-repo-not-found", "catalog-revision-not-found"):
            return None
        raise
    return _choose(models, file)


def _list_kept(parts: Parts, caller: Caller) -> list[_Kept]:
    found: list[_Kept] = []
    with parts.catalog.read() as tx:
        for repo in repos.list_repos(tx):
            if not visible(caller, repo):
                continue
            seen: set[str] = set()
            names = [ref.name.partition("/")[2] for ref in revisions.list_refs(tx, repo) if not ref.name.startswith("pr/")]
            for name in sorted(names, key=lambda n: n != "main"):
                revision = revisions.resolve(tx, repo, name)
                if revision.commit.sha not in seen:
                    seen.add(revision.commit.sha)
                    found += _models_of(tx, repo, revision, "" if name == "main" else name, parts.context)
    return found


def _models_of(tx: Connection, repo: Repo, revision: Revision, ref: str, most: int) -> list[_Kept]:
    """The GGUF models of a revision, each with a context of at most `most` tokens; none if it is not admitted."""
    if facts.admission(tx, revision) is not Admission.ADMITTED:
        return []
    files = _gguf_files(revisions.get_manifest(tx, revision))
    if not files:
        return []
    recorded = facts.list_findings(tx, f"commit:{revision.commit}")
    known: dict[str, Any] = next((f.detail for f in reversed(recorded) if f.kind == FACTS), {})
    if known.get("architecture") in _SILENT:
        return []
    base = f"{repo.id}@{ref}" if ref else str(repo.id)
    labels = _labels(files)
    return [
        _Kept(
            Offer(
                id=base if len(files) == 1 else f"{base}:{labels[name]}",
                engine=EngineKind.LLAMACPP,
                created=revision.added_at,
                owned_by=repo.id.namespace or str(repo.id),
                context=min(most, known.get("context") or most),
                revision=revision.commit.sha,
                file=name,
                license=known.get("license_declared"),
            ),
            entries,
        )
        for name, entries in files.items()
    ]


def _gguf_files(manifest: Manifest) -> dict[str, tuple[FileEntry, ...]]:
    """First file of each model -> all its shards, in order; a model that lacks a shard is none."""
    by_path = {e.path: e for e in manifest if e.path.endswith(".gguf")}
    found: dict[str, tuple[FileEntry, ...]] = {}
    for path, entry in by_path.items():
        if _PART.search(path):
            continue
        stem = path.removesuffix(".gguf")
        shard = _SHARD.search(stem)
        if shard is None:
            found[path] = (entry,)
            continue
        head, count = stem[: shard.start()], int(shard[2])
        paths = [f"{head}-{n:05d}-of-{shard[2]}.gguf" for n in range(1, count + 1)]
        if all(p in by_path for p in paths):
            found[path] = tuple(by_path[p] for p in paths)
    return found


def _labels(files: dict[str, tuple[FileEntry, ...]]) -> dict[str, str]:
    """A short name for each file: what stands behind the last '-' or '.', or its whole stem where that is not unique."""
    stems = {path: _SHARD.sub("", path.removesuffix(".gguf")) for path in files}
    short = {path: re.split(r"[-./]", stem)[-1] for path, stem in stems.items()}
    taken = [name.lower() for name in short.values()]
    return {path: name if taken.count(name.lower()) == 1 else stems[path] for path, name in short.items()}


def _choose(models: list[_Kept], file: str) -> _Kept | None:
    """The model that `file` names (label, path or stem, in any case); without a name the usual quantization."""
    if not file:
        usual = [m for name in _USUAL for m in models if name in (m.offer.file or "").upper()]
        return next(iter([*usual, *models]), None)
    for model in models:
        path = (model.offer.file or "").lower()
        stem = path.removesuffix(".gguf")
        if file.lower() in (model.offer.id.partition(":")[2].lower(), path, stem) or re.search(
            rf"[-./]{re.escape(file.lower())}$", stem
        ):
            return model
    return None


def _materialised(parts: Parts, kept: _Kept) -> Path:
    """A path that the engine can open. Shards are looked for beside one another under their own names."""
    paths = [_verified(parts, entry) for entry in kept.entries]
    if len(paths) == 1:
        return paths[0]
    folder = parts.home.run / "shards" / str(kept.offer.revision)
    folder.mkdir(parents=True, exist_ok=True)
    links = [folder / Path(entry.path).name for entry in kept.entries]
    for link, path in zip(links, paths, strict=True):
        if not link.is_symlink() or link.readlink() != path:
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    return links[0]


_PATHS: weakref.WeakKeyDictionary[Any, dict[str, tuple[Path, tuple[int, int, int]]]] = weakref.WeakKeyDictionary()


def _verified(parts: Parts, entry: FileEntry) -> Path:
    """From the vault, which may read the whole file to vouch for it: asked again only once the file has changed."""
    known = _PATHS.setdefault(parts.vault, {})
    path, seen = known.get(str(entry.sha256), (None, None))
    if path is None or _signature(path) != seen:
        path = parts.vault.materialise(entry.sha256)
        known[str(entry.sha256)] = (path, _signature(path))
    return path


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a remote last said of its models, or why it said nothing; good until `until` of the monotonic clock."""

    until: float
    names: tuple[str, ...] = ()
    failure: FreeholdError | None = None


_LISTINGS: weakref.WeakKeyDictionary[Any, _Listing] = weakref.WeakKeyDictionary()


async def _remote_listing(parts: Parts) -> _Listing:
    """Asked at most every half minute; after a failure, every few seconds."""
    if parts.remote is None:
        return _Listing(0.0)
    known = _LISTINGS.get(parts.pool)
    if known is None or time.monotonic() > known.until:
        try:
            async with parts.pool.lease(_remote_deployment(parts, "")) as engine:
                names = tuple(await engine.models()) if isinstance(engine, RemoteEngine) else ()
            known = _Listing(time.monotonic() + _REMOTE_SECONDS, names)
        except FreeholdError as error:
            known = _Listing(time.monotonic() + _RETRY_SECONDS, failure=error)
        _LISTINGS[parts.pool] = known
    return known


async def _is_remote(parts: Parts, name: str) -> bool:
    """Whether the remote offers `name`; its failure, if it cannot be asked: the model may well be there."""
    found = await _remote_listing(parts)
    if found.failure is not None:
        raise FreeholdError(found.failure.code, found.failure.message, hint=found.failure.hint, **found.failure.context)
    return name in found.names


def _remote_deployment(parts: Parts, name: str) -> Deployment:
    if parts.remote is None:
        raise FreeholdError("use-model-not-found", "no remote is set")
    return Deployment(name, EngineKind.REMOTE, url=parts.remote.url, api_key=parts.remote.key, context=parts.context)


def _echo_offer(parts: Parts) -> Offer:
    return Offer(ECHO, EngineKind.ECHO, 0, "freehold", parts.context)


def _remote_offer(name: str) -> Offer:
    return Offer(name, EngineKind.REMOTE, 0, "remote")
