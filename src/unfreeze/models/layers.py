"""Where a model's layers are: the stem, the numbered groups from the input, the head.

Everything that freezes, records or sets a rate speaks of *layer groups*. They are found from the module tree, without
running the model, so a model on the meta device is as good as a real one.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from unfreeze.errors import ModelError, RecipeError

STEM, HEAD = "stem", "head"

# Inside the backbone, but read by the task alone: a pooler stands between the last hidden state and the classifier, is
# cheap, and is untrained in many published checkpoints. Detection heads live in the decoder.
_HEAD_PARTS = re.compile(r"(^|\.)(pooler|head|(?!query_pos_)\w+_head|class_embed|bbox_embed)(\.|$)")
# Read by every layer although some families register them after the layers (relative positions, BART's
# layernorm_embedding), so they can only be frozen or trained as input.
_STEM_PARTS = re.compile(r"(^|[._])emb|embed|relative_attention_bias|per_layer_|query_pos_head")
# Lists that repeat something else than the layers of the network.
_NO_LAYERS = re.compile(r"(^|[._])emb|embed|feature_extractor|feature_encoder|conv_layers|adapter|input_proj")
_ENCODER_OR_DECODER = re.compile(r"(^|\.)(encoder|decoder)\.(layers?|blocks?)$")

# Families whose registration order is not the order of the forward: (pattern in the module path, where it belongs).
# "first" and "last" are the first and the last numbered group.
_FAMILIES: dict[str, tuple[tuple[str, str], ...]] = {
    # The norm is applied to the relative embeddings, the convolution to the output of layer 0.
    "deberta-v2": ((r"encoder\.LayerNorm$", STEM), (r"encoder\.conv(\.|$)", "first")),
    "sew-d": ((r"encoder\.encoder\.LayerNorm$", STEM), (r"encoder\.encoder\.conv(\.|$)", "first")),
    "opt": ((r"decoder\.(final_layer_norm|project_out)$", "last"),),
    "esm": ((r"emb_layer_norm_after$", "last"),),
    "perceiver": ((r"^perceiver\.decoder(\.|$)", HEAD),),
    "gemma3n_text": ((r"altup_unembed_projections", "last"), (r"altup_projections", STEM)),
}
# With do_stable_layer_norm the norm registered before the layers of these is applied after them.
_STABLE_NORM = ((r"encoder\.layer_norm$", "last"),)
# No single call whose input could be recorded: ALBERT calls one set of weights once a layer, SqueezeBERT calls forward
# itself, past every hook.
_NO_ENTRY = frozenset({"albert", "squeezebert"})
# A second tower smaller than this part of the largest one counts as its input (the eyes of a language model).
_SMALL_TOWER = 0.25


class GroupRow(NamedTuple):
    """One line of `LayerGroups.describe`.

    Attributes:
        name: The group.
        parameters: Number of weights; tied ones are counted once, in the group that owns them.
        modules: Paths of the modules that make it up.
    """

    name: str
    parameters: int
    modules: tuple[str, ...]


class LayerGroups:
    """Names for the parts of a model, in the order of the forward.

    Use `of` to build it. Every parameter is in exactly one group:

    * ``stem``: embeddings and whatever else comes before the first layer. May be empty where each stage embeds its own
      input (Segformer, PVT).
    * ``group 0`` ... ``group n-1``: the layers, or the stages of a hierarchical model; of an encoder-decoder the
      encoder's and then the decoder's. Parts of the backbone after its last layer (the final norm, a last convolution)
      go with the last group of their stack.
    * ``head``: all outside the backbone, and poolers. Absent in a bare backbone without a pooler.

    Weights tied across groups belong to the lowest one. Where the layers cannot be told apart (two towers of like size)
    there is no numbered group, everything below the head is stem, and `select` still takes patterns.

    Attributes:
        names: All groups in order.
        n_groups: How many are numbered.
        tied: Every further name of a tied parameter -> the group that owns it.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> with torch.device("meta"):
        ...     groups = LayerGroups.of(BertForSequenceClassification(BertConfig(num_hidden_layers=2)))
        >>> groups.names, groups.module_path("group 1")
        (('stem', 'group 0', 'group 1', 'head'), 'bert.encoder.layer.1')
        >>> sorted(groups.select("head"))[-1]
        'classifier.weight'
    """

    def __init__(self, model: nn.Module, rank_of: Callable[[str], int], n_groups: int, entries: list[str | None]):
        self._model, self._entries, self.n_groups = model, entries, n_groups
        numbered = [f"group {i}" for i in range(n_groups)]
        ranked = [STEM, *numbered, HEAD]
        canonical: dict[int, str] = {}
        self._canonical: dict[str, str] = {}
        ranks: dict[str, int] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            first = canonical.setdefault(id(parameter), name)
            self._canonical[name] = first
            rank = rank_of(name.rpartition(".")[0])
            ranks[first] = min(rank, ranks.get(first, rank))
        self._group_of = {name: ranked[rank] for name, rank in ranks.items()}
        self.tied = {alias: self._group_of[name] for alias, name in self._canonical.items() if alias != name}
        # A tied output layer owns nothing and is a head all the same; a pooler without weights is none.
        has_head = any(rank_of(name.rpartition(".")[0]) > n_groups for name in self._canonical)
        self.names: tuple[str, ...] = (STEM, *numbered, HEAD) if has_head else (STEM, *numbered)
        top = len(self.names) - 1
        self._module_group = {path: ranked[min(rank_of(path), top)] for path, _ in model.named_modules()}

    @classmethod
    def of(cls, model: nn.Module) -> LayerGroups:
        """Find the groups of a model, on any device, the meta device included."""
        layout = _Layout.of(model)
        return cls(model, layout.rank, len(layout.groups), layout.entries)

    def group_of(self, parameter_name: str) -> str:
        """The group of a parameter by any of its names, or of a buffer.

        Raises:
            KeyError: The model has nothing of that name.
        """
        if parameter_name in self._canonical:
            return self._group_of[self._canonical[parameter_name]]
        return self._module_group[parameter_name.rpartition(".")[0]]

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The parameters that a group owns, by canonical name: the one that `model.named_parameters()` gives.

        Raises:
            KeyError: There is no such group.
        """
        self._require(name)
        return {n: p for n, p in self._model.named_parameters() if self._group_of[n] == name}

    def modules(self, name: str) -> list[nn.Module]:
        """The topmost modules that lie wholly in a group, those without weights (dropout) included."""
        return [self._model.get_submodule(path) for path in self._top_paths(name)]

    def set_modes(self, trained: Collection[str]) -> None:
        """Put the modules of the named groups in train mode and all others in eval mode.

        Trap: a container such as the encoder spans groups, and `encoder.train()` would wake the dropout of every layer
        inside. Flags are therefore set module by module; a container has the mode of the lowest group in it, so that
        what it does to a frozen input (layer drop, masking of speech) is off. The model itself goes with its head.

        Raises:
            KeyError: There is no such group.
        """
        for name in trained:
            self._require(name)
        for path, module in self._model.named_modules():
            module.training = self._module_group[path] in trained

    def module_path(self, group: str | int) -> str | None:
        """The module whose input is the boundary of a numbered group, for hooks: ``"bert.encoder.layer.3"``.

        None where no single call is the group's entry: shared layers (ALBERT), layers called past their hooks
        (SqueezeBERT), groups made of several lists (XLM).

        Raises:
            KeyError: There is no such numbered group.
        """
        name = f"group {group}" if isinstance(group, int) else group
        if name in (STEM, HEAD):
            raise KeyError(name)
        self._require(name)
        return self._entries[int(name.split()[1])]

    def describe(self) -> list[GroupRow]:
        """One row a group, in order: its name, its number of parameters, its module paths."""
        sizes = dict.fromkeys(self.names, 0)
        for name, parameter in self._model.named_parameters():
            sizes[self._group_of[name]] += parameter.numel()
        return [GroupRow(name, sizes[name], tuple(self._top_paths(name))) for name in self.names]

    def select(self, span: str | Sequence[str]) -> frozenset[str]:
        """The canonical names of the parameters that a span means.

        Args:
            span: ``"head"``, ``"all"``, ``"last(k)"`` (the head and the top k numbered groups), or patterns over
                parameter and group names: ``["*.layer.5.*", "group 4", "head"]``. A pattern that matches a further name
                of a tied parameter selects the parameter.

        Raises:
            RecipeError: E-SCHEDULE-MATCH, the span or one of the patterns matches nothing.
            ModelError: E-MODEL-FAMILY, ``last(k)`` of a model whose layers cannot be told apart.
        """
        if span == "all":
            return frozenset(self._group_of)
        if isinstance(span, str) and (last := re.fullmatch(r"\s*last\(\s*(\d+)\s*\)\s*", span)):
            return self._last(int(last[1]))
        if span == HEAD and HEAD in self.names and not self._of_groups({HEAD}):
            raise RecipeError(
                "SCHEDULE-MATCH",
                "the head of this model has no weights of its own, they are tied to its embeddings",
                remedy="--schedule 'last(1)'",
            )
        patterns = [span] if isinstance(span, str) else list(span)
        if not patterns:
            raise RecipeError("SCHEDULE-MATCH", "the span is empty", remedy="write head, last(1), all or patterns")
        return frozenset[str]().union(*(self._matching(pattern) for pattern in patterns))

    def check(self, model: nn.Module, inputs: Mapping[str, Any] | None = None) -> None:
        """Assert that these groups are sound: the contract for architectures, used by tests and plug-ins.

        Every parameter is in exactly one group; stem, head and at least one numbered group hold weights; the groups
        follow the module order; spans grow with k. With `inputs` (arguments of the forward) the model is run once, and
        modules must first be called in the order of their groups, the stem excepted, which may feed later layers too;
        with all but the top group and the head frozen, the input of the top group must be the same twice.

        Raises:
            AssertionError: With what is wrong.
        """
        owned = [name for group in self.names for name in self.parameters(group)]
        assert sorted(owned) == sorted(n for n, _ in model.named_parameters()), "a parameter is in no group, or in two"
        assert self.n_groups >= 1, "no numbered group"
        numbered = self.names[1 : 1 + self.n_groups]
        empty = [group for group in numbered if not self.parameters(group)]
        assert not empty, f"groups without weights: {empty}"
        first = next(name for name, _ in model.named_parameters())
        assert self.parameters(STEM) or self.group_of(first) == numbered[0], "the stem is empty"
        tied_head = [alias for alias in self.tied if self._module_group[alias.rpartition(".")[0]] == HEAD]
        assert HEAD not in self.names or self.parameters(HEAD) or tied_head, "the head is empty"
        spans = [self.select(f"last({k})") for k in range(1, self.n_groups + 1)]
        assert all(a < b for a, b in itertools.pairwise(spans)), "last(k) does not grow with k"
        assert self._of_groups({HEAD}) <= spans[0] <= self.select("all"), "last(1) is not between head and all"
        if inputs is not None:
            self._check_order(model, inputs)
            self._check_frozen_part(model, inputs)

    def _check_order(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        calls: list[str] = []
        hooks = []
        entries = [path for path in self._entries if path is not None]
        for path, module in model.named_modules():
            holds_weights = next(module.parameters(recurse=False), None) is not None
            if path in entries or holds_weights:
                hooks.append(module.register_forward_pre_hook(lambda _m, _a, path=path: calls.append(path)))
        _run(model, inputs, hooks)
        order = {name: i for i, name in enumerate(self.names)}
        first_calls = list(dict.fromkeys(calls))
        top = order[self.names[self.n_groups]]
        for before, after in itertools.combinations(first_calls, 2):
            a, b = self._module_group[before], self._module_group[after]
            is_input = b == STEM and order[a] < top
            assert order[a] <= order[b] or is_input, f"{after} ({b}) runs after {before} ({a})"
        wrong = {path: calls.count(path) for path in entries if calls.count(path) != 1}
        assert not wrong, f"entries of groups that are not called exactly once: {wrong}"

    def _check_frozen_part(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        top = self.module_path(self.n_groups - 1)
        if top is None:
            return
        seen: list[torch.Tensor] = []

        def look(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)))

        with modes_kept(model):
            self.set_modes({HEAD, self.names[self.n_groups]} & set(self.names))
            for _ in range(2):
                _run(model, inputs, [model.get_submodule(top).register_forward_pre_hook(look, with_kwargs=True)])
        assert torch.equal(*seen), "the frozen part is not a function of its input"

    def _require(self, name: str) -> None:
        if name not in self.names:
            raise KeyError(f"no layer group {name!r}; there are {', '.join(self.names)}")

    def _of_groups(self, groups: Collection[str]) -> frozenset[str]:
        return frozenset(name for name, group in self._group_of.items() if group in groups)

    def _last(self, k: int) -> frozenset[str]:
        if self.n_groups == 0:
            raise ModelError(
                "MODEL-FAMILY",
                f"the layers of {type(self._model).__name__} cannot be told apart, so last({k}) has no meaning",
                remedy="use head, all, or a list of patterns such as "
                + ", ".join(repr(f"{path}.*") for path in _repeated(self._model)[:3]),
            )
        if not 1 <= k <= self.n_groups:
            raise RecipeError(
                "SCHEDULE-MATCH",
                f"last({k}) does not exist, this model has {self.n_groups} layer groups",
                remedy=f"write last(1) to last({self.n_groups}), or all to train the embeddings too",
            )
        return self._of_groups({HEAD, *self.names[1 + self.n_groups - k : 1 + self.n_groups]})

    def _matching(self, pattern: str) -> frozenset[str]:
        named = {self._canonical[name] for name in self._canonical if fnmatchcase(name, pattern)}
        found = named | self._of_groups({name for name in self.names if fnmatchcase(name, pattern)})
        if not found:
            what = f"{pattern!r} matches no parameter and no layer group"
            raise RecipeError("SCHEDULE-MATCH", what, remedy=self._near(pattern))
        return frozenset(found)

    def _near(self, pattern: str) -> str:
        paths = [f"{above}.*" for name in self._canonical for above in _ancestors(name) if above]
        near = difflib.get_close_matches(
            pattern, [*self.names, *dict.fromkeys(paths), *self._canonical], n=3, cutoff=0.6
        )
        if near:
            return "did you mean " + " or ".join(repr(name) for name in near) + "?"
        return "groups are " + ", ".join(self.names)

    def _top_paths(self, name: str) -> list[str]:
        self._require(name)
        mixed = {path for path, group in self._module_group.items() if group != name}
        # A module is mixed as soon as anything below it belongs elsewhere.
        for path in list(mixed):
            mixed.update(_ancestors(path))
        tops: list[str] = []
        for path in self._module_group:
            if path not in mixed and not any(above in tops for above in _ancestors(path)):
                tops.append(path)
        return tops


