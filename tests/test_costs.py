"""The forecast: arithmetic with known answers; what it is fitted to is measured elsewhere (`benchmarks`, plan/*)."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
import small
import torch

from unfreeze import costs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small.small(tmp_path_factory.mktemp("costs"), **{"train.epochs": 4})


def test_the_fit_finds_the_coefficients_it_was_made_from() -> None:
    shapes = [(4, 20), (8, 100), (3, 400), (16, 30)]
    coefficients = np.asarray([0.002, 3e-6, 4e-9])
    values = [costs._Rates.of(coefficients, *shape) for shape in shapes]
    assert costs._fit(shapes, values) == pytest.approx(coefficients, rel=1e-6)


def test_the_fit_has_no_negative_costs() -> None:
    assert (costs._fit([(1, 10), (1, 20), (1, 30)], [3.0, 2.0, 1.0]) >= 0).all()


def test_more_epochs_cost_more_and_a_frozen_part_less(made: Any) -> None:
    rates = costs._Rates(np.asarray([0, 1e-3, 0]), np.asarray([0, 2e-3, 0]), np.asarray([0, 100.0, 0]), 0)
    plan, prepared = made.plan, made.prepared

    def seconds(*phases: Any) -> float:
        return costs._train_seconds(dataclasses.replace(plan, phases=list(phases)), prepared, rates)

    [whole] = made.phases(("all", 10))
    [longer] = made.phases(("all", 20))
    [head] = made.phases(("head", 10))
    assert seconds(longer) == pytest.approx(2 * seconds(whole), rel=0.01)
    assert seconds(head) < seconds(whole)
    recorded = dataclasses.replace(head, boundary="head")
    one_pass = 1e-3 * float(np.sum(prepared.train_lengths))
    assert seconds(recorded) < seconds(head) + one_pass


def test_where_operations_were_counted_they_tell_what_a_frozen_part_costs(made: Any) -> None:
    [group, *others] = [g for g in made.plan.groups if g["name"] == "head"]
    assert not others
    counted = [{**g, "share_below": 0.25} if g is group else g for g in made.plan.groups]
    assert costs._share_from(dataclasses.replace(made.plan, groups=counted), "head") == 0.75
    assert costs._share_from(made.plan, "head") < 0.1
    assert costs._share_from(made.plan, None) == costs._share_from(made.plan, "stem") == 1


def test_words_that_do_not_occur_cost_neither_time_nor_memory(made: Any) -> None:
    [whole] = made.phases(("all", 10))
    plan = dataclasses.replace(made.plan, phases=[whole])
    nothing = np.zeros(3)
    every, few = (costs._Rates(nothing, nothing, nothing, unmoved) for unmoved in (0, 1000))
    spared = costs._train_memory(plan, made.prepared, every) - costs._train_memory(plan, made.prepared, few)
    assert spared == pytest.approx(costs._WORKING_FACTOR * 1000 * 12)
    assert costs._train_seconds(plan, made.prepared, few) < costs._train_seconds(plan, made.prepared, every)


def test_what_is_measured_are_the_users_own_rows_of_three_sizes(made: Any) -> None:
    batches = costs._probe_batches(made.plan, made.prepared)
    assert len(batches) == 3
    assert max(b.inputs["input_ids"].shape[1] for b in batches) <= int(made.prepared.train_lengths.max())


def test_a_forecast_is_whole_and_leaves_the_weights_to_be_loaded(made: Any) -> None:
    plan = dataclasses.replace(made.plan, expected={})
    costs.expect(plan, made.prepared, ".", started=time.perf_counter() - 1000)
    assert plan.expected["total_seconds"] > 1000  # what has passed before is part of it
    assert plan.expected["total_seconds"] > plan.expected["train_seconds"] > 0
    assert plan.expected["peak_memory_bytes"] > 0
    weights = sum(p.numel() for p in made.model().parameters())
    assert plan.expected["disk_bytes"] > 4 * weights


def test_recordings_count_where_they_lie_on_the_same_disk(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    head = dataclasses.replace(made.plan.phases[0], boundary="head", recorded_bytes=3_000_000, is_recorded=False)
    plain = dataclasses.replace(head, boundary=None, recorded_bytes=0)
    with_recordings = dataclasses.replace(made.plan, phases=[head, head], expected={})
    without = dataclasses.replace(made.plan, phases=[plain, plain], expected={})
    for plan in (with_recordings, without):
        plan.expected["disk_bytes"] = costs._disk_bytes(plan)
    difference = with_recordings.expected["disk_bytes"] - without.expected["disk_bytes"]
    assert difference == 3_000_000  # phases at one boundary share it
    monkeypatch.setattr(costs, "free_disk_bytes", lambda folder: without.expected["disk_bytes"] + 10)
    monkeypatch.setattr(costs, "bytes_held", lambda folder: 0)
    assert costs.lacking_disk(with_recordings, ".") is not None
    monkeypatch.setattr(costs, "bytes_held", lambda folder: 5_000_000)
    assert costs.lacking_disk(with_recordings, ".") is None, "what earlier runs recorded makes room"
    monkeypatch.setattr(costs, "bytes_held", lambda folder: 0)
    monkeypatch.setattr(costs, "share_a_disk", lambda one, other: False)
    assert costs.lacking_disk(with_recordings, ".") is None


def test_models_in_half_precision_are_measured_as_they_are_trained(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(prepared: Any, model: torch.nn.Module, batch: Any) -> tuple[float, float, float]:
        seen.append({p.dtype for p in model.parameters()})
        return 0.1, 0.2, 1e6

    monkeypatch.setattr(costs, "_time_batch", note)
    monkeypatch.setattr(made.prepared.config, "dtype", torch.float16)
    costs._measure(made.plan, made.prepared)
    assert seen == [{torch.float32}] * 3


@pytest.mark.parametrize(("seconds", "shown"), [(45.4, "45 s"), (720, "12 min"), (7500, "2 h 5 min")])
def test_durations_are_told_as_people_tell_them(seconds: float, shown: str) -> None:
    assert costs.duration(seconds) == shown


def test_a_model_too_large_to_measure_is_said_to_be_one(made: Any) -> None:
    groups = [{**g, "parameters": 500_000_000} for g in made.plan.groups]
    large = dataclasses.replace(made.plan, groups=groups, expected={}, warnings=[])
    costs.expect(large, made.prepared, ".", started=time.perf_counter())
    assert "train_seconds" not in large.expected
    (_, cost), (name, disk) = costs.as_rows(large.expected)
    assert "not estimated" in cost
    assert name == "disk"
    assert disk.endswith("MB")
    assert large.expected["disk_bytes"] > 4 * sum(g["parameters"] for g in groups), "a run that will not fit is refused"


def test_a_run_on_a_gpu_is_refused_where_its_disk_does_not_suffice(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(made.plan, machine={**made.plan.machine, "device": "cuda"}, expected={}, warnings=[])
    monkeypatch.setattr(costs, "free_disk_bytes", lambda folder: 1000)
    costs.expect(plan, made.prepared, ".", started=time.perf_counter())
    assert "of disk" in plan.warnings[-1]
    assert costs.lacking_disk(plan, ".") is not None
