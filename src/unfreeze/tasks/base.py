"""The task contract: what a row means. Loops, devices and checkpoints are not its business.

A task is *bound* once, before any row is encoded: to the roles of the columns, to what it learned from the training
rows (`learn`), to the processor (tokenizer) and to the longest input. From then on

::

    encode(row) -> [Example] -> collate -> Batch -> loss    (training and evaluation)
                                                 -> predict -> decode -> [Prediction]    (everywhere else)

is the same code in training, evaluation, report and serving. The bound state is stored with the model
(``unfreeze.json``) and read back by `Task.restore`.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from unfreeze.data.columns import Roles, joined_texts
from unfreeze.data.quality import is_missing
from unfreeze.errors import DataError, RecipeError, TaskError, did_you_mean
from unfreeze.types import Batch, Example, LossOutput, Prediction, Row

if TYPE_CHECKING:
    import torch

    from unfreeze.baselines import Baseline
    from unfreeze.data.table import Table
    from unfreeze.metrics import PairedState
    from unfreeze.models.loading import LoadedModel, ModelSource
    from unfreeze.recipe import DataRecipe


class Metric(Protocol):
    """A mergeable state: its size does not depend on the number of rows."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Count one batch."""

    def merge(self, other: Any) -> None:
        """Add another state of the same kind."""

    def compute(self) -> dict[str, float | None]:
        """Name to value; None where a value is not defined."""

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Name to 95 % bootstrap interval, for the metrics that have one."""

    def details(self) -> dict[str, Any]:
        """More than numbers, as plain data: per class, confusion, calibration."""


class Targets(Protocol):
    """What a task has learned from the training rows alone, as plain data.

    Attributes:
        labels: Names of the classes; empty where there are none. The plan counts them, and a resume compares them.
        problem_type: What kind of answer there is, in words for the plan.
        reason: Why, a sentence for the plan.
    """

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def problem_type(self) -> str: ...
    @property
    def reason(self) -> str: ...
    def to_json(self) -> Any:
        """For ``unfreeze.json``; see `Task.restore_targets`."""


@dataclasses.dataclass(frozen=True)
class Material:
    """What the baselines learn from and are asked.

    Attributes:
        train, test: Tables.
        features: Of both, by the untouched pretrained model, (rows, width) each; computed when it is called.
        answers: Of the untouched pretrained model to the test rows, as `Task.answers` gives them, one a row; likewise.
        seed: Of the run.
    """

    train: Table
    test: Table
    features: Callable[[], tuple[np.ndarray, np.ndarray]]
    answers: Callable[[], Sequence[Any]]
    seed: int


@dataclasses.dataclass
class Task(ABC):
    """Base of all tasks; the fields of a subclass are its options.

    Class attributes:
        name: The Hub's name of the task.
        modality: ``text``, ``image`` or ``audio``.
        primary_metric: What the summary leads with.
        couples_rows: Whether rows of a batch depend on each other (contrastive losses); such batches are never split.
        input_role: The recipe's name for the columns that are read: ``data.text``, ``data.image``.
        augments: Whether `augment` draws.
        varies_recorded_rows: Whether it must in every phase, so that none can be recorded; otherwise phases that are
            recorded see the rows as they are.
        compares_with: Names of the `baselines`, where there are any.
        decodes_labels: Whether answers are label ids, 0/1 vectors or numbers, with `is_wrong` and `name_of`.
        needs_label: Whether training rows must have a label.
        most_tokens: The longest input unless the recipe asks for another.
        splits_long_rows: Whether `encode` gives several examples for a row beyond the limit, rather than cutting it.
        brings_its_head: Whether a checkpoint's own head is trained on, so that no phase begins with the head alone.
        measures_answers: Whether its figures are of the answers it gives; else of the tokens that its loss asks for.
        answers_every_token: Whether the head reads every token of a text, not one vector of it.
        answer_axis: Of what `predict` gives, along which the largest number is the answer.
        generates: Whether an answer is written a token at a time, by many forwards: evaluations while training then do
            without answers, and the model must be one that writes.
    """

    name: ClassVar[str]
    modality: ClassVar[str] = "text"
    input_role: ClassVar[str] = "text"
    primary_metric: ClassVar[str]
    couples_rows: ClassVar[bool] = False
    augments: ClassVar[bool] = False
    varies_recorded_rows: ClassVar[bool] = True
    compares_with: ClassVar[tuple[str, ...]] = ()
    decodes_labels: ClassVar[bool] = False
    needs_label: ClassVar[bool] = True
    most_tokens: ClassVar[int] = 512
    splits_long_rows: ClassVar[bool] = False
    brings_its_head: ClassVar[bool] = False
    answers_every_token: ClassVar[bool] = False
    answer_axis: ClassVar[int] = -1
    generates: ClassVar[bool] = False
    measures_answers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.roles: Roles = Roles(text=(), label=None, group=None, reasons={})
        self.targets: Any = None
        self.processor: Any = None
        self.max_length: int = 512
        self.allows_remote_code = False  # the permission of the command line

    @classmethod
    def with_options(cls, options: dict[str, Any]) -> Self:
        """An instance with the recipe's ``options``.

        Raises:
            RecipeError: E-RECIPE-KEY for an option the task does not have.
        """
        known = [f.name for f in dataclasses.fields(cls) if f.init]
        for key in options:
            if key not in known:
                raise RecipeError(
                    "RECIPE-KEY",
                    f"the task {cls.name} has no option '{key}'",
                    where=f"options.{key}",
                    remedy=did_you_mean(key, known),
                )
        return cls(**options)

    @property
    def default_model(self) -> str | None:
        """What is trained where no model is named: that of the modality that ships with unfreeze.

        None: there is none, or it cannot do this.
        """
        from unfreeze.models import catalog

        return f"builtin:{self.modality}" if self.modality in catalog.BUILTIN and not self.generates else None

    def check_option(self, name: str, is_right: bool, rule: str, remedy: str | None = None) -> None:
        """Refuse an option whose value breaks its rule, which goes on "... is".

        Raises:
            TaskError: E-TASK.
        """
        if not is_right:
            what = f"{name} is {rule}, not {getattr(self, name)!r}"
            raise TaskError("TASK", what, where=f"options.{name}", remedy=remedy)

    # binding -----------------------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, table: Table) -> str | None:
        """Why these rows can only be meant for this task, as a sentence; None: they may be for another.

        Asked where the user names no task.
        """
        return None

    @abstractmethod
    def find_roles(self, table: Table, asked: DataRecipe | None, *, needs_label: bool) -> Roles:
        """Which columns mean what; what the user named is checked, the rest is guessed."""

    @abstractmethod
    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> Any:
        """What the training rows alone say about the targets: the label space, an alphabet.

        Returns:
            See `Targets`; None where there is nothing to learn.
        """

    @abstractmethod
    def restore_targets(self, stored: Any) -> Any:
        """Targets from their JSON form."""

    def contents(self, table: Table, roles: Roles) -> Iterator[str]:
        """What each row is about, by which equal rows are found; its normalised form is compared."""
        return joined_texts(table, roles)

    def files_read(self, roles: Roles) -> tuple[str, ...]:
        """Columns whose files are opened, of rows that name files."""
        return roles.text

    def unreadable(self, table: Table, roles: Roles) -> dict[int, DataError]:
        """Rows whose inputs cannot be read, by position, and why: files that are damaged."""
        return {}

    def longest_input(self, asked: int | None, train: Table, config: Any) -> tuple[int, str]:
        """The longest input in tokens, and why: what was asked, or what the data needs within the model's limit.

        Raises:
            RecipeError: E-RECIPE-VALUE, more was asked than the model takes.
        """
        from unfreeze.tasks import _text

        return _text.longest_input(self, asked, train, config, in_parts=self.splits_long_rows)

    def planned(self) -> list[tuple[str, Any, str]]:
        """What the plan shows of the task's own choices, once it is bound: recipe key, value, and why."""
        return []

    def warnings(self, train: Table) -> list[str]:
        """What a person should look at in the training rows, beside what the facts find; the task is bound."""
        return []

    def is_unlabelled(self, value: Any) -> bool:
        """Whether a value of the label column is none."""
        return is_missing(value)

    def completed(self, table: Table, label: str) -> Table:
        """Rows of a split that has the label under other names than the training rows; else as they are."""
        return table

    def keeps_together(self, table: Table, roles: Roles) -> Sequence[Hashable] | None:
        """A value for each row; rows of equal values stay on one side of a split, beside the user's groups."""
        return None

    def strata(self, table: Table, roles: Roles) -> np.ndarray | None:
        """What a hold-out keeps in equal shares, an id a row, (rows,); None: it is drawn plainly."""
        return None

    def labels_to_keep(
        self, table: Table, roles: Roles, names: Sequence[str] | None
    ) -> Sequence[Collection[str]] | None:
        """The labels of each row, each of which keeps a row to learn from; None: nothing of the kind.

        Args:
            table, roles: Rows, before the task is bound.
            names: Of the classes, where the data lists them.
        """
        return None

    def continue_from(self, targets: Any, config: Any, name: str) -> tuple[Any, list[str]]:
        """Targets as the head of a model that was fine-tuned before has them, and what is to be said of it.

        Args:
            targets: From `learn`.
            config: Of the model.
            name: The model's, for the sentences.
        """
        return targets, []

    def relabelled(self, table: Table, names: Sequence[str]) -> Table:
        """Rows of other data, whose ids count names of its own, with labels as the training rows have them.

        Args:
            table: The task is bound to its columns.
            names: What the other data calls its classes, in the order that its ids count.
        """
        return table

    def check_labels(self, table: Table, split: str) -> None:  # noqa: B027
        """Refuse validation or test rows whose labels the training rows do not have; the task is bound.

        Raises:
            DataError: E-DATA-LABEL-UNSEEN, with labels, counts and a place.
        """

    def label_names(self, table: Table) -> list[Any] | None:
        """Every row's label as the facts count them: a name, a list of names, or a number; None: nothing to count."""
        return None

    def load_processor(self, source: ModelSource) -> Any:
        """The tokenizer or feature extractor of a checkpoint."""
        from unfreeze.models.loading import load_processor

        return load_processor(source, allow_remote_code=self.allows_remote_code)

    def reading(self, roles: Roles) -> Self:
        """This bound task for rows whose columns are called otherwise; the task itself stays as it is."""
        found = copy.copy(self)
        found.roles = roles
        return found

    def bind(self, *, roles: Roles, targets: Any, processor: Any, max_length: int) -> Self:
        """Fix everything that `encode` needs."""
        self.roles, self.targets, self.processor, self.max_length = roles, targets, processor, max_length
        return self

    def stored(self) -> dict[str, Any]:
        """The bound state as plain data, for ``unfreeze.json``."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return {
            "task": self.name,
            "options": options,
            "roles": {"text": list(self.roles.text), "label": self.roles.label, "group": self.roles.group},
            "targets": self.targets.to_json() if self.targets is not None else None,
            "max_length": self.max_length,
        }

    @classmethod
    def restore(cls, stored: dict[str, Any], processor: Any) -> Self:
        """The bound task that `stored` described."""
        task = cls.with_options(stored["options"])
        roles, label = stored["roles"], stored["roles"]["label"]
        return task.bind(
            roles=Roles(
                text=tuple(roles["text"]),
                label=tuple(label) if isinstance(label, list) else label,
                group=roles["group"],
                reasons={},
            ),
            targets=task.restore_targets(stored["targets"]),
            processor=processor,
            max_length=stored["max_length"],
        )

    # the model ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def build(self, source: ModelSource, config: Any) -> LoadedModel:
        """The pretrained model with the head this task needs."""

    @abstractmethod
    def skeleton(self, config: Any) -> torch.nn.Module:
        """The same model without pretrained weights, on torch's default device; the plan calls it on ``meta``.

        In float32 whatever type the configuration names: that is the type of stored files, which may be float16.
        """

    # rows --------------------------------------------------------------------------------------------------------

    def row_values(self, item: Any, place: str) -> dict[str, Any]:
        """The columns of an input that is no row: a text, or a tuple of texts where several columns are read.

        Raises:
            DataError: E-DATA-ROW.
        """
        columns = self.roles.text
        if not isinstance(item, str | Sequence):
            what = f"an input is a text, a tuple of texts or a row, not {type(item).__name__}"
            raise DataError("DATA-ROW", what, where=place)
        parts = [item] if isinstance(item, str) else list(item)
        if len(parts) != len(columns):
            raise DataError(
                "DATA-ROW",
                f"the model reads {len(columns)} texts ({', '.join(columns)}), {len(parts)} were given",
                where=place,
            )
        return dict(zip(columns, parts, strict=True))

    @abstractmethod
    def encode(self, row: Row, *, train: bool) -> list[Example]:
        """Model inputs of one row; a pure function of the row.

        Args:
            row: Its label may be missing where `train` is False.
            train: Whether the label is needed.

        Raises:
            DataError: With the row's place.
        """

    def augment(self, example: Example, generator: np.random.Generator) -> Example:
        """A random variant for training; drawn anew for every (seed, epoch, row, part)."""
        return example

    @property
    def mixes(self) -> bool:
        """Whether a varied training row is mixed with another, by `mixed`."""
        return False

    def mixed(self, example: Example, other: Example, generator: np.random.Generator) -> Example:
        """A varied row mixed with another varied row, target and all; drawn anew as for `augment`."""
        raise NotImplementedError(f"{self.name} does not say how rows are mixed")

    def beginning(self, example: Example, tokens: int) -> Example:
        """The first tokens of an example, for trials of the model; its target must fit what is left."""
        inputs = {name: values[:tokens] for name, values in example.inputs.items()}
        return dataclasses.replace(
            example, inputs=inputs, length=min(tokens, example.length), is_cut=False, origin=None
        )

    @property
    def recorded_views(self) -> int:
        """Variants of each training row that phases on recorded inputs take in turn, an epoch each; see `view`."""
        return 1

    def view(self, example: Example, number: int) -> Example:
        """A variant of a training row; number 0 is the row as it is. The same in every run."""
        assert number == 0, f"{self.name} has one view of a row"
        return example

    def without_content(self, example: Example) -> Example:
        """The example as phases on recorded inputs see it, where the model reads nothing of it.

        A task whose content takes time to read (pictures, sound) leaves it unread; shapes and targets stay.
        """
        return example

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pad to the longest and stack; `Batch.weights` gets the normalisers of the loss."""

    # the model's answers -----------------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        """Loss sums and the raw outputs of one forward."""

    def predict(self, model: torch.nn.Module, batch: Batch) -> Any:
        """Raw outputs of one forward, without labels."""
        return model(**batch.inputs).logits

    def answer(self, model: torch.nn.Module, batch: Batch, outputs: Any = None) -> Any:
        """What `decode`, the metric and `answers` are given: the raw outputs, unless the task `generates`.

        Args:
            model, batch: As for `predict`.
            outputs: Of `loss` on this batch, where it was called.
        """
        return outputs if outputs is not None else self.predict(model, batch)

    @abstractmethod
    def decode(self, outputs: Any, batch: Batch) -> list[Prediction]:
        """Answers a person can read, one for each example."""

    def merge(self, parts: Sequence[Prediction]) -> Sequence[Prediction]:
        """The answer to one row that was read in several parts, in order; a task that reads rows so joins them."""
        assert len(parts) == 1, f"{self.name} reads a row in parts and does not say how their answers are joined"
        return parts

    # beside baselines, and for people ----------------------------------------------------------------------------

    def answers(self, outputs: Any, batch: Batch) -> Sequence[Any] | None:
        """Each example's answer as the baselines give theirs; None: answers are not compared and not shown."""
        return None

    def whole_answer(self, parts: Sequence[Any]) -> Any:
        """The answer to one row from those to its examples."""
        return parts[0]

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        """What the model must beat, by name; each is made when it is called."""
        return {}

    def comparison(self, table: Table, answers: Sequence[Any]) -> Callable[[Baseline], PairedState]:
        """Sets a baseline's answers beside those of the model, one a row of `table`."""
        raise NotImplementedError(f"{self.name} has baselines and does not say how they are compared")

    def shown(self, row: Row) -> str:
        """A row's inputs as a person reads them."""
        return "\n".join(str(row.values[column]) for column in self.roles.text)

    def thumbnail(self, row: Row, answer: Any = None) -> str:
        """A row's inputs, and an answer that is drawn, as a small picture, a data URI; empty where they are none."""
        return ""

    @property
    def legend(self) -> list[tuple[str, str]]:
        """What the colours of `thumbnail` stand for, each with its colour as ``#rrggbb``; empty where it has none."""
        return []

    def input_shown(self, example: Example) -> str:
        """An example's inputs as a person reads them."""
        from unfreeze.tasks import _text

        return _text.tokens_shown(self.processor, example)

    def target_shown(self, target: Any) -> str:
        """An example's target as a person reads it."""
        return repr(target)

    def mistake(self, row: Row, answer: Any) -> tuple[str, str] | None:
        """What was right and what was answered, as a person reads it; None where the answer is right."""
        return None

    def surprise(self, outputs: Any, batch: Batch) -> np.ndarray:
        """How wrong each answer is, (batch,), so that the worst mistakes can be shown; empty: not known."""
        return np.empty(0)

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh state."""

    def adjust(self, metric: Any) -> None:  # noqa: B027
        """Choose what is chosen on validation rows (thresholds) once training has ended; `metric` has seen them."""

    def finish(self, model: torch.nn.Module) -> None:  # noqa: B027
        """Fold into the weights what other tools would not know, before the model is written."""

    @property
    def rows_in_one(self) -> int:
        """How many sequences go through the model for one row while its answer is written: the beams of a search."""
        return 1

    @property
    def tokens_written(self) -> int:
        """The most tokens that are generated to answer one row, where the task `generates`."""
        return 0

    @property
    def chooses_on_validation(self) -> bool:
        """Whether `adjust` chooses anything; if not, the pass over the validation rows for it is left out."""
        return False

    @property
    def selection(self) -> tuple[str, bool]:
        """The metric that chooses the best weights, and whether more of it is better."""
        return "loss", False

    @property
    def headline_metric(self) -> str:
        """What the summary leads with; `primary_metric` unless the targets call for another."""
        return self.primary_metric

    @abstractmethod
    def sample_rows(self) -> list[dict[str, Any]]:
        """A few rows with labels, for documents and contract tests."""
