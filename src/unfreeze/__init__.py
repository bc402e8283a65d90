"""unfreeze: fine-tune a pretrained model on your own data.

The names below are loaded when they are first used: importing the package imports no torch.

Example:
    >>> import unfreeze
    >>> run = unfreeze.train("reviews.csv", schedule="gradual")  # doctest: +SKIP
    >>> run.predict(["Works as promised."])[0].label  # doctest: +SKIP
    'positive'
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Batch": "types",
    "DataError": "errors",
    "Duration": "types",
    "Event": "run",
    "Example": "types",
    "Finding": "run",
    "Interrupted": "errors",
    "LossOutput": "types",
    "LossTerm": "types",
    "ModelError": "errors",
    "NumericsError": "errors",
    "Observer": "training.observers",
    "Phase": "schedule",
    "Plan": "plan",
    "Prediction": "types",
    "Predictor": "serving.predictor",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "RequestError": "errors",
    "ResourceError": "errors",
    "Row": "types",
    "Run": "run",
    "Schedule": "schedule",
    "Task": "tasks.base",
    "TaskError": "errors",
    "TrainedRun": "api",
    "UnfreezeError": "errors",
    "evaluate": "api",
    "full": "schedule",
    "gradual": "schedule",
    "head": "schedule",
    "inspect": "inspection",
    "last": "schedule",
    "plan": "api",
    "predict": "api",
    "report": "api",
    "resume": "api",
    "train": "api",
}

__all__ = [
    "Batch",
    "DataError",
    "Duration",
    "Event",
    "Example",
    "Finding",
    "Interrupted",
    "LossOutput",
    "LossTerm",
    "ModelError",
    "NumericsError",
    "Observer",
    "Phase",
    "Plan",
    "Prediction",
    "Predictor",
    "Recipe",
    "RecipeError",
    "RequestError",
    "ResourceError",
    "Row",
    "Run",
    "Schedule",
    "Task",
    "TaskError",
    "TrainedRun",
    "UnfreezeError",
    "__version__",
    "evaluate",
    "full",
    "gradual",
    "head",
    "inspect",
    "last",
    "plan",
    "predict",
    "report",
    "resume",
    "train",
]

if TYPE_CHECKING:
    from unfreeze.api import TrainedRun, evaluate, plan, predict, report, resume, train
    from unfreeze.errors import (
        DataError,
        Interrupted,
        ModelError,
        NumericsError,
        RecipeError,
        RequestError,
        ResourceError,
        TaskError,
        UnfreezeError,
    )
    from unfreeze.inspection import inspect
    from unfreeze.plan import Plan
    from unfreeze.recipe import Recipe
    from unfreeze.run import Event, Finding, Run
    from unfreeze.schedule import Phase, Schedule, full, gradual, head, last
    from unfreeze.serving.predictor import Predictor
    from unfreeze.tasks.base import Task
    from unfreeze.training.observers import Observer
    from unfreeze.types import Batch, Duration, Example, LossOutput, LossTerm, Prediction, Row


class _Package(ModuleType):
    """Keeps the public functions `plan` and `report` where modules of the same name exist.

    Trap: importing ``unfreeze.plan`` makes Python set that module as an attribute of the package, which would hide the
    function. ``from unfreeze.plan import Plan`` does not need the attribute.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unfreeze' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"unfreeze.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
