from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from unfreeze.errors import DataError, NumericsError, TaskError
from unfreeze.metrics import (
    REPLICATES,
    ClassificationState,
    MultiLabelState,
    PairedState,
    RegressionState,
)
from unfreeze.metrics.resampling import bootstrap_weights, macro_f1


def names(count: int) -> list[str]:
    return [f"label {i}" for i in range(count)]


def answers(seed: int, rows: int, classes: int, right: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True ids, predicted ids and probabilities whose top class is the predicted one."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, rows)
    predicted = np.where(random.random(rows) < right, true, random.integers(0, classes, rows))
    logits = random.normal(size=(rows, classes))
    logits[np.arange(rows), predicted] = logits.max(axis=1) + random.random(rows)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return true, predicted, probability


def label_sets(seed: int, rows: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    true = (random.random((rows, labels)) < np.linspace(0.1, 0.5, labels)).astype(int)
    return true, np.clip(0.3 * true + 0.7 * random.random((rows, labels)), 0, 1)


def through_json(state):
    return type(state).load(json.loads(json.dumps(state.state_dict(), allow_nan=False)))


class TestClassification:
    @pytest.mark.parametrize(("classes", "used"), [(2, 2), (5, 5), (9, 6)])
    def test_equals_scikit_learn_also_where_classes_are_missing(self, classes: int, used: int) -> None:
        true, predicted, probability = answers(0, 400, used, 0.7)
        padded = np.zeros((400, classes))
        padded[:, :used] = probability
        state = ClassificationState(names(classes))
        for start in range(0, 400, 64):
            piece = slice(start, start + 64)
            state.update(true[piece], predicted[piece], padded[piece])
        found = state.compute()
        assert found["accuracy"] == sk.accuracy_score(true, predicted)
        for name, average in [("f1", "macro"), ("f1_weighted", "weighted")]:
            assert found[name] == pytest.approx(sk.f1_score(true, predicted, average=average), rel=1e-12)
        assert found["precision"] == pytest.approx(sk.precision_score(true, predicted, average="macro"), rel=1e-12)
        assert found["recall"] == pytest.approx(sk.recall_score(true, predicted, average="macro"), rel=1e-12)
        assert found["log_loss"] == pytest.approx(sk.log_loss(true, padded, labels=np.arange(classes)), rel=1e-9)
        assert (state.confusion() == sk.confusion_matrix(true, predicted, labels=np.arange(classes))).all()
        assert state.reasons == {}

    def test_per_class_equals_scikit_learn_and_has_none_where_nothing_can_be_divided(self) -> None:
        true, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
        state = ClassificationState(names(4))
        state.update(true, predicted)
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            true, predicted, labels=range(4), zero_division=0
        )
        rows = state.per_class()
        assert [r["support"] for r in rows] == support.tolist() == [2, 2, 1, 0]
        assert [r["precision"] for r in rows] == [*precision[:2].tolist(), None, None]
        assert [r["recall"] for r in rows] == [*recall[:3].tolist(), None]
        assert [r["f1"] for r in rows] == [pytest.approx(f1[0]), pytest.approx(f1[1]), 0.0, None]

    def test_calibration_error_of_confident_halves_is_known(self) -> None:
        state = ClassificationState(names(2))
        # four rows at confidence 0.9, three of them right; four at 0.6, all right
        probability = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
        true = np.array([0, 0, 0, 1, 0, 0, 0, 0])
        state.update(true, probability.argmax(axis=1), probability)
        assert state.compute()["ece"] == pytest.approx(0.5 * abs(0.75 - 0.9) + 0.5 * abs(1 - 0.6))
        bins = {round(b["confidence"], 6): b for b in state.calibration()["bins"] if b["count"]}
        assert {c: (b["accuracy"], b["count"]) for c, b in bins.items()} == {0.9: (0.75, 4), 0.6: (1.0, 4)}
        assert all(b["low"] < b["confidence"] <= b["high"] for b in bins.values())

    def test_a_calibrated_model_has_a_small_calibration_error_and_an_overconfident_one_a_large_one(self) -> None:
        random = np.random.default_rng(1)
        chance = random.uniform(0.5, 1, 20_000)
        true = (random.random(20_000) < chance).astype(int)
        errors = []
        for said in (chance, np.full(20_000, 0.99)):
            state = ClassificationState(names(2))
            state.update(true, np.ones(20_000, int), np.stack([1 - said, said], axis=1))
            errors.append(state.compute()["ece"])
        assert errors[0] < 0.02
        assert errors[1] == pytest.approx(0.99 - true.mean(), abs=1e-9)

    def test_without_rows_everything_is_none_with_a_reason(self) -> None:
        state = ClassificationState(names(2))
        found = state.compute()
        assert set(found.values()) == {None}
        assert set(state.reasons) == set(found)
        assert state.intervals() == {}

    def test_rows_of_one_class_have_an_accuracy_but_no_average_over_classes(self) -> None:
        state = ClassificationState(["yes", "no"])
        state.update(np.array([1, 1, 1]), np.array([1, 0, 1]))
        found = state.compute()
        assert found["accuracy"] == pytest.approx(2 / 3)
        assert [found[n] for n in ("f1", "f1_weighted", "precision", "recall")] == [None] * 4
        assert "'no'" in state.reasons["f1"]
        assert "f1" not in state.intervals()
        state.update(np.array([0]), np.array([0]))
        assert state.compute()["f1"] is not None
        assert "f1" not in state.reasons

    def test_probabilities_of_some_rows_only_give_no_log_loss(self) -> None:
        true, predicted, probability = answers(0, 10, 3, 0.7)
        state = ClassificationState(names(3))
        state.update(true, predicted, probability)
        state.update(true, predicted)
        assert state.compute()["log_loss"] is None
        assert "10 of 20" in state.reasons["log_loss"]
        assert "10 of 20" in state.reasons["ece"]

    def test_a_probability_that_is_not_a_number_is_an_error_and_counts_nothing(self) -> None:
        state = ClassificationState(names(2))
        with pytest.raises(NumericsError, match="row 1 of the batch"):
            state.update(np.array([0, 1]), np.array([0, 1]), np.array([[0.5, 0.5], [math.nan, 1.0]]))
        assert state.n == 0

    def test_an_id_out_of_range_is_refused_rather_than_counted_as_another_class(self) -> None:
        with pytest.raises(AssertionError, match="below 2"):
            ClassificationState(names(2)).update(np.array([0]), np.array([2]))

    def test_merging_equals_updating_with_all_rows(self) -> None:
        true, predicted, probability = answers(3, 300, 5, 0.6)
        whole, parts = ClassificationState(names(5)), [ClassificationState(names(5)) for _ in range(3)]
        whole.update(true, predicted, probability)
        for part, index in zip(parts, np.array_split(np.random.default_rng(0).permutation(300), 3), strict=True):
            part.update(true[index], predicted[index], probability[index])
        parts[0].merge(parts[1])
        parts[0].merge(through_json(parts[2]))
        assert parts[0].compute() == pytest.approx(whole.compute(), rel=1e-12)
        assert parts[0].intervals(5) == whole.intervals(5)

    def test_its_size_does_not_grow_with_rows(self) -> None:
        sizes = []
        state = ClassificationState(names(4))
        for seed in range(100):
            state.update(*answers(seed, 1000, 4, 0.7))
            sizes.append(len(state.state_dict()["cells"]["codes"]))
        assert state.n == 100_000
        assert max(sizes) == sizes[1] == 16

    def test_intervals_depend_on_the_seed_only(self) -> None:
        true, predicted, _ = answers(0, 200, 3, 0.7)
        state = ClassificationState(names(3))
        state.update(true, predicted)
        assert state.intervals(1) == state.intervals(1) != state.intervals(2)

    def test_a_higher_level_gives_a_wider_interval(self) -> None:
        true, predicted, _ = answers(0, 200, 3, 0.7)
        state = ClassificationState(names(3))
        state.update(true, predicted)
        (low, high), (lower, higher) = state.intervals(0, level=0.8)["f1"], state.intervals(0, level=0.99)["f1"]
        assert lower < low < state.compute()["f1"] < high < higher

    def test_accuracy_interval_is_as_wide_as_theory_says(self) -> None:
        true, predicted, _ = answers(0, 2000, 4, 0.7)
        state = ClassificationState(names(4))
        state.update(true, predicted)
        accuracy = state.compute()["accuracy"]
        low, high = state.intervals()["accuracy"]
        assert high - low == pytest.approx(2 * 1.96 * math.sqrt(accuracy * (1 - accuracy) / 2000), rel=0.1)

    @pytest.mark.parametrize(("right", "expected"), [(True, (10 / (10 + 1.96**2), 1.0)), (False, (0.0, 0.2775))])
    def test_ten_rows_all_right_or_all_wrong_get_wilsons_interval_not_certainty(self, right, expected) -> None:
        true = np.array([0, 1] * 5)
        state = ClassificationState(names(2))
        state.update(true, true if right else 1 - true)
        intervals = state.intervals()
        assert intervals == {"accuracy": pytest.approx(expected, abs=1e-3)}
        assert "10 rows are right" in state.reasons["f1 interval"]

    def test_f1_of_a_draw_that_misses_a_class_is_that_of_scikit_learn(self) -> None:
        true, predicted = np.array([0, 0, 1, 1, 4]), np.array([0, 1, 1, 0, 4])
        draws = np.array([[3, 1, 2, 2, 0], [3, 1, 2, 2, 1], [0, 0, 5, 0, 0]])
        expected = [
            sk.f1_score(np.repeat(true, d), np.repeat(predicted, d), average="macro", zero_division=0) for d in draws
        ]
        assert macro_f1(draws, true, predicted) == pytest.approx(expected)

    def test_intervals_hold_the_truth_about_as_often_as_they_claim(self) -> None:
        chance = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]) * np.array([[0.5], [0.3], [0.2]])
        f1 = np.mean(2 * chance.diagonal() / (chance.sum(axis=0) + chance.sum(axis=1)))
        held = {"accuracy": 0, "f1": 0}
        for seed in range(200):
            cells = np.random.default_rng(seed).choice(9, size=250, p=chance.ravel())
            state = ClassificationState(names(3))
            state.update(cells // 3, cells % 3)
            found = state.intervals(seed, draws=300)
            held["accuracy"] += found["accuracy"][0] <= np.trace(chance) <= found["accuracy"][1]
            held["f1"] += found["f1"][0] <= f1 <= found["f1"][1]
        assert 178 <= held["accuracy"] <= 199
        assert 178 <= held["f1"] <= 199

    def test_balanced_accuracy_is_the_mean_recall_of_the_labels_that_occur(self) -> None:
        """Half of one class and all of another are right; a third is only ever predicted, and has no recall."""
        state = ClassificationState(names(3))
        state.update(np.array([0, 0, 1, 1, 1, 1]), np.array([0, 2, 1, 1, 1, 1]))
        found = state.compute()
        assert found["balanced_accuracy"] == pytest.approx(0.75)
        assert found["recall"] == pytest.approx(0.5)
        sklearn_says = sk.balanced_accuracy_score([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2])
        other = ClassificationState(names(3))
        other.update(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2]))
        assert other.compute()["balanced_accuracy"] == pytest.approx(sklearn_says)


