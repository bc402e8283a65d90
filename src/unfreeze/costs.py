"""What a plan will cost, from a measurement of a few seconds.

A model of the same shape with random weights takes three small batches of the user's own rows, forward and backward.
Seconds are modelled as ``a + b * tokens + c * tokens * length`` for a micro-batch (start-up of the kernels, matrix
products, attention), fitted to those three; a phase that trains a part pays the forward and that part of the backward.
Memory is the weights, their gradients and moments, and what autograd keeps, which is counted during the same forward.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unfreeze.activations.store import bytes_held
from unfreeze.activations.unread import Unread
from unfreeze.data.loading import epoch_batches, length_batches, micro_batches
from unfreeze.errors import ModelError, ResourceError
from unfreeze.machine import (
    forward_tokens,
    free_disk_bytes,
    is_out_of_memory,
    peak_memory_bytes,
    resident_memory_bytes,
    share_a_disk,
)
from unfreeze.models.layers import LayerGroups, hold_statistics
from unfreeze.plan import CHECKPOINT_BYTES_PER_SECOND, Plan, PlannedPhase, checkpoint_bytes, model_config, run_bytes
from unfreeze.preparation import Prepared
from unfreeze.training.vocabulary import SeenWords
from unfreeze.types import Batch

# The measured batches are made so small that a forward and backward takes about a second.
_PROBE_FLOPS = 1.0e11
_LARGEST_PROBED_PARAMETERS = 1_000_000_000
# Clipping and the fused Adam kernel, measured on two cores: seconds for each trained weight and step.
_SECONDS_PER_WEIGHT = 1.5e-9
# The interpreter and its libraries before the call; loading, writing the model and the report after the training.
_START_SECONDS = 3.0
_END_SECONDS = 3.0
# Rates, events, collating: what a step costs beside its arithmetic.
_STEP_SECONDS = 0.004
_TFIDF_SECONDS_PER_CHARACTER = 6e-7
# A token that is written costs so much more than one that is read along with others: weights are fetched for each.
_WRITING_FACTOR = 3.0
_BYTES = 4
# Buffers of the backward and of evaluation beside what is kept for it, and memory that lies between them unused:
# 1.3 to 1.95 was seen, on two kinds of processor.
_WORKING_FACTOR = 1.6


@dataclass(frozen=True)
class _Rates:
    """Coefficients of the two cost models, each (3,).

    ``unmoved`` counts the weights of words that no training row contains: they are spared by phases that train words.
    """

    forward: np.ndarray
    backward: np.ndarray
    kept_bytes: np.ndarray
    unmoved: int

    def moved(self, phase: PlannedPhase) -> int:
        """How many weights a phase's optimizer goes over."""
        return phase.trainable_parameters - (self.unmoved if "stem" in phase.learning_rates else 0)

    @staticmethod
    def of(coefficients: np.ndarray, rows: int, length: int) -> float:
        tokens = rows * length
        return float(coefficients @ np.asarray([1.0, tokens, tokens * length]))


