"""Table: rows with their places, over Arrow memory.

Values are reduced to few types when a table is made: all text is Arrow's ``large_string``, dictionaries are decoded and
decimals are numbers, so that nobody else has to ask how a file stored them.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Number
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unfreeze.data.contents import digest_of
from unfreeze.errors import DataError, did_you_mean
from unfreeze.types import Files, Row

BLOCK_ROWS = 4096
# Of values that are bytes, so that a block of pictures stays below what Arrow's 32-bit offsets reach.
BLOCK_BYTES = 1 << 28
DEEPEST_VALUE = 64


@dataclass(frozen=True, eq=False)
class Places:
    """Where each row comes from, in a few bytes a row.

    Attributes:
        names: Files (or names of objects) that rows come from.
        which: Index into `names`, (rows,) int32.
        lines: Line number in the file, from 1, or 0 where the whole file is the row; (rows,) int64.
    """

    names: tuple[str, ...]
    which: NDArray[np.int32]
    lines: NDArray[np.int64]

    @classmethod
    def of_lines(cls, name: str, lines: Sequence[int] | NDArray[np.int64] | array[int]) -> Places:
        """Rows that are lines of one file."""
        numbers = np.asarray(lines, dtype=np.int64)
        return cls((name,), np.zeros(len(numbers), dtype=np.int32), numbers)

    @classmethod
    def of_files(cls, names: Sequence[str]) -> Places:
        """Rows that are a file each."""
        return cls(tuple(names), np.arange(len(names), dtype=np.int32), np.zeros(len(names), dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        """The places of tables that are put one after the other."""
        starts = np.cumsum([0, *(len(part.names) for part in parts)])
        which = [part.which + np.int32(start) for part, start in zip(parts, starts[:-1], strict=True)]
        names = tuple(name for part in parts for name in part.names)
        return cls(names, np.concatenate(which), np.concatenate([part.lines for part in parts]))

    def take(self, indices: NDArray[np.int64]) -> Places:
        """The places of some rows."""
        return Places(self.names, self.which[indices], self.lines[indices])

    def __getitem__(self, i: int) -> str:
        name, line = self.names[self.which[i]], int(self.lines[i])
        return f"{name}:{line}" if line else name


class Table:
    """An immutable table of rows, each of which knows the file and line it was read from.

    Rows are made on demand: iterating keeps a block of rows as Python objects, never all of them.

    Attributes:
        arrow: The values, for whole-column arithmetic. All text is ``large_string``.
        places: Where the rows come from.
        files: Columns that name files; None where there are none.
    """

    def __init__(self, arrow: pa.Table, places: Places, files: Files | None = None) -> None:
        assert len(places.lines) == arrow.num_rows
        self.arrow = arrow
        self.places = places
        self.files = files

    @classmethod
    def from_arrow(cls, arrow: pa.Table, places: Places, *, where: str) -> Table:
        """A table of whatever Arrow holds, reduced to the types that this package knows.

        Raises:
            DataError: E-DATA-DUPLICATE-COLUMN; E-DATA-ENCODING for text that is not UTF-8 inside a column.
        """
        check_names(arrow.column_names, where)
        columns = []
        for name in arrow.column_names:
            try:
                column = arrow.column(name)
                column.validate(full=True)
                columns.append(_reduced(column))
            except pa.ArrowInvalid as error:
                raise DataError(
                    "DATA-ENCODING" if "UTF8" in str(error) else "DATA-FORMAT",
                    f"the values of the column {name!r} cannot be read: {error}",
                    where=where,
                    remedy="write the file anew",
                ) from None
        return cls(pa.table(columns, names=list(arrow.column_names)).combine_chunks(), places)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.arrow.column_names)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def row(self, i: int) -> Row:
        """Row `i`, counted from 0 in this table."""
        i = range(len(self))[i]
        values = {name: column[i].as_py() for name, column in zip(self.columns, self.arrow.columns, strict=True)}
        return Row(i, values, self.places[i], self.files)

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), BLOCK_ROWS):
            for i, values in enumerate(self.arrow.slice(start, BLOCK_ROWS).to_pylist(), start):
                yield Row(i, values, self.places[i], self.files)

    def column(self, name: str) -> list[Any]:
        """All values of one column as Python objects.

        Raises:
            DataError: E-DATA-COLUMN, with the nearest name.
        """
        return list(self.arrow_column(name).to_pylist())

    def arrow_column(self, name: str) -> pa.ChunkedArray:
        """One column as it lies in memory.

        Raises:
            DataError: E-DATA-COLUMN, with the nearest name.
        """
        if name not in self.columns:
            raise DataError("DATA-COLUMN", f"there is no column {name!r}", remedy=did_you_mean(name, self.columns))
        return self.arrow.column(name)

    def is_list(self, name: str) -> bool:
        """Whether a column holds lists."""
        kind = self.arrow_column(name).type
        return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))

    def without(self, *names: str) -> Table:
        """The same rows without some columns."""
        return Table(self.arrow.drop_columns(list(names)), self.places, self.files)

    def replacing(self, name: str, values: Sequence[Any]) -> Table:
        """The same rows with other values in one column."""
        column = _reduced(pa.chunked_array([pa.array(values)]))
        return Table(self.arrow.set_column(self.columns.index(name), name, column), self.places, self.files)

    def gathering(self, name: str, columns: Sequence[str]) -> Table:
        """The same rows with one more column, which has a list of what some others hold that is not missing."""
        values = zip(*(self.column(column) for column in columns), strict=True)
        lists = [[value for value in row if value is not None] for row in values]
        return Table(self.arrow.append_column(name, [lists]), self.places, self.files)

    def reading(self, columns: Sequence[str]) -> Table:
        """The same rows; of the columns that name files, only these are ever opened."""
        if self.files is None:
            return self
        kept = tuple(name for name in self.files.columns if name in columns)
        return Table(self.arrow, self.places, replace(self.files, columns=kept))

    def select(self, indices: Iterable[int] | NDArray[np.int64]) -> Table:
        """The rows at `indices`, in that order, with the places they came from."""
        chosen = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices), dtype=np.int64)
        return Table(self.arrow.take(pa.array(chosen)), self.places.take(chosen), self.files)

    def place(self, i: int) -> str:
        """Where row `i` comes from, for messages: ``reviews.csv:17``."""
        return self.places[i]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of column names and values in order; how and where they were stored does not matter.

        Of files it is their content, not their names.

        Raises:
            DataError: E-DATA-MISSING, E-DATA-UNREADABLE for a file that is no longer there.
        """
        digest = hashlib.sha256(json.dumps([self.columns, len(self)]).encode())
        for name, column in zip(self.columns, self.arrow.columns, strict=True):
            if (self.files is not None and name in self.files.columns) or holds_bytes(column.type):
                digest.update("".join(self.contents(name)).encode())
                continue
            for start in range(0, len(self), BLOCK_ROWS):
                values = column.slice(start, BLOCK_ROWS).to_pylist()
                digest.update(json.dumps(values, ensure_ascii=False, default=repr).encode())
        return digest.hexdigest()

    def contents(self, name: str) -> Iterator[str]:
        """A digest of what each row has in a column: of a file's content where it names one, or of bytes it holds.

        Raises:
            DataError: E-DATA-MISSING, E-DATA-UNREADABLE.
        """
        for row in self:
            digest = digest_of(row, name)
            yield digest.hex() if digest is not None else ""

    def __repr__(self) -> str:
        return f"Table({len(self):,} rows: {', '.join(self.columns)})"


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column keeps files as the Hub's data sets do, ``{bytes, path}``."""
    if not pa.types.is_struct(kind):
        return False
    fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    return "bytes" in fields and (pa.types.is_large_binary(fields["bytes"]) or pa.types.is_null(fields["bytes"]))


