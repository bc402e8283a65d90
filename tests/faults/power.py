"""A power cut: what was written and not synced is gone, and so are names made or changed in folders not synced since.

A killed process leaves its writes in the page cache of the system, so that killing alone does not try this. Here the
worst case is played: a log is cut back to what was last synced of it, any other file that has changed since is emptied,
and every new name and every rename since the last sync of its folder is undone. (Real disks keep some of it, in any
order.)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

_APPENDED = ".jsonl"


class Power:
    """Watches the syncs and renames of this process below a folder, until the power is cut.

    Args:
        folder: What is in it at the start is on the disk.
        backups: An empty folder outside, on the same file system, for what renames replace.
    """

    def __init__(self, folder: Path, backups: Path) -> None:
        self.folder, self.backups = folder, backups
        self._synced: set[tuple[int, int, int]] = set()
        self._sizes: dict[int, int] = {}  # of each file when it was last synced, by its number
        self._names: set[tuple[int, str]] = set()  # that are on the disk: number of the folder, name
        self._renames: list[tuple[Path, Path, Path | None]] = []
        self._fsync, self._rename = os.fsync, os.rename
        for path in [folder, *folder.rglob("*")]:
            self._note(path.stat())
            if path.is_dir():
                self._note_names(path)

    @contextmanager
    def watched(self) -> Iterator[Power]:
        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(os, "fsync", self._on_fsync))
            for name in ("rename", "replace"):
                patches.enter_context(mock.patch.object(os, name, self._on_rename))
            yield self

    def cut(self) -> None:
        """Take away what is not on the disk, and end this process."""
        for source, target, replaced in reversed(self._renames):
            if target.exists() and source.parent.exists():
                self._rename(target, source)
            if replaced is not None:
                self._rename(replaced, target)
        for path in sorted(self.folder.rglob("*")):
            if not path.exists():
                continue  # its folder has just gone
            if (path.parent.stat().st_ino, path.name) not in self._names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path.is_file() and _state(state := path.stat()) not in self._synced:
                kept = self._sizes.get(state.st_ino, 0) if path.suffix == _APPENDED else 0
                os.truncate(path, min(state.st_size, kept))
        os._exit(137)

    def _on_fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self._note(os.fstat(descriptor))
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._note_names(path)
            self._renames = [r for r in self._renames if r[1].parent != path]

    def _on_rename(self, source: Any, target: Any) -> None:
        source, target = Path(source).absolute(), Path(target).absolute()
        replaced = None
        if target.is_file():
            replaced = self.backups / str(len(list(self.backups.iterdir())))
            shutil.copy2(target, replaced)
            if _state(target.stat()) in self._synced:
                self._note(replaced.stat())
        self._rename(source, target)
        self._renames.append((source, target, replaced))

    def _note(self, state: os.stat_result) -> None:
        self._synced.add(_state(state))
        self._sizes[state.st_ino] = state.st_size

    def _note_names(self, folder: Path) -> None:
        self._names |= {(folder.stat().st_ino, name) for name in os.listdir(folder)}


def _state(of: os.stat_result) -> tuple[int, int, int]:
    return of.st_ino, of.st_size, of.st_mtime_ns
