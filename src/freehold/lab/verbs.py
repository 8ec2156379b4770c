"""The commands that an upstream obeys, as a table: the control door checks against it, the command line is made from it.

Why a table: the same command is a method in a test, a POST on the control door and a word on the command line; one list
keeps the three from drifting. It holds no behaviour; the methods are those of Site and Upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freehold.errors import FreeholdError

_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "flag": (bool,),
    "texts": (list,),
}


@dataclass(frozen=True, slots=True)
class Argument:
    """`kind` is text, integer, number, flag or texts (any number of texts). A positional one comes without a name."""

    name: str
    kind: str
    help: str
    required: bool = False
    positional: bool = False


@dataclass(frozen=True, slots=True)
class Verb:
    """`name` as on the command line; `method` of Upstream."""

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()

    @property
    def method(self) -> str:
        return self.name.replace("-", "_")


def _must(name: str, help_: str) -> Argument:
    return Argument(name, "text", help_, required=True, positional=True)


_MODEL = _must("repo", "The model, as org/name.")
_MAYBE = Argument("repo", "text", "The model, as org/name; all without it.", positional=True)
_WHERE = Argument("repo", "text", "The model, as org/name or a pattern; all without it.", positional=True)
_TIMES = Argument("times", "integer", "How many answers it spoils; for ever without it.")
_PATH = Argument("path", "text", "Only files or URL paths that match this pattern.")
_ACCEPT = Argument("accept", "texts", "A token that is let in (may be repeated).")
_AT = Argument("revision", "text", "Where; main without it.")
_AFTER = Argument("after", "integer", "Bytes of the body sent before.", required=True)
_SPEED = Argument("bytes_per_second", "integer", "The speed.", required=True)
_DELTA = Argument("delta", "integer", "Bytes too many, or too few if negative.", required=True)
_OFFSET = Argument("offset", "integer", "Which byte of the file; the middle one of what is asked without it.")

VERBS: tuple[Verb, ...] = (
    Verb("delete", "Withdraw a model: it answers as if it had never been.", (_MODEL,)),
    Verb("disable", "Refuse a model to everyone, as a hub does after a complaint.", (_MODEL,)),
    Verb("hide", "Make a model private.", (_MODEL, _ACCEPT)),
    Verb("gate", "Give files for an accepted token only.", (_MODEL, _ACCEPT, Argument("mode", "text", "auto or manual."))),
    Verb("ungate", "Take the gate away.", (_MODEL,)),
    Verb("rename", "Move a model; the old name redirects.", (_MODEL, _must("to", "The new name."))),
    Verb("add-token", "Make a token known to the origin.", (_must("token", "The token."), _must("user", "Whose it is."))),
    Verb(
        "mutate",
        "Change a file's bytes under the same name.",
        (
            _MODEL,
            Argument("path", "text", "The file; the largest without it."),
            Argument("silent", "flag", "Under the same commit, as only a dishonest origin would."),
        ),
    ),
    Verb(
        "relicense",
        "Change the license in the card and the LICENSE file.",
        (_MODEL, _must("license_", "The new license's tag."), Argument("text", "text", "The new LICENSE text.")),
    ),
    Verb("rewrite", "Rewrite the history: all old commits are gone.", (_MODEL,)),
    Verb("tag", "Set a tag.", (_MODEL, _must("name", "Its name."), _AT)),
    Verb("branch", "Set a branch.", (_MODEL, _must("name", "Its name."), _AT)),
    Verb("refresh", "Take over what changed in the folder.", (_MAYBE,)),
    Verb(
        "fail",
        "Answer with an HTTP error.",
        (
            _WHERE,
            Argument("status", "integer", "429 or 5xx; 503 without it."),
            Argument("retry_after", "number", "Seconds in Retry-After."),
            _TIMES,
            _PATH,
        ),
    ),
    Verb("slow", "Send bodies slowly.", (_WHERE, _SPEED, _TIMES, _PATH)),
    Verb("cut", "Close the connection within the body.", (_WHERE, _AFTER, _TIMES, _PATH)),
    Verb(
        "stall",
        "Stop sending within the body, connection open.",
        (_WHERE, _AFTER, Argument("seconds", "number", "For how long; 60 without it."), _TIMES, _PATH),
    ),
    Verb("corrupt", "Send one wrong byte.", (_WHERE, _OFFSET, _TIMES, _PATH)),
    Verb("mislength", "Say a wrong Content-Length.", (_WHERE, _DELTA, _TIMES, _PATH)),
    Verb("ignore-range", "Answer ranged requests with the whole file.", (_WHERE, _TIMES, _PATH)),
    Verb("heal", "Take the faults away; contents and gates stay.", (_MAYBE,)),
    Verb("restore", "Back to how it was at the start: contents, gates, faults.", (_MAYBE,)),
    Verb("dead", "Go dead: refuse connections."),
    Verb("revive", "Listen again."),
    Verb("forget", "Empty the record of requests."),
)


def checked(name: str, values: Mapping[str, Any]) -> tuple[Verb, dict[str, Any]]:
    """The verb and its arguments without those that are None; FreeholdError lab-verb-unknown, lab-argument-invalid."""
    verb = next((v for v in VERBS if v.name == name), None)
    if verb is None:
        raise FreeholdError("lab-verb-unknown", f"an upstream does not know {name!r}", verb=name)
    known = {a.name: a for a in verb.arguments}
    given = {k: v for k, v in values.items() if v is not None}
    for key, value in given.items():
        if key not in known:
            raise FreeholdError("lab-argument-invalid", f"{name} has no argument {key!r}", verb=name, argument=key)
        kind = known[key].kind
        right = isinstance(value, _TYPES[kind]) and (kind == "flag" or not isinstance(value, bool))
        if not right or (kind == "texts" and not all(isinstance(v, str) for v in value)):
            raise FreeholdError("lab-argument-invalid", f"{name}: {key} must be {kind}, not {value!r}", verb=name, argument=key)
        if kind in ("integer", "number") and value < 0 and key != "delta":
            raise FreeholdError("lab-argument-invalid", f"{name}: {key} must not be negative", verb=name, argument=key)
    missing = [a.name for a in verb.arguments if a.required and a.name not in given]
    if missing:
        raise FreeholdError("lab-argument-invalid", f"{name} needs {', '.join(missing)}", verb=name, argument=missing[0])
    return verb, given
