"""One label a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import (
    EPSILON,
    Cells,
    checked_finite,
    checked_ids,
    draw_cells,
    forget_reasons,
    label_rows,
    macro_f1,
    quantile_interval,
    wilson_interval,
)
from unfreeze.randomness import generator

CALIBRATION_BINS = 15


class ClassificationState:
    """One label a row: accuracy, F1, calibration and the confusion matrix.

    `f1`, `precision` and `recall` are macro averages over the labels that occur among the true or the predicted ones,
    as scikit-learn's are; a label that is never predicted counts with precision 0. `balanced_accuracy` is the mean
    recall of the labels that occur among the true ones (unweighted average recall; Schuller et al. 2009, Interspeech).

    Args:
        labels: Names of the classes; a class id is a position in this list.
    """

    def __init__(self, labels: list[str]) -> None:
        self.labels = list(labels)
        self.reasons: dict[str, str] = {}
        self._cells = Cells()
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
        true, predicted = checked_ids(true, width), checked_ids(predicted, width)
        assert true.shape == predicted.shape, f"{len(true)} true labels, {len(predicted)} predicted ones"
        if probability is not None:
            self._update_calibration(true, checked_finite(probability, "a class probability"))
        self._cells.add(true * width + predicted)

    def _update_calibration(self, true: np.ndarray, probability: np.ndarray) -> None:
        assert probability.shape == (len(true), len(self.labels)), f"probabilities of shape {probability.shape}"
        assert len(true) == 0 or np.abs(probability.sum(axis=1) - 1).max() < 0.01, "class probabilities must sum to 1"
        self._log_loss_sum -= float(np.log(np.clip(probability[np.arange(len(true)), true], EPSILON, 1.0)).sum())
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
        """accuracy, balanced_accuracy, f1, f1_weighted, precision, recall, log_loss (nats a row) and ece.

        A value is None where it is undefined; `reasons` then has the metric's name and why.
        """
        averaged = ("balanced_accuracy", "f1", "f1_weighted", "precision", "recall")
        values: dict[str, float | None] = dict.fromkeys(("accuracy", *averaged, "log_loss", "ece"))
        forget_reasons(self.reasons, values)
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
        return label_rows(self.labels, correct, predicted, actual)

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
        forget_reasons(self.reasons, ("accuracy interval", "f1 interval"))
        if self.n == 0:
            self.reasons |= dict.fromkeys(("accuracy interval", "f1 interval"), "there are no rows")
            return {}
        true, predicted, counts = self._true_predicted()
        correct = int(counts[true == predicted].sum())
        if correct in (0, self.n):
            self.reasons["f1 interval"] = f"{correct} of {self.n} rows are right: all bootstrap draws would be equal"
            return {"accuracy": wilson_interval(correct, self.n, level)}
        accuracy, f1 = [], []
        for cells in draw_cells(counts, draws, generator(seed, "bootstrap")):
            accuracy.append(cells[:, true == predicted].sum(axis=1) / self.n)
            f1.append(macro_f1(cells, true, predicted))
        found = {"accuracy": quantile_interval(np.concatenate(accuracy), level)}
        if (why := self._why_no_average(true)) is not None:
            self.reasons["f1 interval"] = why
        else:
            found["f1"] = quantile_interval(np.concatenate(f1), level)
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
        state._cells = Cells.load(saved["cells"])
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
    recalls = scores(true, predicted, average=None, labels=np.unique(true), **weighted)[1]
    return {
        "balanced_accuracy": float(np.mean(recalls)),
        "f1": float(f1),
        "f1_weighted": float(f1_weighted),
        "precision": float(precision),
        "recall": float(recall),
    }
