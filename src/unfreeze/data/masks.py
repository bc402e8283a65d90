"""Folders of pictures and of their masks, laid out as people have them; masks to class numbers, by one written rule.

Layouts; a picture and its mask have the same name, but for the suffix and ``_mask``, ``_gt``, ``_label`` at the end:

- ``train/`` beside ``trainannot/`` (or ``train_masks/``, ``train_labels/`` ...), the same for the other splits;
- ``images/`` beside ``masks/`` (``annotations``, ``labels`` ...), each with or without folders of splits inside;
- VOC's ``JPEGImages/`` beside ``SegmentationClass/``; ``ImageSets/Segmentation/train.txt`` and its like name the rows
  of a split.

Where most pictures have no mask, as in VOC, those that have one are the rows.

What lies in further folders below is paired by its whole name from there on.

A pixel of a mask is the number of its class. 255 is no class (VOC), unless the masks hold nothing but 0 and 255: then
they are ground and thing. Masks in colours are refused, as are JPEG masks, which blur numbers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
from PIL import Image

from unfreeze.data import media
from unfreeze.data.pictures import opened, upright
from unfreeze.data.table import Places, Table
from unfreeze.errors import DataError
from unfreeze.types import Files

PICTURES, MASKS = (
    ("images", "image", "imgs", "img", "pictures", "jpegimages"),
    (*("masks", "mask", "annotations", "annotation", "labels", "label", "segmentationclass", "segmentation", "gt"),),
)
VOC = ("jpegimages", "segmentationclass")
# At the end of a folder's name, after that of the pictures beside it.
_ENDINGS = ("annot", "annotations", "masks", "mask", "labels", "gt")
_MARK = re.compile(r"[_-](mask|masks|gt|label|labels|annot|seg|labelIds)\Z")
NOT_A_CLASS = 255
COLUMN = "mask"
MASK_FORMATS = ("PNG", "BMP", "GIF", "TIFF")


def folder_of_masks(pictures: Path, beside: Sequence[Path]) -> Path | None:
    """The folder that holds the masks of another's pictures, by its name."""
    name = pictures.name.casefold()
    for folder in beside:
        ending = folder.name.casefold().removeprefix(name).lstrip("_-")
        if folder != pictures and folder.name.casefold().startswith(name) and ending in _ENDINGS:
            return folder
    if name in PICTURES:
        # Trap: VOC has boxes in Annotations beside the masks.
        names = (VOC[1], *MASKS) if name == VOC[0] else MASKS
        return next((folder for wanted in names for folder in beside if folder.name.casefold() == wanted), None)
    return None


def paired(
    pictures: Mapping[str, str],
    masks: Mapping[str, str],
    root: Path,
    notes: list[str],
    where: str,
    *,
    keeps_all: bool = False,
) -> Table:
    """Rows of pictures and their masks.

    Pictures without a mask are rows without a label, which is told later; they are left out, counted, where most are
    so and every mask has its picture, and in VOC's folder, of whose pictures only some have one.

    Args:
        pictures, masks: Name without suffix to file name relative to `root`.
        root: Of the data.
        notes: Get a sentence where files are left over.
        where: The folder of the masks, for messages.
        keeps_all: Whether no picture is left out.

    Raises:
        DataError: E-DATA-MISSING, no picture has a mask.
    """
    plain = {_MARK.sub("", stem): name for stem, name in masks.items()} | dict(masks)
    found = {name: plain.get(stem) for stem, name in pictures.items()}
    if not any(found.values()):
        what = f"no mask in {where} has the name of a picture"
        raise DataError("DATA-MISSING", what, where=where, remedy="call a picture and its mask alike: a.jpg, a.png")
    used = {name for name in found.values() if name is not None}
    unused = len(set(masks.values()) - used)
    if unused:
        notes.append(f"Masks in {where} without a picture are not used: {unused:,}.")
    bare = sum(name is None for name in found.values())
    is_partial = where.casefold().endswith(VOC[1]) or (2 * bare > len(found) and not unused)
    if bare and is_partial and not keeps_all:
        notes.append(f"Pictures without a mask in {where} are not used: {bare:,} of {len(found):,}.")
        found = {name: mask for name, mask in found.items() if mask is not None}
    names = list(found)
    columns = {"image": names, COLUMN: [found[name] for name in names]}
    arrow = pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})
    return Table(arrow, Places.of_files(names), Files(root, ("image", COLUMN)))


def stems(names: Iterator[tuple[str, str]], where: str) -> dict[str, str]:
    """File names by what pairs them, suffixes of pictures alone.

    Args:
        names: From the folder of pictures or masks on, with those below it; and as they are to be kept.
        where: The folder, for messages.

    Raises:
        DataError: E-DATA-FORMAT, two differ by their suffix alone.
    """
    found: dict[str, str] = {}
    for inside, name in names:
        if media.kind_of(name) != "image":
            continue
        stem = PurePosixPath(inside).with_suffix("").as_posix()
        if stem in found:
            what = f"{Path(found[stem]).name} and {Path(name).name} have the same name but for the suffix"
            raise DataError("DATA-FORMAT", what, where=where, remedy="remove one of them")
        found[stem] = name
    return found


def decode(data: bytes, place: str) -> np.ndarray:
    """The numbers of a mask, (height, width) uint8.

    Args:
        data: A file's content.
        place: For messages.

    Raises:
        DataError: E-DATA-MASK.
    """
    with opened(data, place, _refused) as picture:
        kind = picture.format
        if kind not in MASK_FORMATS:
            raise _refused(f"{kind} does not keep numbers as they are", place)
        picture.load()
        # As the picture it belongs to is turned.
        turned = upright(picture)
        if turned.mode not in ("L", "P", "1", "I", "I;16", "I;16B"):
            holds = "it holds fractions" if turned.mode == "F" else "it is in colours"
            raise _refused(f"{holds}, and a pixel should be the number of its class", place)
        numbers = np.asarray(turned)
        depth = data[24] if kind == "PNG" else 8
        if turned.mode == "L" and depth in (2, 4):
            # Trap: of so few bits Pillow makes shades from 0 to 255, which are no longer the numbers in the file.
            numbers = numbers // (255 // (2**depth - 1))
    if numbers.dtype == bool:
        return numbers.astype(np.uint8)
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) > NOT_A_CLASS:
        raise _refused(f"it holds the number {int(numbers.max())}: classes are 0 to {NOT_A_CLASS - 1}", place)
    return numbers.astype(np.uint8)


def encoded(numbers: np.ndarray) -> dict[str, bytes | None]:
    """A mask as a row keeps one that has no file.

    Args:
        numbers: (height, width) uint8.
    """
    file = io.BytesIO()
    Image.fromarray(numbers.astype(np.uint8)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def _refused(what: str, place: str) -> DataError:
    return DataError(
        "DATA-MASK",
        f"the mask cannot be read: {what}",
        where=place,
        remedy="write masks as PNG files of one channel, a pixel the number of its class",
    )
