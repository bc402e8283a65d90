"""Where data comes from: a file, a folder, a Hub id, or a Python object; in each case, `Splits` of `Table`.

A folder is, in this order: files called train, validation and test (or folders of those names); one table file; one
sub-folder of text files for each class; or files of plain text. Files beside them are recognised (names of labels) or
named in a note.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unfreeze.data import conll, masks, media, pictures, prose
from unfreeze.data.columns import FILE_NOUNS, file_columns
from unfreeze.data.contents import checked_name
from unfreeze.data.files import READABLE, SUFFIXES, Reading, check_regular, read_file, read_whole_text, unreadable
from unfreeze.data.table import Places, Table, TableBuilder, check_names, joined, shortened
from unfreeze.errors import DataError, did_you_mean

__all__ = ["Splits", "Table", "read"]

SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
LABEL_FILES = tuple(
    f"{stem}{suffix}"
    for stem in ("labels", "label_names", "label_list", "classes", "class_names", "categories", "intents")
    for suffix in (".txt", ".json")
)
_LONGER = re.compile(r"[-_.]")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass
class Splits:
    """The rows of a data set, divided as they were found.

    Attributes:
        train: Rows to train on, or the only rows there are.
        validation: Rows to choose weights by, where there are any.
        test: Rows to report on, where there are any.
        name: A short name for the run: ``reviews``.
        label_names: Names of the classes in order, from a side file or a `datasets` feature; ids index into it.
        notes: Sentences: what was recognised, ignored, assumed.
    """

    train: Table
    validation: Table | None = None
    test: Table | None = None
    name: str = "data"
    label_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def tables(self) -> dict[str, Table]:
        """The splits that there are, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: table for name, table in found.items() if table is not None}

    def changed(self, change: Callable[[Table], Table]) -> Splits:
        """The same splits, each table changed."""
        tables: dict[str, Any] = {name: change(table) for name, table in self.tables().items()}
        return replace(self, **tables)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all values of all splits and the label names."""
        parts = {name: table.fingerprint for name, table in self.tables().items()}
        return hashlib.sha256(json.dumps([parts, self.label_names]).encode()).hexdigest()


def read(
    data: Any, *, test: Any = None, validation: Any = None, encoding: str | None = None, wanted: str = "train"
) -> Splits:
    """Read a data set.

    Args:
        data: A path to a .csv, .tsv, .jsonl, .json, .parquet, .conll or .txt file; a folder; a Hub id such as
            ``imdb``; a `pandas.DataFrame`, a `datasets.Dataset` or `DatasetDict`, a list of dicts, or a dict of
            columns; or what was read before.
        test: Test rows, given in any of these ways; they take the place of those found with `data`.
        validation: Likewise for validation.
        encoding: Of text files that are not UTF-8.
        wanted: The split that must be there. With "test" a folder that has no training rows is read, too, and its test
            rows are also `Splits.train`.

    Raises:
        DataError: E-DATA-MISSING, E-DATA-EMPTY, E-DATA-FORMAT, E-DATA-ENCODING, E-DATA-ROW,
            E-DATA-DUPLICATE-COLUMN, E-DATA-LINK or E-DATA-UNREADABLE, with file and row.

    Example:
        >>> splits = read([{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}])
        >>> splits.train.row(1).values["label"], splits.train.place(1)
        ('neg', 'data:2')
    """
    reading = Reading(encoding)
    splits = _read_any(data, "data", reading, wanted)
    for role, given in (("validation", validation), ("test", test)):
        if given is None:
            continue
        if getattr(splits, role) is not None:
            reading.notes.append(f"The {role} rows found with the data are not used: others were named.")
        other = _read_any(given, role, reading, wanted=role)
        own = getattr(other, role)
        setattr(splits, role, other.train if own is None else own)
        splits.label_names = splits.label_names or other.label_names
    if encoding is not None and not reading.text_files:
        raise DataError(
            "DATA-ENCODING",
            f"the encoding {encoding!r} applies to nothing: no text file was read",
            where="data.encoding",
            remedy="leave data.encoding away",
        )
    splits.notes = list(dict.fromkeys(reading.notes))
    return splits


def keep(splits: Splits, folder: Path) -> None:
    """Write splits that came from Python into files, for `kept`."""
    import pyarrow.parquet

    for name, table in splits.tables().items():
        arrow = table.arrow
        for column in table.files.columns if table.files is not None and table.files.folder is None else ():
            # As they are meant now; whoever reads them again may do so from another working folder.
            names = [str(Path(value).absolute()) if value else value for value in table.column(column)]
            place = arrow.column_names.index(column)
            arrow = arrow.set_column(place, column, pa.array(names, pa.large_string()))
        pyarrow.parquet.write_table(arrow, folder / f"{name}.parquet")
    if splits.label_names is not None:
        (folder / "labels.json").write_text(json.dumps(splits.label_names), encoding="utf-8")


def kept(folder: Path) -> Splits | None:
    """What `keep` wrote; None where there is no such folder."""
    if not folder.is_dir():
        return None
    return _read_path(str(folder), Reading(None), "train").changed(lambda table: media.resolved(table, None))


def _read_any(data: Any, role: str, reading: Reading, wanted: str = "train") -> Splits:
    if isinstance(data, Splits):
        return data
    if isinstance(data, str | os.PathLike):
        return _read_path(os.fspath(data), reading, wanted)
    # Names of files in rows that come from Python mean what they would mean there.
    return _read_object(data, role, reading, wanted).changed(lambda table: media.resolved(table, None))


def _read_object(data: Any, role: str, reading: Reading, wanted: str) -> Splits:
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    if kind == "datasets.DatasetDict":
        return _from_dataset_dict(data, role, reading, wanted)
    if kind == "datasets.Dataset":
        label_names: list[str] = []
        return Splits(_from_dataset(data, role, reading, label_names), name=role, label_names=label_names or None)
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


# paths


def _read_path(data: str, reading: Reading, wanted: str) -> Splits:
    path = Path(data)
    try:
        # Trap: Path("") is the working folder.
        is_there = bool(data.strip()) and (path.exists() or path.is_symlink())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError("DATA-MISSING", f"there is no file or folder {shortened(data)}", remedy=READABLE) from None
        raise unreadable(path, data, error) from None
    if is_there and path.is_dir():
        return _read_folder(_unwrapped(path, reading), reading, wanted)
    if is_there and (kind := media.kind_of(path.name)) is not None:
        check_regular(path, path.name)
        return Splits(media.plain_rows([path.name], kind, path.absolute().parent), name=_name_of(path))
    if is_there:
        return Splits(_read_table(path, path.name, reading), name=_name_of(path))
    if _HUB_ID.fullmatch(data) and path.suffix.casefold() not in {*SUFFIXES, *conll.SUFFIXES, prose.SUFFIX}:
        return _from_hub(data, reading, wanted)
    raise _missing(path)


def _name_of(path: Path) -> str:
    """A file's stem; the folder's name where the file is only called train."""
    is_split = any(path.stem.casefold() in names for names in SPLIT_NAMES.values())
    name = path.absolute().parent.name if is_split else path.stem or path.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"


def _missing(path: Path) -> DataError:
    parent = path.parent
    if not parent.is_dir():
        remedy = f"there is no folder {str(parent)!r} either"
    else:
        near = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
        remedy = did_you_mean(path.name, near) if near else "the folder is empty"
    what = f"there is no file or folder {str(path)!r}"
    return DataError("DATA-MISSING", what, where=str(parent.absolute()), remedy=remedy)


# folders


def _read_folder(root: Path, reading: Reading, wanted: str) -> Splits:
    entries = _visible(root, root)
    if (masked := _with_masks(root, entries, reading, wanted)) is not None:
        return masked
    found = _split_entries(root, entries, _is_table)
    texts = [] if found else _prose_of(root, entries)
    if texts:
        found = _split_prose(root, texts)
    if not found:
        return _folder_without_splits(root, entries, texts, reading)
    if wanted not in found and "train" not in found:
        names = ", ".join(entry.name for group in found.values() for entry in group)
        raise DataError(
            "DATA-MISSING",
            f"the folder {root.name!r} has {names}, but no {wanted} rows",
            where=str(root),
            remedy=_naming_one(root, found, wanted),
        )
    parts = {name: _read_part(root, group, reading) for name, group in found.items()}
    label_names, label_files = _side_files(entries, reading)
    used = {entry for group in found.values() for entry in group} | label_files
    _note_ignored([entry for entry in entries if entry not in used], reading)
    first = parts["train" if "train" in parts else wanted]
    return Splits(first, parts.get("validation"), parts.get("test"), _name_of(root / "train"), label_names)


def _naming_one(root: Path, found: Mapping[str, Sequence[Path]], wanted: str) -> str:
    """What to type where a folder has no rows of the split that is wanted."""
    files = [(split, group[0]) for split, group in found.items() if not group[0].is_dir()]
    remedy = f"add a file called {wanted}.csv (or .tsv, .jsonl, .parquet, .txt)"
    if wanted == "train" and files:
        named = f"name a file itself: {files[0][1]}"
        rest = [f"--set data.{split}={file}" for split, file in files[1:]]
        return f"{remedy}, or {' '.join([named, *rest])}"
    return remedy


def _prose_of(root: Path, entries: Sequence[Path]) -> list[Path]:
    """Files of plain text in a folder without other data: among folders, train.txt may list files, or be anything."""
    if any(media.kind_of(entry.name) is not None or _is_table(entry) for entry in entries):
        return []
    if any(entry.is_dir() and not _holds_runs(entry) for entry in entries):
        return []
    named = [entry for entry in entries if entry.name.casefold() not in LABEL_FILES and prose.is_prose(entry)]
    return [entry for entry in named if entry.stem.casefold() not in prose.BESIDE]


def _holds_runs(folder: Path) -> bool:
    """Whether a folder is what training in this one has left."""
    return folder.name == "runs" or (folder / "plan.json").is_file()


def _split_prose(root: Path, texts: list[Path]) -> dict[str, list[Path]]:
    """Split name to its file of plain text: train.txt; or ptb.train.txt, where all files say which they are.

    Titles of books may begin with any word.
    """
    plain = [text for text in texts if _split_called(_split_stem(text)) is not None]
    if plain:
        return _split_entries(root, plain, lambda text: True)
    called = {text: {_split_called(part) for part in _LONGER.split(_split_stem(text))} - {None} for text in texts}
    if not all(len(names) == 1 for names in called.values()):
        return {}
    found: dict[str, list[Path]] = {}
    for text, (name,) in called.items():
        if name in found:
            what = f"{found[str(name)][0].name} and {text.name} are both the {name} rows"
            remedy = "move one of them away, or name the file itself"
            raise DataError("DATA-FORMAT", what, where=str(root), remedy=remedy)
        found[str(name)] = [text]
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def _folder_without_splits(root: Path, entries: list[Path], texts: list[Path], reading: Reading) -> Splits:
    """The one table of a folder, its files of plain text, or its class folders."""
    if texts:
        used = set(texts)
        _note_ignored([entry for entry in entries if entry not in used], reading)
        return Splits(prose.read_all(texts, reading), name=_name_of(root / "train"))
    label_names, label_files = _side_files(entries, reading)
    tables = [entry for entry in entries if _is_table(entry) and entry not in label_files]
    name = _name_of(root / "train")
    kind = _kind_inside(root)
    if kind is not None:
        tables = [entry for entry in tables if _lists_files(entry, kind, reading)]
    if len(tables) == 1:
        which = "only table in the folder" if kind is None else f"table that names the {FILE_NOUNS[kind]}"
        reading.notes.append(f"{tables[0].name} is the {which}.")
        table = _read_table(tables[0], tables[0].name, reading)
        unused = [e for e in entries if e not in label_files | {tables[0]}]
        if kind is not None:
            unused = [e for e in unused if not e.is_dir() and media.kind_of(e.name) != kind]
            _note_unnamed(table, kind, root, tables[0].name, reading)
        _note_ignored(unused, reading)
        return Splits(table, name=name, label_names=label_names)
    if tables:
        raise DataError(
            "DATA-MISSING",
            f"the folder {root.name!r} has several tables ({', '.join(t.name for t in tables)}), none called train",
            where=str(root),
            remedy="name one of the files, or call them train, validation and test",
        )
    table = _class_folders(root, root, reading, kind)
    unused = [e for e in entries if e not in label_files and not e.is_dir()]
    if kind is not None:
        unused = [e for e in unused if e.name != media.METADATA and media.kind_of(e.name) != kind]
    _note_ignored(unused, reading)
    return Splits(table, name=name, label_names=label_names)


def _note_unnamed(table: Table, kind: media.Kind, root: Path, where: str, reading: Reading) -> None:
    """Count the files of a kind that a table beside them does not name."""
    named = {str(value) for column in file_columns(table, kind) for value in table.column(column)}
    try:
        present = [p for p in _files_below(root, root, Reading(reading.encoding)) if media.kind_of(p.name) == kind]
    except DataError:
        return  # links out of the folder and the like, which nobody has asked to be read
    unnamed = sum(path.relative_to(root).as_posix() not in named for path in present)
    if unnamed:
        reading.notes.append(f"Files that {where} does not name are not used: {unnamed:,}.")


def _unwrapped(root: Path, reading: Reading) -> Path:
    """The folder inside, where a folder holds nothing but one that has folders or tables: as archives unpack."""
    entries = _visible(root, root)
    while len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        inside = _visible(entries[0], entries[0])
        holds_data = any(entry.is_dir() or _is_table(entry) for entry in inside)
        # A folder of texts alone may be a class; one whose files are called train and test is none.
        holds_data = holds_data or bool(_split_prose(entries[0], _prose_of(entries[0], inside)))
        if _split_entries(root, entries, _is_table) or not holds_data:
            break
        reading.notes.append(f"{root.name} holds the folder {entries[0].name} alone, which is read.")
        root, entries = entries[0], inside
    return root


def _visible(folder: Path, root: Path) -> list[Path]:
    """Entries of a folder that are not hidden, sorted by name: no order of the file system gets through."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, _relative(folder, root), error) from None
    return [folder / name for name in names if not name.startswith(".") and name != "__MACOSX"]


