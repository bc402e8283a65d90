"""Names of models: what ships, what is suggested, and no torch for any of it."""

from __future__ import annotations

import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


def test_every_builtin_model_is_in_the_package_with_its_card_and_small() -> None:
    largest = {"text": 12_000_000, "image": 6_000_000}
    for modality in BUILTIN:
        folder = Path(str(importlib.resources.files("unfreeze"))) / "builtin" / modality
        assert (folder / "README.md").read_text(encoding="utf-8").count("## ") == 3
        assert sum(f.stat().st_size for f in folder.iterdir()) <= largest[modality]


def test_the_builtin_network_sees_ten_kinds_of_things() -> None:
    from transformers import pipeline

    folder = Path(str(importlib.resources.files("unfreeze"))) / "builtin" / "image"
    answer = pipeline("image-classification", model=str(folder))(Image.new("RGB", (50, 30), (90, 160, 230)), top_k=10)
    assert {found["label"] for found in answer} >= {"airplane", "ship", "truck"}
    assert sum(found["score"] for found in answer) == pytest.approx(1, abs=1e-3)
