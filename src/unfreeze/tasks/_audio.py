"""Sound to model inputs: what tasks on audio share."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from unfreeze.data.sounds import check, decode, facts_of
from unfreeze.tasks._files import FileSource, ReadsFiles, in_threads
from unfreeze.types import Example, is_number

# A recording counts as one token for each hop of wav2vec 2.0, 20 ms: the unit that lengths and budgets are in.
TOKENS_PER_SECOND = 50
# SpecAugment's masks (Park et al. 2019, arXiv 1904.08779, section 2), as shares of what is heard of a recording, not of
# the silence behind it, and of the mel bands.
TIME_MASKS, LONGEST_TIME_MASK = 2, 0.1
BAND_MASKS, WIDEST_BAND_MASK = 2, 0.15
LARGEST_GAIN_DB = 6.0

Mask = tuple[float, float]


@dataclass(frozen=True)
class Recording:
    """Where an example's samples come from, and how they are varied.

    Attributes:
        file: The content.
        seconds: Its length.
        start: Where the part that is used begins, in seconds.
        gain_db: By how much it is louder.
        time_masks, band_masks: Stretches that are silenced, first and last as shares.
    """

    file: FileSource
    seconds: float
    start: float = 0.0
    gain_db: float = 0.0
    time_masks: tuple[Mask, ...] = ()
    band_masks: tuple[Mask, ...] = ()

    def samples(self, rate: int, seconds: float) -> np.ndarray:
        """So many seconds at a rate, (samples,) float32; what is shorter is followed by silence.

        Raises:
            DataError: E-DATA-SOUND; E-DATA-CHANGED, E-DATA-MISSING.
        """
        wanted = round(seconds * rate)
        found = decode(self.file.read(), self.file.place, rate, start=self.start, seconds=seconds)[:wanted]
        whole = np.zeros(wanted, dtype=np.float32)
        whole[: len(found)] = found
        if self.gain_db:
            whole *= 10 ** (self.gain_db / 20)
        for first, last in self.time_masks:
            whole[int(first * len(found)) : int(last * len(found))] = 0
        return whole


def tokens_of(seconds: float) -> int:
    """The fewest tokens that hold so many seconds."""
    return max(1, math.ceil(seconds * TOKENS_PER_SECOND - 1e-6))


AST_SECONDS_PER_FRAME = 0.01  # of its filter banks (Gong et al. 2021, arXiv 2104.01778, section 2.1)


def is_duration(value: Any) -> bool:
    """Whether an option is a length of time, or left to the plan."""
    return value is None or (is_number(value) and value > 0)


class HearsFiles(ReadsFiles):
    """What tasks share that read recordings, all brought to one length."""

    modality: ClassVar[str] = "audio"
    input_role: ClassVar[str] = "audio"
    noun: ClassVar[str] = "recording"

    def __post_init__(self) -> None:
        super().__post_init__()
        # Of each recording, by its digest: headers are read once.
        self._lengths: dict[bytes, float] = {}

    def check_file(self, data: bytes, place: str) -> None:
        check(data, place)

    @property
    def used_seconds(self) -> float:
        """To which recordings are brought."""
        return self.max_length / TOKENS_PER_SECOND

    def length_of(self, file: FileSource) -> float:
        """In seconds."""
        if file.digest not in self._lengths:
            self._lengths[file.digest] = facts_of(file.read(), file.place).seconds
        return self._lengths[file.digest]


def without_own_draws(config: Any) -> Any:
    """A copy of a configuration without masks and left-out layers of the model's own.

    They do not come from our draws, and masks fail on short recordings.
    """
    changed = copy.deepcopy(config)
    off = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
    for name, value in off.items():
        if hasattr(changed, name):
            setattr(changed, name, value)
    return changed


def most_seconds(processor: Any) -> float | None:
    """What a feature extractor cuts recordings to by itself; None where it takes any length."""
    chunk = getattr(processor, "chunk_length", None)  # Whisper's
    if chunk is not None:
        return float(chunk)
    if type(processor).__name__ == "ASTFeatureExtractor":
        return float(processor.max_length) * AST_SECONDS_PER_FRAME
    return None


def model_inputs(examples: Sequence[Example], processor: Any, seconds: float) -> dict[str, torch.Tensor]:
    """``input_values`` (batch, samples) or ``input_features`` (batch, ...), all of one length; silence if not read.

    No attention mask goes with them: recordings of all lengths are brought to the same one, so that what a model
    answers does not depend on the others in the batch (some, such as wav2vec2-base, would let padding through).
    """
    rate = int(processor.sampling_rate)
    if all(example.origin is None for example in examples):
        heard = _silence(processor, round(seconds * rate), rate)
        return {name: tensor.expand(len(examples), *tensor.shape[1:]) for name, tensor in heard.items()}
    samples = in_threads(lambda example: example.origin.samples(rate, seconds), examples)
    made = processor(samples, sampling_rate=rate, return_tensors="pt")
    inputs = {name: tensor for name, tensor in made.items() if name in ("input_values", "input_features")}
    for name, tensor in inputs.items():
        if tensor.ndim == 3 and any(example.origin.band_masks for example in examples):
            inputs[name] = _without_bands(tensor, [example.origin.band_masks for example in examples])
    return inputs


# What each feature extractor makes of so many samples of silence.
_SILENCE: weakref.WeakKeyDictionary[Any, tuple[int, dict[str, torch.Tensor]]] = weakref.WeakKeyDictionary()


def _silence(processor: Any, samples: int, rate: int) -> dict[str, torch.Tensor]:
    made, heard = _SILENCE.get(processor, (-1, {}))
    if made != samples:  # in a phase on recorded inputs that would be most of a step
        silence = processor([np.zeros(samples, dtype=np.float32)], sampling_rate=rate, return_tensors="pt")
        heard = {name: silence[name] for name in ("input_values", "input_features") if name in silence}
        _SILENCE[processor] = samples, heard
    return heard


def _without_bands(features: torch.Tensor, masks: Sequence[tuple[Mask, ...]]) -> torch.Tensor:
    """Mel bands set to the recording's mean; they are the shorter of the two axes, (batch, time, bands) or turned."""
    bands = 2 if features.shape[2] < features.shape[1] else 1
    count, masked = features.shape[bands], features.clone()
    for i, stretches in enumerate(masks):
        for first, last in stretches:
            place = slice(int(first * count), int(last * count))
            target = masked[i, :, place] if bands == 2 else masked[i, place, :]
            target.fill_(float(features[i].mean()))
    return masked


