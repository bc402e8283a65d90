"""The folder of a run: who may work on it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from unfreeze.errors import RequestError
from unfreeze.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})


def notices(run: Run) -> list[str]:
    return [event.values["text"] for event in run.events("notice")]


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_keeps_nobody_out_and_says_so(
    error: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run.held(), Run(run.folder).held():
        pass
    assert [text for text in notices(run) if os.strerror(error) in text] == notices(run)
    assert len(notices(run)) == 2


@pytest.mark.parametrize("host", ["laptop", "zoë", "half-\udcff"])
def test_who_holds_a_run_is_told_whatever_the_host_is_called(
    host: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    shown = host.encode("utf-8", "backslashreplace").decode()
    with run.held(), pytest.raises(RequestError, match="another process") as caught, Run(run.folder).held():
        pass
    assert caught.value.code == "RUN-STATE"
    assert caught.value.what.endswith(f"{os.getpid()} on {shown}")
    assert notices(run) == []
    with run.held():
        pass  # the hold went with its owner
