from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import planted
import pytest

from unfreeze import answers, api, cli, errors, recipe
from unfreeze.errors import Interrupted, ModelError, NumericsError, ResourceError, TaskError
from unfreeze.training.interruption import stop_on_signals
from unfreeze.types import Prediction

unfreeze = planted.unfreeze


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with reviews.csv, and a finished run of it."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch, folder / "planted")
        patch.chdir(folder)
        planted.reviews("reviews.csv")
        first = unfreeze("train", "reviews.csv", *planted.QUICK, "--json")
        assert first.status == 0, first.err
        yield SimpleNamespace(folder=folder, run="runs/reviews", first=first, patch=patch)


@pytest.fixture
def run(place):
    return place.folder / place.run


def table(path):
    """Rows of a CSV file."""
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


# help


def test_help_lists_every_verb_with_what_it_does():
    said = unfreeze("--help")
    assert said.status == 0
    verbs = ("train", "plan", "resume", "evaluate", "predict", "inspect", "report", "demo", "env")
    for verb in verbs:
        assert f" {verb} " in said.out
        assert unfreeze(verb, "--help").status == 0
    bare = unfreeze()
    assert (bare.status, bare.out.split()) == (0, said.out.split())


def test_the_usage_line_is_what_one_types():
    assert "Usage: unfreeze train [OPTIONS] [DATA|RECIPE.yaml]" in unfreeze("train", "-h").out


def test_the_version_is_printed():
    from unfreeze import __version__

    assert unfreeze("--version").out == f"unfreeze {__version__}\n"


def test_help_recipe_lists_every_key_on_lines_that_are_not_broken(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = unfreeze("train", "--help-recipe").out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(recipe.keys())
    assert max(map(len, lines)) <= 80


def test_recipe_schema_is_json():
    assert json.loads(unfreeze("train", "--recipe-schema").out) == recipe.json_schema()


# what cannot be understood


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian x", "Did you mean 'train'"),
        ("train x --taks y", "did you mean '--task'"),
        ("train x --learning-rate 3", "see: unfreeze train --help"),
        ("train x --seed one", "'--seed'"),
        ("train x y", "unexpected extra argument"),
        ("train x --set", "requires an argument"),
        ("evaluate run", "Missing argument 'DATA'"),
        ("predict run", "Missing argument 'TEXT...|FILE'"),
        ("predict run x --top-k 0", "--top-k"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_one_block_and_exit_2(line, said):
    found = unfreeze(*shlex.split(line))
    assert found.status == 2
    assert found.out == ""
    assert found.err.startswith("E-USAGE: ")
    assert said in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RecipeError("RECIPE-VALUE", "w"), 2),
        (ModelError("MODEL-BROKEN", "w"), 4),
        (NumericsError("NOT-FINITE", "w"), 5),
        (ResourceError("DISK", "w"), 6),
        (Interrupted("INTERRUPTED", "w"), 75),
    ],
)
def test_every_kind_of_failure_has_its_exit_status(monkeypatch, error, status):
    monkeypatch.setattr(api, "train", lambda **_: (_ for _ in ()).throw(error))
    said = unfreeze("train", "x")
    assert (said.status, said.out) == (status, "")
    assert said.err == f"E-{error.code}: w\n"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MemoryError(), 6, "E-MEMORY"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes"), 6, "E-MEMORY"),
        (PermissionError(13, "Permission denied", "/root/x"), 6, "E-DISK"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("oops"), 1, "E-INTERNAL"),
    ],
)
def test_what_nobody_raised_on_purpose_is_told_as_well(monkeypatch, error, status, code):
    monkeypatch.setattr(api, "train", lambda **_: (_ for _ in ()).throw(error))
    said = unfreeze("train", "x")
    assert said.status == status
    assert code in said.err
    assert ("Traceback" in said.err) == (status == 1)


def test_the_command_is_left_at_once_at_a_second_signal(monkeypatch):
    left = []

    def train(**_):
        with stop_on_signals() as stop:
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
            stop.check()

    monkeypatch.setattr(api, "train", train)
    monkeypatch.setattr(os, "_exit", left.append)
    assert unfreeze("train", "x").status == 75
    assert left == [128 + signal.SIGTERM]


