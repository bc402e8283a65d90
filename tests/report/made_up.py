"""Folders of runs that never were, with the records a real one writes; the tests load this file by its path.

Results come from the library's own metric states over made-up answers, so their shape is the real one.
"""

import json
from pathlib import Path

import numpy as np

from unfreeze import durable
from unfreeze.data.quality import DataFacts, Found, SplitFacts
from unfreeze.metrics import ClassificationState, MultiLabelState, RegressionState
from unfreeze.run import Run, Status

LABELS = {
    "binary": ["negative", "positive"],
    "six": ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"],
    "many": [f"intent_{i:02d}" for i in range(77)],
    "multi": [f"feeling {i}" for i in range(28)],
    "regression": [],
    "language": [],
}
METRIC = {"multi": "f1", "regression": "mae", "language": "perplexity"}


def write_run(folder, kind="binary", *, labels=None, split="test", good=0.9, rows=1000, seed=0, sure=1.0, facts=None):
    """A finished run.

    Args:
        folder: To create.
        kind: A key of `LABELS`.
        labels: Instead of those of the kind.
        split: ``test``, or ``eval`` for a run without a third part.
        good: Share of right answers, roughly.
        sure: Above 1 the probabilities are too sure.
        facts: A function that changes the DataFacts.
    """
    labels = LABELS[kind] if labels is None else labels
    run = Run.create(Path(folder), recipe_yaml="seed: 0\n", plan=plan(kind, labels, rows, split, facts))
    write_events(run)
    write_training(run, rows)
    metric = METRIC.get(kind, "accuracy")
    results = results_of(kind, labels, rows, good, seed, sure)
    for name in ("eval", "test") if split == "test" else ("eval",):
        run.write_results(name, results)
    write_summary(run, kind, labels, split, metric, results)
    if kind != "language":
        write_baselines(run, metric, results[metric])
        write_mistakes(run, labels or [1.5, 4.0])
    run.set_status(Status("done", step=150, exit_status=0))
    return run


def plan(kind, labels, rows, split, change_facts=None):
    choice = {"source": "plan", "reason": "for a reason"}
    task = "fill-mask" if kind == "language" else "text-classification"
    stronger = "comes with unfreeze; a stronger one: --model answerdotai/ModernBERT-base (149 M parameters)"
    return {
        "task": task,
        "model": "builtin:text",
        "data": {
            "name": "reviews",
            "rows": {"train": 4 * rows, "validation": rows, **({"test": rows} if split == "test" else {})},
            "roles": {"text": ["text"], "label": "label" if labels else None, "group": None},
            "facts": facts_of(labels, rows, split, change_facts),
            "sentences": [f"train: {4 * rows:,} rows."],
            "notes": ["Rows were held out to choose the best weights."],
        },
        "choices": [
            {"key": "model", "value": "builtin:text", "source": "plan", "reason": stronger},
            {"key": "train.max_length", "value": 128, **choice},
            {"key": "schedule", "value": "gradual", **choice},
            {"key": "train.epochs", "value": {"value": 3, "unit": "epochs"}, **choice},
            {"key": "train.learning_rate", "value": 1e-4, **choice},
        ],
        "settings": {
            "seed": 0,
            "batch_size": 16,
            "micro_batch_tokens": 2048,
            "max_length_tokens": 128,
            "weight_decay": 0.01,
            "max_gradient_norm": 1.0,
            "precision": "fp32",
            "attention_dropout": 0.0,
            "checkpoint_minutes": 10.0,
            "threads": 2,
        },
        "phases": [planned_phase(n, s, g) for n, s, g in PHASES],
        "groups": [{"name": g, "parameters": 1_000_000} for g in ("stem", "group 1", "group 2", "head")],
        "expected": {"train_seconds": 60.0, "peak_memory_bytes": 900_000_000},
        "machine": {
            "device": "cpu",
            "name": "x86_64",
            "threads": 2,
            "memory_bytes": 8_000_000_000,
            "supports_bf16": False,
        },
        "identity": {"labels": labels, "versions": {"unfreeze": "0.1.0", "torch": "2.13.0"}},
        "warnings": [],
    }


PHASES = [
    ("head", "head", {"head": 1e-3}),
    ("upper half", "last(1)", {"head": 5e-4, "group 2": 1e-4}),
    ("all", "all", {"head": 5e-4, "group 2": 1e-4, "group 1": 8.5e-5, "stem": 7e-5}),
]


def planned_phase(name, span, rates):
    return {
        "name": name,
        "span": span,
        "steps": 50,
        "epochs": 1.0,
        "learning_rates": rates,
        "warmup_steps": 5,
        "decay": "linear",
        "evaluate_every": 10,
        "patience": 3,
        "trainable_parameters": 1_000_000,
    }


