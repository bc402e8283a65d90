"""What tasks share whose answer is a text that the model writes: an encoder reads, a decoder writes."""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.baselines import Baseline
from unfreeze.data.columns import Roles, check_named, written_roles
from unfreeze.data.quality import is_missing
from unfreeze.errors import DataError, ModelError, TaskError
from unfreeze.metrics import PairedState, TextState, TokenState
from unfreeze.metrics.texts import are_same
from unfreeze.tasks import _next_tokens, _text
from unfreeze.tasks._text import NOT_A_TARGET, Written
from unfreeze.tasks.base import Material, Task
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row, is_number, is_whole

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

# Of the training rows' texts to write: all are kept whole up to here, and what nearly all need beyond.
KEPT_QUANTILE, MOST_WRITTEN = 0.995, 512
MOST_BEAMS = 64


@dataclass(frozen=True)
class WrittenSpace:
    """What the training rows and the model say of the texts to write.

    Attributes:
        most_tokens: That are written at most, and to which those of the training rows are cut.
        start_token: With which the model begins to write.
        share_cut: Of the training rows whose text was longer.
    """

    most_tokens: int = 0
    start_token: int = 0
    share_cut: float = 0.0

    labels: ClassVar[tuple[str, ...]] = ()
    problem_type: ClassVar[str] = "text"
    reason: ClassVar[str] = "an answer is a text that the model writes"

    def to_json(self) -> dict[str, Any]:
        return {"most_tokens": self.most_tokens, "start_token": self.start_token, "share_cut": self.share_cut}


@dataclass(frozen=True)
class _Wanted:
    """What is to be written for a row: tokens of the first true text, and all true texts."""

    tokens: tuple[int, ...]
    texts: tuple[str, ...]


@dataclass
class _Targets:
    """Of a batch: the next token at each place, (batch, length), -100 for padding; and the true texts."""

    tokens: torch.Tensor
    texts: list[tuple[str, ...]]

    def to(self, device: torch.device) -> _Targets:
        return _Targets(self.tokens.to(device), self.texts)


