"""Which column is the text, which the label: what the user named is checked, the rest is guessed by written rules.

1. Names first. The names that people use are listed below in tiers; the best tier with a column wins, and two columns
   in it are a question to the user, not a guess.
2. Then content. Few different short values that repeat are a label; long values that mostly differ are the text;
   unique short ones without spaces are ids and are left alone.

Every choice comes with a sentence that says why.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from unfreeze.data import media
from unfreeze.data.table import Table, holds_bytes, kind_of, shortened
from unfreeze.errors import DataError, did_you_mean

# Tiers, best first. Names are compared without case; '-' and ' ' count as '_'.
TEXT_NAMES: tuple[tuple[str, ...], ...] = (
    ("text", "texts", "sentence", "sentences"),
    (
        *("review", "content", "body", "comment", "comments", "tweet", "message", "utterance", "post", "description"),
        *("abstract", "passage", "document", "article", "question", "query", "transcript", "dialogue", "prompt"),
        *("string", "paragraph", "statement", "feedback", "answer", "response", "input"),
    ),
    ("title", "headline", "subject", "summary"),
)
LABEL_NAMES: tuple[tuple[str, ...], ...] = (
    ("label", "labels"),
    (
        *("class", "classes", "category", "categories", "target", "targets", "sentiment", "intent", "emotion"),
        *("emotions", "topic", "topics", "polarity", "tag", "tags", "genre", "stance", "y", "gold", "gold_label"),
    ),
    ("stars", "star", "rating", "score", "grade", "points", "similarity"),
)
TEXT_PAIRS: tuple[tuple[str, str], ...] = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("question", "answer"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "sentence"),
    ("query", "passage"),
    ("query", "document"),
    ("query", "title"),
)
GROUP_NAMES = frozenset(
    (
        *("speaker", "patient", "user", "author", "document", "doc", "subject", "group", "session", "conversation"),
        *("thread", "writer", "reviewer", "customer", "participant"),
    )
)
ID_NAMES = frozenset(
    ("id", "ids", "idx", "index", "uuid", "guid", "url", "uri", "filename", "file", "path", "date", "timestamp", "time")
)

_NUMBER_TEXT = r"^\s*[-+]?[0-9]+([.,][0-9]+)?\s*$"
_TOO_FEW_ROWS_TO_JUDGE = 10


@dataclass(frozen=True)
class Roles:
    """What the columns of a table mean.

    Attributes:
        text: The column with the text, or several that are read together (sentence pairs).
        label: The column with the label; several 0/1 columns; None where no label is needed.
        group: The column whose equal values must stay on one side of a split, only where the user named it.
        reasons: Role ("text", "label", "group") to one sentence that says why.
        looks_like_group: A column that could be one, where none was named.
    """

    text: tuple[str, ...]
    label: str | tuple[str, ...] | None
    group: str | None
    reasons: dict[str, str]
    looks_like_group: str | None = None


def guess_roles(
    table: Table,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    group: str | None = None,
    needs_label: bool = True,
) -> Roles:
    """Decide which columns are text and label; what is named is checked and kept.

    Args:
        table: The training rows, or the rows to predict.
        text: Name or names the user gave.
        label: Name the user gave, or the names of several 0/1 columns.
        group: Name the user gave; a group is never guessed, only pointed out in `Roles.reasons`.
        needs_label: False for prediction, where a label is used only if named.

    Raises:
        DataError: E-DATA-COLUMN (unknown, none, ambiguous or swapped columns), E-DATA-TEXT (numbers or nothing where
            text should be), E-DATA-LABEL (several label columns that are not 0/1).
    """
    named_text, named_label = _as_names(text), _as_names(label)
    _refuse_files(table)
    for role, names in (("text", named_text), ("label", named_label), ("group", _as_names(group))):
        for name in names:
            check_named(table, role, name)
    _check_distinct(named_text, named_label)
    profiles = {name: _profile(table, name) for name in table.columns}
    _check_swap(profiles, named_text, named_label)

    reasons: dict[str, str] = {}
    free = [p for name, p in profiles.items() if name not in (*named_label, group)]
    texts = named_text or _guess_text(free, reasons)
    for name in texts:
        _check_text(table, profiles[name])
    if named_text:
        reasons["text"] = f"{_listed(texts)}: named by you"
    return _with_label(table, profiles, texts, named_label, group, needs_label, reasons)


def _with_label(
    table: Table,
    profiles: Mapping[str, _Profile],
    inputs: tuple[str, ...],
    named_label: tuple[str, ...],
    group: str | None,
    needs_label: bool,
    reasons: dict[str, str],
) -> Roles:
    label_names = named_label
    if not named_label and needs_label:
        free = [p for name, p in profiles.items() if name not in (*inputs, group)]
        label_names = (_guess_label(table, free, reasons),)
    if len(named_label) > 1:
        _check_zero_one(table, named_label)
    if named_label:
        reasons["label"] = f"{_listed(named_label)}: named by you"
    return Roles(
        text=inputs,
        label=label_names[0] if len(label_names) == 1 else (label_names or None),
        group=group,
        reasons=reasons,
        looks_like_group=_point_out_group(profiles, (*inputs, *label_names), group, reasons),
    )


def written_roles(
    table: Table,
    names: tuple[Sequence[str], Sequence[str]],
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    needs_label: bool = True,
) -> Roles:
    """Which column is read and which is to be written, where both hold texts.

    Args:
        table: The training rows, or the rows to predict.
        names: What people call the column that is read, and the one that is written, best first.
        text, label, group: Names the user gave.
        needs_label: False for prediction.

    Raises:
        DataError: E-DATA-COLUMN.
    """
    read, reasons = _as_names(text), dict[str, str]()
    for role, given in (("text", read), ("label", _as_names(label)), ("group", _as_names(group))):
        for name in given:
            check_named(table, role, name)
    _check_distinct(read, _as_names(label))
    _refuse_files(table)
    written = label or _first_known(table, names[1], without=(*read, group))
    if not read:
        found = _first_known(table, names[0], without=(written, group))
        if found is None:
            rest = [c for c in table.columns if c not in (written, group) and not _profile(table, c).is_id]
            found = rest[0] if len(rest) == 1 else None
        if found is None:
            what = f"no column is the text to read by its name: {', '.join(table.columns)}"
            raise DataError("DATA-COLUMN", what, remedy="--set data.text=COLUMN --set data.label=COLUMN")
        read, reasons["text"] = (found,), f"{found!r} is read"
    else:
        reasons["text"] = f"{_listed(read)}: named by you"
    if written is None and needs_label:
        what = f"no column is the text to write by its name: {', '.join(table.columns)}"
        raise DataError("DATA-COLUMN", what, remedy="--set data.label=COLUMN")
    for name in read:
        _check_text(table, _profile(table, name))
    if written is not None:
        reasons["label"] = f"{written!r} is written" if label is None else f"{written!r}: named by you"
    return Roles(
        text=read,
        label=written if needs_label or label else None,
        group=group,
        reasons=reasons,
        looks_like_group=point_out_group(table, (*read, written), group, reasons),
    )


def point_out_group(
    table: Table, taken: Sequence[str | None], group: str | None, reasons: dict[str, str]
) -> str | None:
    """Say which column looks like one whose equal values should stay on one side of a split, or that one was named.

    Returns:
        The column that looks so; None where one was named.
    """
    profiles = {name: _profile(table, name) for name in table.columns if name not in taken}
    return _point_out_group(profiles, tuple(name for name in taken if name), group, reasons)


# Of what file names have in common; shorter ones say nothing, and many parts are no persons.
_FEWEST_FILES, _LARGEST_SHARE_OF_FILES, _MOSTLY = 20, 1 / 3, 0.8


def point_out_names(table: Table, files: str, label: str | None, reasons: dict[str, str]) -> None:
    """Say it where the names of files have a part that comes again and again, as that of a speaker or a patient does.

    A part is what stands between ``_``, ``-``, dots and spaces. It has letters, most of its values occur twice or more,
    and with several labels: what always has the same one says the label in other words.

    Args:
        files: The column with the names.
        label: The column with the labels, None where there are none.
        reasons: Gets a sentence, unless it has one on a group.
    """
    names = [value for value in table.column(files) if isinstance(value, str)] if len(table) >= _FEWEST_FILES else []
    if "group" in reasons or len(names) < len(table):
        return
    parts = [re.split(r"[_\-. ]+", PurePosixPath(name).stem) for name in names]
    labels = [str(value) for value in table.column(label)] if label is not None else [str(i) for i in range(len(names))]
    for place in range(min(map(len, parts))):
        values = [row[place] for row in parts]
        counts, seen = Counter(values), set(zip(values, labels, strict=True))
        crossing = sum(count > 1 for count in Counter(value for value, _ in seen).values())
        if (
            1 < len(counts) <= _LARGEST_SHARE_OF_FILES * len(values)
            and sum(count for count in counts.values() if count > 1) >= _MOSTLY * len(values)
            and all(any(c.isalpha() for c in value) for value in counts)
            and 5 * crossing > len(counts)
        ):
            reasons["group"] = (
                f"part {place + 1} of the file names, {values[0]!r} in {PurePosixPath(names[0]).name!r}, has "
                f"{len(counts):,} values and looks like a group: written into a column of metadata.csv, "
                "--set data.group=COLUMN keeps its rows on one side"
            )
            return


def _first_known(table: Table, names: Sequence[str], without: Sequence[str | None]) -> str | None:
    free = {_key(column): column for column in table.columns if column not in without}
    return next((free[name] for name in names if name in free), None)


def guess_file_roles(
    table: Table,
    kind: str,
    *,
    column: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    group: str | None = None,
    needs_label: bool = True,
) -> Roles:
    """As `guess_roles`, for rows of pictures or sound.

    Args:
        table: Its rows name files, or hold their bytes.
        kind: ``image`` or ``audio``; also the recipe's name of the column.
        column: Name the user gave.
        label, group, needs_label: As for `guess_roles`.

    Raises:
        DataError: E-DATA-COLUMN, E-DATA-LABEL.
    """
    named, named_label = _as_names(column), _as_names(label)
    for role, names in ((kind, named), ("label", named_label), ("group", _as_names(group))):
        for name in names:
            check_named(table, role, name)
    _check_distinct(named, named_label)
    reasons: dict[str, str] = {}
    read = file_column(table, kind, named, reasons)
    profiles = {name: _profile(table, name) for name in table.columns if name not in file_columns(table, kind)}
    roles = _with_label(table, profiles, (read,), named_label, group, needs_label, reasons)
    point_out_names(table, read, roles.label if isinstance(roles.label, str) else None, roles.reasons)
    return roles


def file_column(
    table: Table, kind: str, named: Sequence[str], reasons: dict[str, str], *, without: Collection[str | None] = ()
) -> str:
    """The column of files that is read.

    Args:
        table: The rows.
        kind: ``image`` or ``audio``.
        named: What the user named: nothing, or one column.
        reasons: Gets why it is this one.
        without: Columns that hold such files, too, and something else in them.

    Raises:
        DataError: E-DATA-COLUMN.
    """
    where = table.place(0) if len(table) else None
    known = file_columns(table, kind)
    if len(named) > 1:
        what = f"one column of {FILE_NOUNS[kind]} is read, {len(named)} were named"
        raise DataError("DATA-COLUMN", what, remedy=f"--set data.{kind}={named[0]}")
    if named:
        if named[0] not in known:
            what = f"column {named[0]!r} holds neither names of {FILE_NOUNS[kind]} nor their bytes"
            raise DataError("DATA-COLUMN", what, where=where, remedy=READ_FILES[kind])
        reasons[kind] = f"{_listed(named)}: named by you"
        return named[0]
    free = [name for name in known if name not in without]
    best = [name for name in free if _key(name) in FILE_NAMES[kind]] or free
    if len(best) != 1:
        what = f"{_listed(best)} each hold {FILE_NOUNS[kind]}" if best else f"no column holds {FILE_NOUNS[kind]}"
        remedy = " or ".join(f"--set data.{kind}={name}" for name in best) or READ_FILES[kind]
        raise DataError("DATA-COLUMN", what, where=where, remedy=remedy)
    reasons[kind] = f"{best[0]!r} holds {FILE_NOUNS[kind]}"
    return best[0]


def named_of_files(
    table: Table,
    kind: str,
    holds: str,
    *,
    column: str | Sequence[str] | None,
    label: str | Sequence[str] | None,
    group: str | None,
) -> tuple[tuple[str, ...], str | None]:
    """What the user named of rows that have a file and one thing that belongs to it: the file's column, and the other.

    Args:
        table: The rows.
        kind: ``image`` or ``audio``.
        holds: What the label's column holds, in the plural.
        column, label, group: Names the user gave.

    Raises:
        DataError: E-DATA-COLUMN, a column is not there, or several are named where one is read.
    """
    named, labels = _as_names(column), _as_names(label)
    if len(labels) > 1:
        what = f"one column holds the {holds}, {len(labels)} were named"
        raise DataError("DATA-COLUMN", what, remedy=f"--set data.label={labels[0]}")
    for role, names in ((kind, named), ("label", labels), ("group", _as_names(group))):
        for name in names:
            check_named(table, role, name)
    return named, labels[0] if labels else None


FILE_NOUNS = {"image": "pictures", "audio": "recordings"}
FILE_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "img", "picture", "photo", "file_name", "filename", "file", "path"),
    "audio": ("audio", "sound", "speech", "recording", "file_name", "filename", "file", "path"),
}
MASK_NAMES = ("mask", "masks", "segmentation", "annotation", "annotations", "label", "labels", "segmentation_mask")
READ_FILES = {
    "image": "give a folder of class folders, or a table with a column of file names (.jpg, .png ...)",
    "audio": "give a folder of class folders, or a table with a column of file names (.wav, .flac ...)",
}


def file_columns(table: Table, kind: str) -> list[str]:
    """Columns that name files of a kind, or hold their bytes as the Hub's data sets keep them."""
    found = []
    for name in table.columns:
        if table.files is not None and name in table.files.columns:
            if media.kind_of(media.first_name(table, name)) == kind:
                found.append(name)
        elif _holds_bytes(table, name, kind):
            found.append(name)
    return found


