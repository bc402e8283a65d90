"""`unfreeze demo`: the whole way on data that comes with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from unfreeze.errors import TaskError, did_you_mean

KINDS = ("text",)
_NEW_REVIEWS = (
    "Arrived a day early and does exactly what it says.",
    "Two weeks in and it already squeaks; I would not buy it again.",
    "I did not expect much, and I have recommended it to everyone since.",
)


def run(kind: str, output_folder: str | None, output: Console, progress: Console) -> Path:
    """Fine-tune builtin:text on the packaged reviews and label three new ones.

    Returns:
        The folder of the run.

    Raises:
        TaskError: E-TASK-UNKNOWN for a kind there is no demonstration of.
    """
    if kind not in KINDS:
        raise TaskError("TASK-UNKNOWN", f"there is no demo '{kind}'", remedy=did_you_mean(kind, KINDS))
    from unfreeze import api
    from unfreeze.report.text import summary_lines
    from unfreeze.run import free_folder

    folder = output_folder or free_folder(api.RUNS_FOLDER, "demo")
    with resources.as_file(resources.files("unfreeze") / "samples" / "reviews.csv") as reviews:
        found = api.train(reviews, output=folder, console=progress)
    output.print()
    for line in summary_lines(found):
        output.print(line, highlight=False)
    output.print("\n[bold]Three new reviews[/bold]")
    for text, prediction in zip(_NEW_REVIEWS, found.predict(list(_NEW_REVIEWS)), strict=True):
        output.print(
            f"  {prediction.label:9} {prediction.probability:.2f}  {escape(text)}", highlight=False, soft_wrap=True
        )
    output.print("\nTry your own texts, and your own file of texts and labels:")
    for command in (f'unfreeze predict {found.folder} "..."', "unfreeze train FILE.csv"):
        output.print(f"  {escape(command)}", highlight=False, soft_wrap=True)
    return found.folder
