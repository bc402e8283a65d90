"""What tasks share that give each word of a row a tag: words and tokens, windows, spans, scores of whole rows."""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.data.columns import Roles, check_named, guess_roles, point_out_group
from unfreeze.errors import DataError, TaskError
from unfreeze.metrics import SpanState
from unfreeze.metrics.spans import spans_of
from unfreeze.tasks import _text
from unfreeze.tasks._parts import WholeRows
from unfreeze.tasks._tags import TagSpace, checked_list
from unfreeze.tasks._text import NOT_A_TARGET
from unfreeze.tasks.base import Task
from unfreeze.types import Batch, Example, Prediction, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

TOKEN_NAMES = ("tokens", "words", "token", "word", "text", "sentence")
TAG_NAMES = ("ner_tags", "tags", "slots", "ner", "labels", "label", "entities", "pos_tags", "pos")
INTENT_NAMES = ("intent", "intents")
# Metrics that mean nothing where tags name no spans.
OF_SPANS = ("overall_f1", "overall_precision", "overall_recall", "row_accuracy")
# Tokens a window shows on either side of the words that it answers for.
CONTEXT_TOKENS = 32


@dataclass(frozen=True)
class Words:
    """What an example knows of the words it answers for, all of them in order.

    Attributes:
        words: As they stand in the row.
        places: Position of each word's first token in the example.
        tags: Id of each word's tag; None without labels.
        left: Words of the row that come in later examples.
        parts: Examples of the row.
        offsets: First character of each word in the row's text, and the one behind it; empty where the row is a list.
    """

    words: tuple[str, ...]
    places: tuple[int, ...]
    tags: tuple[int, ...] | None
    left: int
    parts: int
    offsets: tuple[tuple[int, int], ...] = ()


@dataclass
class TagTargets:
    """Of a batch: tag ids, (batch, length), `NOT_A_TARGET` where no word begins; and the words of each example."""

    tags: torch.Tensor
    words: list[Words]

    def to(self, device: torch.device) -> TagTargets:
        return replace(self, tags=self.tags.to(device))


