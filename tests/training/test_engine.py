"""The engine computes what a plain loop computes, changes only what the phase trains, and stops before bad numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from unfreeze.data.loading import epoch_batches
from unfreeze.errors import NumericsError, RequestError
from unfreeze.models.layers import LayerGroups
from unfreeze.run import Event
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.training import engine as engine_module
from unfreeze.training.engine import Engine, check_device
from unfreeze.training.optimization import rate_factor
from unfreeze.types import Batch, LossOutput, LossTerm


def events(engine: Any, kind: str) -> list[Event]:
    return list(engine.run.events(kind))


def test_several_processes_are_refused_before_anything_is_trained(
    usual: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda accelerator: 2))
    with pytest.raises(RequestError, match="several processes") as caught:
        usual.engine(tmp_path / "run", usual.phases(("head", 1)))
    assert (caught.value.code, caught.value.exit_status) == ("DISTRIBUTED", 2)


@pytest.mark.parametrize(
    ("planned", "taken", "what_to_do"),
    [
        ("cuda", "cpu", "unset ACCELERATE_USE_CPU, then: resume"),
        ("cpu", "xpu", "export ACCELERATE_USE_CPU=true, then: resume"),
    ],
)
def test_another_device_than_was_planned_for_is_told(
    planned: str, taken: str, what_to_do: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "device_type", lambda: planned)
    check_device(planned, "resume")
    with pytest.raises(RequestError, match=f"the plan is for {planned}, and Accelerate takes {taken}") as caught:
        check_device(taken, "resume")
    assert caught.value.remedy == what_to_do


def test_the_engine_trains_on_the_device_that_was_planned_for(
    usual: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "device_type", lambda: "abacus")
    with pytest.raises(RequestError, match="the plan is for abacus"):
        usual.engine(tmp_path / "run", usual.phases(("head", 1)))


# accumulation ----------------------------------------------------------------------------------------------------

MULTI = [{"text": row["text"], "label": "0;1" if i % 3 == 0 else str(i % 3)} for i, row in enumerate(small.reviews())]
NUMBERS = [{"text": row["text"], "label": i * 0.37 - 2} for i, row in enumerate(small.reviews())]
UNEVEN = [row for i, row in enumerate(small.reviews(40)) if i % 2 == 0 or i % 6 == 1]
KINDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "single label": (small.reviews(), {}),
    "class weights": (UNEVEN, {"train.class_weights": "balanced"}),
    "given class weights": (UNEVEN, {"train.class_weights": {"positive": 0.2, "negative": 3.0}}),
    "label smoothing": (small.reviews(), {"train.label_smoothing": 0.2}),
    "weights and smoothing": (UNEVEN, {"train.class_weights": "balanced", "train.label_smoothing": 0.1}),
    "multi-label": (MULTI, {}),
    "regression": (NUMBERS, {}),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kinds")
    return {
        name: small.small(folder / name.replace(" ", "-"), rows, dropout=False, **recipe)
        for name, (rows, recipe) in KINDS.items()
    }


def gradient_of_one_step(made: Any, folder: Path, rows: list[Any], micro_batch_tokens: int) -> dict[str, torch.Tensor]:
    """What one step over all rows moves along: a tenth of it is Adam's first moment after the first update."""
    engine = made.engine(
        folder, made.phases(("all", 1)), train=rows, batch_size=len(rows), micro_batch_tokens=micro_batch_tokens,
        max_gradient_norm=1e9,
    )  # fmt: skip
    engine.train()
    found = {k.removesuffix("/exp_avg"): v * 10 for k, v in engine.moments.items() if k.endswith("/exp_avg")}
    if engine.words is not None:
        whole = torch.zeros(engine.words.table.weight.shape)
        whole[engine.words.ids] = found[engine.words.name]
        found[engine.words.name] = whole
    return found


