"""Several labels a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import (
    EPSILON,
    SummedState,
    Sums,
    checked_decisions,
    checked_finite,
    forget_reasons,
    label_rows,
    percentile_intervals,
    rate_of,
    wilson_interval,
)

# Score bins are equal steps of the logit from -8 to 8, with one bin below: rare labels have scores crowded near 0,
# where equal steps of the probability would leave a handful of bins. The middle edge is exactly 0.5.
_SCORE_EDGES = np.concatenate([[0.0], 1.0 / (1.0 + np.exp(-0.016 * np.arange(-500, 501)))])


class MultiLabelState(SummedState):
    """Any number of labels a row: F1 by label, over all decisions and by row, and the best threshold of each label.

    `f1`, `precision` and `recall` are macro averages over all labels, and a rate without denominator counts as 0, as in
    scikit-learn. `accuracy` is the share of rows with all labels right.

    Args:
        labels: Names; a position in this list is a column of the arrays.
        thresholds: (n_labels,): a label is given where its probability is at least this; None means 0.5 for all.
        seed: Of the bootstrap weights.
    """

    def __init__(self, labels: list[str], thresholds: np.ndarray | None = None, seed: int = 0) -> None:
        self.labels = list(labels)
        self.thresholds = np.full(len(labels), 0.5) if thresholds is None else np.array(thresholds, np.float64)
        assert self.thresholds.shape == (len(labels),), f"{self.thresholds.shape} thresholds for {len(labels)} labels"
        self.reasons: dict[str, str] = {}
        self._sums = Sums(seed)
        # rows by label and score: without the label and with it, each (n_labels, bins)
        self._histogram = np.zeros((2, len(labels), len(_SCORE_EDGES)), np.int64)

    def update(self, true: np.ndarray, probability: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add a batch.

        Args:
            true: 0 or 1, (batch, n_labels).
            probability: (batch, n_labels), each in [0, 1]; compared with the thresholds in float64.
            rows: `Row.index` (batch,), needed where states will be merged; counted up from 0 without it.

        Raises:
            NumericsError: E-NOT-FINITE for a probability that is not a number.
        """
        true = checked_decisions(true, len(self.labels))
        probability = checked_finite(probability, "a label probability")
        assert true.shape == probability.shape, f"labels {true.shape}, probabilities {probability.shape}"
        assert ((probability >= 0) & (probability <= 1)).all(), "probabilities are in [0, 1]"
        given = probability >= self.thresholds
        log_likelihood = np.log(np.clip(np.where(true, probability, 1 - probability), EPSILON, 1.0))
        values = _decision_sums(true, given)
        # scikit-learn's convention: a row without labels, true or given, has F1 0
        by_row = rate_of(2 * values["correct"].sum(axis=1), given.sum(axis=1) + true.sum(axis=1))
        self._sums.add(values | {"f1_samples": by_row, "log_loss": -log_likelihood.mean(axis=1)}, rows)
        self._update_histogram(true, probability)

    def _update_histogram(self, true: np.ndarray, probability: np.ndarray) -> None:
        bins = np.searchsorted(_SCORE_EDGES, probability, side="right") - 1  # edge[bin] <= probability
        label = np.broadcast_to(np.arange(len(self.labels)), bins.shape)
        cells = np.ravel_multi_index((true.astype(np.int64), label, bins), self._histogram.shape)
        self._histogram += np.bincount(cells.ravel(), minlength=self._histogram.size).reshape(self._histogram.shape)

    def merge(self, other: MultiLabelState) -> None:
        """Take in the rows of another state with the same labels, thresholds and seed; both must have had `rows`."""
        assert self.labels == other.labels, "states of different labels cannot be merged"
        assert np.array_equal(self.thresholds, other.thresholds), "states of different thresholds cannot be merged"
        self._sums.merge(other._sums)
        self._histogram += other._histogram

    def choose_thresholds(self) -> np.ndarray:
        """The threshold of each label with the best F1 on the rows seen, (n_labels,).

        For use on validation rows, never on the rows that are then reported. Of equally good thresholds the one nearest
        to 0.5 is taken. A label without positive rows keeps 0.5, and ``reasons["threshold LABEL"]`` says so.

        Trap: a label whose scores say nothing gets a threshold near 0: giving it to every row is what maximises F1
        (Lipton et al. 2014, arXiv 1402.1892). `per_class` then shows recall 1 and a low precision.
        """
        without, having = self._histogram[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]  # rows at or above each edge
        positives = having[:, :1]
        f1 = rate_of(2 * having, having + without + positives)
        as_good = f1 >= f1.max(axis=1, keepdims=True) - 1e-12
        distance = np.where(as_good, np.abs(_SCORE_EDGES - 0.5), np.inf)
        chosen = np.where(positives[:, 0] > 0, _SCORE_EDGES[distance.argmin(axis=1)], 0.5)
        forget_reasons(self.reasons, [f"threshold {label}" for label in self.labels])
        for index in np.flatnonzero(positives[:, 0] == 0):
            self.reasons[f"threshold {self.labels[index]}"] = "no row has this label: 0.5 is kept"
        return np.asarray(chosen, np.float64)

    def compute(self) -> dict[str, float | None]:
        """f1, f1_micro, f1_samples, accuracy, precision, recall and log_loss (nats a row and label).

        None where undefined; `reasons` then has the metric's name and why.
        """
        names = ("f1", "f1_micro", "f1_samples", "accuracy", "precision", "recall", "log_loss")
        return self._computed(names)

    def intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals of all metrics from the streamed Poisson bootstrap; (low, high) by metric.

        Accuracy 0 or 1 gets Wilson's interval instead; another metric whose repetitions all agree is left out, with the
        cause in ``reasons["METRIC interval"]``.

        Args:
            level: Coverage asked for.
        """
        if self.n == 0:
            return {}
        found = self._defined()
        correct = round(float(self._sums["exact"][0]))
        wilson = {}
        if correct in (0, self.n):
            wilson["accuracy"] = wilson_interval(correct, self.n, level)
            del found["accuracy"]
        return wilson | percentile_intervals(found, self._sums.drawn, level, self.reasons)

    def per_class(self) -> list[dict[str, Any]]:
        """label, precision, recall, f1, support (rows with it) and threshold of each label, in the order of `labels`.

        None where a rate has no denominator.
        """
        if self.n == 0:
            empty = np.zeros(len(self.labels))
            correct, given, actual = empty, empty, empty
        else:
            correct, given, actual = (self._sums[name][0] for name in ("correct", "given", "actual"))
        rows = label_rows(self.labels, correct, given, actual)
        return [row | {"threshold": float(t)} for row, t in zip(rows, self.thresholds, strict=True)]

    def _undefined(self) -> dict[str, str]:
        if self._sums["actual"][0].any():
            return {}
        return dict.fromkeys(("f1", "f1_micro", "f1_samples", "precision", "recall"), "no row has any label")

    def _all(self) -> dict[str, np.ndarray]:
        """Every metric, (1 + REPLICATES,): of the rows, then of each repetition."""
        sums = self._sums
        return _decision_metrics(sums["correct"], sums["given"], sums["actual"]) | {
            "f1_samples": rate_of(sums["f1_samples"], sums["rows"]),
            "accuracy": rate_of(sums["exact"], sums["rows"]),
            "log_loss": rate_of(sums["log_loss"], sums["rows"]),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        used = np.flatnonzero(self._histogram)
        return {
            "labels": self.labels,
            "thresholds": self.thresholds.tolist(),
            "sums": self._sums.state_dict(),
            "histogram": {"cells": used.tolist(), "counts": self._histogram.ravel()[used].tolist()},
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> MultiLabelState:
        """The state that `state_dict` was taken from."""
        state = cls(saved["labels"], np.array(saved["thresholds"], np.float64))
        state._sums = Sums.load(saved["sums"])
        state._histogram.reshape(-1)[np.array(saved["histogram"]["cells"], np.int64)] = saved["histogram"]["counts"]
        return state


def _decision_sums(true: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """What is added up by label and by row: correct, given, actual (batch, n_labels) and exact (batch,)."""
    return {"correct": true & given, "given": given, "actual": true, "exact": (true == given).all(axis=1)}


def _decision_metrics(correct: np.ndarray, given: np.ndarray, actual: np.ndarray) -> dict[str, np.ndarray]:
    """Averages over labels of sums (repetitions, n_labels), each (repetitions,)."""
    return {
        "f1": rate_of(2 * correct, given + actual).mean(axis=1),
        "f1_micro": rate_of(2 * correct.sum(axis=1), (given + actual).sum(axis=1)),
        "precision": rate_of(correct, given).mean(axis=1),
        "recall": rate_of(correct, actual).mean(axis=1),
    }
