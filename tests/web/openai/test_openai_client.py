"""The stock openai client against the server: a base URL and a key are all that it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.nouns.usage import Outcome
from freehold.testing.clients import client_python, run_client

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

STORY = Path(__file__).with_name("openai_client_story.py")


def test_the_stock_client_gets_answers_streams_models_and_its_own_exceptions(
    open_gateway: Callable[..., Any], tmp_path: Path
) -> None:
    """One long story, since a client's start takes seconds."""
    python = client_python(["openai==3.54.0"])
    gateway = open_gateway(tokens_per_second=2000.0)
    crashing = open_gateway(home=tmp_path / "crashing", crash_after=5)
    env = {"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": gateway.key}
    args = (gateway.reader, f"{crashing.url}/v1", crashing.key)
    told = run_client(python, STORY.read_text("utf-8"), *args, env=env, seconds=240)
    assert told["version"] == "3.54.0"
    assert told["whole"] == ["chat.completion", "echo", "one two three", "stop", 6]
    assert told["request_id"]
    assert told["n"] == ["one two three"] * 2
    assert told["stream"] == {"text": "one two three", "finish": "stop", "usage": [], "models": ["echo"]}
    assert told["stream_usage"] == {"text": "one two", "finish": "length", "usage": [5], "models": ["echo"]}
    assert told["stop"] == "one "
    assert told["completion"] == ["text_completion", "one two one", "length"]
    assert told["completion_stream"] == "a b"
    assert told["models"] == [["echo", "model", "freehold", "local"]]
    assert told["model"] == "echo"
    assert told["early"].split() == ["one", "two", "three", "one"]
    assert told["many"] == ["one two three"]
    assert told["crashing"] == {"text": "one two three one two", "failed": ["APIError", "engines-crashed"]}
    assert told["no_model"] == told["no_model_retrieved"] == ["NotFoundError", 404, "model_not_found", "model"]
    assert told["bad"] == ["BadRequestError", 400, "engines-bad-request", "messages"]
    assert told["bad_key"] == ["AuthenticationError", 401, "invalid_api_key", None]
    assert told["no_scope"] == ["PermissionDeniedError", 403, "insufficient_permissions", None]
    assert told["no_route"] == ["NotFoundError", 404, "unknown_url", None]
    cut = [r for r in gateway.records() if r.outcome is Outcome.INTERRUPTED]
    assert [(r.reason, 4 <= r.counts.delivered <= r.counts.generated < 3000) for r in cut] == [("cancelled", True)]
    assert [r.reason for r in crashing.records(1)] == ["engines-crashed"]
    assert gateway.busy() == 0