def expect(plan: Plan, prepared: Prepared, output: str | Path, *, started: float) -> None:
    """Fill ``plan.expected``; what a model too large to measure needs beside disk is not told, and the plan says so.

    Args:
        plan: Gets the figures, and warnings.
        prepared: Its rows.
        output: Where the run will lie.
        started: When the work began (`time.perf_counter`); what has passed since is part of the whole.

    Raises:
        ModelError: E-MODEL-BROKEN, where the configuration contradicts itself.
    """
    weights = sum(g["parameters"] for g in plan.groups)
    if weights > _LARGEST_PROBED_PARAMETERS or plan.machine["device"] != "cpu":
        what = "time and memory are not estimated: only models below a billion parameters on a CPU are measured"
        plan.expected = {"disk_bytes": int(_disk_bytes(plan)), "note": what}
        _warn_of_little_disk(plan, output)
        return
    level = resident_memory_bytes()
    try:
        rates = _measure(plan, prepared)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        what = f"a model of this configuration cannot be run on these rows: {str(error).splitlines()[0]}"
        raise ModelError("MODEL-BROKEN", what, where=prepared.source.name) from error
    seconds = _train_seconds(plan, prepared, rates)
    # Where little trains, the measurement itself, which trains all, may be the widest moment: it has been.
    memory = max(level + _train_memory(plan, prepared, rates), peak_memory_bytes())
    passed = time.perf_counter() - started
    total = _START_SECONDS + passed + seconds + _seconds_after_training(plan, prepared, rates)
    plan.expected = {
        "train_seconds": round(seconds, 1),
        "total_seconds": round(total, 1),
        "peak_memory_bytes": int(memory),
        "disk_bytes": int(_disk_bytes(plan)),
        "note": "from a forward and backward of three of your own batches, measured just now",
    }
    if memory > level + plan.machine["memory_bytes"]:
        plan.warnings.append(
            f"about {memory / 1e9:.1f} GB of memory are needed, "
            f"{(plan.machine['memory_bytes'] + level) / 1e9:.1f} GB are there: "
            "--set train.micro_batch_tokens=512, or a smaller model"
        )
    _warn_of_little_disk(plan, output)


def _warn_of_little_disk(plan: Plan, output: str | Path) -> None:
    if (shortage := lacking_disk(plan, output)) is not None:
        plan.warnings.append(shortage.what)


def lacking_disk(plan: Plan, output: str | Path) -> ResourceError | None:
    """E-DISK where the run will not fit: an error before the first step, not at a checkpoint hours later."""
    wanted, free = plan.expected["disk_bytes"], free_disk_bytes(output)
    if not share_a_disk(output, plan.settings.cache.folder):
        wanted -= _recorded_anew(plan)
    else:
        free += min(_recorded_anew(plan), bytes_held(Path(plan.settings.cache.folder)))  # earlier ones make room
    if wanted <= free:
        return None
    return ResourceError(
        "DISK",
        f"the run needs about {wanted / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free",
        where=str(output),
        remedy="another disk: --output RUN\nor fewer weights trained: --schedule head, or last(1)",
    )


# measuring -------------------------------------------------------------------------------------------------------