def test_a_message_is_not_read_as_markup(monkeypatch):
    error = errors.DataError("DATA-ROW", "the text [bold]x[/nope] is odd")
    monkeypatch.setattr(api, "train", lambda **_: (_ for _ in ()).throw(error))
    assert "[bold]x[/nope]" in unfreeze("train", "x").err


# train, plan, resume


def test_train_prints_json_alone_and_progress_beside_it(place):
    found = json.loads(place.first.out)
    assert found["run"] == place.run
    assert found["status"] == "done"
    assert 0 <= found["eval_accuracy"] <= 1
    assert "phase 1/1 head" in place.first.err


def test_a_run_is_never_overwritten(place):
    said = unfreeze("train", "reviews.csv", "--output", place.run, *planted.QUICK)
    assert said.status == 2
    assert said.err.startswith("E-RUN-EXISTS")
    assert f"unfreeze resume {place.run}" in said.err


def test_texts_have_no_files_that_could_be_left_out(place, run):
    said = unfreeze("predict", run, place.folder / "reviews.csv", "--drop-broken")
    assert said.status == 2
    assert "these rows are texts" in said.err


def test_plan_shows_every_value_with_its_source_and_writes_nothing(place):
    before = sorted(place.folder.rglob("*"))
    said = unfreeze("plan", "reviews.csv", "--schedule", "last(2)", "--set", "train.epochs=2")
    assert said.status == 0, said.err
    assert sorted(place.folder.rglob("*")) == before
    for shown in ("builtin:text", "last(2)", "named in --set", "named by you", "2 epochs", "train.learning_rate"):
        assert shown in said.out
    assert "2 last 2" in said.out


