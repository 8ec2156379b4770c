"""Named places where a process can be made to die or to run out of disk, so that crash safety is tested, not hoped for.

Every step that changes what is durable calls `failpoint("<room>.<step>")`. In normal life that is one dictionary test.
`FREEHOLD_FAILPOINTS` arms them: `name=kill` (SIGKILL to the own process), `name=enospc` (OSError ENOSPC), `name=eio`;
`name@3=kill` at the third passage only; several are joined by `;`. `FREEHOLD_FAILPOINT_LOG` names a file to which each
passage is appended: a test enumerates the failpoints of a story by running it once with the log on.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from pathlib import Path

_ARMED: dict[str, str] = dict(part.split("=", 1) for part in os.environ.get("FREEHOLD_FAILPOINTS", "").split(";") if "=" in part)
_LOG = os.environ.get("FREEHOLD_FAILPOINT_LOG")
_PASSED: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Pass the place `name`; OSError or death if it is armed."""
    if not _ARMED and _LOG is None:
        return
    _PASSED[name] += 1
    if _LOG is not None:
        with Path(_LOG).open("a", encoding="utf-8") as log:
            log.write(f"{name}\n")
    action = _ARMED.get(name) or _ARMED.get(f"{name}@{_PASSED[name]}")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action in ("enospc", "eio"):
        number = errno.ENOSPC if action == "enospc" else errno.EIO
        raise OSError(number, os.strerror(number), name)
