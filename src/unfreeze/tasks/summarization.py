"""summarization: what a long text says, in a few sentences."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from unfreeze.baselines import Baseline
from unfreeze.tasks._generation import WritingTask
from unfreeze.tasks.base import Material

if TYPE_CHECKING:
    from unfreeze.data.table import Table

SENTENCES = 3
# A full stop, exclamation or question mark, quotes included; in Chinese and Japanese no space follows.
_END_OF_SENTENCE = re.compile(r"[.!?][\"'”’)]*(?=\s|$)|[。！？][”’」』)]*|(?<=[^.!?。！？\s])(?=\s*\n)")


@dataclass
class Summarization(WritingTask):
    """Articles, reports, conversations, shortened; set beside the first three sentences or turns, hard to beat.

    Options: see `WritingTask`.
    """

    name: ClassVar[str] = "summarization"
    compares_with: ClassVar[tuple[str, ...]] = ("lead-3",)
    input_names: ClassVar[tuple[str, ...]] = (
        *("dialogue", "conversation", "article", "document", "report", "text", "body", "content", "story", "input"),
        *("source", "maintext"),
    )
    output_names: ClassVar[tuple[str, ...]] = (
        *("summary", "summaries", "highlights", "abstract", "tldr", "headline", "title", "target", "output"),
    )

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        names = {name.casefold() for name in table.columns}
        read = next((name for name in cls.input_names[:5] if name in names), None)
        written = next((name for name in ("summary", "highlights") if name in names), None)
        if read is None or written is None or names & {"label", "labels"}:
            return None
        return f"'{read}' and '{written}' are a text and its summary"

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        def lead() -> Baseline:
            started = time.perf_counter()
            texts = [first_sentences(text) for text in self.texts_read(material.test)]
            return Baseline("lead-3", "the first three sentences or turns", texts, time.perf_counter() - started)

        return {"lead-3": lead}

    def sample_rows(self) -> list[dict[str, Any]]:
        talk = "A: The train leaves every hour.\nB: And it stops at the harbour?\nA: Yes."
        return [
            {"dialogue": talk, "summary": ["the train"]},
            {"dialogue": "She opened the window. The kitchen smelled.", "summary": ["the kitchen smelled"]},
            {"dialogue": "A: Rain again.\nB: Not worth the wait.", "summary": ["rain", "rain again"]},
            {"dialogue": "It broke on the second day. Nobody answers.", "summary": ["it broke"]},
        ]


def first_sentences(text: str, count: int = SENTENCES) -> str:
    """The first sentences of a text, or turns of a conversation.

    >>> first_sentences("One. Two! Three? Four.")
    'One. Two! Three?'
    """
    text = text.strip()
    ends = [match.end() for match in _END_OF_SENTENCE.finditer(text)]
    return text[: ends[count - 1]] if len(ends) >= count else text
