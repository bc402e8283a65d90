"""A tiny random text model and small files, so that whole commands run in a second; tests load this file by its path.

`plant` makes the names ``builtin:text`` and ``bert-base-uncased`` mean that model, through nothing but the places where
they are looked for: the folder of builtin models, and a Hugging Face cache.
"""

import csv
import shutil
from importlib import resources
from pathlib import Path

import torch
import transformers

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-£"


def write_tiny_model(folder, *, layers=2, width=16, positions=64, seed=0):
    """Write a BERT that spells words out letter by letter, in Hugging Face layout."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{c}" for c in _LETTERS)]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(vocab=str(vocabulary), model_max_length=positions)
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=positions,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reviews(path, rows=24):
    """The first of the packaged reviews, as a file of the user's own."""
    source = resources.files("unfreeze") / "samples" / "reviews.csv"
    with source.open(encoding="utf-8", newline="") as handle:
        chosen = [row for row, _ in zip(csv.reader(handle), range(rows + 1))]
    with open(path, "w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows(chosen)
    return Path(path)
