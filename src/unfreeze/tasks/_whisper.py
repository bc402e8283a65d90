"""Speech as text that is written: an encoder hears, a decoder writes (Whisper)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from unfreeze.errors import TaskError, did_you_mean
from unfreeze.tasks import _text
from unfreeze.tasks._audio import without_own_draws
from unfreeze.tasks._speech import Hearing, Said, SpeechSpace
from unfreeze.tasks._text import NOT_A_TARGET, Written
from unfreeze.types import Batch, LossTerm

if TYPE_CHECKING:
    from unfreeze.models.loading import LoadedModel, ModelSource

# As OpenAI's own code tells the two kinds apart.
MULTILINGUAL_VOCABULARY = 51_865
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass
class Dictation(Hearing):
    """Whisper (Radford et al. 2022, arXiv 2212.04356, section 2.3): text after a prompt of language and task, no times.

    Attributes:
        language: Of the recordings, as ``en``; None for models of one language.
        prompt: Tokens that an answer begins with.
        used: Tokens that occur in the training transcripts.
    """

    language: str | None = None
    prompt: tuple[int, ...] = ()
    used: frozenset[int] = frozenset()

    writes: ClassVar[bool] = True

    @classmethod
    def of(cls, extractor: Any, tokenizer: Any, config: Any, folder: Path, language: str | None) -> Dictation:
        """With the prompt for a language.

        Raises:
            TaskError: E-TASK, the model knows many languages and none or another was named.
        """
        from transformers import GenerationConfig

        known = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
        # Older checkpoints do not say it: the vocabulary of those that know many languages is larger by their names.
        has_many = getattr(known, "is_multilingual", None)
        has_many = config.vocab_size >= MULTILINGUAL_VOCABULARY if has_many is None else has_many
        signs = tokenizer.get_vocab()
        languages = {m[1] for sign in signs if (m := _LANGUAGE.fullmatch(sign))} if has_many else set[str]()
        if languages and language not in languages:
            what = "this model hears many languages, and which one was not said"
            if language is not None:
                known_ones = did_you_mean(language, sorted(languages))
                what = f"this model does not know the language {language!r}: {known_ones}"
            raise TaskError("TASK", what, where="options.language", remedy="--set options.language=en")
        if language is not None and not languages:
            what = "this model hears one language alone, so that none can be named"
            raise TaskError("TASK", what, where="options.language", remedy="leave it out")
        prompt = [int(config.decoder_start_token_id)]
        if language is not None:
            prompt += [signs[f"<|{language}|>"], signs["<|transcribe|>"]]
        if "<|notimestamps|>" in signs:
            prompt.append(signs["<|notimestamps|>"])
        return cls(extractor, tokenizer, language, tuple(prompt))

    @property
    def fixed_seconds(self) -> float:
        return float(self.extractor.chunk_length)

    def settled(self, space: SpeechSpace, texts: Sequence[str], config: Any, samples: int) -> SpeechSpace:
        limit = int(config.max_target_positions) - len(self.prompt)
        tokens = [self._tokens(text) for text in texts]
        self.used = frozenset(token for found in tokens for token in found)
        # A model that has learned where to end does so; a recording to come may say more than any of these.
        return replace(space, longest=limit, written=limit, prompt=self.prompt)

    def _tokens(self, text: str) -> list[int]:
        found = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return [*map(int, found), int(self.tokenizer.eos_token_id)]

    def ids(self, text: str, space: SpeechSpace) -> tuple[int, ...]:
        found = tuple(self._tokens(text))
        if len(found) > space.longest:
            raise ValueError(f"has {len(found)} tokens, and the model writes at most {space.longest}")
        return found

    def build(self, source: ModelSource, config: Any, *, allow_remote_code: bool) -> LoadedModel:
        from transformers import AutoModelForSpeechSeq2Seq

        from unfreeze.models.loading import load_model

        wanted = without_own_draws(config)
        loaded = load_model(
            AutoModelForSpeechSeq2Seq, source, wanted, head_is_new=False, allow_remote_code=allow_remote_code
        )
        settings: Any = loaded.model.generation_config
        if self.language is not None:
            # Other tools then hear the same language as we do.
            settings.language, settings.task = self.language, "transcribe"
        # Whisper never writes quotation marks, brackets and the like, unless the transcripts have them.
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            barred = getattr(settings, name, None)
            if barred:
                setattr(settings, name, [t for t in barred if t not in self.used or t == settings.eos_token_id] or None)
        return loaded

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForSpeechSeq2Seq

        return AutoModelForSpeechSeq2Seq.from_config(without_own_draws(config), dtype=torch.float32)

    def targets(
        self, said: Sequence[Said] | None, rows: int, space: SpeechSpace
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, float]]:
        wanted = [s.ids for s in said] if said is not None else [()] * rows
        given, tokens = _text.teacher_forced(wanted, space.prompt, int(self.tokenizer.eos_token_id))
        return {"decoder_input_ids": given}, {"tokens": tokens}, {"written tokens": float(sum(map(len, wanted)))}

    def loss(self, logits: torch.Tensor, batch: Batch) -> LossTerm:
        """Cross-entropy of each next token after the prompt; 0 for recordings that are heard in pieces."""
        tokens = batch.targets.tensors["tokens"].flatten()
        total = F.cross_entropy(logits.float().flatten(0, 1), tokens, reduction="sum", ignore_index=NOT_A_TARGET)
        return LossTerm(total, per="written tokens")

    def answer(self, model: Any, batch: Batch, logits: torch.Tensor | None, space: SpeechSpace) -> Written:
        from transformers import GenerationMixin

        heard = batch.inputs["input_features"]
        prompt = torch.tensor([space.prompt] * len(heard), device=heard.device)
        # Trap: where rows are filled up with the end token, as Whisper's are, transformers warns of a missing mask.
        filler = space.prompt[0]
        settings = _text.generation_config(model, max_new_tokens=space.written, num_beams=1, pad_token_id=filler)
        # Whisper's own `generate` looks for times and for the language; both are settled here.
        tokens = GenerationMixin.generate(model, heard, decoder_input_ids=prompt, generation_config=settings)
        return Written(self.tokenizer.batch_decode(tokens, skip_special_tokens=True), logits)

    def texts(self, outputs: Any) -> list[str] | None:
        return outputs.texts if isinstance(outputs, Written) else None