class TestMultiLabel:
    def test_equals_scikit_learn(self) -> None:
        true, probability = label_sets(0, 300, 6)
        thresholds = np.linspace(0.3, 0.6, 6)
        state = MultiLabelState(names(6), thresholds)
        for start in range(0, 300, 50):
            state.update(true[start : start + 50], probability[start : start + 50])
        given = (probability >= thresholds).astype(int)
        found = state.compute()
        for name, average in [("f1", "macro"), ("f1_micro", "micro"), ("f1_samples", "samples")]:
            assert found[name] == pytest.approx(sk.f1_score(true, given, average=average, zero_division=0), rel=1e-12)
        assert found["precision"] == pytest.approx(sk.precision_score(true, given, average="macro"), rel=1e-12)
        assert found["recall"] == pytest.approx(sk.recall_score(true, given, average="macro"), rel=1e-12)
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, given), rel=1e-12)
        losses = [sk.log_loss(true[:, i], probability[:, i]) for i in range(6)]
        assert found["log_loss"] == pytest.approx(np.mean(losses), rel=1e-9)
        expected = sk.f1_score(true, given, average=None)
        assert [row["f1"] for row in state.per_class()] == pytest.approx(expected.tolist())
        assert [row["threshold"] for row in state.per_class()] == pytest.approx(thresholds.tolist())

    def test_a_label_that_never_occurs_counts_as_zero_as_in_scikit_learn(self) -> None:
        true, probability = label_sets(0, 100, 3)
        true[:, 1] = 0
        state = MultiLabelState(names(3))
        state.update(true, probability)
        assert state.compute()["f1"] == pytest.approx(
            sk.f1_score(true, probability >= 0.5, average="macro", zero_division=0)
        )
        assert state.per_class()[1]["recall"] is None

    def test_chosen_thresholds_reach_the_best_f1_that_trying_a_hundred_scores_finds(self) -> None:
        true, probability = label_sets(1, 500, 4)
        state = MultiLabelState(names(4))
        state.update(true, probability)
        chosen = state.choose_thresholds()
        for i in range(4):
            tried = np.quantile(probability[:, i], np.linspace(0, 1, 101))
            best = max(sk.f1_score(true[:, i], probability[:, i] >= t) for t in tried)
            assert sk.f1_score(true[:, i], probability[:, i] >= chosen[i]) >= best - 0.003

    def test_separated_scores_give_the_threshold_in_the_gap_nearest_to_a_half(self) -> None:
        true = np.array([[1, 1], [1, 1], [0, 0], [0, 0]])
        probability = np.array([[0.9, 0.1], [0.8, 0.09], [0.2, 0.01], [0.3, 0.002]])
        state = MultiLabelState(names(2))
        state.update(true, probability)
        chosen = state.choose_thresholds()
        assert chosen[0] == 0.5
        assert 0.085 < chosen[1] <= 0.09
        again = MultiLabelState(names(2), chosen)
        again.update(true, probability)
        assert again.compute()["accuracy"] == 1.0

    def test_a_score_equal_to_a_threshold_counts_as_given_in_both_counts(self) -> None:
        state = MultiLabelState(names(1))
        state.update(np.array([[1], [0]]), np.array([[0.5], [np.nextafter(0.5, 0)]]))
        assert state.compute()["accuracy"] == 1.0
        assert state.choose_thresholds() == [0.5]

    def test_a_label_without_positive_rows_keeps_a_half_and_says_so(self) -> None:
        true, probability = label_sets(0, 50, 3)
        true[:, 2] = 0
        state = MultiLabelState(["a", "b", "c"])
        state.update(true, probability)
        assert state.choose_thresholds()[2] == 0.5
        assert set(state.reasons) == {"threshold c"}

    def test_rows_without_any_label_have_no_f1(self) -> None:
        state = MultiLabelState(names(2))
        state.update(np.zeros((3, 2)), np.full((3, 2), 0.2))
        found = state.compute()
        assert found["f1"] is found["f1_micro"] is None
        assert found["accuracy"] == 1.0
        assert state.reasons["f1"] == "no row has any label"
        assert state.intervals()["accuracy"] == pytest.approx((3 / (3 + 1.96**2), 1.0), abs=1e-3)

    def test_without_rows_everything_is_none_with_a_reason(self) -> None:
        state = MultiLabelState(names(2))
        found = state.compute()
        assert set(found.values()) == {None}
        assert set(state.reasons) == set(found)
        assert state.intervals() == {}
        assert [row["f1"] for row in state.per_class()] == [None, None]

    def test_merging_equals_updating_with_all_rows_in_any_order(self) -> None:
        true, probability = label_sets(2, 240, 3)
        whole, parts = MultiLabelState(names(3)), [MultiLabelState(names(3)) for _ in range(2)]
        whole.update(true, probability, np.arange(240))
        order = np.random.default_rng(0).permutation(240)
        for part, index in zip(parts, np.array_split(order, 2), strict=True):
            part.update(true[index], probability[index], index)
        parts[1].merge(through_json(parts[0]))
        assert parts[1].compute() == pytest.approx(whole.compute(), rel=1e-12)
        assert (parts[1].choose_thresholds() == whole.choose_thresholds()).all()
        merged, expected = parts[1].intervals(), whole.intervals()
        assert set(merged) == set(expected) == set(whole.compute())
        for name, interval in expected.items():
            assert merged[name] == pytest.approx(interval, rel=1e-9)

    def test_states_that_counted_their_rows_from_zero_are_not_merged(self) -> None:
        parts = [MultiLabelState(names(3)) for _ in range(2)]
        for seed, part in enumerate(parts):
            part.update(*label_sets(seed, 10, 3))
        with pytest.raises(AssertionError, match="rows"):
            parts[0].merge(parts[1])

    def test_batches_do_not_change_the_intervals(self) -> None:
        true, probability = label_sets(2, 100, 3)
        once, often = MultiLabelState(names(3)), MultiLabelState(names(3))
        once.update(true, probability)
        for i in range(100):
            often.update(true[i : i + 1], probability[i : i + 1])
        assert often.intervals()["f1"] == pytest.approx(once.intervals()["f1"], rel=1e-12)

    def test_its_size_does_not_grow_with_rows(self) -> None:
        state = MultiLabelState(names(3))
        state.update(*label_sets(0, 2000, 3))
        sums = {name: value.size for name, value in state._sums.values.items()}
        for seed in range(1, 50):
            state.update(*label_sets(seed, 2000, 3))
        assert state.n == 100_000
        assert {name: value.size for name, value in state._sums.values.items()} == sums
        assert state._histogram.size == 2 * 3 * 1002

    def test_intervals_hold_the_truth_about_as_often_as_they_claim(self) -> None:
        everything = label_sets(0, 100_000, 3)
        population = MultiLabelState(names(3))
        population.update(*everything)
        truth = population.compute()
        held = dict.fromkeys(("f1", "f1_micro", "accuracy", "log_loss"), 0)
        for start in range(0, 30_000, 200):
            state = MultiLabelState(names(3))
            state.update(*(part[start : start + 200] for part in everything), np.arange(start, start + 200))
            found = state.intervals()
            for name in held:
                held[name] += found[name][0] <= truth[name] <= found[name][1]
        assert all(130 <= count <= 149 for count in held.values()), held  # of 150


