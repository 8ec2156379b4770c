"""The interface of every engine: a stream of chunks whose token counts add up.

Why a stream only: whoever wants a whole answer can collect it, but an answer that was not streamed cannot be stopped or
metered on its way. Every implementation runs the one conformance suite in `freehold.testing.engine`.

The laws of a stream, from `chat` as from `complete`:
1. `payload` is an OpenAI chunk as the engine gave it, under the deployment's model name, without the engine's own extras.
2. The first chunk of each choice of a chat carries the role.
3. `tokens` are those generated since the chunk before, be their text in this chunk, in an earlier or in none: a token that
   holds half a character or the beginning of a stop word has no text yet, an end-of-text token never has. What is left at
   the end is counted with the chunk that carries the finish_reason.
4. The last chunk has no choices; its payload is the OpenAI usage frame (hand it on only to who asked for it), `tokens` is
   0 and `usage` is set. The sum of all `tokens` is `usage.generated`, over all choices.
5. `so_far` is what was counted up to and with this chunk: all that is known if the stream is closed here. Its prompt count
   may be 0 until the engine has told it.
6. Closing the generator (`contextlib.aclosing`) ends the generation and frees the slot.

It does not meter, price or allow: that is the gateway's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from freehold.errors import FreeholdError
from freehold.nouns.serving import EngineFacts, EngineKind
from freehold.nouns.usage import TokenCounts

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

#: Answers to one request that may be asked for at once.
MAX_CHOICES = 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a stream; see the laws above."""

    payload: dict[str, Any]
    tokens: int
    usage: TokenCounts | None = None
    so_far: TokenCounts = field(default_factory=TokenCounts)


class Engine(Protocol):
    """A running (or yet to be started) engine. One event loop only.

    Errors, all FreeholdError: engines-not-installed, engines-load-failed from `start`; engines-bad-request,
    engines-context-exceeded, engines-crashed, engines-cut, engines-unavailable and the room's others from a stream,
    before its first chunk or after any.
    """

    @property
    def kind(self) -> EngineKind: ...

    async def start(self) -> None:
        """Make it ready to answer; nothing happens if it is."""
        ...

    async def close(self) -> None:
        """End it: running streams fail with engines-unavailable, and so does every later request."""
        ...

    async def healthy(self) -> bool: ...

    def chat(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Answer a body of /v1/chat/completions; `stream`, `stream_options` and `model` in it are ignored."""
        ...

    def complete(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Answer a body of /v1/completions, likewise."""
        ...

    async def count_prompt(self, request: Mapping[str, Any]) -> int | None:
        """Tokens of the prompt of a chat body, the template's included; None if the engine cannot say beforehand."""
        ...

    async def facts(self) -> EngineFacts: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What every engine must honour of a request: at most `max_tokens` a choice (None: unbounded), `n` choices, `stop`."""

    max_tokens: int | None
    n: int
    stop: tuple[str, ...]


def bad_request(message: str, param: str) -> FreeholdError:
    return FreeholdError("engines-bad-request", message, param=param)


def check_chat(request: Mapping[str, Any]) -> Asked:
    """FreeholdError engines-bad-request if it is not a chat body that an engine can be given."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("'messages' must be a list of at least one message", "messages")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise bad_request(f"{where} is not an object", where)
        if message.get("role") not in _ROLES:
            raise bad_request(f"{where}.role must be one of {', '.join(sorted(_ROLES))}", f"{where}.role")
        content = message.get("content")
        if content is None and message["role"] != "assistant":
            raise bad_request(f"{where}.content is missing", f"{where}.content")
        if content is not None and not isinstance(content, str | list):
            raise bad_request(f"{where}.content must be a text or a list of parts", f"{where}.content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict) or (part.get("type") == "text" and not isinstance(part.get("text"), str)):
                raise bad_request(f"{where}.content holds a part that is not one", f"{where}.content")
    return _check_common(request)


def check_completion(request: Mapping[str, Any]) -> Asked:
    """FreeholdError engines-bad-request if it is not a completion body with one prompt (a text or a list of token ids)."""
    prompt = request.get("prompt")
    tokens = isinstance(prompt, list) and bool(prompt) and all(type(token) is int and token >= 0 for token in prompt)
    if not tokens and not isinstance(prompt, str):
        raise bad_request("'prompt' must be one text or one list of token ids", "prompt")
    return _check_common(request)


def _check_common(request: Mapping[str, Any]) -> Asked:
    limits = [request[name] for name in ("max_tokens", "max_completion_tokens") if request.get(name) is not None]
    if any(type(limit) is not int or limit < 1 for limit in limits):
        raise bad_request("'max_tokens' must be a whole number of at least 1", "max_tokens")
    n = request.get("n")
    n = 1 if n is None else n
    if type(n) is not int or not 1 <= n <= MAX_CHOICES:
        raise bad_request(f"'n' must be a whole number from 1 to {MAX_CHOICES}", "n")
    stop = request.get("stop")
    words = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise bad_request("'stop' must be a text or a list of texts", "stop")
    return Asked(min(limits, default=None), n, tuple(word for word in words if word))


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, its text parts joined."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def refuse_other_parts(request: Mapping[str, Any]) -> None:
    """FreeholdError engines-bad-request if a message holds anything but text: images, sound, files."""
    for number, message in enumerate(request["messages"]):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") != "text":
                raise bad_request(f"this model takes text only, not '{part.get('type')}'", f"messages[{number}].content")
