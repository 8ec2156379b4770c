"""Model cards as the lab writes and edits them: README.md with a block of metadata between two lines of `---`.

Scalars and lists of scalars are written; an edit changes one field and leaves every other line as it was. Cards are read
by `formats.card`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_KEY = re.compile(r"([A-Za-z_][\w.-]*):(?:\s+(.*?))?\s*")

Scalar = str | int | float | bool | None


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


def set_body(text: str, body: str) -> str:
    """The card with its metadata as they are and another text."""
    lines, _ = _split(text)
    return "\n".join(["---", *lines, "---", ""]) + body


def _split(text: str) -> tuple[list[str], str]:
    """The lines of the metadata block and what follows it; without a block that ends, no lines and the whole text."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return [], text
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    return ([line.rstrip("\r\n") for line in lines[1:end]], "".join(lines[end + 1 :])) if end else ([], text)


def _is_plain(text: str) -> bool:
    """Whether YAML reads these characters as text without quotes."""
    known = text.lower() in ("true", "false", "null", "yes", "no", "on", "off")
    return bool(re.fullmatch(r"[A-Za-z][\w ./+-]*", text)) and not known and not text.endswith(" ")


def _text(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return str(value)
    return value if _is_plain(value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
