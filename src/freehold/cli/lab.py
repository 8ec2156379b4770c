"""`freehold lab`: models by seed, fine-tunes of them, and an upstream that misbehaves on command."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import click

from freehold.cli.render import ago, emit, json_option, note, progress, size, table
from freehold.flows import lab as flow

_FOLDER = click.Path(path_type=Path, file_okay=False)
_MOST_SHOWN = 100


@click.group()
def lab() -> None:
    """Make models by seed, and an upstream that misbehaves on command.

    For trying out what a mirror does when its source is deleted, gated, changed or broken, with no hub at hand.
    """


@lab.command(short_help="Make a small Llama by seed.")
@click.argument("out", type=_FOLDER)
@click.option("--seed", type=click.IntRange(0), required=True, metavar="N", help="Same seed and arguments, same bytes.")
@click.option("--size-mb", type=float, default=10.0, show_default=True, metavar="MB", help="Size of the weights (10^6 bytes).")
@click.option("--format", type=click.Choice(["safetensors", "gguf"]), default="safetensors", show_default=True)
@click.option("--arch", type=click.Choice(["llama"]), default="llama", show_default=True)
@click.option("--dtype", type=click.Choice(["BF16", "F16", "F32"], case_sensitive=False), default="BF16", show_default=True)
@click.option("--sharded", type=click.IntRange(1), default=1, metavar="N", help="Split the weights into N files.")
@click.option("--license", "license_id", default="mit", show_default=True, metavar="TAG", help="The license tag of the card.")
@click.option(
    "--license-text", type=click.File(encoding="utf-8"), metavar="FILE", help="What LICENSE says. [default for mit: its text]"
)
@json_option
def model(out: Path, as_json: bool, license_text: Any, **options: Any) -> None:
    """Write a small Llama with weights that only look trained into the new folder OUT.

    To serve it with `freehold lab upstream FOLDER`, let OUT be FOLDER/org/name.
    """
    text = license_text.read() if license_text else None
    with progress(quiet=as_json) as listener:
        made = flow.make_model(out, **options, license_text=text, listener=listener)
    _show_made(made, as_json)
    if not as_json:
        note(f"next: `freehold lab finetune {out} OUT --relative-change 0.013 --seed 1`, or `freehold lab upstream FOLDER`")


@lab.command(short_help="Make a fine-tune of a model by seed.")
@click.argument("base", type=_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option(
    "--relative-change", type=float, required=True, metavar="R", help="Norm of the change over that of the base, per tensor."
)
@click.option("--seed", type=click.IntRange(0), required=True, metavar="N", help="Same seed and arguments, same bytes.")
@click.option(
    "--lora", type=click.IntRange(1), metavar="RANK", help="Move the projections by a merged adapter of this rank only."
)
@click.option("--keep", multiple=True, metavar="PATTERN", help="Tensors that stay as they are (may be repeated).")
@click.option("--base-id", metavar="ORG/NAME", help="How the card names its base. [default: BASE's last two folders]")
@json_option
def finetune(base: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Write a fine-tune of the model in BASE into the new folder OUT, moved as an optimiser would have moved it."""
    with progress(quiet=as_json) as listener:
        made = flow.fine_tune(base, out, **options, listener=listener)
    _show_made(made, as_json)


@lab.command(short_help="Serve a folder of models as a hub does.")
@click.argument("folder", type=_FOLDER)
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="0 takes a free one. [default: 0]")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--control-token", envvar="FREEHOLD_LAB_TOKEN", metavar="TOKEN", help="The control door's token. [default: a new one]"
)
@click.option("--cdn-host", metavar="NAME", help="Redirect large files to this other name of the machine (localhost).")
@click.option("--lifetime", type=float, metavar="SECONDS", help="End by itself after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON once it answers.")
def upstream(folder: Path, as_json: bool, **options: Any) -> None:
    """Serve the models under FOLDER (org/name/files) as a hub does, until Ctrl-C, and misbehave when told to.

    Any client of the Hub API reads from it with HF_ENDPOINT alone. Each model has a git-like history, kept in FOLDER/.lab.
    """
    with contextlib.suppress(KeyboardInterrupt), flow.serve_upstream(folder, **options) as up:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        told = {"url": up.url, "control_url": up.control_url, "control_token": up.control_token, "models": up.models()}
        if as_json:
            click.echo(json.dumps(told))
        else:
            click.echo(f"the upstream serves {len(up.models())} models of {folder}\n")
            click.echo(f"  hub       HF_ENDPOINT={up.url}")
            click.echo(f"  control   {up.control_url}  (token {up.control_token})")
            if not up.models():
                note(f"\nthere is no model: they lie as {folder}/ORG/NAME/files; `freehold lab model` makes one")
            note(f"\nnext: `freehold lab tell {folder} gate ORG/NAME` in another terminal; Ctrl-C stops")
        up.wait()
    if not as_json:
        note("stopped")


