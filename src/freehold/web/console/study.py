"""Tensors: what the weights consist of, layer by layer, read from the file again when somebody looks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from freehold.errors import FreeholdError
from freehold.flows.models import ModelView
from freehold.flows.study import study_model
from freehold.nouns.tensors import TensorInfo
from freehold.web.console.models import model_of, page_of, sheet
from freehold.web.console.page import render, wants_part
from freehold.web.console.pictures import columns, tints
from freehold.web.console.place import parts_of
from freehold.web.console.visitor import visitor

_PAGE = 120
_LAYER = re.compile(r"(?:^|\.)(?:blk|layers?|blocks?|h)\.(\d+)\.")
#: The group of what belongs to no layer: embeddings, the last norm, the head.
OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one layer that stand on this page; `total` and `bytes` count those of the whole layer."""

    layer: int
    tensors: tuple[TensorInfo, ...]
    total: int
    bytes: int


def tensors(request: Request) -> Response:
    """GET .../-/tensors?file=&page=: the list with its picture; htmx gets it without the page around it."""
    view, revision = model_of(request)
    files = _choices(request, view)
    file = request.query_params.get("file", "")
    file = file if file in files else next(iter(files), "")
    listed = sorted(files.get(file, ()), key=lambda t: layer_of(t.name))
    page, pages = page_of(request, len(listed), _PAGE)
    amounts = _amounts(listed)
    whole = Counter[str]()
    for stack in amounts.values():
        whole.update(stack)
    coloured = tints([dtype for dtype, _ in whole.most_common()])
    asked = ({"file": file} if len(files) > 1 else {}) | ({"revision": revision} if revision != "main" else {})
    part = wants_part(request, "tensor-list")
    return render(
        request, "_tensors.html" if part else "tensors.html", section="models", **sheet(request, view, revision), part=part,
        files=list(files), file=file, groups=_groups(listed, amounts, page), count=len(listed), bytes=whole.total(),
        dtypes=dict(whole.most_common()), coloured=coloured, page=page, pages_count=pages, query=urlencode(asked),
        chart=columns([(_name(layer), stack) for layer, stack in amounts.items()], 720, 150, coloured, names=16),
        layers=sum(1 for layer in amounts if layer != OUTSIDE), headers={"Vary": "HX-Target"},
    )  # fmt: skip


def layer_of(name: str) -> int:
    """The layer that a tensor's name puts it in, OUTSIDE if in none."""
    found = _LAYER.search(name)
    return int(found[1]) if found and len(found[1]) < 7 else OUTSIDE


def _choices(request: Request, view: ModelView) -> dict[str, tuple[TensorInfo, ...]]:
    """What can be looked at: one list over all shards; one for each file if files hold tensors of the same names."""
    try:
        studied = study_model(
            parts_of(request), visitor(request).caller, str(view.id), view.revision.commit.sha, with_tensors=True
        )
    except FreeholdError as error:
        if error.code != "study-not-a-model":
            raise
        return {}
    names = Counter(t.name for listed in studied.tensors.values() for t in listed)
    if not names or max(names.values()) > 1:
        main = studied.facts.extra.get("main")
        return dict(sorted(studied.tensors.items(), key=lambda item: (item[0] != main, item[0])))
    return {"": tuple(t for listed in studied.tensors.values() for t in listed)}


def _amounts(listed: Iterable[TensorInfo]) -> Mapping[int, Mapping[str, int]]:
    """Bytes by layer and tensor type."""
    found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for tensor in listed:
        found[layer_of(tensor.name)][tensor.dtype] += tensor.stop - tensor.start
    return found


def _groups(listed: list[TensorInfo], amounts: Mapping[int, Mapping[str, int]], page: int) -> list[Group]:
    totals = Counter(layer_of(t.name) for t in listed)
    shown = listed[(page - 1) * _PAGE : page * _PAGE]
    return [
        Group(layer, tuple(group), totals[layer], sum(amounts[layer].values()))
        for layer, group in groupby(shown, key=lambda t: layer_of(t.name))
    ]


def _name(layer: int) -> str:
    return "other" if layer == OUTSIDE else str(layer)
