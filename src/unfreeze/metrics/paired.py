"""Two systems on the same rows: which is better, and how sure is that."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unfreeze.errors import DataError, TaskError, did_you_mean
from unfreeze.metrics.resampling import (
    Cells,
    agresti_min_interval,
    checked_decisions,
    checked_finite,
    checked_ids,
    draw_cells,
    macro_f1,
    quantile_interval,
    rate_of,
)
from unfreeze.metrics.spans import spans_of
from unfreeze.metrics.texts import ROUGE, rouge
from unfreeze.randomness import generator


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much the first of two systems is ahead, on the same rows.

    Attributes:
        metric: Which metric was compared.
        value: Metric of a minus metric of b.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Rows compared.
        note: What a reader of the interval must know; empty where there is nothing to say.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    note: str = ""

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves no room for "no difference"."""
        return self.low > 0 or self.high < 0


class PairedState:
    """Two systems, a and b, on the same rows: is one better, and how sure is that?

    Both see the same rows, so what makes a row hard cancels in the difference: its interval is far narrower than two
    separate intervals would make believe.

    Args:
        problem_type: As in Hugging Face configurations: ``single_label_classification``,
            ``multi_label_classification`` or ``regression``; or ``token_classification`` for tags that name spans,
            ``tags`` for others; ``frames`` for an intent with tags; ``text`` for texts that were written; ``pixels``
            for shares of a picture's pixels; ``tokens`` for log-probabilities of a text's tokens.
        n_labels: Number of classes or labels; of no meaning for numbers, tags and texts.

    Raises:
        TaskError: E-TASK for another problem type.
    """

    def __init__(self, problem_type: str, n_labels: int = 1) -> None:
        if problem_type not in _PAIRED:
            what = f"predictions of the problem type {problem_type!r} cannot be compared row by row"
            raise TaskError("TASK", what, remedy=did_you_mean(problem_type, _PAIRED))
        self.problem_type, self.n_labels = problem_type, n_labels
        self._kept = _PAIRED[problem_type](n_labels)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `value` and `difference` know; the first is their default."""
        return self._kept.metrics

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._kept.n

    def update(self, true: Any, a: Any, b: Any) -> None:
        """Add a batch: the truth and the decisions of both systems, all of the same shape.

        Args:
            true: Class ids (batch,), 0 or 1 (batch, n_labels), numbers (batch,), a list of tags a row, the texts
                that are right for each row; of no meaning for pixels, of which a and b are the shares that are right.
            a: The same of the first system: decisions, not probabilities.
            b: The same of the second.

        Raises:
            NumericsError: E-NOT-FINITE for a number that is none.
        """
        self._kept.update(true, a, b)

    def merge(self, other: PairedState) -> None:
        """Take in the rows of another state of the same kind."""
        same = (self.problem_type, self.n_labels) == (other.problem_type, other.n_labels)
        assert same, "states of different kinds cannot be merged"
        self._kept.merge(other._kept)

    def value(self, system: Literal["a", "b"], metric: str | None = None) -> float:
        """The metric of one of the two systems; raises as `difference` does."""
        return self._kept.value(system, self._known(metric))

    def difference(self, metric: str | None = None, seed: int = 0, *, level: float = 0.95) -> Difference:
        """a minus b with its interval.

        Classification: percentile bootstrap with multinomial draws over cells of rows that are alike. Regression: the
        mean of row-wise differences has Student's interval, and nothing is drawn; below 0, a errs less. Texts: the
        same, and above 0 a's are nearer to the true ones. Tokens: see `_PairedTokens`; below 0, a is less perplexed.

        Args:
            metric: One of `metrics`.
            seed: Of the draws.
            level: Coverage asked for.

        Raises:
            TaskError: E-TASK for a metric that is not in `metrics`.
            DataError: E-DATA-EMPTY without rows.
        """
        return self._kept.difference(self._known(metric), seed, level)

    def mcnemar_p(self) -> float:
        """Two-sided p of McNemar's exact test: the chance of such a lead in accuracy if both were right equally often.

        A multi-label row is right where all its labels are.

        Raises:
            TaskError: E-TASK for regression, where no row is right.
        """
        from scipy.stats import binomtest

        if not isinstance(self._kept, _PairedCells):
            raise TaskError("TASK", "McNemar's test compares right and wrong rows; regression has none")
        only_a, only_b = self._kept.discordant()
        return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0

    def _known(self, metric: str | None) -> str:
        metric = metric or self.metrics[0]
        if metric not in self.metrics:
            what = f"{metric!r} of two systems cannot be compared here"
            raise TaskError("TASK", what, remedy=did_you_mean(metric, self.metrics))
        if self.n == 0:
            raise DataError("DATA-EMPTY", "there are no rows on which two systems could be compared")
        return metric

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"problem_type": self.problem_type, "n_labels": self.n_labels, "kept": self._kept.state_dict()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> PairedState:
        """The state that `state_dict` was taken from."""
        state = cls(saved["problem_type"], saved["n_labels"])
        state._kept.restore(saved["kept"])
        return state


class _PairedCells(ABC):
    """Joint counts of both systems' answers. Rows with the same cell are alike to every metric."""

    metrics: tuple[str, ...]
    draws = 1000

    def __init__(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) >= 2**62:
            raise TaskError("TASK", "there are too many labels to compare two systems row by row")
        self.shape = shape
        self._cells = Cells()

    @property
    def n(self) -> int:
        return self._cells.n

    def update(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        self._cells.add(np.ravel_multi_index(self.columns(true, a, b), self.shape))

    def merge(self, other: Any) -> None:
        self._cells.add(other._cells.codes, other._cells.counts)

    @abstractmethod
    def columns(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        """The cell of each row, as coordinates (batch,) in `shape`."""

    @abstractmethod
    def right(self, system: str) -> np.ndarray:
        """Whether the system answers the rows of each cell without error, (cells,)."""

    @abstractmethod
    def f1(self, system: str, counts: np.ndarray) -> np.ndarray:
        """The F1 among `metrics` for counts (draws, cells), (draws,)."""

    def measure(self, system: str, metric: str, counts: np.ndarray) -> np.ndarray:
        if metric in _SHARES_OF_ROWS:
            return np.asarray(counts @ self.right(system).astype(np.float64) / self.n)
        return self.f1(system, counts)

    def value(self, system: str, metric: str) -> float:
        return float(self.measure(system, metric, self._cells.counts[None])[0])

    def discordant(self) -> tuple[int, int]:
        """Rows that only a has right, and rows that only b has right."""
        a, b, counts = self.right("a"), self.right("b"), self._cells.counts
        return int(counts[a & ~b].sum()), int(counts[b & ~a].sum())

    def difference(self, metric: str, seed: int, level: float) -> Difference:
        value = self.value("a", metric) - self.value("b", metric)
        pieces = draw_cells(self._cells.counts, self.draws, generator(seed, "paired bootstrap"))
        ahead = [self.measure("a", metric, piece) - self.measure("b", metric, piece) for piece in pieces]
        low, high = quantile_interval(np.concatenate(ahead), level)
        if low < high:
            return Difference(metric, value, low, high, self.n)
        note = f"all bootstrap draws agree on these {self.n} rows: the interval is too narrow"
        if metric in _SHARES_OF_ROWS:
            low, high = agresti_min_interval(*self.discordant(), self.n, level)
            note = "all bootstrap draws agree: the interval is Agresti and Min's instead"
        return Difference(metric, value, low, high, self.n, note)

    def coordinates(self) -> tuple[np.ndarray, ...]:
        return np.unravel_index(self._cells.codes, self.shape)

    def state_dict(self) -> dict[str, Any]:
        return self._cells.state_dict()

    def restore(self, saved: Mapping[str, Any]) -> None:
        self._cells = Cells.load(saved)


class _PairedLabels(_PairedCells):
    """One label a row; a cell is (true, a, b)."""

    metrics: tuple[str, ...] = ("accuracy", "f1")

    def __init__(self, n_labels: int) -> None:
        super().__init__((n_labels,) * 3)

    def columns(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        true, a, b = (checked_ids(ids, self.shape[0]) for ids in (true, a, b))
        assert true.shape == a.shape == b.shape, f"{len(true)} true labels, {len(a)} and {len(b)} predicted ones"
        return true, a, b

    def right(self, system: str) -> np.ndarray:
        true, a, b = self.coordinates()
        return np.asarray(true == (a if system == "a" else b))

    def f1(self, system: str, counts: np.ndarray) -> np.ndarray:
        true, a, b = self.coordinates()
        return macro_f1(counts, true, a if system == "a" else b)


class _PairedLabelSets(_PairedCells):
    """Any number of labels a row; a cell is how many labels (the row has, a has right, a gives, b has right, b gives).

    Real rows have few labels, so that some hundred cells occur whatever the number of rows.
    """

    metrics: tuple[str, ...] = ("f1_micro", "accuracy")

    def __init__(self, n_labels: int) -> None:
        super().__init__((n_labels + 1,) * 5)

    def columns(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        true, a, b = (checked_decisions(array, self.shape[0] - 1) for array in (true, a, b))
        assert true.shape == a.shape == b.shape, f"labels {true.shape}, decisions {a.shape} and {b.shape}"
        return tuple(labels.sum(axis=1) for labels in (true, true & a, a, true & b, b))

    def _counts(self, system: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels a row of each cell has, has right and is given, each (cells,)."""
        actual, *both = self.coordinates()
        correct, given = both[:2] if system == "a" else both[2:]
        return actual, correct, given

    def right(self, system: str) -> np.ndarray:
        actual, correct, given = self._counts(system)
        return np.asarray((actual == correct) & (given == correct))

    def f1(self, system: str, counts: np.ndarray) -> np.ndarray:
        actual, correct, given = self._counts(system)
        return rate_of(2 * (counts @ correct), counts @ (given + actual))


class _PairedSpans(_PairedLabelSets):
    """Tags of words, a list a row; a cell is how many spans (the row has, a has right, a gives, b has right, b gives).

    The rows are lists of tags; see `spans_of`.
    """

    metrics = ("overall_f1",)
    # Of five coordinates each, a cell's number must fit into 63 bits.
    most_in_a_row = 5000

    def __init__(self, n_labels: int) -> None:
        _PairedCells.__init__(self, (self.most_in_a_row + 1,) * 5)

    def columns(self, true: Any, a: Any, b: Any) -> tuple[np.ndarray, ...]:
        rows = [tuple(map(self.found, tags)) for tags in zip(true, a, b, strict=True)]
        counts = [(len(t), len(t & x), len(x), len(t & y), len(y)) for t, x, y in rows]
        return tuple(np.minimum(np.array(counts, np.int64).reshape(-1, 5), self.most_in_a_row).T)

    def found(self, tags: Sequence[str]) -> set[Any]:
        return set(spans_of(tags))


class _PairedTags(_PairedSpans):
    """As spans, where tags name none: each word is one, and F1 the share of words that are right.

    A cell is how many words (the row has, a has right, b has right): every word has a tag from both.
    """

    metrics = ("overall_accuracy",)
    most_in_a_row = 1 << 20

    def __init__(self, n_labels: int) -> None:
        _PairedCells.__init__(self, (self.most_in_a_row + 1,) * 3)

    def columns(self, true: Any, a: Any, b: Any) -> tuple[np.ndarray, ...]:
        counts = [
            (len(t), *(sum(x == y for x, y in zip(t, tags, strict=True)) for tags in (one, other)))
            for t, one, other in zip(true, a, b, strict=True)
        ]
        return tuple(np.minimum(np.array(counts, np.int64).reshape(-1, 3), self.most_in_a_row).T)

    def _counts(self, system: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words, a, b = self.coordinates()
        return words, (a if system == "a" else b), words


class _PairedFrames(_PairedLabels):
    """An intent and its slots a row, given as what must be equal: is it right as a whole?"""

    metrics = ("frame_accuracy",)

    def __init__(self, n_labels: int) -> None:
        super().__init__(2)

    def columns(self, true: Any, a: Any, b: Any) -> tuple[np.ndarray, ...]:
        right = [(True, t == x, t == y) for t, x, y in zip(true, a, b, strict=True)]
        return super().columns(*np.asarray(right, dtype=np.int64).reshape(-1, 3).T)


class _PairedNumbers:
    """A number a row: sums of the errors of a, of b, of their difference and of its square, (metric, 4)."""

    metrics: tuple[str, ...] = ("mae", "mse")

    def __init__(self, n_labels: int) -> None:
        self.n = 0
        self._sums = np.zeros((len(self.metrics), 4))

    def update(self, true: Any, a: Any, b: Any) -> None:
        true = checked_finite(true, "a target")
        a, b = (np.abs(checked_finite(system, "a prediction") - true) for system in (a, b))
        assert a.shape == b.shape == true.shape == (len(true),), f"{true.shape}, {a.shape} and {b.shape} numbers"
        self.count([(a, b), (a * a, b * b)])

    def count(self, scores: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Add rows by what both systems have in each metric, (rows,) each."""
        self.n += len(scores[0][0])
        self._sums += [[x.sum(), y.sum(), (x - y).sum(), ((x - y) ** 2).sum()] for x, y in scores]

    def merge(self, other: Any) -> None:
        self.n += other.n
        self._sums += other._sums

    def value(self, system: str, metric: str) -> float:
        return float(self._sums[self.metrics.index(metric), "ab".index(system)] / self.n)

    def difference(self, metric: str, seed: int, level: float) -> Difference:
        from scipy.stats import t

        _, _, total, squares = (float(value) for value in self._sums[self.metrics.index(metric)])
        mean = total / self.n
        if self.n == 1:
            return Difference(metric, mean, mean, mean, 1, "one row has no spread: the interval is too narrow")
        variance = max(0.0, squares - total * mean) / (self.n - 1)
        half = float(t.ppf((1 + level) / 2, self.n - 1)) * math.sqrt(variance / self.n)
        note = "" if half else f"both are alike on these {self.n} rows: the interval is too narrow"
        return Difference(metric, mean, mean - half, mean + half, self.n, note)

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n, "sums": self._sums.tolist()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.n, self._sums = int(saved["n"]), np.array(saved["sums"], np.float64)


class _PairedTexts(_PairedNumbers):
    """A text a row, beside the true ones: ROUGE takes the place of errors, and above 0 a is ahead."""

    metrics = ("rougeL", "rouge1", "rouge2")

    def update(self, true: Any, a: Any, b: Any) -> None:
        order = [ROUGE.index(name) for name in self.metrics]
        ours, theirs = (np.asarray([rouge(s, t) for s, t in zip(x, true, strict=True)])[:, order] for x in (a, b))
        self.count(list(zip(ours.T, theirs.T, strict=True)))


class _PairedPixels(_PairedNumbers):
    """The share of a picture's pixels that is right: above 0 a is ahead."""

    metrics = ("pixel_accuracy",)

    def update(self, true: Any, a: Any, b: Any) -> None:
        self.count([(checked_finite(a, "a share"), checked_finite(b, "a share"))])


class _PairedTokens(_PairedNumbers):
    """The negative log-probability of a row's tokens in nats, of both, and how many they are: sums and products.

    Perplexity is the exponential of a ratio of sums; the interval is that of its linearisation (Cochran 1977, Sampling
    Techniques, section 6.4; the delta method).
    """

    metrics = ("perplexity",)
    _largest_exponent = 700.0  # of what double precision holds

    def __init__(self, n_labels: int) -> None:
        super().__init__(n_labels)
        # tokens, a, b; and of each pair of them the products
        self._sums = np.zeros((4, 3))

    def update(self, true: Any, a: Any, b: Any) -> None:
        """`true` holds the numbers of tokens."""
        columns = np.stack([checked_finite(column, "a number of tokens or nats") for column in (true, a, b)])
        self.n += columns.shape[1]
        self._sums += np.vstack([columns.sum(axis=1), columns @ columns.T])

    def value(self, system: str, metric: str) -> float:
        nats = self._sums[0, 1 + "ab".index(system)] / max(1.0, self._sums[0, 0])
        return math.exp(min(nats, self._largest_exponent))

    def difference(self, metric: str, seed: int, level: float) -> Difference:
        from scipy.stats import t

        (tokens, *nats), products = self._sums[0], self._sums[1:]
        ours, theirs = self.value("a", metric), self.value("b", metric)
        value = ours - theirs
        if self.n == 1:
            return Difference(metric, value, value, value, 1, "one row has no spread: the interval is too narrow")
        # Of a row, how far it moves the difference: ours (a - A tokens) - theirs (b - B tokens), A and B nats a token.
        slope = -(ours * nats[0] - theirs * nats[1]) / tokens
        weights = np.array([slope, ours, -theirs])
        variance = max(0.0, float(weights @ products @ weights)) * self.n / (self.n - 1) / tokens**2
        half = float(t.ppf((1 + level) / 2, self.n - 1)) * math.sqrt(variance)
        note = "" if half else f"both are alike on these {self.n} rows: the interval is too narrow"
        return Difference(metric, value, value - half, value + half, self.n, note)


# Metrics that are the share of rows that are right.
_SHARES_OF_ROWS = ("accuracy", "frame_accuracy")

_PAIRED: dict[str, type[_PairedLabels | _PairedLabelSets | _PairedNumbers]] = {
    "single_label_classification": _PairedLabels,
    "multi_label_classification": _PairedLabelSets,
    "regression": _PairedNumbers,
    "token_classification": _PairedSpans,
    "tags": _PairedTags,
    "frames": _PairedFrames,
    "text": _PairedTexts,
    "pixels": _PairedPixels,
    "tokens": _PairedTokens,
}
