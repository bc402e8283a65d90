"""Replaying: the modules below a boundary become cheap stand-ins, and recorded tensors enter at the boundary.

The model's own forward runs as always, so that masks, positions and rotary embeddings are computed by the model itself.
A module with weights below the boundary returns zeros of the shape it would return; modules without weights really run.
Where an encoder's output was recorded, the encoder alone is replaced: what the decoder makes of its own inputs is not
recorded and really runs.

Where all that follows the boundary is a chain of modules, each called with what the one before gave and nothing else (a
pooler, a dropout, a classifier), the first forward sees it, and later ones call these modules alone: the Python around
them takes longer than they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from unfreeze.activations.boundary import Boundary, first_tensor, pre_hooks, replaced
from unfreeze.models.layers import HEAD, LayerGroups

# Sizes by which the batch and the length are told apart from the fixed dimensions of an output.
_SIZES = ((2, 5), (3, 7))


class Replay:
    """Feeds recorded tensors to a model in place of its frozen part.

    Args:
        model: Whose groups below the boundary are frozen and in eval mode.
        groups: Of the model.
        boundary: Where to feed.
        inputs: Makes valid model inputs of (rows, tokens), to learn the shapes of the outputs below.

    Use `installed` around training and evaluation, and `show` the recorded tensor before each forward.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: LayerGroups,
        boundary: Boundary,
        inputs: Callable[[int, int], dict[str, torch.Tensor]],
    ) -> None:
        self.model, self.boundary = model, boundary
        self._current: torch.Tensor | None = None
        self._tokens = 0
        self._is_fed = False
        # By whether the model trains: a dropout that is no module shows itself only then.
        self._chains: dict[bool, _Chain | None] = {}
        self._stand_ins: list[tuple[nn.Module, Callable[..., Any]]] = []
        if boundary.side == "output":
            below = [model.get_submodule(boundary.module)]
        else:
            below = [m for name in boundary.below for m in groups.modules(name)]
        # Trap: a decoder reads the same embeddings as the encoder whose layers are recorded.
        runs = _read_by_a_decoder(model) if boundary.group != HEAD else set()
        modules = [m for m in below if any(True for _ in m.parameters()) and id(m) not in runs]
        whole = [*modules, *_wholly_of(model, modules, boundary.module)]
        shapes = [_output_shapes(model, whole, inputs(*size)) for size in _SIZES]
        # A module that the forward does not call (an unused embedding, a list of layers) needs no stand-in, and what
        # lies in one that has its own needs none.
        called = [m for m in whole if id(m) in shapes[0]]
        inside = {id(child) for m in called for child in m.modules() if child is not m}
        for module in called:
            if id(module) not in inside:
                self._stand_ins.append((module, _stand_in(shapes[0][id(module)], shapes[1][id(module)], self)))

    def show(self, recorded: torch.Tensor | None, inputs: Mapping[str, torch.Tensor]) -> None:
        """Say what the next forward reads at the boundary, and the inputs that it gets."""
        assert recorded is not None, "no recorded tensor was set for this forward"
        self._current, self._tokens, self._is_fed = recorded, _tokens_in(inputs), False

    @contextmanager
    def installed(self) -> Iterator[Replay]:
        """Inside the block the model reads what is shown at the boundary; afterwards it is itself again."""
        hooks = {self.boundary.module: self._feed} if self.boundary.side == "input" else {}
        with pre_hooks(self.model, hooks):
            # Trap: a forward of their own may be there already, that of the gathered words in a decoder's embeddings.
            before = [(module, vars(module).get("forward")) for module, _ in self._stand_ins]
            for module, stand_in in self._stand_ins:
                module.forward = stand_in  # type: ignore[method-assign]
            # A forward that somebody has put there is left alone.
            is_plain = "forward" not in vars(self.model)
            if is_plain:
                self._whole = self.model.forward
                self.model.forward = self._forward
            try:
                yield self
            finally:
                if is_plain:
                    del self.model.forward
                for module, forward in before:
                    del module.forward
                    if forward is not None:
                        module.forward = forward

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward inside `installed`."""
        if self.model.training not in self._chains:
            with _Watched(self.model) as calls:
                output = self._outside_inference_mode(*args, **kwargs)
            first = self.model.get_submodule(self.boundary.module)
            is_candidate = not args and self.boundary.side == "input"
            chain = _Chain.of(first, calls, output, frozenset(kwargs)) if is_candidate else None
            self._chains[self.model.training] = chain
            return output
        chain = self._chains[self.model.training]
        if chain is None or args or kwargs.keys() != chain.arguments:
            return self._whole(*args, **kwargs)
        assert self._current is not None, "no recorded tensor was set for this forward"
        return chain.run(self._current)

    def _outside_inference_mode(self, *args: Any, **kwargs: Any) -> Any:
        """A whole forward in which torch counts what is changed in place, which it does not in inference mode."""
        if not torch.is_inference_mode_enabled():
            return self._whole(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            if self._current is not None:
                self._current = self._current.clone()  # made in inference mode it would stay what it is
            args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
            return self._whole(*args, **kwargs)

    def _feed(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_fed:
            return None  # the module is called again further up (one dropout used twice)
        self._is_fed = True
        entering = first_tensor(args, kwargs)
        return replaced(args, kwargs, entering, self._in_place_of(entering))

    def zeros(self, sizes: Sequence[int | str], dtype: torch.dtype) -> torch.Tensor:
        """Zeros that take no memory; ``rows`` and ``tokens`` among the sizes are those of the current batch."""
        assert self._current is not None, "no recorded tensor was set for this forward"
        now = {"rows": self._current.shape[0], "tokens": self._tokens}
        shape = [now[size] if isinstance(size, str) else size for size in sizes]
        return torch.zeros((), dtype=dtype, device=self._current.device).expand(shape)

    def _in_place_of(self, zeros: torch.Tensor) -> torch.Tensor:
        assert self._current is not None, "no recorded tensor was set for this forward"
        recorded = self._current.to(zeros.dtype)
        assert recorded.shape == zeros.shape, f"recorded {tuple(recorded.shape)}, wanted {tuple(zeros.shape)}"
        return recorded


@dataclass(frozen=True)
class _Chain:
    """Modules that are called one after the other, from the boundary to the logits.

    Attributes:
        modules: The first gets the recorded tensor.
        dtype: In which it enters.
        output: Class of the model's output, which has no other value.
        arguments: Names of the model's arguments in the forward that was watched.
    """

    modules: tuple[nn.Module, ...]
    dtype: torch.dtype
    output: type[Any]
    arguments: frozenset[str]

    @classmethod
    def of(cls, first: nn.Module, calls: Sequence[_Call], output: Any, arguments: frozenset[str]) -> _Chain | None:
        """None where what follows the boundary is anything but a chain.

        Args:
            first: The boundary's module.
            calls: Of one forward, inner modules before those around them.
        """
        values = dict(output) if isinstance(output, Mapping) else {}
        if list(values) != ["logits"]:
            return None
        at_boundary = [call for call in calls if call.module is first]
        if len(at_boundary) != 1 or at_boundary[0].only is None:
            return None
        dtype, modules, current = at_boundary[0].only.dtype, [first], at_boundary[0].output
        version = at_boundary[0].version_of_output
        while current is not values["logits"]:
            following = [call for call in calls if call.only is current and call.module not in modules]
            if not following or following[-1].version != version:
                return None
            version = following[-1].version_of_output
            modules.append(following[-1].module)  # the outermost
            current = following[-1].output
        return cls(tuple(modules), dtype, type(output), arguments)

    def run(self, recorded: torch.Tensor) -> Any:
        tensor = recorded.to(self.dtype)
        for module in self.modules:
            tensor = module(tensor)
        return self.output(logits=tensor)


@dataclass(frozen=True)
class _Call:
    """One call of a module: its argument where it has a single one, a tensor; and its output.

    Attributes:
        version, version_of_output: How often each had been changed in place when the call was over. Trap: of two
            modules that take one tensor, the second may have changed it (``nn.ReLU(inplace=True)``): that is no chain.
    """

    module: nn.Module
    only: torch.Tensor | None
    output: Any
    version: int
    version_of_output: int


class _Watched:
    """Notes the calls of all modules inside another; `calls` are complete when the block ends."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.calls = model, list[_Call]()

    def __enter__(self) -> list[_Call]:
        self._handles = [
            module.register_forward_hook(self._note, with_kwargs=True)
            for module in self.model.modules()
            if module is not self.model
        ]
        return self.calls

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        is_single = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
        only = args[0] if is_single else None
        self.calls.append(_Call(module, only, output, _version(only), _version(output)))


