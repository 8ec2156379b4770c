"""The server's logs: one JSON line a request, and what went wrong with its traceback.

Lines hold no header, query or body, since tokens travel there. They are buffered and written once a second, so that a
request costs no write; a kill -9 loses at most that second. A full disk stops the log, never the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_FLUSH_SECONDS = 1.0
_ROTATE_BYTES = 16 << 20


class ServerLog:
    """`access.log` and `server.log` in `folder`; each is kept up to 16 MiB and once more as `.1`."""

    def __init__(self, folder: Path) -> None:
        self._access, self._server = folder / "access.log", folder / "server.log"
        self._lines: list[str] = []
        self._due: asyncio.TimerHandle | None = None

    def request(self, **fields: Any) -> None:
        """One request was answered."""
        self._lines.append(json.dumps({"at": _now(), **fields}, separators=(",", ":")))
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush_soon)

    def bug(self, request: str, error: BaseException) -> None:
        """A failure without a code; written at once."""
        text = "".join(traceback.format_exception(error))
        _append(self._server, f"{_now()} request {request}\n{text}\n")

    def note(self, text: str) -> None:
        """A line about the server itself."""
        _append(self._server, f"{_now()} {text}\n")

    def flush(self) -> None:
        """Write what is buffered."""
        lines, self._lines = self._lines, []
        if lines:
            _append(self._access, "\n".join(lines) + "\n")

    def _flush_soon(self) -> None:
        self._due = None
        asyncio.get_running_loop().run_in_executor(None, self.flush)


def _append(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size > _ROTATE_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