def mean_loss(task: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """What textbooks and torch say the loss of a whole batch is."""
    space = task.targets
    if space.problem_type == "regression":
        return F.mse_loss(logits.squeeze(-1), targets)
    if space.problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, targets)
    weights = task.weights_of_classes()
    given_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    return F.cross_entropy(logits, targets, given_weights, label_smoothing=task.label_smoothing)


TABLE = "bert.embeddings.word_embeddings.weight"


def nearly(one: torch.Tensor, other: torch.Tensor, scale: float) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * scale)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None, phases=[Phase.generate])  # a failure is slow to shrink and plain enough
@given(data=st.data())
def test_micro_batches_change_memory_and_not_the_gradient(
    kind: str, kinds: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    made = kinds[kind]
    chosen = data.draw(
        st.lists(st.integers(0, len(made.prepared.train_examples) - 1), min_size=2, max_size=8, unique=True)
    )
    rows = [made.prepared.train_examples[i] for i in chosen]
    budget = data.draw(st.integers(1, 60), label="micro_batch_tokens")
    folder = tmp_path_factory.mktemp("runs")
    whole = gradient_of_one_step(made, folder / "1x8", rows, 100_000)
    single = gradient_of_one_step(made, folder / "8x1", rows, 1)
    between = gradient_of_one_step(made, folder / "some", rows, budget)

    task, model = made.prepared.task, made.model()
    batch = task.collate(rows)
    mean_loss(task, model(**batch.inputs).logits, batch.targets).backward()
    reference = {name: p.grad for name, p in model.named_parameters()}

    scale = max(float(g.abs().max()) for g in whole.values())
    for name in whole:
        for found in (whole, single, between):
            assert nearly(found[name], reference[name], scale), name


def test_a_step_of_eight_micro_batches_sees_eight_micro_batches(plain: Any, tmp_path: Path) -> None:
    task = _Recording(plain.prepared.task)
    plain.engine(tmp_path / "run", plain.phases(("all", 1)), micro_batch_tokens=1, task=task).train()
    assert [len(rows) for rows in task.batches[-8:]] == [
        1
    ] * 8  # before them: the search for what is unread, and the trial


class _Recording:
    """A task that remembers which rows were put together."""

    def __init__(self, task: Any) -> None:
        self.inner, self.batches = task, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def collate(self, examples: Any) -> Batch:
        self.batches.append([e.row for e in examples])
        return self.inner.collate(examples)


# the plain loop --------------------------------------------------------------------------------------------------


def test_the_engine_equals_a_plain_loop(plain: Any, tmp_path: Path) -> None:
    steps, warmup, peak, limit = 6, 2, 2e-3, 0.5
    [phase] = plain.phases(("all", steps), warmup_steps=warmup)
    phase = dataclasses.replace(phase, learning_rates=dict.fromkeys(phase.learning_rates, peak))
    engine = plain.engine(tmp_path / "run", [phase], max_gradient_norm=limit, weight_decay=0.1)
    trained = small.weights_of(engine.train())

    model, task, examples = plain.model(), plain.prepared.task, plain.prepared.train_examples
    model.train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=peak, betas=(0.9, 0.999), eps=1e-8, fused=False, foreach=False,
    )  # fmt: skip
    lengths = np.asarray([e.length for e in examples])
    order = [b for epoch in range(2) for b in epoch_batches(lengths, 8, seed=0, epoch=epoch)]
    losses, norms = [], []
    for step in range(steps):
        factor = (step + 1) / warmup if step < warmup else 1 - (step - warmup) / (steps - warmup)
        for group in optimizer.param_groups:
            group["lr"] = peak * factor
        rows = sorted((examples[i] for i in order[step]), key=lambda e: -e.length)
        batch = task.collate(rows)
        loss = F.cross_entropy(model(**batch.inputs).logits, batch.targets, reduction="sum") / len(rows)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)))
        optimizer.step()
        losses.append(float(loss.detach()))

    assert max(norms) > limit, "the test must clip"
    expected, initial = small.weights_of(model), small.weights_of(plain.model())
    absent = ~torch.isin(torch.arange(len(initial[TABLE])), engine.words.ids)
    expected[TABLE][absent] = initial[TABLE][absent]
    for name, tensor in expected.items():
        # The softmax does not see the bias of the keys: its gradient is rounding, which Adam blows up to a whole step.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-6, msg=name)
    recorded = events(engine, "step")
    assert [e.values["loss"] for e in recorded] == pytest.approx(losses, abs=1e-6)
    assert [e.values["gradient_norm"] for e in recorded] == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_rises_linearly_and_falls_as_asked(decay: str, expected: list[float]) -> None:
    assert [rate_factor(s, 8, 4, decay) for s in range(8)] == pytest.approx(expected, abs=1e-6)


