"""The parts of a data set, and dividing rows into them: stratified, groups and duplicates whole, everywhere alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.table import Table
from unfreeze.errors import DataError
from unfreeze.randomness import generator

SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
Indices = NDArray[np.int64]
_Label = TypeVar("_Label", bound=Hashable)


@dataclass
class Splits:
    """The rows of a data set, divided as they were found.

    Attributes:
        train: Rows to train on, or the only rows there are.
        validation: Rows to choose weights by, where there are any.
        test: Rows to report on, where there are any.
        name: A short name for the run: ``reviews``.
        label_names: Names of the classes in order, from a file beside the rows: of whichever column is the label.
        class_names: Column to the names of its classes in order, from a `datasets` feature; ids index into them.
        read_from: Split to the data it is from, where that is other data: its ids index into names of their own.
        notes: Sentences: what was recognised, ignored, assumed.
    """

    train: Table
    validation: Table | None = None
    test: Table | None = None
    name: str = "data"
    label_names: list[str] | None = None
    class_names: dict[str, list[str]] = field(default_factory=dict)
    read_from: dict[str, Splits] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def names_of(self, label: str | tuple[str, ...] | None, split: str = "train") -> list[str] | None:
        """Names of the classes of the column, or columns, with a split's labels; None where its data lists none."""
        data = self.read_from.get(split, self)
        columns = (label,) if isinstance(label, str) else label or ()
        own = (data.class_names[name] for name in columns if name in data.class_names)
        return next(own, data.label_names)

    def tables(self) -> dict[str, Table]:
        """The splits that there are, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: table for name, table in found.items() if table is not None}

    def changed(self, change: Callable[[Table], Table]) -> Splits:
        """The same splits, each table changed."""
        tables: dict[str, Any] = {name: change(table) for name, table in self.tables().items()}
        return replace(self, **tables)


@dataclass
class Division:
    """Which rows go where; every row is in exactly one part.

    Attributes:
        train: Row indices, ascending, int64.
        validation: Likewise; empty where none was asked for.
        test: Likewise.
        notes: Sentences on what could not be as asked, and why.
    """

    train: Indices
    validation: Indices
    test: Indices
    notes: list[str] = field(default_factory=list)


def divide(
    n_rows: int,
    *,
    strata: Sequence[int] | NDArray[Any] | None = None,
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
    duplicates: Sequence[int] | NDArray[Any] | None = None,
    labels: Sequence[Collection[Hashable]] | None = None,
    fraction: float = 0.1,
    test_fraction: float = 0.0,
    seed: int,
) -> Division:
    """Divide rows at random, so that each part has the classes of the whole.

    A class with one row stays in train, every class keeps a row there, and a class of three rows or more is in every
    part that was asked for where groups and duplicates allow it.

    Args:
        n_rows: Number of rows.
        strata: Class of each row, (n_rows,); None for no stratification.
        groups: Rows of equal values stay together; None values are rows on their own.
        duplicates: Ids of sets of equal rows, which stay together, too: an equal row on the other side is a leak.
        labels: Of each row any number; each keeps a row in train, which strata alone, one a row, cannot see to.
        fraction: Share of the rows for validation, in [0, 1).
        test_fraction: Share for test, in [0, 1).
        seed: Of the run.

    Raises:
        DataError: E-DATA-SPLIT when the shares leave nothing to train on, or no group can be held out.
    """
    if fraction < 0 or test_fraction < 0 or fraction + test_fraction >= 1:
        raise DataError(
            "DATA-SPLIT",
            f"{fraction:g} for validation and {test_fraction:g} for test leave nothing to train on",
            remedy="--set data.validation=0.1",
        )
    classes = np.zeros(n_rows, np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    assert len(classes) == n_rows
    keys = [_numbered(values) for values in (groups, duplicates) if values is not None]
    units = _units(n_rows, keys)
    targets = _targets(np.bincount(classes), (fraction, test_fraction))
    contents = _contents(units, ((label,) for label in classes.tolist()))
    kept = _contents(units, labels) if labels is not None else None
    part_of_unit = _assign(contents, kept, targets, seed, takes_larger=groups is not None)
    part = part_of_unit[units]
    train, validation, test = (np.flatnonzero(part == p).astype(np.int64) for p in (0, 1, 2))
    division = Division(train, validation, test)
    _check_held_out(division, fraction, test_fraction, is_grouped=groups is not None)
    division.notes = _notes(division, classes, strata is not None, (fraction, test_fraction))
    return division


def _numbered(values: Iterable[Any]) -> Indices:
    """Values as numbers in order of first appearance; None gets a number of its own each time."""
    numbers: dict[Any, int] = {}
    found = [numbers.setdefault(object() if value is None else value, len(numbers)) for value in values]
    return np.asarray(found, dtype=np.int64)


def _units(n_rows: int, keys: list[Indices]) -> Indices:
    """Connected sets of rows that share a key, numbered by their first row, (n_rows,)."""
    smallest = np.arange(n_rows, dtype=np.int64)
    while keys:
        before = smallest
        for key in keys:
            of_key = np.full(int(key.max(initial=-1)) + 1, n_rows, dtype=np.int64)
            np.minimum.at(of_key, key, smallest)
            smallest = of_key[key]
        smallest = smallest[smallest]  # a shortcut along chains, so that few rounds are needed
        if np.array_equal(before, smallest):
            break
    return np.unique(smallest, return_inverse=True)[1].astype(np.int64)


def _contents(units: Indices, labels: Iterable[Collection[_Label]]) -> list[dict[_Label, int]]:
    """Label to number of rows, for each unit; a row may have any number of labels."""
    found: list[dict[_Label, int]] = [{} for _ in range(int(units.max(initial=-1)) + 1)]
    for unit, of_row in zip(units.tolist(), labels, strict=True):
        for label in of_row:
            found[unit][label] = found[unit].get(label, 0) + 1
    return found


def _targets(sizes: Indices, fractions: tuple[float, float]) -> list[list[int]]:
    """Rows of each class for validation and for test, by largest remainder, never all rows of a class."""
    left = np.maximum(sizes - 1, 0)
    targets = []
    for fraction in fractions:
        wanted = fraction * sizes
        count = np.floor(wanted).astype(np.int64)
        missing = round(float(wanted.sum())) - int(count.sum())
        count[np.argsort(count - wanted, kind="stable")[: max(0, missing)]] += 1
        if fraction > 0:
            count = np.maximum(count, (sizes >= 3).astype(np.int64))
        count = np.minimum(count, left)
        left = left - count
        targets.append([int(n) for n in count])
    return targets


class _Assignment:
    """Which unit goes to which part, while it is being decided; parts held out are 0 (validation) and 1 (test)."""

    def __init__(
        self, contents: list[dict[int, int]], kept: list[dict[Hashable, int]] | None, targets: list[list[int]]
    ) -> None:
        self.contents = contents
        self.kept = kept
        self.kept_in_train: dict[Hashable, int] = {}
        for labels in kept or ():
            for name, count in labels.items():
                self.kept_in_train[name] = self.kept_in_train.get(name, 0) + count
        self.targets = targets
        self.need = [list(target) for target in targets]  # rows that each class still lacks in each part
        self.part = np.zeros(len(contents), dtype=np.int64)  # 0 train, 1 validation, 2 test
        self.in_train = [0] * len(targets[0])
        for content in contents:
            for label, count in content.items():
                self.in_train[label] += count

    def may_leave(self, unit: int) -> bool:
        """Whether every class and every label of the unit keeps a row in train without it."""
        return all(self.in_train[label] > count for label, count in self.contents[unit].items()) and (
            self.kept is None or all(self.kept_in_train[label] > count for label, count in self.kept[unit].items())
        )

    def hold_out(self, unit: int, held: int) -> None:
        self.part[unit] = held + 1
        for label, count in self.contents[unit].items():
            self.in_train[label] -= count
            self.need[held][label] -= count
        for name, count in self.kept[unit].items() if self.kept is not None else ():
            self.kept_in_train[name] -= count

    def gain(self, unit: int, held: int) -> int:
        """By how much the squared error of the part's class counts falls with this unit in it."""
        need = self.need[held]
        return sum(n * (2 * need[label] - n) for label, n in self.contents[unit].items())

    def fill_empty_parts(self, order: list[int]) -> None:
        """Hold out the smallest unit that may leave for each part that was asked for and has none."""
        for held, target in enumerate(self.targets):
            if not sum(target) or (self.part == held + 1).any():
                continue
            by_size = sorted(order, key=lambda unit: sum(self.contents[unit].values()))
            chosen = next((unit for unit in by_size if self.part[unit] == 0 and self.may_leave(unit)), None)
            if chosen is not None:
                self.hold_out(chosen, held)

    def add_missing_classes(self, order: list[int]) -> None:
        """Move the smallest fitting unit for each class that a part should have and does not."""
        for held, target in enumerate(self.targets):
            absent = {label for label, wanted in enumerate(target) if wanted and self.need[held][label] == wanted}
            if not absent:
                continue
            for unit in sorted(order, key=lambda unit: sum(self.contents[unit].values())):
                content = self.contents[unit]
                fits = self.part[unit] == 0 and sum(content.values()) <= sum(target)
                if fits and not absent.isdisjoint(content) and self.may_leave(unit):
                    self.hold_out(unit, held)
                    absent -= set(content)


