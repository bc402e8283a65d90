"""Layer groups over the architectures that people fine-tune, and the spans that name parts of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig

from unfreeze.errors import ModelError, RecipeError
from unfreeze.models.layers import LayerGroups

TEXT, CAUSAL, SEQ2SEQ = "SequenceClassification", "CausalLM", "Seq2SeqLM"
IMAGE, AUDIO, SPEECH = "ImageClassification", "AudioClassification", "SpeechSeq2Seq"

# Sizes under all the names that families use; a configuration ignores those it does not read.
SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_labels": 2,
}
SPEECH_CONVS = {"conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_conv_pos_embeddings": 15}
SPEECH_CONVS |= {"num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16, "mask_time_prob": 0.0}
SMALL_IMAGE = {"image_size": 32, "patch_size": 8}
HALVES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
HALVES |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 2, "num_hidden_layers": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
T5 |= {"num_hidden_layers": 2, "decoder_start_token_id": 0}
BIG_BIRD = {"block_size": 8, "attention_type": "original_full"}
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "n_inner": 48}
WHISPER = {**HALVES, "num_mel_bins": 16, "max_source_positions": 50, "max_target_positions": 30}
STAGES: dict[str, Any] = {"num_hidden_layers": 4, "image_size": 32}
TOWER = {"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, **SMALL_IMAGE}


class Architecture(NamedTuple):
    """A family on one Auto class, with the number of its groups and the module of the first."""

    family: str
    auto: str
    n_groups: int
    first: str | None
    sizes: dict[str, Any] = {}  # noqa: RUF012

    def build(self) -> Any:
        sizes = {name: size for name, size in {**SMALL, **self.sizes}.items() if size is not None}
        config = AutoConfig.for_model(self.family, **sizes)
        auto = getattr(transformers, f"AutoModelFor{self.auto}")
        return auto.from_config(config)

    def inputs(self, model: Any) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        if self.auto in (TEXT, CAUSAL, SEQ2SEQ):
            length = 16
            ids = torch.randint(3, 90, (2, length), generator=generator)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if self.family in ("t5", "mt5", "bart", "mbart", "pegasus", "led"):
                ids[:, -1] = 2
                inputs |= {"decoder_input_ids": ids} if self.auto == SEQ2SEQ else {}
            return inputs
        if self.auto == IMAGE:
            size = 64 if self.family in ("swin", "swinv2", "levit") else 32
            return {"pixel_values": torch.rand(2, 3, size, size, generator=generator)}
        if self.family == "whisper":
            inputs = {"input_features": torch.rand(2, 16, 100, generator=generator)}
            return inputs | ({"decoder_input_ids": torch.ones(2, 4, dtype=torch.long)} if self.auto == SPEECH else {})
        if self.family == "audio-spectrogram-transformer":
            return {"input_values": torch.rand(2, 48, 16, generator=generator)}
        return {"input_values": torch.rand(2, 1600, generator=generator)}


A = Architecture
ARCHITECTURES = [
    # text encoders
    A("bert", TEXT, 3, "bert.encoder.layer.0"),
    A("roberta", TEXT, 3, "roberta.encoder.layer.0"),
    A("xlm-roberta", TEXT, 3, "roberta.encoder.layer.0"),
    A("camembert", TEXT, 3, "roberta.encoder.layer.0"),
    A("electra", TEXT, 3, "electra.encoder.layer.0", {"embedding_size": 16}),
    A(
        "distilbert",
        TEXT,
        3,
        "distilbert.transformer.layer.0",
        {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    ),
    A("albert", TEXT, 1, None, {"embedding_size": 16}),
    A("deberta", TEXT, 3, "deberta.encoder.layer.0", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    A(
        "deberta-v2",
        TEXT,
        3,
        "deberta.encoder.layer.0",
        {
            "relative_attention": True,
            "pos_att_type": ["c2p"],
            "norm_rel_ebd": "layer_norm",
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
    ),
    A("modernbert", TEXT, 3, "model.layers.0", {"cls_token_id": 1, "sep_token_id": 2}),
    A("mpnet", TEXT, 3, "mpnet.encoder.layer.0"),
    A("longformer", TEXT, 3, "longformer.encoder.layer.0", {"attention_window": [4, 4, 4]}),
    A("big_bird", TEXT, 3, "bert.encoder.layer.0", BIG_BIRD),
    A(
        "funnel",
        TEXT,
        4,
        "funnel.encoder.blocks.0.0",
        {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48, "block_sizes": [2, 2], "num_hidden_layers": None},
    ),
    A("convbert", TEXT, 3, "convbert.encoder.layer.0", {"embedding_size": 32}),
    A("mobilebert", TEXT, 3, "mobilebert.encoder.layer.0", {"embedding_size": 16, "intra_bottleneck_size": 32}),
    A("squeezebert", TEXT, 3, None, {"embedding_size": 32}),
    A("nystromformer", TEXT, 3, "nystromformer.encoder.layer.0", {"segment_means_seq_len": 16, "num_landmarks": 16}),
    A("fnet", TEXT, 3, "fnet.encoder.layer.0"),
    A("rembert", TEXT, 3, "rembert.encoder.layer.0", {"input_embedding_size": 16, "output_embedding_size": 32}),
    A("layoutlm", TEXT, 3, "layoutlm.encoder.layer.0"),
    A("ernie", TEXT, 3, "ernie.encoder.layer.0"),
    A("esm", TEXT, 3, "esm.encoder.layer.0", {"emb_layer_norm_before": True, "mask_token_id": 4}),
    A("megatron-bert", TEXT, 3, "bert.encoder.layer.0"),
    A("roformer", TEXT, 3, "roformer.encoder.layer.0", {"embedding_size": 32}),
    A("xlm", TEXT, 3, None, {"emb_dim": 32, "n_layers": 3, "n_heads": 4, "n_words": 99}),
    A(
        "xlnet",
        TEXT,
        3,
        "transformer.layer.0",
        {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48, "max_position_embeddings": None},
    ),
    # text decoders
    A("gpt2", TEXT, 3, "transformer.h.0", GPT),
    A("gpt2", CAUSAL, 3, "transformer.h.0", GPT),
    A(
        "gpt_neo",
        TEXT,
        3,
        "transformer.h.0",
        {"num_layers": 3, "num_heads": 4, "attention_types": [[["global", "local", "global"], 1]]},
    ),
    A("gpt_neox", TEXT, 3, "gpt_neox.layers.0"),
    A("gptj", TEXT, 3, "transformer.h.0", {**GPT, "rotary_dim": 4}),
    A("opt", TEXT, 3, "model.decoder.layers.0", {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    A("bloom", TEXT, 3, "transformer.h.0", {"n_layer": 3, "n_head": 4}),
    A("llama", TEXT, 3, "model.layers.0"),
    A("llama", CAUSAL, 3, "model.layers.0"),
    A("mistral", TEXT, 3, "model.layers.0"),
    A("qwen2", TEXT, 3, "model.layers.0"),
    A("qwen3", TEXT, 3, "model.layers.0"),
    A("qwen3", CAUSAL, 3, "model.layers.0", {"tie_word_embeddings": True}),
    A("gemma", TEXT, 3, "model.layers.0"),
    A("gemma2", TEXT, 3, "model.layers.0"),
    A("gemma3_text", TEXT, 3, "model.layers.0"),
    A("phi", TEXT, 3, "model.layers.0"),
    A("phi3", TEXT, 3, "model.layers.0"),
    A("falcon", TEXT, 3, "transformer.h.0", {"ffn_hidden_size": 48, "head_dim": None}),
    # encoder-decoders
    A("t5", TEXT, 5, "transformer.encoder.block.0", T5),
    A("t5", SEQ2SEQ, 5, "encoder.block.0", T5),
    A("mt5", SEQ2SEQ, 5, "encoder.block.0", T5),
    A("bart", TEXT, 5, "model.encoder.layers.0", HALVES),
    A("bart", SEQ2SEQ, 5, "model.encoder.layers.0", HALVES),
    A("mbart", SEQ2SEQ, 5, "model.encoder.layers.0", HALVES),
    A("pegasus", SEQ2SEQ, 5, "model.encoder.layers.0", HALVES),
    A("whisper", SPEECH, 5, "model.encoder.layers.0", WHISPER),
    # audio
    A("whisper", AUDIO, 2, "encoder.layers.0", WHISPER),
    A("wav2vec2", AUDIO, 3, "wav2vec2.encoder.layers.0", SPEECH_CONVS),
    A("wav2vec2", AUDIO, 3, "wav2vec2.encoder.layers.0", {**SPEECH_CONVS, "do_stable_layer_norm": True}),
    A("hubert", AUDIO, 3, "hubert.encoder.layers.0", SPEECH_CONVS),
    A("wavlm", AUDIO, 3, "wavlm.encoder.layers.0", SPEECH_CONVS),
    A("sew", AUDIO, 3, "sew.encoder.layers.0", {**SPEECH_CONVS, "squeeze_factor": 2}),
    A(
        "audio-spectrogram-transformer",
        AUDIO,
        3,
        "audio_spectrogram_transformer.layers.0",
        {"num_mel_bins": 16, "max_length": 48, "patch_size": 8},
    ),
    # images
    A("vit", IMAGE, 3, "vit.layers.0", SMALL_IMAGE),
    A("deit", IMAGE, 3, "deit.layers.0", {**SMALL_IMAGE, "architectures": ["DeiTForImageClassification"]}),
    A("beit", IMAGE, 3, "beit.layers.0", SMALL_IMAGE),
    A("dinov2", IMAGE, 3, "dinov2.encoder.layer.0", SMALL_IMAGE),
    A(
        "swin",
        IMAGE,
        2,
        "swin.encoder.layers.0",
        {
            "image_size": 64,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
            "num_attention_heads": None,
            "num_hidden_layers": None,
            "head_dim": None,
        },
    ),
    A(
        "convnext",
        IMAGE,
        4,
        "convnext.encoder.stages.0",
        {**STAGES, "depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]},
    ),
    A(
        "resnet",
        IMAGE,
        4,
        "resnet.encoder.stages.0",
        {"embedding_size": 8, "depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]},
    ),
    A(
        "regnet",
        IMAGE,
        4,
        "regnet.encoder.stages.0",
        {
            "embedding_size": 8,
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 16, 24, 32],
            "groups_width": 8,
            "num_hidden_layers": None,
        },
    ),
    A("mobilenet_v1", IMAGE, 26, "mobilenet_v1.layer.0", {"depth_multiplier": 0.25}),
    A("mobilenet_v2", IMAGE, 16, "mobilenet_v2.layer.0", {"depth_multiplier": 0.25}),
    A(
        "efficientnet",
        IMAGE,
        16,
        "efficientnet.encoder.blocks.0",
        {"width_coefficient": 0.2, "depth_coefficient": 1.0, "hidden_dim": 256},
    ),
    A(
        "mobilevit",
        IMAGE,
        5,
        "mobilevit.encoder.layer.0",
        {"image_size": 32, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32]},
    ),
    A(
        "segformer",
        IMAGE,
        4,
        "segformer.stages.0",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 3, 4],
            "decoder_hidden_size": 16,
            "num_hidden_layers": None,
        },
    ),
    A(
        "pvt",
        IMAGE,
        4,
        None,
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 2, 1],
            "num_attention_heads": [1, 2, 3, 4],
            "image_size": 32,
        },
    ),
    A("clip", IMAGE, 3, "vision_model.encoder.layers.0", {"vision_config": TOWER}),
    A("siglip", IMAGE, 3, "vision_model.encoder.layers.0", {"vision_config": TOWER}),
]


def name_of(architecture: Architecture) -> str:
    return f"{architecture.family}-{architecture.auto}"


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
    LayerGroups.of(model).check(model, architecture.inputs(model))


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
        groups.check(model, architecture.inputs(model))
