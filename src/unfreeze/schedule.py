"""Schedules are data: a list of phases, each with a trainable span, a length and rates.

*Gradual unfreezing* and *discriminative learning rates* are those of ULMFiT (Howard and Ruder 2018, arXiv 1801.06146,
sections 3.2 and 3.3): train the new head first, then let layer groups join from the top, the lower ones at lower rates.
We differ in two ways: groups join in a few steps (head, upper half, all) rather than one by one, which costs less and
loses nothing we could measure, and the decay is linear by default rather than slanted triangular.

Example:
    >>> [phase.name for phase in gradual().phases]
    ['head', 'upper half', 'all']
    >>> Schedule.parse("last(2)").phases[-1].span
    'last(2)'
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from unfreeze.errors import RecipeError, did_you_mean
from unfreeze.types import Duration

Span = str | list[str]
_LAST = re.compile(r"last\(\s*([0-9]+|half)\s*\)\Z")
NAMES = ("head", "last(k)", "gradual", "full")


def _read_duration(value: Any) -> Any:
    return value if value is None else Duration.parse(value)


def _read_span(value: Any) -> Any:
    if isinstance(value, list):
        if not value or not all(isinstance(item, str) and item for item in value):
            raise RecipeError("SCHEDULE", "a span is a list of name patterns, such as ['*.layer.5.*', 'classifier.*']")
        return value
    text = str(value).strip()
    match = _LAST.match(text)
    if text in ("head", "all") or (match and match[1] != "0"):
        return text
    raise RecipeError("SCHEDULE", f"unknown span {text!r}: {did_you_mean(text, ['head', 'all', 'last(2)', 'last(half)'])}")


class Phase(BaseModel):
    """A stretch of training with one trainable span.

    Attributes:
        span: ``head``; ``last(k)``, the head and the top k layer groups; ``last(half)``; ``all``; or a list of
            patterns over parameter or group names, such as ``["*.layer.5.*", "head"]``.
        epochs: Length; None lets the plan share out the run's length.
        share: This phase's part of the run's length where `epochs` is None.
        learning_rate: Rate of the topmost pretrained group that trains; None: decided by the plan.
        head_learning_rate: Rate of the head; None: decided by the plan.
        layer_decay: Factor on the rate for each group further down; None: decided by the plan.
        warmup_fraction: Share of the phase's steps in which the rate rises from 0.
        decay: How the rate falls afterwards.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = ""
    span: Annotated[Span, BeforeValidator(_read_span)]
    epochs: Annotated[Duration, BeforeValidator(_read_duration)] | None = None
    share: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    decay: Literal["linear", "cosine", "constant"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _name_after_span(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name") and "span" in values:
            span = values["span"]
            values = {**values, "name": ", ".join(span) if isinstance(span, list) else str(span)}
        return values


class Schedule(BaseModel):
    """A named list of phases, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    phases: tuple[Phase, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_text_or_list(cls, value: Any) -> Any:
        if isinstance(value, str | list | tuple):
            parsed = cls.parse(value)
            return {"name": parsed.name, "phases": parsed.phases}
        return value

    @classmethod
    def parse(cls, value: str | list[Any] | tuple[Any, ...] | Schedule) -> Schedule:
        """A schedule from its name (``"gradual"``), or from a list of phases.

        Raises:
            RecipeError: E-SCHEDULE, with the phase and a suggestion.
        """
        if isinstance(value, Schedule):
            return value
        if isinstance(value, str):
            return cls._named(value.strip())
        if not value:
            raise RecipeError("SCHEDULE", "a schedule needs at least one phase")
        phases = []
        for number, item in enumerate(value, start=1):
            try:
                phases.append(item if isinstance(item, Phase) else Phase.model_validate(_plain_phase(item, number)))
            except ValidationError as error:
                raise RecipeError("SCHEDULE", _first_problem(error, number), where=f"phase {number}") from None
        return cls.model_construct(name="phases of your own", phases=tuple(phases))

    @classmethod
    def _named(cls, name: str) -> Schedule:
        builders = {"head": head, "gradual": gradual, "full": full}
        if name in builders:
            return builders[name]()
        if (match := _LAST.match(name)) and match[1] not in ("0", "half"):
            return last(int(match[1]))
        raise RecipeError("SCHEDULE", f"there is no schedule {name!r}: {did_you_mean(name, [*builders, 'last(2)'])}")

    def to_plain(self) -> str | list[dict[str, Any]]:
        """What one would write in a recipe to get this schedule."""
        if self.name in ("head", "gradual", "full") or _LAST.match(self.name):
            if self == self._named(self.name):
                return self.name
        plain = []
        for phase in self.phases:
            values = phase.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            if phase.epochs is not None:
                values["epochs"] = str(phase.epochs)
            plain.append(values)
        return plain

    def __add__(self, other: Schedule) -> Self:
        return self.__class__.model_construct(name="phases of your own", phases=self.phases + other.phases)


def _plain_phase(item: Any, number: int) -> Any:
    if isinstance(item, str):
        return {"span": item}
    if not isinstance(item, dict):
        raise RecipeError("SCHEDULE", f"a phase is 'span: ...' with its settings, not {item!r}", where=f"phase {number}")
    unknown = [key for key in item if key not in Phase.model_fields]
    if unknown:
        raise RecipeError(
            "SCHEDULE",
            f"unknown key {unknown[0]!r}: {did_you_mean(str(unknown[0]), Phase.model_fields)}",
            where=f"phase {number}",
        )
    return item


def _first_problem(error: ValidationError, number: int) -> str:
    problem = error.errors()[0]
    cause = problem.get("ctx", {}).get("error")
    key = ".".join(str(p) for p in problem["loc"][:1])
    return f"{key}: {getattr(cause, 'what', None) or problem['msg'].lower()}"


def head(epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train the new head only; the backbone stays as it is. Quickest, and the least it can forget."""
    return Schedule.model_construct(name="head", phases=(Phase(name="head", span="head", epochs=epochs, **settings),))


def last(k: int, epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train the head first, then the head and the top `k` layer groups."""
    top = Phase(name=f"last {k}", span=f"last({k})", share=3, epochs=epochs, **settings)
    return Schedule.model_construct(name=f"last({k})", phases=(Phase(name="head", span="head", share=1), top))


def gradual(epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train the head, then the upper half of the layers, then all, at rates that fall towards the input.

    Args:
        epochs: Length over all phases; None lets the plan choose by the number of rows.
        **settings: Fields of `Phase` for every phase but the first.
    """
    total = None if epochs is None else Duration.parse(epochs)

    def part(share: float) -> Duration | None:
        return None if total is None else Duration(total.value * share, total.unit)

    return Schedule.model_construct(
        name="gradual",
        phases=(
            Phase(name="head", span="head", share=1, epochs=part(0.2)),
            Phase(name="upper half", span="last(half)", share=2, epochs=part(0.4), **settings),
            Phase(name="all", span="all", share=2, epochs=part(0.4), **settings),
        ),
    )


def full(epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train everything from the first step, as the usual fine-tuning script does."""
    return Schedule.model_construct(name="full", phases=(Phase(name="full", span="all", epochs=epochs, **settings),))
