"""Failures in OpenAI's shape: {"error": {"message", "type", "param", "code"}}, from the one table of errors.

`code` is OpenAI's where clients look for one, else freehold's own; freehold's code, hint and docs are always beside it.
"""

from __future__ import annotations

from typing import Any

from freehold.errors import FreeholdError
from freehold.web.asgi import Answer, Header, json_answer, safe_header

#: freehold's code -> what clients of the OpenAI API compare with.
_CODES = {
    "access-key-missing": "invalid_api_key",
    "access-key-invalid": "invalid_api_key",
    "access-scope-missing": "insufficient_permissions",
    "use-model-not-found": "model_not_found",
    "use-budget-exhausted": "insufficient_quota",
    "use-no-route": "unknown_url",
    "engines-context-exceeded": "context_length_exceeded",
    "engines-busy": "rate_limit_exceeded",
    "engines-pool-full": "rate_limit_exceeded",
}


def error_body(error: FreeholdError) -> dict[str, Any]:
    """The error object, as a response body or as the data of a frame in a stream."""
    inner = {
        "message": error.message,
        "type": error.row.openai,
        "param": error.context.get("param"),
        "code": _CODES.get(error.code, error.code),
        "freehold": {"code": error.code, "hint": error.hint, "docs": error.docs},
    }
    return {"error": inner}


def error_answer(error: FreeholdError, request: str) -> Answer:
    """The response for a failure before the first frame."""
    headers: list[Header] = [(b"x-request-id", request.encode())]
    if error.row.http == 401:
        headers.append((b"www-authenticate", b'Bearer realm="freehold"'))
    if "retry_after" in error.context:
        headers.append((b"retry-after", safe_header(str(error.context["retry_after"]))))
    if "allow" in error.context:
        headers.append((b"allow", safe_header(str(error.context["allow"]))))
    return json_answer(error_body(error), error.row.http, headers)
