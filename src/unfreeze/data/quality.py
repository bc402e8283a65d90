"""What the rows are like, before anything is trained: counts, lengths, duplicates, contradictions, missing values.

`check_rows` stops on what cannot be trained on. `facts` stops on nothing: it counts, and names the first places of
what a person would want to look at. Texts are compared by hash: memory holds 16 bytes a row, never all texts.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from unfreeze.data.columns import Roles, joined_texts
from unfreeze.data.table import Table
from unfreeze.errors import DataError, did_you_mean

PLACES_SHOWN = 5
UNEVEN_RATIO = 5
CUT_SHARE_WORTH_A_WARNING = 0.01
_QUANTILES = {"shortest": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "longest": 1.0}


def normalised(text: str) -> str:
    """The text without differences that a reader does not see: case, width, composition and amount of white space.

    Unicode's compatibility caseless form (NFKC after case folding), white space collapsed.

    >>> normalised("  \\uff27ood\\n FILM ")
    'good film'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.casefold().split())


def duplicate_sets(texts: Iterable[str]) -> NDArray[np.int64]:
    """An id for each text, (texts,); texts that are equal after `normalised` have the same id."""
    ids: dict[bytes, int] = {}
    return np.fromiter((ids.setdefault(_digest(text), len(ids)) for text in texts), dtype=np.int64)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass
