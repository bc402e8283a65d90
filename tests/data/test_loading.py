"""Every row once an epoch, in an order that only the seed and the epoch decide, batched with like lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.data.loading import epoch_batches, length_batches, micro_batches, steps_per_epoch

LENGTHS = np.array([5, 3, 9, 1, 7, 2, 8, 4, 6, 10])
lengths_of_rows = st.lists(st.integers(1, 700), min_size=1, max_size=300).map(np.asarray)


def order(seed: int, epoch: int) -> list[list[int]]:
    return [batch.tolist() for batch in epoch_batches(LENGTHS, 4, seed=seed, epoch=epoch)]


def test_the_order_of_rows_is_a_function_of_seed_and_epoch() -> None:
    """Recorded once: a change here changes every run that anybody wants to repeat or resume."""
    assert order(0, 0) == [[8, 6, 9, 2], [7, 1, 5, 3], [0, 4]]
    assert order(0, 1) == [[4, 7, 8, 2], [6, 9], [5, 1, 3, 0]]
    assert order(1, 0) == [[8, 6], [0, 2, 4, 9], [3, 1, 5, 7]]
    assert order(0, 0) == order(0, 0)


@given(lengths=lengths_of_rows, batch_size=st.integers(1, 40), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_row_comes_exactly_once_an_epoch(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed=seed, epoch=epoch)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))


@given(lengths=lengths_of_rows, batch_size=st.integers(1, 40))
def test_an_epoch_has_as_many_batches_as_the_plan_counts_and_one_odd_one_at_most(
    lengths: np.ndarray, batch_size: int
) -> None:
    sizes = [len(batch) for batch in epoch_batches(lengths, batch_size, seed=0, epoch=0)]
    assert len(sizes) == steps_per_epoch(len(lengths), batch_size)
    assert [size for size in sizes if size != batch_size] in ([], [len(lengths) % batch_size])


@pytest.mark.parametrize(("rows", "batch_size", "steps"), [(1, 8, 1), (8, 8, 1), (9, 8, 2), (0, 8, 1), (100, 1, 100)])
def test_steps_of_an_epoch(rows: int, batch_size: int, steps: int) -> None:
    assert steps_per_epoch(rows, batch_size) == steps


def padding(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Share of what is computed that is padding."""
    computed = sum(len(batch) * lengths[batch].max() for batch in batches)
    return float(1 - lengths.sum() / computed)


def test_bucketing_saves_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).integers(10, 500, 4000)
    plain = np.random.default_rng(1).permutation(4000).reshape(-1, 16)
    assert padding(list(plain), lengths) > 0.4
    assert padding(epoch_batches(lengths, 16, seed=0, epoch=0), lengths) < 0.05


def test_bucketing_saves_padding_in_a_small_set_too() -> None:
    lengths = np.random.default_rng(0).integers(10, 500, 300)
    assert padding(epoch_batches(lengths, 16, seed=0, epoch=0), lengths) < 0.1


@pytest.mark.parametrize("rows", [100, 300, 5000])
def test_rows_meet_others_in_every_epoch(rows: int) -> None:
    """Of the rows beside it in one epoch, a row meets few again in the next, also where the data set is small."""
    lengths = np.random.default_rng(0).integers(10, 500, rows)

    def companions(epoch: int) -> dict[int, set[int]]:
        return {int(i): set(batch.tolist()) for batch in epoch_batches(lengths, 16, seed=0, epoch=epoch) for i in batch}

    first, second = companions(0), companions(1)
    again = np.mean([len((first[i] & second[i]) - {i}) / max(1, len(first[i]) - 1) for i in range(rows)])
    assert again < 0.5


def test_the_odd_batch_does_not_always_hold_the_longest_or_the_shortest_rows() -> None:
    lengths = np.arange(1, 43)
    odd = [
        float(lengths[batch].mean())
        for epoch in range(30)
        for batch in epoch_batches(lengths, 4, seed=0, epoch=epoch)
        if len(batch) == 2
    ]
    assert len(odd) == 30
    assert min(odd) < 15 < 28 < max(odd)


@given(lengths=lengths_of_rows, budget=st.integers(1, 5000), most_rows=st.integers(1, 20))
def test_parts_stay_within_the_budget_and_lose_nothing(lengths: np.ndarray, budget: int, most_rows: int) -> None:
    parts = list(length_batches(lengths, budget, most_rows))
    assert sorted(int(i) for part in parts for i in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) <= most_rows
        assert len(part) == 1 or len(part) * lengths[part].max() <= budget
    longest_first = [int(lengths[i]) for part in parts for i in part]
    assert longest_first == sorted(longest_first, reverse=True)


def test_known_parts() -> None:
    assert [p.tolist() for p in micro_batches(np.array([3, 9, 3, 5]), 10)] == [[1], [3, 0], [2]]
    assert [p.tolist() for p in micro_batches(np.array([3, 9, 3, 5]), 10, whole=True)] == [[1, 3, 0, 2]]
    assert [p.tolist() for p in micro_batches(np.array([0, 0]), 10)] == [[0, 1]]
