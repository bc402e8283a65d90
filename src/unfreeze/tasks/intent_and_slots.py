"""intent-and-slots: what a command wants, and with which words: the understanding half of a voice assistant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.baselines import Baseline, tfidf, usual_tags
from unfreeze.data.columns import Roles, check_named
from unfreeze.errors import DataError
from unfreeze.metrics import FrameState, PairedState
from unfreeze.metrics.spans import spans_of
from unfreeze.tasks import _text
from unfreeze.tasks._labels import LabelSpace, ProblemType, learn_labels
from unfreeze.tasks._tagged_words import TagMetric, TagsWords, TagTargets, Words, intent_column, tagged_columns
from unfreeze.tasks._tags import TagSpace, learn_tags
from unfreeze.tasks._trained_before import continued
from unfreeze.tasks.base import Material
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.recipe import DataRecipe

INTENT: ProblemType = "single_label_classification"


@dataclass(frozen=True)
class FrameSpace:
    """Tags of words and intents of rows, in the order of the model's outputs: the tags come first."""

    tags: TagSpace
    intents: LabelSpace

    problem_type = "intent_and_slots"

    @property
    def labels(self) -> tuple[str, ...]:
        return (*self.tags.labels, *self.intents.labels)

    @property
    def counts(self) -> tuple[int, ...]:
        return (*self.tags.counts, *self.intents.counts)

    @property
    def reason(self) -> str:
        return f"{len(self.intents.labels)} intents, and {self.tags.reason}"

    def in_order_of(self, labels: Sequence[str]) -> FrameSpace:
        """The same labels in the order of another model's outputs, whose first are the tags, too."""
        n = len(self.tags.labels)
        return FrameSpace(self.tags.in_order_of(labels[:n]), self.intents.in_order_of(labels[n:]))

    def to_json(self) -> dict[str, Any]:
        return {"tags": self.tags.to_json(), "intents": self.intents.to_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> FrameSpace:
        return cls(TagSpace.from_json(stored["tags"]), LabelSpace.from_json(stored["intents"]))


@dataclass(frozen=True)
class _Command(Words):
    """Of one window, beside its words: the token that the intent is read at, and its id, None without a label."""

    at: int = 0
    intent: int | None = None


@dataclass
class _Targets(TagTargets):
    """Ids of the intents, (batch,), and the tokens they are read at, (batch,)."""

    intents: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    at: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def to(self, device: torch.device) -> _Targets:
        return replace(self, tags=self.tags.to(device), intents=self.intents.to(device), at=self.at.to(device))


@dataclass
class IntentAndSlots(TagsWords):
    """The intent of a command and its slots, by one model in one pass.

    One linear layer reads all tokens; its first outputs are the tags of words, its last the intents, which are read at
    the token that stands for the whole row (``[CLS]``; the last token where there is none): JointBERT (Chen, Zhuo and
    Wang 2019, arXiv 1902.10909, equations 1 and 2) as a model for token classification, which other tools can load.
    Of a row beyond the limit, the windows' probabilities of the intents are averaged.

    Loss: cross-entropy of the intent, the mean over rows, and of the tags, the mean over words, added.

    Example:
        >>> IntentAndSlots().sample_rows()[0]["intent"]
        'PlayMusic'
    """

    name: ClassVar[str] = "intent-and-slots"
    primary_metric: ClassVar[str] = "frame_accuracy"
    compares_with: ClassVar[tuple[str, ...]] = ("tfidf and usual tags",)

    # what the columns are ----------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        found, intent = tagged_columns(table), intent_column(table)
        if found is None or intent is None:
            return None
        return f"'{intent}' says what a command is for, and '{found[1]}' has a tag for each of its words"

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        given = getattr(asked, "label", None)
        named = [given] if isinstance(given, str) else list(given or ())
        for name in named:
            check_named(table, "label", name)
        intents, tags = ([n for n in named if table.is_list(n) == is_list] for is_list in (False, True))
        if len(intents) > 1 or len(tags) > 1:
            what = f"one column of intents and one of lists of tags are read, not {', '.join(named)}"
            raise DataError("DATA-LABEL", what, where="data.label", remedy="--set 'data.label=[INTENT, TAGS]'")
        only_tags = asked.model_copy(update={"label": tags[0] if tags else None}) if asked is not None else None
        roles = super().find_roles(table, only_tags, needs_label=needs_label)
        intent = intents[0] if intents else intent_column(table)
        if intent is None and needs_label:
            rest = [c for c in table.columns if c not in (*roles.text, roles.label, roles.group)]
            raise DataError(
                "DATA-COLUMN",
                f"which column holds the intents? {', '.join(rest) or 'there is no other column'}",
                where=table.place(0),
                remedy=f"--set data.label={rest[0] if rest else 'COLUMN'}",
            )
        reasons = dict(roles.reasons)
        if intent is not None and not intents:
            reasons["label"] = f"{reasons.get('label', '')}; {intent!r} holds the intents".removeprefix("; ")
        label = (intent, roles.label) if intent is not None and isinstance(roles.label, str) else None
        return replace(roles, label=label, reasons=reasons)

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> FrameSpace:
        intent, tags = _columns(roles)
        tagged = train.column(str(tags))
        of_tags = label_names if _are_numbers(tagged) else None
        space = FrameSpace(
            learn_tags(tagged, of_tags, f"'{tags}'", train.place),
            learn_labels(
                train.column(str(intent)),
                names=None if of_tags else label_names,
                problem_type=INTENT,
                where=f"column '{intent}'",
                place=train.place,
            ),
        )
        both = set(space.tags.labels) & set(space.intents.labels)
        if both:
            what = f"{sorted(both)[0]!r} is an intent and a tag"
            raise DataError("DATA-LABEL", what, where=f"'{intent}', '{tags}'", remedy="rename one of them")
        return space

    def restore_targets(self, stored: Any) -> FrameSpace:
        return FrameSpace.from_json(stored)

    def labels_to_keep(self, table: Table, roles: Roles, names: Sequence[str] | None) -> list[set[str]]:
        intents, tags = (table.column(str(name)) for name in _columns(roles))
        return [
            {f"intent {intent}", *(f"tag {tag}" for tag in given if tag is not None)}
            for intent, given in zip(intents, (t if t is not None else () for t in tags), strict=True)
        ]

    def strata(self, table: Table, roles: Roles) -> np.ndarray | None:
        """The intent of each row."""
        return np.unique([str(v) for v in table.column(str(_columns(roles)[0]))], return_inverse=True)[1]

    def continue_from(self, targets: FrameSpace, config: Any, name: str) -> tuple[FrameSpace, list[str]]:
        labels = getattr(config, "id2label", None) or {}
        first = [str(labels[i]) for i in sorted(labels)][: len(targets.tags.labels)]
        if set(labels.values()) == set(targets.labels) and set(first) != set(targets.tags.labels):
            return targets, [f"the head of {name} has these labels in another order and is replaced"]
        return continued(targets, config, name)

    def relabelled(self, table: Table, names: Sequence[str]) -> Table:
        intent, tags = map(str, _columns(self.roles))
        if table.is_list(tags) and _are_numbers(table.column(tags)):
            return self.space.relabelled(table, tags, names)
        intents: LabelSpace = self.targets.intents
        return intents.relabelled(table, intent, names)

    def check_labels(self, table: Table, split: str) -> None:
        for row in table:
            self._intent_of(row)
            self._true_tags(row)

    def label_names(self, table: Table) -> list[Any]:
        """The intent of each row."""
        return [self.targets.intents.labels[self._intent_of(row)] for row in table]

    @property
    def space(self) -> TagSpace:
        found: TagSpace = self.targets.tags
        return found

    @property
    def _label(self) -> str | None:
        return _columns(self.roles)[1]

    def _intent_of(self, row: Row) -> Any:
        return self.targets.intents.target(row, _columns(self.roles)[0])

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        examples = super().encode(row, train=train)
        intent = self._intent_of(row) if train else None
        if train and intent is None:
            raise DataError("DATA-LABEL", f"there is no intent in column {_columns(self.roles)[0]!r}", where=row.place)
        before, after = _text.frame_of(self.processor)
        for example in examples:
            example.parts = len(examples)
            known = {f.name: getattr(example.target, f.name) for f in fields(Words)}
            example.target = _Command(**known, at=self._place(example.length, before, after), intent=intent)
        return examples

    def _place(self, length: int, before: np.ndarray, after: np.ndarray) -> int:
        """Where the intent is read: at the token for the whole row; a decoder has seen all at the last."""
        whole = self.processor.cls_token_id
        if whole is not None and whole in before:
            return int(np.flatnonzero(before == whole)[0])
        if whole is not None and whole in after:
            return int(length - len(after) + np.flatnonzero(after == whole)[0])
        return length - 1

    def beginning(self, example: Example, tokens: int) -> Example:
        begun = super().beginning(example, tokens)
        begun.target = replace(begun.target, at=min(begun.target.at, tokens - 1))
        return begun

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch = super().collate(examples)
        known = [e.target for e in examples]
        intents = torch.tensor([-1 if k.intent is None else k.intent for k in known], dtype=torch.int64)
        at = torch.tensor([k.at for k in known], dtype=torch.int64)
        targets = _Targets(batch.targets.tags, batch.targets.words, intents, at)
        parts = np.asarray([e.parts for e in examples], dtype=np.int64)
        return replace(batch, targets=targets, weights=batch.weights | {"rows": float((1 / parts).sum())}, parts=parts)

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = model(**batch.inputs).logits  # (batch, length, tags and intents)
        of_windows = F.cross_entropy(self._of_intents(logits, batch), batch.targets.intents, reduction="none")
        # Each row counts as one, however many windows it has.
        intent = (of_windows / torch.as_tensor(batch.parts).to(of_windows)).sum()
        terms = {"intent": LossTerm(intent), "slots": LossTerm(self._tag_loss(logits, batch), per="words")}
        return LossOutput(terms, logits)

    def _of_intents(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(batch, intents)"""
        each = torch.arange(len(logits), device=logits.device)
        return logits[each, batch.targets.at.to(logits.device), len(self.space.labels) :].float()

    def _chances(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Probabilities of the intents, (batch, intents)."""
        return self._of_intents(outputs.detach(), batch).softmax(-1).cpu().numpy()

    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        of_tags = super().decode(outputs, batch)
        return [self._framed(p, c) for p, c in zip(of_tags, self._chances(outputs, batch), strict=True)]

    def _framed(self, of_tags: Prediction, chances: np.ndarray) -> Prediction:
        """The intent, its alternatives, and in `extra` the words, their tags, and the slots."""
        names = self.targets.intents.labels
        scores = {names[i]: float(chances[i]) for i in np.argsort(-chances, kind="stable")}
        intent = next(iter(scores))
        extra = {"tags": of_tags.label, **of_tags.extra}
        shown = f"{intent}: {of_tags.shown}"
        return Prediction(of_tags.row, intent, scores[intent], scores, extra, shown)

    def merge(self, parts: Sequence[Prediction]) -> list[Prediction]:
        if len(parts) == 1:
            return list(parts)
        tags = [Prediction(p.row, p.extra["tags"], extra=p.extra) for p in parts]
        names = self.targets.intents.labels
        chances = np.mean([[p.scores[name] for name in names] for p in parts], axis=0)
        return [self._framed(super().merge(tags)[0], chances)]

    # beside baselines, and for people ----------------------------------------------------------------------------

    def answers(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Words of the row that are left, tags, and probabilities of the intents, of each example."""
        of_tags = super().answers(outputs, batch)
        return [(*found, chances) for found, chances in zip(of_tags, self._chances(outputs, batch), strict=True)]

    def whole_answer(self, parts: Sequence[Any]) -> tuple[str, list[str]]:
        """Intent and tags."""
        best = int(np.mean([chances for _, _, chances in parts], axis=0).argmax())
        return self.targets.intents.labels[best], super().whole_answer([part[:2] for part in parts])

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        train, test, intents = material.train, material.test, self.targets.intents

        def both() -> Baseline:
            texts, asked = ([self.shown(row) for row in table] for table in (train, test))
            ids = np.asarray([self._intent_of(row) for row in train])
            counted = tfidf(texts, ids, asked, INTENT, intents.width, seed=material.seed)
            words = (self._words_of(row) for row in train)
            tagged = usual_tags(words, map(self._true_tags, train), (self._words_of(row) for row in test))
            names = [intents.labels[i] for i in np.asarray(counted.predictions)]
            return Baseline(
                self.compares_with[0],
                f"intent: {counted.sentence}; slots: {tagged.sentence}",
                list(zip(names, tagged.predictions, strict=True)),
                counted.seconds + tagged.seconds,
                counted.notes,
            )

        return {self.compares_with[0]: both}

    def comparison(self, table: Table, answers: Sequence[Any]) -> Callable[[Baseline], PairedState]:
        true = [(self.targets.intents.labels[self._intent_of(row)], self._true_tags(row)) for row in table]

        def frames(given: Iterable[Any]) -> list[Any]:
            """What must be equal: different tags may name the same slots."""
            return [(intent, spans_of(tags) if self.space.types else list(tags)) for intent, tags in given]

        def beside(baseline: Baseline) -> PairedState:
            paired = PairedState("frames")
            paired.update(frames(true), frames(answers), frames(baseline.predictions))
            return paired

        return beside

    def target_shown(self, target: Any) -> str:
        tags = super().target_shown(target)
        return tags if target.intent is None else f"{self.targets.intents.labels[target.intent]}: {tags}"

    def mistake(self, row: Row, answer: Any) -> tuple[str, str] | None:
        intent, tags = answer
        true = self.targets.intents.labels[self._intent_of(row)]
        slots = super().mistake(row, tags)
        if slots is None and intent == true:
            return None
        same = self._told(self._words_of(row), tags)
        right, said = slots or (same, same)
        return f"{true}: {right}", f"{intent}: {said}"

    def surprise(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Negative log-probability of the intent and of the tags of an example, in nats, (batch,)."""
        intents = batch.targets.intents.cpu().numpy()
        chances = self._chances(outputs, batch)[np.arange(len(intents)), intents]
        return super().surprise(outputs, batch) - np.log(np.maximum(chances, np.finfo(np.float32).tiny))

    # scores ------------------------------------------------------------------------------------------------------

    def metric(self) -> FrameMetric:
        return FrameMetric(self.space, self._said, intents=self.targets.intents)

    def _said(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        return list(zip(self._tags_said(outputs, batch), self._chances(outputs, batch), strict=True))

    @property
    def headline_metric(self) -> str:
        return self.primary_metric

    @property
    def selection(self) -> tuple[str, bool]:
        return self.primary_metric, True

    def sample_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "tokens": ["play", "something", "by", "Ada", "Byron"],
                "slots": ["O", "O", "O", "B-artist", "I-artist"],
                "intent": "PlayMusic",
            },
            {"tokens": ["will", "it", "rain", "in", "Oslo"], "slots": ["O"] * 4 + ["B-city"], "intent": "GetWeather"},
            {"tokens": ["weather", "for", "Rome"], "slots": ["O", "O", "B-city"], "intent": "GetWeather"},
            {"tokens": ["play", "Marie"], "slots": ["O", "B-artist"], "intent": "PlayMusic"},
        ]


def _are_numbers(tagged: Sequence[Any]) -> bool:
    """Whether tags are whole numbers; names that a data set lists are then theirs, and not of the intents."""
    return isinstance(next((tag for row in tagged if row is not None for tag in row), None), int)


def _columns(roles: Roles) -> tuple[str | None, str | None]:
    """Of the intents and of the tags."""
    if not isinstance(roles.label, tuple):
        return None, None
    intent, tags = roles.label
    return intent, tags


@dataclass
class FrameMetric(TagMetric):
    """Of whole rows, whose windows say tags and probabilities of the intents."""

    intents: LabelSpace = field(kw_only=True)

    def __post_init__(self) -> None:
        self.state: FrameState = FrameState(self.intents.labels, self.space.types)

    def _count(self, whole: Sequence[Sequence[tuple[Any, Any]]], rows: np.ndarray) -> None:
        best = [int(np.mean([chances for _, (_, chances) in parts], axis=0).argmax()) for parts in whole]
        tags = [[tag for _, (said, _) in parts for tag in said] for parts in whole]
        intents = [parts[0][0].intent for parts in whole]
        self.state.update_frames((intents, best), ([self._true(parts) for parts in whole], tags), rows)

    def details(self) -> dict[str, Any]:
        """Of intents, whose confusion the report draws, and of slots."""
        return {
            "reasons": dict(self.state.reasons),
            "per_class": [*self.state.per_intent(), *self.state.per_class()],
            "confusion": self.state.confusion().tolist(),
            "confusion_labels": list(self.state.intents),
        }
