"""Records of cells: appended as they come, read back whatever happened, compared with intervals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

State = Literal["done", "partial", "failed"]
_DRAWS, _F1_DRAWS = 10_000, 2_000


@dataclass(frozen=True)
class Record:
    """One line of ``results/<kind>.jsonl``.

    Attributes:
        cell, kind: As in the table.
        state: ``partial``: the cell goes on at the next call; ``failed``: ``values`` holds the cause.
        date: When it ended, ISO 8601 in UTC.
        seconds: Of the cell's process.
        busy: Share of the processor that others took just before; above a tenth no time of the cell is to be trusted.
        machine: See `measure.machine`.
        values: What was measured.
    """

    cell: str
    kind: str
    state: State
    date: str
    seconds: float
    busy: float
    machine: dict[str, Any]
    values: dict[str, Any]


class Results:
    """All records of a folder.

    Args:
        folder: Holds ``<kind>.jsonl`` files; made when the first record is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, record: Record) -> None:
        """Append a record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{record.kind}.jsonl"
        # A line that was torn when the machine went down must not take the next one with it.
        is_torn = path.is_file() and not path.read_bytes().endswith(b"\n")
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(("\n" if is_torn and path.stat().st_size else "") + json.dumps(asdict(record)) + "\n")

    def read(self) -> list[Record]:
        """Every record, in the order they came within a kind; lines that are not whole are passed over."""
        found = []
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    found.append(Record(**json.loads(line)))
                except (ValueError, TypeError):
                    continue
        return found

    def latest(self) -> dict[str, Record]:
        """The last record of each cell, with the seconds of all its parts since it was done before."""
        found: dict[str, Record] = {}
        for record in self.read():
            before = found.get(record.cell)
            earlier = before.seconds if before is not None and before.state != "done" else 0.0
            found[record.cell] = Record(**{**asdict(record), "seconds": record.seconds + earlier})
        return found

    def finished(self) -> set[str]:
        """Names of the cells that need not run again."""
        return {name for name, record in self.latest().items() if record.state == "done"}


def without_paths(text: str) -> str:
    """A message with every absolute path cut to its last part: records say nothing of the machine's folders.

    >>> without_paths("cannot read '/home/me/data/train.csv'")
    "cannot read 'train.csv'"
    """
    return re.sub(r"(?:/[^\s/'\":,;()]+)+/([^\s/'\":,;()]+)", r"\1", text)


def paired_difference(ours: Sequence[str], theirs: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """Difference of accuracies on the same rows, with its 95 % interval.

    A bootstrap that draws rows and seeds anew: rows because other test rows might have been asked, seeds because other
    training rows might have been drawn. A row's answers of both systems and of all seeds stay together.

    Trap: three seeds can be drawn in few ways, so the part of the interval that comes from them is rough.

    Args:
        ours: For each seed one sign a row, ``1`` for a right answer.
        theirs: The same, of the other system.
        seed: Of the draws.

    Returns:
        ours minus theirs, lower and upper bound, as fractions.
    """
    signs = [np.asarray([[c == "1" for c in line] for line in lines], dtype=np.float64) for lines in (ours, theirs)]
    difference = signs[0] - signs[1]  # (seeds, rows)
    n_seeds, n_rows = difference.shape
    # Rows with the same outcome for every seed are drawn together: the same distribution, a few kinds instead of rows.
    kinds, counts = np.unique(difference, axis=1, return_counts=True)  # (seeds, kinds)
    draw = np.random.default_rng(seed)
    rows = draw.multinomial(n_rows, counts / n_rows, size=_DRAWS) / n_rows  # (draws, kinds)
    seeds = draw.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=_DRAWS) / n_seeds  # (draws, seeds)
    drawn = (rows @ kinds.T * seeds).sum(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)


def f1_of(counts: Sequence[str]) -> float:
    """F1 of the spans of all rows, from `material.counted_spans`."""
    right, found, wanted = (sum(int(c, 36) for c in line) for line in counts)
    return 2 * right / max(1, found + wanted)


def paired_f1_difference(
    ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], seed: int = 0
) -> tuple[float, float, float]:
    """As `paired_difference`, of the mean F1 over seeds; `ours` and `theirs` hold what `f1_of` takes, for each seed."""
    counts = np.asarray([[[[int(c, 36) for c in line] for line in lines] for lines in s] for s in (ours, theirs)])
    n_seeds, n_rows = counts.shape[1], counts.shape[3]  # (systems, seeds, kinds, rows)
    draw, found = np.random.default_rng(seed), np.empty(_F1_DRAWS)
    for i in range(_F1_DRAWS):
        rows, seeds = draw.integers(n_rows, size=n_rows), draw.integers(n_seeds, size=n_seeds)
        right, said, wanted = np.moveaxis(counts[:, seeds][..., rows].sum(-1), -1, 0)  # (systems, seeds) each
        f1 = (2 * right / np.maximum(1, said + wanted)).mean(-1)
        found[i] = f1[0] - f1[1]
    low, high = np.quantile(found, (0.025, 0.975))
    value = float(np.mean([f1_of(a) - f1_of(b) for a, b in zip(ours, theirs, strict=True)]))
    return value, float(low), float(high)


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return float(np.median(list(values)))
