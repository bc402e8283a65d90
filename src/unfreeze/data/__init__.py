"""Rows, from wherever they are, to tables whose columns have a meaning.

::

    read ──────────────────────> Splits of Table ──> guess_roles ──> check_rows ──> divide ──> facts
    sources: folders, files,     splits, table       columns         quality        splits     quality
    objects
"""

from unfreeze.data.columns import Roles, guess_roles, joined_texts
from unfreeze.data.quality import (
    DataFacts,
    Found,
    SplitFacts,
    check_rows,
    duplicate_sets,
    facts,
    normalised,
    unlabelled_rows,
)
from unfreeze.data.sources import read
from unfreeze.data.splits import Division, Splits, divide
from unfreeze.data.table import Table

__all__ = [
    "DataFacts",
    "Division",
    "Found",
    "Roles",
    "SplitFacts",
    "Splits",
    "Table",
    "check_rows",
    "divide",
    "duplicate_sets",
    "facts",
    "guess_roles",
    "joined_texts",
    "normalised",
    "read",
    "unlabelled_rows",
]
