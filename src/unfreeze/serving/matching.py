"""Other data for a finished run: its rows, and the run's columns in them.

A run has its columns and its options: where training advises a setting, here the file is to be changed, or an option of
`evaluate` and `predict` is to be given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from unfreeze.data.columns import Roles
from unfreeze.data.quality import without_broken
from unfreeze.data.sources import read
from unfreeze.data.splits import Splits
from unfreeze.data.table import Table
from unfreeze.errors import DataError, RequestError, did_you_mean
from unfreeze.recipe import Recipe
from unfreeze.tasks.base import Task


def rows_to_use(data: Any, encoding: str | None = None, *, to_predict: bool = False) -> Splits:
    """The test rows of data where there are some, otherwise all, as `Splits.train`; a `Table` stays what it is.

    Args:
        data, encoding: See `unfreeze.api.evaluate`.
        to_predict: Whether the rows are only to be answered.

    Raises:
        DataError: As `data.sources.read`.
    """
    if isinstance(data, Table):
        return Splits(data)
    try:
        splits = read(data, encoding=encoding, wanted="test", to_predict=to_predict)
    except DataError as error:
        where, remedy = (_with_option(text or "") for text in (error.where, error.remedy))
        raise DataError(error.code, error.what, where=where or None, remedy=remedy or None) from None
    if splits.test is None:
        return splits
    return replace(splits.read_from.get("test", splits), train=splits.test, validation=None, test=None)


def readable(task: Task, table: Table, roles: Roles, *, drop: bool, say: Callable[[str], None]) -> Table:
    """The rows whose files can be read, of the columns that are.

    Raises:
        DataError: Some cannot, and may not be left out; see `without_broken`.
        RequestError: E-USAGE, rows of texts have no files that could be left out.
    """
    if drop and task.modality == "text":
        what = "--drop-broken leaves out files that cannot be read, and these rows are texts"
        raise RequestError("USAGE", what, remedy="leave --drop-broken out")
    table = table.reading(task.files_read(roles))
    kept, note = without_broken(table, task.unreadable(table, roles), "given", drop=drop, advice="--drop-broken")
    if note:
        say(note)
    return kept


def labelled_roles(task: Task, table: Table) -> Roles:
    """The run's own text and label columns.

    Raises:
        DataError: E-DATA-COLUMN, E-DATA-TEXT.
    """
    own = task.roles
    asked = Recipe.build({"data": {task.input_role: _as_asked(own.text), "label": own.label}}).data
    labels = (own.label,) if isinstance(own.label, str) else own.label or ()
    with _columns_are_fixed([*own.text, *labels], table):
        return task.find_roles(table, asked, needs_label=task.needs_label)


def text_roles(task: Task, table: Table, say: Callable[[str], None]) -> Roles:
    """The run's own text columns; where they are not there, those that can be nothing but the text, said.

    Raises:
        DataError: E-DATA-COLUMN, E-DATA-TEXT.
    """
    own = task.roles.text
    with _columns_are_fixed(own, table):
        if set(own) <= set(table.columns):
            asked = Recipe.build({"data": {task.input_role: _as_asked(own)}}).data
            task.find_roles(table, asked, needs_label=False)
            return task.roles
        found = task.find_roles(table, None, needs_label=False).text
        if len(found) != len(own):
            listed = ", ".join(map(repr, found))
            what = f"the run reads {len(own)} columns, here {len(found)} could be meant ({listed})"
            raise DataError("DATA-COLUMN", what, where=table.place(0))
    say(f"there is no column {', '.join(own)}: reading {', '.join(found)}")
    return replace(task.roles, text=found)


def _as_asked(columns: Sequence[str]) -> str | list[str]:
    return columns[0] if len(columns) == 1 else list(columns)


@contextmanager
def _columns_are_fixed(columns: Sequence[str], table: Table) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        missing = [name for name in columns if name not in table.columns]
        if not missing and "--set" not in (error.remedy or ""):
            raise
        remedy = f"the run reads {' and '.join(map(repr, columns))}, as in training"
        if missing:
            remedy = f"{did_you_mean(missing[0], table.columns)}\n{remedy}: name the file's columns so"
        raise DataError(error.code, error.what, where=error.where, remedy=remedy) from None


def _with_option(text: str) -> str:
    text = text.replace("--set data.encoding=", "--encoding ").replace("data.encoding", "--encoding")
    in_python = "give the rows in Python: datasets.load_dataset(NAME, CONFIGURATION), with a configuration such as "
    return text.replace("--set data.config_name=", in_python)