@dataclass
class WritingTask(Task):
    """A text in, another text out, by an encoder-decoder such as T5 or BART.

    Options:
        prefix: Put before every text; T5 was pretrained with one for each of its tasks ("summarize: ").
        most_written: Tokens of an answer. Default: what 99.5 % of the training rows need, at most 512.
        beams: Answers that are followed at the same time (beam search); 1 takes the likeliest token each time.
        length_penalty: Above 0 long answers are preferred where several beams are followed, below 0 short ones.
        no_repeat_ngram_size: So many tokens in a row may occur once in an answer; 0: no such rule.

    A cell of the true texts may hold several of them, as a list: the first is trained on, and the scores take the one
    that suits best. Training evaluates by the loss; texts are written for the figures at the end and in service.

    Loss: cross-entropy of each next token of the true text.
    """

    primary_metric: ClassVar[str] = "rougeL"
    generates: ClassVar[bool] = True
    brings_its_head: ClassVar[bool] = True
    input_names: ClassVar[tuple[str, ...]]
    output_names: ClassVar[tuple[str, ...]]
    prefix: str = ""
    most_written: int | None = None
    beams: int = 4
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "in quotes inside of quotes: --set 'options.prefix=\"summarize: \"'"
        self.check_option("prefix", isinstance(self.prefix, str), "a text", remedy)
        self.check_option("length_penalty", is_number(self.length_penalty), "a number")
        for name, least in (("most_written", 2), ("beams", 1), ("no_repeat_ngram_size", 0)):
            is_left = name == "most_written" and self.most_written is None
            is_right = is_left or is_whole(getattr(self, name), least)
            self.check_option(name, is_right, f"a whole number from {least} on")
        if self.beams > MOST_BEAMS:
            what = f"{self.beams} beams are {self.beams} times the work of one; at most {MOST_BEAMS} are followed"
            raise TaskError("TASK", what, where="options.beams", remedy="--set options.beams=8")

    # what the columns are ----------------------------------------------------------------------------------------

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        text, label, group = (asked.text, asked.label, asked.group) if asked else (None,) * 3
        if label is not None and not isinstance(label, str):
            what = "one column holds the texts to write; several true texts of a row are a list in it"
            raise DataError("DATA-COLUMN", what, remedy=f"--set data.label={label[0]}")
        if group is not None:
            check_named(table, "group", group)
        names = (self.input_names, self.output_names)
        return written_roles(table, names, text=text, label=label, group=group, needs_label=needs_label)

    def is_unlabelled(self, value: Any) -> bool:
        return is_missing(value) or (
            isinstance(value, list) and not any(isinstance(t, str) and t.strip() for t in value)
        )

    def completed(self, table: Table, label: str) -> Table:
        """Several true texts of a row often lie in numbered columns: ``summary1``, ``summary2``."""
        if label in table.columns:
            return table
        numbered = sorted(c for c in table.columns if re.fullmatch(re.escape(label) + r"[_ ]?[0-9]", c))
        return table.gathering(label, numbered) if numbered else table

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> WrittenSpace:
        for row in train:
            _texts_in(row, str(roles.label))
        return WrittenSpace()

    def check_labels(self, table: Table, split: str) -> None:
        """Refuse rows without a text to write before training: test rows are encoded once it has ended."""
        for row in table:
            _texts_in(row, str(self.roles.label))

    def restore_targets(self, stored: Any) -> WrittenSpace:
        return WrittenSpace(int(stored["most_tokens"]), int(stored["start_token"]), float(stored["share_cut"]))

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        from transformers import AutoModelForSeq2SeqLM

        from unfreeze.models.loading import check_modality, load_config

        config = load_config(source, allow_remote_code=self.allows_remote_code)
        check_modality(AutoModelForSeq2SeqLM, config, source.name)
        return super().load_processor(source)

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """Of what is read; what is written is settled here too, since it takes the processor."""
        start = getattr(config, "decoder_start_token_id", None)
        start = getattr(config, "bos_token_id", None) if start is None else start
        if start is None:
            what = "config.json does not say with which token the model begins to write"
            raise ModelError("MODEL-BROKEN", what, remedy='its config.json needs "decoder_start_token_id"')
        lengths = np.asarray([len(self._tokens_of(_texts_in(row, str(self.roles.label))[0])) for row in train])
        needed = int(np.quantile(lengths, KEPT_QUANTILE, method="higher"))
        limit = _text.longest_input_tokens(config, self.processor)
        most = self.most_written if self.most_written is not None else min(needed, MOST_WRITTEN, limit)
        if most > limit:
            what = f"most_written is {most}, but this model writes at most {limit} tokens"
            raise TaskError("TASK", what, where="options.most_written", remedy=f"--set options.most_written={limit}")
        self.targets = WrittenSpace(most, int(start), float(np.mean(lengths > most)))
        return super().longest_input(asked, train, config)

    def planned(self) -> list[tuple[str, Any, str]]:
        space: WrittenSpace = self.targets
        longer = f"; {space.share_cut:.1%} of the training rows' texts are longer and are cut"
        searched = (
            "answers are followed at the same time (beam search)" if self.beams > 1 else "the likeliest token each time"
        )
        return [
            ("options.most_written", space.most_tokens, f"tokens of an answer{longer if space.share_cut else ''}"),
            ("options.beams", self.beams, searched),
        ]

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModelForSeq2SeqLM

        from unfreeze.models.loading import load_model

        return load_model(
            AutoModelForSeq2SeqLM, source, config, head_is_new=False, allow_remote_code=self.allows_remote_code
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM.from_config(copy.deepcopy(config), dtype=torch.float32)

    # rows --------------------------------------------------------------------------------------------------------

    def _tokens_of(self, text: str) -> list[int]:
        found = self.processor(text_target=text, return_attention_mask=False, verbose=False)["input_ids"]
        return [int(token) for token in found]

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        inputs, is_cut = _text.tokenize(self._with_prefix(row), self.roles.text, self.processor, self.max_length)
        inputs.pop("token_type_ids", None)  # no decoder model reads them
        target = None
        if train:
            texts = _texts_in(row, str(self.roles.label))
            tokens = self._tokens_of(texts[0])
            if len(tokens) > self.targets.most_tokens:
                # The last token says that the text has ended, which a text that was cut has not.
                tokens = tokens[: self.targets.most_tokens]
            target = _Wanted(tuple(tokens), texts)
        return [Example(inputs, target, row.index, len(inputs["input_ids"]), is_cut=is_cut)]

    def _with_prefix(self, row: Row) -> Row:
        first = self.roles.text[0]
        if not self.prefix or not isinstance(row.values.get(first), str):
            return row
        return replace(row, values={**row.values, first: self.prefix + row.values[first]})

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _text.pad(examples, self.processor)
        inputs.pop("token_type_ids", None)
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        wanted = [e.target.tokens if e.target is not None else () for e in examples]
        filler = int(self.processor.pad_token_id or 0)
        given, tokens = _text.teacher_forced(wanted, (self.targets.start_token,), filler)
        is_known = all(e.target is not None for e in examples)
        targets = _Targets(tokens, [e.target.texts for e in examples]) if is_known else None
        count = float(sum(map(len, wanted)))
        inputs["decoder_input_ids"] = given
        return Batch(inputs, targets, rows, {"written tokens": count}, int(inputs["input_ids"].numel() + given.numel()))

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)  # (batch, length, vocabulary)
        total = F.cross_entropy(
            logits.float().flatten(0, 1), batch.targets.tokens.flatten(), reduction="sum", ignore_index=NOT_A_TARGET
        )
        return LossOutput({"loss": LossTerm(total, per="written tokens")}, logits)

    def predict(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Logits of each next token of the true texts, (batch, length, vocabulary); without one, of the first."""
        return model(**batch.inputs, use_cache=False).logits

    def answer(self, model: torch.nn.Module, batch: Batch, outputs: Any = None) -> Written:
        kept = {name: tensor for name, tensor in batch.inputs.items() if not name.startswith("decoder_")}
        tokens = model.generate(**kept, generation_config=self._generation_config(model))  # type: ignore[operator]
        return Written(self.processor.batch_decode(tokens, skip_special_tokens=True), outputs)

    def _generation_config(self, model: Any) -> Any:
        return _text.generation_config(
            model,
            decoder_start_token_id=self.targets.start_token,
            max_new_tokens=self.targets.most_tokens,
            num_beams=self.beams,
            early_stopping=self.beams > 1,
            length_penalty=float(self.length_penalty),
            no_repeat_ngram_size=self.no_repeat_ngram_size,
        )

    @property
    def rows_in_one(self) -> int:
        return self.beams

    @property
    def tokens_written(self) -> int:
        return self.beams * int(self.targets.most_tokens)

    def decode(self, outputs: Written, batch: Batch) -> list[Prediction]:
        return [Prediction(int(row), text, shown=text) for row, text in zip(batch.rows, outputs.texts, strict=True)]

    # scores ------------------------------------------------------------------------------------------------------

    def metric(self) -> _WritingMetric:
        return _WritingMetric()

    def answers(self, outputs: Any, batch: Batch) -> list[str] | None:
        return list(outputs.texts)

    def comparison(self, table: Table, answers: Sequence[Any]) -> Callable[[Baseline], PairedState]:
        true = [_texts_in(row, str(self.roles.label)) for row in table]

        def beside(baseline: Baseline) -> PairedState:
            paired = PairedState("text")
            paired.update(true, answers, baseline.predictions)
            return paired

        return beside

    @abstractmethod
    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        """Texts that need no model: what the answer must be better than."""

    def texts_read(self, table: Table) -> Iterator[str]:
        """What the model is given of each row, as one text."""
        for row in table:
            yield self.shown(row)

    # for people --------------------------------------------------------------------------------------------------

    def mistake(self, row: Row, answer: str) -> tuple[str, str] | None:
        true = _texts_in(row, str(self.roles.label))
        return None if are_same(answer, true) else (" / ".join(true), answer or "(nothing)")

    def surprise(self, outputs: Any, batch: Batch) -> np.ndarray:
        """Mean negative log-probability of a true text's tokens, in nats, (batch,)."""
        logits = _logits_of(outputs)
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), batch.targets.tokens, reduction="none", ignore_index=NOT_A_TARGET
        )
        counts = (batch.targets.tokens != NOT_A_TARGET).sum(-1).clamp(min=1)
        return (losses.sum(-1) / counts).cpu().numpy()

    def target_shown(self, target: _Wanted) -> str:
        more = f", and {len(target.texts) - 1} more" if len(target.texts) > 1 else ""
        return f"{target.texts[0]!r}, {len(target.tokens)} tokens{more}"


