"""Masked language modelling: what is masked, how often, and what a person gets who asks for a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import unfreeze
from unfreeze.errors import DataError, RecipeError, TaskError
from unfreeze.evaluation import evaluate_examples, predict_rows
from unfreeze.randomness import generator
from unfreeze.tasks.fill_mask import NOT_A_TARGET, FillMask
from unfreeze.testing import TaskCase, tiny_model
from unfreeze.types import Row

SENTENCES = [f"the {a} near the {b} was {c}" for a in ("soup", "coat") for b in ("door", "sea") for c in ("old", "new")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", texts=SENTENCES)


@pytest.fixture(scope="module")
def case(model: Path) -> TaskCase:
    return TaskCase.of(FillMask, [{"text": s} for s in SENTENCES], model, {})


def masked_often(case: TaskCase, times: int = 400) -> list[Any]:
    task = case.task
    return [task.augment(e, generator(i, "test", e.row)) for i in range(times) for e in case.examples]


def test_of_the_tokens_to_predict_most_are_masked_some_random_some_shown(case: TaskCase) -> None:
    """BERT, section 3.1: 15 % of the tokens; 80, 10 and 10 % of them. A tenth of 4,000 deviates by 0.5 %."""
    shown: dict[str, int] = {"mask": 0, "same": 0, "other": 0}
    tokens = chosen = 0
    for before, after in zip(case.examples * 400, masked_often(case), strict=True):
        ids, seen = before.inputs["input_ids"], after.inputs["input_ids"]
        targets = after.target != NOT_A_TARGET
        assert np.array_equal(seen[~targets], ids[~targets]), "what is not predicted is shown as it is"
        assert np.array_equal(after.target[targets], ids[targets])
        assert not targets[[0, -1]].any(), "special tokens are not predicted"
        tokens, chosen = tokens + len(ids) - 2, chosen + int(targets.sum())
        is_mask = seen[targets] == case.task.processor.mask_token_id
        is_same = seen[targets] == ids[targets]
        shown["mask"] += int(is_mask.sum())
        shown["same"] += int(is_same.sum())
        shown["other"] += int((~is_mask & ~is_same).sum())
    # A sentence of which chance chose nothing gets one target all the same: (1 - 0.15)^7 of them.
    assert chosen / tokens == pytest.approx(0.15 + 0.85**7 / 7, abs=0.01)
    assert shown["mask"] / chosen == pytest.approx(0.8, abs=0.03)
    assert shown["other"] / chosen == pytest.approx(0.1, abs=0.02)
    assert shown["same"] / chosen == pytest.approx(0.1, abs=0.02)


def test_evaluation_masks_a_row_always_the_same_and_training_anew(case: TaskCase) -> None:
    one, other = (case.task.collate(case.examples) for _ in range(2))
    assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
    drawn = [case.task.augment(case.examples[0], generator(0, "augment", epoch)).target for epoch in range(8)]
    assert len({tuple(t) for t in drawn}) > 3


def test_long_texts_give_several_examples_and_no_token_is_lost(model: Path) -> None:
    long = " ".join(SENTENCES)
    case = TaskCase.of(FillMask, [{"text": long}, {"text": "the sea"}], model, {"train.max_length": 12})
    tokenizer = case.task.processor
    parts = [e for e in case.examples if e.row == 0]
    assert [e.part for e in parts] == list(range(len(parts)))
    assert all(e.length <= 12 for e in parts)
    joined = [int(i) for e in parts for i in e.inputs["input_ids"][1:-1]]
    assert joined == tokenizer(long, add_special_tokens=False)["input_ids"]


def test_the_loss_is_the_mean_over_masked_tokens_of_the_whole_heads_loss(case: TaskCase) -> None:
    """The shortcut that lets the head see masked places alone changes no number."""
    batch = case.task.collate(case.examples)
    with torch.inference_mode():
        whole = F.cross_entropy(
            case.model(**batch.inputs).logits.flatten(0, 1), batch.targets.flatten(), ignore_index=NOT_A_TARGET
        )
    found = evaluate_examples(case.task, case.model, case.examples)
    assert found.loss == pytest.approx(float(whole), rel=1e-5)
    assert found.metrics["perplexity"] == pytest.approx(float(whole.exp()), rel=1e-4)


def test_masks_in_a_text_to_predict_are_the_ones_that_are_filled(case: TaskCase) -> None:
    rows = [Row(0, {"text": "the [MASK] near the [MASK] was old"}, "a:1"), Row(1, {"text": "the [MASK]"}, "a:2")]
    tokenizer = case.task.processor
    for row, prediction in zip(rows, predict_rows(case.task, case.model, rows), strict=True):
        inputs = tokenizer(row.values["text"], return_tensors="pt")
        with torch.inference_mode():
            logits = case.model(**inputs).logits[0]
        places = inputs["input_ids"][0] == tokenizer.mask_token_id
        assert prediction.label == tokenizer.convert_ids_to_tokens(logits[places].argmax(-1))
        assert len(prediction.label) == row.values["text"].count("[MASK]")


def test_of_a_long_text_nothing_is_filled_but_its_masks(model: Path) -> None:
    case = TaskCase.of(FillMask, [{"text": s} for s in SENTENCES], model, {"train.max_length": 12})
    long = " ".join([*SENTENCES, "the [MASK] was old", *SENTENCES])
    rows = [Row(0, {"text": long}, "a:1"), Row(1, {"text": " ".join(SENTENCES)}, "a:2")]
    filled, nothing = predict_rows(case.task, case.model, rows)
    assert len(filled.label) == 1
    assert (nothing.label, nothing.probability) == ([], None)
    assert nothing.shown == "(nothing to fill: no [MASK] in the text)"


def test_a_text_of_special_tokens_only_is_no_error(case: TaskCase) -> None:
    [example] = case.task.encode(Row(0, {"text": ""}, "a:1"), train=True)
    batch = case.task.collate([example])
    assert batch.weights == {"masked tokens": 0.0}
    with torch.inference_mode():
        assert float(case.task.loss(case.model, batch).terms["loss"].sum) == 0.0


def test_a_group_is_kept_together_and_a_label_refused(model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{text} {i}", "document": f"d{i % 6}"} for i, text in enumerate(SENTENCES * 10)]
    settings = ["train.epochs=1 steps", "data.validation=0.3", "data.group=document"]
    plan = unfreeze.plan(rows, model=str(model), task="fill-mask", settings=settings)
    assert plan.data["roles"]["group"] == "document"
    assert plan.data["facts"]["shared_groups"]["train and validation"][1] == 0
    with pytest.raises(DataError, match="nonsense"):
        unfreeze.plan(rows, model=str(model), task="fill-mask", settings=["data.group=nonsense"])
    with pytest.raises(RecipeError, match="without a label"):
        unfreeze.plan(rows, model=str(model), task="fill-mask", settings=["data.label=document"])


def test_a_decoder_cannot_fill_masks(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny", "gpt2", texts=SENTENCES)
    with pytest.raises(TaskError, match="no mask token"):
        TaskCase.of(FillMask, [{"text": s} for s in SENTENCES], folder, {})


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, "0.2", True, float("nan"), 10**400])
def test_a_share_that_masks_nothing_or_everything_is_refused(fraction: Any) -> None:
    with pytest.raises(TaskError, match="between 0 and 1"):
        FillMask(masked_fraction=fraction)
