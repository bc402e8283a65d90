"""One file of any readable format as a `Table`: text exactly as it stands, or an error with file and row.

Nothing here guesses at values: "NA", "null" and "007" stay texts, spaces stay spaces. What is decided about a file (its
delimiter, its quoting, whether it has a header) is decided by the rules written below and told in a note.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from unfreeze.data import squad
from unfreeze.data.columns import is_known_name
from unfreeze.data.table import Places, Table, TableBuilder, check_names, shortened
from unfreeze.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
READABLE = (
    "readable are: .csv, .tsv, .jsonl, .json (a list of objects), .parquet, .conll (a word and its tags a line), and "
    ".txt (plain text, a row a paragraph)"
)

_SAMPLE_RECORDS = 1000
_LONGEST_NAME = 60

# First bytes to what the file is, where its name says something else.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", "rename it to .parquet"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "save the sheet as CSV (UTF-8), or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV (UTF-8)"),
    (b"\x1f\x8b", "gzip-compressed", "unpack it with gunzip"),
    (b"BZh", "bzip2-compressed", "unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "xz-compressed", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it with unzstd"),
    (b"ARROW1", "an Arrow file", "load it with datasets.Dataset.from_file and pass the object"),
    (b"%PDF", "a PDF document", "give a table of texts"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"version https://git-lfs", "only the pointer of a git-lfs file", "fetch the file itself: git lfs pull"),
)


@dataclass
class Reading:
    """What goes with reading the files of one data set.

    Attributes:
        encoding: What the user named, or None for UTF-8.
        config_name: Which configuration of a Hub data set.
        to_predict: Whether rows are only to be answered: pictures without a mask are rows, too.
        notes: Sentences about what was recognised or assumed.
        text_files: Number of files that the encoding applied to.
        hub_sets: Number of data sets that the configuration applied to.
    """

    encoding: str | None = None
    config_name: str | None = None
    to_predict: bool = False
    notes: list[str] = field(default_factory=list)
    text_files: int = 0
    hub_sets: int = 0

    def __post_init__(self) -> None:
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError:
            raise DataError(
                "DATA-ENCODING",
                f"there is no text encoding {self.encoding!r}",
                where="data.encoding",
                remedy="write for example --set data.encoding=cp1252; or latin-1, utf-16, shift_jis, gb18030",
            ) from None


def read_file(path: Path, name: str, reading: Reading) -> Table:
    """Read one table.

    Args:
        path: A file whose suffix is one of `SUFFIXES`.
        name: What to call it in places and messages.
        reading: Encoding in, notes out.

    Raises:
        DataError: With file and row, for whatever is wrong with it.
    """
    readers: dict[str, Callable[[Path, str, Reading], Table]] = {
        ".csv": _read_csv,
        ".tsv": _read_tsv,
        ".jsonl": _read_json_lines,
        ".json": _read_json,
        ".parquet": _read_parquet,
    }
    suffix = path.suffix.casefold()
    if suffix not in readers:
        raise DataError("DATA-FORMAT", f"{name} is of an unknown kind", where=str(path), remedy=READABLE)
    check_content(path, name, suffix)
    return readers[suffix](path, name, reading)


def read_whole_text(path: Path, name: str, reading: Reading) -> str:
    """A text file as one string, line ends and spaces as they are, without a byte order mark."""
    check_regular(path, name)
    return "".join(lines_of(path, name, reading))


def check_regular(path: Path, name: str) -> os.stat_result:
    """Refuse what is not a plain file, without opening it: opening a FIFO would wait for ever.

    Raises:
        DataError: E-DATA-FORMAT, E-DATA-MISSING for a broken link.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError("DATA-MISSING", f"{name} is a link to a file that is not there", where=str(path)) from None
    except OSError as error:
        raise unreadable(path, name, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(
            "DATA-FORMAT", f"{name} is not a regular file", where=str(path), remedy="give a file or a folder"
        )
    return status


def unreadable(path: Path, name: str, error: OSError) -> DataError:
    """The error for a file that the system does not let us open."""
    return DataError(
        "DATA-UNREADABLE",
        f"{name} cannot be opened: {error.strerror or error}",
        where=str(path),
        remedy="give yourself the right to read it",
    )


def check_content(path: Path, name: str, suffix: str) -> None:
    """Compare the first bytes with what the name promises.

    Raises:
        DataError: E-DATA-EMPTY, E-DATA-FORMAT, E-DATA-UNREADABLE.
    """
    if check_regular(path, name).st_size == 0:
        raise DataError("DATA-EMPTY", f"{name} is empty", where=str(path))
    try:
        with open(path, "rb") as handle:
            start = handle.read(4096)
    except OSError as error:
        raise unreadable(path, name, error) from None
    if suffix == ".parquet":
        return
    expected = suffix.removeprefix(".").upper()
    for magic, what, remedy in _MAGIC:
        if start.startswith(magic):
            raise DataError("DATA-FORMAT", f"{name} is not {expected}: it is {what}", where=str(path), remedy=remedy)
    opening = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if opening.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(
            "DATA-FORMAT",
            f"{name} is not {expected}: it is a web page or XML",
            where=str(path),
            remedy="download the raw file: a link to a page about the file gives the page",
        )
    if suffix in (".csv", ".tsv") and re.match(rb'\{\s*"[^"]*"\s*:', opening):
        raise DataError(
            "DATA-FORMAT",
            f"{name} is not {expected}: it holds JSON objects",
            where=str(path),
            remedy="rename it to .jsonl (one object a line) or .json",
        )


# text and encodings


def lines_of(path: Path, name: str, reading: Reading) -> Iterator[str]:
    """Lines with their ends (LF, CRLF or CR) as they are; the byte order mark is dropped.

    Raises:
        DataError: E-DATA-ENCODING, with the row of the first byte that does not fit.
    """
    reading.text_files += 1
    encoding = reading.encoding or "utf-8"
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
    if reading.encoding is None:
        _check_not_utf16(path, name)
    try:
        with open(path, encoding=encoding, newline="") as handle:
            for number, line in enumerate(handle):
                yield line.removeprefix("\ufeff") if number == 0 else line
    except UnicodeError:
        raise _encoding_error(path, name, reading.encoding) from None
    except OSError as error:
        raise unreadable(path, name, error) from None


def _check_not_utf16(path: Path, name: str) -> None:
    """UTF-16 is found by its mark, or by a NUL in every other byte; as UTF-8 that would read as text with NULs."""
    with open(path, "rb") as handle:
        start = handle.read(4096)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        guess = "utf-16"
    elif len(start) >= 4 and start[1::2].count(0) > 0.4 * len(start[1::2]) and not start[::2].count(0):
        guess = "utf-16-le"
    elif len(start) >= 4 and start[::2].count(0) > 0.4 * len(start[::2]) and not start[1::2].count(0):
        guess = "utf-16-be"
    else:
        return
    raise DataError(
        "DATA-ENCODING",
        f"{name} is not UTF-8 but looks like UTF-16 (byte 0x{start[0]:02x} in row 1)",
        where=f"{name}:1",
        remedy=f"--set data.encoding={guess}",
    )


def _encoding_error(path: Path, name: str, encoding: str | None) -> DataError:
    content = path.read_bytes()
    try:
        content.decode(encoding or "utf-8")
        bad, reason = 0, "it cannot be decoded"
    except UnicodeDecodeError as error:
        bad, reason = error.start, error.reason
    except UnicodeError as error:
        bad, reason = 0, str(error)
    row = len(re.findall(rb"\r\n|\r|\n", content[:bad])) + 1
    what = f"{name} is not {encoding or 'UTF-8'}: byte 0x{content[bad]:02x} in row {row} ({reason})"
    if encoding:
        remedy = f"name another encoding than {encoding}, or leave it out for UTF-8"
    elif _is_binary(content):
        remedy = "save it as text, such as CSV in UTF-8"
        return DataError(
            "DATA-FORMAT", f"{name} is not a text file: byte 0x{content[bad]:02x}", where=name, remedy=remedy
        )
    elif _has_utf8_beside(content):
        remedy = f"the rest of the file is UTF-8, so correct row {row}; its encodings are mixed"
    else:
        remedy = f"--set data.encoding={_single_byte_guess(content)}"
    return DataError("DATA-ENCODING", what, where=f"{name}:{row}", remedy=remedy)


def _is_binary(content: bytes) -> bool:
    """Whether more than 1 % of the beginning are control characters: no text, or UTF-16 without its mark."""
    start = content[:65536]
    return len(re.findall(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", start)) > 0.01 * len(start)


def _has_utf8_beside(content: bytes) -> bool:
    """Whether most characters beyond ASCII are proper UTF-8: one wrong row in a file that is right otherwise."""
    text = content.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return sum(1 for c in text if c > "\x7f") - wrong > wrong


def _single_byte_guess(content: bytes) -> str:
    """cp1252 where it can be (it holds all printable Latin-1), else latin-1, which reads any byte."""
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


# CSV and TSV


def _read_csv(path: Path, name: str, reading: Reading) -> Table:
    excel = re.fullmatch(r"sep=([,;|\t])[\r\n]*", next(lines_of(path, name, reading), ""))
    if excel:
        reading.notes.append(f"{name} starts with Excel's {excel[0].strip()!r}, which is not a row.")
        return _read_records(path, name, reading, excel[1], quoted=True, skip_records=1)
    delimiter = _delimiter(path, name, reading)
    if delimiter != ",":
        shown = {"\t": "a tab", ";": "a semicolon", "|": "a bar"}[delimiter]
        reading.notes.append(f"{name} is read with {shown} between columns.")
    return _read_records(path, name, reading, delimiter, quoted=True)


def _read_tsv(path: Path, name: str, reading: Reading) -> Table:
    quoted = _is_quoted_tsv(path, name, reading)
    if quoted:
        reading.notes.append(f"{name} has quoted texts; the quotes are not part of the text.")
    return _read_records(path, name, reading, "\t", quoted=quoted)


def _delimiter(path: Path, name: str, reading: Reading) -> str:
    """A comma, unless the header has none and another delimiter gives the same number of columns in every row."""
    first = next(lines_of(path, name, reading), "")
    if "," in first:
        return ","
    for delimiter in (";", "\t", "|"):
        if delimiter not in first:
            continue
        try:
            head = list(itertools.islice(_records(path, name, reading, delimiter, quoted=True), 50))
        except DataError:
            continue
        if len({len(fields) for _, fields in head}) == 1:
            return delimiter
    return ","


def _is_quoted_tsv(path: Path, name: str, reading: Reading) -> bool:
    """Whether quotes in a TSV are quoting, or part of the text, as in most TSV files that people have.

    They are quoting if every field that starts with a quote is properly quoted, and either needs it (a doubled quote, a
    tab or a line break inside) or stands in a column, header included, that is quoted throughout.
    """
    widths: set[int] = set()
    always: list[bool] | None = None
    is_proper, is_needed, any_quoted = True, True, False
    for line in lines_of(path, name, reading):
        fields = line.rstrip("\r\n").split("\t")
        widths.add(len(fields))
        starts = [part.startswith('"') for part in fields]
        always = starts if always is None else [a and b for a, b in zip(always, starts, strict=False)]
        for part in itertools.compress(fields, starts):
            any_quoted = True
            inner = part[1:-1]
            is_proper &= len(part) >= 2 and part.endswith('"') and '"' not in inner.replace('""', "")
            is_needed &= '""' in inner
    if not any_quoted:
        return False
    if len(widths) == 1:
        return is_proper and (is_needed or any(always or []))
    try:  # a tab or a line break inside quotes makes the plain rows uneven
        return len({len(fields) for _, fields in _records(path, name, reading, "\t", quoted=True)}) == 1
    except DataError:
        return False


def _records(
    path: Path, name: str, reading: Reading, delimiter: str, *, quoted: bool
) -> Iterator[tuple[int, list[str]]]:
    """Line number of its start, and fields, of each record; blank lines are skipped and counted.

    Raises:
        DataError: E-DATA-ROW for NUL bytes and broken quotes.
    """
    # Trap: the default limit of a field is 128 KiB, and a book does not fit.
    csv.field_size_limit(2**31 - 1)
    lines = lines_without_nul(path, name, reading)
    # Trap: where quotes are part of the text, a text that starts with one would swallow the rows after it.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        start = rows.line_num + 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise _quote_error(name, start, rows.line_num, error) from None
        yield start, fields


def lines_without_nul(path: Path, name: str, reading: Reading) -> Iterator[str]:
    """As `lines_of`; E-DATA-ROW where a line holds a NUL."""
    for number, line in enumerate(lines_of(path, name, reading), 1):
        if "\0" in line:
            raise DataError(
                "DATA-ROW",
                f"a NUL character in the text: {shortened(line)}",
                where=f"{name}:{number}",
                remedy="the file is damaged, or not text: write it anew",
            )
        yield line


def _quote_error(name: str, start: int, line: int, error: csv.Error) -> DataError:
    if "end of data" in str(error):
        what = "a quoted text that starts in this row is never closed"
    else:
        what = f"a quoted text that starts in row {start} is not closed properly in row {line} ({error})"
    return DataError(
        "DATA-ROW",
        what,
        where=f"{name}:{start}",
        remedy='inside a quoted text, write a quote twice: "say ""hi"" to her"',
    )


def _read_records(
    path: Path, name: str, reading: Reading, delimiter: str, *, quoted: bool, skip_records: int = 0
) -> Table:
    records = itertools.islice(_records(path, name, reading, delimiter, quoted=quoted), skip_records, None)
    blank = [0, 0]  # lines skipped; lines skipped since the last record
    filled = _without_blank(records, blank)
    head = list(itertools.islice(filled, _SAMPLE_RECORDS))
    if not head:
        raise DataError("DATA-EMPTY", f"{name} has no rows", where=name)
    reason = _why_no_header([fields for _, fields in head])
    width = len(head[0][1])
    if reason is None:
        names = _header_names(head.pop(0)[1], name, reading)
    else:
        names = [f"column_{i}" for i in range(1, width + 1)]
        reading.notes.append(f"{name} has no header ({reason}); its columns are called {', '.join(names)}.")
    builder = TableBuilder(name, names)
    for line, fields in itertools.chain(head, filled):
        if len(fields) != width:
            raise _ragged(name, line, fields, width, delimiter)
        builder.add(dict(zip(names, fields, strict=True)), line)
    if blank[0]:
        reading.notes.append(f"{name}: {blank[0]} blank lines between the rows were skipped.")
    return _finished(builder, name, names)


def _without_blank(records: Iterator[tuple[int, list[str]]], blank: list[int]) -> Iterator[tuple[int, list[str]]]:
    for line, fields in records:
        if fields:
            blank[0], blank[1] = blank[0] + blank[1], 0
            yield line, fields
        else:
            blank[1] += 1


def _finished(builder: TableBuilder, name: str, names: Sequence[str]) -> Table:
    try:
        return builder.finish()
    except DataError as error:
        if error.code != "DATA-EMPTY":
            raise
        shown = ", ".join(names)
        raise DataError("DATA-EMPTY", f"{name} has a header ({shown}) and no rows", where=f"{name}:1") from None


def _why_no_header(records: list[list[str]]) -> str | None:
    """Why the first record is a row of data and not a header; None where it is a header.

    It is a header if it holds a name that people give to columns. Else it is data if a field is a number (other than
    0, 1, 2 ... throughout), a list of numbers, too long for a name, or comes again below in its column.
    """
    first, rest = records[0], records[1:]
    if any(is_known_name(cell) for cell in first) or first == [str(i) for i in range(len(first))]:
        return None
    for i, cell in enumerate(first):
        if re.fullmatch(r"\s*[-+]?[0-9]+([.,]\s*[0-9]+)*\s*", cell):
            return f"its first row holds {shortened(cell)}"
        if len(cell) > _LONGEST_NAME or len(cell.split()) > 6:
            return f"its first row holds a text: {shortened(cell)}"
        if cell and any(len(fields) > i and fields[i] == cell for fields in rest):
            return f"{shortened(cell)} of its first row comes again below"
    return None


def _header_names(cells: list[str], name: str, reading: Reading) -> list[str]:
    named = [cell if cell.strip() else f"column_{i}" for i, cell in enumerate(cells, 1)]
    if named != cells:
        given = [new for new, cell in zip(named, cells, strict=True) if new != cell]
        reading.notes.append(f"{name} has columns without a name, called {', '.join(given)}.")
    check_names(named, f"{name}:1")
    return named


def _ragged(name: str, line: int, fields: list[str], width: int, delimiter: str) -> DataError:
    shown = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}[delimiter]
    many = f"put the text in double quotes where it holds {shown}" if len(fields) > width else "complete the row"
    return DataError(
        "DATA-ROW",
        f"{len(fields)} fields instead of {width}: {shortened(delimiter.join(fields))}",
        where=f"{name}:{line}",
        remedy=many,
    )


# JSON


def _read_json_lines(path: Path, name: str, reading: Reading) -> Table:
    builder = TableBuilder(name)
    blank = skipped = 0
    for number, line in enumerate(lines_of(path, name, reading), 1):
        if not line.strip():
            blank += 1
            continue
        skipped, blank = skipped + blank, 0
        builder.add(_parse_object(line, f"{name}:{number}"), number)
    if skipped:
        reading.notes.append(f"{name}: {skipped} blank lines between the rows were skipped.")
    return builder.finish()


def _read_json(path: Path, name: str, reading: Reading) -> Table:
    filled = list(itertools.islice((line for line in lines_of(path, name, reading) if line.strip()), 2))
    first = filled[0].strip() if filled else ""
    if not first.startswith("["):
        is_indented = len(filled) == 2 and first.startswith("{") and not any(map(_is_whole, filled))
        if is_indented or len(filled) == 1:
            value = _parse("".join(lines_of(path, name, reading)), name if is_indented else f"{name}:1")
            if squad.is_squad(value):
                return squad.rows_of(value, name)
            if is_indented or _surrounds_rows(value):
                raise DataError(
                    "DATA-FORMAT",
                    f"{name} holds one JSON object, not a list of rows",
                    where=name,
                    remedy='write a list, [{"text": ..., "label": ...}, ...], or one object a line',
                )
        return _read_json_lines(path, name, reading)
    rows = _parse("".join(lines_of(path, name, reading)), name)
    builder = TableBuilder(name)
    for number, row in enumerate(rows, 1):
        builder.add(_checked_object(row, f"{name}:{number}"), number)
    return builder.finish()


def _is_whole(line: str) -> bool:
    """Whether a line is JSON by itself, as in a file of one object a line, and not the beginning of more."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _surrounds_rows(value: Any) -> bool:
    """Whether the one value of a file is an object around the rows, as in {"version": 1, "data": [{...}, ...]}."""
    inner = list(value.values()) if isinstance(value, dict) else []
    has_rows = any(isinstance(v, list) and v and isinstance(v[0], dict) for v in inner)
    return has_rows or (bool(inner) and all(isinstance(v, list | dict) for v in inner))


def _parse_object(line: str, where: str) -> dict[str, Any]:
    return _checked_object(_parse(line, where), where)


def _checked_object(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise DataError(
        "DATA-ROW",
        f"a row must be a JSON object, not {shortened(value)}",
        where=where,
        remedy='write {"text": ..., "label": ...}; a list of objects belongs into a .json file',
    )


def _parse(text: str, where: str) -> Any:
    """JSON without what other programs would read differently: equal keys, NaN and infinite numbers."""
    try:
        return _DECODER.decode(text.strip())
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        what = f"not JSON: {error.msg} at {place}column {error.colno}: {shortened(error.doc[max(0, error.pos - 20) :])}"
    except RecursionError:
        what = "the JSON is nested too deeply"
    except ValueError as error:
        what = str(error)
    raise DataError("DATA-ROW", what, where=where, remedy="correct the row")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON; write null where there is no number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite)


# Parquet


def _read_parquet(path: Path, name: str, reading: Reading) -> Table:
    try:
        # Trap: pq.read_table would add columns for folders that are called like "year=2020".
        arrow = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        with open(path, "rb") as handle:
            is_parquet = handle.read(4) == b"PAR1"
        kind = "a damaged or truncated" if is_parquet else "not a"
        raise DataError(
            "DATA-FORMAT",
            f"{name} is {kind} Parquet file: {str(error).splitlines()[0]}",
            where=str(path),
            remedy="copy or write the file anew" if is_parquet else READABLE,
        ) from None
    if not arrow.num_rows:
        raise DataError("DATA-EMPTY", f"{name} has no rows", where=str(path))
    return Table.from_arrow(arrow, Places.of_lines(name, range(1, arrow.num_rows + 1)), where=name)
