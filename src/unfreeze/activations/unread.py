"""What the head does not read is not computed: above the last attention, only the first token goes on.

Most encoders classify by the first token's vector. In the last layer the other tokens are needed as keys and values
of its attention; what they ask of it, and what comes after it (output projection, feed-forward, norms), is computed for
them and thrown away: about an eighth of a six-layer encoder, and a third of what two trained layers cost. Cutting it
changes neither the outputs nor the gradients. It is found by trying on a few rows, never assumed from a model's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from unfreeze.activations.record import pieces
from unfreeze.models.layers import LayerGroups
from unfreeze.tasks.base import Task
from unfreeze.types import Example

# Differences of the outputs, relative to the largest one and to the spread between rows: the arithmetic is the same for
# the position that is kept, only the kernels may round otherwise. A head that reads other positions differs by the
# spread itself.
_TOLERANCE, _TOLERANCE_OF_SPREAD = 1e-5, 1e-2


@dataclass(frozen=True)
class Unread:
    """Where the positions that nobody reads can be dropped.

    Attributes:
        model: As it is given to a forward.
        module: Path of the module in the last layer from which on only the first token goes on; None where the head
            reads more, or the layer offers no such place.
        layer: Path of the last layer, where its attention, too, is asked for the first token alone; None where that
            is not possible.
    """

    model: nn.Module
    module: str | None = None
    layer: str | None = None

    @classmethod
    def find(cls, task: Task, model: nn.Module, groups: LayerGroups, examples: Sequence[Example]) -> Unread:
        """Try the modules of the last layer from its input on; the first that leaves the outputs alone is taken.

        Args:
            task: Bound; its `predict` gives the outputs that must not change.
            model: On any device; modes are left as they are.
            groups: Of the model.
            examples: A few of them are tried on.
        """
        probe = pieces(examples)
        if groups.n_groups == 0 or len(probe) < 2 or "input_ids" not in probe[0].inputs:
            return cls(model)
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            return _found(task, model, groups, probe)
        finally:
            for module, training in modes.items():
                module.training = training

    @contextmanager
    def skipped(self) -> Iterator[None]:
        """Inside the block a forward leaves out what is not read."""
        handles: list[RemovableHandle] = []
        if self.module is not None:
            place = self.model.get_submodule(self.module)
            handles.append(place.register_forward_pre_hook(_keep_first, with_kwargs=True))
        if self.layer is not None:
            layer, asking = self.model.get_submodule(self.layer), _AskOnce()
            handles.append(layer.register_forward_pre_hook(lambda *_: asking.begin()))
            handles.append(layer.register_forward_hook(lambda *_: asking.end(), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _AskOnce(TorchFunctionMode):
    """While a layer runs, its attention is computed for the first query and repeated for the others.

    The shape stays what the layer expects; only `Unread.module`, which drops the other positions, may follow.
    """

    def begin(self) -> None:
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or kwargs.get("is_causal"):
            return func(*args, **kwargs)
        query, key, value, *rest = args  # (batch, heads, length, width of a head)
        mask = rest[0] if rest else kwargs.get("attn_mask")
        if query.shape[-2] == 1:
            return func(*args, **kwargs)
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., :1, :]
        kept = {name: v for name, v in kwargs.items() if name != "attn_mask"}
        first = func(query[..., :1, :], key, value, mask, *rest[1:], **kept)
        return first.expand(*first.shape[:-2], query.shape[-2], first.shape[-1])


def _found(task: Task, model: nn.Module, groups: LayerGroups, probe: Sequence[Example]) -> Unread:
    batch = task.collate(probe).to(next(model.parameters()).device)
    length = batch.inputs["input_ids"].shape[1]
    last = f"group {groups.n_groups - 1}"
    with torch.no_grad():
        full, candidates = _watched(task, model, groups.modules(last), batch, length)
        if full is None:
            return Unread(model)
        spread = float((full - full.mean(0)).abs().max())
        allowed = min(_TOLERANCE * float(full.abs().max()), _TOLERANCE_OF_SPREAD * spread)
        if not 0 < allowed < float("inf"):
            return Unread(model)  # outputs that do not depend on the rows prove nothing

        def is_true(unread: Unread) -> bool:
            try:
                with unread.skipped():
                    cut = task.predict(model, batch)
            except (RuntimeError, IndexError, ValueError, TypeError):
                return False  # this place's surroundings want every position
            return cut.shape == full.shape and bool((cut - full).abs().max() <= allowed)

        place = next((path for path in candidates if is_true(Unread(model, path))), None)
        entry = groups.module_path(last)
        if place is not None and entry is not None and is_true(whole := Unread(model, place, entry)):
            return whole
    return Unread(model, place)


def _watched(
    task: Task, model: nn.Module, tops: Sequence[nn.Module], batch: Any, length: int
) -> tuple[torch.Tensor | None, list[str]]:
    """The outputs, and the modules below `tops` that are called once with a tensor of (batch, length, width)."""
    inside = {id(module) for top in tops for module in top.modules()}
    calls: dict[str, int] = {}
    fit: list[str] = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[path] = calls.get(path, 0) + 1
            if any(_has_positions(value, length) for value in (*args, *kwargs.values())):
                fit.append(path)

        return hook

    handles = [
        module.register_forward_pre_hook(note(path), with_kwargs=True)
        for path, module in model.named_modules()
        if id(module) in inside
    ]
    try:
        full = task.predict(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(full, torch.Tensor):
        return None, []
    return full, [path for path in fit if calls[path] == 1]


def _has_positions(value: Any, length: int) -> bool:
    return (
        isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim == 3 and value.shape[1] == length
    )


def _keep_first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Hook: every (batch, length, width) among a module's arguments keeps its first position."""

    def first(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim == 3:
            return value[:, :1]
        return value

    return tuple(map(first, args)), {name: first(value) for name, value in kwargs.items()}
