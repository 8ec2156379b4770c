"""Models: the register of what is kept, and the sheet of one model with everything that is known of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from freehold.errors import FreeholdError
from freehold.flows.models import ModelSummary, ModelView, list_models, show_model
from freehold.flows.read_file import OpenRange, close_bytes, open_bytes, open_file
from freehold.nouns.origin import Severity
from freehold.nouns.tensors import ModelFacts
from freehold.web.console.download import downloads
from freehold.web.console.page import render, wants_part
from freehold.web.console.pictures import Plot, plat, tints
from freehold.web.console.place import parts_of
from freehold.web.console.visitor import visitor

_PAGE = 50
_FILES_SHOWN = 12
_FILES_PAGE = 200
#: Bytes of a text that one page shows.
_TEXT = 512 * 1024
_RANK = {severity: rank for rank, severity in enumerate((Severity.CRITICAL, Severity.WARNING, Severity.NOTICE, Severity.INFO))}

#: What a page may ask of facts and terms, so that a revision that was not studied shows gaps and not a failure.
_NO_FACTS: dict[str, Any] = {f.name: None for f in fields(ModelFacts)}
_NO_TERMS: dict[str, Any] = dict.fromkeys(("declared", "declarations", "found", "agreement", "reason", "notice"))
_NO_TEXT: dict[str, Any] = dict.fromkeys(("path", "key", "name", "spdx", "score", "match", "surplus", "policy"))

#: Orders of the register: parameter -> (title, key, largest first).
ORDERS: dict[str, tuple[str, Callable[[ModelSummary], Any], bool]] = {
    "name": ("name", lambda m: str(m.id).lower(), False),
    "newest": ("newest", lambda m: m.updated_at, True),
    "size": ("size", lambda m: m.size, True),
    "parameters": ("parameters", lambda m: m.facts.get("parameters") or 0, True),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the register: the summary, its picture, and where it came from."""

    model: ModelSummary
    facts: dict[str, Any]
    terms: dict[str, Any]
    plots: tuple[Plot, ...]


def index(request: Request) -> Response:
    """GET /-/?q=&sort=&page=: the register; htmx gets its table alone."""
    parts, found = parts_of(request), visitor(request)
    kept = list_models(parts, found.caller)
    words = request.query_params.get("q", "").strip()
    sort = request.query_params.get("sort", "name")
    sort = sort if sort in ORDERS else "name"
    _, key, falling = ORDERS[sort]
    matching = sorted((m for m in kept if _matches(m, words)), key=key, reverse=falling)
    page, pages = page_of(request, len(matching), _PAGE)
    shown = matching[(page - 1) * _PAGE : page * _PAGE]
    part = wants_part(request, "register")
    return render(
        request, "_register.html" if part else "models.html", section="models", partial=part,
        entries=[_entry(m) for m in shown], kept=len(kept), matching=len(matching), bytes=sum(m.size for m in kept),
        q=words, sort=sort, orders=[(name, title) for name, (title, _, _) in ORDERS.items()], page=page, pages_count=pages,
        query=urlencode({"q": words, "sort": sort}), headers={"Vary": "HX-Target"},
    )  # fmt: skip


def show(request: Request) -> Response:
    """GET /-/models/{id}?revision=: the model's sheet."""
    view, revision = model_of(request)
    dtypes = _dtypes(view.facts)
    findings = sorted(view.findings, key=lambda f: _RANK[f.severity])
    return render(
        request, "model.html", section="models", **sheet(request, view, revision), plots=plat(dtypes, 240, 150), dtypes=dtypes,
        tints=tints(sorted(dtypes, key=lambda d: (-dtypes[d], d))), findings=findings, shown=view.manifest.entries[:_FILES_SHOWN],
        answers=any(e.path.endswith(".gguf") for e in view.manifest),
    )  # fmt: skip


def files(request: Request) -> Response:
    """GET .../-/files?page=: all files of the revision."""
    view, revision = model_of(request)
    page, pages = page_of(request, len(view.manifest.entries), _FILES_PAGE)
    shown = view.manifest.entries[(page - 1) * _FILES_PAGE : page * _FILES_PAGE]
    return render(
        request, "files.html", section="models", **sheet(request, view, revision), shown=shown, page=page, pages_count=pages,
        query=urlencode({"revision": revision} if revision != "main" else {}),
    )  # fmt: skip


def license_text(request: Request) -> Response:
    """GET .../-/license?file=: a text that came with the model, as it is kept; long ones from their beginning."""
    view, revision = model_of(request)
    parts, path = parts_of(request), request.query_params.get("file") or "LICENSE"
    opened = open_file(parts, visitor(request).caller, view.id, view.revision.commit.sha, path)
    size = opened.entry.size
    body = _read(open_bytes(parts, opened, 0, min(size, _TEXT)))
    if b"\0" in body:
        raise FreeholdError("console-field-invalid", f"{path} is not a text", path=path)
    return render(
        request, "license.html", section="models", **sheet(request, view, revision), file=path, size=size, limit=_TEXT,
        cut=size > _TEXT, text=body.decode("utf-8", "replace"),
    )  # fmt: skip


def model_of(request: Request) -> tuple[ModelView, str]:
    """The model that the URL names, with the name of the revision that was asked for."""
    namespace, name = request.path_params.get("namespace"), request.path_params["name"]
    revision = request.query_params.get("revision") or "main"
    view = show_model(parts_of(request), visitor(request).caller, f"{namespace}/{name}" if namespace else name, revision)
    return view, revision


def page_of(request: Request, rows: int, length: int) -> tuple[int, int]:
    """(the page asked for, number of pages); anything that is no page is the first or the last one."""
    pages = max(1, -(-rows // length))
    text = request.query_params.get("page", "1")
    asked = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1
    return min(max(1, asked), pages), pages


def _read(pieces: list[OpenRange | Iterator[bytes]]) -> bytes:
    """The bytes of a short range."""
    try:
        return b"".join(
            os.pread(p.file.fileno(), p.length, p.offset) if isinstance(p, OpenRange) else b"".join(p) for p in pieces
        )
    finally:
        close_bytes(pieces)


def sheet(request: Request, view: ModelView, revision: str) -> dict[str, Any]:
    """What every page of one model is given."""
    return {
        "downloads": downloads(request, view),
        "view": view,
        "commit": view.revision.commit.sha,
        "revision": revision,
        "suffix": "" if revision == "main" else "?" + urlencode({"revision": revision}),
        "path": f"/models/{view.id}",
        "facts": _NO_FACTS | view.facts if view.facts else {},
        "terms": _terms(view.license) if view.license else {},
    }


def _matches(model: ModelSummary, words: str) -> bool:
    """Every word stands somewhere in what the register says of the model."""
    facts = (model.facts.get(name) for name in ("architecture", "quantization", "format", "license_declared"))
    said = " ".join(str(x) for x in (model.id, model.admission, model.license.get("declared"), *facts) if x).casefold()
    return all(word in said for word in words.casefold().split())


def _entry(model: ModelSummary) -> Entry:
    return Entry(
        model=model,
        facts=_NO_FACTS | model.facts,
        terms=_terms(model.license),
        plots=plat(_dtypes(model.facts), 44, 32),
    )


def _terms(recorded: dict[str, Any]) -> dict[str, Any]:
    found = [_NO_TEXT | text for text in recorded.get("found") or ()]
    return _NO_TERMS | recorded | {"found": found}


def _dtypes(facts: dict[str, Any]) -> dict[str, int]:
    """Bytes by tensor type."""
    return {str(k): int(v) for k, v in (facts.get("dtypes") or {}).items()}
