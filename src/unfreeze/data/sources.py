"""Where data comes from: a file, a folder, a Hub id, or a Python object; in each case, `Splits` of `Table`.

::

    read ──> folders   what lies in a folder
        ├──> files     one table
        └──> objects   data frames, data sets, lists
"""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from unfreeze.data import conll, folders, media, objects, prose
from unfreeze.data.files import READABLE, SUFFIXES, Reading, check_regular, unreadable
from unfreeze.data.splits import Splits
from unfreeze.data.table import shortened
from unfreeze.errors import DataError, did_you_mean

__all__ = ["keep", "kept", "read"]

# Where a kept file has the names of its classes, in the schema's metadata.
_NAMES = b"names"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def read(
    data: Any,
    *,
    test: Any = None,
    validation: Any = None,
    encoding: str | None = None,
    config_name: str | None = None,
    wanted: str = "train",
    to_predict: bool = False,
) -> Splits:
    """Read a data set.

    Args:
        data: A path to a .csv, .tsv, .jsonl, .json, .parquet, .conll or .txt file; a folder; a Hub id such as
            ``imdb``; a `pandas.DataFrame`, a `datasets.Dataset` or `DatasetDict`, a list of dicts, or a dict of
            columns; or what was read before.
        test: Test rows, given in any of these ways; they take the place of those found with `data`.
        validation: Likewise for validation.
        encoding: Of text files that are not UTF-8.
        config_name: Which configuration (subset) of a Hub data set that has several.
        wanted: The split that must be there. With "test" a folder that has no training rows is read, too, and its test
            rows are also `Splits.train`.
        to_predict: Whether the rows are only to be answered, so that none is left out for what it lacks.

    Raises:
        DataError: E-DATA-MISSING, E-DATA-EMPTY, E-DATA-FORMAT, E-DATA-ENCODING, E-DATA-ROW,
            E-DATA-DUPLICATE-COLUMN, E-DATA-LINK or E-DATA-UNREADABLE, with file and row.

    Example:
        >>> splits = read([{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}])
        >>> splits.train.row(1).values["label"], splits.train.place(1)
        ('neg', 'data:2')
    """
    reading = Reading(encoding, config_name, to_predict)
    splits = _read_any(data, "data", reading, wanted)
    for role, given in (("validation", validation), ("test", test)):
        if given is None:
            continue
        if getattr(splits, role) is not None:
            reading.notes.append(f"The {role} rows found with the data are not used: others were named.")
        other = _read_any(given, role, reading, wanted=role)
        own = getattr(other, role)
        setattr(splits, role, other.train if own is None else own)
        splits.read_from = {**splits.read_from, role: other if own is None else other.read_from.get(role, other)}
        if splits.label_names is None:
            splits.label_names, splits.class_names = other.label_names, {**other.class_names, **splits.class_names}
    if encoding is not None and not reading.text_files:
        raise DataError(
            "DATA-ENCODING",
            f"the encoding {encoding!r} applies to nothing: no text file was read",
            where="data.encoding",
            remedy="leave data.encoding out",
        )
    if config_name is not None and not reading.hub_sets:
        raise DataError(
            "DATA-MISSING",
            f"the configuration {config_name!r} applies to nothing: no data set of the Hub was read",
            where="data.config_name",
            remedy="leave data.config_name out",
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
        data = splits.read_from.get(name, splits)
        stored = json.dumps({"label_names": data.label_names, "class_names": data.class_names})
        pyarrow.parquet.write_table(arrow.replace_schema_metadata({_NAMES: stored}), folder / f"{name}.parquet")


def kept(folder: Path) -> Splits | None:
    """What `keep` wrote; None where there is no such folder."""
    import pyarrow.parquet

    if not folder.is_dir():
        return None
    splits = _read_path(str(folder), Reading(None), "train").changed(lambda table: media.resolved(table, None))
    named = {}
    for name, table in splits.tables().items():
        stored = pyarrow.parquet.read_schema(folder / f"{name}.parquet").metadata or {}
        named[name] = Splits(table, **json.loads(stored.get(_NAMES, b"{}")))
    first = named.pop("train")
    names = first.label_names or splits.label_names  # earlier versions wrote labels.json
    return replace(splits, label_names=names, class_names=first.class_names, read_from=named)


def _read_any(data: Any, role: str, reading: Reading, wanted: str = "train") -> Splits:
    if isinstance(data, Splits):
        return data
    if isinstance(data, str | os.PathLike):
        return _read_path(os.fspath(data), reading, wanted)
    # Names of files in rows that come from Python mean what they would mean there.
    return objects.read_object(data, role, reading, wanted).changed(lambda table: media.resolved(table, None))


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
        return folders.read_folder(folders.unwrapped(path, reading), reading, wanted)
    if is_there and (kind := media.kind_of(path.name)) is not None:
        check_regular(path, path.name)
        return Splits(media.plain_rows([path.name], kind, path.absolute().parent), name=folders.name_of(path))
    if is_there:
        return Splits(folders.read_table(path, path.name, reading), name=folders.name_of(path))
    if _HUB_ID.fullmatch(data) and path.suffix.casefold() not in {*SUFFIXES, *conll.SUFFIXES, prose.SUFFIX}:
        return _from_hub(data, reading, wanted)
    raise _missing(path)


def _missing(path: Path) -> DataError:
    parent = path.parent
    if not parent.is_dir():
        remedy = f"there is no folder {str(parent)!r} either"
    else:
        near = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
        remedy = did_you_mean(path.name, near) if near else "the folder is empty"
    what = f"there is no file or folder {str(path)!r}"
    return DataError("DATA-MISSING", what, where=str(parent.absolute()), remedy=remedy)


def _from_hub(hub_id: str, reading: Reading, wanted: str) -> Splits:
    import datasets  # takes seconds: only where a Hub id was given

    try:
        loaded = datasets.load_dataset(hub_id, name=reading.config_name)
    except Exception as error:
        if (choices := _configurations_in(str(error))) is not None:
            raise _which_configuration(hub_id, reading.config_name, choices) from None
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
    reading.hub_sets += 1
    which = f", configuration {reading.config_name}," if reading.config_name is not None else ""
    reading.notes.append(f"{hub_id}{which} was loaded from the Hugging Face Hub.")
    return objects.from_dataset_dict(loaded, hub_id.rpartition("/")[2], reading, wanted)


def _configurations_in(message: str) -> list[str] | None:
    """The names in what `datasets` says of a data set with several configurations; None: it says something else.

    Trap: both are a ValueError without a kind of its own.
    """
    found = re.search(r"Config name is missing|BuilderConfig '.*?' not found", message)
    listed = re.search(r"\[(.*?)\]", message, re.DOTALL) if found else None
    return re.findall(r"'([^']+)'", listed[1]) if listed else None


def _which_configuration(hub_id: str, asked: str | None, choices: list[str]) -> DataError:
    shown = ", ".join(choices[:12]) + (" ..." if len(choices) > 12 else "")
    if asked is not None:
        what = f"{hub_id} has no configuration {asked!r}: {shown}"
        return DataError("DATA-MISSING", what, where="data.config_name", remedy=did_you_mean(asked, choices))
    what, example = f"the data set {hub_id} has several configurations: {shown}", choices[0] if choices else "NAME"
    return DataError("DATA-MISSING", what, where=hub_id, remedy=f"--set data.config_name={example}")