def joined(tables: Sequence[Table]) -> Table:
    """Tables of the same columns one after the other, as the shards of one file."""
    arrow = pa.concat_tables([table.arrow for table in tables], promote_options="permissive").combine_chunks()
    return Table(arrow, Places.joined([table.places for table in tables]), tables[0].files)


class TableBuilder:
    """Takes rows one by one and keeps them as Arrow blocks: no Python list of all rows ever exists.

    A column holds one kind of value; a key that a row does not have is None.

    Args:
        name: File or object the rows come from, for places and messages.
        columns: All columns, where they are known and hold only text; else they are found as the rows come.
    """

    def __init__(self, name: str, columns: Sequence[str] = ()) -> None:
        self.name = name
        self._only_text = bool(columns)
        self._names: dict[str, None] = dict.fromkeys(columns)
        self._kinds: dict[str, tuple[str, int]] = {}
        self._rows: list[Mapping[str, Any]] = []
        self._lines: array[int] = array("q")
        self._blocks: list[pa.Table] = []
        self._bytes = 0

    def add(self, values: Mapping[str, Any], line: int) -> None:
        """Append one row.

        Raises:
            DataError: E-DATA-ROW, when a value is of another kind than those before it in its column.
        """
        if not values:
            raise DataError("DATA-ROW", "a row without any value", where=f"{self.name}:{line}", remedy="remove it")
        if not self._only_text:
            for name, value in values.items():
                if name not in self._names:
                    self._check_characters(name, line)
                    self._names[name] = None
                self._check_kind(name, value, line)
        self._rows.append(values)
        self._lines.append(line)
        self._bytes += sum(_size(value) for value in values.values())
        if len(self._rows) == BLOCK_ROWS or self._bytes >= BLOCK_BYTES:
            self._flush()

    def finish(self) -> Table:
        """The table of all rows added.

        Raises:
            DataError: E-DATA-ROW for a value that does not fit its column; E-DATA-EMPTY without rows.
        """
        self._flush()
        if not self._blocks:
            raise DataError("DATA-EMPTY", "there are no rows", where=self.name)
        try:
            whole = pa.concat_tables(self._blocks, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError("DATA-ROW", f"a column changes its kind of value: {error}", where=self.name) from None
        return Table.from_arrow(whole, Places.of_lines(self.name, self._lines), where=self.name)

    def _check_kind(self, name: str, value: Any, line: int) -> None:
        kind = kind_of(value)
        if kind is None:
            return
        first_kind, first_line = self._kinds.setdefault(name, (kind, line))
        if kind != first_kind:
            raise DataError(
                "DATA-ROW",
                f"the column {name!r} holds {first_kind} in row {first_line}, but {kind} here: {shortened(value)}",
                where=f"{self.name}:{line}",
                remedy=f"write every {name!r} as {first_kind}",
            )

    def _check_characters(self, value: Any, line: int) -> None:
        """Half of a surrogate pair (\\ud83d alone) is no character: Arrow, tokenizers and files refuse it."""
        try:
            json.dumps(value, ensure_ascii=False, default=repr).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                "DATA-ROW",
                f"half of a surrogate pair, \\u{ord(error.object[error.start]):04x}, is no character",
                where=f"{self.name}:{line}",
                remedy="correct the text; often an emoji was cut in two",
            ) from None
        except (RecursionError, ValueError):
            return  # nested too deeply, which the caller says

    def _flush(self) -> None:
        if self._rows:
            arrays = [self._array(name) for name in self._names]
            self._blocks.append(pa.table(arrays, names=list(self._names)))
            self._rows, self._bytes = [], 0

    def _array(self, name: str) -> pa.Array:
        values = [row.get(name) for row in self._rows]
        try:
            return _as_arrow(values)
        except _ARROW_REFUSES:
            bad = _first_that_arrow_refuses(values)
        line = self._lines[len(self._lines) - len(self._rows) + bad]
        self._check_characters(values[bad], line)
        raise DataError(
            "DATA-ROW",
            f"a value of the column {name!r} does not fit the rows before it, or is nested too deeply: "
            f"{shortened(values[bad])}",
            where=f"{self.name}:{line}",
        )


