"""Pretrained files to objects: where a model is, its configuration, its tokenizer, its weights.

Two promises. Weights are read from safetensors only, and code from a model's repository never runs unless the person
allows it. A model loads completely or not at all: a tensor that is missing, superfluous, of another shape or not finite
is an error; only the head that is declared new may be new.

Everything is read from a local folder: a Hub model is first fetched into the Hugging Face cache, its configuration
before its weights, so that a wrong model is refused before it is downloaded.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.resources
import json
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import torch
import transformers
from huggingface_hub import constants as hub_constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from unfreeze.errors import ModelError, command, did_you_mean
from unfreeze.models import catalog
from unfreeze.models.layers import HEAD, LayerGroups

# Seconds to wait for the Hub's first answer. Trap: the client of huggingface_hub has no time limit of its own.
HUB_TIMEOUT_S = 10.0

_SETTINGS_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_WEIGHT_FILES = ["model.safetensors", "model-*.safetensors"]
_PICKLES = re.compile(r"((^|_)model\S*|^consolidated\S*)\.(bin|pt|pth|pkl|pickle)$|\.ckpt$")
_BUILTIN_HINT = "use a model that ships with unfreeze: --model builtin:text, or builtin:image"

# Tensors of other heads, towers and pretraining parts, by one component of their name; a checkpoint may hold them.
_OTHER_PARTS = re.compile(
    r"cls|\w*head\w*|\w*classifier\w*|classification\w*|pooler|\w*predict\w*|score|qa_outputs|logits_proj|logit_(scale|bias)"
    r"|vocab_\w+|sequence_summary|decoder|\w*projector\w*|\w+_projection|quantizer|project_(q|hid)|text_model|vision_model"
    r"|mask_token|masked_spec_embed|mask_emb|lm_loss|pred_layer|proj_out|embed_out|final_logits_bias"
)
# Tables that older versions saved with the weights and that are computed today.
_COMPUTED = re.compile(r"(inv_freq|position_ids|masked_bias|\.attn\.bias|relative_position_index|num_batches_tracked)$")
# Speech checkpoints fine-tuned without masking lack the vector that stands for masked frames.
_OPTIONAL = re.compile(r"masked_spec_embed$")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model is.

    Attributes:
        kind: ``builtin`` (ships with unfreeze), ``folder``, ``run`` (a finished run to continue from), or ``hub``.
        name: What the person typed.
        location: The folder with config.json, or the Hub id.
        revision: Branch, tag or commit of a Hub model, given as ``org/name@revision``; None for the newest.
    """

    kind: Literal["builtin", "folder", "hub", "run"]
    name: str
    location: str
    revision: str | None = None


@dataclass(slots=True)
class LoadedModel:
    """A model and what was found out while loading it.

    Attributes:
        model: In eval mode, on the CPU.
        new_parameters: Names of the parameters that did not come from the checkpoint, sorted.
        notes: Sentences for the plan: what was replaced, left out, or assumed.
        revision: The commit of a Hub model; None for a folder.
    """

    model: Any
    new_parameters: list[str]
    notes: list[str] = field(default_factory=list)
    revision: str | None = None


# where it is -----------------------------------------------------------------------------------------------------


def resolve(model: str) -> ModelSource:
    """Say what a model's name means, without touching the network.

    Args:
        model: ``builtin:text``, ``builtin:image``, a folder, a finished run, or a Hub id (``name``, ``org/name``,
            ``org/name@revision``).

    Raises:
        ModelError: E-MODEL-UNKNOWN, it is none of these.
    """
    if model.startswith("builtin:"):
        return _builtin(model)
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        return _folder(model, folder)
    if folder.is_file():
        raise _unknown(model, "is a file", "give the folder that holds config.json and model.safetensors")
    if _is_path(model):
        raise _unknown(model, "does not exist", _near_folders(folder))
    repository, _, revision = model.partition("@")
    try:
        validate_repo_id(repository)
    except hub_errors.HFValidationError:
        raise _unknown(model, "is neither a folder nor the name of a Hub model", _near_models(model)) from None
    return ModelSource("hub", model, repository, revision or None)


