"""Tasks whose answer is a text that the model writes: loss, answers, several true texts, recording, service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import unfreeze
from unfreeze.data.sources import read
from unfreeze.errors import DataError, ModelError, TaskError, UnfreezeError
from unfreeze.evaluation import evaluate_rows
from unfreeze.preparation import prepare
from unfreeze.recipe import Recipe
from unfreeze.tasks._generation import WritingTask, WrittenSpace
from unfreeze.tasks.base import Task
from unfreeze.tasks.summarization import Summarization, first_sentences
from unfreeze.tasks.text2text_generation import Text2TextGeneration
from unfreeze.testing import WritingArchitecture, check_task, tiny_model, tiny_writing_model

NAMES, PLACES = ("Ada", "Grace", "Marie", "Emmy"), ("London", "Oslo", "Rome", "Paris")
ROWS = [{"input": f"{a} lives in {b}.", "target": f"{b} has {a}"} for a in NAMES for b in PLACES] * 4
TALKS = [
    {"dialogue": f"{a}: I live in {b}.\nGrace: Is it far?\n{a}: No.\nGrace: Good.", "summary": f"{a} lives in {b}"}
    for a in NAMES
    for b in PLACES
]
QUICK = ["train.epochs=6", "train.learning_rate=3e-3", "data.validation=0.2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[WritingArchitecture, Path]:
    folder = tmp_path_factory.mktemp("writers")
    texts = [" ".join(row.values()) for row in [*ROWS, *TALKS]]
    architectures: tuple[WritingArchitecture, ...] = ("t5", "bart")
    return {name: tiny_writing_model(folder / name, name, texts=texts) for name in architectures}


def bound(
    model: Path, rows: list[dict[str, Any]], kind: type[WritingTask] = Text2TextGeneration, **options: Any
) -> Any:
    from unfreeze.models.loading import load_config, resolve

    task, table, source = kind(**options), read(rows).train, resolve(str(model))
    roles = task.find_roles(table, None, needs_label=True)
    task.bind(roles=roles, targets=task.learn(table, roles, None), processor=task.load_processor(source), max_length=64)
    task.max_length = task.longest_input(None, table, load_config(source))[0]
    return task


def loaded(task: Task, model: Path) -> Any:
    from unfreeze.models.loading import load_config, resolve

    return task.build(resolve(str(model)), load_config(resolve(str(model)))).model


def batch_of(task: Task, rows: list[dict[str, Any]], *, train: bool = True) -> Any:
    return task.collate([e for row in read(rows).train for e in task.encode(row, train=train)])


@pytest.mark.parametrize("architecture", ["t5", "bart"])
@pytest.mark.parametrize("kind", [Summarization, Text2TextGeneration])
def test_the_contract_is_kept(kind: type[Task], architecture: WritingArchitecture, tmp_path: Path) -> None:
    words = [str(value) for row in kind().sample_rows() for value in row.values()]
    model = tiny_writing_model(tmp_path / "tiny", architecture, texts=words)
    assert "the predictor answers as evaluation" in check_task(kind, model=model)


@pytest.mark.parametrize("architecture", ["t5", "bart"])
class TestBesideTransformers:
    """Loss and answers are those of the model's own code on the same texts."""

    def test_the_loss_is_the_models_own(
        self, architecture: WritingArchitecture, models: dict[WritingArchitecture, Path]
    ) -> None:
        task = bound(models[architecture], ROWS[:5])
        model, batch = loaded(task, models[architecture]), batch_of(task, ROWS[:5])
        with torch.no_grad():
            term = task.loss(model, batch).terms["loss"]
            kept = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
            wanted = model(**kept, labels=batch.targets.tokens).loss
        assert float(term.sum) / batch.weights["written tokens"] == pytest.approx(float(wanted), rel=1e-5)

    def test_answers_are_those_of_generate_row_by_row(
        self, architecture: WritingArchitecture, models: dict[WritingArchitecture, Path]
    ) -> None:
        task = bound(models[architecture], ROWS[:5], beams=3)
        model, batch = loaded(task, models[architecture]), batch_of(task, ROWS[:5], train=False)
        tokenizer = AutoTokenizer.from_pretrained(models[architecture])
        with torch.no_grad():
            said = [p.label for p in task.decode(task.answer(model, batch), batch)]
            for row, text in zip(ROWS[:5], said, strict=True):
                ids = tokenizer(row["input"], return_tensors="pt")
                ids.pop("token_type_ids", None)
                alone = model.generate(
                    **ids, num_beams=3, early_stopping=True, max_new_tokens=task.targets.most_tokens, max_length=None
                )
                assert tokenizer.batch_decode(alone, skip_special_tokens=True) == [text]


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_trained_it_writes_what_it_was_shown(
    architecture: WritingArchitecture, models: dict[WritingArchitecture, Path], tmp_path: Path
) -> None:
    """With the encoder frozen first, and recorded; the folder serves transformers too."""
    run = unfreeze.train(
        ROWS,
        task="text2text-generation",
        model=str(models[architecture]),
        schedule="gradual",
        output=tmp_path / "run",
        settings=[*QUICK, "train.epochs=40", f"cache.folder={tmp_path / 'cache'}"],
    )
    assert run.metrics["eval_rouge1"] > 0.9
    [said] = run.predict(["Ada lives in Rome."])
    assert said.label == "rome has ada"
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    [recorded] = [event for event in events if event["kind"] == "recorded"]
    assert recorded["boundary"] == "group 2", "of two layers each: the decoder begins with the third"
    phases = [event["name"] for event in events if event["kind"] == "phase"]
    assert phases == ["upper half", "all"], "a head that the model brings is not trained alone"
    baselines = json.loads((run.folder / "baselines.json").read_text())
    assert [b["name"] for b in baselines] == ["copy"]
    assert baselines[0]["difference"]["low"] > 0
    model = AutoModelForSeq2SeqLM.from_pretrained(run.model_folder)
    tokenizer = AutoTokenizer.from_pretrained(run.model_folder)
    ids = tokenizer("Ada lives in Rome.", return_tensors="pt")
    ids.pop("token_type_ids", None)
    written = model.generate(**ids, num_beams=4, max_new_tokens=12, max_length=None)
    assert tokenizer.batch_decode(written, skip_special_tokens=True) == ["rome has ada"]
    assert "AutoModelForSeq2SeqLM" in (run.model_folder / "README.md").read_text()
    assert "ROUGE-L" in run.report().read_text()


