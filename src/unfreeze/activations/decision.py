"""Whether recording pays: a stated model of floating-point operations and bytes.

A phase repeats in every epoch what lies below its lowest trained group. Of a text that is about ``2 W`` operations a
token for the ``W`` weights of the layers there; of a picture or a recording, where a convolution uses each of its
weights many times, the operations are counted in a forward of one row. Recording costs one such pass over training and
held-out rows and the writing and reading of ``width x 2`` bytes a token (4 of rows that are only measured). One pass
can record every boundary that nothing below has been trained for, so boundaries are decided together: the pass goes up
to the highest of them, and each lower one costs its bytes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from unfreeze.activations.boundary import Entry
from unfreeze.models.layers import HEAD, STEM

# What plain devices do, orders of magnitude; only the ratio to the disk matters. On a CPU recording rarely hangs on it;
# a GPU computes a small model's layers again in less time than their output is read.
FLOPS_PER_SECOND = {"cpu": 1.0e11, "mps": 2.0e12, "cuda": 3.0e13}
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
        decoder: Groups of an encoder-decoder's decoder: below each of its layers the encoder alone lies, whose output
            they read.
        limit: What `budget_bytes` is, as a person says it.
        entries: What a row brings to each group, where that is not `width` numbers and its weights for each token;
            rows are of one size then.
        recorded: Groups at whose input an earlier run has recorded these rows. It is said and changes no decision: what
            a run does must not depend on what happens to lie on the disk.
        views: Variants of each training row that are recorded.
        head_reads_tokens: Whether the head reads every token of a text, not one vector of it.
        flops_per_second: Of the device; see `FLOPS_PER_SECOND`.
    """

    train_tokens: int
    train_rows: int
    held_out_tokens: int
    held_out_rows: int
    width: int
    are_drawn_anew: bool
    budget_bytes: int
    decoder: frozenset[str] = frozenset()
    limit: str = "the budget (cache.budget)"
    entries: Mapping[str, Entry] | None = None
    recorded: frozenset[str] = frozenset()
    views: int = 1
    head_reads_tokens: bool = False
    flops_per_second: float = FLOPS_PER_SECOND["cpu"]

    @property
    def train_positions(self) -> int:
        """What the work is counted by: tokens, or rows of one size."""
        return self.train_tokens if self.entries is None else self.train_rows

    @property
    def held_out_positions(self) -> int:
        return self.held_out_tokens if self.entries is None else self.held_out_rows


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
    """A boundary that could be recorded, for one phase or several."""

    boundary: str
    seconds_below: float  # of a position
    saved_positions: float
    stored_bytes: int

    @property
    def saved_seconds(self) -> float:
        return self.saved_positions * self.seconds_below

    @property
    def gain(self) -> float:
        """Without the pass: the stored bytes are written once and read back once an epoch, mostly from memory."""
        return self.saved_seconds - 2 * self.stored_bytes / DISK_BYTES_PER_SECOND


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
    of_phases: dict[int, _Candidate] = {}
    trained_before: set[str] = set()
    for index, (trained, epochs, steps, every) in enumerate(phases):
        boundary, why = _boundary(trained, trained_before, sizes, facts)
        answers.append(Decision(None, why))
        if boundary is not None:
            of_phases[index] = _candidate(boundary, epochs, steps // every if every else 0, sizes, facts)
        trained_before |= trained
    candidates = _by_boundary(of_phases.values())
    chosen, unlimited = _best(candidates, facts, facts.budget_bytes), _best(candidates, facts, float("inf"))
    for index, candidate in of_phases.items():
        boundary, size = candidate.boundary, _megabytes(candidate.stored_bytes)
        if boundary in chosen:
            is_there = boundary in facts.recorded
            found = "recorded by an earlier run" if is_there else "recorded"
            saved = _duration(candidate.saved_seconds)
            reason = f"{found} at {boundary}, {size}: saves about {saved} of repeated forwards"
            answers[index] = Decision(boundary, reason, candidate.stored_bytes, is_there)
        elif candidate.stored_bytes > facts.budget_bytes:
            answers[index] = Decision(None, f"not recorded: {size} exceed {facts.limit}")
        elif boundary in unlimited:
            others = _megabytes(sum(c.stored_bytes for c in candidates if c.boundary in chosen))
            what = f"{size} beside {others} for other phases exceed {facts.limit}"
            answers[index] = Decision(None, f"not recorded: {what}")
        else:
            answers[index] = Decision(None, "not recorded: one pass would cost as much as it saves")
    return answers


def _boundary(
    trained: set[str], trained_before: set[str], sizes: Mapping[str, int], facts: RowFacts
) -> tuple[str | None, str]:
    if facts.are_drawn_anew:
        return None, "not recorded: the rows are varied at random in every epoch"
    if STEM in trained:
        return None, "not recorded: everything trains, the embeddings too"
    lowest = next(name for name in sizes if name in trained)
    if _operations_below(lowest, sizes, facts) == 0:
        return None, "not recorded: only the embeddings lie below"
    if trained_before & set(_below(lowest, sizes, facts)):
        return None, "not recorded: what lies below was trained in an earlier phase"
    return lowest, ""


def _by_boundary(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Phases at one boundary share a recording."""
    found: dict[str, _Candidate] = {}
    for c in candidates:
        before = found.get(c.boundary)
        saved = c.saved_positions + (before.saved_positions if before is not None else 0.0)
        found[c.boundary] = replace(c, saved_positions=saved)
    return list(found.values())


def _below(group: str, sizes: Mapping[str, int], facts: RowFacts) -> list[str]:
    names = list(sizes)
    names = names[: names.index(group)]
    return [n for n in names if n not in facts.decoder] if group in facts.decoder else names


def _operations_below(group: str, sizes: Mapping[str, int], facts: RowFacts) -> float:
    """Of one position; embeddings of a text only look up, but where no layers can be told apart all is stem."""
    if facts.entries is not None and group in facts.entries:
        return facts.entries[group].operations
    has_layers = any(name not in (STEM, HEAD) for name in sizes)
    weights = sum(sizes[n] for n in _below(group, sizes, facts) if n != STEM or not has_layers)
    return 2 * weights * facts.train_tokens / facts.train_positions


def _candidate(boundary: str, epochs: float, evaluations: int, sizes: Mapping[str, int], facts: RowFacts) -> _Candidate:
    positions = facts.train_rows, facts.held_out_rows
    if boundary != HEAD or facts.head_reads_tokens:
        positions = facts.train_tokens, facts.held_out_tokens
    width = facts.width
    if facts.entries is not None:
        positions = facts.train_rows, facts.held_out_rows
        width = facts.entries[boundary].numbers if boundary in facts.entries else facts.width
    numbers = facts.views * positions[0] * BYTES_PER_NUMBER + positions[1] * BYTES_PER_MEASURED_NUMBER
    return _Candidate(
        boundary,
        _operations_below(boundary, sizes, facts) / facts.flops_per_second,
        epochs * facts.train_positions + evaluations * facts.held_out_positions,
        # 8 bytes a row say where it starts.
        numbers * width + 8 * (facts.views * facts.train_rows + facts.held_out_rows),
    )


def _best(candidates: Sequence[_Candidate], facts: RowFacts, budget_bytes: float) -> set[str]:
    """The boundaries whose recording saves most.

    Of those below the highest one, which alone decides what the pass costs, the best for their bytes come first: sets
    are not compared one by one, since a schedule may have a phase for each of many layers.
    """
    positions = facts.views * facts.train_positions + facts.held_out_positions
    best: tuple[float, set[str]] = (0.0, set())
    for highest in candidates:
        below = [c for c in candidates if c.seconds_below <= highest.seconds_below and c.gain > 0]
        below.sort(key=lambda c: (c is not highest, -c.gain / max(1, c.stored_bytes)))
        chosen: list[_Candidate] = []
        for candidate in below:
            if sum(c.stored_bytes for c in chosen) + candidate.stored_bytes <= budget_bytes:
                chosen.append(candidate)
        gain = sum(c.gain for c in chosen) - positions * highest.seconds_below
        if gain > max(best[0], LEAST_GAIN * sum(c.saved_seconds for c in chosen)):
            best = gain, {c.boundary for c in chosen}
    return best[1]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
