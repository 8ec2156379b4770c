"""`freehold chat`: one question, or a conversation, on the terminal."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.render import emit, json_option, note, open_house, table

if TYPE_CHECKING:
    from freehold.app import House

_HELP = "Type a question; an empty line or Ctrl-D ends. Ctrl-C stops an answer. /new forgets the conversation so far."


@click.command()
@click.argument("model", required=False)
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(0, 2), metavar="T", help="0 is always the likeliest word.")
@click.option("--seed", type=int, metavar="N", help="The same seed and question, the same answer (where the engine can).")
@json_option
def chat(
    model: str | None, prompt: str | None, system: str | None, max_tokens: int | None, temperature: float | None,
    seed: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Talk with a model that is kept: PROMPT for one answer, `-` reads it from stdin, none opens a conversation.

    Without MODEL, the models are listed that can be talked with.
    """
    with open_house() as house, asyncio.Runner() as runner:
        talk = _Talk(house, runner, model or "", {"max_tokens": max_tokens, "temperature": temperature, "seed": seed})
        try:
            if model is None:
                talk.offers(as_json)
                return
            if system:
                talk.messages.append({"role": "system", "content": system})
            if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
                prompt = sys.stdin.read().strip()
            if prompt is None:
                talk.converse()
            elif not talk.ask(prompt, as_json):
                sys.exit(130)
        finally:
            talk.close()


class _Talk:
    """A conversation with one model. Everything runs in one event loop, since engines live in it."""

    def __init__(self, house: House, runner: asyncio.Runner, model: str, options: dict[str, Any]) -> None:
        self.messages: list[dict[str, str]] = []
        self._house, self._runner, self._model = house, runner, model
        self._options = {name: value for name, value in options.items() if value is not None}

    def offers(self, as_json: bool) -> None:
        from freehold.flows.offered import list_offers

        found = self._runner.run(list_offers(self._house.parts, self._house.caller))
        data = [
            {"model": o.id, "engine": str(o.engine), "origin": "local" if o.local else "remote", "context": o.context}
            for o in found
        ]

        def human() -> None:
            table(
                ["model", "origin", "engine", "context"],
                [(d["model"], d["origin"], d["engine"], d["context"] or "-") for d in data],
            )
            if not data:
                note("No model can be talked with yet: `freehold pull` one with a GGUF file.")

        emit(data, as_json, human)

    def converse(self) -> None:
        """Until an empty line or Ctrl-D."""
        note(_HELP)
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                note("")
                return
            if not line:
                return
            if line == "/new":
                self.messages = [m for m in self.messages if m["role"] == "system"]
                continue
            self.ask(line, as_json=False)

    def ask(self, prompt: str, as_json: bool) -> bool:
        """Ask and print the answer as it comes; whether it came to its end. Ctrl-C stops it, and what was said so far stays
        in the conversation."""
        self.messages.append({"role": "user", "content": prompt})
        said: list[str] = []
        try:
            record = self._runner.run(self._answer(said, show=not as_json))
        except KeyboardInterrupt:
            record = None
            note("\nstopped")
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": "".join(said)})
        if as_json:
            counts = {"prompt": record.counts.prompt, "generated": record.counts.generated} if record else {}
            data = {"model": self._model, "answer": "".join(said), "ended": record.reason if record else "stopped", **counts}
            emit(data, True, lambda: None)
        return record is not None

    def close(self) -> None:
        from freehold.flows.chat import close_engines

        self._runner.run(close_engines(self._house.parts))

    async def _answer(self, said: list[str], *, show: bool) -> Any:
        from freehold.flows.chat import chat as flow

        body = {"model": self._model, "messages": self.messages, "stream": True, **self._options}
        async with aclosing(await flow(self._house.parts, self._house.caller, body)) as answer:
            async for payload in answer:
                for choice in payload["choices"]:
                    if text := choice["delta"].get("content"):
                        said.append(text)
                        if show:
                            click.echo(text, nl=False)
            if show:
                click.echo()
        return answer.record
