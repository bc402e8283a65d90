"""Every write that must survive: stage, flush to disk, manifest, rename.

A file or folder written here is either complete or absent, whatever happens in between. Each step passes a *fault
point*; tests put a function there that kills the process or raises ``OSError`` (see `fault_points`).

A published folder holds ``manifest.json``: the size in bytes and SHA-256 of each of its files, written last. `verify`
recomputes them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from unfreeze.errors import ResourceError

MANIFEST = "manifest.json"
_STAGING_PREFIX = ".staging-"
# Names of what is being written, beside what it will replace.
STAGING_PATTERN = f"{_STAGING_PREFIX}*"
# What is told where a file cannot be written, unless its writer knows better.
MAKE_ROOM = "free some space there"

_observe_point: Callable[[str, Path], None] | None = None


@contextlib.contextmanager
def fault_points(observe: Callable[[str, Path], None]) -> Iterator[None]:
    """Call ``observe(operation, path)`` at every durable operation inside the block (for tests)."""
    global _observe_point
    before, _observe_point = _observe_point, observe
    try:
        yield
    finally:
        _observe_point = before


def point(operation: str, path: Path) -> None:
    """Mark a place where a crash, a full disk or a kill must do no harm."""
    if _observe_point is not None:
        _observe_point(operation, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` at once: readers see the old file or the new one, never a part.

    Raises:
        ResourceError: E-DISK, when the file cannot be written; the old file is still there.
    """
    with writing(path) as handle:
        handle.write(content)


