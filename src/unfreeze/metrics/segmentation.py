"""Masks beside masks: how much of what is said to be a class, or is one, is both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import SummedState, Sums, label_rows, rate_of


class SegmentationState(SummedState):
    """Intersection over union (Everingham et al. 2010, section 4.1), by class over all pixels, and its mean.

    Kept are three counts a class, so that pictures of any number and size take the same memory.

    Args:
        labels: Names of the classes.
        seed: Of the bootstrap weights, which are drawn for pictures.
    """

    metrics = ("mean_iou", "pixel_accuracy", "mean_accuracy")

    def __init__(self, labels: Sequence[str], seed: int = 0) -> None:
        self.labels = list(labels)
        self.reasons: dict[str, str] = {}
        self._sums = Sums(seed)

    def update(self, counts: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add pictures.

        Args:
            counts: Pixels of each true class that are said to be of each class, (pictures, classes, classes); see
                `confusion`.
            rows: `Row.index` (pictures,), needed where states will be merged.
        """
        assert counts.shape[1:] == (len(self.labels),) * 2, f"counts of shape {counts.shape}"
        both = np.einsum("pcc->pc", counts)
        self._sums.add({"both": both, "true": counts.sum(axis=2), "said": counts.sum(axis=1)}, rows)

    def merge(self, other: SegmentationState) -> None:
        """Take in the pictures of another state; both must have had `rows`."""
        assert self.labels == other.labels, "states of different classes cannot be merged"
        self._sums.merge(other._sums)

    def compute(self) -> dict[str, float | None]:
        """The `metrics`; None where undefined, with `reasons`."""
        return self._computed(self.metrics)

    def intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals from the streamed Poisson bootstrap over pictures."""
        return self._percentiles(self.metrics, level)

    def details(self) -> dict[str, Any]:
        """Of each class: precision, recall, F1 (Dice), intersection over union, true pixels."""
        if self.n == 0:
            return {"reasons": dict(self.reasons)}
        both, true, said = (self._sums[name][0] for name in ("both", "true", "said"))
        union = true + said - both
        rows = label_rows(self.labels, both, said, true)
        ious = [float(b / u) if u else None for b, u in zip(both, union, strict=True)]
        per_class = [{**row, "iou": iou} for row, iou in zip(rows, ious, strict=True)]
        return {"per_class": per_class, "reasons": dict(self.reasons)}

    def _undefined(self) -> dict[str, str]:
        if self._sums["true"][0].sum() == 0:
            return dict.fromkeys(self.metrics, "no pixel has a class")
        return {}

    def _all(self) -> dict[str, np.ndarray]:
        both, true, said = (self._sums[name] for name in ("both", "true", "said"))
        union = true + said - both
        occurs, is_true = (union > 0).sum(axis=1), (true > 0).sum(axis=1)
        return {
            "mean_iou": rate_of(rate_of(both, union).sum(axis=1), occurs),
            "pixel_accuracy": rate_of(both.sum(axis=1), true.sum(axis=1)),
            "mean_accuracy": rate_of(rate_of(both, true).sum(axis=1), is_true),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"labels": self.labels, "sums": self._sums.state_dict()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> SegmentationState:
        """The state that `state_dict` was taken from."""
        state = cls(saved["labels"])
        state._sums = Sums.load(saved["sums"])
        return state


def confusion(true: np.ndarray, said: np.ndarray, n_classes: int) -> np.ndarray:
    """Pixels of each true class that are said to be of each class, (classes, classes).

    Args:
        true: Class of each pixel; numbers from `n_classes` on are not counted.
        said: The same shape, all below `n_classes`.
    """
    counted = true < n_classes
    codes = true[counted].astype(np.int64) * n_classes + said[counted]
    return np.bincount(codes, minlength=n_classes**2).reshape(n_classes, n_classes)
