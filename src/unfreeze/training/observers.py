"""Observers see a run's events as they happen; one may ask to stop. They change nothing."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from unfreeze.run import Event


class Observer(Protocol):
    """Called with every event; a true answer asks the engine to end the run after this step, with a checkpoint."""

    def __call__(self, event: Event) -> bool | None: ...


class ProgressBar:
    """One bar a phase with the time left, and a line for each evaluation and notice.

    Where the output is no terminal, only the lines are printed.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.bar: TaskID | None = None
        self._average: float | None = None

    def __enter__(self) -> ProgressBar:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event.kind}", None)
        if handler is not None:
            handler(event)

    def _on_phase(self, event: Event) -> None:
        values = event.values
        if self.bar is not None:
            self.progress.remove_task(self.bar)
        title = f"phase {values['number']}/{values['of']} {values['name']}"
        self.bar = self.progress.add_task(title, total=values["steps"], completed=values["done"], loss="-")
        self.console.print(
            f"[bold]{escape(title)}[/bold]: {values['steps']} steps, {values['trainable']:,} parameters train",
            highlight=False,
        )

    def _on_step(self, event: Event) -> None:
        loss = float(event.values["loss"])
        self._average = loss if self._average is None else 0.9 * self._average + 0.1 * loss
        if self.bar is not None and not self.progress.disable:
            self.progress.update(self.bar, completed=event.values["phase_step"], loss=f"{self._average:.3f}")

    def _on_evaluation(self, event: Event) -> None:
        values = event.values
        mark = "  (best so far)" if values["is_best"] else ""
        # The loss and what the task leads with; the rest is in the records.
        leading = list(values["metrics"].items())[:3]
        shown = ", ".join(f"{k} {v:.4f}" for k, v in leading if isinstance(v, float))
        self.console.print(f"  step {event.step}: {shown}{mark}", highlight=False)

    def _on_notice(self, event: Event) -> None:
        self.console.print(f"  note: {event.values['text']}", highlight=False, markup=False)
