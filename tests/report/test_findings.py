import made_up
import pytest

from unfreeze import durable
from unfreeze.data.quality import Found
from unfreeze.report import judge
from unfreeze.report.findings import next_attempts
from unfreeze.report.records import Records


def found(run):
    return {f.code: f for f in judge(run)}


def with_baseline(run, value, low, high, metric="accuracy"):
    durable.write_json(run.folder / "baselines.json", [made_up.baseline("tfidf", metric, 0.88, value, low, high)])
    return run


def with_events(run, validation):
    (run.folder / "events.jsonl").unlink()
    made_up.write_events(run, validation)
    return run


def with_result(run, **changes):
    named = {f"test_{k}": v for k, v in changes.items()}
    made_up.change_json(run, "test_results.json", lambda results: results.update(named))
    return run


@pytest.fixture
def run(tmp_path):
    return made_up.write_run(tmp_path / "run", "six")


@pytest.mark.parametrize("kind", ["binary", "six", "many", "multi", "regression"])
def test_a_healthy_run_has_nothing_but_good_findings(tmp_path, kind):
    assert [(f.code, f.severity) for f in judge(made_up.write_run(tmp_path / "run", kind))] == [("BASE001", "good")]


def test_a_run_without_results_has_no_findings(tmp_path):
    run = made_up.Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})
    assert judge(run) == []


# baselines


@pytest.mark.parametrize(
    ("difference", "code", "severity"),
    [
        ((0.02, 0.01, 0.03), "BASE001", "good"),
        ((0.002, -0.01, 0.014), "BASE002", "warning"),
        ((-0.02, -0.03, -0.01), "BASE003", "bad"),
    ],
)
def test_the_strongest_baseline_is_beaten_or_not_or_better(run, difference, code, severity):
    finding = found(with_baseline(run, *difference))[code]
    assert finding.severity == severity
    assert (finding.evidence["difference"], finding.evidence["low"], finding.evidence["high"]) == difference
    assert bool(finding.advice) == (code != "BASE001")


def test_a_larger_error_than_the_baselines_is_worse(tmp_path):
    run = with_baseline(made_up.write_run(tmp_path / "run", "regression"), 0.2, 0.1, 0.3, metric="mae")
    assert "worse by 0.2 of mean absolute error" in found(run)["BASE003"].sentence


def test_only_the_strongest_baseline_is_judged(run):
    weak, strong = (
        made_up.baseline("majority", "accuracy", 0.2, 0.7, 0.6, 0.8),
        made_up.baseline("tfidf", "accuracy", 0.9, 0, -1, 1),
    )
    durable.write_json(run.folder / "baselines.json", [weak, strong])
    assert [f.evidence["baseline"] for f in judge(run) if f.code.startswith("BASE")] == ["tfidf"]


def test_what_to_try_begins_with_more_passes_where_the_last_weights_were_the_best(run):
    assert next_attempts(Records(run)) == [
        "more passes, the last weights were the best: --set train.epochs=6",
        "a stronger model: --model answerdotai/ModernBERT-base",
        "train all layers from the start: --schedule full",
    ]


def test_what_to_try_does_not_name_train_epochs_where_the_schedule_has_its_own_lengths(run):
    made_up.change_json(run, "plan.json", lambda plan: plan.update(choices=[]))
    assert not any("train.epochs" in attempt for attempt in next_attempts(Records(run)))


# the figure


def test_a_figure_from_the_rows_of_the_selection_is_said_to_be_one(tmp_path):
    finding = found(made_up.write_run(tmp_path / "run", split="eval"))["SEL001"]
    assert finding.severity == "info"
    assert "--test" in finding.advice


def test_a_model_that_is_too_sure_is_found(tmp_path):
    run = made_up.write_run(tmp_path / "run", "six", good=0.7, sure=10.0)
    finding = found(run)["CAL001"]
    assert finding.evidence["ece"] > 0.2
    assert finding.evidence["confidence_minus_accuracy"] > 0.2
    assert "too sure of itself" in finding.sentence
    assert "label_smoothing" in finding.advice