@pytest.mark.parametrize("columns", [80, 120])
def test_a_plan_fits_the_terminal_and_breaks_no_key(place, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = unfreeze("plan", "reviews.csv").out.splitlines()
    assert max(map(len, lines)) <= columns
    for key in ("train.micro_batch_tokens", "train.evaluations_per_epoch"):
        assert any(line.startswith(f"{key} ") for line in lines)


def test_plan_as_json_is_what_a_run_stores(place):
    said = unfreeze("plan", "reviews.csv", *planted.QUICK, "--json")
    stored = json.loads(Path(place.run, "plan.json").read_text())
    found = json.loads(said.out)
    for key in ("settings", "identity", "data"):
        assert found[key] == stored[key]
    for now, before in zip(found["phases"], stored["phases"], strict=True):
        # What the run has recorded since is there.
        assert (now.pop("is_recorded"), before.pop("is_recorded")) == (now["boundary"] is not None, False)
        del now["source_reason"], before["source_reason"]
        assert now == before


def test_resume_leaves_a_finished_run_as_it_is(place):
    before = {path: path.stat().st_mtime_ns for path in Path(place.run).rglob("*")}
    said = unfreeze("resume", place.run)
    assert said.status == 0
    assert "nothing to do" in said.err
    assert {path: path.stat().st_mtime_ns for path in Path(place.run).rglob("*")} == before


@pytest.mark.parametrize("verb", ["resume", "report", "evaluate", "predict"])
def test_a_run_that_is_not_there_is_refused_with_near_names(place, verb):
    more = {"evaluate": ["reviews.csv"], "predict": ["a text"]}.get(verb, [])
    said = unfreeze(verb, "runs/reviws", *more)
    assert said.status == 2
    assert said.err.startswith("E-RUN-MISSING")
    assert "did you mean 'reviews'" in said.err


# predict


def test_predict_gives_one_line_a_text(place):
    lines = unfreeze("predict", place.run, "fine", "broken").out.splitlines()
    assert len(lines) == 2
    for line in lines:
        label, probability = line.split()
        assert label in ("positive", "negative")
        assert 0.5 <= float(probability) <= 1


def test_predict_as_json_gives_one_object_a_row_with_the_best_labels(place):
    lines = unfreeze("predict", place.run, "fine", "--json", "--top-k", "2").out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [sorted(f) for f in found] == [["label", "probability", "top"]]
    assert sorted(found[0]["top"]) == ["negative", "positive"]
    assert sum(found[0]["top"].values()) == pytest.approx(1)
    assert next(iter(found[0]["top"])) == found[0]["label"]


def test_predict_answers_a_file_like_its_texts_one_by_one(place):
    rows = table("reviews.csv")[:5]
    Path("five.csv").write_text("text\n" + "".join(f'"{r["text"]}"\n' for r in rows))
    of_file = unfreeze("predict", place.run, "five.csv")
    assert of_file.status == 0, of_file.err
    assert of_file.out == unfreeze("predict", place.run, *(r["text"] for r in rows)).out


def test_answers_in_a_csv_stand_beside_the_columns_of_the_user(place):
    Path("new.csv").write_text('id,text,label\n7,"good, ""very""",?\n8,bad,\n')
    said = unfreeze("predict", place.run, "new.csv", "--output", "labelled.csv", "--top-k", "2")
    assert said.status == 0, said.err
    assert (said.out, said.err) == ("", "2 rows written to labelled.csv\n")
    rows = table("labelled.csv")
    assert list(rows[0]) == ["id", "text", "label", "predicted_label", "probability", "top"]
    assert [(r["id"], r["text"], r["label"]) for r in rows] == [("7", 'good, "very"', "?"), ("8", "bad", "")]
    assert {r["predicted_label"] for r in rows} <= {"positive", "negative"}
    assert set(json.loads(rows[0]["top"])) == {"positive", "negative"}


def test_answers_in_jsonl_keep_kinds_of_values(place):
    Path("new.jsonl").write_text('{"text": "good", "n": 3, "tags": ["a"]}\n{"text": "bad", "n": 4, "tags": []}\n')
    assert unfreeze("predict", place.run, "new.jsonl", "--output", "labelled.jsonl").status == 0
    rows = [json.loads(line) for line in Path("labelled.jsonl").read_text().splitlines()]
    assert [(r["n"], r["tags"]) for r in rows] == [(3, ["a"]), (4, [])]
    assert list(rows[0]) == ["text", "n", "tags", "label", "probability"]


def test_texts_can_be_written_to_a_file_too(place):
    assert unfreeze("predict", place.run, "one", "two", "--output", "texts.csv").status == 0
    assert [r["text"] for r in table("texts.csv")] == ["one", "two"]


@pytest.mark.parametrize(
    ("target", "code", "do"),
    [
        ("reviews.csv", "E-RUN-EXISTS", "--output reviews-2.csv"),
        ("out.xlsx", "E-DATA-FORMAT", "--output out.csv"),
        ("nowhere/out.csv", "E-DATA-MISSING", "mkdir -p nowhere"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_first(place, target, code, do):
    before = Path("reviews.csv").read_bytes()
    said = unfreeze("predict", place.run, "reviews.csv", "--output", target)
    assert said.status == 2
    assert said.err.startswith(code)
    assert do in said.err
    assert Path("reviews.csv").read_bytes() == before


def test_nothing_is_left_behind_when_writing_fails(place, monkeypatch):
    monkeypatch.setattr(answers, "_cell", lambda value: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    said = unfreeze("predict", place.run, "one", "--output", "full.csv")
    assert said.status == 6
    assert said.err.startswith("E-DISK")
    assert not [p for p in place.folder.iterdir() if "full" in p.name]


def test_a_mistyped_file_is_not_taken_for_a_text(place):
    said = unfreeze("predict", place.run, "reviws.csv")
    assert said.status == 2
    assert "did you mean 'reviews.csv'" in said.err


def test_an_encoding_without_a_file_is_refused(place):
    assert unfreeze("predict", place.run, "a text", "--encoding", "cp1252").status == 2


def test_labels_are_shown_on_one_line_whatever_they_hold():
    prediction = Prediction(0, "a\x1b[31m\nb", 0.75, {"a\x1b[31m\nb": 0.75, "c": 0.25})
    line = answers.as_line(prediction, 2)
    assert line == "a\\x1b[31m\\nb  0.750   a\\x1b[31m\\nb 0.750  c 0.250"


@pytest.mark.parametrize(
    ("prediction", "line"),
    [
        (Prediction(0, ["joy", "fear"], 0.6), "joy, fear  0.600"),
        (Prediction(0, []), "(none)"),
        (Prediction(0, 3.14159), "3.142"),
        (Prediction(0, ["B-PER"], 0.9, shown="PER Ada"), "PER Ada"),
    ],
)
def test_several_labels_and_numbers_have_their_line(prediction, line):
    assert answers.as_line(prediction, 1) == line


# evaluate, report, env


def test_evaluate_gives_the_figures_of_the_run_on_its_own_rows(place):
    as_json = json.loads(unfreeze("evaluate", place.run, "reviews.csv", "--json").out)
    assert as_json["eval_samples"] == 24
    low, high = as_json["eval_intervals"]["accuracy"]
    assert low <= as_json["eval_accuracy"] <= high
    shown = unfreeze("evaluate", place.run, "reviews.csv").out
    assert f"{as_json['eval_accuracy']:.4f}   {low:.4f} to {high:.4f} (95 %)" in shown


def test_report_is_written_anew_and_its_place_printed(place):
    path = Path(place.run, "report.html")
    path.unlink()
    assert unfreeze("report", place.run).out.strip() == str(path)
    assert path.is_file()
    assert json.loads(unfreeze("report", place.run, "--json").out) == {"report": str(path)}


def test_cache_lists_what_is_recorded_and_clears_it(place, tmp_path):
    assert f"nothing is recorded in {tmp_path}" in unfreeze("cache", "--folder", tmp_path).out
    trained = unfreeze(
        "train", "reviews.csv", *planted.QUICK, "--set", "train.epochs=40", "--set", "data.validation=0",
        "--set", f"cache.folder={tmp_path}", "--output", tmp_path / "run", "--json",
    )  # fmt: skip
    assert trained.status == 0, trained.err
    listed = unfreeze("cache", "--folder", tmp_path).out
    assert "head, float16" in listed
    [store] = json.loads(unfreeze("cache", "--folder", tmp_path, "--json").out)["stores"]
    assert store["facts"]["about"]["rows"] > 0
    cleared = json.loads(unfreeze("cache", "--clear", "--folder", tmp_path, "--json").out)
    assert cleared == {"folder": str(tmp_path), "removed": 1, "bytes": store["bytes"]}
    assert (tmp_path / "run" / "status.json").is_file()


def test_env_shows_versions_and_what_is_missing(place, monkeypatch):
    from unfreeze import environment

    found = json.loads(unfreeze("env", "--json").out)
    assert sorted(found) == ["machine", "models", "versions"]
    assert found["models"]["builtin:text"].startswith("a small")
    monkeypatch.setattr(environment, "_SHOWN", ("no_such_package_at_all",))
    assert "missing: pip install no_such_package_at_all" in unfreeze("env").out


# recipes


def test_a_recipe_trains_and_its_values_can_be_set(place):
    Path("mine.yaml").write_text(
        "data:\n  source: reviews.csv\nmodel: bert-base-uncased\nschedule: head\nbaselines: false\n"
        "train:\n  epochs: 5\noutput: runs/mine\n"
    )
    said = unfreeze("train", "mine.yaml", "--set", "train.epochs=8 steps", "--seed", "3", "--json")
    assert said.status == 0, said.err
    assert json.loads(said.out)["train_steps"] == 8
    assert "mine.yaml:3" in said.err
    stored = recipe.Recipe.from_file("runs/mine/recipe.yaml")
    assert (stored.model, stored.seed, str(stored.train.epochs)) == ("bert-base-uncased", 3, "8 steps")


def test_the_recipe_of_a_finished_run_is_a_recipe(place):
    said = unfreeze("plan", f"{place.run}/recipe.yaml", "--json")
    assert said.status == 0, said.err
    stored = json.loads(Path(place.run, "plan.json").read_text())
    assert json.loads(said.out)["identity"] == stored["identity"]


def test_a_task_of_ones_own_is_named_on_the_command_line_only(place):
    Path("own.yaml").write_text("data:\n  source: reviews.csv\ntask: mymodule:MyTask\n")
    said = unfreeze("train", "own.yaml")
    assert said.status == 2
    assert "--task mymodule:MyTask" in said.err
    assert unfreeze("train", "reviews.csv", "--task", "no_such_module:MyTask").err.startswith("E-TASK-UNKNOWN")


def test_options_reach_the_api_as_they_were_given(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        api, "train", lambda **given: seen.update(given) or (_ for _ in ()).throw(Interrupted("INTERRUPTED", ""))
    )
    line = "d.csv --task t --model m --schedule s --test x --output o --seed 4 --set a=1 --set b=2 --allow-remote-code"
    unfreeze("train", *shlex.split(line))
    assert seen.pop("console") is cli.progress
    assert seen == {
        "data": "d.csv",
        "recipe": None,
        "task": "t",
        "model": "m",
        "schedule": "s",
        "test": "x",
        "output": "o",
        "seed": 4,
        "settings": ["a=1", "b=2"],
        "allow_remote_code": True,
    }


def test_a_column_that_is_called_like_an_answer_keeps_its_values(run, tmp_path):
    rows = "text,label,predicted_label,probability\nWorks as promised.,x,mine,7\n"
    (tmp_path / "in.csv").write_text(rows)
    assert planted.unfreeze("predict", run, tmp_path / "in.csv", "--output", tmp_path / "out.csv").status == 0
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as handle:
        [row] = csv.DictReader(handle)
    assert (row["label"], row["predicted_label"], row["probability"]) == ("x", "mine", "7")
    assert row["predicted_label_2"] in ("negative", "positive")
    assert float(row["predicted_probability"]) <= 1


def test_a_text_file_that_is_not_there_is_no_text_and_several_files_are_refused(run, tmp_path):
    assert "E-DATA-MISSING" in planted.unfreeze("predict", run, str(tmp_path / "missing.txt")).err
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("Works as promised.\n\nBroke at once.\n", encoding="utf-8")
    said = planted.unfreeze("predict", run, tmp_path / "one.txt", tmp_path / "two.txt")
    assert said.status == 2
    assert "files are answered one at a time" in said.err
    assert len(planted.unfreeze("predict", run, tmp_path / "one.txt").out.splitlines()) == 2


def test_thousands_of_threads_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted.reviews("reviews.csv")
    said = planted.unfreeze("plan", "reviews.csv", "--set", "train.threads=8000")
    assert said.status == 2
    assert "E-RECIPE-VALUE: 8000 threads are more than this machine" in said.err


def test_a_configuration_that_contradicts_itself_is_a_broken_model(tmp_path, monkeypatch):
    from unfreeze.testing import tiny_model

    monkeypatch.chdir(tmp_path)
    planted.reviews("reviews.csv")
    folder = tiny_model("odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 33, "num_attention_heads": 2}))
    said = planted.unfreeze("plan", "reviews.csv", "--model", "odd")
    assert said.status == 4, said.err


def test_a_finished_run_that_lost_its_model_gets_it_back(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "model")
    assert "unfreeze resume" in planted.unfreeze("predict", copy, "Works as promised.").err
    resumed = planted.unfreeze("resume", copy)
    assert resumed.status == 0
    assert "nothing to do" not in resumed.err
    answers = [planted.unfreeze("predict", r, "Works as promised.", "--json").out for r in (run, copy)]
    assert answers[0] == answers[1]


def test_a_report_of_a_finished_run_says_nothing_of_what_is_missing(run):
    page = (Path(run) / "report.html").read_text()
    assert "not measured" not in page
    assert "not been written" not in page


def test_the_card_shows_python_that_can_be_pasted(run):
    card = (Path(run) / "model" / "README.md").read_text()
    assert '.predict(["This is a short example text."])' in card


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_no_error_of_ours(run, redirect):
    command = f"{sys.executable} -m unfreeze predict {run} hello {redirect}"
    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in said.stderr
    assert said.returncode == (6 if "full" in redirect else 0), said.stderr


def test_an_old_terminal_gets_what_it_can_show(run):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    said = subprocess.run(
        [sys.executable, "-m", "unfreeze", "predict", str(run), "Schön \U0001f600"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr


def test_other_labels_are_refused_where_the_task_scores_none():
    with pytest.raises(TaskError, match="no scores of other labels"):
        answers.as_record(Prediction(0, 3.14159), 2)
