"""A file or folder is old or new, never a part: killed, out of disk, or damaged later."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from unfreeze import durable
from unfreeze.errors import ResourceError

OLD, NEW = {"a.txt": b"old a", "in/b.txt": b"old b"}, {"a.txt": b"new a, longer", "in/c.txt": b"new c"}


def write_old_file(folder: Path) -> None:
    durable.write_bytes(folder / "target", b"old content")


def write_new_file(folder: Path) -> None:
    durable.write_bytes(folder / "target", b"new content")


def publish(folder: Path, files: dict[str, bytes]) -> None:
    def write(staging: Path) -> None:
        for name, content in files.items():
            (staging / name).parent.mkdir(exist_ok=True)
            durable.write_bytes(staging / name, content)

    durable.publish(folder / "target", write)


def publish_old(folder: Path) -> None:
    publish(folder, OLD)


def publish_new(folder: Path) -> None:
    publish(folder, NEW)


def content_of(folder: Path) -> dict[str, bytes] | bytes | None:
    """What a reader finds under the name; of a folder only if it is whole."""
    target = folder / "target"
    if target.is_file():
        return target.read_bytes()
    if not target.exists():
        return None
    assert durable.verify(target) is None, durable.verify(target)
    files = (p for p in target.rglob("*") if p.is_file() and p.name != durable.MANIFEST)
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in files}


CASES: dict[str, tuple[Callable[[Path], None] | None, Callable[[Path], None], object, object]] = {
    "a new file": (None, write_new_file, None, b"new content"),
    "a file replaced": (write_old_file, write_new_file, b"old content", b"new content"),
    "a new folder": (None, publish_new, None, NEW),
    "a folder replaced": (publish_old, publish_new, OLD, NEW),
}


def points_of(case: str, folder: Path) -> list[str]:
    """The names of the fault points that the case passes."""
    before, write, _, _ = CASES[case]
    folder.mkdir()
    if before:
        before(folder)
    passed: list[str] = []
    with durable.fault_points(lambda operation, path: passed.append(operation)):
        write(folder)
    return passed


def fail_at(number: int, fail: Callable[[], None]) -> Callable[[str, Path], None]:
    left = [number]

    def observe(operation: str, path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            fail()

    return observe


def test_the_fault_points_are_those_of_the_protocol(tmp_path: Path) -> None:
    file = ["write", "fsync", "rename", "done"]
    assert points_of("a new file", tmp_path / "1") == file
    folder = ["stage", *file, *file, "fsync", "fsync", *file, "rename"]
    assert points_of("a new folder", tmp_path / "2") == [*folder, "done"]
    assert points_of("a folder replaced", tmp_path / "3") == [*folder, "swap", "done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_process_killed_anywhere_leaves_the_old_or_the_new(tmp_path: Path, case: str) -> None:
    before, write, old, new = CASES[case]
    seen = set()
    for number in range(len(points_of(case, tmp_path / "counted"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        if before:
            before(folder)
        child = os.fork()
        if child == 0:
            with durable.fault_points(fail_at(number, lambda: os._exit(9))):
                write(folder)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        durable.recover(folder)
        found = content_of(folder)
        assert found in (old, new), f"killed at point {number}"
        assert [p.name for p in folder.iterdir()] == (["target"] if found is not None else [])
        seen.add(found == new)
    assert seen == {False, True}, "the last point lies behind the rename"


@pytest.mark.parametrize("case", CASES)
def test_a_full_disk_anywhere_is_a_resource_error_and_leaves_the_old_or_the_new(tmp_path: Path, case: str) -> None:
    before, write, old, new = CASES[case]

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    passed = points_of(case, tmp_path / "counted")
    for number in range(len(passed)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if before:
            before(folder)
        with durable.fault_points(fail_at(number, full)), pytest.raises(ResourceError) as caught:
            write(folder)
        assert (caught.value.code, caught.value.exit_status) == ("DISK", 6)
        assert "No space left on device" in caught.value.what
        assert caught.value.remedy
        assert str(folder) in str(caught.value.where)
        # Without `recover`: the process lives on and reads what is there.
        wanted = new if number == len(passed) - 1 else old
        assert content_of(folder) == wanted, f"full at point {number}, {passed[number]}"
        assert [p.name for p in folder.iterdir()] == (["target"] if wanted is not None else [])


def test_a_writer_that_fails_publishes_nothing(tmp_path: Path) -> None:
    def write(staging: Path) -> None:
        (staging / "half").write_bytes(b"half")
        raise KeyboardInterrupt

    publish_old(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        durable.publish(tmp_path / "target", write)
    assert content_of(tmp_path) == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_is_not_to_be_replaced_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    def write(staging: Path) -> None:
        durable.write_bytes(staging / "a.txt", b"mine")
        publish_old(tmp_path)  # another process is quicker

    with pytest.raises(durable.Occupied):
        durable.publish(tmp_path / "target", write, replace=False)
    assert content_of(tmp_path) == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
    durable.publish(tmp_path / "other", lambda staging: durable.write_bytes(staging / "a", b""), replace=False)
    assert durable.verify(tmp_path / "other") is None


# verify ----------------------------------------------------------------------------------------------------------


def damaged(folder: Path, change: Callable[[Path], None]) -> str | None:
    publish_old(folder)
    change(folder / "target")
    return durable.verify(folder / "target")


def flip_one_bit(path: Path) -> None:
    content = bytearray((path / "a.txt").read_bytes())
    content[2] ^= 4
    (path / "a.txt").write_bytes(content)


def test_a_whole_folder_verifies(tmp_path: Path) -> None:
    assert damaged(tmp_path, lambda path: None) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: (path / "a.txt").write_bytes(b"old"), "a.txt has 3 bytes instead of 5"),
        (lambda path: (path / "a.txt").write_bytes(b""), "a.txt has 0 bytes instead of 5"),
        (flip_one_bit, "a.txt is not what was written (SHA-256 differs)"),
        (lambda path: (path / "in" / "b.txt").unlink(), "in/b.txt is missing"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda path: (path / "manifest.json").write_text('{"files": 3}'), "manifest.json cannot be read"),
        (lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe"), "manifest.json cannot be read"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    assert damaged(tmp_path, change) == said


def test_a_folder_that_is_not_there_does_not_verify(tmp_path: Path) -> None:
    assert durable.verify(tmp_path / "nothing") == "manifest.json is missing"


def test_the_manifest_holds_size_and_digest_of_every_file(tmp_path: Path) -> None:
    durable.publish(tmp_path / "target", lambda staging: durable.write_bytes(staging / "a", b"abc"))
    manifest = json.loads((tmp_path / "target" / "manifest.json").read_text())
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert manifest == {"files": {"a": {"bytes": 3, "sha256": digest}}}


# recover ---------------------------------------------------------------------------------------------------------


def test_recover_puts_back_a_folder_whose_replacement_was_not_finished(tmp_path: Path) -> None:
    publish_old(tmp_path)
    os.rename(tmp_path / "target", tmp_path / ".staging-old-target")
    (tmp_path / ".staging-0123abcd-target").mkdir()
    assert durable.recover(tmp_path) == [
        "put target back, whose replacement was not finished",
        "removed a half-written target",
    ]
    assert content_of(tmp_path) == OLD
    assert durable.recover(tmp_path) == []


def test_recover_removes_half_written_files_and_leaves_everything_else(tmp_path: Path) -> None:
    write_old_file(tmp_path)
    (tmp_path / ".staging-0123abcd-status.json").write_text("{")
    (tmp_path / ".hidden").write_text("mine")
    assert durable.recover(tmp_path) == ["removed a half-written status.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "target"]


def test_a_removed_folder_is_gone_at_once(tmp_path: Path) -> None:
    publish_old(tmp_path)
    durable.remove(tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


# the rest --------------------------------------------------------------------------------------------------------


def test_json_has_no_numbers_that_parsers_refuse() -> None:
    import numpy as np

    value = {"a": float("nan"), "b": [float("inf"), 1.5], 3: (np.float32(0.5), np.float64("nan"), np.int64(7))}
    assert json.loads(durable.to_json(value)) == {"a": None, "b": [None, 1.5], "3": [0.5, None, 7]}
    assert durable.to_json({"b": 1, "a": "é"}, indent=None) == '{"b": 1, "a": "é"}'


def test_a_line_after_a_torn_one_is_a_line_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    durable.append_line(log, "first")
    with open(log, "a") as handle:
        handle.write("tor")
    durable.append_line(log, "second")
    durable.append_line(log, "dritte – 3")
    assert log.read_text(encoding="utf-8").splitlines() == ["first", "tor", "second", "dritte – 3"]


def test_a_folder_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="E-DISK"):
        durable.write_bytes(tmp_path / "missing" / "file", b"")


def test_what_is_neither_file_nor_folder_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "target")
    for write in (write_new_file, publish_new):
        with pytest.raises(ResourceError):
            write(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["target"]
        assert (tmp_path / "target").is_fifo()


def test_fault_points_end_with_their_block(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), durable.fault_points(lambda operation, path: 1 / 0):
        durable.write_bytes(tmp_path / "file", b"")
    durable.write_bytes(tmp_path / "file", b"now")
    assert (tmp_path / "file").read_bytes() == b"now"
