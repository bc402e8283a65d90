"""Dividing rows: nothing lost, nothing on two sides, classes where they belong."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.data import Division, divide
from unfreeze.errors import DataError


def parts(division: Division) -> list[np.ndarray]:
    return [division.train, division.validation, division.test]


def sides(division: Division, n_rows: int) -> np.ndarray:
    side = np.full(n_rows, -1)
    for number, rows in enumerate(parts(division)):
        side[rows] = number
    return side


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_parts_cover_all_rows_once_and_keep_sets_and_groups_whole(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 80))
    strata = data.draw(st.none() | st.lists(st.integers(0, 5), min_size=n, max_size=n))
    duplicates = data.draw(st.none() | st.lists(st.integers(0, 60), min_size=n, max_size=n))
    groups = data.draw(st.none() | st.lists(st.sampled_from("abcdefgh"), min_size=n, max_size=n))
    test_fraction = data.draw(st.sampled_from([0.0, 0.1, 0.3]))
    try:
        division = divide(
            n, strata=strata, groups=groups, duplicates=duplicates, fraction=0.2, test_fraction=test_fraction, seed=1
        )
    except DataError:
        assert groups is not None  # only groups can make a division impossible
        return
    assert np.array_equal(np.sort(np.concatenate(parts(division))), np.arange(n))
    side = sides(division, n)
    for key in (duplicates or [], groups or []):
        for value in set(key):
            assert len(set(side[[i for i in range(n) if key[i] == value]])) == 1
    for label in set(strata or [0]):
        assert 0 in side[[i for i in range(n) if strata is None or strata[i] == label]]


@given(n=st.integers(20, 400), classes=st.integers(1, 4), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_sizes_are_as_asked_without_groups(n: int, classes: int, seed: int) -> None:
    strata = np.arange(n) % classes
    division = divide(n, strata=strata, fraction=0.2, test_fraction=0.1, seed=seed)
    assert abs(len(division.validation) - 0.2 * n) <= classes
    assert abs(len(division.test) - 0.1 * n) <= classes


def test_every_class_of_three_rows_is_in_every_part_and_single_rows_stay_in_train() -> None:
    strata = np.array([0] * 60 + [1] * 3 + [2] * 2 + [3])
    division = divide(len(strata), strata=strata, fraction=0.1, test_fraction=0.1, seed=0)
    for rows in parts(division):
        assert {0, 1} <= set(strata[rows])
    assert 65 in division.train
    assert 2 in strata[division.train]
    assert any("1 class with a single row" in note for note in division.notes)


def test_many_classes_of_three_rows_are_each_in_every_part() -> None:
    strata = np.array([0] * 300 + [label for label in range(1, 21) for _ in range(3)])
    division = divide(360, strata=strata, fraction=0.1, test_fraction=0.1, seed=0)
    for rows in parts(division):
        assert np.bincount(strata[rows], minlength=21)[1:].tolist() == [1] * 20


def test_classes_keep_their_shares() -> None:
    strata = np.array([0] * 700 + [1] * 200 + [2] * 100)
    division = divide(1000, strata=strata, fraction=0.1, test_fraction=0.2, seed=3)
    assert np.bincount(strata[division.validation]).tolist() == [70, 20, 10]
    assert np.bincount(strata[division.test]).tolist() == [140, 40, 20]
    assert division.notes == []


def test_a_class_that_is_all_one_text_stays_in_train() -> None:
    strata = np.array([0] * 20 + [1] * 6)
    duplicates = np.array([*range(20), *[99] * 6])
    division = divide(26, strata=strata, duplicates=duplicates, fraction=0.2, seed=0)
    assert set(range(20, 26)) <= set(division.train.tolist())
    assert any("no row of 1 class" in note for note in division.notes)


def test_chains_of_groups_and_duplicates_are_one_unit() -> None:
    # Row i shares its group with i + 1 for even i, and its duplicate set for odd i: all rows hang together.
    groups = np.arange(41) // 2
    duplicates = (np.arange(41) + 1) // 2
    with pytest.raises(DataError, match="no group can be held out"):
        divide(41, groups=groups, duplicates=duplicates, fraction=0.2, seed=0)


def test_groups_of_mixed_classes_are_held_out_near_the_asked_share() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 800)
    strata = rng.integers(0, 4, 800)
    division = divide(800, strata=strata, groups=groups, fraction=0.2, seed=0)
    assert 0.15 < len(division.validation) / 800 < 0.25
    assert np.bincount(strata[division.validation]).min() > 20


def test_rows_without_a_group_are_rows_on_their_own() -> None:
    division = divide(40, groups=[None] * 40, fraction=0.25, seed=0)
    assert len(division.validation) == 10


def test_the_seed_alone_decides() -> None:
    strata = np.arange(100) % 3
    first, again, other = (divide(100, strata=strata, fraction=0.2, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)
    assert first.validation.dtype == np.int64


def test_the_hash_seed_of_python_does_not_matter() -> None:
    code = (
        "from unfreeze.data.splits import divide\n"
        "groups = [f'g{i % 17}' for i in range(100)]\n"
        "print(divide(100, groups=groups, fraction=0.2, seed=0).validation.tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_shares_that_leave_nothing_are_refused_and_none_holds_out_nothing() -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        divide(10, fraction=0.6, test_fraction=0.4, seed=0)
    division = divide(10, fraction=0.0, seed=0)
    assert (len(division.train), len(division.validation), len(division.test)) == (10, 0, 0)
    assert divide(1, fraction=0.1, seed=0).notes == ["There are too few rows for validation."]


def test_of_a_few_large_groups_the_smallest_is_held_out_and_said() -> None:
    groups = ["a"] * 30 + ["b"] * 25 + ["c"] * 20 + ["d"] * 25
    found = divide(100, strata=[i % 2 for i in range(100)], groups=groups, fraction=0.1, seed=0)
    assert {groups[i] for i in found.validation} == {"c"}
    assert any("20 rows, 20.0% instead of 10.0%" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(5))
def test_every_label_of_rows_with_several_keeps_a_row_in_train(seed: int) -> None:
    """One stratum a row cannot see to it: here all rows have the same, and each label two rows or one."""
    labels = [{f"a {i}", f"b {i // 2}"} for i in range(40)] + [{"usual"}] * 60
    division = divide(100, strata=[0] * 100, labels=labels, fraction=0.3, test_fraction=0.2, seed=seed)
    assert {label for i in division.train for label in labels[i]} == {label for row in labels for label in row}
    assert len(division.validation) == 30
