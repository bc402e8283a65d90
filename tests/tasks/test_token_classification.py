"""A tag for each word: alignment, windows, scores, and what a person gets who asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unfreeze
from unfreeze.data.sources import read
from unfreeze.errors import DataError
from unfreeze.metrics import SpanState
from unfreeze.metrics.spans import spans_of
from unfreeze.tasks._tagged_words import NOT_A_TARGET, _windows
from unfreeze.tasks._tags import TagSpace, learn_tags
from unfreeze.tasks.token_classification import TokenClassification
from unfreeze.testing import check_task, tiny_model
from unfreeze.types import Row

NAMES = ("Ada", "Byron", "Grace", "Hopper", "Marie", "Curie")
PLACES = ("London", "Paris", "Oslo", "Rome")


def sentence(i: int) -> dict[str, Any]:
    """A name and a place in one of three sentences: to be told by the words alone."""
    name, place = NAMES[i % 6], PLACES[i // 6 % 4]
    words, tags = [
        ([name, "lives", "in", place, "."], ["B-PER", "O", "O", "B-LOC", "O"]),
        (["Today", name, name, "sleeps", "in", place, "."], ["O", "B-PER", "I-PER", "O", "O", "B-LOC", "O"]),
        ([place, "is", "where", name, "sleeps", "."], ["B-LOC", "O", "O", "B-PER", "O", "O"]),
    ][i // 24]
    return {"tokens": words, "tags": tags}


ROWS = [sentence(i) for i in range(72)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tokens") / "tiny", texts=[" ".join(row["tokens"]) for row in ROWS])


def bound(model: Path, rows: list[dict[str, Any]], max_length: int = 64) -> TokenClassification:
    from unfreeze.models.loading import resolve

    task, table = TokenClassification(), read(rows).train
    roles = task.find_roles(table, None, needs_label=True)
    processor = task.load_processor(resolve(str(model)))
    return task.bind(roles=roles, targets=task.learn(table, roles, None), processor=processor, max_length=max_length)


def test_the_contract_is_kept_where_tags_name_no_spans(model: Path) -> None:
    kinds = [{"words": row["tokens"], "pos": ["NN", *["VB"] * (len(row["tokens"]) - 1)]} for row in ROWS[:4]]
    assert "save and load predict the same" in check_task(TokenClassification, kinds, model)


def test_a_words_first_token_carries_its_tag(model: Path) -> None:
    task = bound(model, ROWS)
    [example] = task.encode(
        Row(0, {"tokens": ["Ada.Byron", "in", "Oslo"], "tags": ["B-PER", "O", "B-LOC"]}, "x:1"), train=True
    )
    batch = task.collate([example])
    tokens = task.processor.convert_ids_to_tokens(example.inputs["input_ids"].tolist())
    tagged = {
        tokens[i]: task.targets.labels[tag]
        for i, tag in enumerate(batch.targets.tags[0].tolist())
        if tag != NOT_A_TARGET
    }
    assert len(tokens) > 5, "the first word has several tokens"
    assert list(tagged.values()) == ["B-PER", "O", "B-LOC"]
    assert list(tagged)[1:] == ["in", "oslo"]
    assert batch.weights == {"words": 3.0}


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    room=st.integers(12, 40),
)
def test_every_word_is_answered_once_and_shown_whole(lengths: list[int], room: int) -> None:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    windows = _windows(starts, sum(lengths), room)
    assert [word for _, answered in windows for word in answered] == list(range(len(lengths)))
    for shown, answered in windows:
        assert shown.start <= answered.start < answered.stop <= shown.stop
        assert sum(lengths[i] for i in shown) <= room


def test_ids_of_tags_mean_what_they_meant_where_the_model_has_another_order() -> None:
    space = learn_tags([[0, 1, 2]], ["O", "B-PER", "I-PER"], "'tags'", lambda i: "x:1").in_order_of(
        ["I-PER", "O", "B-PER"]
    )
    found = space.target(Row(0, {"tags": [0, 1, 2]}, "x:1"), "tags", 3)
    assert [space.labels[i] for i in found] == ["O", "B-PER", "I-PER"]
    assert TagSpace.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_windows_give_the_scores_of_the_whole_row(model: Path) -> None:
    """In windows a row is evaluated as one: counts of words and spans are those of the row."""
    long = {
        "tokens": [w for row in ROWS[::6] for w in row["tokens"]],
        "tags": [t for row in ROWS[::6] for t in row["tags"]],
    }
    task = bound(model, ROWS, max_length=24)
    examples = [e for i in range(2) for e in task.encode(Row(i, long, f"x:{i}"), train=True)]
    assert len(examples) > 4
    assert max(e.length for e in examples) <= 24
    metric = task.metric()
    for example in reversed(examples):
        batch = task.collate([example])
        metric.update(
            torch.nn.functional.one_hot(batch.targets.tags.clamp(min=0), len(task.targets.labels)).float(), batch
        )
    assert metric.compute()["overall_f1"] == 1.0
    assert sum(row["support"] for row in metric.state.per_class()) == 2 * len(spans_of(long["tags"]))


def test_spans_are_counted_as_the_shared_task_counts_them() -> None:
    state = SpanState(["LOC", "PER"])
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O"]]
    said = [["B-PER", "O", "O", "B-LOC"], ["O", "B-LOC"]]
    state.update(true, said)
    found = state.compute()
    assert found["overall_precision"] == pytest.approx(1 / 3)
    assert found["overall_recall"] == pytest.approx(1 / 2)
    assert found["overall_f1"] == pytest.approx(2 / 5)
    assert found["overall_accuracy"] == pytest.approx(4 / 6)
    assert found["row_accuracy"] == 0
    again = SpanState.load(state.state_dict())
    assert again.compute() == found


def test_scores_are_seqevals() -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    draw = torch.Generator().manual_seed(0)
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    rows = [[[tags[i] for i in torch.randint(0, 5, (7,), generator=draw)] for _ in range(2)] for _ in range(50)]
    true, said = ([row[i] for row in rows] for i in range(2))
    state = SpanState(["LOC", "PER"])
    state.update(true, said)
    found = state.compute()
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert found[f"overall_{name}"] == pytest.approx(score(true, said)), name


def test_states_merge_to_the_state_of_all_rows() -> None:
    import numpy as np

    tags = [["B-PER", "O"], ["O", "B-LOC"], ["B-LOC", "I-LOC"]]
    said = [["B-PER", "O"], ["O", "O"], ["B-LOC", "O"]]
    whole, one, two = (SpanState(["LOC", "PER"]) for _ in range(3))
    whole.update(tags, said, np.arange(3))
    one.update(tags[:1], said[:1], np.arange(1))
    two.update(tags[1:], said[1:], np.arange(1, 3))
    one.merge(two)
    assert one.compute() == whole.compute()
    assert one.intervals() == whole.intervals()


def test_trained_it_finds_the_names_and_answers_plain_text(model: Path, tmp_path: Path) -> None:
    run = unfreeze.train(
        ROWS, model=str(model), output=tmp_path / "run", schedule="full",
        settings=["train.epochs=20", "train.learning_rate=3e-3", f"cache.folder={tmp_path / 'cache'}"],
    )  # fmt: skip
    assert run.plan["task"] == "token-classification", "it is seen from the columns"
    assert run.metrics["eval_overall_f1"] > 0.9
    [usual] = json.loads((run.folder / "baselines.json").read_text(encoding="utf-8"))
    assert (usual["name"], usual["metric"]) == ("usual tags", "overall_f1")
    assert usual["run_value"] == run.metrics["eval_overall_f1"]
    [answer, same] = run.predict(["Grace lives in Rome.", ["Grace", "lives", "in", "Rome", "."]])
    assert same.label == answer.label
    assert answer.shown == "PER Grace, LOC Rome"
    assert answer.label == ["B-PER", "O", "O", "B-LOC", "O"]
    assert [(e["entity_group"], e["word"]) for e in answer.extra["entities"]] == [("PER", "Grace"), ("LOC", "Rome")]
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS[:5]), encoding="utf-8")
    assert unfreeze.evaluate(run.folder, tmp_path / "more.jsonl")["eval_overall_f1"] == 1.0
    command = [sys.executable, "-m", "unfreeze", "predict", str(run.folder), str(tmp_path / "more.jsonl")]
    subprocess.run([*command, "--output", str(tmp_path / "labelled.jsonl")], check=True, capture_output=True)
    labelled = [json.loads(line) for line in (tmp_path / "labelled.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["label"] for row in labelled] == [row["tags"] for row in ROWS[:5]]
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "PER" in report


def test_upper_layers_are_trained_on_recorded_inputs(model: Path, tmp_path: Path) -> None:
    run = unfreeze.train(
        ROWS, task="token-classification", model=str(model), output=tmp_path / "run", schedule="head",
        settings=["train.epochs=20", f"cache.folder={tmp_path / 'cache'}"],
    )  # fmt: skip
    refused = [e.values["text"] for e in run.events("notice") if "not recorded" in str(e.values["text"])]
    assert not refused
    assert [e.values["boundary"] for e in run.events("recorded")] == ["head"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": ["Ada", "sleeps"], "tags": ["B-PER"]}, "2 words and 1 tags"),
        ({"tokens": ["Ada"], "tags": ["B-PRE"]}, "did you mean 'B-PER'"),
        ({"tokens": ["Ada", None], "tags": ["B-PER", "O"]}, "a value in the list"),
        ({"tokens": None, "tags": ["O"]}, "there are no words"),
        ({"tokens": [], "tags": []}, "there are no words"),
        ({"tokens": " ", "tags": []}, "there are no words"),
        ({"tokens": [["Ada"]], "tags": ["O"]}, "holds lists, not words"),
        ({"tokens": ["\ud83d"], "tags": ["O"]}, "cannot be tokenized"),
        ({"tokens": ["Ada"], "tags": "B-PER"}, "no list of words or tags"),
    ],
)
def test_a_row_that_does_not_fit_is_named(model: Path, row: dict[str, Any], said: str) -> None:
    task = bound(model, ROWS)
    with pytest.raises(DataError, match=said) as caught:
        task.encode(Row(6, row, "names.jsonl:7"), train=True)
    assert caught.value.where == "names.jsonl:7"


def test_words_of_a_byte_level_tokenizer_keep_their_space(model: Path) -> None:
    """As RoBERTa's plain text: the word after the first is no middle of one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [*"Adain", "\u0120"]
    bytes_ = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(set(letters)))}, merges=[]))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    task = bound(model, ROWS)
    task.processor = PreTrainedTokenizerFast(tokenizer_object=bytes_, unk_token=None)
    ids, starts = task._tokens(["Ada", "in"], 64, "x:1")
    assert task.processor.convert_ids_to_tokens(ids) == [*"Ada", "\u0120", *"in"]
    assert starts == [0, 3]


