"""Column files, as CoNLL's shared tasks made them: a word and its tags a line, a blank line between sentences.

::

    -DOCSTART- -X- -X- O        left out: it marks a document and is no sentence

    EU NNP B-NP B-ORG           the word comes first, the tag asked for last
    rejects VBZ B-VP O

Lines such as ``# text = EU rejects`` before the first word of a sentence say something about it, and are left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from unfreeze.data.files import Reading, check_regular, lines_of
from unfreeze.data.table import Table, TableBuilder, shortened
from unfreeze.errors import DataError

SUFFIXES = frozenset((".conll", ".bio", ".iob", ".iob2"))
_DOCUMENT = "-DOCSTART-"
_COLUMN = re.compile(r"[^ \t\r\n]+")
_COMMENT = "# "
# As Universal Dependencies and MultiCoNER write them: these may have as many columns as a word has.
_KNOWN_COMMENT = re.compile(r"# (\S+ = |id\b|newdoc\b|newpar\b)")
# So many lines of a .txt file must look like columns; prose has lines of many lengths.
_FEWEST_LINES, _MOST_COLUMNS, _SAMPLE_BYTES = 6, 12, 8192


def is_column_file(path: Path) -> bool:
    """Whether a file is one: by its suffix, or a ``.txt`` by its first lines."""
    suffix = path.suffix.casefold()
    if suffix in SUFFIXES:
        return not path.is_dir()
    if suffix != ".txt" or not path.is_file():
        return False
    try:
        with open(path, "rb") as handle:
            start = handle.read(_SAMPLE_BYTES)
    except OSError:
        return False
    lines = start.split(b"\n")
    whole = lines[:-1] if len(start) == _SAMPLE_BYTES else lines
    rows = [fields for line in whole if not line.startswith(_COMMENT.encode()) and (fields := line.split())]
    widths = {len(fields) for fields in rows}
    if len(rows) < _FEWEST_LINES or len(widths) > 1 or not 2 <= max(widths) <= _MOST_COLUMNS:
        return False
    # Tags come again and again; the last words of verses, names or objects of JSON do not.
    tags = [fields[-1] for fields in rows]
    return 4 * len(set(tags)) <= 3 * len(tags) and not tags[0].endswith(b"}")


def read_columns(path: Path, name: str, reading: Reading) -> Table:
    """Rows of lists, one a sentence: ``tokens``, ``tags`` (the last column), and ``column_2`` and so on between.

    A row's place is the line of its first word.

    Raises:
        DataError: E-DATA-ROW for a line with more or fewer columns than the first; E-DATA-EMPTY without sentences;
            as `read_file` for encodings.
    """
    check_regular(path, name)
    builder = TableBuilder(name)
    names: list[str] = []
    for sentence in _sentences(path, name, reading):
        if not names:
            names = _names(len(sentence[0][1]), name, sentence[0][0])
        for number, fields in sentence:
            if len(fields) != len(names):
                raise DataError(
                    "DATA-ROW",
                    f"{len(fields)} columns, {len(names)} in the lines before: {shortened(' '.join(fields))}",
                    where=f"{name}:{number}",
                    remedy="write a word and its tags, separated by spaces or tabs, on every line",
                )
        columns = zip(*(fields for _, fields in sentence), strict=True)
        builder.add(dict(zip(names, map(list, columns), strict=True)), sentence[0][0])
    reading.notes.append(
        f"{name} holds a word a line and {len(names) - 1 or 'no'} columns of tags; the last is 'tags'."
    )
    return builder.finish()


def _names(count: int, name: str, line: int) -> list[str]:
    if count < 2:
        raise DataError(
            "DATA-ROW", "a word without a tag", where=f"{name}:{line}", remedy="write the tag after the word"
        )
    return ["tokens", *(f"column_{i}" for i in range(2, count)), "tags"]


def _sentences(path: Path, name: str, reading: Reading) -> Iterator[Sequence[tuple[int, list[str]]]]:
    """The lines of each sentence, with their numbers."""

    # Not at every kind of space: a number may be written with a narrow one inside.
    def parted() -> Iterator[tuple[int, str, list[str]]]:
        for number, line in enumerate(lines_of(path, name, reading), start=1):
            yield number, line, _COLUMN.findall(line)

    lines_of_words = (item for item in parted() if item[2] and not item[1].startswith(_COMMENT))
    layout = next((_layout(line, fields) for _, line, fields in lines_of_words), None)
    skipped = 0
    for is_filled, group in itertools.groupby(parted(), key=lambda item: bool(item[2])):
        if not is_filled:
            continue
        lines = list(group)
        words = list(itertools.dropwhile(lambda item: _is_comment(item[1], _layout(item[1], item[2]) == layout), lines))
        skipped += len(lines) - len(words)
        sentence = [(number, fields) for number, _, fields in words if fields[:1] != [_DOCUMENT]]
        if sentence:
            yield sentence
    if skipped:
        reading.notes.append(f"{name}: {skipped:,} lines of comments before the words of a sentence were skipped.")


def _layout(line: str, fields: Sequence[str]) -> tuple[int, bool]:
    """How many columns a line has, and whether with tabs."""
    return len(fields), "\t" in line


def _is_comment(line: str, is_laid_out: bool) -> bool:
    """Whether a line at the beginning of a sentence is none of a word; a word may be ``#`` itself.

    Args:
        line: As it stands.
        is_laid_out: Whether it has the columns of the file.
    """
    return line.startswith(_COMMENT) and (not is_laid_out or _KNOWN_COMMENT.match(line) is not None)
