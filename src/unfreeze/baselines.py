"""What a model must beat: baselines trained on the same rows and asked the same test rows.

=================  ================================================  ===========================================
name               what it is                                        what it costs (one core)
=================  ================================================  ===========================================
majority           the same answer for every row                     nothing
tfidf              words and word pairs, a linear model              seconds for 10,000 rows
frozen features    the pretrained model as it came, a linear model   seconds, once the features are there
usual tags         each word's most frequent tag                     nothing
lead-3, copy       the first sentences, or all, of what is read      nothing
=================  ================================================  ===========================================

A fine-tuned model that does not beat the second has learned nothing that counting words could not do; one that does not
beat the third had no need of fine-tuning. `metrics.PairedState` says whether a lead is more than chance.

Example:
    >>> majority(np.array([0, 1, 1]), 2, "single_label_classification", 2).predictions
    array([1, 1])
"""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unfreeze.errors import DataError, NumericsError, RecipeError, TaskError, did_you_mean
from unfreeze.metrics.texts import UNSPACED
from unfreeze.randomness import generator

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

# TF-IDF. With these settings: sst2 0.811, trec6 0.892, imdb 0.899 (10,000 rows), banking77 0.891, scicite 0.826.
TFIDF_C = 10.0
TFIDF_RIDGE_ALPHA = 0.1
_FEW_ROWS = 1000  # below, a word that occurs once is kept
_UNSPACED = re.compile(f"[{UNSPACED}]")

# Linear probe: inverse strengths that are tried, on features of mean 0 and variance 1
PROBE_C = (0.001, 0.01, 0.1, 1.0)
PROBE_RIDGE_ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
_INNER_ROWS = 4000  # rows of the inner split: enough to choose between four values
_INNER_HELD_OUT = 0.25
_ITERATIONS = 300


@dataclass(frozen=True, slots=True)
class Baseline:
    """The answers of one baseline on the test rows.

    Attributes:
        name: As in the table of this module; two that answer a part of each row are joined by "and".
        sentence: What it is, for the report.
        predictions: Class ids (n,), probabilities (n, n_labels) for multi-label, numbers (n,) for regression; a list of
            tags, an intent with them, or a text, a row; shares of pixels that are right (n,).
        seconds: Wall time of fitting and predicting.
        notes: What a reader must know: a fit that did not converge, a label without training rows.
    """

    name: str
    sentence: str
    predictions: np.ndarray | list[Any]
    seconds: float
    notes: list[str] = field(default_factory=list)


def majority(train_targets: np.ndarray, n_test: int, problem_type: str, n_labels: int) -> Baseline:
    """The same answer for every row, from the training targets alone.

    The most frequent class (the first of several), the frequency of each label, or the mean.

    Args:
        train_targets: Class ids (n,), 0 or 1 (n, n_labels), or numbers (n,).
        n_test: Rows to answer.
        problem_type: As in Hugging Face configurations, see `PROBLEM_TYPES`.
        n_labels: Number of classes or labels.

    Raises:
        DataError: E-DATA-EMPTY without training rows.
        TaskError: E-TASK for an unknown problem type.
    """
    start = time.perf_counter()
    targets = _targets(train_targets, problem_type, n_labels)
    if problem_type == "single_label_classification":
        answer, sentence = np.bincount(targets).argmax(), "the most frequent class for every row"
    elif problem_type == "multi_label_classification":
        answer, sentence = targets.mean(axis=0), "each label's frequency in the training rows, for every row"
    else:
        answer, sentence = targets.mean(), "the mean of the training targets for every row"
    predictions = np.repeat(np.asarray(answer)[None], n_test, axis=0)
    return Baseline("majority", sentence, predictions, time.perf_counter() - start)