@contextlib.contextmanager
def writing(path: Path, remedy: str = MAKE_ROOM) -> Iterator[BinaryIO]:
    """A file that takes its place when the block ends, and is gone where the block raises.

    Args:
        path: Is replaced at once: readers see the old file or the new one, never a part.
        remedy: Told where it cannot be written.

    Raises:
        ResourceError: E-DISK, when the file cannot be written; the old file is still there.
    """
    staged = path.with_name(f"{_STAGING_PREFIX}{secrets.token_hex(4)}-{path.name}")
    with _as_resource_error(path, remedy):
        try:
            point("write", path)
            with open(staged, "wb") as handle:
                yield handle
                handle.flush()
                point("fsync", path)
                os.fsync(handle.fileno())
            point("rename", path)
            _require(path, "a file", path.is_file())
            os.replace(staged, path)
            _sync_folder(path.parent)
            point("done", path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text; a lone surrogate, as in a file name that is not UTF-8, becomes ``\\udc80``."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON with sorted keys; NaN and infinity are written as null."""
    write_text(path, to_json(value) + "\n")


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON text that any parser reads: not-finite numbers become null."""
    return json.dumps(_finite(value), indent=indent, sort_keys=indent is not None, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if hasattr(value, "item") and getattr(value, "size", 2) == 1:
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def append_line(path: Path, line: str) -> None:
    """Append one line to a log; a torn last line after a crash is the reader's to skip, and stays a line of its own."""
    with _as_resource_error(path):
        point("append", path)
        with open(path, "a+b") as handle:
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                line = line if handle.read(1) == b"\n" else "\n" + line
            handle.write(line.encode("utf-8", "backslashreplace") + b"\n")


def sync_log(path: Path) -> None:
    """Flush what `append_line` wrote, so that a power cut does not take it.

    Raises:
        ResourceError: E-DISK.
    """
    with _as_resource_error(path):
        point("fsync", path)
        _sync_file(path)
        _sync_folder(path.parent)


class Occupied(Exception):
    """A folder was not to be replaced, and another process has made one of that name in the meantime."""


def publish(folder: Path, write: Callable[[Path], None], *, manifest: bool = True, replace: bool = True) -> None:
    """Create `folder` with what `write(staging)` puts there, complete with a manifest, or not at all.

    An existing folder of that name is replaced only after the new one is complete.

    Args:
        folder: To appear.
        write: Fills the staging folder it is given.
        manifest: False for a folder that goes on growing, such as a run's.
        replace: False where a folder of that name that holds anything is to stay.

    Raises:
        ResourceError: E-DISK.
        Occupied: There is one that is not replaced.
    """
    staging = folder.with_name(f"{_STAGING_PREFIX}{secrets.token_hex(4)}-{folder.name}")
    with _as_resource_error(folder):
        try:
            point("stage", folder)
            staging.mkdir(parents=True)
            write(staging)
            entries = {}
            for file in sorted(p for p in staging.rglob("*") if p.is_file()):
                point("fsync", folder / file.relative_to(staging))
                _sync_file(file)
                if manifest:
                    entries[file.relative_to(staging).as_posix()] = {
                        "bytes": file.stat().st_size,
                        "sha256": sha256_of_file(file),
                    }
            if manifest:
                write_json(staging / MANIFEST, {"files": entries})
            for inner in sorted(p for p in staging.rglob("*") if p.is_dir()):
                _sync_folder(inner)
            _sync_folder(staging)
            point("rename", folder)
            if replace:
                _swap_in(staging, folder)
            else:
                _put(staging, folder)
            _sync_folder(folder.parent)
            point("done", folder)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _require(path: Path, kind: str, is_one: bool) -> None:
    """Trap: root may rename over anything, /dev/null included."""
    if path.exists() and not is_one:
        raise OSError(f"{path} is there already and is not {kind}")


def _put(staging: Path, folder: Path) -> None:
    """One call, so that of two processes one comes first: a folder that holds anything is not replaced by rename."""
    try:
        os.rename(staging, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise Occupied(str(folder)) from None
        raise


def _swap_in(staging: Path, folder: Path) -> None:
    _require(folder, "a folder", folder.is_dir())
    if not folder.exists():
        os.rename(staging, folder)
        return
    # Trap: a folder cannot be replaced by rename on POSIX. The old one is moved aside first; `recover` puts it back
    # after a crash between the two renames.
    aside = folder.with_name(f"{_STAGING_PREFIX}old-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)
    try:
        point("swap", folder)
        os.rename(staging, folder)
    except BaseException:
        os.rename(aside, folder)
        raise
    # Trap: were the power cut now, the renames could be lost and the removal not.
    _sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover(parent: Path) -> list[str]:
    """Clean what a crash left in `parent`: half-written stages go, a folder moved aside comes back.

    Returns:
        One sentence for each thing that was done.
    """
    done = []
    for old in sorted(parent.glob(f"{_STAGING_PREFIX}old-*")):
        target = parent / old.name.removeprefix(f"{_STAGING_PREFIX}old-")
        if not target.exists():
            os.rename(old, target)
            done.append(f"put {target.name} back, whose replacement was not finished")
        else:
            shutil.rmtree(old, ignore_errors=True)
    for left in sorted(parent.glob(f"{_STAGING_PREFIX}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
        done.append(f"removed a half-written {left.name.split('-', 2)[-1]}")
    return done


def remove_leftovers(folder: Path) -> None:
    """Remove half-written stages of one published folder; its caller knows that nobody writes it now."""
    for left in folder.parent.glob(f"{_STAGING_PREFIX}*-{folder.name}"):
        shutil.rmtree(left, ignore_errors=True)


def verify(folder: Path) -> str | None:
    """None where every file of a published folder is as it was written, else what is wrong, as a sentence."""
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, entry in entries.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
            if sha256_of_file(file) != entry["sha256"]:
                return f"{name} is not what was written (SHA-256 differs)"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def remove(folder: Path) -> None:
    """Remove a published folder so that a crash half-way leaves nothing that looks complete."""
    doomed = folder.with_name(f"{_STAGING_PREFIX}{secrets.token_hex(4)}-{folder.name}")
    with _as_resource_error(folder):
        point("remove", folder)
        os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        _sync_file(folder)


def _cause_of_failed_write(error: Exception) -> str | None:
    """What the system said of a write, None for other errors.

    Trap: safetensors writes in Rust, and what the system says comes as an error of its own.
    """
    if isinstance(error, OSError):
        return str(error.strerror or error)
    if type(error).__name__ == "SafetensorError" and "I/O error" in str(error):
        return str(error).split("I/O error:")[-1].strip()
    return None


@contextlib.contextmanager
def _as_resource_error(path: Path, remedy: str = MAKE_ROOM) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = _cause_of_failed_write(error)
        if cause is None:
            raise
        raise ResourceError(
            "DISK",
            f"cannot write {path.name}: {cause}",
            where=str(path.parent),
            remedy=remedy,
        ) from error
