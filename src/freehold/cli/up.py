"""`freehold up`: serve hub, OpenAI API and console on one port until Ctrl-C."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from freehold.cli.render import note

if TYPE_CHECKING:
    from freehold.web.serve import Ready


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on. [default: server.host, 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port; 0 takes a free one. [default: server.port, 8411]"
)
@click.option("--base-url", metavar="URL", help="Public URL behind a reverse proxy, with its path. [default: server.base_url]")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but a new admin key and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON once the server answers.")
@click.pass_context
def up(ctx: click.Context, host: str | None, port: int | None, base_url: str | None, quiet: bool, as_json: bool) -> None:
    """Serve hub, OpenAI API and console on one port, until Ctrl-C.

    The first start makes an admin key and shows it once. Beyond this machine (--host) the server listens only if the home
    has a key.
    """
    from freehold.app import house
    from freehold.web.serve import serve

    home = (ctx.find_root().obj or {}).get("home")
    with house(home, host=host, port=port, base_url=base_url) as opened:
        place = str(opened.parts.home.path)

        def ready(found: Ready) -> None:
            if as_json:
                click.echo(json.dumps(_addresses(found) | {"admin_key": found.admin_key}))
            elif quiet:
                if found.admin_key:
                    click.echo(found.admin_key)
            else:
                _show(found, place)

        serve(opened, ready)
    if not quiet and not as_json:
        note("stopped")


def _addresses(found: Ready) -> dict[str, str | int]:
    base = found.public_url
    return {"url": found.url, "console": f"{base}/-/", "hub": base, "openai": f"{base}/v1", "pid": os.getpid()}


def _show(found: Ready, place: str) -> None:
    urls = _addresses(found)
    click.echo(f"freehold serves {place}\n")
    click.echo(f"  console   {urls['console']}")
    click.echo(f"  hub       HF_ENDPOINT={urls['hub']}")
    click.echo(f"  OpenAI    OPENAI_BASE_URL={urls['openai']}")
    if found.public_url != found.url:
        click.echo(f"  listens   {found.url}")
    if found.admin_key:
        click.echo("\nThe first admin key of this home, shown this once:\n")
        click.echo(f"  {click.style(found.admin_key, bold=True)}\n")
        click.echo("It opens the console, chats (OPENAI_API_KEY), and makes further keys: `freehold key create`.")
    click.echo("\nNext: `freehold pull hf:ORG/NAME` in another terminal takes a model in. Ctrl-C stops.")
