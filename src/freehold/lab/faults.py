"""What can be wrong with an upstream's answers, as rules that requests meet, and the record of each request.

Why rules: a test says beforehand which answers go wrong and how often, and reads afterwards what was asked; no timing is
involved. A rule meets a request if its model pattern and its path pattern match (shell patterns; the path pattern is
tried on the file's path in the model and on the URL's path). `times` counts the answers that it spoilt; None is for ever.

It does not touch what the models contain: that is history.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any


class FaultKind(StrEnum):
    """`fail`: an HTTP error instead of an answer. The others spoil the body of a file that is served to a GET.

    `slow`: at `bytes_per_second`. `cut`: the connection closes after `after` bytes of the body. `stall`: after `after` bytes
    nothing comes for `seconds`. `corrupt`: the byte at `offset` of the file (None: the middle of what is asked) is inverted.
    `mislength`: Content-Length says `delta` bytes more or less than there are; with less the body ends there, cleanly.
    `ignore-range`: status 200 and the whole file to a ranged request.
    """

    FAIL = "fail"
    SLOW = "slow"
    CUT = "cut"
    STALL = "stall"
    CORRUPT = "corrupt"
    MISLENGTH = "mislength"
    IGNORE_RANGE = "ignore-range"


@dataclass(slots=True)
class Fault:
    """One rule. Fields that its kind does not name are without effect."""

    kind: FaultKind
    repo: str = "*"
    path: str = "*"
    times: int | None = None
    status: int = 503
    retry_after: float | None = None
    bytes_per_second: int = 0
    after: int = 0
    seconds: float = 0.0
    offset: int | None = None
    delta: int = 0
    met: int = 0

    def meets(self, repo: str, path: str, url_path: str) -> bool:
        if self.times is not None and self.met >= self.times:
            return False
        by_repo = self.repo == "*" or fnmatchcase(repo.lower(), self.repo.lower())
        return by_repo and (fnmatchcase(path, self.path) or fnmatchcase(url_path, self.path))

    def as_dict(self) -> dict[str, Any]:
        common = {"kind": str(self.kind), "repo": self.repo, "path": self.path, "times": self.times, "met": self.met}
        own = {
            FaultKind.FAIL: ("status", "retry_after"),
            FaultKind.SLOW: ("bytes_per_second",),
            FaultKind.CUT: ("after",),
            FaultKind.STALL: ("after", "seconds"),
            FaultKind.CORRUPT: ("offset",),
            FaultKind.MISLENGTH: ("delta",),
            FaultKind.IGNORE_RANGE: (),
        }[self.kind]
        return common | {name: getattr(self, name) for name in own}


class Faults:
    """The rules in force; safe for threads."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._rules.append(fault)

    def clear(self, repo: str | None = None) -> None:
        """Without `repo` all; else those whose model pattern is exactly `repo`."""
        with self._lock:
            self._rules = [] if repo is None else [r for r in self._rules if r.repo.lower() != repo.lower()]

    def meet(self, kinds: Iterable[FaultKind], repo: str, path: str, url_path: str) -> dict[FaultKind, Fault]:
        """The first rule of each kind that meets the request, counted as met."""
        result: dict[FaultKind, Fault] = {}
        with self._lock:
            for kind in kinds:
                rule = next((r for r in self._rules if r.kind is kind and r.meets(repo, path, url_path)), None)
                if rule is not None:
                    rule.met += 1
                    result[kind] = rule
        return result

    def as_list(self) -> list[dict[str, Any]]:
        with self._lock:
            return [r.as_dict() for r in self._rules]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was answered: `sent` counts body bytes handed to the connection, `status` 0 while unanswered.

    `authorized` says that it carried an Authorization header; the header itself is not kept.
    """

    at: int
    method: str
    path: str
    query: str
    range: str | None
    authorized: bool
    agent: str
    status: int
    sent: int

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class OpenRequest:
    """A request while it is answered; its numbers are brought up before the bytes leave."""

    at: int
    method: str
    path: str
    query: str
    range: str | None
    authorized: bool
    agent: str
    status: int = field(default=0)
    sent: int = field(default=0)

    def seen(self) -> Request:
        return Request(*(getattr(self, name) for name in Request.__slots__))
