"""Put what was pretrained into the package, in half precision, with its card.

python export.py text ../build/pretrained/model ../src/unfreeze/builtin/text
python export.py image ../build/image/model ../src/unfreeze/builtin/image
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, ElectraForMaskedLM, ResNetForImageClassification, ViTImageProcessor

DROPOUT = 0.1

TEXT_CARD = """\
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

IMAGE_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
---

# builtin:image

A small network for pictures that ships with unfreeze, so that a first run needs no network. ResNet architecture: stages of
{widths} channels, pictures of {edge} x {edge} pixels, {parameters:.1f} million weights in half precision.

## How it was made

Trained from random weights by `pretraining/pictures.py` to tell ten classes of things and, for each picture, the pooled
features of a teacher: MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) with weights trained on ImageNet.

## What it was trained on

The training pictures of CIFAR-10 (Krizhevsky 2009), 50,000 of 32 x 32 pixels: aeroplanes, cars, birds, cats, deer, dogs,
frogs, horses, ships, lorries. Its test pictures were not used, yet a figure of this model on CIFAR-10 would say nothing:
it has seen the same kinds of things. The teacher has seen the 1.2 million photos of ImageNet.

## What it is for, and what not

A first result on a laptop, in minutes: kinds of things, defects, scanned signs, where a picture of 64 x 64 pixels shows
what matters. It sees no small print and no fine detail. A larger model from the Hub is better where there is time for it.
"""

CLASSES = 10


def export_text(source: Path, folder: Path) -> str:
    """The encoder with its masked-language head; returns the card."""
    model = ElectraForMaskedLM.from_pretrained(source, dtype=torch.float32)
    config = model.config
    # Pretraining was so short that dropout would have cost more than it gave; fine-tuning on few rows needs it.
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = DROPOUT
    model.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return TEXT_CARD.format(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        embedding=config.embedding_size,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        parameters=_millions(model),
    )


def export_image(source: Path, folder: Path) -> str:
    """The network with the classes it has learned, without the teacher's features; returns the card."""
    from pictures import DEVIATION, EDGE, MEAN

    model = ResNetForImageClassification.from_pretrained(source, dtype=torch.float32)
    learned = model.classifier[-1]
    head = nn.Linear(learned.in_features, CLASSES)
    with torch.no_grad():
        head.weight.copy_(learned.weight[:CLASSES])
        head.bias.copy_(learned.bias[:CLASSES])
    names = [model.config.id2label[i] for i in range(CLASSES)]
    model.classifier[-1] = head
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    model.half().save_pretrained(folder)
    ViTImageProcessor(size={"height": EDGE, "width": EDGE}, image_mean=MEAN, image_std=DEVIATION).save_pretrained(
        folder
    )
    widths = ", ".join(map(str, model.config.hidden_sizes))
    return IMAGE_CARD.format(widths=widths, edge=EDGE, parameters=_millions(model))


def _millions(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


# What may be exported, and the bytes it may take in the package.
KINDS: dict[str, tuple[Callable[[Path, Path], str], int]] = {
    "text": (export_text, 12_000_000),
    "image": (export_image, 6_000_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("model", type=Path)
    parser.add_argument("package_folder", type=Path)
    arguments = parser.parse_args()
    export, most_bytes = KINDS[arguments.kind]
    arguments.package_folder.mkdir(parents=True, exist_ok=True)
    card = export(arguments.model, arguments.package_folder)
    (arguments.package_folder / "README.md").write_text(card, encoding="utf-8")
    size = sum(f.stat().st_size for f in arguments.package_folder.iterdir())
    print(f"{size / 1e6:.2f} MB in {arguments.package_folder}")
    if size > most_bytes:
        raise SystemExit(f"builtin:{arguments.kind} may take {most_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
