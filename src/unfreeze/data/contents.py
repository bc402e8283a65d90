"""What a row has in a column of pictures or sound: a file's content, or bytes that the row brought.

A file is read from the disk when it is needed and never kept. What it held when it was first read is remembered by its
digest: a file that changes while a run reads it ends the run, rather than to be learned from in two states.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from unfreeze.errors import DataError
from unfreeze.types import Row


def content_digest(data: bytes) -> bytes:
    """16 bytes that stand for the content of a file."""
    return hashlib.blake2b(data, digest_size=16).digest()


def checked_name(name: str, where: str) -> str:
    """A file name in a table, as it may be used.

    Raises:
        DataError: E-DATA-LINK for one that leads out of its folder, or is no name of a file.
    """
    parts = PurePosixPath(name).parts
    is_address = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|file:", name) is not None
    is_foreign = is_address or re.match(r"[A-Za-z]:", name) is not None
    if not parts or is_foreign or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise DataError(
            "DATA-LINK",
            f"{name!r} is no name of a file inside the data folder",
            where=where,
            remedy="copy the files beside the table first; addresses are not fetched"
            if is_address
            else "write names relative to the folder, with forward slashes",
        )
    return PurePosixPath(name).as_posix()


def path_of(row: Row, column: str) -> Path | None:
    """The file that a row names in a column; None where it brought the bytes, or nothing.

    Raises:
        DataError: E-DATA-LINK for a name in a file that leads out of that file's folder.
    """
    value = row.values.get(column)
    if isinstance(value, Mapping) and value.get("bytes") is None:
        value = value.get("path")
    if not isinstance(value, str) or not value:
        return None
    if row.files is None or row.files.folder is None:
        return Path(value)  # typed by the user, not found in a file
    path = row.files.folder / checked_name(value, row.place)
    _refuse_link_out(path, row.files.folder, row.place)
    return path


def _refuse_link_out(path: Path, folder: Path, where: str) -> None:
    """A name inside the folder may still be a link, or lie behind one, that leads out of it."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a link that leads to itself; said where the file is read
        return
    # Trap: a relative folder is another one once the program has changed its working folder.
    if not target.is_relative_to(_resolved(folder.absolute())):
        what = f"{path.name!r} is, or lies behind, a link that leads out of the data folder"
        raise DataError("DATA-LINK", what, where=where, remedy="copy the file into the folder")


@functools.lru_cache(maxsize=16)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def read(path: Path, place: str, digest: bytes | None = None) -> bytes:
    """A file's content.

    Args:
        digest: Of what it held when it was first read; None: not known.

    Raises:
        DataError: E-DATA-MISSING, E-DATA-UNREADABLE; E-DATA-CHANGED where it has another digest now.
    """
    try:
        # Trap: opening a FIFO waits for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("DATA-FORMAT", f"{path.name!r} is no plain file", where=place)
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        what = f"there is no file {str(path)!r}"
        raise DataError("DATA-MISSING", what, where=place, remedy=_where_else(path)) from None
    except (OSError, ValueError) as error:
        what = f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError("DATA-UNREADABLE", what, where=place) from None
    if digest is not None and content_digest(data) != digest:
        raise DataError(
            "DATA-CHANGED",
            "the file has changed since it was read first",
            where=place,
            remedy="leave the data alone while a run reads it; then start anew",
        )
    return data


def _where_else(path: Path) -> str | None:
    """What to type where a file lies in a folder beside the place that it was looked for in."""
    found = next((name for name in _known_folders(path.parent) if os.path.isfile(path.parent / name / path.name)), None)
    return f"there is one in the folder {found!r}: name it {found}/{path.name}" if found is not None else None


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in another, sorted, without links; none where it cannot be looked into."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


# Thousands of files may be missing from one folder.
_known_folders = functools.lru_cache(maxsize=16)(folders_in)


def content_of(row: Row, column: str) -> bytes | None:
    """What a row has in a column; None where it has nothing.

    Raises:
        DataError: As `read`, and E-DATA-ROW, E-DATA-LINK.
    """
    path = path_of(row, column)
    if path is None:
        return _held(row, column)
    known = row.files.digests if row.files is not None else {}
    data = read(path, row.place, known.get(str(path)))
    if str(path) not in known:
        known[str(path)] = content_digest(data)
    return data


def digest_of(row: Row, column: str) -> bytes | None:
    """The digest of what a row has in a column; a table's file is read for it once.

    Raises:
        DataError: As `content_of`.
    """
    path = path_of(row, column)
    known = row.files.digests.get(str(path)) if path is not None and row.files is not None else None
    if known is not None:
        return known
    data = content_of(row, column)
    return content_digest(data) if data is not None else None


def _held(row: Row, column: str) -> bytes | None:
    value = row.values.get(column)
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if value is None or value == "":
        return None
    if not isinstance(value, bytes):
        what = f"column {column!r} holds neither a file name nor the bytes of a file: {str(value)[:60]!r}"
        raise DataError("DATA-ROW", what, where=row.place)
    return value