# freezing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "trained"),
    [
        ("head", {"head"}),
        ("last(1)", {"head", "group 1"}),
        ("all", {"stem", "group 0", "group 1", "head"}),
        (["group 0", "classifier.*"], {"group 0", "head"}),
    ],
)
def test_only_the_groups_of_the_span_change(usual: Any, tmp_path: Path, span: Any, trained: set[str]) -> None:
    engine = usual.engine(tmp_path / "run", usual.phases((span, 3)))
    before = small.weights_of(engine.model)
    after = small.weights_of(engine.train())
    groups = LayerGroups.of(engine.model)
    changed = {groups.group_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert changed == trained
    assert {groups.group_of(n) for n, p in engine.model.named_parameters() if p.requires_grad} == trained


def test_frozen_groups_are_in_eval_mode_and_trained_ones_are_not(usual: Any, tmp_path: Path) -> None:
    modes: dict[str, set[bool]] = {}

    def look(event: Event) -> None:
        if event.kind == "step":
            groups = LayerGroups.of(engine.model)
            for group in groups.names:
                modes[group] = {m.training for top in groups.modules(group) for m in top.modules()}

    engine = usual.engine(
        tmp_path / "run", usual.phases(("last(1)", 2), evaluate_every=1), observers=[look],
        validation=usual.prepared.train_examples[:4],
    )  # fmt: skip
    engine.train()
    assert modes == {"stem": {False}, "group 0": {False}, "group 1": {True}, "head": {True}}


def test_modes_come_back_after_an_evaluation(usual: Any, tmp_path: Path) -> None:
    """A run that evaluates in between trains exactly as one that does not."""
    plain_run = usual.engine(tmp_path / "without", usual.phases(("all", 4)))
    evaluated = usual.engine(
        tmp_path / "with", usual.phases(("all", 4), evaluate_every=1), validation=usual.prepared.train_examples[:4]
    )
    plain_run.train()
    evaluated.train()
    losses = [[e.values["loss"] for e in events(engine, "step")] for engine in (plain_run, evaluated)]
    assert losses[0] == losses[1]


def test_norm_statistics_never_move_though_their_weights_train(usual: Any, tmp_path: Path) -> None:
    model = usual.model()
    model.classifier = torch.nn.Sequential(torch.nn.BatchNorm1d(32), model.classifier)
    engine = usual.engine(tmp_path / "run", usual.phases(("all", 1)), model=model)
    engine.phases = [dataclasses.replace(engine.phases[0], steps=4)]
    engine.train()
    norm = model.classifier[0]
    assert torch.equal(norm.running_mean, torch.zeros(32))
    assert torch.equal(norm.running_var, torch.ones(32))
    assert int(norm.num_batches_tracked) == 0
    assert not torch.equal(norm.weight, torch.ones(32))


def test_discriminative_rates_reach_their_groups(plain: Any, tmp_path: Path) -> None:
    """Adam's first update is the rate itself wherever there is a gradient."""
    rates = {"head": 4e-3, "group 1": 2e-3, "group 0": 1e-3, "stem": 5e-4}
    engine = plain.engine(
        tmp_path / "run", plain.phases(("all", 1), learning_rates=rates, decay="constant"), weight_decay=0.0
    )
    before = small.weights_of(engine.model)
    after = small.weights_of(engine.train())
    groups = LayerGroups.of(engine.model)
    moved = {
        group: max(float((after[n] - before[n]).abs().max()) for n in groups.parameters(group))
        for group in groups.names
    }
    assert moved == pytest.approx(rates, rel=1e-3)


def test_biases_and_norms_are_not_decayed(plain: Any, tmp_path: Path) -> None:
    rates = dict.fromkeys(("head", "group 1", "group 0", "stem"), 1e-3)
    kept, decayed = (
        plain.engine(tmp_path / str(decay), plain.phases(("all", 1), learning_rates=rates), weight_decay=decay)
        for decay in (0.0, 10.0)
    )
    one, other = small.weights_of(kept.train()), small.weights_of(decayed.train())
    initial = small.weights_of(plain.model())
    absent = ~torch.isin(torch.arange(len(initial[TABLE])), decayed.words.ids)
    for name, tensor in initial.items():
        if tensor.ndim > 1:
            if name == TABLE:
                tensor[absent] = 0  # what never had a gradient is not decayed either
            torch.testing.assert_close(one[name] - other[name], 0.01 * tensor, rtol=0, atol=1e-6, msg=name)
        else:
            assert torch.equal(one[name], other[name]), name


# choosing weights ------------------------------------------------------------------------------------------------


def best_of(engine: Any) -> Callable[[Event], None]:
    """Remembers the weights at the best evaluation so far."""

    def look(event: Event) -> None:
        if event.kind == "evaluation" and event.values["is_best"]:
            look.weights = small.weights_of(engine().model)  # type: ignore[attr-defined]
            look.step = event.step  # type: ignore[attr-defined]

    return look


class ChosenByLoss(TextClassification):
    @property
    def selection(self) -> tuple[str, bool]:
        return "loss", False


@pytest.mark.parametrize("phases", ["within a phase", "from an earlier, narrower phase"])
def test_the_best_weights_are_kept(usual: Any, tmp_path: Path, phases: str) -> None:
    good, [ruin] = usual.phases(("head", 3), evaluate_every=1), usual.phases(("all", 4), evaluate_every=1)
    ruin = dataclasses.replace(ruin, learning_rates=dict.fromkeys(ruin.learning_rates, 1.0), decay="constant")
    chosen = [dataclasses.replace(ruin, span="all")] if phases == "within a phase" else [*good, ruin]
    watch = best_of(lambda: engine)
    inner = usual.prepared.task
    task = ChosenByLoss().bind(roles=inner.roles, targets=inner.targets, processor=inner.processor, max_length=64)
    engine = usual.engine(
        tmp_path / "run", chosen, task=task, observers=[watch], validation=usual.prepared.train_examples[:12]
    )
    end = small.weights_of(engine.train())
    losses = [e.values["metrics"]["loss"] for e in events(engine, "evaluation")]
    assert watch.step < engine.state.step, "the last evaluation must not be the best for this test to say anything"
    assert watch.step <= 3 or phases == "within a phase", "the best must lie in the first phase"
    assert small.are_equal(end, watch.weights)
    assert engine.evaluate().loss == pytest.approx(min(losses), rel=1e-5)


def test_equal_metrics_are_decided_by_the_loss(usual: Any, tmp_path: Path) -> None:
    engine = usual.engine(
        tmp_path / "run", usual.phases(("head", 4), evaluate_every=1), validation=usual.prepared.train_examples[:2]
    )
    engine.train()
    found = [e.values for e in events(engine, "evaluation")]
    best = max(found, key=lambda v: (v["metrics"]["accuracy"], -v["metrics"]["loss"]))
    assert [v for v in found if v["is_best"]][-1] == best


def test_early_stopping_ends_a_phase_and_the_next_begins(usual: Any, tmp_path: Path) -> None:
    ruin, head = usual.phases(("all", 9), ("head", 2), evaluate_every=1, patience=2)
    ruin = dataclasses.replace(ruin, learning_rates=dict.fromkeys(ruin.learning_rates, 1.0), decay="constant")
    engine = usual.engine(tmp_path / "run", [ruin, head], validation=usual.prepared.train_examples[:12])
    engine.train()
    judged = [e for e in events(engine, "evaluation") if e.values["phase"] == "all"]
    last_best = max(i for i, e in enumerate(judged) if e.values["is_best"])
    assert len(judged) == last_best + 1 + 2 < 9
    assert [e.values["name"] for e in events(engine, "phase")] == ["all", "head"]
    assert any("ends early" in e.values["text"] for e in events(engine, "notice"))
    assert engine.state.stopped_phases == ("all",)


# numbers that are not finite -------------------------------------------------------------------------------------


class InfiniteGradient(TextClassification):
    """Its loss is finite and its gradient is not: the slope of the square root at 0."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        output = super().loss(model, batch)
        bad = (output.outputs * 0).abs().sum().sqrt() if 5 in batch.rows else 0.0
        return LossOutput({"loss": LossTerm(output.terms["loss"].sum + bad)}, output.outputs)


class InfiniteLoss(TextClassification):
    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        output = super().loss(model, batch)
        bad = float("inf") if 5 in batch.rows else 0.0
        return LossOutput({"loss": LossTerm(output.terms["loss"].sum + bad)}, output.outputs)


@pytest.mark.parametrize(
    ("kind", "said"), [(InfiniteGradient, "gradient's norm is nan"), (InfiniteLoss, "loss is inf")]
)
def test_a_number_that_is_not_finite_stops_before_the_update(usual: Any, tmp_path: Path, kind: Any, said: str) -> None:
    inner = usual.prepared.task
    task = kind().bind(roles=inner.roles, targets=inner.targets, processor=inner.processor, max_length=64)
    order = epoch_batches(np.asarray([e.length for e in usual.prepared.train_examples]), 8, seed=0, epoch=0)
    bad_step = 1 + next(i for i, rows in enumerate(order) if 5 in rows)
    weights: list[dict[str, torch.Tensor]] = []
    engine = usual.engine(
        tmp_path / "run", usual.phases(("all", 3)), task=task,
        observers=[lambda event: weights.append(small.weights_of(engine.model)) if event.kind != "phase" else None],
    )  # fmt: skip
    with pytest.raises(NumericsError) as caught:
        engine.train()
    error = caught.value
    assert (error.code, error.exit_status) == ("NOT-FINITE", 5)
    assert said in error.what
    assert f"step {bad_step}" in error.what
    assert (
        f"--set train.learning_rate=0.0003 --set train.head_learning_rate=0.0003 --output {tmp_path / 'run-2'}"
        in str(error.remedy)
    )
    assert f"unfreeze inspect {tmp_path / 'run' / 'recipe.yaml'} --row {min(order[bad_step - 1])}" in str(error.remedy)
    assert str(error.where).endswith(f"training rows {', '.join(str(r) for r in sorted(order[bad_step - 1]))}")
    assert small.are_equal(small.weights_of(engine.model), weights[-2])
    [recorded] = events(engine, "not_finite")
    assert recorded.values["rows"] == sorted(int(r) for r in order[bad_step - 1])
    assert all(p.grad is None for p in engine.model.parameters())


# randomness ------------------------------------------------------------------------------------------------------


def test_two_runs_with_one_seed_are_equal_bit_for_bit_and_another_seed_differs(usual: Any, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> str:
        torch.manual_seed(len(name))  # what was drawn before must not matter
        return small.fingerprint(usual.engine(tmp_path / name, usual.phases(("all", 4)), seed=seed).train())

    first, second, other = run("first", 0), run("the second", 0), run("other", 1)
    assert first == second != other


def test_dropout_is_drawn_anew_in_every_step(usual: Any, tmp_path: Path) -> None:
    """With a rate of (almost) 0 and one batch, only dropout makes losses differ."""
    rates = dict.fromkeys(("head", "group 1", "group 0", "stem"), 1e-12)
    phases = usual.phases(("all", 3), learning_rates=rates)
    engine = usual.engine(tmp_path / "run", phases, train=usual.prepared.train_examples[:8])
    engine.train()
    assert len({e.values["loss"] for e in events(engine, "step")}) == 3


def test_the_rows_of_every_step_are_those_of_the_seeded_order(usual: Any, tmp_path: Path) -> None:
    task = _Recording(usual.prepared.task)
    engine = usual.engine(tmp_path / "run", usual.phases(("head", 5)), task=task)
    engine.train()
    lengths = np.asarray([e.length for e in usual.prepared.train_examples])
    order = [sorted(b.tolist()) for epoch in (0, 1) for b in epoch_batches(lengths, 8, seed=0, epoch=epoch)]
    assert [sorted(rows) for rows in task.batches[-5:]] == order[:5]


def test_the_trial_step_changes_no_weight_and_no_later_number(
    usual: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def look(event: Event) -> None:
        if event.kind == "checkpoint" and event.step == 0:
            seen["weights"] = small.weights_of(tried.model)
            seen["gradients"] = [p.grad for p in tried.model.parameters() if p.grad is not None]

    tried = usual.engine(tmp_path / "tried", usual.phases(("head", 2), ("all", 2)), observers=[look])
    end = small.fingerprint(tried.train())
    assert small.are_equal(seen["weights"], small.weights_of(usual.model()))
    assert seen["gradients"] == []
    untried = usual.engine(tmp_path / "untried", usual.phases(("head", 2), ("all", 2)))
    monkeypatch.setattr(untried, "_try_widest_step", lambda: None)
    assert small.fingerprint(untried.train()) == end


def test_the_trial_step_takes_the_longest_rows(usual: Any, tmp_path: Path) -> None:
    task = _Recording(usual.prepared.task)
    engine = usual.engine(tmp_path / "run", usual.phases(("head", 1)), task=task, batch_size=4)
    engine.train()
    lengths = sorted((e.length for e in usual.prepared.train_examples), reverse=True)[:4]
    examples = usual.prepared.train_examples
    assert [examples[r].length for r in task.batches[0]] == lengths
    [trial] = events(engine, "trial")
    assert trial.values["tokens"] == 4 * lengths[0]


# divergence ------------------------------------------------------------------------------------------------------


def scaled_losses(plain: Any, folder: Path, factors: dict[int, float], steps: int = 12) -> Any:
    """An engine whose loss is multiplied in some steps (counted from 1), as an exploding or a strange batch would."""
    engine = plain.engine(folder, plain.phases(("all", steps), learning_rates={"head": 1e-9}))
    update = engine._update

    def scaled(*arguments: Any) -> tuple[float, float, int]:
        loss, norm, tokens = update(*arguments)
        return loss * factors.get(engine.state.step + 1, 1.0), norm, tokens

    engine._update = scaled
    return engine


def test_a_loss_that_stays_far_above_its_start_ends_the_run(plain: Any, tmp_path: Path) -> None:
    engine = scaled_losses(plain, tmp_path / "run", dict.fromkeys(range(4, 13), 100.0))
    with pytest.raises(NumericsError) as caught:
        engine.train()
    assert (caught.value.code, caught.value.exit_status) == ("DIVERGED", 5)
    assert "step 6, training rows" in str(caught.value.where)
    anew = f"unfreeze train {tmp_path / 'run' / 'recipe.yaml'} --set train.learning_rate=1e-10"
    assert anew in str(caught.value.remedy), "a tenth"
    [told] = events(engine, "diverged")
    assert len(told.values["rows"]) == 8


@pytest.mark.parametrize("rate", [1e2, 1e4, 1e20])
def test_a_rate_that_is_far_too_high_never_ends_well(rate: float, plain: Any, tmp_path: Path) -> None:
    [phase] = plain.phases(("all", 40))
    wild = dataclasses.replace(phase, learning_rates=dict.fromkeys(phase.learning_rates, rate))
    engine = plain.engine(tmp_path / "run", [wild])
    with pytest.raises(NumericsError):
        engine.train()
    assert engine.state.step <= 20


@pytest.mark.parametrize("steps", [(5,), (5, 6), (3, 4, 7, 8, 11, 12)])
def test_strange_batches_in_a_healthy_run_stop_nothing(steps: tuple[int, ...], plain: Any, tmp_path: Path) -> None:
    engine = scaled_losses(plain, tmp_path / "run", dict.fromkeys(steps, 1e6))
    engine.train()
    assert engine.state.step == 12


class TestLossScale:
    """Training in float16 needs a GPU; what the scaler makes of gradients that overflow does not."""

    @pytest.fixture
    def scaled(self, monkeypatch: pytest.MonkeyPatch) -> list[torch.amp.GradScaler]:
        made: list[torch.amp.GradScaler] = []
        new = Engine._new_accelerator

        def with_scaler(engine: Engine) -> Any:
            accelerator = new(engine)
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=engine.state.loss_scale or 2.0**127)
            made.append(accelerator.scaler)
            return accelerator

        loss = Engine._loss
        monkeypatch.setattr(Engine, "_new_accelerator", with_scaler)
        monkeypatch.setattr(Engine, "_loss", lambda *given: 1000 * loss(*given))  # infinite with such a scale
        return made

    def test_steps_that_overflow_are_left_out_counted_and_halve_the_scale(
        self, usual: Any, tmp_path: Path, scaled: list[torch.amp.GradScaler]
    ) -> None:
        before = small.weights_of(usual.model())
        engine = usual.engine(tmp_path / "run", usual.phases(("all", 15)))
        model = engine.train()
        skipped = [e.values["in_a_row"] for e in engine.run.events("skipped")]
        assert skipped[:2] == [1, 2], "with such a scale the first gradients are infinite"
        assert len(skipped) < 15
        assert engine.state.loss_scale == 2.0 ** (127 - len(skipped))
        after = small.weights_of(model)
        assert all(torch.isfinite(t).all() for t in after.values())
        assert any(not torch.equal(t, before[n]) for n, t in after.items())

    def test_what_is_never_finite_is_no_matter_of_scale(
        self, usual: Any, tmp_path: Path, scaled: list[torch.amp.GradScaler], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine_module, "MOST_SKIPPED", 3)
        monkeypatch.setattr(Engine, "_clip", lambda *_: math.inf)
        with pytest.raises(NumericsError, match="norm is inf in step 4"):
            usual.engine(tmp_path / "run", usual.phases(("all", 9))).train()

    def test_memory_that_ends_before_anything_was_scaled_is_met_with_smaller_parts(
        self, usual: Any, tmp_path: Path, scaled: list[torch.amp.GradScaler], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = usual.engine(tmp_path / "run", usual.phases(("head", 2), ("all", 14)))
        loss, failures = Engine._loss, iter(["CUDA out of memory"])

        def fails_once(self: Engine, *given: Any) -> torch.Tensor:
            if self.state.phase == 1 and (said := next(failures, None)) is not None:
                raise torch.OutOfMemoryError(said)
            return loss(self, *given)

        monkeypatch.setattr(Engine, "_loss", fails_once)
        engine.train()
        assert engine.state.step == 16
        assert engine.state.micro_batch_tokens > 0