def _is_table(path: Path) -> bool:
    return (path.suffix.casefold() in SUFFIXES and not path.is_dir()) or conll.is_column_file(path)


def _read_table(path: Path, name: str, reading: Reading) -> Table:
    """Rows of a file, whatever kind of table it is."""
    if conll.is_column_file(path):
        return conll.read_columns(path, name, reading)
    if path.suffix.casefold() == prose.SUFFIX:
        return prose.read_paragraphs(path, name, reading)
    return media.resolved(read_file(path, name, reading), path.absolute().parent)


def _split_entries(root: Path, entries: list[Path], holds_rows: Callable[[Path], bool]) -> dict[str, list[Path]]:
    """Split name to its file, its folder, or the shards of its file.

    Args:
        holds_rows: Whether a file does.
    """
    found: dict[str, list[Path]] = {}
    for split, names in SPLIT_NAMES.items():
        group = [e for e in entries if _split_stem(e) in names and (e.is_dir() or holds_rows(e))]
        # train-v1.1.json, dev_2020.csv: where no file has the plain name.
        group = group or [e for e in entries if _LONGER.split(_split_stem(e), maxsplit=1)[0] in names and holds_rows(e)]
        if len(group) > 1 and not all(_SHARD.search(entry.stem) for entry in group):
            raise DataError(
                "DATA-FORMAT",
                f"{' and '.join(entry.name for entry in group)} are both the {split} rows",
                where=str(root),
                remedy="move one of them away, or name the file itself",
            )
        if group:
            found[split] = group
    # A folder called "test" beside other topics is a class, not a split.
    has_only_folders = all(entry.is_dir() for group in found.values() for entry in group)
    return {} if has_only_folders and "train" not in found else found


