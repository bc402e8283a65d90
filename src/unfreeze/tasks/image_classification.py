"""image-classification: one class, several classes or a number for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from unfreeze.data.columns import Roles, guess_file_roles, recognised_files
from unfreeze.data.pictures import decode, thumbnail
from unfreeze.errors import DataError, TaskError
from unfreeze.tasks import _image
from unfreeze.tasks._classification import ClassificationTask
from unfreeze.tasks._files import source_of, unreadable
from unfreeze.types import Batch, Example, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe


@dataclass
class ImageClassification(ClassificationTask):
    """What is seen: kinds of things, defects, several tags at once, or a measure.

    Options (see `unfreeze.tasks._classification` for the others):
        augmentation: ``auto``: training pictures are cropped and mirrored at random, but in phases whose frozen part is
            recorded, which see them as they are; ``always``: in those too, which are then not recorded; ``none``.
        mirror: Whether left and right may change places; not for letters or road signs.

    Loss: see `unfreeze.tasks._classification`.
    """

    name: ClassVar[str] = "image-classification"
    modality: ClassVar[str] = "image"
    input_role: ClassVar[str] = "image"
    compares_with: ClassVar[tuple[str, ...]] = ("majority", "frozen features")

    augmentation: Literal["auto", "always", "none"] = "auto"
    mirror: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augmentation not in ("auto", "always", "none"):
            raise TaskError(
                "TASK",
                f"augmentation is 'auto', 'always' or 'none', not {self.augmentation!r}",
                where="options.augmentation",
            )
        if not isinstance(self.mirror, bool):
            raise TaskError("TASK", f"mirror is true or false, not {self.mirror!r}", where="options.mirror")

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        column = recognised_files(table, "image")
        return f"'{column}' holds pictures" if column is not None else None

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        image, label, group = (asked.image, asked.label, asked.group) if asked else (None, None, None)
        return guess_file_roles(table, "image", column=image, label=label, group=group, needs_label=needs_label)

    def contents(self, table: Table, roles: Roles) -> Iterator[str]:
        (column,) = roles.text
        return table.contents(column)

    def unreadable(self, table: Table, roles: Roles) -> dict[int, DataError]:
        (column,) = roles.text
        return unreadable(table, column, "picture", decode)

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        from unfreeze.models.loading import load_image_processor

        return load_image_processor(source, allow_remote_code=self.allows_remote_code)

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        if asked is not None:
            raise TaskError("TASK", "pictures have no length in tokens", where="train.max_length")
        height, width = _image.size_of(self.processor)
        return _image.tokens_of(self.processor), f"a picture is brought to {width} x {height} pixels"

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModelForImageClassification

        from unfreeze.models.heads import build_classifier

        return build_classifier(
            source,
            config,
            auto_class=AutoModelForImageClassification,
            keep_head=self._may_keep_head,
            allow_remote_code=self.allows_remote_code,
            **self._head(),
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForImageClassification

        from unfreeze.models.heads import classifier_config

        wanted = classifier_config(config, **self._head())
        return AutoModelForImageClassification.from_config(wanted, dtype=torch.float32)

    # rows --------------------------------------------------------------------------------------------------------

    @property
    def augments(self) -> bool:  # type: ignore[override]
        return self.augmentation != "none"

    @property
    def varies_recorded_rows(self) -> bool:  # type: ignore[override]
        return self.augmentation == "always"

    def row_values(self, item: Any, place: str) -> dict[str, Any]:
        """A file, its bytes, or a picture of Pillow's."""
        from unfreeze.data.sources import plain_file

        (column,) = self.roles.text
        return {column: plain_file(item, place, "picture")}

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        (column,) = self.roles.text
        return [_image.example_of(row, column, self.processor, self._target_of(row, train=train))]

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        return _image.varied(example, sum(self.targets.counts) or 1, generator, mirror=self.mirror)

    def beginning(self, example: Example, tokens: int) -> Example:
        return example

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _image.pixel_values(examples, self.processor)
        return self._batch(inputs, examples, sum(e.length for e in examples))

    # for people --------------------------------------------------------------------------------------------------

    def shown(self, row: Row) -> str:
        (column,) = self.roles.text
        value = row.values[column]
        return value if isinstance(value, str) else row.place

    def thumbnail(self, row: Row) -> str:
        (column,) = self.roles.text
        return thumbnail(decode(source_of(row, column, "picture")[1], row.place))

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
