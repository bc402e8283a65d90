"""Sound files to samples, by one written rule, the same in training, evaluation and service.

- Read are WAV, FLAC, OGG, Opus and MP3 (libsndfile); others, such as M4A, are refused with what to do.
- Several channels become their mean; where they cancel each other out (less than a hundredth of the power of the
  loudest is left), the loudest channel alone is taken.
- Samples are floating-point numbers in -1 to 1, brought to the model's rate by a band-limited filter (soxr).
- Files without samples, with values that are no numbers, with whole numbers as floating-point ones, and files that end
  before their header says are refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from unfreeze.errors import DataError

FORMATS = frozenset(("WAV", "WAVEX", "FLAC", "OGG", "MP3", "RF64", "W64"))
_BLOCK_SECONDS = 30
# What an encoder puts before and behind, in samples: a header may count it or not.
_MP3_SLACK = 2 * 1152
# Samples of floating point lie between -1 and 1, and somewhat beyond where several were mixed. Far beyond they are
# whole numbers that a program turned into floating-point ones without dividing them.
_LARGEST_SAMPLE = 100.0
# Power of the mean, relative to the loudest channel's, below which the channels are taken to cancel.
_CANCELLED = 0.01


@dataclass(frozen=True)
class SoundFacts:
    """What a file's header says: rate in Hz, samples of each channel, channels."""

    rate: int
    samples: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def facts_of(data: bytes, place: str) -> SoundFacts:
    """What the header says.

    Raises:
        DataError: E-DATA-SOUND.
    """
    with _opened(data, place) as file:
        return SoundFacts(file.samplerate, file.frames, file.channels)


def check(data: bytes, place: str) -> None:
    """Decode all of a file, a block at a time.

    Raises:
        DataError: E-DATA-SOUND.
    """
    with _opened(data, place) as file:
        found = sum(len(block) for block in _blocks(file, place))
        if found < file.frames - (_MP3_SLACK if file.format == "MP3" else 0):
            raise _refused(f"it ends after {found:,} of {file.frames:,} samples", place)


def decode(data: bytes, place: str, rate: int, *, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """One channel at the rate asked for, (samples,) float32.

    Args:
        data: A file's content.
        place: For messages.
        rate: In Hz.
        start: Where to begin, in seconds.
        seconds: How much to read; None: all that follows.

    Raises:
        DataError: E-DATA-SOUND.
    """
    with _opened(data, place) as file:
        try:
            file.seek(min(int(start * file.samplerate), file.frames - 1))
            wanted = -1 if seconds is None else max(1, round(seconds * file.samplerate))
            values = file.read(wanted, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, ValueError) as error:
            raise _refused(_reason(error), place) from None
        _check_finite(values, place)
        mono = _one_channel(values)
        if file.samplerate == rate:
            return mono
        return np.asarray(soxr.resample(mono, file.samplerate, rate), dtype=np.float32)


def encoded(samples: np.ndarray, rate: int) -> dict[str, bytes | None]:
    """A recording as a row keeps one that has no file, as the Hub's data sets do.

    Args:
        samples: (samples,) or (samples, channels), -1 to 1.
        rate: In Hz.
    """
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples, dtype=np.float32), rate, format="WAV", subtype="FLOAT")
    return {"bytes": file.getvalue(), "path": None}


def _one_channel(values: np.ndarray) -> np.ndarray:
    """(samples,) of (samples, channels)."""
    if values.shape[1] == 1:
        return values[:, 0]
    mono, power = values.mean(axis=1), (values.astype(np.float64) ** 2).mean(axis=0)
    if float((mono.astype(np.float64) ** 2).mean()) < _CANCELLED * float(power.max(initial=0.0)):
        return np.ascontiguousarray(values[:, int(power.argmax())])
    return mono


def _opened(data: bytes, place: str) -> soundfile.SoundFile:
    if not data:
        raise _refused("the file is empty", place)
    if data[:4] == b"RIFF" and len(data) >= 12 and int.from_bytes(data[4:8], "little") + 8 > len(data) + 1:
        # Trap: libsndfile takes the file's end for the recording's, and says nothing.
        said = int.from_bytes(data[4:8], "little") + 8
        raise _refused(f"it has {len(data):,} bytes, its header says {said:,}", place)
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, ValueError, RuntimeError) as error:
        raise _refused(_looks_like(data) or _reason(error), place) from None
    if file.format not in FORMATS:
        file.close()
        raise _refused(f"{file.format} is none of the formats that are read", place)
    if not file.frames or not file.samplerate:
        file.close()
        raise _refused("it has no samples", place)
    return file


def _blocks(file: soundfile.SoundFile, place: str) -> Iterator[np.ndarray]:
    # Trap: `SoundFile.blocks` fills up what a cut MP3 does not give with whatever lies in memory.
    wanted = _BLOCK_SECONDS * file.samplerate
    try:
        while len(block := file.read(wanted, dtype="float32", always_2d=True)):
            _check_finite(block, place)
            yield block
    except soundfile.SoundFileError as error:
        raise _refused(_reason(error), place) from None


def _check_finite(values: np.ndarray, place: str) -> None:
    if not np.isfinite(values).all():
        raise _refused("it has samples that are no numbers", place)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > _LARGEST_SAMPLE:
        what = f"it has samples as large as {largest:.3g}, where those of floating point lie between -1 and 1"
        remedy = "divide the samples by 32768 if they were of 16 bits, or write them as whole numbers"
        raise _refused(what, place, remedy)


def _reason(error: Exception) -> str:
    text = str(error).rpartition(": ")[2] or str(error)
    return text.rstrip(".") or type(error).__name__


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "it holds a web page"
    return "it is M4A or AAC" if data[4:8] == b"ftyp" or data[:2] in (b"\xff\xf1", b"\xff\xf9") else ""


_REMEDY = "correct or remove the file, or write it as WAV or FLAC (ffmpeg -i FILE FILE.flac)"


def _refused(what: str, place: str, remedy: str = _REMEDY) -> DataError:
    return DataError("DATA-SOUND", f"the recording cannot be read: {what}", where=place, remedy=remedy)
