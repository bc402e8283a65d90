"""What a finished run is worth: evaluated on its held-out rows, set beside its baselines, written as records."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

import numpy as np
import torch

from unfreeze import durable
from unfreeze.activations.rows import Rows
from unfreeze.data.table import Table
from unfreeze.evaluation import Evaluation, evaluate_examples, evaluate_rows, features_of
from unfreeze.models.layers import device_of
from unfreeze.preparation import Prepared, encoded
from unfreeze.run import Run
from unfreeze.tasks.base import Material, Task
from unfreeze.types import Batch, Example

Say = Callable[[str], None]


class RecordedOf(Protocol):
    """`Sources.after_training`."""

    def __call__(self, encoded: Callable[[], Rows], *, were_held_out: bool) -> Rows | None: ...


LONGEST_SHOWN_CHARACTERS = 600


def measure(
    run: Run,
    prepared: Prepared,
    task: Task,
    model: torch.nn.Module,
    *,
    pretrained: Callable[[], torch.nn.Module],
    check: Callable[[], None],
    say: Say,
    recorded: RecordedOf | None = None,
) -> None:
    """Write eval_results.json, test_results.json, summary.json, mistakes.json and baselines.json.

    Args:
        run: Gets the records.
        prepared: Rows and recipe.
        task, model: As trained.
        pretrained: Loads the model as it was before training, for the frozen-features baseline.
        check: Called between batches; raises when the run is to stop.
        say: Told what is being done.
        recorded: Gives rows from where their frozen part was recorded; see `Sources.after_training`.
    """
    reported: tuple[str, Table, Evaluation, list[Any]] | None = None
    for split, name, table in (("eval", "validation", prepared.validation), ("test", "test", prepared.test)):
        if table is None:
            continue
        say(f"evaluating {len(table):,} {name} rows")
        collected = _Collected(task)
        known = frozenset(prepared.data_facts.shared_rows.get(name, ()))
        settings = {"observe": collected, "check": check}
        if recorded is None:
            rows = None
        else:
            rows = recorded(functools.partial(_rows_of, task, table), were_held_out=split == "eval")
        found = _evaluated(task, model, table, known, rows, **settings)
        run.write_results(split, found.to_json())
        reported = (split, table, found, collected.answers)
    if reported is None:
        return
    split, table, found, answers = reported
    _write_summary(run, task, split, found)
    if answers and found.mistakes:
        durable.write_json(run.folder / "mistakes.json", _mistakes(task, table, found, answers))
    if prepared.recipe.baselines and task.compares_with:
        compared = _compare(prepared, task, model, table, answers, pretrained, check, say)
        durable.write_json(run.folder / "baselines.json", compared)


def _rows_of(task: Task, table: Table) -> Rows:
    return Rows(task, encoded(task, table))


def _evaluated(
    task: Task,
    model: torch.nn.Module,
    table: Table,
    known: Set[int],
    rows: Rows | None,
    **settings: Any,
) -> Evaluation:
    """Of a table some of whose rows are known to the model: these come last, so that there are figures without them.

    Args:
        rows: The table's, where they are recorded; None: they are encoded as they go through the model.
    """
    if rows is not None:
        with rows.open():
            # Trap: examples of recorded rows are made one by one; a list of all would grow with the rows.
            seen = (e for e in rows.examples if e.row in known) if known else None
            new = (e for e in rows.examples if e.row not in known) if known else rows.examples
            return evaluate_examples(task, model, new, known=seen, source=rows, **settings)
    if not known:
        return evaluate_rows(task, model, table, **settings)
    others = (e for i in sorted(known) for e in task.encode(table.row(i), train=True))
    return evaluate_rows(task, model, (row for row in table if row.index not in known), known=others, **settings)


class _Collected:
    """The answers to all rows, as the baselines give theirs."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._parts: dict[int, list[Any]] = {}

    def __call__(self, outputs: Any, batch: Batch) -> None:
        answers = self.task.answers(outputs, batch)
        if answers is not None:
            for row, answer in zip(batch.rows, answers, strict=True):
                self._parts.setdefault(int(row), []).append(answer)

    @property
    def answers(self) -> list[Any]:
        """One a row, in order; empty where the task gives none."""
        return [self.task.whole_answer(self._parts[row]) for row in range(len(self._parts))]


