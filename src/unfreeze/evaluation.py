"""One streaming pass: loss, metrics, intervals, the worst mistakes. Memory does not grow with the number of rows."""

from __future__ import annotations

import contextlib
import functools
import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch

from unfreeze.activations.boundary import entering_head
from unfreeze.activations.rows import Rows
from unfreeze.data.loading import length_batches
from unfreeze.machine import forward_tokens, in_smaller_parts
from unfreeze.models.layers import LayerGroups, backbone_of, device_of
from unfreeze.tasks.base import Metric, Task
from unfreeze.types import Batch, Example, Prediction, Row

# Rows encoded at a time: enough to sort by length within, few enough to stay small in memory.
CHUNK_ROWS = 1024
MISTAKES_KEPT = 25


@dataclass
class Evaluation:
    """What one pass found.

    Attributes:
        loss: The task's loss over all rows, terms weighted as in training.
        metrics: Name to value; None where undefined, with the reason under ``details["reasons"]``.
        intervals: Name to 95 % bootstrap interval.
        details: Per class, confusion, calibration: plain data.
        mistakes: The rows the model was most surprised by, worst first: row, surprise.
        rows, rows_cut: How many rows were seen, and how many of them exceed the model's limit.
        metrics_of_new: The metrics of the rows that the model does not know from training; None where it knows all of
            them or none.
        new_rows: How many it does not know.
        seconds: Of the pass.
        metric: The state itself, to choose thresholds on.
    """

    loss: float
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    details: dict[str, Any]
    mistakes: list[tuple[int, float]]
    rows: int
    rows_cut: int
    seconds: float
    metric: Metric = field(repr=False)
    metrics_of_new: dict[str, float | None] | None = None
    new_rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything but the state, with Hugging Face's names for the times."""
        return {
            "loss": self.loss,
            **self.metrics,
            "samples": self.rows,
            "rows_cut": self.rows_cut,
            "runtime": round(self.seconds, 3),
            "samples_per_second": round(self.rows / max(self.seconds, 1e-9), 3),
            "intervals": {k: list(v) for k, v in self.intervals.items()},
            "details": self.details,
            **({"without_known": {**self.metrics_of_new, "samples": self.new_rows}} if self.metrics_of_new else {}),
        }


def evaluate_rows(task: Task, model: torch.nn.Module, rows: Iterable[Row], **settings: Any) -> Evaluation:
    """Evaluate rows as they come from their table; `settings` are those of `evaluate_examples`."""
    return evaluate_examples(task, model, (e for row in rows for e in task.encode(row, train=True)), **settings)


