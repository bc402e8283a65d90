"""What a column of tags says: one tag a word, naming spans (``B-PER I-PER O``) or kinds of words (``NN VB``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze.errors import DataError, did_you_mean
from unfreeze.tasks._labels import CountsNames
from unfreeze.types import Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table

OUTSIDE = "O"
# IOB1, IOB2 and IOBES.
_SPAN_TAG = re.compile(r"[BIES]-(.+)")


@dataclass(frozen=True)
class TagSpace(CountsNames):
    """The tags of the training rows.

    Attributes:
        labels: In the order of the model's outputs: ``O`` first, then by type.
        ids: Whether the data gives positions rather than names: in `listed`, or in `labels` where that is empty.
        listed: The names in the order that the data's ids count, where the model's outputs have another.
        counts: Training words of each tag.
        reason: What was recognised.
    """

    labels: tuple[str, ...]
    ids: bool = False
    counts: tuple[int, ...] = ()
    reason: str = ""
    listed: tuple[str, ...] = ()
    _position: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    problem_type = "token_classification"

    def __post_init__(self) -> None:
        self._position.update({name: i for i, name in enumerate(self.labels)})

    @property
    def types(self) -> tuple[str, ...]:
        """Types of spans, sorted; empty where the tags name no spans."""
        matches = [_SPAN_TAG.fullmatch(label) for label in self.labels if label != OUTSIDE]
        return tuple(sorted({m[1] for m in matches if m})) if matches and all(matches) else ()

    def in_order_of(self, labels: Sequence[str]) -> TagSpace:
        """The same tags in another order of the model's outputs; ids of the data mean what they meant."""
        counts = tuple(self.counts[self._position[name]] for name in labels) if self.counts else ()
        return replace(self, labels=tuple(labels), counts=counts, listed=self.listed_where(labels), _position={})

    def target(self, row: Row, column: str | None, n_words: int) -> np.ndarray | None:
        """Ids of a row's tags, (words,); None without tags.

        Raises:
            DataError: E-DATA-LABEL, E-DATA-LABEL-UNSEEN, with the row's place.
        """
        given = row.values.get(column) if column is not None else None
        if given is None:
            return None
        tags = checked_list(given, column, row)
        if len(tags) != n_words:
            raise DataError(
                "DATA-LABEL",
                f"{n_words} words and {len(tags)} tags in column '{column}'",
                where=row.place,
                remedy="write one tag for each word",
            )
        return np.asarray([self._find(tag, row) for tag in tags], dtype=np.int64)

    def relabelled(self, table: Table, column: str, own: Sequence[str]) -> Table:
        """Rows of other data, whose ids count names of its own, with the names of their tags.

        Args:
            table: The rows.
            column: Of their tags.
            own: The names that the other data lists.
        """
        if tuple(own) == self.counted or not table.is_list(column):
            return table
        rows = table.column(column)
        tags = [tag for given in rows for tag in given or ()]
        are_positions = all(isinstance(tag, int) and 0 <= tag < len(own) for tag in tags)
        if not tags or not are_positions or self.has_as_names(set(map(str, tags)), own):
            return table
        return table.replacing(column, [None if given is None else [own[tag] for tag in given] for given in rows])

    def _find(self, tag: Any, row: Row) -> int:
        if self.ids and isinstance(tag, int) and 0 <= tag < len(self.labels):
            return self._position[self.counted[tag]]
        if str(tag) not in self._position:
            raise DataError(
                "DATA-LABEL-UNSEEN",
                f"the tag {str(tag)!r} is in no training row: {did_you_mean(str(tag), self.labels)}",
                where=row.place,
                remedy="correct the tag, or add training rows that have it",
            )
        return self._position[str(tag)]

    def to_json(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "ids": self.ids,
            "counts": list(self.counts),
            "reason": self.reason,
            "listed": list(self.listed),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> TagSpace:
        tuples = {name: tuple(stored[name]) for name in ("labels", "counts", "listed")}
        return cls(**{**stored, **tuples})


def checked_list(value: Any, column: str | None, row: Row) -> Sequence[Any]:
    """A row's list of words or tags.

    Raises:
        DataError: E-DATA-ROW for what is no list, or a list with a hole.
    """
    if not isinstance(value, list | tuple | np.ndarray):
        raise DataError("DATA-ROW", f"column '{column}' holds no list of words or tags", where=row.place)
    if any(isinstance(v, list | dict) for v in value):
        raise DataError("DATA-ROW", f"the list of column '{column}' holds lists, not words", where=row.place)
    if any(v is None for v in value):
        raise DataError("DATA-ROW", f"a value in the list of column '{column}' is missing", where=row.place)
    return list(value)


def learn_tags(
    rows: Iterable[Sequence[Any] | None], names: Sequence[str] | None, where: str, place: Callable[[int], str]
) -> TagSpace:
    """Read the tags off the training rows.

    Args:
        rows: A list of tags a row.
        names: Names the data set lists; whole numbers are then positions in them.
        where: The column, for messages.
        place: Where a row comes from.

    Raises:
        DataError: E-DATA-ONE-CLASS, E-DATA-LABEL.
    """
    found: dict[Any, int] = {}
    for index, tags in enumerate(rows):
        for tag in tags if tags is not None else ():
            if not isinstance(tag, str | int):
                raise DataError(
                    "DATA-LABEL",
                    f"{tag!r} is no tag",
                    where=place(index),
                    remedy="write tags as words or whole numbers",
                )
            found[tag] = found.get(tag, 0) + 1
    wrong = next((t for t in found if names and isinstance(t, int) and not 0 <= t < len(names)), None)
    if wrong is not None:
        raise DataError(
            "DATA-LABEL", f"the tag {wrong} is none of the {len(names or ())} that the data names", where=where
        )
    as_ids = bool(names) and all(isinstance(t, int) for t in found)
    counts = {str((names or ())[t]) if as_ids else str(t): n for t, n in found.items()}
    if len(counts) < 2:
        only = next(iter(counts), None)
        what = f"every word has the tag {only!r}" if only is not None else "no row has a tag"
        raise DataError("DATA-ONE-CLASS", f"{what}; there is nothing to tell apart", where=where)
    _refuse_mixed_tags(counts, where)
    labels = tuple(names) if as_ids and names else tuple(sorted(counts, key=_order))
    space = TagSpace(labels)
    kinds = f"{len(space.types)} types of spans" if space.types else f"{len(labels)} kinds of words"
    reason = f"column {where} holds a tag for each word: {kinds}"
    return TagSpace(labels, as_ids, tuple(counts.get(name, 0) for name in labels), reason)


def _refuse_mixed_tags(counts: Mapping[str, int], where: str) -> None:
    """One tag of another kind would make words of all spans, and another figure of theirs.

    Raises:
        DataError: E-DATA-LABEL.
    """
    begun = [tag for tag in counts if tag.startswith("B-") and _SPAN_TAG.fullmatch(tag)]
    others = sorted((tag for tag in counts if tag != OUTSIDE and not _SPAN_TAG.fullmatch(tag)), key=counts.__getitem__)
    if not begun or not others:
        return
    if all(re.fullmatch(r"[LU]-.+", tag) for tag in others):
        what = f"the tags of spans are in the BILOU scheme ({', '.join(others[:4])}), which is not read"
        raise DataError("DATA-LABEL", what, where=where, remedy="write E- for L- and S- for U- (IOBES)")
    listed = ", ".join(f"{tag!r} ({counts[tag]:,} word{'s' * (counts[tag] != 1)})" for tag in others[:5])
    what = f"the tags name spans, such as {begun[0]!r}, but for {listed}"
    remedy = "correct these: O for a word of no span, B-TYPE for the first word of one, I-TYPE for its others"
    raise DataError("DATA-LABEL", what, where=where, remedy=remedy)


def _order(tag: str) -> tuple[bool, str, str]:
    match = _SPAN_TAG.fullmatch(tag)
    return (tag != OUTSIDE, match[1] if match else tag, tag)
