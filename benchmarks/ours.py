"""unfreeze through its public functions, as a user calls them; patches switch single decisions off to price them."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.material import SHARED_TOKENS, WINDOW_TOKENS, Job, LabelledText, right_answers, tiny_model
from benchmarks.measure import Meter, Unfinished

PATIENCE_SECONDS = 40  # after a request to stop, until the process is killed
_OWN_ATTENTION_DROPOUT = 0.1  # MiniLM's
_WORDS = ("good", "bad", "film", "plot", "slow", "bright", "scene", "again", "never", "actor", "and", "the", "of", "a")


def fine_tune(job: Job, meter: Meter, output: Path, *, span: str = "all", without: str | None = None) -> Any:
    """Train with `unfreeze.train`, as the peers do; what is recorded lies beside the run.

    Args:
        job: As for every system.
        meter: Measures `Engine.train`, which is what `Trainer.train` is to the peers.
        output: Folder of the run.
        span: What trains.
        without: A decision of unfreeze that is undone; one of `UNDONE`.

    Returns:
        The `unfreeze.TrainedRun`.
    """
    from unfreeze.api import train

    undo, changed = UNDONE[without] if without else (contextlib.nullcontext, ())
    with _metered(meter), undo():
        return train(
            [row._asdict() for row in job.rows],
            model=job.model,
            schedule=[_as_the_peer(job, span)],
            output=output,
            seed=job.seed,
            settings=[*_settings(job, output), "train.max_length=512", *changed],
        )


def fine_tune_tags(job: Job, meter: Meter, output: Path, phases: Sequence[dict[str, Any]] | None = None) -> Any:
    """Train on tagged words, all weights as the peer does, or by `phases` with the plan's own rates."""
    from unfreeze.api import train

    rows = [{"tokens": list(row.words), "tags": list(row.tags)} for row in job.rows]
    with _metered(meter):
        return train(
            rows,
            model=job.model,
            schedule=[_as_the_peer(job)] if phases is None else list(phases),
            output=output,
            seed=job.seed,
            settings=_settings(job, output),
        )


def fine_tune_answers(job: Job, meter: Meter, output: Path) -> Any:
    """Train all weights on questions as the peer does."""
    from unfreeze.api import train

    rows = [
        {
            "question": r.question,
            "context": r.context,
            "answers": {"text": list(r.answers), "answer_start": list(r.starts)},
        }
        for r in job.rows
    ]
    with _metered(meter):
        return train(
            rows,
            model=job.model,
            schedule=[_as_the_peer(job)],
            output=output,
            seed=job.seed,
            settings=[*_settings(job, output), f"train.max_length={WINDOW_TOKENS}", f"options.stride={SHARED_TOKENS}"],
        )


def fine_tune_pictures(job: Job, meter: Meter, output: Path, *, head_alone: bool = False) -> Any:
    """Train all weights or the head with `unfreeze.train`; the texts of the rows are files of pictures."""
    from unfreeze.api import train

    with _metered(meter):
        return train(
            [{"image": row.text, "label": row.label} for row in job.rows],
            model=job.model,
            schedule=[_as_the_peer(job, "head" if head_alone else "all")],
            output=output,
            seed=job.seed,
            settings=_settings(job, output),
        )


def _as_the_peer(job: Job, span: str = "all") -> dict[str, Any]:
    """One phase with the peer's rate: the same for all weights, without warm-up."""
    return {
        "span": span,
        "epochs": f"{job.epochs} epochs",
        "learning_rate": job.rate,
        "head_learning_rate": job.rate,
        "layer_decay": 1,
        "warmup_fraction": 0,
    }


def _settings(job: Job, output: Path) -> list[str]:
    """No rows held out, no decay, no baselines, as for the peer; what is recorded lies beside the run."""
    return [
        "data.validation=0",
        "train.early_stopping=false",
        f"train.batch_size={job.batch_size}",
        "train.weight_decay=0",
        "baselines=false",
        f"cache.folder={output.parent / 'activations'}",
    ]


def follow(
    job: Job,
    held_out: Sequence[LabelledText],
    test: Sequence[LabelledText],
    phases: Sequence[dict[str, Any]],
    meter: Meter,
    output: Path,
) -> tuple[Any, list[tuple[float, float]]]:
    """Train by a schedule, with the plan's own rates where its phases name none, and the plan's evaluations.

    Args:
        job: Its rate and epochs are the peer's; the phases have their own.
        held_out: Rows to evaluate on while training, which keeps the best weights.
        test: Rows of which nothing is learned; none named, some of the job's would be kept for it.
        phases: Of the schedule.
        meter: Measures `Engine.train`, evaluations included.
        output: Folder of the run; what is recorded lies beside it.

    Returns:
        The `unfreeze.TrainedRun`; seconds since the start of training and accuracy on `held_out` at each evaluation.
    """
    from unfreeze.api import train

    curve: list[tuple[float, float]] = []

    def observe(event: Any) -> None:
        if event.kind == "evaluation":
            curve.append((meter.so_far(), event.values["metrics"]["accuracy"]))

    with _metered(meter):
        run = train(
            [row._asdict() for row in job.rows],
            model=job.model,
            schedule=list(phases),
            output=output,
            seed=job.seed,
            observers=[observe],
            settings=[
                f"data.validation={_as_file(held_out, output.parent / 'held-out.jsonl')}",
                f"data.test={_as_file(test, output.parent / 'test.jsonl')}",
                f"train.batch_size={job.batch_size}",
                "train.max_length=512",
                "baselines=false",
                f"cache.folder={output.parent / 'activations'}",
            ],
        )
    return run, curve