def tfidf(
    train_texts: Sequence[str],
    train_targets: np.ndarray,
    test_texts: Sequence[str],
    problem_type: str,
    n_labels: int,
    class_weights: np.ndarray | None = None,
    seed: int = 0,
) -> Baseline:
    """Words and word pairs weighted by TF-IDF, and a linear model: what counting words can do.

    Scripts without spaces between words are counted in pieces of one to three characters. Several labels are one
    logistic regression each; numbers are ridge regression.

    Args:
        train_texts: n texts.
        train_targets: Class ids (n,), 0 or 1 (n, n_labels), or numbers (n,).
        test_texts: Texts to answer.
        problem_type: As in Hugging Face configurations, see `PROBLEM_TYPES`.
        n_labels: Number of classes or labels.
        class_weights: (n_labels,) weight of the rows of a class; of the rows that have a label, for multi-label.
        seed: Of the solvers. Those in use draw nothing, so that the answers are the same for every seed.

    Raises:
        DataError: E-DATA-EMPTY without training or test rows, E-DATA-TEXT where no text holds anything to count.
        RecipeError: E-RECIPE-CONFLICT for class weights in regression.
        TaskError: E-TASK for an unknown problem type.
    """
    start = time.perf_counter()
    targets = _targets(train_targets, problem_type, n_labels)
    assert len(train_texts) == len(targets), f"{len(train_texts)} texts, {len(targets)} targets"
    _check_test(len(test_texts))
    if class_weights is not None and problem_type == "regression":
        raise RecipeError(
            "RECIPE-CONFLICT",
            "class weights were given, but regression has no classes",
            remedy="remove train.class_weights",
        )
    fit = _Linear(class_weights=class_weights, seed=seed % 2**32)
    train, test, unit = _counted(train_texts, test_texts, fit.notes)
    predictions = fit.predict(train, targets, test, problem_type)
    model = "ridge regression" if problem_type == "regression" else "logistic regression"
    return Baseline("tfidf", f"TF-IDF of {unit}, {model}", predictions, time.perf_counter() - start, fit.notes)


def usual_tags(
    train_words: Iterable[Sequence[str]], train_tags: Iterable[Sequence[str]], test_words: Iterable[Sequence[str]]
) -> Baseline:
    """Each word gets the tag it has most often in the training rows; unknown words the most frequent tag of all.

    Args:
        train_words, train_tags: A list a row, of one length.
        test_words: A list a row.
    """
    start = time.perf_counter()
    by_word: dict[str, Counter[str]] = {}
    of_all: Counter[str] = Counter()
    for words, tags in zip(train_words, train_tags, strict=True):
        of_all.update(tags)
        for word, tag in zip(words, tags, strict=True):
            by_word.setdefault(word, Counter())[tag] += 1
    if not of_all:
        raise DataError("DATA-EMPTY", "a baseline needs training rows and there are none")
    # Of tags that are as frequent the first by name, whatever the order of the rows.
    usual = {word: min(found, key=lambda tag: (-found[tag], tag)) for word, found in by_word.items()}
    other = min(of_all, key=lambda tag: (-of_all[tag], tag))
    answers = [[usual.get(word, other) for word in words] for words in test_words]
    sentence = f"each word's most frequent tag, {other!r} for unknown words"
    return Baseline("usual tags", sentence, answers, time.perf_counter() - start)


