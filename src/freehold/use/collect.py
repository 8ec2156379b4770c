"""One whole answer from the chunks of a stream, as the OpenAI API gives it to who did not ask for a stream.

Texts are joined, tool calls and log probabilities gathered by choice; what is not known is kept: texts joined, lists
joined, of anything else the last. The inverse of streaming: collecting the stream of an answer gives that answer.
"""

from __future__ import annotations

from typing import Any

_OBJECTS = {"chat.completion.chunk": "chat.completion"}


class Collected:
    """Feed every payload with `add`, then read `answer`."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, payload: dict[str, Any]) -> None:
        for key, value in payload.items():
            if key not in ("choices", "usage"):
                self._head.setdefault(key, value)
        self._usage = payload.get("usage") or self._usage
        for piece in payload.get("choices") or ():
            choice = self._choices.setdefault(piece.get("index", 0), {"finish_reason": None, "logprobs": None})
            for key, value in piece.items():
                if key == "delta":
                    _join_delta(choice.setdefault("message", {}), value or {})
                elif key == "logprobs":
                    choice["logprobs"] = _joined(choice["logprobs"], value)
                elif key == "text":
                    choice["text"] = choice.get("text", "") + (value or "")
                elif key == "finish_reason":
                    choice[key] = value or choice[key]
                elif key != "index":
                    choice[key] = value

    def answer(self) -> dict[str, Any]:
        """The chat.completion or text_completion object."""
        choices = []
        for index, choice in sorted(self._choices.items()):
            if "message" in choice:
                message = {"role": "assistant", "content": "", **choice["message"]}
                if calls := message.pop("tool_calls", None):
                    message["content"] = message["content"] or None
                    message["tool_calls"] = [call for _, call in sorted(calls.items())]
                choice = {**choice, "message": message}  # noqa: PLW2901 - the pieces stay as they came
            choices.append({"index": index, **choice})
        kind = self._head.get("object", "")
        whole = {**self._head, "object": _OBJECTS.get(kind, kind), "choices": choices}
        return whole if self._usage is None else {**whole, "usage": self._usage}


def _join_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if key == "tool_calls":
            _join_calls(message.setdefault("tool_calls", {}), value or [])
        elif key == "role":
            message["role"] = value
        elif value is not None:
            message[key] = _joined(message.get(key), value)


def _join_calls(calls: dict[int, dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    """By their index; only arguments come in pieces."""
    for piece in pieces:
        call = calls.setdefault(piece.get("index", len(calls)), {})
        for key, value in piece.items():
            if key == "function":
                function = call.setdefault("function", {})
                for name, part in (value or {}).items():
                    function[name] = function.get(name, "") + (part or "") if name == "arguments" else function.get(name) or part
            elif key != "index":
                call[key] = call.get(key) or value


def _joined(before: Any, value: Any) -> Any:
    if before is None or value is None:
        return before if value is None else value
    if isinstance(before, str) and isinstance(value, str):
        return before + value
    if isinstance(before, list) and isinstance(value, list):
        return [*before, *value]
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **{key: _joined(before.get(key), part) for key, part in value.items()}}
    return value
