from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import unfreeze.baselines
from unfreeze.baselines import Baseline, linear_probe, majority, tfidf, usual_tags
from unfreeze.errors import DataError, NumericsError, RecipeError, TaskError

ONE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"
GOOD, BAD = ["good", "great", "fine"], ["poor", "awful", "broken"]


def reviews(rows: int) -> tuple[list[str], np.ndarray]:
    """Texts that one word decides: 1 for good, 0 for bad."""
    targets = np.array([int(i % 3 > 0) for i in range(rows)])
    words = [(GOOD if good else BAD)[i // 6 % 3] for i, good in enumerate(targets)]
    return [f"the {('soup', 'room')[i % 2]} was {word}" for i, word in enumerate(words)], targets


class TestMajority:
    def test_it_answers_the_most_frequent_class(self) -> None:
        found = majority(np.array([2, 0, 2]), 4, ONE, 3)
        assert found.predictions.tolist() == [2, 2, 2, 2]
        assert (found.name, found.notes) == ("majority", [])

    def test_of_equally_frequent_classes_it_takes_the_first(self) -> None:
        assert majority(np.array([2, 1]), 1, ONE, 3).predictions.tolist() == [1]

    def test_for_several_labels_it_answers_their_frequencies(self) -> None:
        found = majority(np.array([[1, 0], [1, 1], [1, 0], [0, 0]]), 2, SEVERAL, 2)
        assert found.predictions.tolist() == [[0.75, 0.25]] * 2

    def test_for_numbers_it_answers_the_mean(self) -> None:
        assert majority(np.array([1.0, 2.0, 6.0]), 2, NUMBER, 1).predictions.tolist() == [3.0, 3.0]

    def test_without_training_rows_or_with_an_unknown_kind_it_says_so(self) -> None:
        with pytest.raises(DataError, match="DATA-EMPTY"):
            majority(np.zeros(0, int), 1, ONE, 2)
        with pytest.raises(TaskError, match="did you mean 'regression'"):
            majority(np.ones(3), 1, "regresion", 1)

    def test_a_class_id_out_of_range_is_refused(self) -> None:
        with pytest.raises(AssertionError, match="below 2"):
            majority(np.array([0, 2]), 1, ONE, 2)


class TestTfidf:
    def test_it_learns_words_that_decide(self) -> None:
        texts, targets = reviews(60)
        found = tfidf(texts, targets, ["a great soup", "an awful room"], ONE, 2)
        assert found.predictions.tolist() == [1, 0]
        assert np.issubdtype(found.predictions.dtype, np.integer)
        assert (found.name, found.notes) == ("tfidf", [])

    def test_it_learns_word_order_in_pairs(self) -> None:
        texts = ["not good but bad", "not bad but good"] * 20
        found = tfidf(texts, np.array([0, 1] * 20), texts[:2], ONE, 2)
        assert found.predictions.tolist() == [0, 1]

    def test_it_answers_with_the_ids_of_the_training_rows_also_where_classes_are_missing(self) -> None:
        texts, targets = reviews(60)
        assert tfidf(texts, targets * 3 + 1, ["great", "awful"], ONE, 6).predictions.tolist() == [4, 1]

    def test_several_labels_get_a_probability_each_and_a_constant_one_a_note(self) -> None:
        texts, targets = reviews(60)
        sets = np.stack([targets, 1 - targets, 0 * targets, 0 * targets + 1], axis=1)
        found = tfidf(texts, sets, ["great", "awful"], SEVERAL, 4)
        assert (found.predictions[:, :2] > 0.5).tolist() == [[True, False], [False, True]]
        assert found.predictions[:, 2:].tolist() == [[0, 1]] * 2
        assert found.notes == ["label 2: no training rows have it", "label 3: all training rows have it"]

    def test_numbers_are_predicted(self) -> None:
        texts, targets = reviews(200)
        found = tfidf(texts, targets * 10.0 - 5, ["the soup was great", "the room was awful"], NUMBER, 1)
        assert found.predictions == pytest.approx([5, -5], abs=1)
        assert "ridge" in found.sentence

    def test_one_class_in_the_training_rows_gives_that_answer_and_a_note(self) -> None:
        found = tfidf(["a word", "another"], np.array([1, 1]), ["word", ""], ONE, 3)
        assert found.predictions.tolist() == [1, 1]
        assert found.notes == ["all training rows have the class 1, and so has every answer"]

    def test_class_weights_move_the_answers_towards_the_heavier_class(self) -> None:
        texts, targets = ["same words here"] * 10, np.array([0] * 8 + [1] * 2)
        answers = [
            tfidf(texts, targets, texts[:1], ONE, 2, class_weights=weights).predictions.tolist()
            for weights in (None, np.array([1.0, 10.0]))
        ]
        assert answers == [[0], [1]]
        sets = np.stack([targets, 1 - targets], axis=1)
        plain, heavy = (
            tfidf(texts, sets, texts[:1], SEVERAL, 2, class_weights=weights).predictions[0]
            for weights in (None, np.array([10.0, 1.0]))
        )
        assert heavy[0] > 0.6 > 0.4 > plain[0]
        assert heavy[1] == pytest.approx(plain[1])

    def test_class_weights_contradict_regression(self) -> None:
        with pytest.raises(RecipeError, match="regression has no classes"):
            tfidf(["a word"], np.ones(1), ["a word"], NUMBER, 1, class_weights=np.ones(1))

    def test_scripts_without_spaces_are_counted_in_characters(self) -> None:
        texts = ["这个房间很好", "这个房间很差", "汤很好喝", "服务很差"] * 5
        found = tfidf(texts, np.array([1, 0, 1, 0] * 5), ["房间很好", "汤很差"], ONE, 2)
        assert found.predictions.tolist() == [1, 0]
        assert "characters" in found.sentence
        assert "words" in tfidf(["good soup", "bad soup"], np.array([1, 0]), ["soup"], ONE, 2).sentence

    def test_texts_that_share_no_word_are_counted_all_the_same_and_that_is_said(self) -> None:
        texts = [f"word{i}" for i in range(1000)]
        found = tfidf(texts, np.arange(1000) % 2, ["word1", "word2"], ONE, 2)
        assert found.predictions.tolist() == [1, 0]
        assert len(found.notes) == 1

    def test_texts_without_words_are_an_error_that_names_the_column_setting(self) -> None:
        with pytest.raises(DataError, match=r"data\.text"):
            tfidf(["...", "!"], np.array([0, 1]), ["?"], ONE, 2)

    def test_without_rows_it_says_so(self) -> None:
        with pytest.raises(DataError, match="training rows"):
            tfidf([], np.zeros(0, int), ["a"], ONE, 2)
        with pytest.raises(DataError, match="test rows"):
            tfidf(["a word"], np.zeros(1, int), [], ONE, 2)

    @pytest.mark.parametrize("kind", ["trec6", "sst2"])
    def test_it_reaches_the_known_accuracy_on_real_rows(self, kind: str) -> None:
        if "UNFREEZE_DATA" not in os.environ:
            pytest.skip("UNFREEZE_DATA is not set")
        text, expected = {"trec6": ("text", 0.892), "sst2": ("sentence", 0.811)}[kind]
        splits = {}
        for split in ("train", "test"):
            with (Path(os.environ["UNFREEZE_DATA"]) / "dev" / kind / f"{split}.csv").open(newline="") as file:
                splits[split] = list(csv.DictReader(file))
        ids = {name: i for i, name in enumerate(sorted({row["label"] for row in splits["train"]}))}
        train, test = (np.array([ids[row["label"]] for row in splits[s]]) for s in ("train", "test"))
        texts = {s: [row[text] for row in rows] for s, rows in splits.items()}
        found = tfidf(texts["train"], train, texts["test"], ONE, len(ids))
        assert (found.predictions == test).mean() == pytest.approx(expected, abs=0.005)
        assert found.notes == []


class TestLinearProbe:
    def features(self, rows: int, width: int = 20) -> tuple[np.ndarray, np.ndarray]:
        """Features on very different scales, of which the first decides, and the score it gives."""
        random = np.random.default_rng(0)
        features = random.normal(size=(rows, width)).astype(np.float32)
        score = features[:, 0].copy()
        return features * np.logspace(-3, 3, width, dtype=np.float32) + 7, score

    def test_it_finds_the_feature_that_decides_whatever_its_scale(self) -> None:
        features, score = self.features(600)
        targets = (score > 0).astype(int) * 2
        found = linear_probe(features[:400], targets[:400], features[400:], ONE, 3)
        assert (found.predictions == targets[400:]).mean() > 0.95
        assert (found.name, found.notes) == ("frozen features", [])

    def test_several_labels_get_a_probability_each(self) -> None:
        features, score = self.features(600)
        targets = np.stack([score > 0, score > 0.5, score > 99], axis=1).astype(int)
        found = linear_probe(features[:400], targets[:400], features[400:], SEVERAL, 3)
        assert found.predictions.shape == (200, 3)
        assert ((found.predictions >= 0.5) == targets[400:]).mean() > 0.95
        assert found.notes == ["label 2: no training rows have it"]

    def test_numbers_are_predicted(self) -> None:
        features, score = self.features(600)
        found = linear_probe(features[:400], 3 * score[:400] + 100, features[400:], NUMBER, 1)
        assert found.predictions == pytest.approx(3 * score[400:] + 100, abs=0.3)

    def test_noise_gets_a_stronger_regularisation_than_a_clear_signal(self) -> None:
        features, score = self.features(400)
        coin = np.random.default_rng(1).integers(0, 2, 400)
        strengths = [
            float(linear_probe(features, targets, features, ONE, 2).sentence.split("C=")[1])
            for targets in (coin, (score > 0).astype(int))
        ]
        assert strengths[0] <= 0.01 < strengths[1]

    def test_it_is_the_same_twice(self) -> None:
        features, score = self.features(100)
        targets = np.stack([score > 0], axis=1).astype(int)
        first, second = (linear_probe(features, targets, features, SEVERAL, 1, seed=3) for _ in range(2))
        assert (first.predictions == second.predictions).all()

    @pytest.mark.parametrize("rows", [1, 2, 3])
    def test_a_handful_of_rows_is_enough_to_answer(self, rows: int) -> None:
        features, score = self.features(5)
        for targets, kind in [
            (np.arange(rows), ONE),
            (np.eye(rows, 3, dtype=int), SEVERAL),
            (score[:rows], NUMBER),
        ]:
            found = linear_probe(features[:rows], targets, features, kind, 3)
            assert len(found.predictions) == 5
            assert np.isfinite(found.predictions).all()

    def test_a_fit_that_stops_early_is_a_note_and_not_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unfreeze.baselines, "_ITERATIONS", 1)
        features, score = self.features(100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = linear_probe(features, (score > 0).astype(int), features, ONE, 2)
        assert found.notes == ["a fit did not converge: this baseline may be better than shown"]

    def test_a_feature_that_is_not_a_number_is_an_error_with_its_row(self) -> None:
        features, score = self.features(10)
        features[3, 2] = np.inf
        with pytest.raises(NumericsError, match="training row 3"):
            linear_probe(features, (score > 0).astype(int), features, ONE, 2)

    def test_without_test_rows_it_says_so(self) -> None:
        features, score = self.features(10)
        with pytest.raises(DataError, match="test rows"):
            linear_probe(features, (score > 0).astype(int), features[:0], ONE, 2)


def test_every_baseline_says_in_a_sentence_what_it_is() -> None:
    texts, targets = reviews(30)
    features = np.random.default_rng(0).normal(size=(30, 4))
    found: list[Baseline] = [
        majority(targets, 30, ONE, 2),
        tfidf(texts, targets, texts, ONE, 2),
        linear_probe(features, targets, features, ONE, 2),
    ]
    assert [b.name for b in found] == ["majority", "tfidf", "frozen features"]
    assert all(b.sentence and b.seconds >= 0 and len(b.predictions) == 30 for b in found)


def test_the_usual_tag_of_a_word_is_its_most_frequent() -> None:
    words = [["Ada", "in", "Rome"], ["Rome", "in"], ["Rome"]]
    tags = [["PER", "O", "LOC"], ["LOC", "O"], ["O"]]
    found = usual_tags(words, tags, [["Rome", "Ada", "unknown"]])
    assert found.predictions == [["LOC", "PER", "O"]]
    assert "'O' for unknown words" in found.sentence
    with pytest.raises(DataError, match="training rows"):
        usual_tags([], [], words)