def _by_row(features: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
    """Features of rows, (rows, width): of one that is read in windows their mean."""
    if all(e.parts == 1 for e in examples):
        return features
    starts = np.flatnonzero([e.part == 0 for e in examples])
    return np.add.reduceat(features, starts) / np.asarray([[e.parts] for e in examples if e.part == 0])


def _write_summary(run: Run, task: Task, split: str, found: Evaluation) -> None:
    metric = task.headline_metric
    train = run.results("train")
    labels = list(task.targets.labels) if task.targets is not None else []
    summary = {
        "split": split,
        "metric": metric,
        "value": found.metrics.get(metric),
        "interval": list(found.intervals[metric]) if metric in found.intervals else None,
        "labels": labels,
        "legend": task.legend,
        "selected_on_same_rows": split == "eval",
        "samples": found.rows,
        "without_known": _without_known(found, metric),
        "steps": train.get("train_steps"),
        "seconds": train.get("train_runtime"),
        "epochs": train.get("train_epochs"),
    }
    durable.write_json(run.folder / "summary.json", summary)


def _without_known(found: Evaluation, metric: str) -> dict[str, Any] | None:
    """The headline's figure on the rows that are not among the training rows; None where there are no two figures."""
    if found.metrics_of_new is None:
        return None
    return {"rows": found.new_rows, "value": found.metrics_of_new.get(metric)}


def _mistakes(task: Task, table: Table, found: Evaluation, answers: list[Any]) -> list[dict[str, Any]]:
    """The most surprising wrong answers, with their rows; a row that was read in parts is shown once."""
    shown = []
    for index, surprise in dict(reversed(found.mistakes)).items():
        row = table.row(index)
        told = task.mistake(row, answers[index])
        if told is None:
            continue
        text = task.shown(row)
        shown.append(
            {
                "place": row.place,
                "text": text[:LONGEST_SHOWN_CHARACTERS] + ("..." if len(text) > LONGEST_SHOWN_CHARACTERS else ""),
                "true": told[0],
                "predicted": told[1],
                "surprise": surprise,
                "picture": task.thumbnail(row, answers[index]),
            }
        )
    return sorted(shown, key=lambda mistake: -mistake["surprise"])


def _compare(
    prepared: Prepared,
    task: Task,
    model: torch.nn.Module,
    table: Table,
    answers: list[Any],
    pretrained: Callable[[], torch.nn.Module],
    check: Callable[[], None],
    say: Say,
) -> list[dict[str, Any]]:
    def features() -> tuple[np.ndarray, np.ndarray]:
        untouched = pretrained().to(device_of(model))
        test_examples = [e for row in table for e in task.encode(row, train=False)]
        train, test = (
            _by_row(features_of(untouched, task, examples), examples)
            for examples in (prepared.train_examples, test_examples)
        )
        return train, test

    def untouched_answers() -> list[Any]:
        collected = _Collected(task)
        untouched = pretrained().to(device_of(model))
        evaluate_rows(task, untouched, table, intervals=False, observe=collected, check=check)
        return collected.answers

    seed = prepared.recipe.seed
    beside = task.comparison(table, answers)
    compared = []
    for name, answer in task.baselines(Material(prepared.train, table, features, untouched_answers, seed)).items():
        check()
        say(f"baseline: {name}")
        started = time.monotonic()
        baseline = answer()
        paired = beside(baseline)
        difference = paired.difference(seed=seed)
        compared.append(
            {
                "name": baseline.name,
                "sentence": baseline.sentence,
                "metric": difference.metric,
                "value": paired.value("b"),
                "run_value": paired.value("a"),
                "difference": {"value": difference.value, "low": difference.low, "high": difference.high},
                "rows": difference.n,
                "seconds": round(time.monotonic() - started, 3),
                "notes": [*baseline.notes, *([difference.note] if difference.note else [])],
            }
        )
    return compared
