"""What the stock openai client gets from a server: run in a venv of its own, prints one line of JSON.

OPENAI_BASE_URL and OPENAI_API_KEY are all that it is told; its arguments are a key that may only read, and URL and key of a
server whose engine crashes after five tokens.
"""

import asyncio
import json
import sys

import openai

READER, CRASHING, CRASHING_KEY = sys.argv[1:4]
ASK = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
client = openai.OpenAI(max_retries=0, timeout=60)


def refused(call) -> list:
    """The exception's class, HTTP status, code and param."""
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code, error.param]
    except openai.APIError as error:
        return [type(error).__name__, None, error.code, error.param]
    return []


def stream_text(**options) -> dict:
    chunks = list(client.chat.completions.create(**ASK, stream=True, **options))
    return {
        "text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "finish": [c.choices[0].finish_reason for c in chunks if c.choices][-1],
        "usage": [c.usage.total_tokens for c in chunks if c.usage],
        "models": sorted({c.model for c in chunks}),
    }


def crashing() -> dict:
    text, failed = "", []
    other = openai.OpenAI(base_url=CRASHING, api_key=CRASHING_KEY, max_retries=0, timeout=60)
    try:
        for chunk in other.chat.completions.create(**ASK, max_tokens=50, stream=True):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except openai.APIError as error:
        failed = [type(error).__name__, error.code]
    return {"text": text, "failed": failed}


def early_close() -> str:
    text = ""
    with client.chat.completions.create(**ASK, max_tokens=3000, stream=True) as stream:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if len(text.split()) == 4:
                break
    return text


async def many() -> list:
    async with openai.AsyncOpenAI(max_retries=0, timeout=60) as together:
        answers = await asyncio.gather(*(together.chat.completions.create(**ASK) for _ in range(20)))
        return sorted({a.choices[0].message.content for a in answers})


raw = client.chat.completions.with_raw_response.create(**ASK)
whole = raw.parse()
completion = client.completions.create(model="echo", prompt="one two", max_tokens=3)
told = {
    "version": openai.__version__,
    "whole": [
        whole.object,
        whole.model,
        whole.choices[0].message.content,
        whole.choices[0].finish_reason,
        whole.usage.total_tokens,
    ],
    "request_id": bool(raw.headers.get("x-request-id")) and bool(whole._request_id),
    "n": [c.message.content for c in client.chat.completions.create(**ASK, n=2).choices],
    "stream": stream_text(),
    "stream_usage": stream_text(stream_options={"include_usage": True}, max_tokens=2),
    "stop": client.chat.completions.create(**ASK, stop=["two"]).choices[0].message.content,
    "completion": [completion.object, completion.choices[0].text, completion.choices[0].finish_reason],
    "completion_stream": "".join(c.choices[0].text for c in client.completions.create(model="echo", prompt="a b", stream=True)),
    "models": [[m.id, m.object, m.owned_by, m.freehold["origin"]] for m in client.models.list()],
    "model": client.models.retrieve("echo").id,
    "early": early_close(),
    "many": asyncio.run(many()),
    "crashing": crashing(),
    "no_model": refused(lambda: client.chat.completions.create(**{**ASK, "model": "no/such"})),
    "no_model_retrieved": refused(lambda: client.models.retrieve("no/such")),
    "bad": refused(lambda: client.chat.completions.create(model="echo", messages=[])),
    "bad_key": refused(client.with_options(api_key="fh_wrong").models.list),
    "no_scope": refused(lambda: client.with_options(api_key=READER).chat.completions.create(**ASK)),
    "no_route": refused(lambda: client.embeddings.create(model="echo", input="x")),
}
print(json.dumps(told))
