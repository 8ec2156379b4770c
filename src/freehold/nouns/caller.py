"""Who asks: every flow takes a Caller and authorises before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from freehold.errors import FreeholdError


class Scope(StrEnum):
    """`read` the models and facts, `write` them (pull, rm), `chat` with engines, `admin` everything and the keys."""

    READ = "read"
    WRITE = "write"
    CHAT = "chat"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """`principal` is a stable name (`owner`, `key:<public id>`, `anonymous`); `via` the door (cli, hub, openai, console)."""

    principal: str
    scopes: frozenset[Scope]
    via: str
    orgs: frozenset[str] = frozenset()

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """FreeholdError access-key-missing for the anonymous, access-scope-missing for a key without the scope."""
        if self.may(scope):
            return
        if self.principal == "anonymous":
            raise FreeholdError("access-key-missing", f"this needs a key with the scope '{scope}'", scope=str(scope))
        raise FreeholdError("access-scope-missing", f"the key lacks the scope '{scope}'", scope=str(scope))


def owner(via: str = "cli") -> Caller:
    """The person at the machine who owns the home folder."""
    return Caller("owner", frozenset({Scope.ADMIN}), via)