def _split_stem(entry: Path) -> str:
    return (entry.name if entry.is_dir() else _SHARD.sub("", entry.stem)).casefold()


def _read_part(root: Path, group: list[Path], reading: Reading) -> Table:
    if not group[0].is_dir():
        return joined([_read_table(entry, entry.name, reading) for entry in group])
    folder = group[0]
    entries = _visible(folder, root)
    tables = [entry for entry in entries if _is_table(entry)]
    kind = _kind_inside(folder)
    if kind is not None:
        tables = [entry for entry in tables if _lists_files(entry, kind, reading)]
    if len(tables) == 1:
        _note_ignored([entry for entry in entries if entry != tables[0]], reading)
        return _read_table(tables[0], _relative(tables[0], root), reading)
    return _class_folders(folder, root, reading, kind)


def _lists_files(entry: Path, kind: media.Kind, reading: Reading) -> bool:
    """Whether a table among pictures or sound has a row for each of them; metadata.csv is read with the folders."""
    if entry.name == media.METADATA:
        return False
    try:
        table = _read_table(entry, entry.name, Reading(reading.encoding))
    except DataError:
        return False  # it is no data then, and is named among what is not used
    return bool(file_columns(table, kind))


def _note_ignored(entries: list[Path], reading: Reading) -> None:
    if entries:
        shown = [entry.name + ("/" if entry.is_dir() else "") for entry in entries]
        more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
        reading.notes.append(f"Beside the rows, not used: {', '.join(shown[:8])}{more}.")


