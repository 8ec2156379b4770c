"""Failures as the Hub API reports them: status, X-Error-Code, X-Error-Message, and a JSON body with our code and hint.

Clients choose their exception by the headers, people read the body. What may not be seen fails exactly as what is absent,
since both are one FreeholdError with one message; nothing here looks at the repository.
"""

from __future__ import annotations

from freehold.errors import FreeholdError
from freehold.web.asgi import Answer, Header, json_answer, safe_header

#: Clients take a 401 on a repository's URL for a repository that is not there, unless the message is this one.
_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - a message of the protocol


def error_answer(error: FreeholdError) -> Answer:
    """The response for a failure."""
    row = error.row
    shown = _BAD_TOKEN if error.code == "access-key-invalid" else error.message
    headers: list[Header] = [(b"x-error-message", safe_header(shown))]
    if row.hub:
        headers.append((b"x-error-code", row.hub.encode()))
    if row.http == 401:
        headers.append((b"www-authenticate", b'Bearer realm="freehold"'))
    if "commit" in error.context and error.code == "catalog-entry-not-found":
        headers.append((b"x-repo-commit", safe_header(str(error.context["commit"]))))
    if "allow" in error.context:
        headers.append((b"allow", safe_header(str(error.context["allow"]))))
    if error.code == "hub-range-not-satisfiable":
        headers.append((b"content-range", safe_header(f"bytes */{error.context['size']}")))
    if row.http in (429, 503):
        headers.append((b"retry-after", b"5"))
    body = {"error": shown, "code": error.code, "hint": error.hint, "docs": error.docs}
    return json_answer(body, row.http, headers)