def mask_column(table: Table) -> str | None:
    """The column that holds a mask for each picture of another column, by its name."""
    known = file_columns(table, "image")
    named = [name for name in known if _key(name) in MASK_NAMES]
    return named[0] if len(named) == 1 and len(known) > 1 else None


def transcript_column(table: Table) -> str | None:
    """The column that holds what is said in each recording of another column, where none is called a label."""
    if not file_columns(table, "audio") or any(_key(name) in LABEL_NAMES[0] for name in table.columns):
        return None
    # Not the plainer names: ``text`` may be a class.
    return next((name for name in table.columns if _key(name) in ("transcription", "transcript")), None)


def recognised_files(table: Table, kind: str) -> str | None:
    """The column of files, where the rest of the table is no texts with labels; None: it may be meant for them."""
    columns = file_columns(table, kind)
    other = {"image": mask_column, "audio": transcript_column}[kind](table)
    if not columns or other is not None:
        return None
    try:
        guess_roles(table.without(*columns))
    except DataError:
        return columns[0]
    return None


def _holds_bytes(table: Table, name: str, wanted: str) -> bool:
    """As the Hub's data sets keep files, ``{bytes, path}``; bytes alone only under a name that says what they are."""
    kind = table.arrow_column(name).type
    if pa.types.is_struct(kind):
        return holds_bytes(kind) and _is_sound(table, name) == (wanted == "audio")
    return bool(pa.types.is_large_binary(kind) and _key(name) in FILE_NAMES[wanted][:4])


