"""Who a key is: the name that its maker gave it."""

from __future__ import annotations

from dataclasses import dataclass

from freehold import access
from freehold.errors import FreeholdError
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope


@dataclass(frozen=True, slots=True)
class Identity:
    """`key` is the public id of the key (or the principal that needs none), `name` what it is called."""

    key: str
    name: str
    writes: bool
    orgs: tuple[str, ...]


def whoami(parts: Parts, caller: Caller) -> Identity:
    """FreeholdError access-key-missing for the anonymous."""
    if caller.principal == "anonymous":
        raise FreeholdError("access-key-missing", "Invalid username or password.")
    kind, _, key = caller.principal.partition(":")
    name = caller.principal
    if kind == "key":
        with parts.catalog.read() as tx:
            name = next((row.name for row in access.list_keys(tx) if row.public_id == key), name)
    return Identity(key or kind, name, caller.may(Scope.WRITE), tuple(sorted(caller.orgs)))
