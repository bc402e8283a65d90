"""New heads on pretrained backbones."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import transformers
from torch import nn

from unfreeze.errors import ModelError
from unfreeze.models.layers import HEAD, LayerGroups
from unfreeze.models.loading import LoadedModel, ModelSource, check_modality, is_decoder, load_model

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

# Weights outside the backbone of such a checkpoint answer another question, even where their shape fits.
_ANSWERING = ("Classification", "QuestionAnswering", "MultipleChoice", "Regression")


def build_classifier(
    source: ModelSource,
    config: Any,
    *,
    n_labels: int,
    problem_type: ProblemType | None,
    id2label: Mapping[int, str],
    auto_class: Any = transformers.AutoModelForSequenceClassification,
    keep_head: bool = True,
    dtype: torch.dtype = torch.float32,
    allow_remote_code: bool = False,
) -> LoadedModel:
    """A model that gives `n_labels` numbers a row, (batch, n_labels), or a token, (batch, length, n_labels).

    The head is new: weights normal with the configuration's `initializer_range` (0.02 where it has none), biases zero,
    norms one. It depends on torch's seed and on nothing else, so call `torch.manual_seed` before. Kept are a pretrained
    pooler, the pretrained dense layer of a masked language model (ModernBERT), and, with `keep_head`, the whole head of
    a checkpoint that was trained on exactly these labels in this order.

    Args:
        source: From `unfreeze.models.loading.resolve`.
        config: From `load_config`; not changed.
        n_labels: Outputs; 1 for regression.
        problem_type: As in transformers' configurations; None where they do not have it.
        id2label: Output to label, the keys 0 to n_labels - 1.
        auto_class: Of transformers: where the head sits.
        keep_head: Whether to go on with the checkpoint's head where its labels are the same.
        dtype: Of the weights in memory.
        allow_remote_code: Whether Python files of the repository may run.

    Raises:
        ModelError: As in `load_model`; E-TOKENIZER, a decoder without a padding token.
    """
    assert sorted(id2label) == list(range(n_labels)), "id2label must name the outputs 0 to n_labels - 1"
    seed = int(torch.randint(2**62, (1,)).item())
    kind = auto_class.__name__.removeprefix("AutoModelFor")
    kept = keep_head and _has_same_head(config, auto_class, problem_type, id2label)
    wanted = classifier_config(config, n_labels=n_labels, problem_type=problem_type, id2label=id2label)
    check_modality(auto_class, config, source.name)
    if kind == "SequenceClassification":
        _require_padding(wanted, source)
    loaded = load_model(
        auto_class, source, wanted, dtype=dtype, head_is_new=not kept, allow_remote_code=allow_remote_code
    )
    if not kept:
        _renew_head(loaded, config, seed)
    loaded.notes.append(_head_note(loaded, config, kind, kept))
    if is_decoder(wanted) and wanted.pad_token_id == wanted.eos_token_id:
        loaded.notes.append(f"rows are padded with the end-of-text token, id {wanted.pad_token_id}")
    return loaded


def classifier_config(
    config: Any, *, n_labels: int, problem_type: ProblemType | None, id2label: Mapping[int, str]
) -> Any:
    """A copy of a configuration with the labels of a task."""
    wanted = copy.deepcopy(config)
    wanted.num_labels = n_labels
    wanted.id2label = dict(sorted(id2label.items()))
    wanted.label2id = {label: number for number, label in wanted.id2label.items()}
    wanted.problem_type = problem_type
    return wanted


@torch.no_grad()
def _initialise_own(module: nn.Module, std: float, generator: torch.Generator | None) -> None:
    """Give every parameter of this very module a fresh value, in place.

    Weights are drawn from a normal distribution with the standard deviation `std`; biases are zero; the scale of a norm
    is one. Kernels of two-dimensional convolutions have sqrt(2 / inputs of a unit) instead (He et al. 2015, arXiv
    1502.01852, equation 10): a new head may have several in a row, whose norms do not rescale, since their statistics
    never move.
    """
    is_norm = "norm" in type(module).__name__.lower()
    for name, parameter in module.named_parameters(recurse=False):
        if is_norm and name == "weight":
            parameter.fill_(1.0)
        elif parameter.dim() <= 1:
            parameter.zero_()
        else:
            wanted = math.sqrt(2 / parameter[0].numel()) if parameter.dim() == 4 else std
            parameter.normal_(0.0, wanted, generator=generator)


def _has_same_head(config: Any, auto_class: Any, problem_type: ProblemType | None, id2label: Mapping[int, str]) -> bool:
    # Trap: the class need not be called like the task: wav2vec 2.0 classifies sound ForSequenceClassification.
    kind = auto_class.__name__.removeprefix("AutoModelFor")
    own = getattr(auto_class._model_mapping.get(type(config), None), "__name__", kind)
    is_classifier = any(name == own or kind in name for name in config.architectures or [])
    stored = {int(number): label for number, label in (config.id2label or {}).items()}
    return is_classifier and stored == dict(id2label) and getattr(config, "problem_type", None) in (None, problem_type)


def _require_padding(config: Any, source: ModelSource) -> None:
    if is_decoder(config) and config.get_text_config().pad_token_id is None:
        raise ModelError(
            "TOKENIZER",
            "a decoder classifies by the last token of a row, and this one has no padding token to find it",
            where=source.name,
            remedy="set pad_token_id in config.json, and add the tokenizer's files",
        )


def _renew_head(loaded: LoadedModel, source_config: Any, seed: int) -> None:
    """Initialise what is new, and what the checkpoint has outside its backbone unless it comes from pretraining."""
    model = loaded.model
    groups = LayerGroups.of(model)
    head = set(groups.parameters(HEAD))
    missing = set(loaded.new_parameters) & head
    architectures = source_config.architectures or []
    answers_other = not architectures or any(kind in name for name in architectures for kind in _ANSWERING)
    backbone = f"{model.base_model_prefix}."
    renewed: set[str] = set()
    generator = torch.Generator().manual_seed(seed)
    std = float(getattr(source_config, "initializer_range", None) or 0.02)
    for path, module in model.named_modules():
        names = {f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)} & head
        if names & missing or (answers_other and names and not path.startswith(backbone)):
            _initialise_own(module, std, generator)
            renewed |= names
    assert not renewed & set(groups.tied), "a new head must not be tied to the embeddings"
    loaded.new_parameters = sorted(renewed | set(loaded.new_parameters))


def _head_note(loaded: LoadedModel, source_config: Any, kind: str, kept: bool) -> str:
    if kept:
        return "the head is the checkpoint's own: it was trained on the same labels"
    was_classifier = any(kind in name for name in source_config.architectures or [])
    replaced = f", in place of the checkpoint's for {source_config.num_labels} labels" if was_classifier else ""
    return f"the head is new{replaced}: {', '.join(loaded.new_parameters)}"
