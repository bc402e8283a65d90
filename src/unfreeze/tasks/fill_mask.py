"""fill-mask: masked language modelling, to pretrain an encoder or to adapt one to a domain (BERT, arXiv 1810.04805)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.errors import TaskError
from unfreeze.models.layers import backbone_of
from unfreeze.randomness import generator
from unfreeze.tasks import _text
from unfreeze.tasks._next_tokens import PlainTexts
from unfreeze.tasks._text import NOT_A_TARGET
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row, is_number

if TYPE_CHECKING:
    from unfreeze.models.loading import ModelSource


@dataclass
class FillMask(PlainTexts):
    """Continued pretraining on plain text: no labels needed.

    A text longer than the limit gives several examples. Of the tokens, `masked_fraction` are predicted: 80 % of them
    are shown as the mask token, 10 % as a random token, 10 % as they are (BERT, section 3.1). Training masks anew in
    every epoch; evaluation uses one fixed mask a row, so that figures can be compared. In a text to predict, mask
    tokens that stand in it are the ones to fill, and no others.

    Options:
        masked_fraction: Share of the tokens to predict.
    """

    name: ClassVar[str] = "fill-mask"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    augments: ClassVar[bool] = True
    measures_answers: ClassVar[bool] = False
    most_tokens: ClassVar[int] = 128

    masked_fraction: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        is_share = is_number(self.masked_fraction) and 0 < self.masked_fraction < 1
        self.check_option("masked_fraction", is_share, "a share between 0 and 1")

    def load_processor(self, source: ModelSource) -> Any:
        tokenizer = super().load_processor(source)
        if tokenizer.mask_token_id is None:
            raise TaskError("TASK", "this model's tokenizer has no mask token", where=source.name)
        return tokenizer

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        tokenizer, (column, *_) = self.processor, self.roles.text
        text = _text.text_of(row, column)
        ids = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)
        before, after = _text.frame_of(tokenizer)
        room = self.max_length - len(before) - len(after)
        examples = []
        for number, start in enumerate(range(0, max(1, len(ids)), room)):
            whole = np.concatenate([before, ids[start : start + room], after])
            # Of a text to predict nothing but its own mask tokens is asked for, in none of its parts.
            target = None if train else np.where(whole == tokenizer.mask_token_id, whole, NOT_A_TARGET)
            examples.append(Example({"input_ids": whole}, target, row.index, len(whole), part=number))
        return examples

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        """Mask an example; `target` holds the token to predict, or -100, at each position."""
        tokenizer, ids = self.processor, example.inputs["input_ids"]
        special = np.isin(ids, tokenizer.all_special_ids)
        chosen = (generator.random(len(ids)) < self.masked_fraction) & ~special
        if not chosen.any() and not special.all():
            chosen[generator.choice(np.flatnonzero(~special))] = True
        how = generator.random(len(ids))
        shown = ids.copy()
        shown[chosen & (how < 0.8)] = tokenizer.mask_token_id
        random_places = chosen & (how >= 0.9)
        shown[random_places] = generator.integers(0, len(tokenizer), int(random_places.sum()))
        target = np.where(chosen, ids, NOT_A_TARGET)
        return Example({"input_ids": shown}, target, example.row, example.length, part=example.part)

    def collate(self, examples: Sequence[Example]) -> Batch:
        examples = [
            e if e.target is not None else self.augment(e, generator(0, "fixed mask", e.row, e.part)) for e in examples
        ]
        inputs = _text.pad(examples, self.processor)
        targets = torch.full(inputs["input_ids"].shape, NOT_A_TARGET, dtype=torch.int64)
        for i, example in enumerate(examples):
            targets[i, : example.length] = torch.from_numpy(example.target)
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        weights = {"masked tokens": float((targets != NOT_A_TARGET).sum())}
        return Batch(inputs, targets, rows, weights, int(targets.numel()))

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)  # (masked tokens, vocabulary)
        gold = batch.targets[batch.targets != NOT_A_TARGET]
        total = F.cross_entropy(logits.float(), gold, reduction="sum")
        return LossOutput({"loss": LossTerm(total, per="masked tokens")}, logits)

    def predict(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Scores of the vocabulary at the masked positions alone, (masked tokens, vocabulary)."""
        with only_at(model, batch.targets != NOT_A_TARGET):
            return model(**batch.inputs).logits.squeeze(0)

    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        found, start = [], 0
        best = outputs.detach().float().softmax(-1).max(-1)
        for i, row in enumerate(batch.rows):
            count = int((batch.targets[i] != NOT_A_TARGET).sum())
            ids = best.indices[start : start + count].tolist()
            tokens = self.processor.convert_ids_to_tokens(ids)
            probabilities = best.values[start : start + count]
            found.append(self._filled(int(row), tokens, float(probabilities.mean()) if count else None))
            start += count
        return found

    def merge(self, parts: Sequence[Prediction]) -> list[Prediction]:
        if len(parts) == 1:
            return list(parts)
        known = [p.probability for p in parts if p.probability is not None]
        tokens = [token for part in parts for token in part.label]
        return [self._filled(parts[0].row, tokens, sum(known) / len(known) if known else None)]

    def _filled(self, row: int, tokens: list[str], probability: float | None) -> Prediction:
        nothing = f"(nothing to fill: no {self.processor.mask_token} in the text)"
        return Prediction(row, tokens, probability, shown=" ".join(tokens) or nothing)

    def guessed(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return outputs

    def sample_rows(self) -> list[dict[str, Any]]:
        return [
            {"text": "The train to the coast leaves every hour and stops at the old harbour."},
            {"text": "She opened the window because the kitchen smelled of burnt sugar."},
            {"text": "Rain."},
        ]


@contextmanager
def only_at(model: torch.nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Let the language-model head see only the hidden states at `places` (batch, length).

    The head costs as much as several layers, and 85 % of its output is not needed. The backbone's last hidden state
    (batch, length, width) becomes (1, places, width) on its way to the head.
    """

    def gather(module: torch.nn.Module, args: Any, output: Any) -> Any:
        output[0 if isinstance(output, tuple) else "last_hidden_state"] = output[0][places].unsqueeze(0)
        return output

    backbone = backbone_of(model)
    hook = backbone.register_forward_hook(gather)
    try:
        yield
    finally:
        hook.remove()
