"""text-generation: a language model goes on learning to write as the texts are written; no labels needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.errors import ModelError, TaskError
from unfreeze.tasks import _text
from unfreeze.tasks._next_tokens import PlainTexts
from unfreeze.tasks._text import NOT_A_TARGET
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row, is_whole

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import ModelSource

USUALLY_WRITTEN = 64


@dataclass
class TextGeneration(PlainTexts):
    """Continued pretraining of a decoder (GPT-2, Llama, Qwen) on plain text, to bring it nearer to a domain.

    A text longer than the limit gives several examples, none is lost; its end is learned where the tokenizer has a
    token for it. Figures are of the next tokens of held-out texts. To predict, a text is gone on with.

    Options:
        most_written: Tokens that an answer goes on for. Default: 64, and at most half of what the model takes.
        beams: Answers that are followed at the same time (beam search); 1 takes the likeliest token each time.

    Loss: cross-entropy of each next token.
    """

    name: ClassVar[str] = "text-generation"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    generates: ClassVar[bool] = True
    measures_answers: ClassVar[bool] = False
    brings_its_head: ClassVar[bool] = True

    most_written: int | None = None
    beams: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        is_right = self.most_written is None or is_whole(self.most_written, 1)
        self.check_option("most_written", is_right, "a whole number from 1 on")
        self.check_option("beams", is_whole(self.beams, 1), "a whole number from 1 on")

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        from unfreeze.models.loading import is_decoder, load_config

        config = load_config(source, allow_remote_code=self.allows_remote_code)
        if not is_decoder(config):
            what = f"a {config.model_type} model reads whole texts, and does not go on with one"
            remedy = "choose a decoder (gpt2, Qwen/Qwen3-0.6B), or: --task fill-mask"
            raise ModelError("MODEL-MODALITY", what, where=source.name, remedy=remedy)
        return super().load_processor(source)

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        limit, reason = super().longest_input(asked, train, config)
        if self.most_written is not None and self.most_written >= limit:
            what = (
                f"of {limit} tokens that the model takes, {self.most_written} are to be written: none is left to read"
            )
            raise TaskError(
                "TASK", what, where="options.most_written", remedy=f"--set options.most_written={limit // 2}"
            )
        return limit, reason

    @property
    def _written(self) -> int:
        return (
            self.most_written if self.most_written is not None else max(1, min(USUALLY_WRITTEN, self.max_length // 2))
        )

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        tokenizer, (column, *_) = self.processor, self.roles.text
        text = _text.text_of(row, column)
        ids = [int(token) for token in tokenizer(text, verbose=False)["input_ids"]]
        if not train:
            kept = ids[-(self.max_length - self._written) :] or [self._end()]
            return [self._example(kept, row.index, 0, is_cut=len(kept) < len(ids))]
        if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
            ids.append(tokenizer.eos_token_id)
        # The last token of a piece is the first of the next one, so that each is guessed once.
        step = self.max_length - 1
        starts = range(0, max(1, len(ids) - 1), step)
        return [
            self._example(ids[s : s + self.max_length] or [self._end()], row.index, n) for n, s in enumerate(starts)
        ]

    def _example(self, ids: list[int], row: int, part: int, *, is_cut: bool = False) -> Example:
        return Example({"input_ids": np.asarray(ids, dtype=np.int32)}, None, row, len(ids), part=part, is_cut=is_cut)

    def _end(self) -> int:
        found = self.processor.eos_token_id if self.processor.eos_token_id is not None else self.processor.pad_token_id
        return int(found or 0)

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _text.pad(examples, self.processor)
        inputs.pop("token_type_ids", None)
        ids, is_real = inputs["input_ids"], inputs["attention_mask"].bool()
        # (batch, length - 1): what each place but the last is to guess.
        targets = ids[:, 1:].masked_fill(~is_real[:, 1:], NOT_A_TARGET)
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        weights = {"next tokens": float((targets != NOT_A_TARGET).sum())}
        return Batch(inputs, targets, rows, weights, int(ids.numel()))

    # the model's answers -----------------------------------------------------------------------------------------

    def predict(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Logits of the token after each, (batch, length, vocabulary)."""
        return model(**batch.inputs, use_cache=False).logits

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)
        is_asked = batch.targets != NOT_A_TARGET
        total = F.cross_entropy(logits[:, :-1][is_asked].float(), batch.targets[is_asked], reduction="sum")
        return LossOutput({"loss": LossTerm(total, per="next tokens")}, logits)

    def answer(self, model: torch.nn.Module, batch: Batch, outputs: Any = None) -> list[str]:
        """What the model goes on with after each text."""
        ids, mask = (batch.inputs[name] for name in ("input_ids", "attention_mask"))
        # A decoder goes on after the last place, so that texts are padded on the left for it.
        lengths = mask.sum(-1).tolist()
        turned = [
            torch.roll(pair, pair.shape[-1] - n, dims=-1)
            for pair, n in zip(torch.stack([ids, mask], 1), lengths, strict=True)
        ]
        both = torch.stack(turned)
        written = model.generate(  # type: ignore[operator]
            input_ids=both[:, 0], attention_mask=both[:, 1], generation_config=self._generation_config(model)
        )
        return [str(text) for text in self.processor.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)]

    def _generation_config(self, model: Any) -> Any:
        return _text.generation_config(
            model,
            max_new_tokens=self._written,
            num_beams=self.beams,
            early_stopping=self.beams > 1,
            pad_token_id=int(self.processor.pad_token_id or 0),
        )

    def decode(self, outputs: list[str], batch: Batch) -> list[Prediction]:
        return [Prediction(int(row), text, shown=text) for row, text in zip(batch.rows, outputs, strict=True)]

    @property
    def rows_in_one(self) -> int:
        return self.beams

    def guessed(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return outputs[:, :-1][batch.targets != NOT_A_TARGET]

    def planned(self) -> list[tuple[str, Any, str]]:
        return [("options.most_written", self._written, "tokens that an answer goes on for")]

    def sample_rows(self) -> list[dict[str, Any]]:
        return [
            {"text": "The train to the coast leaves every hour and stops at the old harbour."},
            {"text": "She opened the window because the kitchen smelled of burnt sugar."},
            {"text": "Rain."},
        ]