class TestRegression:
    @pytest.mark.parametrize("offset", [0.0, 2020.0, 1e8])
    def test_equals_scikit_learn_also_far_from_zero(self, offset: float) -> None:
        random = np.random.default_rng(0)
        true = random.normal(size=300) + offset
        predicted = true + 0.5 * random.normal(size=300)
        state = RegressionState()
        for start in range(0, 300, 70):
            state.update(true[start : start + 70], predicted[start : start + 70])
        found = state.compute()
        assert found["mse"] == pytest.approx(sk.mean_squared_error(true, predicted), rel=1e-9)
        assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(true, predicted), rel=1e-9)
        assert found["mae"] == pytest.approx(sk.mean_absolute_error(true, predicted), rel=1e-9)
        assert found["r2"] == pytest.approx(sk.r2_score(true, predicted), rel=1e-6)
        assert found["pearson"] == pytest.approx(np.corrcoef(true, predicted)[0, 1], rel=1e-6)

    def test_equal_targets_or_predictions_leave_correlation_undefined(self) -> None:
        state = RegressionState()
        state.update(np.full(5, 0.1), np.arange(5.0))
        found = state.compute()
        assert found["r2"] is found["pearson"] is None
        assert "targets are equal" in state.reasons["r2"]
        state = RegressionState()
        state.update(np.arange(3.0), np.full(3, 0.1))
        assert state.compute()["r2"] == pytest.approx(sk.r2_score([0, 1, 2], [0.1] * 3))
        assert state.reasons == {"pearson": "all 3 predictions are equal"}

    def test_merging_equals_updating_with_all_rows_though_parts_lie_far_apart(self) -> None:
        true = np.sort(np.random.default_rng(0).normal(size=200)) + 50
        predicted = true[::-1].copy()
        whole, parts = RegressionState(), [RegressionState() for _ in range(3)]
        whole.update(true, predicted, np.arange(200))
        for part, index in zip(parts[:2], np.array_split(np.arange(200), 2), strict=True):
            part.update(true[index], predicted[index], index)
        for part in parts[:2]:
            parts[2].merge(through_json(part))
        assert parts[2].compute() == pytest.approx(whole.compute(), rel=1e-9)
        for name, interval in whole.intervals().items():
            assert parts[2].intervals()[name] == pytest.approx(interval, rel=1e-6)

    @pytest.mark.parametrize(("first", "second"), [(1.0, 2.0), (2.0, 1.0)])
    def test_merging_two_constant_halves_makes_correlation_defined(self, first: float, second: float) -> None:
        parts = [RegressionState(), RegressionState()]
        for k, (part, target) in enumerate(zip(parts, (first, second), strict=True)):
            part.update(np.full(3, target), np.full(3, target + 0.5), np.arange(3) + 3 * k)
        parts[0].merge(parts[1])
        assert parts[0].compute()["r2"] == pytest.approx(0.0)
        assert parts[0].compute()["pearson"] == pytest.approx(1.0)

    def test_merging_leaves_the_other_state_as_it_was(self) -> None:
        parts = [RegressionState(), RegressionState()]
        for k, part in enumerate(parts):
            part.update(np.arange(5.0) + 10 * k, np.ones(5), np.arange(5) + 5 * k)
        before = parts[1].state_dict()
        parts[0].merge(parts[1])
        assert parts[1].state_dict() == before

    def test_intervals_hold_the_truth_about_as_often_as_they_claim(self) -> None:
        random = np.random.default_rng(0)
        held = dict.fromkeys(("mse", "mae", "r2", "pearson"), 0)
        truth = {"mse": 0.25, "mae": 0.5 * math.sqrt(2 / math.pi), "r2": 0.75, "pearson": 1 / math.sqrt(1.25)}
        for start in range(0, 40_000, 200):
            true = random.normal(size=200)
            state = RegressionState()
            state.update(true, true + 0.5 * random.normal(size=200), np.arange(start, start + 200))
            found = state.intervals()
            for name in held:
                held[name] += found[name][0] <= truth[name] <= found[name][1]
        assert all(174 <= count <= 199 for count in held.values()), held  # of 200

    def test_perfect_predictions_get_no_interval_of_width_zero(self) -> None:
        state = RegressionState()
        state.update(np.arange(5.0), np.arange(5.0))
        assert state.compute()["mae"] == 0
        assert "mae" not in state.intervals()
        assert "mae interval" in state.reasons

    def test_without_rows_everything_is_none_and_a_target_must_be_a_number(self) -> None:
        state = RegressionState()
        state.update(np.zeros(0), np.zeros(0))
        found = through_json(state).compute()
        assert set(found.values()) == {None}
        assert state.intervals() == {}
        with pytest.raises(NumericsError, match="a prediction is inf"):
            state.update(np.array([1.0]), np.array([math.inf]))


