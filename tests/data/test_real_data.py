"""Data sets as people have them: read as they lie, roles guessed right. Needs UNFREEZE_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from unfreeze.data import check_rows, divide, duplicate_sets, facts, guess_roles, joined_texts, read
from unfreeze.errors import DataError

DATA = Path(os.environ.get("UNFREEZE_DATA", "")) / "dev"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("UNFREEZE_DATA" not in os.environ, reason="UNFREEZE_DATA is not set"),
]

# name, rows of train, validation and test, text, label
SETS = [
    ("imdb", {"train": 10_000, "test": 3_000}, "text", "label"),
    ("imdb_raw_folders", {"train": 400, "test": 200}, "text", "label"),
    ("sst2", {"train": 6_920, "validation": 872, "test": 1_821}, "sentence", "label"),
    ("trec6", {"train": 5_452, "test": 500}, "text", "label"),
    ("banking77", {"train": 10_003, "test": 3_080}, "text", "category"),
    ("goemotions", {"train": 43_410, "validation": 5_426, "test": 5_427}, "column_1", "column_2"),
    ("scicite", {"train": 7_320, "validation": 916, "test": 1_861}, "text", "label"),
]


@pytest.mark.parametrize(("name", "rows", "text", "label"), SETS, ids=[case[0] for case in SETS])
def test_a_set_is_read_as_it_lies_and_its_roles_are_found(
    name: str, rows: dict[str, int], text: str, label: str
) -> None:
    splits = read(DATA / name)
    assert {split: len(table) for split, table in splits.tables().items()} == rows
    roles = guess_roles(splits.train)
    assert (roles.text, roles.label, roles.group) == ((text,), label, None)
    for split, table in splits.tables().items():
        check_rows(table, roles, split=split)


def test_what_the_sets_hold_is_known() -> None:
    emotions = read(DATA / "goemotions")
    assert emotions.label_names is not None
    assert (len(emotions.label_names), emotions.label_names[27]) == (28, "neutral")
    assert 'Pretty sure you don\'t know what "hurt" means' in emotions.train.column("column_1")
    banking = read(DATA / "banking77")
    assert banking.label_names is not None
    assert set(banking.label_names) == set(banking.train.column("category"))
    reviews = read(DATA / "imdb_raw_folders")
    assert reviews.train.place(0).startswith("train/neg/")
    assert reviews.train.column("label").count("pos") == 200


def test_the_known_repetitions_of_trec_are_found() -> None:
    splits = read(DATA / "trec6")
    found = facts(splits.tables(), guess_roles(splits.train))
    assert "'fine_label' is a finer division" in guess_roles(splits.train).reasons["label"]
    assert found.shared["train and test"].count == 11
    assert found.uneven == pytest.approx(1250 / 86)


def test_a_division_of_banking_has_every_class_and_no_text_twice() -> None:
    splits = read(DATA / "banking77")
    roles = guess_roles(splits.train)
    strata = np.unique(splits.train.column("category"), return_inverse=True)[1]
    sets = duplicate_sets(joined_texts(splits.train, roles))
    division = divide(len(strata), strata=strata, duplicates=sets, fraction=0.1, test_fraction=0.1, seed=0)
    for rows in (division.train, division.validation, division.test):
        assert len(set(strata[rows])) == 77
    assert not set(sets[division.train]) & set(sets[division.validation])
    assert len(division.validation) == pytest.approx(1000, abs=40)


@pytest.mark.parametrize(
    ("name", "kind", "rows", "classes"),
    [
        ("cifar10", "image", 4000, 10),
        ("clothing_small", "image", 2100, 10),
        ("fsdd", "audio", 1200, 10),
        ("urdu_emotion", "audio", 240, 4),
    ],
)
def test_class_folders_of_pictures_and_sound(name: str, kind: str, rows: int, classes: int) -> None:
    table = read(DATA / name).train
    assert table.files is not None
    assert table.files.columns == (kind,)
    assert len(table) == rows
    assert len(set(table.column("label"))) == classes


def test_pictures_with_boxes_are_not_taken_for_classes() -> None:
    with pytest.raises(DataError, match="object detection"):
        read(DATA / "bccd")


def test_pictures_beside_their_masks() -> None:
    splits = read(DATA / "camvid")
    assert {name: len(table) for name, table in splits.tables().items()} == {
        "train": 240,
        "validation": 60,
        "test": 120,
    }
    assert splits.train.columns == ["image", "mask"]
    assert None not in splits.train.column("mask")
    assert splits.label_names is not None
    assert splits.label_names[11] == "Unlabelled"


def test_several_summaries_of_the_test_rows_are_gathered() -> None:
    from unfreeze.tasks.summarization import Summarization

    splits = read(DATA / "dialogsum")
    assert Summarization.recognises(splits.train) is not None
    assert splits.test is not None
    gathered = Summarization().completed(splits.test, "summary").column("summary")
    assert {len(texts) for texts in gathered} == {3}
