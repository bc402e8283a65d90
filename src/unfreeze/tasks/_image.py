"""Pictures to model inputs: what tasks on images share."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from unfreeze.data.pictures import decode, largest_of_sixteen_bits
from unfreeze.errors import ModelError
from unfreeze.tasks._files import FileSource, ReadsFiles, in_threads, recorded_as
from unfreeze.types import Example, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table

# A picture counts as so many tokens as patches of this side would be: the unit that budgets are in.
PATCH_PIXELS = 16
# Smallest share of a picture's area that a random crop keeps, by the number of training rows below which it holds. Few
# rows need strong variation, many bring their own.
CROPS = ((1_000, 0.35), (10_000, 0.5))
MILDEST_CROP = 0.7
# Of a random crop, as usual since Szegedy et al. 2015, arXiv 1409.4842, section 6.
ASPECTS = (3 / 4, 4 / 3)
# Of the longer side to the shorter, of what goes into a processor that cuts to the middle.
MOST_ASPECT = 8
# Of a data set, where what its pictures are like is told from some of them.
PICTURES_MEASURED = 200
MOST_OF_TWELVE_BITS = 4095


@dataclass(frozen=True)
class Picture:
    """Where an example's pixels come from, and how they are varied.

    Attributes:
        file: The content.
        crop: Left, upper, right, lower edge as shares of width and height.
        is_mirrored: Left and right change places.
    """

    file: FileSource
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    is_mirrored: bool = False

    def cut(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, upper, right, lower edge in pixels."""
        left, upper, right, lower = self.crop
        x, y = int(left * width), int(upper * height)
        return x, y, max(round(right * width), x + 1), max(round(lower * height), y + 1)

    def pixels(self) -> Image.Image:
        """The upright RGB picture, varied.

        Raises:
            DataError: E-DATA-PICTURE; E-DATA-CHANGED, E-DATA-MISSING.
        """
        picture = decode(self.file.read(), self.file.place)
        if self.crop != (0.0, 0.0, 1.0, 1.0):
            picture = picture.crop(self.cut(*picture.size))
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.is_mirrored else picture


# Of the Beta distributions that shares are drawn from: Zhang et al. 2018, arXiv 1710.09412, section 3, as for ImageNet;
# Yun et al. 2019, arXiv 1905.04899, section 3.1.
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0


@dataclass(frozen=True)
class Mixture:
    """Two pictures in one.

    Attributes:
        first, second: As they are mixed.
        share: Of the first.
        box: Where the second lies on the first: left, upper, right, lower edge as shares; None: they are blended.
    """

    first: Picture
    second: Picture
    share: float
    box: tuple[float, float, float, float] | None = None


def mixture(first: Picture, second: Picture, way: str, generator: np.random.Generator) -> Mixture:
    """Drawn as mixup or CutMix do.

    Args:
        way: ``mixup`` or ``cutmix``.
    """
    if way == "mixup":
        return Mixture(first, second, float(generator.beta(MIXUP_ALPHA, MIXUP_ALPHA)))
    side = float(np.sqrt(1 - generator.beta(CUTMIX_ALPHA, CUTMIX_ALPHA)))
    x, y = generator.uniform(size=2)
    left, upper = max(0.0, float(x) - side / 2), max(0.0, float(y) - side / 2)
    right, lower = min(1.0, float(x) + side / 2), min(1.0, float(y) + side / 2)
    # What lies outside of the picture is cut off, and the share is what is left of the first.
    return Mixture(first, second, 1 - (right - left) * (lower - upper), (left, upper, right, lower))


