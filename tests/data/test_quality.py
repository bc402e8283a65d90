"""Facts about rows: each measured on rows made to have the blemish, and on rows without."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.data import Roles, Table, check_rows, duplicate_sets, facts, normalised, read, unlabelled_rows
from unfreeze.errors import DataError

ROLES = Roles(text=("text",), label="label", group=None, reasons={})


def table(texts: list[Any], labels: list[Any], name: str = "r") -> Table:
    del name
    return read([{"text": t, "label": y} for t, y in zip(texts, labels, strict=True)]).train


HEALTHY = table([f"review number {i}" for i in range(40)], ["pos", "neg"] * 20)


def test_healthy_rows_give_no_warning() -> None:
    found = facts({"train": HEALTHY, "test": table(["another one", "and one more"], ["pos", "neg"])}, ROLES)
    assert found.warnings() == []
    assert found.uneven == 1.0
    assert found.sentences()[0].startswith("train: 40 rows; 2 classes (neg 20, pos 20); 16 characters at the median")


@pytest.mark.parametrize(
    "other", ["good film", "  Good\t FILM\n", "\uff27\uff4f\uff4f\uff44 film", "good\u00a0film", "GOOD FILM"]
)
def test_texts_that_look_alike_are_equal(other: str) -> None:
    assert normalised(other) == "good film"


def test_composed_and_decomposed_characters_are_equal_and_different_words_are_not() -> None:
    assert normalised("caf\u00e9") == normalised("cafe\u0301") != normalised("cafe")
    assert duplicate_sets(["A b", "c", "a  B", "C ", "d"]).tolist() == [0, 1, 0, 1, 2]
    assert duplicate_sets([]).dtype == np.int64


@given(st.lists(st.text(max_size=4), max_size=20))
def test_sets_are_numbered_by_first_appearance(texts: list[str]) -> None:
    ids = duplicate_sets(texts).tolist()
    forms = [normalised(text) for text in texts]
    assert [forms.index(form) for form in forms] == [ids.index(i) for i in ids]
    assert list(dict.fromkeys(ids)) == list(range(len(set(ids))))


def test_duplicates_within_and_across_splits_are_counted_with_places() -> None:
    train = table(["one", "two", "ONE ", "three"], ["a", "b", "a", "b"])
    test = table(["four", " two", "one", "five"], ["a", "b", "a", "b"])
    found = facts({"train": train, "test": test}, ROLES)
    assert (found.splits["train"].duplicates.count, found.splits["train"].duplicates.places) == (1, ["data:3 = data:1"])
    assert found.splits["test"].duplicates.count == 0
    assert found.shared["train and test"].places == ["data:2 = data:2", "data:3 = data:1"]
    assert found.shared_rows["test"].tolist() == [1, 2]
    beside = facts({"train": train, "validation": table(["four"], ["a"]), "test": test}, ROLES)
    assert beside.shared["validation and test"].count == 1
    assert beside.shared_rows["test"].tolist() == [1, 2], "the model has learned nothing from validation rows"
    assert "Texts of test that are in train, too: 2 (data:2 = data:2, data:3 = data:1)." in found.warnings()


def test_conflicting_labels_of_equal_texts_are_counted_over_all_splits() -> None:
    train = table(["one", "two", "One"], ["a", "b", "b"])
    found = facts({"train": train, "test": table(["two", "three"], ["a", "a"])}, ROLES)
    assert (found.conflicts.count, found.conflicts.places) == (2, ["data:3", "data:1"])


def test_pairs_are_equal_only_where_both_texts_are() -> None:
    pair = Roles(text=("a", "b"), label=None, group=None, reasons={})
    rows = read([{"a": "x y", "b": "z"}, {"a": "x", "b": "y z"}, {"a": "X y", "b": "z"}]).train
    found = facts({"train": rows}, pair)
    assert found.splits["train"].duplicates.places == ["data:3 = data:1"]
    assert found.splits["train"].characters["longest"] == 4


def test_label_spellings_are_warned_of_with_counts_and_not_merged() -> None:
    labels = ["Pos", "pos ", "pos", "\uff50os", "caf\u00e9", "cafe\u0301", "neg"] * 2
    found = facts({"train": table([f"text {i}" for i in range(14)], labels)}, ROLES)
    assert [sorted(group.values()) for group in found.spellings] == [[2, 2, 2, 2], [2, 2]]
    assert len(found.splits["train"].classes) == 7
    assert any("'pos ' (2)" in warning for warning in found.warnings())


def test_empty_texts_are_counted_but_are_not_duplicates() -> None:
    found = facts({"train": table(["a", "", " \n", "\u200b\u202e", ""], ["x", "y", "x", "y", "x"])}, ROLES)
    assert (found.splits["train"].empty.count, found.splits["train"].empty.places[0]) == (4, "data:2")
    assert found.splits["train"].duplicates.count == 0


def test_only_the_first_five_places_are_kept() -> None:
    found = facts({"train": table(["same"] * 12, ["x", "y"] * 6)}, ROLES)
    assert (found.splits["train"].duplicates.count, len(found.splits["train"].duplicates.places)) == (11, 5)
    assert "11 (data:2 = data:1" in found.warnings()[0]
    assert "..." in found.warnings()[0]


def test_uneven_and_single_classes_are_warned_of() -> None:
    rows = table([f"text {i}" for i in range(13)], ["a"] * 12 + ["b"])
    found = facts({"train": rows}, ROLES)
    assert found.uneven == 12
    warnings = " ".join(found.warnings())
    assert "--set train.class_weights=balanced" in warnings
    assert "single training row: 'b'" in warnings
    even = facts({"train": table([f"text {i}" for i in range(12)], ["a"] * 10 + ["b"] * 2)}, ROLES)
    assert not any("uneven" in warning for warning in even.warnings())


def test_cut_texts_are_counted_by_class_where_it_differs() -> None:
    lengths = np.array([10, 600] * 20)
    found = facts({"train": HEALTHY}, ROLES, None, {"train": lengths}, 512)
    split = found.splits["train"]
    assert (split.cut, split.cut_by_class) == (20, {"neg": 1.0})
    assert split.tokens == {"shortest": 10, "median": 600, "p90": 600, "p99": 600, "longest": 600}
    assert any("20 texts (50.0%) are longer than 512 tokens" in w and "'neg' (100%)" in w for w in found.warnings())
    assert not any("cut" in w for w in facts({"train": HEALTHY}, ROLES, None, {"train": lengths}, 600).warnings())


def test_several_labels_a_row_are_each_counted() -> None:
    rows = table(["one", "two", "One"], ["0,1", "0", "1,0"])
    found = facts({"train": rows}, ROLES, {"train": [["a", "b"], ["a"], ["b", "a"]]})
    assert found.splits["train"].classes == {"a": 3, "b": 2}
    assert found.conflicts.count == 0


def test_numbers_as_labels_have_a_range_and_no_classes() -> None:
    found = facts({"train": table(["one", "two", "three"], [0.5, 1.5, 4.0])}, ROLES)
    assert found.splits["train"].label_range == (0.5, 2.0, 4.0)
    assert found.splits["train"].classes == {}
    assert "labels from 0.5 to 4, 2 on average" in found.sentences()[0]


def test_constant_columns_are_named_also_lists() -> None:
    rows = read([{"text": f"t {i}", "label": "ab"[i % 2], "lang": "en", "tags": ["x"]} for i in range(4)]).train
    assert facts({"train": rows}, ROLES).constant_columns == ["lang", "tags"]


def test_the_record_of_facts_is_plain_json_without_texts() -> None:
    found = facts({"train": table(["secret text", "secret text"], ["a", "b"])}, ROLES)
    text = json.dumps(found.to_json())
    assert "secret" not in text
    assert json.loads(text)["splits"]["train"]["duplicates"] == {"count": 1, "places": ["data:2 = data:1"]}


# check_rows


def refused(rows: Table, code: str, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        check_rows(rows, options.pop("roles", ROLES), split="test", **options)
    assert caught.value.code == code, caught.value
    return caught.value


def test_missing_labels_are_counted_and_stop() -> None:
    check_rows(HEALTHY, ROLES, split="train")
    rows = table(["a", "b", "c", "d"], ["x", None, "", "nan"])
    error = refused(rows, "DATA-LABEL")
    assert "2 of 4 test rows" in error.what
    assert error.where == "data:2, data:3"
    assert "--set data.drop_unlabelled=true" in (error.remedy or "")
    assert unlabelled_rows(rows, ROLES).tolist() == [1, 2]
    flags = Roles(text=("text",), label=("a", "b"), group=None, reasons={})
    flagged = read([{"text": "x", "a": 1, "b": 0}, {"text": "y", "a": None, "b": 1}]).train
    assert unlabelled_rows(flagged, flags).tolist() == [1]


def test_missing_and_empty_texts_stop() -> None:
    assert refused(table(["a", None, "c"], ["x", "y", "x"]), "DATA-ROW").where == "data:2"
    refused(table([None, None], ["x", "y"]), "DATA-TEXT")
    refused(table(["", "  "], ["x", "y"]), "DATA-TEXT")
    check_rows(table(["", "word"], ["x", "y"]), ROLES, split="train")


def test_a_split_without_the_columns_of_train_is_refused() -> None:
    error = refused(read([{"texts": "a", "label": "x"}]).train, "DATA-COLUMN")
    assert "did you mean 'texts'?" in (error.remedy or "")
    refused(HEALTHY.select([]), "DATA-EMPTY")


def spoken(speakers: str) -> Table:
    rows = [{"text": f"{speakers} said {i}", "label": "ab"[i % 2], "speaker": s} for i, s in enumerate(speakers)]
    return read(rows).train


@pytest.mark.parametrize("is_named", [True, False])
def test_groups_on_both_sides_of_a_split_are_counted(is_named: bool) -> None:
    roles = replace(ROLES, **{"group" if is_named else "looks_like_group": "speaker"})
    found = facts({"train": spoken("aabbcc"), "validation": spoken("dd"), "test": spoken("abbd")}, roles)
    assert found.shared_groups == {"train and validation": (1, 0), "train and test": (3, 2)}
    [warning] = [w for w in found.warnings() if "speaker" in w]
    assert "in test that are in train, too: 2 of 3" in warning
    assert ("--set data.group=speaker" in warning) is not is_named
    assert found.to_json()["shared_groups"]["train and test"] == [3, 2]


def test_without_a_group_none_is_compared() -> None:
    assert facts({"train": spoken("aabb"), "test": spoken("ab")}, ROLES).shared_groups == {}