_ARROW_REFUSES = (pa.ArrowException, OverflowError, TypeError, ValueError)


def _as_arrow(values: list[Any]) -> pa.Array:
    text = any(isinstance(value, str) for value in values)
    found = pa.array(values, type=pa.large_string() if text else None, from_pandas=True)
    level, depth = [found.type], 0
    while level := [kind.field(i).type for kind in level for i in range(kind.num_fields)]:
        depth += 1
        if depth > DEEPEST_VALUE:
            raise ValueError("nested too deeply")
    return found


def _first_that_arrow_refuses(values: list[Any]) -> int:
    """Position of the first value that cannot stand in one column with those before it."""

    def is_refused(count: int) -> bool:
        try:
            _as_arrow(values[:count])
        except _ARROW_REFUSES:
            return True
        return False

    fine, refused = 0, len(values)
    while refused - fine > 1:
        middle = (fine + refused) // 2
        fine, refused = (fine, middle) if is_refused(middle) else (middle, refused)
    return fine


def kind_of(value: Any) -> str | None:
    """What kind of value it is, in a word for messages; None where nothing is there (None and NaN)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (str, "text"),
        ((bool, np.bool_), "true or false"),
        (Number, "a number"),
        ((list, tuple), "a list"),
        (Mapping, "an object"),
    )
    return next((word for types, word in kinds if isinstance(value, types)), type(value).__name__)


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse two columns of one name.

    Raises:
        DataError: E-DATA-DUPLICATE-COLUMN.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            "DATA-DUPLICATE-COLUMN",
            f"two columns have the name {twice[0]!r}",
            where=where,
            remedy="give every column a name of its own",
        )


def shortened(value: Any, length: int = 60) -> str:
    """A value for a message: quoted, on one line, not longer than `length` characters."""
    shown = repr(value[: length + 1]) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= length else shown[: length - 4] + " ..."


def _reduced(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column, kind = column.cast(kind.storage_type), kind.storage_type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return column.cast(pa.large_string())
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()) if kind.scale else column.cast(pa.int64())
    wide = _with_wide_offsets(kind)
    return column if wide == kind else column.cast(wide)


def _with_wide_offsets(kind: pa.DataType) -> pa.DataType:
    """Bytes with offsets of 64 bits, alone or in ``{bytes, path}``: a column of pictures soon exceeds 2 GiB."""
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_binary()
    if not pa.types.is_struct(kind):
        return kind
    fields = [kind.field(i) for i in range(kind.num_fields)]
    if not any(pa.types.is_binary(f.type) or pa.types.is_binary_view(f.type) for f in fields):
        return kind
    return pa.struct([f.with_type(_with_wide_offsets(f.type)) for f in fields])


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return len(value) if isinstance(value, bytes) else 0
