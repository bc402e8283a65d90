"""Rows that are read in several parts, whose answers come in any order and in different batches."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class WholeRows(Generic[T]):
    """Keeps what was said of a row's parts until all of them have come; only rows that are not whole are held."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[T]] = {}

    def add(self, row: int, said: T, parts: int) -> list[T] | None:
        """What was said of all parts of a row, in the order it came, once the last of them is there."""
        found = self._waiting.setdefault(row, [])
        found.append(said)
        return self._waiting.pop(row) if len(found) == parts else None

    def check_merge(self, other: WholeRows[T]) -> None:
        """States of whole rows can be merged; a row that is divided between two of them is lost."""
        assert not self._waiting, "a row is divided between two states"
        assert not other._waiting, "a row is divided between two states"
