"""Sound to model inputs: what tasks on audio share."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from unfreeze.data.sounds import check, decode, facts_of
from unfreeze.tasks._files import FileSource, ReadsFiles, in_threads, recorded_as
from unfreeze.types import Example, is_number

# A recording counts as one token for each hop of wav2vec 2.0, 20 ms: the unit that lengths and budgets are in.
TOKENS_PER_SECOND = 50
# SpecAugment's masks (Park et al. 2019, arXiv 1904.08779, section 2), as shares of what is heard of a recording, not of
# the silence behind it, and of the mel bands.
TIME_MASKS, LONGEST_TIME_MASK = 2, 0.1
BAND_MASKS, WIDEST_BAND_MASK = 2, 0.15
LARGEST_GAIN_DB = 6.0
# Of a recording that is normalised: in less there are too few frames to have a spread.
FEWEST_SECONDS_NORMALISED = 0.1
# Raised where what a model gets of a recording changes with the code here: what was recorded before is then left alone.
_WAY = 2

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

    def samples(self, rate: int, seconds: float, least: float, *, is_masked: bool = True) -> np.ndarray:
        """What is heard of it, varied, (samples,) float32.

        Args:
            rate: In Hz.
            seconds: That are heard at most.
            least: What is shorter is followed by silence, up to so many seconds.
            is_masked: Whether stretches are silenced; if not, that is left to whoever calls.

        Raises:
            DataError: E-DATA-SOUND; E-DATA-CHANGED, E-DATA-MISSING.
        """
        found = decode(self.file.read(), self.file.place, rate, start=self.start, seconds=seconds)
        found = found[: round(seconds * rate)]
        heard = np.zeros(max(len(found), round(least * rate)), dtype=np.float32)
        heard[: len(found)] = found
        if self.gain_db:
            heard *= 10 ** (self.gain_db / 20)
        for first, last in self.time_masks if is_masked else ():
            heard[int(first * len(found)) : int(last * len(found))] = 0
        return heard


def tokens_of(seconds: float) -> int:
    """The fewest tokens that hold so many seconds."""
    return max(1, math.ceil(seconds * TOKENS_PER_SECOND - 1e-6))


AST_SECONDS_PER_FRAME = 0.01  # of its filter banks (Gong et al. 2021, arXiv 2104.01778, section 2.1)


def recorded_sound(file: FileSource, extractor: Any, seconds: float) -> np.ndarray:
    """See `recorded_as`."""
    return recorded_as(file, (extractor.to_json_string(), seconds, _WAY))


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
    silence = _silence(processor, round(seconds * rate), rate)
    if all(example.origin is None for example in examples):
        return {name: tensor.expand(len(examples), *tensor.shape[1:]) for name, tensor in silence.items()}
    if normalises(processor):
        inputs = _one_by_one([example.origin for example in examples], processor, seconds, silence)
    else:
        samples = in_threads(lambda example: example.origin.samples(rate, seconds, seconds), examples)
        made = processor(samples, sampling_rate=rate, return_tensors="pt")
        inputs = {name: made[name] for name in silence}
    for name, tensor in inputs.items():
        if tensor.ndim == 3 and any(example.origin.band_masks for example in examples):
            inputs[name] = _without_bands(tensor, [example.origin.band_masks for example in examples], processor)
    return inputs


def _one_by_one(
    recordings: Sequence[Recording], processor: Any, seconds: float, like: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Recordings that are normalised, each by itself: no silence counts, neither behind it nor in its masks.

    Both are zeros in what comes out, which is its mean.

    Args:
        like: Inputs of the common length.
    """
    rate, least = int(processor.sampling_rate), min(FEWEST_SECONDS_NORMALISED, seconds)
    samples = in_threads(lambda recording: recording.samples(rate, seconds, least, is_masked=False), recordings)
    processor = copy.copy(processor)
    processor.padding_value = 0.0  # w2v-BERT's is 1, which no model sees, since a mask goes with it
    inputs = {name: tensor.new_zeros(len(samples), *tensor.shape[1:]) for name, tensor in like.items()}
    for i, (recording, heard) in enumerate(zip(recordings, samples, strict=True)):
        made = processor([heard], sampling_rate=rate, return_tensors="pt")
        for name, whole in inputs.items():
            found = made[name][0]  # (..., samples), or (time, bands)
            by_time = found if hears_samples(processor) else found.T
            for first, last in recording.time_masks:
                by_time[..., int(first * by_time.shape[-1]) : int(last * by_time.shape[-1])] = 0
            whole[i][tuple(slice(size) for size in found.shape)] = found
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


def _without_bands(features: torch.Tensor, masks: Sequence[tuple[Mask, ...]], extractor: Any) -> torch.Tensor:
    """Mel bands set to the recording's mean; features are (batch, time, bands), Whisper's (batch, bands, time).

    Trap: sizes do not tell the axes apart, a short recording has fewer frames than there are bands.
    """
    is_turned, count = hasattr(extractor, "chunk_length"), getattr(extractor, "num_mel_bins", extractor.feature_size)
    by_time = features.transpose(1, 2) if is_turned else features
    masked = by_time.clone(memory_format=torch.contiguous_format)
    bands = masked.view(*masked.shape[:2], -1, count)  # w2v-BERT has two frames in one: (batch, time, frames, bands)
    for i, stretches in enumerate(masks):
        for first, last in stretches:
            bands[i, ..., int(first * count) : int(last * count)] = features[i].mean()
    return masked.transpose(1, 2) if is_turned else masked


def normalises(extractor: Any) -> bool:
    """Whether each recording is brought to mean 0 and spread 1, its samples or its bands.

    Silence behind a recording must not count: of a short one no more would be left than a step to another level.
    """
    in_bands = type(extractor).__name__ in ("SeamlessM4TFeatureExtractor", "ParakeetFeatureExtractor")
    return in_bands or (hears_samples(extractor) and bool(getattr(extractor, "do_normalize", False)))


def hears_samples(extractor: Any) -> bool:
    """Whether a model is given samples, not a spectrogram: it has no bands that could be masked."""
    return getattr(extractor, "feature_size", 1) == 1 and not hasattr(extractor, "num_mel_bins")


def hears_loudness(extractor: Any) -> bool:
    """Whether a louder recording is another one to the model: not where its mean and spread are taken away."""
    return not normalises(extractor)


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
