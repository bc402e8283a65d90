"""Phases on recorded inputs: the same training within the stored precision, whatever happens to the recording."""

from __future__ import annotations

import errno
import importlib.metadata
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import small
import torch

from unfreeze import durable
from unfreeze.activations import record
from unfreeze.activations.store import clear, entries
from unfreeze.errors import Interrupted, ResourceError
from unfreeze.models.layers import LayerGroups
from unfreeze.training import sources

STEPS = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small.small(tmp_path_factory.mktemp("recorded"))


def engine_of(made: Any, run: Path, cache: Path | None, *, budget_bytes: int = 10**9, **changes: Any) -> Any:
    """Head, then the last layer and the head: on recorded inputs, or with `cache` None on the rows as they are."""
    top = f"group {LayerGroups.of(made.model()).n_groups - 1}"
    head, last = made.phases(("head", STEPS), ("last(1)", STEPS))
    if cache is not None:
        head, last = replace(head, boundary="head"), replace(last, boundary=top)
        wanted = replace(made.plan.settings.cache, folder=str(cache), budget_bytes=budget_bytes, reuse=True)
        changes["cache"] = wanted
    examples = made.prepared.train_examples
    return made.engine(run, [head, last], train=examples[4:], validation=examples[:4], **changes)


def notices(engine: Any) -> list[str]:
    return [event.values["text"] for event in engine.run.events("notice")]


def losses(engine: Any) -> list[float]:
    return [event.values["loss"] for event in engine.run.events("step")]


