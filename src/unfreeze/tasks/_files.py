"""Rows whose inputs are files: pictures and sound.

An example keeps neither pixels nor samples: it knows its file, and `collate` reads what a batch needs, in threads. A
file that changes while a run reads it is noticed by its digest.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch

from unfreeze.data import contents
from unfreeze.data.columns import Roles, guess_file_roles, recognised_files
from unfreeze.errors import DataError, TaskError
from unfreeze.randomness import generator
from unfreeze.tasks._classification import ClassificationTask
from unfreeze.tasks.base import Task
from unfreeze.types import Example, Row, is_whole

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

T = TypeVar("T")
R = TypeVar("R")
# Items that wait for a thread at a time: rows may hold their pictures.
_BLOCK = 256
MOST_VIEWS = 64


@dataclass(frozen=True)
class FileSource:
    """Where an example's content comes from.

    Attributes:
        path: The file; None where the row brought its bytes.
        data: The bytes, where the row brought them.
        digest: Of the content, as it was when it was first read.
        place: For messages.
    """

    path: Path | None = field(repr=False)
    data: bytes | None = field(repr=False)
    digest: bytes
    place: str = field(repr=False)

    def read(self) -> bytes:
        """The content.

        Raises:
            DataError: E-DATA-MISSING, E-DATA-UNREADABLE; E-DATA-CHANGED where the file is no longer what it was.
        """
        return self.data or b"" if self.path is None else contents.read(self.path, self.place, self.digest)


@dataclass
class ReadsFiles(Task):
    """What tasks share that read one column of pictures or recordings.

    Class attributes:
        noun: What one of them is, in a word.

    Options:
        augmentation: ``auto``: training rows are varied at random, but in phases whose frozen part is recorded, which
            see them as they are; ``always``: in those too, which are then not recorded; ``none``.
        views: Variants of each training row that recorded phases take in turn, an epoch each; the first is the row as
            it is. Each takes a pass and disk of its own.
    """

    noun: ClassVar[str]

    augmentation: Literal["auto", "always", "none"] = "auto"
    views: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        is_known = self.augmentation in ("auto", "always", "none")
        self.check_option("augmentation", is_known, "'auto', 'always' or 'none'")
        self.check_option("views", is_whole(self.views, 1, MOST_VIEWS), f"a whole number from 1 to {MOST_VIEWS}")
        if self.views > 1 and self.augmentation != "auto":
            why = "in which rows are not varied" if self.augmentation == "none" else "in which nothing is recorded"
            what = f"views are of recorded rows, and options.augmentation is '{self.augmentation}', {why}"
            raise TaskError("TASK", what, where="options.views", remedy="leave one of the two out")

    @abstractmethod
    def variation(self) -> str:
        """How training rows are varied, as the plan says it."""

    def planned(self) -> list[tuple[str, Any, str]]:
        recorded = "not in recorded ones" if self.views == 1 else f"{self.views} variants in recorded ones"
        why = {
            "auto": f"{self.variation()}, in phases that go through the whole model; {recorded}",
            "always": f"{self.variation()}, in every phase: none is recorded",
            "none": "training rows stay as they are",
        }
        viewed = ("options.views", self.views, "variants of each row, which recorded phases take in turn")
        return [("options.augmentation", self.augmentation, why[self.augmentation]), *[viewed] * (self.views > 1)]

    @property
    def augments(self) -> bool:  # type: ignore[override]
        return self.augmentation != "none"

    @property
    def varies_recorded_rows(self) -> bool:  # type: ignore[override]
        return self.augmentation == "always"

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        column = recognised_files(table, cls.input_role)
        return f"'{column}' holds {cls.noun}s" if column is not None else None

    @property
    def column(self) -> str:
        """The one that is read."""
        (name,) = self.roles.text
        return name

    @abstractmethod
    def check_file(self, data: bytes, place: str) -> None:
        """Decode all of a file.

        Raises:
            DataError: It cannot be read.
        """

    def check_row(self, row: Row, roles: Roles) -> None:
        """Read all that a row names.

        Raises:
            DataError: It cannot be read.
        """
        (column,) = roles.text
        data = contents.content_of(row, column)
        if data is None:
            raise self._nothing_in(row, column)
        self.check_file(data, row.place)

    def contents(self, table: Table, roles: Roles) -> Iterator[str]:
        (column,) = roles.text
        return table.contents(column)

    def unreadable(self, table: Table, roles: Roles) -> dict[int, DataError]:
        """Rows whose file cannot be read; every file is decoded once."""

        def problem(row: Row) -> DataError | None:
            try:
                self.check_row(row, roles)
            except DataError as error:
                return error
            return None

        return {index: error for index, error in enumerate(in_threads(problem, table)) if error is not None}

    def _nothing_in(self, row: Row, column: str) -> DataError:
        return DataError("DATA-ROW", f"there is no {self.noun} in column '{column}'", where=row.place)

    def source_of(self, row: Row) -> FileSource:
        """Where a row's content comes from.

        Raises:
            DataError: E-DATA-ROW without one, E-DATA-LINK, E-DATA-MISSING, E-DATA-UNREADABLE.
        """
        path, digest = contents.path_of(row, self.column), contents.digest_of(row, self.column)
        if digest is None:
            raise self._nothing_in(row, self.column)
        return FileSource(path, contents.content_of(row, self.column) if path is None else None, digest, row.place)

    def row_values(self, item: Any, place: str) -> dict[str, Any]:
        """A file, its bytes, or an object of it."""
        from unfreeze.data.objects import plain_file

        return {self.column: plain_file(item, place, self.noun)}

    def beginning(self, example: Example, tokens: int) -> Example:
        return example

    @property
    def recorded_views(self) -> int:
        return self.views

    def view(self, example: Example, number: int) -> Example:
        if not number:
            return example
        drawn = self.augment(example, generator(0, "view", number, example.row, example.part))
        # What is recorded depends on how the row was varied, too.
        both = bytes(drawn.inputs["content"]) + repr(drawn.origin).encode()
        content = np.frombuffer(contents.content_digest(both), dtype=np.uint8)
        return replace(drawn, inputs={**drawn.inputs, "content": content})

    def without_content(self, example: Example) -> Example:
        return replace(example, origin=None)

    def shown(self, row: Row) -> str:
        value = row.values[self.column]
        return value if isinstance(value, str) else row.place


@dataclass
class FileClassification(ReadsFiles, ClassificationTask):
    """One class, several classes or a number for a picture or a recording.

    Class attributes:
        auto_class: Name of the class of transformers whose models have such a head.

    Options: see `ReadsFiles` and `unfreeze.tasks._classification`.
    """

    auto_class: ClassVar[str]
    compares_with: ClassVar[tuple[str, ...]] = ("majority", "frozen features")

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        column, label, group = (getattr(asked, self.input_role), asked.label, asked.group) if asked else (None,) * 3
        return guess_file_roles(
            table, self.input_role, column=column, label=label, group=group, needs_label=needs_label
        )

    def adapted(self, config: Any) -> Any:
        """A model's configuration as this task uses it; never changed in place."""
        return config

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        import transformers

        from unfreeze.models.heads import build_classifier

        return build_classifier(
            source,
            self.adapted(config),
            auto_class=getattr(transformers, self.auto_class),
            keep_head=self._may_keep_head,
            allow_remote_code=self.allows_remote_code,
            **self._head(),
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        import transformers

        from unfreeze.models.heads import classifier_config

        wanted = classifier_config(self.adapted(config), **self._head())
        return getattr(transformers, self.auto_class).from_config(wanted, dtype=torch.float32)


def recorded_as(source: FileSource, settings: Any) -> np.ndarray:
    """What is recorded of an example depends on: the file, and how it is brought into the model's form; (16,) uint8."""
    return np.frombuffer(contents.content_digest(source.digest + str(settings).encode()), dtype=np.uint8)


@cache
def _pool() -> ThreadPoolExecutor:
    # Decoders and filters let other threads run.
    return ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="files")


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[work(item) for item in items]``, several at a time; an error of one is raised."""
    remaining = iter(items)
    found: list[R] = []
    while block := list(islice(remaining, _BLOCK)):
        found.extend(_pool().map(work, block))
    return found
