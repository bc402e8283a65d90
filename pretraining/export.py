"""Put a finished pretraining run into the package as builtin:text, in half precision, with its card.

python pretraining/export.py build/pretrained/model src/unfreeze/builtin/text
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, ElectraForMaskedLM

LARGEST_BYTES = 12_000_000
DROPOUT = 0.1

CARD = """\
---
language: en
license: apache-2.0
library_name: transformers
pipeline_tag: fill-mask
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# builtin:text

A small English text encoder that ships with unfreeze, so that a first run needs no network. ELECTRA architecture with a
masked-language head: {layers} layers, {width} wide, embeddings {embedding} wide, {vocabulary:,} word pieces, inputs of up to
{positions} tokens, {parameters:.1f} million weights in half precision.

## How it was made

Distilled by unfreeze's own engine (`pretraining/`) from
[all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) (Apache-2.0): embeddings start as the best
rank-{embedding} approximation of the teacher's, the layers as copies of two of its six, the vocabulary is the part of the
teacher's that the corpus uses most. It was then trained to predict masked tokens and, at every token, the teacher's last
hidden state.

## What it was trained on

General English, about 55 million characters: film reviews (training split of the IMDB set), news on science and rural life
(ABC), the MASC corpus, problem reports, pros and cons of products, subjective and objective sentences, web text, State of
the Union and inaugural addresses, Reddit comments (training split of GoEmotions), Wikipedia paragraphs. No test split of
any data set, no biomedical text. The teacher was trained by its authors on about a billion sentence pairs.

## What it is for, and what not

Sentiment, topics, intents in English on a laptop. A larger model from the Hub is better where there is time for it. It
knows no language but English, and it has the views and the gaps of its sources: films, forums, speeches.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("package_folder", type=Path)
    arguments = parser.parse_args()
    model = ElectraForMaskedLM.from_pretrained(arguments.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    config = model.config
    # Pretraining was so short that dropout would have cost more than it gave; fine-tuning on few rows needs it.
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = DROPOUT
    arguments.package_folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(arguments.package_folder)
    tokenizer.save_pretrained(arguments.package_folder)
    card = CARD.format(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        embedding=config.embedding_size,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
    )
    (arguments.package_folder / "README.md").write_text(card, encoding="utf-8")
    size = sum(f.stat().st_size for f in arguments.package_folder.iterdir())
    print(f"{size / 1e6:.2f} MB in {arguments.package_folder}")
    if size > LARGEST_BYTES:
        raise SystemExit(f"builtin:text may take {LARGEST_BYTES / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
