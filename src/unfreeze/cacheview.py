"""What `unfreeze cache` shows: the recorded activations on this computer."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unfreeze.activations.store import Entry, entries


def as_records(folder: Path) -> list[dict[str, Any]]:
    """One JSON object a store, the least recently used first."""
    return [{**asdict(entry), "used": _when(entry).isoformat(timespec="seconds")} for entry in entries(folder)]


def print_stores(folder: Path, console: Console) -> None:
    """A table, the most recently used last, and the sum."""
    found = entries(folder)
    if not found:
        console.print(f"nothing is recorded in {folder}", highlight=False, markup=False, soft_wrap=True)
        return
    grid = Table(box=None, pad_edge=False)
    for title, side in (("model", "left"), ("boundary", "left"), ("rows", "right"), ("MB", "right"), ("used", "left")):
        grid.add_column(title, justify=side)  # type: ignore[arg-type]
    for entry in found:
        about, boundary = entry.facts.get("about", {}), entry.facts.get("boundary", {})
        grid.add_row(
            escape(str(about.get("model") or "unknown")),
            escape(f"{boundary.get('group', 'unknown')}, {entry.facts.get('dtype', 'unknown')}"),
            f"{about.get('rows', 0):,}",
            f"{entry.bytes / 1e6:,.1f}",
            f"{_when(entry):%Y-%m-%d %H:%M}",
        )
    console.print(grid)
    total = sum(entry.bytes for entry in found)
    console.print(f"{total / 1e6:,.0f} MB in {folder}", highlight=False, markup=False, soft_wrap=True)


def _when(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.used, tz=UTC).astimezone()
