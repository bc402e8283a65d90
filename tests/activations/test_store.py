"""The folder of recorded activations: what is listed, what is cleared, and what stays."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from unfreeze import durable
from unfreeze.activations.store import (
    Store,
    Writer,
    clear,
    default_folder,
    entries,
    make_room,
    only_builder,
    only_reserving,
)

LENGTHS = np.array([3, 1, 2])
KEY = "1" * 32


def a_store(folder: Path, key: str) -> Path:
    def write(staging: Path) -> None:
        writer = Writer(staging, LENGTHS, 4, "float16")
        for row, length in enumerate(LENGTHS):
            writer.put(row, np.full((length, 4), row, dtype=np.float16))
        writer.close({"about": {"model": "made-up", "rows": 3}, "boundary": {"group": "head"}})

    durable.publish(folder / key, write)
    return folder / key


def test_rows_come_back_padded_whatever_their_order(tmp_path: Path) -> None:
    store = Store(a_store(tmp_path, KEY))
    found = store.padded([2, 0], 4)
    assert found.dtype == np.float32
    assert found[..., 0].tolist() == [[2, 2, 0, 0], [0, 0, 0, 0]]
    assert store.vectors([1, 2]).tolist() == [[1] * 4, [2] * 4]


def test_clearing_takes_stores_and_what_was_left_half_written_and_nothing_else(tmp_path: Path) -> None:
    size = sum(f.stat().st_size for f in a_store(tmp_path, KEY).iterdir())
    with only_builder(tmp_path, ["two"], print):
        (tmp_path / ".staging-abcd-two").mkdir()
    # A person's own folder may hold a file of that name.
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "store.json").write_text("{}", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert clear(tmp_path) == (1, size)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "thesis"]
    assert (tmp_path / "thesis" / "store.json").is_file()
    assert make_room(tmp_path, 10, 1) == ([], False), "nor does it make room"
    assert clear(tmp_path / "nowhere") == (0, 0)


def test_a_damaged_store_is_listed_and_can_be_cleared(tmp_path: Path) -> None:
    (a_store(tmp_path, KEY) / "store.json").write_text("{", encoding="utf-8")
    assert [(e.key, e.facts) for e in entries(tmp_path)] == [(KEY, {})]
    assert clear(tmp_path)[0] == 1


def test_what_a_killed_builder_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".staging-1234-one"
    left.mkdir()
    (left / "values.bin").write_bytes(b"half")
    others = tmp_path / ".staging-1234-other"
    others.mkdir()
    with only_builder(tmp_path, ["one"], print):
        assert not left.exists()
        assert others.exists()


def _hold(folder: Path, key: str, log: Path) -> None:
    with only_builder(folder, [key, "shared"], lambda text: log.write_text(text, encoding="utf-8")):
        log.with_suffix(".held").touch()
        time.sleep(0.5)
        log.with_suffix(".done").touch()


def test_two_that_would_record_the_same_go_one_after_the_other_and_clearing_leaves_them_alone(tmp_path: Path) -> None:
    folder = tmp_path / "stores"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    first = context.Process(target=_hold, args=(folder, "one", tmp_path / "first"))
    first.start()
    while not (tmp_path / "first.held").exists():
        time.sleep(0.01)
    assert clear(folder) == (0, 0)
    said: list[str] = []
    with only_builder(folder, ["two", "shared"], said.append):
        assert (tmp_path / "first.done").exists()
    first.join()
    assert said == ["another run records the same rows; waiting for it"]


def test_whoever_waits_for_another_can_be_stopped(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with (
        only_builder(tmp_path, ["one"], print),
        pytest.raises(Stopped),
        only_builder(tmp_path, ["one"], print, stop),
    ):
        raise AssertionError("two held one lock")


def test_what_any_killed_builder_left_goes_where_room_is_made(tmp_path: Path) -> None:
    left = tmp_path / ".staging-1234-other"
    left.mkdir()
    (left / "values.bin").write_bytes(b"half")
    (tmp_path / ".lock-other").touch()
    with only_builder(tmp_path, ["one"], print):
        at_work = tmp_path / ".staging-1234-one"
        at_work.mkdir()
        assert make_room(tmp_path, 1, 10) == ([], True)
        assert not left.exists()
        assert at_work.exists()


def _take(folder: Path, ready: Path) -> None:
    with only_builder(folder, [KEY], print), only_reserving(folder):
        staging = folder / f".staging-abcd1234-{KEY}"
        staging.mkdir()
        (staging / "values.bin").write_bytes(bytes(600))
        ready.touch()
        time.sleep(0.5)


def test_the_disk_of_a_recording_at_work_is_counted_and_none_looks_for_room_meanwhile(tmp_path: Path) -> None:
    folder, ready = tmp_path / "stores", tmp_path / "ready"
    folder.mkdir()
    other = multiprocessing.get_context("spawn").Process(target=_take, args=(folder, ready))
    other.start()
    while not ready.exists():
        time.sleep(0.01)
    assert make_room(folder, 500, 1000) == ([], False)
    waited: list[int] = []
    with only_reserving(folder, lambda: waited.append(1)):
        assert waited, "the other had not taken its disk yet"
    other.join()
    assert make_room(folder, 500, 1000) == ([], True), "what it left half-written is gone with it"


def test_a_store_of_another_user_is_passed_over(tmp_path: Path) -> None:
    a_store(tmp_path, KEY)
    a_store(tmp_path, "2" * 32)
    plain = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent.name == KEY:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    with mock.patch.object(Path, "is_file", is_file):
        assert [e.key for e in entries(tmp_path)] == ["2" * 32]


def test_a_store_that_cannot_be_removed_stays_and_is_said_to_take_room(tmp_path: Path) -> None:
    folder = a_store(tmp_path, KEY)
    os.utime(folder, (0, 0))
    size = entries(tmp_path)[0].bytes
    with mock.patch.object(durable, "remove", side_effect=PermissionError):
        assert make_room(tmp_path, 1, size) == ([], False)
    assert make_room(tmp_path, 1, size) == ([KEY], True)


def test_the_folder_of_the_environment_may_begin_with_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", "~/scratch")
    assert default_folder() == Path.home() / "scratch" / "activations"


def test_facts_in_a_store_are_plain_json(tmp_path: Path) -> None:
    facts = json.loads((a_store(tmp_path, KEY) / "store.json").read_text(encoding="utf-8"))
    assert facts["width"] == 4
    assert facts["dtype"] == "float16"