def evaluate_examples(
    task: Task,
    model: torch.nn.Module,
    examples: Iterable[Example],
    *,
    known: Iterable[Example] | None = None,
    source: Rows | None = None,
    budget_tokens: int | None = None,
    precision: str = "fp32",
    intervals: bool = True,
    answers: bool = True,
    observe: Callable[[Any, Batch], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Evaluation:
    """One pass without gradient over labelled examples.

    Args:
        task: Bound.
        model: Put into eval mode; batches go where its weights are.
        examples: A list or a stream.
        known: More of them, which the model was trained on: the metrics are given without them, too.
        source: Makes batches of them and gives the loss; default: the rows as they are.
        budget_tokens: Of one batch, padding included; None: what is quick on the model's device.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        intervals: Whether to bootstrap.
        answers: Whether answers are wanted that take more than the forward that gives the loss (see `Task.generates`).
        observe: Sees every batch's outputs, such as a paired comparison.
        check: Called for every batch; may raise to end the pass.
    """
    started = time.monotonic()
    metric = task.metric()
    sums: dict[str, float] = {}
    worst: list[tuple[float, int]] = []
    counts = {"rows": 0, "cut": 0}
    writer = task if answers and task.generates and task.measures_answers else None
    budget_tokens = budget_tokens or forward_tokens(device_of(model).type)
    if writer is not None:
        budget_tokens = max(1, budget_tokens // task.rows_in_one)
    rows = source or Rows(task, ())

    def see(part: Iterable[Example]) -> None:
        for batch, outputs, terms in _forward(rows, model, part, budget_tokens, precision, counts, writer):
            metric.update(outputs, batch)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            for row, surprise in zip(batch.rows, task.surprise(outputs, batch), strict=False):
                heapq.heappush(worst, (float(surprise), int(row)))
                if len(worst) > MISTAKES_KEPT:
                    heapq.heappop(worst)
            if observe is not None:
                observe(outputs, batch)
            if check is not None:
                check()

    see(examples)
    new_rows, of_new = counts["rows"], None
    if known is not None:
        of_new = metric.compute() if new_rows else None
        see(known)
    return Evaluation(
        loss=_total_loss(sums),
        metrics=metric.compute(),
        intervals=metric.intervals() if intervals and counts["rows"] else {},
        details=metric.details() if intervals else {},
        mistakes=[(row, surprise) for surprise, row in sorted(worst, reverse=True)],
        rows=counts["rows"],
        rows_cut=counts["cut"],
        seconds=time.monotonic() - started,
        metric=metric,
        metrics_of_new=of_new,
        new_rows=new_rows,
    )


def _forward(
    source: Rows,
    model: torch.nn.Module,
    examples: Iterable[Example],
    budget_tokens: int,
    precision: str,
    counts: dict[str, int],
    writer: Task | None,
) -> Iterator[tuple[Batch, Any, dict[str, float]]]:
    model.eval()
    device = device_of(model)

    def forward(chunk: Sequence[Example], part: np.ndarray) -> tuple[Batch, Any, dict[str, float]]:
        batch = source.batch([chunk[i] for i in part]).to(device)
        with torch.inference_mode(), autocast(device, precision):
            output = source.loss(model, batch)
            outputs = writer.answer(model, batch, output.outputs) if writer is not None else output.outputs
        terms = {}
        for name, term in output.terms.items():
            terms[f"sum {name}"] = float(term.sum) * term.coefficient
            terms[f"per {name}"] = batch.weights[term.per]
        return batch, outputs, terms

    for chunk in _chunks(examples):
        counts["rows"] += sum(e.part == 0 for e in chunk)
        counts["cut"] += sum(e.is_cut for e in chunk)
        for part in length_batches([e.length for e in chunk], budget_tokens):
            for _, found in in_smaller_parts(part, functools.partial(forward, chunk)):
                yield found


def _total_loss(sums: dict[str, float]) -> float:
    names = [key.removeprefix("sum ") for key in sums if key.startswith("sum ")]
    if not names:
        return float("nan")
    return sum(sums[f"sum {n}"] / sums[f"per {n}"] if sums[f"per {n}"] else float("nan") for n in names)


def predict_rows(
    task: Task,
    model: torch.nn.Module,
    rows: Iterable[Row],
    *,
    budget_tokens: int | None = None,
    precision: str = "fp32",
) -> Iterator[Prediction]:
    """Answers in the order of the rows, a chunk at a time; labels are not needed."""
    model.eval()
    device = device_of(model)
    budget = max(1, (budget_tokens or forward_tokens(device.type)) // task.rows_in_one)

    def answer(chunk: Sequence[Example], part: np.ndarray) -> list[Prediction]:
        batch = task.collate([chunk[i] for i in part]).to(device)
        with torch.inference_mode(), autocast(device, precision):
            outputs = task.answer(model, batch)
        return task.decode(outputs, batch)

    def answers() -> Iterator[Prediction]:
        for chunk in _chunks(e for row in rows for e in task.encode(row, train=False)):
            found: list[Prediction | None] = [None] * len(chunk)
            for part in length_batches([e.length for e in chunk], budget):
                for positions, predictions in in_smaller_parts(part, functools.partial(answer, chunk)):
                    for position, prediction in zip(positions, predictions, strict=True):
                        found[position] = prediction
            yield from (p for p in found if p is not None)

    for _, parts in groupby(answers(), key=lambda prediction: prediction.row):
        yield from task.merge(list(parts))


def features_of(
    model: torch.nn.Module, task: Task, examples: Sequence[Example], *, budget_tokens: int | None = None
) -> np.ndarray:
    """Mean over the tokens, or places, of the backbone's last hidden state, (examples, width) float32.

    Of a model whose backbone is no module of its own (Whisper's encoder) it is what enters the head.
    """
    model.eval()
    device = device_of(model)
    backbone = backbone_of(model)
    groups = LayerGroups.of(model) if backbone is model else None
    found: list[np.ndarray | None] = [None] * len(examples)
    for part in length_batches([e.length for e in examples], budget_tokens or forward_tokens(device.type)):
        batch = task.collate([examples[i] for i in part]).to(device)
        with torch.inference_mode():
            hidden = backbone(**batch.inputs)[0] if groups is None else entering_head(groups, model, batch.inputs)
            hidden = hidden.float()
        pooled = _mean_over_places(hidden, batch.inputs.get("attention_mask"))
        for position, vector in zip(part, pooled.cpu().numpy(), strict=True):
            found[position] = vector
    return np.stack([f for f in found if f is not None])


def _mean_over_places(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(batch, width) of (batch, length, width) without padding, or of feature maps (batch, width, height, width)."""
    if hidden.ndim == 2:
        return hidden
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    if mask is None:
        return hidden.mean(dim=1)
    seen = mask.unsqueeze(-1).float()
    return (hidden * seen).sum(1) / seen.sum(1).clamp(min=1)


def autocast(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision, or nothing for ``fp32``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(torch.device(device).type, dtype=dtype)


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    iterator = iter(examples)
    while chunk := list(islice(iterator, CHUNK_ROWS)):
        yield chunk
