"""Model cards as the lab writes, edits and reads them: README.md with a block of metadata between two lines of `---`.

It knows the part of YAML that cards are made of (scalars, lists of scalars, one level of mapping is kept as text); what
it does not know it leaves out rather than guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_KEY = re.compile(r"([A-Za-z_][\w.-]*):(?:\s+(.*?))?\s*")
_ITEM = re.compile(r"\s*-\s+(.*?)\s*")

Scalar = str | int | float | bool | None


def read_card(text: str) -> dict[str, Any]:
    """The metadata of the card `text`; empty if it has none."""
    lines, _ = _split(text)
    result: dict[str, Any] = {}
    key = ""
    for line in lines:
        if match := _KEY.fullmatch(line):
            key, value = match[1], match[2]
            result[key] = _value(value) if value else None
        elif key and (item := _ITEM.fullmatch(line)) and ": " not in item[1]:
            held = result[key] if isinstance(result[key], list) else []
            result[key] = [*held, _scalar(item[1])]
        elif line.strip() and not line.startswith("#"):
            key = ""
    return result


def write_card(fields: Mapping[str, Scalar | Sequence[str]], body: str) -> str:
    """A card with these metadata, in their order, then `body`."""
    lines = ["---"]
    for name, value in fields.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            lines.append(f"{name}: {_text(value)}")
        else:
            lines += [f"{name}:", *(f"- {_text(item)}" for item in value)]
    return "\n".join([*lines, "---", ""]) + body


def set_field(text: str, name: str, value: Scalar) -> str:
    """The card with one scalar field set (None takes it away); a block is made if there was none, the rest stays as it is."""
    lines, rest = _split(text)
    kept: list[str] = []
    dropping = False
    for line in lines:
        match = _KEY.fullmatch(line)
        dropping = match[1] == name if match else dropping
        if not dropping:
            kept.append(line)
    if value is not None:
        kept.insert(0, f"{name}: {_text(value)}")
    return "\n".join(["---", *kept, "---", ""]) + rest


def _split(text: str) -> tuple[list[str], str]:
    """The lines of the metadata block and what follows it; without a block that ends, no lines and the whole text."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return [], text
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    return ([line.rstrip("\r\n") for line in lines[1:end]], "".join(lines[end + 1 :])) if end else ([], text)


def _value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return _scalar(text)


def _scalar(text: str) -> Scalar:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if text in ("null", "~"):
        return None
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return text


def _text(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z0-9][\w ./+-]*", text) and _scalar(text) == text
    return text if plain or not isinstance(value, str) else '"' + text.replace('"', "'") + '"'
