"""Every user-facing failure: one tree, one table.

A failure is a `FreeholdError` with a stable code `<room>-<what>`. The table (`data/errors/<room>.toml`, one row a code)
says how each door reports it: process exit code, HTTP status, the hub's X-Error-Code, the OpenAI error type. Rooms raise;
doors translate; nothing below a door prints or exits. The table is read at the first error only, so that it costs a
healthy command nothing.

It does not wrap bugs: a ValueError or KeyError that reaches a door is one, and is reported as `internal-bug`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

DOCS = "docs/reference/errors.md"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How the doors report one code. `hub` is the Hub API's X-Error-Code, `openai` the OpenAI error `type`."""

    code: str
    summary: str
    hint: str
    exit: int = 1
    http: int = 500
    hub: str | None = None
    openai: str = "server_error"


@cache
def error_table() -> dict[str, ErrorRow]:
    """All codes, from every file of the table, sorted by code."""
    rows: dict[str, ErrorRow] = {}
    for entry in sorted((resources.files("freehold") / "data" / "errors").iterdir(), key=lambda e: e.name):
        room = entry.name.removesuffix(".toml")
        for what, fields in tomllib.loads(entry.read_text("utf-8")).items():
            rows[f"{room}-{what}"] = ErrorRow(code=f"{room}-{what}", **fields)
    return dict(sorted(rows.items()))


class FreeholdError(Exception):
    """A failure that a user can act on.

    `code` must stand in the table; `message` says what happened to which thing; `context` holds the particulars as
    plain values; `hint` overrides the table's general advice where the place that raises knows better.
    """

    def __init__(self, code: str, message: str, *, hint: str | None = None, **context: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = context
        self._hint = hint

    @property
    def row(self) -> ErrorRow:
        """This code's row; an unlisted code is a bug and reports as one."""
        table = error_table()
        return table.get(self.code) or table["internal-bug"]

    @property
    def hint(self) -> str:
        return self._hint if self._hint is not None else self.row.hint

    @property
    def docs(self) -> str:
        return f"{DOCS}#{self.code}"

    def as_dict(self) -> dict[str, Any]:
        """The fields that every door shows: code, message, context, hint, docs."""
        return {
            "code": self.code,
            "message": self.message,
            "context": {k: v if isinstance(v, str | int | float | bool | None) else str(v) for k, v in self.context.items()},
            "hint": self.hint,
            "docs": self.docs,
        }
