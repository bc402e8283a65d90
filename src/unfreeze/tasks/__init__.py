"""What a row means: one file a task, found by its name.

A task's name is its file name with hyphens, as on the Hugging Face Hub: ``text-classification`` is the class in
``text_classification.py`` whose ``name`` says so. Modules that start with an underscore hold what tasks share.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from typing import TYPE_CHECKING

from unfreeze.errors import TaskError, did_you_mean

if TYPE_CHECKING:
    from unfreeze.tasks.base import Task


def names() -> list[str]:
    """The names of the tasks that are here."""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(n.replace("_", "-") for n in found if not n.startswith("_") and n != "base")


def find(name: str) -> type[Task]:
    """The task class of a name, or of ``module:Class`` for a task of the user's own.

    Raises:
        TaskError: E-TASK-UNKNOWN, with a suggestion.
    """
    if ":" in name:
        return _own(name)
    if name not in names():
        raise TaskError("TASK-UNKNOWN", f"there is no task '{name}'", remedy=did_you_mean(name, names()))
    module = importlib.import_module(f"unfreeze.tasks.{name.replace('-', '_')}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and getattr(value, "name", None) == name and value.__module__ == module.__name__
    )


def may_be_looked_up(name: str, *, allow_remote_code: bool) -> bool:
    """Whether a task that a file names (a model's, a recipe's, a run's) may be looked up.

    Files may come from anybody, and a task of somebody's own is code: it is run where the person says so, or where this
    process has imported it anyway.
    """
    return ":" not in name or allow_remote_code or name.partition(":")[0] in sys.modules


def _own(name: str) -> type[Task]:
    from unfreeze.tasks.base import Task

    module_name, _, class_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        remedy = f"run it in the folder of {module_name}.py, or put that folder on PYTHONPATH"
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == module_name
        what = f"cannot import the task's module: {error if is_missing else f'{type(error).__name__}: {error}'}"
        where = name if is_missing else _place_of(error, module_name)
        raise TaskError("TASK-UNKNOWN", what, where=where, remedy=remedy if is_missing else None) from None
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Task)):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Task) and v is not Task]
        raise TaskError(
            "TASK-UNKNOWN", f"'{class_name}' is not a Task", where=name, remedy=did_you_mean(class_name, classes)
        )
    check_is_whole(found)
    return found


def check_is_whole(task_class: type[Task]) -> None:
    """Refuse a task that leaves out what every task has to say.

    Raises:
        TaskError: E-TASK, with the names of what is missing.
    """
    missing = sorted(getattr(task_class, "__abstractmethods__", ()))
    missing += [name for name in ("name", "primary_metric") if not hasattr(task_class, name)]
    if missing:
        where = f"{task_class.__module__}:{task_class.__qualname__}"
        what = f"the task does not have {', '.join(missing)}"
        raise TaskError("TASK", what, where=where, remedy="docs/adding-a-task.md shows a whole one")


def _place_of(error: Exception, module_name: str) -> str:
    """File and line of the user's code at which an import failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if len(frames) > 1 else module_name
