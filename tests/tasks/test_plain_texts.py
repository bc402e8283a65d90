"""Language models that go on with their pretraining: what the two tasks of plain text have in common."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import unfreeze
from unfreeze.errors import DataError
from unfreeze.testing import Architecture, tiny_model

TEXTS = [f"Ada lives in {place} and rents {i} rooms there." for i, place in enumerate(("London", "Oslo") * 15)]
CASES: list[tuple[str, Architecture]] = [
    ("fill-mask", "bert"),
    ("text-generation", "llama"),
    ("text-generation", "gpt2"),
]


@pytest.mark.parametrize(("task", "architecture"), CASES)
def test_what_was_adapted_is_what_a_classifier_begins_with(
    task: str, architecture: Architecture, tmp_path: Path
) -> None:
    """The frozen layers of a classifier on top of the run are those that the run has changed."""
    model = tiny_model(tmp_path / "tiny", architecture, texts=TEXTS)
    settings = ["train.epochs=1", "train.learning_rate=1e-2", "data.validation=0", "baselines=false"]
    texts = [{"text": text} for text in TEXTS]
    adapted = unfreeze.train(
        texts, model=str(model), task=task, schedule="full", settings=settings, output=tmp_path / "adapted"
    )
    labelled = [{**row, "label": "ab"[i % 2]} for i, row in enumerate(texts)]
    run = unfreeze.train(
        labelled, model=str(adapted.folder), schedule="head", settings=settings, output=tmp_path / "classifier"
    )
    before, after = (dict(r.predictor.model.base_model.named_parameters()) for r in (adapted, run))
    shared = [n for n in before if n in after]
    assert len(shared) > 10
    assert all(torch.equal(before[n], after[n]) for n in shared)
    pretrained = load_file(model / "model.safetensors")
    changed = [
        n
        for n, tensor in pretrained.items()
        for short in shared
        if n.endswith(short) and not torch.equal(tensor, before[short])
    ]
    assert len(changed) > 10, "what arrives is not what the run began with"


@pytest.mark.parametrize(("task", "architecture"), CASES)
def test_a_run_is_set_beside_the_model_as_it_was(task: str, architecture: Architecture, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny", architecture, texts=TEXTS)
    settings = ["train.epochs=3", "train.learning_rate=1e-2", "train.max_length=8"]
    rows = [{"text": text} for text in TEXTS]
    run = unfreeze.train(rows, model=str(model), task=task, schedule="full", settings=settings, output=tmp_path / "run")
    [untouched] = json.loads((run.folder / "baselines.json").read_text())
    assert untouched["name"] == "untouched"
    assert untouched["run_value"] == pytest.approx(run.metrics["eval_perplexity"], rel=1e-4)
    assert untouched["value"] > untouched["run_value"], "it has learned"
    assert untouched["difference"]["high"] < 0
    assert [f.code for f in run.findings if f.code.startswith("BASE")] == ["BASE001"]
    assert not (run.folder / "mistakes.json").exists()


@pytest.mark.parametrize("task", ["fill-mask", "text-generation"])
@pytest.mark.parametrize("settings", [[], ["data.text=[question, answer]"]])
def test_texts_of_two_columns_are_not_read_by_half(task: str, settings: list[str], tmp_path: Path) -> None:
    rows = [{"question": text, "answer": text.upper()} for text in TEXTS]
    with pytest.raises(DataError) as caught:
        unfreeze.train(rows, task=task, model="builtin:text", settings=settings, output=tmp_path / "run")
    assert caught.value.code == "DATA-COLUMN"
    assert "data.text=" in str(caught.value.remedy)