class TestPaired:
    def systems(self, seed: int, rows: int, a_right: float, b_right: float):
        true, a, _ = answers(seed, rows, 3, a_right)
        b = np.where(np.random.default_rng(seed + 1000).random(rows) < b_right, true, (true + 1) % 3)
        return true, a, b

    def test_difference_is_that_of_scikit_learn(self) -> None:
        true, a, b = self.systems(0, 300, 0.8, 0.6)
        state = PairedState("single_label_classification", 3)
        state.update(true, a, b)
        found = state.difference("accuracy")
        assert found.value == pytest.approx(sk.accuracy_score(true, a) - sk.accuracy_score(true, b))
        assert found.n == 300
        f1 = [sk.f1_score(true, system, average="macro") for system in (a, b)]
        assert state.difference("f1").value == pytest.approx(f1[0] - f1[1])
        assert [state.value("a", "f1"), state.value("b", "f1")] == pytest.approx(f1)

    @pytest.mark.parametrize("metric", ["accuracy", "f1"])
    def test_a_clear_lead_excludes_zero_and_turns_its_sign_with_the_systems(self, metric: str) -> None:
        true, a, b = self.systems(0, 400, 0.9, 0.6)
        state, turned = (PairedState("single_label_classification", 3) for _ in range(2))
        state.update(true, a, b)
        turned.update(true, b, a)
        assert state.difference(metric).low > 0
        assert turned.difference(metric).high < 0
        assert state.difference(metric).is_certain

    def test_two_equally_good_systems_differ_certainly_in_about_one_of_twenty_trials(self) -> None:
        certain = 0
        for seed in range(200):
            random = np.random.default_rng(seed)
            true = random.integers(0, 2, 200)
            a, b = (np.where(random.random(200) < 0.8, true, 1 - true) for _ in range(2))
            state = PairedState("single_label_classification", 2)
            state.update(true, a, b)
            certain += state.difference("accuracy", seed).is_certain
        assert 1 <= certain <= 22

    def test_pairing_makes_the_interval_narrower_than_two_separate_ones(self) -> None:
        true, a, _ = answers(0, 500, 2, 0.6)
        b = a.copy()
        b[:10] = true[:10]
        state, alone = PairedState("single_label_classification", 2), ClassificationState(names(2))
        state.update(true, b, a)
        alone.update(true, a)
        found, (low, high) = state.difference("accuracy"), alone.intervals()["accuracy"]
        assert found.high - found.low < 0.5 * (high - low)

    def test_equal_answers_do_not_claim_that_the_systems_are_equal(self) -> None:
        true, a, _ = answers(0, 20, 2, 0.7)
        state = PairedState("single_label_classification", 2)
        state.update(true, a, a)
        found = state.difference("accuracy")
        assert found.value == 0
        assert found.low == pytest.approx(-found.high)
        assert found.high == pytest.approx(1.96 / 22, abs=1e-3)  # half a row in each discordant cell, of 22
        assert "Agresti" in found.note
        assert "too narrow" in state.difference("f1").note

    def test_mcnemars_exact_test_has_its_known_values(self) -> None:
        state = PairedState("single_label_classification", 2)
        state.update(np.zeros(12, int), np.zeros(12, int), np.array([1] * 6 + [0] * 6))
        assert state.mcnemar_p() == pytest.approx(2 * 0.5**6)
        state.update(np.zeros(6, int), np.ones(6, int), np.zeros(6, int))
        assert state.mcnemar_p() == 1.0
        empty = PairedState("single_label_classification", 2)
        assert empty.mcnemar_p() == 1.0

    def test_many_labels_equal_scikit_learn_and_a_better_system_is_found(self) -> None:
        true, probability = label_sets(0, 400, 5)
        a, b = (probability >= 0.4).astype(int), (np.random.default_rng(1).random((400, 5)) < 0.3).astype(int)
        state = PairedState("multi_label_classification", 5)
        state.update(true, a, b)
        found = state.difference()
        f1 = [sk.f1_score(true, system, average="micro") for system in (a, b)]
        assert (found.metric, found.value) == ("f1_micro", pytest.approx(f1[0] - f1[1]))
        assert found.low > 0
        accuracy = state.difference("accuracy")
        assert accuracy.value == pytest.approx(sk.accuracy_score(true, a) - sk.accuracy_score(true, b))
        both = [(system == true).all(axis=1) for system in (a, b)]
        assert state._kept.discordant() == ((both[0] & ~both[1]).sum(), (both[1] & ~both[0]).sum())

    def test_label_sets_of_equal_quality_differ_certainly_in_about_one_of_twenty_trials(self) -> None:
        certain = 0
        for seed in range(100):
            true, _ = label_sets(seed, 200, 5)
            flips = np.random.default_rng(seed + 1000).random((2, 200, 5)) < 0.2
            state = PairedState("multi_label_classification", 5)
            state.update(true, true ^ flips[0], true ^ flips[1])
            certain += state.difference("f1_micro", seed).is_certain
        assert certain <= 13

    def test_errors_of_numbers_have_students_interval(self) -> None:
        from scipy.stats import ttest_rel

        random = np.random.default_rng(0)
        true = random.normal(size=60)
        a, b = true + 0.3 * random.normal(size=60), true + 0.9 * random.normal(size=60)
        state = PairedState("regression")
        state.update(true[:25], a[:25], b[:25])
        state.update(true[25:], a[25:], b[25:])
        for metric, power in (("mae", 1), ("mse", 2)):
            expected = ttest_rel(np.abs(a - true) ** power, np.abs(b - true) ** power).confidence_interval(0.95)
            found = state.difference(metric)
            assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
        assert state.difference("mae").high < 0
        assert state.value("a", "mae") == pytest.approx(sk.mean_absolute_error(true, a))
        with pytest.raises(TaskError, match="regression"):
            state.mcnemar_p()

    @pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
    def test_merging_and_storing_change_nothing(self, kind: str) -> None:
        if kind == "single_label_classification":
            rows = self.systems(0, 120, 0.8, 0.6)
        elif kind == "multi_label_classification":
            true, probability = label_sets(0, 120, 3)
            rows = (true, (probability > 0.4).astype(int), (probability > 0.6).astype(int))
        else:
            rows = tuple(np.random.default_rng(0).normal(size=(3, 120)))
        whole, first, second = (PairedState(kind, 3) for _ in range(3))
        whole.update(*rows)
        first.update(*(part[:50] for part in rows))
        second.update(*(part[50:] for part in rows))
        second.merge(through_json(first))
        for metric in whole.metrics:
            found, expected = second.difference(metric, 1), whole.difference(metric, 1)
            assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert second.n == whole.n == 120

    def test_its_size_does_not_grow_with_rows(self) -> None:
        state = PairedState("single_label_classification", 3)
        for seed in range(50):
            state.update(*self.systems(seed, 2000, 0.7, 0.6))
        assert state.n == 100_000
        assert len(state.state_dict()["kept"]["codes"]) <= 27

    def test_wrong_questions_are_refused_with_a_suggestion(self) -> None:
        state = PairedState("single_label_classification", 2)
        with pytest.raises(DataError, match="no rows"):
            state.difference("accuracy")
        with pytest.raises(TaskError, match="did you mean 'accuracy'"):
            state.difference("acuracy")
        with pytest.raises(TaskError, match="did you mean 'regression'"):
            PairedState("regresion")