def _side_files(entries: list[Path], reading: Reading) -> tuple[list[str] | None, set[Path]]:
    """Names of the classes from labels.txt and the like, and the files they came from."""
    named: dict[Path, list[str]] = {}
    for entry in entries:
        if entry.name.casefold() in LABEL_FILES and not entry.is_dir():
            names = _label_names(entry, reading)
            if names is not None:
                named[entry] = names
    if not named:
        return None, set()
    first, *others = named.items()
    for other, names in others:
        if names != first[1]:
            raise DataError(
                "DATA-LABEL",
                f"{first[0].name} and {other.name} name different classes",
                where=str(other),
                remedy="move one of them away",
            )
    reading.notes.append(f"{first[0].name} names {len(first[1])} classes.")
    return first[1], set(named)


def _label_names(path: Path, reading: Reading) -> list[str] | None:
    text = read_whole_text(path, path.name, reading)
    if path.suffix.casefold() == ".txt":
        lines = re.split(r"\r\n|\r|\n", text.rstrip())
        names: Any = [line for line in lines if line.strip()]
        if 0 < len(names) < len(lines):
            # A class is known by the number of its line.
            number = next(i for i, line in enumerate(lines, 1) if not line.strip())
            raise DataError(
                "DATA-LABEL", "a line without a name", where=f"{path.name}:{number}", remedy="remove the line"
            )
    else:
        try:
            names = json.loads(text)
        except ValueError:
            names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError("DATA-LABEL", f"{path.name} names the class {twice[0]!r} twice", where=str(path))
    return names


