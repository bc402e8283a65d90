"""What lies in a folder: files of splits, tables, classes, pictures with masks, plain text.

A folder is, in this order: files called train, validation and test (or folders of those names); one table file; one
sub-folder of text files for each class; or files of plain text. Files beside them are recognised (names of labels) or
named in a note.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from unfreeze.data import conll, masks, media, prose
from unfreeze.data.columns import FILE_NOUNS, file_columns
from unfreeze.data.contents import checked_name
from unfreeze.data.files import READABLE, SUFFIXES, Reading, check_regular, read_file, read_whole_text, unreadable
from unfreeze.data.splits import SPLIT_NAMES, Splits
from unfreeze.data.table import Places, Table, joined
from unfreeze.errors import DataError, visible
from unfreeze.types import Files

LABEL_FILES = tuple(
    f"{stem}{suffix}"
    for stem in ("labels", "label_names", "label_list", "classes", "class_names", "categories", "intents")
    for suffix in (".txt", ".json")
)
# What phones write, and nothing here reads.
_UNREAD_PICTURES = {".heic", ".heif", ".avif"}
_LONGER = re.compile(r"[-_.]")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def read_folder(root: Path, reading: Reading, wanted: str) -> Splits:
    """The splits of a folder.

    Args:
        root: The folder, see `unwrapped`.
        reading: Gets notes on what was recognised and what is not used.
        wanted: The split that must be there, unless the training rows are.

    Raises:
        DataError: As `unfreeze.data.sources.read`.
    """
    entries = _visible(root, root)
    if (masked := _with_masks(root, entries, reading, wanted)) is not None:
        return masked
    named = _named_by_tables(entries, reading)
    found = _split_entries(root, [entry for entry in entries if entry not in named], _is_table)
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
    parts = {name: _called_alike(part, parts.get("train", part)) for name, part in parts.items()}
    label_names, label_files = _side_files(entries, reading)
    used = {entry for group in found.values() for entry in group} | label_files
    used |= {root / name for part in parts.values() for name in _folders_of_files(part)}
    _note_ignored([entry for entry in entries if entry not in used], reading)
    first = parts["train" if "train" in parts else wanted]
    return Splits(first, parts.get("validation"), parts.get("test"), name_of(root / "train"), label_names)


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
        return Splits(prose.read_all(texts, reading), name=name_of(root / "train"))
    label_names, label_files = _side_files(entries, reading)
    tables = [entry for entry in entries if _is_table(entry) and entry not in label_files]
    name = name_of(root / "train")
    kind = _kind_inside(root)
    _refuse_yolo(root, kind, tables, reading)
    if kind is not None:
        tables = [entry for entry in tables if _lists_files(entry, kind, reading)]
    if len(tables) == 1:
        which = "only table in the folder" if kind is None else f"table that names the {FILE_NOUNS[kind]}"
        reading.notes.append(f"{tables[0].name} is the {which}.")
        table = read_table(tables[0], tables[0].name, reading)
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


def unwrapped(root: Path, reading: Reading) -> Path:
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


def read_table(path: Path, name: str, reading: Reading) -> Table:
    """Rows of a file, whatever kind of table it is."""
    if conll.is_column_file(path):
        return conll.read_columns(path, name, reading)
    if path.suffix.casefold() == prose.SUFFIX:
        return prose.read_paragraphs(path, name, reading)
    table = media.resolved(read_file(path, name, reading), path.absolute().parent)
    return media.with_folders_below(table, name, reading.notes)


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
        return joined([read_table(entry, entry.name, reading) for entry in group])
    folder = group[0]
    entries = _visible(folder, root)
    tables = [entry for entry in entries if _is_table(entry)]
    kind = _kind_inside(folder)
    _refuse_yolo(folder, kind, tables, reading)
    if kind is not None:
        tables = [entry for entry in tables if _lists_files(entry, kind, reading)]
    if len(tables) == 1:
        _note_ignored([entry for entry in entries if entry != tables[0]], reading)
        return read_table(tables[0], _relative(tables[0], root), reading)
    return _class_folders(folder, root, reading, kind)


def _lists_files(entry: Path, kind: media.Kind, reading: Reading) -> bool:
    """Whether a table among pictures or sound has a row for each of them; metadata.csv is read with the folders."""
    table = _looked_into(entry, reading) if entry.name != media.METADATA else None
    return table is not None and bool(file_columns(table, kind))


def _looked_into(entry: Path, reading: Reading) -> Table | None:
    """A table that may turn out not to be the data, without notes; None: it is none, and is named as not used."""
    try:
        return read_table(entry, entry.name, Reading(reading.encoding))
    except DataError:
        return None


def _named_by_tables(entries: Sequence[Path], reading: Reading) -> set[Path]:
    """Folders that are called as a split is and hold the files of that split's table: ``train/`` of ``train.csv``."""

    def split_of(entry: Path) -> str | None:
        return _split_called(_LONGER.split(_split_stem(entry), maxsplit=1)[0])

    found: set[Path] = set()
    for folder in entries:
        split = _split_called(folder.name) if folder.is_dir() else None
        own = [entry for entry in entries if split is not None and split_of(entry) == split and _is_table(entry)]
        if own and _kind_inside(folder) is not None:
            tried = (_looked_into(table, reading) for table in own)
            found |= {folder for table in tried if table is not None and folder.name in _folders_of_files(table)}
    return found