def test_columns_are_recognised_and_what_is_unclear_is_asked() -> None:
    task = TokenClassification()
    table = read([{"id": 1, "words": ["a"], "ner_tags": ["O"], "pos_tags": ["NN"]}]).train
    roles = task.find_roles(table, None, needs_label=True)
    assert (roles.text, roles.label) == (("words",), "ner_tags")
    unclear = read([{"words": ["a"], "left": ["O"], "right": ["NN"]}]).train
    with pytest.raises(DataError, match="left, right could be"):
        task.find_roles(unclear, None, needs_label=True)
    with pytest.raises(DataError, match="no column holds lists of words"):
        task.find_roles(read([{"text": "a", "label": "b"}]).train, None, needs_label=True)


def test_one_tag_throughout_is_refused(model: Path) -> None:
    with pytest.raises(DataError, match="every word has the tag 'O'"):
        bound(model, [{"tokens": ["a"], "tags": ["O"]}] * 4)


def test_ids_are_names_where_the_data_names_them() -> None:
    task = TokenClassification()
    table = read([{"tokens": ["a", "b"], "tags": [0, 2]}, {"tokens": ["c"], "tags": [1]}]).train
    roles = task.find_roles(table, None, needs_label=True)
    space = task.learn(table, roles, ["O", "B-PER", "I-PER"])
    assert space.labels == ("O", "B-PER", "I-PER")
    assert space.types == ("PER",)
    assert task.restore_targets(space.to_json()) == space


