"""text2text-generation: a text in, another text out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from unfreeze.baselines import Baseline
from unfreeze.tasks._generation import WritingTask
from unfreeze.tasks.base import Material

if TYPE_CHECKING:
    from unfreeze.data.table import Table


@dataclass
class Text2TextGeneration(WritingTask):
    """Translating, correcting, rephrasing, answering: any text from another.

    Options: see `WritingTask`.
    """

    name: ClassVar[str] = "text2text-generation"
    compares_with: ClassVar[tuple[str, ...]] = ("copy",)
    input_names: ClassVar[tuple[str, ...]] = (
        "input",
        "inputs",
        "source",
        "src",
        "question",
        "prompt",
        "text",
        "sentence",
    )
    output_names: ClassVar[tuple[str, ...]] = (
        "target",
        "targets",
        "output",
        "outputs",
        "tgt",
        "answer",
        "response",
        "label",
    )

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        """Only by names that mean nothing else: answers and labels may be classes."""
        by_name = {name.casefold(): name for name in table.columns}
        read = next((by_name[name] for name in ("input", "inputs", "source", "src") if name in by_name), None)
        written = next((by_name[n] for n in ("target", "targets", "output", "outputs", "tgt") if n in by_name), None)
        if read is None or written is None or {"label", "labels", "instruction"} & by_name.keys():
            return None
        texts = [value for value in table.column(written)[:1000] if isinstance(value, str) and value.strip()]
        # Few different ones that come again and again are classes.
        if not texts or len(set(texts)) <= 0.5 * len(texts) or not any(" " in text.strip() for text in texts):
            return None
        return f"'{read}' and '{written}' are a text and another to write"

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        def copied() -> Baseline:
            started = time.perf_counter()
            texts = list(self.texts_read(material.test))
            return Baseline("copy", "the text as it was read", texts, time.perf_counter() - started)

        return {"copy": copied}

    def sample_rows(self) -> list[dict[str, Any]]:
        return [
            {"input": "The train leaves every hour.", "target": "the hour"},
            {"input": "She opened the window.", "target": "the window"},
            {"input": "It stops at the old harbour.", "target": "the old harbour"},
            {"input": "Rain.", "target": "rain"},
        ]