class Found:
    """How many rows something is true of, and the places of the first few."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < PLACES_SHOWN:
            self.places.append(place)

    def __str__(self) -> str:
        more = " ..." if self.count > len(self.places) else ""
        return f"{self.count:,} ({', '.join(self.places)}{more})"


@dataclass
class SplitFacts:
    """What one split is like.

    Attributes:
        rows: Number of rows.
        classes: Label to number of rows, the most frequent first; for several labels a row each counts. Empty where
            the labels are numbers.
        label_range: Smallest, mean and largest label where labels are numbers, else None.
        characters: Length of the texts in characters: shortest, median, p90, p99, longest.
        tokens: The same in tokens, where lengths were given.
        cut: Rows longer than the model takes.
        cut_by_class: Class to share of its rows that are cut, only for classes well above the average.
        empty: Rows whose text is empty or white space.
        duplicates: Rows whose text was there before in this split.
    """

    rows: int
    classes: dict[str, int] = field(default_factory=dict)
    label_range: tuple[float, float, float] | None = None
    characters: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    cut_by_class: dict[str, float] = field(default_factory=dict)
    empty: Found = field(default_factory=Found)
    duplicates: Found = field(default_factory=Found)


@dataclass
class DataFacts:
    """What the data is like: for the plan, the report and `unfreeze inspect`.

    Attributes:
        splits: Split name to its facts.
        shared: "train and test" to the rows of the second whose text is in the first, places as "test.csv:5 =
            train.csv:9".
        shared_rows: Split name to the indices of its rows whose text is in the training rows: for scores without them.
        shared_groups: "train and test" to how many different values of the group's column the second has, and how many
            of them the first has, too; of a column that looks like a group where none was named.
        group: That column, None where there is none.
        is_group_named: Whether the user named it.
        conflicts: Rows whose text was there before with another label.
        spellings: Groups of labels that differ in case, spaces or width only, with counts. Never merged.
        constant_columns: Columns of the training rows with one value throughout.
        uneven: Rows of the largest class over those of the smallest, in train; None for fewer than two classes.
        max_length: The model's limit in tokens, where given.
        noun: What the rows' inputs are, in sentences.
        options: Of the task, which can be advised.
    """

    splits: dict[str, SplitFacts]
    shared: dict[str, Found] = field(default_factory=dict)
    shared_rows: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    shared_groups: dict[str, tuple[int, int]] = field(default_factory=dict)
    group: str | None = None
    is_group_named: bool = False
    conflicts: Found = field(default_factory=Found)
    spellings: list[dict[str, int]] = field(default_factory=list)
    constant_columns: list[str] = field(default_factory=list)
    uneven: float | None = None
    max_length: int | None = None
    noun: str = "texts"
    options: Collection[str] = ("class_weights",)

    def sentences(self) -> list[str]:
        """What a person wants to know first, one sentence a split."""
        return [_sentence(name, split) for name, split in self.splits.items()]

    def warnings(self) -> list[str]:
        """What a person should look at; empty for data without blemish."""
        return [*self._about_texts(), *self._about_groups(), *self._about_labels()]

    def _about_texts(self) -> Iterator[str]:
        for name, split in self.splits.items():
            if split.empty.count:
                yield f"{name}: {self.noun} that are empty: {split.empty}."
            if split.duplicates.count:
                yield f"{name}: {self.noun} that were there before: {split.duplicates}."
            if split.cut > CUT_SHARE_WORTH_A_WARNING * split.rows:
                yield self._about_cut(name, split)
        for names, found in self.shared.items():
            if found.count:
                earlier, later = names.split(" and ")
                yield f"{self.noun.capitalize()} of {later} that are in {earlier}, too: {found}."

    def _about_cut(self, name: str, split: SplitFacts) -> str:
        share = split.cut / split.rows
        text = f"{name}: {split.cut:,} texts ({share:.1%}) are longer than {self.max_length} tokens and are cut"
        if split.cut_by_class:
            text += "; more so " + ", ".join(f"{label!r} ({part:.0%})" for label, part in split.cut_by_class.items())
        advice = "; --set options.windows=true reads them whole, in windows" if "windows" in self.options else ""
        return f"{text}{advice}."

    def _about_groups(self) -> Iterator[str]:
        for names, (values, shared) in self.shared_groups.items():
            if shared:
                earlier, later = names.split(" and ")
                looks = "" if self.is_group_named else ", which looks like a group,"
                advice = "" if self.is_group_named else f"; --set data.group={self.group} holds whole ones out"
                yield (
                    f"Values of {self.group!r}{looks} in {later} that are in {earlier}, too: {shared:,} of {values:,}. "
                    f"The figure is one of known ones, new ones may do much worse{advice}."
                )

    def _about_labels(self) -> Iterator[str]:
        if self.conflicts.count:
            yield f"Equal {self.noun} with different labels: {self.conflicts}."
        for group in self.spellings:
            shown = ", ".join(f"{label!r} ({count:,})" for label, count in group.items())
            yield f"Labels that may be one class, spelt differently: {shown}. They are kept apart; correct the file."
        if self.constant_columns:
            yield f"The same value in every row: {', '.join(map(repr, self.constant_columns))}."
        single = [label for label, count in self.splits.get("train", SplitFacts(0)).classes.items() if count == 1]
        if single:
            yield f"Classes with a single training row: {_some(single)}."
        if self.uneven is not None and self.uneven > UNEVEN_RATIO:
            text = f"The classes are uneven: the largest has {self.uneven:.3g} times the rows of the smallest"
            train = self.splits["train"]
            # Class weights are for rows with one class each.
            has_one_class_a_row = sum(train.classes.values()) == train.rows
            is_advised = has_one_class_a_row and "class_weights" in self.options
            advice = "; --set train.class_weights=balanced gives each the same weight" if is_advised else ""
            yield f"{text}{advice}."

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the records of a run; places are in it, texts are not."""
        return {
            "splits": {name: _split_json(split) for name, split in self.splits.items()},
            "shared": {names: _found_json(found) for names, found in self.shared.items()},
            "shared_groups": {names: list(counts) for names, counts in self.shared_groups.items()},
            "group": self.group,
            "is_group_named": self.is_group_named,
            "conflicts": _found_json(self.conflicts),
            "spellings": self.spellings,
            "constant_columns": self.constant_columns,
            "uneven": self.uneven,
            "max_length": self.max_length,
        }