def _assign(
    contents: list[dict[int, int]],
    kept: list[dict[Hashable, int]] | None,
    targets: list[list[int]],
    seed: int,
    *,
    takes_larger: bool,
) -> Indices:
    """Part of each unit: 0 train, 1 validation, 2 test.

    Units are taken in random order. One is held out where that brings the class counts of a part nearer to their
    targets, and where every class keeps a row in train. With `takes_larger` a part that is still empty gets the
    smallest unit, though it be larger than asked for: of four speakers one is a quarter.
    """
    assignment = _Assignment(contents, kept, targets)
    order: list[int] = generator(seed, "split").permutation(len(contents)).tolist()
    for unit in order:
        gain, held = max((assignment.gain(unit, 0), 0), (assignment.gain(unit, 1), -1))
        if gain > 0 and assignment.may_leave(unit):
            assignment.hold_out(unit, abs(held))
    assignment.add_missing_classes(order)
    if takes_larger:
        assignment.fill_empty_parts(order)
    return assignment.part


def _check_held_out(division: Division, fraction: float, test_fraction: float, *, is_grouped: bool) -> None:
    for name, share, rows in (("validation", fraction, division.validation), ("test", test_fraction, division.test)):
        if share > 0 and is_grouped and not len(rows):
            raise DataError(
                "DATA-SPLIT",
                f"no group can be held out for {name}: they are too few or too large, or each class is in one group",
                remedy="name a file of its own for it (data.validation, data.test), or hold nothing out: "
                "--set data.validation=0",
            )


def _notes(division: Division, classes: Indices, is_stratified: bool, shares: tuple[float, float]) -> list[str]:
    notes = []
    sizes = np.bincount(classes, minlength=1)
    single = int((sizes == 1).sum())
    if is_stratified and single:
        notes.append(f"{_counted(single, 'class', 'classes')} with a single row: it stays in train.")
    for name, share, rows in zip(("validation", "test"), shares, (division.validation, division.test), strict=True):
        if not share:
            continue
        if not len(rows):
            notes.append(f"There are too few rows for {name}.")
            continue
        got = len(rows) / len(classes)
        if abs(got - share) > max(0.5 * share, 2 / len(classes)):
            notes.append(
                f"{name} has {len(rows):,} rows, {got:.1%} instead of {share:.1%}, "
                "so that what belongs together stays together and each class is in it."
            )
        absent = int(((sizes >= 3) & (np.bincount(classes[rows], minlength=len(sizes)) == 0)).sum())
        if is_stratified and absent:
            notes.append(f"{name} has no row of {_counted(absent, 'class', 'classes')}, whose rows must stay together.")
    return notes


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