def _counted(train_texts: Sequence[str], test_texts: Sequence[str], notes: list[str]) -> tuple[Any, Any, str]:
    """Sparse TF-IDF matrices of both splits, and what was counted."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    settings: dict[str, Any] = {"ngram_range": (1, 2)}
    unit = "words and word pairs"
    if _is_unspaced(train_texts):
        settings, unit = {"analyzer": "char", "ngram_range": (1, 3)}, "pieces of one to three characters"
    min_rows = 1 if len(train_texts) < _FEW_ROWS else 2
    try:
        try:
            vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=min_rows, **settings).fit(train_texts)
        except ValueError:
            if min_rows == 1:
                raise
            vectorizer = TfidfVectorizer(sublinear_tf=True, **settings).fit(train_texts)
            notes.append("nothing occurs in two training texts: what occurs in one was counted too")
    except ValueError as error:
        raise DataError(
            "DATA-TEXT",
            f"the {len(train_texts)} training texts hold no {unit} to count",
            remedy="check data.text: the column may be the wrong one",
        ) from error
    return vectorizer.transform(train_texts), vectorizer.transform(test_texts), unit


def _is_unspaced(texts: Sequence[str]) -> bool:
    """Whether a sample of the texts is written in a script without spaces between words."""
    sample = "".join(texts[index] for index in range(0, len(texts), max(1, len(texts) // 200)))
    return len(_UNSPACED.findall(sample)) > 0.3 * sum(map(str.isalpha, sample))


def linear_probe(
    train_features: np.ndarray,
    train_targets: np.ndarray,
    test_features: np.ndarray,
    problem_type: str,
    n_labels: int,
    seed: int = 0,
) -> Baseline:
    """A linear model on the features of the untouched pretrained model: what fine-tuning has to add to.

    Features are standardised; the regularisation is chosen on held-out training rows (for numbers by leave-one-out,
    which ridge regression has in closed form), then all training rows are fitted.

    Args:
        train_features: (n, width), one vector a row.
        train_targets: Class ids (n,), 0 or 1 (n, n_labels), or numbers (n,).
        test_features: (n_test, width).
        problem_type: As in Hugging Face configurations, see `PROBLEM_TYPES`.
        n_labels: Number of classes or labels.
        seed: Of the inner split.

    Raises:
        DataError: E-DATA-EMPTY without training or test rows.
        NumericsError: E-NOT-FINITE for a feature that is not a number.
        TaskError: E-TASK for an unknown problem type.
    """
    from sklearn.preprocessing import StandardScaler

    start = time.perf_counter()
    targets = _targets(train_targets, problem_type, n_labels)
    assert len(train_features) == len(targets), f"{len(train_features)} feature rows, {len(targets)} targets"
    _check_test(len(test_features))
    _check_finite(train_features, "training")
    _check_finite(test_features, "test")
    scaler = StandardScaler().fit(np.asarray(train_features, np.float32))
    train, test = (scaler.transform(np.asarray(f, np.float32)) for f in (train_features, test_features))
    if problem_type == "regression":
        train, test = train.astype(np.float64), test.astype(np.float64)
        fit, model = _Linear(alpha=PROBE_RIDGE_ALPHAS), "ridge regression"
    else:
        fit = _Linear(_chosen_c(train, targets, problem_type, seed))
        model = f"logistic regression with C={fit.c:g}"
    predictions = fit.predict(train, targets, test, problem_type)
    sentence = f"features of the frozen pretrained model, {model}"
    return Baseline("frozen features", sentence, predictions, time.perf_counter() - start, fit.notes)


def _chosen_c(features: np.ndarray, targets: np.ndarray, problem_type: str, seed: int) -> float:
    """The value of `PROBE_C` with the lowest loss on held-out rows, from at most `_INNER_ROWS` rows."""
    order = generator(seed, "linear probe").permutation(len(targets))[:_INNER_ROWS]
    cut = int(len(order) * (1 - _INNER_HELD_OUT))
    fitted, held = order[:cut], order[cut:]
    if cut == 0:
        return PROBE_C[len(PROBE_C) // 2]

    def loss(c: float) -> float:
        fit = _Linear(c)
        chances = fit.chances(features[fitted], targets[fitted], features[held], problem_type)
        return _held_out_loss(chances, targets[held])

    return min(PROBE_C, key=loss)


def _held_out_loss(chances: tuple[np.ndarray, np.ndarray], targets: np.ndarray) -> float:
    """Mean cross entropy; rows of classes that the fitted rows do not have say nothing and are left out."""
    classes, probability = chances
    probability = np.clip(probability, 1e-7, 1 - 1e-7)
    if targets.ndim == 2:
        return float(-np.log(np.where(targets == 1, probability, 1 - probability)).mean())
    known = np.isin(targets, classes)
    column = np.searchsorted(classes, targets[known])
    return float(-np.log(probability[known, column]).mean()) if known.any() else 0.0


@dataclass(slots=True)
class _Linear:
    """One linear model for each kind of target. A constant target gets a constant answer and a note."""

    c: float = TFIDF_C
    alpha: float | tuple[float, ...] = TFIDF_RIDGE_ALPHA  # several: the best by leave-one-out is taken
    class_weights: np.ndarray | None = None
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    def predict(self, train: Any, targets: np.ndarray, test: Any, problem_type: str) -> np.ndarray:
        """Answers as in `Baseline.predictions`."""
        if problem_type == "regression":
            return self._ridge(train, targets, test)
        classes, chances = self.chances(train, targets, test, problem_type)
        if problem_type == "multi_label_classification":
            return chances
        if len(classes) == 1:
            self.notes.append(f"all training rows have the class {classes[0]}, and so has every answer")
        return np.asarray(classes[chances.argmax(axis=1)])

    def _ridge(self, train: Any, targets: np.ndarray, test: Any) -> np.ndarray:
        from sklearn.linear_model import Ridge, RidgeCV

        if targets.min() == targets.max():
            self.notes.append(f"all training rows have the target {targets[0]:g}, and so has every answer")
            return np.full(test.shape[0], targets[0])
        model = RidgeCV(self.alpha) if isinstance(self.alpha, tuple) else Ridge(self.alpha, random_state=self.seed)
        return np.asarray(model.fit(train, targets).predict(test))

    def chances(self, train: Any, targets: np.ndarray, test: Any, problem_type: str) -> tuple[np.ndarray, np.ndarray]:
        """The classes that occur (classes,) and their probabilities (n_test, classes); for multi-label all labels."""
        if problem_type == "single_label_classification":
            weights = None if self.class_weights is None else np.asarray(self.class_weights)[targets]
            return self._logistic(train, targets, test, weights)
        labels = np.arange(targets.shape[1])
        columns = [self._label_chance(train, targets, test, int(label)) for label in labels]
        return labels, np.stack(columns, axis=1)

    def _label_chance(self, train: Any, targets: np.ndarray, test: Any, label: int) -> np.ndarray:
        target = targets[:, label]
        if target.min() == target.max():
            self.notes.append(f"label {label}: {'all' if target[0] else 'no'} training rows have it")
            return np.full(test.shape[0], float(target[0]))
        weights = None if self.class_weights is None else np.where(target == 1, self.class_weights[label], 1.0)
        return self._logistic(train, target, test, weights)[1][:, 1]

    def _logistic(
        self, train: Any, target: np.ndarray, test: Any, weights: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.linear_model import LogisticRegression

        classes = np.unique(target)
        if len(classes) == 1:
            return classes, np.ones((test.shape[0], 1))
        with _convergence_noted(self.notes):
            model = LogisticRegression(C=self.c, max_iter=_ITERATIONS, random_state=self.seed)
            model.fit(train, target, sample_weight=weights)
        return np.asarray(model.classes_), np.asarray(model.predict_proba(test))


@contextmanager
def _convergence_noted(notes: list[str]) -> Iterator[None]:
    """Turn a solver's warning that it stopped early into a note; other warnings go on their way."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    early = "a fit did not converge: this baseline may be better than shown"
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif early not in notes:
            notes.append(early)


