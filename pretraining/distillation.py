"""A task of our own for pretraining: masked language modelling with a teacher (DistilBERT, arXiv 1910.01108).

The student sees the masked text; the teacher, a sentence encoder, sees the text itself. The student learns to predict
the masked tokens and, at every token, the teacher's last hidden state: mean squared error, as in the hidden-state
distillation of TinyBERT (arXiv 1909.10351, equation 8) without a projection, since the widths are equal. Predicting the
teacher's view of a masked token is what differs from both.

The student's vocabulary is a part of the teacher's, so the teacher reads the student's tokens: a word that the student
splits further is split in the same way for the teacher, and positions correspond one to one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.models.layers import backbone_of
from unfreeze.models.loading import LoadedModel, ModelSource
from unfreeze.tasks._text import NOT_A_TARGET
from unfreeze.tasks.fill_mask import FillMask, only_at
from unfreeze.types import Batch, Example, LossOutput, LossTerm


@dataclass
class Distillation(FillMask):
    """Fill-mask with a teacher.

    Options:
        teacher: Folder of the teacher, as `from_pretrained` reads it.
        teacher_ids: JSON file: the teacher's id of each id of the student's vocabulary.
        hidden_weight: Coefficient of the hidden-state term.
    """

    name: ClassVar[str] = "fill-mask"

    teacher: str = ""
    teacher_ids: str = ""
    hidden_weight: float = 20.0

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModel

        self._teacher = AutoModel.from_pretrained(
            self.teacher, dtype=torch.float32, attention_probs_dropout_prob=0.0, add_pooling_layer=False
        ).eval()
        self._ids = torch.tensor(json.loads(Path(self.teacher_ids).read_text()))
        return super().build(source, config)

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        masked = super().augment(example, generator)
        masked.inputs["original"] = example.inputs["input_ids"]
        return masked

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch = super().collate(examples)
        if "original" in examples[0].inputs:
            original = batch.inputs["input_ids"].clone()
            for i, example in enumerate(examples):
                original[i, : example.length] = torch.from_numpy(example.inputs["original"].astype(np.int64))
            batch.targets = {"tokens": batch.targets, "original": original}
            batch.weights["tokens"] = float(batch.inputs["attention_mask"].sum())
        return batch

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        if not isinstance(batch.targets, dict) or not hasattr(self, "_teacher"):
            tokens = batch.targets["tokens"] if isinstance(batch.targets, dict) else batch.targets
            return super().loss(model, Batch(batch.inputs, tokens, batch.rows, batch.weights, batch.size_tokens))
        tokens, mask = batch.targets["tokens"], batch.inputs["attention_mask"]
        with torch.no_grad():
            teacher = self._teacher(input_ids=self._ids[batch.targets["original"]], attention_mask=mask)[0]
        seen: list[torch.Tensor] = []
        backbone = backbone_of(model)
        hook = backbone.register_forward_hook(lambda module, args, output: seen.append(output[0]))
        try:
            with only_at(model, tokens != NOT_A_TARGET):
                logits = model(**batch.inputs).logits.squeeze(0)
        finally:
            hook.remove()
        masked = F.cross_entropy(logits, tokens[tokens != NOT_A_TARGET], reduction="sum")
        gap = F.mse_loss(seen[0], teacher, reduction="none").mean(-1)  # (batch, length)
        hidden = (gap * mask).sum()
        return LossOutput(
            {
                "loss": LossTerm(masked, per="masked tokens"),
                "hidden": LossTerm(hidden, per="tokens", coefficient=self.hidden_weight),
            },
            logits,
        )
