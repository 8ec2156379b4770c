"""`freehold verify`: re-read what is kept."""

from __future__ import annotations

import sys

import click

from freehold.cli.render import emit, json_option, note, open_house, progress, size

_HOUR_US = 3600 * 1_000_000


@click.command()
@click.argument("model", required=False)
@click.option(
    "--max-age", "max_age", type=click.IntRange(0), metavar="HOURS", help="Pass over what was checked within so many hours."
)
@click.option("--rebuild-index", is_flag=True, help="First write the vault's index anew from what lies on disk.")
@json_option
def verify(model: str | None, max_age: int | None, rebuild_index: bool, as_json: bool) -> None:
    """Re-read the bytes that are kept (of one MODEL, or all) and check every hash; exit code 65 if any is bad."""
    from freehold.flows import verify as flow

    with open_house() as house, progress(quiet=as_json) as listener:
        if rebuild_index:
            flow.rebuild(house.parts, house.caller, listener)
        max_age_us = None if max_age is None else max_age * _HOUR_US
        found = flow.verify(house.parts, house.caller, model, max_age_us=max_age_us, listener=listener)
    data = {
        "ok": found.ok,
        "checked": found.checked,
        "bytes": found.bytes,
        "skipped": found.skipped,
        "mended": found.mended,
        "damaged": [
            {
                "sha256": d.damage.sha256.hex,
                "reason": d.damage.reason,
                "blocks": [{"index": b.index, "offset": b.offset, "reason": b.reason} for b in d.damage.blocks],
                "files": list(d.files),
            }
            for d in found.damaged
        ],
    }

    def human() -> None:
        click.echo(
            f"{found.checked} blobs, {size(found.bytes)} read; {found.skipped} checked recently; {len(found.damaged)} damaged"
        )
        for d in found.damaged:
            where = f", blocks {', '.join(str(b.index) for b in d.damage.blocks[:8])}" if d.damage.blocks else ""
            click.echo(f"  {d.damage.reason}{where}: {'; '.join(d.files) or d.damage.sha256}")
        if found.damaged:
            note("Damaged files are not served. Pull the model again to replace them.")

    emit(data, as_json, human)
    sys.exit(0 if found.ok else 65)
