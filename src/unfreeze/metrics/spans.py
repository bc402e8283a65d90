"""Spans of words, such as names: right where their type and both ends are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import SummedState, Sums, label_rows, rate_of

Span = tuple[str, int, int]


def spans_of(tags: Sequence[str]) -> set[Span]:
    """(type, first word, last word) of the spans that a row's tags name; IOB2, IOBES and their near relatives.

    As conlleval, and seqeval by default, read them: a span that begins with ``I-`` is one.

    >>> sorted(spans_of(["B-PER", "I-PER", "O", "I-LOC"]))
    [('LOC', 3, 3), ('PER', 0, 1)]
    """
    from seqeval.metrics.sequence_labeling import get_entities

    return {(str(kind), int(first), int(last)) for kind, first, last in get_entities(list(tags))}


class SpanState(SummedState):
    """Precision, recall and F1 of spans (Tjong Kim Sang and De Meulder, CoNLL 2003, section 2.3), and of words.

    Args:
        types: Types of spans; none: only words are counted.
        seed: Of the bootstrap weights.
    """

    def __init__(self, types: Sequence[str], seed: int = 0) -> None:
        self.types = list(types)
        self._position = {name: i for i, name in enumerate(self.types)}
        self.reasons: dict[str, str] = {}
        self._sums = Sums(seed)

    def update(
        self, true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], rows: np.ndarray | None = None
    ) -> None:
        """Add whole rows.

        Args:
            true: Tags of the words of each row.
            predicted: As many.
            rows: `Row.index` (rows,), needed where states will be merged; counted up from 0 without it.
        """
        self._sums.add(self._counts(true, predicted), rows)

    def _counts(self, true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """What is summed of each row, (rows,) or (rows, types)."""
        counts = {name: np.zeros((len(true), len(self.types))) for name in ("correct", "given", "actual")}
        words, right, exact = (np.zeros(len(true)) for _ in range(3))
        for i, (gold, said) in enumerate(zip(true, predicted, strict=True)):
            assert len(gold) == len(said), f"{len(gold)} tags and {len(said)} answers for a row"
            spans = {"actual": self._spans(gold), "given": self._spans(said)}
            spans["correct"] = spans["actual"] & spans["given"]
            for name, found in spans.items():
                for kind, _, _ in found:
                    counts[name][i, self._position[kind]] += 1
            words[i], right[i] = len(gold), sum(a == b for a, b in zip(gold, said, strict=True))
            exact[i] = spans["actual"] == spans["given"] if self.types else list(gold) == list(said)
        return counts | {"words": words, "right": right, "exact": exact}

    def _spans(self, tags: Sequence[str]) -> set[Span]:
        return spans_of(tags) if self.types else set()

    def merge(self, other: SpanState) -> None:
        """Take in the rows of another state with the same types and seed; both must have had `rows`."""
        assert self.types == other.types, "states of different types cannot be merged"
        self._sums.merge(other._sums)

    def compute(self) -> dict[str, float | None]:
        """overall_f1, overall_precision, overall_recall of spans; overall_accuracy of words; row_accuracy: none wrong.

        None where undefined; `reasons` then has the metric's name and why.
        """
        return self._computed(("overall_f1", "overall_precision", "overall_recall", "overall_accuracy", "row_accuracy"))

    def intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals from the streamed Poisson bootstrap over rows; (low, high) by metric.

        Args:
            level: Coverage asked for.
        """
        return self._percentiles(list(self._all()) if self.n else (), level)

    def per_class(self) -> list[dict[str, Any]]:
        """label (a type), precision, recall, f1 and support (spans) of each type."""
        empty = np.zeros(len(self.types))
        correct, given, actual = (self._sums[name][0] if self.n else empty for name in ("correct", "given", "actual"))
        return label_rows(self.types, correct, given, actual)

    def _undefined(self) -> dict[str, str]:
        if self._sums["actual"][0].any():
            return {}
        return dict.fromkeys(("overall_f1", "overall_precision", "overall_recall"), "no row has any span")

    def _all(self) -> dict[str, np.ndarray]:
        sums = self._sums
        correct, given, actual = (sums[name].sum(axis=1) for name in ("correct", "given", "actual"))
        return {
            "overall_f1": rate_of(2 * correct, given + actual),
            "overall_precision": rate_of(correct, given),
            "overall_recall": rate_of(correct, actual),
            "overall_accuracy": rate_of(sums["right"], sums["words"]),
            "row_accuracy": rate_of(sums["exact"], sums["rows"]),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"types": self.types, "sums": self._sums.state_dict()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> SpanState:
        """The state that `state_dict` was taken from."""
        state = cls(saved["types"])
        state._sums = Sums.load(saved["sums"])
        return state
