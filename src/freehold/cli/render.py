"""What the commands share: opening the house, tables, JSON, progress and errors on a terminal.

Results go to stdout, everything else (progress, hints, errors) to stderr, so that a pipe carries results only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from freehold.errors import FreeholdError
from freehold.nouns.progress import Listener, Progress

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """`--json`: the result as one JSON document on stdout. Every read command has it."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


@contextmanager
def open_house() -> Iterator[Any]:
    """The house of `--home`, opened for one command and closed after it."""
    from freehold.app import house

    obj = click.get_current_context().find_root().obj or {}
    with house(obj.get("home")) as opened:
        yield opened


def emit(data: Any, as_json: bool, human: Callable[[], None]) -> None:
    """Print `data` as JSON, or call `human` to print it for a person."""
    if as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))
    else:
        human()


def plain(value: object) -> str:
    """`value` as text that only shows: what comes out of models, names and servers must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """A plain table; columns in `right` are right-aligned."""
    cells = [[plain(c) for c in row] for row in rows]
    widths = [max(len(h), *(len(r[i]) for r in cells)) if cells else len(h) for i, h in enumerate(headers)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    click.echo(click.style(line([h.upper() for h in headers]), dim=True))
    for row in cells:
        click.echo(line(row))


def note(text: str) -> None:
    """A remark or a next step, on stderr."""
    click.echo(text, err=True)


def size(count: int) -> str:
    """Bytes for people: 98.4 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def ago(at: int, now: int) -> str:
    """How long before `now` (both UTC microseconds)."""
    seconds = max(0, (now - at) // 1_000_000)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


@contextmanager
def progress(quiet: bool = False) -> Iterator[Listener]:
    """A listener that draws one line on stderr: redrawn on a terminal and cut to its width, else a line per stage."""
    live = sys.stderr.isatty() and not quiet
    drawn: dict[str, Any] = {"at": 0.0, "stage": "", "open": False}

    def show(p: Progress) -> None:
        stage = plain(f"{p.stage} {p.item}".strip())
        finished = p.total is not None and p.done >= p.total
        if live:
            if time.monotonic() - drawn["at"] < 0.1 and not finished and stage == drawn["stage"]:
                return
            amount = size(p.done) if p.unit == "bytes" else str(p.done)
            whole = "" if p.total is None else f" / {size(p.total) if p.unit == 'bytes' else p.total}"
            percent = f" {p.done * 100 // p.total:3d} %" if p.total else ""
            said = f": {amount}{whole}{percent}" if p.done or p.total else ""
            room = max(10, shutil.get_terminal_size().columns - len(said) - 3)
            click.echo(f"\r\033[K  {stage if len(stage) <= room else stage[: room - 1] + '…'}{said}", err=True, nl=False)
            drawn.update(at=time.monotonic(), stage=stage, open=True)
        elif not quiet and p.stage != drawn["stage"]:
            whole = "" if not p.total or p.unit != "bytes" else f" ({size(p.total)})"
            click.echo(f"  {stage}{whole}", err=True)
            drawn["stage"] = p.stage

    try:
        yield show
    finally:
        if drawn["open"]:
            click.echo("\r\033[K", err=True, nl=False)


def show_error(error: FreeholdError) -> None:
    """Code, what happened, what to do; as JSON too if the command line asked for JSON."""
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False), err=True)
        return
    message = "\n".join(map(plain, error.message.splitlines()))
    click.echo(click.style("error", fg="red", bold=True) + f" {error.code}: {message}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    click.echo(f"  more: {error.docs}", err=True)


def show_bug(error: BaseException) -> None:
    """A failure without a code is a bug and says so; FREEHOLD_DEBUG=1 adds the traceback."""
    bug = FreeholdError("internal-bug", f"{type(error).__name__}: {error}")
    show_error(bug)
    if os.environ.get("FREEHOLD_DEBUG") == "1":
        traceback.print_exception(error)
    else:
        click.echo("  FREEHOLD_DEBUG=1 prints the traceback.", err=True)
