"""What the plan infers, from what, and that what was asked wins."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from unfreeze.errors import RecipeError
from unfreeze.plan import Plan


def planned(folder: Path, rows: int = 24, labels: int = 2, **recipe: Any) -> Plan:
    """Of made-up rows, all trained on."""
    data = [{**row, "label": f"label {i % labels}"} for i, row in enumerate(small.reviews(rows))]
    return small.small(folder, data, **recipe).plan


def chosen(plan: Plan, key: str) -> Any:
    return next(c for c in plan.choices if c.key == key)


@pytest.mark.parametrize(
    ("rows", "labels", "epochs", "why"),
    [
        (24, 2, 20, "few rows"),
        (1000, 2, 8, "few rows"),
        (20_000, 2, 3, "few rows"),
        (2_000, 6, 5, "few rows"),
        # 125 steps an epoch: 77 classes of 70 updates would be 43 epochs.
        (2_000, 77, 20, "77 classes"),
        (9_000, 77, 10, "77 classes"),
        (40_000, 77, 3, "few rows"),
    ],
)
def test_few_rows_and_many_classes_get_more_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, labels: int, epochs: int, why: str
) -> None:
    monkeypatch.setattr(
        "unfreeze.preparation.Prepared.train_lengths", property(lambda self: np.full(rows, 12, dtype=np.int64))
    )
    choice = chosen(planned(tmp_path, max(24, labels * 2), labels), "train.epochs")
    assert float(str(choice.value).split()[0]) == epochs
    assert why in choice.reason
    assert choice.source == "plan"


def test_what_was_asked_wins_and_its_source_is_told(tmp_path: Path) -> None:
    plan = planned(tmp_path, **{"train.epochs": 2, "train.learning_rate": 1e-4, "train.batch_size": 4})
    for key, value in (("train.epochs", "2 epochs"), ("train.learning_rate", 1e-4), ("train.batch_size", 4)):
        choice = chosen(plan, key)
        assert (str(choice.value), choice.source != "plan", choice.reason) == (str(value), True, "")
    assert plan.settings.batch_size == 4
    assert plan.total_steps == 2 * 24 // 4


def test_every_inferred_value_has_a_reason(tmp_path: Path) -> None:
    inferred = [c for c in planned(tmp_path).choices if c.source == "plan"]
    assert len(inferred) > 10
    assert all(len(c.reason) > 8 for c in inferred), [c.key for c in inferred if len(c.reason) <= 8]


def test_gradual_shares_its_steps_and_its_rates_fall_towards_the_input(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        **{"train.epochs": 10, "train.learning_rate": 1e-4, "train.batch_size": 8, "schedule": "gradual"},
    )
    assert [p.name for p in plan.phases] == ["head", "upper half", "all"]
    assert [p.steps for p in plan.phases] == [6, 12, 12]  # 24 rows, batches of 8: 30 steps by 1, 2, 2
    assert list(plan.phases[0].learning_rates) == ["head"]
    rates = plan.phases[2].learning_rates
    assert rates["group 1"] == pytest.approx(1e-4)
    assert rates["group 0"] == pytest.approx(0.85e-4)
    assert rates["stem"] == pytest.approx(0.85**2 * 1e-4)
    assert rates["head"] > rates["group 1"]
    trained = [p.trainable_parameters for p in plan.phases]
    assert trained == sorted(trained)
    assert trained[-1] == sum(g["parameters"] for g in plan.groups)


@pytest.mark.parametrize(
    ("length", "steps", "epochs"),
    [
        ("25 epochs", [150, 60], 35),  # of 20 inferred epochs of 6 steps the other phase has half
        ("15 epochs", [90, 60], 25),
        ("12 steps", [12, 108], 20),
    ],
)
def test_a_phase_with_a_length_of_its_own_leaves_the_others_their_share(
    tmp_path: Path, length: str, steps: list[int], epochs: int
) -> None:
    plan = planned(tmp_path, schedule=[{"span": "head", "epochs": length}, "all"])
    assert [p.steps for p in plan.phases] == steps
    assert str(chosen(plan, "train.epochs").value) == f"{epochs} epochs"
    asked = planned(tmp_path, schedule=[{"span": "head", "epochs": "12 steps"}, "all"], **{"train.epochs": 3})
    assert [p.steps for p in asked.phases] == [12, 6]


@pytest.mark.parametrize(("epochs", "times"), [("3 steps", 1), ("7 steps", 2), ("101 steps", 13), ("7 epochs", 7)])
def test_evaluations_are_spread_and_none_comes_a_step_before_the_last(tmp_path: Path, epochs: str, times: int) -> None:
    rows = [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(small.reviews(60))]
    plan = small.small(tmp_path, rows, **{"train.epochs": epochs, "schedule": "full", "data.validation": 0.2}).plan
    [phase] = plan.phases
    at = sorted({*range(phase.evaluate_every, phase.steps + 1, phase.evaluate_every), phase.steps})
    assert len(at) == times
    assert all(b - a > 1 for a, b in itertools.pairwise(at)) or phase.evaluate_every == 1


def test_evaluations_take_no_large_share_of_a_phase(tmp_path: Path) -> None:
    rows = [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(small.reviews(200))]

    def times(epochs: int, held_out: float) -> int:
        settings = {"train.epochs": epochs, "data.validation": held_out, "train.batch_size": 4, "schedule": "full"}
        [phase] = small.small(tmp_path / f"{epochs} {held_out}", rows, **settings).plan.phases
        return math.ceil(phase.steps / phase.evaluate_every)

    # 20 rows are a ninth of 180: four forwards of them are 5 % of three epochs, and 15 % of one.
    assert times(3, 0.1) == 4
    assert times(1, 0.1) == 2
    assert times(2, 0.1) == 2
    assert times(1, 0.02) == 4
    assert times(8, 0.3) == 8


def test_a_plan_is_stored_and_read_back_whole(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))).to_json() == plan.to_json()


@pytest.mark.parametrize(
    ("recipe", "where"),
    [
        ({"train.epochs": 3, "schedule": [{"span": "head", "epochs": 1}]}, "train.epochs"),
        ({"train.epochs": 2, "schedule": [{"span": "head", "epochs": 2}, "all"]}, "train.epochs"),
        ({"train.early_stopping": 2}, "train.early_stopping"),
        ({"train.evaluations_per_epoch": 2}, "train.evaluations_per_epoch"),
        ({"train.head_learning_rate": 1e-3, "schedule": [{"span": ["group 0"]}]}, "train.head_learning_rate"),
        ({"train.layer_decay": 0.9, "schedule": "head"}, "train.layer_decay"),
        ({"train.layer_decay": 0.9, "schedule": "last(1)"}, "train.layer_decay"),
        ({"train.layer_decay": 0.9, "schedule": [{"span": "all", "layer_decay": 0.8}]}, "train.layer_decay"),
        ({"train.learning_rate": 1e-4, "schedule": [{"span": "all", "learning_rate": 1e-5}]}, "train.learning_rate"),
        ({"cache.folder": "elsewhere"}, "cache.folder"),
        ({"cache.budget": "1 GB"}, "cache.budget"),
        ({"cache.reuse": True}, "cache.reuse"),
        ({"train.precision": "fp16"}, "train.precision"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, recipe: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        planned(tmp_path, **recipe)
    assert (caught.value.code, caught.value.where) == ("RECIPE-CONFLICT", where)


def test_settings_that_change_something_in_one_phase_are_none_of_these(tmp_path: Path) -> None:
    phases = [{"span": "head", "learning_rate": 1e-3}, {"span": "all", "layer_decay": 0.8}, "all"]
    asked = {"train.learning_rate": 1e-4, "train.head_learning_rate": 2e-3, "train.layer_decay": 0.5}
    plan = planned(tmp_path, schedule=phases, **asked)
    assert [p.learning_rates["head"] for p in plan.phases] == [2e-3] * 3
    assert [p.learning_rates["group 0"] for p in plan.phases[1:]] == [pytest.approx(0.8e-4), pytest.approx(0.5e-4)]


def test_the_identity_changes_with_rows_labels_and_seed_of_nothing_else(tmp_path: Path) -> None:
    def identity(**changes: Any) -> dict[str, Any]:
        return planned(tmp_path / "model", **changes).identity

    assert identity() == identity()
    assert identity(rows=26) != identity()
    assert identity(labels=3) != identity()


def test_the_cost_of_a_checkpoint_stands_beside_the_time_between_them(tmp_path: Path) -> None:
    plan = planned(tmp_path, **{"train.checkpoint_steps": 50})
    assert "and one at each phase's end; each of at most" in chosen(plan, "train.checkpoint_minutes").reason
    assert chosen(plan, "train.checkpoint_steps").value == plan.settings.checkpoint_steps == 50
    usual = planned(tmp_path / "usual")
    assert "train.checkpoint_steps" not in {choice.key for choice in usual.choices}
    assert usual.settings.checkpoint_steps is None


def test_what_is_recorded_already_is_room_for_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[Plan.__module__]  # unfreeze.plan itself is the function of that name
    monkeypatch.setattr(module, "free_disk_bytes", lambda folder: 8_000_000_000)
    cache = {"enabled": True, "folder": str(tmp_path / "cache")}
    assert planned(tmp_path, cache=cache).settings.cache.budget_bytes == 4_000_000_000
    monkeypatch.setattr(module, "bytes_held", lambda folder: 4_000_000_000)
    assert planned(tmp_path, cache=cache).settings.cache.budget_bytes == 6_000_000_000
    # Nobody can have more than there is.
    asked = planned(tmp_path, cache={**cache, "budget": "100 GB"})
    assert asked.settings.cache.budget_bytes == 12_000_000_000


def test_the_folder_of_recordings_holds_from_any_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, found in (("cache", tmp_path / "cache"), ("~/scratch", Path.home() / "scratch")):
        assert planned(tmp_path, cache={"enabled": True, "folder": name}).settings.cache.folder == str(found)


@pytest.mark.parametrize("key", ["train.learning_rate", "train.head_learning_rate"])
def test_a_rate_far_above_all_usual_ones_is_warned_of(tmp_path: Path, key: str) -> None:
    assert any("learning rate of 1e+30" in w for w in planned(tmp_path, **{key: 1e30}).warnings)
    assert not any("learning rate" in w for w in planned(tmp_path / "usual", **{key: 1e-2}).warnings)


def test_a_rate_named_where_the_head_alone_trains_is_the_heads(tmp_path: Path) -> None:
    def rates(schedule: Any, **recipe: Any) -> list[float]:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        return [p.learning_rates["head"] for p in planned(place, schedule=schedule, **recipe).phases]

    assert rates("head", **{"train.learning_rate": 0.02}) == [0.02]
    assert rates("head", **{"train.learning_rate": 0.02, "train.head_learning_rate": 0.03}) == [0.03]
    assert rates([{"span": "head", "learning_rate": 0.04}, "all"])[0] == 0.04
    first, second = rates(["head", "all"], **{"train.learning_rate": 1e-5})
    assert (first, second) == (rates(["head", "all"])[0], pytest.approx(5e-5))
    shown = chosen(planned(tmp_path / "shown", schedule="head"), "train.learning_rate")
    assert (shown.value, shown.reason) == (rates("head")[0], "of the head, which alone trains")
