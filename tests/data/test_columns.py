"""Roles of columns: known names, known contents, and questions instead of guesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unfreeze.data import Table, guess_roles, joined_texts, read
from unfreeze.data.columns import guess_file_roles
from unfreeze.errors import DataError

TEXTS = [f"this is review number {i}, which says quite a lot" for i in range(40)]
LABELS = ["pos", "neg"] * 20


def table(**columns: list[Any]) -> Table:
    return read(columns).train


def refused(rows: Table, code: str, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        guess_roles(rows, **options)
    assert caught.value.code == code, caught.value
    return caught.value


@pytest.mark.parametrize(
    ("text", "label"),
    [("text", "label"), ("Review", "Sentiment"), ("sentence ", "class"), ("comment_text", "category_name")],
)
def test_columns_are_found_by_the_names_people_use(text: str, label: str) -> None:
    roles = guess_roles(read({"id": list(range(40)), text: TEXTS, label: LABELS}).train)
    assert (roles.text, roles.label, roles.group) == ((text,), label, None)
    assert "by its name" in roles.reasons["text"]
    assert "by its name" in roles.reasons["label"]


def test_columns_without_known_names_are_found_by_content() -> None:
    ids = [f"k{i:05d}" for i in range(40)]
    roles = guess_roles(table(column_1=TEXTS, column_2=LABELS, column_3=ids))
    assert (roles.text, roles.label) == (("column_1",), "column_2")
    assert "40 different texts" in roles.reasons["text"]
    assert "2 different values" in roles.reasons["label"]


def test_a_finer_label_or_a_rating_beside_the_label_is_not_chosen_and_it_says_so() -> None:
    fine = [f"{label}{i % 4}" for i, label in enumerate(LABELS)]
    roles = guess_roles(table(text=TEXTS, label=LABELS, fine_label=fine, rating=[i % 3 for i in range(40)]))
    assert roles.label == "label"
    assert "'fine_label' is a finer division of it and is not used" in roles.reasons["label"]
    assert "'rating' lies beside it and is not used" in roles.reasons["label"]


def test_a_rating_is_the_label_where_there_is_no_other() -> None:
    assert guess_roles(table(text=TEXTS, stars=[i % 5 for i in range(40)])).label == "stars"


@pytest.mark.parametrize("pair", [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "answer")])
def test_pairs_are_read_together_in_their_order(pair: tuple[str, str]) -> None:
    rows = read({pair[1]: TEXTS[::-1], "label": LABELS, pair[0]: TEXTS}).train
    roles = guess_roles(rows)
    assert roles.text == pair
    assert next(iter(joined_texts(rows, roles))) == f"{TEXTS[0]}\0{TEXTS[-1]}"


def test_a_title_beside_the_text_is_pointed_out() -> None:
    titles = [f"a title of some length, {i}" for i in range(40)]
    roles = guess_roles(table(title=titles, body=TEXTS, label=LABELS))
    assert roles.text == ("body",)
    assert "--set 'data.text=[title, body]'" in roles.reasons["text"]


def test_equally_likely_columns_are_a_question() -> None:
    error = refused(table(review=TEXTS, comment=TEXTS[::-1], label=LABELS), "DATA-COLUMN")
    assert "--set data.text=review" in (error.remedy or "")
    assert "--set data.text=comment" in (error.remedy or "")
    error = refused(table(text=TEXTS, category=LABELS, sentiment=LABELS[::-1]), "DATA-COLUMN")
    assert "--set data.label=category" in (error.remedy or "")
    refused(table(a=TEXTS, b=[t + "!" for t in TEXTS], label=LABELS), "DATA-COLUMN")


def test_the_better_name_wins_over_the_longer_text() -> None:
    words = [f"word{i}" for i in range(40)]
    assert guess_roles(table(description=TEXTS, text=words, label=LABELS)).text == ("text",)
    mostly_empty = [""] * 39 + ["a single comment of some words"]
    assert guess_roles(table(comment=mostly_empty, review=TEXTS, label=LABELS)).text == ("review",)


def test_a_label_column_without_any_label_is_still_the_label() -> None:
    assert guess_roles(table(text=TEXTS, label=[None] * 40)).label == "label"


def test_without_a_candidate_the_columns_are_listed() -> None:
    assert "text, extra" in (refused(table(text=TEXTS, extra=TEXTS[::-1]), "DATA-COLUMN").remedy or "")
    refused(table(label=LABELS), "DATA-COLUMN")


def test_prediction_needs_only_the_text() -> None:
    roles = guess_roles(table(text=TEXTS), needs_label=False)
    assert (roles.text, roles.label) == (("text",), None)
    assert guess_roles(table(text=TEXTS, label=LABELS), needs_label=False).label is None
    assert guess_roles(table(words=["a", "b"]), needs_label=False).text == ("words",)


@pytest.mark.parametrize(
    ("named", "shown"),
    [("txt", "did you mean 'text'?"), ("TEXT", "did you mean 'text'?"), ("Kind", "did you mean 'kind '?")],
)
def test_a_mistyped_name_is_answered_with_the_near_one(named: str, shown: str) -> None:
    rows = read({"text": TEXTS, "kind ": LABELS}).train
    assert shown in (refused(rows, "DATA-COLUMN", text=named).remedy or "")


def test_what_is_named_is_kept() -> None:
    rows = table(text=TEXTS, label=LABELS, other=TEXTS[::-1], kind=LABELS[::-1], speaker=["a", "b", "c", "d"] * 10)
    roles = guess_roles(rows, text=["other", "text"], label="kind", group="speaker")
    assert (roles.text, roles.label, roles.group) == (("other", "text"), "kind", "speaker")
    assert "named by you" in roles.reasons["text"]
    refused(rows, "DATA-COLUMN", text="text", label="text")


@pytest.mark.parametrize("named", [{"text": "label", "label": "text"}, {"text": "label"}, {"label": "text"}])
def test_swapped_columns_are_found_by_cardinality(named: dict[str, str]) -> None:
    error = refused(table(text=TEXTS, label=LABELS), "DATA-COLUMN", **named)
    assert "swapped" in error.what
    assert error.remedy == "--set data.text=text --set data.label=label"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([str(i) for i in range(40)], "only numbers"),
        (list(range(40)), "numbers, not text"),
        ([""] * 40, "empty in all"),
    ],
)
def test_a_text_column_without_text_is_refused(texts: list[Any], words: str) -> None:
    assert words in refused(table(text=texts, label=LABELS), "DATA-TEXT").what
    assert words in refused(table(text=texts, label=LABELS), "DATA-TEXT", text="text").what


def test_words_that_look_like_nothing_are_text() -> None:
    odd = ["NA", "null", "None", "nan", "007", "a word"]
    assert guess_roles(table(text=odd, label=["a", "b"] * 3)).text == ("text",)


def test_several_columns_of_zero_and_one_are_labels_only_when_named() -> None:
    rows = table(text=TEXTS, toxic=[0, 1] * 20, insult=["0", "1"] * 20, odd=[0, 2] * 20)
    error = refused(rows.select(range(40)), "DATA-COLUMN", text="text")
    assert "could each be the label" in error.what or "hold 0 and 1" in error.what
    assert guess_roles(rows, label=["toxic", "insult"]).label == ("toxic", "insult")
    error = refused(rows, "DATA-LABEL", label=["toxic", "odd"])
    assert error.where == "data:2"
    flags = table(text=TEXTS, toxic=[0, 1] * 20, insult=[1, 0] * 20)
    assert "--set 'data.label=[toxic, insult]'" in (refused(flags, "DATA-COLUMN").remedy or "")


def test_a_group_is_pointed_out_but_never_used_unasked() -> None:
    rows = table(text=TEXTS, label=LABELS, speaker_id=[f"s{i % 7}" for i in range(40)])
    roles = guess_roles(rows)
    assert roles.group is None
    assert "column 'speaker_id' looks like a group; --set data.group=speaker_id" in roles.reasons["group"]
    assert roles.looks_like_group == "speaker_id"
    named = guess_roles(rows, group="speaker_id")
    assert "equal values stay on one side" in named.reasons["group"]
    assert named.looks_like_group is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("SM{speaker}_F10_A{i:03}.wav", "part 1 of the file names, 'SM0'"),
        ("{i:03}-anna{speaker}.wav", "part 2 of the file names, 'anna0'"),
        ("{speaker}_{i:03}.wav", None),  # numbers may be anything
        ("take_{i:03}.wav", None),
        ("{label}_{i:03}.wav", None),  # the label in other words
        ("x{i:03}.wav", None),
    ],
)
def test_a_part_of_file_names_that_looks_like_a_group_is_pointed_out(
    name: str, part: str | None, tmp_path: Path
) -> None:
    lines = ["file_name,label"]
    for i in range(40):
        label = ("angry", "sad")[i // 2 % 2]
        lines.append(f"{name.format(speaker=i % 6, i=i, label=label)},{label}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = guess_file_roles(read(tmp_path / "list.csv").train, "audio").reasons.get("group")
    assert (found or "").startswith(part) if part else found is None


def test_objects_and_lists_are_not_guessed_unless_their_name_is_a_label() -> None:
    rows = table(text=TEXTS, meta=[{"a": 1}] * 40, tokens=[["a"]] * 40, labels=[["x"], ["x", "y"]] * 20)
    assert guess_roles(rows).label == "labels"