def _version(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0


def _read_by_a_decoder(model: nn.Module) -> set[int]:
    """Modules that an encoder-decoder's decoder calls, embeddings that it shares with the encoder included; by id."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return set()
    return {id(module) for module in model.get_decoder().modules()}  # type: ignore[operator]


def _wholly_of(model: nn.Module, modules: Sequence[nn.Module], boundary: str) -> list[nn.Module]:
    """Modules all of whose weights lie in `modules`, an encoder's stack of layers: one stand-in for all of it.

    Not where the boundary lies inside, and not by parameters, which a head may share with the embeddings.
    """
    inside = {id(m) for top in modules for m in top.modules()}
    found = []
    for path, module in model.named_modules():
        if not path or id(module) in inside or boundary == path or boundary.startswith(f"{path}."):
            continue
        with_weights = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
        if with_weights and all(id(m) in inside for m in with_weights):
            found.append(module)
    return found


def _output_shapes(model: nn.Module, modules: list[nn.Module], inputs: dict[str, torch.Tensor]) -> dict[int, Any]:
    """Each module's output as a tree of (shape, dtype) for one forward."""
    found: dict[int, Any] = {}

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        found[id(module)] = pytree.tree_map_only(torch.Tensor, lambda t: _Shape(tuple(t.shape), t.dtype), output)

    handles = [m.register_forward_hook(hook) for m in modules]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    rows = len(next(iter(inputs.values())))
    return {key: (value, rows) for key, value in found.items()}


def _tokens_in(inputs: Mapping[str, torch.Tensor]) -> int:
    return inputs["input_ids"].shape[1] if "input_ids" in inputs else 0


class _Shape:
    """A leaf: the shape and type of a tensor."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.dtype = shape, dtype


def _stand_in(one: tuple[Any, int], two: tuple[Any, int], replay: Replay) -> Callable[..., Any]:
    """A forward that returns zeros shaped like the module's output for whatever batch comes.

    Dimensions that changed between the two sizes as the batch or the length did are taken from the current batch.
    """
    (tree_one, rows_one), (tree_two, rows_two) = one, two
    leaves_one, structure = pytree.tree_flatten(tree_one)
    leaves_two, _ = pytree.tree_flatten(tree_two)
    plans = []
    for a, b in zip(leaves_one, leaves_two, strict=True):
        if not isinstance(a, _Shape):
            plans.append(a)
            continue
        sizes: list[int | str] = []
        for x, y in zip(a.shape, b.shape, strict=True):
            if x == y:
                sizes.append(x)
            else:
                sizes.append("rows" if (x, y) == (rows_one, rows_two) else "tokens")
        plans.append((tuple(sizes), a.dtype))

    def forward(*args: Any, **kwargs: Any) -> Any:
        leaves = [replay.zeros(*plan) if isinstance(plan, tuple) else plan for plan in plans]
        if replay.boundary.side == "output":
            first = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))
            leaves[first] = replay._in_place_of(leaves[first])
        return pytree.tree_unflatten(leaves, structure)

    return forward
