"""What a column of labels means: every rule with its known answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from unfreeze.data import read
from unfreeze.errors import DataError, RecipeError, TaskError
from unfreeze.tasks._labels import (
    LabelSpace,
    canonical,
    guess_problem_type,
    is_missing,
    labels_in,
    learn_labels,
    parts_of,
)
from unfreeze.types import Row

SINGLE, MULTI, NUMBER = "single_label_classification", "multi_label_classification", "regression"


def row(value: Any, column: str = "label") -> Row:
    return Row(0, {column: value}, "reviews.csv:17")


def target(space: LabelSpace, value: Any) -> Any:
    return space.target(row(value), "label")


# the rules -------------------------------------------------------------------------------------------------------

RULES: list[tuple[str, list[Any], list[str] | None, str]] = [
    ("words", ["spam", "ham", "spam"], None, SINGLE),
    ("words with commas in them", ["food, drink", "rooms"], None, SINGLE),
    ("few whole numbers", [1, 2, 3, 2, 1], None, SINGLE),
    ("whole numbers as text", ["1", "2", "3"], None, SINGLE),
    ("whole numbers as floats", [0.0, 1.0, 1.0], None, SINGLE),
    ("booleans", [True, False, True], None, SINGLE),
    ("booleans beside numbers", [True, 0.5], None, SINGLE),
    ("ids of listed names, however many", list(range(200)), [f"c{i}" for i in range(200)], SINGLE),
    ("lists", [["a"], ["a", "b"], []], None, MULTI),
    ("comma ids", ["2,17", "4", "3"], None, MULTI),
    ("comma ids with blanks and other separators", ["2; 17", "4|5"], None, MULTI),
    ("listed names with commas", ["joy,fear", "joy"], ["joy", "fear", "anger"], MULTI),
    ("listed names without one that has several", ["joy", "fear"], ["joy", "fear"], SINGLE),
    ("numbers with a fraction", [1.5, 2.0, 4.0], None, NUMBER),
    ("numbers with a fraction as text", ["1.5", "2", "-3e2"], None, NUMBER),
    ("more than a hundred whole numbers", [i // 5 for i in range(505)], None, NUMBER),
    ("a hundred whole numbers", [i // 5 for i in range(500)], None, SINGLE),
    ("eleven numbers with fewer than three rows each", [i // 2 for i in range(22)], None, NUMBER),
    ("eleven numbers with three rows each", [i // 3 for i in range(33)], None, SINGLE),
    ("ten numbers with one row each", list(range(10)), None, SINGLE),
    ("words that read as numbers that are none", ["nan", "inf", "nan"], None, SINGLE),
]


@pytest.mark.parametrize(("values", "names", "expected"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_every_rule_has_its_answer(values: list[Any], names: list[str] | None, expected: str) -> None:
    kind, reason = guess_problem_type(values, names)
    assert kind == expected
    assert reason


def test_a_label_made_of_two_others_is_pointed_at() -> None:
    _, reason = guess_problem_type(["slow", "loud", "slow;loud", "a, b"], None)
    assert "'slow;loud' is one of them" in reason
    assert "--set options.problem_type=multi_label_classification" in reason
    assert "'slow;loud;' is one of them" in guess_problem_type(["slow", "loud", "slow;loud;"], None)[1]
    assert "--set" not in guess_problem_type(["slow", "loud", "New York, NY", ";"], None)[1]


def test_what_the_user_says_wins() -> None:
    assert learn_labels([1, 2, 3], problem_type="regression").problem_type == NUMBER
    assert learn_labels([1.5, 2.5], problem_type="single_label_classification").labels == ("1.5", "2.5")
    assert learn_labels(["a", "b"], problem_type="multi_label_classification").problem_type == MULTI
    with pytest.raises(TaskError, match="did you mean 'regression'"):
        learn_labels([1, 2], problem_type="regresion")  # type: ignore[arg-type]


# single label ----------------------------------------------------------------------------------------------------


def test_words_are_sorted_and_counted() -> None:
    space = learn_labels(["spam", "ham", "spam", None])
    assert (space.labels, space.counts, space.width) == (("ham", "spam"), (1, 2), 2)
    assert [target(space, v) for v in ("spam", "ham", None, "")] == [1, 0, None, None]


def test_numbers_are_sorted_as_numbers_and_before_words() -> None:
    assert learn_labels(["10", "9", "-1", "many"]).labels == ("-1", "9", "10", "many")


def test_every_spelling_is_a_class_of_its_own() -> None:
    assert learn_labels(["Spam", "spam", " spam"]).labels == (" spam", "Spam", "spam")


def test_booleans_are_false_and_true() -> None:
    space = learn_labels([True, False, True])
    assert (space.labels, space.counts) == (("false", "true"), (1, 2))
    assert [target(space, v) for v in (False, True)] == [0, 1]


def test_zero_and_one_as_floats_are_the_classes_0_and_1() -> None:
    space = learn_labels([0.0, 1.0, 1.0])
    assert space.labels == ("0", "1")
    assert [target(space, v) for v in (0, 1.0, "1")] == [0, 1, 1]


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan"), np.float64("nan")])
def test_none_nothing_and_nan_are_no_label(missing: Any) -> None:
    assert is_missing(missing)
    assert learn_labels(["a", missing, "b"]).labels == ("a", "b")


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "None", "nan", "-", "0"])
def test_words_for_nothing_are_labels(word: str) -> None:
    assert not is_missing(word)
    assert word in learn_labels(["a", word]).labels


def test_ids_of_listed_names_are_positions() -> None:
    space = learn_labels(["2", "0", "2"], names=["joy", "fear", "anger"])
    assert (space.labels, space.counts, space.ids) == (("joy", "fear", "anger"), (1, 0, 2), True)
    assert [target(space, v) for v in ("2", 1, 0.0, "fear")] == [2, 1, 0, 1]
    with pytest.raises(DataError, match="E-DATA-LABEL-UNSEEN"):
        target(space, "3")


@pytest.mark.parametrize("id_", [3, -1, 7.0, "12"])
def test_ids_beyond_the_listed_names_are_refused_with_their_row(id_: Any) -> None:
    with pytest.raises(DataError, match="is no position in the 3 names") as caught:
        learn_labels([0, 1, id_, 2], names=["joy", "fear", "anger"], place=lambda i: f"x.csv:{i + 2}")
    assert caught.value.where == "x.csv:4"
    assert ("-1 stands for no label" in str(caught.value.remedy)) == (id_ == -1)


def test_ids_mean_what_they_meant_where_the_model_has_another_order() -> None:
    space = learn_labels([0, 1, 1], names=["neg", "pos"]).in_order_of(["pos", "neg"])
    assert space.labels == ("pos", "neg")
    assert space.counts == (2, 1)
    assert [space.labels[target(space, v)] for v in (0, 1, "neg")] == ["neg", "pos", "neg"]
    again = LabelSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert [again.labels[target(again, v)] for v in (0, 1)] == ["neg", "pos"]
    back = space.in_order_of(["neg", "pos"])
    assert [back.labels[target(back, v)] for v in (0, 1)] == ["neg", "pos"]


def test_numbers_that_are_listed_as_names_are_names_where_they_cannot_be_positions() -> None:
    space = learn_labels([1, 5, 3, 5], names=["1", "2", "3", "4", "5"])
    assert (space.labels, space.ids) == (("1", "3", "5"), False)


def test_listed_names_give_the_order_and_only_those_with_rows_stay() -> None:
    space = learn_labels(["fear", "joy", "fear"], names=["joy", "anger", "fear"])
    assert (space.labels, space.counts, space.ids) == (("joy", "fear"), (1, 2), False)


def test_names_that_are_numbers_are_names_where_the_data_spells_them() -> None:
    """Trap: stars 1 to 5 in labels.txt; the label "1" is one star, not the second name."""
    stars = ["1", "2", "3", "4", "5"]
    space = learn_labels(["1", "2", "4"], names=stars)
    assert [space.labels[target(space, v)] for v in ("1", "2", "4")] == ["1", "2", "4"]
    numbered = learn_labels([0, 1, 4], names=stars)
    assert [numbered.labels[target(numbered, v)] for v in (0, 1, 4)] == ["1", "2", "5"]


def test_a_label_that_training_rows_lack_is_an_error_with_place_and_suggestion() -> None:
    space = learn_labels(["positive", "negative"])
    with pytest.raises(DataError) as caught:
        target(space, "postive")
    assert (caught.value.code, caught.value.where) == ("DATA-LABEL-UNSEEN", "reviews.csv:17")
    assert "did you mean 'positive'?" in caught.value.what


@pytest.mark.parametrize("values", [["a", "a"], [1, 1, 1], [True, True], [2.5, 2.5], ["a", None, "a"]])
def test_one_class_only_is_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match="E-DATA-ONE-CLASS") as caught:
        learn_labels(values, where="column 'label'")
    assert caught.value.where == "column 'label'"


@pytest.mark.parametrize("values", [[], [None, None], ["", " "], [float("nan")]])
def test_no_label_at_all_is_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match="no row has a label"):
        learn_labels(values)


# several labels --------------------------------------------------------------------------------------------------


def test_lists_name_several_classes_or_none() -> None:
    space = learn_labels([["b"], ["a", "b"], []])
    assert (space.problem_type, space.labels, space.counts) == (MULTI, ("a", "b"), (1, 2))
    assert target(space, ["b", "a"]).tolist() == [1, 1]
    assert target(space, []).tolist() == [0, 0]
    assert space.names(row(["b"]), "label") == ["b"]


def test_comma_ids_are_positions_in_the_listed_names() -> None:
    names = ["admiration", "amusement", "anger"]
    space = learn_labels(["0,2", "2", "1"], names=names)
    assert (space.labels, space.counts, space.ids) == (tuple(names), (1, 1, 2), True)
    assert target(space, "2 , 0").tolist() == [1, 0, 1]


def test_comma_ids_without_names_are_sorted_as_numbers() -> None:
    space = learn_labels(["2,10,9", "9"])
    assert space.labels == ("2", "9", "10")
    assert target(space, "10").tolist() == [0, 0, 1]


@pytest.mark.parametrize("values", [["4", "3,5", "2,0"], ["4", " 3,5", "-0,25"], ["17", "3,5"]])
def test_numbers_with_a_comma_may_be_two_ids_and_are_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match="written with a comma") as caught:
        learn_labels(values, place=lambda i: f"x.csv:{i}")
    assert (caught.value.code, caught.value.where) == ("DATA-LABEL", "x.csv:1")
    assert "options.problem_type=multi_label_classification" in str(caught.value.remedy)
    assert learn_labels(["4", "3,5", "2,0"], problem_type=MULTI).labels == ("0", "2", "3", "4", "5")
    assert learn_labels(["0", "0,1"], names=["joy", "fear"]).labels == ("joy", "fear"), "names say what they are"
    assert learn_labels(["4;3", "5"]).problem_type == MULTI, "another mark is no decimal one"


def test_several_columns_are_a_class_each() -> None:
    rows = [(0, 1, None), ("1", "yes", True), (0.0, 1.0, "no")]
    space = learn_labels(rows, columns=("toxic", "rude", "loud"))
    assert (space.problem_type, space.labels, space.counts) == (MULTI, ("toxic", "rude", "loud"), (1, 3, 1))
    given = Row(3, {"toxic": "1", "rude": False, "loud": 1.0}, "a.csv:5")
    assert space.target(given, ("toxic", "rude", "loud")).tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="neither 0 nor 1") as caught:
        space.target(Row(4, {"toxic": 2, "rude": 0, "loud": 0}, "a.csv:6"), ("toxic", "rude", "loud"))
    assert caught.value.where == "a.csv:6"


def test_an_empty_text_names_no_class_where_several_labels_were_asked_for() -> None:
    space = learn_labels(["slow; loud;", "", "loud", "  ", None, float("nan")], problem_type=MULTI)
    assert (space.labels, space.counts) == (("loud", "slow"), (2, 1))
    for one in (space, LabelSpace.from_json(json.loads(json.dumps(space.to_json())))):
        assert [target(one, v).tolist() for v in ("", " ", "slow;")] == [[0, 0], [0, 0], [0, 1]]
        assert [target(one, v) for v in (None, float("nan"))] == [None, None]
    assert target(learn_labels(["0;1", "1"]), "") is None, "nobody has asked for it"
    assert learn_labels(["", ""], names=["a", "b"], problem_type=MULTI).labels == ("a", "b")
    with pytest.raises(DataError, match="every list or text is empty"):
        learn_labels(["", " "], problem_type=MULTI)


def test_one_class_is_enough_where_a_row_may_have_none() -> None:
    assert learn_labels([["a"], []]).labels == ("a",)


# other data ------------------------------------------------------------------------------------------------------


def relabelled(space: LabelSpace, values: list[Any], own: list[str]) -> list[Any]:
    return space.relabelled(read([{"label": value} for value in values]).train, "label", own).column("label")


def test_ids_of_other_data_count_its_own_names() -> None:
    ids, words = learn_labels([0, 1, 1], names=["neg", "pos"]), learn_labels(["neg", "pos"])
    for space in (ids, words, ids.in_order_of(["pos", "neg"])):
        assert relabelled(space, [0, 1, None], ["pos", "neg"]) == ["pos", "neg", None]
        assert relabelled(space, ["0", "1"], ["odd", "neg"]) == ["odd", "neg"], "what is unknown is told by its name"
        assert relabelled(space, ["neg", "pos"], ["pos", "neg"]) == ["neg", "pos"]
    assert relabelled(ids, [0, 1], ["neg", "pos"]) == [0, 1]
    several = learn_labels([[0, 1], [1]], names=["x", "y"])
    assert relabelled(several, [[0], [1, 0], []], ["y", "x"]) == [["y"], ["x", "y"], []]


def test_numbers_that_training_rows_have_too_stay_what_they_are() -> None:
    assert relabelled(learn_labels([0, 1]), [0, 1], ["neg", "pos"]) == [0, 1]
    assert relabelled(learn_labels([1.5, 2.5]), [0, 1], ["neg", "pos"]) == [0, 1]
    stars = [str(n) for n in range(1, 6)]
    assert relabelled(learn_labels(["1", "2", "4"], names=stars), ["1", "3"], stars) == ["1", "3"], "they are names"


def test_names_that_are_numbers_are_found_by_their_place() -> None:
    """Trap: a text that is a number is read as an id."""
    space = learn_labels([0, 1, 4], names=["1", "2", "3", "4", "5"])
    found = relabelled(space, [0, 4], ["5", "4", "3", "2", "1"])
    assert [space.labels[target(space, value)] for value in found] == ["5", "1"]
    with pytest.raises(DataError, match="the label '9' is in no training row") as caught:
        relabelled(space, [0, 1], ["1", "9"])
    assert caught.value.where == "data:2"


# numbers ---------------------------------------------------------------------------------------------------------


def test_numbers_are_centred_and_scaled_by_the_training_rows() -> None:
    space = learn_labels([1.5, 2.5, "3.5"])
    assert (space.problem_type, space.labels, space.width) == (NUMBER, (), 1)
    assert space.center == pytest.approx(2.5)
    assert space.scale == pytest.approx(np.std([1.5, 2.5, 3.5]))
    assert target(space, "3.5") == pytest.approx(1 / np.std([1.5, 2.5, 3.5]))
    assert (space.unscaled().center, space.unscaled().scale) == (0.0, 1.0)


@pytest.mark.parametrize("bad", ["many", "inf", "nan"])
def test_a_label_that_is_no_number_is_refused_with_its_place(bad: str) -> None:
    with pytest.raises(DataError, match="is not a number") as caught:
        target(learn_labels([1.5, 2.5]), bad)
    assert (caught.value.code, caught.value.where) == ("DATA-LABEL", "reviews.csv:17")
    with pytest.raises(DataError, match="E-DATA-LABEL"):
        learn_labels([1.5, bad, 2.5], problem_type="regression")


# pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "true"),
        (np.bool_(False), "false"),
        (3.0, "3"),
        (np.float32(2), "2"),
        (0.5, "0.5"),
        (7, "7"),
        (" a ", " a "),
    ],
)
def test_the_name_of_a_raw_value(value: Any, name: str) -> None:
    assert canonical(value) == name


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("2, 17", ["2", "17"]),
        (["x", 3], ["x", "3"]),
        ("a|b;c", ["a", "b", "c"]),
        ("  ", []),
        ("slow; loud;", ["slow", "loud"]),
        (";", []),
        (np.array([1, 0]), ["1", "0"]),
    ],
)
def test_the_parts_of_a_multi_label_value(value: Any, parts: list[str]) -> None:
    assert parts_of(value) == parts


@pytest.mark.parametrize(
    "space",
    [
        learn_labels(["a", "b"]),
        learn_labels(["0,1", "1"], names=["x", "y"]).with_thresholds([0.3, 0.7]),
        learn_labels([(0, 1), (1, 0)], columns=("p", "q")),
        learn_labels([1.5, 2.5]),
    ],
    ids=["single", "multi", "columns", "regression"],
)
def test_a_label_space_comes_back_from_its_json_form(space: LabelSpace) -> None:
    import json

    assert LabelSpace.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_another_order_of_the_classes_keeps_their_counts() -> None:
    space = learn_labels(["a", "b", "b"]).in_order_of(["b", "a"])
    assert (space.labels, space.counts) == (("b", "a"), (2, 1))
    assert target(space, "b") == 0


# slips of the pen, with their row


@pytest.mark.parametrize(
    ("values", "what", "row"),
    [
        ([["a"], ["b", None]], "missing", 1),
        ([*(str(n / 2) for n in range(30)), "1o.5"], "'1o.5' is not a number, though", 30),
        ([*(str(n / 4) for n in range(30)), "14,5"], "'14,5' is not a number, though", 30),
        ([1.5, None, float("inf")], "inf is not a number", 2),
        ([1.5, 2.5, 5.5e300], "larger than a model can predict", 2),
    ],
)
def test_a_label_that_cannot_be_is_refused_with_its_row(values: list[Any], what: str, row: int) -> None:
    with pytest.raises(DataError, match=what) as caught:
        learn_labels(values, place=lambda i: f"x.csv:{i}")
    assert caught.value.where == f"x.csv:{row}"


def test_classes_with_a_few_numbers_among_them_are_classes() -> None:
    assert len(learn_labels(["1", "2", "3", "many", "few"] * 9).labels) == 5


def test_identifiers_of_hundreds_of_digits_are_classes() -> None:
    names = [str(10**400), str(10**400 + 1)]
    assert set(learn_labels(names).labels) == set(names)
    assert len(learn_labels([10**400, 10**400 + 1]).labels) == 2


def test_lists_that_are_all_empty_name_no_label() -> None:
    with pytest.raises(DataError, match="every list or text is empty"):
        learn_labels([[], []])


def test_several_label_columns_are_no_other_problem_than_they_are() -> None:
    rows: list[Any] = [(1, 0), (0, 1), (1, 1)]
    assert learn_labels(rows, columns=("a", "b"), problem_type="multi_label_classification").labels == ("a", "b")
    with pytest.raises(RecipeError, match="no regression"):
        learn_labels(rows, columns=("a", "b"), problem_type="regression")


def test_labels_that_keep_a_row_are_those_that_are_learned() -> None:
    for values in (["a;b", "b|c", "c, d"], [["a"], ["b", "c"], []], ["a,b", "b"]):
        space = learn_labels(values, problem_type=MULTI)
        assert set().union(*(labels_in(v, MULTI) for v in values)) == set(space.labels)
    space = learn_labels([1.0, 2.0, None, 1.0], problem_type=SINGLE)
    assert set().union(*(labels_in(v, SINGLE) for v in (1.0, 2.0, None))) == set(space.labels)
