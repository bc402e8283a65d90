"""Rows whose inputs are files: pictures and sound.

An example keeps neither pixels nor samples: it knows its file, and `collate` reads what a batch needs, in threads. A
file that changes while a run reads it is noticed by its digest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unfreeze.data.table import Table, bytes_of, content_digest, read_bytes
from unfreeze.errors import DataError
from unfreeze.types import Row

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FileSource:
    """Where an example's content comes from.

    Attributes:
        path: The file; None where the row brought its bytes.
        data: The bytes, where the row brought them.
        digest: Of the content, as it was when the row was encoded.
        place: For messages.
    """

    path: Path | None
    data: bytes | None
    digest: bytes
    place: str

    def read(self) -> bytes:
        """The content.

        Raises:
            DataError: E-DATA-MISSING, E-DATA-UNREADABLE; E-DATA-CHANGED where the file is no longer what it was.
        """
        if self.path is None:
            return self.data or b""
        data = read_bytes(self.path, self.place)
        if content_digest(data) != self.digest:
            raise DataError(
                "DATA-CHANGED",
                "the file has changed since it was read first",
                where=self.place,
                remedy="leave the data alone while a run reads it; then start anew",
            )
        return data


def source_of(row: Row, column: str, noun: str) -> tuple[FileSource, bytes]:
    """Where a row's content comes from, and the content.

    Args:
        noun: What it is, in a word.

    Raises:
        DataError: E-DATA-ROW without one, E-DATA-MISSING, E-DATA-UNREADABLE.
    """
    data = bytes_of(row, column)
    if data is None:
        raise DataError("DATA-ROW", f"there is no {noun} in column '{column}'", where=row.place)
    value = row.values[column]
    path = Path(row.folder) / value if isinstance(value, str) else None
    return FileSource(path, None if path is not None else data, content_digest(data), row.place), data


def content_of(source: FileSource, settings: Any) -> np.ndarray:
    """What is recorded of an example depends on: the file, and how it is brought into the model's form; (16,) uint8."""
    return np.frombuffer(content_digest(source.digest + str(settings).encode()), dtype=np.uint8)


def unreadable(table: Table, column: str, noun: str, check: Callable[[bytes, str], Any]) -> dict[int, DataError]:
    """Rows whose file cannot be read, and why; every file is decoded once."""

    def problem(row: Row) -> DataError | None:
        try:
            check(source_of(row, column, noun)[1], row.place)
        except DataError as error:
            return error
        return None

    found = enumerate(in_threads(problem, table))
    return {index: error for index, error in found if error is not None}


@cache
def _pool() -> ThreadPoolExecutor:
    # Decoders and filters let other threads run.
    return ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="files")


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[work(item) for item in items]``, several at a time; an error of one is raised."""
    return list(_pool().map(work, items))
