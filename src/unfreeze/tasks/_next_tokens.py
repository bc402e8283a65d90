"""What tasks share in which a language model guesses tokens of plain text."""

from __future__ import annotations

import copy
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.baselines import Baseline
from unfreeze.data.columns import Roles, guess_roles
from unfreeze.errors import DataError, RecipeError
from unfreeze.metrics import PairedState, TokenState
from unfreeze.tasks._text import NOT_A_TARGET
from unfreeze.tasks.base import Material, Task
from unfreeze.types import Batch

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe


def add(state: TokenState, logits: torch.Tensor, gold: torch.Tensor) -> None:
    """Count tokens.

    Args:
        logits: (..., vocabulary).
        gold: (...), `NOT_A_TARGET` where there is nothing to guess.
    """
    scores, gold = logits.detach().float().flatten(0, -2), gold.flatten()
    is_real = gold != NOT_A_TARGET
    nats = (
        float(F.cross_entropy(scores, gold, reduction="sum", ignore_index=NOT_A_TARGET)) if bool(is_real.any()) else 0.0
    )
    state.update(nats, int(((scores.argmax(-1) == gold) & is_real).sum()), int(is_real.sum()))


class PlainTexts(Task):
    """A pretrained language model goes on with its pretraining: one column of texts, no labels, the head as it came.

    Class attributes:
        auto_class: Name of the class of transformers whose models guess tokens so.
    """

    auto_class: ClassVar[str]
    primary_metric: ClassVar[str] = "perplexity"
    compares_with: ClassVar[tuple[str, ...]] = ("untouched",)
    needs_label: ClassVar[bool] = False
    splits_long_rows: ClassVar[bool] = True

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        if asked is not None and asked.label is not None:
            what = f"the task {self.name} learns from texts alone, without a label"
            raise RecipeError("RECIPE-CONFLICT", what, where="data.label", remedy="leave data.label out")
        text, group = (asked.text, asked.group) if asked else (None, None)
        roles = guess_roles(table, text=text, group=group, needs_label=False)
        if len(roles.text) > 1:
            raise DataError(
                "DATA-COLUMN",
                f"the task {self.name} goes on with the texts of one column, and there are {len(roles.text)}: "
                f"{', '.join(roles.text)}",
                where=table.place(0),
                remedy=f"--set data.text={roles.text[0]}, or a file with all texts in one column",
            )
        return roles

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> None:
        return None

    def restore_targets(self, stored: Any) -> None:
        return None

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        import transformers

        from unfreeze.models.loading import load_model

        kind, allowed = getattr(transformers, self.auto_class), self.allows_remote_code
        return load_model(kind, source, config, head_is_new=False, allow_remote_code=allowed)

    def skeleton(self, config: Any) -> torch.nn.Module:
        import transformers

        return getattr(transformers, self.auto_class).from_config(copy.deepcopy(config), dtype=torch.float32)

    # the model's answers -----------------------------------------------------------------------------------------

    @abstractmethod
    def guessed(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The scores of the vocabulary where a token is asked for, (tokens, vocabulary), example after example."""

    def metric(self) -> NextTokenMetric:
        return NextTokenMetric(lambda outputs, batch: (self.guessed(outputs, batch), _asked(batch)))

    def answers(self, outputs: torch.Tensor, batch: Batch) -> list[tuple[float, int]]:
        """Negative log-probability of an example's tokens, in nats, summed; and how many they are."""
        losses = F.cross_entropy(self.guessed(outputs, batch).detach().float(), _asked(batch), reduction="none")
        counts = (batch.targets != NOT_A_TARGET).sum(-1).tolist()
        return [(float(part.double().sum()), len(part)) for part in torch.split(losses, counts)]

    def whole_answer(self, parts: Sequence[tuple[float, int]]) -> tuple[float, int]:
        return sum(nats for nats, _ in parts), sum(count for _, count in parts)

    # beside the model as it was ----------------------------------------------------------------------------------

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        def untouched() -> Baseline:
            started = time.perf_counter()
            nats = np.asarray([nats for nats, _ in material.answers()])
            return Baseline("untouched", "the model as it was before", nats, time.perf_counter() - started)

        return {"untouched": untouched}

    def comparison(self, table: Table, answers: Sequence[Any]) -> Callable[[Baseline], PairedState]:
        ours, counts = np.asarray(answers, dtype=np.float64).reshape(-1, 2).T

        def beside(baseline: Baseline) -> PairedState:
            paired = PairedState("tokens")
            paired.update(counts, ours, np.asarray(baseline.predictions))
            return paired

        return beside


def _asked(batch: Batch) -> torch.Tensor:
    """The true tokens, (tokens,)."""
    return batch.targets[batch.targets != NOT_A_TARGET]


class NextTokenMetric:
    """`TokenState` over batches.

    Args:
        guessed: Logits (tokens, vocabulary) and the true tokens of a batch, from its outputs.
    """

    def __init__(self, guessed: Callable[[torch.Tensor, Batch], tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.guessed, self.state = guessed, TokenState()

    def update(self, outputs: torch.Tensor, batch: Batch) -> None:
        add(self.state, *self.guessed(outputs, batch))

    def merge(self, other: NextTokenMetric) -> None:
        self.state.merge(other.state)

    def compute(self) -> dict[str, float | None]:
        return self.state.compute()

    def intervals(self) -> dict[str, tuple[float, float]]:
        return {}

    def details(self) -> dict[str, Any]:
        return {"reasons": self.state.reasons}
