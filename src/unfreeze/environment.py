"""What `unfreeze env` shows: versions, devices, and what is missing for which feature."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from typing import Any

from unfreeze import __version__

_SHOWN = ("torch", "transformers", "accelerate", "datasets", "safetensors", "scikit-learn", "pyarrow")
# Feature to the packages it needs beyond the core.
_FEATURES = {"DataFrames": ("pandas",)}


def describe() -> dict[str, dict[str, Any]]:
    """Sections of facts, as plain data."""
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
        "features": {name: _available(packages) for name, packages in _FEATURES.items()},
        "models": {f"builtin:{name}": text for name, text in _builtins().items()},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _available(packages: tuple[str, ...]) -> str:
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    return f"missing: pip install {' '.join(missing)}" if missing else "ready"


def _hub() -> str:
    from huggingface_hub import constants

    return "offline (HF_HUB_OFFLINE is set): only models in the cache" if constants.HF_HUB_OFFLINE else "online"


def _builtins() -> dict[str, str]:
    from unfreeze.models.catalog import BUILTIN

    return dict(BUILTIN)