# WAV, RF64, W64, AIFF, FLAC, OGG, MP3 with and without a tag; JPEG, PNG, GIF, BMP, WebP, TIFF.
_SOUND = re.compile(rb"(RIFF|RF64)....WAVE|riff|FORM....AIF|fLaC|OggS|ID3|\xff[\xe0-\xff]", re.DOTALL)
_PICTURE = re.compile(rb"\xff\xd8|\x89PNG|GIF8|BM|RIFF....WEBP|II\*\0|MM\0\*", re.DOTALL)


def _is_sound(table: Table, name: str) -> bool:
    """Whether the files of a column are sound, by the first one's name, its first bytes, or the column's name."""
    for value in itertools.islice(table.arrow_column(name), 100):
        file = value.as_py() or {}
        if file.get("path") and (kind := media.kind_of(str(file["path"]))) is not None:
            return kind == "audio"
        if content := file.get("bytes"):
            if _PICTURE.match(content[:12]):
                return False
            if _SOUND.match(content[:12]):
                return True
            break  # neither: by the column's name
    return _key(name) in FILE_NAMES["audio"][:4]


def _refuse_files(table: Table) -> None:
    """Say it where a table is one of pictures or sound, rather than that no column is text."""
    for kind in FILE_NOUNS:
        columns = file_columns(table, kind)
        if columns and len(columns) >= len(table.columns) - 1:
            remedy = f"--task {kind}-classification"
            what = f"column {columns[0]!r} holds {FILE_NOUNS[kind]}, and there is no text"
            raise DataError("DATA-TEXT", what, where=table.place(0), remedy=remedy)


