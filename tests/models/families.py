"""Tiny models of the families that people fine-tune, with random weights, and inputs that they take."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoConfig

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

    def inputs(self, rows: int = 2) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        if self.auto in (TEXT, CAUSAL, SEQ2SEQ):
            length = 16
            ids = torch.randint(3, 90, (rows, length), generator=generator)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if self.family in ("t5", "mt5", "bart", "mbart", "pegasus", "led"):
                ids[:, -1] = 2
                inputs |= {"decoder_input_ids": ids} if self.auto == SEQ2SEQ else {}
            return inputs
        if self.auto == IMAGE:
            size = 64 if self.family in ("swin", "swinv2", "levit") else 32
            return {"pixel_values": torch.rand(rows, 3, size, size, generator=generator)}
        if self.family == "whisper":
            inputs = {"input_features": torch.rand(rows, 16, 100, generator=generator)}
            decoder_ids = torch.ones(rows, 4, dtype=torch.long)
            return inputs | ({"decoder_input_ids": decoder_ids} if self.auto == SPEECH else {})
        if self.family == "audio-spectrogram-transformer":
            return {"input_values": torch.rand(rows, 48, 16, generator=generator)}
        return {"input_values": torch.rand(rows, 1600, generator=generator)}


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
