"""Files of pictures and sound among the data: which they are, and the rows that a folder of them makes.

Rows keep the names of files as the data gives them, relative to a folder; see `Table.files`. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import pyarrow as pa

from unfreeze.data.table import Files, Places, Table
from unfreeze.errors import DataError

Kind = Literal["image", "audio"]
SUFFIXES: dict[Kind, frozenset[str]] = {
    "image": frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")),
    "audio": frozenset((".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".aac")),
}
KINDS: tuple[Kind, ...] = get_args(Kind)
# Beside pictures or sound, a table with a row for each file; the Hub's name for it.
METADATA = "metadata.csv"
FILE_NAME = "file_name"
PLACES_SHOWN = 5


def kind_of(name: str) -> Kind | None:
    """What a file of this name holds, by its suffix."""
    suffix = PurePosixPath(name).suffix.casefold()
    return next((kind for kind in KINDS if suffix in SUFFIXES[kind]), None)


def class_rows(files: Iterable[tuple[str, str | None]], kind: Kind, root: Path) -> Table:
    """Rows of files and the class each lies in.

    Args:
        files: Name relative to `root`, and class; None where it has none.
    """
    named = list(files)
    names, labels = [name for name, _ in named], [label for _, label in named]
    arrow = pa.table({kind: pa.array(names, pa.large_string()), "label": pa.array(labels, pa.large_string())})
    return Table(arrow, Places.of_files(names), Files(root, (kind,)))


def plain_rows(names: Iterable[str], kind: Kind, root: Path) -> Table:
    """Rows of files of which nothing else is known: to predict."""
    listed = list(names)
    return Table(pa.table({kind: pa.array(listed, pa.large_string())}), Places.of_files(listed), Files(root, (kind,)))


def with_metadata(
    text: str, where: str, present: Mapping[str, Path], kind: Kind, root: Path, notes: list[str]
) -> Table | None:
    """The rows that ``metadata.csv`` lists, with its other columns; None where it has no column of file names.

    Args:
        text, where: The file's content and name.
        present: Files of this kind below its folder, by their name relative to that folder.
        kind: Of the files.
        root: Of the data; file names in the rows are relative to it.
        notes: Get sentences.

    Raises:
        DataError: E-DATA-ROW, a file that is not there; E-DATA-LINK, a name that leads out of the folder.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or FILE_NAME not in rows[0]:
        notes.append(f"{where} has no column '{FILE_NAME}' and is not used.")
        return None
    names = [checked_name(str(row[FILE_NAME]), f"{where}:{number}") for number, row in enumerate(rows, 2)]
    missing = [f"{where}:{number} ({name})" for number, name in enumerate(names, 2) if name not in present]
    if missing:
        raise DataError(
            "DATA-ROW",
            f"{len(missing):,} of {len(names):,} files named in {where} are not there",
            where=", ".join(missing[:PLACES_SHOWN]) + (" ..." if len(missing) > PLACES_SHOWN else ""),
            remedy="put the files back, or remove these rows",
        )
    unnamed = len(set(present) - set(names))
    if unnamed:
        notes.append(f"Files that {where} does not name are not used: {unnamed:,}.")
    columns: dict[str, list[str]] = {kind: [present[name].relative_to(root).as_posix() for name in names]}
    columns |= {key: [row[key] for row in rows] for key in rows[0] if key not in (FILE_NAME, kind, None)}
    arrow = pa.table({key: pa.array(values, pa.large_string()) for key, values in columns.items()})
    return Table(arrow, Places.of_lines(where, range(2, len(rows) + 2)), Files(root, (kind,)))


def checked_name(name: str, where: str) -> str:
    """A file name in a table, as it may be used.

    Raises:
        DataError: E-DATA-LINK for one that leads out of its folder, or is no name of a file.
    """
    parts = PurePosixPath(name).parts
    is_foreign = re.match(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://|file:", name) is not None
    if not parts or is_foreign or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise DataError(
            "DATA-LINK",
            f"{name!r} is no name of a file inside the data folder",
            where=where,
            remedy="write names relative to the folder, with forward slashes",
        )
    return PurePosixPath(name).as_posix()


def resolved(table: Table, folder: Path) -> Table:
    """The same table, with the columns that name pictures or sound beside it known as such.

    A column is one where each of its values has such a suffix and the first file is there.

    Raises:
        DataError: E-DATA-ROW, other files are not there; E-DATA-LINK.
    """
    found = tuple(name for name in table.columns if _names_files(table, name, folder))
    if not found:
        return table
    for column in found:
        values = table.column(column)
        missing = []
        for i, value in enumerate(values):
            if value is not None and not (folder / checked_name(value, table.place(i))).is_file():
                missing.append(f"{table.place(i)} ({value})")
        if missing:
            raise DataError(
                "DATA-ROW",
                f"{len(missing):,} of {len(values):,} files named in column {column!r} are not there",
                where=", ".join(missing[:PLACES_SHOWN]) + (" ..." if len(missing) > PLACES_SHOWN else ""),
                remedy=f"names are relative to {folder}; put the files there, or remove these rows",
            )
    return Table(table.arrow, table.places, Files(folder, found))


def _names_files(table: Table, name: str, folder: Path) -> bool:
    if not pa.types.is_large_string(table.arrow_column(name).type):
        return False
    first: str | None = None
    for value in _values(table, name):
        if kind_of(value) is None or len(value) > 1024:
            return False
        first = first or value
    try:
        return first is not None and (folder / first).is_file()
    except (OSError, ValueError):
        return False


def _values(table: Table, name: str) -> Iterator[str]:
    for chunk in table.arrow_column(name).chunks:
        yield from (value for value in chunk.to_pylist() if value is not None)