def fetch(source: ModelSource, *, weights: bool, allow_remote_code: bool = False) -> Path:
    """The local folder of a model; downloads a Hub model unless it is in the cache.

    Args:
        source: From `resolve`.
        weights: Whether the weights are needed, or only configuration and tokenizer.
        allow_remote_code: Whether to fetch Python files too.

    Raises:
        ModelError: E-MODEL-UNKNOWN, the Hub does not have it, or cannot be reached and the cache does not have it.
            E-MODEL-PICKLE, it has no safetensors.
    """
    if source.kind != "hub":
        return Path(source.location)
    try:
        return _fetch_from_hub(source, weights, allow_remote_code)
    except ModelError:
        raise
    except Exception as error:  # the client lets through what its HTTP library raises
        raise _hub_error(source, error) from error


def _builtin(model: str) -> ModelSource:
    name = model.partition(":")[2]
    if name not in catalog.BUILTIN:
        raise _unknown(model, "does not exist", did_you_mean(model, [f"builtin:{known}" for known in catalog.BUILTIN]))
    folder = _builtin_folder() / name
    if not (folder / "config.json").is_file():
        raise _unknown(model, "is missing from this installation", "pip install --force-reinstall unfreeze")
    return ModelSource("builtin", model, str(folder))


def _builtin_folder() -> Path:
    return Path(str(importlib.resources.files("unfreeze"))) / "builtin"


def _folder(model: str, folder: Path) -> ModelSource:
    if (folder / "status.json").is_file():
        if not (folder / "model" / "config.json").is_file():
            raise _unknown(model, "is a run that has no finished model", command("resume", model))
        return ModelSource("run", model, str(folder / "model"))
    if (folder / "config.json").is_file():
        return ModelSource("folder", model, str(folder))
    if (folder / "adapter_config.json").is_file():
        raise _unknown(model, "holds an adapter, not a model", "name the model that the adapter was trained on")
    raise _unknown(model, "is a folder without config.json", "give a folder in Hugging Face layout, or a run")


def _is_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.endswith("/") or model.count("/") > 1 or "\\" in model


def _near_folders(folder: Path) -> str:
    try:
        beside = sorted(path.name for path in folder.absolute().parent.iterdir() if path.is_dir())
    except OSError:
        return f"there is no folder {folder.parent} either"
    near = difflib.get_close_matches(folder.name, beside, n=1, cutoff=0.5)
    return f"did you mean {str(folder.parent / near[0])!r}?" if near else _BUILTIN_HINT


def _near_models(model: str) -> str:
    near = catalog.near(model)
    return f"did you mean {near!r}? Or {_BUILTIN_HINT}" if near and near != model else _BUILTIN_HINT


def _unknown(model: str, what: str, remedy: str) -> ModelError:
    return ModelError("MODEL-UNKNOWN", f"the model {model!r} {what}", where="model", remedy=remedy)


# the Hub ---------------------------------------------------------------------------------------------------------


def _fetch_from_hub(source: ModelSource, weights: bool, allow_remote_code: bool) -> Path:
    refusal: Exception | None = None
    files: list[str] | None = None
    try:
        files = _reach(source)
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError) as error:
        refusal = error  # what was withdrawn from the Hub may still be in the cache
    if weights and files is not None:
        _refuse_without_safetensors(files, source.location)
    try:
        return Path(
            huggingface_hub.snapshot_download(
                source.location,
                revision=source.revision,
                cache_dir=hub_constants.HF_HUB_CACHE,
                allow_patterns=_SETTINGS_FILES
                + (_WEIGHT_FILES if weights else [])
                + (["*.py"] if allow_remote_code else []),
                ignore_patterns=["*/*"],
                etag_timeout=HUB_TIMEOUT_S,
                local_files_only=files is None,
            )
        )
    except hub_errors.LocalEntryNotFoundError as error:
        raise refusal or error from None


