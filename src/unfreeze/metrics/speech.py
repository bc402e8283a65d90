"""What was heard beside what was said: errors by word and by character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import SummedState, Sums, rate_of


def errors(heard: str, said: str) -> tuple[int, int, int, int]:
    """Wrong words, true words, wrong characters, true characters: substituted, left out and added ones are wrong.

    >>> errors("one two two", "one two")
    (1, 2, 4, 7)
    """
    import jiwer

    if not said.split():
        return len(heard.split()), 0, len(heard), 0
    words, characters = jiwer.process_words(said, heard), jiwer.process_characters(said, heard)
    wrong = [found.substitutions + found.deletions + found.insertions for found in (words, characters)]
    true = [found.substitutions + found.deletions + found.hits for found in (words, characters)]
    return wrong[0], true[0], wrong[1], true[1]


class SpeechState(SummedState):
    """Word and character error rates: all errors over all true words, so that long recordings count for more.

    Args:
        seed: Of the bootstrap weights, which are drawn for recordings.
    """

    metrics = ("wer", "cer", "exact_match")

    def __init__(self, seed: int = 0) -> None:
        self.reasons: dict[str, str] = {}
        self._sums = Sums(seed)

    def update(self, heard: Sequence[str], said: Sequence[str], rows: np.ndarray | None = None) -> None:
        """Add recordings.

        Args:
            heard: What the model understood of each.
            said: The true transcripts.
            rows: `Row.index` (rows,), needed where states will be merged.
        """
        found = np.asarray([errors(h, s) for h, s in zip(heard, said, strict=True)], np.float64).reshape(-1, 4)
        names = ("wrong_words", "words", "wrong_characters", "characters")
        parts = {name: found[:, i] for i, name in enumerate(names)}
        self._sums.add(parts | {"exact": (found[:, 2] == 0).astype(np.float64)}, rows)

    def merge(self, other: SpeechState) -> None:
        """Take in the rows of another state; both must have had `rows`."""
        self._sums.merge(other._sums)

    def compute(self) -> dict[str, float | None]:
        """The `metrics`; None where undefined, with `reasons`."""
        return self._computed(self.metrics)

    def intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals from the streamed Poisson bootstrap over recordings."""
        return self._percentiles(self.metrics, level)

    def _undefined(self) -> dict[str, str]:
        return {} if self._sums["words"][0] else dict.fromkeys(("wer", "cer"), "nothing was said")

    def _all(self) -> dict[str, np.ndarray]:
        sums = self._sums
        return {
            "wer": rate_of(sums["wrong_words"], sums["words"]),
            "cer": rate_of(sums["wrong_characters"], sums["characters"]),
            "exact_match": rate_of(sums["exact"], sums["rows"]),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"sums": self._sums.state_dict()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> SpeechState:
        """The state that `state_dict` was taken from."""
        state = cls()
        state._sums = Sums.load(saved["sums"])
        return state
