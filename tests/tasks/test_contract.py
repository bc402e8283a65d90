"""All our tasks keep the contract, over kinds of labels and families of models; a task that breaks it is caught."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from unfreeze import tasks, testing
from unfreeze.errors import TaskError
from unfreeze.models.loading import load_config, load_model, load_processor, resolve
from unfreeze.tasks.base import Task
from unfreeze.tasks.fill_mask import FillMask
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import Architecture, check_layer_groups, check_task, tiny_model
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row

SENTENCES = (
    "Works as promised.",
    "It broke on the second day, and nobody answers the phone.",
    "The best soup I have had this winter.",
    "Not worth the wait.",
    "Rain.",
    "The train leaves every hour.",
)
KINDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "two classes": ([{"text": t, "label": "ab"[i % 2]} for i, t in enumerate(SENTENCES)], {}),
    "class weights and smoothing": (
        [{"text": t, "label": "ab"[i % 3 == 0]} for i, t in enumerate(SENTENCES)],
        {"train.class_weights": "balanced", "train.label_smoothing": 0.1},
    ),
    "multi-label": ([{"text": t, "label": [["x"], ["x", "y"], []][i % 3]} for i, t in enumerate(SENTENCES)], {}),
    "multi-label in columns": (
        [{"text": t, "rude": i % 2, "loud": int(i % 3 == 0)} for i, t in enumerate(SENTENCES)],
        {"data.label": ["rude", "loud"], "data.text": "text"},
    ),
    "regression": ([{"text": t, "label": 1.25 * i - 3} for i, t in enumerate(SENTENCES)], {}),
    "text pairs": (
        [
            {"premise": t, "hypothesis": SENTENCES[(i * 2) % 6], "label": ["yes", "no"][i % 2]}
            for i, t in enumerate(SENTENCES)
        ],
        {"data.text": ["premise", "hypothesis"], "data.label": "label"},
    ),
}
ENCODERS: tuple[Architecture, ...] = tuple(a for a in get_args(Architecture) if a not in testing.DECODERS)
EVERY_CHECK = {c.__name__.removeprefix("check_").replace("_", " ") for c in testing.CHECKS}
LABELS_KNOWN = {"gold predictions score perfectly"}
SPLITS = {"a batch is the sum of its parts"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny_model(folder / name, name, texts=SENTENCES) for name in get_args(Architecture)}


@pytest.mark.parametrize("kind", KINDS)
def test_text_classification_keeps_the_contract(kind: str) -> None:
    rows, recipe = KINDS[kind]
    assert set(check_task(TextClassification, rows, recipe=recipe)) == EVERY_CHECK


def test_fill_mask_keeps_the_contract() -> None:
    # Evaluation hides words of a text; a prediction fills the masks that stand in it.
    assert set(check_task(FillMask)) == EVERY_CHECK - LABELS_KNOWN - {"the predictor answers as evaluation"}


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_keeps_the_contract_on_its_own_sample_rows(name: str) -> None:
    assert {"one batch can be overfitted", "save and load predict the same"} <= set(check_task(tasks.find(name)))


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("kind", ["two classes", "regression", "text pairs"])
def test_the_contract_holds_for_every_family(models: dict[str, Path], architecture: str, kind: str) -> None:
    rows, recipe = KINDS[kind]
    assert set(check_task(TextClassification, rows, models[architecture], recipe=recipe)) == EVERY_CHECK


@pytest.mark.parametrize("architecture", ENCODERS)
def test_masked_tokens_are_filled_by_every_encoder(models: dict[str, Path], architecture: str) -> None:
    check_task(FillMask, [{"text": t} for t in SENTENCES], models[architecture])


class Empty(Task):
    name = "empty"


def test_a_task_that_leaves_things_out_is_told_what() -> None:
    with pytest.raises(TaskError, match=r"does not have build, collate, .*sample_rows, skeleton, primary_metric"):
        check_task(Empty)
    with pytest.raises(TaskError, match="does not have build"):
        tasks.find(f"{Empty.__module__}:Empty")


@pytest.mark.parametrize(
    ("text", "what", "place"),
    [
        ("def broken(:\n", "SyntaxError", "line 1"),
        ("import math\nx = math.no_such_thing\n", "AttributeError", "line 2"),
        ("import no_such_module_at_all\n", "no_such_module_at_all", "line 1"),
    ],
)
def test_a_module_that_cannot_be_imported_is_the_users_to_correct(
    text: str, what: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"own_task_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TaskError, match=what) as caught:
        tasks.find(f"{name}:Own")
    assert place in str(caught.value.where)
    assert f"{name}.py" in str(caught.value.where)


# a broken task is caught -----------------------------------------------------------------------------------------


class DrawsWhileEncoding(TextClassification):
    def encode(self, row: Row, *, train: bool) -> list[Example]:
        [example] = super().encode(row, train=train)
        example.inputs["input_ids"] = example.inputs["input_ids"][: random.randint(2, 1000)]
        example.length = random.randint(1, 10**9)
        return [example]


class DividesItself(TextClassification):
    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        output = super().loss(model, batch)
        return LossOutput({"loss": LossTerm(output.terms["loss"].sum / len(batch.rows))}, output.outputs)


class ForgetsTheWeights(TextClassification):
    def collate(self, examples: Any) -> Batch:
        batch = super().collate(examples)
        batch.weights["rows"] = 1.0
        return batch


class SeesThePadding(TextClassification):
    def collate(self, examples: Any) -> Batch:
        batch = super().collate(examples)
        batch.inputs["attention_mask"] = torch.ones_like(batch.inputs["attention_mask"])
        return batch


class LooksAtTheFirstRow(TextClassification):
    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        output = super().loss(model, batch)
        extra = output.outputs[0].sum() * 3
        return LossOutput({"loss": LossTerm(output.terms["loss"].sum + extra)}, output.outputs)


class DetachesTheBackbone(TextClassification):
    def loss(self, model: Any, batch: Batch) -> LossOutput:
        with torch.no_grad():
            hidden = model.bert(**batch.inputs).pooler_output
        logits = model.classifier(hidden)
        return LossOutput({"loss": LossTerm(self._losses(logits, batch.targets, "sum"))}, logits)


class BuildsItsSkeletonAsStored(TextClassification):
    def skeleton(self, config: Any) -> torch.nn.Module:
        return super().skeleton(config).to(config.dtype)


class DecodesBackwards(TextClassification):
    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        return super().decode(-outputs, batch)


class CountsWrongly(TextClassification):
    def answers(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        return 1 - super().answers(outputs, batch)


class LearnsNothing(TextClassification):
    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        output = super().loss(model, batch)
        total = output.terms["loss"].sum
        return LossOutput({"loss": LossTerm(total.detach() + 1e-9 * total)}, output.outputs)


class ForgetsAnOption(TextClassification):
    def stored(self) -> dict[str, Any]:
        return {**super().stored(), "max_length": 7}


class AnswersOtherwiseInService(TextClassification):
    def predict(self, model: torch.nn.Module, batch: Batch) -> Any:
        return super().predict(model, batch) + 0.5 * torch.arange(2)


class LearnsWhileEncoding(TextClassification):
    def encode(self, row: Row, *, train: bool) -> list[Example]:
        if "soup" in str(row.values["text"]):
            self.max_length -= 1
        return super().encode(row, train=train)


class AcceptsAnyRow(TextClassification):
    def encode(self, row: Row, *, train: bool) -> list[Example]:
        values = {**row.values, "text": row.values["text"] or ""}
        return super().encode(Row(row.index, values, row.place), train=train)


class ForgetsThePlace(TextClassification):
    def encode(self, row: Row, *, train: bool) -> list[Example]:
        return super().encode(Row(row.index, row.values, "somewhere"), train=train)


class AcceptsAnyOption(TextClassification):
    @classmethod
    def with_options(cls, options: dict[str, Any]) -> Any:
        return cls()


BROKEN = {
    DrawsWhileEncoding: ("encode is deterministic", "encoded differently the second time"),
    DividesItself: ("a batch is the sum of its parts", "the sum of 'loss' is"),
    ForgetsTheWeights: ("a batch is the sum of its parts", "the weight 'rows' is 1.0 for the batch"),
    SeesThePadding: ("a batch is the sum of its parts|padding and order change nothing", ""),
    LooksAtTheFirstRow: ("a batch is the sum of its parts|padding and order change nothing", ""),
    BuildsItsSkeletonAsStored: ("the skeleton is the model in float32", "torch.float16"),
    DetachesTheBackbone: ("gradient reaches head and backbone", "no gradient reaches the stem"),
    DecodesBackwards: ("gold predictions score perfectly", "is decoded as"),
    CountsWrongly: ("gold predictions score perfectly", "counts as a mistake"),
    LearnsNothing: ("one batch can be overfitted", "the loss only went from"),
    ForgetsAnOption: ("save and load predict the same", "the bound state changes|answers differently"),
    AnswersOtherwiseInService: ("the predictor answers as evaluation", "is served otherwise than evaluated"),
    LearnsWhileEncoding: ("learn sees training rows only|save and load", ""),
    AcceptsAnyRow: ("bad rows are refused with their place", "a row with no 'text' is accepted"),
    ForgetsThePlace: ("bad rows are refused with their place", "does not say where"),
    AcceptsAnyOption: ("unknown options are refused", "an option that does not exist is accepted"),
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_task_that_breaks_the_contract_is_caught(broken: type[TextClassification]) -> None:
    check, sentence = BROKEN[broken]
    with pytest.raises(AssertionError, match=rf"{broken.__name__}, ({check})[^:]*: .*({sentence})"):
        check_task(broken, KINDS["two classes"][0])


class Coupled(LooksAtTheFirstRow):
    """The rows of a batch hang together and the first counts more: nothing that splits may be asked of it."""

    couples_rows = True

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        output = TextClassification.loss(self, model, batch)
        extra = output.outputs.sum().square() / 10
        return LossOutput({"loss": LossTerm(output.terms["loss"].sum + extra)}, output.outputs)


def test_tasks_that_couple_rows_are_exempt_from_splits() -> None:
    assert set(check_task(Coupled, KINDS["two classes"][0])) == EVERY_CHECK - SPLITS


def test_a_task_inside_a_function_is_refused() -> None:
    class Inside(TextClassification):
        pass

    with pytest.raises(AssertionError, match="a class inside a function"):
        check_task(Inside)


# tiny models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_a_tiny_model_is_a_whole_model(models: dict[str, Path], architecture: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    source = resolve(str(models[architecture]))
    config = load_config(source)
    auto_class = AutoModelForCausalLM if architecture in testing.DECODERS else AutoModelForMaskedLM
    loaded = load_model(auto_class, source, config, head_is_new=False)
    assert config.model_type == architecture
    assert loaded.new_parameters == []
    assert sum(p.numel() for p in loaded.model.parameters()) < 60_000
    tokenizer = load_processor(source)
    assert tokenizer.unk_token_id not in tokenizer("Rain. The soup broke!")["input_ids"][:-2]
    inputs = tokenizer(["Rain.", "The best soup I have had this winter."], padding=True, return_tensors="pt")
    check_layer_groups(loaded.model, dict(inputs))


def test_a_tiny_model_is_a_function_of_its_seed(tmp_path: Path) -> None:
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    one, other, third = (tiny_model(tmp_path / str(i), seed=min(i, 1)) for i in (0, 1, 2))
    assert torch.equal(torch.rand(1), drawn), "the caller's generator is left alone"
    contents = [(folder / "model.safetensors").read_bytes() for folder in (one, other, third)]
    assert contents[1] == contents[2] != contents[0]


def test_words_of_the_texts_are_tokens_and_others_are_spelled(tmp_path: Path) -> None:
    tokenizer = load_processor(resolve(str(tiny_model(tmp_path / "tiny", texts=["Hello, old friend"]))))
    assert tokenizer.tokenize("hello friend held") == ["hello", "friend", "h", "##e", "##l", "##d"]
    pair = tokenizer("old", "friend")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "old", "[SEP]", "friend", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]


def test_layer_groups_that_are_wrong_are_told() -> None:
    with pytest.raises(AssertionError, match="no numbered group"):
        check_layer_groups(torch.nn.Linear(2, 2))
