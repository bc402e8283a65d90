"""What tests of several folders share: small models bound to rows, and a task with encoded rows for any model."""

from __future__ import annotations

import csv
import os
import signal
from importlib import resources
from typing import Any

import pytest
import small
import torch
import transformers

from unfreeze.data.columns import Roles
from unfreeze.tasks._labels import learn_labels
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import tiny_model
from unfreeze.types import Example, Row

# Trap: workers with several threads each wait for one another at every small operation, and there are many: with two
# workers on two cores a run that takes seconds took minutes. For this process, and for those that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """Signals that were ignored, as under nohup, are heard again: here, and in what the tests start."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Without dropout, so that a step is a function of its rows."""
    return small.small(tmp_path_factory.mktemp("plain"), dropout=False)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With dropout, as models come."""
    return small.small(tmp_path_factory.mktemp("usual"))


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
