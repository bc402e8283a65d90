"""A bound task and encoded rows, which tests of every architecture share."""

from __future__ import annotations

import csv
from importlib import resources

import pytest
import transformers

from unfreeze.data.columns import Roles
from unfreeze.tasks._labels import learn_labels
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import tiny_model
from unfreeze.types import Example, Row


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextClassification:
    folder = tiny_model(tmp_path_factory.mktemp("tiny"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    roles = Roles(text=("text",), label="label", group=None, reasons={})
    return TextClassification().bind(
        roles=roles, targets=learn_labels(["a", "b", "c"]), processor=tokenizer, max_length=100
    )


@pytest.fixture(scope="module")
def examples(task: TextClassification) -> list[Example]:
    reviews = resources.files("unfreeze") / "samples" / "reviews.csv"
    with reviews.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:24]
    rows = [Row(i, {"text": text, "label": "abc"[i % 3]}, f"row {i}") for i, text in enumerate([*texts, "Good."])]
    return [e for row in rows for e in task.encode(row, train=True)]
