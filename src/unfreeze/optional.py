"""Packages that only some features need."""

from __future__ import annotations

import importlib
from types import ModuleType

from unfreeze.errors import ResourceError


def require(package: str, extra: str) -> ModuleType:
    """Import `package`, or say which pip line brings it.

    Args:
        package: The import name.
        extra: The extra of unfreeze that contains it.

    Raises:
        ResourceError: E-MISSING-PACKAGE, with the pip line.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise ResourceError(
            "MISSING-PACKAGE",
            f"this needs the package '{package}', which is not installed",
            remedy=f"pip install 'unfreeze[{extra}]'",
        ) from None
