"""Answers to questions, as texts: exact match and the F1 of their words."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import SummedState, Sums, rate_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space (Rajpurkar et al. 2016, SQuAD, section 6.1).

    >>> normalised_answer("The  Eiffel Tower!")
    'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(said: str, true: str) -> float:
    """1 where both are the same once normalised."""
    return float(normalised_answer(said) == normalised_answer(true))


def word_f1(said: str, true: str) -> float:
    """F1 of the words of two answers, each word as often as it occurs; where one has no words, both must have none."""
    a, b = normalised_answer(said).split(), normalised_answer(true).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def scores(said: str, true: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 with the nearest of several true answers; without any, the right answer is none at all."""
    known = [text for text in true if normalised_answer(text)] or [""]
    return max(exact_match(said, text) for text in known), max(word_f1(said, text) for text in known)


class AnswerState(SummedState):
    """Exact match and F1 (Rajpurkar et al. 2016, section 6.1), and apart for questions with and without an answer.

    Args:
        has_unanswerable: Whether some questions have no answer in their text.
        seed: Of the bootstrap weights.
    """

    def __init__(self, has_unanswerable: bool, seed: int = 0) -> None:
        self.has_unanswerable = has_unanswerable
        self.reasons: dict[str, str] = {}
        self._sums = Sums(seed)

    def update(self, said: Sequence[str], true: Sequence[Sequence[str]], rows: np.ndarray | None = None) -> None:
        """Add questions.

        Args:
            said: An answer each, empty for none.
            true: The true answers of each, none where there is none.
            rows: `Row.index` (rows,), needed where states will be merged.
        """
        found = np.asarray([scores(s, t) for s, t in zip(said, true, strict=True)], np.float64).reshape(-1, 2)
        answerable = np.asarray([bool(t) for t in true], np.float64)
        exact, f1 = found[:, 0], found[:, 1]
        parts = {"exact": exact, "f1": f1, "answerable": answerable}
        parts |= {"answerable_exact": exact * answerable, "answerable_f1": f1 * answerable}
        self._sums.add(parts | {"none_right": exact * (1 - answerable)}, rows)

    def merge(self, other: AnswerState) -> None:
        """Take in the rows of another state; both must have had `rows`."""
        self._sums.merge(other._sums)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names in order; those of answerable and unanswerable questions only where there are both kinds."""
        both = ("has_answer_exact_match", "has_answer_f1", "no_answer_accuracy")
        return ("exact_match", "answer_f1", *(both if self.has_unanswerable else ()))

    def compute(self) -> dict[str, float | None]:
        """The `metrics`; None where undefined, with `reasons`."""
        return self._computed(self.metrics)

    def intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals from the streamed Poisson bootstrap over questions."""
        return self._percentiles(self.metrics, level)

    def _undefined(self) -> dict[str, str]:
        answerable, rows = float(self._sums["answerable"][0]), float(self._sums["rows"][0])
        found: dict[str, str] = {}
        if answerable == 0:
            found |= dict.fromkeys(("has_answer_exact_match", "has_answer_f1"), "no question has an answer")
        if answerable == rows:
            found["no_answer_accuracy"] = "every question has an answer"
        return found

    def _all(self) -> dict[str, np.ndarray]:
        sums, rows, answerable = self._sums, self._sums["rows"], self._sums["answerable"]
        return {
            "exact_match": rate_of(sums["exact"], rows),
            "answer_f1": rate_of(sums["f1"], rows),
            "has_answer_exact_match": rate_of(sums["answerable_exact"], answerable),
            "has_answer_f1": rate_of(sums["answerable_f1"], answerable),
            "no_answer_accuracy": rate_of(sums["none_right"], rows - answerable),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"has_unanswerable": self.has_unanswerable, "sums": self._sums.state_dict()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> AnswerState:
        """The state that `state_dict` was taken from."""
        state = cls(bool(saved["has_unanswerable"]))
        state._sums = Sums.load(saved["sums"])
        return state
