"""What a run writes is what any tool reads, and options of the task do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from unfreeze import api
from unfreeze.errors import DataError, RecipeError, TaskError
from unfreeze.preparation import prepare
from unfreeze.recipe import Recipe
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import TaskCase, tiny_model

NOUNS = ("soup", "room", "phone", "film")
TEXTS = [f"The {NOUNS[i % 4]} was {('good', 'bad')[i % 2]}{' and warm' * (i % 3)}." for i in range(32)]
LABELS: dict[str, Any] = {
    "single": lambda i: ("negative", "positive")[i % 2],
    "multi": lambda i: [name for name, wanted in (("good", i % 2 == 0), ("warm", i % 3 > 0)) if wanted],
    "regression": lambda i: 1.5 * (i % 2) + 0.25 * (i % 3) + 40,
}


def rows_of(kind: str) -> list[dict[str, Any]]:
    return [{"text": text, "label": LABELS[kind](i)} for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", texts=TEXTS)


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, api.TrainedRun]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        kind: api.train(
            rows_of(kind), model=str(model), output=folder / kind, schedule="full", baselines=False,
            train={"epochs": "12 steps", "learning_rate": 3e-3, "threads": 1},
        )
        for kind in LABELS
    }  # fmt: skip


# the written model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LABELS)
def test_the_model_of_a_run_opens_with_transformers_and_gives_the_same_numbers(
    runs: dict[str, api.TrainedRun], kind: str
) -> None:
    folder = runs[kind].model_folder
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    predictor = runs[kind].predictor
    for text, prediction in zip(TEXTS[:6], runs[kind].predict(TEXTS[:6]), strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        if kind == "regression":
            assert prediction.label == pytest.approx(float(logits), rel=1e-5)
            continue
        chances = logits.softmax(-1) if kind == "single" else logits.sigmoid()
        given = [prediction.scores[model.config.id2label[i]] for i in range(2)]
        assert given == pytest.approx(chances.tolist(), rel=1e-5)
    assert tuple(model.config.id2label.values()) == (predictor.task.targets.labels or ("value",))


@pytest.mark.parametrize("kind", LABELS)
def test_the_pipeline_gives_equal_predictions(runs: dict[str, api.TrainedRun], kind: str) -> None:
    pipeline = transformers.pipeline("text-classification", model=str(runs[kind].model_folder), device="cpu")
    found = [sorted(p, key=lambda item: item["label"]) for p in pipeline(TEXTS[:6], top_k=None)]
    for answers, prediction in zip(found, runs[kind].predict(TEXTS[:6]), strict=True):
        if kind == "regression":
            assert answers == [{"label": "value", "score": pytest.approx(prediction.label, rel=1e-5)}]
            continue
        scores = {item["label"]: item["score"] for item in answers}
        assert scores == pytest.approx(prediction.scores, rel=1e-5)
        if kind == "single":
            assert prediction.label == max(scores, key=lambda name: scores[name])


def test_numbers_come_in_the_unit_of_the_data(runs: dict[str, api.TrainedRun]) -> None:
    given = [p.label for p in runs["regression"].predict(TEXTS)]
    assert 39 < min(given) < max(given) < 43
    assert runs["regression"].metrics["eval_mae"] < 1.0


def test_multi_label_thresholds_are_chosen_stored_and_used(runs: dict[str, api.TrainedRun]) -> None:
    task: Any = runs["multi"].predictor.task
    assert task.targets.thresholds is not None
    for prediction in runs["multi"].predict(TEXTS[:8]):
        limits = dict(zip(task.targets.labels, task.targets.thresholds, strict=True))
        assert set(prediction.label) == {name for name, chance in prediction.scores.items() if chance >= limits[name]}


@pytest.mark.parametrize(
    ("labels", "sentence"), [("same", "the head is the checkpoint's own"), ("others", "the head is new")]
)
def test_a_run_that_goes_on_says_whether_it_keeps_the_head(
    runs: dict[str, api.TrainedRun], tmp_path: Path, labels: str, sentence: str
) -> None:
    rows = [row if labels == "same" else {**row, "label": f"{row['label']}!"} for row in rows_of("single")]
    run = api.train(
        rows, model=str(runs["single"].folder), output=tmp_path / "next", schedule="head", baselines=False,
        train={"epochs": "2 steps", "threads": 1},
    )  # fmt: skip
    assert any(event.values["text"].startswith(sentence) for event in run.events("notice"))


# heads of regression ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "roberta", "llama", "gpt2"])
def test_finishing_a_regression_head_changes_no_answer(tmp_path: Path, architecture: Any) -> None:
    folder = tiny_model(tmp_path / "tiny", architecture, texts=TEXTS)
    case = TaskCase.of(TextClassification, rows_of("regression"), folder, {})
    before = [p.label for p in case.predictions(case.examples)]
    names = set(case.model.state_dict())
    case.task.finish(case.model)
    assert [p.label for p in case.predictions(case.examples)] == pytest.approx(before, rel=1e-5)
    assert set(case.model.state_dict()) == names, "a parameter that the architecture lacks would be lost in its file"
    assert case.task.targets.scale == 1.0
    case.task.finish(case.model)
    assert [p.label for p in case.predictions(case.examples)] == pytest.approx(before, rel=1e-5)


# options ---------------------------------------------------------------------------------------------------------


def bound(model: Path, kind: str = "single", rows: list[dict[str, Any]] | None = None, **recipe: Any) -> Any:
    return TaskCase.of(TextClassification, rows or rows_of(kind), model, recipe).task


def test_balanced_weights_give_every_class_the_same_say(model: Path) -> None:
    uneven = [row for i, row in enumerate(rows_of("single")) if i % 2 or i % 8 == 0]  # 4 negative, 16 positive
    task = bound(model, rows=uneven, **{"train.class_weights": "balanced"})
    assert task.targets.counts == (4, 16)
    assert task.weights_of_classes().tolist() == pytest.approx([2.5, 0.625])


def test_given_weights_are_kept_in_proportion_with_mean_1_over_the_rows(model: Path) -> None:
    task = bound(model, **{"train.class_weights": {"positive": 3.0}})
    weights = task.weights_of_classes()
    assert weights[1] / weights[0] == pytest.approx(3.0)
    assert float((weights * np.asarray(task.targets.counts)).sum() / sum(task.targets.counts)) == pytest.approx(1.0)


def test_a_weight_for_a_class_that_is_not_there_is_refused(model: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'positive'"):
        bound(model, **{"train.class_weights": {"postive": 3.0}})


@pytest.mark.parametrize("kind", ["multi", "regression"])
def test_weights_where_there_are_no_single_classes_are_refused(model: Path, kind: str) -> None:
    with pytest.raises(TaskError, match="class weights do not apply"):
        bound(model, kind, **{"train.class_weights": "balanced"})


def test_the_metric_that_chooses_fits_the_kind_of_labels(model: Path) -> None:
    chosen = {kind: (bound(model, kind).selection, bound(model, kind).headline_metric) for kind in LABELS}
    assert chosen == {
        "single": (("accuracy", True), "accuracy"),
        "multi": (("f1_micro", True), "f1"),
        "regression": (("mse", False), "mae"),
    }


def with_names(names: list[str]) -> Any:
    """The rows of one class each as a data set of the Hub, whose ids count these names."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = [{**row, "label": names.index(row["label"])} for row in rows_of("single")]
    return datasets.Dataset.from_list(rows, features=features)


