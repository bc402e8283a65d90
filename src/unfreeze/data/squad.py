"""SQuAD's files: one JSON object of articles, their paragraphs, the questions on each, and the answers.

Rows are the questions, as the Hub has them: ``id``, ``title``, ``context``, ``question`` and ``answers``, here a list
of texts, with ``answer_start``, where each begins in the context. A question without an answer has empty lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unfreeze.data.table import Table, TableBuilder
from unfreeze.errors import DataError


def is_squad(value: Any) -> bool:
    """Whether a parsed file is one: an object whose ``data`` are articles."""
    articles = value.get("data") if isinstance(value, Mapping) else None
    return (
        isinstance(articles, list)
        and bool(articles)
        and isinstance(articles[0], Mapping)
        and "paragraphs" in articles[0]
    )


def rows_of(value: Mapping[str, Any], name: str) -> Table:
    """One row a question; its place is its number in the file, and its id.

    Raises:
        DataError: E-DATA-ROW for a part that is not as SQuAD has it; E-DATA-EMPTY without questions.
    """
    builder = TableBuilder(name)
    number = 0
    for a, article in enumerate(value["data"], 1):
        for p, paragraph in enumerate(_part(article, "paragraphs", list, f"{name}, article {a}"), 1):
            where = f"{name}, article {a}, paragraph {p}"
            context = _part(paragraph, "context", str, where)
            for question in _part(paragraph, "qas", list, where):
                number += 1
                asked = _part(question, "question", str, where)
                answers = _part(question, "answers", list, where) if "answers" in question else []
                texts = [_part(answer, "text", str, where) for answer in answers]
                starts = [_part(answer, "answer_start", int, where) for answer in answers]
                builder.add(
                    {
                        "id": str(question.get("id", number)),
                        "title": str(article.get("title", "")),
                        "context": context,
                        "question": asked,
                        "answers": [] if question.get("is_impossible") else texts,
                        "answer_start": [] if question.get("is_impossible") else starts,
                    },
                    number,
                )
    return builder.finish()


def _part(value: Any, key: str, kind: type, where: str) -> Any:
    found = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(found, kind):
        raise DataError("DATA-ROW", f"there is no {key!r} as SQuAD has it", where=where)
    return found
