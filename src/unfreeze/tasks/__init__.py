"""What a row means: one file a task, found by its name.

A task's name is its file name with hyphens, as on the Hugging Face Hub: ``text-classification`` is the class in
``text_classification.py`` whose ``name`` says so. Modules that start with an underscore hold what tasks share.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
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


def _own(name: str) -> type[Task]:
    from unfreeze.tasks.base import Task

    module_name, _, class_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise TaskError("TASK-UNKNOWN", f"cannot import the task's module: {error}", where=name) from None
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Task)):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Task) and v is not Task]
        raise TaskError(
            "TASK-UNKNOWN", f"'{class_name}' is not a Task", where=name, remedy=did_you_mean(class_name, classes)
        )
    return found
