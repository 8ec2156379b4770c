"""Model cards: the YAML front matter of a README.md, read by a small strict parser of the YAML that cards use.

A card is a stranger's text, and YAML is a large language of which cards use little. Read are: plain, single- and
double-quoted scalars, `[inline, lists]`, lists of `- scalars`, and one level of `key: scalar` below a field. Anything
else (anchors, block texts, lists of maps ...) leaves that one field unreadable, with the reason, and the others stand.
Where two YAML readers could disagree (a field twice, odd line breaks, tabs) nothing is chosen: the field is unreadable.

Scalars stay text as written (`language: no` is Norwegian, not false); an empty one, `~` and `null` are None. It never
raises. It does not read the Markdown, and it does not believe the card: these are declarations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Front matter beyond this many characters is not read.
MAX_FRONT_MATTER = 1_000_000

Scalar = str | None
Value = Scalar | list[Scalar] | dict[str, Scalar]

_FENCE = re.compile(r"---[ \t]*")
_FIELD = re.compile(r"""(?P<key>[A-Za-z0-9_][\w.-]*|"[^"\\]*"|'[^']*')[ ]*:(?=[ \t]|$)""")
_LEAD = re.compile(r"""[ \t]*(?:-[ \t]+)*(?:(?:[\w.-]+|"[^"\\]*"|'[^']*')[ ]*:[ \t]+)?""")
_LITERAL = re.compile(r"[:-][ \t]+[|>][0-9+-]*[ \t]*(?:[ \t]#.*)?$")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# Line breaks to some readers and not to others, and what no YAML document may hold.
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x85\x86-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b",
    " ": " ", '"': '"', "/": "/", "\\": "\\", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_SINGLE = re.compile(r"'([^'\n]*(?:''[^'\n]*)*)'(?!')")
_DOUBLE = re.compile(r'"([^"\\\n]*(?:\\[^\n][^"\\\n]*)*)"')
_COMMENT = re.compile(r"[ \t]#")
_TAIL = re.compile(r"[ ]*(?:[ \t]#.*)?")
_BLANK = re.compile(r"(?:[ \n]|(?<=[ \n])#[^\n]*(?=\n|\Z))*")
_FLOW_PLAIN = re.compile(r"[^,\[\]{}\n#]+")


