"""What tests of several folders share: small models bound to rows, ready for an engine."""

from __future__ import annotations

from typing import Any

import pytest
import small


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Without dropout, so that a step is a function of its rows."""
    return small.small(tmp_path_factory.mktemp("plain"), dropout=False)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With dropout, as models come."""
    return small.small(tmp_path_factory.mktemp("usual"))
