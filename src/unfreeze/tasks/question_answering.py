"""question-answering: where in a text the answer to a question stands, or that it does not."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.data.columns import Roles, check_named, point_out_group
from unfreeze.data.quality import places_shown
from unfreeze.data.table import shortened
from unfreeze.errors import DataError, TaskError
from unfreeze.metrics.answers import AnswerState, scores
from unfreeze.tasks import _text
from unfreeze.tasks._parts import WholeRows
from unfreeze.tasks.base import Task
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row, is_whole

if TYPE_CHECKING:
    from unfreeze.data.table import Table
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe

QUESTION_NAMES = ("question", "query")
CONTEXT_NAMES = ("context", "passage", "paragraph", "document", "text")
ANSWER_NAMES = ("answers", "answer", "label")
START_NAMES = ("answer_start", "answer_starts", "start")
# Of question and text together, that a window must take.
FEWEST_TOKENS = 12
# Tokens that windows share: usual since BERT's run_squad.py.
MOST_SHARED = 128
# Of answers, in tokens: so many may be given (as since BERT's run_squad.py), more where the training answers need it.
LONGEST_ANSWER, KEPT_QUANTILE = 30, 0.995
# Of the differences between no answer and the best one, in logits: where the threshold may lie.
_EDGES = np.linspace(-20.0, 20.0, 401)


@dataclass(frozen=True)
class QuestionSpace:
    """What the training rows say of answers.

    Attributes:
        has_unanswerable: Whether some questions have none.
        threshold: An answer is given where its logits exceed those of none by more than this.
        longest_answer: In tokens, that can be given unless the user names another length.
        share_longer: Of the training answers, which cannot be given.
    """

    has_unanswerable: bool
    threshold: float = 0.0
    longest_answer: int = LONGEST_ANSWER
    share_longer: float = 0.0

    labels: ClassVar[tuple[str, ...]] = ()
    problem_type: ClassVar[str] = "question_answering"

    @property
    def reason(self) -> str:
        return "some questions have no answer" if self.has_unanswerable else "every question has an answer"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Window:
    """What an example knows of the piece of the text that it shows.

    Attributes:
        context: The row's whole text.
        offsets: First and last-but-one character of each token in it, (length, 2); -1 for tokens that are not of it.
        answers: True answers; None without labels.
        span: First and last token of the answer; 0, 0 where this window does not hold it.
        windows: How many the row has.
    """

    context: str
    offsets: np.ndarray
    answers: tuple[str, ...] | None
    span: tuple[int, int]
    windows: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Window) and all(
            np.array_equal(mine, theirs) for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass
class _Targets:
    """Of a batch: first and last token, (batch, 2), and the windows."""

    spans: torch.Tensor
    windows: list[_Window]

    def to(self, device: torch.device) -> _Targets:
        return _Targets(self.spans.to(device), self.windows)


@dataclass(frozen=True)
class _Found:
    """The best span of a window, or of a row: its text and characters, its logits, and those of no answer."""

    text: str
    start: int
    end: int
    score: float
    none_score: float
    probability: float


def _best_window(windows: Sequence[_Found]) -> _Found:
    """The best of a row's windows; no answer is as likely as in the window that is least sure of it."""
    best = max(windows, key=lambda found: found.score)
    return replace(best, none_score=min(found.none_score for found in windows))


@dataclass(slots=True)
class _Answer(Prediction):
    """Of a window, so that the best of a row's can be found."""

    found: _Found = _Found("", 0, 0, -np.inf, 0.0, 0.0)