# a mask a picture


def _with_masks(root: Path, entries: list[Path], reading: Reading, wanted: str) -> Splits | None:
    """The splits of a folder of pictures and masks, see `unfreeze.data.masks`; None where it is no such folder."""
    folders = [entry for entry in entries if entry.is_dir()]
    pairs: dict[str, tuple[Path, Path]] = {}
    for folder in folders:
        inside = [entry for entry in _visible(folder, root) if entry.is_dir()] if _split_called(folder.name) else []
        for pictures_of in inside:
            below = masks.folder_of_masks(pictures_of, inside)
            if below is not None:
                pairs[str(_split_called(folder.name))] = pictures_of, below
    for folder in folders:
        below = masks.folder_of_masks(folder, folders)
        if below is None or not _visible(folder, root):
            continue
        split = _split_called(folder.name)
        is_called_so = below.name.casefold().endswith(("mask", "masks"))
        if (
            is_called_so
            and _pictures_in(folder, root, reading)
            and not any(True for _ in _files_below(below, root, reading))
        ):
            what = f"the folder {_relative(below, root)!r}, beside pictures, holds no masks"
            raise DataError(
                "DATA-EMPTY", what, where=str(below), remedy="put a mask for each picture there, or remove it"
            )
        inside = [entry for entry in _visible(folder, root) if entry.is_dir() and _split_called(entry.name)]
        if split is not None:
            pairs[split] = folder, below
        elif inside:
            pairs |= {str(_split_called(entry.name)): (entry, below / entry.name) for entry in inside}
        else:
            pairs["train"] = folder, below
    tables, unread = dict[str, Table](), list[str]()
    for split, pair in pairs.items():
        pictures, drawn = (_pictures_in(folder, root, reading) if folder.is_dir() else {} for folder in pair)
        if pictures and drawn:
            tables[split] = masks.paired(pictures, drawn, root, reading.notes, _relative(pair[1], root))
        elif pictures:
            shown, empty = (path.relative_to(root).as_posix() for path in pair)
            unread.append(f"The pictures in {shown} are not read: {empty} has no masks for them.")
    if "train" not in tables and wanted not in tables:
        return None
    reading.notes += unread
    label_names, label_files = _side_files(entries, reading)
    used = {path for pair in pairs.values() for one in pair for path in (one, *one.parents)}
    _note_ignored([entry for entry in entries if entry not in used | label_files], reading)
    name = _name_of(root / "train")
    first = tables["train" if "train" in tables else wanted]
    return Splits(first, tables.get("validation"), tables.get("test"), name, label_names)