def _measure(plan: Plan, prepared: Prepared) -> _Rates:
    model = prepared.task.skeleton(model_config(prepared.config, plan.settings))
    batches = _probe_batches(plan, prepared)
    shapes, forward, both, kept = [], [], [], []
    # What the engine leaves out is left out here too.
    groups = LayerGroups.of(model)
    unread = Unread.find(prepared.task, model, groups, prepared.train_examples)
    trained = {name for phase in plan.phases for name in groups.select(phase.span)}
    words = SeenWords.find(prepared.task, model, trained, prepared.train_examples)
    with unread.skipped(), contextlib.nullcontext() if words is None else words.installed():
        if words is not None:
            words.enter()
        for batch in batches:
            rows = len(batch.rows)
            shapes.append((rows, batch.size_tokens // rows))
            f, b, k = _time_batch(prepared, model, batch)
            forward.append(f)
            both.append(f + b)
            kept.append(k)
    fitted = [_fit(shapes, values) for values in (forward, both, kept)]
    unmoved = 0 if words is None else (words.table.num_embeddings - len(words.ids)) * words.table.embedding_dim
    return _Rates(fitted[0], np.maximum(fitted[1] - fitted[0], 0), fitted[2], unmoved)


def _probe_batches(plan: Plan, prepared: Prepared) -> list[Batch]:
    lengths = prepared.train_lengths
    order = np.argsort(lengths, kind="stable")
    encoder_weights = max(1, sum(g["parameters"] for g in plan.groups if g["name"].startswith("group")))
    budget = int(np.clip(_PROBE_FLOPS / (6 * encoder_weights), 64, plan.settings.micro_batch_tokens))
    picked = []
    for quantile, share in ((0.1, 0.125), (0.5, 0.5), (0.95, 1.0)):
        place = int(quantile * (len(order) - 1))
        count = int(np.clip(share * budget // max(1, lengths[order[place]]), 1, plan.settings.batch_size))
        members = order[max(0, place - count + 1) : place + 1]
        examples = [prepared.train_examples[i] for i in members]
        if prepared.task.augments:
            examples = [prepared.task.augment(e, np.random.default_rng(0)) for e in examples]
        picked.append(prepared.task.collate(examples))
    return picked


def _time_batch(prepared: Prepared, model: torch.nn.Module, batch: Batch) -> tuple[float, float, float]:
    """Seconds of a forward, seconds of the backward, bytes kept for it: the better of two tries after a warm-up."""
    model.train()
    hold_statistics(model)
    best_forward, best_backward, kept = float("inf"), float("inf"), 0.0
    for attempt in range(3):
        seen: dict[int, int] = {}

        def keep(tensor: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        started = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = prepared.task.loss(model, batch).terms
        between = time.perf_counter()
        torch.stack([t.sum for t in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        ended = time.perf_counter()
        model.zero_grad(set_to_none=True)
        if attempt:
            best_forward, best_backward = min(best_forward, between - started), min(best_backward, ended - between)
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept = float(sum(size for pointer, size in seen.items() if pointer not in own))
    return best_forward, best_backward, kept


def _fit(shapes: Sequence[tuple[int, int]], values: Sequence[float]) -> np.ndarray:
    """Non-negative least squares of the cost model, each measurement weighing the same relative error."""
    from scipy.optimize import nnls

    features = np.asarray([[1.0, r * n, r * n * n] for r, n in shapes])
    target = np.maximum(np.asarray(values), 1e-12)
    scale = features.max(axis=0)
    solution, _ = nnls(features / scale / target[:, None], np.ones(len(values)))
    return np.asarray(solution / scale)


# adding up -------------------------------------------------------------------------------------------------------


def _share_from(plan: Plan, group: str | None) -> float:
    """Which part of a forward's work lies at and above a group; all of it for None and for the stem.

    Where the operations were not counted, weights stand for them: those of a text's layers, whose stem only looks up.
    """
    counted = {g["name"]: g["share_below"] for g in plan.groups if "share_below" in g}
    if group in counted:
        return float(1 - counted[group])
    sizes = {g["name"]: g["parameters"] for g in plan.groups if g["name"] != "stem"}
    if group not in sizes:
        return 1.0
    names = list(sizes)
    return sum(sizes[n] for n in names[names.index(group) :]) / max(1, sum(sizes.values()))


def _backward_share(plan: Plan, phase: PlannedPhase) -> float:
    """Which part of the backward a phase pays: down to its lowest trained group."""
    order = [g["name"] for g in plan.groups]
    return _share_from(plan, min(phase.learning_rates, key=order.index))


def _train_seconds(plan: Plan, prepared: Prepared, rates: _Rates) -> float:
    lengths, settings = prepared.train_lengths, plan.settings
    batches = epoch_batches(lengths, settings.batch_size, seed=settings.seed, epoch=0)
    parts = [
        (len(part), int(lengths[batch][part].max()))
        for batch in batches
        for part in micro_batches(lengths[batch], settings.micro_batch_tokens)
    ]
    forward = sum(rates.of(rates.forward, *p) for p in parts) / len(batches)
    backward = sum(rates.of(rates.backward, *p) for p in parts) / len(batches)
    once = _evaluation_seconds(plan, [e.length for e in prepared.validation_examples], rates)
    views = max(phase.views for phase in plan.phases)
    seconds = _recording_seconds(plan, views * forward * len(batches) + once)
    for phase in plan.phases:
        computed = _share_from(plan, phase.boundary)
        step = (
            computed * forward
            + _backward_share(plan, phase) * backward
            + rates.moved(phase) * _SECONDS_PER_WEIGHT
            + _STEP_SECONDS
        )
        evaluations = phase.steps / phase.evaluate_every if phase.evaluate_every else 0
        best_bytes = phase.trainable_parameters * _BYTES
        seconds += phase.steps * step + evaluations * (computed * once + 0.5 * best_bytes / CHECKPOINT_BYTES_PER_SECOND)
    checkpoints = len(plan.phases)
    if plan.settings.checkpoint_steps:
        checkpoints += plan.total_steps // plan.settings.checkpoint_steps
    return seconds + checkpoints * _checkpoint_bytes(plan) / CHECKPOINT_BYTES_PER_SECOND


def _recording_seconds(plan: Plan, one_pass: float) -> float:
    """One forward of all rows up to the highest boundary that is recorded anew."""
    recorded = [_share_from(plan, p.boundary) for p in plan.phases if p.boundary is not None and not p.is_recorded]
    return (1 - min(recorded)) * one_pass if recorded else 0.0


def _evaluation_seconds(plan: Plan, lengths: Sequence[int], rates: _Rates) -> float:
    if not lengths:
        return 0.0
    array = np.asarray(lengths)
    parts = length_batches(array, forward_tokens(plan.machine["device"], plan.settings.micro_batch_tokens))
    return sum(rates.of(rates.forward, len(p), int(array[p].max())) for p in parts)


def _seconds_after_training(plan: Plan, prepared: Prepared, rates: _Rates) -> float:
    """Loading, writing, the passes over validation and test rows, the baselines, the report."""
    train = list(prepared.train_lengths)
    per_row = _evaluation_seconds(plan, train, rates) / max(1, len(train))
    rows = {k: v for k, v in plan.data["rows"].items() if k != "train"}
    seconds = _END_SECONDS + per_row * sum(rows.values())
    reported = rows.get("test", rows.get("validation", 0))
    per_token = per_row * len(train) / max(1, sum(train))
    seconds += _WRITING_FACTOR * per_token * prepared.task.tokens_written * sum(rows.values())
    beside = prepared.task.compares_with if prepared.recipe.baselines and reported else ()
    if "frozen features" in beside:
        seconds += per_row * (len(train) + reported)
    if "untouched" in beside:
        seconds += per_row * reported
    if "tfidf" in beside:
        seconds += _TFIDF_SECONDS_PER_CHARACTER * 4 * float(np.sum(train))
    return seconds


def _train_memory(plan: Plan, prepared: Prepared, rates: _Rates) -> float:
    """Bytes above the level before the model was loaded, at the widest moment."""
    lengths, settings = prepared.train_lengths, plan.settings
    longest = int(lengths.max())
    rows = max(1, min(settings.batch_size, settings.micro_batch_tokens // max(1, longest)))
    kept = rates.of(rates.kept_bytes, rows, longest)
    weights = sum(g["parameters"] for g in plan.groups) * _BYTES
    moments = 3 * _BYTES  # gradient, first and second moment of each trained weight
    widest = max(rates.moved(p) * moments + kept * _backward_share(plan, p) for p in plan.phases)
    return weights + _WORKING_FACTOR * widest


def _disk_bytes(plan: Plan) -> float:
    """Of the run, and of what is recorded anew."""
    return run_bytes(plan.phases, {g["name"]: g["parameters"] for g in plan.groups}) + _recorded_anew(plan)


def _recorded_anew(plan: Plan) -> int:
    """Disk that recordings will take; phases at one boundary share theirs."""
    found = {p.boundary: p.recorded_bytes for p in plan.phases if p.boundary is not None and not p.is_recorded}
    return sum(found.values())


def _checkpoint_bytes(plan: Plan) -> int:
    return checkpoint_bytes(plan.phases, {g["name"]: g["parameters"] for g in plan.groups})


def as_rows(expected: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as a person reads them."""
    disk = ("disk", f"{expected['disk_bytes'] / 1e6:,.0f} MB")
    if "train_seconds" not in expected:
        return [("cost", expected["note"]), disk]
    return [
        ("time", f"{duration(expected['train_seconds'])} of training, {duration(expected['total_seconds'])} in all"),
        ("memory", f"{expected['peak_memory_bytes'] / 1e9:.2f} GB at the peak"),
        disk,
    ]


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``2 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