@dataclass(frozen=True, slots=True)
class Card:
    """What a card declares. `unreadable` maps a field to the reason; `problem` is what is wrong with the whole."""

    fields: dict[str, Value] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    problem: str | None = None

    def text(self, name: str) -> str | None:
        """The field, if it is a single scalar."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """The field as a list of its scalars, one or many."""
        value = self.fields.get(name)
        many = value if isinstance(value, list) else [value]
        return tuple(v for v in many if isinstance(v, str))

    @property
    def license(self) -> str | None:
        return self.text("license")

    @property
    def license_name(self) -> str | None:
        return self.text("license_name")

    @property
    def license_link(self) -> str | None:
        return self.text("license_link")

    @property
    def base_models(self) -> tuple[str, ...]:
        return self.texts("base_model")

    @property
    def base_model_relation(self) -> str | None:
        return self.text("base_model_relation")

    @property
    def tags(self) -> tuple[str, ...]:
        return self.texts("tags")

    @property
    def pipeline_tag(self) -> str | None:
        return self.text("pipeline_tag")

    @property
    def library_name(self) -> str | None:
        return self.text("library_name")

    @property
    def languages(self) -> tuple[str, ...]:
        return self.texts("language")


class _UnreadableError(ValueError):
    """This field is beyond the subset; the text says why."""


def parse_card(readme: bytes | str) -> Card:
    """The front matter of a README.md; an empty Card if there is none. Never raises."""
    if isinstance(readme, bytes):
        try:
            readme = readme.decode("utf-8-sig")
        except UnicodeDecodeError:
            return Card(problem="the card is not UTF-8")
    lines, problem = _front_matter(readme)
    if problem is not None:
        return Card(problem=problem)
    fields: dict[str, Value] = {}
    unreadable: dict[str, str] = {}
    for key, entry in _entries(lines):
        if key is None:
            problem = problem or f"a line is no field: {entry[0][:80]!r}"
        elif key in fields or key in unreadable:
            fields.pop(key, None)
            unreadable[key] = "it stands twice"
        else:
            try:
                fields[key] = _value(entry)
            except _UnreadableError as reason:
                unreadable[key] = str(reason)
    return Card(fields, unreadable, problem)


def _front_matter(text: str) -> tuple[list[str], str | None]:
    """The lines between the fences, and what is wrong with them as a whole."""
    lines = re.split(r"\r\n|\n|\r", text[: MAX_FRONT_MATTER + 8].lstrip("\ufeff"))
    first = next((n for n, line in enumerate(lines) if line.strip()), None)
    if first is None or not _FENCE.fullmatch(lines[first].lstrip(" ")):
        return [], None
    for last in range(first + 1, len(lines)):
        if _FENCE.fullmatch(lines[last]):
            found = lines[first + 1 : last]
            if any(_ODD.search(line) for line in found):
                return [], "the front matter holds control characters or odd line breaks"
            return found, None
    return [], f"the front matter does not end within {MAX_FRONT_MATTER} characters" if len(text) > MAX_FRONT_MATTER else None


def _entries(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Fields with their lines: what stands behind the colon first, then what belongs to it. The key is None for a stray line."""
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.strip() or line.lstrip(" \t").startswith("#"):
            continue
        match = _FIELD.match(line)
        if match is None:
            yield None, [line]
            continue
        end = _entry_end(lines, number, line[match.end() :])
        yield match["key"].strip("\"'"), [line[match.end() :], *lines[number:end]]
        number = end


def _entry_end(lines: list[str], number: int, first: str) -> int:
    """The number of the line after the last one of the field whose value begins with `first`."""
    literal = 0 if _LITERAL.search(": " + first) else None
    number = _close(lines, number, first)
    nested = not first.strip() or first.lstrip().startswith("#")
    while number < len(lines) and _belongs(lines[number]):
        line = lines[number]
        number += 1
        indent = len(line) - len(line.lstrip())
        if not nested or not line.strip() or (literal is not None and indent > literal):
            continue
        literal = indent if _LITERAL.search(line) else None
        number = _close(lines, number, _LEAD.sub("", line, count=1))
    return number


def _close(lines: list[str], number: int, text: str) -> int:
    """The number of the line after the one on which a quote or bracket that opens `text` is closed."""
    is_open = _Opening()
    while is_open(text) and number < len(lines):
        text = lines[number]
        number += 1
    return number


def _belongs(line: str) -> bool:
    return not line.strip() or line[0] in " \t#" or line == "-" or line.startswith("- ")


class _Opening:
    """Follows a value that begins with a quote or bracket: until that closes, every line belongs to it."""

    def __init__(self) -> None:
        self._quote = ""
        self._depth = 0
        self._begun = False

    def __call__(self, line: str) -> bool:
        """Take one more line; whether the value is still open at its end."""
        text = line.strip()
        if not self._begun:
            self._begun = True
            if not text.startswith(("'", '"', "[", "{")):
                return False
        before = " "
        escaped = False
        for c in text:
            if self._quote:
                if escaped:
                    escaped = False
                elif c == "\\" and self._quote == '"':
                    escaped = True
                elif c == self._quote:
                    self._quote = ""
            elif c in "'\"" and before in " ,[{:":
                self._quote = c
            elif c == "#" and before == " ":
                break
            else:
                self._depth += (c in "[{") - (c in "]}")
            if not self._quote and self._depth <= 0:
                return False
            before = c
        return True