def _split_called(name: str) -> str | None:
    return next((split for split, names in SPLIT_NAMES.items() if name.casefold() in names), None)


def _pictures_in(folder: Path, root: Path, reading: Reading) -> dict[str, str]:
    """File names by what they are called from the folder on, without suffix."""
    files = _files_below(folder, root, reading)
    named = ((path.relative_to(folder).as_posix(), _file_name(path, root)) for path in files)
    return masks.stems(named, _relative(folder, root))


# one folder a class


def _class_folders(folder: Path, root: Path, reading: Reading, kind: media.Kind | None) -> Table:
    """Rows of ``folder/<class>/**/<file>``; the class is the name of the first folder."""
    return _texts(folder, root, reading) if kind is None else _media_rows(folder, root, reading, kind)


def _texts(folder: Path, root: Path, reading: Reading) -> Table:
    """Rows (text, label) of .txt files in class folders."""
    texts: list[str] = []
    labels: list[str] = []
    places: list[str] = []
    others: dict[str, int] = {}
    for class_folder in (entry for entry in _visible(folder, root) if entry.is_dir()):
        for path in _files_below(class_folder, root, reading):
            if path.suffix.casefold() != ".txt":
                others[path.suffix] = others.get(path.suffix, 0) + 1
                continue
            place = _relative(path, root)
            text = read_whole_text(path, place, reading)
            if "\0" in text:
                raise DataError("DATA-ROW", "a NUL character in the text", where=place, remedy="correct the file")
            texts.append(text)
            labels.append(_class_name(class_folder, root))
            places.append(place)
    if not texts:
        raise DataError(
            "DATA-EMPTY",
            f"the folder {folder.name!r} has neither a table nor class folders with .txt files or pictures",
            where=str(folder),
            remedy=f"{READABLE}; or put each class's texts or pictures into a sub-folder of its name; "
            "plain text beside folders or pictures is read where the file itself is named",
        )
    _note_other_files(others, ".txt", reading)
    arrow = pa.table({"text": pa.array(texts, pa.large_string()), "label": pa.array(labels, pa.large_string())})
    return Table(arrow, Places.of_files(places))


def _note_other_files(others: Mapping[str, int], wanted: str, reading: Reading) -> None:
    if others:
        shown = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items()))
        reading.notes.append(f"Files in class folders that are not {wanted} were not read: {shown}.")


