"""One streaming pass gives what scikit-learn gives on all rows at once, whatever the order and the batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from unfreeze import evaluation
from unfreeze.evaluation import evaluate_examples, evaluate_rows, features_of, predict_rows
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import TaskCase, tiny_model
from unfreeze.types import Prediction, Row

WORDS = ("good", "bad", "warm", "cold", "soup", "film", "train", "coast", "rain", "window")
ROWS = 90


def texts() -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, size=draw.integers(1, 30))) for _ in range(ROWS)]


LABELS: dict[str, Any] = {
    "single": lambda i: ("poor", "fair", "good")[i % 3],
    "multi": lambda i: [name for k, name in enumerate(("a", "b", "c", "d")) if (i * 7 + k * 3) % 4 < 2],
    "regression": lambda i: 0.25 * (i % 17) + 3,
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskCase]:
    """Tasks bound to rows and to random models whose answers vary."""
    model = tiny_model(tmp_path_factory.mktemp("models") / "tiny", texts=[" ".join(WORDS)])
    found = {}
    for kind, label_of in LABELS.items():
        rows = [{"text": text, "label": label_of(i)} for i, text in enumerate(texts())]
        found[kind] = TaskCase.of(TextClassification, rows, model, {"data.text": "text", "data.label": "label"})
        vary_answers(found[kind])
    return found


@torch.no_grad()
def vary_answers(case: TaskCase) -> None:
    """Spread the outputs and put their means to 0, so that no class always wins."""
    case.model.classifier.weight.mul_(40)
    case.model.classifier.bias.sub_(case.task.predict(case.model, case.batch).mean(0))


def probabilities(case: TaskCase) -> np.ndarray:
    """Of every row, in order, each computed alone."""
    with torch.inference_mode():
        logits = [case.task.predict(case.model, case.task.collate([e])) for e in case.examples]
    return case.task.probabilities(torch.cat(logits))  # type: ignore[attr-defined]


def targets(case: TaskCase) -> np.ndarray:
    return np.stack([np.asarray(e.target) for e in case.examples])


# equal to scikit-learn -------------------------------------------------------------------------------------------


def test_single_label_figures_are_scikit_learns(cases: dict[str, TaskCase]) -> None:
    case = cases["single"]
    found = evaluate_rows(case.task, case.model, case.rows)
    true, chances = targets(case), probabilities(case)
    given = chances.argmax(-1)
    assert len(set(given.tolist())) == 3, "a model that always says the same tests nothing"
    expected = {
        "accuracy": sk.accuracy_score(true, given),
        "f1": sk.f1_score(true, given, average="macro"),
        "f1_weighted": sk.f1_score(true, given, average="weighted"),
        "precision": sk.precision_score(true, given, average="macro"),
        "recall": sk.recall_score(true, given, average="macro"),
        "log_loss": sk.log_loss(true, chances),
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found.loss == pytest.approx(expected["log_loss"], rel=1e-4)
    assert found.details["confusion"] == sk.confusion_matrix(true, given).tolist()
    low, high = found.intervals["accuracy"]
    assert low < expected["accuracy"] < high


def test_multi_label_figures_are_scikit_learns(cases: dict[str, TaskCase]) -> None:
    case = cases["multi"]
    found = evaluate_rows(case.task, case.model, case.rows)
    true, chances = targets(case).astype(int), probabilities(case)
    given = (chances >= 0.5).astype(int)
    expected = {
        "f1": sk.f1_score(true, given, average="macro"),
        "f1_micro": sk.f1_score(true, given, average="micro"),
        "accuracy": sk.accuracy_score(true, given),
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    cross_entropy = np.mean([sk.log_loss(true[:, k], chances[:, k]) for k in range(4)])
    assert found.loss == pytest.approx(cross_entropy, rel=1e-4)


def test_regression_figures_are_scikit_learns(cases: dict[str, TaskCase]) -> None:
    case = cases["regression"]
    found = evaluate_rows(case.task, case.model, case.rows)
    true = np.asarray([row.values["label"] for row in case.rows])
    given = probabilities(case)
    expected = {
        "mse": sk.mean_squared_error(true, given),
        "mae": sk.mean_absolute_error(true, given),
        "r2": sk.r2_score(true, given),
        "pearson": np.corrcoef(true, given)[0, 1],
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found.loss == pytest.approx(expected["mse"] / true.var(), rel=1e-4), "in units of the rows' variance"


# order and batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("budget", [1, 70, 100_000])
def test_order_and_batches_change_nothing(cases: dict[str, TaskCase], kind: str, budget: int) -> None:
    case = cases[kind]
    usual = evaluate_examples(case.task, case.model, case.examples)
    shuffled = [case.examples[i] for i in np.random.default_rng(budget).permutation(ROWS)]
    found = evaluate_examples(case.task, case.model, iter(shuffled), budget_tokens=budget)
    assert found.metrics == pytest.approx(usual.metrics, rel=1e-4)
    assert found.loss == pytest.approx(usual.loss, rel=1e-5)
    assert [row for row, _ in found.mistakes] == [row for row, _ in usual.mistakes]
    assert found.rows == usual.rows == ROWS


def test_streaming_in_small_chunks_changes_nothing(cases: dict[str, TaskCase], monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases["single"]
    usual = evaluate_rows(case.task, case.model, case.rows)
    answers = list(predict_rows(case.task, case.model, case.rows))
    monkeypatch.setattr(evaluation, "CHUNK_ROWS", 7)
    again = evaluate_rows(case.task, case.model, case.rows)
    assert again.metrics == pytest.approx(usual.metrics, rel=1e-5)
    assert [p.label for p in predict_rows(case.task, case.model, case.rows)] == [p.label for p in answers]


def test_rows_are_asked_for_as_they_are_needed(cases: dict[str, TaskCase], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of rows."""
    case, given = cases["single"], [0]
    monkeypatch.setattr(evaluation, "CHUNK_ROWS", 10)

    def stream() -> Any:
        for row in case.rows:
            given[0] += 1
            yield row

    answers = predict_rows(case.task, case.model, stream())
    next(answers)
    assert given[0] == 10


