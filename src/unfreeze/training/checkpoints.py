"""Checkpoints: safetensors and JSON with a manifest, published whole or not at all.

::

    checkpoints/step-000120/  weights.safetensors  moments.safetensors  state.json  manifest.json
    checkpoints/best-000100/  weights.safetensors  state.json  manifest.json

Weights are those of the parameters and buffers that training has touched; the others come from the base model, whose
hash is part of the run's identity. Which checkpoint is the newest is computed from the names, never stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from unfreeze import durable
from unfreeze.errors import ModelError
from unfreeze.run import Run

KEPT = 2


@dataclass(frozen=True)
class Best:
    """The best evaluation so far.

    Attributes:
        step: After which update.
        phase: Index of the phase.
        value: Of the selection metric; infinite, on the worse side, where that was undefined.
        loss: On the validation rows; decides between equal values.
    """

    step: int
    phase: int
    value: float
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Trap: JSON has no infinity, and ours writes null for it; here it is a word that `float` reads."""
        return {**asdict(self), "value": _as_number(self.value), "loss": _as_number(self.loss)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Best:
        return cls(int(stored["step"]), int(stored["phase"]), float(stored["value"]), float(stored["loss"]))


def _as_number(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


@dataclass(frozen=True)
class TrainState:
    """All that would change the next step, apart from weights and optimizer state.

    Attributes:
        phase: Index of the phase the next step belongs to.
        phase_step: Updates done in this phase.
        step: Updates done in the run.
        best: The best evaluation so far, None before the first.
        stale_evaluations: Evaluations since the best one, within this phase.
        touched: Names of the parameters that have been trained so far.
        seconds: Training time so far, before and after every resume.
        source: Where the inputs of the phase come from; see `sources.Source`.
        decided: What was decided of each boundary so far; see `Sources.decided`.
        first_loss: Of the run's first step; None before it.
        steps_above: Steps in a row whose loss was far above it.
        skipped_in_a_row, loss_scale: Of training in float16: steps left out since the last one that was made, and by
            what the loss is multiplied (0: not known yet).
        micro_batch_tokens: The budget since memory was not enough for the plan's; 0: the plan's.
        stopped_phases: Names of the phases that ended early.
    """

    phase: int = 0
    phase_step: int = 0
    step: int = 0
    best: Best | None = None
    stale_evaluations: int = 0
    touched: tuple[str, ...] = ()
    seconds: float = 0.0
    source: str = ""
    decided: Mapping[str, str] = field(default_factory=dict)
    first_loss: float | None = None
    steps_above: int = 0
    skipped_in_a_row: int = 0
    loss_scale: float = 0.0
    micro_batch_tokens: int = 0
    stopped_phases: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TrainState:
        best = Best.from_json(stored["best"]) if stored["best"] else None
        lists = {name: tuple(stored.get(name, ())) for name in ("touched", "stopped_phases")}
        return replace(cls(**{**stored, "best": None, **lists}), best=best)


@dataclass
class Checkpoint:
    """What one folder holds, in memory."""

    state: TrainState
    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: Whose folder is used.
        notice: Called with a sentence for everything done unasked: a damaged checkpoint passed over, a stage removed.
    """

    def __init__(self, run: Run, notice: Callable[[str], None]) -> None:
        self.run, self.folder, self.notice = run, run.checkpoints_folder, notice
        self.folder.mkdir(exist_ok=True)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Publish a checkpoint, verify it, then drop the ones that are no longer needed."""
        path = self.folder / f"step-{checkpoint.state.step:06d}"
        durable.publish(path, lambda staging: _write(staging, checkpoint))
        self._rotate(path)
        return path

    def save_best(self, state: TrainState, weights: dict[str, torch.Tensor]) -> None:
        """Publish the weights of the best evaluation, which ``state.best`` describes."""
        assert state.best is not None
        path = self.folder / f"best-{state.best.step:06d}"
        durable.publish(path, lambda staging: _write(staging, Checkpoint(state, weights)))

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint whose best weights are there too; damaged ones are passed over, said.

        Returns:
            None before the first checkpoint, which a run writes before its first step.

        Raises:
            ModelError: E-CHECKPOINT, there were some and none can be used: training begins anew only where it is asked.
        """
        for sentence in durable.recover(self.folder):
            self.notice(sentence)
        there = self._newest_first()
        for path in there:
            problem = self._problem_of(path)
            if problem is None:
                return _read(path)
            self.notice(f"the checkpoint {path.name} is not used: {problem}")
        done = max((event.step for event in self.run.events("step")), default=0)
        if not there and not done:
            return None
        raise ModelError(
            "CHECKPOINT",
            f"none of the {len(there)} checkpoints can be used" if there else f"no checkpoint of {done} steps is there",
            where=str(self.folder),
            remedy=f"put them back, or start a new run: {self.run.command_anew()}",
        )

    def best_weights(self, best: Best) -> dict[str, torch.Tensor]:
        """The weights of the best evaluation.

        Raises:
            ModelError: E-CHECKPOINT, when they are damaged.
        """
        path = self.folder / f"best-{best.step:06d}"
        if (problem := durable.verify(path)) is not None:
            raise ModelError("CHECKPOINT", f"the best weights cannot be used: {problem}", where=str(path))
        return _read(path).weights

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=_step_of, reverse=True)

    def _problem_of(self, path: Path) -> str | None:
        """None where training can go on from a checkpoint, else why not."""
        problem = durable.verify(path)
        if problem is None and (best := self._best_of(path)) >= 0:
            problem = durable.verify(self.folder / f"best-{best:06d}")
            return f"its best weights cannot be used: {problem}" if problem else None
        return problem

    def _rotate(self, saved: Path) -> None:
        """Keep the checkpoint just saved, the newest others that can be used, and the best weights of each."""
        if durable.verify(saved) is not None:
            self.notice(f"the checkpoint {saved.name} does not read back as written; older ones are kept")
            return
        kept = [saved]
        for path in self._newest_first():
            if path != saved and len(kept) < KEPT and self._problem_of(path) is None:
                kept.append(path)
        for path in self._newest_first():
            if path not in kept:
                durable.remove(path)
        wanted = {self._best_of(path) for path in kept}
        newest = max(wanted)
        for path in sorted(self.folder.glob("best-*")):
            number = _step_of(path)
            if number not in wanted and number < newest:
                durable.remove(path)

    @staticmethod
    def _best_of(path: Path) -> int:
        best = json.loads((path / "state.json").read_text(encoding="utf-8"))["best"]
        return int(best["step"]) if best else -1


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    save_file({n: t.contiguous() for n, t in checkpoint.weights.items()}, folder / "weights.safetensors")
    if checkpoint.moments:
        save_file({n: t.contiguous() for n, t in checkpoint.moments.items()}, folder / "moments.safetensors")
    state, best = asdict(checkpoint.state), checkpoint.state.best
    durable.write_json(folder / "state.json", {**state, "best": best.to_json() if best is not None else None})


def _read(folder: Path) -> Checkpoint:
    state = TrainState.from_json(json.loads((folder / "state.json").read_text(encoding="utf-8")))
    moments = folder / "moments.safetensors"
    return Checkpoint(state, load_file(folder / "weights.safetensors"), load_file(moments) if moments.is_file() else {})
