"""automatic-speech-recognition: what was said, letter by letter (CTC: wav2vec 2.0, HuBERT, WavLM and their like)."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.data.columns import FILE_NAMES, Roles, check_named, file_columns, point_out_group, transcript_column
from unfreeze.data.quality import places_shown
from unfreeze.errors import DataError, ModelError, TaskError
from unfreeze.metrics.speech import SpeechState, errors
from unfreeze.models.layers import LayerGroups
from unfreeze.tasks import _audio
from unfreeze.tasks._files import recorded_as
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

TRANSCRIPTS = ("transcription", "transcript", "text", "sentence", "normalized_text", "utterance", "words", "label")
# Recordings are brought to one length: what the longest training row needs, and what a computer of this year can hold.
MOST_SECONDS = 30.0
BLANK, UNKNOWN, SPACE = "[PAD]", "[UNK]", "|"
# What writing adds to what is said; apostrophes are heard in many languages.
_PUNCTUATION = re.compile(r"[^\w\s'’]|_")


@dataclass(frozen=True)
class SpeechSpace:
    """What the training transcripts say.

    Attributes:
        letters: That occur, sorted.
        rows: Training rows.
        frames: That the model gives for a recording.
    """

    letters: tuple[str, ...]
    rows: int
    frames: int = 0

    labels: ClassVar[tuple[str, ...]] = ()
    problem_type: ClassVar[str] = "speech"

    @property
    def reason(self) -> str:
        return f"{len(self.letters)} letters occur in the transcripts"

    def to_json(self) -> dict[str, Any]:
        return {"letters": list(self.letters), "rows": self.rows, "frames": self.frames}


@dataclass
class Hearing:
    """A feature extractor, and the alphabet's tokenizer; None until the training rows are known."""

    extractor: Any
    tokenizer: Any = None

    def save_pretrained(self, folder: Path) -> None:
        self.extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class _Said:
    """A transcript, and its letters as the model's numbers; none where it is heard in pieces, not knowing which."""

    text: str
    letters: tuple[int, ...]
    pieces: int


@dataclass
class _Targets:
    """Of a batch: the letters of all rows one after the other, how many each has, and the transcripts."""

    letters: torch.Tensor
    counts: torch.Tensor
    said: list[_Said]

    def to(self, device: torch.device) -> _Targets:
        return _Targets(self.letters.to(device), self.counts.to(device), self.said)


