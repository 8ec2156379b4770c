"""Verify: re-read the bytes that are kept and say which models a damage touches."""

from __future__ import annotations

from dataclasses import dataclass

from freehold.catalog import repos, revisions
from freehold.errors import FreeholdError
from freehold.flows.models import visible_repo
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.digest import Digest
from freehold.nouns.ids import RepoId
from freehold.nouns.progress import Listener, silent
from freehold.vault import Damage, RebuildReport


@dataclass(frozen=True, slots=True)
class Damaged:
    """One damaged or missing blob, and the files (`model: path`) that it is."""

    damage: Damage
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """`checked` blobs with `bytes` were re-read, `skipped` were checked recently. `mended`: sidecars written anew."""

    checked: int
    bytes: int
    skipped: int
    mended: int
    damaged: tuple[Damaged, ...]

    @property
    def ok(self) -> bool:
        return not self.damaged


def verify(
    parts: Parts, caller: Caller, model: str | None = None, *, max_age_us: int | None = None, listener: Listener = silent
) -> Verified:
    """Verify one model, or the whole vault; blobs that were checked within `max_age_us` are passed over.

    Also finds files that the catalog names and the vault has lost; first the vault takes back what its index does not know but
    what lies whole on disk. Nothing is deleted; damaged blobs are not served."""
    caller.require(Scope.WRITE)
    names = _names(parts, caller, model)
    if not all(_held(parts, digest) for digest in names):
        parts.vault.sweep()
    damage: dict[Digest, Damage] = {d: Damage(d, "missing") for d in names if not _held(parts, d)}
    checked = bytes_ = skipped = mended = 0
    for only in sorted(set(names) - set(damage)) if model else [None]:
        report = parts.vault.verify(only, max_age_us=max_age_us, listener=listener)
        checked, bytes_, skipped = checked + report.checked, bytes_ + report.bytes, skipped + report.skipped
        mended += len(report.mended)
        damage |= {d.sha256: d for d in report.damage}
    damaged = tuple(Damaged(d, tuple(names.get(digest, ()))) for digest, d in sorted(damage.items()))
    return Verified(checked, bytes_, skipped, mended, damaged)


def rebuild(parts: Parts, caller: Caller, listener: Listener = silent) -> RebuildReport:
    """Write the vault's index anew from the sidecars on disk, for a vault.db that was lost or does not fit."""
    caller.require(Scope.ADMIN)
    return parts.vault.rebuild(listener=listener)


def _held(parts: Parts, digest: Digest) -> bool:
    """Whether the vault has the blob, damaged or not."""
    try:
        parts.vault.size(digest)
    except FreeholdError as error:
        if error.code != "vault-missing":
            raise
        return False
    return True


def _names(parts: Parts, caller: Caller, model: str | None) -> dict[Digest, list[str]]:
    """Every blob that the catalog names (of one model, if given), with the files that it is."""
    named: dict[Digest, list[str]] = {}
    with parts.catalog.read() as tx:
        chosen = [visible_repo(tx, caller, RepoId.parse(model))] if model else repos.list_repos(tx)
        for repo in chosen:
            for revision in revisions.list_revisions(tx, repo):
                for entry in revisions.get_manifest(tx, revision):
                    text = f"{repo.id}: {entry.path}"
                    if text not in named.setdefault(entry.sha256, []):
                        named[entry.sha256].append(text)
    return named
