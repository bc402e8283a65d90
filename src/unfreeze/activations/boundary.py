"""A boundary: where the frozen part ends, found in the module tree and in one forward.

*Boundary k* is the input of group k; everything below is frozen. The head's boundary is the input of the first module
that runs after the last numbered group, a dropout included, so that what is replayed passes through it; pooling without
weights lies below it. In an encoder-decoder the boundary of every decoder layer is what the encoder gives: the decoder
reads it in each of its layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unfreeze.models.layers import HEAD, STEM, LayerGroups

Reads = Literal["all", "first", "last", "row"]
Side = Literal["input", "output"]


@dataclass(frozen=True)
class Boundary:
    """Where recorded tensors are taken and put back.

    Attributes:
        group: Name of the lowest group that trains: ``group 3`` or ``head``.
        module: Path of the module at which is recorded.
        below: Names of the groups below, all frozen.
        reads: What is kept of a batch: ``all`` tokens of (batch, length, width); only the ``first`` token of each row,
            or the ``last`` one (decoders); or the ``row``'s tensor as it is, of the same shape for every row: a vector
            that the model has pooled already, the patches or the feature maps of an image.
        shape: Of one token, (width,), or of one row.
        side: Whether the module's first tensor argument is recorded, or (an encoder's) first tensor of its output.
        keeps_inputs: Whether the model looks at all of a row's inputs above the boundary too (BART counts end tokens).
    """

    group: str
    module: str
    below: tuple[str, ...]
    reads: Reads
    shape: tuple[int, ...]
    side: Side = "input"
    keeps_inputs: bool = False

    @property
    def width(self) -> int:
        """Numbers for each position that is kept."""
        return math.prod(self.shape)


class Entry(NamedTuple):
    """What one row brings to the input of a layer group.

    Attributes:
        numbers: How many numbers enter.
        operations: Floating-point operations of the forward until then, a multiplication and its addition counted as 2.
        share: Which part of the whole forward's operations these are.
    """

    numbers: int
    operations: int
    share: float


class _Stop(Exception):
    """Leaves a forward early, once the last boundary is reached."""


def entry_module(groups: LayerGroups, model: nn.Module, group: str, inputs: dict[str, torch.Tensor]) -> str | None:
    """The module whose input is the boundary below `group`; None where there is no such single call."""
    if group != HEAD:
        return groups.module_path(group)
    return _first_after_the_layers(groups, model, inputs)


def _first_after_the_layers(groups: LayerGroups, model: nn.Module, inputs: dict[str, torch.Tensor]) -> str | None:
    """The first leaf module called after everything of the numbered groups, in a forward with these inputs."""
    # What lies in a module with weights is inside; an activation or a dropout of its own may be registered in the
    # backbone and yet be part of the pooler (ALBERT).
    inside = {
        id(module)
        for name in groups.names
        if name != HEAD
        for top in groups.modules(name)
        if any(True for _ in top.parameters())
        for module in top.modules()
    }
    # torch's MultiheadAttention does not call the layers in it.
    leaves = {
        path
        for path, module in model.named_modules()
        if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False))
    }
    called: list[tuple[str, nn.Module, Any]] = []

    def note(path: str) -> Callable[..., None]:
        return lambda module, args, kwargs: called.append((path, module, _first_or_none(args, kwargs)))

    every = {path: note(path) for path, _ in model.named_modules() if path}
    with pre_hooks(model, every), torch.no_grad():
        model(**inputs)
    last_inside = max((i for i, (_, module, _) in enumerate(called) if id(module) in inside), default=-1)
    # Trap: T5 applies its decoder's dropout to the embeddings, too; it is frozen with them.
    used_before = {id(module) for _, module, _ in called[: last_inside + 1]}
    above = [call for call in called[last_inside + 1 :] if id(call[1]) not in used_before]
    after = [call for call in above if call[0] in leaves]
    if not after:
        return None

    def readers() -> list[str]:
        """Modules that get what the first one gets."""
        return [path for path, _, tensor in above if tensor is not None and tensor is after[0][2]]

    while len(after) > 1 and _only_pools(after[0][1]) and _is_one_line(readers()):
        after = after[1:]
    found = readers()
    if _is_one_line(found):
        return after[0][0]
    # A head of several branches (DeepLab's) reads its input in several places: it is entered as a whole.
    around = [path for path in found if all(other == path or other.startswith(f"{path}.") for other in found)]
    return around[0] if around else after[0][0]


def _is_one_line(paths: Sequence[str]) -> bool:
    """Whether each of these modules lies in the one before, or around it."""
    inmost = max(paths, key=len, default="")
    return all(path == inmost or inmost.startswith(f"{path}.") for path in paths)


def entering_head(groups: LayerGroups, model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What enters the head in a forward of these inputs.

    Args:
        model: In eval mode.
    """
    module = entry_module(groups, model, HEAD, inputs)
    assert module is not None, "no module of this model is entered at the head"
    with capturing(model, [Boundary(HEAD, module, (), "row", ())]) as found:
        run_to_boundary(model, inputs)
    return next(iter(found.values()))


