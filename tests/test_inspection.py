from __future__ import annotations

import json
from pathlib import Path

import datasets
import planted
import pytest

from unfreeze.errors import RecipeError
from unfreeze.inspection import inspect

NAMES = ["read", "facts", "encode", "collate", "forward", "decode"]
ROWS = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(planted.texts(20))]


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch, tmp_path_factory.mktemp("planted"))
        yield


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return planted.reviews("reviews.csv")


def test_one_row_goes_through_every_step(reviews):
    steps = {step.name: " ".join(step.lines) for step in inspect(reviews)}
    assert list(steps) == NAMES
    assert "24 train rows" in steps["read"]
    assert "reviews.csv:2" in steps["read"]
    assert "2 classes (positive" in steps["facts"]
    assert "[CLS]" in steps["encode"]
    assert "target 'positive' of 2 classes" in steps["encode"]
    assert "input_ids (1, " in steps["collate"]
    assert "outputs (1, 2)" in steps["forward"]
    assert "'positive' with" in steps["decode"] or "'negative' with" in steps["decode"]


def test_the_row_that_was_asked_for_is_followed(reviews):
    first, other = (inspect(reviews, row=row)[2] for row in (0, 7))
    assert first.lines[0].startswith("training row 0, reviews.csv:")
    assert other.lines[0].startswith("training row 7, reviews.csv:")
    assert first.lines[1] != other.lines[1]
    beyond = inspect(reviews, row=500)[-1]
    assert (beyond.name, beyond.error.code) == ("encode", "DATA-ROW")


def test_every_file_that_the_recipe_names_is_read(reviews):
    planted.reviews("more.csv", rows=20)
    planted.reviews("held-out.csv", rows=8)
    steps = inspect(reviews, settings=["data.test=more.csv", "data.validation=held-out.csv"])
    assert steps[0].lines[0].startswith("24 train, 8 validation, 20 test rows as they lie")
    assert [step.ok for step in steps] == [True] * 6


def test_a_configuration_of_a_hub_set_is_read(tmp_path, monkeypatch):
    def load(path, name):
        if name != "sst2":
            raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['cola', 'sst2']")
        return datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert inspect("glue")[-1].error.code == "DATA-MISSING"
    steps = inspect("glue", settings=["data.config_name=sst2"])
    assert [step.ok for step in steps] == [True] * 6


def test_rows_of_python_objects_are_followed_too():
    assert [step.ok for step in inspect(ROWS)] == [True] * 6


def test_a_run_twice_is_the_same(reviews):
    assert inspect(reviews) == inspect(reviews)


@pytest.mark.parametrize(
    ("settings", "failing", "code"),
    [
        (["data.encoding=utf-16"], "read", "DATA-ENCODING"),
        (["data.label=lable"], "facts", "DATA-COLUMN"),
        (["model=builtin:nothing"], "facts", "MODEL-UNKNOWN"),
    ],
)
def test_the_steps_before_a_failure_are_shown_and_none_after(reviews, settings, failing, code):
    steps = inspect(reviews, settings=settings)
    assert [step.name for step in steps] == NAMES[: NAMES.index(failing) + 1]
    assert [step.ok for step in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1].error.code == code


def test_a_request_that_makes_no_sense_is_refused_at_once(reviews):
    with pytest.raises(RecipeError):
        inspect(reviews, settings=["train.epoch=3"])


def test_the_command_prints_the_steps_and_then_what_failed(reviews):
    said = planted.unfreeze("inspect", "reviews.csv", "--row", "500")
    assert said.status == 2
    assert [line.split()[:2] for line in said.out.splitlines() if not line.startswith(" ")] == [
        ["ok", "read"],
        ["ok", "facts"],
        ["fails", "encode"],
    ]
    assert said.err.startswith("E-DATA-ROW")


def test_the_command_as_json_says_the_same(reviews):
    fine = planted.unfreeze("inspect", "reviews.csv", "--json")
    assert (fine.status, fine.err) == (0, "")
    assert [step["name"] for step in json.loads(fine.out)] == NAMES
    failed = planted.unfreeze("inspect", "reviews.csv", "--json", "--set", "data.label=lable")
    assert json.loads(failed.out)[-1]["error"]["code"] == "E-DATA-COLUMN"
    assert failed.status == 2


def test_a_recipe_is_followed(reviews):
    Path("mine.yaml").write_text("data:\n  source: reviews.csv\n  text: label\n  label: text\n")
    said = planted.unfreeze("inspect", "mine.yaml")
    assert said.err.startswith("E-DATA-COLUMN")


def test_what_does_not_print_is_shown_as_an_escape():
    odd = [{**row, "text": f"\x1b[31m{row['text']}\u202e"} for row in ROWS]
    shown = " ".join(line for step in inspect(odd) for line in step.lines)
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_nothing_is_written(reviews):
    inspect(reviews)
    assert sorted(Path.cwd().iterdir()) == [reviews.absolute()]
