import made_up
import pytest

from unfreeze.report.records import Comparison, Records, Timeline
from unfreeze.run import Run


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})


def compared(metric, value, low, high):
    return Comparison("tfidf", "", metric, 0.5, (value, low, high), 100, 1.0)


def log_steps(run, losses, first=1):
    for step, loss in enumerate(losses, start=first):
        made_up.write_step(run, step, "all", step, loss)


def log_phase(run, number, step, done, name="all"):
    run.log("phase", step, number=number, of=2, name=name, steps=10, done=done, trainable=7, rates={"head": 1e-3})


def test_what_a_resumed_run_took_back_is_not_part_of_the_timeline(run):
    log_phase(run, 1, 0, 0)
    log_steps(run, [1.0] * 10)
    run.log("evaluation", 8, phase="all", is_best=True, metrics={"loss": 0.1})
    run.log("resumed", 6, phase=0, phase_step=6)
    log_phase(run, 1, 6, 6)
    log_steps(run, [0.5, 0.5, 0.5], first=7)
    timeline = Timeline.of(run.events())
    assert [(s.step, s.loss) for s in timeline.steps] == [
        *((i, 1.0) for i in range(1, 7)),
        (7, 0.5),
        (8, 0.5),
        (9, 0.5),
    ]
    assert timeline.evaluations == []
    assert timeline.best is None
    assert timeline.times_resumed == 1
    assert [(p.start, p.end) for p in timeline.phases] == [(0, 9)]


def test_a_phase_that_began_after_the_checkpoint_is_taken_back(run):
    log_phase(run, 1, 0, 0, "head")
    log_steps(run, [1.0] * 10)
    log_phase(run, 2, 10, 0)
    log_steps(run, [1.0] * 3, first=11)
    run.log("resumed", 4, phase=0, phase_step=4)
    log_phase(run, 1, 4, 4, "head")
    assert [(p.name, p.start, p.end) for p in Timeline.of(run.events()).phases] == [("head", 0, 4)]


def test_a_phase_ends_where_the_next_begins_and_the_last_with_the_last_step(run):
    log_phase(run, 1, 0, 0, "head")
    log_steps(run, [1.0] * 7)
    log_phase(run, 2, 7, 0)
    log_steps(run, [1.0] * 5, first=8)
    assert [(p.start, p.end) for p in Timeline.of(run.events()).phases] == [(0, 7), (7, 12)]


def test_the_best_evaluation_is_the_last_that_was_better(run):
    for step, is_best in ((10, True), (20, True), (30, False)):
        run.log("evaluation", step, phase="all", is_best=is_best, metrics={"loss": 1.0})
    assert Timeline.of(run.events()).best.step == 20


def test_a_loss_that_is_not_finite_stays_a_gap(run):
    log_steps(run, [1.0, float("nan"), 3.0])
    timeline = Timeline.of(run.events())
    assert timeline.steps[1].loss != timeline.steps[1].loss
    assert timeline.mean_loss(0, 3) == 2.0


def test_an_interval_above_zero_is_better_one_around_it_is_not_distinguishable_one_below_is_worse():
    assert compared("accuracy", 0.02, 0.01, 0.03).verdict == "better"
    assert compared("accuracy", 0.02, -0.01, 0.05).verdict == "not distinguishable"
    assert compared("accuracy", 0.02, 0.0, 0.04).verdict == "not distinguishable"
    assert compared("accuracy", -0.02, -0.03, -0.01).verdict == "worse"


def test_a_smaller_error_is_better():
    assert compared("mae", -0.2, -0.3, -0.1).verdict == "better"
    assert compared("mae", 0.2, 0.1, 0.3).verdict == "worse"
    assert compared("mae", -0.2, -0.3, -0.1).lead == (0.2, 0.1, 0.3)


def test_each_verdict_is_said_plainly():
    better, equal, worse = (
        compared("accuracy", *d) for d in ((0.02, 0.01, 0.03), (0.02, -0.01, 0.05), (-0.02, -0.03, -0.01))
    )
    assert str(better) == "Fine-tuning beats TF-IDF by 2.0 points of accuracy (95 % interval +1.0 to +3.0)."
    assert str(equal) == (
        "Fine-tuning did not beat TF-IDF: it is better by 2.0 points of accuracy, "
        "statistically indistinguishable from no difference (95 % interval -1.0 to +5.0)."
    )
    assert str(worse) == (
        "Fine-tuning did not beat TF-IDF: it is worse by 2.0 points of accuracy (95 % interval -3.0 to -1.0)."
    )


def test_the_strongest_baseline_is_the_one_with_the_smallest_lead_over_it(tmp_path):
    assert Records(made_up.write_run(tmp_path / "a", "binary")).strongest.name == "tfidf"
    assert Records(made_up.write_run(tmp_path / "b", "regression")).strongest.name == "tfidf"


def test_test_rows_are_reported_where_there_are_any_and_validation_rows_otherwise(tmp_path):
    assert Records(made_up.write_run(tmp_path / "a", split="test")).headline.rows == "1,000 test rows"
    headline = Records(made_up.write_run(tmp_path / "b", split="eval")).headline
    assert headline.rows == "1,000 validation rows"
    assert headline.selected_on_same_rows


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("binary", "accuracy"), ("multi", "f1"), ("regression", "mae"), ("language", "perplexity")],
)
def test_without_a_summary_the_headline_comes_from_the_results(tmp_path, kind, metric):
    run = made_up.write_run(tmp_path / "run", kind)
    with_summary = Records(run).headline
    (run.folder / "summary.json").unlink()
    assert Records(run).headline == with_summary
    assert with_summary.metric == metric


def test_an_undefined_figure_says_why(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "summary.json", lambda s: s.update(value=None, interval=None))
    made_up.change_json(run, "test_results.json", lambda r: r["test_details"].update(reasons={"accuracy": "no rows"}))
    assert str(Records(run).headline) == "accuracy n/a (no rows) on 1,000 test rows"


@pytest.mark.parametrize(
    ("counted", "known"),
    [
        ({"negative": 3, "positive": 4}, {"negative": 3, "positive": 4}),
        ({"0": 3, "1": 4}, {"negative": 3, "positive": 4}),
        ({"0": 3, "0,1": 4}, {}),
        ({"0": 3, "2": 4}, {}),
    ],
)
def test_training_rows_are_counted_by_class_name_or_not_at_all(tmp_path, counted, known):
    run = made_up.write_run(tmp_path / "run", facts=lambda f: setattr(f.splits["train"], "classes", counted))
    assert Records(run).training_counts == known


def test_rows_are_listed_train_first(tmp_path):
    assert list(Records(made_up.write_run(tmp_path / "run")).rows) == ["train", "validation", "test"]


def test_a_damaged_record_is_named_and_counts_as_missing(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    (run.folder / "baselines.json").write_text('[{"name":', encoding="utf-8")
    records = Records(run)
    assert records.comparisons == []
    assert records.damaged == ["baselines.json"]
