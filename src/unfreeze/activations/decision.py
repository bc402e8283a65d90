"""Whether recording pays: a stated model of floating-point operations and bytes.

A phase whose lowest trained group has the share *f* of the layers' weights below it computes ``2 f W`` operations for
each token and epoch only to repeat itself. Recording costs one such pass over training and held-out rows and the
writing and reading of ``width x 2`` bytes a token (4 of rows that are only measured). One pass can record every
boundary that nothing below has been trained for, so phases are decided together: of all sets of phases, the one that
saves most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from unfreeze.models.layers import HEAD, STEM

# What a plain CPU does; only the ratio of the two matters, and recording rarely hangs on it.
FLOPS_PER_SECOND = 1.0e11
DISK_BYTES_PER_SECOND = 3.0e8
# Trained on in half precision, measured in single precision.
BYTES_PER_NUMBER, BYTES_PER_MEASURED_NUMBER = 2, 4
# A recording that saves less than a tenth of the phase's own repeated work is not worth its disk.
LEAST_GAIN = 0.1


@dataclass(frozen=True)
class RowFacts:
    """What the decision looks at.

    Attributes:
        train_tokens, train_rows, held_out_tokens, held_out_rows: Sizes.
        width: Of the hidden states.
        are_drawn_anew: Whether rows are augmented at random.
        budget_bytes: Disk for recordings.
        numbers_at: Numbers a row has at the input of each group, where that is not `width` for each token.
        recorded: Groups at whose input an earlier run has recorded these rows. It is said and changes no decision: what
            a run does must not depend on what happens to lie on the disk.
        views: Variants of each training row that are recorded.
    """

    train_tokens: int
    train_rows: int
    held_out_tokens: int
    held_out_rows: int
    width: int
    are_drawn_anew: bool
    budget_bytes: int
    numbers_at: Mapping[str, int] | None = None
    recorded: frozenset[str] = frozenset()
    views: int = 1


class Decision(NamedTuple):
    """Where a phase's inputs come from.

    Attributes:
        boundary: The group at whose input they are recorded; None: they are not.
        reason: Why, or why not.
        stored_bytes: Disk that the recording takes.
        is_there: Whether an earlier run has made it.
    """

    boundary: str | None
    reason: str
    stored_bytes: int = 0
    is_there: bool = False


@dataclass(frozen=True)
class _Candidate:
    index: int
    boundary: str
    below_seconds_per_token: float
    saved_tokens: float
    stored_bytes: int


def decide(
    phases: Sequence[tuple[set[str], float, int, int]], sizes: Mapping[str, int], facts: RowFacts
) -> list[Decision]:
    """One decision for each phase.

    Args:
        phases: Trained groups, epochs, steps, steps between evaluations (0: none).
        sizes: Parameters of each group, from the input.
        facts: Rows and budget.
    """
    answers: list[Decision] = []
    candidates: list[_Candidate] = []
    trained_before: set[str] = set()
    for index, (trained, epochs, steps, every) in enumerate(phases):
        boundary, why = _boundary(trained, trained_before, sizes, facts)
        answers.append(Decision(None, why))
        if boundary is not None:
            candidates.append(_candidate(index, boundary, epochs, steps // every if every else 0, sizes, facts))
        trained_before |= trained
    chosen = _best(candidates, facts)
    for candidate in candidates:
        size = _megabytes(candidate.stored_bytes)
        if candidate in chosen:
            saved = candidate.saved_tokens * candidate.below_seconds_per_token
            is_there = candidate.boundary in facts.recorded
            found = "recorded by an earlier run" if is_there else "recorded"
            answers[candidate.index] = Decision(
                candidate.boundary,
                f"{found} at {candidate.boundary}, {size}: saves about {_duration(saved)} of repeated forwards",
                candidate.stored_bytes,
                is_there,
            )
        elif candidate.stored_bytes > facts.budget_bytes:
            answers[candidate.index] = Decision(None, f"not recorded: {size} exceed the budget (cache.budget)")
        else:
            answers[candidate.index] = Decision(None, "not recorded: one pass would cost as much as it saves")
    return answers


def _boundary(
    trained: set[str], trained_before: set[str], sizes: Mapping[str, int], facts: RowFacts
) -> tuple[str | None, str]:
    names = list(sizes)
    if facts.are_drawn_anew:
        return None, "not recorded: the rows are varied at random in every epoch"
    if STEM in trained:
        return None, "not recorded: everything trains, the embeddings too"
    lowest = next(name for name in names if name in trained)
    below = names[: names.index(lowest)]
    if all(name == STEM for name in below):
        return None, "not recorded: only the embeddings lie below"
    if trained_before & set(below):
        return None, "not recorded: what lies below was trained in an earlier phase"
    return lowest, ""


def _candidate(
    index: int, boundary: str, epochs: float, evaluations: int, sizes: Mapping[str, int], facts: RowFacts
) -> _Candidate:
    names = list(sizes)
    below = sum(sizes[n] for n in names[: names.index(boundary)] if n != STEM)
    positions = facts.train_rows, facts.held_out_rows
    if boundary != HEAD:
        positions = facts.train_tokens, facts.held_out_tokens
    width = facts.width
    if facts.numbers_at is not None:
        positions, width = (facts.train_rows, facts.held_out_rows), facts.numbers_at.get(boundary, facts.width)
    numbers = facts.views * positions[0] * BYTES_PER_NUMBER + positions[1] * BYTES_PER_MEASURED_NUMBER
    return _Candidate(
        index,
        boundary,
        2 * below / FLOPS_PER_SECOND,
        epochs * facts.train_tokens + evaluations * facts.held_out_tokens,
        # 8 bytes a row say where it starts.
        numbers * width + 8 * (facts.views * facts.train_rows + facts.held_out_rows),
    )


def _best(candidates: Sequence[_Candidate], facts: RowFacts) -> tuple[_Candidate, ...]:
    """The set of phases whose recording saves most, within the budget."""
    tokens = facts.views * facts.train_tokens + facts.held_out_tokens
    best: tuple[float, tuple[_Candidate, ...]] = (0.0, ())
    for size in range(1, len(candidates) + 1):
        for chosen in combinations(candidates, size):
            stored = sum(c.stored_bytes for c in chosen)
            if stored > facts.budget_bytes:
                continue
            repeated = sum(c.saved_tokens * c.below_seconds_per_token for c in chosen)
            # The stored bytes are written once and read back once an epoch, mostly from memory.
            cost = tokens * max(c.below_seconds_per_token for c in chosen) + 2 * stored / DISK_BYTES_PER_SECOND
            gain = repeated - cost
            if gain > max(best[0], LEAST_GAIN * repeated):
                best = (gain, chosen)
    return best[1]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
