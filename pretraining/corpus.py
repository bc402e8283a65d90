"""Turn a corpus of one document a line into rows: ``python pretraining/corpus.py general.txt.xz build/corpus``."""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LONGEST_CHARACTERS = 4000


def pieces(line: str) -> list[str]:
    """A document in pieces at word borders, so that no row is huge."""
    found, start = [], 0
    while len(line) - start > LONGEST_CHARACTERS:
        end = line.rfind(" ", start, start + LONGEST_CHARACTERS)
        end = end if end > start else start + LONGEST_CHARACTERS
        found.append(line[start:end])
        start = end + 1
    return [*found, line[start:]]


def main(corpus: Path, folder: Path) -> None:
    """Write ``train.parquet`` and ``validation.parquet`` (one document in 200)."""
    parts: dict[str, list[str]] = {"train": [], "validation": []}
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if text := line.strip():
                parts["validation" if number % 200 == 0 else "train"].extend(pieces(text))
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in parts.items():
        pq.write_table(pa.table({"text": texts}), folder / f"{name}.parquet")
        print(f"{name}: {len(texts):,} rows, {sum(map(len, texts)):,} characters")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