@pytest.fixture(scope="module")
def unrecorded(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    engine = engine_of(made, tmp_path_factory.mktemp("unrecorded") / "run", None)
    engine.train()
    return engine


def assert_bit_equal(one: torch.nn.Module, other: torch.nn.Module) -> None:
    wanted = small.weights_of(other)
    for name, tensor in small.weights_of(one).items():
        assert torch.equal(tensor, wanted[name]), name


def test_training_on_recorded_inputs_is_the_same_training(made: Any, unrecorded: Any, tmp_path: Path) -> None:
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    engine.train()
    assert [e.values["boundary"] for e in engine.run.events("recorded")][-1] == "head"
    assert [e.values["source"] for e in engine.run.events("phase")] != ["rows", "rows"]
    # Half precision in the store; the masks of dropout are the same.
    assert losses(engine) == pytest.approx(losses(unrecorded), abs=5e-3)
    assert len(entries(tmp_path / "cache")) == 4  # two boundaries of training and validation rows


def test_a_second_run_uses_what_the_first_recorded(made: Any, tmp_path: Path) -> None:
    first = engine_of(made, tmp_path / "one", tmp_path / "cache")
    first.train()
    stamps = {
        e.key: (tmp_path / "cache" / e.key / "values.bin").stat().st_mtime_ns for e in entries(tmp_path / "cache")
    }
    second = engine_of(made, tmp_path / "two", tmp_path / "cache")
    with mock.patch.object(sources, "check", side_effect=AssertionError("what the first run checked is known")):
        second.train()
    assert_bit_equal(second.model, first.model)
    after = {e.key: (tmp_path / "cache" / e.key / "values.bin").stat().st_mtime_ns for e in entries(tmp_path / "cache")}
    assert after == stamps


def test_other_weights_or_other_rows_are_never_answered_from_the_store(made: Any, tmp_path: Path) -> None:
    engine_of(made, tmp_path / "one", tmp_path / "cache").train()
    other = made.model()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    changed = engine_of(made, tmp_path / "two", tmp_path / "cache", model=other)
    changed.train()
    assert len(entries(tmp_path / "cache")) == 8
    top = replace(made.phases(("head", STEPS))[0], boundary="head")
    cache = replace(made.plan.settings.cache, folder=str(tmp_path / "cache"), budget_bytes=10**9, reuse=True)
    made.engine(tmp_path / "three", [top], train=made.prepared.train_examples[5:], cache=cache).train()
    assert len(entries(tmp_path / "cache")) == 9


@pytest.mark.parametrize("why", ["disk", "budget"])
def test_without_room_the_rows_go_through_the_model_to_the_same_end(
    why: str, made: Any, unrecorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if why == "disk":
        monkeypatch.setattr(os, "posix_fallocate", full)
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache", budget_bytes=100 if why == "budget" else 10**9)
    engine.train()
    said = [text for text in notices(engine) if text.startswith("not recorded")]
    assert said
    assert ("No space left" if why == "disk" else "the budget is") in said[0]
    assert_bit_equal(engine.model, unrecorded.model)
    assert not entries(tmp_path / "cache")


@pytest.mark.parametrize("operation", ["stage", "fsync", "rename"])
def test_killed_while_recording_the_resumed_run_ends_like_the_unbroken_one(
    operation: str, made: Any, tmp_path: Path
) -> None:
    unbroken = engine_of(made, tmp_path / "whole", tmp_path / "cache of the whole")
    unbroken.train()

    class Killed(BaseException):
        """Nothing catches it, as nothing catches SIGKILL."""

    def kill(done: str, path: Path) -> None:
        if done == operation and (tmp_path / "cache") in path.parents:
            raise Killed

    broken = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with durable.fault_points(kill), pytest.raises(Killed):
        broken.train()
    assert not entries(tmp_path / "cache")
    resumed = engine_of(made, tmp_path / "run", tmp_path / "cache")
    resumed.train()
    assert_bit_equal(resumed.model, unbroken.model)
    assert losses(resumed)[-2 * STEPS :] == losses(unbroken)


def interrupted_in_the_first_phase(made: Any, run: Path, cache: Path) -> None:
    def stop(event: Any) -> bool:
        return event.kind == "step" and event.step == 2

    with pytest.raises(Interrupted):
        engine_of(made, run, cache, observers=[stop]).train()


def test_what_was_refused_stays_so_when_a_run_goes_on_and_there_is_room(
    made: Any, unrecorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
        interrupted_in_the_first_phase(made, tmp_path / "run", tmp_path / "cache")
    resumed = engine_of(made, tmp_path / "run", tmp_path / "cache")
    resumed.train()
    assert [e.values["source"] for e in resumed.run.events("phase")] == ["rows", "rows", "rows"]
    assert losses(resumed)[:STEPS] == losses(unrecorded)[:STEPS]


def test_a_phase_goes_on_in_the_precision_it_was_begun_in(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = engine_of(made, tmp_path / "whole", tmp_path / "cache of the whole")
    unbroken.train()
    interrupted_in_the_first_phase(made, tmp_path / "run", tmp_path / "cache")
    # With the head as it is by now, a row of the check would lie too near to a decision.
    monkeypatch.setattr(record, "SAME_TOP_CLASS", 1.1)
    resumed = engine_of(made, tmp_path / "run", tmp_path / "cache")
    resumed.train()
    sources_ = [e.values["source"] for e in resumed.run.events("phase")]
    assert sources_ == ["head, float16", "head, float16", "group 1, float16"]
    assert losses(resumed) == losses(unbroken)


def test_a_phase_that_goes_on_is_not_checked_again(made: Any, tmp_path: Path) -> None:
    """With the head as it is by now a check might fail, and the phase could never go on."""
    unbroken = engine_of(made, tmp_path / "whole", tmp_path / "cache of the whole")
    unbroken.train()
    interrupted_in_the_first_phase(made, tmp_path / "run", tmp_path / "cache")
    resumed = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with mock.patch.object(sources, "check", side_effect=record.Refused("too near to a decision")):
        resumed.train()
    assert losses(resumed) == losses(unbroken)


def test_a_phase_that_cannot_go_on_as_it_was_begun_says_why(made: Any, tmp_path: Path) -> None:
    interrupted_in_the_first_phase(made, tmp_path / "run", tmp_path / "cache")
    clear(tmp_path / "cache")
    resumed = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with (
        mock.patch.object(sources, "check", side_effect=record.Refused("too near to a decision")),
        pytest.raises(ResourceError, match=r"begun with inputs from 'head, float16'.*too near to a decision"),
    ):
        resumed.train()


def test_without_reuse_a_run_records_anew_in_the_room_of_the_old_and_uses_its_own(made: Any, tmp_path: Path) -> None:
    first = engine_of(made, tmp_path / "one", tmp_path / "cache")
    first.train()
    taken = sum(e.bytes for e in entries(tmp_path / "cache"))
    cache = replace(made.plan.settings.cache, folder=str(tmp_path / "cache"), budget_bytes=taken, reuse=False)

    def settings_of(run: str, **changes: Any) -> Any:
        engine = engine_of(made, tmp_path / run, tmp_path / "cache", **changes)
        engine.sources.settings = replace(engine.sources.settings, cache=cache)
        return engine

    def recordings(engine: Any) -> int:
        return sum(text.startswith("recording") for text in notices(engine))

    second = settings_of("two")
    second.train()
    assert recordings(second) == 2, "training rows in one pass, rows held out in another"
    assert not [text for text in notices(second) if "not recorded" in text]

    def stop(event: Any) -> bool:
        return event.kind == "step" and event.step == 2

    broken = settings_of("three", observers=[stop])
    with pytest.raises(Interrupted):
        broken.train()
    resumed = settings_of("three")
    resumed.train()
    assert recordings(resumed) == 2, "what the run itself has recorded is used when it goes on"
    assert_bit_equal(resumed.model, second.model)


def test_where_the_disk_is_too_small_for_all_phases_the_first_keeps_its_recording(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = os.posix_fallocate, list[int]()

    def little(descriptor: int, start: int, size: int) -> None:
        taken.append(size)
        if len(taken) == 1:  # the lower boundary comes first, and is the larger one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", little)
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    engine.train()
    assert [e.values["source"] for e in engine.run.events("phase")] == ["head, float16", "rows"]


def test_what_goes_wrong_in_a_recording_ends_it_and_not_the_run(made: Any, unrecorded: Any, tmp_path: Path) -> None:
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with mock.patch.object(record, "_pass", side_effect=ValueError("could not broadcast")):
        engine.train()
    assert any("ValueError: could not broadcast" in text for text in notices(engine))
    assert_bit_equal(engine.model, unrecorded.model)


def test_rows_that_go_through_the_model_anyway_are_not_encoded_all_at_once(made: Any, tmp_path: Path) -> None:
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    engine.train()
    lower = replace(engine.phases[1], boundary="group 1")
    engine.sources.phases = [lower]
    assert engine.sources.after_training(lambda: pytest.fail("encoded"), were_held_out=False) is None


def test_other_libraries_make_other_inputs_and_are_never_answered_from_the_store(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of(made, tmp_path / "one", tmp_path / "cache").train()
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == "pillow" else real(name))
    engine_of(made, tmp_path / "two", tmp_path / "cache").train()
    assert len(entries(tmp_path / "cache")) == 8


def test_another_configuration_is_never_answered_from_the_store(made: Any, tmp_path: Path) -> None:
    engine_of(made, tmp_path / "one", tmp_path / "cache").train()
    other = made.model()
    other.config.layer_norm_eps = 2 * other.config.layer_norm_eps
    engine_of(made, tmp_path / "two", tmp_path / "cache", model=other).train()
    assert len(entries(tmp_path / "cache")) == 8
    renamed = made.model()
    renamed.config.id2label = {0: "no", 1: "yes"}
    renamed.config.hidden_dropout_prob = 0.3
    engine_of(made, tmp_path / "three", tmp_path / "cache", model=renamed).train()
    assert len(entries(tmp_path / "cache")) == 8


def test_a_value_too_large_for_half_precision_is_recorded_in_single(made: Any, tmp_path: Path) -> None:
    real = record._kept_positions

    def large_in_the_pass(hidden: Any, boundary: Any, lengths: Any) -> Any:
        kept = real(hidden, boundary, lengths)
        return kept + 1e5 if len(lengths) > 1 and boundary.group == "head" else kept

    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with mock.patch.object(record, "_kept_positions", large_in_the_pass):
        engine.train()
    assert any("not finite in float16: recorded in float32" in text for text in notices(engine))
    assert [e.values["source"] for e in engine.run.events("phase")] == ["head, float32", "group 1, float16"]


def test_both_boundaries_of_a_pass_may_hold_values_too_large_for_half_precision(made: Any, tmp_path: Path) -> None:
    real = record._kept_positions

    def large_in_the_pass(hidden: Any, boundary: Any, lengths: Any) -> Any:
        kept = real(hidden, boundary, lengths)
        return kept + 1e5 if len(lengths) > 1 else kept

    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with mock.patch.object(record, "_kept_positions", large_in_the_pass):
        engine.train()
    assert [e.values["source"] for e in engine.run.events("phase")] == ["head, float32", "group 1, float32"]


def test_a_value_that_no_precision_holds_ends_the_recording_and_not_the_run(made: Any, tmp_path: Path) -> None:
    real = record._kept_positions

    def not_finite_in_the_pass(hidden: Any, boundary: Any, lengths: Any) -> Any:
        kept = real(hidden, boundary, lengths)
        return kept * float("nan") if len(lengths) > 1 else kept

    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with mock.patch.object(record, "_kept_positions", not_finite_in_the_pass):
        engine.train()
    assert [e.values["source"] for e in engine.run.events("phase")] == ["rows", "rows"]
    assert any("not finite in float32" in text and "whole model" in text for text in notices(engine))


def test_where_the_budget_is_too_small_for_all_phases_the_first_keeps_its_recording(made: Any, tmp_path: Path) -> None:
    whole = engine_of(made, tmp_path / "whole", tmp_path / "cache of the whole")
    whole.train()
    taken = {e.values["boundary"]: e.values["bytes"] for e in whole.run.events("recorded")}
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache", budget_bytes=taken["head"] + taken["group 1"] - 1)
    engine.train()
    assert [e.values["source"] for e in engine.run.events("phase")] == ["head, float16", "rows"]
    assert any("not recorded at group 1" in text and "the budget is" in text for text in notices(engine))
    assert losses(engine)[:STEPS] == losses(whole)[:STEPS]


def test_rows_held_out_that_would_not_fit_cost_no_pass_over_the_training_rows(made: Any, tmp_path: Path) -> None:
    whole = engine_of(made, tmp_path / "whole", tmp_path / "cache of the whole")
    whole.train()
    taken = sum(e.values["bytes"] for e in whole.run.events("recorded") if e.values["boundary"] == "head")
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache", budget_bytes=taken - 1)
    engine.train()
    assert not entries(tmp_path / "cache")
    assert not any("recording" in text for text in notices(engine))


def test_memory_that_does_not_suffice_for_the_check_is_called_so(made: Any, unrecorded: Any, tmp_path: Path) -> None:
    engine = engine_of(made, tmp_path / "run", tmp_path / "cache")
    with mock.patch.object(record, "_check", side_effect=torch.OutOfMemoryError("CUDA out of memory")):
        engine.train()
    assert any("there is not enough memory" in text for text in notices(engine))
    assert_bit_equal(engine.model, unrecorded.model)


def test_a_cache_that_may_only_be_read_is_used_where_the_recording_is_there(made: Any, tmp_path: Path) -> None:
    first = engine_of(made, tmp_path / "one", tmp_path / "cache")
    first.train()
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **settings: Any) -> Any:
        if flags & os.O_CREAT and tmp_path / "cache" in Path(path).parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *arguments, **settings)

    second = engine_of(made, tmp_path / "two", tmp_path / "cache")
    with mock.patch.object(os, "open", refuse), mock.patch.object(os, "utime", side_effect=OSError):
        second.train()
    assert not [text for text in notices(second) if "not recorded" in text]
    assert_bit_equal(second.model, first.model)


@pytest.mark.parametrize("name", ["values.bin", "starts.npy", "store.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_store_is_found_said_and_recorded_anew(damage: str, name: str, made: Any, tmp_path: Path) -> None:
    first = engine_of(made, tmp_path / "one", tmp_path / "cache")
    first.train()
    for entry in entries(tmp_path / "cache"):
        file = tmp_path / "cache" / entry.key / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x10
        if damage == "flipped":
            file.write_bytes(content)
        elif damage == "cut":
            file.write_bytes(content[:-1])
        else:
            file.unlink()
    second = engine_of(made, tmp_path / "two", tmp_path / "cache")
    second.train()
    assert sum("recorded anew" in text for text in notices(second)) == 4
    assert_bit_equal(second.model, first.model)


@pytest.mark.parametrize(("schedule", "splits"), [("head", 3), (["head", "all"], 2)], ids=["head", "then all"])
def test_rows_to_report_on_are_recorded_where_nothing_below_was_trained(
    schedule: Any, splits: int, tmp_path: Path
) -> None:
    from unfreeze import api
    from unfreeze.testing import tiny_model

    rows = small.reviews(80)
    tiny_model(tmp_path / "tiny", texts=[row["text"] for row in rows])

    def trained(name: str, rate: float) -> Any:
        return api.train(
            rows[:60],
            test=rows[60:],
            model=tmp_path / "tiny",
            schedule=schedule,
            output=tmp_path / name,
            settings=[f"cache.folder={tmp_path / 'cache'}", f"train.learning_rate={rate}", "train.epochs=4"],
            baselines=False,
        )

    def recordings(run: Any) -> int:
        return sum("recording" in event.values["text"] for event in run.events("notice"))

    first = trained("first", 1e-4)
    assert recordings(first) == splits == len(entries(tmp_path / "cache"))
    # What is reported is what the model that was written answers.
    again = first.evaluate(rows[60:])
    assert again["eval_accuracy"] == first.metrics["test_accuracy"]
    assert again["eval_loss"] == pytest.approx(first.metrics["test_loss"], rel=1e-5)
    second = trained("second", 2e-4)
    assert (recordings(second), len(entries(tmp_path / "cache"))) == (0, splits)


def test_the_plan_of_a_second_run_knows_what_the_first_recorded(tmp_path: Path) -> None:
    from unfreeze import api
    from unfreeze.testing import tiny_model

    rows = small.reviews(60)
    tiny_model(tmp_path / "tiny", texts=[row["text"] for row in rows])

    def plan_of(**changes: Any) -> Any:
        settings = [f"cache.folder={tmp_path / 'cache'}", *changes.pop("settings", [])]
        return {"data": rows, "model": tmp_path / "tiny", "schedule": "head", "settings": settings, **changes}

    before = api.plan(**plan_of())
    assert (before.phases[0].boundary, before.phases[0].is_recorded) == ("head", False)
    api.train(**plan_of(output=tmp_path / "run", baselines=False))
    assert api.plan(**plan_of()).phases[0].is_recorded
    assert "recorded by an earlier run" in api.plan(**plan_of(seed=0)).phases[0].source_reason
    assert not api.plan(**plan_of(settings=["cache.reuse=false"])).phases[0].is_recorded
    assert not api.plan(**{**plan_of(), "data": rows[:-1]}).phases[0].is_recorded