def _media_rows(folder: Path, root: Path, reading: Reading, kind: media.Kind) -> Table:
    """Rows of pictures or sound: as metadata.csv lists them, by class folder, or without a class."""
    for place in dict.fromkeys((folder, root)):
        _refuse_boxes(place)
    files: dict[str, Path] = {}
    others: dict[str, int] = {}
    for path in _files_below(folder, root, reading):
        if media.kind_of(path.name) == kind:
            files[path.relative_to(folder).as_posix()] = path
        elif path.name != media.METADATA and path.parent != folder:
            others[path.suffix] = others.get(path.suffix, 0) + 1
    _note_other_files(others, f"{kind} files", reading)
    for name in files:
        checked_name(name, name)
    sorted_by_class = {name: path.relative_to(folder).parts[0] for name, path in files.items() if "/" in name}
    classes = {class_: _class_name(folder / class_, root) for class_ in set(sorted_by_class.values())}
    where = folder / media.METADATA
    if where.is_file():
        shown, present = _relative(where, root), {_file_name(path, root) for path in files.values()}
        inside = folder.relative_to(root).as_posix()
        table = read_file(where, shown, reading)
        listed = media.with_metadata(table, shown, inside, present, kind, root, reading.notes)
        if listed is not None:
            return _with_folders(listed, kind, folder, root) if classes and "label" not in listed.columns else listed
    if not classes:
        return media.plain_rows([_file_name(path, root) for path in files.values()], kind, root)
    # What lies beside the class folders has no class: training says so, and it can be predicted.
    labels = {name: classes[sorted_by_class[name]] if name in sorted_by_class else None for name in files}
    return media.class_rows([(_file_name(files[name], root), label) for name, label in labels.items()], kind, root)


def _with_folders(table: Table, kind: media.Kind, folder: Path, root: Path) -> Table:
    """The folder that each file lies in, beside what metadata.csv says: which of them is the label is asked of both."""
    below = [(root / name).relative_to(folder) if name else Path() for name in table.column(kind)]
    labels = [path.parts[0] if len(path.parts) > 1 else None for path in below]
    return Table(table.arrow.append_column("folder", pa.array(labels, pa.large_string())), table.places, table.files)


def _file_name(path: Path, root: Path) -> str:
    """A file's name from the data folder, as it is.

    Raises:
        DataError: E-DATA-ENCODING.
    """
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        where = _relative(path, root)
        raise DataError("DATA-ENCODING", "the name of a file is not UTF-8", where=where, remedy="rename it") from None
    return name


# As its authors lay them out, as they are copied, and as Roboflow exports them.
_COCO_FILES = ("instances_*.json", "annotations/instances_*.json", "coco/instances_*.json", "_annotations.coco.json")


def _refuse_boxes(folder: Path) -> None:
    """Say it where pictures come with boxes or masks: they are no classes."""
    names = {entry.name.casefold() for entry in folder.iterdir()}
    if "annotations" in names and "jpegimages" in names:
        kind = "VOC's layout of boxes"
    elif any(any(folder.glob(pattern)) for pattern in _COCO_FILES):
        kind = "COCO's files of boxes"
    else:
        return
    raise DataError(
        "DATA-FORMAT",
        f"the folder {folder.name!r} has {kind}: object detection comes in a later version",
        where=str(folder),
        remedy="to classify whole pictures, put those of each class into a sub-folder of its name",
    )


def _files_below(folder: Path, root: Path, reading: Reading) -> Iterator[Path]:
    """Plain files below a folder in order of name; links are followed only to files inside `root`.

    Raises:
        DataError: E-DATA-LINK for a link that leads out; E-DATA-FORMAT for a FIFO or device.
    """
    if _is_link_inside(folder, root):
        reading.notes.append(f"{_relative(folder, root)} is a link to another folder of the data and was not followed.")
        return
    for entry in _visible(folder, root):
        if entry.is_dir():
            yield from _files_below(entry, root, reading)
            continue
        _is_link_inside(entry, root)
        check_regular(entry, _relative(entry, root))
        yield entry


