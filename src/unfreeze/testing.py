"""Checks for tasks and models of your own, and tiny models to run them on.

A task that passes `check_task` keeps the promises that engine, evaluation and serving rely on; ours all pass it, and a
task in a file of yours can be tested the same way.

Example:
    >>> from unfreeze.tasks.text_classification import TextClassification
    >>> check_task(TextClassification)[0]  # doctest: +SKIP
    'encode is deterministic'
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unfreeze import durable, tasks
from unfreeze.activations.record import Refused, find_boundary, inputs_like, record
from unfreeze.activations.record import check as check_recording
from unfreeze.activations.replay import Replay
from unfreeze.activations.rows import RecordedRows, Rows
from unfreeze.data.sources import read
from unfreeze.errors import DataError, RecipeError, TaskError
from unfreeze.evaluation import evaluate_rows
from unfreeze.machine import find_machine
from unfreeze.models.layers import HEAD, LayerGroups, modes_kept
from unfreeze.models.loading import quiet
from unfreeze.plan import make as make_plan
from unfreeze.preparation import Prepared, prepare
from unfreeze.randomness import generator, seeded
from unfreeze.recipe import Recipe
from unfreeze.serving import predictor
from unfreeze.serving.predictor import Predictor
from unfreeze.tasks.base import Task
from unfreeze.types import Batch, Example, LossOutput, Prediction, Row

Architecture = Literal["bert", "roberta", "electra", "distilbert", "modernbert", "llama", "gpt2"]
ImageArchitecture = Literal["vit", "resnet", "segformer"]
AudioArchitecture = Literal["wav2vec2", "whisper"]
WritingArchitecture = Literal["t5", "bart"]
DECODERS = ("llama", "gpt2")
TEXTS = (
    "Works as promised. It broke on the second day, and nobody answers the phone.",
    "The best soup I have had this winter, and the staff remembered us. Not worth the wait.",
    "The train to the coast leaves every hour and stops at the old harbour.",
    "She opened the window because the kitchen smelled of burnt sugar. Rain.",
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Relative to the values compared; float32 sums over other orders differ by less.
TOLERANCE = 1e-5


# tiny models -----------------------------------------------------------------------------------------------------


def tiny_model(
    folder: str | Path,
    architecture: Architecture = "bert",
    *,
    texts: Sequence[str] = TEXTS,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a random model of a few thousand weights, with a tokenizer that works, in Hugging Face layout.

    Encoders carry their head for masked language modelling, decoders theirs for the next token.

    Args:
        folder: Is made; a model that is there is replaced.
        architecture: Decoders have a padding token apart from their end-of-text token.
        texts: Their words become tokens of their own; other words of their letters are spelled.
        seed: Of the weights.
        **changes: Of the configuration, such as ``num_hidden_layers=4`` or ``hidden_dropout_prob=0.0``.

    Returns:
        The folder.
    """
    import transformers

    path = Path(folder)
    vocabulary = _vocabulary(texts)
    is_decoder = architecture in DECODERS
    tokenizer = _tokenizer(vocabulary, architecture)
    config = transformers.AutoConfig.for_model(architecture, **{**_sizes(architecture, len(vocabulary)), **changes})
    auto_class = transformers.AutoModelForCausalLM if is_decoder else transformers.AutoModelForMaskedLM
    with seeded(seed, "tiny model"), quiet():
        model = auto_class.from_config(config)
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tiny_writing_model(
    folder: str | Path,
    architecture: WritingArchitecture = "t5",
    *,
    texts: Sequence[str] = TEXTS,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a random encoder-decoder of a few thousand weights, with a tokenizer that works, in Hugging Face layout.

    Args:
        folder: Is made; a model that is there is replaced.
        architecture: With relative places and a tied output layer (T5), or with a table of places (BART).
        texts: Their words become tokens of their own; other words of their letters are spelled.
        seed: Of the weights.
        **changes: Of the configuration.

    Returns:
        The folder.
    """
    import transformers

    path = Path(folder)
    vocabulary = _vocabulary(texts)
    common = {"vocab_size": len(vocabulary), "pad_token_id": 0, "d_model": 32, "bos_token_id": 2, "eos_token_id": 3}
    sizes: dict[str, dict[str, Any]] = {
        "t5": {"d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
        "bart": {
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 3,
            "forced_eos_token_id": 3,
            "init_std": 0.1,
        },
    }
    config = transformers.AutoConfig.for_model(architecture, **{**common, **sizes[architecture], **changes})
    with seeded(seed, "tiny writing model"), quiet():
        transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(path)
    _tokenizer(vocabulary, architecture).save_pretrained(path)
    return path


def tiny_image_model(
    folder: str | Path, architecture: ImageArchitecture = "vit", *, pixels: int = 32, seed: int = 0, **changes: Any
) -> Path:
    """Write a random image classifier of a few thousand weights, with its image processor, in Hugging Face layout.

    Args:
        folder: Is made; a model that is there is replaced.
        architecture: A transformer, a convolutional network, or a transformer made for masks.
        pixels: Width and height of what it reads.
        seed: Of the weights.
        **changes: Of the configuration.

    Returns:
        The folder.
    """
    import transformers

    sizes: dict[str, dict[str, Any]] = {
        "vit": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "image_size": pixels,
            "patch_size": 8,
            "initializer_range": 0.1,
        },
        "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "segformer": {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "hidden_sizes": [8, 16],
            "num_attention_heads": [1, 2],
            "sr_ratios": [2, 1],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 16,
            "classifier_dropout_prob": 0.0,
            "drop_path_rate": 0.0,
            "initializer_range": 0.1,
        },
    }
    path = Path(folder)
    config = transformers.AutoConfig.for_model(architecture, **{**sizes[architecture], **changes})
    with seeded(seed, "tiny image model"), quiet():
        transformers.AutoModelForImageClassification.from_config(config).save_pretrained(path)
        kind = (
            transformers.SegformerImageProcessorPil
            if architecture == "segformer"
            else transformers.ViTImageProcessorPil
        )
        kind(size={"height": pixels, "width": pixels}).save_pretrained(path)
    return path


def tiny_audio_model(
    folder: str | Path, architecture: AudioArchitecture = "wav2vec2", *, seed: int = 0, **changes: Any
) -> Path:
    """Write a random classifier of sound, with its feature extractor (16 kHz), in Hugging Face layout.

    Args:
        folder: Is made; a model that is there is replaced.
        architecture: One that reads samples, or one that reads a spectrogram.
        seed: Of the weights.
        **changes: Of the configuration.

    Returns:
        The folder.
    """
    import transformers

    sizes: dict[str, dict[str, Any]] = {
        "wav2vec2": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "conv_dim": (16, 16, 16),
            "conv_kernel": (10, 8, 4),
            "conv_stride": (10, 8, 4),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "classifier_proj_size": 16,
            "layerdrop": 0.0,
            "initializer_range": 0.1,
        },
        "whisper": {
            **_WHISPER,
            "decoder_layers": 1,
            "max_source_positions": 50,
            "classifier_proj_size": 16,
            "vocab_size": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    }
    extractors = {
        "wav2vec2": lambda: transformers.Wav2Vec2FeatureExtractor(),
        "whisper": lambda: transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1),
    }
    path = Path(folder)
    config = transformers.AutoConfig.for_model(architecture, **{**sizes[architecture], **changes})
    with seeded(seed, "tiny audio model"), quiet():
        transformers.AutoModelForAudioClassification.from_config(config).save_pretrained(path)
        extractors[architecture]().save_pretrained(path)
    return path


_WHISPER: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 16,
    "init_std": 0.1,
}


def tiny_dictation_model(
    folder: str | Path, *, seconds: int = 2, languages: Sequence[str] = (), seed: int = 0, **changes: Any
) -> Path:
    """Write a random Whisper that writes letter by letter, with tokenizer and feature extractor (16 kHz).

    Args:
        folder: Is made; a model that is there is replaced.
        seconds: That it hears.
        languages: That it can be told, as ``en``; none: it knows one.
        seed: Of the weights.
        **changes: Of the configuration.

    Returns:
        The folder.
    """
    import transformers
    from tokenizers import pre_tokenizers

    signs = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{language}|>" for language in languages),
        "<|translate|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = {token: number for number, token in enumerate([*letters, *signs])}
    tokenizer = transformers.WhisperTokenizer(vocab=known, merges=[], additional_special_tokens=signs[1:])
    end = known[signs[0]]
    sizes = {
        **_WHISPER,
        "decoder_layers": 2,
        "max_source_positions": 50 * seconds,
        "max_target_positions": 64,
        "vocab_size": len(known),
        "decoder_start_token_id": known[signs[1]],
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), end),
    }
    path = Path(folder)
    config = transformers.WhisperConfig(**{**sizes, **changes})
    with seeded(seed, "tiny dictation model"), quiet():
        model = transformers.WhisperForConditionalGeneration(config)
        settings: Any = model.generation_config
        settings.no_timestamps_token_id = known["<|notimestamps|>"]
        settings.is_multilingual = bool(languages)
        settings._from_model_config = False  # or what a configuration does not have is forgotten
        if languages:
            settings.lang_to_id = {f"<|{language}|>": known[f"<|{language}|>"] for language in languages}
            settings.task_to_id = {task: known[f"<|{task}|>"] for task in ("translate", "transcribe")}
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=seconds).save_pretrained(path)
    return path


def _vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """Special tokens, letters, letters inside words, whole words: token to id."""
    from tokenizers import normalizers, pre_tokenizers

    normalise, split = normalizers.BertNormalizer().normalize_str, pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = sorted({word for text in texts for word, _ in split(normalise(text))})
    letters = sorted({letter for word in words for letter in word})
    tokens = dict.fromkeys([*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words])
    return {token: number for number, token in enumerate(tokens)}


def _tokenizer(vocabulary: dict[str, int], architecture: Architecture | WritingArchitecture) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if architecture in DECODERS:
        named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]", "bos_token": "[CLS]"}
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **named
        )
    has_types = architecture in ("bert", "electra")
    second = ":1" if has_types else ""
    backend.post_processor = processors.TemplateProcessing(
        single="$A [SEP]" if architecture == "t5" else "[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B{second} [SEP]{second}",
        special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if has_types else ["input_ids", "attention_mask"]
    named = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **named)


def _sizes(architecture: Architecture, vocabulary: int) -> dict[str, Any]:
    """Two layers, two attention heads, 32 wide, 64 tokens long, in each family's own words."""
    common = {"vocab_size": vocabulary, "pad_token_id": 0, "initializer_range": 0.1}
    usual = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    own: dict[str, dict[str, Any]] = {
        "bert": usual,
        "roberta": {**usual, "max_position_embeddings": 65, "type_vocab_size": 1},
        "electra": {**usual, "embedding_size": 16},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 64},
        "modernbert": {
            **usual,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "local_attention": 16,
        },
        "llama": {**usual, "num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 2, "eos_token_id": 3},
    }
    return {**common, **own[architecture]}


def check_layer_groups(model: torch.nn.Module, inputs: Mapping[str, Any] | None = None) -> None:
    """Assert that a model's layers are found right; see `LayerGroups.check`.

    Args:
        model: On any device; on ``meta`` without `inputs`.
        inputs: Arguments of its forward; with them the model is run.

    Raises:
        AssertionError: With what is wrong.
    """
    LayerGroups.of(model).check(model, inputs)


# the contract of a task ------------------------------------------------------------------------------------------


@dataclass
class TaskCase:
    """A task bound to a few rows and a tiny model: what every check looks at.

    Attributes:
        task: Bound.
        rows: As read.
        examples: Of all rows, in order.
        model: In eval mode, so that dropout is off.
        prepared: What the plan would see.
    """

    task: Task
    rows: list[Row]
    examples: list[Example]
    model: Any
    prepared: Prepared

    @classmethod
    def of(
        cls, task_class: type[Task], rows: Sequence[Mapping[str, Any]], model: Path, recipe: Mapping[str, Any]
    ) -> TaskCase:
        """Prepare rows and model as a run would."""
        prepared = prepare(_recipe(task_class, model, recipe), [dict(row) for row in rows])
        with seeded(0, "new head"):
            loaded = prepared.task.build(prepared.source, prepared.config)
        return cls(prepared.task, list(prepared.train), prepared.train_examples, loaded.model.eval(), prepared)

    @property
    def batch(self) -> Batch:
        return self.task.collate(self.examples)

    def loss(self, examples: Sequence[Example]) -> LossOutput:
        return self.task.loss(self.model, self.task.collate(examples))

    def loss_sums(self, examples: Sequence[Example]) -> dict[str, float]:
        """Every term's sum and every normaliser of one batch."""
        with torch.inference_mode():
            terms = self.loss(examples).terms
        known = self.task.collate(examples).weights
        for name, term in terms.items():
            assert term.per in known, f"Batch.weights has no '{term.per}', by which the term '{name}' is divided"
        sums = {f"the sum of '{name}'": float(term.sum) for name, term in terms.items()}
        weights = self.task.collate(examples).weights
        return {**sums, **{f"the weight '{name}'": float(weight) for name, weight in weights.items()}}

    def predictions(self, examples: Sequence[Example]) -> list[Prediction]:
        batch = self.task.collate(examples)
        with torch.inference_mode():
            return self.task.decode(self.task.answer(self.model, batch), batch)


def check_task(
    task_class: type[Task],
    rows: Sequence[Mapping[str, Any]] | None = None,
    model: str | Path | None = None,
    *,
    recipe: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Run the task contract on a tiny random model.

    Args:
        task_class: A subclass of `Task` at the top level of an importable module.
        rows: Four or so labelled rows; default: the task's `sample_rows`. The first must not be the only one of its
            class.
        model: A folder; default: a tiny BERT that knows the words of the rows, a tiny T5 for tasks that write
            (a Llama where only the loss is measured); a tiny
            ViT for pictures (a Segformer for masks), a tiny wav2vec 2.0 for sound.
        recipe: Further recipe keys: ``{"data.label": ["toxic", "rude"], "options.label_smoothing": 0.1}``.

    Returns:
        The names of the checks that were run. Tasks whose rows depend on each other (`Task.couples_rows`) are exempt
        from those that split a batch, tasks that do not decode labels from those that know the right answer.

    Raises:
        AssertionError: Naming the check, with what is wrong.
        TaskError: E-TASK, the class leaves out what every task has to say.
    """
    tasks.check_is_whole(task_class)
    given = list(rows) if rows is not None else task_class().sample_rows()
    assert len(given) > 1, "the contract needs at least two rows"
    with tempfile.TemporaryDirectory() as scratch:
        if model is None:
            model = _tiny_for(task_class, given, Path(scratch) / "tiny")
        case = TaskCase.of(task_class, given, Path(model), recipe or {})
        names = []
        for check in CHECKS:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            try:
                was_run = check(copy.copy(case))
            except AssertionError as error:
                raise AssertionError(f"{task_class.__name__}, {name}: {error}") from error
            if was_run is not False:
                names.append(name)
    return tuple(names)


def _tiny_for(task_class: type[Task], rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    if task_class.modality == "image":
        return tiny_image_model(folder, "segformer" if task_class.name == "image-segmentation" else "vit")
    if task_class.modality == "audio":
        return tiny_audio_model(folder)
    texts = [*TEXTS, *(str(value) for row in rows for value in row.values())]
    if task_class.generates and task_class.measures_answers:
        return tiny_writing_model(folder, texts=texts)
    return tiny_model(folder, "llama" if task_class.generates else "bert", texts=texts)


def _recipe(task_class: type[Task], model: str | Path, recipe: Mapping[str, Any]) -> Recipe:
    return Recipe.build({"task": _task_name(task_class), "model": str(model), "data.validation": 0.0, **recipe})


def _task_name(task_class: type[Task]) -> str:
    """The name that a recipe and a stored model find the class by."""
    if task_class.name in tasks.names() and tasks.find(task_class.name) is task_class:
        return task_class.name
    assert "<locals>" not in task_class.__qualname__, "a stored model cannot find a class inside a function"
    return f"{task_class.__module__}:{task_class.__qualname__}"


# Each check returns False where it does not apply to the task.


def check_encode_is_deterministic(case: TaskCase) -> bool | None:
    """Encoding is a function of the row; augmentation one of the generator."""
    for row in case.rows:
        once, again = (case.task.encode(row, train=True) for _ in range(2))
        assert _are_same_examples(once, again), f"{row.place} was encoded differently the second time"
        numbers = [(e.row, e.part) for e in once]
        wanted = [(row.index, part) for part in range(len(once))]
        assert numbers == wanted, f"the parts of {row.place} are numbered {numbers}"
    for example in case.examples:
        drawn = [case.task.augment(copy.deepcopy(example), generator(0, "contract", example.row)) for _ in range(2)]
        assert _are_same_examples(drawn[:1], drawn[1:]), "augment draws from something else than its generator"
    return None


def check_a_batch_is_the_sum_of_its_parts(case: TaskCase) -> bool | None:
    """The loss and its normalisers of a batch are the sums over any split of it."""
    if case.task.couples_rows:
        return False
    whole = case.loss_sums(case.examples)
    draw, count = generator(0, "contract splits"), len(case.examples)
    splits = [list(range(count)), [0], *(sorted(draw.choice(count, 2, replace=False)) for _ in range(2))]
    for cuts in splits:
        parts = [part.tolist() for part in np.split(np.arange(count), [c + 1 for c in cuts]) if len(part)]
        sums = [case.loss_sums([case.examples[i] for i in part]) for part in parts]
        for name, value in whole.items():
            total = sum(s.get(name, 0.0) for s in sums)
            assert _is_near(total, value), f"{name} is {value} for the batch and {total} over the parts {parts}"
    return None


def check_padding_and_order_change_nothing(case: TaskCase) -> bool | None:
    """An answer does not depend on the batch's other rows, nor the loss on their order."""
    draw = generator(0, "contract order")
    order = draw.permutation(len(case.examples))
    shuffled = case.loss_sums([case.examples[i] for i in order])
    for name, value in case.loss_sums(case.examples).items():
        assert _is_near(shuffled[name], value), f"{name} is {value}, and {shuffled[name]} in another order"
    if case.task.couples_rows:
        return None
    together = case.predictions(case.examples)
    for i, example in enumerate(case.examples):
        [alone] = case.predictions([example])
        difference = _difference(together[i], alone)
        assert not difference, f"row {example.row} is answered differently in a batch of its own: {difference}"
    return None


def check_the_skeleton_is_the_model_in_float32(case: TaskCase) -> bool | None:
    """The model without weights, which the plan measures, has the layers of the real one, whatever its files hold."""
    config = copy.deepcopy(case.prepared.config)
    config.dtype = torch.float16
    with torch.device("meta"):
        skeleton = case.task.skeleton(config)
    shapes = {name: (tuple(p.shape), torch.float32) for name, p in case.model.named_parameters()}
    for name, parameter in skeleton.named_parameters():
        found = (tuple(parameter.shape), parameter.dtype)
        assert shapes.get(name) == found, f"weight {name} of the skeleton is {found}, of the model {shapes.get(name)}"
    assert len(list(skeleton.parameters())) == len(shapes), "the skeleton has fewer weights than the model"
    return None


def check_gradient_reaches_head_and_backbone(case: TaskCase) -> bool | None:
    """Every layer group with weights gets a gradient."""
    model = copy.deepcopy(case.model)
    model.requires_grad_(True)
    _total(case.task.loss(model, case.batch), case.batch.weights).backward()  # type: ignore[no-untyped-call]
    groups = LayerGroups.of(model)
    for group in groups.names:
        gradients = [p.grad for p in groups.parameters(group).values()]
        reached = not gradients or any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
        assert reached, f"no gradient reaches the {group}"
        assert all(g is None or bool(torch.isfinite(g).all()) for g in gradients), f"the {group}'s is not finite"
    return None


def check_gold_predictions_score_perfectly(case: TaskCase) -> bool | None:
    """Outputs that say exactly what the labels say are counted, decoded and compared as right."""
    if not case.task.decodes_labels:
        return False
    task: Any = case.task
    batch = case.batch
    outputs = _gold_outputs(task, batch)
    metric = task.metric()
    metric.update(outputs, batch)
    name, greater_is_better = task.selection
    value = metric.compute().get(name)
    perfect = 1.0 if greater_is_better else 0.0
    assert value is not None, f"the metric '{name}', which chooses the weights, is undefined"
    assert abs(value - perfect) <= TOLERANCE, f"'{name}' is {value} for perfect answers"
    assert float(np.max(task.surprise(outputs, batch))) <= TOLERANCE, "a perfect answer surprises"
    parts: dict[int, list[tuple[Prediction, Any]]] = {}
    for index, *part in zip(batch.rows, task.decode(outputs, batch), task.answers(outputs, batch), strict=True):
        parts.setdefault(int(index), []).append((part[0], part[1]))
    assert sorted(parts) == [row.index for row in case.rows], "answers are of other rows than were asked"
    for row in case.rows:
        [prediction] = task.merge([p for p, _ in parts[row.index]])
        answer = task.whole_answer([a for _, a in parts[row.index]])
        true = task.targets.target(row, task.roles.label)
        assert prediction.row == row.index, f"the answer for {row.place} says it is for row {prediction.row}"
        if task.targets.problem_type == "regression":
            wanted = true * task.targets.scale + task.targets.center
            assert _is_near(prediction.label, wanted), f"{row.place} is decoded as {prediction.label}, not {wanted}"
            continue
        assert not task.is_wrong(true, answer), f"the right answer for {row.place} counts as a mistake"
        named = task.targets.names(row, task.roles.label)
        same = set(named) == set(prediction.label) if isinstance(named, list) else named == prediction.label
        assert same, f"{row.place} is decoded as {prediction.label!r}, not {named!r}"
    return None


def check_one_batch_can_be_overfitted(case: TaskCase) -> bool | None:
    """Training on one batch again and again at least halves its loss."""
    model, batch = copy.deepcopy(case.model), case.batch
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    first = last = float(_total(case.task.loss(model, batch), batch.weights).detach())
    for _ in range(100):
        loss = _total(case.task.loss(model, batch), batch.weights)
        last = float(loss.detach())
        if last < 0.4 * first:
            return None
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    raise AssertionError(f"the loss only went from {first:.4g} to {last:.4g} in 100 steps on the same rows")


def check_save_and_load_predict_the_same(case: TaskCase) -> bool | None:
    """What is written is read back bit for bit, and answers the same."""
    case = _finished(case)
    with _stored(case) as again, torch.inference_mode():
        one, other = case.model.state_dict(), again.model.state_dict()
        changed = [name for name in one.keys() | other.keys() if not _is_equal(one.get(name), other.get(name))]
        assert not changed, f"weights that were read back differ: {', '.join(sorted(changed))}"
        before = case.task.predict(case.model, case.batch)
        after = again.task.predict(again.model, again.task.collate(_encoded(again.task, case.rows)))
        # Not bit for bit: a file's tensors may lie unaligned in memory, and then kernels add up in another order.
        assert _is_equal(before, after, TOLERANCE), "the model that was read back answers differently"
        assert again.task.stored() == case.task.stored(), "the bound state changes when it is written and read back"
    return None


def check_the_predictor_answers_as_evaluation(case: TaskCase) -> bool | None:
    """Answers in service are those that evaluation counts, and need no label."""
    if not case.task.measures_answers:
        return False
    counted: dict[int, list[Prediction]] = {}

    def observe(outputs: Any, batch: Batch) -> None:
        for prediction in case.task.decode(outputs, batch):
            counted.setdefault(prediction.row, []).append(prediction)

    evaluate_rows(case.task, case.model, case.rows, intervals=False, observe=observe)
    text = case.task.roles.text
    with _stored(_finished(case)) as again:
        served = again.predict([{column: row.values[column] for column in text} for row in case.rows])
    for row, prediction in zip((row.index for row in case.rows), served, strict=True):
        assert prediction.row == row, f"the answers do not come in the order of the rows: {prediction.row}, not {row}"
        [known] = case.task.merge(counted[row])
        difference = _difference(known, prediction)
        assert not difference, f"row {row} is served otherwise than evaluated: {difference}"
    return None


def check_learn_sees_training_rows_only(case: TaskCase) -> bool | None:
    """Validation rows change nothing that the task knows, nor does encoding any row."""
    rows = [dict(row.values) for row in case.rows]
    known = case.task.stored()
    for held_out in (rows[:1], rows[1:] * 3):
        validation = read(held_out).train
        for row in validation:
            case.task.collate(case.task.encode(row, train=True))
        assert case.task.stored() == known, "encoding a row changes what the task knows"
    learned = [_prepared_with(case, rows, held_out).task.stored() for held_out in (rows[:1], rows[1:] * 3)]
    assert learned[0] == learned[1] == known, "what the task learns depends on the validation rows"
    return None


def check_bad_rows_are_refused_with_their_place(case: TaskCase) -> bool | None:
    """A row without text, or without the label that training needs, is an error that says where it is."""
    good, place = case.rows[0], "made-up.csv:7"
    label = case.task.roles.label
    broken: dict[str, dict[str, Any]] = {f"no '{c}'": {**good.values, c: None} for c in case.task.roles.text}
    if case.task.needs_label and isinstance(label, str):
        broken["no label"] = {**good.values, label: None}
        targets = case.task.targets
        if getattr(targets, "labels", ()) or getattr(targets, "problem_type", None) == "regression":
            broken["an unknown label"] = {**good.values, label: "a label that no row has"}
    for what, values in broken.items():
        try:
            case.task.encode(Row(0, values, place), train=True)
        except (DataError, TaskError) as error:
            assert place in (error.where or ""), f"the error for a row with {what} does not say where: {error}"
        else:
            raise AssertionError(f"a row with {what} is accepted for training")
    return None


def check_a_plan_can_be_made_of_it(case: TaskCase) -> bool | None:
    """What the plan and the summary show of a task is there: its targets' words, and the metric it leads with."""
    targets = case.task.targets
    for name in ("labels", "problem_type", "reason", "to_json") if targets is not None else ():
        assert hasattr(targets, name), f"what the task has learned has no '{name}'; see `tasks.base.Targets`"
    make_plan(case.prepared, find_machine())
    found = evaluate_rows(case.task, case.model, case.rows).metrics
    leading = case.task.headline_metric
    assert leading in found, f"the metric '{leading}', which the summary leads with, is none of {', '.join(found)}"
    return None


def check_unknown_options_are_refused(case: TaskCase) -> bool | None:
    """An option that the task does not have is an error; those it has can be given back to it."""
    task_class = type(case.task)
    try:
        task_class.with_options({"no_such_option": 1})
    except RecipeError as error:
        assert "no_such_option" in str(error), "the error does not name the option"
    else:
        raise AssertionError("an option that does not exist is accepted")
    options = {f.name: getattr(case.task, f.name) for f in dataclasses.fields(case.task) if f.init}
    assert task_class.with_options(options).stored()["options"] == options, "the options cannot be given back"
    return None


def check_recorded_it_is_the_same_or_says_no(case: TaskCase) -> None:
    """Of rows whose frozen part was recorded at the head the loss is that of the whole model; or why not is known."""
    task, model, examples = case.task, case.model, case.examples
    groups = LayerGroups.of(model)
    with tempfile.TemporaryDirectory() as folder, modes_kept(model), torch.no_grad():
        model.eval()
        try:
            boundary = find_boundary(task, model, groups, HEAD, examples)
            checked = check_recording(task, model, groups, boundary, examples, "float32")
        except Refused:
            return
        [store] = record(
            task,
            model,
            [checked],
            examples,
            [Path(folder) / "recorded"],
            [{}],
            budget_bytes=1 << 30,
            budget_tokens=1024,
            reuse=(),
            say=lambda text: None,
        )
        replay = Replay(model, groups, checked.boundary, inputs_like(task, model, examples))
        rows = RecordedRows(Rows(task, examples), checked, store, replay)
        batch = task.collate(examples)
        whole = _total(task.loss(model, batch), batch.weights)
        with rows.open():
            again = rows.batch([rows.example(i) for i in range(len(examples))])
            replayed = _total(rows.loss(model, again), again.weights)
    assert again.weights == batch.weights, f"other normalisers: {again.weights}, {batch.weights}"
    assert _is_near(float(replayed), float(whole)), f"the loss of recorded rows is {replayed}, of the rows {whole}"


CHECKS: tuple[Callable[[TaskCase], bool | None], ...] = (
    check_encode_is_deterministic,
    check_a_batch_is_the_sum_of_its_parts,
    check_padding_and_order_change_nothing,
    check_the_skeleton_is_the_model_in_float32,
    check_gradient_reaches_head_and_backbone,
    check_gold_predictions_score_perfectly,
    check_one_batch_can_be_overfitted,
    check_save_and_load_predict_the_same,
    check_the_predictor_answers_as_evaluation,
    check_learn_sees_training_rows_only,
    check_bad_rows_are_refused_with_their_place,
    check_a_plan_can_be_made_of_it,
    check_unknown_options_are_refused,
    check_recorded_it_is_the_same_or_says_no,
)


# pieces ----------------------------------------------------------------------------------------------------------


def _finished(case: TaskCase) -> TaskCase:
    """A copy after `Task.finish`, as it is before a model is written."""
    task, model = copy.copy(case.task), copy.deepcopy(case.model)
    task.finish(model)
    return dataclasses.replace(case, task=task, model=model, examples=_encoded(task, case.rows))


@contextmanager
def _stored(case: TaskCase) -> Iterator[Predictor]:
    """The task and its model, written as a run writes them and read back."""
    name = _task_name(type(case.task))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        durable.publish(folder, functools.partial(_write, case, name))
        yield Predictor.load(folder, device="cpu")


def _write(case: TaskCase, name: str, staging: Path) -> None:
    predictor.save(staging, case.task, name, case.model, {})


def _prepared_with(case: TaskCase, rows: list[dict[str, Any]], validation: list[dict[str, Any]]) -> Prepared:
    """The same rows prepared with others to validate on, which only a file can name."""
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as scratch:
        for name, part in (("train", rows), ("validation", validation)):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), Path(scratch) / f"{name}.parquet")
        recipe = case.prepared.recipe
        data = recipe.data.model_copy(update={"source": scratch, "validation": None})
        return prepare(recipe.model_copy(update={"data": data}))


