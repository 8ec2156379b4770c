"""Collecting a stream gives the answer that was streamed, however it was cut into chunks."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from freehold.use.collect import Collected

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "f"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}]}


def collected(*payloads: dict[str, Any]) -> dict[str, Any]:
    whole = Collected()
    for payload in payloads:
        whole.add(payload)
    return whole.answer()


@given(st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=6), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_texts_are_joined_by_choice_in_any_interleaving(texts: list[list[str]], random: Any) -> None:
    pieces = [(index, piece) for index, choice in enumerate(texts) for piece in choice]
    order = sorted(range(len(pieces)), key=lambda i: (random.random(), i))
    by_choice = {index: iter(choice) for index, choice in enumerate(texts)}
    payloads = [chunk(pieces[i][0], {"content": next(by_choice[pieces[i][0]])}) for i in order]
    ends = [chunk(index, {}, "stop") for index in range(len(texts))]
    answer = collected(*payloads, *ends, {**HEAD, "choices": [], "usage": USAGE})
    assert answer == {
        **HEAD,
        "object": "chat.completion",
        "usage": USAGE,
        "choices": [
            {
                "index": index,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": "".join(choice)},
            }
            for index, choice in enumerate(texts)
        ],
    }


def test_tool_calls_come_together_by_their_index_and_content_is_null_then() -> None:
    def call(index: int, **function: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **function}]}

    answer = collected(
        chunk(0, {"role": "assistant", "content": None}),
        chunk(0, call(0, id="a", type="function", function={"name": "look", "arguments": ""})),
        chunk(0, call(0, function={"arguments": '{"x"'})),
        chunk(0, call(1, id="b", type="function", function={"name": "go", "arguments": "{}"})),
        chunk(0, call(0, function={"arguments": ":1}"})),
        chunk(0, {}, "tool_calls"),
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "go", "arguments": "{}"}},
    ]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_reasoning_log_probabilities_and_unknown_fields_are_kept() -> None:
    answer = collected(
        chunk(0, {"role": "assistant", "reasoning_content": "hm"}, logprobs={"content": [{"token": "h"}]}),
        chunk(0, {"reasoning_content": "m", "content": "a"}, logprobs={"content": [{"token": "m"}]}, extra=1),
        chunk(0, {"content": "b"}, "length"),
    )
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "reasoning_content": "hmm", "content": "ab"}
    assert choice["logprobs"] == {"content": [{"token": "h"}, {"token": "m"}]}
    assert (choice["extra"], choice["finish_reason"]) == (1, "length")
    assert "usage" not in answer


def test_a_completion_keeps_its_object_and_joins_its_text() -> None:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m"}
    pieces = [{**head, "choices": [{"index": 0, "text": t, "finish_reason": f}]} for t, f in (("a", None), ("b", "stop"))]
    assert collected(*pieces) == {
        **head,
        "choices": [{"index": 0, "text": "ab", "finish_reason": "stop", "logprobs": None}],
    }
