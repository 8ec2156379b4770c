"""The shapes of a Llama of a wished size: how many layers, how wide, and the tensors that follow from it.

Two spellings of the same tensors: Hugging Face's (`model.layers.0.self_attn.q_proj.weight`) and llama.cpp's
(`blk.0.attn_q.weight`). It computes names and shapes; numbers are drawn in `weights`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from freehold.lab.tokens import BOS, EOS

CONTEXT = 2048
ROPE_BASE = 10_000.0
EPSILON = 1e-5

_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True, slots=True)
class Place:
    """One tensor: its name, row-major shape, what it does (`q`, `down`, `norm` ...) and how deep it lies (0 to 1)."""

    name: str
    shape: tuple[int, ...]
    role: str
    depth: float

    @property
    def gguf_name(self) -> str:
        stem = self.name.removesuffix(".weight")
        if stem.startswith("model.layers."):
            _, _, layer, rest = stem.split(".", 3)
            return f"blk.{layer}.{_GGUF_NAMES[rest]}.weight"
        return f"{_GGUF_NAMES[stem]}.weight"


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Sizes as config.json has them; embedding and output are separate tensors."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        norms = (2 * self.layers + 1) * self.hidden
        return 2 * self.vocabulary * self.hidden + self.layers * _matrices(self.hidden, self._kv, self.feed_forward) + norms

    @property
    def _kv(self) -> int:
        return self.kv_heads * self.head_size

    def places(self) -> Iterator[Place]:
        """All tensors, in the order of the computation."""
        h, kv, ff = self.hidden, self._kv, self.feed_forward
        yield Place("model.embed_tokens.weight", (self.vocabulary, h), "embed", 0.0)
        inner = {
            "self_attn.q_proj": ((h, h), "q"),
            "self_attn.k_proj": ((kv, h), "k"),
            "self_attn.v_proj": ((kv, h), "v"),
            "self_attn.o_proj": ((h, h), "o"),
            "mlp.gate_proj": ((ff, h), "gate"),
            "mlp.up_proj": ((ff, h), "up"),
            "mlp.down_proj": ((h, ff), "down"),
            "input_layernorm": ((h,), "norm"),
            "post_attention_layernorm": ((h,), "norm"),
        }
        for layer in range(self.layers):
            for name, (shape, role) in inner.items():
                yield Place(f"model.layers.{layer}.{name}.weight", shape, role, (layer + 0.5) / self.layers)
        yield Place("model.norm.weight", (h,), "norm", 1.0)
        yield Place("lm_head.weight", (self.vocabulary, h), "head", 1.0)

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json; `dtype` as safetensors spells it (BF16)."""
        torch_name = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": CONTEXT,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": BOS,
            "rms_norm_eps": EPSILON,
            "rope_theta": ROPE_BASE,
            "tie_word_embeddings": False,
            "torch_dtype": torch_name,
            "use_cache": True,
            "vocab_size": self.vocabulary,
        }

    def gguf(self) -> dict[str, Any]:
        """The same as GGUF metadata."""
        return {
            "llama.block_count": self.layers,
            "llama.context_length": CONTEXT,
            "llama.embedding_length": self.hidden,
            "llama.feed_forward_length": self.feed_forward,
            "llama.attention.head_count": self.heads,
            "llama.attention.head_count_kv": self.kv_heads,
            "llama.attention.layer_norm_rms_epsilon": EPSILON,
            "llama.rope.dimension_count": self.head_size,
            "llama.rope.freq_base": ROPE_BASE,
            "llama.vocab_size": self.vocabulary,
        }


def llama_of(parameters: int, vocabulary: int) -> LlamaShape:
    """The Llama nearest to this many parameters: about as deep for its width as the published ones, feed-forward fitted last."""
    found: list[tuple[float, LlamaShape]] = []
    for hidden in range(64, 1025, 64):
        heads = hidden // (64 if hidden >= 256 else 32)
        kv_heads = next(n for n in range(max(1, heads // 2), 0, -1) if heads % n == 0)
        kv = kv_heads * (hidden // heads)
        left = parameters - 2 * vocabulary * hidden - hidden
        usual = round(hidden * 8 / 3 / 32) * 32
        layers = max(2, round(left / (_matrices(hidden, kv, usual) + 2 * hidden)))
        room = left / layers - 2 * hidden - 2 * hidden * hidden - 2 * hidden * kv
        feed_forward = max(32, round(room / (3 * hidden) / 32) * 32)
        shape = LlamaShape(hidden, layers, heads, kv_heads, feed_forward, vocabulary)
        miss = abs(shape.parameters / parameters - 1)
        odd = abs(hidden / layers / 40 - 1) if hidden / layers >= 40 else abs(40 * layers / hidden - 1)
        found.append((20 * miss + odd, shape))
    return min(found, key=lambda f: f[0])[1]


def _matrices(hidden: int, kv: int, feed_forward: int) -> int:
    return 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * feed_forward