def _encoded(task: Task, rows: Sequence[Row]) -> list[Example]:
    return [example for row in rows for example in task.encode(row, train=True)]


def _total(output: LossOutput, weights: Mapping[str, float]) -> torch.Tensor:
    """The loss as the engine divides it."""
    return torch.stack([t.coefficient * t.sum / weights[t.per] for t in output.terms.values()]).sum()


def _gold_outputs(task: Any, batch: Batch) -> torch.Tensor:
    """Outputs as sure as can be of the labels, (batch, classes) or (batch, 1)."""
    targets, sure = batch.targets, 30.0
    if task.targets.problem_type == "regression":
        return targets.reshape(-1, 1).float()
    if task.targets.problem_type == "multi_label_classification":
        return (targets.float() * 2 - 1) * sure
    return torch.nn.functional.one_hot(targets, task.targets.width).float() * sure


def _is_near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= TOLERANCE * max(1.0, abs(wanted))


def _is_equal(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether tensors, or lists or dicts of them, are the same; with a tolerance, nearly."""
    if isinstance(one, torch.Tensor):
        is_tensor = isinstance(other, torch.Tensor) and one.shape == other.shape
        return is_tensor and bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_is_equal(one[k], other[k], tolerance) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_is_equal(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return bool(np.all(one == other))


def _are_same_examples(one: Sequence[Example], other: Sequence[Example]) -> bool:
    return len(one) == len(other) and all(
        a.inputs.keys() == b.inputs.keys()
        and all(np.array_equal(a.inputs[name], b.inputs[name]) for name in a.inputs)
        and np.array_equal(np.asarray(a.target), np.asarray(b.target))
        and (a.row, a.part, a.length, a.is_cut) == (b.row, b.part, b.length, b.is_cut)
        for a, b in zip(one, other, strict=True)
    )


def _difference(one: Prediction, other: Prediction) -> str:
    """How two answers for a row differ, empty where they do not."""
    if isinstance(one.label, float) and isinstance(other.label, float):
        return "" if _is_near(one.label, other.label) else f"{one.label} and {other.label}"
    if one.label != other.label:
        return f"{one.label!r} and {other.label!r}"
    numbers = [(one.probability, other.probability), *((one.scores[k], other.scores.get(k)) for k in one.scores)]
    for a, b in numbers:
        if (a is None) is not (b is None) or (a is not None and b is not None and not _is_near(a, b)):
            return f"probabilities {a} and {b}"
    return ""
