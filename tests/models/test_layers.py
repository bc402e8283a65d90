"""Layer groups over the architectures that people fine-tune, and the spans that name parts of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from families import (
    ARCHITECTURES,
    AUDIO,
    CAUSAL,
    GPT,
    SEQ2SEQ,
    SMALL,
    SMALL_IMAGE,
    SPEECH_CONVS,
    T5,
    TEXT,
    TOWER,
    Architecture,
    name_of,
)
from torch import nn
from transformers import AutoConfig

from unfreeze.errors import ModelError, RecipeError
from unfreeze.models.layers import LayerGroups


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name_of)
def test_groups_of_an_architecture_on_the_meta_device(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = architecture.build()
    groups = LayerGroups.of(model)
    groups.check(model)
    assert groups.n_groups == architecture.n_groups
    assert groups.module_path(0) == architecture.first


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name_of)
def test_groups_follow_the_forward_and_the_frozen_part_is_a_function_of_its_input(architecture: Architecture) -> None:
    torch.manual_seed(0)
    model = architecture.build().eval()
    LayerGroups.of(model).check(model, architecture.inputs())


@pytest.fixture(scope="module")
def bert() -> Any:
    with torch.device("meta"):
        return Architecture("bert", TEXT, 3, None).build()


def test_the_head_of_bert_is_its_pooler_and_classifier(bert: Any) -> None:
    expected = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert LayerGroups.of(bert).select("head") == expected


def test_last_two_is_the_head_and_the_top_two_layers(bert: Any) -> None:
    chosen = LayerGroups.of(bert).select("last(2)")
    layers = {name.split(".")[3] for name in chosen if ".layer." in name}
    assert layers == {"1", "2"}
    assert "classifier.weight" in chosen
    assert not any("embeddings" in name for name in chosen)


def test_all_is_every_parameter(bert: Any) -> None:
    assert LayerGroups.of(bert).select("all") == {name for name, _ in bert.named_parameters()}


@pytest.mark.parametrize("k", [0, 4, 99])
def test_last_k_beyond_the_model_says_how_many_groups_there_are(bert: Any, k: int) -> None:
    with pytest.raises(RecipeError, match=r"has 3 layer groups") as caught:
        LayerGroups.of(bert).select(f"last({k})")
    assert caught.value.code == "SCHEDULE-MATCH"


def test_patterns_match_parameters_and_groups(bert: Any) -> None:
    groups = LayerGroups.of(bert)
    assert groups.select(["*.layer.1.*"]) == groups.select("group 1") == set(groups.parameters("group 1"))
    assert groups.select(["group 2", "head"]) == groups.select("last(1)")
    assert groups.select(["*.bias", "stem"]) > set(groups.parameters("stem"))


@pytest.mark.parametrize(
    ("pattern", "suggestion"),
    [
        ("*.layer.7.*", "groups are stem, group 0"),
        ("clasifier.*", "classifier"),
        ("grup 1", "group 1"),
        ("bert.encoder.layer.3.*", "bert.encoder.layer"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_with_a_suggestion(bert: Any, pattern: str, suggestion: str) -> None:
    with pytest.raises(RecipeError) as caught:
        LayerGroups.of(bert).select(["head", pattern])
    assert caught.value.code == "SCHEDULE-MATCH"
    assert repr(pattern) in caught.value.what
    assert suggestion in str(caught.value.remedy)


def test_no_pattern_at_all_is_an_error(bert: Any) -> None:
    with pytest.raises(RecipeError):
        LayerGroups.of(bert).select([])


def test_tied_weights_belong_to_the_lowest_group_that_holds_them() -> None:
    model = Architecture("gpt2", CAUSAL, 3, None, GPT).build()
    groups = LayerGroups.of(model)
    assert groups.tied == {"lm_head.weight": "stem"}
    assert groups.group_of("lm_head.weight") == groups.group_of("transformer.wte.weight") == "stem"
    assert groups.parameters("head") == {}
    assert groups.select(["lm_head.*"]) == {"transformer.wte.weight"}
    assert "transformer.wte.weight" not in groups.select("last(3)")


def test_asking_for_a_tied_head_alone_says_why_it_is_empty() -> None:
    model = Architecture("gpt2", CAUSAL, 3, None, GPT).build()
    with pytest.raises(RecipeError, match="tied to its embeddings"):
        LayerGroups.of(model).select("head")


def test_descriptions_count_every_parameter_once() -> None:
    model = Architecture("t5", SEQ2SEQ, 5, None, T5).build()
    rows = LayerGroups.of(model).describe()
    assert [row.name for row in rows] == ["stem", "group 0", "group 1", "group 2", "group 3", "group 4", "head"]
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    assert rows[1].modules == ("encoder.block.0",)
    assert rows[2].modules == ("encoder.block.1", "encoder.final_layer_norm")


def test_a_final_norm_goes_with_the_last_group() -> None:
    model = Architecture("llama", TEXT, 3, None).build()
    assert LayerGroups.of(model).group_of("model.norm.weight") == "group 2"


@pytest.mark.parametrize(("stable", "group"), [(False, "stem"), (True, "group 2")])
def test_the_norm_of_wav2vec2_lies_where_its_configuration_applies_it(stable: bool, group: str) -> None:
    with torch.device("meta"):
        model = Architecture("wav2vec2", AUDIO, 3, None, {**SPEECH_CONVS, "do_stable_layer_norm": stable}).build()
    assert LayerGroups.of(model).group_of("wav2vec2.encoder.layer_norm.weight") == group


def test_what_every_layer_reads_is_stem_wherever_it_is_registered() -> None:
    with torch.device("meta"):
        deberta = next(a for a in ARCHITECTURES if a.family == "deberta-v2").build()
        opt = next(a for a in ARCHITECTURES if a.family == "opt").build()
    groups = LayerGroups.of(deberta)
    assert groups.group_of("deberta.encoder.rel_embeddings.weight") == "stem"
    assert groups.group_of("deberta.encoder.LayerNorm.weight") == "stem"
    assert groups.group_of("deberta.encoder.conv.conv.weight") == "group 0"
    assert LayerGroups.of(opt).group_of("model.decoder.final_layer_norm.weight") == "group 2"


def test_a_bare_backbone_has_no_head() -> None:
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(AutoConfig.for_model("dinov2", **SMALL, **SMALL_IMAGE))
    groups = LayerGroups.of(model)
    groups.check(model)
    assert groups.names == ("stem", "group 0", "group 1", "group 2")
    assert groups.group_of("layernorm.weight") == "group 2"


def test_two_towers_of_like_size_have_no_numbered_groups_but_take_patterns() -> None:
    text = {
        "num_hidden_layers": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "vocab_size": 99,
    }
    with torch.device("meta"):
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=TOWER))
    groups = LayerGroups.of(model)
    assert groups.n_groups == 0
    with pytest.raises(ModelError, match=r"text_model\.encoder\.layers\.\*") as caught:
        groups.select("last(1)")
    assert caught.value.code == "MODEL-FAMILY"
    assert "vision_model.encoder.layers.2.mlp.fc1.weight" in groups.select(["vision_model.encoder.layers.2.*"])


def test_modes_of_frozen_groups_are_eval_down_to_the_containers(bert: Any) -> None:
    groups = LayerGroups.of(bert)
    groups.set_modes({"group 2", "head"})
    training = {path for path, module in bert.named_modules() if module.training}
    assert {"classifier", "dropout", "bert.encoder.layer.2.output.dropout", "bert.pooler"} <= training
    assert not training & {"bert", "bert.encoder", "bert.embeddings.dropout", "bert.encoder.layer.1.output.dropout"}
    groups.set_modes(groups.names)
    assert all(module.training for module in bert.modules())


def test_a_group_that_does_not_exist_is_a_key_error(bert: Any) -> None:
    groups = LayerGroups.of(bert)
    for ask in (groups.parameters, groups.modules, groups.module_path):
        with pytest.raises(KeyError):
            ask("group 9")
    with pytest.raises(KeyError):
        groups.set_modes({"group 9"})


class Plain(nn.Module):
    """A model of nobody's family; `order` is the order in which the forward calls its layers."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 2)
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for i in self.order:
            x = self.layers[i](x)
        return self.head(x)


def test_a_module_of_no_family_has_groups_too() -> None:
    model = Plain((0, 1, 2))
    groups = LayerGroups.of(model)
    groups.check(model, {"x": torch.ones(1, 4)})
    assert groups.names == ("stem", "group 0", "group 1", "group 2", "head")


@pytest.mark.parametrize(("order", "message"), [((2, 1, 0), "runs after"), ((0, 1, 1, 2), "exactly once")])
def test_check_notices_layers_that_do_not_run_in_their_order(order: tuple[int, ...], message: str) -> None:
    model = Plain(order)
    with pytest.raises(AssertionError, match=message):
        LayerGroups.of(model).check(model, {"x": torch.ones(1, 4)})


def test_check_notices_dropout_in_the_frozen_part() -> None:
    architecture = Architecture("bert", TEXT, 3, None)
    model = architecture.build().eval()
    groups = LayerGroups.of(model)
    model.bert.embeddings.register_forward_hook(lambda _m, _a, output: output + torch.rand_like(output))
    with pytest.raises(AssertionError, match="not a function of its input"):
        groups.check(model, architecture.inputs())