def _value(entry: list[str]) -> Value:
    inline = entry[0].strip(" ")
    if any("\t" in line for line in entry):
        raise _UnreadableError("it holds tabs, which YAML readers take differently")
    if inline.startswith("["):
        return _inline_list("\n".join(entry))
    body = [line for line in entry[1:] if line.strip() and not line.lstrip(" ").startswith("#")]
    if inline and not inline.startswith("#"):
        if body:
            raise _UnreadableError("a text over several lines")
        return _scalar(inline)
    if not body:
        return None
    indents = {len(line) - len(line.lstrip(" ")) for line in body}
    if len(indents) > 1:
        raise _UnreadableError("it nests deeper than one level, or its lines are not aligned")
    rows = [line.strip(" ") for line in body]
    if all(row == "-" or row.startswith("- ") for row in rows):
        return [_item(row[1:].strip(" ")) for row in rows]
    if indents == {0}:
        raise _UnreadableError("a list with other lines in it")
    return _map(rows)


def _item(text: str) -> Scalar:
    if text.startswith("- ") or text == "-" or _FIELD.match(text):
        raise _UnreadableError("a list of lists or of maps")
    return None if text.startswith("#") else _scalar(text)


def _map(rows: list[str]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for row in rows:
        match = _FIELD.match(row)
        if match is None:
            raise _UnreadableError("neither a list nor a map of scalars")
        key, rest = match["key"].strip("\"'"), row[match.end() :].strip(" ")
        if key in found:
            raise _UnreadableError(f"{key!r} stands twice in it")
        found[key] = None if rest.startswith("#") else _scalar(rest)
    return found


def _scalar(text: str) -> Scalar:
    """One scalar on one line, and perhaps a comment after it."""
    if text[:1] in ('"', "'"):
        value, end = _quoted(text, 0)
        if not _TAIL.fullmatch(text, end):
            raise _UnreadableError("text after a closing quote")
        return value
    return _plain(_COMMENT.split(text, maxsplit=1)[0].strip(" "))


def _plain(text: str) -> Scalar:
    if text in _NULLS:
        return None
    if text[0] in "!&*|>%@`\"'#,[]{}" or re.match(r"[-?:]([ \t]|$)", text):
        raise _UnreadableError(f"YAML beyond the subset: {text[:40]!r}")
    if re.search(r":([ \t]|$)", text) or "\t" in text or "\n" in text:
        raise _UnreadableError(f"not one plain scalar: {text[:40]!r}")
    return text


def _quoted(text: str, at: int) -> tuple[str, int]:
    """The text of the quoted scalar that opens at `at` and closes on its line, and where it ends."""
    match = (_SINGLE if text[at] == "'" else _DOUBLE).match(text, at)
    if match is None:
        raise _UnreadableError("a quoted text over several lines, or without its end")
    return match[1].replace("''", "'") if text[at] == "'" else _unescape(match[1]), match.end()


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits is None:
        if match[4] not in _ESCAPES:
            raise _UnreadableError(f"an unknown escape: \\{match[4]}")
        return _ESCAPES[match[4]]
    number = int(digits, 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise _UnreadableError("an escape that is no character")
    return chr(number)


def _inline_list(text: str) -> list[Scalar]:
    """`[a, "b", 'c']`, perhaps over several lines; scalars only."""
    found: list[Scalar] = []
    at = _end(_BLANK, text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        if text[at : at + 1] in ('"', "'"):
            quoted, at = _quoted(text, at)
            found.append(quoted)
        else:
            match = _FLOW_PLAIN.match(text, at)
            if match is None:
                raise _UnreadableError("an inline list of more than scalars, or without its end")
            found.append(_plain(match[0].strip(" ")))
            at = match.end()
        at = _end(_BLANK, text, at)
        if text[at : at + 1] == ",":
            at = _end(_BLANK, text, at + 1)
        elif text[at : at + 1] != "]":
            raise _UnreadableError("an inline list of more than scalars, or without its end")
    if _end(_BLANK, text, at + 1) != len(text):
        raise _UnreadableError("text after an inline list")
    return found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