def _reach(source: ModelSource) -> list[str] | None:
    """The names of the files that the Hub has; None where it cannot be reached, so that the cache decides."""
    if hub_constants.HF_HUB_OFFLINE:
        return None
    try:
        info = huggingface_hub.HfApi().model_info(source.location, revision=source.revision, timeout=HUB_TIMEOUT_S)
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError):
        raise
    except Exception as error:  # the kinds differ with the HTTP library underneath
        logging.getLogger(__name__).debug("the Hub did not answer for %s: %s", source.location, error)
        return None
    return [file.rfilename for file in info.siblings or []]


def _hub_error(source: ModelSource, error: Exception) -> ModelError:
    name, hint = source.location, _near_models(source.location)
    if isinstance(error, hub_errors.GatedRepoError):
        what = "needs its owner's permission"
        return _unknown(name, what, f"accept its terms at https://huggingface.co/{name} and run: hf auth login")
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return _unknown(name, f"has no revision {source.revision!r}", "leave out the part after @ for the newest")
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return _unknown(name, "is not on the Hub, or it is private", hint)
    if isinstance(error, hub_errors.LocalEntryNotFoundError):
        state = "is only partly" if isinstance(error, hub_errors.IncompleteSnapshotError) else "is not"
        offline = "HF_HUB_OFFLINE is set" if hub_constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        return _unknown(name, f"{state} in the local cache, and {offline}", f"connect to the network. Or: {hint}")
    return _unknown(name, f"could not be fetched from the Hub: {_first_line(error)}", f"try again. Or: {hint}")


# configuration ---------------------------------------------------------------------------------------------------


def load_config(source: ModelSource, *, allow_remote_code: bool = False) -> Any:
    """The configuration of a model, a `transformers.PreTrainedConfig`.

    Decoders without a padding token get their tokenizer's, see `load_processor`.

    Raises:
        ModelError: E-MODEL-UNKNOWN, E-MODEL-BROKEN (no readable config.json), E-MODEL-REMOTE-CODE.
    """
    folder = fetch(source, weights=False, allow_remote_code=allow_remote_code)
    _check_remote_code(source, folder, "config.json", allow_remote_code)
    path = folder / "config.json"
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=allow_remote_code)
    except Exception as error:
        raise _broken(f"the configuration cannot be used: {_first_line(error)}", path) from error
    if is_decoder(config):
        _share_padding(config, source, folder, allow_remote_code)
    return config


def is_decoder(config: Any) -> bool:
    """Whether a model of this configuration reads from left to right only, so that it classifies by the last token."""
    causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
    masked = type(config) in transformers.AutoModelForMaskedLM._model_mapping
    return causal and not masked and not getattr(config, "is_encoder_decoder", False)


def _share_padding(config: Any, source: ModelSource, folder: Path, allow_remote_code: bool) -> None:
    # Trap: the head of a decoder finds the last token of a row by config.pad_token_id, so the two must agree.
    try:
        padding = _tokenizer(source, folder, allow_remote_code).pad_token_id
    except ModelError:
        return  # weights without a tokenizer: load_processor says so to whoever needs one
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        part.pad_token_id = padding