def test_evaluation_leaves_dropout_off_and_the_weights_alone(cases: dict[str, TaskCase]) -> None:
    case = cases["single"]
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    case.model.train()
    one = evaluate_rows(case.task, case.model, case.rows)
    case.model.train()
    assert evaluate_rows(case.task, case.model, case.rows).loss == one.loss
    assert all(torch.equal(before[name], tensor) for name, tensor in case.model.state_dict().items())


# predictions and mistakes ----------------------------------------------------------------------------------------


def test_predictions_come_in_the_order_of_the_rows(cases: dict[str, TaskCase]) -> None:
    case = cases["single"]
    rows = [Row(i, {"text": row.values["text"]}, row.place) for i, row in enumerate(reversed(case.rows))]
    found = list(predict_rows(case.task, case.model, rows, budget_tokens=50))
    assert [p.row for p in found] == list(range(ROWS))
    chances = probabilities(case)[::-1]
    names = case.task.targets.labels
    assert [p.label for p in found] == [names[i] for i in chances.argmax(-1)]
    for prediction, row in zip(found, chances, strict=True):
        assert prediction.probability == pytest.approx(row.max(), abs=1e-5)
        assert list(prediction.scores) == [names[i] for i in np.argsort(-row)]


def test_prediction_looks_at_no_label(cases: dict[str, TaskCase]) -> None:
    """A file to predict may have a column of the label's name with anything in it."""
    case = cases["single"]
    found: Sequence[Prediction] = list(
        predict_rows(case.task, case.model, [Row(0, {"text": "good soup", "label": "to be labelled"}, "new.csv:2")])
    )
    assert found[0].label in case.task.targets.labels


@pytest.mark.parametrize("kind", LABELS)
def test_mistakes_are_the_most_surprising_rows(cases: dict[str, TaskCase], kind: str) -> None:
    case = cases[kind]
    found = evaluate_rows(case.task, case.model, case.rows)
    chances, true = probabilities(case), targets(case)
    if kind == "single":
        surprise = -np.log(chances[np.arange(ROWS), true])
    elif kind == "multi":
        surprise = -np.log(np.where(true == 1, chances, 1 - chances)).sum(-1)
    else:
        surprise = np.abs(chances - [row.values["label"] for row in case.rows])
    worst = np.argsort(-surprise)[: evaluation.MISTAKES_KEPT]
    assert [value for _, value in found.mistakes] == pytest.approx(surprise[worst].tolist(), rel=1e-3)
    assert {row for row, _ in found.mistakes[:10]} <= set(worst.tolist())


def test_rows_that_were_cut_are_counted(cases: dict[str, TaskCase]) -> None:
    case = cases["single"]
    limit, case.task.max_length = case.task.max_length, 8
    try:
        found = evaluate_rows(case.task, case.model, case.rows)
    finally:
        case.task.max_length = limit
    too_long = sum(len(text.split()) + 2 > 8 for text in texts())
    assert 0 < found.rows_cut == too_long < ROWS


def test_no_rows_give_no_figures_and_no_error(cases: dict[str, TaskCase]) -> None:
    case = cases["single"]
    found = evaluate_examples(case.task, case.model, [])
    assert (found.rows, found.mistakes, found.intervals) == (0, [], {})
    assert np.isnan(found.loss)
    assert set(found.metrics.values()) == {None}


def test_a_check_may_end_the_pass(cases: dict[str, TaskCase]) -> None:
    case, calls = cases["single"], []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_examples(case.task, case.model, case.examples, budget_tokens=1, check=check)
    assert len(calls) == 3


def test_features_are_the_mean_over_the_tokens_of_a_row(cases: dict[str, TaskCase]) -> None:
    case = cases["single"]
    found = features_of(case.model, case.task, case.examples[:12], budget_tokens=64)
    assert found.shape == (12, 32)
    for i, example in enumerate(case.examples[:12]):
        ids = torch.tensor(example.inputs["input_ids"][None].astype(np.int64))
        with torch.inference_mode():
            alone = case.model.bert(input_ids=ids).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(found[i], alone.numpy(), atol=1e-5)


def test_the_json_form_has_hugging_faces_names(cases: dict[str, TaskCase], tmp_path: Path) -> None:
    case = cases["single"]
    found = evaluate_rows(case.task, case.model, case.rows).to_json()
    assert {"loss", "accuracy", "samples", "runtime", "samples_per_second", "intervals", "details"} <= found.keys()
    assert found["samples"] == ROWS