@dataclass
class TagsWords(Task):
    """Words, each with a tag, and a model that answers at every token.

    The first token of a word carries its tag (Devlin et al. 2019, BERT, section 5.3). A row beyond the limit is read in
    windows that overlap; each word is answered once, by the window that shows it with context on both sides. Plain text
    is split into words and punctuation.

    A task that builds on it says where its tags are (`space`, `_label`), and gives the loss, the metric and the rest.
    """

    splits_long_rows: ClassVar[bool] = True
    answers_every_token: ClassVar[bool] = True

    # what the columns are ----------------------------------------------------------------------------------------

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        named = {role: _one_column(table, asked, role) for role in ("text", "label", "group")}
        text, label = named["text"], named["label"]
        reasons = {}
        lists = [name for name in table.columns if table.is_list(name)]
        if text is None:
            text = _best([n for n in lists if n != label], TOKEN_NAMES)
            if text is None and not needs_label and not lists:
                (text, *_) = guess_roles(table, needs_label=False).text  # plain sentences, to be answered
                reasons["text"] = f"'{text}' holds texts, which are split into words"
            elif text is None:
                raise DataError(
                    "DATA-COLUMN",
                    f"no column holds lists of words: {', '.join(table.columns)}",
                    where=table.place(0),
                    remedy="write the words of a row as a list, or use a column file (.conll)",
                )
            reasons.setdefault("text", f"'{text}' holds lists of words")
        if label is None and needs_label:
            others = [n for n in lists if n != text]
            label = _best(others, TAG_NAMES)
            if label is None:
                listed = f"{', '.join(others)} could be" if others else "there is no other column of lists"
                raise DataError(
                    "DATA-COLUMN",
                    f"which column holds the tags? {listed}",
                    where=table.place(0),
                    remedy=f"--set data.label={others[0] if others else 'COLUMN'}",
                )
            reasons["label"] = f"'{label}' holds lists of tags"
        group = named["group"]
        alike = point_out_group(table, (*lists, text, label), group, reasons)
        return Roles(text=(text,), label=label, group=group, reasons=reasons, looks_like_group=alike)

    @property
    @abstractmethod
    def space(self) -> TagSpace:
        """The tags, which are the first of the model's outputs."""

    @property
    def _label(self) -> str | None:
        """The column of the tags."""
        return self.roles.label if isinstance(self.roles.label, str) else None

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        tokenizer = super().load_processor(source)
        if not tokenizer.is_fast:
            raise TaskError("TASK", "this model's tokenizer does not tell which word a token is of", where=source.name)
        return tokenizer

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModelForTokenClassification

        from unfreeze.models.heads import build_classifier

        return build_classifier(
            source,
            config,
            auto_class=AutoModelForTokenClassification,
            allow_remote_code=self.allows_remote_code,
            **self._head(),
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForTokenClassification

        from unfreeze.models.heads import classifier_config

        wanted = classifier_config(config, **self._head())
        return AutoModelForTokenClassification.from_config(wanted, dtype=torch.float32)

    def _head(self) -> dict[str, Any]:
        labels = self.targets.labels
        return {"n_labels": len(labels), "problem_type": None, "id2label": dict(enumerate(labels))}

    # rows --------------------------------------------------------------------------------------------------------

    def row_values(self, item: Any, place: str) -> dict[str, Any]:
        """A text, or a list of words."""
        (column,) = self.roles.text
        if isinstance(item, str):
            return {column: item}
        if not isinstance(item, Sequence) or not all(isinstance(word, str) for word in item):
            what = f"an input is a text, a list of words or a row, not {type(item).__name__}"
            raise DataError("DATA-ROW", what, where=place)
        return {column: list(item)}

    def _words_of(self, row: Row) -> list[str]:
        (column,) = self.roles.text
        value = row.values.get(column)
        if isinstance(value, str):
            words = [value[first:end] for first, end in _words_in(value)]
        else:
            words = [str(word) for word in checked_list(value, column, row)] if value is not None else []
        if not words:
            raise DataError("DATA-ROW", f"there are no words in column '{column}'", where=row.place)
        return words

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        words, text = self._words_of(row), row.values.get(self.roles.text[0])
        offsets = _words_in(text) if isinstance(text, str) else []
        tags = self.space.target(row, self._label, len(words)) if train else None
        if train and tags is None:
            raise DataError("DATA-LABEL", f"there are no tags in column {self._label!r}", where=row.place)
        before, after = _text.frame_of(self.processor)
        room = self.max_length - len(before) - len(after)
        ids, starts = self._tokens(words, room, row.place)
        examples = []
        windows = _windows(starts, len(ids), room)
        for number, (shown, owned) in enumerate(windows):
            first = starts[shown.start]
            end = starts[shown.stop] if shown.stop < len(words) else len(ids)
            whole = np.concatenate([before, np.asarray(ids[first:end], dtype=np.int32), after])
            known = Words(
                tuple(words[i] for i in owned),
                tuple(len(before) + starts[i] - first for i in owned),
                tuple(int(tags[i]) for i in owned) if tags is not None else None,
                len(words) - owned.stop,
                len(windows),
                tuple(offsets[i] for i in owned) if offsets else (),
            )
            examples.append(Example({"input_ids": whole}, known, row.index, len(whole), part=number))
        return examples

    def _tokens(self, words: Sequence[str], room: int, place: str) -> tuple[list[int], list[int]]:
        """Token ids of all words, and where each word begins; every word has a token, and fits a window."""
        # Trap: to a byte-level tokenizer (RoBERTa) a word without the space before it is the middle of one. Others drop
        # the space.
        spaced = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
        try:
            encoded = self.processor(spaced, is_split_into_words=True, add_special_tokens=False, verbose=False)
        except (TypeError, UnicodeError) as error:
            raise DataError("DATA-ROW", f"the words cannot be tokenized: {error}", where=place) from None
        by_word: list[list[int]] = [[] for _ in words]
        for token, word in zip(encoded["input_ids"], encoded.word_ids(), strict=True):
            by_word[word].append(token)
        unknown = (
            self.processor.unk_token_id if self.processor.unk_token_id is not None else self.processor.eos_token_id
        )
        ids: list[int] = []
        starts: list[int] = []
        for tokens in by_word:
            starts.append(len(ids))
            # A word that the tokenizer drops (a control character) must still be answered.
            ids += tokens[:room] or [int(unknown or 0)]
        return ids, starts

    def beginning(self, example: Example, tokens: int) -> Example:
        begun, known = super().beginning(example, tokens), example.target
        kept = sum(place < tokens for place in known.places)
        tags = known.tags[:kept] if known.tags is not None else None
        left = known.left + len(known.words) - kept
        begun.target = replace(
            known,
            words=known.words[:kept],
            places=known.places[:kept],
            tags=tags,
            left=left,
            offsets=known.offsets[:kept],
        )
        return begun

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _text.pad(examples, self.processor)
        tags = torch.full(inputs["input_ids"].shape, NOT_A_TARGET, dtype=torch.int64)
        words = [e.target for e in examples]
        for i, known in enumerate(words):
            if known.tags is not None and known.places:
                tags[i, list(known.places)] = torch.tensor(known.tags)
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        weights = {"words": float((tags != NOT_A_TARGET).sum())}
        return Batch(inputs, TagTargets(tags, words), rows, weights, int(tags.numel()))

    # the model's answers -----------------------------------------------------------------------------------------

    def _tag_loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        of_tags = logits[..., : len(self.space.labels)].float().flatten(0, 1)
        return F.cross_entropy(of_tags, batch.targets.tags.flatten(), reduction="sum", ignore_index=NOT_A_TARGET)

    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        best = outputs[..., : len(self.space.labels)].detach().float().softmax(-1).max(-1)
        found = []
        for i, (row, known) in enumerate(zip(batch.rows, batch.targets.words, strict=True)):
            places = list(known.places)
            tags = [self.space.labels[j] for j in best.indices[i, places].tolist()]
            sure = best.values[i, places].tolist()
            found.append(self._prediction(int(row), tags, list(known.words), sure, list(known.offsets)))
        return found

    def merge(self, parts: Sequence[Prediction]) -> list[Prediction]:
        if len(parts) == 1:
            return list(parts)
        tags = [tag for part in parts for tag in part.label]
        words, sure, offsets = (
            [x for part in parts for x in part.extra.get(name, ())] for name in ("words", "scores", "offsets")
        )
        return [self._prediction(parts[0].row, tags, words, sure, offsets)]

    def _prediction(
        self, row: int, tags: list[str], words: list[str], sure: list[float], offsets: list[tuple[int, int]]
    ) -> Prediction:
        """The tags, and in `extra` the words, how sure each tag is, and the spans as the Hub's pipelines name them.

        Of a text, words have ``offsets`` and spans ``start`` and ``end``, in characters; of a list of words there are
        none.
        """
        spans = sorted(spans_of(tags), key=lambda span: span[1]) if self.space.types else []
        entities = [
            {
                "entity_group": kind,
                "word": " ".join(words[first : last + 1]),
                "score": float(np.mean(sure[first : last + 1])),
                "first_word": first,
                "last_word": last,
                **({"start": offsets[first][0], "end": offsets[last][1]} if offsets else {}),
            }
            for kind, first, last in spans
        ]
        probability = min(sure) if sure else None
        extra = {"words": words, "scores": sure, "entities": entities, **({"offsets": offsets} if offsets else {})}
        return Prediction(row, tags, probability, extra=extra, shown=self._told(words, tags))

    def _told(self, words: Sequence[str], tags: Sequence[str]) -> str:
        """``PER Ada Byron, LOC London``, or ``Rain/NN falls/VBZ`` where tags name no spans."""
        if not self.space.types:
            return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
        spans = sorted(spans_of(tags), key=lambda span: span[1])
        return ", ".join(f"{kind} {' '.join(words[first : last + 1])}" for kind, first, last in spans) or "(none)"

    # beside baselines, and for people ----------------------------------------------------------------------------

    def answers(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Words of the row that are left, and tags, of each example."""
        said = self._tags_said(outputs, batch)
        return [(known.left, tags) for known, tags in zip(batch.targets.words, said, strict=True)]

    def whole_answer(self, parts: Sequence[Any]) -> Any:
        return [tag for _, tags in sorted(parts, key=lambda part: -part[0]) for tag in tags]

    def _tags_said(self, outputs: torch.Tensor, batch: Batch) -> list[list[str]]:
        best = outputs[..., : len(self.space.labels)].detach().argmax(-1).cpu()
        words = enumerate(batch.targets.words)
        return [[self.space.labels[j] for j in best[i, list(known.places)].tolist()] for i, known in words]

    def _true_tags(self, row: Row) -> list[str]:
        ids = self.space.target(row, self._label, len(self._words_of(row)))
        return [self.space.labels[i] for i in ids] if ids is not None else []

    def shown(self, row: Row) -> str:
        return " ".join(self._words_of(row))

    def target_shown(self, target: Any) -> str:
        if target.tags is None:
            return " ".join(target.words)
        labels = self.space.labels
        return " ".join(f"{word}/{labels[tag]}" for word, tag in zip(target.words, target.tags, strict=True))

    def mistake(self, row: Row, answer: Any) -> tuple[str, str] | None:
        words, true = self._words_of(row), self._true_tags(row)
        if not self.space.types:
            wrong = [i for i, (a, b) in enumerate(zip(true, answer, strict=True)) if a != b]
            told = (self._told([words[i] for i in wrong], [tags[i] for i in wrong]) for tags in (true, answer))
            return (next(told), next(told)) if wrong else None
        if spans_of(true) == spans_of(answer):
            return None
        return self._told(words, true), self._told(words, answer)

    def surprise(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Negative log-probability of an example's tags, in nats, summed over its words, (batch,)."""
        targets = batch.targets.tags.to(outputs.device)
        of_tags = outputs[..., : len(self.space.labels)].float().transpose(1, 2)
        losses = F.cross_entropy(of_tags, targets, reduction="none", ignore_index=NOT_A_TARGET)
        return losses.sum(-1).cpu().numpy()


def tagged_columns(table: Table) -> tuple[str, str] | None:
    """The columns of words and of their tags, lists of one length in most rows; None where there are none."""
    lists = [name for name in table.columns if table.is_list(name)]
    words = _best(lists, TOKEN_NAMES)
    tags = _best([n for n in lists if n != words], TAG_NAMES)
    if words is None or tags is None or not len(table):
        return None
    pairs = zip(table.column(words)[:100], table.column(tags)[:100], strict=True)
    fitting = [a is not None and b is not None and len(a) == len(b) for a, b in pairs]
    # A few that do not fit are mistakes, which are named.
    return (words, tags) if 2 * sum(fitting) > len(fitting) else None


def intent_column(table: Table) -> str | None:
    """The column that says by its name what each command is for."""
    return next((c for c in table.columns if c.casefold() in INTENT_NAMES and not table.is_list(c)), None)


def _words_in(text: str) -> list[tuple[int, int]]:
    """First character, and the one behind it, of the words and marks of plain text.

    They are divided at white space, and around punctuation and symbols.

    >>> [("Ada's in Rome."[first:end], first) for first, end in _words_in("Ada's in Rome.")]
    [('Ada', 0), ("'", 3), ('s', 4), ('in', 6), ('Rome', 9), ('.', 13)]
    """
    found: list[tuple[int, int]] = []
    start: int | None = None
    for i, letter in enumerate(text):
        # Not by `\w`: the vowel signs of Hindi are no letters to it.
        is_mark = unicodedata.category(letter)[0] in "PS"
        if (is_mark or letter.isspace()) and start is not None:
            found.append((start, i))
            start = None
        if is_mark:
            found.append((i, i + 1))
        elif start is None and not letter.isspace():
            start = i
    return found + [(start, len(text))] * (start is not None)  # type: ignore[list-item]


def _one_column(table: Table, asked: DataRecipe | None, role: str) -> str | None:
    """The column the user named for a role, None where none was."""
    name = getattr(asked, role) if asked else None
    if name is None:
        return None
    names = [name] if isinstance(name, str) else list(name)
    if len(names) != 1:
        raise TaskError("TASK", f"one column is read as {role}, {len(names)} were named", where=f"data.{role}")
    check_named(table, role, names[0])
    if role == "label" and not table.is_list(names[0]):
        raise DataError("DATA-LABEL", f"column '{names[0]}' holds no lists of tags", where=table.place(0))
    return str(names[0])


def _best(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column with the best-known name, or the only one there is."""
    known = [c for name in names for c in columns if c.casefold() == name]
    return known[0] if known else (columns[0] if len(columns) == 1 else None)


def _windows(starts: Sequence[int], n_tokens: int, room: int) -> list[tuple[range, range]]:
    """(words shown, words answered for) of each window of at most `room` tokens; every word is answered once.

    >>> _windows([0, 1, 2, 3], 4, 10)
    [(range(0, 4), range(0, 4))]
    """
    n = len(starts)
    if n_tokens <= room:
        return [(range(n), range(n))]
    ends = [*starts[1:], n_tokens]
    context = min(CONTEXT_TOKENS, room // 4)
    found, answered = [], 0
    while answered < n:
        first = answered
        while first > 0 and starts[answered] - starts[first - 1] <= context:
            first -= 1
        # Trap: where one word fills nearly the whole window, there is no room for what comes before it.
        while first < answered and ends[answered] - starts[first] > room:
            first += 1
        stop = answered + 1
        while stop < n and ends[stop] - starts[first] <= room:
            stop += 1
        kept = stop
        while stop < n and kept > answered + 1 and ends[stop - 1] - ends[kept - 1] < context:
            kept -= 1
        found.append((range(first, stop), range(answered, kept)))
        answered = kept
    return found


@dataclass
class TagMetric:
    """Joins the windows of a row, and counts it once it is whole."""

    space: TagSpace
    said: Callable[[torch.Tensor, Batch], Sequence[Any]]
    rows: WholeRows[tuple[Words, Any]] = field(default_factory=WholeRows)

    def __post_init__(self) -> None:
        self.state = SpanState(self.space.types)

    def update(self, outputs: torch.Tensor, batch: Batch) -> None:
        whole = []
        for row, known, said in zip(batch.rows, batch.targets.words, self.said(outputs, batch), strict=True):
            parts = self.rows.add(int(row), (known, said), known.parts)
            if parts is not None:
                whole.append((int(row), sorted(parts, key=lambda part: -part[0].left)))
        self._count([parts for _, parts in whole], np.asarray([row for row, _ in whole], dtype=np.int64))

    def _count(self, whole: Sequence[Sequence[tuple[Words, Any]]], rows: np.ndarray) -> None:
        """Add rows, each as its windows in order with what was said of them."""
        said = [[tag for _, tags in parts for tag in tags] for parts in whole]
        self.state.update([self._true(parts) for parts in whole], said, rows)

    def _true(self, parts: Sequence[tuple[Words, Any]]) -> list[str]:
        return [self.space.labels[t] for known, _ in parts for t in known.tags or ()]

    def merge(self, other: TagMetric) -> None:
        self.rows.check_merge(other.rows)
        self.state.merge(other.state)

    def compute(self) -> dict[str, float | None]:
        found = self.state.compute()
        return found if self.space.types else {k: v for k, v in found.items() if k not in OF_SPANS}

    def intervals(self) -> dict[str, tuple[float, float]]:
        found = self.state.intervals()
        return found if self.space.types else {k: v for k, v in found.items() if k not in OF_SPANS}

    def details(self) -> dict[str, Any]:
        found: dict[str, Any] = {"reasons": dict(self.state.reasons)}
        if self.space.types:
            found["per_class"] = self.state.per_class()
        return found