def test_importing_the_modules_loads_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, unfreeze.metrics, unfreeze.baselines; print({'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "set()\n"


class TestBootstrapWeights:
    def test_they_are_a_poisson_draw_for_each_row_and_repetition(self) -> None:
        weights = bootstrap_weights(0, np.arange(4000))
        assert (weights[:, 0] == 1).all()
        drawn = weights[:, 1:]
        assert drawn.shape == (4000, REPLICATES)
        assert drawn.mean() == pytest.approx(1, abs=0.003)
        assert drawn.var() == pytest.approx(1, abs=0.01)
        assert (drawn == 0).mean() == pytest.approx(math.exp(-1), abs=0.002)
        assert np.abs(np.corrcoef(drawn.T) - np.eye(REPLICATES)).max() < 0.1

    def test_a_rows_weights_depend_on_seed_and_row_alone(self) -> None:
        together = bootstrap_weights(3, np.array([7, 2, 2**40]))
        alone = bootstrap_weights(3, np.array([2**40]))
        assert (together[2] == alone[0]).all()
        assert (together[0] != together[1]).any()
        assert (together[1] != bootstrap_weights(4, np.array([2]))[0]).any()

    def test_they_are_the_same_on_every_machine(self) -> None:
        assert bootstrap_weights(0, np.array([5]))[0, 1:13].astype(int).tolist() == [
            2,
            2,
            0,
            2,
            2,
            2,
            2,
            1,
            1,
            3,
            2,
            0,
        ]


def test_two_taggers_are_compared_on_the_spans_of_the_same_rows() -> None:
    true = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "O"]] * 20
    good, bad = [list(tags) for tags in true], [["B-PER", "O", "O"], ["B-LOC", "O", "O"]] * 20
    paired = PairedState("token_classification")
    paired.update(true, good, bad)
    assert paired.value("a") == 1.0
    assert paired.value("b") == pytest.approx(0.5), "half of its spans have the wrong end"
    assert paired.difference(seed=0).metric == "overall_f1"
    assert paired.difference(seed=0).is_certain
    words = PairedState("tags")
    words.update([["NN", "VB"]], [["NN", "VB"]], [["NN", "NN"]])
    assert (words.value("a"), words.value("b")) == (1.0, 0.5)


