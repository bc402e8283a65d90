"""image-classification: one class, several classes or a number for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from unfreeze.data.pictures import decode, thumbnail
from unfreeze.errors import TaskError
from unfreeze.tasks import _image
from unfreeze.tasks._classification import MixedTarget
from unfreeze.tasks._files import FileClassification
from unfreeze.types import Batch, Example, Row

if TYPE_CHECKING:
    from unfreeze.data.columns import Roles
    from unfreeze.data.table import Table
    from unfreeze.models.loading import ModelSource
    from unfreeze.tasks._labels import LabelSpace


@dataclass
class ImageClassification(FileClassification):
    """What is seen: kinds of things, defects, several tags at once, or a measure.

    Options (see `unfreeze.tasks._classification` and `FileClassification` for the others):
        mirror: Whether left and right may change places; not for letters or road signs.
        mix: ``mixup`` (Zhang et al. 2018, arXiv 1710.09412) or ``cutmix`` (Yun et al. 2019, arXiv 1905.04899): where
            rows are varied, each is mixed with another, and its target likewise. ``none``.

    Pictures are varied by random crops, wider ones the more rows there are (see `unfreeze.tasks._image`), and mirrored.
    Loss: see `unfreeze.tasks._classification`.
    """

    name: ClassVar[str] = "image-classification"
    modality: ClassVar[str] = "image"
    input_role: ClassVar[str] = "image"
    noun: ClassVar[str] = "picture"
    auto_class: ClassVar[str] = "AutoModelForImageClassification"

    mirror: bool = True
    mix: Literal["none", "mixup", "cutmix"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_option("mix", self.mix in ("none", "mixup", "cutmix"), "'none', 'mixup' or 'cutmix'")
        if self.mix != "none" and self.augmentation == "none":
            what = f"{self.mix} varies rows, and options.augmentation is 'none'"
            raise TaskError("TASK", what, where="options.mix", remedy="leave one of the two out")
        self.check_option("mirror", isinstance(self.mirror, bool), "true or false")

    def check_file(self, data: bytes, place: str) -> None:
        decode(data, place)

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        from unfreeze.models.loading import load_image_processor

        processor = load_image_processor(source, allow_remote_code=self.allows_remote_code)
        _image.check_processor(processor, source.name)
        return processor

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        if asked is not None:
            raise TaskError("TASK", "pictures have no length in tokens", where="train.max_length")
        height, width = _image.size_of(self.processor)
        return _image.tokens_of(self.processor), f"a picture is brought to {width} x {height} pixels"

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        return [_image.example_of(row, self.source_of(row), self.processor, self._target_of(row, train=train))]

    def variation(self) -> str:
        rows = self.targets.rows
        mirrored = " and mirrored" if self.mirror else ""
        return f"{rows:,} rows: pictures are cut at random to {_image.least_crop(rows):.0%} or more{mirrored}"

    def warnings(self, train: Table) -> list[str]:
        return _image.too_dark(self, train)

    def planned(self) -> list[tuple[str, Any, str]]:
        mixed = ("options.mix", self.mix, "each varied picture is mixed with another, and its class likewise")
        return [*super().planned(), *[mixed] * self.mixes]

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> LabelSpace:
        space = super().learn(train, roles, label_names)
        if self.mixes and space.problem_type == "regression":
            what = f"{self.mix} mixes classes, and the labels are numbers"
            raise TaskError("TASK", what, where="options.mix", remedy="leave it out")
        return space

    @property
    def mixes(self) -> bool:
        return self.mix != "none"

    def mixed(self, example: Example, other: Example, generator: np.random.Generator) -> Example:
        found = _image.mixture(example.origin, other.origin, self.mix, generator)
        return replace(example, origin=found, target=MixedTarget(example.target, other.target, found.share))

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        return _image.varied(example, self.targets.rows, generator, mirror=self.mirror)

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _image.pixel_values(examples, self.processor)
        return self._batch(inputs, examples, sum(e.length for e in examples))

    # for people --------------------------------------------------------------------------------------------------

    def thumbnail(self, row: Row, answer: Any = None) -> str:
        return thumbnail(decode(self.source_of(row).read(), row.place))

    def input_shown(self, example: Example) -> str:
        height, width = _image.size_of(self.processor)
        was = example.origin.pixels().size
        return f"a picture of {was[0]} x {was[1]} pixels, brought to {width} x {height}"

    def sample_rows(self) -> list[dict[str, Any]]:
        from unfreeze.data.pictures import encoded

        grounds = {"light": 220, "dark": 30}
        return [
            {"image": encoded(np.full((40, 40 + 8 * i, 3), ground, dtype=np.uint8)), "label": label}
            for i in range(2)
            for label, ground in grounds.items()
        ]
