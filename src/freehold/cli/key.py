"""`freehold key`: create, list and revoke API keys."""

from __future__ import annotations

import re
import time

import click

from freehold.cli.render import ago, emit, json_option, note, open_house, table
from freehold.nouns.moment import iso

_LIFE = re.compile(r"(\d{1,6})([hdw])")
_UNIT_US = {"h": 3600 * 1_000_000, "d": 86400 * 1_000_000, "w": 7 * 86400 * 1_000_000}


@click.group()
def key() -> None:
    """Create, list and revoke API keys."""


@key.command()
@click.option("--name", required=True, help="What the key is for; shown in lists and in usage.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("read", "chat"),
    show_default=True,
    help="read, write, chat or admin; repeatable.",
)
@click.option("--expires", metavar="LIFE", help="How long it is valid: 12h, 30d, 8w. [default: for ever]")
@json_option
def create(name: str, scopes: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Make a key. It is shown once: only its hash is stored."""
    from freehold.flows import keys

    if not name.strip() or not name.isprintable() or len(name) > 80:
        raise click.BadParameter("1 to 80 printable characters", param_hint="--name")
    expires_at = None
    if expires:
        match = _LIFE.fullmatch(expires)
        if not match:
            raise click.BadParameter("write a number and h, d or w: 12h, 30d, 8w", param_hint="--expires")
        expires_at = time.time_ns() // 1000 + int(match[1]) * _UNIT_US[match[2]]
    with open_house() as house:
        made = keys.create_key(house.parts, house.caller, name, keys.parse_scopes(scopes), expires_at=expires_at)
    data = {"id": made.row.public_id, "name": name, "scopes": list(made.row.scopes), "expires_at": expires_at, "key": made.token}

    def human() -> None:
        click.echo(made.token)
        note("This key is shown once. Keep it where your secrets are.")

    emit(data, as_json, human)


@key.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List all keys, without their secrets."""
    from freehold.flows import keys

    with open_house() as house:
        rows, now = keys.list_keys(house.parts, house.caller), house.parts.clock()
    data = [
        {
            "id": r.public_id,
            "name": r.name,
            "state": r.state(now),
            "scopes": list(r.scopes),
            "created_at": iso(r.created_at),
            "expires_at": iso(r.expires_at) if r.expires_at else None,
            "last_used_at": iso(r.last_used_at) if r.last_used_at else None,
        }
        for r in rows
    ]

    def human() -> None:
        cells = [
            (r.public_id, r.name, r.state(now), " ".join(r.scopes), ago(r.last_used_at, now) if r.last_used_at else "never")
            for r in rows
        ]
        table(["id", "name", "state", "scopes", "used"], cells)
        if not rows:
            note("No keys yet: `freehold key create --name laptop`")

    emit(data, as_json, human)


@key.command()
@click.argument("key_id")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """End a key at once, with the console sessions opened with it."""
    from freehold.flows import keys

    with open_house() as house:
        row = keys.revoke_key(house.parts, house.caller, key_id)
    emit(
        {"id": row.public_id, "name": row.name, "state": "revoked"},
        as_json,
        lambda: click.echo(f"revoked {row.public_id} ({row.name})"),
    )
