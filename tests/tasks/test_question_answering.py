"""Answers in texts: where they stand, windows, no answer, scores, and SQuAD's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import unfreeze
from unfreeze.data.sources import read
from unfreeze.errors import DataError, TaskError
from unfreeze.metrics.answers import AnswerState, exact_match, normalised_answer, scores, word_f1
from unfreeze.tasks.question_answering import QuestionAnswering, QuestionSpace, _Found
from unfreeze.testing import check_task, tiny_model
from unfreeze.types import Row

NAMES = ("Ada", "Grace", "Marie", "Emmy", "Sofia", "Lise")
PLACES = ("London", "Oslo", "Rome", "Paris")


def question(i: int, *, answered: bool = True) -> dict[str, Any]:
    name, place = NAMES[i % 6], PLACES[i // 6 % 4]
    context = (f"{name} lives in {place}.", f"In {place} rain falls and {name} sleeps.")[i // 24 % 2]
    is_where = (i + i // 6) % 2
    asked = ("Who is it?", "Where is it?")[is_where]
    if not answered:
        return {"question": "Why is it?", "context": context, "answers": []}
    return {"question": asked, "context": context, "answers": [(name, place)[is_where]]}


ROWS = [question(i) for i in range(96)]
SOME_WITHOUT = [question(i, answered=(i + i // 6 + i // 24) % 3 != 0) for i in range(96)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [f"{row['question']} {row['context']}" for row in [*ROWS, *SOME_WITHOUT]]
    return tiny_model(tmp_path_factory.mktemp("questions") / "tiny", texts=texts)


def bound(model: Path, rows: list[dict[str, Any]], max_length: int = 64, **options: Any) -> QuestionAnswering:
    from unfreeze.models.loading import resolve

    task, table = QuestionAnswering(**options), read(rows).train
    roles = task.find_roles(table, None, needs_label=True)
    processor = task.load_processor(resolve(str(model)))
    return task.bind(roles=roles, targets=task.learn(table, roles, None), processor=processor, max_length=max_length)


def test_the_contract_is_kept(model: Path) -> None:
    assert "save and load predict the same" in check_task(QuestionAnswering)
    assert "save and load predict the same" in check_task(QuestionAnswering, SOME_WITHOUT[:6], model)


class TestSpans:
    def test_the_tokens_of_the_answer(self, model: Path) -> None:
        task = bound(model, ROWS)
        [example] = task.encode(Row(0, {**ROWS[0], "answers": ["lives in London"]}, "x:1"), train=True)
        tokens = task.processor.convert_ids_to_tokens(example.inputs["input_ids"].tolist())
        first, last = example.target.span
        assert tokens[first : last + 1] == ["lives", "in", "london"]

    @pytest.mark.parametrize(("said", "expected"), [("17", 17), (17, 17), ("15", 17), (0, 0), (None, 0), ("", 0)])
    def test_the_occurrence_nearest_to_where_it_is_said_to_stand(self, model: Path, said: Any, expected: int) -> None:
        row = {
            "question": "Who is it?",
            "context": "Ada sleeps. Rain Ada sleeps.",
            "answers": "Ada",
            "answer_start": said,
        }
        [example] = bound(model, ROWS).encode(Row(0, row, "x:1"), train=True)
        assert example.target.offsets[example.target.span[0], 0] == expected

    def test_a_long_question_is_cut_and_the_row_counts_as_cut(self, model: Path) -> None:
        task = bound(model, ROWS, max_length=32)
        [example] = task.encode(Row(0, {**ROWS[0], "question": "Who sleeps where " * 20}, "x:1"), train=True)
        assert example.is_cut
        assert len(example.inputs["input_ids"]) <= 32
        assert example.target.span != (0, 0)

    def test_windows_share_what_was_asked(self, model: Path) -> None:
        context = " ".join(["rain falls and Ada sleeps"] * 20)
        row = {"question": "Who is it?", "context": context, "answers": ["Ada"]}
        for stride in (2, 10):
            one, two, *_ = bound(model, ROWS, max_length=32, stride=stride).encode(Row(0, row, "x:1"), train=True)
            assert (
                len({tuple(o) for o in one.target.offsets} & {tuple(o) for o in two.target.offsets} - {(-1, -1)})
                == stride
            )

    def test_windows_show_the_whole_answer_or_say_that_they_do_not(self, model: Path) -> None:
        words = " ".join(["rain falls and"] * 20)
        context = f"{words} Ada sleeps. {words}"
        task = bound(model, ROWS, max_length=32, stride=8)
        row = {"question": "Who is it?", "context": context, "answers": ["Ada"]}
        examples = task.encode(Row(0, row, "x:1"), train=True)
        assert len(examples) > 3
        assert [e.part for e in examples] == list(range(len(examples)))
        held = [e for e in examples if e.target.span != (0, 0)]
        assert held
        for e in held:
            first, last = e.target.span
            assert context[e.target.offsets[first, 0] : e.target.offsets[last, 1]] == "Ada"
        for e in examples:
            shown = context[e.target.offsets[:, 0].max(initial=0, where=e.target.offsets[:, 0] >= 0) :]
            assert ("Ada" in task.target_shown(e.target)) == (e.target.span != (0, 0)), shown

    def test_an_answer_is_found_where_it_is_said_to_stand(self, model: Path) -> None:
        task = bound(model, ROWS)
        row = {"question": "Who is it?", "context": "Ada sleeps and Ada lives.", "answers": ["Ada"]}
        starts = {}
        for start in (0, 15, 3):
            [example] = task.encode(Row(0, {**row, "answer_start": [start]}, "x:1"), train=True)
            starts[start] = int(example.target.offsets[example.target.span[0], 0])
        assert starts == {0: 0, 15: 15, 3: 0}, "where the place is wrong, the first of its occurrences"
        hub = {**row, "answers": {"text": ["Ada"], "answer_start": [15]}}
        [example] = task.encode(Row(0, hub, "x:1"), train=True)
        assert int(example.target.offsets[example.target.span[0], 0]) == 15

    def test_the_best_span_is_in_the_text_in_order_and_short(self, model: Path) -> None:
        task = bound(model, ROWS, longest_answer=2)
        [example] = task.encode(Row(0, {**ROWS[0], "answers": ["Ada"]}, "x:1"), train=True)
        batch = task.collate([example])
        logits = torch.zeros(1, len(example.inputs["input_ids"]), 2)
        places = np.flatnonzero(example.target.offsets[:, 0] >= 0)
        logits[0, 0] = 50.0  # the first token is of no text
        logits[0, places[0], 0], logits[0, places[1], 0] = 5.0, 4.0
        logits[0, places[3], 1], logits[0, places[2], 1] = 9.0, 6.0
        [found] = task.answers(logits, batch)
        assert found.text == "lives in", "the best pair is too long, the next goes backwards"
        assert found.score == 10.0
        assert found.none_score == 100.0

    @pytest.mark.parametrize(
        ("options", "longest", "told"),
        [
            ({}, 40, "tokens of an answer, at most"),
            ({"longest_answer": 2}, 2, "at most; 1.0% of the training answers are longer and can never be given"),
        ],
    )
    def test_answers_may_be_as_long_as_the_training_answers_are(
        self, model: Path, options: dict[str, int], longest: int, told: str
    ) -> None:
        whole = " ".join(["rain falls and Ada sleeps"] * 8)
        rows = [*ROWS, {"question": "Who is it?", "context": f"Grace lives. {whole}", "answers": [whole]}]
        task, table = bound(model, rows, **options), read(rows).train
        task.longest_input(64, table, None)
        value, why = {key: found for key, *found in task.planned()}["options.longest_answer"]
        assert value == longest
        assert why.endswith(told)
        [example] = task.encode(table.row(len(ROWS)), train=True)
        logits = torch.zeros(1, example.length, 2)
        first, last = example.target.span
        logits[0, first, 0], logits[0, last, 1] = 9.0, 9.0
        [found] = task.answers(logits, task.collate([example]))
        assert (found.text == whole) is (longest == 40)
        assert task.restore_targets(task.targets.to_json()) == task.targets

    def test_short_training_answers_leave_room_for_the_usual_ones(self, model: Path) -> None:
        task = bound(model, ROWS)
        task.longest_input(64, read(ROWS).train, None)
        assert task.targets.longest_answer == 30
        assert task.targets.share_longer == 0

    def test_a_long_question_leaves_room_for_the_text(self, model: Path) -> None:
        task = bound(model, ROWS, max_length=24)
        examples = task.encode(Row(0, {**ROWS[0], "question": "Who is it? " * 30}, "x:1"), train=True)
        assert any(e.target.span != (0, 0) for e in examples)
        assert all(e.length <= 24 for e in examples)


class TestScores:
    def test_they_are_squads(self) -> None:
        assert normalised_answer("The  quick, brown 'fox'!") == "quick brown fox"
        assert exact_match("the Fox", "fox.") == 1
        assert word_f1("a quick fox", "the quick brown fox") == pytest.approx(2 * 2 / 5)
        assert word_f1("", "fox") == 0
        assert scores("fox", ["dog", "brown fox"]) == (0.0, pytest.approx(2 / 3))
        assert scores("", []) == (1.0, 1.0)
        assert scores("fox", []) == (0.0, 0.0)

    def test_states_merge_and_tell_kinds_apart(self) -> None:
        said, true = ["fox", "", "dog", ""], [["fox"], [], [], ["cat"]]
        whole, one, two = (AnswerState(True) for _ in range(3))
        whole.update(said, true, np.arange(4))
        one.update(said[:1], true[:1], np.arange(1))
        two.update(said[1:], true[1:], np.arange(1, 4))
        one.merge(two)
        assert one.compute() == whole.compute()
        assert whole.compute() == {
            "exact_match": 0.5,
            "answer_f1": 0.5,
            "has_answer_exact_match": 0.5,
            "has_answer_f1": 0.5,
            "no_answer_accuracy": 0.5,
        }
        assert AnswerState.load(json.loads(json.dumps(whole.state_dict()))).compute() == whole.compute()

    def test_the_threshold_is_where_f1_is_best(self, model: Path) -> None:
        task = bound(model, SOME_WITHOUT)
        metric = task.metric()
        # Answers of a difference above 3 are right, the others belong to questions that have none.
        for difference, known in ((8.0, ["cat"]), (4.0, ["cat"]), (2.0, []), (-5.0, [])):
            place = int(np.searchsorted(np.linspace(-20.0, 20.0, 401), difference))
            metric.sums[:, place] += scores("cat", known)[1], scores("", known)[1]
        assert 2.0 < metric.best_threshold() < 4.0


def test_trained_it_answers_and_says_where_there_is_none(model: Path, tmp_path: Path) -> None:
    run = unfreeze.train(
        SOME_WITHOUT, model=str(model), output=tmp_path / "run", schedule="full",
        settings=[
            "train.epochs=60", "train.learning_rate=1e-2", "train.early_stopping=false",
            f"cache.folder={tmp_path / 'cache'}",
        ],
    )  # fmt: skip
    assert run.plan["task"] == "question-answering", "it is seen from the columns"
    assert run.metrics["eval_answer_f1"] > 0.5
    assert run.metrics["eval_no_answer_accuracy"] is not None
    who, why = run.predict([("Who is it?", "Grace lives in Rome."), ("Why is it?", "Grace lives in Rome.")])
    assert (who.label, who.extra) == ("Grace", {"start": 0, "end": 5})
    assert (why.label, why.shown) == ("", "(no answer)")
    assert (run.folder / "report.html").is_file()


def test_upper_layers_are_trained_on_recorded_inputs(model: Path, tmp_path: Path) -> None:
    run = unfreeze.train(
        ROWS, model=str(model), output=tmp_path / "run", schedule="head",
        settings=["train.epochs=20", f"cache.folder={tmp_path / 'cache'}"],
    )  # fmt: skip
    refused = [e.values["text"] for e in run.events("notice") if "not recorded" in str(e.values["text"])]
    assert not refused
    assert [e.values["boundary"] for e in run.events("recorded")] == ["head"]


def test_an_empty_cell_is_the_answer_that_there_is_none(model: Path, tmp_path: Path) -> None:
    lines = [f"{r['question']},{r['context'].replace(',', '')},{''.join(r['answers'])}" for r in SOME_WITHOUT]
    (tmp_path / "rows.csv").write_text("\n".join(["question,context,answers", *lines]) + "\n")
    from unfreeze.preparation import prepare
    from unfreeze.recipe import Recipe

    recipe = Recipe.build({"model": str(model), "data": {"source": str(tmp_path / "rows.csv")}})
    assert prepare(recipe).task.targets.has_unanswerable


def test_questions_on_one_text_stay_on_one_side(model: Path) -> None:
    rows = [{**question(i), "context": f"{question(i // 4)['context']} {i // 4}"} for i in range(96)]
    rows = [{**row, "answers": [row["context"].split()[0]]} for row in rows]
    from unfreeze.preparation import prepare
    from unfreeze.recipe import Recipe

    prepared = prepare(Recipe.build({"model": str(model)}), rows)
    assert prepared.validation is not None
    assert not set(prepared.train.column("context")) & set(prepared.validation.column("context"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"answers": None}, "no answers in column"),
            ({"answers": 7}, "neither a text nor a list"),
            ({"context": None}, "no text in column 'context'"),
            ({"question": " "}, "no text in column 'question'"),
        ],
    )
    def test_a_row_that_does_not_fit_is_named(self, model: Path, changes: dict[str, Any], said: str) -> None:
        task = bound(model, ROWS)
        with pytest.raises((DataError, TaskError), match=said) as caught:
            task.encode(Row(0, {**ROWS[0], **changes}, "x:7"), train=True)
        assert caught.value.where == "x:7"

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"context": ""}, "no text in column 'context'"),
            ({"question": " "}, "no text in column 'question'"),
        ],
    )
    def test_a_test_row_that_does_not_fit_is_refused_before_training(
        self, model: Path, changes: dict[str, Any], said: str
    ) -> None:
        from unfreeze.preparation import prepare
        from unfreeze.recipe import Recipe

        with pytest.raises(DataError, match=said) as caught:
            prepare(Recipe.build({"model": str(model)}), ROWS, test=[ROWS[0], {**ROWS[1], **changes}])
        assert caught.value.where == "test:2"

    def test_training_answers_that_do_not_stand_in_the_text_are_all_named_before_training(self, model: Path) -> None:
        rows = [{**row, "answers": ["nowhere"]} if i in (3, 5) else row for i, row in enumerate(ROWS)]
        with pytest.raises(DataError, match="2 of 96 training answers do not stand in the text") as caught:
            bound(model, rows)
        assert caught.value.where == "data:4, data:6"

    def test_a_row_to_evaluate_may_have_an_answer_in_other_words(self, model: Path) -> None:
        task = bound(model, ROWS)
        [example] = task.encode(Row(0, {**ROWS[0], "answers": ["in London town"]}, "x:7"), train=True)
        assert example.target.span == (0, 0)
        assert example.target.answers == ("in London town",)

    def test_windows_that_cannot_share_so_much(self, model: Path) -> None:
        task = bound(model, ROWS, stride=40)
        with pytest.raises(TaskError, match="windows of 64 tokens") as caught:
            task.longest_input(64, read(ROWS).train, None)
        assert caught.value.where == "options.stride"

    def test_class_weights_are_neither_taken_nor_advised(self, model: Path) -> None:
        from unfreeze.preparation import prepare
        from unfreeze.recipe import Recipe

        uneven = [question(i, answered=i != 5) for i in range(96)]
        prepared = prepare(Recipe.build({"model": str(model), "data": {"validation": 0}}), uneven)
        assert not any("class_weights" in warning for warning in prepared.data_facts.warnings())

    def test_columns_that_are_not_there(self) -> None:
        task = QuestionAnswering()
        with pytest.raises(DataError, match="no column holds the question"):
            task.find_roles(read([{"context": "a", "answers": ["a"]}]).train, None, needs_label=True)
        with pytest.raises(DataError, match="no column holds the answer"):
            task.find_roles(read([{"question": "a", "context": "a"}]).train, None, needs_label=True)

    def test_options_that_are_no_lengths(self) -> None:
        with pytest.raises(TaskError, match="stride is a number of tokens"):
            QuestionAnswering(stride=0)

    def test_without_any_answer_there_is_nothing_to_learn(self, model: Path) -> None:
        with pytest.raises(DataError, match="no training question has an answer"):
            bound(model, [question(i, answered=False) for i in range(4)])


class TestFiles:
    ARTICLES: ClassVar[dict[str, Any]] = {
        "version": "2.0",
        "data": [
            {
                "title": "Rain",
                "paragraphs": [
                    {
                        "context": "Rain falls in Oslo.",
                        "qas": [
                            {"id": "q1", "question": "Where?", "answers": [{"text": "Oslo", "answer_start": 14}]},
                            {"id": "q2", "question": "Why?", "is_impossible": True, "answers": []},
                        ],
                    }
                ],
            }
        ],
    }

    def test_squads_files_are_read(self, tmp_path: Path) -> None:
        for name in ("train-v2.0.json", "dev-v2.0.json"):
            (tmp_path / name).write_text(json.dumps(self.ARTICLES), encoding="utf-8")
        splits = read(tmp_path)
        assert splits.validation is not None
        rows = [row.values for row in splits.train]
        assert [row["answers"] for row in rows] == [["Oslo"], []]
        assert rows[0] == {
            "id": "q1", "title": "Rain", "context": "Rain falls in Oslo.", "question": "Where?",
            "answers": ["Oslo"], "answer_start": [14],
        }  # fmt: skip
        assert QuestionAnswering.recognises(splits.train) is not None

    @pytest.mark.parametrize("opening", ["{\n", "{"])
    def test_indented_files_are_read_too(self, opening: str, tmp_path: Path) -> None:
        text = json.dumps(self.ARTICLES, indent=2).replace("{\n", opening, 1)
        (tmp_path / "a.json").write_text(f"\n{text}\n", encoding="utf-8")
        assert read(tmp_path / "a.json").train.column("answers") == [["Oslo"], []]
        (tmp_path / "a.json").write_text(text.replace('"qas":', '"qas"'), encoding="utf-8")
        with pytest.raises(DataError, match=r"not JSON: .* at line \d+") as caught:
            read(tmp_path / "a.json")
        assert caught.value.where == "a.json"

    def test_a_broken_part_is_named(self, tmp_path: Path) -> None:
        broken = json.loads(json.dumps(self.ARTICLES))
        del broken["data"][0]["paragraphs"][0]["qas"][1]["question"]
        (tmp_path / "a.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(DataError, match="no 'question'") as caught:
            read(tmp_path / "a.json")
        assert caught.value.where == "a.json, article 1, paragraph 1"


def test_targets_are_stored_and_read_back() -> None:
    space = QuestionSpace(True, 1.5)
    assert QuestionAnswering().restore_targets(space.to_json()) == space
    older = {"has_unanswerable": True, "threshold": 1.5}
    assert QuestionAnswering().restore_targets(older) == space
    assert _Found("", 0, 0, 0.0, 0.0, 0.0).text == ""
