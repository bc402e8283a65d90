"""The few shapes that cross folders: Row, Example, Batch, LossOutput, Prediction, Duration.

This module needs no torch to import: tensors appear in annotations only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np

from unfreeze.errors import RecipeError

if TYPE_CHECKING:
    import torch


def is_whole(value: object, least: float = -math.inf, most: float = math.inf) -> TypeGuard[int]:
    """Whether a value of a recipe or a record is a whole number of a range; ``true`` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a recipe or a record is a finite number."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True)
class Files:
    """Columns whose values are names of files.

    Attributes:
        folder: What the names are relative to, and do not lead out of; None: names as the user typed them.
        columns: Which they are.
        digests: Of what each file held when it was first read, by its path; filled as files are read.
    """

    folder: Path | None
    columns: tuple[str, ...]
    digests: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the user's data, as read: the meaning of its values is the task's business.

    Attributes:
        index: Position in its split, from 0.
        values: Column name to value, text exactly as it stands in the file.
        place: Where the row comes from, for messages: ``reviews.csv:17``.
        files: Which values name files; None: those that do were typed by the user.
    """

    index: int
    values: Mapping[str, Any]
    place: str
    files: Files | None = None


@dataclass(slots=True)
class Example:
    """What a task makes of one row, or of one part of it (a window, a chunk): the unit of batching.

    Attributes:
        inputs: Model argument to one-dimensional array (or more for images), not padded.
        target: What the task's `collate` needs to build targets; None for rows without label.
        row: `Row.index` it was made from.
        length: Size that drives the cost: tokens, frames or patches.
        part: Which part of the row, from 0.
        parts: How many parts the row has, where the task averages over them; otherwise 1.
        is_cut: Whether something was left out because the row exceeds the limit.
        origin: Where inputs come from that are too large to be kept for every row (pictures, sound): `collate` reads
            them. `inputs` then has a digest of the content, which what is recorded of the row depends on.
    """

    inputs: dict[str, np.ndarray]
    target: Any
    row: int
    length: int
    part: int = 0
    is_cut: bool = False
    origin: Any = None
    parts: int = 1


@dataclass(slots=True)
class Batch:
    """Padded tensors that go through the model at once.

    Attributes:
        inputs: Keyword arguments of the model's forward, each (batch, ...).
        targets: Whatever the task's loss needs; None where there are no labels.
        rows: `Row.index` of each example, (batch,).
        weights: The normalisers of the loss, known before the forward: ``{"rows": 8}`` or ``{"tokens": 113}``.
        size_tokens: batch x padded length, padding included: what the machine computes.
        recorded: What enters the boundary of a recorded phase, (batch, length, width) or (batch, width); else None.
        parts: Examples of each example's row, (batch,), where the task averages over them; else None.
    """

    inputs: dict[str, torch.Tensor]
    targets: Any
    rows: np.ndarray
    weights: dict[str, float]
    size_tokens: int
    recorded: torch.Tensor | None = None
    parts: np.ndarray | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        move = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        targets = self.targets.to(device) if hasattr(self.targets, "to") else self.targets
        if isinstance(targets, dict):
            targets = {name: tensor.to(device) for name, tensor in targets.items()}
        recorded = self.recorded.to(device) if self.recorded is not None else None
        return Batch(move, targets, self.rows, self.weights, self.size_tokens, recorded, self.parts)


class LossTerm(NamedTuple):
    """One summand of a loss.

    Attributes:
        sum: Sum over the batch, a scalar tensor with gradient. Never a mean: only the engine divides.
        per: The key of `Batch.weights` whose total over the whole step divides the sum.
        coefficient: Weight of this term among the others.
    """

    sum: torch.Tensor
    per: str = "rows"
    coefficient: float = 1.0


@dataclass(slots=True)
class LossOutput:
    """A task's loss on one batch.

    Attributes:
        terms: Name to term; the step's loss is the sum over terms of coefficient * sum / total(per).
        outputs: The model's raw outputs (logits), so that evaluation needs no second forward.
    """

    terms: dict[str, LossTerm]
    outputs: Any = None


@dataclass(slots=True)
class Prediction:
    """A decoded answer for one row.

    Attributes:
        row: `Row.index` of the row it answers.
        label: The answer: a label, a list of labels (multi-label) or a number (regression).
        probability: Confidence in [0, 1]; None where the task has none.
        scores: Label to probability for the alternatives, best first; empty where there are none.
        extra: Task-specific fields, named as on the Hub.
        shown: The answer in a line for people, where `label` does not read as one.
    """

    row: int
    label: Any
    probability: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of training, in epochs (passes over the training rows) or steps (optimizer updates).

    >>> Duration.parse("200 steps"), Duration.parse(1.5)
    (Duration(value=200, unit='steps'), Duration(value=1.5, unit='epochs'))
    >>> Duration.parse("2 epochs").steps(steps_per_epoch=63)
    126
    """

    value: float
    unit: str = "epochs"

    @classmethod
    def parse(cls, text: str | float | Duration) -> Duration:
        """Read ``3``, ``"1.5 epochs"`` or ``"200 steps"``.

        Raises:
            RecipeError: E-RECIPE-VALUE for anything else, or for a length that is not positive.
        """
        if isinstance(text, Duration):
            return text
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*(epochs?|steps?)?\s*", str(text))
        try:
            value = float(match[1]) if match else float("nan")
        except ValueError:
            value = float("nan")
        unit = "steps" if match and match[2] and match[2].startswith("step") else "epochs"
        if not value > 0 or value == float("inf") or (unit == "steps" and value != int(value)):
            raise RecipeError(
                "RECIPE-VALUE", f"{text!r} is not a length of training", remedy="write 3, '1.5 epochs' or '200 steps'"
            )
        return cls(int(value) if value == int(value) else value, unit)

    def steps(self, steps_per_epoch: int) -> int:
        """The number of optimizer steps, at least 1."""
        return max(1, round(self.value if self.unit == "steps" else self.value * steps_per_epoch))

    def __str__(self) -> str:
        unit = self.unit[:-1] if self.value == 1 else self.unit
        return f"{self.value:g} {unit}"
