"""One streamed, greedy chat answer through the stock openai client; prints one line of JSON.

Run in a venv of its own with OPENAI_BASE_URL and OPENAI_API_KEY: openai_chat.py MODEL PROMPT MAX_TOKENS
"""

import json
import sys
import time

import openai

model, prompt, max_tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = openai.OpenAI(max_retries=0, timeout=120)
began = time.monotonic()
first, pieces, usage = None, [], None
stream = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": prompt}],
    max_tokens=max_tokens,
    temperature=0,
    seed=1,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        first = first or time.monotonic() - began
        pieces.append(chunk.choices[0].delta.content)
    if chunk.usage:
        usage = {"prompt": chunk.usage.prompt_tokens, "completion": chunk.usage.completion_tokens}
print(
    json.dumps(
        {
            "client": f"openai {openai.__version__}",
            "text": "".join(pieces),
            "pieces": len(pieces),
            "first_token_seconds": first,
            "seconds": time.monotonic() - began,
            "usage": usage,
        }
    )
)
