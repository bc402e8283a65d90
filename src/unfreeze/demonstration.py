"""`unfreeze demo`: the whole way on data that comes with the package, or with a library it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.markup import escape

from unfreeze.errors import TaskError, did_you_mean
from unfreeze.recipe import RUNS_FOLDER

if TYPE_CHECKING:
    from unfreeze.api import TrainedRun

_NEW_REVIEWS = (
    "Arrived a day early and does exactly what it says.",
    "Two weeks in and it already squeaks; I would not buy it again.",
    "I did not expect much, and I have recommended it to everyone since.",
)
# Of the 1,797 digits of scikit-learn (from UCI's Optical Recognition of Handwritten Digits, CC BY 4.0): enough to learn
# from in half a minute. The next few are the new ones.
_DIGITS, _NEW_DIGITS, _EDGE = 900, 3, 32


class _Shown(NamedTuple):
    """What a demonstration has done.

    Attributes:
        run: Trained.
        title: Over the answers.
        new: Inputs no training has seen, as `predict` takes them.
        ways: Commands to go on with.
    """

    run: TrainedRun
    title: str
    new: tuple[str, ...]
    ways: tuple[str, ...]


def run(kind: str, output_folder: str | None, output: Console, progress: Console) -> Path:
    """Fine-tune a builtin model on sample data and answer three new rows.

    Args:
        kind: ``text``: reviews, by builtin:text. ``image``: written digits, by builtin:image.
        output_folder: Of the run; None: a free one in ``runs``.
        output, progress: Where the outcome goes, and what happens on the way.

    Returns:
        The folder of the run.

    Raises:
        TaskError: E-TASK-UNKNOWN for a kind there is no demonstration of.
    """
    if kind not in KINDS:
        raise TaskError("TASK-UNKNOWN", f"there is no demo '{kind}'", remedy=did_you_mean(kind, list(KINDS)))
    from unfreeze.models.loading import resolve
    from unfreeze.report.text import summary_lines
    from unfreeze.run import check_is_free, free_folder

    folder = Path(output_folder) if output_folder else free_folder(RUNS_FOLDER, f"demo-{kind}")
    check_is_free(folder)
    resolve(f"builtin:{kind}")
    shown = KINDS[kind](folder, progress)
    output.print()
    for line in summary_lines(shown.run):
        output.print(line, highlight=False)
    output.print(f"\n[bold]{shown.title}[/bold]")
    for new, prediction in zip(shown.new, shown.run.predict(list(shown.new)), strict=True):
        line = f"  {prediction.label:9} {prediction.probability:.2f}  {escape(new)}"
        output.print(line, highlight=False, soft_wrap=True)
    output.print("\nGo on with your own:")
    for command in shown.ways:
        output.print(f"  {escape(command)}", highlight=False, soft_wrap=True)
    return shown.run.folder


def _reviews(folder: Path, progress: Console) -> _Shown:
    from unfreeze import api

    with resources.as_file(resources.files("unfreeze") / "samples" / "reviews.csv") as reviews:
        found = api.train(reviews, output=folder, console=progress)
    ways = f'unfreeze predict {found.folder} "..."', "unfreeze train FILE.csv"
    return _Shown(found, "Three new reviews", _NEW_REVIEWS, ways)


def _digits(folder: Path, progress: Console) -> _Shown:
    from unfreeze import api
    from unfreeze.run import free_folder

    pictures = free_folder(folder.parent, f"{folder.name}-digits")
    new = _write_digits(pictures)
    # Left and right of a digit are not alike.
    found = api.train(pictures / "train", output=folder, console=progress, settings=["options.mirror=false"])
    ways = f"unfreeze predict {found.folder} PICTURE.png", "unfreeze train FOLDER  (one folder of pictures a class)"
    return _Shown(found, "Three new digits", new, ways)


def _write_digits(folder: Path) -> tuple[str, ...]:
    """Digits as a person would have them: ``train/CLASS/NUMBER.png``, and new ones in ``new``; returns those."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    found, new = load_digits(), []
    for i, (ink, digit) in enumerate(zip(found.images, found.target, strict=True)):
        if i == _DIGITS + _NEW_DIGITS:
            break
        place = folder / "train" / str(digit) if i < _DIGITS else folder / "new"
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((255 - 255 / 16 * ink).astype(np.uint8))
        name = f"{i:04}.png" if i < _DIGITS else f"{i:04}-a-{digit}.png"
        picture.resize((_EDGE, _EDGE), Image.Resampling.BICUBIC).save(place / name)
        if i >= _DIGITS:
            new.append(str(place / name))
    return tuple(new)


KINDS: dict[str, Callable[[Path, Console], _Shown]] = {"text": _reviews, "image": _digits}
