"""A boundary: where the frozen part ends, found in the module tree and in one forward.

*Boundary k* is the input of group k; everything below is frozen. The head's boundary is the input of the first module
that runs after the last numbered group, a dropout included, so that what is replayed passes through it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from unfreeze.models.layers import HEAD, STEM, LayerGroups

Reads = Literal["all", "first", "last", "vector"]


@dataclass(frozen=True)
class Boundary:
    """Where recorded tensors are taken and put back.

    Attributes:
        group: Name of the lowest group that trains: ``group 3`` or ``head``.
        module: Path of the module whose first tensor argument is recorded.
        below: Names of the groups below, all frozen.
        reads: Which positions are read above: ``all`` of (batch, length, width); only the ``first`` token of
            each row, or the ``last`` one (decoders); or a ``vector``, (batch, width), that the model has
            pooled already.
        width: Numbers for each position.
    """

    group: str
    module: str
    below: tuple[str, ...]
    reads: Reads
    width: int


class _Stop(Exception):
    """Leaves a forward early, once the last boundary is reached."""


def lowest_group(groups: LayerGroups, trained: set[str]) -> str | None:
    """The lowest group that trains, None where the stem does (nothing can be recorded then)."""
    if STEM in trained:
        return None
    return next(name for name in groups.names if name in trained)


def entry_module(groups: LayerGroups, model: nn.Module, group: str, inputs: dict[str, torch.Tensor]) -> str | None:
    """The module whose input is the boundary below `group`; None where there is no such single call."""
    if group != HEAD:
        return groups.module_path(group)
    return _first_after_the_layers(groups, model, inputs)


def _first_after_the_layers(groups: LayerGroups, model: nn.Module, inputs: dict[str, torch.Tensor]) -> str | None:
    """The first leaf module called after everything of the numbered groups, in a forward with these inputs."""
    # Only modules with weights count as inside: an activation or a dropout may be registered in the backbone and yet be
    # part of the pooler (ALBERT).
    inside = {
        id(module)
        for name in groups.names
        if name != HEAD
        for top in groups.modules(name)
        for module in top.modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    called: list[tuple[str, bool]] = []
    handles = [
        module.register_forward_pre_hook(lambda m, a, path=path: called.append((path, id(m) in inside)))
        for path, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    last_inside = max((i for i, (_, is_inside) in enumerate(called) if is_inside), default=-1)
    return called[last_inside + 1][0] if last_inside + 1 < len(called) else None


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The hidden states among a module's arguments."""
    if args and isinstance(args[0], torch.Tensor):
        return args[0]
    found = kwargs.get("hidden_states", next((v for v in kwargs.values() if isinstance(v, torch.Tensor)), None))
    assert isinstance(found, torch.Tensor), "the boundary module takes no tensor"
    return found


@contextmanager
def capturing(model: nn.Module, modules: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Inside the block, a forward fills the dict with what enters each module, and ends at the last of them.

    Args:
        model: In eval mode below the boundaries.
        modules: Paths, from the input upwards.
    """
    found: dict[str, torch.Tensor] = {}

    def hook(path: str) -> Any:
        def capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[path] = first_tensor(args, kwargs).detach()
            if path == modules[-1]:
                raise _Stop

        return capture

    handles = [model.get_submodule(p).register_forward_pre_hook(hook(p), with_kwargs=True) for p in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def run_to_boundary(model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    """A forward that `capturing` ends."""
    try:
        with torch.no_grad():
            model(**inputs)
    except _Stop:
        return
    raise AssertionError("the forward did not reach the boundary")


def positions_read(model: nn.Module, module: str, inputs: dict[str, torch.Tensor]) -> Reads:
    """Which positions of the boundary's input the outputs depend on, by the gradient of the outputs.

    Args:
        model: In eval mode.
        module: Path of the boundary module.
        inputs: Of rows with different lengths, (batch, length), right-padded.
    """
    entering: list[torch.Tensor] = []

    def hook(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if entering:
            return None  # the module is called again further up (one dropout used twice)
        tensor = first_tensor(args, kwargs)
        leaf = tensor.detach().requires_grad_(True)
        entering.append(leaf)
        return replaced(args, kwargs, tensor, leaf)

    handle = model.get_submodule(module).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.enable_grad():
            logits = model(**inputs).logits
            # A random combination: a plain sum of a softmax-like head could cancel to zero.
            weights = torch.linspace(1.0, 2.0, logits.numel(), device=logits.device).reshape(logits.shape)
            (gradient,) = torch.autograd.grad((logits.float() * weights).sum(), entering[0])
    finally:
        handle.remove()
    if gradient.ndim == 2:
        return "vector"
    lengths = inputs["attention_mask"].sum(-1)  # (batch,)
    is_read = gradient.abs().sum(-1) > 0  # (batch, length)
    if not is_read[:, 1:].any():
        return "first"  # also where the model has dropped the others already
    places = torch.arange(is_read.shape[1], device=is_read.device)
    if not (is_read & (places[None] != lengths[:, None] - 1)).any():
        return "last"
    return "all"


def replaced(
    args: tuple[Any, ...], kwargs: dict[str, Any], old: torch.Tensor, new: torch.Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with one tensor exchanged."""
    if args and args[0] is old:
        return (new, *args[1:]), kwargs
    return args, {k: (new if v is old else v) for k, v in kwargs.items()}
