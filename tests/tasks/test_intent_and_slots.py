"""A command's intent and slots by one head: what is read where, what is averaged, what a person gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unfreeze
from unfreeze.baselines import Baseline
from unfreeze.data.sources import read
from unfreeze.errors import DataError
from unfreeze.metrics import FrameState, PairedState
from unfreeze.tasks.intent_and_slots import IntentAndSlots
from unfreeze.tasks.token_classification import TokenClassification
from unfreeze.testing import check_task, tiny_model
from unfreeze.types import Row

ARTISTS = ("Ada", "Byron", "Grace", "Marie")
CITIES = ("Oslo", "Rome", "Paris", "London")


def command(i: int) -> dict[str, Any]:
    """One of three orders; which, and what it is about, is to be told by the words alone."""
    artist, city = ARTISTS[i % 4], CITIES[i // 4 % 4]
    words, slots, intent = [
        (["play", artist, artist, "now"], ["O", "B-artist", "I-artist", "O"], "PlayMusic"),
        (["will", "it", "rain", "in", city], ["O", "O", "O", "O", "B-city"], "GetWeather"),
        (["add", artist, "to", "my", "list"], ["O", "B-artist", "O", "O", "O"], "AddToList"),
    ][i % 3]
    return {"tokens": words, "slots": slots, "intent": intent, "text": " ".join(words)}


ROWS = [command(i) for i in range(72)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("commands") / "tiny", texts=[row["text"] for row in ROWS])


def bound(model: Path, rows: list[dict[str, Any]] = ROWS, max_length: int = 64) -> IntentAndSlots:
    from unfreeze.models.loading import resolve

    task, table = IntentAndSlots(), read(rows).train
    roles = task.find_roles(table, None, needs_label=True)
    processor = task.load_processor(resolve(str(model)))
    return task.bind(roles=roles, targets=task.learn(table, roles, None), processor=processor, max_length=max_length)


def test_a_decoder_keeps_the_contract_too(tmp_path: Path) -> None:
    decoder = tiny_model(tmp_path / "tiny", architecture="gpt2", texts=[row["text"] for row in ROWS])
    assert "save and load predict the same" in check_task(IntentAndSlots, None, decoder)


def test_the_columns_are_seen() -> None:
    table = read(ROWS).train
    assert "'intent' says what a command is for" in str(IntentAndSlots.recognises(table))
    assert TokenClassification.recognises(table.without("text")) is None
    assert IntentAndSlots.recognises(table.without("intent")) is None
    assert IntentAndSlots.recognises(table.without("slots")) is None
    roles = IntentAndSlots().find_roles(table, None, needs_label=True)
    assert (roles.text, roles.label) == (("tokens",), ("intent", "slots"))


def test_the_tags_come_first_and_the_intents_last(model: Path) -> None:
    task = bound(model)
    assert task.targets.labels[:2] == ("O", "B-artist")
    assert task.targets.labels[-3:] == ("AddToList", "GetWeather", "PlayMusic")
    assert task.restore_targets(json.loads(json.dumps(task.targets.to_json()))) == task.targets


def test_the_loss_is_that_of_two_heads(model: Path) -> None:
    """Cross-entropy of the intents at the first token plus that of the tags, each with a softmax of its own."""
    from unfreeze.models.loading import load_config, resolve

    task = bound(model)
    source = resolve(str(model))
    torch.manual_seed(0)
    net = task.build(source, load_config(source)).model.eval()
    examples = [e for i in (0, 1, 2) for e in task.encode(Row(i, ROWS[i], f"x:{i}"), train=True)]
    batch = task.collate(examples)
    found = task.loss(net, batch)
    n = len(task.space.labels)
    logits = net(**batch.inputs).logits.detach()
    intents = [task.targets.intents.labels.index(ROWS[i]["intent"]) for i in (0, 1, 2)]
    wanted = -sum(float(logits[i, 0, n:].log_softmax(-1)[k]) for i, k in enumerate(intents))
    assert found.terms["intent"].sum.item() == pytest.approx(wanted, rel=1e-5)
    of_tags = 0.0
    for i, known in enumerate(batch.targets.words):
        for place, tag in zip(known.places, known.tags, strict=True):
            of_tags -= float(logits[i, place, :n].log_softmax(-1)[tag])
    assert found.terms["slots"].sum.item() == pytest.approx(of_tags, rel=1e-5)
    assert batch.weights == {"words": 14.0, "rows": 3.0}


def test_windows_are_averaged(model: Path) -> None:
    long = {"tokens": ["play"] + ["Ada"] * 60, "slots": ["O"] + ["B-artist"] * 60, "intent": "PlayMusic"}
    task = bound(model, [*ROWS, long], max_length=24)
    examples = task.encode(Row(0, long, "x:0"), train=True)
    assert len(examples) > 2
    n, width = len(task.space.labels), len(task.targets.labels)
    outputs = []
    metric = task.metric()
    for number, example in enumerate(examples):
        batch = task.collate([example])
        logits = torch.zeros(1, example.length, width)
        logits[0, list(example.target.places), list(example.target.tags)] = 9.0
        logits[0, 0, n + (2 if number else 0)] = 1.0 if number else 1.5  # one window prefers another intent
        metric.update(logits, batch)
        outputs.append((task.decode(logits, batch)[0], task.answers(logits, batch)[0]))
    [answer] = task.merge([prediction for prediction, _ in outputs])
    assert answer.label == "PlayMusic"
    assert len(answer.extra["tags"]) == 61
    assert task.whole_answer([a for _, a in outputs]) == ("PlayMusic", ["O"] + ["B-artist"] * 60)
    assert metric.compute()["frame_accuracy"] == 1.0


def test_a_frame_is_right_where_intent_and_slots_are() -> None:
    state = FrameState(["a", "b"], ["x"])
    tags = [["B-x", "O"], ["O", "O"], ["B-x", "I-x"], ["O", "B-x"]]
    said = [["B-x", "O"], ["O", "B-x"], ["B-x", "I-x"], ["O", "B-x"]]
    state.update_frames(([0, 0, 1, 1], [0, 0, 0, 1]), (tags, said), np.arange(4))
    found = state.compute()
    assert found["frame_accuracy"] == 0.5
    assert found["intent_accuracy"] == 0.75
    assert found["overall_f1"] == pytest.approx(6 / 7)
    assert state.confusion().tolist() == [[2, 0], [1, 1]]
    assert [row["recall"] for row in state.per_intent()] == [1.0, 0.5]
    again = FrameState.load(json.loads(json.dumps(state.state_dict())))
    assert again.compute() == found
    one, two = FrameState(["a", "b"], ["x"]), FrameState(["a", "b"], ["x"])
    one.update_frames(([0, 0], [0, 0]), (tags[:2], said[:2]), np.arange(2))
    two.update_frames(([1, 1], [0, 1]), (tags[2:], said[2:]), np.arange(2, 4))
    one.merge(two)
    assert one.compute() == found
    assert one.intervals() == state.intervals()


def test_two_systems_are_compared_by_whole_frames() -> None:
    paired = PairedState("frames")
    true = [("a", {("x", 0, 1)}), ("b", set()), ("b", {("x", 1, 1)})]
    ours = [("a", {("x", 0, 1)}), ("b", set()), ("a", {("x", 1, 1)})]
    theirs = [("a", {("x", 0, 0)}), ("b", set()), ("b", set())]
    paired.update(true, ours, theirs)
    assert paired.value("a") == pytest.approx(2 / 3)
    assert paired.value("b") == pytest.approx(1 / 3)
    assert paired.difference().metric == "frame_accuracy"


def test_a_command_is_understood(model: Path, tmp_path: Path) -> None:
    run = unfreeze.train(
        ROWS, test=ROWS[:12], model=str(model), output=tmp_path / "run", schedule="full", seed=0,
        **{"train.epochs": 30, "train.learning_rate": 3e-3, "train.batch_size": 8, "data.validation": 0.2},
    )  # fmt: skip
    assert run.plan["task"] == "intent-and-slots", "it is seen from the columns"
    assert run.metrics["eval_frame_accuracy"] > 0.9
    assert run.metrics["eval_intent_accuracy"] > 0.9
    [answer] = run.predict(["will it rain in Rome"])
    assert answer.label == "GetWeather"
    assert answer.extra["entities"][0]["word"] == "Rome"
    assert answer.shown == "GetWeather: city Rome"
    [baseline] = json.loads((run.folder / "baselines.json").read_text(encoding="utf-8"))
    assert baseline["name"] == "tfidf and usual tags"
    assert baseline["metric"] == "frame_accuracy"
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS[:5]), encoding="utf-8")
    assert unfreeze.evaluate(run.folder, tmp_path / "more.jsonl")["eval_frame_accuracy"] == 1.0
    report = run.report().read_text(encoding="utf-8")
    assert "intent and slots right" in report
    assert "GetWeather" in report


def test_rows_without_an_intent_are_left_out_where_asked(model: Path, tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"intent": None}]
    with pytest.raises(DataError) as error:
        unfreeze.plan(rows, model=str(model))
    assert "73" in str(error.value.where)
    planned = unfreeze.plan(rows, model=str(model), **{"data.drop_unlabelled": True})
    assert sum(planned.data["rows"].values()) == 72


def test_names_that_a_data_set_lists_are_of_the_column_of_numbers(model: Path) -> None:
    names = ["O", "B-artist", "I-artist", "B-city"]
    rows = [row | {"slots": [names.index(tag) for tag in row["slots"]]} for row in ROWS]
    task, table = IntentAndSlots(), read(rows).train
    roles = task.find_roles(table, None, needs_label=True)
    space = task.learn(table, roles, names)
    assert space.tags.labels == tuple(names)
    assert space.tags.types == ("artist", "city")
    assert space.intents.labels == ("AddToList", "GetWeather", "PlayMusic")
    intents = ["PlayMusic", "GetWeather", "AddToList"]
    numbered = read([row | {"intent": intents.index(row["intent"])} for row in ROWS]).train
    assert task.learn(numbered, roles, intents).intents.labels == tuple(intents)


def test_ids_of_other_data_count_its_own_names(model: Path) -> None:
    names, intents = ["B-city", "I-artist", "O", "B-artist"], ["PlayMusic", "GetWeather", "AddToList"]
    task = bound(model, ROWS)
    tagged = read([row | {"slots": [names.index(tag) for tag in row["slots"]]} for row in ROWS]).train
    assert task.relabelled(tagged, names).column("slots") == [row["slots"] for row in ROWS]
    numbered = read([row | {"intent": intents.index(row["intent"])} for row in ROWS]).train
    assert task.relabelled(numbered, intents).column("intent") == [row["intent"] for row in ROWS]


def test_a_tag_that_only_test_rows_have_is_refused_before_training(model: Path) -> None:
    odd = [ROWS[0] | {"slots": ["O", "B-song", "O", "O"]}]
    with pytest.raises(DataError, match="B-song"):
        unfreeze.plan(ROWS, test=odd, model=str(model))
    with pytest.raises(DataError, match="4 words and 1 tags"):
        unfreeze.plan(ROWS, test=[ROWS[0] | {"slots": ["O"]}], model=str(model))


def test_tags_that_name_no_spans_are_compared_as_they_are(model: Path) -> None:
    rows = [row | {"slots": ["IN" if tag == "O" else "NN" for tag in row["slots"]]} for row in ROWS]
    task, table = bound(model, rows), read(rows).train
    true = [(row["intent"], row["slots"]) for row in rows]
    other = [(intent, ["IN"] * len(tags)) for intent, tags in true]
    paired = task.comparison(table, true)(Baseline("b", "", other, 0.0))
    assert paired.value("a") == 1.0
    assert paired.value("b") == 0.0


def test_a_row_in_windows_counts_as_one_intent(model: Path) -> None:
    from unfreeze.models.loading import load_config, resolve

    long = {"tokens": ["play"] + ["Ada"] * 60, "slots": ["O"] + ["B-artist"] * 60, "intent": "PlayMusic"}
    task = bound(model, [*ROWS, long], max_length=24)
    source = resolve(str(model))
    torch.manual_seed(0)
    net = task.build(source, load_config(source)).model.eval()
    examples = task.encode(Row(0, long, "x:0"), train=True)
    batch = task.collate(examples)
    assert batch.weights["rows"] == pytest.approx(1.0)
    with torch.inference_mode():
        whole = task.loss(net, batch).terms["intent"].sum.item()
        each = [task.loss(net, task.collate([e])).terms["intent"].sum.item() * e.parts for e in examples]
    assert whole == pytest.approx(np.mean(each), rel=1e-5)


def test_columns_that_cannot_be_told_are_asked_for(model: Path) -> None:
    table = read([{"tokens": row["tokens"], "slots": row["slots"], "wish": row["intent"]} for row in ROWS]).train
    with pytest.raises(DataError, match="which column holds the intents") as error:
        IntentAndSlots().find_roles(table, None, needs_label=True)
    assert error.value.remedy == "--set data.label=wish"
    planned = unfreeze.plan(
        [{"tokens": r["tokens"], "slots": r["slots"], "wish": r["intent"]} for r in ROWS],
        task="intent-and-slots", model=str(model), **{"data.label": ["slots", "wish"]},
    )  # fmt: skip
    assert "3 intents" in str(planned)


def test_a_name_cannot_be_both(model: Path) -> None:
    with pytest.raises(DataError, match="is an intent and a tag"):
        bound(model, [row | {"intent": "B-city"} if row["intent"] == "GetWeather" else row for row in ROWS])


def test_a_run_goes_on_with_the_same_labels(model: Path) -> None:
    from transformers import BertConfig

    task = bound(model)
    names = list(task.targets.labels)
    swapped = [*names[:2][::-1], *names[2:]]
    targets, said = task.continue_from(task.targets, BertConfig(id2label=dict(enumerate(swapped))), "before")
    assert list(targets.labels) == swapped
    assert "its head goes on" in said[0]
    mixed = [names[-1], *names[:-1]]
    targets, said = task.continue_from(task.targets, BertConfig(id2label=dict(enumerate(mixed))), "before")
    assert targets == task.targets
    assert "is replaced" in said[0]
