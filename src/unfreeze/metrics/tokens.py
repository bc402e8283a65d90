"""Tokens that were guessed: how surprising the true ones were, and how often the likeliest was right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class TokenState:
    """Sums over tokens, of which every metric is a mean."""

    metrics = ("perplexity", "token_accuracy")

    def __init__(self) -> None:
        self.nats, self.hits, self.tokens = 0.0, 0, 0

    def update(self, nats: float, hits: int, tokens: int) -> None:
        """Add tokens.

        Args:
            nats: Sum of their negative log-probabilities.
            hits: How many of them were the likeliest.
            tokens: How many there are.
        """
        self.nats, self.hits, self.tokens = self.nats + nats, self.hits + hits, self.tokens + tokens

    def merge(self, other: TokenState) -> None:
        """Take in the tokens of another state."""
        self.update(other.nats, other.hits, other.tokens)

    @property
    def reasons(self) -> dict[str, str]:
        return {} if self.tokens else dict.fromkeys(self.metrics, "no token was guessed")

    def compute(self) -> dict[str, float | None]:
        """Perplexity, exp of the mean negative log-probability, and the share of tokens that were right."""
        if not self.tokens:
            return dict.fromkeys(self.metrics)
        return {
            "perplexity": math.exp(min(self.nats / self.tokens, 700)),
            "token_accuracy": self.hits / self.tokens,
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"nats": self.nats, "hits": self.hits, "tokens": self.tokens}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> TokenState:
        """The state that `state_dict` was taken from."""
        state = cls()
        state.update(float(saved["nats"]), int(saved["hits"]), int(saved["tokens"]))
        return state
