"""KR-01 to KR-08, RS-01: killed or out of disk anywhere, a resumed run ends bit for bit like one left alone.

On every change one kill for each kind of file, operation and phase, and a few at random times; `make faults` tries
every point and 1,000 random kills (``UNFREEZE_FAULTS=all``).
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import harness
import numpy as np
import pytest
from harness import Place, Point, in_child
from power import Power

from unfreeze import durable

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
    assert points
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
    for point in points if IS_LONG else harness.one_of_each(points):
        log = place.folder / "killed.log"

        def work(number: int = point.number) -> None:
            with durable.fault_points(harness.killed_at(number)):
                place.train("killed")

        assert in_child(work, log) == -9, f"{point}: {log.read_text(encoding='utf-8')}"
        try:
            finish(place, "killed", unbroken)
        except AssertionError as error:
            raise AssertionError(f"killed at {point}") from error


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
    """RS-01: the run ends with status 6 or goes on without; resumed, it is the undisturbed one."""
    chosen = points if IS_LONG else harness.one_of_each(points)
    for point in chosen if error == errno.ENOSPC else chosen[::4]:
        log = place.folder / "failed.log"

        def work(number: int = point.number) -> None:
            with durable.fault_points(harness.failing_at(number, error)):
                place.train("failed")

        status = in_child(work, log)
        said = log.read_text(encoding="utf-8") if log.is_file() else ""
        try:
            assert status in (0, 6), f"{status}: {said}"
            assert "Traceback" not in said, said
            if not _went_on_without(place.folder / "failed"):
                finish(place, "failed", unbroken)
        except AssertionError as failure:
            raise AssertionError(f"{os.strerror(error)} at {point}") from failure
        shutil.rmtree(place.folder / "failed", ignore_errors=True)
        shutil.rmtree(place.folder / "failed-cache", ignore_errors=True)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds a descriptor's path through /proc")
def test_a_power_cut_at_any_kind_of_write_is_resumed_to_the_bit(
    place: Place, points: list[Point], unbroken: dict[str, object], tmp_path: Path
) -> None:
    """KR-20: what was not synced is gone. On every change every fifth kind of write, in the long form every write."""
    for point in points if IS_LONG else harness.one_of_each(points)[::5]:
        log, backups = tmp_path / "cut.log", tmp_path / "backups"
        backups.mkdir()

        def work(number: int = point.number, backups: Path = backups) -> None:
            power = Power(place.folder, backups)
            with power.watched(), durable.fault_points(harness.at(number, lambda path: power.cut())):
                place.train("cut")

        assert in_child(work, log) == 137, f"{point}: {log.read_text(encoding='utf-8')}"
        shutil.copy(log, place.folder / "cut.log")
        try:
            finish(place, "cut", unbroken)
        except AssertionError as error:
            raise AssertionError(f"power cut at {point}") from error
        shutil.rmtree(backups)


def _went_on_without(folder: Path) -> bool:
    """Whether the run was trained on the rows themselves because they could not be recorded, which it says."""
    log = folder / "events.jsonl"
    return log.is_file() and "not recorded at" in log.read_text(encoding="utf-8")
