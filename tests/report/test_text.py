import io
from pathlib import Path

import made_up
import pytest
from rich.console import Console

from unfreeze import durable
from unfreeze.report import build, judge, summary_lines
from unfreeze.run import Run, Status


def printed(lines):
    out = io.StringIO()
    console = Console(file=out, width=400, highlight=False)
    for line in lines:
        console.print(line)
    return out.getvalue().splitlines()


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made_up.write_run("runs/first")


def test_the_lines_say_result_baselines_verdict_places_and_what_is_next(run):
    build(run)
    run.model_folder.mkdir()
    assert printed(summary_lines(run)) == [
        "Result: accuracy 88.9 % (95 % interval 87.0 to 90.8 %) on 1,000 test rows",
        "Baselines by accuracy, and this run's difference in points (95 % interval) on the same rows:",
        "  majority answer    54.9 %  +34.0 (+30.0 to +38.0)   beaten",
        "  TF-IDF             87.4 %  +1.5 (+0.5 to +2.5)      beaten",
        "  frozen features    85.9 %  +3.0 (+2.0 to +4.0)      beaten",
        "Fine-tuning beats TF-IDF by 1.5 points of accuracy (95 % interval +0.5 to +2.5).",
        f"Report: {Path('runs/first/report.html')}   Model: {Path('runs/first/model')}",
        f'Next: unfreeze predict {Path("runs/first")} "..."',
    ]


@pytest.mark.parametrize(
    ("difference", "judged"),
    [((0.0, -0.01, 0.01), "not distinguishable"), ((-0.02, -0.03, -0.01), "not beaten: better than this run")],
)
def test_a_run_that_does_not_beat_tfidf_says_so_and_what_to_try(run, difference, judged):
    durable.write_json(run.folder / "baselines.json", [made_up.baseline("tfidf", "accuracy", 0.88, *difference)])
    lines = printed(summary_lines(run))
    assert any(line.startswith("  TF-IDF") and line.endswith(judged) for line in lines)
    assert any(line.startswith("Fine-tuning did not beat TF-IDF") for line in lines)
    assert lines[-1] == "Next, the same command with more passes, the last weights were the best: --set train.epochs=6"


def test_a_figure_from_the_rows_of_the_selection_is_said_to_be_one(tmp_path):
    lines = printed(summary_lines(made_up.write_run(tmp_path / "run", split="eval")))
    assert lines[1] == "  The weights were selected on the same rows; expect a little less on new ones."


def test_a_warning_is_shown_and_files_that_are_not_there_are_not_named(run):
    made_up.change_json(run, "test_results.json", lambda r: r.update(test_rows_cut=500))
    run.write_findings(judge(run))
    lines = printed(summary_lines(run))
    assert any(line.startswith("CUT001 500 of 1,000 test rows") for line in lines)
    assert not any("Report" in line or "Model" in line for line in lines)


def test_markup_and_control_characters_of_the_data_do_nothing(run):
    name = "[bold red]x[/bold red]\x1b[31m\\"
    durable.write_json(run.folder / "baselines.json", [made_up.baseline(name, "accuracy", 0.88, 0.02, 0.01, 0.03)])
    lines = printed(summary_lines(run))
    assert any(r"Fine-tuning beats [bold red]x[/bold red]\x1b[31m\ by" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_a_run_that_failed_says_where_it_stands(tmp_path):
    run = Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})
    run.log("evaluation", 40, phase="all", is_best=True, metrics={"loss": 0.5, "accuracy": 0.8})
    run.set_status(
        Status("failed", "E-MEMORY: there is not enough memory\n  where: step 41", 40, "unfreeze resume run", 6)
    )
    assert printed(summary_lines(run)) == [
        "The run failed after step 40: E-MEMORY: there is not enough memory",
        "Best so far, on the validation rows after step 40: loss 0.5, accuracy 80.0 %",
        "Next: unfreeze resume run",
    ]
