"""The study of a whole revision in one go: facts, license, lineage as declared, findings; every header is read once.

This is what a pull records and what a reader is shown. It needs the files only as byte sources and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from freehold.nouns.origin import Evidence, Finding, Lineage, Relation
from freehold.nouns.tensors import ModelFacts
from freehold.study.findings import find
from freehold.study.inspect import inspect, require_model
from freehold.study.license import LicenseView, view_license
from freehold.study.reading import Files

_RELATIONS = {r.value: r for r in Relation}


@dataclass(frozen=True, slots=True)
class Study:
    """`lineage` holds what the files declare; nothing in it is proved."""

    facts: ModelFacts
    license: LicenseView
    lineage: tuple[Lineage, ...]
    findings: tuple[Finding, ...]


def study_revision(subject: str, files: Files, stated_licenses: Mapping[str, str] | None = None) -> Study:
    """Study `files` as `subject` (`commit:<sha>`). Raises study-not-a-model; damaged weights become findings.

    `stated_licenses`: what is declared outside of the files, as `{"package metadata": "Apache-2.0"}`.
    """
    reading = require_model(files)
    facts = inspect(reading)
    view = view_license(reading, stated_licenses)
    return Study(facts, view, declared_lineage(facts), tuple(find(subject, reading, view)))


def declared_lineage(facts: ModelFacts) -> tuple[Lineage, ...]:
    """One edge to each base that the files name, with the relation if the card gives one that is known."""
    relation = _RELATIONS.get(str(facts.extra.get("base_model_relation", "")), Relation.UNKNOWN)
    return tuple(Lineage(base, relation, Evidence.DECLARED) for base in facts.declared_bases)
