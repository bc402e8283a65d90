import base64

import made_up
import numpy as np
import pytest

from unfreeze.report import plots
from unfreeze.report.records import Records, Timeline

STRANGE = [
    "$\\frac{",
    "$a$ and $b$",
    "日本語",
    "\U0001f600",
    "",
    "_^{}%&#~\\",
    "a\nb\x1b[0m",
    "\ud800",
    "x" * 500,
    "\u202eabc",
]


def figure_texts(figure):
    figure.canvas.draw()
    return [
        t.get_text() for axes in figure.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts)
    ]


def is_png(uri):
    head, _, body = uri.partition(",")
    return head == "data:image/png;base64" and base64.b64decode(body).startswith(b"\x89PNG")


def test_smoothing_keeps_a_constant_and_passes_over_gaps():
    values = np.array([2.0, np.nan, 2.0, 2.0, np.nan])
    assert plots.smoothed(values) == pytest.approx(np.full(5, 2.0))


def test_smoothing_is_an_exponential_mean_without_a_pull_towards_zero():
    assert plots.smoothed(np.array([1.0, 4.0])) == pytest.approx([1.0, (1 * 2 / 3 + 4) / (1 + 2 / 3)])


def test_the_most_confused_pairs_come_first_and_right_answers_are_none():
    matrix = np.array([[8, 2, 0], [0, 5, 5], [1, 0, 9]])
    assert plots.most_confused(["a", "b", "c"], matrix) == [("b", "c", 5, 0.5), ("a", "b", 2, 0.2), ("c", "a", 1, 0.1)]
    assert plots.most_confused(["a", "b"], np.diag([3, 4])) == []


@pytest.mark.parametrize("label", STRANGE)
def test_any_label_can_be_drawn(label):
    assert is_png(plots.data_uri(plots.confusion_matrix([label, "b"], np.array([[3, 1], [0, 2]]))))


def test_a_label_that_the_font_lacks_keeps_its_number():
    assert plots.drawn("日本", 3) == "#3 \u25a1\u25a1"
    assert plots.drawn("größer", 3) == "größer"


def test_labels_that_begin_alike_can_be_told_when_they_are_shortened():
    labels = [f"a label of many words, {i}" for i in range(3)]
    texts = figure_texts(plots.confusion_matrix(labels, np.eye(3, dtype=int)))
    assert {"#1 a label of many words…", "#2 a label of many words…", "#3 a label of many words…"} <= set(texts)


def test_the_confusion_matrix_shows_its_counts_and_labels():
    texts = figure_texts(plots.confusion_matrix(["no", "yes"], np.array([[1234, 1], [0, 7]])))
    assert {"1,234", "1", "7", "no", "yes"} <= set(texts)
    assert "0" not in texts


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    timeline = Records(made_up.write_run(tmp_path / "run")).timeline
    assert plots.data_uri(plots.curves(timeline, "accuracy")) == plots.data_uri(plots.curves(timeline, "accuracy"))


def test_curves_have_a_panel_each_for_loss_metric_and_rates_and_name_the_phases(tmp_path):
    figure = plots.curves(Records(made_up.write_run(tmp_path / "run")).timeline, "accuracy")
    loss, metric, rates = figure.axes
    assert [t.get_text() for t in loss.texts] == ["head", "upper half", "all"]
    assert [t.get_text() for t in loss.get_legend().texts] == ["train, smoothed", "validation", "best, step 150"]
    assert metric.get_ylabel() == "validation\naccuracy, %"
    assert [t.get_text() for t in rates.get_legend().texts] == ["head", "group 2", "group 1", "stem"]


def test_curves_can_be_drawn_from_whatever_was_recorded(tmp_path):
    run = made_up.Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})
    run.log("phase", 0, number=1, of=1, name="all", steps=9, done=0, trainable=1, rates={"head": 1e-3})
    made_up.write_step(run, 1, "all", 1, float("nan"))
    assert is_png(plots.data_uri(plots.curves(Timeline.of(run.events()), "accuracy")))
    made_up.write_step(run, 2, "all", 2, 0.7)
    assert is_png(plots.data_uri(plots.curves(Timeline.of(run.events()))))


def test_many_layer_groups_are_named_at_both_ends_only(tmp_path):
    run = made_up.Run.create(tmp_path / "run", recipe_yaml="seed: 0\n", plan={})
    rates = {"head": 1e-3, **{f"group {i}": 1e-4 * 0.9 ** (24 - i) for i in range(24, 0, -1)}, "stem": 1e-6}
    run.log("phase", 0, number=1, of=1, name="all", steps=9, done=0, trainable=1, rates=rates)
    made_up.write_step(run, 1, "all", 1, 0.5)
    legend = plots.curves(Timeline.of(run.events())).axes[-1].get_legend()
    assert [t.get_text() for t in legend.texts] == ["head", "group 24", "group 23", "stem"]


def test_differences_are_drawn_in_points_with_the_line_of_no_difference(tmp_path):
    axes = plots.baseline_differences(Records(made_up.write_run(tmp_path / "run")).comparisons).axes[0]
    whiskers = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert whiskers[0] == [0, 0]
    assert whiskers[1:] == [pytest.approx([30, 38]), pytest.approx([0.5, 2.5]), pytest.approx([2, 4])]
    assert "further right is better" in axes.get_xlabel()
