"""audio-classification: one class, several classes or a number for a recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unfreeze.errors import TaskError
from unfreeze.tasks import _audio
from unfreeze.tasks._files import FileClassification
from unfreeze.types import Batch, Example, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import ModelSource

# Where `seconds` is not named: long enough for so many of the training rows, and at most so long.
KEPT_QUANTILE, MOST_SECONDS = 0.95, 10.0
FEWEST_SECONDS = 0.5


@dataclass
class AudioClassification(_audio.HearsFiles, FileClassification):
    """What is heard: spoken commands, emotions, speakers, machines, animals.

    Options (see `unfreeze.tasks._classification` and `FileClassification` for the others):
        seconds: To which every recording is brought: what is longer is cut, counted, what is shorter is followed by
            silence. Default: what 95 % of the training rows need, at most 10.

    Recordings are varied by taking another part of long ones, another loudness, and SpecAugment's masks.
    Loss: see `unfreeze.tasks._classification`.
    """

    name: ClassVar[str] = "audio-classification"
    auto_class: ClassVar[str] = "AutoModelForAudioClassification"

    seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_option("seconds", _audio.is_duration(self.seconds), "a length of time")

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        from unfreeze.models.loading import load_feature_extractor

        return load_feature_extractor(source, allow_remote_code=self.allows_remote_code)

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """In tokens of 20 ms."""
        if asked is not None:
            raise TaskError("TASK", "recordings are measured in seconds: options.seconds", where="train.max_length")
        seconds = np.asarray([self.length_of(self.source_of(row)) for row in train])
        most = _audio.most_seconds(self.processor)
        if self.seconds is not None:
            wanted, why = float(self.seconds), "named in the recipe"
            if most is not None and wanted > most:
                what = f"this model hears at most {most:g} s of a recording"
                raise TaskError("TASK", what, where="options.seconds", remedy=f"--set options.seconds={most:g}")
        else:
            needed = float(np.quantile(seconds, KEPT_QUANTILE))
            wanted = float(
                np.clip(math.ceil(needed * 10) / 10, FEWEST_SECONDS, min(MOST_SECONDS, most or MOST_SECONDS))
            )
            why = f"95 % of the recordings are no longer than {needed:.1f} s"
        longer = float(np.mean(seconds > wanted + 1e-6))
        cut = f"; {longer:.1%} are longer and are cut" if longer else ""
        return _audio.tokens_of(wanted), f"{wanted:g} s: {why}{cut}"

    def adapted(self, config: Any) -> Any:
        return _audio.without_own_draws(config)

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        file = self.source_of(row)
        seconds = self.length_of(file)
        content = _audio.recorded_sound(file, self.processor, self.used_seconds)
        recording = _audio.Recording(file, seconds)
        is_cut = seconds > self.used_seconds + 1e-6
        target = self._target_of(row, train=train)
        return [Example({"content": content}, target, row.index, self.max_length, is_cut=is_cut, origin=recording)]

    def variation(self) -> str:
        return f"another part of long recordings, {_audio.variation(self.processor)}"

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        return _audio.varied(example, self.used_seconds, self.processor, generator)

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _audio.model_inputs(examples, self.processor, self.used_seconds)
        return self._batch(inputs, examples, sum(e.length for e in examples))

    # for people --------------------------------------------------------------------------------------------------

    def input_shown(self, example: Example) -> str:
        return f"{example.origin.seconds:.2f} s of sound, brought to {self.used_seconds:g} s"

    def sample_rows(self) -> list[dict[str, Any]]:
        from unfreeze.data.sounds import encoded

        time = np.arange(8000) / 8000
        pitches = {"low": 150, "high": 1200}
        return [
            {"audio": encoded(0.5 * np.sin(2 * np.pi * (pitch + 20 * i) * time), 8000), "label": label}
            for i in range(2)
            for label, pitch in pitches.items()
        ]
