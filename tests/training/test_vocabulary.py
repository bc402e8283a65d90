"""Words that no training row contains are left alone; the others are trained exactly as in the whole table."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import small
import torch
from architectures import CONFIGS, build

from unfreeze.tasks.fill_mask import FillMask
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import tiny_model
from unfreeze.training.vocabulary import SeenWords, occurring
from unfreeze.types import Example

TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_outputs_and_gradients_are_those_of_the_whole_table(
    name: str, task: TextClassification, examples: list[Example]
) -> None:
    model, _ = build(name)
    everything = {n for n, _ in model.named_parameters()}
    few = examples[:4]
    words = SeenWords.find(task, model, everything, few)
    if words is None:
        assert name in NOT_ALONE
        return
    assert name not in NOT_ALONE
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return task.loss(model, task.collate(few)).terms["loss"].sum

    whole = loss()
    whole.backward()
    wanted = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with words.installed():
        gathered = words.enter()
        found = loss()
        found.backward()
        assert torch.equal(found, whole)
        assert words.table.weight.grad is None
        assert gathered.grad is not None
        torch.testing.assert_close(gathered.grad, wanted[words.name][words.ids], rtol=1e-5, atol=1e-7)
    for parameter, tensor in model.named_parameters():
        if parameter != words.name and tensor.grad is not None:
            torch.testing.assert_close(tensor.grad, wanted[parameter], rtol=1e-5, atol=1e-7)
    wanted[words.name][words.ids] = 0
    assert not wanted[words.name].any(), "a word that does not occur had a gradient"


# Their tables scale what they look up.
NOT_ALONE = {"gemma", "gemma2", "gemma3"}


def train(made: Any, folder: Path, *, gathered: bool, **changes: Any) -> dict[str, torch.Tensor]:
    none = mock.patch.object(SeenWords, "find", return_value=None)
    with mock.patch.object(SeenWords, "find", SeenWords.find) if gathered else none:
        engine = made.engine(
            folder, made.phases(("all", 6)), train=made.prepared.train_examples[:6], batch_size=3, **changes
        )
        trained = engine.train()
    assert (engine.words is not None) is gathered
    return small.weights_of(trained)


def test_training_ends_with_the_same_weights(usual: Any, tmp_path: Path) -> None:
    changes = {"weight_decay": 0.0, "max_gradient_norm": 1e9}
    whole = train(usual, tmp_path / "whole", gathered=False, **changes)
    assert small.are_equal(train(usual, tmp_path / "gathered", gathered=True, **changes), whole)


def test_weight_decay_shrinks_only_words_that_occur(usual: Any, tmp_path: Path) -> None:
    before = usual.model().state_dict()
    whole = train(usual, tmp_path / "whole", gathered=False, max_gradient_norm=1e9, weight_decay=0.5)
    found = train(usual, tmp_path / "gathered", gathered=True, max_gradient_norm=1e9, weight_decay=0.5)
    ids = occurring(usual.prepared.task, usual.prepared.train_examples[:6], 10_000)
    absent = np.setdiff1d(np.arange(len(before[TABLE])), ids)
    assert len(absent)
    assert torch.equal(found[TABLE][ids], whole[TABLE][ids])
    assert torch.equal(found[TABLE][absent], before[TABLE][absent])
    assert (whole[TABLE][absent].norm(dim=1) < before[TABLE][absent].norm(dim=1)).all()


def test_a_phase_that_freezes_the_words_follows_one_that_trained_them(usual: Any, tmp_path: Path) -> None:
    few = usual.prepared.train_examples[:6]
    phases = usual.phases(("all", 3), ("head", 3), ("all", 3))
    engine = usual.engine(tmp_path / "gathered", phases, train=few, batch_size=3, weight_decay=0.0)
    found = small.weights_of(engine.train())
    with mock.patch.object(SeenWords, "find", return_value=None):
        plain = usual.engine(tmp_path / "whole", phases, train=few, batch_size=3, weight_decay=0.0)
        assert small.are_equal(small.weights_of(plain.train()), found)
    assert engine.words is not None
    assert engine.words.parameter is None
    assert "forward" not in vars(engine.words.table)


def test_validation_rows_may_have_words_that_no_training_row_has(usual: Any, tmp_path: Path) -> None:
    examples = usual.prepared.train_examples
    losses = []
    for find in (SeenWords.find, lambda *_: None):
        phases = usual.phases(("all", 4), evaluate_every=2)
        with mock.patch.object(SeenWords, "find", find):
            engine = usual.engine(
                tmp_path / str(len(losses)), phases, train=examples[:6], validation=examples[6:], weight_decay=0.0
            )
            engine.train()
        losses.append([e.values["metrics"]["loss"] for e in engine.run.events("evaluation")])
    assert losses[0] == losses[1]


def test_the_gathered_words_are_where_the_best_weights_are_found_again(usual: Any, tmp_path: Path) -> None:
    examples = usual.prepared.train_examples
    results = []
    for find in (SeenWords.find, lambda *_: None):
        phases = usual.phases(("all", 6), ("all", 4), evaluate_every=1)
        with mock.patch.object(SeenWords, "find", find):
            engine = usual.engine(
                tmp_path / str(len(results)), phases, train=examples[:6], validation=examples[6:], weight_decay=0.0
            )
            results.append(small.weights_of(engine.train()))
    assert small.are_equal(*results)


def test_a_table_that_is_tied_or_augmented_or_frozen_stays_whole(
    task: TextClassification, examples: list[Example], tmp_path: Path
) -> None:
    model, _ = build("bert")
    everything = {n for n, _ in model.named_parameters()}
    assert SeenWords.find(task, model, everything, examples[:4]) is not None
    assert SeenWords.find(task, model, everything - {TABLE}, examples[:4]) is None
    model.classifier.weight = model.bert.embeddings.word_embeddings.weight
    assert SeenWords.find(task, model, everything, examples[:4]) is None


def test_masked_language_models_train_every_word(tmp_path: Path) -> None:
    made = small.small(tiny_model(tmp_path / "tiny", texts=[r["text"] for r in small.reviews()]), task="fill-mask")
    assert isinstance(made.prepared.task, FillMask)
    model = made.model()
    everything = {n for n, _ in model.named_parameters()}
    assert SeenWords.find(made.prepared.task, model, everything, made.prepared.train_examples) is None


def test_an_id_that_no_training_row_has_is_an_error_and_no_wrong_vector(
    task: TextClassification, examples: list[Example]
) -> None:
    model, _ = build("bert")
    words = SeenWords.find(task, model, {n for n, _ in model.named_parameters()}, examples[:2])
    assert words is not None
    model.train()
    with words.installed():
        words.enter()
        with pytest.raises(RuntimeError, match="no training row contains"):
            task.loss(model, task.collate(examples))


def test_where_nearly_every_word_occurs_the_table_is_trained(task: TextClassification, examples: list[Example]) -> None:
    model, _ = build("bert")
    everything = {n for n, _ in model.named_parameters()}
    ids = np.arange(model.config.vocab_size, dtype=np.int32)
    whole = [Example({**examples[0].inputs, "input_ids": ids}, examples[0].target, 0, len(ids), part=0)]
    assert SeenWords.find(task, model, everything, [*examples, *whole]) is None
