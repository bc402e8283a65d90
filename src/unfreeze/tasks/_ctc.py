"""Speech letter by letter: connectionist temporal classification (wav2vec 2.0, HuBERT, WavLM and their like)."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from unfreeze.errors import ModelError
from unfreeze.models.layers import LayerGroups
from unfreeze.tasks._audio import without_own_draws
from unfreeze.tasks._speech import Hearing, Said, SpeechSpace
from unfreeze.types import Batch, LossTerm

if TYPE_CHECKING:
    from unfreeze.models.loading import LoadedModel, ModelSource

BLANK, UNKNOWN, SPACE = "[PAD]", "[UNK]", "|"


@dataclass
class Letters(Hearing):
    """A letter, or none, for every 20 ms (Graves et al. 2006, "Connectionist temporal classification").

    A checkpoint's own alphabet is kept where it knows every letter of the training transcripts; otherwise the head is
    new, for the letters that occur in them.

    Attributes:
        folds_case: Whether capitals and small letters are the same to the transcripts.
        is_new: Whether the alphabet is not the checkpoint's.
    """

    folds_case: bool = True
    is_new: bool = False

    @classmethod
    def of(cls, extractor: Any, folder: Path, *, folds_case: bool) -> Letters:
        """With the alphabet of a checkpoint, or none until the training rows are known.

        Raises:
            ModelError: E-TOKENIZER.
        """
        from transformers import Wav2Vec2CTCTokenizer

        if not (folder / "vocab.json").is_file():
            return cls(extractor, folds_case=folds_case)
        try:
            tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True)
            return cls(extractor, tokenizer, folds_case=folds_case)
        except Exception as error:
            what = f"the alphabet in vocab.json cannot be read: {(str(error).splitlines() or ['?'])[0]}"
            raise ModelError("TOKENIZER", what, where=str(folder)) from error

    def settled(self, space: SpeechSpace, texts: Sequence[str], config: Any, samples: int) -> SpeechSpace:
        if self.tokenizer is None or not self.knows(space.letters):
            self.tokenizer, self.is_new = new_alphabet(space.letters), True
        return replace(space, longest=frames_of(config, samples))

    def knows(self, letters: Sequence[str]) -> bool:
        """Whether the alphabet has them all."""
        known = self.tokenizer.get_vocab()
        return all(self._as_known(letter, known) in known for letter in letters)

    def _as_known(self, letter: str, known: dict[str, int]) -> str:
        """Alphabets of English models are often of capitals."""
        return letter if letter in known or not self.folds_case else letter.upper()

    def ids(self, text: str, space: SpeechSpace) -> tuple[int, ...]:
        known, unknown = self.tokenizer.get_vocab(), self.tokenizer.unk_token_id
        space_sign = self.tokenizer.word_delimiter_token
        signs = (space_sign if letter == " " else self._as_known(letter, known) for letter in text)
        found = tuple(known.get(sign, unknown) for sign in signs)
        # A letter that follows itself needs a blank between.
        needed = len(found) + sum(a == b for a, b in itertools.pairwise(found))
        if needed > space.longest:
            raise ValueError(f"has {len(found)} letters, and the model gives at most {space.longest}")
        return found

    def _wanted(self, config: Any) -> Any:
        """The configuration with this alphabet, and without masks that do not come from our draws."""
        wanted = without_own_draws(config)
        wanted.vocab_size, wanted.pad_token_id = len(self.tokenizer), self.tokenizer.pad_token_id
        wanted.ctc_zero_infinity, wanted.ctc_loss_reduction = True, "sum"
        return wanted

    def build(self, source: ModelSource, config: Any, *, allow_remote_code: bool) -> LoadedModel:
        from transformers import AutoModelForCTC

        from unfreeze.models.loading import load_model

        has_head = any("ForCTC" in name for name in config.architectures or [])
        # Trap: another alphabet may be of the same size.
        is_kept = has_head and not self.is_new and config.vocab_size == len(self.tokenizer)
        wanted = self._wanted(config)
        loaded = load_model(
            AutoModelForCTC, source, wanted, head_is_new=not is_kept, allow_remote_code=allow_remote_code
        )
        names = sorted(LayerGroups.of(loaded.model).parameters("head"))
        told = "is the checkpoint's own" if is_kept else f"is new, for {wanted.vocab_size} letters and signs"
        loaded.notes.append(f"the head {told}: {', '.join(names)}")
        return loaded

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForCTC

        return AutoModelForCTC.from_config(self._wanted(config), dtype=torch.float32)

    def targets(
        self, said: Sequence[Said] | None, rows: int, space: SpeechSpace
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, float]]:
        if said is None:
            return {}, {}, {"letters": 0.0}
        counts = torch.tensor([len(s.ids) for s in said], dtype=torch.int64)
        letters = torch.tensor([letter for s in said for letter in s.ids], dtype=torch.int64)
        return {}, {"letters": letters, "counts": counts}, {"letters": float(counts.sum())}

    def loss(self, logits: torch.Tensor, batch: Batch) -> LossTerm:
        """Negative log-probability of the transcripts, in nats; 0 for recordings that are heard in pieces."""
        where = device_of_loss(logits.device)
        letters, counts = (batch.targets.tensors[name].to(where) for name in ("letters", "counts"))
        chances = logits.float().log_softmax(-1).transpose(0, 1).to(where)
        frames = torch.full((logits.shape[0],), logits.shape[1], dtype=torch.int64)
        blank = int(self.tokenizer.pad_token_id)
        losses = F.ctc_loss(chances, letters, frames, counts, blank=blank, reduction="none", zero_infinity=True)
        is_whole = torch.tensor([s.pieces == 1 for s in batch.targets.said], device=losses.device)
        total = torch.where(is_whole, losses, torch.zeros_like(losses)).sum()
        return LossTerm(total.to(logits.device), per="letters")

    def answer(
        self, model: torch.nn.Module, batch: Batch, logits: torch.Tensor | None, space: SpeechSpace
    ) -> torch.Tensor:
        return logits if logits is not None else model(**batch.inputs).logits

    def texts(self, outputs: torch.Tensor) -> list[str]:
        """The likeliest letter of each frame, repetitions and blanks taken out."""
        ids = outputs.detach().argmax(-1).cpu().numpy()
        # Trap: without special tokens blanks are gone before repetitions are, and with them every double letter.
        return [text.replace(self.tokenizer.unk_token, "") for text in self.tokenizer.batch_decode(ids)]

    def sureness(self, outputs: torch.Tensor) -> list[float | None]:
        """The mean probability of the frames that are letters."""
        best = outputs.detach().float().softmax(-1).max(-1)
        is_letter = best.indices != int(self.tokenizer.pad_token_id)
        pairs = zip(best.values, is_letter, strict=True)
        return [float(values[there].mean()) if bool(there.any()) else None for values, there in pairs]


def device_of_loss(device: torch.device) -> torch.device:
    """Where the loss is computed: torch has none of this kind for Apple's GPUs."""
    return torch.device("cpu") if device.type == "mps" else device


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
