"""Models with random weights, of kinds that no pretrained one can be had of: what they reach shows the mechanics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.material import data_folder, texts_of

# Of a vocabulary: its most frequent words; the others are spelled.
MOST_WORDS = 6000
MELS = 40


def _hears(seconds: int) -> Callable[[Path], None]:
    """A Whisper's encoder over 40 mel bands, with a classifier: 0.6 million weights."""

    def make(folder: Path) -> None:
        import transformers

        from unfreeze.testing import tiny_audio_model

        tiny_audio_model(
            folder,
            "whisper",
            d_model=128,
            encoder_layers=4,
            encoder_attention_heads=4,
            encoder_ffn_dim=256,
            num_mel_bins=MELS,
            max_source_positions=50 * seconds,
            classifier_proj_size=64,
            init_std=0.02,
        )
        transformers.WhisperFeatureExtractor(feature_size=MELS, chunk_length=seconds).save_pretrained(folder)

    return make


def _spells(folder: Path) -> None:
    """A wav2vec 2.0 of 0.7 million weights; its letters come from the training transcripts."""
    from unfreeze.testing import tiny_audio_model

    tiny_audio_model(
        folder,
        "wav2vec2",
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        conv_dim=(64, 64, 64),
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        initializer_range=0.02,
    )


def _summarizes(folder: Path) -> None:
    """A T5 of 1.4 million weights that knows dialogsum's words."""
    from unfreeze.testing import tiny_writing_model

    words = _frequent(texts_of("dialogsum", "train"))
    tiny_writing_model(folder, "t5", texts=[words], d_model=128, d_kv=32, d_ff=256, num_layers=3, num_heads=4)


def _writes(folder: Path) -> None:
    """A Llama of 2 million weights that knows WikiText-2's words."""
    from unfreeze.testing import tiny_model

    words = _frequent(texts_of("wikitext2_small", "valid"))
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "max_position_embeddings": 256}
    tiny_model(folder, "llama", texts=[words], num_attention_heads=4, num_key_value_heads=4, **sizes)


def _frequent(texts: Iterable[str]) -> str:
    return " ".join(
        word for word, _ in Counter(word for text in texts for word in text.split()).most_common(MOST_WORDS)
    )


# Name to what writes such a model, with its tokenizer or feature extractor, into a folder.
UNTRAINED: dict[str, Callable[[Path], None]] = {
    "untrained:hears-1s": _hears(1),
    "untrained:hears-4s": _hears(4),
    "untrained:spells": _spells,
    "untrained:summarizes": _summarizes,
    "untrained:writes": _writes,
}


def check(name: str) -> None:
    """Raise `MaterialError` where the words of a model are not on this machine."""
    if name == "untrained:summarizes":
        data_folder("dialogsum")
    if name == "untrained:writes":
        data_folder("wikitext2_small")
