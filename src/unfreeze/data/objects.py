"""Rows that a program has already: lists, columns, data frames, data sets of the Hub, pictures of Pillow's."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from unfreeze.data import pictures, sounds
from unfreeze.data.files import Reading
from unfreeze.data.splits import SPLIT_NAMES, Splits
from unfreeze.data.table import Places, Table, TableBuilder, check_names
from unfreeze.errors import DataError


def read_object(data: Any, role: str, reading: Reading, wanted: str) -> Splits:
    """The rows of a list, a dict of columns, a `pandas.DataFrame`, a `datasets.Dataset` or a `DatasetDict`.

    Raises:
        DataError: E-DATA-FORMAT for anything else, and as `unfreeze.data.sources.read`.
    """
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    if kind == "datasets.DatasetDict":
        return from_dataset_dict(data, role, reading, wanted)
    if kind == "datasets.Dataset":
        return _from_dataset(data, role, reading)
    if kind == "pandas.DataFrame":
        return Splits(_from_frame(data, role, reading), name=role)
    if isinstance(data, Mapping):
        return Splits(_from_columns(data, role), name=role)
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        return Splits(_from_rows(data, role), name=role)
    raise DataError(
        "DATA-FORMAT",
        f"{role} cannot be read from {kind.removeprefix('builtins.')}",
        remedy="give a path, a Hub id, a DataFrame, a datasets.Dataset, a list of dicts or a dict of columns",
    )


def _from_rows(rows: Sequence[Any], name: str) -> Table:
    builder = TableBuilder(name)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(
                "DATA-ROW",
                f"row {number} is {type(row).__name__}, not a dict",
                where=f"{name}:{number}",
                remedy='give [{"text": ..., "label": ...}, ...]',
            )
        builder.add({str(key): plain(value) for key, value in row.items()}, number)
    return builder.finish()


def plain_file(item: Any, place: str, noun: str) -> Any:
    """A picture or a recording as a row keeps it: a file's name, or its bytes as the Hub's data sets have them.

    Raises:
        DataError: E-DATA-ROW.
    """
    value = plain(item)
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, Mapping) and "bytes" in value:
        return value
    given = type(item).__name__
    kinds = {"picture": "a picture of Pillow's"}.get(noun, "{'array': ..., 'sampling_rate': ...}")
    raise DataError("DATA-ROW", f"a {noun} is a file's name, its bytes or {kinds}, not {given}", where=place)


def plain(value: Any) -> Any:
    """A NumPy scalar as the Python one; NaN, which pandas writes for what is missing, as None."""
    if type(value).__name__ in ("NAType", "NaTType"):  # what pandas writes for missing values of some columns
        return None
    if hasattr(value, "getbands") and hasattr(value, "save"):  # a picture of Pillow's
        return pictures.encoded_picture(value)
    if isinstance(value, Mapping) and value.keys() >= {"array", "sampling_rate"}:  # as `datasets` decodes sound
        return _encoded_sound(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


def _encoded_sound(value: Mapping[str, Any]) -> Any:
    """Its bytes; what is no sound stays as it is, for whoever reads it to refuse."""
    try:
        given = np.asarray(value["array"])
        samples = given.astype(np.float32)
        # As sound files are decoded: whole numbers of 16 bits, say. Plain lists of them have 64.
        if np.issubdtype(given.dtype, np.signedinteger) and given.dtype.itemsize < 8:
            samples /= -float(np.iinfo(given.dtype).min)
        # Several channels: `datasets` has them before the samples, most others behind.
        samples = samples.T if samples.ndim == 2 and samples.shape[0] < samples.shape[1] else samples
        return sounds.encoded(samples, int(value["sampling_rate"]))
    except (TypeError, ValueError, RuntimeError):
        return dict(value)


def _from_columns(columns: Mapping[Any, Any], name: str) -> Table:
    plain = {str(key): list(values) for key, values in columns.items() if not isinstance(values, str)}
    sizes = {key: len(values) for key, values in plain.items()}
    if len(plain) < len(columns) or len(set(sizes.values())) > 1:
        shown = ", ".join(f"{key}: {size}" for key, size in sizes.items())
        raise DataError("DATA-FORMAT", f"the columns of {name} are not lists of one length ({shown})", where=name)
    return _from_rows([dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)], name)


def _from_frame(frame: Any, name: str, reading: Reading) -> Table:
    names = [str(column) for column in frame.columns]
    check_names(names, name)
    if not len(frame):
        raise DataError("DATA-EMPTY", "the DataFrame has no rows", where=name)
    try:
        arrow = pa.Table.from_pandas(frame.set_axis(names, axis=1), preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # Values of several kinds in one column: read row by row, to name the row.
        return _from_rows(frame.set_axis(names, axis=1).to_dict("records"), name)
    columns = {column: _whole(arrow.column(column), column, reading) for column in names}
    return Table.from_arrow(pa.table(columns), Places.of_lines(name, range(1, len(frame) + 1)), where=name)


def _whole(column: pa.ChunkedArray, name: str, reading: Reading) -> pa.ChunkedArray:
    """Whole numbers with gaps, which pandas can only hold as floats, as whole numbers again: label 1, not 1.0."""
    if not (pa.types.is_floating(column.type) and 0 < column.null_count < len(column)):
        return column
    try:
        whole = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    reading.notes.append(f"The column {name!r} has missing values; the others are whole numbers and read as such.")
    return whole


def _from_dataset(dataset: Any, name: str, reading: Reading) -> Splits:
    """The rows of a `datasets.Dataset`, and the names of its classes.

    With one column of class ids the ids stay and index into the names. With several, each is turned into names.
    """
    if not len(dataset):
        raise DataError("DATA-EMPTY", "the Dataset has no rows", where=name)
    arrow = dataset.with_format("arrow")[:]
    table = Table.from_arrow(arrow, Places.of_lines(name, range(1, len(dataset) + 1)), where=name)
    named = {column: names for column in table.columns if (names := _class_names(dataset.features[column]))}
    changed = dict(zip(table.columns, table.arrow.columns, strict=True))
    for column, names in named.items():
        values = table.column(column)
        if table.is_list(column):
            if len(named) > 1:
                changed[column] = pa.array([None if ids is None else [names[i] for i in ids] for ids in values])
            continue
        missing = sum(value == -1 for value in values)
        if missing:
            reading.notes.append(f"{name}: {missing:,} rows have -1 in {column!r}, which stands for no label.")
        ids = [None if value == -1 else value for value in values]
        if len(named) > 1:
            changed[column] = pa.array([None if i is None else names[i] for i in ids], pa.large_string())
        else:
            changed[column] = pa.array(ids, pa.int64())
    kept = named if len(named) == 1 else {}
    return Splits(Table(pa.table(changed), table.places), name=name, class_names=kept)


def _class_names(feature: Any) -> list[str] | None:
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names) if isinstance(names, list) else None


def from_dataset_dict(data: Mapping[str, Any], name: str, reading: Reading, wanted: str) -> Splits:
    """The splits of a `datasets.DatasetDict`, under the names that are usual for them."""
    keys: dict[str, str] = {}
    for split, names in SPLIT_NAMES.items():
        found = [key for key in data if key.casefold() in names]
        if len(found) > 1:
            raise DataError("DATA-FORMAT", f"{' and '.join(found)} are both the {split} rows", where=name)
        if found:
            keys[split] = found[0]
    if "train" not in keys and wanted not in keys:
        raise DataError(
            "DATA-MISSING",
            f"the data set has {', '.join(sorted(data))}, but no {wanted} rows",
            where=name,
            remedy="pass one of its splits",
        )
    ignored = sorted(set(data) - set(keys.values()))
    if ignored:
        reading.notes.append(f"Splits that are not used: {', '.join(ignored)}.")
    parts = {split: _from_dataset(data[key], f"{name}/{key}", reading) for split, key in keys.items()}
    tables = {split: part.train for split, part in parts.items()}
    first = parts["train" if "train" in parts else wanted]
    others = {split: part for split, part in parts.items() if part.class_names != first.class_names}
    validation, test = tables.get("validation"), tables.get("test")
    return Splits(first.train, validation, test, name, class_names=first.class_names, read_from=others)
