"""`unfreeze inspect`: one row through read, encode, collate, forward and decode; which step fails, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unfreeze.errors import DataError, UnfreezeError
from unfreeze.preparation import Prepared, prepare
from unfreeze.randomness import seed_all
from unfreeze.recipe import Recipe
from unfreeze.types import Batch, Example

_SHOWN_TOKENS = 24
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Step:
    """One step of the way.

    Attributes:
        name: ``read``, ``facts``, ``encode``, ``collate``, ``forward`` or ``decode``.
        shown: What came out, or the error in one line.
        ok: Whether it worked; steps after a failure are not tried.
        error: What failed.
    """

    name: str
    shown: str
    ok: bool = True
    error: UnfreezeError | None = None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "shown": self.shown, "ok": self.ok}


def inspect(
    data: Any = None,
    *,
    task: str | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
    row: int = 0,
    recipe: str | None = None,
) -> list[Step]:
    """Follow training row number `row` through every step.

    Returns:
        The steps in order; the last one has an error where something failed.
    """
    steps: list[Step] = []
    found: dict[str, Any] = {}

    def attempt(name: str, action: Callable[[], str]) -> bool:
        try:
            steps.append(Step(name, action()))
        except UnfreezeError as error:
            steps.append(Step(name, error.what, ok=False, error=error))
        return steps[-1].ok

    source = str(data) if data is not None else None
    asked = Recipe.build({"data.source": source, "task": task, "model": model}, settings=settings, file=recipe)
    actions: list[tuple[str, Callable[[], str]]] = [
        ("read", lambda: _read(asked, row, found)),
        ("facts", lambda: "\n      ".join(found["prepared"].data_facts.sentences())),
        ("encode", lambda: _encode(row, found)),
        ("collate", lambda: _collate(found)),
        ("forward", lambda: _forward(found)),
        ("decode", lambda: _decode(found)),
    ]
    for name, action in actions:
        if not attempt(name, action):
            break
    return steps


def _read(asked: Recipe, row: int, found: dict[str, Any]) -> str:
    prepared: Prepared = prepare(asked)
    if row >= len(prepared.train):
        raise DataError(
            "DATA-ROW", f"there is no training row {row}; there are {len(prepared.train):,}", remedy="--row 0"
        )
    found["prepared"] = prepared
    values = prepared.train.row(row)
    shown = ", ".join(f"{k}={_short(v)}" for k, v in values.values.items())
    notes = "".join(f"\n      {note}" for note in prepared.notes)
    return f"{values.place}: {shown}{notes}"


def _encode(row: int, found: dict[str, Any]) -> str:
    prepared: Prepared = found["prepared"]
    found["examples"] = prepared.task.encode(prepared.train.row(row), train=True)
    example: Example = found["examples"][0]
    tokens = prepared.task.processor.convert_ids_to_tokens(example.inputs["input_ids"][:_SHOWN_TOKENS].tolist())
    cut = ", cut at the limit" if example.is_cut else ""
    more = " ..." if example.length > _SHOWN_TOKENS else ""
    return f"{example.length} tokens{cut}: {' '.join(tokens)}{more}\n      target {_short(example.target)}"


def _collate(found: dict[str, Any]) -> str:
    found["batch"] = batch = found["prepared"].task.collate(found["examples"])
    shapes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in batch.inputs.items())
    return f"{shapes}; normalisers {batch.weights}"


def _forward(found: dict[str, Any]) -> str:
    prepared: Prepared = found["prepared"]
    seed_all(prepared.recipe.seed, "new head")
    model = prepared.task.build(prepared.source, prepared.config).model.eval()
    batch: Batch = found["batch"]
    with torch.inference_mode():
        output = prepared.task.loss(model, batch)
    found["outputs"] = output.outputs
    loss = sum(float(t.sum) * t.coefficient / batch.weights[t.per] for t in output.terms.values())
    numbers = np.array2string(output.outputs.float().numpy().reshape(-1)[:8], precision=3)
    return f"outputs {tuple(output.outputs.shape)} {numbers}, loss {loss:.4f} (the head is not trained yet)"


def _decode(found: dict[str, Any]) -> str:
    prediction = found["prepared"].task.decode(found["outputs"], found["batch"])[0]
    shown = f"{_short(prediction.label)}"
    if prediction.probability is not None:
        shown += f" with probability {prediction.probability:.3f}"
    return f"{shown} (by an untrained head)"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