def test_a_model_that_is_not_sure_enough_is_found(tmp_path):
    run = made_up.write_run(tmp_path / "run", "six", good=0.8, sure=0.4)
    assert "not sure enough of itself" in found(run)["CAL001"].sentence


def one_bin(confidence, accuracy, rows):
    bins = [{"low": 0.6, "high": 1.0, "confidence": confidence, "accuracy": accuracy, "count": rows}]
    return {"calibration": {"ece": abs(confidence - accuracy), "bins": bins}}


def test_chance_on_few_rows_is_no_calibration_error(run):
    assert "CAL001" not in found(with_result(run, ece=0.15, details=one_bin(0.7, 0.55, 20)))
    assert "CAL001" in found(with_result(run, ece=0.15, details=one_bin(0.7, 0.55, 2000)))


def test_the_calibration_error_that_chance_gives_is_known(run):
    finding = found(with_result(run, ece=0.3, details=one_bin(0.8, 0.5, 400)))["CAL001"]
    assert finding.evidence["by_chance"] == pytest.approx((2 / 3.14159265 * 0.8 * 0.2 / 400) ** 0.5, abs=1e-4)


# classes


def per_class(*rows):
    return {"per_class": [dict(zip(("label", "precision", "recall", "support"), row, strict=True)) for row in rows]}


def test_classes_that_are_never_recognised_are_named(run):
    details = per_class(("a", 0.9, 0.9, 50), ("b", None, 0.0, 30), ("c", 0.0, 0.0, 20), ("d", None, None, 0))
    finding = found(with_result(run, details=details))["CLS001"]
    assert finding.severity == "warning"
    assert finding.sentence == "2 of 3 classes are never recognised: 'b', 'c' (50 rows; 1 never predicted at all)."
    assert finding.evidence["never_predicted"] == ["b"]
    assert "--set train.class_weights=balanced" in finding.advice


def test_a_class_of_two_rows_that_is_missed_may_be_bad_luck(run):
    assert (
        found(with_result(run, details=per_class(("a", 1.0, 1.0, 50), ("b", None, 0.0, 2))))["CLS001"].severity
        == "info"
    )


def test_class_weights_are_not_advised_where_they_are_set_or_do_not_apply(run, tmp_path):
    details = per_class(("a", 0.9, 0.9, 50), ("b", None, 0.0, 30))
    run.recipe_path.write_text("train:\n  class_weights: balanced\n", encoding="utf-8")
    assert "class_weights" not in found(with_result(run, details=details))["CLS001"].advice
    multi = with_result(made_up.write_run(tmp_path / "multi", "multi"), details=details)
    assert "class_weights" not in found(multi)["CLS001"].advice


# training


def turning_at(turn, rise):
    """Validation loss that falls by 0.004 a step to `turn`, and then changes by `rise` a step."""
    return lambda step: 1.0 - 0.004 * min(step, turn) + rise * max(0, step - turn)


def test_overfitting_is_a_validation_loss_that_rises_while_the_training_loss_falls(run):
    finding = found(with_events(run, turning_at(110, 0.01)))["OVF001"]
    assert finding.evidence["phase"] == "all"
    assert (finding.evidence["lowest_step"], finding.evidence["last_step"]) == (110, 150)
    assert finding.evidence["validation_loss"] == pytest.approx([0.56, 0.96])
    assert finding.evidence["train_loss"][0] > finding.evidence["train_loss"][1]
    assert finding.evidence["kept_step"] == 110
    assert finding.severity == "info"
    assert "--set train.epochs=2" in finding.advice


def test_overfitting_that_is_in_the_weights_kept_is_a_warning(run):
    with_events(run, turning_at(110, 0.01))
    run.log("evaluation", 150, phase="all", is_best=True, metrics={"loss": 0.96, "accuracy": 0.9})
    assert found(run)["OVF001"].severity == "warning"


