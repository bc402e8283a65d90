"""`unfreeze inspect`: one row through read, facts, encode, collate, forward and decode; which step fails, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from unfreeze.errors import DataError, UnfreezeError, visible
from unfreeze.preparation import Prepared, prepare, read_rows
from unfreeze.randomness import seed_all
from unfreeze.recipe import Recipe
from unfreeze.types import Batch, Example

_SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Step:
    """One step of the way.

    Attributes:
        name: ``read``, ``facts``, ``encode``, ``collate``, ``forward`` or ``decode``.
        lines: What came out; empty where it failed.
        error: What failed; steps after it are not tried.
    """

    name: str
    lines: tuple[str, ...] = ()
    error: UnfreezeError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "ok": self.ok, "lines": list(self.lines)}
        if self.error is not None:
            found["error"] = {"code": f"E-{self.error.code}", "what": self.error.what, "where": self.error.where}
        return found


def inspect(
    data: Any = None,
    *,
    task: str | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
    row: int = 0,
    recipe: str | None = None,
    allow_remote_code: bool = False,
) -> list[Step]:
    """Follow training row number `row`, counted from 0, through every step. Trains and writes nothing.

    Args:
        data, task, model, settings, recipe, allow_remote_code: As for `train`.
        row: Which training row.

    Returns:
        The steps in order; the last one has an error where something failed.

    Raises:
        RecipeError: The request itself cannot be understood.

    Example:
        >>> steps = inspect([{"text": "good"}, {"text": "bad"}])  # no label
        >>> steps[0].ok, steps[1].error.code
        (True, 'DATA-COLUMN')
    """
    is_named = data is None or isinstance(data, str | Path)
    source = str(data) if data is not None and is_named else None
    asked = Recipe.build({"data.source": source, "task": task, "model": model}, settings=settings, file=recipe)
    way = _Way(asked, None if is_named else data, row, allow_remote_code)
    steps: list[Step] = []
    for name in ("read", "facts", "encode", "collate", "forward", "decode"):
        action: Callable[[], Sequence[str]] = getattr(way, name)
        try:
            steps.append(Step(name, tuple(visible(line) for line in action())))
        except UnfreezeError as error:
            return [*steps, Step(name, error=error)]
    return steps


def print_steps(steps: Sequence[Step], console: Console) -> None:
    """Print each step with what came out of it."""
    grid = Grid(box=None, pad_edge=False, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for step in steps:
        lines = step.lines or ("see below",)
        for number, line in enumerate(lines):
            mark = "[green]ok[/green]" if step.ok else "[red]fails[/red]"
            grid.add_row(*((mark, step.name) if number == 0 else ("", "")), escape(line))
    console.print(grid)


class _Way:
    """The steps; each leaves what the next one needs."""

    prepared: Prepared
    examples: list[Example]
    batch: Batch
    outputs: torch.Tensor

    def __init__(self, asked: Recipe, data: Any, row: int, allow_remote_code: bool) -> None:
        self.asked, self.data, self.row, self.allow_remote_code = asked, data, row, allow_remote_code

    def read(self) -> list[str]:
        splits = read_rows(self.asked, self.data)
        first = splits.train.row(0)
        rows = ", ".join(f"{len(table):,} {name}" for name, table in splits.tables().items())
        columns = [f"{name} = {_short(value)}" for name, value in first.values.items()]
        return [f"{rows} rows as they lie; the first, {first.place}:", *(f"  {c}" for c in columns), *splits.notes]

    def facts(self) -> list[str]:
        self.prepared = prepare(self.asked, self.data, allow_remote_code=self.allow_remote_code)
        found = self.prepared.data_facts
        warnings = [f"warning: {text}" for text in found.warnings()]
        return [*self.prepared.notes, *found.sentences(), *warnings]

    def encode(self) -> list[str]:
        train, task = self.prepared.train, self.prepared.task
        if self.row >= len(train):
            what = f"there is no training row {self.row}: there are {len(train):,}, counted from 0"
            raise DataError("DATA-ROW", what, remedy=f"--row {len(train) - 1}")
        chosen = train.row(self.row)
        self.examples = task.encode(chosen, train=True)
        return [f"training row {self.row}, {chosen.place}", *(line for e in self.examples for line in self._inputs(e))]

    def _inputs(self, example: Example) -> list[str]:
        return [self.prepared.task.input_shown(example), f"target {self._target(example.target)}"]

    def _target(self, target: Any) -> str:
        return _short(self.prepared.task.target_shown(target), quoted=False)

    def collate(self) -> list[str]:
        self.batch = self.prepared.task.collate(self.examples)
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.batch.inputs.items())
        counted = ", ".join(f"{value:g} {name}" for name, value in self.batch.weights.items())
        return [shapes, f"the loss is divided by {counted}"]

    def forward(self) -> list[str]:
        prepared = self.prepared
        seed_all(prepared.recipe.seed, "new head")
        model = prepared.task.build(prepared.source, prepared.config).model.eval()
        with torch.inference_mode():
            output = prepared.task.loss(model, self.batch)
            self.answered = prepared.task.answer(model, self.batch, output.outputs)
        parts = [(float(t.sum) * t.coefficient, self.batch.weights[t.per]) for t in output.terms.values()]
        loss = sum(total / weight for total, weight in parts if weight)  # a row may have nothing to guess
        numbers = np.array2string(output.outputs.float().numpy().reshape(-1)[:8], precision=3)
        told = "as the model came" if prepared.task.brings_its_head else "the head is not trained yet"
        return [f"outputs {tuple(output.outputs.shape)} {numbers}, loss {loss:.4f}: {told}"]

    def decode(self) -> list[str]:
        prediction = self.prepared.task.decode(self.answered, self.batch)[0]
        shown = _short(prediction.label)
        if prediction.probability is not None:
            shown += f" with probability {prediction.probability:.3f}"
        return [f"{shown}, by the {'model as it came' if self.prepared.task.brings_its_head else 'untrained head'}"]


def _short(value: Any, *, quoted: bool = True) -> str:
    text = repr(value) if quoted else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
