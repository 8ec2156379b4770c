"""Study: a kept model read again from its bytes, by the rules of today.

The story: authorise, find the revision and what was declared of it outside of its files, open its files in the vault, study
them. What the pull recorded stays as it was recorded; this shows what the files say now that the rules may know more, and it
is the way to the list of tensors, which is too long to record.

It writes nothing and judges no admission.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from freehold.catalog import facts, revisions
from freehold.catalog.revisions import Revision
from freehold.flows.models import visible_repo
from freehold.flows.parts import Parts
from freehold.keep.take import KeptFiles
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import RepoId
from freehold.nouns.origin import Finding, Lineage
from freehold.nouns.tensors import ModelFacts, TensorInfo
from freehold.study.inspect import inspect_each, require_model
from freehold.study.inspect import tensors as list_tensors
from freehold.study.license import LicenseView
from freehold.study.reading import Reading
from freehold.study.revision import study_revision


@dataclass(frozen=True, slots=True)
class StudyView:
    """What the files of one revision say. `models`: the facts of each model in it, the main one (`facts`) first; `lineage` as
    declared, unproved; `tensors` by file, empty unless asked for."""

    id: RepoId
    revision: Revision
    facts: ModelFacts
    models: dict[str, ModelFacts]
    license: LicenseView
    lineage: tuple[Lineage, ...]
    findings: tuple[Finding, ...]
    tensors: dict[str, tuple[TensorInfo, ...]] = field(default_factory=dict)


def study_model(
    parts: Parts, caller: Caller, name: str, revision: str = "main", *, with_tensors: bool = False
) -> StudyView:  # fmt: skip
    """Study one revision. Raises catalog-repo-not-found, catalog-revision-not-found, study-not-a-model, vault-*."""
    with _opened(parts, caller, name, revision) as (repo_id, found, files, stated):
        reading = require_model(files)
        studied = study_revision(f"commit:{found.commit}", reading, stated)
        listed = {f.path: f.tensors for s in reading.survey.sets for f in s.files if f.tensors} if with_tensors else {}
        models = inspect_each(reading)
        return StudyView(repo_id, found, studied.facts, models, studied.license, studied.lineage, studied.findings, listed)


def study_tensors(parts: Parts, caller: Caller, name: str, path: str, revision: str = "main") -> tuple[TensorInfo, ...]:
    """The tensors of one file, in its order. Raises as `study_model`, catalog-entry-not-found, study-no-tensors, formats-*."""
    with _opened(parts, caller, name, revision) as (_, found, files, _stated):
        with parts.catalog.read() as tx:
            entry = revisions.get_manifest(tx, found).find(path)
        return list_tensors(files.files[entry.path], entry.path)


@contextmanager
def _opened(parts: Parts, caller: Caller, name: str, revision: str) -> Iterator[tuple[RepoId, Revision, Reading, dict[str, str]]]:
    """The revision, its files, and what its sources declared of its license."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        repo = visible_repo(tx, caller, RepoId.parse(name))
        found = revisions.resolve(tx, repo, revision)
        manifest = revisions.get_manifest(tx, found)
        stated = {}
        for origin in facts.list_origins(tx, found):
            metadata = origin.detail.get("metadata", {})
            declared = metadata.get("license-expression") or metadata.get("license") if isinstance(metadata, dict) else None
            if origin.source == "pypi" and declared:
                stated["package metadata"] = str(declared)
    with contextlib.closing(KeptFiles(parts.vault, manifest)) as files:
        yield repo.id, found, Reading(files), stated
