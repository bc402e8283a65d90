"""RS-06, RS-07, RS-10: where memory is not enough, smaller pieces go through the model, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from unfreeze.errors import ResourceError
from unfreeze.evaluation import evaluate_examples, predict_rows
from unfreeze.machine import in_smaller_parts, is_out_of_memory
from unfreeze.types import Batch, Row

STEPS = 4


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


class Tight:
    """A task whose model fits only so many tokens at once, from some micro-batch on."""

    def __init__(self, task: Any, most_tokens: int, *, after: int = 0, where: str = "forward") -> None:
        self.inner, self.most_tokens, self.after, self.where = task, most_tokens, after, where
        self.calls = self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def loss(self, model: torch.nn.Module, batch: Batch) -> Any:
        self.calls += 1
        is_too_much = self.calls > self.after and batch.size_tokens > self.most_tokens
        if is_too_much and self.where == "forward":
            self.refused += 1
            raise out_of_memory()
        found = self.inner.loss(model, batch)
        if is_too_much and torch.is_grad_enabled():
            self.refused += 1
            for term in found.terms.values():
                term.sum.register_hook(_raise)
        return found

    def predict(self, model: torch.nn.Module, batch: Batch) -> Any:
        if batch.size_tokens > self.most_tokens:
            self.refused += 1
            raise out_of_memory()
        return self.inner.predict(model, batch)


def _raise(gradient: torch.Tensor) -> None:
    raise out_of_memory()


def trained(made: Any, folder: Path, task: Any = None, **settings: Any) -> Any:
    engine = made.engine(folder, made.phases(("all", STEPS)), task=task, **settings)
    engine.train()
    return engine


def losses(engine: Any) -> list[float]:
    return [e.values["loss"] for e in engine.run.events("step")]


def notices(engine: Any) -> list[str]:
    return [e.values["text"] for e in engine.run.events("notice") if "memory was not enough" in e.values["text"]]


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("after", [0, 3], ids=["at the trial", "in the third step"])
def test_smaller_micro_batches_give_the_same_losses(where: str, after: int, plain: Any, tmp_path: Path) -> None:
    """A part of the batch that went through before memory ended is not counted twice."""
    tight = Tight(plain.prepared.task, 70, after=after, where=where)
    engine = trained(plain, tmp_path / "tight", tight)
    assert tight.refused
    assert notices(engine)
    assert losses(engine) == pytest.approx(losses(trained(plain, tmp_path / "roomy")), rel=1e-5)
    assert engine.state.step == STEPS


def test_with_dropout_it_is_the_run_with_these_micro_batches_from_the_start(usual: Any, tmp_path: Path) -> None:
    engine = trained(usual, tmp_path / "tight", Tight(usual.prepared.task, 70))
    budget = engine.state.micro_batch_tokens
    assert 0 < budget < small.SETTINGS["micro_batch_tokens"]
    again = trained(usual, tmp_path / "small", micro_batch_tokens=budget)
    wanted = small.weights_of(again.model)
    for name, tensor in small.weights_of(engine.model).items():
        assert torch.equal(tensor, wanted[name]), name


def test_what_was_learned_about_memory_survives_a_resume(usual: Any, tmp_path: Path) -> None:
    whole = trained(usual, tmp_path / "whole", Tight(usual.prepared.task, 70))
    tight = Tight(usual.prepared.task, 70)
    stopped = usual.engine(
        tmp_path / "run",
        usual.phases(("all", STEPS)),
        task=tight,
        observers=[lambda e: e.kind == "step" and e.step == 2],
    )
    with pytest.raises(Exception, match="stopped"):
        stopped.train()
    tight.refused = 0
    resumed = usual.engine(tmp_path / "run", usual.phases(("all", STEPS)), task=tight)
    resumed.train()
    assert tight.refused == 0
    assert losses(resumed)[-2:] == losses(whole)[-2:]


def test_the_optimizers_step_is_tried_again_with_whole_moments(
    plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, failed = torch.optim.AdamW.step, []

    def fails_once(self: Any, *arguments: Any, **named: Any) -> Any:
        if not failed:
            failed.append(True)
            first = self.param_groups[0]["params"][0]
            self.state[first]["step"] = torch.zeros(())  # memory ended between two of the tensors
            raise out_of_memory()
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", fails_once)
    engine = trained(plain, tmp_path / "tight")
    monkeypatch.undo()
    assert failed
    assert losses(engine) == pytest.approx(losses(trained(plain, tmp_path / "roomy")), rel=1e-5)


def test_where_one_row_is_too_much_it_is_named(plain: Any, tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        trained(plain, tmp_path / "run", Tight(plain.prepared.task, 0))
    assert (caught.value.code, caught.value.exit_status) == ("MEMORY", 6)
    assert "training row" in str(caught.value.where)
    longest = max(e.length for e in plain.prepared.train_examples)
    less = f"--set train.max_length={max(4, longest // 2)} --output {tmp_path / 'run-2'}"
    assert f"unfreeze train {tmp_path / 'run' / 'recipe.yaml'} {less}" in str(caught.value.remedy)
    assert f"unfreeze resume {tmp_path / 'run'}" in str(caught.value.remedy)
    assert "micro_batch_tokens" not in str(caught.value.remedy), "they go one by one already"


@pytest.mark.parametrize("text", ["c10::Error", "CUDA error: an illegal memory access was encountered", "cuDNN error"])
def test_other_failures_of_a_device_are_not_tried_again(text: str, plain: Any, tmp_path: Path) -> None:
    class Broken(Tight):
        def loss(self, model: torch.nn.Module, batch: Batch) -> Any:
            self.calls += 1
            raise RuntimeError(text)

    task = Broken(plain.prepared.task, 1)
    with pytest.raises(RuntimeError, match=r"c10|CUDA|cuDNN"):
        trained(plain, tmp_path / "run", task)
    assert task.calls == 2, "looking for what can be left out, then the trial"


def test_evaluating_and_predicting_take_smaller_parts_too(plain: Any) -> None:
    examples, model, task = plain.prepared.train_examples, plain.model().eval(), plain.prepared.task
    roomy = evaluate_examples(task, model, examples)
    tight = Tight(task, 30)
    found = evaluate_examples(tight, model, examples)
    assert tight.refused
    assert found.metrics == pytest.approx(roomy.metrics, rel=1e-5)
    assert found.loss == pytest.approx(roomy.loss, rel=1e-5)
    rows = [Row(i, row, f"row {i}") for i, row in enumerate(small.reviews(9))]
    answers = [p.label for p in predict_rows(Tight(task, 30), model, rows)]
    assert answers == [p.label for p in predict_rows(task, model, rows)]


def test_recording_takes_smaller_parts_too(plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unfreeze.activations import record

    def run(folder: str) -> Any:
        [phase] = plain.phases(("head", STEPS), boundary="head")
        cache = replace(plain.plan.settings.cache, folder=str(tmp_path / f"{folder} cache"), budget_bytes=10**9)
        engine = plain.engine(tmp_path / folder, [phase], cache=cache)
        engine.train()
        assert list(engine.run.events("recorded"))
        return engine

    roomy, forward = run("roomy"), record.run_to_boundary

    def tight(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        if len(inputs["input_ids"]) > 6:
            raise out_of_memory()
        forward(model, inputs)

    monkeypatch.setattr(record, "run_to_boundary", tight)
    assert losses(run("tight")) == pytest.approx(losses(roomy), rel=1e-3)


def test_parts_are_halved_in_order_until_they_fit() -> None:
    seen: list[int] = []

    def work(rows: Any) -> int:
        seen.append(len(rows))
        if len(rows) > 3:
            raise MemoryError
        return int(sum(rows))

    found = [(rows.tolist(), value) for rows, value in in_smaller_parts(np.arange(9), work)]
    assert found == [([0, 1], 1), ([2, 3], 5), ([4, 5], 9), ([6, 7, 8], 21)]
    assert seen == [9, 4, 2, 2, 5, 2, 3]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_too_little_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory
