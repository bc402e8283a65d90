"""The benchmarks: their table, their records, their arithmetic, and every kind of cell on a few made-up rows."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the benchmarks are not part of the installed package

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import cells, material, measure, ours, peers, pictures, rendering, results, untrained  # noqa: E402
from benchmarks.results import Record, Results, paired_difference  # noqa: E402

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="measured through /proc")


def record(cell: str, state: Any = "done", *, seconds: float = 10.0, busy: float = 0.0, **values: Any) -> Record:
    machine = {
        "processor": "a processor",
        "cores": 2,
        "memory_gb": 8.0,
        "system": "Linux x86_64",
        "threads": 2,
        "versions": {"python": "3.11"},
        "commit": "abc1234",
    }
    date = "2026-01-02T03:04:05+00:00"
    return Record(cell, cell.partition("/")[0], state, date, seconds, busy, machine, values)


# the table -------------------------------------------------------------------------------------------------------


def test_every_cell_has_a_name_of_its_own_that_begins_with_its_kind() -> None:
    table = cells.table()
    assert len({c.name for c in table}) == len(table)
    assert all(c.name.startswith(f"{c.kind}/") for c in table)


def test_every_question_has_its_cells() -> None:
    kinds = Counter(c.kind for c in cells.table())
    assert kinds == {
        "speed": 2 * 3 * 4,
        "without": 2 * 3 * 7,
        "recorded": 2 * 3 * (4 + 2),
        "pictures": 3 * 2,
        "tags": 3 * 3,
        "answers": 3 * 2,
        "tutorial": 2,
        "accuracy": 6 * 3 * 2,
        "curves": 2 * 3 * 2 + 3,
        "evaluation": 2,
        "flat": 2,
        "plan": 5,
        "defaults": 7 * 2 + len(cells.OTHER_DEFAULTS),
        "transfer": 2 * (3 + 3 * 2),
        "commands": len(cells.COMMANDS),
    }


def test_systems_that_are_compared_take_turns() -> None:
    names = [c.name for c in cells.table() if c.name.startswith("speed/imdb/")]
    assert names[:5] == [f"speed/imdb/1/{s}" for s in "abcu"] + ["speed/imdb/2/a"]


def test_every_decision_that_a_cell_undoes_can_be_undone() -> None:
    assert set(cells.UNDONE) == set(ours.UNDONE)


@pytest.mark.parametrize(
    ("pattern", "count"), [("speed/sst2/2/", 4), ("accuracy/*/u", 18), ("plan/sst2/head", 1), ("none", 0)]
)
def test_cells_are_chosen_by_pattern_or_beginning(pattern: str, count: int) -> None:
    assert len(cells.matching(pattern)) == count


def test_a_star_chooses_every_cell() -> None:
    assert cells.matching("*") == list(cells.table())


# rows ------------------------------------------------------------------------------------------------------------


def test_rows_are_drawn_by_the_seed_without_repetition() -> None:
    rows = [material.LabelledText(str(i), "x") for i in range(100)]
    first = material.drawn(rows, 30, seed=1)
    assert first == material.drawn(rows, 30, seed=1) != material.drawn(rows, 30, seed=2)
    assert len(set(first)) == 30
    assert sorted(material.drawn(rows, 500, seed=1)) == sorted(rows)


def test_without_data_it_is_said_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UNFREEZE_DATA", raising=False)
    with pytest.raises(material.MaterialError, match="UNFREEZE_DATA"):
        material.data_folder("sst2")
    monkeypatch.setenv("UNFREEZE_MINILM", str(tmp_path))
    with pytest.raises(material.MaterialError, match="UNFREEZE_MINILM"):
        material.model_folder(material.MINILM)


def test_right_answers_are_one_sign_a_row() -> None:
    rows = [material.LabelledText("a", "pos"), material.LabelledText("b", "neg")]
    assert material.right_answers(["pos", "pos"], rows) == "10"


def test_tagged_sentences_are_read_by_their_first_and_last_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_made_up_tags(tmp_path)
    monkeypatch.setenv("UNFREEZE_DATA", str(tmp_path))
    first, second, *_ = material.read_tagged("conll2003", "train")
    assert first == (("Ada", "Byron", "sings"), ("B-PER", "I-PER", "O"))
    assert second == (("Rain", "in", "Oslo"), ("O", "O", "B-LOC"))


def test_spans_are_counted_by_row() -> None:
    rows = [material.TaggedWords(("a", "b", "c"), ("B-X", "I-X", "B-Y")), material.TaggedWords(("d",), ("O",))]
    assert material.counted_spans([["B-X", "O", "B-Y"], ["B-X"]], rows) == ["10", "21", "20"]  # right, found, wanted


# instruments -----------------------------------------------------------------------------------------------------


def test_the_operations_of_training_are_those_counted_by_hand() -> None:
    config = {"hidden_size": 2, "num_hidden_layers": 3, "intermediate_size": 5}
    # a layer has 4*2*2 + 2*2*5 = 36 weights, the head 2*2 + 2*7 = 18; rows of 4 and 6 tokens
    products = 2 * (3 * 36 * 10 + 18 * 2)
    attention = 4 * 3 * 2 * (16 + 36)
    assert measure.training_flops(config, [4, 6], n_labels=7, epochs=2) == 3 * 2 * (products + attention)


@needs_proc
def test_a_meter_sees_memory_taken_inside_and_given_back_and_none_taken_before() -> None:
    before = np.ones(40_000_000, dtype=np.uint8)
    with measure.Meter() as meter:
        inside = np.ones(64_000_000, dtype=np.uint8)
        for _ in range(20):  # longer than a few samples, however quick the machine
            inside += 1
        del inside
    assert before.sum() == 40_000_000
    assert 60e6 < meter.memory_bytes < 80e6


def test_a_meter_counts_the_tokens_that_a_model_computes_with_padding() -> None:
    import torch

    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    model, meter = Model(), measure.Meter()
    meter.watch(model)
    model(input_ids=torch.zeros(9, 9))
    with meter:
        model(input_ids=torch.zeros(3, 5))
        model(input_ids=torch.zeros(2, 4))
    model(input_ids=torch.zeros(9, 9))
    assert meter.computed_tokens == 23, "what is answered before and after training is not training"


# records ---------------------------------------------------------------------------------------------------------


def test_records_come_back_as_they_were_added(tmp_path: Path) -> None:
    found = Results(tmp_path / "results")
    assert found.read() == []
    lines = [record("plan/sst2/head", a=1), record("evaluation/1000", b=[1, 2])]
    for line in lines:
        found.add(line)
    assert sorted(found.read(), key=lambda r: r.cell) == sorted(lines, key=lambda r: r.cell)


def test_a_torn_line_costs_itself_and_not_the_next(tmp_path: Path) -> None:
    found = Results(tmp_path)
    found.add(record("plan/a", number=1))
    path = tmp_path / "plan.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"cell": "plan/b", "ki', encoding="utf-8")
    found.add(record("plan/c", number=3))
    assert [r.cell for r in found.read()] == ["plan/a", "plan/c"]


def test_only_done_cells_are_finished_and_the_latest_record_counts(tmp_path: Path) -> None:
    found = Results(tmp_path)
    for cell, states in {"plan/a": ["failed", "done"], "plan/b": ["done", "failed"], "plan/c": ["partial"]}.items():
        for state in states:
            found.add(record(cell, state))
    assert found.finished() == {"plan/a"}


def test_the_seconds_of_a_cell_in_parts_are_added(tmp_path: Path) -> None:
    found = Results(tmp_path)
    for state, seconds in (("done", 7.0), ("partial", 840.0), ("partial", 840.0), ("done", 100.0)):
        found.add(record("defaults/imdb/minilm", state, seconds=seconds))
    assert found.latest()["defaults/imdb/minilm"].seconds == 1780.0


def test_causes_do_not_say_where_files_lie_on_this_machine() -> None:
    text = results.without_paths("E: '/home/me/data/train.csv', line 3: /opt/x.y/model-1 is broken; 1/2 done")
    assert text == "E: 'train.csv', line 3: model-1 is broken; 1/2 done"


# comparing -------------------------------------------------------------------------------------------------------


def test_equal_answers_differ_by_nothing_for_sure() -> None:
    assert paired_difference(["1100", "0110"], ["1100", "0110"]) == (0.0, 0.0, 0.0)


def test_a_difference_on_one_seed_has_the_interval_of_its_rows() -> None:
    # 1,000 rows: 60 that only ours has right, 20 that only theirs has: difference 0.04, variance of a row 0.08 - 0.04^2
    value, low, high = paired_difference(["1" * 60 + "0" * 20 + "1" * 920], ["0" * 60 + "1" * 20 + "1" * 920])
    half = 1.96 * ((0.08 - 0.04**2) / 1000) ** 0.5
    assert value == pytest.approx(0.04)
    assert (low, high) == (pytest.approx(0.04 - half, abs=0.002), pytest.approx(0.04 + half, abs=0.002))


def test_seeds_that_disagree_widen_the_interval() -> None:
    right, wrong, base = "1" * 600 + "0" * 400, "0" * 400 + "1" * 600, "01" * 500
    _, low_one, high_one = paired_difference([right], [base])
    _, low_same, high_same = paired_difference([right] * 3, [base] * 3)
    _, low, high = paired_difference([right, wrong, "1" * 1000], [base] * 3)
    assert high_same - low_same == pytest.approx(high_one - low_one, abs=0.01)
    assert high - low > 2 * (high_same - low_same)


def test_f1_is_of_all_spans_together() -> None:
    assert results.f1_of(["10", "21", "20"]) == pytest.approx(2 * 1 / (3 + 2))


def test_a_difference_of_f1_is_that_of_the_means_with_an_interval_around_it() -> None:
    wanted = "1" * 400
    good, bad = ["1" * 360 + "0" * 40, wanted, wanted], ["1" * 320 + "0" * 80, wanted, wanted]
    value, low, high = results.paired_f1_difference([good] * 3, [bad] * 3)
    assert value == pytest.approx(0.1)
    # 40 rows of 400 that only ours has right: the standard error of a share of a tenth
    half = 1.96 * (0.1 * 0.9 / 400) ** 0.5
    assert (low, high) == (pytest.approx(0.1 - half, abs=0.004), pytest.approx(0.1 + half, abs=0.004))
    assert results.paired_f1_difference([good], [good]) == (0.0, 0.0, 0.0)


# the page --------------------------------------------------------------------------------------------------------


def speed(system: str, turn: int, seconds: float, **changed: Any) -> Record:
    values = {
        "rows": 400,
        "share_of_steps": 1.0,
        "training_seconds": seconds,
        "whole_seconds": seconds + 10,
        "memory_bytes": 5e8,
        "tokens": 100,
        "computed_tokens": 125,
        "share_of_peak": 0.3,
        **changed,
    }
    return record(f"speed/imdb/{turn}/{system}", **values)


def page(tmp_path: Path, *records: Record) -> str:
    found = Results(tmp_path)
    for one in records:
        found.add(one)
    return rendering.render(found)


def test_a_page_without_records_says_that_nothing_was_measured(tmp_path: Path) -> None:
    shown = page(tmp_path)
    assert shown.count("Not measured yet.") == len(rendering._SECTIONS)
    assert f"{len(cells.table())} cells have not been run" in shown


def test_ratios_are_taken_within_rounds_and_shown_with_their_range(tmp_path: Path) -> None:
    ours_seconds, theirs = (10.0, 20.0, 40.0), (30.0, 40.0, 160.0)
    rounds = [speed("u", n, s) for n, s in enumerate(ours_seconds, 1)] + [
        speed("b", n, s) for n, s in enumerate(theirs, 1)
    ]
    line = next(x for x in page(tmp_path, *rounds).splitlines() if x.startswith("| b"))
    assert "40.0 [30.0, 160.0] s" in line
    assert "3.00 [2.00, 4.00]" in line  # 30/10, 40/20, 160/40
    assert "500 MB" in line
    assert "| 1.25 |" in line


def test_rounds_that_unfreeze_lost_are_said(tmp_path: Path) -> None:
    shown = page(tmp_path, speed("u", 1, 10.0), speed("c", 1, 9.0), speed("u", 2, 10.0), speed("c", 2, 11.0))
    assert "unfreeze trained slower than c in 1 of 2 rounds" in shown


def test_a_share_of_the_peak_that_cannot_be_is_said(tmp_path: Path) -> None:
    assert "cannot be" in page(tmp_path, speed("u", 1, 10.0, share_of_peak=1.02))
    assert "cannot be" not in page(tmp_path / "other", speed("u", 1, 10.0, share_of_peak=0.98))


@pytest.mark.parametrize(
    ("theirs", "verdict"), [("1" * 700 + "0" * 300, "above"), ("1" * 800 + "0" * 200, "**not above**")]
)
def test_the_lower_bound_is_judged_against_the_margin(tmp_path: Path, theirs: str, verdict: str) -> None:
    right = "1" * 700 + "0" * 300
    records = []
    for seed in cells.SEEDS:
        for system, signs in (("u", right), ("b", theirs)):
            name = f"accuracy/sst2/{seed}/{system}"
            values = {"accuracy": signs.count("1") / 1000, "right": signs, "train_rows": 2000, "epochs": 2}
            records.append(record(name, **values))
    shown = page(tmp_path, *records)
    assert f"The lower bound is {verdict} -1.5 points." in shown


def test_a_baseline_stands_there_with_its_difference_and_interval_in_order(tmp_path: Path) -> None:
    difference = {"high": 0.03, "low": 0.01, "value": 0.02}  # as they lie in the run's file
    baseline = {"name": "tfidf", "metric": "accuracy", "value": 0.8, "run_value": 0.82, "difference": difference}
    values = {"value": 0.82, "interval": [0.8, 0.84], "train_rows": 100, "samples": 50, "split": "test"}
    shown = page(tmp_path, record("defaults/sst2/minilm", **values, metric="accuracy", baselines=[baseline]))
    assert "accuracy 0.8200 [0.8000, 0.8400]" in shown
    assert "tfidf (accuracy) 0.8000: +2.00 [+1.00, +3.00]" in shown


def test_curves_stand_beside_the_peer_scaled_to_its_best_form_and_are_drawn(tmp_path: Path) -> None:
    values = {"accuracy": 0.5, "right": "10" * 50, "train_rows": 2000, "training_seconds": 20.0}
    theirs = {**values, "training_seconds": 110.0}
    found = Results(tmp_path / "results")
    found.add(record("curves/imdb/2/u", **values, curve=[[5.0, 0.4], [20.0, 0.5]]))
    found.add(record("curves/imdb/2/c", **theirs, curve=[[50.0, 0.3], [110.0, 0.4]]))
    assert "Accuracy over seconds" not in rendering.render(found)  # what form b takes is not known
    found.add(record("curves/imdb/2/scale", train_rows=400, training_seconds=21.0))
    shown = rendering.render(found)
    line = next(x for x in shown.splitlines() if x.startswith("| 2 | 0.5000"))
    assert line.endswith("| 20 s | 210 s | 10.50 | after 5 s |")  # 21 s for 400 rows, 2 epochs of 2,000
    assert "(b, scaled from 400 rows)" in shown
    assert "The lower bound is above -1.5 points." in shown
    (picture,) = pictures.draw(found, tmp_path)
    assert picture.name in shown
    before = picture.read_bytes()
    assert pictures.draw(found, tmp_path)[0].read_bytes() == before


def test_curves_of_fewer_rows_than_the_peers_are_said(tmp_path: Path) -> None:
    values = {"accuracy": 0.5, "right": "10" * 50, "train_rows": 2000, "training_seconds": 20.0, "curve": [[5.0, 0.4]]}

    def shown(folder: str, **own: int) -> str:
        return page(tmp_path / folder, record("curves/sst2/1/u", **values, **own), record("curves/sst2/1/b", **values))

    assert "Seeds 1: unfreeze trained on nine tenths" in shown("fewer")
    assert "nine tenths" not in shown("equal", own_rows=2000)


def test_a_command_stands_there_with_its_options(tmp_path: Path) -> None:
    values = {"value": 0.82, "interval": None, "train_rows": 100, "samples": 50, "split": "test", "baselines": []}
    found = record("commands/fsdd", **values, metric="accuracy", figures={"balanced_accuracy": 0.81})
    line = next(x for x in page(tmp_path, found).splitlines() if x.startswith("| fsdd"))
    assert line.startswith("| fsdd | untrained:hears-1s | `--schedule full --set train.learning_rate=1e-3")
    assert "accuracy 0.8200<br>balanced_accuracy 0.8100" in line


def test_failures_parts_and_a_busy_machine_are_said(tmp_path: Path) -> None:
    shown = page(
        tmp_path,
        record("speed/imdb/1/b", "failed", cause="it broke"),
        record("defaults/imdb/minilm", "partial", seconds=840.0),
        speed("u", 1, 10.0),
        record("evaluation/1000", busy=0.5, rows=1000, memory_bytes=1e6),
    )
    assert "`speed/imdb/1/b` failed: it broke" in shown
    assert "`defaults/imdb/minilm` goes on after 14 min" in shown
    assert "when these cells started:** evaluation/1000." in shown


# the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls the command with cells that take no time; `ran` are those that ran, `state` is how the next ones end."""

    class Runner:
        def __init__(self) -> None:
            self.ran: list[str] = []
            self.state = "done"

        def __call__(self, *arguments: str) -> int:
            return command.main(["--folder", str(tmp_path), *arguments])

        def run_cell(self, cell: cells.Cell, folder: Path, tiny: bool) -> Record:
            self.ran.append(cell.name)
            return record(cell.name, self.state)

    found = Runner()
    monkeypatch.setattr(command, "_in_a_process_of_its_own", found.run_cell)
    monkeypatch.setattr(cells, "check_material", lambda cell: None)
    return found


