"""Pictures to model inputs: what tasks on images share.

An example keeps no pixels: it knows its file, and `collate` decodes what a batch needs, in threads. A file that changes
while a run reads it is noticed by its digest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from unfreeze.data.pictures import decode
from unfreeze.data.table import Table, bytes_of, content_digest, read_bytes
from unfreeze.errors import DataError
from unfreeze.types import Example, Row

# A picture counts as so many tokens as patches of this side would be: the unit that budgets are in.
PATCH_PIXELS = 16
# Smallest share of a picture's area that a random crop keeps, by the number of training rows below which it holds. Few
# rows need strong variation, many bring their own.
CROPS = ((1_000, 0.35), (10_000, 0.5))
MILDEST_CROP = 0.7
# Of a random crop, as usual since Szegedy et al. 2015, arXiv 1409.4842, section 6.
ASPECTS = (3 / 4, 4 / 3)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Picture:
    """Where an example's pixels come from, and how they are varied.

    Attributes:
        path: The file; None where the row brought its bytes.
        data: The bytes, where the row brought them.
        digest: Of the content, as it was when the row was encoded.
        place: For messages.
        crop: Left, upper, right, lower edge as shares of width and height.
        is_mirrored: Left and right change places.
    """

    path: Path | None
    data: bytes | None
    digest: bytes
    place: str
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    is_mirrored: bool = False

    def pixels(self) -> Image.Image:
        """The upright RGB picture, varied.

        Raises:
            DataError: E-DATA-PICTURE; E-DATA-CHANGED where the file is no longer what it was.
        """
        data = self.data if self.data is not None else read_bytes(self.path or Path(), self.place)
        if self.data is None and content_digest(data) != self.digest:
            raise DataError(
                "DATA-CHANGED",
                "the file has changed since it was read first",
                where=self.place,
                remedy="leave the data alone while a run reads it; then start anew",
            )
        picture = decode(data, self.place)
        if self.crop != (0.0, 0.0, 1.0, 1.0):
            width, height = picture.size
            left, upper, right, lower = self.crop
            box = (int(left * width), int(upper * height), round(right * width), round(lower * height))
            picture = picture.crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)))
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.is_mirrored else picture


def example_of(row: Row, column: str, processor: Any, target: Any) -> Example:
    """One example of a row's picture.

    Raises:
        DataError: E-DATA-ROW without a picture, E-DATA-MISSING, E-DATA-UNREADABLE.
    """
    data = bytes_of(row, column)
    if data is None:
        raise DataError("DATA-ROW", f"there is no picture in column '{column}'", where=row.place)
    value = row.values[column]
    path = Path(row.folder) / value if isinstance(value, str) else None
    digest = content_digest(data)
    # What a model gets depends on how the processor scales it, too.
    content = np.frombuffer(content_digest(digest + _settings(processor)), dtype=np.uint8)
    picture = Picture(path, None if path is not None else data, digest, row.place)
    return Example({"content": content}, target, row.index, tokens_of(processor), origin=picture)


def _settings(processor: Any) -> bytes:
    return str(processor.to_json_string()).encode()


def pixel_values(examples: Sequence[Example], processor: Any) -> dict[str, torch.Tensor]:
    """Model inputs, ``pixel_values`` (batch, channels, height, width) among them."""
    pictures = in_threads(lambda example: example.origin.pixels(), examples)
    return dict(processor(images=pictures, return_tensors="pt").items())


def size_of(processor: Any) -> tuple[int, int]:
    """Height and width in pixels of what the model gets."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size = dict(crop or getattr(processor, "size", None) or {})
    if "height" in size:
        return int(size["height"]), int(size["width"])
    edge = int(size.get("shortest_edge") or size.get("longest_edge") or 224)
    return edge, edge


def tokens_of(processor: Any) -> int:
    """What a picture costs, in tokens."""
    height, width = size_of(processor)
    return max(1, height // PATCH_PIXELS) * max(1, width // PATCH_PIXELS)


def varied(example: Example, rows: int, generator: np.random.Generator, *, mirror: bool) -> Example:
    """A random crop, and with `mirror` in half of the cases the mirror image.

    Args:
        rows: Of training; see `CROPS`.
    """
    least = next((share for most, share in CROPS if rows < most), MILDEST_CROP)
    area, aspect = generator.uniform(least, 1.0), np.exp(generator.uniform(*np.log(ASPECTS)))
    width, height = min(1.0, float(np.sqrt(area * aspect))), min(1.0, float(np.sqrt(area / aspect)))
    left, upper = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
    crop = (left, upper, left + width, upper + height)
    is_mirrored = bool(generator.random() < 0.5) and mirror
    return replace(example, origin=replace(example.origin, crop=crop, is_mirrored=is_mirrored))


def unreadable(table: Table, column: str) -> dict[int, DataError]:
    """Rows whose picture cannot be read, and why; every picture is decoded once."""

    def problem(row: Row) -> DataError | None:
        try:
            data = bytes_of(row, column)
            if data is None:
                return DataError("DATA-ROW", f"there is no picture in column '{column}'", where=row.place)
            decode(data, row.place)
        except DataError as error:
            return error
        return None

    found = enumerate(in_threads(problem, table))
    return {index: error for index, error in found if error is not None}


@cache
def _pool() -> ThreadPoolExecutor:
    # Pillow lets other threads run while it decodes and scales.
    return ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="pictures")


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[work(item) for item in items]``, several at a time; an error of one is raised."""
    return list(_pool().map(work, items))
