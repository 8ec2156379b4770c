"""A small real tokenizer: byte-level BPE with GPT-2's rules, trained on a page of prose that comes with the package.

Why trained here and not shipped as a table: 11 kB of readable text and 60 lines say all there is to know about it, and
every machine gets the same 1,024 tokens. Any text can be encoded (the 256 bytes are tokens); a chat template in the
ChatML form comes with it. It is written as Hugging Face's tokenizer.json and as GGUF metadata; both give the same ids.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any

#: Number of tokens, the special ones included.
VOCABULARY = 1024
#: Tokens that no text is encoded to, with their ids from 0.
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BOS, EOS = 0, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
#: GPT-2's way to cut text into words; the prose is ASCII, where \w and its kin need no Unicode tables.
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`tokens` by id; `merges` in order of rank, each as its two parts."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    @property
    def unreadable(self) -> tuple[int, ...]:
        """Ids that stand for no text of their own: special ones and single bytes other than ASCII letters and signs."""
        letters = _letters()
        plain = {letters[b] for b in (10, *range(32, 127))}
        return tuple(i for i, t in enumerate(self.tokens) if i < len(SPECIAL) or (len(t) == 1 and t not in plain))

    @property
    def files(self) -> dict[str, bytes]:
        """The files of a Hugging Face tokenizer, by name."""
        added = [
            {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for i, t in enumerate(SPECIAL)
        ]
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {t: i for i, t in enumerate(self.tokens)},
            "merges": [" ".join(pair) for pair in self.merges],
        }
        named = {"bos_token": SPECIAL[BOS], "eos_token": SPECIAL[EOS], "pad_token": SPECIAL[BOS]}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 2048,
            "clean_up_tokenization_spaces": False,
            "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added},
            "chat_template": CHAT_TEMPLATE,
            **named,
        }
        whole = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": level,
            "post_processor": None,
            "decoder": level,
            "model": model,
        }
        return {
            "tokenizer.json": _json(whole),
            "tokenizer_config.json": _json(config),
            "special_tokens_map.json": _json(named),
        }

    @property
    def gguf(self) -> dict[str, Any]:
        """The same as GGUF metadata."""
        return {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": list(self.tokens),
            "tokenizer.ggml.token_type": [3 if i < len(SPECIAL) else 1 for i in range(len(self.tokens))],
            "tokenizer.ggml.merges": [" ".join(pair) for pair in self.merges],
            "tokenizer.ggml.bos_token_id": BOS,
            "tokenizer.ggml.eos_token_id": EOS,
            "tokenizer.ggml.padding_token_id": BOS,
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.chat_template": CHAT_TEMPLATE,
        }


@cache
def tokenizer() -> Tokenizer:
    """The one tokenizer of all lab models."""
    text = (resources.files("freehold") / "data" / "lab" / "prose.txt").read_text("utf-8")
    letters = _letters()
    words = Counter(tuple(letters[b] for b in word.encode()) for word in _WORD.findall(text))
    tokens = [*SPECIAL, *sorted(letters.values(), key=ord)]
    merges: list[tuple[str, str]] = []
    while len(tokens) < VOCABULARY:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = max(pairs, key=lambda p: (pairs[p], p))  # by text where counts are equal: the order must not depend on hashing
        merges.append(best)
        if "".join(best) not in tokens:  # two pairs may join to one token
            tokens.append("".join(best))
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return Tokenizer(tuple(tokens), tuple(merges))


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            result.append("".join(pair))
            at += 2
        else:
            result.append(word[at])
            at += 1
    return tuple(result)


def _letters() -> dict[int, str]:
    """A printable letter for each byte, as in GPT-2: itself where it is printable, else from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
