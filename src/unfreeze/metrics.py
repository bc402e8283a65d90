"""Metrics as mergeable states, each with an interval: how good, and how sure.

A state takes batches (`update`), joins the states of other processes (`merge`) and gives its numbers once (`compute`,
`intervals`). Averages of averages never occur, because a state holds sums and counts; and its size is set by the number
of labels, not by the number of rows.

=====================  ==================================  =====================================================
state                  kept of the rows                    interval
=====================  ==================================  =====================================================
ClassificationState    counts of (true, predicted) cells   bootstrap by multinomial draws over the cells
MultiLabelState        sums a label, score histograms      streamed Poisson bootstrap
RegressionState        sums of powers                      streamed Poisson bootstrap
PairedState            joint counts of two systems         bootstrap of the difference; Student's for numbers
=====================  ==================================  =====================================================

The streamed Poisson bootstrap (Chamandy et al., "Estimating uncertainty for massive data streams", Google 2012) gives
each row a weight drawn from Poisson(1) in each of `REPLICATES` imagined repetitions, and keeps one sum a repetition.
The weight is a function of (seed, row, repetition), so it depends neither on batches nor on order nor on the process
that saw the row. Merged states must therefore have been told which rows they saw.

Every metric that is undefined is None, and the state's `reasons` says why; an interval that would be a lie (no error
seen, so that all repetitions agree) is left out, and `reasons` says so too.

Example:
    >>> state = ClassificationState(["no", "yes"])
    >>> state.update(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    >>> state.compute()["accuracy"]
    0.75
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unfreeze.errors import DataError, NumericsError, TaskError, did_you_mean
from unfreeze.randomness import derived_seed, generator

REPLICATES = 500  # repetitions of the streamed bootstrap; a multiple of four, see `_bootstrap_weights`
CALIBRATION_BINS = 15
_EPSILON = float(np.finfo(np.float64).eps)  # scikit-learn clips probabilities here before the logarithm
_CHUNK_CELLS = 4_000_000  # numbers held at once while drawing: 32 MB


# ---------------------------------------------------------------------------------------------------------------------
# one label a row


class ClassificationState:
    """One label a row: accuracy, F1, calibration and the confusion matrix.

    `f1`, `precision` and `recall` are macro averages over the labels that occur among the true or the predicted ones,
    as scikit-learn's are; a label that is never predicted counts with precision 0.

    Args:
        labels: Names of the classes; a class id is a position in this list.
    """

    def __init__(self, labels: list[str]) -> None:
        self.labels = list(labels)
        self.reasons: dict[str, str] = {}
        self._cells = _Cells()
        self._log_loss_sum = 0.0
        self._bin_rows = np.zeros(CALIBRATION_BINS, np.int64)
        self._bin_correct = np.zeros(CALIBRATION_BINS, np.int64)
        self._bin_confidence = np.zeros(CALIBRATION_BINS)

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._cells.n

    def update(self, true: np.ndarray, predicted: np.ndarray, probability: np.ndarray | None = None) -> None:
        """Add a batch.

        Args:
            true: Class ids (batch,).
            predicted: Class ids (batch,).
            probability: (batch, n_classes), rows summing to 1; without it there is no log loss and no calibration.

        Raises:
            NumericsError: E-NOT-FINITE for a probability that is not a number.
        """
        width = len(self.labels)
        true, predicted = _ids(true, width), _ids(predicted, width)
        assert true.shape == predicted.shape, f"{len(true)} true labels, {len(predicted)} predicted ones"
        if probability is not None:
            self._update_calibration(true, _finite(probability, "a class probability"))
        self._cells.add(true * width + predicted)

    def _update_calibration(self, true: np.ndarray, probability: np.ndarray) -> None:
        assert probability.shape == (len(true), len(self.labels)), f"probabilities of shape {probability.shape}"
        assert len(true) == 0 or np.abs(probability.sum(axis=1) - 1).max() < 0.01, "class probabilities must sum to 1"
        self._log_loss_sum -= float(np.log(np.clip(probability[np.arange(len(true)), true], _EPSILON, 1.0)).sum())
        confidence = probability.max(axis=1, initial=0.0)
        # Guo et al. 2017, section 2: bin m holds confidences in ((m-1)/M, m/M]
        bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
        correct = probability.argmax(axis=1) == true
        self._bin_rows += np.bincount(bins, minlength=CALIBRATION_BINS)
        self._bin_correct += np.bincount(bins[correct], minlength=CALIBRATION_BINS)
        self._bin_confidence += np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS)

    def merge(self, other: ClassificationState) -> None:
        """Take in the rows of another state with the same labels."""
        assert self.labels == other.labels, "states of different labels cannot be merged"
        self._cells.add(other._cells.codes, other._cells.counts)
        self._log_loss_sum += other._log_loss_sum
        self._bin_rows += other._bin_rows
        self._bin_correct += other._bin_correct
        self._bin_confidence += other._bin_confidence

    def compute(self) -> dict[str, float | None]:
        """accuracy, f1, f1_weighted, precision, recall, log_loss (nats a row) and ece.

        A value is None where it is undefined; `reasons` then has the metric's name and why.
        """
        averaged = ("f1", "f1_weighted", "precision", "recall")
        values: dict[str, float | None] = dict.fromkeys(("accuracy", *averaged, "log_loss", "ece"))
        _forget(self.reasons, values)
        if self.n == 0:
            self.reasons |= dict.fromkeys(values, "there are no rows")
            return values
        true, predicted, counts = self._true_predicted()
        values["accuracy"] = float(counts[true == predicted].sum() / self.n)
        if (why := self._why_no_average(true)) is not None:
            self.reasons |= dict.fromkeys(averaged, why)
        else:
            values |= _averages(true, predicted, counts)
        with_probability = int(self._bin_rows.sum())
        if with_probability == self.n:
            values["log_loss"], values["ece"] = self._log_loss_sum / self.n, self._calibration_error()
        else:
            why = f"probabilities were given for {with_probability} of {self.n} rows"
            self.reasons |= {"log_loss": why, "ece": why}
        return values

    def per_class(self) -> list[dict[str, Any]]:
        """label, precision, recall, f1 and support (rows) of each class, in the order of `labels`.

        None where a rate has no denominator: precision of a class that is never predicted, recall of one without rows.
        """
        confusion = self.confusion()
        correct, actual, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
        return _label_rows(self.labels, correct, predicted, actual)

    def confusion(self) -> np.ndarray:
        """Counts of rows, (n_classes, n_classes): true class down, predicted class across."""
        width = len(self.labels)
        matrix = np.zeros(width * width, np.int64)
        matrix[self._cells.codes] = self._cells.counts
        return matrix.reshape(width, width)

    def calibration(self) -> dict[str, Any]:
        """The reliability diagram, and its summary.

        Returns:
            ``ece`` (None without probabilities) and ``bins``: low, high, mean confidence, accuracy, count of each of 15
            equal bins of the top probability; the two means are None in an empty bin.
        """
        bins = [
            {
                "low": index / CALIBRATION_BINS,
                "high": (index + 1) / CALIBRATION_BINS,
                "confidence": float(self._bin_confidence[index] / rows) if rows else None,
                "accuracy": float(self._bin_correct[index] / rows) if rows else None,
                "count": int(rows),
            }
            for index, rows in enumerate(self._bin_rows)
        ]
        return {"ece": self._calibration_error() if self._bin_rows.any() else None, "bins": bins}

    def _calibration_error(self) -> float:
        """Expected calibration error, equation 3 of Guo et al. 2017 (arXiv 1706.04599)."""
        return float(np.abs(self._bin_correct - self._bin_confidence).sum() / self._bin_rows.sum())

    def intervals(self, seed: int = 0, *, level: float = 0.95, draws: int = 1000) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals of accuracy and f1.

        Drawing rows with replacement is drawing the cells' counts from a multinomial, so no row is needed.

        With no error in the rows, or nothing but errors, every draw is the same and the bootstrap would claim certainty
        (1.0 to 1.0 after ten rows). Accuracy then gets Wilson's interval; f1 has no such formula and is left out.

        Args:
            seed: Of the draws.
            level: Coverage asked for.
            draws: Repetitions.

        Returns:
            Metric to (low, high). A metric without interval is missing; ``reasons["f1 interval"]`` says why.
        """
        _forget(self.reasons, ("accuracy interval", "f1 interval"))
        if self.n == 0:
            self.reasons |= dict.fromkeys(("accuracy interval", "f1 interval"), "there are no rows")
            return {}
        true, predicted, counts = self._true_predicted()
        correct = int(counts[true == predicted].sum())
        if correct in (0, self.n):
            self.reasons["f1 interval"] = f"{correct} of {self.n} rows are right: all bootstrap draws would be equal"
            return {"accuracy": _wilson(correct, self.n, level)}
        accuracy, f1 = [], []
        for cells in _draw_cells(counts, draws, generator(seed, "bootstrap")):
            accuracy.append(cells[:, true == predicted].sum(axis=1) / self.n)
            f1.append(_macro_f1(cells, true, predicted))
        found = {"accuracy": _quantiles(np.concatenate(accuracy), level)}
        if (why := self._why_no_average(true)) is not None:
            self.reasons["f1 interval"] = why
        else:
            found["f1"] = _quantiles(np.concatenate(f1), level)
        return found

    def _true_predicted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        true, predicted = np.divmod(self._cells.codes, len(self.labels))
        return true, predicted, self._cells.counts

    def _why_no_average(self, true: np.ndarray) -> str | None:
        if len(np.unique(true)) > 1:
            return None
        return f"all {self.n} rows have the label {self.labels[int(true[0])]!r}: there are no classes to average over"

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "labels": self.labels,
            "cells": self._cells.state_dict(),
            "log_loss_sum": self._log_loss_sum,
            "bin_rows": self._bin_rows.tolist(),
            "bin_correct": self._bin_correct.tolist(),
            "bin_confidence": self._bin_confidence.tolist(),
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> ClassificationState:
        """The state that `state_dict` was taken from."""
        state = cls(saved["labels"])
        state._cells = _Cells.load(saved["cells"])
        state._log_loss_sum = float(saved["log_loss_sum"])
        state._bin_rows = np.array(saved["bin_rows"], np.int64)
        state._bin_correct = np.array(saved["bin_correct"], np.int64)
        state._bin_confidence = np.array(saved["bin_confidence"], np.float64)
        return state


