"""Every draw is a function of (seed, names): nothing random depends on what was drawn before.

A run that is interrupted and resumed therefore needs no saved generator, and the order of rows does not depend on the
number of workers or processes. The names say what the draw is for: ``generator(seed, "order", epoch)``.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def derived_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose, the same on every machine and in every process.

    >>> derived_seed(0, "order", 1) == derived_seed(0, "order", 1) != derived_seed(0, "order", 2)
    True
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(n).__name__[0]}{n}" for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(derived_seed(seed, *names))


def seed_all(seed: int, *names: str | int) -> None:
    """Seed torch (all devices), NumPy's global generator and Python's `random` for one purpose.

    The engine calls it before every micro-batch, so that dropout, and whatever a user's own code draws, is a function
    of (seed, step, micro-batch).
    """
    import torch

    value = derived_seed(seed, *names)
    random.seed(value)
    np.random.seed(value % 2**32)
    # Trap: without an accelerator `torch.manual_seed` spends a millisecond on noting for each kind of device, with a
    # stack trace, that it is to be seeded once it appears.
    if torch.accelerator.is_available():
        torch.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Seed everything inside the block and give the caller's generators back afterwards."""
    import torch

    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_all(seed, *names)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)
