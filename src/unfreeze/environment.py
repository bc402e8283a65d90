"""What `unfreeze env` shows: versions, the machine, the builtin models."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from unfreeze import __version__
from unfreeze.errors import ModelError

_SHOWN = ("torch", "transformers", "accelerate", "datasets", "safetensors", "scikit-learn", "pyarrow")


def describe() -> dict[str, dict[str, Any]]:
    """Sections of facts, as plain data: ``versions``, ``machine``, ``models``."""
    from unfreeze.machine import find_machine, free_disk_bytes

    machine = find_machine()
    return {
        "versions": {
            "unfreeze": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _SHOWN},
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "device": f"{machine.device} ({machine.name})",
            "threads": machine.threads,
            "free memory": f"{machine.memory_bytes / 1e9:.1f} GB",
            "free disk here": f"{free_disk_bytes('.') / 1e9:.1f} GB",
            "hub": _hub(),
        },
        "models": _builtins(),
    }


def print_facts(facts: dict[str, dict[str, Any]], console: Console) -> None:
    """Print the sections, one fact a line."""
    for section, values in facts.items():
        console.print(f"[bold]{section}[/bold]")
        grid = Grid(box=None, pad_edge=True, show_header=False)
        grid.add_column(min_width=14, no_wrap=True)
        grid.add_column(overflow="fold")
        for key, value in values.items():
            grid.add_row(escape(key), escape(str(value)))
        console.print(grid)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"missing: pip install {package}"


def _hub() -> str:
    from huggingface_hub import constants

    return "offline (HF_HUB_OFFLINE is set): only models in the cache" if constants.HF_HUB_OFFLINE else "online"


def _builtins() -> dict[str, str]:
    """What each builtin model is, or that it is not there."""
    from unfreeze.models.catalog import BUILTIN
    from unfreeze.models.loading import resolve

    found = {}
    for name, text in BUILTIN.items():
        try:
            resolve(f"builtin:{name}")
            found[f"builtin:{name}"] = text
        except ModelError as error:
            found[f"builtin:{name}"] = f"missing: {error.remedy}"
    return found
