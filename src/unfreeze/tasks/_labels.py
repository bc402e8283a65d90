"""What a label column says: classes, several classes at once, or numbers.

The rules, in this order, looking at the training rows alone:

1. several label columns, or lists in one column: *multi-label*;
2. text such as ``"2,17"`` whose parts are all ids (or names the data set lists), with more than one part in some row:
   *multi-label*; refused where they may as well be numbers with a comma;
3. numbers with a fractional part: *regression*;
4. whole numbers of more than `MOST_NUMERIC_CLASSES` kinds, or of so many kinds that a class has fewer than 3 rows on
   average, where the data set lists no names: *regression*;
5. anything else: *single label*, each spelling a class of its own.

Booleans are the classes ``false`` and ``true``; 0.0 and 1.0 are the classes ``0`` and ``1``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unfreeze.data.quality import is_missing
from unfreeze.errors import DataError, RecipeError, TaskError, did_you_mean
from unfreeze.types import Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
PROBLEM_TYPES: tuple[ProblemType, ...] = ("single_label_classification", "multi_label_classification", "regression")
MOST_NUMERIC_CLASSES = 100
_MOST_TYPOS = 0.1
# Squared errors of float32 end at 3e38.
_LARGEST_TARGET = 1e18
_SEPARATOR = re.compile(r"\s*[,;|]\s*")
_INTEGER = re.compile(r"[-+]?[0-9]+(?:\.0+)?\Z")
_PERHAPS_DECIMAL = re.compile(r"[-+]?[0-9]+(,[0-9]+)?")


class CountsNames:
    """What a space of labels and one of tags share: their data may give ids that count names.

    Attributes:
        labels, ids, listed: See `LabelSpace`.
    """

    labels: tuple[str, ...]
    ids: bool
    listed: tuple[str, ...]

    @property
    def counted(self) -> tuple[str, ...]:
        """The names in the order that ids in the data count them; empty where the data gives names."""
        return (self.listed or self.labels) if self.ids else ()

    def listed_where(self, labels: Sequence[str]) -> tuple[str, ...]:
        """What `listed` is with the outputs in the order of these labels: ids of the data mean what they meant."""
        return self.counted if self.ids and tuple(labels) != self.labels else self.listed

    def has_as_names(self, found: set[str], own: Sequence[str]) -> bool:
        """Whether labels that could be ids are read as they are: they are names, of training or of their own data."""
        return not self.ids and found <= {*self.labels, *own}


@dataclass(frozen=True)
class LabelSpace(CountsNames):
    """The targets of a classification or regression task.

    Attributes:
        problem_type: As in the Hugging Face configuration.
        labels: Class names in the order of the model's outputs; empty for regression.
        columns: The label columns where each is one label of a multi-label task.
        ids: Whether the data gives positions rather than names: in `listed`, or in `labels` where that is empty.
        listed: The names in the order that the data's ids count, where the model's outputs have another.
        names_none: Whether an empty text names no class, rather than being no label: several labels were asked for.
        center, scale: Regression targets are trained as (value - center) / scale.
        thresholds: Multi-label decision thresholds, chosen on validation rows; None: 0.5 each.
        counts: Training rows of each class.
        rows: Training rows.
        reason: Why this problem type.
    """

    problem_type: ProblemType
    labels: tuple[str, ...]
    columns: tuple[str, ...] = ()
    ids: bool = False
    center: float = 0.0
    scale: float = 1.0
    thresholds: tuple[float, ...] | None = None
    counts: tuple[int, ...] = ()
    rows: int = 0
    reason: str = ""
    listed: tuple[str, ...] = ()
    names_none: bool = False
    _position: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._position.update({name: i for i, name in enumerate(self.labels)})

    @property
    def width(self) -> int:
        """Outputs of the model: one a class, or 1 for regression."""
        return len(self.labels) or 1

    def of_rows(self, rows: int) -> LabelSpace:
        return replace(self, rows=rows, _position={})

    def with_thresholds(self, thresholds: Iterable[float]) -> LabelSpace:
        return replace(self, thresholds=tuple(float(t) for t in thresholds), _position={})

    def in_order_of(self, labels: Sequence[str]) -> LabelSpace:
        """The same classes in another order of the model's outputs; ids of the data mean what they meant."""
        counts = tuple(self.counts[self._position[name]] for name in labels) if self.counts else ()
        return replace(self, labels=tuple(labels), counts=counts, listed=self.listed_where(labels), _position={})

    def unscaled(self, *, center: float = 0.0) -> LabelSpace:
        """Once the model's head itself gives values in the data's unit, but for `center`."""
        return replace(self, center=center, scale=1.0, _position={})

    def target(self, row: Row, column: str | tuple[str, ...] | None) -> Any:
        """A row's target: a class id, a (classes,) vector of 0 and 1, or a scaled number; None without a label.

        Raises:
            DataError: E-DATA-LABEL or E-DATA-LABEL-UNSEEN with the row's place.
        """
        if self.columns:
            return np.asarray([_as_bit(row, c) for c in self.columns], dtype=np.float32)
        value = row.values.get(column) if isinstance(column, str) else None
        if is_unlabelled(value, self.problem_type if self.names_none else None):
            return None
        if self.problem_type == "regression":
            return (_as_number(value, row) - self.center) / self.scale
        if self.problem_type == "multi_label_classification":
            vector = np.zeros(len(self.labels), dtype=np.float32)
            for part in parts_of(value):
                vector[self._find(part, row)] = 1
            return vector
        return self._find(canonical(value), row)

    def names(self, row: Row, column: str | tuple[str, ...] | None) -> Any:
        """A row's class name, the list of its class names for multi-label, or its number for regression."""
        target = self.target(row, column)
        if target is None:
            return None
        if self.problem_type == "regression":
            return _as_number(row.values[str(column)], row)
        if self.problem_type == "multi_label_classification":
            return [name for name, bit in zip(self.labels, target, strict=True) if bit]
        return self.labels[target]

    def relabelled(self, table: Table, column: str, own: Sequence[str]) -> Table:
        """Rows of other data, whose ids count names of its own, with their labels as the training rows name them.

        Args:
            table: The rows.
            column: Of their labels.
            own: The names that the other data lists.

        Raises:
            DataError: E-DATA-LABEL-UNSEEN.
        """
        if self.problem_type == "regression" or tuple(own) == self.counted:
            return table
        several = self.problem_type == "multi_label_classification"
        asked = self.problem_type if self.names_none else None
        values = table.column(column)
        rows = [None if is_unlabelled(v, asked) else parts_of(v) if several else [canonical(v)] for v in values]
        found = {part for parts in rows for part in parts or ()}
        if not found or not _are_positions(found, own) or self.has_as_names(found, own):
            return table
        called = {part: own[_whole(part)] for part in found}
        for part, name in called.items() if self.ids else ():
            if _INTEGER.match(name):  # Trap: a text that is a number is read as an id.
                if name not in self.counted:
                    first = next(i for i, parts in enumerate(rows) if part in (parts or ()))
                    raise self._unseen(name, table.place(first))
                called[part] = str(self.counted.index(name))
        named = ([called[part] for part in parts] if parts is not None else None for parts in rows)
        return table.replacing(column, [parts if several or parts is None else parts[0] for parts in named])

    def _find(self, name: str, row: Row) -> int:
        if self.ids and _INTEGER.match(name) and 0 <= _whole(name) < len(self.labels):
            return self._position[self.counted[_whole(name)]]
        if name not in self._position:
            raise self._unseen(name, row.place)
        return self._position[name]

    def _unseen(self, name: str, where: str) -> DataError:
        return DataError(
            "DATA-LABEL-UNSEEN",
            f"the label {name!r} is in no training row: {did_you_mean(name, self.labels)}",
            where=where,
            remedy="correct the label, or add training rows that have it",
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "problem_type": self.problem_type,
            "labels": list(self.labels),
            "columns": list(self.columns),
            "ids": self.ids,
            "center": self.center,
            "scale": self.scale,
            "thresholds": list(self.thresholds) if self.thresholds is not None else None,
            "counts": list(self.counts),
            "rows": self.rows,
            "reason": self.reason,
            "listed": list(self.listed),
            "names_none": self.names_none,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> LabelSpace:
        tuples = {k: tuple(stored[k]) for k in ("labels", "columns", "counts", "listed")}
        thresholds = tuple(stored["thresholds"]) if stored["thresholds"] is not None else None
        return cls(**{**stored, **tuples, "thresholds": thresholds})


def learn_labels(
    values: Sequence[Any],
    *,
    columns: tuple[str, ...] = (),
    names: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    where: str = "",
    place: Callable[[int], str] | None = None,
) -> LabelSpace:
    """Read the label space off the training rows.

    Args:
        values: One entry a row, None where there is no label; for several columns a tuple a row.
        columns: Set where each column is one label.
        names: Names the data set lists (labels.txt, a ClassLabel feature); the values may then be ids into them.
        problem_type: What the user asked for; otherwise the rules of this module decide.
        where: The label column, for messages.
        place: Where the row of an entry comes from, for messages.

    Raises:
        DataError: E-DATA-ONE-CLASS, E-DATA-LABEL, with the row where one is to blame.
        TaskError: E-TASK, for an unknown `problem_type`.
        RecipeError: E-RECIPE-CONFLICT, for several columns and another problem type than theirs.
    """
    if problem_type is not None and problem_type not in PROBLEM_TYPES:
        remedy = did_you_mean(problem_type, PROBLEM_TYPES)
        raise TaskError("TASK", f"unknown problem_type {problem_type!r}", where="options.problem_type", remedy=remedy)
    if columns:
        if problem_type not in (None, "multi_label_classification"):
            what = f"several label columns are several labels of a row, which is no {problem_type}"
            remedy = "name one label column, or leave options.problem_type out"
            raise RecipeError("RECIPE-CONFLICT", what, where="options.problem_type", remedy=remedy)
        return _learn_columns(values, columns)
    labelled = [i for i, v in enumerate(values) if not is_unlabelled(v, problem_type)]
    present = [values[i] for i in labelled]
    if not present:
        raise DataError("DATA-LABEL", "no row has a label", where=where)

    def place_of(index: int) -> str:
        return place(labelled[index]) if place is not None else where

    hole = next((i for i, v in enumerate(present) if isinstance(v, list | tuple) and any(map(is_missing, v))), None)
    if hole is not None:
        raise DataError("DATA-LABEL", "a list of labels holds a label that is missing (null)", where=place_of(hole))
    kind, reason = (problem_type, "named in the recipe") if problem_type else guess_problem_type(present, names)
    if kind == "regression":
        return _learn_numbers(present, place_of, reason)
    if problem_type is None and not names:
        _refuse_decimal_commas(present, place_of)
        if kind == "single_label_classification":
            _refuse_numbers_with_typos(present, place_of)
    space = _learn_classes(present, kind, names, where, reason, place_of)
    return replace(space, names_none=problem_type == "multi_label_classification", _position={})


def is_unlabelled(value: Any, asked: ProblemType | None) -> bool:
    """Whether a raw value is no label; an empty text is one that names no class where several labels were asked for."""
    return is_missing(value) and not (asked == "multi_label_classification" and isinstance(value, str))


def labels_in(value: Any, kind: ProblemType) -> set[str]:
    """The classes that one value of the label column names."""
    if kind == "multi_label_classification":
        return set(parts_of(value)) if value is not None else set()
    return set() if is_missing(value) else {canonical(value)}


def guess_problem_type(values: Sequence[Any], names: Sequence[str] | None) -> tuple[ProblemType, str]:
    """The problem type of labels that are all there, with the reason; see the module's rules."""
    if any(isinstance(v, list | tuple) for v in values):
        return "multi_label_classification", "the label column holds lists"
    if _are_joined_ids(values, names):
        return "multi_label_classification", "some rows name several labels, separated by commas"
    numbers = [_number_or_none(v) for v in values]
    # An identifier of 400 digits is no number that could be predicted.
    digits = any(
        n is not None and math.isinf(n) and canonical(v).strip("+-").isdigit()
        for n, v in zip(numbers, values, strict=True)
    )
    if any(n is None for n in numbers) or names or digits:
        kinds = len({canonical(v) for v in values})
        reason = f"the label column holds {kinds} different values{_hint_at_parts(values)}"
        return "single_label_classification", reason
    kinds = len(set(numbers))
    if any(n != int(n) for n in numbers if n is not None and math.isfinite(n)):
        return "regression", "the label column holds numbers with a fractional part"
    if kinds > MOST_NUMERIC_CLASSES or (kinds > 10 and kinds * 3 > len(numbers)):
        return "regression", f"the label column holds {kinds} different numbers"
    return "single_label_classification", f"the label column holds {kinds} different whole numbers"


def _hint_at_parts(values: Sequence[Any]) -> str:
    """What to type where a label such as ``"slow;loud"`` looks like two of the others."""
    texts = {v.strip() for v in values if isinstance(v, str)}
    whole = {t for t in texts if not _SEPARATOR.search(t)}
    joined = sorted(t for t in texts - whole if (parts := parts_of(t)) and whole.issuperset(parts))
    if not joined:
        return ""
    setting = "--set options.problem_type=multi_label_classification"
    return f"; {joined[0]!r} is one of them, though its parts are labels too: {setting} reads it as several"


def _are_joined_ids(values: Sequence[Any], names: Sequence[str] | None) -> bool:
    if not all(isinstance(v, str) for v in values) or not any(len(parts_of(v)) > 1 for v in values):
        return False
    known = set(names or ())
    return all(p in known or p.isdigit() for v in values for p in parts_of(v))


def _refuse_decimal_commas(values: Sequence[Any], place: Callable[[int], str]) -> None:
    """Where no row has more than one comma, ``"3,5"`` may be a number or two ids, and nothing tells which."""
    found = [_PERHAPS_DECIMAL.fullmatch(v.strip()) if isinstance(v, str) else None for v in values]
    with_comma = next((i for i, match in enumerate(found) if match and match[1]), None)
    if with_comma is None or not all(found):
        return
    raise DataError(
        "DATA-LABEL",
        f"labels such as {values[with_comma]!r} may be numbers that are written with a comma, or two labels each",
        where=place(with_comma),
        remedy="write numbers with a point and without commas: 1234.5\n"
        "or, if each is several labels: --set options.problem_type=multi_label_classification\n"
        "or, if each is one class: --set options.problem_type=single_label_classification",
    )


def _refuse_numbers_with_typos(values: Sequence[Any], place: Callable[[int], str]) -> None:
    """Many different numbers and a few other texts are targets with slips of the pen, not classes."""
    numbers = [_number_or_none(v) for v in values]
    others = [i for i, n in enumerate(numbers) if n is None]
    kinds = len({n for n in numbers if n is not None})
    if others and len(others) <= _MOST_TYPOS * len(values) and kinds > 10 and kinds * 3 > len(values):
        raise DataError(
            "DATA-LABEL",
            f"the label {values[others[0]]!r} is not a number, though nearly all others are",
            where=place(others[0]),
            remedy="correct it; or, if the numbers are names: --set options.problem_type=single_label_classification",
        )


def _learn_classes(
    values: Sequence[Any],
    kind: ProblemType,
    names: Sequence[str] | None,
    where: str,
    reason: str,
    place: Callable[[int], str],
) -> LabelSpace:
    multi = kind == "multi_label_classification"
    found: dict[str, int] = {}
    for value in values:
        for name in parts_of(value) if multi else [canonical(value)]:
            found[name] = found.get(name, 0) + 1
    if not found and not names:
        remedy = "name at least one label in some row, or another column: --set data.label=COLUMN"
        raise DataError("DATA-LABEL", "no row names a label: every list or text is empty", where=where, remedy=remedy)
    # Trap: names may be numbers themselves (1 to 5 stars). Text that is among them is a name, not a position.
    is_named = bool(names and found) and set(found) <= set(names or ()) and all(isinstance(v, str) for v in values)
    as_ids = bool(names) and _are_positions(found, names or ()) and not is_named
    if names and not as_ids and not set(found) <= set(names) and all(_INTEGER.match(n) for n in found):
        beyond = next(n for n in sorted(found, key=_order) if not 0 <= _whole(n) < len(names))
        row = next(i for i, v in enumerate(values) if beyond in (parts_of(v) if multi else [canonical(v)]))
        remedy = "correct the id, or the list of names"
        if beyond == "-1":
            remedy = "on the Hub -1 stands for no label: leave these rows out"
        what = f"the label {beyond} is no position in the {len(names)} names that are listed, counted from 0"
        raise DataError("DATA-LABEL", what, where=place(row), remedy=remedy)
    if names and as_ids:
        labels = list(names)
        counts = [sum(c for n, c in found.items() if _whole(n) == i) for i in range(len(labels))]
    else:
        labels = [n for n in names if n in found] if names and set(found) <= set(names) else sorted(found, key=_order)
        counts = [found[n] for n in labels]
    if sum(1 for c in counts if c) < 2 and not multi:
        raise DataError(
            "DATA-ONE-CLASS",
            f"every training row has the label {labels[int(np.argmax(counts))]!r}; there is nothing to tell apart",
            where=where,
            remedy="add rows with another label, or name another column: --set data.label=COLUMN",
        )
    return LabelSpace(kind, tuple(labels), ids=as_ids, counts=tuple(counts), reason=reason)


def _learn_columns(values: Sequence[Any], columns: tuple[str, ...]) -> LabelSpace:
    totals = np.zeros(len(columns))
    for row in values:
        totals += [0.0 if is_missing(v) else float(_bit(v) or 0) for v in row]
    return LabelSpace(
        "multi_label_classification",
        columns,
        columns=columns,
        counts=tuple(int(t) for t in totals),
        reason=f"{len(columns)} label columns were named",
    )


def _learn_numbers(values: Sequence[Any], place: Callable[[int], str], reason: str) -> LabelSpace:
    numbers = [_number_or_none(v) for v in values]
    bad = next((i for i, n in enumerate(numbers) if n is None or not math.isfinite(n)), None)
    if bad is not None:
        raise DataError("DATA-LABEL", f"the label {values[bad]!r} is not a number", where=place(bad))
    array = np.asarray(numbers, dtype=np.float64)
    huge = int(np.abs(array).argmax())
    if abs(array[huge]) > _LARGEST_TARGET:
        what = f"the label {values[huge]!r} is larger than a model can predict ({_LARGEST_TARGET:g})"
        raise DataError(
            "DATA-LABEL", what, where=place(huge), remedy="correct it, or use another unit or its logarithm"
        )
    scale = float(array.std())
    if scale == 0:
        raise DataError("DATA-ONE-CLASS", f"every training row has the value {array[0]:g}", where=place(0))
    return LabelSpace("regression", (), center=float(array.mean()), scale=scale, reason=reason)


def canonical(value: Any) -> str:
    """The class name of a raw value; text stays exactly as it is."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def parts_of(value: Any) -> list[str]:
    """The class names in one multi-label value: a list, or text with separators; an empty text or part names none."""
    if isinstance(value, list | tuple | np.ndarray):
        return [canonical(v) for v in value]
    return [part for part in _SEPARATOR.split(canonical(value).strip()) if part]


def _are_positions(found: Iterable[str], names: Sequence[str]) -> bool:
    """Whether labels count names, from 0 on."""
    return all(_INTEGER.match(n) and 0 <= _whole(n) < len(names) for n in found)


def _whole(text: str) -> int:
    """The number in what `_INTEGER` matches, of however many digits."""
    return int(text.partition(".")[0])


def _order(name: str) -> tuple[int, float, str]:
    return (0, float(name), name) if _INTEGER.match(name) else (1, 0.0, name)


def _number_or_none(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _as_number(value: Any, row: Row) -> float:
    number = _number_or_none(value)
    if number is None or not math.isfinite(number):
        raise DataError("DATA-LABEL", f"the label {value!r} is not a number", where=row.place)
    return number


def _bit(value: Any) -> int | None:
    text = canonical(value).strip().casefold()
    return {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1, "": 0}.get(text)


def _as_bit(row: Row, column: str) -> int:
    value = row.values.get(column)
    bit = 0 if is_missing(value) else _bit(value)
    if bit is None:
        raise DataError("DATA-LABEL", f"{value!r} in label column '{column}' is neither 0 nor 1", where=row.place)
    return bit