@pytest.mark.parametrize(
    "validation",
    [
        pytest.param(turning_at(150, 0.0), id="still falling"),
        pytest.param(turning_at(130, 0.01), id="two evaluations are too few"),
        pytest.param(turning_at(110, 0.0001), id="flat"),
    ],
)
def test_a_validation_loss_that_does_not_clearly_rise_is_no_overfitting(run, validation):
    assert "OVF001" not in found(with_events(run, validation))


def test_a_loss_that_rises_at_the_start_of_a_phase_only_is_no_overfitting(run):
    assert "OVF001" not in found(with_events(run, lambda step: 1.0 - 0.004 * (step % 50 or 50)))


# data


def test_rows_that_are_cut_are_found_above_one_percent(run):
    assert "CUT001" not in found(with_result(run, samples=1000, rows_cut=10))
    finding = found(with_result(run, samples=1000, rows_cut=11))["CUT001"]
    assert finding.sentence.startswith("11 of 1,000 test rows (1.1 %) are longer than 128 tokens")


def test_reported_rows_that_are_among_the_training_rows_are_found(tmp_path):
    def share(count):
        return lambda facts: facts.shared.update({"train and test": Found(count, ["test.csv:5 = train.csv:9"])})

    few = found(made_up.write_run(tmp_path / "few", facts=share(2)))["DUP001"]
    many = found(made_up.write_run(tmp_path / "many", facts=share(20)))["DUP001"]
    assert (few.severity, many.severity) == ("info", "warning")
    assert many.sentence.startswith("20 of 1,000 test rows (2.0 %)")
    assert many.evidence["places"] == ["test.csv:5 = train.csv:9"]


def test_the_figure_without_rows_that_are_known_is_told(tmp_path):
    run = made_up.write_run(tmp_path / "run", facts=lambda f: f.shared.update({"train and test": Found(20, [])}))
    made_up.change_json(run, "summary.json", lambda s: s.update(without_known={"rows": 980, "value": 0.75}))
    finding = found(run)["DUP001"]
    assert finding.sentence.endswith("without them 75.0 %.")
    assert (finding.evidence["rows_without"], finding.evidence["value"]) == (980, 0.75)


@pytest.mark.parametrize("is_named", [True, False])
def test_groups_that_are_on_both_sides_are_found(tmp_path, is_named):
    def shared(facts):
        facts.shared_groups, facts.group, facts.is_group_named = {"train and test": (6, 5)}, "speaker", is_named

    finding = found(made_up.write_run(tmp_path / "run", facts=shared))["GRP001"]
    assert finding.sentence.startswith("5 of the 6 values of 'speaker'")
    assert ("--set data.group=speaker" in finding.advice) is not is_named


def test_of_recordings_no_length_in_tokens_is_told(tmp_path):
    run = made_up.write_run(tmp_path / "run")
    made_up.change_json(run, "plan.json", lambda plan: plan.update(task="audio-classification"))
    finding = found(with_result(run, samples=1000, rows_cut=11))["CUT001"]
    assert "tokens" not in finding.sentence
    assert "options.seconds" in finding.advice


def uneven(facts):
    facts.splits["train"].classes = {"negative": 3800, "positive": 190}


def test_uneven_classes_are_told_and_a_warning_where_the_small_ones_pay(tmp_path):
    run = made_up.write_run(tmp_path / "run", facts=uneven)
    assert found(run)["UNE001"].severity == "info"
    finding = found(with_result(run, accuracy=0.95, f1=0.6))["UNE001"]
    assert finding.severity == "warning"
    assert "accuracy 95.0 %, macro F1 60.0 %" in finding.sentence
    assert "--set train.class_weights=balanced" in finding.advice


def test_whole_numbers_to_predict_are_no_uneven_classes(tmp_path):
    assert "UNE001" not in found(made_up.write_run(tmp_path / "run", "regression", facts=uneven))


def test_every_finding_has_evidence_and_can_be_stored(run):
    run.write_findings(judge(with_result(run, samples=1000, rows_cut=500)))
    assert [f.code for f in run.findings] == ["BASE001", "CUT001"]
    assert all(f.evidence for f in run.findings)
