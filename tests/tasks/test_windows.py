"""Long texts read whole: what the windows hold, that a row counts as one, and that what stands at the end is found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CanineConfig, CanineTokenizer

import unfreeze
from unfreeze.data.sources import read
from unfreeze.errors import RecipeError, TaskError
from unfreeze.models.loading import load_config, resolve
from unfreeze.tasks import _text
from unfreeze.tasks.text_classification import TextClassification
from unfreeze.testing import check_task, tiny_model
from unfreeze.types import Row

FILLING = "the train to the coast leaves every hour and it stops at the old harbour where nobody waits".split(" ")  # noqa: SIM905


def long_text(i: int, words: int = 40) -> dict[str, Any]:
    """The last word alone tells the label."""
    filling = [FILLING[(i * 7 + k * 5) % len(FILLING)] for k in range(words + i % 5)]
    return {"text": " ".join([*filling, "good" if i % 2 else "bad"]), "label": "yes" if i % 2 else "no"}


ROWS = [long_text(i) for i in range(60)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("long") / "tiny", texts=[row["text"] for row in ROWS])


def bound(model: Path, rows: list[dict[str, Any]] = ROWS, max_length: int = 16, **options: Any) -> TextClassification:
    task, table = TextClassification(windows=True, **options), read(rows).train
    roles = task.find_roles(table, None, needs_label=True)
    processor = task.load_processor(resolve(str(model)))
    return task.bind(roles=roles, targets=task.learn(table, roles, None), processor=processor, max_length=max_length)


def letters(text: str, *_: Any, add_special_tokens: bool = True, max_length: int = 10**9, **__: Any) -> Any:
    """A tokenizer of one token a letter, with a token before and one after."""
    ids = [ord(c) for c in text]
    if not add_special_tokens:
        return {"input_ids": ids}
    room = max_length - 2
    encodings = [SimpleNamespace(overflowing=ids[room:])]

    class Encoded(dict):  # type: ignore[type-arg]
        pass

    found = Encoded(input_ids=[1, *ids[:room], 2], special_tokens_mask=[1, *[0] * len(ids[:room]), 1])
    found.encodings = encodings  # type: ignore[attr-defined]
    return found


@given(length=st.integers(0, 400), limit=st.integers(10, 64))
def test_windows_hold_all_of_a_text(length: int, limit: int) -> None:
    text = "".join(chr(1000 + i) for i in range(length))
    found = [w["input_ids"] for w in _text.windows(Row(0, {"text": text}, "x:1"), "text", letters, limit)]
    assert all(ids[0] == 1 and ids[-1] == 2 for ids in found)
    assert {c for ids in found for c in ids[1:-1]} == set(range(1000, 1000 + length))
    if length <= limit - 2:
        assert len(found) == 1
        return
    room, shared = limit - 2, (limit - 2) // 8
    assert {len(ids) for ids in found} == {limit}
    starts = np.asarray([ids[1] - 1000 for ids in found])
    assert starts[0] == 0
    assert starts[-1] + room == length
    assert (np.diff(starts) <= room - shared).all()
    assert len(found) == 1 + -(-(length - room) // (room - shared)), "as few as hold all of it"


def test_the_contract_is_kept(model: Path) -> None:
    recipe = {"options.windows": True, "train.max_length": 16}
    assert "save and load predict the same" in check_task(TextClassification, ROWS[:6], model=model, recipe=recipe)


@pytest.mark.parametrize("options", [{}, {"class_weights": {"no": 3.0}}, {"label_smoothing": 0.2}])
def test_a_row_counts_as_one_in_the_loss(model: Path, options: dict[str, Any]) -> None:
    rows = [*ROWS, {"text": "good", "label": "yes"}]
    task = bound(model, rows, **options)
    torch.manual_seed(0)
    source = resolve(str(model))
    net = task.build(source, load_config(source)).model.eval()
    by_row = [task.encode(Row(i, rows[i], f"x:{i}"), train=True) for i in (0, 1, 60)]
    assert [len(examples) for examples in by_row][2] == 1
    assert all(len(examples) > 2 for examples in by_row[:2])
    batch = task.collate([e for examples in by_row for e in examples])
    weights = task.weights_of_classes()
    each = np.ones(2) if weights is None else weights
    assert batch.weights["rows"] == pytest.approx(each[0] + 2 * each[1])
    with torch.inference_mode():
        found = task.loss(net, batch).terms["loss"].sum.item()
        alone = 0.0
        for examples in by_row:
            of_one = [task.collate([e]) for e in examples]
            losses = [
                task.loss(net, b).terms["loss"].sum.item() * e.parts for b, e in zip(of_one, examples, strict=True)
            ]
            alone += float(np.mean(losses))
    assert found == pytest.approx(alone, rel=1e-5)


def test_answers_are_averaged_over_windows_whatever_the_batches(model: Path) -> None:
    task = bound(model)
    examples = [e for i in (0, 1) for e in task.encode(Row(i, ROWS[i], f"x:{i}"), train=True)]
    metric, said, answers = task.metric(), {0: [], 1: []}, {0: [], 1: []}
    order = [k for k in range(len(examples)) if k % 2] + [k for k in range(len(examples)) if not k % 2]
    for k in order:
        batch = task.collate([examples[k]])
        sure = 4.0 if examples[k].part == 0 else -0.5  # one window outvotes the others
        logits = torch.tensor([[sure, 0.0]] if examples[k].row == 0 else [[0.0, sure]])
        metric.update(logits, batch)
        said[examples[k].row] += task.decode(logits, batch)
        answers[examples[k].row] += list(task.answers(logits, batch))
    assert metric.compute()["accuracy"] == 1.0
    assert metric.state.n == 2
    [merged] = task.merge(said[0])
    assert merged.label == "no"
    assert merged.probability == pytest.approx(np.mean([p.scores["no"] for p in said[0]]))
    assert (task.whole_answer(answers[0]), task.whole_answer(answers[1])) == (0, 1)


def test_numbers_are_averaged_too(model: Path) -> None:
    rows = [row | {"label": 0.5 * i} for i, row in enumerate(ROWS)]
    task = bound(model, rows)
    examples = task.encode(Row(0, rows[0], "x:0"), train=True)
    batch = task.collate(examples)
    outputs = torch.linspace(-1, 1, len(examples)).unsqueeze(-1)
    [merged] = task.merge(task.decode(outputs, batch))
    assert merged.label == pytest.approx(task.targets.center)
    metric = task.metric()
    metric.update(outputs, batch)
    assert metric.compute()["mae"] == pytest.approx(abs(task.targets.center - 0.0), rel=1e-5)


def test_what_stands_at_the_end_of_a_long_text_is_found(model: Path, tmp_path: Path) -> None:
    settings = [
        "train.max_length=16", "train.epochs=30", "train.learning_rate=3e-3", "train.batch_size=8",
        f"cache.folder={tmp_path / 'cache'}",
    ]  # fmt: skip
    asked: dict[str, Any] = {"test": ROWS[:20], "model": str(model), "schedule": "full", "seed": 0}
    cut = unfreeze.train(ROWS, output=tmp_path / "cut", settings=settings, **asked)
    assert "--set options.windows=true" in " ".join(cut.plan["warnings"]), "it is advised"
    assert cut.metrics["eval_accuracy"] < 0.75
    whole = unfreeze.train(ROWS, output=tmp_path / "whole", settings=[*settings, "options.windows=true"], **asked)
    assert whole.metrics["eval_accuracy"] == 1.0
    assert "cut" not in " ".join(whole.plan["warnings"])
    card = (whole.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "more than 16 tokens are read in windows" in card
    assert [p.label for p in whole.predict([ROWS[0]["text"], "good"])] == ["no", "yes"]


def test_recorded_windows_train_like_others(model: Path, tmp_path: Path) -> None:
    settings = ["train.max_length=16", "train.epochs=2", "train.batch_size=8", "options.windows=true"]
    runs = [
        unfreeze.train(
            ROWS, test=ROWS[:20], model=str(model), schedule="head", seed=0, output=tmp_path / str(enabled),
            settings=[*settings, cache],
        )
        for enabled, cache in (("true", f"cache.folder={tmp_path / 'cache'}"), ("false", "cache.enabled=false"))
    ]  # fmt: skip
    assert runs[0].metrics["eval_loss"] == pytest.approx(runs[1].metrics["eval_loss"], abs=1e-4)
    assert runs[0].metrics["eval_accuracy"] == runs[1].metrics["eval_accuracy"]


def test_a_tokenizer_that_does_not_say_where_it_cuts(tmp_path: Path) -> None:
    tokenizer = CanineTokenizer(model_max_length=2048)
    long = Row(0, {"text": "a" * 100}, "x:1")
    inputs, is_cut = _text.tokenize(long, ("text",), tokenizer, 64)
    assert (len(inputs["input_ids"]), is_cut) == (64, True)
    assert not _text.tokenize(Row(0, {"text": "a" * 62}, "x:1"), ("text",), tokenizer, 64)[1]
    tokenizer.save_pretrained(tmp_path)
    CanineConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(TaskError, match="does not tell where it cuts"):
        TextClassification(windows=True).load_processor(resolve(str(tmp_path)))


@pytest.mark.parametrize("value", ["no", 2, None])
def test_windows_are_asked_for_or_not(value: Any) -> None:
    with pytest.raises(TaskError, match="windows is true or false"):
        TextClassification(windows=value)


def test_windows_of_pairs_are_refused(model: Path) -> None:
    rows = [{"a": row["text"], "b": row["text"], "label": row["label"]} for row in ROWS]
    with pytest.raises(RecipeError, match="windows are of one text") as error:
        unfreeze.plan(rows, model=str(model), settings=["data.text=[a, b]", "options.windows=true"])
    assert error.value.where == "options.windows"
