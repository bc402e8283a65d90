"""Schedules are data: a list of phases, each with a trainable span, a length and rates.

*Gradual unfreezing* and *discriminative learning rates* are those of ULMFiT (Howard and Ruder 2018, arXiv 1801.06146,
sections 3.2 and 3.3): train the new head first, then let layer groups join from the top, the lower ones at lower rates.
We differ in two ways: groups join in a few steps (head, upper half, all) rather than one by one, which costs less, and
the decay is linear by default rather than slanted triangular.

Example:
    >>> [phase.name for phase in gradual().phases]
    ['head', 'upper half', 'all']
    >>> Schedule.parse("last(2)").phases[-1].span
    'last(2)'
"""

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from unfreeze.errors import RecipeError, did_you_mean
from unfreeze.types import Duration

Span = str | list[str]
OWN_PHASES = "phases of your own"
_LAST = re.compile(r"last\(\s*(0*[1-9][0-9]*|half)\s*\)\Z", re.ASCII)
_SPAN_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^(head|all|last\([0-9]+\)|last\(half\))$"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ]
}
LENGTH_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9.]+(e[0-9]+)?\s*(epochs?|steps?)?\s*$"},
    ]
}


def read_length(value: Any) -> Any:
    """A pydantic validator: a length of training, or None.

    Raises:
        ValueError: With what is wrong and how to write it, so that pydantic lists it among the other problems.
    """
    try:
        return value if value is None else Duration.parse(value)
    except RecipeError as error:
        raise ValueError(f"{error.what}: {error.remedy}") from None


def length_text(length: Duration) -> str:
    """What reads back as exactly this length: ``1.5 epochs``. Unlike `str`, all digits."""
    return f"{Decimal(str(length.value)):f} {length.unit}"


