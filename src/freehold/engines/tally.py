"""Token counts of a stream, chunk by chunk, so that their sum is the engine's own total.

Two ways, one for each kind of server:
- `ExactTally` for llama.cpp's server, which tells with every frame how many tokens it has generated so far
  (`timings.predicted_n`). Checked against its source of truth, the usage at the end: text that is held back (a split
  character, the beginning of a stop word, a tool call being parsed) still counts in the frame that follows; the last
  tokens, whose text may never come, appear only in the usage. So the finish frame waits for the usage frame right behind it
  and carries the rest. With `n` choices each has its own counter and its own usage frame, the prompt counted in each.
- `ReportedTally` for servers of others: one token for each frame with text until a usage is told, in every frame (some
  do) or at the end; then the rest is added to the finish frame. A server that tells none, or fewer tokens than it sent
  frames with text, leaves an estimate: the frames.

Neither measures: both take the server's word, which for our own child is the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from freehold.engines.engine import Chunk
from freehold.errors import FreeholdError
from freehold.nouns.usage import TokenCounts


class _Tally:
    """What both ways share: the running counts, the roles given, the frame that waits."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self.counts = TokenCounts()
        self._model = model
        self._chat = chat
        self._roles: set[int] = set()
        self._latest: dict[str, Any] = {}
        self._finished = False

    def _chunk(self, payload: dict[str, Any], tokens: int) -> Chunk:
        if tokens:
            was = self.counts  # spelled out: `replace` costs ten times as much, and this runs for every chunk
            self.counts = TokenCounts(was.prompt, was.cached, was.generated + tokens, 0, was.reported, was.estimated)
        payload["model"] = self._model
        for choice in payload.get("choices") or () if self._chat else ():
            index = choice.get("index", 0)
            if index not in self._roles:
                self._roles.add(index)
                choice["delta"] = {"role": "assistant", **(choice.get("delta") or {})}
        self._latest = payload
        return Chunk(payload, tokens, so_far=self.counts)

    def _last(self) -> Chunk:
        counts = self.counts
        usage: dict[str, Any] = {
            "prompt_tokens": counts.prompt,
            "completion_tokens": counts.generated,
            "total_tokens": counts.prompt + counts.generated,
            "prompt_tokens_details": {"cached_tokens": counts.cached},
        }
        head = {k: v for k, v in self._latest.items() if k in ("id", "object", "created", "model", "system_fingerprint")}
        return Chunk({**head, "choices": [], "usage": usage}, 0, usage=counts, so_far=counts)

    def _require_finish(self) -> None:
        if not self._finished:
            raise FreeholdError("engines-cut", "the engine's answer ended without a reason", generated=self.counts.generated)


class ExactTally(_Tally):
    """Feed every frame, then `end`; both give the chunks that are ready."""

    def __init__(self, model: str, *, chat: bool) -> None:
        super().__init__(model, chat=chat)
        self._seen: dict[int, int] = {}
        self._waiting: dict[str, Any] | None = None

    def feed(self, frame: dict[str, Any]) -> Iterator[Chunk]:
        timings = frame.pop("timings", None)
        usage = frame.pop("usage", None)
        frame.pop("prompt_progress", None)
        choices = frame.get("choices") or []
        if timings and not self.counts.prompt:
            self.counts = replace(self.counts, prompt=timings["cache_n"] + timings["prompt_n"], cached=timings["cache_n"])
        if choices:
            index = choices[0].get("index", 0)
            if choices[0].get("finish_reason") is not None:
                self._waiting = frame
            else:
                yield self._chunk(frame, self._since(index, timings["predicted_n"] if timings else None))
        if usage is not None and self._waiting is not None:
            frame, self._waiting = self._waiting, None
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            self.counts = replace(self.counts, prompt=usage["prompt_tokens"], cached=cached)
            self._finished = True
            yield self._chunk(frame, self._since(frame["choices"][0].get("index", 0), usage["completion_tokens"]))

    def end(self) -> Iterator[Chunk]:
        """FreeholdError engines-cut if the stream had no finish and usage."""
        self._require_finish()
        yield self._last()

    def _since(self, index: int, total: int | None) -> int:
        before = self._seen.get(index, 0)
        self._seen[index] = max(before, total or 0)
        return self._seen[index] - before


