"""`unfreeze resume` from a signal, a kill or a change of mind: the finished run is the one that nobody stopped."""

from __future__ import annotations

import copy
import errno
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import planted
import pytest
import small
import torch
from rich.console import Console

from unfreeze import api, cli, durable, preparation
from unfreeze.data.sources import read
from unfreeze.durable import MAKE_ROOM, sha256_of_file
from unfreeze.errors import Interrupted, ModelError, RequestError, ResourceError, UnfreezeError
from unfreeze.machine import ONE_ROW_IS_TOO_MUCH, not_enough_memory
from unfreeze.run import Event, Run
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import tiny_image_model, tiny_model
from unfreeze.training.engine import Engine

# Three phases of three steps with dropout; the middle one starts after step 3, the last after step 6.
PHASES = [{"span": span, "epochs": "3 steps"} for span in ("head", "last(1)", "all")]
COMMAND = [sys.executable, "-m", "unfreeze"]

# A task that is text-classification, and sends its process a signal once the run has done so many steps.
SIGNALLED = """
import os, pathlib, signal
from unfreeze.tasks.text_classification import TextClassification

class Signalled(TextClassification):
    sent = False

    def loss(self, model, batch):
        log = pathlib.Path(os.environ.get("WATCHED", "nothing"))
        if not Signalled.sent and log.is_file() and log.read_text().count('"kind": "step"') == int(os.environ["STEPS"]):
            Signalled.sent = True
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
        return super().loss(model, batch)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, a model, a task of its own and a recipe."""
    folder = tmp_path_factory.mktemp("place")
    rows = small.reviews(40)
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    tiny_model(folder / "tiny", texts=[row["text"] for row in rows])
    (folder / "own_task.py").write_text(SIGNALLED)
    recipe = {
        "data": {"source": str(folder / "reviews.csv"), "validation": 0.2},
        "model": str(folder / "tiny"),
        "schedule": PHASES,
        "train": {"batch_size": 8, "threads": 1},
        "cache": {"folder": str(folder / "cache")},
        "baselines": False,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def unbroken(place: Path) -> str:
    return weights_of(train(place, place / "unbroken").folder)


def train(place: Path, output: Path, **changes: Any) -> api.TrainedRun:
    return api.train(recipe=place / "recipe.yaml", output=output, **changes)


def weights_of(folder: Path) -> str:
    return sha256_of_file(folder / "model" / "model.safetensors")


def signal_after(step: int, number: signal.Signals) -> Callable[[Event], None]:
    def observe(event: Event) -> None:
        if event.kind == "step" and event.step == step:
            os.kill(os.getpid(), number)

    return observe


def run_command(
    *arguments: str, folder: Path, before: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    source = str(Path(api.__file__).parents[1])
    return subprocess.run(
        [*before, *COMMAND, *arguments], cwd=folder, text=True, capture_output=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


class Killed(BaseException):
    pass


def main(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["unfreeze", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


# signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "name"), [(1, "SIGINT"), (3, "SIGTERM"), (5, "SIGTERM"), (6, "SIGINT"), (8, "SIGUSR1")]
)
def test_a_signal_ends_the_run_after_a_checkpoint_and_resume_ends_it_as_if_nothing_had_been(
    place: Path, unbroken: str, tmp_path: Path, step: int, name: str
) -> None:
    folder = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        train(place, folder, observers=[signal_after(step, signal.Signals[name])])
    assert caught.value.exit_status == 75
    assert signal.getsignal(signal.SIGTERM) == before, "the caller's handlers are given back"
    status = Run(folder).status
    assert (status.state, status.cause, status.step, status.exit_status) == (
        "interrupted", f"stopped by {name}", step, 75,
    )  # fmt: skip
    assert status.next == f"unfreeze resume {folder}"

    resumed = api.resume(folder)
    assert weights_of(folder) == unbroken
    assert resumed.status.state == "done"
    assert [e.step for e in resumed.events("step")] == list(range(1, 10))
    reference = Run(place / "unbroken")
    assert resumed.metrics["eval_loss"] == reference.metrics["eval_loss"]
    assert resumed.metrics["train_steps"] == reference.metrics["train_steps"] == 9


def test_a_second_signal_while_resuming_is_resumed_again(place: Path, unbroken: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(place, folder, observers=[signal_after(2, signal.SIGTERM)])
    with pytest.raises(Interrupted):
        api.resume(folder, observers=[signal_after(7, signal.SIGTERM)])
    api.resume(folder)
    assert weights_of(folder) == unbroken


def test_an_observer_may_ask_to_stop(place: Path, unbroken: str, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="an observer"):
        train(place, tmp_path / "run", observers=[lambda event: event.kind == "evaluation"])
    api.resume(tmp_path / "run")
    assert weights_of(tmp_path / "run") == unbroken


def test_a_second_signal_ends_training_in_a_program_without_ending_the_program(
    place: Path, unbroken: str, tmp_path: Path
) -> None:
    def hurry(event: Event) -> None:
        if event.kind == "step" and event.step == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(place, tmp_path / "run", observers=[hurry])
    status = Run(tmp_path / "run").status
    assert (status.state, status.cause, status.exit_status) == ("interrupted", "stopped at once", 130)
    api.resume(tmp_path / "run")
    assert weights_of(tmp_path / "run") == unbroken


@pytest.mark.parametrize("when", ["read", "encoded"])
def test_a_signal_before_training_is_heard_there(
    when: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    encode = TextClassification.encode

    def read_and_signal(*given: Any, **named: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return read(*given, **named)

    def encode_and_signal(self: Any, row: Any, *, train: bool) -> Any:
        if train:
            seen.append(row.place)
            signal.raise_signal(signal.SIGTERM)
        return encode(self, row, train=train)

    if when == "read":
        monkeypatch.setattr(preparation, "read", read_and_signal)
        monkeypatch.setattr(preparation, "load_config", lambda *_, **__: pytest.fail("it went on"))
    else:
        monkeypatch.setattr(TextClassification, "encode", encode_and_signal)
    with pytest.raises(Interrupted):
        train(place, tmp_path / "run")
    assert len(seen) == (when == "encoded")
    assert not (tmp_path / "run").exists()


def test_the_command_exits_with_75_and_resume_finishes_it(place: Path, unbroken: str) -> None:
    arguments = ("train", "recipe.yaml", "--task", "own_task:Signalled", "--output", "stopped")
    stopped = run_command(*arguments, folder=place, SIGNAL="SIGTERM", STEPS="4", WATCHED="stopped/events.jsonl")
    assert stopped.returncode == 75, stopped.stderr
    assert "E-INTERRUPTED: stopped by SIGTERM" in stopped.stderr
    assert "unfreeze resume stopped" in stopped.stderr
    assert "SIGTERM: stopping after this step, with a checkpoint; once more: at once" in stopped.stderr
    status = json.loads((place / "stopped" / "status.json").read_text())
    assert (status["state"], status["exit_status"]) == ("interrupted", 75)
    resumed = run_command("resume", "stopped", folder=place)
    assert resumed.returncode == 2, "its task is code that the run names"
    assert "--allow-remote-code" in resumed.stderr
    resumed = run_command("resume", "stopped", "--allow-remote-code", folder=place)
    assert resumed.returncode == 0, resumed.stderr
    assert weights_of(place / "stopped") == unbroken


def test_under_nohup_a_terminal_that_closes_stops_nothing(place: Path, unbroken: str) -> None:
    arguments = ("train", "recipe.yaml", "--task", "own_task:Signalled", "--output", "nohup")
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    done = run_command(*arguments, folder=place, before=nohup, SIGNAL="SIGHUP", STEPS="4", WATCHED="nohup/events.jsonl")
    assert done.returncode == 0, done.stderr
    assert weights_of(place / "nohup") == unbroken


def test_a_process_that_is_killed_leaves_a_run_that_resume_finishes(place: Path, unbroken: str) -> None:
    arguments = ("train", "recipe.yaml", "--task", "own_task:Signalled", "--output", "killed")
    killed = run_command(*arguments, folder=place, SIGNAL="SIGKILL", STEPS="7", WATCHED="killed/events.jsonl")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Run(place / "killed").status.state == "running"
    resumed = run_command("resume", "killed", "--allow-remote-code", folder=place)
    assert resumed.returncode == 0, resumed.stderr
    assert weights_of(place / "killed") == unbroken


def test_a_run_that_died_before_its_first_checkpoint_starts_from_the_beginning_and_says_so(
    place: Path, unbroken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Engine, "_save", die)
        train(place, tmp_path / "run")
    said = io.StringIO()
    run = api.resume(tmp_path / "run", console=Console(file=said, width=200))
    assert weights_of(run.folder) == unbroken
    sentence = "it was ended before its first checkpoint: training starts from the beginning"
    assert f"note: {sentence}" in said.getvalue()
    assert sentence in [event.values["text"] for event in run.events("notice")]


# after training --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["_write_model", "measure", "_judge_and_report"])
def test_a_run_that_dies_after_training_is_finished_without_training_again(
    place: Path, unbroken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(api, step, die)
        with pytest.raises(Killed):
            train(place, folder)
    assert Run(folder).status.state == "failed"
    done = api.resume(folder)
    assert weights_of(folder) == unbroken
    assert [e.step for e in done.events("step")] == list(range(1, 10))
    assert (folder / "report.html").is_file()
    assert done.metrics["eval_accuracy"] == Run(place / "unbroken").metrics["eval_accuracy"]


@pytest.mark.parametrize(
    ("error", "exit_status", "cause"),
    [
        (MemoryError(), 6, "E-MEMORY: "),
        (torch.OutOfMemoryError("CUDA out of memory"), 6, "E-MEMORY: "),
        (OSError(errno.ENOSPC, "No space left on device"), 6, "E-DISK: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 6, "E-DISK: Permission denied"),
        (ModelError("MODEL-BROKEN", "x"), 4, "E-MODEL-BROKEN: x"),
        (ZeroDivisionError("oops"), 1, "ZeroDivisionError: oops"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_status_says_how_the_process_ended(
    error: Exception, exit_status: int, cause: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(api, "_fine_tuned", fail)
    recipe, folder = str(place / "recipe.yaml"), tmp_path / "run"
    assert main("train", recipe, "--output", str(folder), monkeypatch=monkeypatch) == exit_status
    status = Run(folder).status
    assert (status.state, status.exit_status) == ("failed", exit_status)
    assert status.cause.startswith(cause)
    assert f"unfreeze resume {folder}" in status.next


@pytest.mark.parametrize(
    ("error", "next_"),
    [
        (ResourceError("DISK", "x", remedy=MAKE_ROOM), "free some space there, then: unfreeze resume {run}"),
        (not_enough_memory("x", remedy=ONE_ROW_IS_TOO_MUCH), "with more memory free: unfreeze resume {run}\n"),
        (ModelError("CHECKPOINT", "x", remedy="what fits"), "what fits"),
        (ModelError("CHECKPOINT", "x"), "unfreeze resume {run}"),
    ],
)
def test_what_is_advised_of_a_run_can_be_done_with_a_run(
    error: UnfreezeError, next_: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(api, "_fine_tuned", fail)
    with pytest.raises(type(error)) as caught:
        train(place, tmp_path / "run")
    status = Run(tmp_path / "run").status
    assert status.next.startswith(next_.format(run=tmp_path / "run"))
    assert caught.value.remedy == status.next
    assert (status.state, status.exit_status) == ("failed", error.exit_status)


def test_the_trained_model_is_let_go_before_it_is_measured(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read back as it was written; and the peak of memory is that of the whole run."""
    fine_tuned, measure = api._fine_tuned, api.measure
    trained: list[weakref.ref[torch.nn.Module]] = []
    is_there: list[bool] = []
    peaks = iter([10, 30])

    def train_and_remember(*given: Any) -> torch.nn.Module:
        model = copy.deepcopy(fine_tuned(*given))  # which nothing else knows
        trained.append(weakref.ref(model))
        return model

    def look_and_measure(*given: Any, **named: Any) -> None:
        is_there.append(trained[0]() is not None)
        measure(*given, **named)

    monkeypatch.setattr(api, "_fine_tuned", train_and_remember)
    monkeypatch.setattr(api, "measure", look_and_measure)
    monkeypatch.setattr(api, "peak_memory_bytes", lambda: next(peaks))
    run = train(place, tmp_path / "run")
    assert is_there == [False]
    assert run.metrics["train_peak_memory_bytes"] == run.results("train")["train_peak_memory_bytes"] == 30


def test_what_was_trained_is_told_and_not_what_was_planned(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With early stopping: two steps of the first phase are made, one of each other."""
    monkeypatch.setattr(Engine, "_is_better", lambda engine, found: engine.state.best is None)
    settings = ["train.evaluations_per_epoch=4", "train.early_stopping=1"]
    run = train(place, tmp_path / "run", settings=settings)
    assert run.results("train")["train_stopped_phases"] == ["head", "last(1)", "all"]
    assert (run.status.state, run.status.step, run.metrics["train_steps"]) == ("done", 4, 4)
    card = (run.model_folder / "README.md").read_text(encoding="utf-8")
    epochs = f"{run.plan['phases'][0]['epochs'] * 2 / 3:.3g}"
    assert re.search(rf"^\| head \| head \| [\d,]+ \| 2 \| {epochs}0* \|", card, re.MULTILINE)
    assert "2 of 3 steps, stopped early" in run.report().read_text(encoding="utf-8")


def test_a_step_that_a_resumed_run_took_back_is_not_part_of_the_weights(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", recipe_yaml="", plan={})
    assert api._last_step(run) == 0
    for step in range(1, 8):
        run.log("step", step, loss=1.0, tokens=1)
    assert api._last_step(run) == 7
    run.log("resumed", 5)
    assert api._last_step(run) == 5, "steps 6 and 7 came after the checkpoint"
    run.log("step", 6, loss=1.0, tokens=1)
    assert api._last_step(run) == 6


# what resume refuses ---------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def test_resuming_a_finished_run_exits_with_0_and_changes_nothing(
    place: Path, unbroken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(place / "unbroken")
    assert main("resume", str(place / "unbroken"), monkeypatch=monkeypatch) == 0
    assert "finished already" in capsys.readouterr().err
    assert files_of(place / "unbroken") == before


@pytest.fixture
def stopped(place: Path, tmp_path: Path) -> Path:
    """An interrupted run on rows and a model of its own."""
    rows = (place / "reviews.csv").read_text()
    (tmp_path / "reviews.csv").write_text(rows)
    tiny_model(tmp_path / "tiny", texts=[row["text"] for row in small.reviews(40)])
    with pytest.raises(Interrupted):
        train(
            place, tmp_path / "run", data=str(tmp_path / "reviews.csv"), model=str(tmp_path / "tiny"),
            observers=[signal_after(2, signal.SIGTERM)],
        )  # fmt: skip
    return tmp_path


def change_a_word(folder: Path) -> None:
    path = folder / "reviews.csv"
    path.write_text(path.read_text().replace("soup", "stew", 1))


def change_a_label(folder: Path) -> None:
    path = folder / "reviews.csv"
    path.write_text(path.read_text().replace(",negative", ",positive", 1))


def lose_a_row(folder: Path) -> None:
    path = folder / "reviews.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def change_the_weights(folder: Path) -> None:
    tiny_model(folder / "tiny", texts=[row["text"] for row in small.reviews(40)], seed=1)


def change_the_tokenizer(folder: Path) -> None:
    path = folder / "tiny" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 7}))


def change_a_setting(folder: Path) -> None:
    path = folder / "run" / "recipe.yaml"
    path.write_text(path.read_text() + "baselines: false\n")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_a_word, "the data are"),
        (change_a_label, "the data are"),
        (lose_a_row, "the data are"),
        (change_the_weights, "the model's weights are"),
        (change_the_tokenizer, "the model's tokenizer or processor is"),
        (change_a_setting, "recipe.yaml is"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_has_changed_is_refused(stopped: Path, change: Callable[[Path], None], what: str) -> None:
    change(stopped)
    status = Run(stopped / "run").status
    with pytest.raises(RequestError, match=f"{what} not what this run was started with") as caught:
        api.resume(stopped / "run")
    assert (caught.value.code, caught.value.exit_status) == ("RUN-CHANGED", 2)
    assert Run(stopped / "run").status == status, "a refused resume leaves the run as it is"


def test_with_everything_put_back_it_goes_on(stopped: Path, unbroken: str) -> None:
    original = (stopped / "reviews.csv").read_text()
    change_a_word(stopped)
    with pytest.raises(RequestError):
        api.resume(stopped / "run")
    (stopped / "reviews.csv").write_text(original)
    api.resume(stopped / "run")
    assert weights_of(stopped / "run") == unbroken


@pytest.fixture
def rows(place: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Rows in memory, and a recipe for them that names no file."""
    recipe = json.loads((place / "recipe.yaml").read_text())
    del recipe["data"]["source"]
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    return [dict(row.values) for row in read(str(place / "reviews.csv")).train]


def test_rows_from_memory_that_cannot_be_kept_leave_no_run(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    def full(operation: str, path: Path) -> None:
        if path.name == "data":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with durable.fault_points(full), pytest.raises(ResourceError) as caught:
        train(tmp_path, tmp_path / "run", data=rows)
    assert caught.value.code == "DISK"
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"], "there is nothing that could not be resumed"


def test_a_run_on_rows_from_memory_needs_nothing_else_to_go_on(
    rows: list[dict[str, Any]], unbroken: str, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, tmp_path / "run", data=rows, observers=[signal_after(4, signal.SIGINT)])
    rows.clear()
    api.resume(tmp_path / "run")
    assert weights_of(tmp_path / "run") == unbroken


@pytest.mark.parametrize("kind", ["class labels", "names of files", "test rows beside a file"])
def test_whatever_was_given_from_memory_is_there_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    test: Any = None
    rows = small.reviews(40)
    if kind == "names of files":
        planted.pictures("pictures")
        data: Any = [{"image": str(p), "label": p.parent.name} for p in sorted(Path("pictures").rglob("*.png"))]
        model = tiny_image_model(tmp_path / "tiny")
    else:
        model = tiny_model(tmp_path / "tiny", texts=[row["text"] for row in rows])
        ids = [{**row, "label": int(row["label"] == "positive")} for row in rows]
        names = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
        )
        data = datasets.Dataset.from_list(ids, features=names)
        if kind == "test rows beside a file":
            lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows[:30])]
            Path("rows.csv").write_text("\n".join(lines) + "\n")
            data, test = "rows.csv", rows[30:]
    with pytest.raises(Interrupted):
        api.train(
            data, test=test, model=model, schedule="head", output=tmp_path / "run", baselines=False,
            settings=["train.epochs=4 steps", "train.batch_size=8"], observers=[signal_after(2, signal.SIGINT)],
        )  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    resumed = api.resume(tmp_path / "run")
    assert resumed.status.state == "done"
    assert "test_loss" in resumed.metrics if test is not None else "eval_loss" in resumed.metrics


# numbers ---------------------------------------------------------------------------------------------------------


def test_a_diverging_run_exits_with_5_and_says_so_in_its_status(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("train.head_learning_rate=1e38", "train.max_gradient_norm=1e9", "train.warmup_fraction=0")
    arguments = [part for setting in settings for part in ("--set", setting)]
    folder = tmp_path / "run"
    status = main("train", str(place / "recipe.yaml"), "--output", str(folder), *arguments, monkeypatch=monkeypatch)
    assert status == 5
    assert "E-NOT-FINITE" in capsys.readouterr().err
    recorded = Run(folder).status
    assert (recorded.state, recorded.exit_status) == ("failed", 5)
    assert recorded.cause.startswith("E-NOT-FINITE: ")
    assert f"unfreeze train {folder / 'recipe.yaml'}" in recorded.next, "resume takes no other rate"
    assert not (folder / "model").exists()
