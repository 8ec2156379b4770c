"""What a request may cost at most, and what it did cost: the one rule for every way in which an answer can end.

Money is in integer micro-units; a price is in micro-units per million tokens. A reservation is rounded up, a charge
down, so that no charge can exceed what was reserved for the same tokens.

The rule of charges, in one sentence for each case:
- Generated tokens are charged as delivered, that is handed to the transport, never as generated beyond that.
- The prompt is charged if the answer ended cleanly or at least one token was delivered.
- A request that was released (refused by the engine, or never begun) costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from freehold.nouns.usage import Outcome, TokenCounts

_MILLION = 1_000_000
#: What a chat template may add around the messages, in tokens; generous, since it is only reserved.
TEMPLATE_TOKENS = 1024
#: Printed where interrupted requests are shown.
RULE = (
    "An answer that was cut short is charged for the tokens that were delivered, and for its prompt if there were any; "
    "if the process died, for what it had last noted as delivered."
)


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-units of `currency` per million tokens."""

    prompt: int
    generated: int
    currency: str


def most_tokens(body_bytes: int, context: int, asked: int | None, answers: int) -> tuple[int, int]:
    """Upper bounds (prompt, generated) for a request body of `body_bytes` that wants `answers` answers of at most `asked`.

    A token is at least one byte of text, and prompt and answer share the `context`.
    """
    prompt = min(context, body_bytes + TEMPLATE_TOKENS)
    return prompt, answers * min(context, context if asked is None else asked)


def reserve_amount(price: Price, prompt: int, generated: int) -> int:
    """What to set aside for so many tokens, rounded up."""
    return -(-(price.prompt * prompt + price.generated * generated) // _MILLION)


def charge(price: Price, counts: TokenCounts, outcome: Outcome) -> int:
    """What the request costs, rounded down."""
    if outcome is Outcome.RELEASED:
        return 0
    prompt = counts.prompt if outcome is Outcome.SETTLED or counts.delivered else 0
    return (price.prompt * prompt + price.generated * counts.delivered) // _MILLION
