"""Wherever a run ends, what is resumed equals, bit for bit, the run that was never interrupted."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small

from unfreeze import durable
from unfreeze.errors import Interrupted, ModelError
from unfreeze.run import Event, Run
from unfreeze.training.checkpoints import Best, Checkpoint, Checkpoints, TrainState

# Three phases of three steps, the usual gradual schedule; phases end after steps 3, 6 and 9.
GRADUAL = (("head", 3), ("last(1)", 3), ("all", 3))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small.small(tmp_path_factory.mktemp("model"))


def test_a_step_that_was_done_again_counts_once(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", recipe_yaml="", plan={})
    for step in (1, 2, 3, 2, 3, 4):
        run.log("step", step, loss=float(step), tokens=10 * step)
    assert run.steps() == [(1.0, 10), (2.0, 20), (3.0, 30), (4.0, 40)]


@pytest.fixture(scope="module")
def engine(made: Any) -> Callable[..., Any]:
    """A gradual run in a folder, new or resumed, with dropout and evaluations in between."""
    phases = made.phases(*GRADUAL, evaluate_every=2)

    def build(folder: Path, **settings: Any) -> Any:
        return made.engine(folder, phases, validation=made.prepared.train_examples[:6], **settings)

    return build


@pytest.fixture(scope="module")
def unbroken(engine: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fingerprint of the weights of the run that nobody interrupts."""
    return small.fingerprint(engine(tmp_path_factory.mktemp("unbroken") / "run").train())


def stop_after(step: int) -> Callable[[Event], bool]:
    return lambda event: event.kind == "step" and event.step == step


def interrupt(engine: Callable[..., Any], folder: Path, step: int) -> None:
    with pytest.raises(Interrupted) as caught:
        engine(folder, observers=[stop_after(step)]).train()
    assert caught.value.exit_status == 75
    assert f"unfreeze resume {folder}" == caught.value.remedy


def notices(folder: Path) -> list[str]:
    return [e.values["text"] for e in Run(folder).events("notice")]


def steps_of(folder: Path) -> list[int]:
    return [e.step for e in Run(folder).events("step")]


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step-*"))


# interrupted and resumed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, 10))
def test_a_run_stopped_after_any_step_ends_with_the_same_weights(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path, step: int
) -> None:
    folder = tmp_path / "run"
    interrupt(engine, folder, step)
    assert small.fingerprint(engine(folder).train()) == unbroken
    assert steps_of(folder) == list(range(1, 10)), "no step is lost and none is done twice"


def test_a_run_stopped_twice_ends_with_the_same_weights(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path
) -> None:
    for step in (2, 5, 6):
        interrupt(engine, tmp_path / "run", step)
    assert small.fingerprint(engine(tmp_path / "run").train()) == unbroken


def test_stopping_shortly_before_the_end_leaves_the_end_to_resume(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path
) -> None:
    engine(tmp_path / "run").train()
    again = engine(tmp_path / "run")
    assert small.fingerprint(again.train()) == unbroken
    assert steps_of(tmp_path / "run") == list(range(1, 10)), "a run whose phases are done trains nothing more"


class Killed(BaseException):
    """Passes every `except Exception`."""


def test_a_run_that_dies_at_any_event_ends_with_the_same_weights(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path
) -> None:
    """With a checkpoint at phase ends only: what came after the last one is done again."""
    engine(tmp_path / "counted").train()
    kinds = [e.kind for e in Run(tmp_path / "counted").events()]
    chosen = {kinds.index(kind) for kind in ("trial", "phase", "checkpoint", "step", "evaluation")}
    chosen |= {i for i, kind in enumerate(kinds) if kind == "checkpoint"} | {len(kinds) - 2}
    for number in sorted(chosen):
        folder, seen = tmp_path / f"dies-{number}", []

        def die(event: Event, seen: list[str] = seen, number: int = number) -> None:
            seen.append(event.kind)
            if len(seen) == number + 1:
                raise Killed

        with pytest.raises(Killed):
            engine(folder, observers=[die]).train()
        assert seen == kinds[: number + 1]
        assert small.fingerprint(engine(folder).train()) == unbroken, f"after event {number}, {seen[-1]}"


