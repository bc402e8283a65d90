"""The order of rows: which rows form which step, in every epoch, as a pure function of the seed.

Batches are *bucketed*: rows of like length go together, so that little padding is computed, and the batches of an epoch
are shuffled. A resumed run recomputes the order and starts at its step; nothing is skipped row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from unfreeze.randomness import generator

# Rows are sorted by length within pools of so many batches: enough to keep padding low, few enough to keep an epoch's
# batches as varied as a plain shuffle's.
POOL_BATCHES = 50
# Trap: where all rows are one pool, the same rows would meet in every epoch. There a row may stand so far, in batches,
# from its place by length; that costs 1 % more padding than none, and dividing a small set into pools costs 4 %.
SPREAD_BATCHES = 0.75


def epoch_batches(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch: every position exactly once; the last batch of a pool may be smaller.

    Args:
        lengths: Cost of each example, (examples,), in tokens.
        batch_size: Examples for one optimizer step.
        seed: Of the run.
        epoch: From 0.

    Returns:
        Arrays of positions into `lengths`.
    """
    draw = generator(seed, "order", epoch)
    order = draw.permutation(len(lengths))
    pool = batch_size * POOL_BATCHES
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        members = order[start : start + pool]
        members = members[np.argsort(lengths[members], kind="stable")]
        if len(members) == len(order):
            spread = SPREAD_BATCHES * batch_size
            places = np.arange(len(members)) + draw.uniform(-spread, spread, len(members))
            members = members[np.argsort(places, kind="stable")]
        # The odd batch must not always hold the longest rows: it is cut off at a drawn place.
        odd = len(members) % batch_size
        place = int(draw.integers(0, len(members) // batch_size + 1)) * batch_size if odd else 0
        if odd:
            batches.append(members[place : place + odd])
            members = np.concatenate([members[:place], members[place + odd :]])
        batches.extend(members[i : i + batch_size] for i in range(0, len(members), batch_size))
    return [batches[i] for i in draw.permutation(len(batches))]


def steps_per_epoch(n_examples: int, batch_size: int) -> int:
    """Optimizer steps of one epoch."""
    return max(1, -(-n_examples // batch_size))


def micro_batches(lengths: np.ndarray, budget_tokens: int, *, whole: bool = False) -> list[np.ndarray]:
    """Cut one batch into parts that go through the model at once; `whole` keeps it in one part.

    Returns:
        Positions within the batch, the longest examples first; see `length_batches`.
    """
    if whole:
        return [np.argsort(-lengths, kind="stable")]
    return list(length_batches(lengths, budget_tokens))


def length_batches(
    lengths: Sequence[int] | np.ndarray, budget_tokens: int, most_rows: int = 512
) -> Iterator[np.ndarray]:
    """Batches of like length, the longest first; every position exactly once.

    Args:
        lengths: In tokens, (examples,).
        budget_tokens: Rows x longest length of a batch, padding included, stays within it; a longer row is alone.
        most_rows: In one batch.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        count = min(max(budget_tokens // longest, 1), most_rows)
        yield order[start : start + count]
        start += count