def _run(model: nn.Module, inputs: Mapping[str, Any], hooks: list[RemovableHandle]) -> None:
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(slots=True)
class _Stack:
    """A list of repeated layers: its module path and, per group, the module paths."""

    path: str
    groups: list[list[str]]


class _Layout:
    """Where everything lies in one model; `rank` is 0 for the stem, i + 1 for group i, and the highest for the head."""

    def __init__(self, model: nn.Module, backbone: str, stacks: list[_Stack]) -> None:
        self._order = {path: i for i, (path, _) in enumerate(model.named_modules())}
        self._backbone, self._stacks = backbone, stacks
        self.groups = [group for stack in stacks for group in stack.groups]
        self._group_rank = {path: i + 1 for i, group in enumerate(self.groups) for path in group}
        config = getattr(model, "config", None)
        self._family = getattr(config, "model_type", "")
        self._places = _FAMILIES.get(self._family, ())
        if getattr(config, "do_stable_layer_norm", False):
            self._places = (*self._places, *_STABLE_NORM)
        # Trap: T5 and XLNet apply one dropout to the embeddings and again to the last hidden state. Whoever trains the
        # top must not wake it, or the frozen part below is no longer a function of its input.
        self._dropouts = {path for path, module in model.named_modules() if isinstance(module, nn.Dropout)}
        self._outside = self._find_outside(model)

    @classmethod
    def of(cls, model: nn.Module) -> _Layout:
        prefix = getattr(model, "base_model_prefix", "")
        has_backbone = bool(prefix) and _has_head_name(model) and isinstance(getattr(model, prefix, None), nn.Module)
        backbone = prefix if has_backbone else ""
        return cls(model, backbone, _find_stacks(model, backbone))

    @property
    def entries(self) -> list[str | None]:
        no_entry = self._family in _NO_ENTRY
        return [None if no_entry or len(group) > 1 else group[0] for group in self.groups]

    def rank(self, path: str) -> int:
        """The rank of a module, or of the parameters that it holds itself."""
        top = len(self.groups) + 1
        if self._is_outside(path):
            return top
        for above in (path, *_ancestors(path)):
            if above in self._group_rank:
                return self._group_rank[above]
        if not self.groups:
            return top if _HEAD_PARTS.search(path) else 0
        for pattern, place in self._places:
            if re.search(pattern, path):
                return {STEM: 0, "first": 1, "last": top - 1, HEAD: top}[place]
        by_order = self._rank_by_order(path)
        if by_order and _HEAD_PARTS.search(path):
            return top
        return 0 if path in self._dropouts or _STEM_PARTS.search(path) else by_order

    def _rank_by_order(self, path: str) -> int:
        """The last group registered before the path, or the stem; a container of layers counts as its beginning."""
        if any(path == "" or (stack.path + ".").startswith(path + ".") for stack in self._stacks):
            return 0
        shared = [len(_common(path, stack.path)) for stack in self._stacks]
        owners = [stack for stack, n in zip(self._stacks, shared, strict=True) if n == max(shared)]
        passed = [stack for stack in owners if self._order[stack.path] < self._order[path]]
        return self._group_rank[passed[-1].groups[-1][0]] if passed else 0

    def _is_outside(self, path: str) -> bool:
        if self._backbone:
            return path != self._backbone and not path.startswith(self._backbone + ".")
        return path.partition(".")[0] in self._outside

    def _find_outside(self, model: nn.Module) -> frozenset[str]:
        """Without a backbone attribute (CLIP and Whisper classifiers, T5, UperNet): what comes after the last layers.

        Trap: a bare backbone (Dinov2Model) ends in its final norm, which is no head.
        """
        if self._backbone or not self._stacks or not _has_head_name(model):
            return frozenset()
        children = [name for name, _ in model.named_children()]
        last = max(children.index(stack.path.partition(".")[0]) for stack in self._stacks)
        return frozenset({"", *children[last + 1 :]})


