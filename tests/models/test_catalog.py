"""Names of models: what ships, what is suggested, and no torch for any of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unfreeze.models.catalog import BUILTIN, RECOMMENDED, near, stronger_than


def test_the_catalog_needs_no_torch() -> None:
    code = "import sys, unfreeze.models.catalog; print('torch' in sys.modules or 'transformers' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("roberta_base", "roberta-base"),
        ("distillbert-base-uncased", "distilbert-base-uncased"),
        ("bert", "bert-base-uncased"),
        ("ModernBERT-base", "answerdotai/ModernBERT-base"),
        ("answerdotai/modernbert-bse", "answerdotai/ModernBERT-base"),
        ("builtin:txt", "builtin:text"),
        ("something-else-entirely", None),
    ],
)
def test_a_mistyped_name_finds_the_model_that_was_meant(name: str, found: str | None) -> None:
    assert near(name) == found


def test_every_builtin_modality_has_a_stronger_model_to_suggest() -> None:
    for modality in BUILTIN:
        assert stronger_than(modality) in RECOMMENDED


# GPT-2's file holds the triangle of its attention, twelve times 1,024 x 1,024 numbers, beside the weights.
MASKS_MB = {"openai-community/gpt2": 50}


def test_sizes_are_those_of_float32_weights() -> None:
    for entry in RECOMMENDED:
        weights = entry.download_mb - MASKS_MB.get(entry.id, 0)
        assert 4 * entry.parameters_millions == pytest.approx(weights, rel=0.02), entry.id
