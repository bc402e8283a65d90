"""KR-01 to KR-08, RS-01: killed or out of disk anywhere, a resumed run ends bit for bit like one left alone.

On every change one kill for each kind of file, operation and phase, and a few at random times; `make faults` tries
every point and 1,000 random kills (``UNFREEZE_FAULTS=all``).
"""

from __future__ import annotations

import errno
import os
import shutil
from functools import partial
from pathlib import Path

import harness
import numpy as np
import planted
import pytest
from harness import Place, Point, in_child
from power import Power

from unfreeze import durable
from unfreeze.run import Run
from unfreeze.testing import tiny_audio_model, tiny_dictation_model, tiny_image_model

IS_LONG = os.environ.get("UNFREEZE_FAULTS") == "all"
RANDOM_RUNS = 250 if IS_LONG else 6
KILLS_A_RUN = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("kill"))


@pytest.fixture(scope="module")
def points(place: Place) -> list[Point]:
    return place.points("unbroken")


@pytest.fixture(scope="module")
def unbroken(place: Place, points: list[Point]) -> dict[str, object]:
    found = harness.trace(place.folder / "unbroken")
    assert found["state"] == "done"
    recorded = [e.values["boundary"] for e in Run(place.folder / "unbroken").events("recorded")]
    assert recorded == ["group 1", "head"], (
        "a trial that records nothing would not show what a kill does to a recording"
    )
    assert any(point.kind.startswith("cache/") for point in points)
    return found


def finish(place: Place, name: str, unbroken: dict[str, object]) -> None:
    """Resume to the end, compare, and tidy up."""
    log = place.folder / f"{name}.log"
    assert in_child(lambda: place.resume(name), log) == 0, log.read_text(encoding="utf-8")
    assert harness.trace(place.folder / name) == unbroken
    harness.assert_invariants(place.folder / name, log)
    shutil.rmtree(place.folder / name)
    shutil.rmtree(place.folder / f"{name}-cache", ignore_errors=True)
    log.unlink()


def test_an_undisturbed_run_is_repeated_to_the_bit(place: Place, unbroken: dict[str, object]) -> None:
    finish(place, "again", unbroken)


def test_killed_at_every_kind_of_write_in_every_phase(
    place: Place, points: list[Point], unbroken: dict[str, object]
) -> None:
    """KR-01, KR-03 to KR-06."""

    def trial(point: Point, name: str) -> None:
        log = place.folder / f"{name}.log"

        def work() -> None:
            with durable.fault_points(harness.killed_at(point.number)):
                place.train(name)

        assert in_child(work, log) == -9, log.read_text(encoding="utf-8")
        finish(place, name, unbroken)

    harness.try_all(points if IS_LONG else harness.one_of_each(points), trial, place.folder)


@pytest.mark.parametrize("seed", range(RANDOM_RUNS))
def test_killed_at_random_times_and_resumed_each_time(seed: int, place: Place, unbroken: dict[str, object]) -> None:
    """KR-02, KR-07, KR-08."""
    draw, log = np.random.default_rng(seed), place.folder / f"random-{seed}.log"
    for _ in range(KILLS_A_RUN):
        in_child(lambda: place.resume(f"random-{seed}"), log, kill_after=float(draw.uniform(0.02, 0.5)))
    finish(place, f"random-{seed}", unbroken)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_a_disk_that_fails_at_any_kind_of_write_costs_no_result(
    error: int, place: Place, points: list[Point], unbroken: dict[str, object]
) -> None:
    """RS-01: the run ends with status 6 or goes on without; resumed, it is the undisturbed one.

    On every change every third kind of write on a full disk, in the long form every write.
    """
    chosen = points if IS_LONG else harness.one_of_each(points)[::3]

    def trial(point: Point, name: str) -> None:
        log = place.folder / f"{name}.log"

        def work() -> None:
            with durable.fault_points(harness.failing_at(point.number, error)):
                place.train(name)

        status = in_child(work, log)
        said = log.read_text(encoding="utf-8") if log.is_file() else ""
        assert status in (0, 6), f"{status}: {said}"
        assert "Traceback" not in said, said
        if not _went_on_without(place.folder / name):
            finish(place, name, unbroken)
        shutil.rmtree(place.folder / name, ignore_errors=True)
        shutil.rmtree(place.folder / f"{name}-cache", ignore_errors=True)

    harness.try_all(chosen if error == errno.ENOSPC else chosen[::4], trial, place.folder)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds a descriptor's path through /proc")