@lab.group(short_help="Tell an upstream what to do.")
@click.argument("target")
@click.option("--token", envvar="FREEHOLD_LAB_TOKEN", metavar="TOKEN", help="The control token; not needed for a folder.")
@click.pass_context
def tell(ctx: click.Context, target: str, token: str | None) -> None:
    """Tell a running upstream what to do: TARGET is its FOLDER, or its control URL.

    For example: `freehold lab tell FOLDER cut ORG/NAME --after 100000 --times 2`.
    """
    ctx.obj = (target, token)


@lab.command(short_help="Show an upstream's models and faults.")
@click.argument("target")
@click.option("--token", envvar="FREEHOLD_LAB_TOKEN", metavar="TOKEN", help="The control token; not needed for a folder.")
@json_option
def state(target: str, token: str | None, as_json: bool) -> None:
    """Show a running upstream's models and what it does wrong: TARGET is its FOLDER, or its control URL."""
    found = flow.describe(target, token)

    def human() -> None:
        alive = "answers" if found["alive"] else "is dead"
        click.echo(f"{found['url']} {alive}; {found['requests']} requests, {size(found['bytes_sent'])} sent\n")
        rows = [(m["id"], m["main"][:12], m["commits"], _standing(m)) for m in found["models"]]
        table(("model", "main", "commits", "standing"), rows, right=(2,))
        for fault in found["faults"]:
            told = ", ".join(f"{k} {v}" for k, v in fault.items() if k not in ("kind", "met") and v is not None)
            click.echo(f"fault {fault['kind']}: {told}; met {fault['met']} times")

    emit(found, as_json, human)


@lab.command(short_help="Show what an upstream was asked.")
@click.argument("target")
@click.option("--token", envvar="FREEHOLD_LAB_TOKEN", metavar="TOKEN", help="The control token; not needed for a folder.")
@json_option
def requests(target: str, token: str | None, as_json: bool) -> None:
    """Show what a running upstream was asked: TARGET is its FOLDER, or its control URL."""
    rows = flow.requests(target, token)

    def human() -> None:
        last = rows[-1]["at"] if rows else 0
        shown = [
            (ago(r["at"], last), r["method"], r["path"], r["range"] or "", r["status"] or "open", size(r["sent"]))
            for r in rows[-_MOST_SHOWN:]
        ]
        table(("before the last", "method", "path", "range", "status", "sent"), shown, right=(5,))
        if len(rows) > _MOST_SHOWN:
            note(f"the last {_MOST_SHOWN} of {len(rows)}; --json has all")

    emit(rows, as_json, human)


def _standing(row: dict[str, Any]) -> str:
    said = [name for name in ("deleted", "disabled", "private") if row[name]]
    said += [f"gated ({row['gated']})"] if row["gated"] else []
    said += [f"moved to {row['moved_to']}"] if row["moved_to"] else []
    return ", ".join(said) or "open"


def _show_made(made: flow.MadeModel, as_json: bool) -> None:
    data = {"folder": str(made.folder), "name": made.name, "parameters": made.parameters}
    data |= {"weight_bytes": made.weight_bytes, "files": list(made.files)}

    def human() -> None:
        click.echo(f"{made.name}: {made.parameters:,} parameters, {size(made.weight_bytes)} of weights in {made.folder}")
        for name in made.files:
            click.echo(f"  {name}")

    emit(data, as_json, human)


def _command(verb: flow.Verb) -> click.Command:
    """The command of one verb, from the table that the control door checks against."""

    @click.pass_context
    def obey(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
        target, token = ctx.obj
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v not in (None, (), False)}
        answer = flow.tell_upstream(target, token, verb.name, given)
        result = answer["result"]
        emit(answer, as_json, lambda: click.echo(f"done: {verb.name}" + (f" -> {result}" if result else "")))

    command = click.command(verb.name, help=verb.help)(obey)
    command.params = [_parameter(a) for a in verb.arguments]
    command.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON."))
    return command


def _parameter(argument: flow.Argument) -> click.Parameter:
    kinds: dict[str, Any] = {"text": click.STRING, "integer": click.INT, "number": click.FLOAT}
    name = argument.name.rstrip("_")
    if argument.positional:
        shown = {"repo": "MODEL"}.get(name, name.upper())
        return click.Argument([argument.name], required=argument.required, metavar=shown if argument.required else f"[{shown}]")
    flag = f"--{name.replace('_', '-')}"
    if argument.kind == "flag":
        return click.Option([flag, argument.name], is_flag=True, help=argument.help)
    many = argument.kind == "texts"
    kind = kinds.get(argument.kind, click.STRING)
    return click.Option([flag, argument.name], type=kind, multiple=many, required=argument.required, help=argument.help)


for _verb in flow.VERBS:
    tell.add_command(_command(_verb))