def hears_samples(extractor: Any) -> bool:
    """Whether a model is given samples, not a spectrogram: it has no bands that could be masked."""
    return getattr(extractor, "feature_size", 1) == 1 and not hasattr(extractor, "num_mel_bins")


def hears_loudness(extractor: Any) -> bool:
    """Whether a louder recording is another one to the model: not where samples are divided by their spread."""
    return not (hears_samples(extractor) and getattr(extractor, "do_normalize", False))


def variation(extractor: Any) -> str:
    """How `varied` changes a recording, but for the part that is heard; for the plan."""
    loudness = f"up to {LARGEST_GAIN_DB:g} dB louder or softer, " if hears_loudness(extractor) else ""
    bands = "stretches silenced" if hears_samples(extractor) else "SpecAugment's masks"
    return loudness + bands


def varied(example: Example, seconds: float, extractor: Any, generator: np.random.Generator) -> Example:
    """Another part of a recording that is longer than what is used, another loudness, masked stretches and bands.

    What the model would not notice is left out: see `hears_loudness` and `hears_samples`.
    """
    recording: Recording = example.origin
    room = max(0.0, recording.seconds - seconds)
    return replace(
        example,
        origin=replace(
            recording,
            start=float(generator.uniform(0, room)) if room else 0.0,
            gain_db=float(generator.uniform(-LARGEST_GAIN_DB, LARGEST_GAIN_DB)) if hears_loudness(extractor) else 0.0,
            time_masks=_masks(TIME_MASKS, LONGEST_TIME_MASK, generator),
            band_masks=() if hears_samples(extractor) else _masks(BAND_MASKS, WIDEST_BAND_MASK, generator),
        ),
    )


def _masks(count: int, longest: float, generator: np.random.Generator) -> tuple[Mask, ...]:
    found = []
    for _ in range(count):
        length = float(generator.uniform(0, longest))
        first = float(generator.uniform(0, 1 - length))
        found.append((first, first + length))
    return tuple(found)