def entering_groups(groups: LayerGroups, model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, Entry]:
    """What enters each group in a forward of these inputs; without groups that have no entry.

    Of a decoder's layers it is what the encoder gives, which they read.

    Args:
        model: In eval mode.
        inputs: Of one row.
    """
    names = [name for name in groups.names if name != STEM]
    encoders = {name: path for name in names if (path := encoder_of(groups, model, name)) is not None}
    modules = {name: entry_module(groups, model, name, inputs) for name in names if name not in encoders}
    found: dict[str, tuple[int, int]] = {}
    counter = FlopCounterMode(display=False)

    def enter(tensor: torch.Tensor) -> tuple[int, int]:
        return tensor[0].numel(), counter.get_total_flops()

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.setdefault(name, enter(first_tensor(args, kwargs)))

        return hook

    given: list[tuple[int, int]] = []
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda module, args, output: given.append(enter(first_of_output(output)))
        )
        for path in set(encoders.values())
    ]
    try:
        hooks = {path: note(name) for name, path in modules.items() if path is not None}
        # Trap: torch counts nothing for the fused attention of a CPU; in the plain one it sees the products.
        with pre_hooks(model, hooks), sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    found.update((name, given[0]) for name in encoders if given)
    whole = max(1, counter.get_total_flops())
    return {name: Entry(numbers, before, before / whole) for name, (numbers, before) in found.items()}


def _only_pools(module: nn.Module) -> bool:
    """Whether a module computes the same from the same input at any time, and makes it smaller."""
    return isinstance(module, nn.Flatten | nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool1d | nn.AdaptiveMaxPool2d)


def encoder_of(groups: LayerGroups, model: nn.Module, group: str) -> str | None:
    """Path of the encoder, where `group` is a layer of the decoder that reads its output; else None."""
    if group == HEAD or not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return None
    encoder = model.get_encoder()  # type: ignore[operator]
    path = next((path for path, module in model.named_modules() if module is encoder), None)
    entry = groups.module_path(group)
    return None if path is None or entry is None or entry.startswith(f"{path}.") else path


def _first_or_none(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The hidden states among a module's arguments."""
    if args and isinstance(args[0], torch.Tensor):
        return args[0]
    found = kwargs.get("hidden_states", next((v for v in kwargs.values() if isinstance(v, torch.Tensor)), None))
    assert isinstance(found, torch.Tensor), "the boundary module takes no tensor"
    return found


def first_of_output(output: Any) -> torch.Tensor:
    """The hidden states among what a module gives."""
    found = output if isinstance(output, torch.Tensor) else next(iter(_values(output)), None)
    assert isinstance(found, torch.Tensor), "the boundary module gives no tensor"
    return found


def _values(output: Any) -> Iterator[Any]:
    return iter(output.values() if isinstance(output, Mapping) else output)


@contextmanager
def pre_hooks(model: nn.Module, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside the block each hook, (module, args, kwargs), is called before the module of its path."""
    handles = [model.get_submodule(p).register_forward_pre_hook(hook, with_kwargs=True) for p, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capturing(model: nn.Module, boundaries: Sequence[Boundary]) -> Iterator[dict[Boundary, torch.Tensor]]:
    """Inside the block, a forward fills the dict with what is at each boundary, and ends at the last of them.

    Args:
        model: In eval mode below the boundaries.
        boundaries: From the input upwards.
    """
    found: dict[Boundary, torch.Tensor] = {}

    def take(boundary: Boundary, tensor: torch.Tensor) -> None:
        found[boundary] = tensor.detach()
        if boundary == boundaries[-1]:
            raise _Stop

    def before(boundary: Boundary) -> Callable[..., None]:
        return lambda module, args, kwargs: take(boundary, first_tensor(args, kwargs))

    def after(boundary: Boundary) -> Callable[..., None]:
        return lambda module, args, output: take(boundary, first_of_output(output))

    handles = []
    for boundary in boundaries:
        module = model.get_submodule(boundary.module)
        if boundary.side == "input":
            handles.append(module.register_forward_pre_hook(before(boundary), with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(after(boundary)))
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


def answers_of(output: Any) -> torch.Tensor:
    """What a model gives as its answer: its logits; several kinds of them (a span's ends) are stacked."""
    if getattr(output, "logits", None) is not None:
        logits: torch.Tensor = output.logits
        return logits
    return torch.stack([value for name, value in output.items() if name.endswith("_logits")], dim=-1)


def positions_read(model: nn.Module, module: str, inputs: dict[str, torch.Tensor]) -> Reads:
    """Which positions of the boundary's input the outputs depend on, by the gradient of the outputs.

    Args:
        model: In eval mode.
        module: Path of the boundary module.
        inputs: Of rows with different lengths, (batch, length), right-padded; (batch, length, width) enters the module.
    """
    entering: list[torch.Tensor] = []

    def hook(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if entering:
            return None  # the module is called again further up (one dropout used twice)
        tensor = first_tensor(args, kwargs)
        leaf = tensor.detach().requires_grad_(True)
        entering.append(leaf)
        return replaced(args, kwargs, tensor, leaf)

    with pre_hooks(model, {module: hook}), torch.enable_grad():
        logits = answers_of(model(**inputs))
        # A random combination: a plain sum of a softmax-like head could cancel to zero.
        weights = torch.linspace(1.0, 2.0, logits.numel(), device=logits.device).reshape(logits.shape)
        (gradient,) = torch.autograd.grad((logits.float() * weights).sum(), entering[0])
    lengths = inputs["attention_mask"].sum(-1)  # (batch,)
    is_read = gradient.abs().sum(-1) > 0  # (batch, length)
    if not is_read.any():
        return "all"  # a head of zeros: nothing can be told
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