def test_finished_cells_do_not_run_again_unless_asked(runner: Any) -> None:
    assert runner("run", "evaluation/1000") == 0
    assert runner("run", "evaluation") == 0
    assert runner.ran == ["evaluation/1000", "evaluation/100000"]
    assert runner("run", "evaluation/1000", "--again") == 0
    assert runner.ran[2:] == ["evaluation/1000", "evaluation/100000"]  # the pattern is a beginning


@pytest.mark.parametrize(("state", "status"), [("failed", 1), ("partial", 0)])
def test_cells_that_did_not_finish_run_again(runner: Any, state: str, status: int) -> None:
    runner.state = state
    assert runner("run", "plan/sst2/head") == status
    runner.state = "done"
    assert runner("run", "plan/sst2/head") == 0
    assert runner.ran == ["plan/sst2/head"] * 2


def test_list_shows_how_each_cell_stands(runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runner("run", "plan/sst2/head")
    capsys.readouterr()
    assert runner("list", "plan/sst2") == 0
    assert capsys.readouterr().out.split() == [
        "done",
        "plan/sst2/head",
        "open",
        "plan/sst2/full",
        "open",
        "plan/sst2/gradual",
    ]


def test_a_pattern_that_matches_nothing_is_an_error(runner: Any) -> None:
    assert runner("run", "nothing") == 2


def test_without_a_command_all_cells_run_and_the_page_is_written(runner: Any, tmp_path: Path) -> None:
    for cell in cells.table():
        if cell.kind != "evaluation":
            Results(tmp_path / "results").add(record(cell.name, "failed", cause="before"))
    runner.state = "failed"
    assert runner() == 1
    assert runner.ran == [cell.name for cell in cells.table()]
    assert (tmp_path / "RESULTS.md").is_file()


def test_render_writes_the_page(runner: Any, tmp_path: Path) -> None:
    assert runner("render") == 0
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8").startswith("# Results")


def test_tiny_figures_never_enter_the_real_results() -> None:
    assert command.main(["run", "evaluation", "--tiny"]) == 2


def test_cells_whose_data_are_not_here_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UNFREEZE_DATA", raising=False)
    assert command.main(["--folder", str(tmp_path), "run", "plan/sst2/head"]) == 0
    assert "not run: set UNFREEZE_DATA" in capsys.readouterr().out
    assert Results(tmp_path / "results").read() == []


def test_a_cell_whose_process_ends_early_leaves_a_record_with_its_last_words(tmp_path: Path) -> None:
    found = command._in_a_process_of_its_own(cells.Cell("plan/no such", "plan", None, None), tmp_path, True)
    assert (found.state, found.values["cause"]) == ("failed", "LookupError: there is no cell 'plan/no such'")


def test_a_cell_that_fails_leaves_a_record_with_the_cause_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev" / "sst2").mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("UNFREEZE_DATA", str(tmp_path))
    monkeypatch.setenv("UNFREEZE_MINILM", str(tmp_path))
    assert command.main(["--folder", str(tmp_path / "out"), "run", "plan/sst2/head"]) == 1
    (found,) = Results(tmp_path / "out" / "results").read()
    assert found.state == "failed"
    assert found.values["cause"] == "FileNotFoundError: sst2 has 0 files called train"


def test_a_cell_runs_in_a_process_of_its_own_and_leaves_its_record(tmp_path: Path) -> None:
    assert command.main(["--folder", str(tmp_path), "run", "--tiny", "evaluation/100000"]) == 0
    (found,) = Results(tmp_path / "results").read()
    assert found.state == "done"
    assert found.values["rows"] == 1000
    assert found.values["memory_bytes"] > 0
    assert found.machine["threads"] >= 1
    assert not any(str(part) in json.dumps(found.values) for part in (tmp_path, ROOT))


# every kind, on made-up rows -------------------------------------------------------------------------------------

# A process that measures one tiny cell of each kind; the models are replaced by one with random weights, so that
# neither MiniLM nor the builtin need be there. The run with defaults is found interrupted after two steps.
_EVERY_KIND = """
import json, sys
from pathlib import Path

from benchmarks import cells, material, measure, peers
from unfreeze import api
from unfreeze.errors import Interrupted
from unfreeze.testing import tiny_image_model

folder = Path(sys.argv[1])
model = material.tiny_model(folder / "tiny")
seeing = tiny_image_model(folder / "seeing", "resnet")
cells.model_folder = lambda name: seeing if name in (material.MOBILENET, material.BUILTIN_IMAGE) else model
cells.model_argument = lambda name: str(cells.model_folder(name))
material.JOINED_ROWS = {"train": 30, "test": 6}
data = material.data_folder("sst2")
settings = ["data.train_rows=24", "train.epochs=3 steps"]
try:
    api.train(data, model=model, output=folder / "runs" / "defaults-sst2-minilm", settings=settings,
              observers=[lambda event: event.kind == "step" and event.step == 2])
except Interrupted:
    pass
found = {}
sys.stdout = sys.stderr
for name in sys.argv[2:]:
    found[name] = cells.execute(cells.find(name), folder / "runs", tiny=True)
peers.MAP_ROWS = 8
rows = [material.LabelledText("good " * (1 + i % 7), "1") for i in range(11)] + [material.LabelledText("bad film", "0")]
trained = peers.fine_tune(material.Job(model, rows, 1, 0), "b", peers.Meter(), folder / "peer")
texts = [row.text for row in rows]
logits = [trained.trainer.predict(trained.encode([text])).predictions[0].tolist() for text in texts]
trained.trainer.args.train_sampling_strategy = "group_by_length"
trained.labels = ["0", "1"]
found["order"] = [trained.logits(texts).tolist(), logits]
found["parts"] = 0
while True:
    try:
        job = material.Job(model, rows * 3, 1, 0)
        trained = peers.fine_tune(job, "c", peers.Meter(), folder / "parts", held_out=rows, most_seconds=0)
        break
    except measure.Unfinished:
        found["parts"] += 1
found["curve of parts"] = [trained.curve, trained.seconds_before]
found["tutorial in three map batches"] = cells.execute(cells.find("tutorial/sst2"), folder / "runs", tiny=True)
print(json.dumps(found), file=sys.__stdout__, flush=True)
"""

_TRIED = (
    *(f"speed/sst2/1/{system}" for system in cells.SYSTEMS),
    *(f"without/imdb/1/{decision}" for decision in cells.UNDONE),
    *(f"recorded/head/sst2/1/{system}" for system in cells.FROZEN["head"][1]),
    "recorded/last(2)/sst2/1/b",
    "pictures/clothing_small/1/b",
    "pictures/clothing_small/1/u",
    "tags/conll2003/0/b",
    "tags/conll2003/0/u",
    "tags/conll2003/0/r",
    "answers/squad_v1.1/0/b",
    "answers/squad_v1.1/0/u",
    "tutorial/sst2",
    "accuracy/imdb/0/u",
    "accuracy/imdb/0/b",
    "accuracy/clothing_small/0/u",
    "accuracy/clothing_small/0/b",
    "curves/imdb/0/u",
    "curves/imdb/0/c",
    "curves/imdb/0/scale",
    "flat/20000",
    "plan/sst2/gradual",
    "transfer/200/0/pretrained",
    "transfer/200/0/random",
    "transfer/clothing_small/200/0/random",
    "defaults/sst2/minilm",
    "commands/fsdd-numbers",
)


def _write_made_up_data(root: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    draw = np.random.default_rng(0)

    def rows(count: int, longest: int) -> list[tuple[str, int]]:
        words = {0: ("bad", "dull", "slow"), 1: ("good", "bright", "quick")}
        texts = []
        for i in range(count):
            chosen = draw.choice(words[i % 2], size=int(draw.integers(2, longest)))
            texts.append((f"film {i} " + " ".join(chosen), i % 2))
        return texts

    for split, count in (("train", 60), ("validation", 20), ("test", 20)):
        (root / "dev" / "sst2").mkdir(parents=True, exist_ok=True)
        with open(root / "dev" / "sst2" / f"{split}.csv", "w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([("sentence", "label"), *rows(count, 8)])
    for split, count in (("train", 60), ("test", 30)):
        (root / "dev" / "imdb").mkdir(parents=True, exist_ok=True)
        made = rows(count, 30)
        columns = {"text": [t for t, _ in made], "label": ["pos" if y else "neg" for _, y in made]}
        pyarrow.parquet.write_table(pyarrow.table(columns), root / "dev" / "imdb" / f"{split}.parquet")
    _write_made_up_tags(root)
    _write_made_up_questions(root)
    _write_made_up_digits(root)
    for split, count in (("train", 15), ("test", 10)):
        for label, shade in (("dark", 40), ("light", 200)):
            folder = root / "dev" / "clothing_small" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (24 + i, 20), (shade + i,) * 3).save(folder / f"{i}.jpg")


def _write_made_up_digits(root: Path) -> None:
    """Of two speakers, each digit a tone of a length of its own."""
    for split, count in (("train", 2), ("test", 1)):
        folder = root / "dev" / "fsdd" / split
        lines = ["file_name,label,speaker"]
        for digit in range(10):
            (folder / str(digit)).mkdir(parents=True)
            for speaker in ("ada", "grace"):
                for number in range(count):
                    name = f"{digit}/{digit}_{speaker}_{number}.flac"
                    soundfile.write(folder / name, np.full(100 * (digit + 1), 0.1, dtype=np.float32), 8000)
                    lines.append(f"{name},{digit},{speaker}")
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_made_up_tags(root: Path) -> None:
    folder = root / "dev" / "conll2003"
    folder.mkdir(parents=True)
    sings = "Ada NNP B-NP B-PER\nByron NNP I-NP I-PER\nsings VBZ B-VP O\n"
    rains = "Rain NN B-NP O\nin IN B-PP O\nOslo NNP B-NP B-LOC\n"
    for split, count in (("train", 20), ("test", 8)):
        text = "-DOCSTART- -X- -X- O\n\n" + f"{sings}\n{rains}\n" * count
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")


def _write_made_up_questions(root: Path) -> None:
    folder = root / "dev" / "squad_v1.1"
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("dev", 20)):
        paragraphs = []
        for i in range(count):
            context = f"film {i} is a good film. it was made in the year {1900 + i} by a quiet man."
            answer = {"text": str(1900 + i), "answer_start": context.index(str(1900 + i))}
            paragraphs.append(
                {"context": context, "qas": [{"question": f"when was film {i} made?", "answers": [answer]}]}
            )
        text = json.dumps({"version": "1.1", "data": [{"title": "films", "paragraphs": paragraphs}]})
        (folder / f"{split}-v1.1.json").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("benchmarks")
    _write_made_up_data(folder / "data")
    environment = {**os.environ, "UNFREEZE_DATA": str(folder / "data"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _EVERY_KIND, str(folder), *_TRIED],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_system_trains_on_the_same_tokens(measured: dict[str, dict[str, Any]]) -> None:
    values = [measured[f"speed/sst2/1/{system}"] for system in cells.SYSTEMS]
    assert len({v["tokens"] for v in values}) == len({v["flops"] for v in values}) == 1
    assert all(v["rows"] == cells.TINY_ROWS for v in values)
    for v in values:
        assert v["computed_tokens"] >= v["tokens"]
        assert 0 < v["training_seconds"] < v["whole_seconds"]
        assert v["memory_bytes"] > 0
        assert 0 < v["share_of_peak"] < 1


def test_the_tutorial_pads_every_row_to_the_longest_input(measured: dict[str, dict[str, Any]]) -> None:
    assert measured["speed/sst2/1/a"]["computed_tokens"] == 24 * 512
    assert measured["speed/sst2/1/b"]["computed_tokens"] < 24 * 100


def test_each_decision_is_undone_on_the_same_rows(measured: dict[str, dict[str, Any]]) -> None:
    found = [measured[f"without/imdb/1/{decision}"] for decision in cells.UNDONE]
    assert len({v["tokens"] for v in found}) == 1


def test_a_frozen_part_goes_once_through_the_model_where_it_is_recorded_and_not_at_all_the_second_time(
    measured: dict[str, dict[str, Any]],
) -> None:
    tokens = {s: measured[f"recorded/head/sst2/1/{s}"]["computed_tokens"] for s in cells.FROZEN["head"][1]}
    assert tokens["b"] > 4 * tokens["pass"]
    assert tokens["again"] < tokens["u"]
    assert measured["recorded/head/sst2/1/again"]["training_seconds"] > 0


def test_what_was_recorded_is_set_beside_the_plan(measured: dict[str, dict[str, Any]]) -> None:
    found = measured["flat/20000"]
    assert found["rows"] == 100
    assert found["memory_bytes"] > 0
    for _, happened in found["disk_bytes"]:
        assert happened > 0


def test_padding_in_the_map_runs_while_one_map_batch_holds_all_rows(measured: dict[str, dict[str, Any]]) -> None:
    found = measured["tutorial/sst2"]
    assert (found["crashes"], len(found["widths"])) == (False, 1)


def test_padding_in_the_map_crashes_where_map_batches_end_up_of_different_widths(
    measured: dict[str, dict[str, Any]],
) -> None:
    found = measured["tutorial in three map batches"]
    assert found["crashes"] is True
    assert len(found["widths"]) > 1
    assert "Error: " in found["error"]


def test_the_peers_answers_come_in_the_order_of_the_texts(measured: dict[str, dict[str, Any]]) -> None:
    together, alone = measured["order"]
    assert np.allclose(together, alone, atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-5), "texts of different lengths have different answers"


def test_a_peer_that_is_stopped_after_every_step_goes_on_where_it_was(measured: dict[str, dict[str, Any]]) -> None:
    assert measured["parts"] == 2  # three steps
    curve, before = measured["curve of parts"]
    seconds = [point[0] for point in curve]
    assert len(seconds) == 3
    assert seconds == sorted(seconds)
    assert 0 < before < seconds[-1]


def test_curves_are_of_all_rows(measured: dict[str, dict[str, Any]]) -> None:
    found = measured["curves/imdb/0/u"]
    assert found["own_rows"] == found["train_rows"]


def test_curves_begin_with_training_and_end_within_it(measured: dict[str, dict[str, Any]]) -> None:
    for system in "uc":
        found = measured[f"curves/imdb/0/{system}"]
        seconds = [point[0] for point in found["curve"]]
        assert seconds == sorted(seconds)
        assert 0 < seconds[-1] <= found["training_seconds"] + 0.01
        assert all(0 <= point[1] <= 1 for point in found["curve"])
        assert found["train_rows"] == cells.TINY_ROWS


@pytest.mark.parametrize("data", ["imdb", "clothing_small"])
def test_both_systems_answer_the_same_test_rows(measured: dict[str, dict[str, Any]], data: str) -> None:
    for system in "ub":
        found = measured[f"accuracy/{data}/0/{system}"]
        assert len(found["right"]) == cells.TINY_TEST_ROWS
        assert set(found["right"]) <= set("01")
        assert found["accuracy"] == found["right"].count("1") / cells.TINY_TEST_ROWS


def test_the_peer_sees_other_parts_of_a_picture_every_time(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import MobileNetV2ImageProcessor

    noise = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    processor = MobileNetV2ImageProcessor(crop_size={"height": 16, "width": 16})
    first, second = (peers._drawn_anew([str(tmp_path / "a.png")], [3], processor, seed=0) for _ in range(2))
    drawn = [first[0]["pixel_values"] for _ in range(3)]
    assert {tuple(pixels.shape) for pixels in drawn} == {(3, 16, 16)}
    assert not np.allclose(drawn[0], drawn[1])
    assert np.allclose(drawn[0], second[0]["pixel_values"]), "drawn by the seed"
    assert first[0]["labels"] == 3


def test_labelled_texts_are_read_from_lines_of_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dev" / "snips").mkdir(parents=True)
    rows = [{"text": "play a\u2028song", "intent": "PlayMusic", "slots": []}, {"text": "rain?", "intent": "GetWeather"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "dev" / "snips" / "train.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.setenv("UNFREEZE_DATA", str(tmp_path))
    assert material.read("snips", "train") == [("play a\u2028song", "PlayMusic"), ("rain?", "GetWeather")]


def test_pictures_are_the_same_for_both_systems(measured: dict[str, dict[str, Any]]) -> None:
    ours, theirs = (measured[f"pictures/clothing_small/1/{system}"] for system in "ub")
    for found in (ours, theirs):
        assert found["rows"] == cells.TINY_ROWS
        assert len(found["right"]) == cells.TINY_TEST_ROWS
        assert 0 < found["training_seconds"] < found["whole_seconds"]


def test_tags_are_asked_of_the_same_rows_and_counted_alike(measured: dict[str, dict[str, Any]]) -> None:
    for system in "bur":
        found = measured[f"tags/conll2003/0/{system}"]
        assert found["rows"] == cells.TINY_ROWS
        right, said, wanted = found["spans"]
        assert wanted == "1" * cells.TINY_TEST_ROWS
        assert len(right) == len(said) == cells.TINY_TEST_ROWS
        assert found["f1"] == results.f1_of(found["spans"])
        assert 0 < found["training_seconds"] < found["whole_seconds"]


def test_questions_are_asked_of_both_systems_and_scored_alike(measured: dict[str, dict[str, Any]]) -> None:
    ours, theirs = (measured[f"answers/squad_v1.1/0/{system}"] for system in "ub")
    for found in (ours, theirs):
        assert found["rows"] == cells.TINY_ROWS
        assert len(found["right"]) == cells.TINY_TEST_ROWS
        assert found["exact_match"] == found["right"].count("1") / cells.TINY_TEST_ROWS <= found["f1"] <= 1
        assert 0 < found["training_seconds"] < found["whole_seconds"]


def test_a_span_of_a_window_is_that_of_its_answer_or_none() -> None:
    row = material.Question("who?", "it was Ada Byron", ("Ada Byron",), (7,))
    offsets, of_text = (
        [(0, 0), (0, 3), (0, 0), (0, 2), (3, 6), (7, 10), (11, 16), (0, 0)],
        [False] * 3 + [True] * 4 + [False],
    )
    assert peers._span(offsets, of_text, row) == (5, 6)
    assert peers._span(offsets[:6], of_text[:6], row) == (0, 0)


def test_a_forecast_stands_beside_what_happened(measured: dict[str, dict[str, Any]]) -> None:
    for expected, happened in measured["plan/sst2/gradual"].values():
        assert expected > 0
        assert happened > 0


def test_pretrained_and_random_weights_take_the_same_schedule(measured: dict[str, dict[str, Any]]) -> None:
    pretrained, random = measured["transfer/200/0/pretrained"], measured["transfer/200/0/random"]
    assert pretrained["steps"] == random["steps"] > 0
    assert len(pretrained["right"]) == len(random["right"]) == cells.TINY_TEST_ROWS


def test_an_interrupted_run_with_defaults_goes_on_and_is_set_beside_its_baselines(
    measured: dict[str, dict[str, Any]],
) -> None:
    found = measured["defaults/sst2/minilm"]
    assert found["resumed"] == 1
    assert found["train_rows"] == cells.TINY_ROWS
    assert (found["split"], found["metric"], found["samples"]) == ("test", "accuracy", 20)
    assert {b["name"] for b in found["baselines"]} == {"majority", "tfidf", "frozen features"}
    assert all(set(b["difference"]) == {"value", "low", "high"} for b in found["baselines"])


def test_a_command_learns_numbers_from_digits_with_a_model_of_random_weights(
    measured: dict[str, dict[str, Any]],
) -> None:
    found = measured["commands/fsdd-numbers"]
    assert (found["metric"], found["split"], found["samples"]) == ("wer", "test", 6)
    assert 0 < found["train_rows"] <= cells.TINY_ROWS
    assert found["figures"]["cer"] >= 0


def test_every_command_names_a_model_that_can_be_had() -> None:
    known = {material.MINILM, material.MOBILENET, material.BUILTIN, material.BUILTIN_IMAGE, *untrained.UNTRAINED}
    assert {model for _, model, _ in cells.COMMANDS.values()} <= known
    assert cells.SPOKEN_NUMBERS.removeprefix("commands/") in cells.COMMANDS


def test_joined_digits_are_one_speakers_and_as_long_as_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFREEZE_DATA", str(tmp_path))
    monkeypatch.setattr(material, "JOINED_ROWS", {"train": 20})
    _write_made_up_digits(tmp_path)
    made = material.write_joined_digits("fsdd", tmp_path / "made") / "train"
    with open(made / "metadata.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 20
    assert {row["speaker"] for row in rows} == {"ada", "grace"}
    for row in rows:
        digits = [material._DIGITS.index(word) for word in row["transcription"].split()]
        assert 3 <= len(digits) <= 7
        samples, rate = soundfile.read(made / row["file_name"])
        assert rate == 8000
        assert len(samples) == sum(100 * (digit + 1) + 800 for digit in digits)  # and a tenth of a second after each


def test_what_was_measured_can_be_rendered(measured: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    shown = page(tmp_path, *(record(name, **values) for name, values in measured.items() if "/" in name))
    for title in ("u  unfreeze", "memory-reuse", "sst2/gradual", "frozen features", "Pretrained minus random"):
        assert title in shown


def test_a_run_with_defaults_stops_itself_when_its_time_is_up(tmp_path: Path) -> None:
    wait = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(75)); time.sleep(600)"
    with pytest.raises(measure.Unfinished):
        ours._run_for(0.5, [sys.executable, "-c", wait])


def test_a_run_with_defaults_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="exit status 2"):
        ours._run_for(60, [sys.executable, "-c", "raise SystemExit(2)"])
