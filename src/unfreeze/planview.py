"""The plan as a person reads it in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from unfreeze.costs import as_rows
from unfreeze.plan import Choice, Plan, PlannedPhase


def print_plan(plan: Plan, console: Console) -> None:
    """Print data, choices with their reasons, phases and expected cost."""
    _print_data(plan, console)
    console.print(_choices(plan.choices))
    console.print(_phases(plan.phases))
    for name, text in as_rows(plan.expected):
        console.print(f"[bold]{name}[/bold]  {escape(text)}", highlight=False)
    for warning in plan.warnings:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}", highlight=False)


def _print_data(plan: Plan, console: Console) -> None:
    rows = ", ".join(f"{n:,} {split}" for split, n in plan.data["rows"].items())
    roles = plan.data["roles"]
    console.print(f"[bold]data[/bold]  {escape(plan.data['name'])}: {rows} rows", highlight=False)
    label = f", label {roles['label']!r}" if roles["label"] else ""
    console.print(f"      text {', '.join(map(repr, roles['text']))}{escape(label)}", highlight=False)
    for sentence in [*plan.data["notes"], *plan.data["sentences"]]:
        console.print(f"      {escape(sentence)}", highlight=False, style="dim")


def _choices(choices: list[Choice]) -> Grid:
    grid = Grid(box=None, pad_edge=False, show_header=True, header_style="bold")
    for column in ("plan", "value", "from", "why"):
        grid.add_column(column, overflow="fold")
    for choice in choices:
        grid.add_row(escape(choice.key), escape(_shown(choice.value)), escape(choice.source), escape(choice.reason))
    return grid


def _phases(phases: list[PlannedPhase]) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for column in ("phase", "trains", "steps", "epochs", "rates, from the head down", "evaluated"):
        grid.add_column(column, overflow="fold")
    for number, phase in enumerate(phases, start=1):
        rates = " ".join(f"{rate:.1e}" for rate in phase.learning_rates.values())
        every = f"every {phase.evaluate_every} steps" if phase.evaluate_every else "never"
        grid.add_row(
            f"{number} {escape(phase.name)}",
            f"{phase.trainable_parameters:,} weights",
            str(phase.steps),
            f"{phase.epochs:g}",
            rates,
            every,
        )
    return grid


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        if set(value) == {"value", "unit"}:
            return f"{value['value']:g} {value['unit']}"
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