def test_a_power_cut_at_any_kind_of_write_is_resumed_to_the_bit(
    place: Place, points: list[Point], unbroken: dict[str, object], tmp_path: Path
) -> None:
    """KR-20: what was not synced is gone. On every change every fifth kind of write, in the long form every write."""

    def trial(point: Point, name: str) -> None:
        # A place of its own: all that is below it loses what is not on the disk.
        log, own, backups = tmp_path / f"{name}.log", tmp_path / name, tmp_path / f"{name}-backups"
        own.mkdir()
        backups.mkdir()
        shutil.copy(place.folder / "recipe.yaml", own)
        elsewhere = place.at(own)

        def work() -> None:
            power = Power(own, backups)
            with power.watched(), durable.fault_points(harness.at(point.number, lambda path: power.cut())):
                elsewhere.train("cut")

        assert in_child(work, log) == 137, log.read_text(encoding="utf-8")
        finish(elsewhere, "cut", unbroken)
        shutil.rmtree(own)
        shutil.rmtree(backups)

    harness.try_all(points if IS_LONG else harness.one_of_each(points)[::5], trial, tmp_path)


FILES = {
    "pictures": (planted.pictures, tiny_image_model, {"options.views": 2}),
    "masks": (planted.street, partial(tiny_image_model, architecture="segformer"), {}),
    "recordings": (planted.calls, tiny_audio_model, {}),
    "speech": (planted.speech, partial(tiny_dictation_model, seconds=1), {}),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_run_on_files_is_resumed_to_the_bit(kind: str, tmp_path: Path) -> None:
    """KR-01 of every modality: killed at the first writes of training, in the middle, and near the end."""
    make, model, settings = FILES[kind]
    spans = ["last(1)", "last(2)", "all"] if kind == "speech" else ["head", "last(1)", "all"]  # Whisper brings its head
    phases = [{"span": span, "epochs": f"{steps} steps"} for span, steps in zip(spans, (10, 5, 3), strict=True)]
    place = Place.of_files(tmp_path, make, model(tmp_path / "model"), schedule=phases, **settings)
    counted = tmp_path / "counted"

    def count() -> None:
        seen: list[str] = []
        with durable.fault_points(lambda operation, path: seen.append(operation)):
            place.train("unbroken")
        counted.write_text(str(len(seen)))

    log = tmp_path / "unbroken.log"
    assert in_child(count, log) == 0, log.read_text(encoding="utf-8")
    unbroken = harness.trace(tmp_path / "unbroken")
    assert unbroken["state"] == "done"
    recorded = [e.values["boundary"] for e in Run(tmp_path / "unbroken").events("recorded")]
    assert bool(recorded) == (kind != "masks"), "Segformer's head reads all levels, and is not recorded"
    for share in (0.3, 0.55, 0.8):
        number = int(share * int(counted.read_text()))

        def work(number: int = number) -> None:
            with durable.fault_points(harness.killed_at(number)):
                place.train("killed")

        log = tmp_path / "killed.log"
        assert in_child(work, log) == -9, log.read_text(encoding="utf-8")
        finish(place, "killed", unbroken)


def _went_on_without(folder: Path) -> bool:
    """Whether the run was trained on the rows themselves because they could not be recorded, which it says."""
    log = folder / "events.jsonl"
    return log.is_file() and "not recorded at" in log.read_text(encoding="utf-8")
