"""The folder of a run: who makes it, and who may work on it."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unfreeze import durable
from unfreeze.errors import RequestError, ResourceError
from unfreeze.run import KEPT_DATA, Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})


def notices(run: Run) -> list[str]:
    return [event.values["text"] for event in run.events("notice")]


def made(folder: Path, recipe: str = "seed: 0\n") -> Run:
    return Run.create(folder, recipe_yaml=recipe, plan={})


@pytest.fixture
def another_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first run is written another process makes one of the same name."""
    publish = durable.publish

    def late(folder: Path, write: Callable[[Path], None], **settings: Any) -> None:
        monkeypatch.setattr(durable, "publish", publish)
        made(folder, "seed: 7\n")
        publish(folder, write, **settings)

    monkeypatch.setattr(durable, "publish", late)


@pytest.mark.usefixtures("another_is_quicker")
def test_of_two_processes_that_make_one_run_the_later_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        made(tmp_path / "run")
    assert (caught.value.code, caught.value.what) == (
        "RUN-EXISTS", "the output folder holds another run; it is not overwritten",
    )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert Run(tmp_path / "run").recipe_path.read_text() == "seed: 7\n"


@pytest.mark.usefixtures("another_is_quicker")
def test_of_two_processes_whose_runs_are_named_for_them_each_gets_its_own(tmp_path: Path) -> None:
    runs = [Run.create_numbered(tmp_path, "run", recipe_yaml=f"seed: {i}\n", plan={}) for i in range(2)]
    assert [r.name for r in runs] == ["run-2", "run-3"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run-2", "run-3"]
    found = [(tmp_path / name / "recipe.yaml").read_text() for name in ("run", "run-2", "run-3")]
    assert found == ["seed: 7\n", "seed: 0\n", "seed: 1\n"]


def test_a_file_where_runs_would_lie_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(RequestError, match="is no folder"):
        Run.create_numbered(tmp_path / "runs", "run", recipe_yaml="", plan={})


def test_an_empty_folder_is_filled_by_one_of_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, write = tmp_path / "place", durable.write_text
    place.mkdir()
    before = place.stat().st_ino
    refused: list[str] = []

    def while_another_writes(path: Path, text: str) -> None:
        monkeypatch.setattr(durable, "write_text", write)
        monkeypatch.setattr("unfreeze.run.check_is_free", lambda folder: None)  # it had looked before
        with pytest.raises(RequestError) as caught:
            made(place, "seed: 7\n")
        refused.append(caught.value.code)
        write(path, text)

    monkeypatch.setattr(durable, "write_text", while_another_writes)
    run = made(place)
    assert refused == ["RUN-EXISTS"]
    assert (run.recipe_path.read_text(), place.stat().st_ino) == ("seed: 0\n", before)
    assert sorted(p.name for p in place.iterdir()) == ["plan.json", "recipe.yaml", "status.json"]


def test_the_commands_of_a_run_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = made(Path("my runs") / "it's one")
    assert shlex.split(run.resume_command) == ["unfreeze", "resume", "my runs/it's one"]
    again = ["unfreeze", "train", "my runs/it's one/recipe.yaml"]
    assert shlex.split(run.command_anew("train.epochs=2 steps")) == [
        *again, "--set", "train.epochs=2 steps", "--output", "my runs/it's one-2",
    ]  # fmt: skip
    (run.folder / KEPT_DATA).mkdir()
    made(Path("my runs") / "it's one-2")
    kept = ["--set", "data.source=my runs/it's one/data"]
    assert shlex.split(run.command_anew()) == [*again, *kept, "--output", "my runs/it's one-3"]
    monkeypatch.chdir(run.folder)
    assert shlex.split(Run(".").command_anew())[-1] == str((tmp_path / "my runs" / "it's one-3").resolve())
    with pytest.raises(RequestError) as caught:
        made(tmp_path / "my runs" / "it's one")
    for line in str(caught.value.remedy).splitlines():
        assert shlex.split(line.partition(": ")[2])[-1].startswith(str(tmp_path / "my runs" / "it's one"))


def test_a_disk_that_is_full_before_there_is_a_run_has_no_run_to_resume(tmp_path: Path) -> None:
    def full(operation: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "empty").mkdir()
    for make in (
        lambda: made(tmp_path / "run"),
        lambda: made(tmp_path / "empty"),
        lambda: Run.create_numbered(tmp_path, "run", recipe_yaml="", plan={}),
    ):
        with durable.fault_points(full), pytest.raises(ResourceError) as caught:
            make()
        assert caught.value.remedy == "free some space there, or choose another folder: --output RUN"


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
