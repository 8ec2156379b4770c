"""`freehold config`: the settings in force."""

from __future__ import annotations

import click

from freehold.cli.render import emit, json_option, note, table


@click.group()
def config() -> None:
    """Show the settings in force and where they come from."""


@config.command()
@json_option
def show(as_json: bool) -> None:
    """Every setting: its value, where the value comes from, what it means."""
    from freehold.app import home_path, read_settings

    home = (click.get_current_context().find_root().obj or {}).get("home")
    _, rows = read_settings(home)
    data = [{"key": r.key, "value": r.value, "type": r.type, "source": r.source, "doc": r.doc} for r in rows]

    def human() -> None:
        table(["key", "value", "from", "meaning"], [(r.key, _shown(r.value), r.source, r.doc) for r in rows])
        note(f"File: {home_path(home) / 'freehold.toml'}; or set FREEHOLD_SECTION__KEY in the environment.")

    emit(data, as_json, human)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return "-" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)