@dataclass
class AutomaticSpeechRecognition(_audio.HearsFiles):
    """Dictation, commands, subtitles: a recording with its transcript.

    The model gives a letter, or none, for every 20 ms (connectionist temporal classification, Graves et al. 2006). A
    checkpoint's own alphabet is kept where it knows every letter of the training transcripts; otherwise the head is
    new, for the letters that occur in them.

    Options:
        seconds: To which every recording is brought, with silence. Default: the longest training recording, at most 30.
            A longer training row is refused; longer ones to evaluate or to predict are heard in pieces.
        spelling: ``plain``: transcripts in lower case, without punctuation but for apostrophes; ``as written``.
        augmentation: ``auto``: training rows are varied at random (loudness, SpecAugment's masks), but in phases whose
            frozen part is recorded; ``always``: in those too, which are then not recorded; ``none``.

    Loss: negative log-probability of a transcript, over the letters of all transcripts.
    """

    name: ClassVar[str] = "automatic-speech-recognition"
    primary_metric: ClassVar[str] = "wer"
    splits_long_rows: ClassVar[bool] = True

    seconds: float | None = None
    spelling: Literal["plain", "as written"] = "plain"
    augmentation: Literal["auto", "always", "none"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        _audio.check_seconds(self.seconds)
        for name, known in (("spelling", ("plain", "as written")), ("augmentation", ("auto", "always", "none"))):
            if getattr(self, name) not in known:
                what = f"{name} is {' or '.join(map(repr, known))}, not {getattr(self, name)!r}"
                raise TaskError("TASK", what, where=f"options.{name}")

    # what the rows hold ------------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        found = transcript_column(table)
        return f"'{found}' holds a transcript of each recording" if found is not None else None

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        sound, label, group = (asked.audio, asked.label, asked.group) if asked else (None,) * 3
        if isinstance(label, list):
            what = f"one column holds the transcripts, {len(label)} were named"
            raise DataError("DATA-COLUMN", what, remedy=f"--set data.label={label[0]}")
        known, reasons = file_columns(table, "audio"), dict[str, str]()
        for role, name in (("audio", sound), ("label", label), ("group", group)):
            if name is not None:
                check_named(table, role, name)
        if sound is None:
            best = [name for name in known if name.casefold() in FILE_NAMES["audio"]] or known
            if len(best) != 1:
                what = f"{len(best)} columns could be the recordings" if best else "no column holds recordings"
                raise DataError("DATA-COLUMN", what, remedy="--set data.audio=COLUMN")
            sound, reasons["audio"] = best[0], f"{best[0]!r} holds the recordings"
        elif sound not in known:
            what = f"column {sound!r} holds neither names of recordings nor their bytes"
            raise DataError("DATA-COLUMN", what, remedy="--set data.audio=COLUMN")
        if label is None and needs_label:
            by_name = {name.casefold(): name for name in table.columns if name != sound}
            label = next((by_name[name] for name in TRANSCRIPTS if name in by_name), None)
            if label is None:
                what = f"no column holds the transcripts: {', '.join(table.columns)}"
                raise DataError("DATA-COLUMN", what, remedy="--set data.label=COLUMN")
            reasons["label"] = f"{label!r} holds the transcripts"
        point_out_group(table, (*known, label), group, reasons)
        return Roles(text=(sound,), label=label, group=group, reasons=reasons)

    def spelled(self, text: str) -> str:
        """A transcript as it is learned and compared."""
        text = unicodedata.normalize("NFC", text)
        if self.spelling == "plain":
            text = _PUNCTUATION.sub(" ", text.lower().replace("’", "'"))
        return " ".join(text.split())

    def _transcript(self, row: Row) -> str:
        value = row.values.get(str(self.roles.label))
        if not isinstance(value, str) or not value.strip():
            what = f"there is no transcript in column {self.roles.label!r}"
            raise DataError("DATA-LABEL", what, where=row.place)
        said = self.spelled(value)
        if not said:
            what = f"the transcript {value!r} has no letters"
            remedy = "correct it, or leave the row out; or: --set 'options.spelling=as written'"
            raise DataError("DATA-LABEL", what, where=row.place, remedy=remedy)
        return said

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> SpeechSpace:
        letters: set[str] = set()
        for row in train:
            value = row.values.get(str(roles.label))
            letters |= set(self.spelled(value)) if isinstance(value, str) else set()
        letters.discard(" ")
        if not letters:
            what = f"no training row has a transcript in column {roles.label!r}"
            raise DataError("DATA-LABEL", what, where=train.place(0), remedy="--set data.label=COLUMN")
        return SpeechSpace(tuple(sorted(letters)), len(train))

    def restore_targets(self, stored: Any) -> SpeechSpace:
        return SpeechSpace(tuple(stored["letters"]), int(stored["rows"]), int(stored["frames"]))

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Hearing:
        from transformers import AutoModelForCTC, Wav2Vec2CTCTokenizer

        from unfreeze.models.loading import check_modality, fetch, load_config, load_feature_extractor

        config = load_config(source, allow_remote_code=self.allows_remote_code)
        check_modality(AutoModelForCTC, config, source.name)
        extractor = load_feature_extractor(source, allow_remote_code=self.allows_remote_code)
        folder = fetch(source, weights=False, allow_remote_code=self.allows_remote_code)
        if not (folder / "vocab.json").is_file():
            return Hearing(extractor)
        try:
            return Hearing(extractor, Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True))
        except Exception as error:
            what = f"the alphabet in vocab.json cannot be read: {(str(error).splitlines() or ['?'])[0]}"
            raise ModelError("TOKENIZER", what, where=str(folder)) from error

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """In tokens of 20 ms; settles the alphabet, too, which takes the training rows."""
        if asked is not None:
            raise TaskError("TASK", "recordings are measured in seconds: options.seconds", where="train.max_length")
        lengths = np.asarray([self.length_of(self.source_of(row)) for row in train])
        needed = float(lengths.max())
        wanted = float(self.seconds) if self.seconds is not None else min(MOST_SECONDS, math.ceil(needed * 10) / 10)
        longer = [train.place(int(i)) for i in np.flatnonzero(lengths > wanted + 1e-6)]
        if longer:
            what = f"{len(longer):,} training recordings are longer than {wanted:g} s: their transcripts cannot be cut"
            remedy = f"divide them, or: --set options.seconds={math.ceil(needed)}"
            raise DataError("DATA-ROW", what, where=places_shown(longer), remedy=remedy)
        if self.processor.tokenizer is None or not self._knows(self.processor.tokenizer, self.targets.letters):
            self.processor = Hearing(self.processor.extractor, new_alphabet(self.targets.letters))
        samples = round(wanted * int(self.processor.extractor.sampling_rate))
        self.targets = replace(self.targets, frames=frames_of(config, samples))
        why = "named in the recipe" if self.seconds is not None else "the longest training recording"
        return max(1, round(wanted * _audio.TOKENS_PER_SECOND)), f"{wanted:g} s: {why}; longer ones are heard in pieces"

    def _knows(self, tokenizer: Any, letters: Sequence[str]) -> bool:
        known = tokenizer.get_vocab()
        return all(self._as_known(letter, known) in known for letter in letters)

    @staticmethod
    def _as_known(letter: str, known: dict[str, int]) -> str:
        """Alphabets of English models are often of capitals."""
        return letter if letter in known else letter.upper()

    def planned(self) -> list[tuple[str, Any, str]]:
        loudness = f"up to {_audio.LARGEST_GAIN_DB:g} dB louder or softer, SpecAugment's masks"
        why = {
            "auto": f"{loudness}, in phases that go through the whole model; not in recorded ones",
            "always": f"{loudness}, in every phase: none is recorded",
            "none": "training rows are heard as they are",
        }
        return [
            (
                "options.spelling",
                self.spelling,
                f"{len(self.targets.letters)} letters: {''.join(self.targets.letters)}",
            ),
            ("options.augmentation", self.augmentation, why[self.augmentation]),
        ]

    @property
    def augments(self) -> bool:  # type: ignore[override]
        return self.augmentation != "none"

    @property
    def varies_recorded_rows(self) -> bool:  # type: ignore[override]
        return self.augmentation == "always"

    def _wanted(self, config: Any) -> Any:
        """The configuration with this alphabet, and without masks that do not come from our draws."""
        wanted = copy.deepcopy(config)
        tokenizer = self.processor.tokenizer
        wanted.vocab_size, wanted.pad_token_id = len(tokenizer), tokenizer.pad_token_id
        wanted.ctc_zero_infinity, wanted.ctc_loss_reduction = True, "sum"
        for name, value in (("apply_spec_augment", False), ("layerdrop", 0.0)):
            if hasattr(wanted, name):
                setattr(wanted, name, value)
        return wanted

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModelForCTC

        from unfreeze.models.loading import load_model

        has_head = any("ForCTC" in name for name in config.architectures or [])
        is_kept = has_head and config.vocab_size == len(self.processor.tokenizer)
        wanted, allowed = self._wanted(config), self.allows_remote_code
        loaded = load_model(AutoModelForCTC, source, wanted, head_is_new=not is_kept, allow_remote_code=allowed)
        names = sorted(LayerGroups.of(loaded.model).parameters("head"))
        told = "is the checkpoint's own" if is_kept else f"is new, for {wanted.vocab_size} letters and signs"
        loaded.notes.append(f"the head {told}: {', '.join(names)}")
        return loaded

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForCTC

        return AutoModelForCTC.from_config(self._wanted(config), dtype=torch.float32)

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        file = self.source_of(row)
        seconds = self.length_of(file)
        pieces = max(1, math.ceil((seconds - 1e-6) / self.used_seconds))
        said = self._said(row, pieces) if train else None
        content = recorded_as(file, (self.processor.extractor.to_json_string(), self.used_seconds))
        return [
            Example(
                {"content": content, "piece": np.asarray([part], dtype=np.int32)},
                said,
                row.index,
                self.max_length,
                part=part,
                origin=_audio.Recording(file, min(seconds, self.used_seconds), start=part * self.used_seconds),
            )
            for part in range(pieces)
        ]

    def _said(self, row: Row, pieces: int) -> _Said:
        text, tokenizer = self._transcript(row), self.processor.tokenizer
        known = tokenizer.get_vocab()
        space = known.get(tokenizer.word_delimiter_token, tokenizer.unk_token_id)
        letters = tuple(
            space if letter == " " else known.get(self._as_known(letter, known), tokenizer.unk_token_id)
            for letter in text
        )
        # A letter that follows itself needs a blank between.
        needed = len(letters) + sum(a == b for a, b in itertools.pairwise(letters))
        if needed > self.targets.frames * pieces:
            what = (
                f"the transcript has {len(letters)} letters, and the model gives {self.targets.frames} for a recording"
            )
            raise DataError("DATA-ROW", what, where=row.place, remedy="correct the transcript, or divide the recording")
        return _Said(text, letters if pieces == 1 else (), pieces)

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        drawn = _audio.varied(example, self.used_seconds, generator)
        return replace(drawn, origin=replace(drawn.origin, start=example.origin.start))

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _audio.model_inputs(examples, self.processor.extractor, self.used_seconds)
        rows, targets, weight = np.asarray([e.row for e in examples], dtype=np.int64), None, 0.0
        if all(e.target is not None for e in examples):
            said = [e.target for e in examples]
            counts = torch.tensor([len(s.letters) for s in said], dtype=torch.int64)
            letters = torch.tensor([letter for s in said for letter in s.letters], dtype=torch.int64)
            targets, weight = _Targets(letters, counts, said), float(counts.sum())
        return Batch(inputs, targets, rows, {"letters": weight}, sum(e.length for e in examples))

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)  # (batch, frames, letters)
        total = self._losses(logits, batch).sum()
        return LossOutput({"loss": LossTerm(total, per="letters")}, logits)

    def _losses(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Negative log-probability of each transcript, in nats, (batch,); 0 for recordings that are heard in pieces."""
        targets = batch.targets
        chances = logits.float().log_softmax(-1).transpose(0, 1)
        frames = torch.full((logits.shape[0],), logits.shape[1], dtype=torch.int64)
        blank = int(self.processor.tokenizer.pad_token_id)
        losses = F.ctc_loss(
            chances, targets.letters, frames, targets.counts, blank=blank, reduction="none", zero_infinity=True
        )
        is_whole = torch.tensor([s.pieces == 1 for s in targets.said], device=losses.device)
        return torch.where(is_whole, losses, torch.zeros_like(losses))

    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        chances = outputs.detach().float().softmax(-1).max(-1)
        texts = self._heard(outputs)
        blank = int(self.processor.tokenizer.pad_token_id)
        found = []
        for i, (row, text) in enumerate(zip(batch.rows, texts, strict=True)):
            is_letter = chances.indices[i] != blank
            sure = float(chances.values[i][is_letter].mean()) if bool(is_letter.any()) else None
            found.append(Prediction(int(row), text, sure, shown=text or "(nothing heard)"))
        return found

    def _heard(self, outputs: torch.Tensor) -> list[str]:
        """The likeliest letter of each frame, repetitions and blanks taken out."""
        tokenizer, ids = self.processor.tokenizer, outputs.detach().argmax(-1).cpu().numpy()
        # Trap: without special tokens blanks are gone before repetitions are, and with them every double letter.
        return [self.spelled(text.replace(tokenizer.unk_token, "")) for text in tokenizer.batch_decode(ids)]

    def merge(self, parts: Sequence[Prediction]) -> list[Prediction]:
        if len(parts) == 1:
            return list(parts)
        known = [p.probability for p in parts if p.probability is not None]
        text = " ".join(str(p.label) for p in parts if p.label)
        sure = sum(known) / len(known) if known else None
        return [Prediction(parts[0].row, text, sure, shown=text or "(nothing heard)")]

    def metric(self) -> _SpeechMetric:
        return _SpeechMetric(self)

    @property
    def selection(self) -> tuple[str, bool]:
        return "wer", False

    # for people --------------------------------------------------------------------------------------------------

    def answers(self, outputs: torch.Tensor, batch: Batch) -> list[str]:
        return self._heard(outputs)

    def whole_answer(self, parts: Sequence[str]) -> str:
        return " ".join(part for part in parts if part)

    def mistake(self, row: Row, answer: str) -> tuple[str, str] | None:
        said = self._transcript(row)
        return None if answer == said else (said, answer or "(nothing)")

    def surprise(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Letters that are wrong, of those that were said, (batch,); a piece is compared with nothing."""
        found = []
        for heard, said in zip(self._heard(outputs), batch.targets.said, strict=True):
            _, _, wrong, true = errors(heard, said.text)
            found.append(wrong / max(1, true) if said.pieces == 1 else 0.0)
        return np.asarray(found)

    def input_shown(self, example: Example) -> str:
        return f"{example.origin.seconds:.2f} s of sound, brought to {self.used_seconds:g} s"

    def target_shown(self, target: _Said) -> str:
        return f"{target.text!r}, {len(target.letters)} letters"

    def sample_rows(self) -> list[dict[str, Any]]:
        from unfreeze.data.sounds import encoded

        time = np.arange(3200) / 8000
        pitches = {"ba": (200, 1500), "ab": (1500, 200), "bab": (200, 1500, 200), "a b": (1500, 60, 200)}
        rows = []
        for text, parts in pitches.items():
            tones = [0.5 * np.sin(2 * np.pi * pitch * time) for pitch in parts]
            rows.append({"audio": encoded(np.concatenate(tones), 8000), "transcription": text})
        return rows


@dataclass
class _SpeechMetric:
    """Joins the pieces of a recording, and counts it once it is whole."""

    task: AutomaticSpeechRecognition
    waiting: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = SpeechState()

    def update(self, outputs: torch.Tensor, batch: Batch) -> None:
        heard: list[str] = []
        said: list[str] = []
        rows: list[int] = []
        for row, target, text in zip(batch.rows, batch.targets.said, self.task._heard(outputs), strict=True):
            parts = self.waiting.setdefault(int(row), [])
            parts.append(text)
            if len(parts) == target.pieces:
                heard.append(self.task.whole_answer(self.waiting.pop(int(row))))
                said.append(target.text)
                rows.append(int(row))
        if rows:
            self.state.update(heard, said, np.asarray(rows, dtype=np.int64))

    def merge(self, other: _SpeechMetric) -> None:
        assert not self.waiting, "a row is divided between two states"
        assert not other.waiting, "a row is divided between two states"
        self.state.merge(other.state)

    def compute(self) -> dict[str, float | None]:
        return self.state.compute()

    def intervals(self, seed: int) -> dict[str, tuple[float, float]]:
        return self.state.intervals(seed)

    def details(self) -> dict[str, Any]:
        return {"reasons": dict(self.state.reasons)}


def new_alphabet(letters: Sequence[str]) -> Any:
    """A tokenizer of single letters: blank, unknown, the space between words, then the letters in order."""
    from transformers import Wav2Vec2CTCTokenizer

    signs = [BLANK, UNKNOWN, SPACE, *(letter for letter in letters if letter != SPACE)]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "vocab.json"
        file.write_text(json.dumps({sign: number for number, sign in enumerate(signs)}), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file),
            unk_token=UNKNOWN,
            pad_token=BLANK,
            word_delimiter_token=SPACE,
            bos_token=None,
            eos_token=None,
        )


def frames_of(config: Any, samples: int) -> int:
    """How many letters a model gives for so many samples: what its convolutions leave."""
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if not kernels or not strides:
        return max(1, samples // int(getattr(config, "inputs_to_logits_ratio", 320)))
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return max(1, samples)
