"""Labels that a model was fine-tuned on before, beside those it is to learn now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeVar


class Labels(Protocol):
    """What a task learned of its labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the model's outputs."""

    @property
    def problem_type(self) -> str:
        """As in transformers' configurations, where they have one for it."""

    def in_order_of(self, labels: Sequence[str]) -> Self:
        """The same labels in another order."""


L = TypeVar("L", bound=Labels)


def continued(targets: L, config: Any, name: str) -> tuple[L, list[str]]:
    """The same labels keep the head of a model that was fine-tuned before, any other set gets a new one.

    Args:
        targets: As learned from the training rows.
        config: Of the model.
        name: The model's, for the sentences.

    Returns:
        Targets in the order of the model's outputs where its head goes on; and what is to be said.
    """
    names = getattr(config, "id2label", None) or {}
    before = [str(names[i]) for i in sorted(names)]
    if not targets.labels or not before or all(n.startswith("LABEL_") for n in before):
        return targets, []
    now = set(targets.labels)
    if set(before) == now and getattr(config, "problem_type", None) in (None, targets.problem_type):
        return targets.in_order_of(before), [f"{name} knows these {len(now)} labels already: its head goes on"]
    gone, fresh = sorted(set(before) - now), sorted(now - set(before))
    parts = [f"new: {', '.join(fresh[:8])}"] * bool(fresh) + [f"gone: {', '.join(gone[:8])}"] * bool(gone)
    return targets, [f"the head of {name} has other labels and is replaced ({'; '.join(parts)})"]