def _logits_of(outputs: Any) -> torch.Tensor:
    logits = outputs.logits if isinstance(outputs, Written) else outputs
    assert logits is not None, "these texts were written without a true one"
    return logits


def _texts_in(row: Row, column: str) -> tuple[str, ...]:
    """The true texts of a row: one, or a list of them.

    Raises:
        DataError: E-DATA-LABEL.
    """
    value = row.values.get(column)
    texts = list(value) if isinstance(value, list | tuple) else [value]
    kept = tuple(text for text in texts if isinstance(text, str) and text.strip())
    if not kept or len(kept) < len([text for text in texts if text is not None]):
        what = f"column '{column}' holds neither a text nor a list of texts"
        raise DataError("DATA-LABEL", what, where=row.place, remedy="write a text there, or: --set data.label=COLUMN")
    return kept


class _WritingMetric:
    """Of the true texts' tokens, loss and hits; of the texts that were written, `TextState`."""

    def __init__(self) -> None:
        self.texts, self.tokens = TextState(), TokenState()

    def update(self, outputs: Any, batch: Batch) -> None:
        _next_tokens.add(self.tokens, _logits_of(outputs), batch.targets.tokens)
        if isinstance(outputs, Written):
            self.texts.update(outputs.texts, batch.targets.texts, batch.rows)

    def merge(self, other: _WritingMetric) -> None:
        self.texts.merge(other.texts)
        self.tokens.merge(other.tokens)

    def compute(self) -> dict[str, float | None]:
        return {**(self.texts.compute() if self.texts.n else {}), **self.tokens.compute()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        return self.texts.intervals()

    def details(self) -> dict[str, Any]:
        return {"reasons": {**self.texts.reasons, **self.tokens.reasons}}
