"""Token counts: their sum is the total, whatever the frames hold back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines.engine import Chunk
from freehold.engines.tally import ExactTally, ReportedTally
from freehold.errors import FreeholdError


def _frame(text: str | None = None, index: int = 0, reason: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "choices": [{"index": index, "delta": delta, "finish_reason": reason}],
        **more,
    }


def _timed(text: str, generated: int, index: int = 0) -> dict[str, Any]:
    return _frame(text, index, timings={"cache_n": 2, "prompt_n": 3, "predicted_n": generated})


def _usage(generated: int, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 5, "completion_tokens": generated, "prompt_tokens_details": {"cached_tokens": 2}}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "choices": [], "usage": usage, **more}


def _run(tally: ExactTally | ReportedTally, *frames: dict[str, Any]) -> list[Chunk]:
    chunks = [chunk for frame in frames for chunk in tally.feed(frame)]
    return [*chunks, *tally.end()]


def test_tokens_whose_text_is_held_back_count_in_the_frame_that_follows_and_the_rest_in_the_last() -> None:
    chunks = _run(ExactTally("m", chat=True), _timed("🌍", 3), _timed("🌍", 6), _frame(reason="stop"), _usage(8))
    assert [chunk.tokens for chunk in chunks] == [3, 3, 2, 0]
    assert chunks[0].payload["choices"][0]["delta"] == {"role": "assistant", "content": "🌍"}, (
        "the role is given though the server forgot"
    )
    assert (chunks[0].so_far.prompt, chunks[0].so_far.cached, chunks[0].so_far.generated) == (5, 2, 3)
    assert chunks[-1].usage == chunks[-1].so_far
    assert (chunks[-1].so_far.prompt, chunks[-1].so_far.generated) == (5, 8)
    assert all(chunk.payload["model"] == "m" and "timings" not in chunk.payload for chunk in chunks)


def test_each_choice_has_its_own_counter_and_the_prompt_counts_once() -> None:
    frames = [_timed("a", 1, 1), _timed("b", 1, 0), _timed("c", 2, 1), _frame(index=1, reason="length"), _usage(3)]
    chunks = _run(ExactTally("m", chat=True), *frames, _timed("d", 2, 0), _frame(index=0, reason="stop"), _usage(2))
    assert [chunk.tokens for chunk in chunks] == [1, 1, 1, 1, 1, 0, 0]
    assert (chunks[-1].usage and chunks[-1].usage.generated, chunks[-1].payload["usage"]["prompt_tokens"]) == (5, 5)


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 5))
def test_the_sum_is_the_total_for_any_run_of_frames(steps: list[int], rest: int) -> None:
    total, frames = 0, []
    for step in steps:
        total += step
        frames.append(_timed("x", total))
    chunks = _run(ExactTally("m", chat=True), *frames, _frame(reason="stop"), _usage(total + rest))
    assert sum(chunk.tokens for chunk in chunks) == total + rest == chunks[-1].so_far.generated


@pytest.mark.parametrize("tally", [ExactTally, ReportedTally])
def test_a_stream_that_just_ends_is_cut_and_not_whole(tally: type[ExactTally | ReportedTally]) -> None:
    with pytest.raises(FreeholdError) as caught:
        _run(tally("m", chat=True), _timed("a", 1))
    assert (caught.value.code, caught.value.context["generated"]) == ("engines-cut", 1)


def test_a_remotes_word_at_the_end_corrects_what_was_counted_by_frames() -> None:
    chunks = _run(ReportedTally("m", chat=True), _frame("a b"), _frame("c"), _frame(reason="stop"), _usage(7))
    assert [chunk.tokens for chunk in chunks] == [1, 1, 5, 0]
    assert chunks[0].so_far.estimated
    assert chunks[-1].usage
    assert (chunks[-1].usage.generated, chunks[-1].usage.reported, chunks[-1].usage.estimated) == (7, True, False)


def test_a_remote_that_tells_its_count_in_every_frame_is_taken_at_its_word() -> None:
    frames = [
        _frame("a", usage={"prompt_tokens": 5, "completion_tokens": 3}),
        _frame("b", usage={"prompt_tokens": 5, "completion_tokens": 4}),
    ]
    chunks = _run(
        ReportedTally("m", chat=True), *frames, _frame(reason="stop", usage={"prompt_tokens": 5, "completion_tokens": 4})
    )
    assert [chunk.tokens for chunk in chunks] == [3, 1, 0, 0]


def test_a_remote_that_tells_nothing_or_too_little_leaves_an_estimate_that_says_so() -> None:
    for last in ([], [_usage(1)]):
        chunks = _run(ReportedTally("m", chat=True), _frame("a"), _frame("b"), _frame("c", reason="length"), *last)
        assert sum(chunk.tokens for chunk in chunks) == chunks[-1].so_far.generated == (2 if last else 3)
        assert chunks[-1].so_far.estimated


def test_an_answer_in_one_piece_becomes_the_chunks_it_would_have_been() -> None:
    message = {"role": "assistant", "content": "hello there", "tool_calls": [{"id": "t"}]}
    whole = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    chunks = _run(ReportedTally("m", chat=True), {**whole, "usage": {"prompt_tokens": 4, "completion_tokens": 6}})
    assert [chunk.payload["object"] for chunk in chunks] == ["chat.completion.chunk"] * 3
    assert chunks[0].payload["choices"][0]["delta"] == message
    assert [chunk.tokens for chunk in chunks] == [0, 6, 0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "index",
                    "delta",
                    "message",
                    "content",
                    "text",
                    "finish_reason",
                    "usage",
                    "choices",
                    "prompt_tokens",
                    "completion_tokens",
                    "prompt_tokens_details",
                    "cached_tokens",
                ]
            ),
            x,
            max_size=5,
        )
    ),
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["id", "choices", "usage", "model", "object"]), JSON, max_size=5), max_size=4),
    st.booleans(),
)
def test_no_frame_of_a_remote_makes_it_fail_otherwise_than_with_a_code(frames: list[dict[str, Any]], chat: bool) -> None:
    try:
        chunks = _run(ReportedTally("m", chat=chat), *frames)
    except FreeholdError as error:
        assert error.code in ("engines-malformed", "engines-cut")
    else:
        assert sum(chunk.tokens for chunk in chunks) == chunks[-1].so_far.generated