def is_known_name(name: str) -> bool:
    """Whether people call a column so: what tells a header from a row of data."""
    key = _key(name)
    listed = (*TEXT_NAMES, *LABEL_NAMES, *TEXT_PAIRS, tuple(ID_NAMES), tuple(GROUP_NAMES))
    return any(key in names for names in listed)


def joined_texts(table: Table, roles: Roles) -> Iterator[str]:
    """The text of each row, several text columns joined by NUL (which no text holds); None is the empty text."""
    columns = [table.arrow_column(name) for name in roles.text]
    for start in range(0, len(table), 4096):
        blocks = [column.slice(start, 4096).to_pylist() for column in columns]
        for values in zip(*blocks, strict=True):
            yield "\0".join("" if value is None else str(value) for value in values)


@dataclass(frozen=True)
class _Profile:
    """What a column looks like. `kind` as in `kind_of`; `filled`, `distinct`: numbers of rows and of values."""

    name: str
    kind: str | None
    rows: int
    filled: int
    distinct: int | None
    mean_length: float
    spaced: float
    all_numbers: bool

    @property
    def is_id(self) -> bool:
        words = _words(self.name)
        return _key(self.name) in ID_NAMES or words[-1:] == ["id"]

    @property
    def is_free_text(self) -> bool:
        if self.kind != "text" or self.distinct is None or not self.filled or self.all_numbers or self.is_id:
            return False
        if 2 * self.filled < self.rows:
            return False
        is_long = (self.mean_length >= 12 and self.spaced >= 0.5) or self.mean_length >= 30
        return is_long and self.distinct > 0.3 * self.filled

    @property
    def is_label_like(self) -> bool:
        """Few different short values that repeat."""
        if self.distinct is None or self.distinct < 2 or self.is_id or self.mean_length > 40:
            return False
        return self.distinct <= max(min(20, self.filled // 2), 0.2 * self.filled)

    @property
    def is_mostly_unique_text(self) -> bool:
        enough = self.filled >= _TOO_FEW_ROWS_TO_JUDGE and self.distinct is not None
        return enough and self.kind == "text" and (self.distinct or 0) >= 0.8 * self.filled and self.mean_length > 20

    @property
    def is_mostly_repeated(self) -> bool:
        enough = self.filled >= _TOO_FEW_ROWS_TO_JUDGE and self.distinct is not None
        return enough and (self.distinct or 0) <= 0.2 * self.filled and self.mean_length <= 40


def _profile(table: Table, name: str) -> _Profile:
    column = table.arrow_column(name)
    kind, rows = _arrow_kind(column.type), len(column)
    filled = rows - column.null_count
    if kind in ("a list", "an object") or not filled:
        return _Profile(name, kind if filled else None, rows, filled, None, 0.0, 0.0, False)
    distinct = int(pc.count_distinct(column, mode="only_valid").as_py())
    if kind != "text":
        is_fraction = pa.types.is_floating(column.type) and not pc.all(pc.equal(pc.floor(column), column)).as_py()
        return _Profile(name, kind, rows, filled, None if is_fraction else distinct, 1.0, 0.0, kind == "a number")
    lengths = pc.utf8_length(column)
    filled = int(pc.sum(pc.greater(lengths, 0)).as_py() or 0)
    if not filled:
        return _Profile(name, None, rows, 0, None, 0.0, 0.0, False)
    has_empty = rows > filled + column.null_count
    spaced = (pc.sum(pc.match_substring_regex(column, r"\S\s+\S")).as_py() or 0) / filled
    numbers = pc.sum(pc.match_substring_regex(column, _NUMBER_TEXT)).as_py() or 0
    mean_length = float(pc.sum(lengths).as_py()) / filled
    return _Profile(name, kind, rows, filled, distinct - has_empty, mean_length, spaced, numbers == filled)


def _arrow_kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_large_string(kind):
        return "text"
    if types.is_boolean(kind):
        return "true or false"
    if types.is_integer(kind) or types.is_floating(kind):
        return "a number"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_list_view(kind):
        return "a list"
    return "an object"


# names


def _key(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip()).casefold()


def _words(name: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return [word for word in re.split(r"[\W_]+", parted.casefold()) if word]


def _tier(name: str, tiers: tuple[tuple[str, ...], ...]) -> int | None:
    """0 for the best names; a name that contains one of the first two tiers ranks after the second."""
    key, words = _key(name), _words(name)
    for rank, names in enumerate(tiers):
        if key in names:
            return rank * 10
    return 15 if any(word in names for names in tiers[:2] for word in words) else None


def _as_names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" and {shown[-1]}"


def _setting(role: str, names: str | Sequence[str]) -> str:
    """What to type to name columns; quoted where a shell or YAML would read it otherwise."""
    if not isinstance(names, str):
        return f"--set 'data.{role}=[{', '.join(names)}]'"
    return f"--set data.{role}={names}" if re.fullmatch(r"\w+", names) else f"--set 'data.{role}=\"{names}\"'"


# what the user named


def check_named(table: Table, role: str, name: str) -> None:
    if name in table.columns:
        return
    # Trap: a header cell 'label ' looks like 'label' on the screen; the suggestion shows it in quotes.
    same = [column for column in table.columns if _key(column) == _key(name)]
    suggestion = f"did you mean {same[0]!r}?" if same else did_you_mean(name, table.columns)
    near = same[0] if same else (re.findall(r"did you mean '(.*)'\?", suggestion) or [None])[0]
    raise DataError(
        "DATA-COLUMN",
        f"there is no column {name!r} for data.{role}",
        where=table.place(0) if len(table) else None,
        remedy=f"{suggestion} {_setting(role, near)}" if near else suggestion,
    )


def _check_distinct(texts: tuple[str, ...], labels: tuple[str, ...]) -> None:
    names = [*texts, *labels]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(
            "DATA-COLUMN",
            f"the column {twice[0]!r} is named twice, as what is read and as the label",
            remedy="name another column: --set data.label=...",
        )


def _check_swap(profiles: Mapping[str, _Profile], texts: tuple[str, ...], labels: tuple[str, ...]) -> None:
    """A text of few short values together with a label of long different ones: the names are the wrong way round."""
    if len(texts) > 1 or len(labels) > 1 or not (texts or labels):
        return
    if texts:
        text = profiles[texts[0]]
        others = [profiles[n] for n in labels] or [p for p in profiles.values() if p.is_free_text and p is not text]
    else:
        label = profiles[labels[0]]
        rivals = [p for p in profiles.values() if p is not label and _tier(p.name, LABEL_NAMES) is not None]
        repeated = [p for p in rivals if p.is_mostly_repeated]
        others = [label] if repeated else []
        text = repeated[0] if repeated else label
    swapped = [p for p in others if text.is_mostly_repeated and p.is_mostly_unique_text]
    if len(swapped) == 1:
        raise DataError(
            "DATA-COLUMN",
            f"text and label look swapped: {text.name!r} has only {text.distinct} different values, "
            f"{swapped[0].name!r} has {swapped[0].distinct} in {swapped[0].filled} rows",
            remedy=f"{_setting('text', swapped[0].name)} {_setting('label', text.name)}",
        )


def _check_text(table: Table, profile: _Profile) -> None:
    if profile.kind is None:
        what = f"the text column {profile.name!r} is empty in all {profile.rows:,} rows"
    elif profile.kind != "text":
        what = f"the text column {profile.name!r} holds {_plural(profile.kind)}, not text"
    elif profile.all_numbers:
        what = f"the text column {profile.name!r} holds only numbers, such as {_first(table, profile.name)}"
    else:
        return
    raise DataError(
        "DATA-TEXT",
        what,
        where=table.place(0),
        remedy=f"name the column with the text: --set data.text=... (columns: {', '.join(table.columns)})",
    )


def _plural(kind: str) -> str:
    return {"a number": "numbers", "a list": "lists", "an object": "objects"}.get(kind, kind)


def _first(table: Table, name: str) -> str:
    return shortened(next((v for v in table.column(name) if v is not None and v != ""), None))


def _check_zero_one(table: Table, names: tuple[str, ...]) -> None:
    for name in names:
        for i, value in enumerate(table.column(name)):
            if kind_of(value) is not None and value not in ("", "0", "1", 0, 1):
                raise DataError(
                    "DATA-LABEL",
                    f"several label columns must hold 0 or 1, but {name!r} has {shortened(value)}",
                    where=table.place(i),
                    remedy=f"name one column: {_setting('label', name)}",
                )


# guessing


def _best_named(profiles: Iterable[_Profile], tiers: tuple[tuple[str, ...], ...]) -> list[_Profile]:
    ranked = [(tier, p) for p in profiles if (tier := _tier(p.name, tiers)) is not None]
    best = min((tier for tier, _ in ranked), default=None)
    return [p for tier, p in ranked if tier == best]


def _guess_text(profiles: list[_Profile], reasons: dict[str, str]) -> tuple[str, ...]:
    by_key = {_key(p.name): p for p in profiles}
    for first, second in TEXT_PAIRS:
        pair = [by_key[name] for name in (first, second) if name in by_key]
        if len(pair) == 2 and all(p.kind == "text" for p in pair):
            names = (pair[0].name, pair[1].name)
            one = _setting("text", names[0])
            reasons["text"] = f"{_listed(names)} by their names, read together as a pair; {one} takes one"
            return names
    texts = [p for p in profiles if not p.is_id and not _is_label_word(p.name)]
    wordy = [p for p in texts if p.kind == "text" and not (p.all_numbers or p.is_label_like)]
    # A name such as 'text' counts whatever stands below it: what is wrong there is told, not worked around.
    named = _best_named(wordy, TEXT_NAMES) or _best_named(texts, TEXT_NAMES[:1])
    if len(named) > 1:
        named = [p for p in named if p.is_free_text] or named
    if len(named) > 1:
        raise _ambiguous("text", named, several=True)
    if named:
        reasons["text"] = f"{named[0].name!r} by its name{_other_texts(profiles, named[0])}"
        return (named[0].name,)
    return (_text_by_content(profiles, reasons).name,)


def _is_label_word(name: str) -> bool:
    return any(word in LABEL_NAMES[0] for word in _words(name))


def _text_by_content(profiles: list[_Profile], reasons: dict[str, str]) -> _Profile:
    found = sorted((p for p in profiles if p.is_free_text), key=lambda p: -p.mean_length)
    if not found:
        rest = [p for p in profiles if p.kind == "text" and not (p.is_id or p.is_label_like or p.all_numbers)]
        rest = [p for p in rest if _tier(p.name, LABEL_NAMES) is None]
        if len(rest) != 1:
            raise DataError(
                "DATA-COLUMN",
                "no column looks like the text",
                remedy=f"--set data.text=... (columns: {', '.join(p.name for p in profiles)})",
            )
        reasons["text"] = f"{rest[0].name!r}, the only column that holds text"
        return rest[0]
    if len(found) > 1 and found[0].mean_length < 3 * found[1].mean_length:
        raise _ambiguous("text", found, several=True)
    best = found[0]
    reasons["text"] = (
        f"{best.name!r} by its content: {best.distinct:,} different texts of {best.mean_length:.0f} characters "
        f"on average{_other_texts(profiles, best)}"
    )
    return best


def _other_texts(profiles: list[_Profile], chosen: _Profile) -> str:
    others = [p.name for p in profiles if p is not chosen and p.is_free_text]
    if not others:
        return ""
    verb = "hold" if len(others) > 1 else "holds"
    return f"; {_listed(others)} {verb} text, too: {_setting('text', [*others, chosen.name])} reads them together"


def _guess_label(table: Table, profiles: list[_Profile], reasons: dict[str, str]) -> str:
    usable = [p for p in profiles if p.kind != "an object"]
    unlike = [p for p in usable if p.filled >= 20 and p.is_mostly_unique_text and p.mean_length > 60]
    found = _best_named([p for p in usable if p not in unlike], LABEL_NAMES)
    why = "by its name"
    if not found:
        found, why = [p for p in usable if p.is_label_like], "by its content"
        flags = [p for p in found if _is_zero_one(table, p)]
        if len(flags) > 1 and len(flags) == len(found):
            raise DataError(
                "DATA-COLUMN",
                f"no column is the label by its name, but {_listed(p.name for p in flags)} hold 0 and 1",
                remedy=f"for several labels a row: {_setting('label', [p.name for p in flags])}\n"
                f"for one of them: {_setting('label', flags[0].name)}",
            )
    if len(found) > 1:
        raise _ambiguous("label", found, several=False)
    if not found:
        raise DataError(
            "DATA-COLUMN",
            "no column looks like the label",
            remedy=f"--set data.label=... (columns: {', '.join(table.columns)})\n"
            "or, to go on with pretraining on texts alone: --task fill-mask; text-generation with a decoder",
        )
    chosen = found[0]
    count = f", {chosen.distinct:,} different values" if chosen.distinct is not None else ""
    reasons["label"] = f"{chosen.name!r} {why}{count}{_other_labels(table, usable, chosen)}"
    return chosen.name


def _is_zero_one(table: Table, profile: _Profile) -> bool:
    return profile.distinct == 2 and set(table.column(profile.name)) - {None, ""} <= {0, 1, "0", "1"}


def _other_labels(table: Table, profiles: list[_Profile], chosen: _Profile) -> str:
    """What else could have been the label, and why it is not."""
    sentences = []
    for other in profiles:
        if other is chosen or other.distinct is None or other.is_id:
            continue
        if _tier(other.name, LABEL_NAMES) is None and not other.is_label_like:
            continue
        if chosen.distinct is None or other.is_mostly_unique_text:
            continue
        pairs = table.arrow.select([chosen.name, other.name]).group_by([chosen.name, other.name]).aggregate([]).num_rows
        if pairs == other.distinct == chosen.distinct:
            relation = "says the same in other words"
        elif pairs == other.distinct:
            relation = "is a finer division of it"
        else:
            relation = "lies beside it"
        sentences.append(f"; {other.name!r} {relation} and is not used")
    return "".join(sentences)


def _ambiguous(role: str, found: list[_Profile], *, several: bool) -> DataError:
    names = [p.name for p in found]
    remedy = "\nor ".join(_setting(role, name) for name in names)
    if several:
        remedy += f"\nor, to read them together: {_setting(role, names)}"
    return DataError("DATA-COLUMN", f"{_listed(names)} could each be the {role}", remedy=remedy)


def _point_out_group(
    profiles: Mapping[str, _Profile], taken: tuple[str, ...], group: str | None, reasons: dict[str, str]
) -> str | None:
    if group is not None:
        reasons["group"] = f"{group!r}: named by you; where rows are held out, equal values stay on one side"
        return None
    for name, profile in profiles.items():
        is_group = any(word in GROUP_NAMES for word in _words(name))
        if name not in taken and is_group and profile.distinct is not None and 1 < profile.distinct < profile.filled:
            reasons["group"] = (
                f"column {name!r} looks like a group; {_setting('group', name)} keeps its rows on one side"
            )
            return name
    return None
