"""What the head does not read is not computed: above the last attention, only the first token goes on.

Most encoders classify by the first token's vector. In the last layer the other tokens are needed as keys and values
of its attention; what they ask of it, and what comes after it (output projection, feed-forward, norms), is computed for
them and thrown away: about an eighth of a six-layer encoder, and a third of what two trained layers cost. Cutting it
changes neither the outputs nor the gradients. It is found by trying on a few rows, never assumed from a model's name.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from unfreeze.activations.record import pieces
from unfreeze.models.layers import HEAD, LayerGroups, modes_kept
from unfreeze.tasks.base import Task
from unfreeze.types import Batch, Example

# Differences of the outputs, relative to the largest one and to the spread between rows: the arithmetic is the same for
# the position that is kept, only the kernels may round otherwise. A head that reads other positions differs by the
# spread itself.
_TOLERANCE, _TOLERANCE_OF_SPREAD, _TOLERANCE_OF_LOSS = 1e-5, 1e-2, 2e-6


@dataclass(frozen=True)
class Unread:
    """Where the positions that nobody reads can be dropped.

    Attributes:
        model: As it is given to a forward.
        modules: Paths of the modules in the last layer that get the first token alone. One is enough where a layer
            hands everything through it; a residual that goes round it brings the others back, to be dropped once more.
            Empty where the head reads more, or the layer offers no such place.
        layer: Path of the last layer, where its attention, too, is asked for the first token alone; None where that
            is not possible.
    """

    model: nn.Module
    modules: tuple[str, ...] = ()
    layer: str | None = None

    @classmethod
    def find(cls, task: Task, model: nn.Module, groups: LayerGroups, examples: Sequence[Example]) -> Unread:
        """Try the modules of the last layer from its input on; those that leave outputs and loss alone are taken.

        Args:
            task: Bound; what its `predict` and its `loss` give must not change.
            model: On the CPU: there an index out of range is an error, on a GPU it would be the end of the process.
                Modes are left as they are.
            groups: Of the model.
            examples: A few of them are tried on.
        """
        probe = pieces(task, model, examples)
        if groups.n_groups == 0 or len(probe) < 2 or "input_ids" not in probe[0].inputs:
            return cls(model)
        try:
            with modes_kept(model):
                model.eval()
                return _found(task, model, groups, probe)
        except Exception:
            return cls(model)  # a model or a task that wants whole rows (BART pools at the end token); nothing is lost

    @contextmanager
    def skipped(self) -> Iterator[None]:
        """Inside the block a forward leaves out what is not read."""
        handles: list[RemovableHandle] = []
        asking = _AskOnce()
        for path in self.modules:
            place = self.model.get_submodule(path)
            handles.append(place.register_forward_pre_hook(_keep_first, with_kwargs=True))
        if self.layer is not None:
            layer = self.model.get_submodule(self.layer)
            handles.append(layer.register_forward_pre_hook(lambda *_: asking.begin()))
            handles.append(layer.register_forward_hook(lambda *_: asking.end(), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            # Trap: after a KeyboardInterrupt inside the layer torch does not call its forward hook.
            asking.end()


class _AskOnce(TorchFunctionMode):
    """While a layer runs, its attention is computed for the first query and repeated for the others.

    The shape stays what the layer expects; only `Unread.modules`, which drop the other positions, may follow.
    """

    is_on = False

    def begin(self) -> None:
        self.end()
        self.__enter__()  # type: ignore[no-untyped-call]
        self.is_on = True

    def end(self) -> None:
        if self.is_on:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self.is_on = False

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
    batch = task.collate(probe)
    last = f"group {groups.n_groups - 1}"
    below = _Below(model, groups, last)
    with torch.no_grad():
        with below.noted():
            full, losses = _answers(task, model, batch)
        spread = float((full - full.mean(0)).abs().max())
        allowed = min(_TOLERANCE * float(full.abs().max()), _TOLERANCE_OF_SPREAD * spread)
        if not 0 < allowed < float("inf"):
            return Unread(model)  # outputs that do not depend on the rows prove nothing

        def is_true(unread: Unread, lower: AbstractContextManager[None]) -> bool:
            try:
                with lower, unread.skipped():
                    cut, cut_losses = _answers(task, model, batch)
            except Exception:
                return False  # this place's surroundings want every position
            return (
                cut.shape == full.shape
                and bool((cut - full).abs().max() <= allowed)
                and all(
                    abs(cut_losses[k] - loss) <= _TOLERANCE_OF_LOSS * max(1.0, abs(loss)) for k, loss in losses.items()
                )
            )

        found, tried = Unread(model), set[str]()
        while (path := _next_place(task, found, groups.modules(last), batch, tried, below.given())) is not None:
            tried.add(path)
            if is_true(longer := Unread(model, (*found.modules, path)), below.given()):
                found = longer
        entry = groups.module_path(last)
        if found.modules and entry is not None:
            whole = Unread(model, found.modules, entry)
            found = whole if is_true(whole, below.given()) else found
        return found if is_true(found, nullcontext()) else Unread(model)


class _Below:
    """The layers below the last one, where nothing is cut: what they give for the rows tried on is computed once."""

    def __init__(self, model: nn.Module, groups: LayerGroups, last: str) -> None:
        lower = [m for name in groups.names if name not in (last, HEAD) for m in groups.modules(name)]
        # A forward that somebody has put there is left alone.
        self._outputs: dict[nn.Module, list[Any]] = {m: [] for m in lower if "forward" not in vars(m)}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside the block every output of these layers is kept, in the order of the calls."""
        handles = [
            module.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
            for module, kept in self._outputs.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def given(self) -> Iterator[None]:
        """Inside the block the layers give what was noted, from the first call on."""
        for module, kept in self._outputs.items():
            module.forward = functools.partial(_next_of, iter(kept))  # type: ignore[method-assign]
        try:
            yield
        finally:
            for module in self._outputs:
                del module.forward


def _next_of(outputs: Iterator[Any], *_: Any, **__: Any) -> Any:
    return next(outputs)


def _answers(task: Task, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    """What must not change: the outputs, and every term of the loss."""
    return task.predict(model, batch), {n: float(t.sum) for n, t in task.loss(model, batch).terms.items()}


def _next_place(
    task: Task,
    unread: Unread,
    tops: Sequence[nn.Module],
    batch: Batch,
    tried: Collection[str],
    lower: AbstractContextManager[None],
) -> str | None:
    """The first module below `tops`, not tried yet, that is called once and with (batch, length, width)."""
    model, length = unread.model, batch.inputs["input_ids"].shape[1]
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
        with lower, unread.skipped():
            task.predict(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return next((path for path in fit if calls[path] == 1 and path not in tried), None)


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
