"""Sources of batches: rows that go through the whole model, or rows whose frozen part was recorded.

The engine and the evaluation know only `Rows`: `batch` makes a batch of examples, `loss` gives the task's loss on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import torch
from torch import nn

from unfreeze.activations.boundary import Boundary
from unfreeze.activations.record import Checked, shortened
from unfreeze.activations.replay import Replay
from unfreeze.activations.store import Store
from unfreeze.errors import TaskError
from unfreeze.tasks.base import Task
from unfreeze.types import Batch, Example, LossOutput


class Rows:
    """Encoded rows of one split, as they are.

    Attributes:
        examples: In the order of the rows.
        lengths: Of the examples in tokens, (examples,): buckets and order are made of them, recorded or not.
    """

    def __init__(self, task: Task, examples: Sequence[Example]) -> None:
        self.task, self.examples = task, examples
        self.lengths = np.asarray([e.length for e in examples], dtype=np.int64)

    def example(self, position: int, view: int = 0) -> Example:
        """One row, or a variant of it; see `Task.view`."""
        return self.task.view(self.examples[position], view)

    def batch(self, examples: Sequence[Example], view: int = 0) -> Batch:
        """Of examples of one view."""
        return self.task.collate(examples)

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        return self.task.loss(model, batch)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Held open while batches of this source go through the model."""
        yield


class RecordedRows(Rows):
    """Rows whose tensors at a boundary are read from a store.

    Args:
        rows: The same rows as they are.
        checked: The boundary.
        store: One entry for each example; of several views one view after the other.
        replay: Of the model that is trained; shared by the training and the validation rows of a phase.
    """

    def __init__(self, rows: Rows, checked: Checked, store: Store, replay: Replay) -> None:
        self.task, self.lengths = rows.task, rows.lengths
        self.boundary, self.store, self.replay = checked.boundary, store, replay
        self.examples = _Shortened(rows.task, rows.examples, checked.boundary)
        self._rows = rows
        self._position = _Positions(rows.examples)

    def example(self, position: int, view: int = 0) -> Example:
        return shortened(self.task, self._rows.example(position, view), self.boundary)

    def batch(self, examples: Sequence[Example], view: int = 0) -> Batch:
        batch = self.task.collate(examples)
        positions = self._position.of(examples) + view * len(self.lengths)
        if self.boundary.reads == "all":
            recorded = self.store.padded(positions, batch.inputs["input_ids"].shape[1])
        elif self.boundary.reads == "row":
            recorded = self.store.vectors(positions).reshape(len(positions), *self.boundary.shape)
        else:
            recorded = self.store.vectors(positions)[:, None]
        batch.recorded = torch.from_numpy(recorded)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        self.replay.show(batch.recorded, batch.inputs)
        return self.task.loss(model, batch)

    @contextmanager
    def open(self) -> Iterator[Any]:
        with self.replay.installed():
            yield


class Views(Sequence[Example]):
    """All rows as they are, then all of them in their first variant, and so on; made when they are asked for."""

    def __init__(self, rows: Rows, views: int) -> None:
        self._rows, self._views = rows, views

    def __len__(self) -> int:
        return self._views * len(self._rows.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        view, position = divmod(index, len(self._rows.examples))
        return self._rows.example(position, view)


# Memory of a phase must not grow with the rows beyond the rows themselves: both are made without objects of their own.


class _Shortened(Sequence[Example]):
    """Examples as `shortened` makes them, made when they are asked for."""

    def __init__(self, task: Task, examples: Sequence[Example], boundary: Boundary) -> None:
        self._task, self._examples, self._boundary = task, examples, boundary

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [shortened(self._task, e, self._boundary) for e in self._examples[index]]
        return shortened(self._task, self._examples[index], self._boundary)


class _Positions:
    """Finds an example's place by its row and part."""

    def __init__(self, examples: Sequence[Example]) -> None:
        keys = np.fromiter((_key(e) for e in examples), dtype=np.int64, count=len(examples))
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        if (self._keys[1:] == self._keys[:-1]).any():
            twice = next(
                e for e, other in itertools.pairwise(examples[i] for i in self._order) if _key(e) == _key(other)
            )
            # The store would give all of them what was recorded of the first.
            what = f"two examples of row {twice.row} are its part {twice.part}: encode numbers the parts of a row"
            raise TaskError("TASK", what)

    def of(self, examples: Sequence[Example]) -> np.ndarray:
        """Positions of examples that are among those given at first, (examples,)."""
        keys = np.asarray([_key(e) for e in examples], dtype=np.int64)
        found = np.searchsorted(self._keys, keys)
        if not np.array_equal(self._keys[np.minimum(found, len(self._keys) - 1)], keys):
            raise KeyError(f"rows {sorted({e.row for e in examples})} are not all among those that were recorded")
        return self._order[found]


def _key(example: Example) -> int:
    return example.row << 20 | example.part