def _check_remote_code(source: ModelSource, folder: Path, file: str, allow_remote_code: bool) -> None:
    """Refuse settings that make transformers fetch or run code."""
    settings = _read_json(folder / file)
    reasons = [key for key in ("auto_map", "trust_remote_code") if settings.get(key)]
    # A slash names a repository of kernels, which are code too.
    reasons += [key for key, value in settings.items() if "_implementation" in key and "/" in json.dumps(value)]
    if not reasons:
        return
    if not allow_remote_code:
        what = f"the model needs code from its repository ({', '.join(reasons)}), which is not run unless you allow it"
        remedy = "read the code, then add --allow-remote-code; or choose another model"
        raise ModelError("MODEL-REMOTE-CODE", what, where=str(folder / file), remedy=remedy)
    if source.kind == "hub" and not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
        what = "code from the Hub is only run at a fixed commit, this name may mean other code tomorrow"
        pinned = f"--model {source.location}@{folder.name}"
        raise ModelError("MODEL-REMOTE-CODE", what, where=source.name, remedy=f"read the code, then write {pinned}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _broken(f"there is no {path.name}", path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(f"{path.name} cannot be read: {_first_line(error)}", path) from error
    if not isinstance(content, dict):
        raise _broken(f"{path.name} is not a JSON object", path)
    return content


def check_weights(source: ModelSource) -> None:
    """Read the headers of a local model's weight files, so that what is wrong with them is told before work starts.

    Those of a Hub model are looked at when they have been fetched.

    Raises:
        ModelError: E-MODEL-PICKLE, E-MODEL-BROKEN.
    """
    if source.kind != "hub":
        _check_files(Path(source.location))


# tokenizer -------------------------------------------------------------------------------------------------------


def load_processor(source: ModelSource, *, allow_remote_code: bool = False) -> Any:
    """The tokenizer of a text model, checked against its embeddings.

    A tokenizer without a padding token pads with its end-of-text token.

    Raises:
        ModelError: E-TOKENIZER, it is missing, damaged, knows more tokens than the model has embeddings, or cannot pad;
            E-MODEL-MODALITY, the model does not read text; E-MODEL-REMOTE-CODE; E-MODEL-UNKNOWN.
    """
    folder = fetch(source, weights=False, allow_remote_code=allow_remote_code)
    config = load_config(source, allow_remote_code=allow_remote_code)
    _check_reads_text(config, source.name)
    tokenizer = _tokenizer(source, folder, allow_remote_code)
    _check_vocabulary(tokenizer, config, folder)
    return tokenizer


def load_image_processor(source: ModelSource, *, allow_remote_code: bool = False) -> Any:
    """What scales and normalises pictures for a model, without torchvision.

    Raises:
        ModelError: E-PROCESSOR, it is missing or damaged; E-MODEL-MODALITY, the model does not read pictures;
            E-MODEL-REMOTE-CODE; E-MODEL-UNKNOWN.
    """
    folder = _processor_folder(source, ("images", "image and text"), "pictures", allow_remote_code)
    try:
        with quiet():
            return transformers.AutoImageProcessor.from_pretrained(
                folder, trust_remote_code=allow_remote_code, local_files_only=True, backend="pil"
            )
    except Exception as error:
        what = f"the image processor cannot be loaded: {_first_line(error)}"
        raise ModelError("PROCESSOR", what, where=str(folder), remedy=_PROCESSOR_REMEDY) from error


def load_feature_extractor(source: ModelSource, *, allow_remote_code: bool = False) -> Any:
    """What brings sound into a model's form, without torchaudio.

    Raises:
        ModelError: E-PROCESSOR, it is missing or damaged, or says no rate; E-MODEL-MODALITY, the model does not read
            sound; E-MODEL-REMOTE-CODE; E-MODEL-UNKNOWN.
    """
    folder = _processor_folder(source, ("audio", "speech"), "sound", allow_remote_code)
    try:
        with quiet():
            extractor = transformers.AutoFeatureExtractor.from_pretrained(
                folder, trust_remote_code=allow_remote_code, local_files_only=True
            )
    except Exception as error:
        what = f"the feature extractor cannot be loaded: {_first_line(error)}"
        raise ModelError("PROCESSOR", what, where=str(folder), remedy=_PROCESSOR_REMEDY) from error
    if not getattr(extractor, "sampling_rate", None):
        what = "the feature extractor says no sampling rate"
        raise ModelError("PROCESSOR", what, where=str(folder), remedy=_PROCESSOR_REMEDY)
    return extractor


_PROCESSOR_FILE = "preprocessor_config.json"
_PROCESSOR_REMEDY = f"copy {_PROCESSOR_FILE} of the model that these weights were trained from into the folder"


def _processor_folder(source: ModelSource, kinds: tuple[str, ...], noun: str, allow_remote_code: bool) -> Path:
    """The folder with a model's settings, once it is clear that it reads such inputs and needs no code."""
    folder = fetch(source, weights=False, allow_remote_code=allow_remote_code)
    config = load_config(source, allow_remote_code=allow_remote_code)
    fits = _kinds_of(config)
    if fits and not set(kinds) & set(fits):
        what = f"a {config.model_type} model is one for {fits[0]}, not for {noun}"
        raise ModelError(
            "MODEL-MODALITY", what, where=source.name, remedy="choose a model of the modality of your data"
        )
    if (folder / _PROCESSOR_FILE).is_file():
        _check_remote_code(source, folder, _PROCESSOR_FILE, allow_remote_code)
    return folder


def _kinds_of(config: Any) -> list[str]:
    """What models of a configuration are for."""
    return [kind for kind, auto in _KINDS if type(config) in getattr(transformers, auto)._model_mapping]


def _check_reads_text(config: Any, name: str) -> None:
    """Say that a model is one for pictures or sound, rather than that it has no tokenizer."""
    fits = _kinds_of(config)
    if fits and not any("text" in kind for kind in fits):
        what = f"a {config.model_type} model is one for {fits[0]}, not for text"
        raise ModelError("MODEL-MODALITY", what, where=name, remedy="choose a model of the modality of your data")


def _tokenizer(source: ModelSource, folder: Path, allow_remote_code: bool) -> Any:
    if (folder / "tokenizer_config.json").is_file():
        _check_remote_code(source, folder, "tokenizer_config.json", allow_remote_code)
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, trust_remote_code=allow_remote_code, local_files_only=True
            )
    except Exception as error:
        what = f"the tokenizer cannot be loaded: {_first_line(error)}"
        raise ModelError("TOKENIZER", what, where=str(folder), remedy=_TOKENIZER_REMEDY) from error
    # Trap: transformers makes a tokenizer of nothing but special tokens where the vocabulary file is missing.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        what = "the tokenizer has no vocabulary: tokenizer.json, vocab.txt or the like is missing"
        raise ModelError("TOKENIZER", what, where=str(folder), remedy=_TOKENIZER_REMEDY)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            what = "the tokenizer has neither a padding nor an end-of-text token, so rows cannot be padded"
            raise ModelError("TOKENIZER", what, where=str(folder), remedy="set pad_token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


_TOKENIZER_REMEDY = "copy the tokenizer files of the model that these weights were trained from into the folder"


def _check_vocabulary(tokenizer: Any, config: Any, folder: Path) -> None:
    rows = getattr(config.get_text_config(), "vocab_size", None)
    known = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
    if isinstance(rows, int) and known > rows:
        what = f"the tokenizer knows {known} tokens, the model has embeddings for {rows}: it belongs to another model"
        raise ModelError("TOKENIZER", what, where=str(folder), remedy=_TOKENIZER_REMEDY)


# weights ---------------------------------------------------------------------------------------------------------


def load_model(
    auto_class: Any,
    source: ModelSource,
    config: Any,
    *,
    dtype: torch.dtype = torch.float32,
    head_is_new: bool,
    allow_remote_code: bool = False,
) -> LoadedModel:
    """Load all weights of a model, or say what is wrong with them.

    Args:
        auto_class: A class such as `transformers.AutoModelForSequenceClassification`.
        source: From `resolve`.
        config: From `load_config`, with the labels of the task where there are any.
        dtype: Of the weights in memory.
        head_is_new: Whether the head group (see `LayerGroups`) may be missing from the checkpoint or have another shape
            there. What is missing is then initialised by transformers; `heads` does it by our rule.
        allow_remote_code: Whether Python files of the repository may run.

    Raises:
        ModelError: E-MODEL-PICKLE (no safetensors), E-MODEL-MODALITY (the class does not fit the configuration),
            E-MODEL-BROKEN (a file is damaged; a tensor is missing, superfluous, misshapen or not finite),
            E-MODEL-REMOTE-CODE, E-MODEL-UNKNOWN.
    """
    check_modality(auto_class, config, source.name)
    folder = fetch(source, weights=True, allow_remote_code=allow_remote_code)
    _check_remote_code(source, folder, "config.json", allow_remote_code)
    _check_files(folder)
    try:
        with quiet():
            model, info = auto_class.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=allow_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as error:
        raise _broken(f"the weights cannot be loaded: {_first_line(error)}", folder) from error
    for tensor in (*model.parameters(), *model.buffers()):
        # Trap: in the mapped file tensors lie at any address, and on unaligned memory some kernels add up in another
        # order: the model that was written would answer otherwise, in the last bit, than the one in memory.
        tensor.data = tensor.data.clone()
    new, notes = _check_tensors(model, info, folder, head_is_new)
    _check_finite(model, folder)
    return LoadedModel(model.eval(), new, notes, folder.name if source.kind == "hub" else None)


def check_modality(auto_class: Any, config: Any, name: str) -> None:
    """Refuse a configuration that the Auto class has no model for.

    Raises:
        ModelError: E-MODEL-MODALITY, saying what the model is for.
    """
    if type(config) in auto_class._model_mapping or getattr(config, "auto_map", None):
        return
    fits = _kinds_of(config)
    wanted = auto_class.__name__.removeprefix("AutoModelFor")
    what = f"a {config.model_type} model has no form for {wanted}" + (f", it is one for {fits[0]}" if fits else "")
    remedy = _REMEDIES.get(wanted, "choose a model of the modality of your data")
    raise ModelError("MODEL-MODALITY", what, where=name, remedy=remedy)


_REMEDIES = {
    "Seq2SeqLM": "choose one that reads a text and writes another, such as T5 or BART: --model google-t5/t5-small",
    "CTC": "choose one that gives letters for sound, such as: --model facebook/wav2vec2-base-960h",
    "SemanticSegmentation": "choose one that can give masks, such as Segformer, MobileNetV2, BEiT or DPT",
}
_KINDS = (
    ("image and text", "AutoModelForImageTextToText"),
    ("text", "AutoModelForSequenceClassification"),
    ("text", "AutoModelForCausalLM"),
    ("text", "AutoModelForSeq2SeqLM"),
    ("images", "AutoModelForImageClassification"),
    ("images", "AutoModelForObjectDetection"),
    ("images", "AutoModelForSemanticSegmentation"),
    ("audio", "AutoModelForAudioClassification"),
    ("speech", "AutoModelForSpeechSeq2Seq"),
)


def _check_files(folder: Path) -> None:
    """Read every header: a truncated file or a pickle under another name is found before anything is loaded."""
    _refuse_without_safetensors([path.name for path in folder.iterdir()], str(folder))
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        _tensor_names(folder / "model.safetensors")
        return
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise _broken("the index has no weight_map", index)
    for shard in sorted(set(weight_map.values())):
        path = folder / shard
        if Path(shard).name != shard or not path.is_file():
            raise _broken(f"the file {shard!r} that the index names is not there", index)
        lacking = {name for name, owner in weight_map.items() if owner == shard} - _tensor_names(path)
        if lacking:
            raise _broken(f"tensors that the index names are not there: {_listed(lacking)}", path)


def _refuse_without_safetensors(files: list[str], where: str) -> None:
    if {"model.safetensors", "model.safetensors.index.json"} & set(files):
        return
    pickles = sorted(file for file in files if _PICKLES.search(file) and "/" not in file)
    if pickles:
        what = f"the weights are only there as a pickle ({pickles[0]}), which can run any code when it is opened"
        remedy = "choose a model with model.safetensors, or a revision that has it: --model org/name@revision"
        raise ModelError("MODEL-PICKLE", what, where=where, remedy=remedy)
    raise ModelError("MODEL-BROKEN", "there are no weights: model.safetensors is missing", where=where, remedy=_AGAIN)


def _tensor_names(path: Path) -> set[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        raise _broken(f"this is not a whole safetensors file: {_first_line(error)}", path) from error


def _check_tensors(model: Any, info: dict[str, Any], folder: Path, head_is_new: bool) -> tuple[list[str], list[str]]:
    groups = LayerGroups.of(model)
    misshapen = {name: (tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"]}
    new = {name for name in (*info["missing_keys"], *misshapen) if not _COMPUTED.search(name)}
    optional = {name for name in new if _OPTIONAL.search(name)} - set(misshapen)
    lost = {n: misshapen.get(n) for n in sorted(new - optional) if not (head_is_new and groups.group_of(n) == HEAD)}
    if lost:
        raise _lost(lost, all(groups.group_of(n) == HEAD for n in lost), type(model).__name__, folder)
    foreign = sorted(name for name in info["unexpected_keys"] if not _COMPUTED.search(name))
    strange = _strange(foreign, groups)
    if strange:
        raise _broken(f"tensors that this architecture does not have: {_listed(strange)}", folder)
    notes = [f"left out, parts of another head: {_listed(foreign)}"] if foreign else []
    notes += [f"not in the checkpoint, used only where training masks its input: {name}" for name in sorted(optional)]
    return sorted(new), notes


def _lost(lost: dict[str, Any], is_head: bool, architecture: str, folder: Path) -> ModelError:
    missing = [name for name, shapes in lost.items() if shapes is None]
    if is_head and len(missing) == len(lost):
        what = f"the checkpoint has no head for {architecture}: {_listed(missing)}"
        remedy = "choose a checkpoint that was trained with this head"
        return ModelError("MODEL-BROKEN", what, where=str(folder), remedy=remedy)
    misshapen = [f"{n} is {list(s[0])} instead of {list(s[1])}" for n, s in lost.items() if s is not None]
    parts = [f"tensors are missing: {_listed(missing)}"] if missing else []
    return _broken("; ".join(parts + misshapen[:5]), folder)


def _strange(names: list[str], groups: LayerGroups) -> list[str]:
    """Superfluous tensors that no other head explains: they lie in a layer, or have an unheard-of name.

    A tensor of layer 7 in a model that its configuration gives 6 layers would otherwise be dropped without a word.
    """
    paths = [path for row in groups.describe()[1 : 1 + groups.n_groups] for path in row.modules]
    lists = {path.rpartition(".")[0] for path in paths if path.rpartition(".")[2].isdigit()}
    # A checkpoint of the bare backbone has names without the backbone's own.
    inside = tuple({f"{path}." for path in lists} | {f"{path.partition('.')[2]}." for path in lists if "." in path})
    return [n for n in names if n.startswith(inside) or not any(_OTHER_PARTS.fullmatch(part) for part in n.split("."))]


def _check_finite(model: Any, folder: Path) -> None:
    wrong: list[str] = []
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and (count := int((~torch.isfinite(tensor)).sum())):
            wrong.append(f"{name} ({count} of {math.prod(tensor.shape)})")
    if wrong:
        raise _broken(f"weights are not finite: {_listed(wrong)}", folder)


# messages --------------------------------------------------------------------------------------------------------

_AGAIN = "download or save the model again"


def _broken(what: str, where: Path) -> ModelError:
    return ModelError("MODEL-BROKEN", what, where=str(where), remedy=_AGAIN)


def _listed(names: Any, most: int = 5) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


class _NoLoadReport(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars over local files and its table of tensors, which `_check_tensors` judges instead."""
    logger, report = logging.getLogger("transformers.modeling_utils"), _NoLoadReport()
    had_bars = transformers.utils.logging.is_progress_bar_enabled()
    logger.addFilter(report)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(report)
        if had_bars:
            transformers.utils.logging.enable_progress_bar()
