"""Texts that a model wrote beside texts that people wrote: ROUGE, and how often both are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from unfreeze.metrics.resampling import SummedState, Sums, rate_of

ROUGE = ("rouge1", "rouge2", "rougeL")
# Han, kana, Thai, Lao, Khmer, Burmese are written without spaces between words: each character is taken for one.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED = re.compile(f"[{UNSPACED}]")
_ASCII_WORD = re.compile("[a-z0-9]+")
_STEMMED_FROM = 4  # letters, as in the reference implementation


class _Words:
    """How ROUGE divides a text.

    Trap: the reference implementation knows no letters but a to z, so that every text in another alphabet scores 0. For
    texts in ASCII this gives the same words as it does, stems included.
    """

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        words = _words_of(text.lower())
        return [self._stem(w) if len(w) >= _STEMMED_FROM and w.isascii() else w for w in words]


def _words_of(text: str) -> list[str]:
    """Runs of letters, numbers and the marks that belong to them.

    Trap: the vowel signs of Hindi, Bengali or Tamil are no letters to a regular expression's ``\\w``, nor are accents
    that are written apart: words would fall into single consonants.

    >>> _words_of("हिंदी भाषा, 3 ชา")
    ['हिंदी', 'भाषा', '3', 'ช', 'า']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text)
    words, open_word = [], ""
    for letter in unicodedata.normalize("NFC", text):
        is_alone = _UNSPACED.match(letter) is not None
        if not is_alone and (letter.isalnum() or unicodedata.category(letter).startswith("M")):
            open_word += letter
            continue
        words += [open_word] * bool(open_word) + [letter] * is_alone
        open_word = ""
    return words + [open_word] * bool(open_word)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), tokenizer=_Words())


def rouge(said: str, true: Sequence[str]) -> tuple[float, float, float]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), each with the true text that suits it best.

    >>> rouge("the cat sat", ["the cat sat"])
    (1.0, 1.0, 1.0)
    """
    found = _scorer().score_multi(list(true), said)
    return found["rouge1"].fmeasure, found["rouge2"].fmeasure, found["rougeL"].fmeasure


def are_same(said: str, true: Sequence[str]) -> bool:
    """Whether a text is one of the true ones, but for white space."""
    return " ".join(said.split()) in {" ".join(text.split()) for text in true}


class TextState(SummedState):
    """ROUGE as `rouge` has it, the mean over rows; exact match; the mean number of words that were written.

    Args:
        seed: Of the bootstrap weights.
    """

    metrics = (*ROUGE, "exact_match", "written_words")

    def __init__(self, seed: int = 0) -> None:
        self.reasons: dict[str, str] = {}
        self._sums = Sums(seed)

    def update(self, said: Sequence[str], true: Sequence[Sequence[str]], rows: np.ndarray | None = None) -> None:
        """Add texts.

        Args:
            said: What the model wrote for each row.
            true: What people wrote for each, at least one text.
            rows: `Row.index` (rows,), needed where states will be merged.
        """
        scores = np.asarray([rouge(s, t) for s, t in zip(said, true, strict=True)], np.float64).reshape(-1, len(ROUGE))
        parts = {name: scores[:, i] for i, name in enumerate(ROUGE)}
        parts["exact_match"] = np.asarray([are_same(s, t) for s, t in zip(said, true, strict=True)], np.float64)
        parts["written_words"] = np.asarray([len(text.split()) for text in said], np.float64)
        self._sums.add(parts, rows)

    def merge(self, other: TextState) -> None:
        """Take in the rows of another state; both must have had `rows`."""
        self._sums.merge(other._sums)

    def compute(self) -> dict[str, float | None]:
        """The `metrics`; None where undefined, with `reasons`."""
        return self._computed(self.metrics)

    def intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile intervals from the streamed Poisson bootstrap over rows."""
        return self._percentiles(self.metrics, level)

    def _undefined(self) -> dict[str, str]:
        return {}

    def _all(self) -> dict[str, np.ndarray]:
        return {name: rate_of(self._sums[name], self._sums["rows"]) for name in self.metrics}

    def state_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"sums": self._sums.state_dict()}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> TextState:
        """The state that `state_dict` was taken from."""
        state = cls()
        state._sums = Sums.load(saved["sums"])
        return state
