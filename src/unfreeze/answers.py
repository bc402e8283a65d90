"""A model's answers as people keep them: a line in the terminal, or a file with the labels beside their own columns."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from unfreeze import api, durable
from unfreeze.errors import DataError, TaskError, visible
from unfreeze.run import Run
from unfreeze.types import Prediction

SUFFIXES = (".csv", ".jsonl")


def as_record(prediction: Prediction, top_k: int) -> dict[str, Any]:
    """``label``, ``probability``, the task's own fields and, for `top_k` above 1, ``top``: the best labels.

    Raises:
        TaskError: E-TASK, when `top_k` asks for other labels and the task has none.
    """
    if top_k > 1 and not prediction.scores:
        raise TaskError("TASK", "the answers of this model have no scores of other labels", where="--top-k")
    record = {"label": prediction.label, "probability": prediction.probability, **prediction.extra}
    if top_k > 1:
        record["top"] = dict(list(prediction.scores.items())[:top_k])
    return record


def as_line(prediction: Prediction, top_k: int) -> str:
    """An answer on one line; what does not print is shown as an escape."""
    record = as_record(prediction, top_k)
    label = record["label"]
    if isinstance(label, list):
        label = ", ".join(label) or "(none)"
    shown = prediction.shown or (label if isinstance(label, str) else f"{label:.4g}")
    if record["probability"] is not None and not prediction.shown:
        shown += f"  {record['probability']:.3f}"
    if "top" in record:
        shown += "   " + "  ".join(f"{name} {value:.3f}" for name, value in record["top"].items())
    return visible(shown)


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises:
        DataError: E-RUN-EXISTS, E-DATA-FORMAT, E-DATA-MISSING.
    """
    if path.exists():
        free = next(p for n in range(2, 10**6) if not (p := path.with_stem(f"{path.stem}-{n}")).exists())
        what = "the output file exists already; it is not overwritten"
        raise DataError("RUN-EXISTS", what, where=str(path), remedy=f"--output {free}")
    if path.suffix.lower() not in SUFFIXES:
        remedy = f"--output {path.with_suffix('.csv')}"
        raise DataError("DATA-FORMAT", "answers are written as .csv or .jsonl", where=str(path), remedy=remedy)
    if not path.parent.is_dir():
        what = f"there is no folder {str(path.parent)!r} to write into"
        raise DataError("DATA-MISSING", what, where=str(path), remedy=f"mkdir -p {path.parent}")


def write(
    path: Path,
    run: str | Run,
    data: Any,
    *,
    top_k: int = 1,
    encoding: str | None = None,
    drop_broken: bool = False,
    console: Console | None = None,
) -> int:
    """Write every row of `data` with its answer; the file appears when it is complete.

    The user's own columns come first and keep their names; an answer of the same name is called ``predicted_...``, and
    ``predicted_..._2`` where that is the user's, too.

    Args:
        path: A .csv or .jsonl file that does not exist.
        run: A finished run, or its folder.
        data: As for `api.predict`.
        top_k: Also the k best labels.
        encoding: Of text files that are not UTF-8.
        drop_broken, console: As for `api.predict`.

    Returns:
        The number of rows.

    Raises:
        DataError: As `check_target` and `api.predict`.
        ResourceError: E-DISK; nothing is left behind.
    """
    check_target(path)
    found = api.as_run(run)
    rows, answers = api.answered(found, data, encoding=encoding, drop_broken=drop_broken, console=console)
    records = (as_record(answer, top_k) for answer in answers)
    merged = (_beside(row.values, record) for row, record in zip(rows, records, strict=True))
    with durable.writing(path, remedy="make room, or choose another --output") as raw:
        handle = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        count = _put_all(merged, _json_lines(handle) if path.suffix.lower() == ".jsonl" else _csv_rows(handle))
        handle.detach()  # flushed, and left open
    return count


def _put_all(rows: Iterable[dict[str, Any]], put: Callable[[dict[str, Any]], None]) -> int:
    count = 0
    for row in rows:
        put(row)
        count += 1
    return count


def _beside(own: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    merged = {name: _without_bytes(value) for name, value in own.items()}
    for name, value in record.items():
        merged[_free_name(name, merged)] = value
    return merged


def _without_bytes(value: Any) -> Any:
    """A file that a row brought is shown by its name."""
    if isinstance(value, Mapping) and "bytes" in value:
        return value.get("path")
    return None if isinstance(value, bytes) else value


def _free_name(name: str, taken: Container[str]) -> str:
    candidates = itertools.chain([name, f"predicted_{name}"], (f"predicted_{name}_{n}" for n in itertools.count(2)))
    return next(c for c in candidates if c not in taken)


def _json_lines(handle: TextIO) -> Callable[[dict[str, Any]], None]:
    def put(row: dict[str, Any]) -> None:
        handle.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    return put


def _csv_rows(handle: TextIO) -> Callable[[dict[str, Any]], None]:
    writer: csv.DictWriter[str] | None = None

    def put(row: dict[str, Any]) -> None:
        nonlocal writer
        if writer is None:
            writer = csv.DictWriter(handle, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({k: _cell(v) for k, v in row.items()})

    return put


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
