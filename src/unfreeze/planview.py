"""The plan as a person reads it in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as Grid

from unfreeze.costs import as_rows
from unfreeze.plan import Choice, Plan, PlannedPhase


def print_plan(plan: Plan, console: Console) -> None:
    """Print data, choices with their reasons, phases and expected cost."""
    _print_data(plan, console)
    console.print()
    console.print(_choices(plan.choices))
    console.print()
    console.print(_phases(plan))
    for number, phase in enumerate(plan.phases, start=1):
        if phase.source_reason:
            console.print(f"{number} {escape(phase.source_reason)}", highlight=False, style="dim")
    console.print()
    for name, text in as_rows(plan.expected):
        console.print(f"[bold]{name:8}[/bold]{escape(text)}", highlight=False)
    for warning in plan.warnings:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}", highlight=False)


def _print_data(plan: Plan, console: Console) -> None:
    rows = ", ".join(f"{n:,} {split}" for split, n in plan.data["rows"].items())
    console.print(f"[bold]data[/bold]    {escape(plan.data['name'])}: {rows} rows", highlight=False)
    for sentence in [*plan.data["notes"], *plan.data["sentences"]]:
        console.print(Padding(escape(sentence), (0, 0, 0, 8)), highlight=False, style="dim")


def _choices(choices: list[Choice]) -> Grid:
    """Keys are never broken over lines: they are what one types after ``--set``."""
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column("plan", no_wrap=True)
    grid.add_column("value", overflow="fold")
    grid.add_column("why", overflow="fold")
    for choice in choices:
        why = choice.reason if choice.source == "plan" else ". ".join(filter(None, (_named(choice), choice.reason)))
        grid.add_row(escape(choice.key), escape(_shown(choice.value)), escape(why))
    return grid


def _named(choice: Choice) -> str:
    return "named by you" if choice.source == "argument" else f"named in {choice.source}"


def _phases(plan: Plan) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column("phase")
    for column in ("weights trained", "steps", "epochs"):
        grid.add_column(column, justify="right")
    grid.add_column("peak rates")
    grid.add_column("evaluated")
    total = sum(group["parameters"] for group in plan.groups)
    for number, phase in enumerate(plan.phases, start=1):
        grid.add_row(
            f"{number} {escape(phase.name)}",
            f"{phase.trainable_parameters:,} ({phase.trainable_parameters / max(1, total):.0%})",
            f"{phase.steps:,}",
            f"{phase.epochs:.3g}",
            _rates(phase),
            _evaluated(phase),
        )
    return grid


def _rates(phase: PlannedPhase) -> str:
    """The head's rate, then those of the topmost and the lowest group that trains."""
    head = [f"{rate:.2g} head" for name, rate in phase.learning_rates.items() if name == "head"]
    body = [rate for name, rate in phase.learning_rates.items() if name != "head"]
    if body:
        head.append(f"{body[0]:.2g}" if body[0] == body[-1] else f"{body[0]:.2g} to {body[-1]:.2g}")
    return ", ".join(head)


def _evaluated(phase: PlannedPhase) -> str:
    if not phase.evaluate_every:
        return "never"
    return "every step" if phase.evaluate_every == 1 else f"every {phase.evaluate_every:,} steps"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        if set(value) == {"value", "unit"}:
            return f"{value['value']:g} {value['unit']}"
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
