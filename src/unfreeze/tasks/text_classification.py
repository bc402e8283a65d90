"""text-classification: one class, several classes or a number for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from unfreeze.baselines import Baseline, tfidf
from unfreeze.data.columns import Roles, guess_roles
from unfreeze.errors import RecipeError, TaskError
from unfreeze.tasks import _text
from unfreeze.tasks._classification import ClassificationTask
from unfreeze.tasks.base import Material
from unfreeze.types import Batch, Example, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe


@dataclass
class TextClassification(ClassificationTask):
    """Sentiment, topics, intents, several tags at once, or a rating.

    Options, loss: see `unfreeze.tasks._classification`; and

        windows: Read texts beyond the model's limit whole, in windows that overlap; a row's probabilities are the mean
            over its windows, each of which is trained on the row's label, and together they count as one row.

    Example:
        >>> task = TextClassification()
        >>> task.sample_rows()[0]["label"]
        'positive'
    """

    name: ClassVar[str] = "text-classification"
    compares_with: ClassVar[tuple[str, ...]] = ("majority", "tfidf", "frozen features")

    windows: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_option("windows", isinstance(self.windows, bool), "true or false")

    def load_processor(self, source: ModelSource) -> Any:
        tokenizer = super().load_processor(source)
        if self.windows and not tokenizer.is_fast:
            what = "this model's tokenizer does not tell where it cuts, so that a text cannot be read in windows"
            raise TaskError("TASK", what, where="options.windows", remedy="leave it out, or choose another model")
        return tokenizer

    @property
    def averages_windows(self) -> bool:
        return self.windows

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        text, label, group = (asked.text, asked.label, asked.group) if asked else (None, None, None)
        roles = guess_roles(table, text=text, label=label, group=group, needs_label=needs_label)
        if self.windows and len(roles.text) > 1:
            what = f"windows are of one text, and {len(roles.text)} columns are read: {', '.join(roles.text)}"
            remedy = f"--set data.text={roles.text[0]}, or leave options.windows out"
            raise RecipeError("RECIPE-CONFLICT", what, where="options.windows", remedy=remedy)
        return roles

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        return _text.longest_input(self, asked, train, config, in_parts=self.windows)

    def planned(self) -> list[tuple[str, Any, str]]:
        why = "the answer to a longer text is the average over its windows"
        return [("options.windows", True, why)] if self.windows else []

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        space = self.targets
        targets = self._true(material.train)
        train, test = ([self.shown(row) for row in table] for table in (material.train, material.test))

        def counted() -> Baseline:
            return tfidf(train, targets, test, space.problem_type, space.width, seed=material.seed)

        others = super().baselines(material)
        return {"majority": others["majority"], "tfidf": counted, "frozen features": others["frozen features"]}

    # the model ---------------------------------------------------------------------------------------------------

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from unfreeze.models.heads import build_classifier

        return build_classifier(
            source,
            config,
            keep_head=self._may_keep_head,
            allow_remote_code=self.allows_remote_code,
            **self._head(),
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForSequenceClassification

        from unfreeze.models.heads import classifier_config

        wanted = classifier_config(config, **self._head())
        return AutoModelForSequenceClassification.from_config(wanted, dtype=torch.float32)

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        target = self._target_of(row, train=train)
        if self.windows:
            found = _text.windows(row, self.roles.text[0], self.processor, self.max_length)
            return [
                Example(inputs, target, row.index, len(inputs["input_ids"]), part=number, parts=len(found))
                for number, inputs in enumerate(found)
            ]
        inputs, is_cut = _text.tokenize(row, self.roles.text, self.processor, self.max_length)
        return [Example(inputs, target, row.index, len(inputs["input_ids"]), is_cut=is_cut)]

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _text.pad(examples, self.processor)
        return self._batch(inputs, examples, int(inputs["input_ids"].numel()))

    def sample_rows(self) -> list[dict[str, Any]]:
        return [
            {"text": "Works as promised.", "label": "positive"},
            {"text": "It broke on the second day, and nobody answers the phone.", "label": "negative"},
            {"text": "The best soup I have had this winter, and the staff remembered us.", "label": "positive"},
            {"text": "Not worth the wait.", "label": "negative"},
        ]