def test_ids_of_other_data_count_its_own_tags(model: Path) -> None:
    task = bound(model, ROWS)
    table = read([{"tokens": ["Ada", "sleeps"], "tags": [1, 0]}, {"tokens": ["It"], "tags": [0]}]).train
    assert task.relabelled(table, ["O", "B-PER"]).column("tags") == [["B-PER", "O"], ["O"]]
    task.targets = learn_tags([[0, 1]], ["B-PER", "O"], "'tags'", str)
    assert task.relabelled(table, ["O", "B-PER"]).column("tags") == [["B-PER", "O"], ["O"]]
    assert task.relabelled(table, ["B-PER", "O"]) is table
    task.targets = learn_tags([[0, 1]], None, "'tags'", str)
    assert task.relabelled(table, ["O", "B-PER"]) is table, "the training rows have these numbers, too"


def test_a_row_without_tags_cannot_be_trained_on(model: Path) -> None:
    task = bound(model, ROWS)
    with pytest.raises(DataError, match="no tags"):
        task.encode(Row(0, {"tokens": ["Ada"], "tags": None}, "x:1"), train=True)


def test_a_table_is_read_as_tags_only_where_it_cannot_be_read_otherwise() -> None:
    lists = {"tokens": ["Ada", "sleeps"], "tags": ["B-PER", "O"]}
    assert "a tag for each word" in str(TokenClassification.recognises(read([lists] * 3).train))
    both = [{**lists, "text": f"Ada sleeps {i}", "intent": "ab"[i % 2]} for i in range(20)]
    assert TokenClassification.recognises(read(both).train) is None
    assert TokenClassification.recognises(read([{"tokens": ["Ada"], "tags": ["a", "b"]}]).train) is None
    assert TokenClassification.recognises(read([{"text": "Ada", "label": "b"}]).train) is None


