"""Runs that are killed in a child process, resumed in another, and compared with the run that nobody disturbed.

A child is forked from this process, which has torch in memory, so that a trial takes a second and not ten. Nothing may
have started threads before: the whole harness trains with one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import small
import torch

from unfreeze import api, durable
from unfreeze.activations import decision
from unfreeze.durable import sha256_of_file
from unfreeze.errors import UnfreezeError
from unfreeze.report import plots
from unfreeze.run import Event, Run
from unfreeze.testing import tiny_model

CRASHED = 99
# The head on recorded inputs, the last layer, everything: with dropout, evaluations, best weights and two boundaries.
PHASES = [
    {"span": "head", "epochs": "6 steps"},
    {"span": "last(1)", "epochs": "6 steps"},
    {"span": "all", "epochs": "2 steps"},
]


@dataclass(frozen=True)
class Point:
    """A durable operation of a run.

    Attributes:
        number: Its place among all of the run, from 0.
        operation: ``write``, ``fsync``, ``rename`` ...
        kind: The file or folder, without numbers and keys.
        phase: Of the training: ``before`` its first phase, the phase's name, ``after`` its last.
    """

    number: int
    operation: str
    kind: str
    phase: str

    def __str__(self) -> str:
        return f"{self.number}-{self.operation}-{self.kind}-{self.phase}".replace("/", ".")


class Place:
    """Rows, a tiny model and a recipe in a folder; runs are made beside them."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.folder = folder
        rows = small.reviews(40)
        lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
        (folder / "reviews.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        tiny_model(folder / "tiny", texts=[row["text"] for row in rows])
        recipe = {
            "data": {"source": str(folder / "reviews.csv"), "validation": 0.2},
            "model": str(folder / "tiny"),
            "schedule": PHASES,
            "train": {"batch_size": 8, "threads": 1, "evaluations_per_epoch": 2},
            "baselines": False,
        }
        (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
        # What is in memory by now need not be looked through by every child's garbage collections.
        gc.collect()
        gc.freeze()

    @classmethod
    def of_files(cls, folder: Path, make: Callable[[Path], Path], model: Path, **settings: Any) -> Place:
        """Files in ``data``, made by `make`, and a recipe for them; nothing is read in this process.

        Reading files starts threads, and what is forked must not have any.
        """
        data = make(folder / "data")
        recipe = {
            "data.source": str(data),
            "data.validation": 0.25,
            "model": str(model),
            "schedule": PHASES,
            "train.batch_size": 4,
            "train.threads": 1,
            "train.evaluations_per_epoch": 1,
            "baselines": False,
            **settings,
        }
        (folder / "recipe.yaml").write_text(json.dumps(nested(recipe)), encoding="utf-8")
        place = object.__new__(cls)
        place.folder = folder
        return place

    def at(self, folder: Path) -> Place:
        """The same rows and model, with runs in a folder that has the recipe."""
        copied = object.__new__(Place)
        copied.folder = folder
        return copied

    def train(self, name: str, **changes: Any) -> api.TrainedRun:
        """A run with a cache of its own, so that every trial records."""
        settings = [f"cache.folder={self.folder / name}-cache"]
        with _as_a_trial():
            return api.train(
                recipe=self.folder / "recipe.yaml", output=self.folder / name, settings=settings, **changes
            )

    def resume(self, name: str, **changes: Any) -> api.TrainedRun:
        """Go on; where the run was killed before it had a folder worth the name, start it."""
        if not (self.folder / name / "status.json").is_file():
            return self.train(name, **changes)
        with _as_a_trial():
            return api.resume(self.folder / name, **changes)

    def points(self, name: str) -> list[Point]:
        """All durable operations of an undisturbed run of that name."""
        found: list[Point] = []
        phase = "before"

        def watch(event: Event) -> None:
            nonlocal phase
            if event.kind == "phase":
                phase = str(event.values["name"])
            elif event.kind == "checkpoint" and event.values["phase"] == len(PHASES):
                phase = "after"

        def note(operation: str, path: Path) -> None:
            found.append(Point(len(found), operation, self._kind(path, name), phase))

        with durable.fault_points(note):
            self.train(name, observers=[watch])
        return found

    def _kind(self, path: Path, name: str) -> str:
        text = path.relative_to(self.folder).as_posix()
        text = re.sub(r"\.staging-[0-9a-f]{8}-", "", text)
        text = re.sub(r"[0-9a-f]{32}", "KEY", text).replace(f"{name}-cache", "cache").removeprefix(f"{name}/")
        return re.sub(r"\d+", "N", text)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        *outer, last = key.split(".")
        place = found
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return found


@contextlib.contextmanager
def _as_a_trial() -> Iterator[None]:
    """Both boundaries are recorded, which would not pay in a model so small; and nothing is drawn, which would take
    longer than all else, while the report is written all the same."""
    with (
        mock.patch.object(decision, "DISK_BYTES_PER_SECOND", float("inf")),
        mock.patch.object(plots, "data_uri", return_value="data:,"),
    ):
        yield


def one_of_each(points: Sequence[Point]) -> list[Point]:
    """The first point of every kind of file, operation and phase; ``done`` is the one that comes next, too."""
    wanted = [p for p in points if p.operation != "done"]
    return list({(p.operation, p.kind, p.phase): p for p in reversed(wanted)}.values())[::-1]


# children --------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], object], log: Path, *, kill_after: float | None = None, limit: float = 60.0) -> int:
    """The exit status of `work` in a forked process, negative for a signal.

    Args:
        work: Called in the child; a foreseen error becomes its exit status, any other `CRASHED`.
        log: Gets what the child says.
        kill_after: Seconds until SIGKILL.
        limit: Seconds until the trial counts as hanging.
    """
    child = os.fork()
    if child == 0:
        _run_child(work, log)
    started, killed = time.monotonic(), False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        waited = time.monotonic() - started
        if kill_after is not None and waited >= kill_after and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        if waited > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"a child hung; it said: {log.read_text(encoding='utf-8')}")
        time.sleep(0.002)


def _run_child(work: Callable[[], object], log: Path) -> None:
    code = CRASHED
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
        work()
        code = 0
    except UnfreezeError as error:
        print(error.block(), file=sys.stderr)
        code = error.exit_status
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def try_all(points: Sequence[Point], trial: Callable[[Point, str], None], folder: Path) -> None:
    """Every point, in two processes at a time.

    Args:
        points: To try.
        trial: Given a point and a name of its own for what it makes; raises AssertionError.
        folder: Where the second process leaves what it has to say.
    """
    said = folder / "second half.log"
    second = os.fork()
    if second == 0:
        _run_child(lambda: _try_each(points[1::2], trial, "second"), said)
    try:
        _try_each(points[::2], trial, "first")
    except BaseException:
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)
        raise
    _, status = os.waitpid(second, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said.read_text(encoding="utf-8")
    said.unlink(missing_ok=True)


def _try_each(points: Sequence[Point], trial: Callable[[Point, str], None], name: str) -> None:
    for point in points:
        try:
            trial(point, name)
        except AssertionError as error:
            raise AssertionError(f"at {point}: {error}") from error


def killed_at(number: int) -> Callable[[str, Path], None]:
    """For `durable.fault_points`: SIGKILL at an operation, counted from 0."""
    return at(number, lambda path: os.kill(os.getpid(), signal.SIGKILL))


def failing_at(number: int, error: int) -> Callable[[str, Path], None]:
    """For `durable.fault_points`: an `OSError` at an operation, counted from 0."""

    def fail(path: Path) -> None:
        raise OSError(error, os.strerror(error), str(path))

    return at(number, fail)


def at(number: int, act: Callable[[Path], None]) -> Callable[[str, Path], None]:
    """For `durable.fault_points`: act at an operation, counted from 0."""
    seen = -1

    def observe(operation: str, path: Path) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            act(path)

    return observe


# comparing -------------------------------------------------------------------------------------------------------

# What tells of the clock and the machine, and not of the training.
_TIMES = re.compile(r"runtime|per_second|seconds|_time|memory")


def trace(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on what happened to it on the way."""
    run = Run(folder)
    steps: dict[int, tuple[str, ...]] = {}
    for event in run.events("step"):
        values = tuple(repr(event.values[key]) for key in ("phase", "loss", "gradient_norm", "rate", "tokens"))
        before = steps.setdefault(event.step, values)
        assert before == values, f"step {event.step} was done twice and differently: {before} and {values}"
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return {
        "state": run.status.state,
        "weights": sha256_of_file(folder / "model" / "model.safetensors"),
        "trained": sha256_of_file(newest / "weights.safetensors"),
        "steps": steps,
        "metrics": {k: v for k, v in run.metrics.items() if not _TIMES.search(k)},
    }


def assert_invariants(folder: Path, log: Path) -> None:
    """What holds after every fault: nothing half-written is left, and no error was without a name."""
    left = [p for p in folder.rglob("*") if p.name.startswith(".staging")]
    assert not left, f"half-written: {left}"
    said = log.read_text(encoding="utf-8") if log.is_file() else ""
    assert "Traceback" not in said, said