def _has_head_name(model: nn.Module) -> bool:
    """Whether the class is a backbone with something on it: BertForSequenceClassification, GPT2LMHeadModel."""
    return re.search(r"For[A-Z]|Head", type(model).__name__) is not None


def _find_stacks(model: nn.Module, backbone: str) -> list[_Stack]:
    paths = [path for path in _repeated(model) if not backbone or path.startswith(backbone + ".")]
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        halves = [path for path in paths if _ENCODER_OR_DECODER.search(path)]
        paths = sorted(halves, key=_is_decoder) or paths
    else:
        paths = _largest(model, paths)
    return [_stack(model, path) for path in paths]


def _is_decoder(path: str) -> bool:
    return "decoder" in path.split(".")


def _repeated(model: nn.Module) -> list[str]:
    """Outermost lists of layers that hold weights; chains of like modules where there is no list at all."""
    return _outermost(model, lambda module: isinstance(module, nn.ModuleList)) or _outermost(model, _is_chain)


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and len(module) > 1 and len({type(child) for child in module}) == 1


def _outermost(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> list[str]:
    found: list[str] = []
    for path, module in model.named_modules():
        is_layers = wanted(module) and next(module.parameters(), None) is not None
        if is_layers and not (_NO_LAYERS.search(path) or _HEAD_PARTS.search(path)) and not _below(path, found):
            found.append(path)
    return found


def _largest(model: nn.Module, paths: list[str]) -> list[str]:
    """The list that is the network; none where two are of like size and no name tells them apart."""
    if len(paths) <= 1:
        return paths
    language = [path for path in paths if "language_model" in path.split(".")]
    if language:
        return language[:1]
    size = {path: sum(p.numel() for p in model.get_submodule(path).parameters()) for path in paths}
    best = max(paths, key=lambda path: size[path])
    rivals = [p for p in paths if p != best and size[p] > _SMALL_TOWER * size[best] and not _is_sibling(model, p, best)]
    return [] if rivals else [best]


def _stack(model: nn.Module, path: str) -> _Stack:
    """Groups of one list: its children, with the like-numbered children of lists beside it (XLM, PVT)."""
    parent = path.rpartition(".")[0]
    beside = [
        f"{parent}.{name}" if parent else name
        for name, _ in model.get_submodule(parent).named_children()
        if _is_sibling(model, f"{parent}.{name}" if parent else name, path)
    ]
    members = beside if len(beside) > 1 else [path]
    groups: list[list[str]] = []
    for name, child in model.get_submodule(path).named_children():
        if len(members) > 1:
            groups.append([f"{member}.{name}" for member in members])
        elif isinstance(child, nn.ModuleList):  # Funnel: a list of lists, of which only the inner modules are called
            groups.extend([f"{path}.{name}.{inner}"] for inner, _ in child.named_children())
        else:
            groups.append([f"{path}.{name}"])
    return _Stack(path, groups)


def _is_sibling(model: nn.Module, path: str, of: str) -> bool:
    """Whether two lists lie side by side and have one entry a layer each."""
    if path.rpartition(".")[0] != of.rpartition(".")[0] or (path != of and _HEAD_PARTS.search(path)):
        return False
    one, other = model.get_submodule(path), model.get_submodule(of)
    return isinstance(one, nn.ModuleList) and isinstance(other, nn.ModuleList) and len(one) == len(other) > 1


def _below(path: str, tops: Collection[str]) -> bool:
    return any(above in tops for above in _ancestors(path))


def _ancestors(path: str) -> list[str]:
    """Paths above a module path, the nearest first, the root (an empty path) last."""
    above = []
    while path:
        path = path.rpartition(".")[0]
        above.append(path)
    return above


def _common(one: str, other: str) -> list[str]:
    shared = []
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a != b:
            break
        shared.append(a)
    return shared


def hold_statistics(model: nn.Module) -> None:
    """Put normalisation layers that keep running statistics in eval mode: what they compute is a function of the row.

    Layer norms have none, and follow their group's mode.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """After the block every module trains or not as it did before."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def backbone_of(model: Any) -> nn.Module:
    """The pretrained network without its head; the model itself where it has none."""
    return getattr(model, model.base_model_prefix, model)