def test_ids_of_other_data_are_read_by_its_own_names(runs: dict[str, api.TrainedRun], model: Path) -> None:
    one, other = (with_names(names) for names in (["negative", "positive"], ["positive", "negative"]))
    numbers = [{**row, "label": int(row["label"] == "positive")} for row in rows_of("single")]
    for train, test in ((one, other), (rows_of("single"), other), (other, rows_of("single")), (numbers, one)):
        prepared = prepare(Recipe.build({"model": str(model)}), train, test=test)
        assert prepared.test is not None
        assert prepared.task.label_names(prepared.test) == [row["label"] for row in rows_of("single")]
    figures = [runs["single"].evaluate(data)["eval_accuracy"] for data in (rows_of("single"), one, other)]
    assert len(set(figures)) == 1


def test_an_empty_cell_names_no_class_where_several_labels_are_asked_for(model: Path, tmp_path: Path) -> None:
    cells = [("good", "", "good;warm;", "")[i % 4] for i in range(len(TEXTS))]
    lines = ["text,label", *(f"{text},{cell}" for text, cell in zip(TEXTS, cells, strict=True))]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    settings = ["options.problem_type=multi_label_classification", "data.drop_unlabelled=true"]
    planned = api.plan(tmp_path / "train.csv", model=str(model), settings=settings)
    assert planned.identity["labels"] == ["good", "warm"]
    assert sum(planned.data["rows"].values()) == len(TEXTS)
    with pytest.raises(DataError, match="16 of 32 train rows have no label"):
        api.plan(tmp_path / "train.csv", model=str(model))
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *(f"{text}," for text in TEXTS)]) + "\n")
    planned = api.plan(tmp_path, model=str(model), settings=settings)
    assert "test" not in planned.data["rows"], "labels that were kept back are no answer"


def test_names_of_another_column_are_not_given_to_the_labels(model: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.Value("int64"),
            "domain": datasets.ClassLabel(names=["books", "films"]),
        }
    )
    rows = [{"text": text, "label": i % 2, "domain": i // 16} for i, text in enumerate(TEXTS)]
    planned = api.plan(datasets.Dataset.from_list(rows, features=features), model=str(model))
    assert planned.identity["labels"] == ["0", "1"]


def test_texts_that_are_too_long_are_cut_and_say_so(model: Path) -> None:
    task = bound(model, **{"train.max_length": 6})
    row = TaskCase.of(TextClassification, rows_of("single"), model, {}).rows[2]
    [example] = task.encode(row, train=True)
    assert (example.length, example.is_cut) == (6, True)


@pytest.mark.parametrize("nothing", [None, float("nan")], ids=["none", "as pandas writes it"])
def test_a_text_that_is_missing_is_not_answered(model: Path, nothing: Any) -> None:
    with pytest.raises(DataError, match="no text in column 'text'") as caught:
        api.Predictor(bound(model), torch.nn.Linear(1, 1)).predict([{"text": nothing, "label": "x"}])
    assert caught.value.where == "input 1"


def test_a_row_without_text_says_where_it_is(model: Path) -> None:
    with pytest.raises(DataError, match="input 2"):
        list(api.Predictor(bound(model), torch.nn.Linear(1, 1)).predict(["fine", {"other": "x"}]))