def _targets(targets: np.ndarray, problem_type: str, n_labels: int) -> np.ndarray:
    """Targets as an array of the right kind, checked."""
    if problem_type not in PROBLEM_TYPES:
        what = f"there is no baseline for the problem type {problem_type!r}"
        raise TaskError("TASK", what, remedy=did_you_mean(problem_type, PROBLEM_TYPES))
    if len(targets) == 0:
        raise DataError("DATA-EMPTY", "a baseline needs training rows and there are none")
    if problem_type == "regression":
        numbers = np.asarray(targets, np.float64)
        assert numbers.ndim == 1, f"targets of shape {numbers.shape}"
        return numbers
    ids = np.asarray(targets)
    if problem_type == "multi_label_classification":
        assert ids.shape == (len(ids), n_labels), f"targets of shape {ids.shape} for {n_labels} labels"
        assert np.isin(ids, (0, 1)).all(), "labels are 0 or 1"
    else:
        assert ids.ndim == 1, f"class ids of shape {ids.shape}"
        assert np.issubdtype(ids.dtype, np.integer), f"class ids of type {ids.dtype}"
        assert ((ids >= 0) & (ids < n_labels)).all(), f"class ids must be below {n_labels}"
    return ids.astype(np.int64)


def _check_test(n_test: int) -> None:
    if n_test == 0:
        raise DataError("DATA-EMPTY", "a baseline was asked to answer test rows and there are none")


def _check_finite(features: np.ndarray, split: str) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise NumericsError(
            "NOT-FINITE",
            f"the features of {len(bad)} {split} rows are not finite",
            where=f"{split} row {bad[0]}",
            remedy="compute the features in float32: half precision may have overflowed",
        )
