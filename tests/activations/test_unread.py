"""Positions that the head does not read are left out where that changes nothing, and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import CONFIGS, build

from unfreeze.activations.unread import Unread
from unfreeze.models.layers import LayerGroups
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.types import Batch, Example, LossOutput, LossTerm

# Everything after the last attention, and the attention itself.
WHOLE = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "rembert"}


def gradients(task: TextClassification, model: torch.nn.Module, examples: list[Example]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    task.loss(model, task.collate(examples)).terms["loss"].sum.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_outputs_and_gradients_are_those_of_the_full_forward(
    name: str, task: TextClassification, examples: list[Example]
) -> None:
    model, groups = build(name)
    unread = Unread.find(task, model, groups, examples)
    with torch.no_grad():
        wanted = task.predict(model, task.collate(examples))
    wanted_gradients = gradients(task, model, examples)
    with unread.skipped(), torch.no_grad():
        given = task.predict(model, task.collate(examples))
    with unread.skipped():
        given_gradients = gradients(task, model, examples)
    assert float((wanted - given).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert given_gradients.keys() == wanted_gradients.keys()
    largest = max(float(g.abs().max()) for g in wanted_gradients.values())
    for parameter, gradient in wanted_gradients.items():
        assert float((gradient - given_gradients[parameter]).abs().max()) <= 1e-5 * largest, parameter
    with torch.no_grad():
        assert torch.equal(task.predict(model, task.collate(examples)), wanted), "the model is itself again"


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_encoders_that_classify_by_their_first_token_leave_the_others_out(
    name: str, task: TextClassification, examples: list[Example]
) -> None:
    model, groups = build(name)
    unread = Unread.find(task, model, groups, examples)
    [module] = unread.modules
    assert module.endswith("attention.output")
    assert unread.layer == groups.module_path(f"group {groups.n_groups - 1}")


@pytest.mark.parametrize("name", ["gpt2", "llama", "albert"])
def test_where_other_positions_are_read_or_layers_are_shared_nothing_is_left_out(
    name: str, task: TextClassification, examples: list[Example]
) -> None:
    model, groups = build(name)
    assert Unread.find(task, model, groups, examples).modules == ()


def test_a_head_that_reads_the_mean_of_all_tokens_is_seen_through(
    task: TextClassification, examples: list[Example]
) -> None:
    model, groups = build("bert")
    pooler = model.bert.pooler
    pooler.forward = lambda hidden: torch.tanh(pooler.dense(hidden.mean(1)))
    assert Unread.find(task, model, groups, examples).modules == ()


def test_outputs_that_do_not_depend_on_the_rows_prove_nothing(
    task: TextClassification, examples: list[Example]
) -> None:
    model, _ = build("bert")
    torch.nn.init.zeros_(model.classifier.weight)
    assert Unread.find(task, model, LayerGroups.of(model), examples).modules == ()


def test_a_residual_round_the_place_is_dropped_too(task: TextClassification, examples: list[Example]) -> None:
    model, groups = build("distilbert")
    unread = Unread.find(task, model, groups, examples)
    shapes: list[tuple[int, ...]] = []
    model.distilbert.transformer.layer[-1].ffn.register_forward_hook(lambda m, a, out: shapes.append(tuple(out.shape)))
    with unread.skipped(), torch.no_grad():
        task.predict(model, task.collate(examples))
    assert shapes == [(len(examples), 1, 32)]


def test_a_loss_that_reads_other_positions_is_seen_through(task: TextClassification, examples: list[Example]) -> None:
    class Contrastive(TextClassification):
        def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
            found = super().loss(model, batch)
            spread = model.bert(**batch.inputs)[0].std(1).sum()
            return LossOutput({**found.terms, "spread": LossTerm(spread, "rows")}, found.outputs)

    model, groups = build("bert")
    with torch.no_grad():
        model.bert.encoder.layer[-1].attention.output.dense.weight.mul_(20)
    own = Contrastive().bind(roles=task.roles, targets=task.targets, processor=task.processor, max_length=100)
    assert Unread.find(own, model, groups, examples).modules == ()


def test_a_model_that_wants_whole_rows_is_left_as_it_is(task: TextClassification, examples: list[Example]) -> None:
    import transformers

    config = transformers.BartConfig(
        vocab_size=600, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=140, num_labels=3,
        eos_token_id=3,
    )  # fmt: skip
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    assert Unread.find(task, model, LayerGroups.of(model), examples).modules == ()


def test_an_interrupt_inside_the_layer_leaves_attention_as_it_was(
    task: TextClassification, examples: list[Example]
) -> None:
    model, groups = build("bert")
    unread = Unread.find(task, model, groups, examples)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.bert.encoder.layer[-1].output.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), unread.skipped():
        task.predict(model, task.collate(examples))
    handle.remove()
    query = torch.randn(1, 1, 3, 4)
    found = F.scaled_dot_product_attention(query, query, query)
    assert not torch.equal(found[:, :, 0], found[:, :, 1])


def test_modes_are_left_as_they_were(task: TextClassification, examples: list[Example]) -> None:
    model, groups = build("bert")
    model.train()
    model.bert.encoder.layer[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    Unread.find(task, model, groups, examples)
    assert {name: module.training for name, module in model.named_modules()} == before