def is_missing(value: Any) -> bool:
    """Whether a raw value is no label: None, empty text or NaN. The texts "NA" and "null" are labels."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def facts(
    splits_by_name: Mapping[str, Table],
    roles: Roles,
    labels_by_split: Mapping[str, list[Any]] | None = None,
    lengths_by_split: Mapping[str, NDArray[Any]] | None = None,
    max_length: int | None = None,
    *,
    contents: Callable[[Table, Roles], Iterable[str]] = joined_texts,
    noun: str = "texts",
    options: Collection[str] = ("class_weights",),
) -> DataFacts:
    """Count what there is to know about the rows.

    Args:
        splits_by_name: "train", "validation", "test" to rows; earlier ones are what later ones are compared with.
        roles: Which columns are text and label.
        labels_by_split: A label for each row as the task understands it (text, whole number, list of labels, float);
            None reads the label column, or columns, as they stand.
        lengths_by_split: Length of each row in tokens before cutting, (rows,); None leaves tokens out.
        max_length: Where the model cuts, in tokens.
        contents: What each row is about, by which equal ones are found.
        noun: What the rows' inputs are; characters are counted of texts alone.
        options: Of the task, which can be advised.
    """
    splits = {name: SplitFacts(len(table)) for name, table in splits_by_name.items()}
    found = DataFacts(splits, max_length=max_length, noun=noun, options=options)
    labels = labels_by_split or {name: _labels_of(table, roles) for name, table in splits_by_name.items()}
    _compare_texts(found, splits_by_name, roles, labels, contents)
    _compare_groups(found, splits_by_name, roles)
    for name, split in found.splits.items():
        _count_labels(split, labels.get(name) or [])
        if lengths_by_split is not None and name in lengths_by_split:
            _count_tokens(split, np.asarray(lengths_by_split[name]), labels.get(name) or [], max_length)
    found.spellings = _spellings(found.splits.values())
    train = splits_by_name.get("train")
    if train is not None:
        found.constant_columns = [name for name in train.columns if _is_constant(train, name)]
        counts = list(found.splits["train"].classes.values())
        found.uneven = max(counts) / min(counts) if len(counts) > 1 else None
    return found


def _compare_groups(found: DataFacts, splits_by_name: Mapping[str, Table], roles: Roles) -> None:
    """Count the values of the group's column that training rows and later ones have in common."""
    column, train = roles.group or roles.looks_like_group, splits_by_name.get("train")
    if column is None or train is None:
        return
    found.group, found.is_group_named = column, roles.group is not None
    known = set(train.column(column))
    for name, table in splits_by_name.items():
        if name != "train" and column in table.columns:
            values = set(table.column(column)) - {None}
            found.shared_groups[f"train and {name}"] = len(values), len(values & known)


def places_shown(places: Sequence[str]) -> str:
    """The first places of many, for the ``where`` of an error."""
    return ", ".join(places[:PLACES_SHOWN]) + (" ..." if len(places) > PLACES_SHOWN else "")


def check_rows(
    table: Table,
    roles: Roles,
    *,
    split: str,
    noun: str = "texts",
    is_unlabelled: Callable[[Any], bool] = is_missing,
) -> None:
    """Stop before training on rows that cannot be used.

    Args:
        table: Rows of one split.
        roles: What was decided on the training rows; the columns must be in this table, too.
        split: Its name, for messages.
        noun: What the rows' inputs are; files are looked for when they are read.
        is_unlabelled: Whether a value of the label column is none.

    Raises:
        DataError: E-DATA-COLUMN, E-DATA-EMPTY, E-DATA-ROW (a text that is missing), E-DATA-TEXT (all texts empty),
            E-DATA-LABEL (labels that are missing).
    """
    if not len(table):
        raise DataError("DATA-EMPTY", f"there are no {split} rows")
    for name in (*roles.text, *_label_columns(roles)):
        if name not in table.columns:
            raise DataError(
                "DATA-COLUMN",
                f"the {split} rows have no column {name!r}, which the training rows have",
                where=table.place(0),
                remedy=did_you_mean(name, table.columns),
            )
    _check_inputs(table, roles, split, noun)
    missing = unlabelled_rows(table, roles, is_unlabelled)
    if len(missing):
        raise DataError(
            "DATA-LABEL",
            f"{len(missing):,} of {len(table):,} {split} rows have no label",
            where=places_shown([table.place(int(i)) for i in missing]),
            remedy="write the labels into the file, or leave these rows out: --set data.drop_unlabelled=true",
        )