def _as_file(rows: Sequence[LabelledText], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows), encoding="utf-8")
    return path


@contextlib.contextmanager
def _metered(meter: Meter) -> Iterator[None]:
    from unfreeze.training.engine import Engine

    train = Engine.train

    def measured(engine: Engine) -> Any:
        meter.watch(engine.model)
        with meter:
            return train(engine)

    with mock.patch.object(Engine, "train", measured):
        yield


# single decisions, undone ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _without_memory_reuse() -> Iterator[None]:
    """The C library keeps its defaults; only the number of threads is set."""
    import torch

    from unfreeze import api

    with mock.patch.object(api, "set_up", torch.set_num_threads):
        yield


@contextlib.contextmanager
def _without_bucketing() -> Iterator[None]:
    """Batches of a plain shuffle; the plan's forecast too counts them so."""
    from unfreeze import costs
    from unfreeze.randomness import generator
    from unfreeze.training import engine

    def shuffled(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        order = generator(seed, "order", epoch).permutation(len(lengths))
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    with mock.patch.object(engine, "epoch_batches", shuffled), mock.patch.object(costs, "epoch_batches", shuffled):
        yield


@contextlib.contextmanager
def _without_leaving_out() -> Iterator[None]:
    """Every position of the last layer is computed, read or not."""
    from unfreeze.activations.unread import Unread

    with mock.patch.object(Unread, "find", lambda task, model, groups, examples: Unread(model)):
        yield


@contextlib.contextmanager
def _without_quick_dropout() -> Iterator[None]:
    """Dropout is torch's."""
    from unfreeze.training.dropout import Dropout

    with mock.patch.object(Dropout, "installed", return_value=contextlib.nullcontext()):
        yield


@contextlib.contextmanager
def _with_unseen_words() -> Iterator[None]:
    """The whole table of words is trained."""
    from unfreeze.training.vocabulary import SeenWords

    with mock.patch.object(SeenWords, "find", return_value=None):
        yield


# Name to the patch and the settings that undo the decision.
UNDONE: dict[str, tuple[Callable[[], contextlib.AbstractContextManager[None]], tuple[str, ...]]] = {
    "attention-dropout-off": (contextlib.nullcontext, (f"train.attention_dropout={_OWN_ATTENTION_DROPOUT}",)),
    # 16 rows of 512 tokens: every batch is one micro-batch.
    "micro-batches": (contextlib.nullcontext, ("train.micro_batch_tokens=8192",)),
    "memory-reuse": (_without_memory_reuse, ()),
    "bucketing": (_without_bucketing, ()),
    "leaving-out-unread": (_without_leaving_out, ()),
    "quick-dropout": (_without_quick_dropout, ()),
    "seen-words": (_with_unseen_words, ()),
}


# the other questions ---------------------------------------------------------------------------------------------


def evaluation_memory(rows: int, folder: Path) -> dict[str, Any]:
    """Peak memory of one evaluation pass over a stream of made-up rows, by a tiny model with random weights."""
    from unfreeze.api import train
    from unfreeze.evaluation import evaluate_rows

    sample = [row.values for row in _made_up_rows(16)]
    run = train(
        [dict(values) for values in sample],
        model=tiny_model(folder / "model"),
        schedule="head",
        output=folder / "run",
        settings=["train.epochs=1", "data.validation=0", "baselines=false"],
    )
    using = run.predictor
    meter = Meter()
    with meter:
        found = evaluate_rows(using.task, using.model, _made_up_rows(rows))
    return {"rows": found.rows, "memory_bytes": meter.memory_bytes, "seconds": meter.seconds}


def recorded_memory(rows: int, folder: Path) -> dict[str, Any]:
    """Memory of training on recorded inputs, a head phase and one that trains a layer, and the disk they took.

    The model is tiny and has random weights; texts are made up, of 62 tokens each.
    """
    from unfreeze.api import train

    draw = np.random.default_rng(0)
    letters = draw.integers(ord("a"), ord("z") + 1, size=(rows, 6, 10), dtype=np.uint8)
    texts = [" ".join(bytes(word).decode("ascii") for word in text) for text in letters]
    data = [{"text": text, "label": "yes" if i % 2 else "no"} for i, text in enumerate(texts)]
    meter = Meter()
    with _metered(meter):
        run = train(
            data,
            # So many layers that recording below the last pays.
            model=tiny_model(folder / "model", layers=6),
            schedule=[{"span": "head", "epochs": 2}, {"span": "last(1)", "epochs": 2}],
            output=folder / "run",
            settings=[
                "data.validation=0",
                "baselines=false",
                "train.batch_size=64",
                f"cache.folder={folder / 'activations'}",
            ],
        )
    recorded = {e.values["boundary"]: e.values["bytes"] for e in run.events("recorded")}
    planned = {p["boundary"]: p["recorded_bytes"] for p in run.plan["phases"]}
    return {
        "rows": rows,
        "memory_bytes": meter.memory_bytes,
        "seconds": meter.seconds,
        "disk_bytes": [[planned.get(boundary), found] for boundary, found in recorded.items()],
    }


def _made_up_rows(count: int) -> Iterator[Any]:
    from unfreeze.types import Row

    draw = np.random.default_rng(0)
    for index in range(count):
        words = draw.choice(_WORDS, size=int(draw.integers(2, 6)))
        yield Row(index, {"text": " ".join(words), "label": "yes" if index % 2 else "no"}, f"made up {index}")


def planned_and_happened(job: Job, schedule: str, folder: Path, process_seconds: Callable[[], float]) -> dict[str, Any]:
    """What the plan forecasts against what the same call then takes, nothing having been recorded before."""
    from unfreeze.api import train

    run = train(
        [row._asdict() for row in job.rows],
        model=job.model,
        schedule=schedule,
        output=folder,
        seed=job.seed,
        settings=[f"train.epochs={job.epochs}", f"cache.folder={folder.parent / 'activations'}"],
    )
    expected, found = run.plan["expected"], run.metrics
    return {
        "train_seconds": [expected.get("train_seconds"), found["train_runtime"]],
        "total_seconds": [expected.get("total_seconds"), process_seconds()],
        "memory_bytes": [expected.get("peak_memory_bytes"), found["train_peak_memory_bytes"]],
    }


def train_by_command(
    data: Path,
    model: str,
    folder: Path,
    *,
    limit_seconds: float,
    options: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """``unfreeze train DATA --model M --output RUN`` and `options`, in as many parts as it takes.

    Args:
        data: Folder of the data set.
        model: As given to ``--model``.
        folder: Of the run; one that is there is resumed.
        limit_seconds: When it is asked to stop (SIGTERM), to go on at the next call.
        options: Of the command.
        settings: For tests alone, to make it small.

    Raises:
        Unfinished: The time was up.
    """
    from unfreeze.run import Run, is_run

    if is_run(folder):
        arguments = ["resume", str(folder)]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before there was a run
        arguments = ["train", str(data), "--model", model, "--output", str(folder), *options]
        arguments += [part for setting in settings for part in ("--set", setting)]
    _run_for(limit_seconds, [sys.executable, "-m", "unfreeze", *arguments])
    run = Run(folder)
    # A task may have none.
    compared_with = folder / "baselines.json"
    baselines = json.loads(compared_with.read_text(encoding="utf-8")) if compared_with.is_file() else []
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    compared = ("name", "metric", "value", "run_value", "difference")
    return {
        **{key: summary[key] for key in ("split", "metric", "value", "interval", "samples", "epochs")},
        "train_rows": run.plan["data"]["rows"]["train"],
        "train_seconds": run.metrics["train_runtime"],
        # All figures of the reported rows: a task may have several that matter.
        "figures": {
            name.removeprefix(f"{summary['split']}_"): value
            for name, value in run.results(summary["split"]).items()
            if isinstance(value, int | float)
        },
        "resumed": sum(1 for _ in run.events("resumed")),
        "baselines": [{key: b[key] for key in compared} for b in baselines],
    }


def _run_for(limit_seconds: float, command: list[str]) -> None:
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        status = process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise Unfinished(f"stopped after {time.monotonic() - started:.0f} s") from None
    if status == 75:
        raise Unfinished("stopped by a signal")
    if status != 0:
        raise RuntimeError(f"unfreeze ended with exit status {status}")


def transfer(
    data: Path, test: Sequence[LabelledText], model: str, folder: Path, *, seed: int, settings: Sequence[str]
) -> dict[str, Any]:
    """Accuracy on the test rows after training with the default schedule, with the answers row by row."""
    from unfreeze.api import train

    run = train(data, model=model, output=folder, seed=seed, settings=[*settings, "baselines=false"])
    right = right_answers([p.label for p in run.predict([row.text for row in test])], test)
    return {"accuracy": right.count("1") / len(right), "right": right, "steps": run.metrics["train_steps"]}


def random_twin(model: Path, folder: Path, seed: int) -> Path:
    """The same architecture, with its tokenizer or image processor, with random weights."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.AutoConfig.from_pretrained(model)
    sees = (model / "preprocessor_config.json").is_file()
    made = transformers.AutoModelForImageClassification if sees else transformers.AutoModelForMaskedLM
    made.from_config(config).save_pretrained(folder)
    processor = transformers.AutoImageProcessor if sees else transformers.AutoTokenizer
    processor.from_pretrained(model).save_pretrained(folder)
    return folder
