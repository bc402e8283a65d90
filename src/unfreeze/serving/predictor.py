"""Predictor: a fine-tuned model and its bound task, read from a model folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from unfreeze import durable, tasks
from unfreeze.data.objects import plain
from unfreeze.errors import DataError, ModelError
from unfreeze.evaluation import predict_rows
from unfreeze.models.loading import load_config, quiet, resolve
from unfreeze.tasks.base import Task
from unfreeze.types import Prediction, Row

TASK_FILE = "unfreeze.json"


class Predictor:
    """Answers for new rows.

    Args:
        task: Bound.
        model: With its head.
        device: Where it is put.

    Example:
        >>> Predictor.load("runs/reviews/model").predict(["Works as promised."])[0].label  # doctest: +SKIP
        'positive'
    """

    def __init__(self, task: Task, model: torch.nn.Module, device: torch.device | str = "cpu") -> None:
        self.task, self.model = task, model.to(device).eval()

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None, allow_remote_code: bool = False) -> Predictor:
        """Read what `save` wrote.

        Args:
            folder: A run's ``model`` folder.
            device: Default: CUDA where it is there, otherwise the CPU.
            allow_remote_code: Run Python code that came with the base model, or a task of somebody's own.

        Raises:
            ModelError: E-MODEL-BROKEN, when files are missing, damaged or do not belong together. E-MODEL-REMOTE-CODE,
                its task is code that is neither allowed nor imported already.
        """
        path = Path(folder)
        stored = read_task_file(path)
        _check_task_is_allowed(stored["task_class"], path, allow_remote_code)
        problem = durable.verify(path)
        if problem is not None:
            raise ModelError("MODEL-BROKEN", f"the model is not as it was written: {problem}", where=str(path))
        source = resolve(str(path))
        task_class = tasks.find(stored["task_class"])
        asking = task_class.with_options(stored["options"])
        asking.allows_remote_code = allow_remote_code
        task = task_class.restore(stored, asking.load_processor(source))
        task.allows_remote_code = allow_remote_code
        loaded = task.build(source, load_config(source, allow_remote_code=allow_remote_code))
        if loaded.new_parameters:
            raise ModelError(
                "MODEL-BROKEN",
                f"the model lacks {', '.join(loaded.new_parameters[:4])}, or has other labels than it was trained with",
                where=str(path),
            )
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(task, loaded.model, chosen)

    def predict(self, inputs: Iterable[Any]) -> list[Prediction]:
        """One answer for each input, in order.

        Args:
            inputs: Rows with the columns of the training data, or what the task reads of its own (see
                `Task.row_values`): texts; tuples where it reads several columns; lists of words.

        Raises:
            DataError: E-DATA-ROW, for an input that has no text.
        """
        return list(self.stream(self.rows(inputs)))

    def stream(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Answers for rows as they come; memory does not grow with their number."""
        return predict_rows(self.task, self.model, rows)

    def rows(self, inputs: Iterable[Any]) -> Iterator[Row]:
        """Rows of the task's columns from loose inputs."""
        if not isinstance(inputs, Iterable):
            raise DataError("DATA-ROW", f"inputs are texts in a list, not {type(inputs).__name__}", where="inputs")
        for index, item in enumerate(inputs):
            place = f"input {index + 1}"
            if isinstance(item, Mapping):  # as training reads a list of dicts
                values = {str(key): plain(value) for key, value in item.items()}
            else:
                values = self.task.row_values(item, place)
            yield Row(index, values, place)


def _check_task_is_allowed(name: str, folder: Path, allow_remote_code: bool) -> None:
    if not tasks.may_be_looked_up(name, allow_remote_code=allow_remote_code):
        raise ModelError(
            "MODEL-REMOTE-CODE",
            f"the model's task {name} is code of somebody's own, which is not run unless you allow it",
            where=str(folder / TASK_FILE),
            remedy=f"read that code, then add --allow-remote-code; or, from Python: import {name.partition(':')[0]}",
        )


def save(folder: Path, task: Task, task_class: str, model: torch.nn.Module, extra: Mapping[str, Any]) -> None:
    """Write model, processor and bound task into an existing folder, as `from_pretrained` reads them.

    Args:
        folder: A staging folder; see `durable.publish`.
        task: Bound.
        task_class: The name `tasks.find` knows it by.
        model: Gets written in the precision it has.
        extra: Further plain data for unfreeze.json: identity, base model.
    """
    with quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
    task.processor.save_pretrained(folder)
    durable.write_json(folder / TASK_FILE, {**task.stored(), "task_class": task_class, **extra})


def read_task_file(folder: Path) -> dict[str, Any]:
    """The bound task's plain data.

    Raises:
        ModelError: E-MODEL-BROKEN, when it is missing or damaged.
    """
    try:
        stored = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            "MODEL-BROKEN", f"there is no {TASK_FILE}: this model was not written by unfreeze", where=str(folder)
        ) from None
    except ValueError:
        raise ModelError("MODEL-BROKEN", f"{TASK_FILE} is damaged", where=str(folder)) from None
    if not isinstance(stored, dict) or "task_class" not in stored:
        raise ModelError("MODEL-BROKEN", f"{TASK_FILE} names no task", where=str(folder))
    return stored