def test_a_rare_tag_is_never_held_out(model: Path, tmp_path: Path) -> None:
    rare = {"tokens": ["Curie", "sleeps"], "tags": ["B-CHEMIST", "O"]}
    for seed in range(5):
        plan = unfreeze.plan([*ROWS, rare], model=str(model), seed=seed)
        assert "B-CHEMIST" in plan.identity["labels"]


def test_a_head_goes_on_where_it_knows_these_tags(model: Path, tmp_path: Path) -> None:
    settings = ["train.epochs=1", f"cache.folder={tmp_path / 'cache'}"]
    run = unfreeze.train(ROWS, model=str(model), output=tmp_path / "run", schedule="head", settings=settings)
    again = unfreeze.plan(ROWS, model=str(run.folder))
    assert any("its head goes on" in note for note in again.data["notes"])
    fewer = [{"tokens": row["tokens"], "tags": [tag.replace("LOC", "PLACE") for tag in row["tags"]]} for row in ROWS]
    assert any("new: B-PLACE" in note for note in unfreeze.plan(fewer, model=str(run.folder)).data["notes"])


def test_a_mistake_is_shown_as_spans_or_as_the_words_that_are_wrong(model: Path) -> None:
    task = bound(model, ROWS)
    row = Row(0, ROWS[0], "x:1")
    assert task.mistake(row, ROWS[0]["tags"]) is None
    assert task.mistake(row, ["O"] * 5) == ("PER Ada, LOC London", "(none)")
    kinds = [{"tokens": ["Ada", "sleeps"], "tags": ["NN", "VB"]}, {"tokens": ["Rain"], "tags": ["NN"]}]
    assert bound(model, kinds).mistake(Row(0, kinds[0], "x:1"), ["NN", "NN"]) == ("sleeps/VB", "sleeps/NN")
    assert bound(model, kinds).mistake(Row(0, kinds[0], "x:1"), ["NN", "VB"]) is None


def test_names_of_several_columns_of_ids_become_names() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "pos_tags": datasets.Sequence(datasets.ClassLabel(names=["NN", "VB"])),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
        }
    )
    rows = {"tokens": [["Ada", "sleeps"]], "pos_tags": [[0, 1]], "ner_tags": [[1, 0]]}
    splits = read(datasets.Dataset.from_dict(rows, features=features))
    assert splits.train.row(0).values["ner_tags"] == ["B-PER", "O"]
    assert splits.train.row(0).values["pos_tags"] == ["NN", "VB"]


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("PER", "such as 'B-PER', but for 'PER' (1 word)"),
        ("b-PER", "'b-PER'"),
        ("0", "'0'"),
        ("L-PER", "in the BILOU scheme (L-PER)"),
    ],
)
def test_one_odd_tag_does_not_make_words_of_all_spans(tag: str, said: str) -> None:
    rows = [["B-PER", "I-PER", "O"]] * 5 + [["B-PER", tag, "O"]]
    with pytest.raises(DataError) as caught:
        learn_tags(rows, None, "tags", lambda i: f"row {i}")
    assert caught.value.code == "DATA-LABEL"
    assert said in caught.value.what
    assert learn_tags([["B", "O", "I"]] * 2, None, "tags", str).types == (), "kinds of words as they are"


def test_a_file_of_plain_sentences_is_answered(model: Path, tmp_path: Path) -> None:
    run = unfreeze.train(
        ROWS, model=str(model), output=tmp_path / "run", settings=["train.epochs=1", "baselines=false"]
    )
    (tmp_path / "new.csv").write_text("text\nAda lives in London.\nGrace sleeps in Rome.\n")
    answers = list(unfreeze.predict(run, tmp_path / "new.csv"))
    assert [a.extra["words"][0] for a in answers] == ["Ada", "Grace"]
    assert [a.label for a in answers] == [
        a.label for a in run.predict(["Ada lives in London.", "Grace sleeps in Rome."])
    ]
