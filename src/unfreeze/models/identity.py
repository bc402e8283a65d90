"""What a resumed run must find again of its model: the same weights, and the same tokenizer or processor."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from unfreeze.durable import sha256_of_file
from unfreeze.models.loading import ModelSource, fetch

_WEIGHTS = re.compile(r"config\.json|.*\.safetensors")
_PROCESSOR = re.compile(
    r"(tokenizer|vocab|merges|special_tokens|added_tokens|normalizer|chat_template|preprocessor|processor|image_processor"
    r"|feature_extractor|video_preprocessor).*|.*\.(model|tiktoken)"
)


def identity_of(source: ModelSource) -> dict[str, str]:
    """Digests of a model's files.

    Returns:
        ``weights``: SHA-256 over configuration and weights of a folder; of a Hub model ``org/name@commit``, which its
        cache checks and which stands for all its files. ``processor``: SHA-256 over the files of tokenizer or processor
        of a folder, empty for a Hub model.

    Raises:
        ModelError: E-MODEL-UNKNOWN, where a Hub model is neither in the cache nor reached.
    """
    if source.kind == "hub":
        return {"weights": f"{source.location}@{fetch(source, weights=False).name}", "processor": ""}
    folder = Path(source.location)
    return {"weights": _digest(folder, _WEIGHTS), "processor": _digest(folder, _PROCESSOR)}


def as_started(model: str | None, weights: str) -> str | None:
    """The name of a run's model with the commit that it was started with: its branch may have moved since.

    Args:
        model: As asked for.
        weights: From `identity_of`, when the run was started.
    """
    name, _, commit = weights.rpartition("@")
    return f"{name}@{commit}" if model is not None and name and model.partition("@")[0] == name else model


def _digest(folder: Path, kind: re.Pattern[str]) -> str:
    files = sorted(path for path in folder.iterdir() if kind.fullmatch(path.name) and path.is_file())
    return hashlib.sha256("".join(f"{path.name} {sha256_of_file(path)}\n" for path in files).encode()).hexdigest()
