"""A model small enough to train a hundred times, rows for it, and an engine on them."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unfreeze.activations.rows import Rows
from unfreeze.machine import find_machine
from unfreeze.models.layers import LayerGroups
from unfreeze.plan import Plan, PlannedPhase, make
from unfreeze.preparation import Prepared, prepare
from unfreeze.randomness import seed_all
from unfreeze.recipe import Recipe
from unfreeze.run import Event, Run
from unfreeze.schedule import Span
from unfreeze.testing import tiny_model
from unfreeze.training.engine import Engine

GOOD, BAD = ("good", "kind", "bright", "warm"), ("bad", "cold", "broken", "dull")
THINGS = ("soup", "room", "phone", "film", "coat", "train to the coast")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SETTINGS: dict[str, Any] = {
    "seed": 0,
    "batch_size": 8,
    "micro_batch_tokens": 100_000,
    "weight_decay": 0.01,
    "max_gradient_norm": 1.0,
    "precision": "fp32",
    "checkpoint_minutes": 1e9,
}


def reviews(count: int = 24) -> list[dict[str, Any]]:
    """Short texts of various lengths, of two classes in turn."""
    rows = []
    for i in range(count):
        words, label = ((GOOD, "positive"), (BAD, "negative"))[i % 2]
        words = [words[(i + k) % 4] for k in range(1 + i % 4)]
        rows.append({"text": f"The {THINGS[i % 6]} was {' and '.join(words)}.", "label": label})
    return rows


@dataclass
class Small:
    """Rows bound to a tiny model; `model` makes a fresh one with a new head, always the same."""

    prepared: Prepared
    plan: Plan

    def model(self, seed: int = 0) -> torch.nn.Module:
        seed_all(seed, "new head")
        return self.prepared.task.build(self.prepared.source, self.prepared.config).model

    def phases(self, *wanted: tuple[Span, int], **changes: Any) -> list[PlannedPhase]:
        """Phases of (span, steps), the same rate of 3e-3 for all groups unless `changes` say otherwise."""
        groups = LayerGroups.of(self.model())
        found = []
        for span, steps in wanted:
            chosen = groups.select(span)
            trained = [g for g in groups.names if chosen & groups.parameters(g).keys()]
            size = sum(p.numel() for g in trained for n, p in groups.parameters(g).items() if n in chosen)
            phase = replace(
                self.plan.phases[0], name=str(span), span=span, steps=steps, epochs=1.0, warmup_steps=0, decay="linear",
                learning_rates=dict.fromkeys(trained, 3e-3), evaluate_every=0, patience=None, trainable_parameters=size,
            )  # fmt: skip
            found.append(replace(phase, **changes))
        return found

    def engine(
        self,
        folder: Path,
        phases: Sequence[PlannedPhase],
        *,
        train: Sequence[Any] | None = None,
        validation: Sequence[Any] | None = None,
        model: torch.nn.Module | None = None,
        task: Any = None,
        observers: Sequence[Callable[[Event], bool | None]] = (),
        **changes: Any,
    ) -> Engine:
        """An engine on a new run in `folder`, or on the run that is there."""
        task = task or self.prepared.task
        run = Run(folder) if (folder / "status.json").is_file() else Run.create(folder, recipe_yaml="", plan={})
        return Engine(
            task,
            model if model is not None else self.model(),
            phases,
            replace(self.plan.settings, **{**SETTINGS, **changes}),
            Rows(task, train if train is not None else self.prepared.train_examples),
            Rows(task, validation) if validation else None,
            run,
            observers=observers,
        )


def small(folder: Path, rows: Sequence[dict[str, Any]] | None = None, *, dropout: bool = True, **recipe: Any) -> Small:
    """Rows (default: `reviews`) bound to a tiny BERT that is written into `folder`."""
    rows = list(rows) if rows is not None else reviews()
    texts = [str(row["text"]) for row in rows]
    if not (folder / "config.json").is_file():
        tiny_model(folder, texts=texts, **({} if dropout else NO_DROPOUT))
    built = Recipe.build({"model": str(folder), "data.validation": 0.0, "cache.enabled": False, **recipe})
    prepared = prepare(built, rows)
    found = Small(prepared, make(prepared, find_machine(1)))
    found.model()
    # Every phase ends with a full garbage collection: what the imports left need not be looked through each time.
    gc.freeze()
    return found


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 over all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
