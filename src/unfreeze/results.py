"""What a finished run is worth: evaluated on its held-out rows, set beside its baselines, written as records."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from unfreeze import baselines, durable
from unfreeze.activations.rows import Rows
from unfreeze.data.table import Table
from unfreeze.evaluation import Evaluation, evaluate_examples, evaluate_rows, features_of
from unfreeze.metrics import MultiLabelState, PairedState
from unfreeze.models.layers import device_of
from unfreeze.preparation import Prepared
from unfreeze.run import Run
from unfreeze.tasks.base import Task
from unfreeze.types import Batch

Say = Callable[[str], None]
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
    rows_of: Callable[[Rows], Rows] | None = None,
) -> None:
    """Write eval_results.json, test_results.json, summary.json, mistakes.json and baselines.json.

    Args:
        run: Gets the records.
        prepared: Rows and recipe.
        task, model: As trained.
        pretrained: Loads the model as it was before training, for the frozen-features baseline.
        check: Called between batches; raises when the run is to stop.
        say: Told what is being done.
        rows_of: Gives rows from where their frozen part was recorded; None: they go through the whole model as they are
            read.
    """
    reported: tuple[str, Table, Evaluation, np.ndarray] | None = None
    for split, table in (("eval", prepared.validation), ("test", prepared.test)):
        if table is None:
            continue
        say(f"evaluating {len(table):,} {'validation' if split == 'eval' else 'test'} rows")
        collected = _Collected(task, len(table))
        found = _evaluated(task, model, table, rows_of, seed=prepared.recipe.seed, observe=collected, check=check)
        run.write_results(split, found.to_json())
        reported = (split, table, found, collected.values)
    if reported is None:
        return
    split, table, found, predictions = reported
    _write_summary(run, prepared, task, split, found)
    if task.decodes_labels:
        durable.write_json(run.folder / "mistakes.json", _mistakes(task, table, found, predictions))
    if prepared.recipe.baselines and task.compares_with:
        compared = _compare(prepared, task, model, table, predictions, pretrained, check, say)
        durable.write_json(run.folder / "baselines.json", compared)


def _evaluated(
    task: Task, model: torch.nn.Module, table: Table, rows_of: Callable[[Rows], Rows] | None, **settings: Any
) -> Evaluation:
    if rows_of is None:
        return evaluate_rows(task, model, table, **settings)
    rows = rows_of(Rows(task, [e for row in table for e in task.encode(row, train=True)]))
    with rows.open():
        return evaluate_examples(task, model, rows.examples, source=rows, **settings)


class _Collected:
    """The answer for every row, as the baselines give theirs."""

    def __init__(self, task: Any, rows: int) -> None:
        self.task, self.rows = task, rows
        self.values: np.ndarray = np.empty(0)

    def __call__(self, outputs: Any, batch: Batch) -> None:
        if not self.task.decodes_labels:
            return
        values = self.task.answers(outputs)
        if not len(self.values):
            self.values = np.zeros((self.rows, *values.shape[1:]), dtype=values.dtype)
        self.values[batch.rows] = values


def _write_summary(run: Run, prepared: Prepared, task: Task, split: str, found: Evaluation) -> None:
    metric = task.headline_metric
    train = run.results("train")
    labels = list(task.targets.labels) if task.targets is not None else []
    summary = {
        "split": split,
        "metric": metric,
        "value": found.metrics.get(metric),
        "interval": list(found.intervals[metric]) if metric in found.intervals else None,
        "labels": labels,
        "selected_on_same_rows": split == "eval",
        "samples": found.rows,
        "steps": train.get("train_steps"),
        "seconds": train.get("train_runtime"),
        "epochs": train.get("train_epochs"),
    }
    durable.write_json(run.folder / "summary.json", summary)


def _mistakes(task: Any, table: Table, found: Evaluation, predictions: np.ndarray) -> list[dict[str, Any]]:
    """The most surprising wrong answers, with their rows."""
    shown = []
    for index, surprise in found.mistakes:
        row = table.row(index)
        true = task.targets.target(row, task.roles.label)
        if not task.is_wrong(true, predictions[index]):
            continue
        text = "\n".join(str(row.values[c]) for c in task.roles.text)
        shown.append(
            {
                "place": row.place,
                "text": text[:LONGEST_SHOWN_CHARACTERS] + ("..." if len(text) > LONGEST_SHOWN_CHARACTERS else ""),
                "true": task.name_of(true),
                "predicted": task.name_of(predictions[index]),
                "surprise": surprise,
            }
        )
    return shown


def _compare(
    prepared: Prepared,
    task: Any,
    model: torch.nn.Module,
    table: Table,
    predictions: np.ndarray,
    pretrained: Callable[[], torch.nn.Module],
    check: Callable[[], None],
    say: Say,
) -> list[dict[str, Any]]:
    space = task.targets
    kind, width = space.problem_type, space.width
    train_texts, test_texts = _texts(prepared.train, task), _texts(table, task)
    train_targets, true = _targets(prepared.train, task), _targets(table, task)
    builders: dict[str, Callable[[], baselines.Baseline]] = {
        "majority": lambda: baselines.majority(train_targets, len(table), kind, width),
        "tfidf": lambda: baselines.tfidf(
            train_texts, train_targets, test_texts, kind, width, seed=prepared.recipe.seed
        ),
        "frozen features": lambda: _frozen_features(
            prepared, task, table, train_targets, pretrained().to(device_of(model)), kind, width
        ),
    }
    compared = []
    for name in task.compares_with:
        check()
        say(f"baseline: {name}")
        started = time.monotonic()
        baseline = builders[name]()
        paired = PairedState(kind, n_labels=width)
        answers = _decided(baseline, true, width) if kind == "multi_label_classification" else baseline.predictions
        paired.update(true, predictions, answers)
        metric = {"regression": "mae", "multi_label_classification": "f1_micro"}.get(kind, "accuracy")
        difference = paired.difference(metric, seed=prepared.recipe.seed)
        compared.append(
            {
                "name": baseline.name,
                "sentence": baseline.sentence,
                "metric": metric,
                "value": paired.value("b", metric),
                "run_value": paired.value("a", metric),
                "difference": {"value": difference.value, "low": difference.low, "high": difference.high},
                "rows": difference.n,
                "seconds": round(time.monotonic() - started, 3),
                "notes": [*baseline.notes, *([difference.note] if difference.note else [])],
            }
        )
    return compared


def _decided(baseline: baselines.Baseline, true: np.ndarray, width: int) -> np.ndarray:
    """Multi-label decisions of a baseline: its thresholds are the best ones for these very rows.

    The run's own thresholds were chosen on validation rows; the baseline is given the better of the two worlds, so that
    the comparison errs on its side.
    """
    chances = np.asarray(baseline.predictions, dtype=np.float64)
    state = MultiLabelState([str(i) for i in range(width)])
    state.update(true, chances)
    return (chances >= state.choose_thresholds()).astype(np.int64)


def _frozen_features(
    prepared: Prepared,
    task: Task,
    table: Table,
    train_targets: np.ndarray,
    model: torch.nn.Module,
    kind: Any,
    width: int,
) -> baselines.Baseline:
    """A linear head on what the pretrained model gives, nothing of it trained."""
    test_examples = [e for row in table for e in task.encode(row, train=False)]
    train = features_of(model, task, prepared.train_examples)
    return baselines.linear_probe(
        train, train_targets, features_of(model, task, test_examples), kind, width, seed=prepared.recipe.seed
    )


def _texts(table: Table, task: Task) -> list[str]:
    columns = [table.column(c) for c in task.roles.text]
    return ["\n".join(str(v) for v in values) for values in zip(*columns, strict=True)]


def _targets(table: Table, task: Any) -> np.ndarray:
    """Class ids, 0/1 vectors, or numbers in the data's unit."""
    space = task.targets
    values = np.stack([np.asarray(space.target(row, task.roles.label)) for row in table])
    if space.problem_type == "regression":
        return values.astype(np.float64) * space.scale + space.center
    return values.astype(np.int64)
