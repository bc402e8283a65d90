"""Sums over tokens that a language model guesses, for the tasks that measure them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from unfreeze.metrics import TokenState

NOT_A_TARGET = -100


def add(state: TokenState, logits: torch.Tensor, gold: torch.Tensor) -> None:
    """Count tokens.

    Args:
        logits: (..., vocabulary).
        gold: (...), `NOT_A_TARGET` where there is nothing to guess.
    """
    scores, gold = logits.detach().float().flatten(0, -2), gold.flatten()
    is_real = gold != NOT_A_TARGET
    nats = (
        float(F.cross_entropy(scores, gold, reduction="sum", ignore_index=NOT_A_TARGET)) if bool(is_real.any()) else 0.0
    )
    state.update(nats, int(((scores.argmax(-1) == gold) & is_real).sum()), int(is_real.sum()))
