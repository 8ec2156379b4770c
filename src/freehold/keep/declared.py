"""What a text says of a model's descent, word for word: declarations, not proof, and never a guess.

Only a sentence that says outright "a quantized version of [NAME](link to a model)" counts, with the link as the parent's name; a
link alone may mean anything. And a link to a file of the same name as one that is kept says where that file was copied from.
Cards and weights declare in fields of their own, which the study reads. It judges nothing, and asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from freehold.errors import FreeholdError
from freehold.nouns.ids import RepoId
from freehold.nouns.origin import Evidence, Lineage, Relation

#: Version of these rules.
METHOD = "package-text-1"

_HUB = r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/"
_ID = r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
_SAYS = re.compile(
    r"\b(quanti[sz]ed|quanti[sz]ation|fine-?tuned?|distilled|merged?)\s+(?:version|copy|variant|build|form)?\s*(?:of|from)\s+"
    r"(?:the\s+|a\s+)?(?:\[[^\]\n]{1,200}\]\(" + _HUB + _ID + r"/?\)|" + _HUB + _ID + r")",
    re.IGNORECASE,
)
_BLOB = re.compile(_HUB + _ID + r"/(?:blob|resolve)/([\w.-]+)/([^\s()<>\"']+)")
_RELATIONS = {"quanti": Relation.QUANTIZED, "fine": Relation.FINETUNE, "distil": Relation.DISTILLED, "merge": Relation.MERGE}


def lineage_in_text(text: str) -> tuple[Lineage, ...]:
    """Edges that the text states in so many words."""
    found: dict[str, Lineage] = {}
    for match in _SAYS.finditer(text[:1_000_000]):
        parent = match[2] or match[3].rstrip(".")
        relation = next(r for stem, r in _RELATIONS.items() if match[1].lower().startswith(stem))
        if _is_id(parent):
            found.setdefault(parent, Lineage(parent, relation, Evidence.DECLARED, method=METHOD))
    return tuple(found.values())


def copied_from(text: str, names: Iterable[str]) -> list[dict[str, Any]]:
    """Links to a hub's file with the name of one of ours: where the text says that it was taken from."""
    ours = set(names)
    found = []
    for repo, revision, path in _BLOB.findall(text[:1_000_000]):
        if path.rpartition("/")[2] in ours and _is_id(repo):
            row = {"file": path.rpartition("/")[2], "model": repo, "revision": revision, "path": path}
            if row not in found:
                found.append(row)
    return found


def _is_id(text: str) -> bool:
    try:
        RepoId.parse(text)
    except FreeholdError:
        return False
    return True
