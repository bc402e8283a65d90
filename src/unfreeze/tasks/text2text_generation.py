"""text2text-generation: a text in, another text out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from unfreeze.baselines import Baseline
from unfreeze.tasks._generation import WritingTask
from unfreeze.tasks.base import Material


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