def _is_link_inside(path: Path, root: Path) -> bool:
    if not path.is_symlink():
        return False
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        target = Path(path.anchor)
    if not target.is_relative_to(root.resolve()):
        raise DataError(
            "DATA-LINK",
            f"{_relative(path, root)} is a link that leads out of the data folder",
            where=str(path),
            remedy="copy the file into the folder",
        )
    return True


def _class_name(folder: Path, root: Path) -> str:
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        raise DataError(
            "DATA-ENCODING", "the name of a class folder is not UTF-8", where=_relative(folder, root)
        ) from None
    return folder.name


def _relative(path: Path, root: Path) -> str:
    """A path for messages: from the data folder, with what does not print escaped."""
    shown = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def _kind_inside(folder: Path) -> media.Kind | None:
    """What most files of a folder are: pictures, sound, or something else."""
    counts: dict[media.Kind | None, int] = {}
    for _, folders, names in os.walk(folder):
        folders.sort()
        if sum(counts.values()) > 10_000:  # enough to judge by
            break
        for name in names:
            kind = None if name.startswith(".") else media.kind_of(name)
            if kind is not None or name.casefold().endswith(".txt"):
                counts[kind] = counts.get(kind, 0) + 1
    return max(sorted(counts, key=str), key=lambda kind: counts[kind], default=None)


# Python objects


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
        builder.add({str(key): _plain(value) for key, value in row.items()}, number)
    return builder.finish()


def plain_file(item: Any, place: str, noun: str) -> Any:
    """A picture or a recording as a row keeps it: a file's name, or its bytes as the Hub's data sets have them.

    Raises:
        DataError: E-DATA-ROW.
    """
    value = _plain(item)
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, Mapping) and "bytes" in value:
        return value
    given = type(item).__name__
    raise DataError("DATA-ROW", f"a {noun} is a file's name, its bytes or an object of it, not {given}", where=place)


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python one; NaN, which pandas writes for what is missing, as None."""
    if type(value).__name__ in ("NAType", "NaTType"):  # what pandas writes for missing values of some columns
        return None
    if hasattr(value, "getbands") and hasattr(value, "save"):  # a picture of Pillow's
        return pictures.encoded_picture(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


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


def _from_dataset(dataset: Any, name: str, reading: Reading, label_names: list[str]) -> Table:
    """The rows of a `datasets.Dataset`; names of its classes are put into `label_names`.

    With one column of class ids the ids stay and index into the names. With several, each is turned into names: one
    list could not serve them all.
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
    if len(named) == 1:
        label_names[:] = next(iter(named.values()))
    return Table(pa.table(changed), table.places)


def _class_names(feature: Any) -> list[str] | None:
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names) if isinstance(names, list) else None


def _from_dataset_dict(data: Mapping[str, Any], name: str, reading: Reading, wanted: str) -> Splits:
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
    label_names: list[str] = []
    tables = {split: _from_dataset(data[key], f"{name}/{key}", reading, label_names) for split, key in keys.items()}
    first = tables["train" if "train" in tables else wanted]
    return Splits(first, tables.get("validation"), tables.get("test"), name, label_names or None)


def _from_hub(hub_id: str, reading: Reading, wanted: str) -> Splits:
    import datasets  # takes seconds: only where a Hub id was given

    try:
        loaded = datasets.load_dataset(hub_id)
    except Exception as error:
        # Trap: the Hub client has no common error class; what it raises is an OSError, a ValueError or an HTTP error.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        near = did_you_mean(hub_id, os.listdir())
        raise DataError(
            "DATA-MISSING",
            f"there is no file or folder {hub_id!r}, and the Hugging Face Hub could not be reached or has no such data "
            f"set ({reason[:200]})",
            where=os.getcwd(),
            remedy="check the name and the network, or give a path that is there"
            + (f"; {near}" if near.startswith("did you mean") else ""),
        ) from None
    reading.notes.append(f"{hub_id} was loaded from the Hugging Face Hub.")
    return _from_dataset_dict(loaded, hub_id.rpartition("/")[2], reading, wanted)
