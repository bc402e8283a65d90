"""What recorded values depend on: everything that names a store, so that another thing is never answered from it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import unfreeze
from unfreeze.activations.boundary import Boundary
from unfreeze.durable import sha256_of_file, to_json
from unfreeze.models.layers import LayerGroups
from unfreeze.types import Example

FORMAT_VERSION = 3
# torch and transformers compute; Pillow decodes and resizes pictures, soundfile and soxr decode and resample sound.
_MAKE_VALUES = ("torch", "transformers", "numpy", "pillow", "soundfile", "soxr")
# Of a configuration, what says nothing of the frozen layers in eval mode; beside rates of dropout, which are numbers
# with "drop" in their name. Trap: ESM's `token_dropout`, true or false, scales in eval mode, too.
_NAMES_ALONE = {
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"),
    *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task"),
}


def key_of(facts: Mapping[str, Any]) -> str:
    """A short name for everything the recorded values depend on: 32 hexadecimal digits."""
    text = to_json({"format": FORMAT_VERSION, **facts}, indent=2)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def facts_of_rows(examples: Sequence[Example], batch_tokens: int) -> dict[str, Any]:
    """What recorded values depend on beside the model and the boundary."""
    versions = {name: importlib.metadata.version(name) for name in _MAKE_VALUES}
    versions["unfreeze"] = unfreeze.__version__  # brings rows into form
    return {"rows": _content_of(examples), "batch_tokens": batch_tokens, "versions": versions}


class Fingerprints:
    """Of one model and its rows. What has been gone through is remembered until `forget`.

    Args:
        model: Its weights, buffers, configuration and code count.
        groups: Of the model.
        task: Its code counts, where it is none of unfreeze's: `collate` may do anything.
        batch_tokens: Of one forward; sums in another order differ in the last bits.
    """

    def __init__(self, model: nn.Module, groups: LayerGroups, task: object, batch_tokens: int) -> None:
        self.model, self.groups, self.task, self.batch_tokens = model, groups, task, batch_tokens
        # Of each group's weights; of the buffers and the code under "".
        self._digests: dict[str, str] = {}
        # By identity; the rows are kept with it, or another list might get their place in memory.
        self._rows_seen: dict[int, tuple[dict[str, Any], Sequence[Example]]] = {}

    def forget(self) -> None:
        """Phases have trained since: weights are gone through anew. Rows stay the same."""
        self._digests.clear()

    def facts(self, boundary: Boundary, dtype: str, examples: Sequence[Example]) -> dict[str, Any]:
        """Everything the values depend on that are recorded of these rows at a boundary, in a precision."""
        return {
            "weights": self._weights_of(boundary.below),
            **self._facts_of(examples),
            "boundary": asdict(boundary),
            "precision": dtype,
            "attention": getattr(self.model.config, "_attn_implementation", None),
            "configuration": _configuration_of(self.model),
        }

    def above(self, boundary: Boundary) -> str:
        """Of the weights that no recorded value depends on, and that decide how exact it must be."""
        return self._weights_of([n for n in self.groups.names if n not in boundary.below])

    def _weights_of(self, names: Sequence[str]) -> str:
        """Each group is gone through once for what is decided and recorded at one time."""
        if not self._digests:
            self._digests = {name: _digest_of(self.groups.parameters(name)) for name in self.groups.names}
            kinds = {type(module) for module in self.model.modules()} | set(type(self.task).__mro__)
            code = " ".join([type(self.model).__name__, *_code_of(kinds)])
            self._digests[""] = _digest_of(dict(self.model.named_buffers())) + code
        found = [*(self._digests[name] for name in names), self._digests[""]]
        return hashlib.sha256(" ".join(found).encode()).hexdigest()

    def _facts_of(self, examples: Sequence[Example]) -> dict[str, Any]:
        if id(examples) not in self._rows_seen:
            self._rows_seen[id(examples)] = facts_of_rows(examples, self.batch_tokens), examples
        return self._rows_seen[id(examples)][0]


def _content_of(examples: Sequence[Example]) -> str:
    """SHA-256 of encoded rows: text, tokenizer, roles and limits are all in it."""
    digest = hashlib.sha256()
    for example in examples:
        for name, values in sorted(example.inputs.items()):
            digest.update(f"{name} {values.dtype} {values.shape};".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _configuration_of(model: nn.Module) -> str:
    """SHA-256 of a model's configuration: activation, heads, epsilons are no weights, and decide what layers give."""

    def kept(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: kept(v) for k, v in values.items() if k not in _NAMES_ALONE and not _is_dropout(str(k), v)}

    config: Any = getattr(model, "config", None)
    described = kept(config.to_dict()) if hasattr(config, "to_dict") else {}
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _is_dropout(name: str, value: Any) -> bool:
    return "drop" in name and not isinstance(value, bool)


def _digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _code_of(kinds: Iterable[type]) -> list[str]:
    """SHA-256 of all files of code that no package of a known version brings."""
    files = set()
    for kind in kinds:
        if kind.__module__.partition(".")[0] not in ("builtins", "abc", "typing", "torch", "transformers", "unfreeze"):
            with contextlib.suppress(TypeError, OSError):  # made in a session, in no file
                files.add(inspect.getsourcefile(kind))
    return [sha256_of_file(file) for file in sorted(Path(f) for f in files if f is not None) if file.is_file()]


def _bytes_of(tensor: torch.Tensor) -> Any:
    """A tensor's memory, not copied where it lies on the CPU already."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