def _folders_of_files(table: Table) -> set[str]:
    """The first folder in the name of each file that a table names."""
    columns = table.files.columns if table.files is not None else ()
    names = (value for column in columns for value in table.column(column) if value)
    return {first for first, divided, _ in (name.partition("/") for name in names) if divided}


def _called_alike(table: Table, train: Table) -> Table:
    """A folder of plain files has the column that the training table calls its files by: what is to be predicted."""
    if table.files is None or len(table.columns) != 1 or table.columns[0] in train.columns:
        return table
    of_train = file_columns(train, table.columns[0])
    if len(of_train) != 1:
        return table
    return Table(table.arrow.rename_columns(of_train), table.places, Files(table.files.folder, tuple(of_train)))


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
    tables, unread, lists = dict[str, Table](), list[str](), dict[str, Path]()
    for split, pair in pairs.items():
        pictures, drawn = (_pictures_in(folder, root, reading) if folder.is_dir() else {} for folder in pair)
        if pictures and drawn:
            where = _relative(pair[1], root)
            table = masks.paired(pictures, drawn, root, reading.notes, where, keeps_all=reading.to_predict)
            is_voc = pair[0].parent == root and pair[0].name.casefold() == masks.VOC[0]
            lists = _voc_lists(root, reading, wanted) if is_voc else lists
            is_listed = is_voc and bool(lists)
            tables |= _as_listed(table, pictures, lists, root, reading, wanted) if is_listed else {split: table}
        elif pictures:
            shown, empty = (path.relative_to(root).as_posix() for path in pair)
            unread.append(f"The pictures in {shown} are not read: {empty} has no masks for them.")
    if "train" not in tables and wanted not in tables:
        return None
    reading.notes += unread
    label_names, label_files = _side_files(entries, reading)
    looked_at = [*lists.values(), *(one for pair in pairs.values() for one in pair)]
    used = {path for one in looked_at for path in (one, *one.parents)}
    _note_ignored([entry for entry in entries if entry not in used | label_files], reading)
    name = name_of(root / "train")
    first = tables["train" if "train" in tables else wanted]
    return Splits(first, tables.get("validation"), tables.get("test"), name, label_names)


def _voc_lists(root: Path, reading: Reading, wanted: str) -> dict[str, Path]:
    """Split name to VOC's file with the names of its pictures; empty where none is of the rows that are wanted."""
    folder = root / "ImageSets" / "Segmentation"
    files = [e for e in _visible(folder, root) if e.suffix.casefold() == ".txt"] if folder.is_dir() else []
    found = {split: file for file in files if (split := _split_called(file.stem)) is not None}
    return found if wanted in found or ("train" in found and not reading.to_predict) else {}


def _as_listed(
    table: Table, pictures: Mapping[str, str], lists: Mapping[str, Path], root: Path, reading: Reading, wanted: str
) -> dict[str, Table]:
    """The rows of each split that a file names, a picture a line without its suffix.

    Args:
        table: Rows of pictures.
        pictures: Name to the file name that a row has.
        lists: Split name to its file.
        root, reading, wanted: As for `read_folder`.

    Raises:
        DataError: E-DATA-MISSING, no file names a picture that can be used.
    """
    position = {name: i for i, name in enumerate(table.column("image"))}
    found: dict[str, Table] = {}
    for split, file in lists.items():
        _is_link_inside(file, root)
        shown = _relative(file, root)
        lines = read_whole_text(file, shown, reading).splitlines()
        names = dict.fromkeys(line.strip() for line in lines if line.strip())
        rows = [position[pictures[name]] for name in names if pictures.get(name) in position]
        if len(rows) < len(names):
            more = f"{len(names) - len(rows):,} of {len(names):,}"
            reading.notes.append(f"Names in {shown} of pictures that are not there or have no mask: {more}.")
        if rows:
            found[split] = table.select(rows)
    if "train" not in found and wanted not in found:
        what = f"no picture with a mask is named in {_relative(lists['train' if 'train' in lists else wanted], root)}"
        remedy = "write the names of pictures into it, one a line without the suffix, or take it out of the folder"
        raise DataError("DATA-MISSING", what, where=str(root), remedy=remedy)
    unlisted = len(table) - len({place for part in found.values() for place in part.column("image")})
    if unlisted:
        reading.notes.append(f"Pictures that no file in ImageSets/Segmentation names are not used: {unlisted:,}.")
    return found


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
    if not texts and (phones := sorted(set(map(str.casefold, others)) & _UNREAD_PICTURES)):
        what = f"the folder {folder.name!r} has pictures in a format that is not read: {', '.join(phones)}"
        raise DataError("DATA-EMPTY", what, where=str(folder), remedy="save them as JPEG")
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
_COCO_FILE = re.compile(r"instances_.*\.json|_annotations\.coco\.json")
# A class, and where it is: a box has four numbers, an outline more.
_YOLO_LINE = re.compile(r"[0-9]+(\.0+)?(\s+-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?){4,}")
_YOLO_FILES, _YOLO_BYTES = 20, 65536


