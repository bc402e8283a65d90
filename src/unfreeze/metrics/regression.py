"""A number a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import SummedState, Sums, checked_finite, percentile_intervals, rate_of


class RegressionState(SummedState):
    """A number a row: errors and correlation.

    Args:
        seed: Of the bootstrap weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.reasons: dict[str, str] = {}
        self._sums = Sums(seed)
        # Trap: sums of squares of years (2020 +- 1) or of times lose all their digits when the mean square is taken
        # off. So values are counted from the first batch's mean, (true, predicted).
        self._origin: np.ndarray | None = None
        self._low = np.full(2, np.inf)
        self._high = np.full(2, -np.inf)

    def update(self, true: np.ndarray, predicted: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add a batch.

        Args:
            true: (batch,).
            predicted: (batch,).
            rows: `Row.index` (batch,), needed where states will be merged; counted up from 0 without it.

        Raises:
            NumericsError: E-NOT-FINITE for a value that is not a number.
        """
        true, predicted = checked_finite(true, "a target"), checked_finite(predicted, "a prediction")
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
        return self._computed(names)

    def intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals of all metrics from the streamed Poisson bootstrap; (low, high) by metric.

        A metric whose repetitions all agree (no error at all, a single row) is left out, with the cause in
        ``reasons["METRIC interval"]``.

        Args:
            level: Coverage asked for.
        """
        if self.n == 0:
            return {}
        return percentile_intervals(self._defined(), self._sums.drawn, level, self.reasons)

    def _undefined(self) -> dict[str, str]:
        true_equal, predicted_equal = self._low == self._high
        if true_equal:
            return dict.fromkeys(("r2", "pearson"), f"all {self.n} targets are equal")
        return {"pearson": f"all {self.n} predictions are equal"} if predicted_equal else {}

    def _all(self) -> dict[str, np.ndarray]:
        """Every metric, (1 + REPLICATES,); a repetition where it is undefined has not-a-number."""
        sums, rows = self._sums, self._sums["rows"]
        # scatter around the mean, times the number of rows
        tt = sums["tt"] - rate_of(sums["t"] ** 2, rows)
        pp = sums["pp"] - rate_of(sums["p"] ** 2, rows)
        tp = sums["tp"] - rate_of(sums["t"] * sums["p"], rows)
        # Trap: a repetition of few rows may hold one value only; its scatter is then rounding noise.
        tt, pp = (np.where(s > 1e-12 * s[0], s, np.nan) for s in (tt, pp))
        mse = rate_of(sums["ee"], rows, empty=np.nan)
        return {
            "mse": mse,
            "rmse": np.sqrt(mse),
            "mae": rate_of(sums["absolute"], rows, empty=np.nan),
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
        state._sums = Sums.load(saved["sums"])
        if saved["origin"] is not None:
            state._origin = np.array(saved["origin"], np.float64)
            state._low, state._high = (np.array(edge, np.float64) for edge in saved["range"])
        return state


def _moved(sums: Sums, offset: np.ndarray) -> Sums:
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
