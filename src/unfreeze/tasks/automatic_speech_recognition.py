"""automatic-speech-recognition: what was said, letter by letter (wav2vec 2.0) or as text that is written (Whisper)."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from unfreeze.data.columns import (
    Roles,
    file_column,
    file_columns,
    named_of_files,
    point_out_group,
    point_out_names,
    transcript_column,
)
from unfreeze.data.quality import places_shown
from unfreeze.errors import DataError, TaskError
from unfreeze.metrics.speech import SpeechState, errors
from unfreeze.tasks import _audio
from unfreeze.tasks._ctc import Letters
from unfreeze.tasks._files import FileSource
from unfreeze.tasks._parts import WholeRows
from unfreeze.tasks._speech import Hearing, Said, SpeechSpace, Targets
from unfreeze.tasks._whisper import Dictation
from unfreeze.types import Batch, Example, LossOutput, Prediction, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

TRANSCRIPTS = ("transcription", "transcript", "text", "sentence", "normalized_text", "utterance", "words", "label")
# Recordings are brought to one length: what the longest training row needs, and what a computer of this year can hold.
MOST_SECONDS = 30.0


@dataclass
class AutomaticSpeechRecognition(_audio.HearsFiles):
    """Dictation, commands, subtitles: a recording with its transcript.

    Models with a head for CTC (wav2vec 2.0, HuBERT, WavLM) give a letter, or none, for every 20 ms; see `Letters`.
    Whisper writes what it heard; see `Dictation`.

    Options:
        seconds: To which every recording is brought, with silence. Default: the longest training recording, at most 30.
            A longer training row is refused; longer ones to evaluate or to predict are heard in pieces. Whisper hears
            30 s, always.
        language: Of the recordings, as ``en``, for a Whisper of many languages.
        spelling: ``plain``: transcripts in lower case, without punctuation but for apostrophes; ``as written``.
        augmentation: See `ReadsFiles`; recordings are varied by loudness and SpecAugment's masks.

    Loss: negative log-probability of a transcript, over the letters, or tokens, of all transcripts.
    """

    name: ClassVar[str] = "automatic-speech-recognition"
    primary_metric: ClassVar[str] = "wer"
    splits_long_rows: ClassVar[bool] = True

    seconds: float | None = None
    language: str | None = None
    spelling: Literal["plain", "as written"] = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_option("seconds", _audio.is_duration(self.seconds), "a length of time")
        self.check_option("spelling", self.spelling in ("plain", "as written"), "'plain' or 'as written'")
        is_code = self.language is None or isinstance(self.language, str)
        self.check_option("language", is_code, "a code such as 'en'", "--set options.language=en")

    # what the rows hold ------------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        found = transcript_column(table)
        return f"'{found}' holds a transcript of each recording" if found is not None else None

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        sound, label, group = (asked.audio, asked.label, asked.group) if asked else (None,) * 3
        named, label = named_of_files(table, "audio", "transcripts", column=sound, label=label, group=group)
        known, reasons = file_columns(table, "audio"), dict[str, str]()
        sound = file_column(table, "audio", named, reasons)
        if label is None and needs_label:
            by_name = {name.casefold(): name for name in table.columns if name != sound}
            label = next((by_name[name] for name in TRANSCRIPTS if name in by_name), None)
            if label is None:
                what = f"no column holds the transcripts: {', '.join(table.columns)}"
                raise DataError("DATA-COLUMN", what, remedy="--set data.label=COLUMN")
            reasons["label"] = f"{label!r} holds the transcripts"
        alike = point_out_group(table, (*known, label), group, reasons)
        point_out_names(table, sound, label, reasons)
        return Roles(text=(sound,), label=label, group=group, reasons=reasons, looks_like_group=alike)

    def spelled(self, text: str) -> str:
        """A transcript as it is learned and compared."""
        text = unicodedata.normalize("NFC", text)
        if self.spelling == "plain":
            # What writing adds to what is said; apostrophes are heard in many languages. Trap: not by `\w`, to which
            # the vowel signs of Hindi and Arabic are no letters.
            plain = text.lower().replace("’", "'")
            text = "".join(" " if unicodedata.category(c)[0] in "PS" and c != "'" else c for c in plain)
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
        return SpeechSpace.from_json(stored)

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Hearing:
        from transformers import AutoModelForCTC

        from unfreeze.models.loading import check_modality, fetch, load_config, load_feature_extractor, load_processor

        allowed = self.allows_remote_code
        config = load_config(source, allow_remote_code=allowed)
        if config.model_type == "whisper":
            extractor = load_feature_extractor(source, allow_remote_code=allowed)
            tokenizer = load_processor(source, allow_remote_code=allowed)
            folder = fetch(source, weights=False, allow_remote_code=allowed)
            return Dictation.of(extractor, tokenizer, config, folder, self.language)
        check_modality(AutoModelForCTC, config, source.name)
        if self.language is not None:
            what = "the letters of a model for CTC are of no language"
            raise TaskError("TASK", what, where="options.language", remedy="leave it out")
        extractor = load_feature_extractor(source, allow_remote_code=allowed)
        folder = fetch(source, weights=False, allow_remote_code=allowed)
        return Letters.of(extractor, folder, folds_case=self.spelling == "plain")

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """In tokens of 20 ms; settles the alphabet, too, which takes the training rows."""
        if asked is not None:
            raise TaskError("TASK", "recordings are measured in seconds: options.seconds", where="train.max_length")
        fixed = self.processor.fixed_seconds
        if fixed is not None and self.seconds is not None:
            what = f"this model hears {fixed:g} s at a time, always"
            raise TaskError("TASK", what, where="options.seconds", remedy="leave it out")
        lengths = np.asarray([self.length_of(self.source_of(row)) for row in train])
        needed = float(lengths.max())
        wanted = fixed or self.seconds or min(MOST_SECONDS, math.ceil(needed * 10) / 10)
        longer = [train.place(int(i)) for i in np.flatnonzero(lengths > wanted + 1e-6)]
        if longer:
            what = f"{len(longer):,} training recordings are longer than {wanted:g} s: their transcripts cannot be cut"
            remedy = f"divide them{'' if fixed else f', or: --set options.seconds={math.ceil(needed)}'}"
            raise DataError("DATA-ROW", what, where=places_shown(longer), remedy=remedy)
        tokens = _audio.tokens_of(wanted)
        samples = round(tokens / _audio.TOKENS_PER_SECOND * int(self.processor.extractor.sampling_rate))
        self.targets = self.processor.settled(self.targets, [self._transcript(row) for row in train], config, samples)
        why = "named in the recipe" if self.seconds is not None else "the longest training recording"
        why = "what this model hears at a time" if fixed else why
        return tokens, f"{wanted:g} s: {why}; longer ones are heard in pieces"

    @property
    def generates(self) -> bool:  # type: ignore[override]
        return self.processor is not None and self.processor.writes

    @property
    def brings_its_head(self) -> bool:  # type: ignore[override]
        return self.generates

    @property
    def tokens_written(self) -> int:
        return int(self.targets.written)

    def variation(self) -> str:
        return _audio.variation(self.processor.extractor)

    def planned(self) -> list[tuple[str, Any, str]]:
        letters = f"{len(self.targets.letters)} letters: {''.join(self.targets.letters)}"
        spoken = ("options.language", self.language, "of all recordings")
        return [("options.spelling", self.spelling, letters), *[spoken] * bool(self.language), *super().planned()]

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        found: LoadedModel = self.processor.build(source, config, allow_remote_code=self.allows_remote_code)
        return found

    def skeleton(self, config: Any) -> torch.nn.Module:
        found: torch.nn.Module = self.processor.skeleton(config)
        return found

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        file = self.source_of(row)
        seconds = self.length_of(file)
        pieces = self._pieces_of(file)
        said = self._said(row, pieces) if train else None
        content = _audio.recorded_sound(file, self.processor.extractor, self.used_seconds)
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

    def check_labels(self, table: Table, split: str) -> None:
        """Refuse transcripts that the model cannot give, before training, and splits that could not be measured."""
        pieces = [self._pieces_of(self.source_of(row)) for row in table]
        for row, count in zip(table, pieces, strict=True):
            self._said(row, count)
        if split == "validation" and self.generates and pieces and min(pieces) > 1:
            what = f"every validation recording is longer than {self.used_seconds:g} s: none of them has a loss"
            raise DataError("DATA-ROW", what, where=table.place(0), remedy="divide them")

    def _pieces_of(self, file: FileSource) -> int:
        """In how many a recording is heard."""
        return max(1, math.ceil((self.length_of(file) - 1e-6) / self.used_seconds))

    def _said(self, row: Row, pieces: int) -> Said:
        text = self._transcript(row)
        if pieces > 1:
            return Said(text, (), pieces)
        try:
            return Said(text, self.processor.ids(text, self.targets), pieces)
        except ValueError as error:
            what = f"the transcript {error} for a recording"
            remedy = "correct the transcript, or divide the recording"
            raise DataError("DATA-ROW", what, where=row.place, remedy=remedy) from None

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        drawn = _audio.varied(example, self.used_seconds, self.processor.extractor, generator)
        return replace(drawn, origin=replace(drawn.origin, start=example.origin.start))

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _audio.model_inputs(examples, self.processor.extractor, self.used_seconds)
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        said = [e.target for e in examples] if all(e.target is not None for e in examples) else None
        further, tensors, weights = self.processor.targets(said, len(examples), self.targets)
        targets = Targets(tensors, said) if said is not None else None
        return Batch({**inputs, **further}, targets, rows, weights, sum(e.length for e in examples))

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)  # (batch, frames, letters) or (batch, length, vocabulary)
        return LossOutput({"loss": self.processor.loss(logits, batch)}, logits)

    def predict(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        without_cache = {"use_cache": False} if self.generates else {}
        return model(**batch.inputs, **without_cache).logits

    def answer(self, model: torch.nn.Module, batch: Batch, outputs: Any = None) -> Any:
        return self.processor.answer(model, batch, outputs, self.targets)

    def decode(self, outputs: Any, batch: Batch) -> list[Prediction]:
        said = zip(batch.rows, self.heard(outputs) or (), self.processor.sureness(outputs), strict=True)
        return [Prediction(int(row), text, sure, shown=text or "(nothing heard)") for row, text, sure in said]

    def heard(self, outputs: Any) -> list[str] | None:
        """The texts of a batch, spelled as transcripts are; None where answers were not asked for."""
        texts = self.processor.texts(outputs)
        return [self.spelled(text) for text in texts] if texts is not None else None

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
        return ("loss" if self.generates else "wer"), False

    # for people --------------------------------------------------------------------------------------------------

    def answers(self, outputs: torch.Tensor, batch: Batch) -> list[str]:
        return self.heard(outputs) or []

    def whole_answer(self, parts: Sequence[str]) -> str:
        return " ".join(part for part in parts if part)

    def mistake(self, row: Row, answer: str) -> tuple[str, str] | None:
        said = self._transcript(row)
        return None if answer == said else (said, answer or "(nothing)")

    def surprise(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Letters that are wrong, of those that were said, (batch,); a piece is compared with nothing."""
        texts, found = self.heard(outputs), list[float]()
        for heard, said in zip(texts, batch.targets.said, strict=True) if texts is not None else ():
            _, _, wrong, true = errors(heard, said.text)
            found.append(wrong / max(1, true) if said.pieces == 1 else 0.0)
        return np.asarray(found)

    def input_shown(self, example: Example) -> str:
        return f"{example.origin.seconds:.2f} s of sound, brought to {self.used_seconds:g} s"

    def target_shown(self, target: Said) -> str:
        return f"{target.text!r}, {len(target.ids)} {'tokens' if self.generates else 'letters'}"

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
    rows: WholeRows[str] = field(default_factory=WholeRows)

    def __post_init__(self) -> None:
        self.state = SpeechState()

    def update(self, outputs: torch.Tensor, batch: Batch) -> None:
        heard: list[str] = []
        said: list[str] = []
        rows: list[int] = []
        texts = self.task.heard(outputs)
        for row, target, text in zip(batch.rows, batch.targets.said, texts, strict=True) if texts is not None else ():
            whole = self.rows.add(int(row), text, target.pieces)
            if whole is not None:
                heard.append(self.task.whole_answer(whole))
                said.append(target.text)
                rows.append(int(row))
        if rows:
            self.state.update(heard, said, np.asarray(rows, dtype=np.int64))

    def merge(self, other: _SpeechMetric) -> None:
        self.rows.check_merge(other.rows)
        self.state.merge(other.state)

    def compute(self) -> dict[str, float | None]:
        # While it is trained a model that writes is measured by its loss alone.
        return self.state.compute() if self.state.n or not self.task.generates else {}

    def intervals(self) -> dict[str, tuple[float, float]]:
        return self.state.intervals()

    def details(self) -> dict[str, Any]:
        return {"reasons": dict(self.state.reasons)}