def _read_span(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if not value or not all(isinstance(item, str) and item for item in value):
            raise ValueError("a list of name patterns, such as ['*.layer.5.*', 'head'], is wanted")
        return list(value)
    text = str(value).strip()
    if (match := _LAST.match(text)) is not None:
        return f"last({match[1] if match[1] == 'half' else int(match[1])})"
    if text in ("head", "all"):
        return text
    known = ["head", "all", "last(2)", "last(half)"]
    raise ValueError(f"there is no span {text!r}: {did_you_mean(text, known)}; patterns are written as a list")


class Phase(BaseModel):
    """A stretch of training with one trainable span.

    Attributes:
        span: ``head``; ``last(k)``, the head and the top k layer groups; ``last(half)``; ``all``; or a list of
            patterns over parameter or group names, such as ``["*.layer.5.*", "head"]``.
        epochs: Length, such as 2 or "200 steps"; None lets the plan share out the run's length.
        share: This phase's part of the run's length where `epochs` is None.
        learning_rate: Rate of the topmost pretrained group that trains; None: decided by the plan.
        head_learning_rate: Rate of the head; None: decided by the plan.
        layer_decay: Factor on the rate for each group further down; None: decided by the plan.
        warmup_fraction: Share of the phase's steps in which the rate rises from 0.
        decay: How the rate falls afterwards.

    Raises:
        RecipeError: E-SCHEDULE, a field that does not exist or has an impossible value.

    Example:
        >>> Phase(span="last(2)", epochs=1.5, layer_decay=0.9).name
        'last(2)'
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = ""
    span: Annotated[Span, BeforeValidator(_read_span), WithJsonSchema(_SPAN_SCHEMA)]
    epochs: Annotated[Duration | None, BeforeValidator(read_length), WithJsonSchema(LENGTH_SCHEMA)] = None
    share: Annotated[float, Field(gt=0, strict=True)] = 1.0
    learning_rate: Annotated[float, Field(gt=0, strict=True)] | None = None
    head_learning_rate: Annotated[float, Field(gt=0, strict=True)] | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    warmup_fraction: Annotated[float, Field(ge=0, lt=1, strict=True)] | None = None
    decay: Literal["linear", "cosine", "constant"] = "linear"

    def __init__(self, **values: Any) -> None:
        unknown = [key for key in values if key not in Phase.model_fields]
        if unknown:
            what = f"a phase has no {unknown[0]!r}: {did_you_mean(unknown[0], Phase.model_fields)}"
            raise RecipeError("SCHEDULE", what)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError("SCHEDULE", _problems(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _name_after_span(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name") and "span" in values:
            span = values["span"]
            values = {**values, "name": ", ".join(span) if isinstance(span, list) else str(span)}
        return values


class Schedule(BaseModel):
    """A named list of phases, in order. Made by `head`, `last`, `gradual`, `full` or `Schedule.parse`.

    Example:
        >>> warm_up = Schedule.parse([{"span": "head", "epochs": "20 steps"}, {"span": "all"}])
        >>> [phase.name for phase in (warm_up + last(1)).phases]
        ['head', 'all', 'head', 'last 1']
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    phases: tuple[Phase, ...]

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
        if not isinstance(value, list | tuple):
            raise RecipeError(
                "SCHEDULE",
                f"a schedule is a name or a list of phases, not {shortened(value)}",
                where="schedule",
                remedy="write for example: schedule: gradual",
            )
        if not value:
            raise RecipeError("SCHEDULE", "a schedule needs at least one phase", where="schedule")
        return cls(name=OWN_PHASES, phases=tuple(_phase(item, number) for number, item in enumerate(value, start=1)))

    @classmethod
    def _named(cls, name: str) -> Schedule:
        builders = {"head": head, "gradual": gradual, "full": full}
        if name in builders:
            return builders[name]()
        if (match := _LAST.match(name)) and match[1] != "half":
            return last(int(match[1]))
        if name.startswith("last"):
            known = "last(k) trains the head and the k topmost layer groups: last(1), last(2) ..."
        else:
            known = did_you_mean(name, [*builders, "last(2)"])
        raise RecipeError("SCHEDULE", f"there is no schedule {shortened(name)}", where="schedule", remedy=known)

    def to_plain(self) -> str | list[dict[str, Any]]:
        """What one would write in a recipe to get these phases."""
        if self.name != OWN_PHASES and self == self._named(self.name):
            return self.name
        plain = []
        for phase in self.phases:
            values = phase.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            if phase.epochs is not None:
                values["epochs"] = length_text(phase.epochs)
            plain.append(values)
        return plain

    def __add__(self, other: Schedule) -> Schedule:
        return Schedule(name=OWN_PHASES, phases=self.phases + other.phases)

    def for_a_head_that_is_there(self) -> Schedule:
        """Without the phase in which a named schedule trains a new head before anything below it is moved."""
        begins_with_it = self.name != OWN_PHASES and len(self.phases) > 1 and self.phases[0].span == "head"
        return Schedule(name=self.name, phases=self.phases[1:]) if begins_with_it else self


def _phase(item: Any, number: int) -> Phase:
    if isinstance(item, Phase):
        return item
    if isinstance(item, str):
        item = {"span": item}
    if not isinstance(item, dict):
        what = f"a phase is 'span: ...' with its settings, not {shortened(item)}"
        raise RecipeError("SCHEDULE", what, where=f"schedule, phase {number}")
    try:
        return Phase(**{str(key): value for key, value in item.items()})
    except RecipeError as error:
        raise RecipeError(error.code, error.what, where=f"schedule, phase {number}", remedy=error.remedy) from None


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{p['loc'][0] if p['loc'] else 'span'}: {sentence(p)}" for p in error.errors())


_KINDS = {
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "a text",
}


def sentence(problem: Any) -> str:
    """One of pydantic's problems, as the end of a sentence that starts with the key."""
    kind = problem["type"]
    if kind == "missing":
        return "has to be named"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    text = f"should be {_KINDS[kind]}" if kind in _KINDS else problem["msg"].removeprefix("Input ")
    return f"{text} (given: {shortened(problem['input'])})"


def shortened(value: Any, length: int = 60) -> str:
    """A value for a message, quoted, not longer than `length` characters."""
    text = repr(value[:length] if isinstance(value, str) else value)
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def head(epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train the new head only; the backbone stays as it is. Quickest, and it forgets nothing.

    Args:
        epochs: Length; None lets the plan choose by the number of rows.
        **settings: Fields of `Phase`.

    Raises:
        RecipeError: E-SCHEDULE.

    Example:
        >>> head(epochs=2).phases[0].span
        'head'
    """
    return Schedule(name="head", phases=(Phase(name="head", span="head", epochs=epochs, **settings),))


def last(k: int, epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train the head for a quarter of the time, then the head and the top `k` layer groups.

    Args:
        k: From 1 to the number of the model's layer groups; the plan checks it.
        epochs: Length of both phases together; None lets the plan choose by the number of rows.
        **settings: Fields of `Phase` for the second phase.

    Raises:
        RecipeError: E-SCHEDULE.

    Example:
        >>> [phase.span for phase in last(2).phases]
        ['head', 'last(2)']
    """
    first, second = _shared(epochs, (1, 3))
    return Schedule(
        name=f"last({k})",
        phases=(
            Phase(name="head", span="head", share=1, epochs=first),
            Phase(name=f"last {k}", span=f"last({k})", share=3, epochs=second, **settings),
        ),
    )


def gradual(epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train the head, then the upper half of the layers, then all, at rates that fall towards the input.

    Args:
        epochs: Length over all phases; None lets the plan choose by the number of rows.
        **settings: Fields of `Phase` for every phase but the first.

    Raises:
        RecipeError: E-SCHEDULE.

    Example:
        >>> [str(phase.epochs) for phase in gradual(epochs=5).phases]
        ['1 epoch', '2 epochs', '2 epochs']
    """
    first, second, third = _shared(epochs, (1, 2, 2))
    return Schedule(
        name="gradual",
        phases=(
            Phase(name="head", span="head", share=1, epochs=first),
            Phase(name="upper half", span="last(half)", share=2, epochs=second, **settings),
            Phase(name="all", span="all", share=2, epochs=third, **settings),
        ),
    )


def full(epochs: float | str | None = None, **settings: Any) -> Schedule:
    """Train everything from the first step, as the usual fine-tuning script does.

    Args:
        epochs: Length; None lets the plan choose by the number of rows.
        **settings: Fields of `Phase`.

    Raises:
        RecipeError: E-SCHEDULE.

    Example:
        >>> full(learning_rate=2e-5).phases[0].learning_rate
        2e-05
    """
    return Schedule(name="full", phases=(Phase(name="full", span="all", epochs=epochs, **settings),))


def _shared(length: float | str | None, shares: tuple[int, ...]) -> list[Duration | None]:
    """A length shared out; whole steps stay whole."""
    if length is None:
        return [None] * len(shares)
    whole = Duration.parse(length)
    if whole.unit == "epochs":
        return [Duration(whole.value * share / sum(shares)) for share in shares]
    ends = [round(whole.value * sum(shares[:n]) / sum(shares)) for n in range(len(shares) + 1)]
    parts = [Duration(high - low, "steps") for low, high in itertools.pairwise(ends)]
    if not all(part.value for part in parts):
        remedy = f"at least {2 * len(shares)} steps"
        raise RecipeError("SCHEDULE", f"{whole} are too few for {len(shares)} phases", remedy=remedy)
    return list(parts)
