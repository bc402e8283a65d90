"""Commands: what is wanted, and with which words; right where both are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import Cells, label_rows, rate_of
from unfreeze.metrics.spans import SpanState


class FrameState(SpanState):
    """Accuracy of intents, F1 of slots, and the share of rows in which intent and slots are right.

    The last is called sentence-level semantic frame accuracy by Goo et al. 2018, "Slot-Gated Modeling for Joint Slot
    Filling and Intent Prediction", section 3.2.

    Args:
        intents: Names of the intents.
        types: Types of slots; none: tags name no spans, and all words of a row must be right.
        seed: Of the bootstrap weights.
    """

    def __init__(self, intents: Sequence[str], types: Sequence[str], seed: int = 0) -> None:
        super().__init__(types, seed)
        self.intents = list(intents)
        self._cells = Cells()  # true and predicted intent

    def update_frames(
        self,
        intents: tuple[Sequence[int], Sequence[int]],
        tags: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]],
        rows: np.ndarray | None = None,
    ) -> None:
        """Add whole rows.

        Args:
            intents: Ids, true and predicted, one a row each.
            tags: Of the words of each row, true and predicted.
            rows: `Row.index` (rows,), needed where states will be merged; counted up from 0 without it.
        """
        true, said = (np.asarray(ids, dtype=np.int64) for ids in intents)
        counts = self._counts(*tags)
        hits = (true == said).astype(np.float64)
        self._sums.add(counts | {"intent": hits, "frame": hits * counts["exact"]}, rows)
        self._cells.add(true * len(self.intents) + said)

    def merge(self, other: SpanState) -> None:
        """Take in the rows of another state of the same intents, types and seed; both must have had `rows`."""
        assert isinstance(other, FrameState), "a state of frames is merged with its like"
        assert self.intents == other.intents, "states of different intents cannot be merged"
        super().merge(other)
        self._cells.add(other._cells.codes, other._cells.counts)

    def compute(self) -> dict[str, float | None]:
        """frame_accuracy and intent_accuracy, then those of `SpanState`."""
        own = self._computed(("frame_accuracy", "intent_accuracy"))
        return own | super().compute()

    def confusion(self) -> np.ndarray:
        """Rows by true and predicted intent, (intents, intents)."""
        n = len(self.intents)
        matrix = np.zeros(n * n, dtype=np.int64)
        matrix[self._cells.codes] = self._cells.counts
        return matrix.reshape(n, n)

    def per_intent(self) -> list[dict[str, Any]]:
        """label (an intent), precision, recall, f1 and support (rows) of each intent."""
        matrix = self.confusion().astype(np.float64)
        return label_rows(self.intents, np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1))

    def _all(self) -> dict[str, np.ndarray]:
        rows = self._sums["rows"]
        own = {
            "frame_accuracy": rate_of(self._sums["frame"], rows),
            "intent_accuracy": rate_of(self._sums["intent"], rows),
        }
        return own | super()._all()

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return super().state_dict() | {"intents": self.intents, "cells": self._cells.state_dict()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> FrameState:
        """The state that `state_dict` was taken from."""
        state = cls(saved["intents"], saved["types"])
        spans = SpanState.load(saved)
        state._sums, state._cells = spans._sums, Cells.load(saved["cells"])
        return state
