"""Events: what happened, in order, each row chained to the one before by hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

#: `prev_hash` of row 1.
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Event:
    """Row `seq` of the log. `hash` = sha256 over the canonical JSON of all other fields, `prev_hash` included."""

    seq: int
    id: str
    at: int
    actor: str
    kind: str
    subject: str
    payload: dict[str, Any]
    prev_hash: str
    hash: str

    def expected_hash(self) -> str:
        return chain_hash(self.seq, self.id, self.at, self.actor, self.kind, self.subject, self.payload, self.prev_hash)


def chain_hash(seq: int, id_: str, at: int, actor: str, kind: str, subject: str, payload: dict[str, Any], prev: str) -> str:
    """Hex sha256 of the row as canonical JSON: sorted keys, no spaces, UTF-8."""
    row = [seq, id_, at, actor, kind, subject, payload, prev]
    return hashlib.sha256(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