def without_broken(
    table: Table, broken: Mapping[int, DataError], named: str, *, drop: bool, advice: str
) -> tuple[Table, str]:
    """Rows whose files can be read, and a sentence on the others, empty where there are none.

    Args:
        table: The rows.
        broken: Position to what is wrong; see `Task.unreadable`.
        named: What the rows are called, for messages: ``train``.
        drop: Whether the others may be left out.
        advice: What to type so that they are.

    Raises:
        DataError: The first file's error, with the others' places; or more than half would be left out.
    """
    if not broken:
        return table, ""
    first, places = next(iter(broken.values())), [str(error.where) for error in broken.values()]
    if not drop:
        raise DataError(
            first.code,
            f"{len(broken):,} of {len(table):,} {named} rows cannot be read; the first: {first.what}",
            where=places_shown(places),
            remedy=f"{first.remedy}\n{advice}" if first.remedy else advice,
        )
    if 2 * len(broken) > len(table):
        what = f"{len(broken):,} of {len(table):,} {named} rows cannot be read: too many to leave out"
        raise DataError(first.code, what, where=first.where, remedy="look at the files")
    kept = table.select([i for i in range(len(table)) if i not in broken])
    shown = ", ".join(places[:PLACES_SHOWN])
    return kept, f"{len(broken):,} {named} rows that cannot be read were left out, as asked: {shown}"


def unlabelled_rows(table: Table, roles: Roles, is_unlabelled: Callable[[Any], bool] = is_missing) -> NDArray[np.int64]:
    """Indices of the rows whose label (or one of several label columns) is missing: None, NaN or an empty text."""
    missing = np.zeros(len(table), dtype=bool)
    for name in _label_columns(roles):
        missing |= np.fromiter((is_unlabelled(value) for value in table.column(name)), dtype=bool, count=len(table))
    return np.flatnonzero(missing).astype(np.int64)


def _label_columns(roles: Roles) -> tuple[str, ...]:
    return () if roles.label is None else (roles.label,) if isinstance(roles.label, str) else roles.label


def _check_inputs(table: Table, roles: Roles, split: str, noun: str) -> None:
    for name in roles.text:
        column = table.arrow_column(name)
        if column.null_count == len(table):
            what = f"the column {name!r} is empty in all {split} rows"
            raise DataError("DATA-TEXT", what, where=table.place(0))
        if column.null_count and noun == "texts":
            absent = np.flatnonzero(pc.is_null(column).to_numpy())
            raise DataError(
                "DATA-ROW",
                f"{len(absent):,} {split} rows have no text in {name!r}",
                where=places_shown([table.place(int(i)) for i in absent]),
                remedy='write the text, or "" for a text that is empty on purpose',
            )
    if noun == "texts" and all(_is_empty(text) for text in joined_texts(table, roles)):
        raise DataError(
            "DATA-TEXT",
            f"all {split} texts are empty",
            where=table.place(0),
            remedy="name the column with the text: --set data.text=...",
        )


def _is_empty(text: str) -> bool:
    """Nothing to read: white space, and characters that do not show (zero-width, direction marks, the pair's NUL)."""
    if not text or text.isspace():
        return True
    return not text[0].isalnum() and all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


# counting


def _labels_of(table: Table, roles: Roles) -> list[Any]:
    names = [name for name in _label_columns(roles) if name in table.columns]
    if not names:
        return []
    if len(names) == 1 and isinstance(roles.label, str):
        return table.column(names[0])
    rows = zip(*(table.column(name) for name in names), strict=True)
    return [[name for name, value in zip(names, row, strict=True) if value in (1, "1")] for row in rows]


def _compare_texts(
    found: DataFacts,
    tables: Mapping[str, Table],
    roles: Roles,
    labels: Mapping[str, list[Any]],
    contents: Callable[[Table, Roles], Iterable[str]],
) -> None:
    """Lengths, empty texts, duplicates within and across splits, and contradicting labels, in one pass."""
    places = [table.place for table in tables.values()]
    names = list(tables)
    first_of: list[dict[bytes, int]] = []  # of each split: digest to the first row that has it
    label_of: dict[bytes, str] = {}
    for number, (name, table) in enumerate(tables.items()):
        split, row_labels = found.splits[name], labels.get(name) or []
        pairs = [found.shared.setdefault(f"{earlier} and {name}", Found()) for earlier in names[:number]]
        first: dict[bytes, int] = {}
        shared: list[int] = []
        lengths = np.zeros(len(table), dtype=np.int64)
        for i, text in enumerate(contents(table, roles)):
            lengths[i] = len(text) - (len(roles.text) - 1)
            if _is_empty(text):
                split.empty.add(table.place(i))
                continue
            digest = _digest(text)
            if first.setdefault(digest, i) != i:
                split.duplicates.add(f"{table.place(i)} = {table.place(first[digest])}")
            for earlier, pair in enumerate(pairs):
                if digest in first_of[earlier]:
                    pair.add(f"{table.place(i)} = {places[earlier](first_of[earlier][digest])}")
            if number and digest in first_of[0]:
                shared.append(i)
            if i < len(row_labels) and not is_missing(row_labels[i]):
                label = _label_key(row_labels[i])
                if label_of.setdefault(digest, label) != label:
                    found.conflicts.add(table.place(i))
        first_of.append(first)
        split.characters = _quantiles(lengths) if found.noun == "texts" else {}
        if number and names[0] == "train":
            found.shared_rows[name] = np.asarray(shared, dtype=np.int64)


