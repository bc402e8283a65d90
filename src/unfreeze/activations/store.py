"""Recorded tensors on disk: ragged, memory-mapped, keyed by everything they depend on.

::

    FOLDER/<key>/  values.bin   rows one after another, each (tokens, width) in the stored precision
                   starts.npy   (rows + 1,) int64: first token of each row
                   store.json   what was recorded, from what
                   manifest.json

A store is published whole or not at all, and verified by checksum when it is opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from unfreeze import durable
from unfreeze.activations.fingerprint import facts_of_rows
from unfreeze.errors import ResourceError
from unfreeze.types import Example

_FACTS = "store.json"
_LOCK_PREFIX, _ROOM = ".lock-", "room"
_SECONDS_BETWEEN_TRIES, _SECONDS_IN_USE = 0.2, 600
# Trap: a person's own folder may hold a file of that name, and what counts as a store may be removed.
_KEY = re.compile("[0-9a-f]{32}")
DTYPES = {"float16": np.float16, "float32": np.float32}


def default_folder() -> Path:
    """Where stores lie unless the recipe says otherwise: ``$UNFREEZE_CACHE`` or the user's cache folder."""
    named = os.environ.get("UNFREEZE_CACHE")
    if named:
        return Path(named).expanduser().absolute() / "activations"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "unfreeze" / "activations"


class Store:
    """One recorded boundary of one set of rows.

    Args:
        folder: Published, with what a `Writer` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        # Mapped, not read: what a phase takes must not grow with the rows. As plain arrays: slices of a memmap are
        # objects of its class, made one a row.
        self.starts: np.ndarray = np.load(folder / "starts.npy", mmap_mode="r").view(np.ndarray)
        self.width = int(self.facts["width"])
        dtype = DTYPES[self.facts["dtype"]]
        shape = (int(self.starts[-1]), self.width)
        mapped = np.memmap(folder / "values.bin", dtype=dtype, mode="r", shape=shape)
        self.values: np.ndarray = mapped.view(np.ndarray)

    @classmethod
    def open(cls, folder: Path) -> tuple[Store | None, str | None]:
        """The store, or None with the reason why it cannot be used (None where it is simply not there)."""
        if not folder.is_dir():
            return None, None
        problem = durable.verify(folder)
        if problem is not None:
            return None, problem
        with contextlib.suppress(OSError):  # a cache that others may only read
            os.utime(folder)
        return cls(folder), None

    @property
    def bytes(self) -> int:
        return int(self.values.nbytes + self.starts.nbytes)

    def padded(self, rows: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
        """The recorded tensors of some rows, zero-padded on the right: (rows, length, width) float32."""
        padded = np.zeros((len(rows), length, self.width), dtype=np.float32)
        for i, row in enumerate(rows):
            start, end = self.starts[row], self.starts[row + 1]
            padded[i, : end - start] = self.values[start:end]
        return padded

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """One recorded position a row: (rows, width) float32."""
        return np.asarray(self.values[self.starts[np.asarray(rows)]], dtype=np.float32)


@dataclass
class Writer:
    """Takes rows in any order and writes them to their place."""

    folder: Path
    lengths: np.ndarray
    width: int
    dtype: str

    def __post_init__(self) -> None:
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        shape = (int(self.starts[-1]), self.width)
        with open(self.folder / "values.bin", "wb") as file:
            _reserve(file, shape[0] * shape[1] * np.dtype(DTYPES[self.dtype]).itemsize)
        self.values = np.memmap(self.folder / "values.bin", dtype=DTYPES[self.dtype], mode="r+", shape=shape)

    def put(self, row: int, values: np.ndarray) -> None:
        """Store one row, (tokens, width)."""
        self.values[self.starts[row] : self.starts[row + 1]] = values

    def close(self, facts: Mapping[str, Any]) -> None:
        self.values.flush()
        np.save(self.folder / "starts.npy", self.starts)
        durable.write_json(self.folder / _FACTS, {**facts, "width": self.width, "dtype": self.dtype})


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the disk now. Trap: a full disk under a memory map is not an error but a signal that kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    # macOS cannot reserve; what is free now is all that can be asked for.
    if shutil.disk_usage(Path(file.name).parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    os.truncate(file.fileno(), size)


def stored_bytes(lengths: np.ndarray, width: int, dtype: str) -> int:
    """What a store of rows of these lengths takes on disk."""
    return int(lengths.sum()) * width * np.dtype(DTYPES[dtype]).itemsize + 8 * (len(lengths) + 1)


@contextlib.contextmanager
def only_builder(
    folder: Path, keys: Sequence[str], say: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """One process at a time records a key; others wait. A lock goes with its process, so it is never stale.

    On a file system without locks nobody waits: two may then record the same, and the later one's is kept.

    What a killed process left half-written under these keys is removed.

    Args:
        check: Called while waiting; may raise to end it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        # In one order for all processes, so that no two wait for each other.
        for key in sorted(set(keys)):
            told = functools.cache(lambda: say("another run records the same rows; waiting for it"))
            if held.enter_context(_waited_for(folder, key, check, told)):
                durable.remove_leftovers(folder / key)
        yield


