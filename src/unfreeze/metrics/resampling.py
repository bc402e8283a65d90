"""What states are made of: counts and sums that can be drawn anew, intervals of the draws, checks of what comes in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unfreeze.errors import NumericsError
from unfreeze.randomness import derived_seed

EPSILON = float(np.finfo(np.float64).eps)  # scikit-learn clips probabilities here before the logarithm
REPLICATES = 500  # repetitions of the streamed bootstrap; a multiple of four, see `bootstrap_weights`
_CHUNK_CELLS = 4_000_000  # numbers held at once while drawing: 32 MB


class Cells:
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
    def load(cls, saved: Mapping[str, Any]) -> Cells:
        cells = cls()
        cells.codes, cells.counts = (np.array(saved[name], np.int64) for name in ("codes", "counts"))
        return cells


class Sums:
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
            weights = bootstrap_weights(self.seed, rows[piece]).T  # (1 + REPLICATES, batch)
            self._take(
                {name: weights @ value[piece].astype(np.float64) for name, value in values.items()}
                | {"rows": weights.sum(axis=1)}
            )

    def merge(self, other: Sums) -> None:
        assert self.seed == other.seed, "states of different seeds cannot be merged"
        # Trap: rows counted from 0 in two processes would share their weights, and intervals would come out too wide.
        together = self.n > 0 and other.n > 0
        assert not (together and (self.counts_up or other.counts_up)), "merged states need `rows` in every update"
        self.counts_up |= other.counts_up
        self._take(other.values)

    def _take(self, values: Mapping[str, np.ndarray]) -> None:
        self.values = {name: value + self.values.get(name, 0.0) for name, value in values.items()} or self.values

    def copy(self) -> Sums:
        other = Sums(self.seed)
        other.values, other.counts_up = dict(self.values), self.counts_up
        return other

    def state_dict(self) -> dict[str, Any]:
        values = {name: value.tolist() for name, value in self.values.items()}
        return {"seed": self.seed, "counts_up": self.counts_up, "values": values}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Sums:
        sums = cls(int(saved["seed"]))
        sums.counts_up = bool(saved["counts_up"])
        sums.values = {name: np.array(value, np.float64) for name, value in saved["values"].items()}
        return sums


class SummedState(ABC):
    """What states that keep `Sums` have in common: which metrics are defined, and their values.

    Attributes:
        reasons: Metric to the reason why it is undefined, or has no interval.
    """

    reasons: dict[str, str]
    _sums: Sums

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._sums.n

    @abstractmethod
    def _undefined(self) -> dict[str, str]:
        """Metric to the reason why these rows leave it undefined."""

    @abstractmethod
    def _all(self) -> dict[str, np.ndarray]:
        """Every metric, (1 + REPLICATES,)."""

    def _percentiles(self, names: Sequence[str], level: float) -> dict[str, tuple[float, float]]:
        """Percentile intervals of the metrics of that name that are defined, from the streamed Poisson bootstrap."""
        if self.n == 0:
            return {}
        wanted = {name: value for name, value in self._defined().items() if name in names}
        return percentile_intervals(wanted, self._sums.drawn, level, self.reasons)

    def _defined(self) -> dict[str, np.ndarray]:
        undefined = self._undefined()
        return {name: value for name, value in self._all().items() if name not in undefined}

    def _computed(self, names: Sequence[str]) -> dict[str, float | None]:
        """The metrics of that name, None where undefined; `reasons` then has the metric's name and why."""
        values: dict[str, float | None] = dict.fromkeys(names)
        forget_reasons(self.reasons, names)
        if self.n == 0:
            self.reasons |= dict.fromkeys(names, "there are no rows")
            return values
        self.reasons |= self._undefined()
        return values | {name: float(value[0]) for name, value in self._defined().items()}


def _poisson_table() -> np.ndarray:
    """Poisson(1) for a uniform 16-bit number, (65536,)."""
    chances = np.exp(-1) / np.array([math.factorial(k) for k in range(13)])
    return np.searchsorted(chances.cumsum(), (np.arange(65536) + 0.5) / 65536).astype(np.float64)


_POISSON = _poisson_table()


def bootstrap_weights(seed: int, rows: np.ndarray) -> np.ndarray:
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


def draw_cells(counts: np.ndarray, draws: int, random: np.random.Generator) -> list[np.ndarray]:
    """Bootstrap counts of cells, in pieces of (some draws, cells) so that many cells do not fill the memory."""
    size = max(1, _CHUNK_CELLS // max(1, len(counts)))
    n = int(counts.sum())
    pieces = [min(size, draws - start) for start in range(0, draws, size)]
    return [random.multinomial(n, counts / n, size=piece) for piece in pieces]


def macro_f1(cells: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
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
    return np.asarray(rate_of(2 * correct, seen).sum(axis=0) / (seen > 0).sum(axis=0))


def rate_of(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """part / whole, and `empty` where whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, empty), where=whole != 0))


def label_rows(labels: list[str], correct: np.ndarray, given: np.ndarray, actual: np.ndarray) -> list[dict[str, Any]]:
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


def quantile_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    assert 0 < level < 1, f"a level is between 0 and 1, not {level}"
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def percentile_intervals(
    metrics: Mapping[str, np.ndarray], usable: np.ndarray, level: float, reasons: dict[str, str]
) -> dict[str, tuple[float, float]]:
    """Intervals of metrics (1 + REPLICATES,) over the usable repetitions; one that all agree on is left out."""
    found = {}
    forget_reasons(reasons, [f"{name} interval" for name in metrics])
    for name, values in metrics.items():
        drawn = values[1:][usable & np.isfinite(values[1:])]
        low, high = quantile_interval(drawn, level) if len(drawn) > REPLICATES // 2 else (0.0, 0.0)
        if low < high:
            found[name] = (low, high)
        else:
            reasons[f"{name} interval"] = "the rows are too few or too much alike: the bootstrap draws do not differ"
    return found


def forget_reasons(reasons: dict[str, str], names: Iterable[str]) -> None:
    """Drop reasons that are about to be found anew: rows may have come since."""
    for name in names:
        reasons.pop(name, None)


def wilson_interval(correct: int, n: int, level: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    low, high = binomtest(correct, n).proportion_ci(level, method="wilson")
    return float(low), float(high)


def agresti_min_interval(only_a: int, only_b: int, n: int, level: float) -> tuple[float, float]:
    """Interval of a paired difference of proportions: Wald's after half a row in each cell (Agresti and Min 2005)."""
    from scipy.stats import norm

    a, b, total = only_a + 0.5, only_b + 0.5, n + 2
    middle = (a - b) / total
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt((a + b) - (a - b) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def checked_ids(ids: np.ndarray, n_labels: int) -> np.ndarray:
    """Class ids as int64 (batch,), checked: an id out of range would be counted as another class."""
    ids = np.asarray(ids)
    assert ids.ndim == 1, f"class ids of shape {ids.shape}"
    assert np.issubdtype(ids.dtype, np.integer), f"class ids of type {ids.dtype}"
    assert ((ids >= 0) & (ids < n_labels)).all(), f"class ids must be below {n_labels}"
    return ids.astype(np.int64)


def checked_decisions(values: np.ndarray, n_labels: int) -> np.ndarray:
    """0 and 1 as booleans (batch, n_labels), checked: probabilities are no decisions."""
    values = np.asarray(values)
    assert values.shape == (len(values), n_labels), f"shape {values.shape} for {n_labels} labels"
    assert np.isin(values, (0, 1)).all(), "labels are 0 or 1"
    return values.astype(bool)


def checked_finite(values: np.ndarray, meaning: str) -> np.ndarray:
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
