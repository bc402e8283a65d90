"""Tiny classifiers of many architectures, with random weights."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import transformers

from unfreeze.models.layers import LayerGroups

VOCABULARY = 600
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 140,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "num_labels": 3,
}
GROUPED: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
HEADED: dict[str, Any] = {**GROUPED, "head_dim": 16}
CONFIGS: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(**COMMON),
    "roberta": lambda: transformers.RobertaConfig(**COMMON),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**COMMON),
    "camembert": lambda: transformers.CamembertConfig(**COMMON),
    "electra": lambda: transformers.ElectraConfig(embedding_size=16, **COMMON),
    "ernie": lambda: transformers.ErnieConfig(**COMMON),
    "rembert": lambda: transformers.RemBertConfig(input_embedding_size=16, output_embedding_size=16, **COMMON),
    "convbert": lambda: transformers.ConvBertConfig(embedding_size=32, **COMMON),
    "nystromformer": lambda: transformers.NystromformerConfig(num_landmarks=8, segment_means_seq_len=8, **COMMON),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=4, n_heads=2, hidden_dim=64, max_position_embeddings=140, num_labels=3
    ),
    "deberta-v2": lambda: transformers.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, **COMMON
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **{**COMMON, "cls_token_id": 2, "sep_token_id": 3}, local_attention=16, global_attn_every_n_layers=2
    ),
    "mpnet": lambda: transformers.MPNetConfig(**COMMON),
    "albert": lambda: transformers.AlbertConfig(embedding_size=16, **COMMON),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=4,
        n_head=2,
        n_positions=140,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        num_labels=3,
    ),
    "opt": lambda: transformers.OPTConfig(ffn_dim=64, word_embed_proj_dim=32, **COMMON),
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**HEADED),
    "gemma": lambda: transformers.GemmaConfig(**HEADED),
    "gemma2": lambda: transformers.Gemma2Config(sliding_window=8, **HEADED),
    "gemma3": lambda: transformers.Gemma3TextConfig(sliding_window=8, **HEADED),
    "phi": lambda: transformers.PhiConfig(**GROUPED),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**COMMON),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=4, n_head=2, num_labels=3, pad_token_id=0
    ),
}


def build(name: str) -> tuple[torch.nn.Module, LayerGroups]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForSequenceClassification.from_config(CONFIGS[name]())
    return model.eval(), LayerGroups.of(model)
