"""The quick dropout drops what it should, scales exactly, and is torch's in all else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unfreeze.randomness import generator
from unfreeze.training.dropout import Dropout, dropped


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_share_that_is_dropped_and_the_mean_are_right(share: float) -> None:
    values = torch.ones(1000, 999)
    found = dropped(values, share, generator(0, "test"))
    gone = float((found == 0).float().mean())
    assert gone == pytest.approx(share, abs=4 * (share * (1 - share) / values.numel()) ** 0.5)
    assert float(found.double().mean()) == pytest.approx(1.0, abs=0.005)
    kept = found[found != 0]
    assert torch.equal(kept, kept[0].expand_as(kept))
    assert float(kept[0]) == pytest.approx(1 / (1 - share), rel=1e-4)


def test_elements_are_dropped_independently_of_their_neighbours() -> None:
    kept = (dropped(torch.ones(1_000_003), 0.5, generator(0, "test")) != 0).double().numpy()
    for distance in (1, 2, 3, 4, 8, 64):
        together = np.corrcoef(kept[:-distance], kept[distance:])[0, 1]
        assert abs(together) < 0.005


def test_the_gradient_goes_where_the_values_went() -> None:
    values = torch.randn(50, 7, requires_grad=True)
    found = dropped(values, 0.2, generator(0, "test"))
    found.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.where(found != 0, found.detach() / values.detach(), 0.0))


def test_the_extremes() -> None:
    values = torch.randn(3, 5)
    assert torch.equal(dropped(values, 1.0, generator(0, "test")), torch.zeros(3, 5))
    assert torch.equal(dropped(values, 1e-7, generator(0, "test")), values)
    assert dropped(torch.empty(0, 4), 0.1, generator(0, "test")).shape == (0, 4)


def test_masks_are_a_function_of_the_seed() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 64), nn.Dropout(0.5))
    dropout = Dropout(model)

    def once(*names: str | int) -> torch.Tensor:
        dropout.seed(lambda: generator(3, *names))
        with dropout.installed():
            return model(torch.ones(8, 64))

    assert torch.equal(once("step", 1), once("step", 1))
    assert not torch.equal(once("step", 1), once("step", 2))


def test_in_eval_mode_nothing_is_dropped_and_afterwards_the_modules_are_torchs() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    dropout = Dropout(model)
    dropout.seed(lambda: generator(0, "test"))
    values = torch.randn(10, 10)
    model.eval()
    with dropout.installed():
        assert torch.equal(model(values), values)
    model.train()
    torch.manual_seed(1)
    wanted = nn.functional.dropout(values, 0.5)
    torch.manual_seed(1)
    assert torch.equal(model(values), wanted)


def test_a_dropout_of_whole_channels_is_left_alone() -> None:
    model = nn.Sequential(nn.Dropout1d(0.5))
    dropout = Dropout(model)
    dropout.seed(lambda: generator(0, "test"))
    with dropout.installed():
        found = model(torch.ones(64, 16, 8))
    assert torch.equal(found, found[:, :, :1].expand_as(found))
