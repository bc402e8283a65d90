"""Picture files to pixels, by one written rule, the same in training, evaluation and service.

- Read are JPEG, PNG, GIF, BMP, WebP and TIFF; others (EPS, SVG, PSD) are never opened.
- Of several frames or pages the first is taken.
- EXIF's orientation is applied, so that what a viewer shows upright is upright.
- Transparent pixels lie on white. Grey, palette, one-bit and CMYK pictures become RGB.
- Sixteen-bit grey is scaled to eight bits, not clipped; so are the twelve bits of a TIFF file that says it has them.
  Floating-point pictures are refused, having no known range.
- Pictures beyond `MOST_PIXELS` are refused before they are decoded; truncated ones are refused.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from unfreeze.errors import DataError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
MOST_PIXELS = 50_000_000
_GROUND = (255, 255, 255)
# Of Pillow, for grey of more than eight bits.
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_TIFF_BITS = 258  # TIFF 6.0, section 8: BitsPerSample
# Of ISO 23008-12 and AV1's: what phones write.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")


def decode(data: bytes, place: str) -> Image.Image:
    """An upright RGB picture.

    Args:
        data: A file's content.
        place: For messages.

    Raises:
        DataError: E-DATA-PICTURE.
    """
    with opened(data, place, _refused) as picture:
        picture.seek(0)
        picture.load()
        return _rgb(upright(picture), place, _bits(picture))


def largest_of_sixteen_bits(data: bytes, place: str) -> int | None:
    """The largest number in a grey picture of sixteen bits; None for any other.

    Args:
        data: A file's content.
        place: For messages.

    Raises:
        DataError: E-DATA-PICTURE.
    """
    with opened(data, place, _refused) as picture:
        if picture.mode not in _DEEP or _bits(picture) < 16:
            return None
        picture.seek(0)
        largest = int(np.asarray(picture).max(initial=0))
        return None if picture.mode == "I" and largest <= 255 else largest  # see `_rgb`


@contextmanager
def opened(data: bytes, place: str, refused: Callable[[str, str], DataError]) -> Iterator[Image.Image]:
    """A picture of a format and a size that are read, not decoded yet.

    Args:
        data: A file's content.
        place: For messages.
        refused: Makes the error, of what is wrong and of the place; also of what fails while the picture is in use.
    """
    if not data:
        raise refused("the file is empty", place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with a file is judged below
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > MOST_PIXELS:
                what = f"{width:,} x {height:,} pixels are more than the {MOST_PIXELS:,} that are read"
                raise refused(what, place)
            yield picture
    except (DataError, MemoryError):
        raise  # too little memory says nothing about the file
    except Exception as error:
        # Trap: Pillow has no class of its own for damaged files; its decoders raise what they meet.
        kind = _looks_like(data)
        reason = f"it holds {kind}" if kind else str(error).splitlines()[0] if str(error) else type(error).__name__
        raise refused(_without_memory_address(reason), place) from None


def encoded(pixels: np.ndarray) -> dict[str, bytes | None]:
    """A picture as a row keeps one that has no file, as the Hub's data sets do.

    Args:
        pixels: (height, width, 3) or (height, width), uint8.
    """
    return encoded_picture(Image.fromarray(pixels))


def encoded_picture(picture: Image.Image) -> dict[str, bytes | None]:
    """As `encoded`, of a picture of Pillow's; upright, in colours that PNG knows."""
    turned, bits = upright(picture), _bits(picture)
    if bits < 16 or turned.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        turned = _rgb(turned, "a picture given as an object", bits)
    file = io.BytesIO()
    turned.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def thumbnail(picture: Image.Image, pixels: int = 96) -> str:
    """A small copy as a data URI.

    Args:
        pixels: Of the longer side.
    """
    small, file = picture.copy(), io.BytesIO()
    small.thumbnail((pixels, pixels))
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def upright(picture: Image.Image) -> Image.Image:
    """Turned as EXIF says."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture  # a broken EXIF block says nothing about the pixels


def _bits(picture: Image.Image) -> int:
    """How many bits a deep pixel has: sixteen, unless a TIFF file has packed fewer. Turning a picture forgets it."""
    (told, *_) = getattr(picture, "tag_v2", {}).get(_TIFF_BITS, (16,))
    return told if 8 < told < 16 else 16


def _rgb(picture: Image.Image, place: str, bits: int) -> Image.Image:
    if picture.mode in _DEEP:
        grey = np.asarray(picture).astype(np.int64)
        deep = picture.mode != "I" or int(grey.max(initial=0)) > 255
        shades = (grey * 255 // (2**bits - 1) if deep else grey).clip(0, 255).astype(np.uint8)
        if isinstance(transparent := picture.info.get("transparency"), int):
            shades[grey == transparent] = _GROUND[0]
        picture = Image.fromarray(shades)
    elif picture.mode == "F":
        raise _refused("its pixels are floating-point numbers, whose range is not known", place)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        ground = Image.new("RGBA", seen.size, (*_GROUND, 255))
        return Image.alpha_composite(ground, seen).convert("RGB")
    return picture.convert("RGB")


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head.startswith((b"<svg", b"<?xml")):
        return "SVG or XML"
    if head.startswith(b"%!ps"):
        return "PostScript"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIC or AVIF"
    if head.startswith(b"riff"):
        return "sound" if head[8:12] == b"wave" else ""
    return "sound" if head.startswith((b"flac", b"id3")) else ""


def _without_memory_address(text: str) -> str:
    return "its format is none of those read" if "cannot identify image file" in text else text


def _refused(what: str, place: str) -> DataError:
    return DataError(
        "DATA-PICTURE",
        f"the picture cannot be read: {what}",
        where=place,
        remedy="correct or remove the file, or save it anew; read are JPEG, PNG, GIF, BMP, WebP and TIFF",
    )
