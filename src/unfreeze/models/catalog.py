"""Which pretrained models there are to name: those that ship with unfreeze and a few well-tried ones of the Hub.

No torch here: the command line and the plan read it before any model is touched.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

# Name after "builtin:", which is the modality, -> what it is. The folder of each is unfreeze/builtin/<name>.
BUILTIN: dict[str, str] = {
    "text": "a small English text encoder that ships with unfreeze and needs no network",
    "image": "a small network for pictures that ships with unfreeze and needs no network",
}


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model of the Hub worth suggesting.

    Attributes:
        id: Hub id, what to give to ``--model``.
        tasks: What it is good for, named as on the Hub.
        parameters_millions: Weights of the backbone, in millions.
        download_mb: Size of its safetensors file, in megabytes (1e6 bytes).
        language: ISO 639-1 code, or "multilingual"; empty where the model reads no language.
        licence: SPDX identifier.
        why: When to choose it, one line.
    """

    id: str
    tasks: tuple[str, ...]
    parameters_millions: float
    download_mb: int
    language: str
    licence: str
    why: str


_SEGMENTATION = ("image-segmentation",)
_IMAGE = ("image-classification",)
_WRITING = ("summarization", "text2text-generation")
_TEXT = ("text-classification", "token-classification", "intent-and-slots", "question-answering", "fill-mask")

# Only models whose repository holds safetensors: microsoft/deberta-v3-base, else a natural choice, has pickles alone.
RECOMMENDED: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        "sentence-transformers/all-MiniLM-L6-v2",
        ("text-classification", "token-classification", "intent-and-slots", "question-answering"),
        22.7,
        91,
        "en",
        "Apache-2.0",
        "smallest and fastest; its frozen features are strong, so a new head alone goes far",
    ),
    CatalogEntry(
        "distilbert-base-uncased",
        _TEXT,
        66,
        268,
        "en",
        "Apache-2.0",
        "a good half of BERT's cost for nearly its quality",
    ),
    CatalogEntry("bert-base-uncased", _TEXT, 110, 440, "en", "Apache-2.0", "the reference that papers compare with"),
    CatalogEntry(
        "roberta-base", _TEXT, 125, 499, "en", "MIT", "stronger than BERT at the same cost on most English tasks"
    ),
    CatalogEntry(
        "answerdotai/ModernBERT-base", _TEXT, 149, 599, "en", "Apache-2.0", "texts of up to 8192 tokens, and code"
    ),
    CatalogEntry("xlm-roberta-base", _TEXT, 278, 1116, "multilingual", "MIT", "a hundred languages in one model"),
    CatalogEntry(
        "google-t5/t5-small",
        _WRITING,
        60.5,
        242,
        "en",
        "Apache-2.0",
        "small; give it the prefix it was pretrained with: --set 'options.prefix=\"summarize: \"'",
    ),
    CatalogEntry(
        "openai-community/gpt2", ("text-generation",), 124, 548, "en", "MIT", "the decoder that papers compare with"
    ),
    CatalogEntry("facebook/bart-base", _WRITING, 139, 558, "en", "Apache-2.0", "writes better than a T5 of its size"),
    CatalogEntry(
        "microsoft/resnet-50",
        _IMAGE,
        25.6,
        102,
        "",
        "Apache-2.0",
        "the convolutional network that papers compare with; quick on a CPU",
    ),
    CatalogEntry(
        "nvidia/segformer-b0-finetuned-ade-512-512",
        _SEGMENTATION,
        3.8,
        15,
        "",
        "other",
        "small and quick, made for masks; see its licence",
    ),
    CatalogEntry(
        "facebook/wav2vec2-base-960h",
        ("audio-classification", "automatic-speech-recognition"),
        94.4,
        378,
        "en",
        "Apache-2.0",
        "has listened to 960 hours of read English",
    ),
    CatalogEntry(
        "openai/whisper-small",
        ("automatic-speech-recognition",),
        241.7,
        967,
        "multilingual",
        "Apache-2.0",
        "writes what it hears, with capitals and punctuation, in about a hundred languages",
    ),
    CatalogEntry(
        "google/vit-base-patch16-224",
        _IMAGE,
        86.6,
        346,
        "",
        "Apache-2.0",
        "a transformer for pictures, stronger where there is a GPU",
    ),
)

_STRONGER = {"text": "roberta-base", "image": "microsoft/resnet-50"}


def stronger_than(builtin_modality: str) -> CatalogEntry:
    """The Hub model to suggest to someone who trains the builtin model of a modality.

    Raises:
        KeyError: There is no builtin model of that modality.
    """
    return next(entry for entry in RECOMMENDED if entry.id == _STRONGER[builtin_modality])


def near(name: str) -> str | None:
    """The known model whose name is closest to a mistyped one; None where none is close.

    >>> near("roberta_base"), near("distillbert"), near("builtin:txt"), near("zzz")
    ('roberta-base', 'distilbert-base-uncased', 'builtin:text', None)
    """
    known: dict[str, str] = {f"builtin:{builtin}": f"builtin:{builtin}" for builtin in BUILTIN}
    for entry in RECOMMENDED:
        short = entry.id.rpartition("/")[2]
        known |= {alias.casefold(): entry.id for alias in (entry.id, short, short.partition("-base")[0])}
    asked = name.casefold().replace("_", "-")
    found = difflib.get_close_matches(asked, list(known), n=1, cutoff=0.75)
    found = found or difflib.get_close_matches(asked.rpartition("/")[2], list(known), n=1, cutoff=0.75)
    return known[found[0]] if found else None