def _averages(true: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> dict[str, float | None]:
    """Macro and weighted averages of cells (cells,): scikit-learn sees each cell as one row with a weight."""
    from sklearn.metrics import precision_recall_fscore_support as scores

    weighted = {"sample_weight": counts, "zero_division": 0.0}
    precision, recall, f1, _ = scores(true, predicted, average="macro", **weighted)
    f1_weighted = scores(true, predicted, average="weighted", **weighted)[2]
    return {"f1": float(f1), "f1_weighted": float(f1_weighted), "precision": float(precision), "recall": float(recall)}


# ---------------------------------------------------------------------------------------------------------------------
# several labels a row

# Score bins are equal steps of the logit from -8 to 8, with one bin below: rare labels have scores crowded near 0,
# where equal steps of the probability would leave a handful of bins. The middle edge is exactly 0.5.
_SCORE_EDGES = np.concatenate([[0.0], 1.0 / (1.0 + np.exp(-0.016 * np.arange(-500, 501)))])


class MultiLabelState:
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
        self._sums = _Sums(seed)
        # rows by label and score: without the label and with it, each (n_labels, bins)
        self._histogram = np.zeros((2, len(labels), len(_SCORE_EDGES)), np.int64)

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._sums.n

    def update(self, true: np.ndarray, probability: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add a batch.

        Args:
            true: 0 or 1, (batch, n_labels).
            probability: (batch, n_labels), each in [0, 1]; compared with the thresholds in float64.
            rows: `Row.index` (batch,), needed where states will be merged; counted up from 0 without it.

        Raises:
            NumericsError: E-NOT-FINITE for a probability that is not a number.
        """
        true, probability = _decisions(true, len(self.labels)), _finite(probability, "a label probability")
        assert true.shape == probability.shape, f"labels {true.shape}, probabilities {probability.shape}"
        assert ((probability >= 0) & (probability <= 1)).all(), "probabilities are in [0, 1]"
        given = probability >= self.thresholds
        log_likelihood = np.log(np.clip(np.where(true, probability, 1 - probability), _EPSILON, 1.0))
        values = _decision_sums(true, given)
        # scikit-learn's convention: a row without labels, true or given, has F1 0
        by_row = _rate(2 * values["correct"].sum(axis=1), given.sum(axis=1) + true.sum(axis=1))
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
        f1 = _rate(2 * having, having + without + positives)
        as_good = f1 >= f1.max(axis=1, keepdims=True) - 1e-12
        distance = np.where(as_good, np.abs(_SCORE_EDGES - 0.5), np.inf)
        chosen = np.where(positives[:, 0] > 0, _SCORE_EDGES[distance.argmin(axis=1)], 0.5)
        _forget(self.reasons, [f"threshold {label}" for label in self.labels])
        for index in np.flatnonzero(positives[:, 0] == 0):
            self.reasons[f"threshold {self.labels[index]}"] = "no row has this label: 0.5 is kept"
        return np.asarray(chosen, np.float64)

    def compute(self) -> dict[str, float | None]:
        """f1, f1_micro, f1_samples, accuracy, precision, recall and log_loss (nats a row and label).

        None where undefined; `reasons` then has the metric's name and why.
        """
        names = ("f1", "f1_micro", "f1_samples", "accuracy", "precision", "recall", "log_loss")
        values: dict[str, float | None] = dict.fromkeys(names)
        _forget(self.reasons, names)
        if self.n == 0:
            self.reasons |= dict.fromkeys(names, "there are no rows")
            return values
        undefined = self._undefined()
        self.reasons |= undefined
        return values | {name: float(value[0]) for name, value in self._all().items() if name not in undefined}

    def intervals(self, seed: int | None = None, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals of all metrics from the streamed Poisson bootstrap; (low, high) by metric.

        Accuracy 0 or 1 gets Wilson's interval instead; another metric whose repetitions all agree is left out, with the
        cause in ``reasons["METRIC interval"]``.

        Args:
            seed: Taken so that all states can be asked alike. It changes nothing: the weights were drawn when the rows
                came, with the seed of the constructor.
            level: Coverage asked for.
        """
        if self.n == 0:
            return {}
        undefined = self._undefined()
        found = {name: value for name, value in self._all().items() if name not in undefined}
        correct = round(float(self._sums["exact"][0]))
        wilson = {}
        if correct in (0, self.n):
            wilson["accuracy"] = _wilson(correct, self.n, level)
            del found["accuracy"]
        return wilson | _percentiles(found, self._sums.drawn, level, self.reasons)

    def per_class(self) -> list[dict[str, Any]]:
        """label, precision, recall, f1, support (rows with it) and threshold of each label, in the order of `labels`.

        None where a rate has no denominator.
        """
        if self.n == 0:
            empty = np.zeros(len(self.labels))
            correct, given, actual = empty, empty, empty
        else:
            correct, given, actual = (self._sums[name][0] for name in ("correct", "given", "actual"))
        rows = _label_rows(self.labels, correct, given, actual)
        return [row | {"threshold": float(t)} for row, t in zip(rows, self.thresholds, strict=True)]

    def _undefined(self) -> dict[str, str]:
        if self._sums["actual"][0].any():
            return {}
        return dict.fromkeys(("f1", "f1_micro", "f1_samples", "precision", "recall"), "no row has any label")

    def _all(self) -> dict[str, np.ndarray]:
        """Every metric, (1 + REPLICATES,): of the rows, then of each repetition."""
        sums = self._sums
        return _decision_metrics(sums["correct"], sums["given"], sums["actual"]) | {
            "f1_samples": _rate(sums["f1_samples"], sums["rows"]),
            "accuracy": _rate(sums["exact"], sums["rows"]),
            "log_loss": _rate(sums["log_loss"], sums["rows"]),
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
        state._sums = _Sums.load(saved["sums"])
        state._histogram.reshape(-1)[np.array(saved["histogram"]["cells"], np.int64)] = saved["histogram"]["counts"]
        return state


def _decision_sums(true: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """What is added up by label and by row: correct, given, actual (batch, n_labels) and exact (batch,)."""
    return {"correct": true & given, "given": given, "actual": true, "exact": (true == given).all(axis=1)}


def _decision_metrics(correct: np.ndarray, given: np.ndarray, actual: np.ndarray) -> dict[str, np.ndarray]:
    """Averages over labels of sums (repetitions, n_labels), each (repetitions,)."""
    return {
        "f1": _rate(2 * correct, given + actual).mean(axis=1),
        "f1_micro": _rate(2 * correct.sum(axis=1), (given + actual).sum(axis=1)),
        "precision": _rate(correct, given).mean(axis=1),
        "recall": _rate(correct, actual).mean(axis=1),
    }


# ---------------------------------------------------------------------------------------------------------------------
# a number a row


class RegressionState:
    """A number a row: errors and correlation.

    Args:
        seed: Of the bootstrap weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.reasons: dict[str, str] = {}
        self._sums = _Sums(seed)
        # Trap: sums of squares of years (2020 +- 1) or of times lose all their digits when the mean square is taken
        # off. So values are counted from the first batch's mean, (true, predicted).
        self._origin: np.ndarray | None = None
        self._low = np.full(2, np.inf)
        self._high = np.full(2, -np.inf)

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._sums.n

    def update(self, true: np.ndarray, predicted: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add a batch.

        Args:
            true: (batch,).
            predicted: (batch,).
            rows: `Row.index` (batch,), needed where states will be merged; counted up from 0 without it.

        Raises:
            NumericsError: E-NOT-FINITE for a value that is not a number.
        """
        true, predicted = _finite(true, "a target"), _finite(predicted, "a prediction")
        assert true.shape == predicted.shape == (len(true),), f"targets {true.shape}, predictions {predicted.shape}"
        if len(true) == 0:
            return
        pair = np.stack([true, predicted])  # (2, batch)
        if self._origin is None:
            self._origin = pair.mean(axis=1)
        self._low, self._high = np.minimum(self._low, pair.min(axis=1)), np.maximum(self._high, pair.max(axis=1))
        t, p = pair - self._origin[:, None]
        error = true - predicted
        values = {"t": t, "p": p, "tt": t * t, "pp": p * p, "tp": t * p, "ee": error * error, "absolute": np.abs(error)}
        self._sums.add(values, rows)

    def merge(self, other: RegressionState) -> None:
        """Take in the rows of another state with the same seed; both must have had `rows`."""
        if other._origin is None:
            return
        if self._origin is None:
            self._origin = other._origin.copy()
        self._sums.merge(_moved(other._sums, other._origin - self._origin))
        self._low, self._high = np.minimum(self._low, other._low), np.maximum(self._high, other._high)

    def compute(self) -> dict[str, float | None]:
        """mse, rmse, mae (in the unit of the target), r2 and pearson.

        r2 is None where all targets are equal, pearson also where all predictions are; `reasons` says so.
        """
        names = ("mse", "rmse", "mae", "r2", "pearson")
        values: dict[str, float | None] = dict.fromkeys(names)
        _forget(self.reasons, names)
        if self.n == 0:
            self.reasons |= dict.fromkeys(names, "there are no rows")
            return values
        undefined = self._undefined()
        self.reasons |= undefined
        return values | {name: float(value[0]) for name, value in self._all().items() if name not in undefined}

    def intervals(self, seed: int | None = None, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals of all metrics from the streamed Poisson bootstrap; (low, high) by metric.

        A metric whose repetitions all agree (no error at all, a single row) is left out, with the cause in
        ``reasons["METRIC interval"]``.

        Args:
            seed: Taken so that all states can be asked alike. It changes nothing: the weights were drawn when the rows
                came, with the seed of the constructor.
            level: Coverage asked for.
        """
        if self.n == 0:
            return {}
        undefined = self._undefined()
        found = {name: value for name, value in self._all().items() if name not in undefined}
        return _percentiles(found, self._sums.drawn, level, self.reasons)

    def _undefined(self) -> dict[str, str]:
        true_equal, predicted_equal = self._low == self._high
        if true_equal:
            return dict.fromkeys(("r2", "pearson"), f"all {self.n} targets are equal")
        return {"pearson": f"all {self.n} predictions are equal"} if predicted_equal else {}

    def _all(self) -> dict[str, np.ndarray]:
        """Every metric, (1 + REPLICATES,); a repetition where it is undefined has not-a-number."""
        sums, rows = self._sums, self._sums["rows"]
        # scatter around the mean, times the number of rows
        tt = sums["tt"] - _rate(sums["t"] ** 2, rows)
        pp = sums["pp"] - _rate(sums["p"] ** 2, rows)
        tp = sums["tp"] - _rate(sums["t"] * sums["p"], rows)
        # Trap: a repetition of few rows may hold one value only; its scatter is then rounding noise.
        tt, pp = (np.where(s > 1e-12 * s[0], s, np.nan) for s in (tt, pp))
        mse = _rate(sums["ee"], rows, empty=np.nan)
        return {
            "mse": mse,
            "rmse": np.sqrt(mse),
            "mae": _rate(sums["absolute"], rows, empty=np.nan),
            "r2": 1 - sums["ee"] / tt,
            "pearson": tp / np.sqrt(tt * pp),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        seen = self._origin is not None
        return {
            "sums": self._sums.state_dict(),
            "origin": self._origin.tolist() if self._origin is not None else None,
            "range": [self._low.tolist(), self._high.tolist()] if seen else None,
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> RegressionState:
        """The state that `state_dict` was taken from."""
        state = cls()
        state._sums = _Sums.load(saved["sums"])
        if saved["origin"] is not None:
            state._origin = np.array(saved["origin"], np.float64)
            state._low, state._high = (np.array(edge, np.float64) for edge in saved["range"])
        return state


def _moved(sums: _Sums, offset: np.ndarray) -> _Sums:
    """The same sums of powers, counted from another origin: t becomes t + offset[0], p becomes p + offset[1]."""
    (a, b), rows, t, p = offset, sums["rows"], sums["t"], sums["p"]
    moved = sums.copy()
    moved.values |= {
        "t": t + a * rows,
        "p": p + b * rows,
        "tt": sums["tt"] + 2 * a * t + a * a * rows,
        "pp": sums["pp"] + 2 * b * p + b * b * rows,
        "tp": sums["tp"] + a * p + b * t + a * b * rows,
    }
    return moved


# ---------------------------------------------------------------------------------------------------------------------
# two systems on the same rows


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
            ``multi_label_classification`` or ``regression``.
        n_labels: Number of classes or labels; of no meaning for regression.

    Raises:
        TaskError: E-TASK for a problem type that is not one of the three.
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

    def update(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        """Add a batch: the truth and the decisions of both systems, all of the same shape.

        Args:
            true: Class ids (batch,), 0 or 1 (batch, n_labels), or numbers (batch,).
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
        mean of row-wise differences has Student's interval, and nothing is drawn; below 0, a errs less.

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
        self._cells = _Cells()

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
        if metric == "accuracy":
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
        pieces = _draw_cells(self._cells.counts, self.draws, generator(seed, "paired bootstrap"))
        ahead = [self.measure("a", metric, piece) - self.measure("b", metric, piece) for piece in pieces]
        low, high = _quantiles(np.concatenate(ahead), level)
        if low < high:
            return Difference(metric, value, low, high, self.n)
        note = f"all bootstrap draws agree on these {self.n} rows: the interval is too narrow"
        if metric == "accuracy":
            low, high = _agresti_min(*self.discordant(), self.n, level)
            note = "all bootstrap draws agree: the interval is Agresti and Min's instead"
        return Difference(metric, value, low, high, self.n, note)

    def coordinates(self) -> tuple[np.ndarray, ...]:
        return np.unravel_index(self._cells.codes, self.shape)

    def state_dict(self) -> dict[str, Any]:
        return self._cells.state_dict()

    def restore(self, saved: Mapping[str, Any]) -> None:
        self._cells = _Cells.load(saved)


class _PairedLabels(_PairedCells):
    """One label a row; a cell is (true, a, b)."""

    metrics = ("accuracy", "f1")

    def __init__(self, n_labels: int) -> None:
        super().__init__((n_labels,) * 3)

    def columns(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        true, a, b = (_ids(ids, self.shape[0]) for ids in (true, a, b))
        assert true.shape == a.shape == b.shape, f"{len(true)} true labels, {len(a)} and {len(b)} predicted ones"
        return true, a, b

    def right(self, system: str) -> np.ndarray:
        true, a, b = self.coordinates()
        return np.asarray(true == (a if system == "a" else b))

    def f1(self, system: str, counts: np.ndarray) -> np.ndarray:
        true, a, b = self.coordinates()
        return _macro_f1(counts, true, a if system == "a" else b)


class _PairedLabelSets(_PairedCells):
    """Any number of labels a row; a cell is how many labels (the row has, a has right, a gives, b has right, b gives).

    Real rows have few labels, so that some hundred cells occur whatever the number of rows.
    """

    metrics = ("f1_micro", "accuracy")

    def __init__(self, n_labels: int) -> None:
        super().__init__((n_labels + 1,) * 5)

    def columns(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        true, a, b = (_decisions(array, self.shape[0] - 1) for array in (true, a, b))
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
        return _rate(2 * (counts @ correct), counts @ (given + actual))


class _PairedNumbers:
    """A number a row: sums of the errors of a, of b, of their difference and of its square, (metric, 4)."""

    metrics = ("mae", "mse")

    def __init__(self, n_labels: int) -> None:
        self.n = 0
        self._sums = np.zeros((2, 4))

    def update(self, true: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        true = _finite(true, "a target")
        a, b = (np.abs(_finite(system, "a prediction") - true) for system in (a, b))
        assert a.shape == b.shape == true.shape == (len(true),), f"{true.shape}, {a.shape} and {b.shape} numbers"
        self.n += len(true)
        self._sums += [[x.sum(), y.sum(), (x - y).sum(), ((x - y) ** 2).sum()] for x, y in ((a, b), (a * a, b * b))]

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
        note = "" if half else f"both err alike on these {self.n} rows: the interval is too narrow"
        return Difference(metric, mean, mean - half, mean + half, self.n, note)

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n, "sums": self._sums.tolist()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.n, self._sums = int(saved["n"]), np.array(saved["sums"], np.float64)


_PAIRED: dict[str, type[_PairedLabels] | type[_PairedLabelSets] | type[_PairedNumbers]] = {
    "single_label_classification": _PairedLabels,
    "multi_label_classification": _PairedLabelSets,
    "regression": _PairedNumbers,
}


# ---------------------------------------------------------------------------------------------------------------------
# what states are made of


class _Cells:
    """Sparse counts: which codes occurred, (cells,) sorted, and how often. Never more cells than codes that occur."""

    def __init__(self) -> None:
        self.codes = np.zeros(0, np.int64)
        self.counts = np.zeros(0, np.int64)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def add(self, codes: np.ndarray, counts: np.ndarray | None = None) -> None:
        counts = np.ones(len(codes), np.int64) if counts is None else counts
        self.codes, position = np.unique(np.concatenate([self.codes, codes]), return_inverse=True)
        total = np.zeros(len(self.codes), np.int64)
        np.add.at(total, position, np.concatenate([self.counts, counts]))
        self.counts = total

    def state_dict(self) -> dict[str, Any]:
        return {"codes": self.codes.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> _Cells:
        cells = cls()
        cells.codes, cells.counts = (np.array(saved[name], np.int64) for name in ("codes", "counts"))
        return cells


class _Sums:
    """Sums over rows, each (1 + REPLICATES, ...): of the rows as they are, then weighted for each repetition.

    Whole numbers are added exactly (float64, up to 2**53), so that counts do not depend on the order of merging.
    """

    chunk = 4096  # rows whose weights are held at once: 16 MB

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.values: dict[str, np.ndarray] = {}
        self.counts_up = False

    @property
    def n(self) -> int:
        return round(float(self.values["rows"][0])) if self.values else 0

    @property
    def drawn(self) -> np.ndarray:
        """Repetitions that hold any row, (REPLICATES,): of a handful of rows some hold none."""
        return np.asarray(self.values["rows"][1:] > 0)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def add(self, values: Mapping[str, np.ndarray], rows: np.ndarray | None) -> None:
        batch = len(next(iter(values.values())))
        if batch == 0:
            return
        assert self.n == 0 or self.counts_up == (rows is None), "give `rows` to every update or to none"
        if rows is None:
            self.counts_up, rows = True, np.arange(self.n, self.n + batch)
        assert len(rows) == batch, f"{len(rows)} row numbers for {batch} rows"
        for start in range(0, batch, self.chunk):
            piece = slice(start, start + self.chunk)
            weights = _bootstrap_weights(self.seed, rows[piece]).T  # (1 + REPLICATES, batch)
            self._take(
                {name: weights @ value[piece].astype(np.float64) for name, value in values.items()}
                | {"rows": weights.sum(axis=1)}
            )

    def merge(self, other: _Sums) -> None:
        assert self.seed == other.seed, "states of different seeds cannot be merged"
        # Trap: rows counted from 0 in two processes would share their weights, and intervals would come out too wide.
        together = self.n > 0 and other.n > 0
        assert not (together and (self.counts_up or other.counts_up)), "merged states need `rows` in every update"
        self.counts_up |= other.counts_up
        self._take(other.values)

    def _take(self, values: Mapping[str, np.ndarray]) -> None:
        self.values = {name: value + self.values.get(name, 0.0) for name, value in values.items()} or self.values

    def copy(self) -> _Sums:
        other = _Sums(self.seed)
        other.values, other.counts_up = dict(self.values), self.counts_up
        return other

    def state_dict(self) -> dict[str, Any]:
        values = {name: value.tolist() for name, value in self.values.items()}
        return {"seed": self.seed, "counts_up": self.counts_up, "values": values}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> _Sums:
        sums = cls(int(saved["seed"]))
        sums.counts_up = bool(saved["counts_up"])
        sums.values = {name: np.array(value, np.float64) for name, value in saved["values"].items()}
        return sums


def _poisson_table() -> np.ndarray:
    """Poisson(1) for a uniform 16-bit number, (65536,)."""
    chances = np.exp(-1) / np.array([math.factorial(k) for k in range(13)])
    return np.searchsorted(chances.cumsum(), (np.arange(65536) + 0.5) / 65536).astype(np.float64)


_POISSON = _poisson_table()


def _bootstrap_weights(seed: int, rows: np.ndarray) -> np.ndarray:
    """How often each repetition draws each row, (batch, 1 + REPLICATES); column 0 is the rows as they are, 1.

    The numbers are positions (row, repetition) of one SplitMix64 sequence (Steele et al. 2014), which can be entered
    anywhere: `numpy.random` would need a generator for each row. A 64-bit number serves four repetitions.
    """
    lanes = REPLICATES // 4
    position = rows.astype(np.uint64)[:, None] * np.uint64(lanes) + np.arange(1, lanes + 1, dtype=np.uint64)
    z: np.ndarray = position * np.uint64(0x9E3779B97F4A7C15) + np.uint64(derived_seed(seed, "bootstrap weights"))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))).astype("<u8")  # the same four parts on machines of either byte order
    drawn = _POISSON[z.view("<u2")]
    return np.concatenate([np.ones((len(rows), 1)), drawn], axis=1)


def _draw_cells(counts: np.ndarray, draws: int, random: np.random.Generator) -> list[np.ndarray]:
    """Bootstrap counts of cells, in pieces of (some draws, cells) so that many cells do not fill the memory."""
    size = max(1, _CHUNK_CELLS // max(1, len(counts)))
    n = int(counts.sum())
    pieces = [min(size, draws - start) for start in range(0, draws, size)]
    return [random.multinomial(n, counts / n, size=piece) for piece in pieces]


def _macro_f1(cells: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Macro F1 of each row of counts, (draws,), over the labels that occur in it: scikit-learn's, vectorised.

    Args:
        cells: Counts, (draws, cells).
        true: Class id of each cell, (cells,).
        predicted: Class id of each cell, (cells,).
    """
    from scipy.sparse import csr_array

    names, ids = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    width, size = len(names), len(true)

    def by_label(label: np.ndarray, kept: np.ndarray) -> np.ndarray:
        one_hot = csr_array((kept.astype(np.float64), (label, np.arange(size))), shape=(width, size))
        return np.asarray(one_hot @ cells.T)  # (labels, draws)

    correct = by_label(ids[:size], true == predicted)
    seen = by_label(ids[:size], np.ones(size)) + by_label(ids[size:], np.ones(size))
    return np.asarray(_rate(2 * correct, seen).sum(axis=0) / (seen > 0).sum(axis=0))


def _rate(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """part / whole, and `empty` where whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, empty), where=whole != 0))


def _label_rows(labels: list[str], correct: np.ndarray, given: np.ndarray, actual: np.ndarray) -> list[dict[str, Any]]:
    """A record a label from its counts, each (n_labels,)."""
    rows = zip(labels, correct, given, actual, strict=True)
    return [
        {
            "label": label,
            "precision": float(right / said) if said else None,
            "recall": float(right / real) if real else None,
            "f1": float(2 * right / (said + real)) if said + real else None,
            "support": round(float(real)),
        }
        for label, right, said, real in rows
    ]


def _quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    assert 0 < level < 1, f"a level is between 0 and 1, not {level}"
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _percentiles(
    metrics: Mapping[str, np.ndarray], usable: np.ndarray, level: float, reasons: dict[str, str]
) -> dict[str, tuple[float, float]]:
    """Intervals of metrics (1 + REPLICATES,) over the usable repetitions; one that all agree on is left out."""
    found = {}
    _forget(reasons, [f"{name} interval" for name in metrics])
    for name, values in metrics.items():
        drawn = values[1:][usable & np.isfinite(values[1:])]
        low, high = _quantiles(drawn, level) if len(drawn) > REPLICATES // 2 else (0.0, 0.0)
        if low < high:
            found[name] = (low, high)
        else:
            reasons[f"{name} interval"] = "the rows are too few or too much alike: the bootstrap draws do not differ"
    return found


def _forget(reasons: dict[str, str], names: Iterable[str]) -> None:
    """Drop reasons that are about to be found anew: rows may have come since."""
    for name in names:
        reasons.pop(name, None)


def _wilson(correct: int, n: int, level: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    low, high = binomtest(correct, n).proportion_ci(level, method="wilson")
    return float(low), float(high)


def _agresti_min(only_a: int, only_b: int, n: int, level: float) -> tuple[float, float]:
    """Interval of a paired difference of proportions: Wald's after half a row in each cell (Agresti and Min 2005)."""
    from scipy.stats import norm

    a, b, total = only_a + 0.5, only_b + 0.5, n + 2
    middle = (a - b) / total
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt((a + b) - (a - b) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def _ids(ids: np.ndarray, n_labels: int) -> np.ndarray:
    """Class ids as int64 (batch,), checked: an id out of range would be counted as another class."""
    ids = np.asarray(ids)
    assert ids.ndim == 1, f"class ids of shape {ids.shape}"
    assert np.issubdtype(ids.dtype, np.integer), f"class ids of type {ids.dtype}"
    assert ((ids >= 0) & (ids < n_labels)).all(), f"class ids must be below {n_labels}"
    return ids.astype(np.int64)


def _decisions(values: np.ndarray, n_labels: int) -> np.ndarray:
    """0 and 1 as booleans (batch, n_labels), checked: probabilities are no decisions."""
    values = np.asarray(values)
    assert values.shape == (len(values), n_labels), f"shape {values.shape} for {n_labels} labels"
    assert np.isin(values, (0, 1)).all(), "labels are 0 or 1"
    return values.astype(bool)


def _finite(values: np.ndarray, meaning: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))[0]
        raise NumericsError(
            "NOT-FINITE",
            f"{meaning} is {values[tuple(bad)]}",
            where=f"row {bad[0]} of the batch",
            remedy="lower train.learning_rate, or look at the loss curve for the step where it broke",
        )
    return values