@dataclass
class QuestionAnswering(Task):
    """The stretch of a text that answers a question, as in SQuAD.

    A long text is read in windows that overlap; the best span over all windows is the answer (Devlin et al. 2019, BERT,
    section 4.2). Where training questions without an answer occur, none is given unless the best span's logits exceed
    those of the first token by a threshold, which is chosen on the validation rows (section 4.3).

    Options:
        stride: Tokens that neighbouring windows share. Default: 128, and at most a third of a window.
        longest_answer: In tokens. Default: what 99.5 % of the training answers need, at least 30.

    Answers are stretches of the text. A training answer that does not stand in it is refused; in rows to evaluate the
    scores compare texts, and the loss of such a row is that of no answer. An empty answer is none.

    Loss: cross-entropy of the first and of the last token, halved; the mean over windows.
    """

    name: ClassVar[str] = "question-answering"
    primary_metric: ClassVar[str] = "answer_f1"
    answers_every_token: ClassVar[bool] = True
    answer_axis: ClassVar[int] = 1
    splits_long_rows: ClassVar[bool] = True
    most_tokens: ClassVar[int] = 384

    stride: int | None = None
    longest_answer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        is_right = self.stride is None or is_whole(self.stride, 1)
        self.check_option("stride", is_right, "a number of tokens")
        is_right = self.longest_answer is None or is_whole(self.longest_answer, 1)
        self.check_option("longest_answer", is_right, "a number of tokens")

    # what the columns are ----------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        names = {name.casefold() for name in table.columns}
        if "label" in names or not ({"question"} <= names and {"context", "answers"} <= names):
            return None
        return "'question', 'context' and 'answers' are SQuAD's columns"

    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        named = asked.text if asked else None
        texts = [named] if isinstance(named, str) else list(named or ())
        reasons = {}
        if texts:
            for name in texts:
                check_named(table, "text", name)
            if len(texts) != 2:
                what = f"a question and a text are read, {len(texts)} columns were named"
                raise DataError("DATA-COLUMN", what, remedy="--set 'data.text=[question, context]'")
        else:
            texts = [
                _column(table.columns, QUESTION_NAMES, "question", "text"),
                _column(table.columns, CONTEXT_NAMES, "text to read", "text"),
            ]
            reasons["text"] = f"'{texts[0]}' is asked of '{texts[1]}'"
        label = asked.label if asked else None
        if label is not None and not isinstance(label, str):
            raise DataError("DATA-COLUMN", "one column holds the answers", remedy="--set data.label=answers")
        if label is not None:
            check_named(table, "label", label)
        elif needs_label:
            label = _column([n for n in table.columns if n not in texts], ANSWER_NAMES, "answer", "label")
            reasons["label"] = f"'{label}' holds the answers"
        group = asked.group if asked else None
        if group is not None:
            check_named(table, "group", group)
        alike = point_out_group(table, (*texts, label), group, reasons)
        return Roles(text=tuple(texts), label=label, group=group, reasons=reasons, looks_like_group=alike)

    def keeps_together(self, table: Table, roles: Roles) -> Sequence[Hashable] | None:
        """Questions on one text: another question on it would give away what it says."""
        return table.column(roles.text[1])

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> QuestionSpace:
        answered, astray = 0, []
        for row in train:
            answers = _answers_in(row, str(roles.label))
            answered += bool(answers)
            if answers and _place_of_answer(row, _text_in(row, roles.text[1]), answers) is None:
                astray.append((row.place, answers[0]))
        if not answered:
            raise DataError("DATA-ONE-CLASS", "no training question has an answer", where=train.place(0))
        if astray:
            raise DataError(
                "DATA-LABEL",
                f"{len(astray):,} of {answered:,} training answers do not stand in the text; the first: "
                f"{shortened(astray[0][1])}",
                where=places_shown([place for place, _ in astray]),
                remedy="correct the answers: they are found in the text, letter by letter",
            )
        return QuestionSpace(answered < len(train))

    def is_unlabelled(self, value: Any) -> bool:
        """An empty answer is the answer that there is none."""
        return value is None or (isinstance(value, dict) and value.get("text") is None)

    def restore_targets(self, stored: Any) -> QuestionSpace:
        return QuestionSpace(**stored)

    def check_labels(self, table: Table, split: str) -> None:
        """Refuse rows that could not be asked, before training: test rows are encoded once it has ended."""
        for row in table:
            for column in self.roles.text:
                _text_in(row, column)
            _answers_in(row, str(self.roles.label))

    def label_names(self, table: Table) -> list[Any]:
        return ["answered" if _answers_in(row, str(self.roles.label)) else "no answer" for row in table]

    # the model ---------------------------------------------------------------------------------------------------

    def load_processor(self, source: ModelSource) -> Any:
        tokenizer = super().load_processor(source)
        if not tokenizer.is_fast:
            raise TaskError("TASK", "this model's tokenizer does not tell where a token stands", where=source.name)
        return tokenizer

    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        from transformers import AutoModelForQuestionAnswering

        from unfreeze.models.heads import build_classifier

        return build_classifier(
            source,
            config,
            auto_class=AutoModelForQuestionAnswering,
            allow_remote_code=self.allows_remote_code,
            **_HEAD,
        )

    def skeleton(self, config: Any) -> torch.nn.Module:
        from transformers import AutoModelForQuestionAnswering

        from unfreeze.models.heads import classifier_config

        wanted = classifier_config(config, **_HEAD)
        return AutoModelForQuestionAnswering.from_config(wanted, dtype=torch.float32)

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """Of question and text; how long answers are is settled here too, since it takes the processor."""
        limit, reason = super().longest_input(asked, train, config)
        room = limit - self.processor.num_special_tokens_to_add(pair=True)
        if self.stride is not None and self.stride >= room - room // 2:
            what = f"windows of {limit} tokens, of which a question may take half, cannot share {self.stride}"
            remedy = f"--set options.stride={max(1, room // 3)}, or leave it out"
            raise TaskError("TASK", what, where="options.stride", remedy=remedy)
        lengths = self._lengths_of_answers(train)
        needed = max(LONGEST_ANSWER, int(np.quantile(lengths, KEPT_QUANTILE, method="higher")))
        self.targets = replace(self.targets, longest_answer=needed)
        self.targets = replace(self.targets, share_longer=float(np.mean(lengths > self._longest)))
        return limit, reason

    @property
    def _longest(self) -> int:
        """Of the answers that can be given, in tokens."""
        needed: int = self.targets.longest_answer
        return needed if self.longest_answer is None else self.longest_answer

    def _lengths_of_answers(self, train: Table) -> np.ndarray:
        """Tokens of the answers that are trained on, (answers,)."""
        texts = []
        for row in train:
            context, answers = _text_in(row, self.roles.text[1]), _answers_in(row, str(self.roles.label))
            place = _place_of_answer(row, context, answers or ())
            if place is not None:
                texts.append(context[slice(*place)])
        encoded = self.processor(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return np.asarray([len(ids) for ids in encoded["input_ids"]])

    def planned(self) -> list[tuple[str, Any, str]]:
        room = self.max_length - self.processor.num_special_tokens_to_add(pair=True)
        space: QuestionSpace = self.targets
        longer = f"; {space.share_longer:.1%} of the training answers are longer and can never be given"
        why = f"tokens of an answer, at most{longer if space.share_longer else ''}"
        return [
            ("options.stride", self._shared(room), "tokens that neighbouring windows of a long text share"),
            ("options.longest_answer", self._longest, why),
        ]

    def _shared(self, room: int) -> int:
        return self.stride if self.stride is not None else max(1, min(MOST_SHARED, room // 3))

    # rows --------------------------------------------------------------------------------------------------------

    def encode(self, row: Row, *, train: bool) -> list[Example]:
        question, context = (_text_in(row, column) for column in self.roles.text)
        answers = _answers_in(row, str(self.roles.label)) if train else None
        if train and answers is None:
            raise DataError("DATA-LABEL", f"there are no answers in column {self.roles.label!r}", where=row.place)
        characters = _place_of_answer(row, context, answers) if answers else None
        windows, is_cut = self._windows(question, context, row.place)
        return [
            Example(
                inputs,
                _Window(
                    context,
                    offsets,
                    tuple(answers) if answers is not None else None,
                    _tokens_of(characters, offsets),
                    len(windows),
                ),
                row.index,
                len(inputs["input_ids"]),
                part=part,
                is_cut=is_cut and part == 0,
            )
            for part, (inputs, offsets) in enumerate(windows)
        ]

    def _windows(
        self, question: str, context: str, place: str
    ) -> tuple[list[tuple[dict[str, np.ndarray], np.ndarray]], bool]:
        """Model inputs of each window, and where its tokens stand in the text; whether the question was cut."""
        room = self.max_length - self.processor.num_special_tokens_to_add(pair=True)
        if room < FEWEST_TOKENS:
            what = f"{self.max_length} tokens leave no room for a question and a text"
            raise TaskError("TASK", what, where="train.max_length", remedy="--set train.max_length=64, or more")
        # A question may take half of a window; what is longer is cut, since no window could show any text.
        try:
            shown = self._beginning_of(question, room // 2)
            encoded = self.processor(
                shown,
                context,
                truncation="only_second",
                max_length=self.max_length,
                stride=self._shared(room),
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
        except Exception as error:
            raise DataError("DATA-ROW", f"the texts cannot be tokenized: {error}", where=place) from None
        found = []
        for number, ids in enumerate(encoded["input_ids"]):
            inputs = {"input_ids": np.asarray(ids, dtype=np.int32)}
            if any(encoded.get("token_type_ids", [[]] * (number + 1))[number]):
                inputs["token_type_ids"] = np.asarray(encoded["token_type_ids"][number], dtype=np.int32)
            of_text = np.asarray([side == 1 for side in encoded.sequence_ids(number)])
            offsets = np.asarray(encoded["offset_mapping"][number], dtype=np.int32)
            found.append((inputs, np.where(of_text[:, None], offsets, -1)))
        return found, shown != question

    def _beginning_of(self, text: str, tokens: int) -> str:
        """As much of a text as takes at most so many tokens."""
        allowed = tokens
        while True:
            encoded = self.processor(
                text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
            )
            if len(encoded["input_ids"]) <= tokens:
                return text
            # Trap: what is cut off may have changed how the rest is divided into tokens.
            text = text[: encoded["offset_mapping"][allowed - 1][1]]
            allowed -= 1

    def beginning(self, example: Example, tokens: int) -> Example:
        begun, window = super().beginning(example, tokens), example.target
        span = window.span if window.span[1] < tokens else (0, 0)
        begun.target = replace(window, offsets=window.offsets[:tokens], span=span)
        return begun

    def collate(self, examples: Sequence[Example]) -> Batch:
        inputs = _text.pad(examples, self.processor)
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        windows = [e.target for e in examples]
        spans = torch.tensor([w.span for w in windows], dtype=torch.int64)
        size = int(inputs["input_ids"].numel())
        return Batch(inputs, _Targets(spans, windows), rows, {"rows": float(len(examples))}, size)

    # the model's answers -----------------------------------------------------------------------------------------

    def predict(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Logits of first and last token, (batch, length, 2)."""
        output = model(**batch.inputs)
        return torch.stack([output.start_logits, output.end_logits], dim=-1)

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = self.predict(model, batch)
        # Padding is no place for an answer; it would take part in the softmax.
        masked = logits.float().masked_fill(batch.inputs["attention_mask"].unsqueeze(-1) == 0, -1e4)
        total = F.cross_entropy(masked.transpose(1, 2).flatten(0, 1), batch.targets.spans.flatten(), reduction="sum")
        return LossOutput({"loss": LossTerm(total / 2)}, logits)

    def _best(self, outputs: torch.Tensor, batch: Batch) -> list[_Found]:
        logits = outputs.detach().float().cpu().numpy()
        return [self._best_of(logits[i, : len(w.offsets)], w) for i, w in enumerate(batch.targets.windows)]

    def _best_of(self, logits: np.ndarray, window: _Window) -> _Found:
        """The best span of a window's own tokens, no longer than answers may be."""
        places = np.flatnonzero(window.offsets[:, 0] >= 0)
        none_score = float(logits[0].sum())
        if not len(places):
            return _Found("", 0, 0, -np.inf, none_score, 0.0)
        first, count = int(places[0]), len(places)
        starts, ends = logits[places, 0], logits[places, 1]
        pairs = starts[:, None] + ends[None, :]
        distance = np.arange(count)[None, :] - np.arange(count)[:, None]
        pairs = np.where((distance >= 0) & (distance < self._longest), pairs, -np.inf)
        a, b = divmod(int(pairs.argmax()), count)
        start, end = int(window.offsets[first + a, 0]), int(window.offsets[first + b, 1])
        peaks = logits.max(axis=0)
        chances = np.exp(logits - peaks) / np.exp(logits - peaks).sum(axis=0)
        sure = float(chances[first + a, 0] * chances[first + b, 1])
        return _Found(window.context[start:end], start, end, float(pairs[a, b]), none_score, sure)

    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        return [self._prediction(int(row), f) for row, f in zip(batch.rows, self._best(outputs, batch), strict=True)]

    def _prediction(self, row: int, found: _Found) -> _Answer:
        """The answer, empty for none; in `extra` its characters in the text, as the Hub's pipelines name them."""
        is_given = self._is_given(found)
        extra = {"start": found.start, "end": found.end} if is_given else {"start": 0, "end": 0}
        text = found.text if is_given else ""
        return _Answer(
            row, text, found.probability if is_given else None, extra=extra, shown=text or "(no answer)", found=found
        )

    def merge(self, parts: Sequence[Prediction]) -> list[Prediction]:
        return [self._prediction(parts[0].row, _best_window([p.found for p in parts if isinstance(p, _Answer)]))]

    def _is_given(self, found: _Found) -> bool:
        return not self.targets.has_unanswerable or found.score - found.none_score > self.targets.threshold

    # scores ------------------------------------------------------------------------------------------------------

    def metric(self) -> _AnswerMetric:
        return _AnswerMetric(self)

    @property
    def selection(self) -> tuple[str, bool]:
        return "answer_f1", True

    @property
    def chooses_on_validation(self) -> bool:
        return bool(self.targets.has_unanswerable)

    def adjust(self, metric: Any) -> None:
        """Choose the threshold of no answer on the validation rows that `metric` has seen."""
        if self.targets.has_unanswerable:
            self.targets = replace(self.targets, threshold=metric.best_threshold())

    # for people --------------------------------------------------------------------------------------------------

    def answers(self, outputs: torch.Tensor, batch: Batch) -> list[_Found]:
        return self._best(outputs, batch)

    def whole_answer(self, parts: Sequence[_Found]) -> str:
        found = _best_window(parts)
        return found.text if self._is_given(found) else ""

    def mistake(self, row: Row, answer: str) -> tuple[str, str] | None:
        true = _answers_in(row, str(self.roles.label)) or []
        if scores(answer, true)[0] == 1:
            return None
        return " / ".join(dict.fromkeys(true)) or "(no answer)", answer or "(no answer)"

    def surprise(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Negative log-probability of a window's span, in nats, (batch,)."""
        masked = outputs.float().masked_fill(batch.inputs["attention_mask"].unsqueeze(-1) == 0, -1e4)
        losses = F.cross_entropy(masked.transpose(1, 2).flatten(0, 1), batch.targets.spans.flatten(), reduction="none")
        return losses.reshape(-1, 2).sum(-1).cpu().numpy()

    def target_shown(self, target: _Window) -> str:
        start, end = target.span
        held = target.context[target.offsets[start, 0] : target.offsets[end, 1]] if end else ""
        return f"{held!r}, tokens {start} to {end}" if held else "no answer in this window"

    def sample_rows(self) -> list[dict[str, Any]]:
        harbour = "The train to the coast leaves every hour. It stops at the old harbour."
        kitchen = "She opened the window because the kitchen smelled of burnt sugar."
        return [
            {"question": "How often does the train leave?", "context": harbour, "answers": ["every hour"]},
            {"question": "Where does it stop?", "context": harbour, "answers": ["the old harbour", "old harbour"]},
            {"question": "What did she open?", "context": kitchen, "answers": ["the window"]},
            {"question": "What did the kitchen smell of?", "context": kitchen, "answers": ["burnt sugar"]},
        ]


_HEAD: dict[str, Any] = {"n_labels": 2, "problem_type": None, "id2label": {0: "LABEL_0", 1: "LABEL_1"}}


def _column(columns: Sequence[str], names: Sequence[str], what: str, role: str) -> str:
    found = next((c for name in names for c in columns if c.casefold() == name), None)
    if found is None:
        value = "COLUMN" if role == "label" else "'[QUESTION, TEXT]'"
        what = f"no column holds the {what}: {', '.join(columns)}"
        raise DataError("DATA-COLUMN", what, remedy=f"--set data.{role}={value}")
    return found


def _text_in(row: Row, column: str) -> str:
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError("DATA-ROW", f"there is no text in column '{column}'", where=row.place)
    return value


def _answers_in(row: Row, column: str) -> list[str] | None:
    """The true answers: a text, a list of texts, or the Hub's ``{"text": [...], "answer_start": [...]}``."""
    value = row.values.get(column)
    if isinstance(value, dict):
        value = value.get("text")
    if value is None:
        return None
    if isinstance(value, str):
        return [value] if value.strip() else []
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        what = f"column '{column}' holds neither a text nor a list of texts"
        raise DataError("DATA-LABEL", what, where=row.place)
    return [text for text in value if text.strip()]


def _place_of_answer(row: Row, context: str, answers: Sequence[str]) -> tuple[int, int] | None:
    """Characters of the answer that is trained on: the first that stands in the text, nearest to where it is said to.

    None where none does.
    """
    for number, text in enumerate(answers):
        places = _occurrences(text, context)
        if places:
            said = _start_in(row, number) or 0
            start = min(places, key=lambda place: abs(place - said))
            return start, start + len(text)
    return None


def _occurrences(text: str, context: str) -> list[int]:
    found, at = [], context.find(text)
    while at >= 0:
        found.append(at)
        at = context.find(text, at + 1)
    return found


def _start_in(row: Row, number: int) -> int | None:
    holders = [value for value in row.values.values() if isinstance(value, dict) and "answer_start" in value]
    value: Any = holders[0]["answer_start"] if holders else None
    if value is None:
        value = next((row.values[name] for name in START_NAMES if row.values.get(name) is not None), None)
    starts = value if isinstance(value, list) else [value]
    found = starts[number] if number < len(starts) else None
    if isinstance(found, str) and found.strip().isdecimal():
        found = int(found)  # CSV files hold text alone
    return int(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _tokens_of(characters: tuple[int, int] | None, offsets: np.ndarray) -> tuple[int, int]:
    """First and last token that an answer's characters touch; 0, 0 where the window does not show all of them."""
    if characters is None:
        return 0, 0
    start, end = characters
    places = np.flatnonzero(offsets[:, 0] >= 0)
    if not len(places) or offsets[places[0], 0] > start or offsets[places[-1], 1] < end:
        return 0, 0
    touched = places[(offsets[places, 1] > start) & (offsets[places, 0] < end)]
    return (int(touched[0]), int(touched[-1])) if len(touched) else (0, 0)


@dataclass
class _AnswerMetric:
    """Joins the windows of a row, and counts it once it is whole; also what the threshold is chosen from."""

    task: QuestionAnswering
    rows: WholeRows[_Found] = field(default_factory=WholeRows)

    def __post_init__(self) -> None:
        self.state = AnswerState(self.task.targets.has_unanswerable)
        # By the difference between answer and none: what an answer, and what none, would score.
        self.sums = np.zeros((2, len(_EDGES) + 1))

    def update(self, outputs: torch.Tensor, batch: Batch) -> None:
        said, true, rows = [], [], []
        found = self.task._best(outputs, batch)
        for row, window, best in zip(batch.rows, batch.targets.windows, found, strict=True):
            whole = self.rows.add(int(row), best, window.windows)
            if whole is None:
                continue
            best = _best_window(whole)
            given = best.text if self.task._is_given(best) else ""
            known = list(window.answers or ())
            said.append(given)
            true.append(known)
            rows.append(int(row))
            place = int(np.searchsorted(_EDGES, best.score - best.none_score))
            self.sums[:, place] += scores(best.text, known)[1], scores("", known)[1]
        if rows:
            self.state.update(said, true, np.asarray(rows, dtype=np.int64))

    def best_threshold(self) -> float:
        """Where F1 over all questions is highest; the middle of the best stretch."""
        answered, none = self.sums
        # With edge k as threshold, differences in places 0 to k get no answer.
        totals = np.cumsum(none)[:-1] + answered.sum() - np.cumsum(answered)[:-1]
        best = np.flatnonzero(totals >= totals.max() - 1e-9)
        return float(_EDGES[best[len(best) // 2]])

    def merge(self, other: _AnswerMetric) -> None:
        self.rows.check_merge(other.rows)
        self.state.merge(other.state)
        self.sums = self.sums + other.sums

    def compute(self) -> dict[str, float | None]:
        return self.state.compute()

    def intervals(self) -> dict[str, tuple[float, float]]:
        return self.state.intervals()

    def details(self) -> dict[str, Any]:
        return {"reasons": dict(self.state.reasons)}
