"""What models of all kinds that hear speech have in common: what was said, and what says it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from unfreeze.types import Batch, LossTerm

if TYPE_CHECKING:
    from unfreeze.models.loading import LoadedModel, ModelSource


@dataclass(frozen=True)
class SpeechSpace:
    """What the training transcripts say, and what a model can say of one recording.

    Attributes:
        letters: That occur, sorted.
        rows: Training rows.
        longest: Letters (CTC) or tokens that the model can give for a recording at most.
        written: Tokens that are written at most, where it writes.
        prompt: Tokens that the model is given to begin with, where it writes: language, task, no times.
    """

    letters: tuple[str, ...]
    rows: int
    longest: int = 0
    written: int = 0
    prompt: tuple[int, ...] = ()

    labels: ClassVar[tuple[str, ...]] = ()
    problem_type: ClassVar[str] = "speech"

    @property
    def reason(self) -> str:
        return f"{len(self.letters)} letters occur in the transcripts"

    def to_json(self) -> dict[str, Any]:
        return {
            "letters": list(self.letters),
            "rows": self.rows,
            "longest": self.longest,
            "written": self.written,
            "prompt": list(self.prompt),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SpeechSpace:
        tuples = {name: tuple(stored[name]) for name in ("letters", "prompt")}
        return cls(**{**stored, **tuples})


@dataclass(frozen=True)
class Said:
    """A transcript, and what the model should give for it; nothing where it is heard in pieces, not knowing which."""

    text: str
    ids: tuple[int, ...]
    pieces: int


@dataclass
class Targets:
    """Of a batch: what the loss compares with, by name; and the transcripts."""

    tensors: dict[str, torch.Tensor]
    said: list[Said]

    def to(self, device: torch.device) -> Targets:
        return Targets({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.said)


@dataclass
class Hearing(ABC):
    """A feature extractor and a tokenizer, and how a family of models says what it hears.

    Class attributes:
        writes: Whether an answer is written a token at a time, after the recording was heard.
    """

    extractor: Any
    tokenizer: Any = None

    writes: ClassVar[bool] = False

    def save_pretrained(self, folder: Path) -> None:
        self.extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @property
    def fixed_seconds(self) -> float | None:
        """The length that the model hears, where it hears no other."""
        return None

    @abstractmethod
    def settled(self, space: SpeechSpace, texts: Sequence[str], config: Any, samples: int) -> SpeechSpace:
        """What the model can say, once the transcripts and the length of recordings are known."""

    @abstractmethod
    def ids(self, text: str, space: SpeechSpace) -> tuple[int, ...]:
        """Of a transcript.

        Raises:
            ValueError: The model cannot say so much of a recording; with how much it is and how much it can be.
        """

    @abstractmethod
    def build(self, source: ModelSource, config: Any, *, allow_remote_code: bool) -> LoadedModel:
        """The pretrained model."""

    @abstractmethod
    def skeleton(self, config: Any) -> torch.nn.Module:
        """See `Task.skeleton`."""

    @abstractmethod
    def targets(
        self, said: Sequence[Said] | None, rows: int, space: SpeechSpace
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, float]]:
        """Further inputs of the model, tensors for the loss, and normalisers; of `rows` without transcripts: None."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, batch: Batch) -> LossTerm:
        """Of the whole batch."""

    @abstractmethod
    def answer(self, model: torch.nn.Module, batch: Batch, logits: torch.Tensor | None, space: SpeechSpace) -> Any:
        """What `texts` reads."""

    @abstractmethod
    def texts(self, outputs: Any) -> list[str] | None:
        """What was heard, as the model spells it; None where the answers were not asked for."""

    def sureness(self, outputs: Any) -> Sequence[float | None]:
        """How sure each answer is, from 0 to 1; None where it is not known."""
        return [None] * len(self.texts(outputs) or ())
