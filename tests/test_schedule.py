from __future__ import annotations

import doctest

import pytest

from unfreeze import schedule
from unfreeze.errors import RecipeError
from unfreeze.recipe import Recipe
from unfreeze.schedule import Phase, Schedule, full, gradual, head, last
from unfreeze.types import Duration


def spans(value):
    return [phase.span for phase in Schedule.parse(value).phases]


def lengths(value):
    return [str(phase.epochs) for phase in value.phases]


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(schedule).failed == 0


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("head", ["head"]),
        ("full", ["all"]),
        ("gradual", ["head", "last(half)", "all"]),
        ("last(3)", ["head", "last(3)"]),
        (" last( 3 ) ", ["head", "last(3)"]),
        (["head", "all"], ["head", "all"]),
        ([{"span": ["*.layer.5.*", "head"]}], [["*.layer.5.*", "head"]]),
    ],
)
def test_a_schedule_is_read_from_its_name_or_its_phases(written, expected):
    assert spans(written) == expected


def test_the_builders_are_what_their_names_read_as():
    for built, name in [(head(), "head"), (last(2), "last(2)"), (gradual(), "gradual"), (full(), "full")]:
        assert built == Schedule.parse(name)
        assert built.to_plain() == name


def test_a_length_is_shared_out_over_the_phases():
    assert lengths(head(epochs=2)) == ["2 epochs"]
    assert lengths(last(2, epochs=2)) == ["0.5 epochs", "1.5 epochs"]
    assert lengths(gradual(epochs=5)) == ["1 epoch", "2 epochs", "2 epochs"]


def test_whole_steps_stay_whole_and_add_up():
    phases = gradual(epochs="203 steps").phases
    assert [phase.epochs for phase in phases] == [Duration(41, "steps"), Duration(81, "steps"), Duration(81, "steps")]
    with pytest.raises(RecipeError, match="too few for 3 phases"):
        gradual(epochs="2 steps")


def test_settings_reach_the_phases_that_train_the_backbone():
    first, second, third = gradual(layer_decay=0.7).phases
    assert (first.layer_decay, second.layer_decay, third.layer_decay) == (None, 0.7, 0.7)
    assert last(1, learning_rate=1e-5).phases[1].learning_rate == 1e-5
    assert full(decay="cosine").phases[0].decay == "cosine"


def test_schedules_are_joined_by_plus():
    joined = head(epochs=1) + full(epochs=2)
    assert [phase.span for phase in joined.phases] == ["head", "all"]
    assert lengths(joined) == ["1 epoch", "2 epochs"]


def test_a_phase_is_named_after_its_span():
    assert Phase(span="last(2)").name == "last(2)"
    assert Phase(span=["*.attention.*", "head"]).name == "*.attention.*, head"
    assert Phase(span="head", name="warm-up").name == "warm-up"


@pytest.mark.parametrize(
    "written",
    [
        gradual(epochs=1),
        gradual(epochs="7 steps"),
        last(2, epochs=1 / 3),
        full(epochs="1e3 steps", learning_rate=3e-5, warmup_fraction=0.0, decay="constant"),
        Schedule.parse(["head", {"span": ["1e-4", "null"], "share": 2.5, "layer_decay": 0.85}]),
    ],
)
def test_what_is_written_down_reads_back_as_the_same_phases(written):
    assert Schedule.parse(written.to_plain()).phases == written.phases
    recipe = Recipe.build({"schedule": written})
    assert recipe.schedule == written


def test_a_changed_gradual_schedule_is_not_written_down_as_the_plain_one():
    changed = gradual(layer_decay=0.5)
    assert isinstance(changed.to_plain(), list)
    assert Schedule.parse(changed.to_plain()).phases == changed.phases


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("graduel", "did you mean 'gradual'"),
        ("last(0)", "last(2)"),
        ("last(half)", "there is no schedule"),
        ("", "there is no schedule"),
        ([], "at least one phase"),
        ({"span": "head"}, "a name or a list of phases"),
        (3, "a name or a list of phases"),
        ([3], "a phase is 'span: ...'"),
        ([{"epochs": 1}], "span: has to be named"),
        ([{"span": "hed"}], "did you mean 'head'"),
        ([{"span": "last(-1)"}], "there is no span"),
        ([{"span": "last(٣)"}], "there is no span"),
        ([{"span": []}], "a list of name patterns"),
        ([{"span": ["head", ""]}], "a list of name patterns"),
        ([{"span": "head", "epoch": 1}], "did you mean 'epochs'"),
        ([{"span": "head", "epochs": 0}], "not a length of training"),
        ([{"span": "head", "epochs": "2.5 steps"}], "not a length of training"),
        ([{"span": "head", "learning_rate": -1}], "greater than 0"),
        ([{"span": "head", "learning_rate": "1e-4"}], "a number"),
        ([{"span": "head", "learning_rate": float("nan")}], "finite"),
        ([{"span": "head", "layer_decay": 1.5}], "less than or equal to 1"),
        ([{"span": "head", "decay": "cosin"}], "'linear', 'cosine' or 'constant'"),
    ],
)
def test_what_is_not_a_schedule_is_refused_with_the_phase_and_advice(written, said):
    with pytest.raises(RecipeError) as raised:
        Schedule.parse(written)
    assert raised.value.code == "SCHEDULE"
    assert said in raised.value.block()
    if isinstance(written, list) and written:
        assert "phase 1" in raised.value.where


def test_all_that_is_wrong_with_a_phase_is_said_at_once():
    with pytest.raises(RecipeError) as raised:
        Phase(span="head", epochs=-1, share=0, decay="no")
    assert all(word in raised.value.what for word in ("epochs", "share", "decay"))


def test_a_builder_refuses_what_a_phase_does_not_have():
    with pytest.raises(RecipeError, match="a phase has no 'learning_rates': did you mean 'learning_rate'"):
        full(learning_rates=1)
    with pytest.raises(RecipeError, match="there is no span"):
        last(0)