@contextlib.contextmanager
def only_reserving(folder: Path, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One process at a time finds room and takes it: two that look at once would both see it free."""
    with _waited_for(folder, _ROOM, check):
        yield


@contextlib.contextmanager
def _waited_for(
    folder: Path, key: str, check: Callable[[], None], is_busy: Callable[[], object] = lambda: None
) -> Iterator[bool]:
    """A key's lock, once nobody else has it; False inside the block where there are no locks.

    Args:
        check: Called while waiting; may raise to end it.
        is_busy: Called at every try that fails.
    """
    while True:
        with _locked(folder, key) as state:
            if state != "busy":
                yield state == "ours"
                return
        is_busy()
        check()
        # Trap: a lock that is waited for lets no signal through.
        time.sleep(_SECONDS_BETWEEN_TRIES)


@contextlib.contextmanager
def _locked(folder: Path, key: str) -> Iterator[Literal["ours", "busy", "impossible"]]:
    """The state of a key's lock inside the block: ours, another process's, or not to be had: no locks, no right."""
    path = folder / f"{_LOCK_PREFIX}{key}"
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            yield "impossible"
            return
        with open(descriptor, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield "busy"
                return
            except OSError:
                yield "impossible"
                return
            # Trap: whoever cleared the cache in between has removed the file that we locked; a later process would
            # lock a new one beside us.
            try:
                if not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    continue
            except FileNotFoundError:
                continue
            yield "ours"
            return


@dataclass(frozen=True)
class Entry:
    """One store as `unfreeze cache` lists it.

    Attributes:
        key: Name of its folder.
        bytes: On disk.
        used: When it was last opened, in seconds since 1970.
        facts: What was recorded, from what.
    """

    key: str
    bytes: int
    used: float
    facts: dict[str, Any]


def entries(folder: Path) -> list[Entry]:
    """All stores in a folder, the least recently used first."""
    found = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        # Another process may just have removed it, or it is another user's and not to be read.
        with contextlib.suppress(OSError):
            if _KEY.fullmatch(path.name) and (path / _FACTS).is_file():
                found.append(Entry(path.name, _bytes_in(path), path.stat().st_mtime, _facts_in(path / _FACTS)))
    return sorted(found, key=lambda e: e.used)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def bytes_held(folder: Path) -> int:
    """Disk that all stores of a folder take; 0 where it cannot be read."""
    try:
        return sum(entry.bytes for entry in entries(folder))
    except OSError:
        return 0


def recorded_groups(folder: Path, model: str, examples: Sequence[Example], batch_tokens: int) -> frozenset[str]:
    """Groups at whose input these rows lie recorded, by a model of that name: for a forecast, not for use.

    The weights are not compared, and a folder that cannot be read holds nothing.
    """
    try:
        found = [e.facts for e in entries(folder)]
    except OSError:
        return frozenset()
    found = [f for f in found if _about_in(f).get("model") == model]
    if not found:
        return frozenset()
    wanted = facts_of_rows(examples, batch_tokens).items()
    places = [f["boundary"] for f in found if wanted <= f.items() and isinstance(f.get("boundary"), dict)]
    return frozenset(str(place.get("group")) for place in places)


def about(folder: Path) -> dict[str, Any]:
    """What was written with a store for people to see; empty where there is none, or it cannot be read."""
    return _about_in(_facts_in(folder / _FACTS))


def _about_in(facts: Mapping[str, Any]) -> dict[str, Any]:
    found = facts.get("about")
    return found if isinstance(found, dict) else {}


def _facts_in(file: Path) -> dict[str, Any]:
    """A damaged store can still be listed and removed."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def make_room(folder: Path, wanted_bytes: int, budget_bytes: int, keep: Collection[str] = ()) -> tuple[list[str], bool]:
    """Remove what killed processes left, then the least recently used stores until `wanted_bytes` fit the budget.

    Args:
        keep: Keys of stores that stay, as do those used within the last minutes: they may be open in another run.

    Returns:
        Keys that were removed, none where that would not have been enough; whether they fit now.
    """
    for lock in sorted(folder.glob(f"{_LOCK_PREFIX}*")):
        key = lock.name.removeprefix(_LOCK_PREFIX)
        with _locked(folder, key) as state, contextlib.suppress(OSError, ResourceError):
            if state == "ours":
                durable.remove_leftovers(folder / key)
                if not (folder / key).is_dir():
                    lock.unlink()
    found = entries(folder)
    may_go = [e for e in found if e.key not in keep and time.time() - e.used >= _SECONDS_IN_USE]
    total, gone = sum(e.bytes for e in found) + _bytes_being_written(folder), []
    if total - sum(e.bytes for e in may_go) + wanted_bytes > budget_bytes:
        return [], False
    for entry in may_go:
        if total + wanted_bytes <= budget_bytes:
            break
        with _locked(folder, entry.key) as state:
            if state == "busy" or not (folder / entry.key).is_dir():
                continue
            try:
                durable.remove(folder / entry.key)
            except (OSError, ResourceError):
                continue  # another user's
        gone.append(entry.key)
        total -= entry.bytes
    return gone, total + wanted_bytes <= budget_bytes


def _bytes_being_written(folder: Path) -> int:
    """Disk that recordings at work have taken; what nobody holds a lock of was left by a process that is gone."""
    total = 0
    for staging in folder.glob(durable.STAGING_PATTERN):
        with _locked(folder, staging.name.rpartition("-")[2]) as state, contextlib.suppress(OSError):
            if state == "busy":
                total += _bytes_in(staging)
    return total


def clear(folder: Path) -> tuple[int, int]:
    """Remove all stores, and what killed processes left; anything else in the folder stays.

    A store that is being recorded right now is left alone. One that a run reads is removed: the run keeps its open
    file and ends as it would have.

    Returns:
        How many stores were removed, and the bytes freed.
    """
    removed, freed = 0, 0
    found = {entry.key: entry for entry in entries(folder)}
    locks = {path.name.removeprefix(_LOCK_PREFIX) for path in folder.glob(f"{_LOCK_PREFIX}*")}
    for key in sorted(found.keys() | locks):
        with _locked(folder, key) as state:
            if state == "busy":
                continue
            if state == "ours":  # without locks it may be another's at work
                durable.remove_leftovers(folder / key)
            if key in found and (folder / key).is_dir():
                durable.remove(folder / key)
                removed, freed = removed + 1, freed + found[key].bytes
            (folder / f"{_LOCK_PREFIX}{key}").unlink(missing_ok=True)
    return removed, freed