def facts_of(labels, rows, split, change=None):
    each = {label: 4 * rows // max(1, len(labels)) for label in labels}
    names = ["train", "validation", *(["test"] if split == "test" else [])]
    splits = {n: SplitFacts(4 * rows if n == "train" else rows, classes=each if n == "train" else {}) for n in names}
    found = DataFacts(splits, shared={"train and test": Found()}, uneven=1.0 if labels else None, max_length=128)
    if change is not None:
        change(found)
    return found.to_json()


def write_events(run, validation=None, steps=50):
    """Three phases of `steps` steps, an evaluation every tenth; `validation` gives the loss at a step."""
    validation = validation or (lambda step: 0.3 + 0.6 * np.exp(-step / 60))
    noise, best = np.random.default_rng(0), np.inf
    for number, (name, _, rates) in enumerate(PHASES, start=1):
        start = steps * (number - 1)
        source = "head, float16" if number == 1 else "rows"
        if number == 1:
            run.log("recorded", start, boundary="head", reads="row", precision="float16", bytes=5_000_000, error=2e-4)
        run.log("phase", start, number=number, of=3, name=name, steps=steps, done=0, trainable=1_000_000, rates=rates,
                source=source)  # fmt: skip
        for at in range(1, steps + 1):
            step = start + at
            write_step(run, step, name, at, 0.25 + 0.7 * np.exp(-step / 50) + 0.05 * noise.standard_normal())
            if at % 10 == 0:
                loss = float(validation(step))
                metrics = {"loss": loss, "accuracy": 1 - loss / 2, "f1": 0.98 - loss / 2}
                run.log("evaluation", step, phase=name, is_best=loss < best, metrics=metrics)
                best = min(best, loss)
        run.log("checkpoint", start + steps, phase=number, phase_step=0)
    run.log("notice", 3 * steps, text="back to the best weights")


def write_step(run, step, phase, phase_step, loss):
    factor = min(1.0, phase_step / 5) * (1 - phase_step / 51)
    run.log("step", step, phase=phase, phase_step=phase_step, loss=float(loss), rate=factor * 1e-3,
            gradient_norm=1.0, tokens=512, step_seconds=0.1)  # fmt: skip


def write_training(run, rows):
    run.write_results("train", {
        "runtime": 75.5, "steps": 150, "loss": 0.31, "samples": 4 * rows, "peak_memory_bytes": 1_100_000_000,
        "tokens_per_second": 1200.0, "stopped_phases": [],
    })  # fmt: skip


def results_of(kind, labels, rows, good, seed, sure):
    random = np.random.default_rng(seed)
    if kind == "language":
        named = {"loss": 2.1, "perplexity": 8.17, "accuracy": 0.55}
        return {**named, "samples": rows, "rows_cut": 0, "runtime": 3.0, "intervals": {}, "details": {"reasons": {}}}
    if kind == "regression":
        state = RegressionState()
        true = random.uniform(1, 5, rows)
        state.update(true, true + random.normal(0, 0.6, rows))
        details = {}
    elif kind == "multi":
        state = MultiLabelState(labels)
        true = random.random((rows, len(labels))) < 0.1
        state.update(true.astype(int), np.clip(np.where(true, 0.8, 0.1) + random.normal(0, 0.2, true.shape), 0, 1))
        details = {"per_class": state.per_class()}
    else:
        state = ClassificationState(labels)
        answer(state, random, len(labels), rows, good, sure)
        details = {
            "per_class": state.per_class(),
            "confusion": state.confusion().tolist(),
            "calibration": state.calibration(),
        }
    intervals = {k: list(v) for k, v in state.intervals().items()}
    values = {"loss": 0.3, **state.compute()}
    details["reasons"] = dict(state.reasons)
    return {**values, "samples": rows, "rows_cut": 0, "runtime": 3.0, "intervals": intervals, "details": details}


def answer(state, random, width, rows, good, sure):
    """Answers that are right as often as they are sure, or less often where `sure` is above 1."""
    true = random.integers(0, width, rows)
    confidence = np.clip(random.normal(good, 0.08, rows), 1 / width + 0.05, 0.99)
    is_right = random.random(rows) < confidence
    given = np.where(is_right, true, (true + random.integers(1, max(2, width), rows)) % width)
    shown = np.clip(1 - (1 - confidence) / sure, 0, 1)
    probability = np.repeat(((1 - shown) / (width - 1))[:, None], width, axis=1)
    probability[np.arange(rows), given] = shown
    state.update(true, given, probability)


def write_summary(run, kind, labels, split, metric, results):
    summary = {
        "split": split,
        "metric": metric,
        "value": results[metric],
        "interval": results["intervals"].get(metric),
        "labels": labels,
        "selected_on_same_rows": split == "eval",
        "samples": results["samples"],
        "epochs": 3.0,
        "steps": 150,
        "seconds": 90.0,
    }
    durable.write_json(run.folder / "summary.json", summary)


def baseline(name, metric, value, difference, low, high, sentence="a simple way", notes=()):
    return {
        "name": name,
        "sentence": sentence,
        "metric": metric,
        "value": value,
        "difference": {"value": difference, "low": low, "high": high},
        "rows": 1000,
        "seconds": 1.5,
        "notes": list(notes),
    }


def write_baselines(run, metric, value):
    sign, unit = (-1, 1) if metric == "mae" else (1, 0.1)
    far, near = sign * 3.4 * unit, sign * 0.15 * unit
    durable.write_json(run.folder / "baselines.json", [
        baseline("majority", metric, value - far, far, far - 0.4 * unit, far + 0.4 * unit),
        baseline("tfidf", metric, value - near, near, near - 0.1 * unit, near + 0.1 * unit, notes=["it stopped early"]),
        baseline("frozen features", metric, value - 2 * near, 2 * near, 2 * near - 0.1 * unit, 2 * near + 0.1 * unit),
    ])  # fmt: skip


def write_mistakes(run, labels):
    durable.write_json(run.folder / "mistakes.json", [
        {"place": f"test.csv:{i + 2}", "text": "Not what I had hoped for, but I would go again. " * (1 + 5 * i),
         "true": labels[0], "predicted": labels[1], "probability": 0.98 - i / 50, "surprise": 4.0 - i / 10}
        for i in range(5)
    ])  # fmt: skip


def change_json(run, name, change):
    """Apply ``change(record)``, or write what it returns."""
    path = run.folder / name
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    changed = change(record)
    durable.write_json(path, record if changed is None else changed)