class ReportedTally(_Tally):
    """Feed every frame, then `end`; both give the chunks that are ready. All counts are marked as reported."""

    def __init__(self, model: str, *, chat: bool) -> None:
        super().__init__(model, chat=chat)
        self.counts = TokenCounts(reported=True, estimated=True)
        self._waiting: list[dict[str, Any]] = []
        self._total: int | None = None

    def feed(self, frame: dict[str, Any]) -> Iterator[Chunk]:
        usage = frame.get("usage")
        if isinstance(usage, dict):
            self._learn(usage)
        frame.pop("usage", None)
        choices = frame.get("choices")
        if not choices:
            return
        _check_choices(choices)
        if "delta" not in choices[0] and self._chat:
            yield from self._whole(frame)
            return
        if any(choice.get("finish_reason") is not None for choice in choices):
            self._finished = True
            self._waiting.append(frame)
            return
        yield self._chunk(frame, _texts(frame) if self._total is None else max(0, self._total - self.counts.generated))

    def end(self) -> Iterator[Chunk]:
        """FreeholdError engines-cut if no choice was finished."""
        self._require_finish()
        for frame in self._waiting[:-1]:
            yield self._chunk(frame, _texts(frame) if self._total is None else 0)
        rest = _texts(self._waiting[-1]) if self._total is None else max(0, self._total - self.counts.generated)
        yield self._chunk(self._waiting[-1], rest)
        self.counts = replace(self.counts, estimated=self._total != self.counts.generated)
        yield self._last()

    def _learn(self, usage: dict[str, Any]) -> None:
        def number(value: Any) -> int:
            return value if type(value) is int and value >= 0 else 0

        details = usage.get("prompt_tokens_details")
        cached = number(details.get("cached_tokens")) if isinstance(details, dict) else 0
        self._total = max(self._total or 0, number(usage.get("completion_tokens")))
        self.counts = replace(self.counts, prompt=number(usage.get("prompt_tokens")), cached=cached)

    def _whole(self, frame: dict[str, Any]) -> Iterator[Chunk]:
        """An answer in one piece, as the chunks that it would have been."""
        head = {**frame, "object": "chat.completion.chunk"}
        for choice in frame["choices"]:
            piece = {"index": choice.get("index", 0), "delta": choice.get("message") or {}, "finish_reason": None}
            if choice.get("logprobs") is not None:
                piece["logprobs"] = choice["logprobs"]
            yield self._chunk({**head, "choices": [piece]}, 0 if self._total is not None else 1)
            end = {"index": choice.get("index", 0), "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"}
            self._waiting.append({**head, "choices": [end]})
        self._finished = True


def _check_choices(choices: Any) -> None:
    """FreeholdError engines-malformed unless every choice has the shape that the rest relies on."""
    fine = isinstance(choices, list)
    for choice in choices if fine else ():
        if (
            not isinstance(choice, dict)
            or type(choice.get("index", 0)) is not int
            or not isinstance(choice.get("delta"), dict | None)
            or not isinstance(choice.get("message"), dict | None)
        ):
            fine = False
            break
    if not fine:
        raise FreeholdError("engines-malformed", "the engine sent a frame whose choices are none")


def _texts(frame: dict[str, Any]) -> int:
    """How many of the frame's choices hold anything but a role."""

    count = 0
    for choice in frame["choices"]:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = {"text": choice.get("text")}
        # The usual frame has content and nothing else: that is looked at first.
        if delta.get("content") or any(value for key, value in delta.items() if key != "role"):
            count += 1
    return count
