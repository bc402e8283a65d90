"""Plain text, as people have it to go on with pretraining: a row a paragraph.

A paragraph is what stands between empty lines, with its line ends as they are. A file without empty lines between
others, or with so few that a paragraph would have more than 50 lines, has a row a line.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from unfreeze.data.columns import is_known_name
from unfreeze.data.conll import is_column_file
from unfreeze.data.files import Reading, check_content, lines_without_nul
from unfreeze.data.table import Table, TableBuilder, joined
from unfreeze.errors import DataError

SUFFIX = ".txt"
# What lies beside data and is no data, whatever its case.
BESIDE = frozenset(
    ("readme", "license", "licence", "copying", "notice", "changelog", "changes", "citation", "requirements")
)
# Of a paragraph, at the mean: a stray empty line among a thousand others divides nothing.
_MOST_LINES = 50
# So many lines tell whether a file is a table that is called .txt.
_SAMPLE_LINES = 50


def is_prose(path: Path) -> bool:
    """Whether a file is called as plain text is, and has no tagged words a line."""
    return path.suffix.casefold() == SUFFIX and not path.is_dir() and not is_column_file(path)


def read_paragraphs(path: Path, name: str, reading: Reading) -> Table:
    """Rows with one column, ``text``; a row's place is its first line.

    Raises:
        DataError: See `_read`.
    """
    table, unit = _read(path, name, reading)
    reading.notes.append(f"{name} is plain text, a row a {unit}.")
    return table


def read_all(paths: Sequence[Path], reading: Reading) -> Table:
    """The rows of several files as of one, with one note on all of them."""
    if len(paths) == 1:
        return read_paragraphs(paths[0], paths[0].name, reading)
    tables, units = zip(*(_read(path, path.name, reading) for path in paths), strict=True)
    counts = Counter(units)
    shown = ", ".join(f"{counts[unit]:,} a row a {unit}" for unit in ("paragraph", "line") if counts[unit])
    reading.notes.append(f"{len(paths):,} files of plain text are read: {shown}.")
    return joined(tables)


def _read(path: Path, name: str, reading: Reading) -> tuple[Table, str]:
    """A file's rows, and whether they are paragraphs or lines.

    Raises:
        DataError: E-DATA-FORMAT for a table or JSON lines under this name; E-DATA-EMPTY without text; E-DATA-ROW for a
            NUL character; as `read_file` for encodings.
    """
    check_content(path, name, SUFFIX)
    lines = list(lines_without_nul(path, name, reading))
    _refuse_table(lines, name)
    paragraphs, unit = list(_paragraphs(lines)), "paragraph"
    filled = sum(len(part) for _, part in paragraphs)
    if len(paragraphs) == 1 or filled > _MOST_LINES * len(paragraphs):
        paragraphs = [(first + i, [line]) for first, part in paragraphs for i, line in enumerate(part)]
        unit = "line"
    builder = TableBuilder(name, ["text"])
    for number, part in paragraphs:
        builder.add({"text": "".join(part).rstrip("\r\n")}, number)
    if not paragraphs:
        raise DataError("DATA-EMPTY", f"{name} holds no text", where=name)
    return builder.finish(), unit


def _paragraphs(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The number of its first line, and the lines, of each paragraph."""
    for is_filled, group in itertools.groupby(enumerate(lines, 1), key=lambda item: bool(item[1].strip())):
        if is_filled:
            numbered = list(group)
            yield numbered[0][0], [line for _, line in numbered]


def _refuse_table(lines: Sequence[str], name: str) -> None:
    """A table, or JSON, would be read as prose, labels and all."""
    sample = [line.rstrip("\r\n") for line in lines[:_SAMPLE_LINES] if line.strip()]
    if not sample:
        return
    tabs = {line.lstrip("\t").count("\t") for line in sample}  # a tab at the beginning is an indentation
    divided = next((d for d in ",;|" if _is_header(sample[0], d) and len(sample) > 1 and d in sample[1]), None)
    if len(sample) > 1 and len(tabs) == 1 and tabs != {0}:
        what, suffix = f"every line has {tabs.pop() + 1} columns with a tab between", ".tsv"
    elif all(_is_object(line) for line in sample):
        what, suffix = "every line is a JSON object", ".jsonl"
    elif sample[0].lstrip().startswith("[") and sample[0].lstrip(" [")[:1] in ("{", "") and _is_json(lines):
        what, suffix = "it is JSON", ".json"
    elif divided is not None:
        what, suffix = f"its first line names columns: {sample[0][:60]}", ".csv"
    else:
        return
    raise DataError(
        "DATA-FORMAT", f"{name} is no plain text: {what}", where=name, remedy=f"rename it to {suffix}, and name that"
    )


def _is_header(line: str, delimiter: str) -> bool:
    """Whether a line names columns as people call them, and no sentence has it."""
    names = [part.strip().strip('"') for part in line.split(delimiter)]
    return len(names) > 1 and all(1 <= len(name.split()) <= 2 for name in names) and any(map(is_known_name, names))


def _is_json(lines: Sequence[str]) -> bool:
    try:
        return isinstance(json.loads("".join(lines)), list)
    except ValueError:
        return False


def _is_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
