"""audio-classification: one class, several classes or a number for a recording."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from unfreeze.data.columns import Roles, guess_file_roles, recognised_files
from unfreeze.data.sounds import check, facts_of
from unfreeze.errors import DataError, TaskError
from unfreeze.tasks import _audio
from unfreeze.tasks._classification import ClassificationTask
from unfreeze.tasks._files import content_of, source_of, unreadable
from unfreeze.types import Batch, Example, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

# Where `seconds` is not named: long enough for so many of the training rows, and at most so long.
KEPT_QUANTILE, MOST_SECONDS = 0.95, 10.0
FEWEST_SECONDS = 0.5


@dataclass
class AudioClassification(ClassificationTask):
    """What is heard: spoken commands, emotions, speakers, machines, animals.

    Options (see `unfreeze.tasks._classification` for the others):
        seconds: To which every recording is brought: what is longer is cut, counted, what is shorter is followed by
            silence. Default: what 95 % of the training rows need, at most 10.
        augmentation: ``auto``: in phases that train through the whole model, recordings are varied at random: another
            part of long ones, another loudness, SpecAugment's masks; recorded phases see them as they are; ``always``:
            in those too, which are then not recorded; ``none``.

    Loss: see `unfreeze.tasks._classification`.
    """

    name: ClassVar[str] = "audio-classification"
    modality: ClassVar[str] = "audio"
    input_role: ClassVar[str] = "audio"
    compares_with: ClassVar[tuple[str, ...]] = ("majority", "frozen features")

    seconds: float | None = None
    augmentation: Literal["auto", "always", "none"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augmentation not in ("auto", "always", "none"):
            raise TaskError(
                "TASK",
                f"augmentation is 'auto', 'always' or 'none', not {self.augmentation!r}",
                where="options.augmentation",
            )
        value = self.seconds
        if value is not None and not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
            raise TaskError("TASK", f"seconds is a length of time, not {value!r}", where="options.seconds")

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        column = recognised_files(table, "audio")
        return f"'{column}' holds recordings" if column is not None else None

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        audio, label, group = (asked.audio, asked.label, asked.group) if asked else (None, None, None)
        return guess_file_roles(table, "audio", column=audio, label=label, group=group, needs_label=needs_label)

    def contents(self, table: Table, roles: Roles) -> Iterator[str]:
        (column,) = roles.text
        return table.contents(column)

    def unreadable(self, table: Table, roles: Roles) -> dict[int, DataError]:
        (column,) = roles.text
        return unreadable(table, column, "recording", check)

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        from unfreeze.models.loading import load_feature_extractor

        return load_feature_extractor(source, allow_remote_code=self.allows_remote_code)

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """In tokens of 20 ms."""
        if asked is not None:
            raise TaskError("TASK", "recordings are measured in seconds: options.seconds", where="train.max_length")
        (column,) = self.roles.text
        seconds = np.asarray([facts_of(source_of(row, column, "recording")[1], row.place).seconds for row in train])
        if self.seconds is not None:
            wanted, why = float(self.seconds), "named in the recipe"
        else:
            needed = float(np.quantile(seconds, KEPT_QUANTILE))
            wanted = float(np.clip(math.ceil(needed * 10) / 10, FEWEST_SECONDS, MOST_SECONDS))
            why = f"95 % of the recordings are no longer than {needed:.1f} s"
        longer = float(np.mean(seconds > wanted + 1e-6))
        cut = f"; {longer:.1%} are longer and are cut" if longer else ""
        return max(1, round(wanted * _audio.TOKENS_PER_SECOND)), f"{wanted:g} s: {why}{cut}"

    @property
    def _seconds(self) -> float:
        return self.max_length / _audio.TOKENS_PER_SECOND

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModelForAudioClassification

        from unfreeze.models.heads import build_classifier

        return build_classifier(
            source,
            _without_own_masks(config),
            auto_class=AutoModelForAudioClassification,
            keep_head=self._may_keep_head,
            allow_remote_code=self.allows_remote_code,
            **self._head(),
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForAudioClassification

        from unfreeze.models.heads import classifier_config

        wanted = classifier_config(_without_own_masks(config), **self._head())
        return AutoModelForAudioClassification.from_config(wanted, dtype=torch.float32)

    # rows --------------------------------------------------------------------------------------------------------

    @property
    def augments(self) -> bool:  # type: ignore[override]
        return self.augmentation != "none"

    @property
    def varies_recorded_rows(self) -> bool:  # type: ignore[override]
        return self.augmentation == "always"

    def row_values(self, item: Any, place: str) -> dict[str, Any]:
        """A file, or its bytes."""
        from unfreeze.data.sources import plain_file

        (column,) = self.roles.text
        return {column: plain_file(item, place, "recording")}

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        (column,) = self.roles.text
        file, data = source_of(row, column, "recording")
        seconds = facts_of(data, row.place).seconds
        content = content_of(file, (self.processor.to_json_string(), self._seconds))
        recording = _audio.Recording(file, seconds)
        is_cut = seconds > self._seconds + 1e-6
        target = self._target_of(row, train=train)
        return [Example({"content": content}, target, row.index, self.max_length, is_cut=is_cut, origin=recording)]

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        return _audio.varied(example, self._seconds, generator)

    def beginning(self, example: Example, tokens: int) -> Example:
        return example

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _audio.model_inputs(examples, self.processor, self._seconds)
        return self._batch(inputs, examples, sum(e.length for e in examples))

    # for people --------------------------------------------------------------------------------------------------

    def shown(self, row: Row) -> str:
        (column,) = self.roles.text
        value = row.values[column]
        return value if isinstance(value, str) else row.place

    def input_shown(self, example: Example) -> str:
        return f"{example.origin.seconds:.2f} s of sound, brought to {self._seconds:g} s"

    def sample_rows(self) -> list[dict[str, Any]]:
        from unfreeze.data.sounds import encoded

        time = np.arange(8000) / 8000
        pitches = {"low": 150, "high": 1200}
        return [
            {"audio": encoded(0.5 * np.sin(2 * np.pi * (pitch + 20 * i) * time), 8000), "label": label}
            for i in range(2)
            for label, pitch in pitches.items()
        ]


def _without_own_masks(config: Any) -> Any:
    """A copy in which the model masks nothing itself: its masks do not come from our draws, and fail on short ones."""
    if not getattr(config, "apply_spec_augment", False):
        return config
    changed = copy.deepcopy(config)
    changed.apply_spec_augment = False
    return changed