def _label_key(label: Any) -> str:
    return "\0".join(sorted(map(str, label))) if isinstance(label, list | tuple | set) else str(label)


def _quantiles(lengths: NDArray[Any]) -> dict[str, int]:
    if not len(lengths):
        return {}
    values = np.quantile(lengths, list(_QUANTILES.values()), method="higher")
    return {name: int(value) for name, value in zip(_QUANTILES, values, strict=True)}


def _count_labels(split: SplitFacts, labels: list[Any]) -> None:
    known = [label for label in labels if not is_missing(label)]
    if known and all(isinstance(label, float) for label in known):
        split.label_range = (float(min(known)), float(np.mean(known)), float(max(known)))
        return
    counts: dict[str, int] = {}
    for label in known:
        for one in label if isinstance(label, list | tuple | set) else [label]:
            counts[str(one)] = counts.get(str(one), 0) + 1
    split.classes = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _count_tokens(split: SplitFacts, lengths: NDArray[Any], labels: list[Any], max_length: int | None) -> None:
    split.tokens = _quantiles(lengths)
    if max_length is None or not len(lengths):
        return
    is_cut = lengths > max_length
    split.cut = int(is_cut.sum())
    share = split.cut / len(lengths)
    if len(labels) != len(lengths) or not split.classes:
        return
    by_class: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        for one in label if isinstance(label, list | tuple | set) else [label]:
            by_class.setdefault(str(one), []).append(i)
    for name in split.classes:
        rows = by_class.get(name, [])
        part = float(is_cut[rows].mean()) if len(rows) >= 20 else 0.0
        if part > share + 0.05 and part >= 1.5 * share:
            split.cut_by_class[name] = part


def _spellings(splits: Iterable[SplitFacts]) -> list[dict[str, int]]:
    totals: dict[str, int] = {}
    for split in splits:
        for label, count in split.classes.items():
            totals[label] = totals.get(label, 0) + count
    groups: dict[str, dict[str, int]] = {}
    for label, count in totals.items():
        groups.setdefault(normalised(label), {})[label] = count
    return [group for group in groups.values() if len(group) > 1]


def _is_constant(table: Table, name: str) -> bool:
    if len(table) < 2:
        return False
    column = table.arrow_column(name)
    try:
        return int(pc.count_distinct(column, mode="all").as_py()) == 1
    except NotImplementedError:  # lists and objects: Arrow does not compare them
        first = column[0].as_py()
        return all(value.as_py() == first for value in column)


def _sentence(name: str, split: SplitFacts) -> str:
    parts = [f"{name}: {split.rows:,} rows"]
    if split.classes:
        shown = ", ".join(f"{label} {count:,}" for label, count in list(split.classes.items())[:6])
        more = f" and {len(split.classes) - 6} more" if len(split.classes) > 6 else ""
        parts.append(f"{len(split.classes)} {'class' if len(split.classes) == 1 else 'classes'} ({shown}{more})")
    if split.label_range:
        low, mean, high = split.label_range
        parts.append(f"labels from {low:g} to {high:g}, {mean:.3g} on average")
    for unit, lengths in (("characters", split.characters), ("tokens", split.tokens)):
        if lengths:
            parts.append(
                f"{lengths['median']:,} {unit} at the median, 99 % up to {lengths['p99']:,}, "
                f"the longest {lengths['longest']:,}"
            )
    return "; ".join(parts) + "."


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _found_json(found: Found) -> dict[str, Any]:
    return {"count": found.count, "places": found.places}


def _split_json(split: SplitFacts) -> dict[str, Any]:
    plain = {name: value for name, value in vars(split).items() if not isinstance(value, Found)}
    return {**plain, "empty": _found_json(split.empty), "duplicates": _found_json(split.duplicates)}
