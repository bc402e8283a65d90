"""Sound files to samples: the written rule, and files that are none."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from unfreeze.data import pictures
from unfreeze.data.columns import file_columns
from unfreeze.data.sounds import check, decode, encoded, facts_of
from unfreeze.data.sources import read
from unfreeze.errors import DataError

RATE = 8000
TIME = np.arange(RATE) / RATE
TONE = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def saved(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


class TestConversion:
    @pytest.mark.parametrize(
        ("kind", "subtype", "tolerance"),
        [
            ("WAV", "PCM_U8", 1e-2),
            ("WAV", "PCM_16", 1e-4),
            ("WAV", "PCM_24", 1e-6),
            ("WAV", "PCM_32", 1e-6),
            ("WAV", "FLOAT", 0.0),
            ("WAV", "DOUBLE", 0.0),
            ("FLAC", "PCM_16", 1e-4),
        ],
    )
    def test_every_depth_gives_the_same_samples(self, kind: str, subtype: str, tolerance: float) -> None:
        found = decode(saved(TONE, kind=kind, subtype=subtype), "a", RATE)
        assert found.dtype == np.float32
        assert np.abs(found - TONE).max() <= tolerance

    @pytest.mark.parametrize("kind", ["OGG", "MP3"])
    def test_compressed_files_are_read(self, kind: str) -> None:
        found = decode(saved(TONE, kind=kind), "a", RATE)
        assert len(found) == pytest.approx(RATE, rel=0.1)
        assert np.abs(found).max() == pytest.approx(0.5, abs=0.15)

    @pytest.mark.parametrize("share", [0.5, 0.9])
    def test_a_cut_mp3_is_refused_whatever_lies_in_memory(self, share: float) -> None:
        whole = saved(np.tile(TONE, 10), kind="MP3")
        check(whole, "a")
        for _ in range(3):
            with pytest.raises(DataError, match="cannot be read"):
                check(whole[: int(share * len(whole))], "a")

    @pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
    def test_whole_numbers_written_as_fractions_are_refused(self, subtype: str) -> None:
        check(saved(3 * TONE, subtype=subtype), "a")
        for factor, said in ((32767, "as large as 1.64e[+]04"), (2e30, "as large as 1e[+]30")):
            data = saved(factor * TONE, subtype=subtype)
            for read_all in (check, lambda data, place: decode(data, place, RATE)):
                with pytest.raises(DataError, match=said) as caught:
                    read_all(data, "a")
                assert "divide the samples by 32768" in str(caught.value.remedy)
        check(saved((32767 * TONE).astype(np.int16)), "a")

    @pytest.mark.parametrize("rate", [4000, 16000, 44100])
    def test_other_rates_keep_the_pitch(self, rate: int) -> None:
        found = decode(saved(TONE), "a", rate)
        assert len(found) == pytest.approx(rate, abs=2)
        spectrum = np.abs(np.fft.rfft(found))
        assert spectrum.argmax() * rate / len(found) == pytest.approx(440, abs=2)

    def test_channels_become_their_mean_unless_they_cancel(self) -> None:
        assert np.allclose(decode(saved(np.stack([TONE, TONE], 1)), "a", RATE), TONE, atol=1e-3)
        assert np.allclose(decode(saved(np.stack([TONE, 0 * TONE], 1)), "a", RATE), TONE / 2, atol=1e-3)
        turned = decode(saved(np.stack([0.9 * TONE, -TONE], 1) * 0.9), "a", RATE)
        assert np.allclose(turned, -0.9 * TONE, atol=1e-3), "the loudest channel"
        assert not decode(saved(np.zeros((100, 2))), "a", RATE).any()

    def test_a_part(self) -> None:
        found = decode(saved(TONE, subtype="FLOAT"), "a", RATE, start=0.25, seconds=0.5)
        assert np.array_equal(found, TONE[2000:6000])
        assert len(decode(saved(TONE[:1]), "a", RATE, start=3.0, seconds=1.0)) == 1

    def test_samples_are_kept_as_they_are(self) -> None:
        data = encoded(TONE, RATE)["bytes"]
        assert data is not None
        assert np.array_equal(decode(data, "a", RATE), TONE)
        assert facts_of(data, "a").seconds == 1.0


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "the file is empty"),
            (b"<html></html>", "a web page"),
            (b"\x00\x00\x00\x20ftypM4A ", "M4A"),
            (b"ID3nonsense" * 10, "cannot be read"),
            (saved(np.zeros(0, dtype=np.float32)), "no samples"),
        ],
    )
    def test_what_is_no_recording_is_named(self, data: bytes, said: str) -> None:
        with pytest.raises(DataError, match=said) as caught:
            check(data, "calls/7.wav")
        assert caught.value.code == "DATA-SOUND"
        assert caught.value.where == "calls/7.wav"

    @pytest.mark.parametrize("kind", ["WAV", "FLAC"])
    @pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
    def test_a_file_that_ends_early_is_refused(self, kind: str, share: float) -> None:
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
        data = saved(noise, kind=kind)
        with pytest.raises(DataError, match="cannot be read"):
            check(data[: int(share * len(data))], "a")

    def test_a_header_that_claims_two_gigabytes(self) -> None:
        data = bytearray(saved(TONE))
        data[4:8] = struct.pack("<I", 2**31)
        with pytest.raises(DataError, match="its header says"):
            check(bytes(data), "a")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_no_numbers(self, value: float) -> None:
        broken = TONE.copy()
        broken[4000] = value
        with pytest.raises(DataError, match="no numbers"):
            check(saved(broken, subtype="FLOAT"), "a")


def test_one_sample_is_a_recording() -> None:
    found: Any = decode(saved(TONE[:1]), "a", 16000)
    assert len(found) >= 1


def test_samples_from_python_are_a_recording_with_one_channel_or_several() -> None:
    tone = np.sin(np.arange(800) / 10).astype(np.float32)
    rows = [
        {"clip": {"array": a, "sampling_rate": 8000}, "label": "x"} for a in (tone, np.stack([tone, tone]), list(tone))
    ]
    table = read(rows).train
    assert file_columns(table, "audio") == ["clip"]
    assert not file_columns(table, "image")
    for row in table:
        assert np.allclose(decode(row.values["clip"]["bytes"], "row", 8000), tone, atol=1e-6)


def test_whole_numbers_from_python_are_as_loud_as_the_file_they_came_from() -> None:
    whole = (np.sin(np.arange(800) / 10) * 20000).astype(np.int16)
    table = read([{"clip": {"array": whole, "sampling_rate": 8000}, "label": "x"}] * 2).train
    found = decode(table.row(0).values["clip"]["bytes"], "row", 8000)
    assert np.allclose(found, whole / 32768, atol=1e-6)


@pytest.mark.parametrize("name", ["clip", "image", "wav"])
def test_files_in_a_column_are_told_by_what_they_are_and_not_by_its_name(name: str) -> None:
    sound = {"bytes": encoded(np.zeros(80, np.float32), 8000)["bytes"], "path": None}
    picture = pictures.encoded_picture(Image.new("RGB", (4, 4)))
    for file, kind in ((sound, "audio"), (picture, "image"), ({"bytes": None, "path": "a.flac"}, "audio")):
        table = read([{name: file, "label": "x"}]).train
        assert file_columns(table, kind) == [name], (file, kind)
