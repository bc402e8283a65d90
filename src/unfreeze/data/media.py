"""Files of pictures and sound among the data: which they are, and the rows that a folder of them makes.

Rows keep the names of files as the data gives them, relative to a folder; see `Table.files`. Nothing is decoded here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import pyarrow as pa

from unfreeze.data.contents import checked_name, folders_in
from unfreeze.data.table import Places, Table, holds_bytes
from unfreeze.errors import DataError
from unfreeze.types import Files

Kind = Literal["image", "audio"]
SUFFIXES: dict[Kind, frozenset[str]] = {
    "image": frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")),
    "audio": frozenset((".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".aac")),
}
KINDS: tuple[Kind, ...] = get_args(Kind)
# Beside pictures or sound, a table with a row for each file; the Hub's name for it.
METADATA = "metadata.csv"
FILE_NAME = "file_name"
LONGEST_NAME = 1024
NAMES_LOOKED_FOR = 100


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
    listed: Table, where: str, folder: str, present: Collection[str], kind: Kind, root: Path, notes: list[str]
) -> Table | None:
    """The rows that ``metadata.csv`` lists, with its other columns; None where it has no column of file names.

    Args:
        listed, where: The file as a table, and its name.
        folder: That it lies in, relative to `root`; file names in it are relative to that.
        present: Names of the files of this kind, relative to `root`, as the rows give them.
        kind: Of the files.
        root: Of the data; file names in the rows are relative to it.
        notes: Get sentences.

    Raises:
        DataError: E-DATA-LINK, a name that leads out of the folder.
    """
    if FILE_NAME not in listed.columns:
        notes.append(f"{where} has no column '{FILE_NAME}' and is not used.")
        return None
    given = [
        checked_name(str(value), listed.place(i)) if value not in (None, "") else None
        for i, value in enumerate(listed.column(FILE_NAME))
    ]
    below = folder_below(given, root / folder)
    if below is not None:
        notes.append(_read_below(where, FILE_NAME, below))
    place = PurePosixPath(folder, below or "")
    names = [(place / name).as_posix() if name is not None else None for name in given]
    unnamed = len(set(present) - set(names))
    if unnamed:
        notes.append(f"Files that {where} does not name are not used: {unnamed:,}.")
    others = listed.arrow.drop_columns([name for name in (FILE_NAME, kind) if name in listed.columns])
    return Table(others.add_column(0, kind, pa.array(names, pa.large_string())), listed.places, Files(root, (kind,)))


def resolved(table: Table, folder: Path | None) -> Table:
    """The same table, with the columns that name pictures or sound known as such.

    A column is one where each value has such a suffix; where some have spaces, as sentences about files do, some of the
    files must be there, too. Otherwise that is seen when they are read, of a column that is read.

    Args:
        folder: What the names are relative to; None: as the user typed them.
    """
    named = tuple(name for name in table.columns if _names_files(table, name, folder or Path()))
    brings_files = any(holds_bytes(table.arrow_column(name).type) for name in table.columns)
    return Table(table.arrow, table.places, Files(folder, named)) if named or brings_files else table


def with_folders_below(table: Table, where: str, notes: list[str]) -> Table:
    """The same table; files that lie together in a folder beside it, rather than beside it themselves, are named so.

    Args:
        table: From `resolved`, with a folder.
        where: Its name.
        notes: Get a sentence where that is so.
    """
    if table.files is None or table.files.folder is None:
        return table
    folder = table.files.folder
    for column in table.files.columns:
        try:
            given = [checked_name(name, where) if name else None for name in table.column(column)]
        except DataError:
            continue  # said where it is read
        below = folder_below(given, folder, PurePosixPath(where).stem)
        if below is not None:
            notes.append(_read_below(where, column, below))
            table = table.replacing(column, [f"{below}/{name}" if name is not None else None for name in given])
    return table


def folder_below(names: Iterable[str | None], folder: Path, stem: str = "") -> str | None:
    """The one folder in another that has all files of these names, where that one itself has none of them.

    Args:
        names: As `checked_name` gives them.
        folder: Where they are looked for.
        stem: What the table is called that names them: of several folders ``train`` is that of ``train_labels``.
    """
    wanted = [name for name in names if name is not None]
    if not wanted or any(map(_looking_in(folder), wanted)):
        return None
    beside = [folder / name for name in folders_in(folder) if not name.startswith(".")]
    found = [f.name for f in beside if _is_file(f / wanted[0]) and all(map(_looking_in(f), wanted))]
    if len(found) > 1:
        found = [name for name in found if re.split("[-_.]", stem.casefold())[0] == name.casefold()]
    return found[0] if len(found) == 1 else None


def _looking_in(folder: Path) -> Callable[[str], bool]:
    """Whether files lie in a folder, which is listed once."""
    try:
        listed = set(os.listdir(folder))
    except OSError:
        listed = set()
    return lambda name: name in listed if "/" not in name else _is_file(folder / name)


def _read_below(where: str, column: str, below: str) -> str:
    return f"{where}: the files that {column!r} names lie in {below}/ and are read there."


def _names_files(table: Table, name: str, folder: Path) -> bool:
    if not pa.types.is_large_string(table.arrow_column(name).type):
        return False
    first: list[str] = []
    has_spaces = False
    for value in filter(None, _values(table, name)):
        if kind_of(value) is None or len(value) > LONGEST_NAME:
            return False
        has_spaces |= " " in value
        if len(first) < NAMES_LOOKED_FOR:
            first.append(value)
    return any(_is_file(folder / value) for value in first) if has_spaces else bool(first)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name that any file could have
        return False


def first_name(table: Table, name: str) -> str:
    """The first value of a column that is there; empty where none is."""
    return next(filter(None, _values(table, name)), "")


def _values(table: Table, name: str) -> Iterator[str | None]:
    for chunk in table.arrow_column(name).chunks:
        yield from chunk.to_pylist()
