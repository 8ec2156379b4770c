"""A page: a template with what every page needs (links, visitor, theme), as HTML that escapes everything it is given.

Templates hold no logic beyond loops and choices; pages prepare plain values for them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

import freehold
from freehold.nouns.caller import Scope
from freehold.nouns.moment import iso
from freehold.web.console import words
from freehold.web.console.assets import assets
from freehold.web.console.forms import TOKEN
from freehold.web.console.place import base_path, console_path, here, parts_of, public_url, quoted
from freehold.web.console.visitor import THEME, Visitor, visitor

_THEMES = ("light", "dark")


@cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("freehold.web.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("size", "count", "grouped", "money", "ago", "moment", "day", "plain", "ticks"):
        found.filters[name] = getattr(words, name)
    found.filters["iso"] = iso
    found.filters["quoted"] = quoted
    return found


def render(
    request: Request, template: str, status: int = 200, *, visiting: Visitor | None = None, headers: dict[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:  # fmt: skip
    """The page as an answer. A request by htmx that swaps a part gets the template's block of that name (`only`)."""
    body = _environment().get_template(template).render(_common(request, visiting) | values)
    return HTMLResponse(body, status, headers=headers)


def wants_part(request: Request, part: str) -> bool:
    """Whether htmx asks for the element `part` of the page alone."""
    return request.headers.get("hx-target") == part and "hx-history-restore-request" not in request.headers


def _common(request: Request, visiting: Visitor | None) -> dict[str, Any]:
    found = visiting or visitor(request)
    chosen = request.cookies.get(THEME)
    base = base_path(request)
    return {
        "link": lambda path="/": console_path(request, path),
        "root": lambda path="/": f"{base}{path}",
        "static": lambda name: console_path(request, f"/static/{name}?v={assets()[name].version}"),
        "public_url": public_url(request),
        "visitor": found,
        "may": lambda scope: found.caller.may(Scope(scope)),
        "token_field": TOKEN,
        "theme": chosen if chosen in _THEMES else "",
        "now": parts_of(request).clock(),
        "here": here(request),
        "version": freehold.__version__,
        "section": "",
    }