def _blended(mixture: Mixture, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Of two pictures as the model gets them, (channels, height, width) each."""
    if mixture.box is None:
        return mixture.share * first + (1 - mixture.share) * second
    height, width = first.shape[-2:]
    left, upper, right, lower = mixture.box
    found = first.clone()
    place = np.s_[:, round(upper * height) : round(lower * height), round(left * width) : round(right * width)]
    found[place] = second[place]
    return found


def example_of(row: Row, file: FileSource, processor: Any, target: Any) -> Example:
    """One example of a row's picture."""
    content = recorded_as(file, processor.to_json_string())
    return Example({"content": content}, target, row.index, tokens_of(processor), origin=Picture(file))


def pixel_values(examples: Sequence[Example], processor: Any) -> dict[str, torch.Tensor]:
    """Model inputs, ``pixel_values`` (batch, channels, height, width) among them; black for what is not read."""
    if all(example.origin is None for example in examples):
        return unread(len(examples), processor)
    mixtures = {i: e.origin for i, e in enumerate(examples) if isinstance(e.origin, Mixture)}
    origins = [e.origin.first if isinstance(e.origin, Mixture) else e.origin for e in examples]
    origins += [m.second for m in mixtures.values()]
    pictures = in_threads(lambda origin: _as_processed(origin.pixels(), processor), origins)
    inputs = dict(processor(images=pictures, return_tensors="pt").items())
    if not mixtures:
        return inputs
    rows = len(examples)
    inputs = {name: tensor.clone() for name, tensor in inputs.items()}
    for number, (i, found) in enumerate(mixtures.items()):
        values = inputs["pixel_values"]
        values[i] = _blended(found, values[i], values[rows + number])
    return {name: tensor[:rows] for name, tensor in inputs.items()}


# What each processor makes of a black picture, and the sizes it had then.
_BLACK: weakref.WeakKeyDictionary[Any, tuple[str, dict[str, torch.Tensor]]] = weakref.WeakKeyDictionary()


def unread(rows: int, processor: Any) -> dict[str, torch.Tensor]:
    """Inputs of the right shapes for so many pictures."""
    size = repr([getattr(processor, name, None) for name in ("size", "crop_size")])
    made, black = _BLACK.get(processor, ("", {}))
    if made != size:  # in a phase on recorded inputs that would be most of a step
        black = dict(processor(images=[Image.new("RGB", (8, 8))], return_tensors="pt").items())
        _BLACK[processor] = size, black
    return {name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in black.items()}


def check_processor(processor: Any, name: str) -> None:
    """Refuse one that does not bring pictures of every shape to one size.

    Args:
        name: The model's, for the message.

    Raises:
        ModelError: E-PROCESSOR.
    """
    spread = np.atleast_1d(np.asarray(getattr(processor, "image_std", None) or [1.0], dtype=np.float64))
    if getattr(processor, "do_normalize", False) and not (np.isfinite(spread) & (spread > 0)).all():
        what = f"the image processor divides by a standard deviation of {spread.min():g}"
        raise ModelError("PROCESSOR", what, where=name, remedy="its preprocessor_config.json needs image_std above 0")
    shapes = [(97, 61), (61, 97), (40, 40)]
    try:
        pictures = [_as_processed(Image.new("RGB", shape), processor) for shape in shapes]
        found = [dict(processor(images=[picture], return_tensors="pt").items()) for picture in pictures]
        sizes = {tuple(inputs["pixel_values"].shape[1:]) for inputs in found}
        what = "the image processor brings pictures to different sizes: " + ", ".join(map(str, sorted(sizes)))
    except Exception as error:
        sizes, what = (
            set(),
            f"the image processor cannot be used: {(str(error).splitlines() or [type(error).__name__])[0]}",
        )
    if len(sizes) != 1:
        remedy = "its preprocessor_config.json needs do_resize with a size of height and width, or do_center_crop"
        raise ModelError("PROCESSOR", what, where=name, remedy=remedy)


def _as_processed(picture: Image.Image, processor: Any) -> Image.Image:
    """The middle of a very long picture, where the processor cuts to the middle itself, after enlarging the whole.

    A strip of 2,000 x 1 pixels would become one of 448,000 x 224 first.
    """
    longest, (width, height) = MOST_ASPECT * min(picture.size), picture.size
    if not getattr(processor, "do_center_crop", False) or max(width, height) <= longest:
        return picture
    longest += (max(width, height) - longest) % 2  # so that the middle stays where it was
    left, upper = max(0, width - longest) // 2, max(0, height - longest) // 2
    return picture.crop((left, upper, left + min(width, longest), upper + min(height, longest)))


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


def some_of(train: Table) -> list[Row]:
    """Rows to measure, evenly spread."""
    return [train.row(int(i)) for i in np.linspace(0, len(train) - 1, min(len(train), PICTURES_MEASURED))]


def too_dark(task: ReadsFiles, train: Table) -> list[str]:
    """A sentence where pictures of twelve bits, as X-rays have, lie in files of sixteen; see `Task.warnings`."""
    measured = in_threads(lambda row: largest_of_sixteen_bits(task.source_of(row).read(), row.place), some_of(train))
    deep = [largest for largest in measured if largest]
    if not deep or max(deep) > MOST_OF_TWELVE_BITS:
        return []
    bits = max(deep).bit_length()
    return [
        f"of {len(deep):,} pictures of 16 bits that were looked at none has a pixel above {max(deep):,} of 65,535: "
        f"they look nearly black, as pictures of {bits} bits in such files do; multiply their pixels by "
        f"{65_535 // (2**bits - 1)}, or save them with 8 bits"
    ]


def least_crop(rows: int) -> float:
    """The smallest share of a picture's area that a random crop keeps."""
    return next((share for most, share in CROPS if rows < most), MILDEST_CROP)


def varied(example: Example, rows: int, generator: np.random.Generator, *, mirror: bool) -> Example:
    """A random crop, and with `mirror` in half of the cases the mirror image.

    Args:
        rows: Of training; see `CROPS`.
    """
    least = least_crop(rows)
    area, aspect = generator.uniform(least, 1.0), np.exp(generator.uniform(*np.log(ASPECTS)))
    width, height = min(1.0, float(np.sqrt(area * aspect))), min(1.0, float(np.sqrt(area / aspect)))
    left, upper = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
    crop = (left, upper, left + width, upper + height)
    is_mirrored = bool(generator.random() < 0.5) and mirror
    return replace(example, origin=replace(example.origin, crop=crop, is_mirrored=is_mirrored))
