"""token-classification: a tag for each word: names, slots of a command, parts of speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from unfreeze.baselines import Baseline, usual_tags
from unfreeze.data.columns import Roles, guess_roles
from unfreeze.errors import DataError
from unfreeze.metrics import PairedState
from unfreeze.metrics.spans import spans_of
from unfreeze.tasks._tagged_words import TagMetric, TagsWords, intent_column, tagged_columns
from unfreeze.tasks._tags import TagSpace, learn_tags
from unfreeze.tasks._trained_before import continued
from unfreeze.tasks.base import Material
from unfreeze.types import Batch, LossOutput, LossTerm, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table


@dataclass
class TokenClassification(TagsWords):
    """A tag for each word of a list of words; see `TagsWords` for how words become tokens.

    Loss: cross-entropy, the mean over words.

    Example:
        >>> TokenClassification().sample_rows()[0]["tags"][0]
        'B-PER'
    """

    name: ClassVar[str] = "token-classification"
    primary_metric: ClassVar[str] = "overall_f1"
    compares_with: ClassVar[tuple[str, ...]] = ("usual tags",)

    # what the columns are ----------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        found = tagged_columns(table)
        if found is None or intent_column(table) is not None:  # then the whole command is asked for
            return None
        words, tags = found
        try:
            guess_roles(table.without(words, tags))
        except DataError:
            return f"'{words}' and '{tags}' are lists of one length: a tag for each word"
        return None

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> TagSpace:
        where = f"'{roles.label}'"
        return learn_tags(train.column(str(roles.label)), label_names, where, train.place)

    def labels_to_keep(self, table: Table, roles: Roles, names: Sequence[str] | None) -> list[set[str]]:
        return [set(map(str, given if given is not None else ())) for given in table.column(str(roles.label))]

    def strata(self, table: Table, roles: Roles) -> np.ndarray | None:
        """The rarest tag of each row, so that every tag keeps a row to learn from."""
        tags = [sorted({str(tag) for tag in given or ()}) for given in table.column(str(roles.label))]
        rows_with = Counter(tag for found in tags for tag in found)
        rarest = [min(found, key=lambda tag: (rows_with[tag], tag), default="") for found in tags]
        return np.unique(rarest, return_inverse=True)[1]

    def continue_from(self, targets: TagSpace, config: Any, name: str) -> tuple[TagSpace, list[str]]:
        return continued(targets, config, name)

    def relabelled(self, table: Table, names: Sequence[str]) -> Table:
        return self.space.relabelled(table, str(self.roles.label), names)

    def restore_targets(self, stored: Any) -> TagSpace:
        return TagSpace.from_json(stored)

    def label_names(self, table: Table) -> list[Any]:
        """The types of a row's spans, or its tags where they name no spans."""
        return [self._named(row) for row in table]

    def _named(self, row: Row) -> list[str]:
        tags = self._true_tags(row)
        return sorted(kind for kind, _, _ in spans_of(tags)) if self.space.types else tags

    @property
    def space(self) -> TagSpace:
        found: TagSpace = self.targets
        return found

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = model(**batch.inputs).logits  # (batch, length, tags)
        return LossOutput({"loss": LossTerm(self._tag_loss(logits, batch), per="words")}, logits)

    # beside baselines --------------------------------------------------------------------------------------------

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        train, test = material.train, material.test

        def usual() -> Baseline:
            words = (self._words_of(row) for row in train)
            return usual_tags(words, map(self._true_tags, train), (self._words_of(row) for row in test))

        return {"usual tags": usual}

    def comparison(self, table: Table, answers: Sequence[Any]) -> Callable[[Baseline], PairedState]:
        def beside(baseline: Baseline) -> PairedState:
            paired = PairedState(self.space.problem_type if self.space.types else "tags")
            paired.update([self._true_tags(row) for row in table], answers, baseline.predictions)
            return paired

        return beside

    # scores ------------------------------------------------------------------------------------------------------

    def metric(self) -> TagMetric:
        return TagMetric(self.space, self._tags_said)

    @property
    def headline_metric(self) -> str:
        """F1 of the spans, or the share of words that are right where tags name no spans."""
        return "overall_f1" if self.space.types else "overall_accuracy"

    @property
    def selection(self) -> tuple[str, bool]:
        # Trap: tags guessed at random have a better F1 than a model that has only learned yet that most words are
        # outside; by F1 its first evaluations would look like no progress.
        return "overall_accuracy", True

    def sample_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "tokens": ["Ada", "Byron", "lived", "in", "London", "."],
                "tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"],
            },
            {"tokens": ["Rain", "is", "expected", "in", "Oslo", "."], "tags": ["O", "O", "O", "O", "B-LOC", "O"]},
            {"tokens": ["Marie", "left", "early", "."], "tags": ["B-PER", "O", "O", "O"]},
            {"tokens": ["Nothing", "happened", "."], "tags": ["O", "O", "O"]},
        ]
