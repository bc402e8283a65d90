"""New heads: fresh where they must be, the same for the same seed, kept where the labels are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from unfreeze.errors import ModelError
from unfreeze.models.heads import _initialise_own, build_classifier, classifier_config
from unfreeze.models.loading import LoadedModel, load_config, resolve

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
LABELS = {0: "bad", 1: "good"}
POOLER, HEAD = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"], ["classifier.bias", "classifier.weight"]
IDS = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 2]])


def save_bert(folder: Path, model_class: Any = BertForMaskedLM, **settings: Any) -> Path:
    torch.manual_seed(1)
    model_class(BertConfig(vocab_size=12, **SIZES, **settings)).save_pretrained(folder)
    return folder


def build(folder: Path, labels: dict[int, str] = LABELS, *, seed: int = 0, **settings: Any) -> LoadedModel:
    source = resolve(str(folder))
    torch.manual_seed(seed)
    settings = {"problem_type": "single_label_classification", **settings}
    return build_classifier(source, load_config(source), n_labels=len(labels), id2label=labels, **settings)


def test_a_new_head_is_small_and_without_bias(tmp_path: Path) -> None:
    loaded = build(save_bert(tmp_path), {i: str(i) for i in range(200)})
    weight = loaded.model.classifier.weight
    assert weight.shape == (200, 16)
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert loaded.model.classifier.bias.count_nonzero() == 0
    assert loaded.new_parameters == POOLER + HEAD


def test_the_width_of_a_new_head_follows_the_configuration(tmp_path: Path) -> None:
    loaded = build(save_bert(tmp_path, initializer_range=0.5), {i: str(i) for i in range(200)})
    assert loaded.model.classifier.weight.std().item() == pytest.approx(0.5, rel=0.05)


def test_a_new_head_is_a_function_of_the_seed(tmp_path: Path) -> None:
    folder = save_bert(tmp_path)
    first, same, other = (build(folder, seed=seed).model.classifier.weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_labels_and_problem_type_are_in_the_configuration(tmp_path: Path) -> None:
    config = build(save_bert(tmp_path), problem_type="multi_label_classification").model.config
    assert (config.id2label, config.label2id) == (LABELS, {"bad": 0, "good": 1})
    assert (config.num_labels, config.problem_type) == (2, "multi_label_classification")


def test_the_configuration_that_was_given_is_not_changed(tmp_path: Path) -> None:
    config = load_config(resolve(str(save_bert(tmp_path))))
    before = config.to_dict()
    classifier_config(config, n_labels=2, problem_type="regression", id2label=LABELS).num_labels = 7
    assert config.to_dict() == before


def trained(folder: Path, labels: dict[int, str] = LABELS, **settings: Any) -> nn.Module:
    """A classifier with a head that cannot be mistaken for a new one, saved."""
    model = build(save_bert(folder / "pretrained"), labels, **settings).model
    with torch.no_grad():
        model.classifier.weight.fill_(3.0)
        model.bert.pooler.dense.weight.fill_(2.0)
    model.save_pretrained(folder / "trained")
    return model


def test_a_run_with_the_same_labels_goes_on_with_its_head(tmp_path: Path) -> None:
    model = trained(tmp_path)
    loaded = build(tmp_path / "trained")
    assert loaded.new_parameters == []
    assert torch.equal(loaded.model(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("labels", [{0: "good", 1: "bad"}, {0: "no", 1: "yes"}])
def test_other_label_names_make_a_new_head_even_where_the_number_fits(tmp_path: Path, labels: dict[int, str]) -> None:
    trained(tmp_path)
    loaded = build(tmp_path / "trained", labels)
    assert loaded.new_parameters == HEAD
    assert loaded.model.classifier.weight.abs().max() < 1
    assert torch.all(loaded.model.bert.pooler.dense.weight == 2.0), "the pooler was pretrained and stays"


def test_another_number_of_labels_makes_a_new_head(tmp_path: Path) -> None:
    trained(tmp_path)
    loaded = build(tmp_path / "trained", {0: "bad", 1: "good", 2: "neither"})
    assert loaded.new_parameters == HEAD
    assert any("in place of the checkpoint's for 2 labels" in note for note in loaded.notes)


def test_the_same_labels_under_another_problem_type_make_a_new_head(tmp_path: Path) -> None:
    trained(tmp_path)
    assert build(tmp_path / "trained", problem_type="multi_label_classification").new_parameters == HEAD


def test_a_head_is_not_kept_when_a_new_one_is_asked_for(tmp_path: Path) -> None:
    trained(tmp_path)
    assert build(tmp_path / "trained", keep_head=False).new_parameters == HEAD


def test_a_regression_head_is_kept(tmp_path: Path) -> None:
    trained(tmp_path, {0: "value"}, problem_type="regression")
    assert build(tmp_path / "trained", {0: "value"}, problem_type="regression").new_parameters == []


def test_the_head_of_another_task_is_not_taken_over_because_its_shape_fits(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, BertForTokenClassification, num_labels=2, id2label=LABELS)
    loaded = build(folder)
    assert set(HEAD) <= set(loaded.new_parameters)
    assert loaded.model.classifier.bias.count_nonzero() == 0


def test_the_dense_layer_of_a_masked_language_model_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = ModernBertConfig(vocab_size=12, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, **SIZES)
    config.sep_token_id = 2
    pretrained = ModernBertForMaskedLM(config)
    pretrained.save_pretrained(tmp_path)
    loaded = build(tmp_path)
    assert loaded.new_parameters == HEAD
    assert torch.equal(loaded.model.head.dense.weight, pretrained.head.dense.weight)


def save_decoder(folder: Path, **settings: Any) -> Path:
    torch.manual_seed(1)
    sizes = {"vocab_size": 12, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, **settings)).save_pretrained(folder)
    return folder


def test_a_decoder_gets_a_head_that_is_not_tied_to_its_embeddings(tmp_path: Path) -> None:
    source = resolve(str(save_decoder(tmp_path)))
    config = load_config(source)
    config.pad_token_id = 0
    loaded = build_classifier(source, config, n_labels=2, problem_type="single_label_classification", id2label=LABELS)
    assert loaded.new_parameters == ["score.weight"]
    assert loaded.model.score.weight.data_ptr() != loaded.model.transformer.wte.weight.data_ptr()
    assert any("end-of-text" in note for note in loaded.notes)
    loaded.model.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert torch.equal(again(IDS).logits, loaded.model(IDS).logits)


def test_a_decoder_without_a_padding_token_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        build(save_decoder(tmp_path))
    assert caught.value.code == "TOKENIZER"


def test_initialising_draws_weights_and_resets_biases_and_norms() -> None:
    linear, norm = nn.Linear(100, 100), nn.LayerNorm(100)
    for part in (linear, norm):
        for parameter in part.parameters():
            nn.init.constant_(parameter, 9.0)
        _initialise_own(part, 0.1, torch.Generator().manual_seed(0))
    assert linear.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert linear.bias.count_nonzero() == 0
    assert torch.all(norm.weight == 1.0)
    assert norm.bias.count_nonzero() == 0
