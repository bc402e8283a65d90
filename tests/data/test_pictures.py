"""Picture files to pixels: the written rule, and files that are none."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from unfreeze.data import masks
from unfreeze.data.pictures import MOST_PIXELS, decode, encoded, encoded_picture, largest_of_sixteen_bits
from unfreeze.errors import DataError


def saved(picture: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def pixel(data: bytes, x: int = 0, y: int = 0) -> tuple[int, ...]:
    found = decode(data, "a.png").getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def tiff_of_twelve_bits(pixels: list[int]) -> bytes:
    """A row of grey pixels, as X-ray machines pack them; Pillow itself writes sixteen bits."""
    packed = "".join(f"{n:012b}" for n in pixels)
    data = int(packed.ljust(-(-len(packed) // 16) * 16, "0"), 2).to_bytes(-(-len(packed) // 16) * 2, "big")
    tags = [(256, len(pixels)), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


GRADIENT = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)


class TestConversion:
    def test_transparent_pixels_lie_on_white(self) -> None:
        assert pixel(saved(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))) == (255, 255, 255)
        assert pixel(saved(Image.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)
        half = pixel(saved(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))
        assert half[0] == pytest.approx(127, abs=1)

    def test_a_palette_with_a_transparent_colour(self) -> None:
        picture = Image.new("P", (2, 2), 1)
        picture.putpalette([10, 20, 30, 200, 100, 50])
        assert pixel(saved(picture)) == (200, 100, 50)
        assert pixel(saved(picture, transparency=1)) == (255, 255, 255)

    def test_sixteen_bits_are_scaled_and_not_clipped(self) -> None:
        deep = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
        assert [pixel(saved(deep), x)[0] for x in range(3)] == [0, 127, 255]
        assert [pixel(saved(deep, transparency=32768), x)[0] for x in range(3)] == [0, 255, 255]

    def test_twelve_bits_of_a_tiff_are_scaled_from_where_they_end(self) -> None:
        data = tiff_of_twelve_bits([0, 2048, 4095])
        assert [pixel(data, x)[0] for x in range(3)] == [0, 127, 255]
        as_object = encoded_picture(Image.open(io.BytesIO(data)))["bytes"]
        assert as_object is not None
        assert [pixel(as_object, x)[0] for x in range(3)] == [0, 127, 255]

    def test_of_sixteen_bits_the_largest_number_is_known(self) -> None:
        for kind in ("PNG", "TIFF"):
            deep = Image.fromarray(np.array([[0, 700, 4095]], dtype=np.uint16))
            assert largest_of_sixteen_bits(saved(deep, kind), "a") == 4095
        for other in (saved(GRADIENT), saved(Image.new("RGB", (2, 2), 9)), tiff_of_twelve_bits([0, 4095])):
            assert largest_of_sixteen_bits(other, "a") is None

    def test_one_bit_grey_and_cmyk_become_rgb(self) -> None:
        assert pixel(saved(Image.new("1", (2, 2), 1))) == (255, 255, 255)
        assert pixel(saved(Image.new("L", (2, 2), 90))) == (90, 90, 90)
        assert pixel(saved(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "JPEG"))[0] > 200

    def test_floating_point_is_refused(self) -> None:
        with pytest.raises(DataError, match="range is not known"):
            decode(saved(Image.new("F", (2, 2), 0.5), "TIFF"), "a.tif")

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_stands_pictures_upright(self, orientation: int) -> None:
        turned = {
            1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
        }[orientation]  # fmt: skip
        stored = GRADIENT if turned is None else GRADIENT.transpose(turned)
        exif = Image.Exif()
        exif[0x0112] = orientation
        found = decode(saved(stored, exif=exif), "a.png")
        assert np.array_equal(np.asarray(found)[:, :, 0], np.asarray(GRADIENT))

    def test_broken_exif_says_nothing_of_the_pixels(self) -> None:
        data = saved(Image.new("RGB", (8, 8), (9, 9, 9)), "JPEG", exif=b"Exif\x00\x00nonsense")
        assert decode(data, "a.jpg").size == (8, 8)

    def test_of_several_frames_the_first(self) -> None:
        frames = [Image.new("L", (2, 2), shade) for shade in (10, 200)]
        for kind in ("GIF", "TIFF", "WEBP", "PNG"):
            assert pixel(saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True))[0] == 10

    @pytest.mark.parametrize("size", [(1, 1), (2, 1), (20_000, 1)])
    def test_thin_pictures_are_pictures(self, size: tuple[int, int]) -> None:
        assert decode(saved(Image.new("RGB", size)), "a.png").size == size


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "the file is empty"),
            (b"<!DOCTYPE html><html></html>", "a web page"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
            (b"RIFF....WAVE", "sound"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "HEIC or AVIF"),
            (b"8BPS\x00\x01", "none of those read"),
            (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "cannot be read"),
        ],
    )
    def test_what_is_no_picture_is_named(self, data: bytes, said: str) -> None:
        with pytest.raises(DataError, match=said) as caught:
            decode(data, "shop/7.jpg")
        assert caught.value.code == "DATA-PICTURE"
        assert caught.value.where == "shop/7.jpg"

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
    @pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 0.99])
    def test_a_truncated_file_is_refused(self, kind: str, share: float) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        data = saved(Image.fromarray(noise), kind)
        with pytest.raises(DataError, match="cannot be read"):
            decode(data[: int(share * len(data))], "a")

    def test_a_bomb_is_refused_before_it_is_decoded(self) -> None:
        side = 20_000
        assert side * side > MOST_PIXELS
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
        with pytest.raises(DataError, match="pixels"):
            decode(data, "a.png")
        text = saved(Image.new("L", (2, 2)))
        bomb = zlib.compress(b"a" * 200_000_000, 9)
        body = b"Comment\0\0" + bomb
        chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
        with pytest.raises(DataError, match="cannot be read"):
            decode(text[:33] + chunk + text[33:], "a.png")


def test_pixels_are_kept_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    data = encoded(pixels)["bytes"]
    assert data is not None
    assert np.array_equal(np.asarray(decode(data, "a")), pixels)


def test_too_little_memory_says_nothing_about_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    for read in (decode, masks.decode):
        with pytest.raises(MemoryError):
            read(b"x", "a.png")


def test_a_cut_webp_is_no_sound() -> None:
    with pytest.raises(DataError) as caught:
        decode(saved(GRADIENT.convert("RGB"), "WEBP")[:30], "a.webp")
    assert "sound" not in caught.value.what