def _refuse_boxes(folder: Path) -> None:
    """Say it where pictures come with boxes or masks: they are no classes."""
    entries = {entry.name.casefold(): entry for entry in folder.iterdir()}
    beside = [entry for name in ("annotations", "coco") if (entry := entries.get(name)) is not None and entry.is_dir()]
    names = [*entries, *(file.name.casefold() for other in beside for file in other.iterdir())]
    if "annotations" in entries and "jpegimages" in entries:
        kind = "VOC's layout of boxes"
    elif any(_COCO_FILE.fullmatch(name) for name in names):
        kind = "COCO's files of boxes"
    else:
        return
    raise _boxes(folder, kind)


def _boxes(folder: Path, kind: str) -> DataError:
    return DataError(
        "DATA-FORMAT",
        f"the folder {folder.name!r} has {kind}: object detection comes in a later version",
        where=str(folder),
        remedy="to classify whole pictures, put those of each class into a sub-folder of its name",
    )


def _refuse_yolo(folder: Path, kind: media.Kind | None, tables: Sequence[Path], reading: Reading) -> None:
    """Say it where text files beside pictures hold their boxes: they are no texts to learn, one class a folder.

    Args:
        folder: Where rows are looked for.
        kind: What most of its files are.
        tables: In the folder; where one names the pictures it is what is read.
        reading: For the tables.
    """
    if (folder / media.METADATA).is_file() or not _has_yolo_boxes(folder, kind):
        return
    if not any(_lists_files(table, "image", reading) for table in tables):
        raise _boxes(folder, "YOLO's files of boxes")


def _has_yolo_boxes(folder: Path, kind: media.Kind | None) -> bool:
    """Whether text files that are called as pictures are hold numbers, a box a line.

    They lie in ``labels/`` as the pictures do in ``images/``, or beside the pictures where these are not the more.
    """

    def key(parts: Sequence[str]) -> tuple[str, ...]:
        return tuple("*" if part.casefold() in ("images", "labels") else part for part in parts)

    texts: dict[tuple[str, ...], dict[str, Path]] = {}
    for place, _, names in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        if kind is None or "labels" in map(str.casefold, parts):
            found = sorted(name for name in names if name.casefold().endswith(".txt") and not name.startswith("."))
            for name in found[:_YOLO_FILES]:
                texts.setdefault(key(parts), {})[Path(name).stem] = Path(place, name)
    if not texts:
        return False
    called_alike: set[Path] = set()
    for place, _, names in os.walk(folder):
        if (beside := texts.get(key(Path(place).relative_to(folder).parts))) is not None:
            stems = {Path(name).stem for name in names if media.kind_of(name) == "image"}
            called_alike |= {text for stem, text in beside.items() if stem in stems}
    lines = [line for text in sorted(called_alike)[:_YOLO_FILES] for line in _first_lines(text)]
    if called_alike and not lines:  # pictures with nothing in them
        return any((root / "data.yaml").is_file() for root in (folder, folder.parent))
    return bool(lines) and all(_YOLO_LINE.fullmatch(line) for line in lines)


def _first_lines(path: Path) -> list[str]:
    """Lines at the beginning of a file that hold something, without the spaces around them."""
    try:
        # Trap: opening a FIFO waits for a writer.
        if path.is_symlink() or not path.is_file():
            return []
        with open(path, "rb") as handle:
            start = handle.read(_YOLO_BYTES)
    except OSError:
        return []  # said by whoever reads it
    lines = start.decode("utf-8", "replace").splitlines()
    return [line.strip() for line in (lines[:-1] if len(start) == _YOLO_BYTES else lines) if line.strip()]


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
    return visible(os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace"))


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


def name_of(path: Path) -> str:
    """A file's stem; the folder's name where the file is only called train."""
    is_split = any(path.stem.casefold() in names for names in SPLIT_NAMES.values())
    name = path.absolute().parent.name if is_split else path.stem or path.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