def test_recorded_and_not_the_model_is_the_same(models: dict[WritingArchitecture, Path], tmp_path: Path) -> None:
    """A model without dropout, so that nothing but rounding can differ."""
    made = []
    for enabled, cache in (("true", f"cache.folder={tmp_path / 'cache'}"), ("false", "cache.enabled=false")):
        run = unfreeze.train(
            ROWS,
            task="text2text-generation",
            model=str(tiny_writing_model(tmp_path / "plain", dropout_rate=0.0)),
            schedule="last(2)",
            output=tmp_path / enabled,
            settings=[*QUICK, cache, "baselines=false"],
        )
        made.append(run.metrics)
    assert made[0]["eval_loss"] == pytest.approx(made[1]["eval_loss"], rel=1e-2)


def test_evaluations_while_training_write_nothing(models: dict[WritingArchitecture, Path]) -> None:
    task = bound(models["t5"], ROWS[:8])
    model, calls = loaded(task, models["t5"]), []
    generate = model.generate
    model.generate = lambda **kwargs: calls.append(1) or generate(**kwargs)
    table = read(ROWS[:8]).train
    quick = evaluate_rows(task, model, table, answers=False, intervals=False)
    assert calls == []
    assert "rougeL" not in quick.metrics
    whole = evaluate_rows(task, model, table)
    assert calls
    assert whole.loss == pytest.approx(quick.loss)
    assert whole.metrics["perplexity"] == pytest.approx(np.exp(whole.loss), rel=1e-5)
    assert whole.metrics["rougeL"] is not None