class TestPairedTokens:
    def drawn(self, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens of each row, and what two models need for them: the first less, and both more for hard rows."""
        draw = np.random.default_rng(seed)
        tokens = draw.integers(1, 60, rows).astype(float)
        hard = draw.normal(0, 0.4, rows)
        return tokens, tokens * (3.0 + hard + draw.normal(0, 0.1, rows)), tokens * (3.3 + hard)

    def test_by_hand(self) -> None:
        paired = PairedState("tokens")
        paired.update(np.array([1.0, 3.0]), np.array([1.0, 3.0]), np.array([2.0, 6.0]))
        assert paired.value("a") == pytest.approx(math.e)
        assert paired.value("b") == pytest.approx(math.e**2)
        assert paired.difference().value == pytest.approx(math.e - math.e**2)
        assert paired.difference().metric == "perplexity"

    def test_the_interval_is_that_of_the_bootstrap(self) -> None:
        tokens, a, b = self.drawn(0, 400)
        paired = PairedState("tokens")
        paired.update(tokens, a, b)
        draw, values = np.random.default_rng(1), []
        for _ in range(3000):
            rows = draw.integers(0, 400, 400)
            values.append(np.exp(a[rows].sum() / tokens[rows].sum()) - np.exp(b[rows].sum() / tokens[rows].sum()))
        low, high = np.quantile(values, (0.025, 0.975))
        found = paired.difference()
        assert found.value < 0
        assert (found.low, found.high) == (pytest.approx(low, rel=0.06), pytest.approx(high, rel=0.06))

    def test_in_parts_merged_and_stored_it_is_the_same(self) -> None:
        tokens, a, b = self.drawn(2, 50)
        whole, one, other = (PairedState("tokens") for _ in range(3))
        whole.update(tokens, a, b)
        one.update(tokens[:20], a[:20], b[:20])
        other.update(tokens[20:], a[20:], b[20:])
        one.merge(other)
        again = through_json(one)
        assert again.difference().low == pytest.approx(whole.difference().low)
        assert again.difference().high == pytest.approx(whole.difference().high)

    def test_the_same_twice_has_no_spread_and_says_so(self) -> None:
        tokens, a, _ = self.drawn(3, 10)
        paired = PairedState("tokens")
        paired.update(tokens, a, a)
        found = paired.difference()
        assert (found.value, found.low, found.high) == (0, 0, 0)
        assert "too narrow" in found.note


@pytest.mark.parametrize("kind", ["tags", "token_classification"])
def test_rows_of_many_words_are_compared_in_full(kind: str) -> None:
    """Both figures were 1 where a row's words were counted to a thousand only."""
    names = ("B-A", "O") if kind == "token_classification" else ("NN", "VB")
    true = [names[0], names[1]] * 1500
    a = [tag if i % 10 < 7 else "O" if kind == "token_classification" else "XX" for i, tag in enumerate(true)]
    b = list(true)
    state = PairedState(kind)
    state.update([true], [a], [b])
    if kind == "tags":
        assert state.value("a") == pytest.approx(0.7)
    else:
        recall = sum(x == y for x, y in zip(true, a, strict=True) if x == "B-A") / 1500
        assert state.value("a") == pytest.approx(2 * recall / (1 + recall))
    assert state.value("b") == 1.0