def test_checkpoints_come_by_steps_where_that_is_asked(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path
) -> None:
    made = engine(tmp_path / "run", checkpoint_steps=3)
    assert small.fingerprint(made.train()) == unbroken
    saved = {event.step for event in made.run.events("checkpoint")}
    last = max(saved)
    assert {0, *range(3, last, 3)} <= saved


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_killed_while_it_writes_leaves_a_run_that_ends_with_the_same_weights(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path
) -> None:
    counted: list[str] = []
    with durable.fault_points(lambda operation, path: counted.append(f"{operation} {path.name}")):
        engine(tmp_path / "counted", checkpoint_minutes=0).train()
    writing = [i for i, name in enumerate(counted) if not name.startswith("append")]
    renames = [i for i in writing if counted[i].startswith(("rename", "swap", "remove"))]
    for number in {*writing[:: len(writing) // 5], *renames[:: len(renames) // 4]}:
        folder, left = tmp_path / f"killed-{number}", [number]

        def die(operation: str, path: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

        child = os.fork()
        if child == 0:
            with durable.fault_points(die):
                engine(folder, checkpoint_minutes=0).train()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        durable.recover(folder)
        resumed = engine(folder, checkpoint_minutes=0)
        assert small.fingerprint(resumed.train()) == unbroken, f"killed at {counted[number]}"
        assert not list((folder / "checkpoints").glob(".staging-*"))


# damaged checkpoints ---------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    content = (path / "weights.safetensors").read_bytes()
    (path / "weights.safetensors").write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray((path / "moments.safetensors").read_bytes())
    content[-5] ^= 1
    (path / "moments.safetensors").write_bytes(content)


def lose(path: Path) -> None:
    (path / "state.json").unlink()


def lose_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def scribble(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


DAMAGES = {
    cut: r"weights\.safetensors has \d+ bytes instead of \d+",
    flip: r"moments\.safetensors is not what was written",
    lose: r"state\.json is missing",
    lose_manifest: r"manifest\.json is missing",
    scribble: r"manifest\.json cannot be read",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_checkpoint_is_refused_and_the_one_before_is_used(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "run"
    interrupt(engine, folder, 5)
    broken = newest(folder)
    damage(broken)
    resumed = engine(folder)
    assert small.fingerprint(resumed.train()) == unbroken
    [said] = [text for text in notices(folder) if "is not used" in text]
    assert said.startswith(f"the checkpoint {broken.name} is not used: ")
    assert re.search(DAMAGES[damage], said)
    assert next(Run(folder).events("resumed")).step == 3
    assert steps_of(folder) == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9]


def test_a_checkpoint_whose_best_weights_are_damaged_is_refused(engine: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupt(engine, folder, 5)
    best = json.loads((newest(folder) / "state.json").read_text())["best"]["step"]
    cut(folder / "checkpoints" / f"best-{best:06d}")
    with pytest.raises(ModelError, match="CHECKPOINT"):  # the older ones have the same best weights
        engine(folder).train()
    assert any("its best weights cannot be used" in text for text in notices(folder))


@pytest.mark.parametrize("damage", [cut, shutil.rmtree], ids=["damaged", "lost"])
def test_with_no_checkpoint_left_the_run_does_not_begin_anew_unasked(
    engine: Callable[..., Any], unbroken: str, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder, saved = tmp_path / "run", tmp_path / "saved"
    interrupt(engine, folder, 5)
    shutil.copytree(folder / "checkpoints", saved)
    there = sorted((folder / "checkpoints").glob("step-*"))
    for path in there:
        damage(path)
    with pytest.raises(ModelError) as caught:
        engine(folder).train()
    assert (caught.value.code, caught.value.exit_status) == ("CHECKPOINT", 4)
    assert f"unfreeze train {folder / 'recipe.yaml'} --output {folder}-2" in str(caught.value.remedy)
    said = [text for text in notices(folder) if "is not used" in text]
    assert len(said) == (len(there) if damage is cut else 0)
    assert steps_of(folder) == [1, 2, 3, 4, 5]
    shutil.rmtree(folder / "checkpoints")
    saved.rename(folder / "checkpoints")
    assert small.fingerprint(engine(folder).train()) == unbroken, "once they are put back it goes on"


def test_a_damaged_checkpoint_does_not_count_among_those_that_are_kept(
    engine: Callable[..., Any], tmp_path: Path
) -> None:
    """Trap: with the damaged one among the two, one more fault would leave none."""
    folder = tmp_path / "run"
    interrupt(engine, folder, 5)
    lose(newest(folder))
    with pytest.raises(Interrupted):
        engine(folder, observers=[stop_after(4)]).train()
    left = sorted((folder / "checkpoints").glob("step-*"))
    assert [path.name for path in left] == ["step-000003", "step-000004"]
    assert all(durable.verify(path) is None for path in left)


def test_best_weights_that_are_damaged_at_the_end_are_an_error(engine: Callable[..., Any], tmp_path: Path) -> None:
    built = engine(tmp_path / "run")
    built.train()
    best = built.state.best
    flipped = built.checkpoints.folder / f"best-{best.step:06d}" / "weights.safetensors"
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    with pytest.raises(ModelError, match="E-CHECKPOINT"):
        built.checkpoints.best_weights(best)


# what is kept ----------------------------------------------------------------------------------------------------


def test_the_newest_two_and_the_best_are_kept(engine: Callable[..., Any], tmp_path: Path) -> None:
    folder, counts = tmp_path / "run", []

    def look(event: Event) -> None:
        if event.kind == "checkpoint":
            steps = sorted(p.name for p in (folder / "checkpoints").glob("step-*"))
            best = {json.loads((folder / "checkpoints" / s / "state.json").read_text())["best"] is None for s in steps}
            counts.append((steps, best))

    engine(folder, checkpoint_minutes=0, observers=[look]).train()
    assert [steps for steps, _ in counts[:3]] == [
        ["step-000000"],
        ["step-000000", "step-000001"],
        ["step-000001", "step-000002"],
    ]
    assert all(len(steps) <= 2 for steps, _ in counts)
    wanted = {
        json.loads((path / "state.json").read_text())["best"]["step"]
        for path in (folder / "checkpoints").glob("step-*")
    }
    assert {int(p.name[5:]) for p in (folder / "checkpoints").glob("best-*")} == wanted


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    said: list[str] = []
    found = Checkpoints(Run.create(tmp_path / "run", recipe_yaml="", plan={}), said.append)
    found.said = said  # type: ignore[attr-defined]
    return found


def test_every_part_of_the_state_comes_back(checkpoints: Checkpoints) -> None:
    import torch

    best = Best(step=7, phase=1, value=0.75, loss=0.5)
    state = TrainState(
        phase=1, phase_step=4, step=11, best=best, stale_evaluations=2, touched=("b", "a"), seconds=1.5, source="rows",
            decided={"head": "float16", "group 1": "rows"}, first_loss=0.7, steps_above=2,
        skipped_in_a_row=1, loss_scale=512.0, micro_batch_tokens=96, stopped_phases=("head",),
    )  # fmt: skip
    weights, moments = {"a": torch.randn(3, 2)}, {"a/exp_avg": torch.randn(3, 2), "a/step": torch.tensor(11.0)}
    checkpoints.save_best(state, {"a": torch.ones(2)})
    checkpoints.save(Checkpoint(state, weights, moments))
    found = checkpoints.newest()
    assert found is not None
    assert found.state == state
    assert small.are_equal(found.weights, weights)
    assert small.are_equal(found.moments, moments)
    assert small.are_equal(checkpoints.best_weights(best), {"a": torch.ones(2)})
    fields = {f.name for f in dataclasses.fields(TrainState)}
    assert fields == {
        "phase", "phase_step", "step", "best", "stale_evaluations", "touched", "seconds", "source",
            "decided", "skipped_in_a_row", "loss_scale", "first_loss", "steps_above", "micro_batch_tokens",
            "stopped_phases",
    }, "a new field belongs into this test"  # fmt: skip


def test_no_checkpoint_is_no_error(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None


def test_the_newest_is_the_one_with_the_most_steps_however_many_digits(checkpoints: Checkpoints) -> None:
    for step in (999_999, 1_000_000):
        checkpoints.save(Checkpoint(TrainState(step=step), {}))
    found = checkpoints.newest()
    assert found is not None
    assert found.state.step == 1_000_000


def test_half_written_stages_are_removed_and_told(checkpoints: Checkpoints) -> None:
    checkpoints.save(Checkpoint(TrainState(step=1), {}))
    stage = checkpoints.folder / ".staging-0a1b2c3d-step-000002"
    stage.mkdir()
    (stage / "weights.safetensors").write_bytes(b"half")
    found = checkpoints.newest()
    assert found is not None
    assert found.state.step == 1
    assert not stage.exists()
    assert checkpoints.said == ["removed a half-written step-000002"]  # type: ignore[attr-defined]


def test_a_checkpoint_that_does_not_read_back_costs_no_older_one(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that loses what it was given must not make the run delete what is still whole."""
    for step in (1, 2):
        checkpoints.save(Checkpoint(TrainState(step=step), {}))
    publish = durable.publish

    def lossy(folder: Path, write: Callable[[Path], None]) -> None:
        publish(folder, write)
        (folder / "state.json").write_bytes(b"")

    monkeypatch.setattr(durable, "publish", lossy)
    checkpoints.save(Checkpoint(TrainState(step=3), {}))
    assert sorted(p.name for p in checkpoints.folder.glob("step-*")) == [f"step-00000{i}" for i in (1, 2, 3)]
    assert "does not read back as written" in checkpoints.said[-1]  # type: ignore[attr-defined]
    found = checkpoints.newest()
    assert found is not None
    assert found.state.step == 2


def test_an_evaluation_without_a_figure_can_be_gone_on_from(tmp_path: Path) -> None:
    """JSON has no infinity; a metric that is undefined so far must not end every resume."""
    for best in (Best(1, 0, -math.inf, math.inf), Best(1, 0, math.inf, math.inf), Best(1, 0, 0.5, 0.25)):
        assert Best.from_json(json.loads(durable.to_json(best.to_json()))) == best
