"""In and out: a key is traded for a session, which lives in a cookie that scripts cannot read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from freehold.errors import FreeholdError
from freehold.flows import keys
from freehold.web.console.forms import Form
from freehold.web.console.page import render
from freehold.web.console.place import console_path, parts_of
from freehold.web.console.visitor import end_session, safe_return, start_login, start_session, visitor


def show(request: Request) -> Response:
    """GET /-/login: the form, or straight on for who is already in."""
    back = safe_return(request, request.query_params.get("return"))
    if visitor(request).known:
        return RedirectResponse(back, 303)
    return _form(request, back)


def enter(request: Request, form: Form) -> Response:
    """POST /-/login: a key that is not valid gets the form again, without what was typed."""
    back = safe_return(request, form.get("return"))
    parts = parts_of(request)
    try:
        token, ends = keys.open_session(parts, form.get("key").strip())
    except FreeholdError as error:
        if error.code != "access-key-invalid":
            raise
        return _form(request, back, error)
    response = RedirectResponse(back, 303)
    start_session(request, response, token, max(0, (ends - parts.clock()) // 1_000_000))
    return response


def leave(request: Request, _form: Form) -> Response:
    """POST /-/logout: the session ends here and in the house."""
    found = visitor(request)
    if found.known:
        keys.close_session(parts_of(request), found.cookie)
    response = RedirectResponse(console_path(request), 303)
    end_session(request, response)
    return response


def _form(request: Request, back: str, error: FreeholdError | None = None) -> Response:
    cookies = Response()
    found = start_login(request, cookies)
    page = render(
        request, "login.html", error.row.http if error else 200, visiting=found, back=back, error=error, section="login",
        any_keys=keys.has_keys(parts_of(request)), asked="return" in request.query_params,
    )  # fmt: skip
    for value in cookies.headers.getlist("set-cookie"):
        page.headers.append("set-cookie", value)
    return page
