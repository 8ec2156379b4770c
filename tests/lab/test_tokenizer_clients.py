"""The lab's tokenizer means the same to Hugging Face's library and to llama.cpp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from freehold.lab.models import make_model
from freehold.testing.clients import client_python, run_client

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

TEXTS = [
    "A model is a file of numbers.",
    "  two  spaces\n\nand\ttabs ",
    "it's what they're for: 1024 tokens, 3.14!",
    "Grüße, 你好, emoji 🙂 and \u200b zero width",
    "<|im_start|>user\nWhat is a model?<|im_end|>\n",
    "",
]

BY_TOKENIZERS = """
import json, sys
from tokenizers import Tokenizer
made = Tokenizer.from_file(sys.argv[1])
ids = [made.encode(t).ids for t in json.loads(sys.argv[2])]
print(json.dumps({"ids": ids, "texts": [made.decode(i, skip_special_tokens=False) for i in ids], "size": made.get_vocab_size()}))
"""

BY_LLAMA_CPP = """
import json, sys, urllib.request, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.warmup, params.cpuparams.n_threads, params.port = sys.argv[1], 64, False, 1, 0
server = xllamacpp.Server(params)
def ids(text):
    body = json.dumps({"content": text, "parse_special": True}).encode()
    asked = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(asked, timeout=20).read())["tokens"]
print(json.dumps([ids(t) for t in json.loads(sys.argv[2])]))
"""


def test_both_readers_give_the_same_ids_and_the_text_back(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="not run: xllamacpp is not installed")
    python = client_python(("tokenizers==0.22.2",))
    plain = make_model(tmp_path / "st", seed=1, size_mb=1)
    packed = make_model(tmp_path / "gguf", seed=1, size_mb=1, format="gguf")
    asked = json.dumps(TEXTS)
    ours = run_client(python, BY_TOKENIZERS, str(plain.folder / "tokenizer.json"), asked, env={})
    assert ours["texts"] == TEXTS
    assert ours["size"] == 1024
    argv = [sys.executable, "-c", BY_LLAMA_CPP, str(next(packed.folder.glob("*.gguf"))), asked]
    theirs = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(theirs.stdout) == ours["ids"]