def test_with_beams_fewer_rows_are_answered_at_once(models: dict[WritingArchitecture, Path]) -> None:
    """Each beam is a row for the model."""

    def most_at_once(beams: int) -> int:
        task, seen = bound(models["t5"], ROWS[:16], beams=beams), []
        model = loaded(task, models["t5"])
        generate = model.generate
        model.generate = lambda **kwargs: seen.append(len(kwargs["input_ids"])) or generate(**kwargs)
        evaluate_rows(task, model, read(ROWS[:16]).train, budget_tokens=120)
        return max(seen)

    assert most_at_once(4) <= -(-most_at_once(1) // 2)


class TestTrueTexts:
    def test_a_list_holds_several_and_the_first_is_trained_on(self, models: dict[WritingArchitecture, Path]) -> None:
        rows = [{"input": r["input"], "target": [r["target"], "another"]} for r in ROWS[:4]]
        batch = batch_of(bound(models["t5"], rows), rows)
        assert batch.targets.texts[0] == (ROWS[0]["target"], "another")
        assert torch.equal(batch.targets.tokens, batch_of(bound(models["t5"], ROWS[:4]), ROWS[:4]).targets.tokens)

    def test_numbered_columns_of_a_split_are_gathered(
        self, models: dict[WritingArchitecture, Path], tmp_path: Path
    ) -> None:
        """As DialogSum's test file has them."""
        folder = tmp_path / "talks"
        folder.mkdir()
        numbered = [
            {"dialogue": r["dialogue"], "summary2": r["summary"], "summary1": "They talk.", "summary3": None}
            for r in TALKS[:4]
        ]
        for name, rows in (("train", TALKS), ("test", numbered)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = unfreeze.train(folder, model=str(models["t5"]), output=tmp_path / "run", settings=[*QUICK, "seed=1"])
        assert run.plan["task"] == "summarization", "recognised by its columns"
        found = run.evaluate(folder / "test.jsonl")
        assert found["eval_rougeL"] == pytest.approx(run.metrics["test_rougeL"])
        assert [b["name"] for b in json.loads((run.folder / "baselines.json").read_text())] == ["lead-3"]

    @pytest.mark.parametrize("value", [None, "  ", []])
    def test_a_row_without_one_is_refused_with_its_place(
        self, value: Any, models: dict[WritingArchitecture, Path], tmp_path: Path
    ) -> None:
        rows: list[dict[str, Any]] = [dict(row) for row in ROWS]
        if value == []:
            rows = [{**row, "target": [row["target"]]} for row in rows]
        rows[5]["target"] = value
        with pytest.raises(DataError, match="1 of 64 train rows have no label") as caught:
            unfreeze.train(rows, task="text2text-generation", model=str(models["t5"]), output=tmp_path / "run")
        assert caught.value.where == "data:6"
        assert not (tmp_path / "run").exists()

    def test_numbers_are_no_texts_to_write(self, models: dict[WritingArchitecture, Path], tmp_path: Path) -> None:
        rows = [{"input": row["input"], "target": i} for i, row in enumerate(ROWS)]
        with pytest.raises(DataError, match="neither a text nor a list of texts"):
            unfreeze.train(rows, task="text2text-generation", model=str(models["t5"]), output=tmp_path / "run")

    def test_numbers_in_test_rows_are_refused_before_training(self, models: dict[WritingArchitecture, Path]) -> None:
        recipe = Recipe.build({"model": str(models["t5"]), "task": "text2text-generation"})
        with pytest.raises(DataError, match="neither a text nor a list of texts") as caught:
            prepare(recipe, ROWS, test=[{"input": "Ada lives in Rome.", "target": 5}])
        assert caught.value.where == "test:1"

    def test_long_ones_are_cut_counted_and_do_not_teach_to_stop(self, models: dict[WritingArchitecture, Path]) -> None:
        task = bound(models["t5"], ROWS[:4], most_written=2)
        [example] = task.encode(read(ROWS[:1]).train.row(0), train=True)
        assert len(example.target.tokens) == 2
        assert not example.is_cut, "what is read was not cut"
        assert task.processor.eos_token_id not in example.target.tokens
        assert task.targets.share_cut == 1.0
        assert "are longer and are cut" in {key: why for key, _, why in task.planned()}["options.most_written"]


class TestColumns:
    def test_what_is_read_and_what_is_written_by_their_names(self) -> None:
        table = read([{"id": 1, "highlights": "b", "article": "a c"}, {"id": 2, "highlights": "d", "article": "e f"}])
        roles = Summarization().find_roles(table.train, None, needs_label=True)
        assert (roles.text, roles.label) == (("article",), "highlights")
        assert Summarization.recognises(table.train) is not None
        assert Summarization.recognises(read([{"text": "a", "label": "b"}] * 2).train) is None

    def test_no_column_to_write_is_an_error_that_says_what_to_type(self) -> None:
        with pytest.raises(DataError, match="text to write") as caught:
            Summarization().find_roles(read([{"article": "a b", "x": "c"}] * 2).train, None, needs_label=True)
        assert "data.label" in str(caught.value.remedy)

    def test_to_predict_only_what_is_read_must_be_there(self) -> None:
        roles = Summarization().find_roles(read([{"article": "a b"}] * 2).train, None, needs_label=False)
        assert (roles.text, roles.label) == (("article",), None)


class TestRefusals:
    def test_a_model_that_cannot_write(self, tmp_path: Path) -> None:
        model = tiny_model(tmp_path / "bert")
        with pytest.raises(ModelError, match="no form for Seq2SeqLM"):
            unfreeze.train(TALKS, task="summarization", model=str(model), output=tmp_path / "run")

    def test_no_model_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="comes with unfreeze yet") as caught:
            unfreeze.train(TALKS, output=tmp_path / "run")
        assert "bart-base" in str(caught.value.remedy)

    @pytest.mark.parametrize(
        "options",
        [{"beams": 0}, {"most_written": 1}, {"prefix": 3}, {"length_penalty": float("nan")}, {"beams": True}],
    )
    def test_options_that_mean_nothing(self, options: dict[str, Any]) -> None:
        with pytest.raises(TaskError, match=next(iter(options))):
            Summarization(**options)

    def test_more_beams_than_anybody_waits_for(self) -> None:
        with pytest.raises(TaskError, match="at most 64 are followed"):
            Summarization(beams=100_000)

    def test_more_than_the_model_can_write(self, models: dict[WritingArchitecture, Path]) -> None:
        with pytest.raises(UnfreezeError, match="writes at most 64"):
            bound(models["bart"], ROWS[:4], most_written=65)


def test_the_prefix_is_put_before_every_text(models: dict[WritingArchitecture, Path]) -> None:
    shown = bound(models["t5"], ROWS[:4], prefix="rome: ")
    tokens = shown.encode(read(ROWS[:1]).train.row(0), train=False)[0].inputs["input_ids"]
    wanted = shown.processor("rome: " + ROWS[0]["input"])["input_ids"]
    assert tokens.tolist() == wanted


def test_what_is_known_of_the_texts_is_stored_with_the_model(models: dict[WritingArchitecture, Path]) -> None:
    task = bound(models["bart"], ROWS[:4])
    assert task.targets.start_token == 3
    assert task.restore_targets(task.targets.to_json()) == task.targets
    assert isinstance(task.targets, WrittenSpace)
    assert task.tokens_written == 4 * task.targets.most_tokens


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three? Four.", "One. Two! Three?"),
        ("A: Hi.\nB: Hello there. Well.\nA: Yes.\nB: No.", "A: Hi.\nB: Hello there. Well."),
        ("No end", "No end"),
        ('He said "Stop." Then he left. It rained. Nobody came.', 'He said "Stop." Then he left. It rained.'),
        ("一。二。三。四。", "一。二。三。"),
        ("A: hello\nB: hello\nA: is it\nB: no", "A: hello\nB: hello\nA: is it"),
        ('It is. "Is it?" she asked. "No!" Then rain.', 'It is. "Is it?" she asked.'),
    ],
)
def test_the_first_sentences(text: str, wanted: str) -> None:
    assert first_sentences(text) == wanted


@pytest.mark.parametrize(
    ("rows", "is_meant"),
    [
        ([{"input": f"text {i}", "target": f"another text {i}"} for i in range(8)], True),
        ([{"source": f"text {i}", "output": f"another text {i}"} for i in range(8)], True),
        ([{"input": f"text {i}", "target": ("yes it is", "no it is not")[i % 2]} for i in range(8)], False),
        ([{"input": f"text {i}", "target": f"word{i}"} for i in range(8)], False),
        ([{"input": f"text {i}", "target": f"another text {i}", "label": "a"} for i in range(8)], False),
        ([{"instruction": "do", "input": f"text {i}", "output": f"another text {i}"} for i in range(8)], False),
        ([{"text": f"text {i}", "answer": f"another text {i}"} for i in range(8)], False),
    ],
)
def test_texts_to_write_are_seen_from_the_rows(rows: list[dict[str, str]], is_meant: bool) -> None:
    assert (Text2TextGeneration.recognises(read(rows).train) is not None) is is_meant
