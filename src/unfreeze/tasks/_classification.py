"""What classification and regression of anything share: their label space, loss, answers and scores.

A task of texts, images or sound adds how a row becomes inputs, and which model class carries the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from unfreeze.baselines import Baseline, linear_probe, majority
from unfreeze.data.columns import Roles
from unfreeze.data.quality import is_missing
from unfreeze.errors import DataError, RecipeError, TaskError, did_you_mean
from unfreeze.metrics import ClassificationState, MultiLabelState, PairedState, RegressionState
from unfreeze.tasks._labels import (
    LabelSpace,
    ProblemType,
    guess_problem_type,
    is_unlabelled,
    labels_in,
    learn_labels,
)
from unfreeze.tasks._parts import WholeRows
from unfreeze.tasks._trained_before import continued
from unfreeze.tasks.base import Material, Task
from unfreeze.types import Batch, Example, LossOutput, LossTerm, Prediction, Row, is_number

if TYPE_CHECKING:
    from unfreeze.data.table import Table


@dataclass(frozen=True)
class MixedTarget:
    """Targets of two rows that were mixed, and the share of the first."""

    first: Any
    second: Any
    share: float


@dataclass
class ClassificationTask(Task):
    """One class, several classes or a number for a row.

    Options:
        problem_type: ``single_label_classification``, ``multi_label_classification`` or ``regression``; None: read
            off the labels (see `unfreeze.tasks._labels`).
        class_weights: Class name to weight in the loss, or ``balanced``: inversely to the class's training rows.
        label_smoothing: Share of the target spread over all classes (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    Loss: cross-entropy, binary cross-entropy over classes, or squared error in units of the training rows' variance.
    """

    primary_metric: ClassVar[str] = "accuracy"
    decodes_labels: ClassVar[bool] = True

    problem_type: ProblemType | None = None
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        is_share = is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1
        remedy = "--set train.label_smoothing=0.1"
        self.check_option("label_smoothing", is_share, "a share from 0 to below 1", remedy)

    @property
    def averages_windows(self) -> bool:
        """Whether a row may be read in several windows, whose answers are averaged."""
        return False

    # what the labels are -----------------------------------------------------------------------------------------

    def is_unlabelled(self, value: Any) -> bool:
        return is_unlabelled(value, self.problem_type)

    def learn(self, train: Table, roles: Roles, label_names: Sequence[str] | None) -> LabelSpace:
        columns = roles.label if isinstance(roles.label, tuple) else ()
        if columns:
            values: Sequence[Any] = list(zip(*(train.column(c) for c in columns), strict=True))
        else:
            values = train.column(str(roles.label))
        space = learn_labels(
            values,
            columns=columns,
            names=label_names,
            problem_type=self.problem_type,
            where=f"column '{roles.label}'",
            place=train.place,
        )
        self._check_class_weights(space)
        if self.label_smoothing and space.problem_type != "single_label_classification":
            what = f"label smoothing does not apply to {space.problem_type}"
            raise TaskError("TASK", what, where="train.label_smoothing", remedy="leave it out")
        return space.of_rows(len(train))

    def restore_targets(self, stored: Any) -> LabelSpace:
        return LabelSpace.from_json(stored)

    def _check_class_weights(self, space: LabelSpace) -> None:
        if self.class_weights is None:
            return
        if space.problem_type != "single_label_classification":
            raise TaskError("TASK", f"class weights do not apply to {space.problem_type}", where="train.class_weights")
        for name in self.class_weights if isinstance(self.class_weights, dict) else ():
            if name not in space.labels:
                remedy = did_you_mean(name, space.labels)
                raise RecipeError(
                    "RECIPE-VALUE", f"there is no class {name!r}", where="train.class_weights", remedy=remedy
                )

    def weights_of_classes(self) -> np.ndarray | None:
        """Loss weight of each class, (classes,), mean 1 over the training rows; None where all weigh the same."""
        space: LabelSpace = self.targets
        if self.class_weights is None:
            return None
        counts = np.maximum(np.asarray(space.counts, dtype=np.float64), 1)
        if self.class_weights == "balanced":
            return counts.sum() / (len(counts) * counts)
        given = np.asarray([self.class_weights.get(name, 1.0) for name in space.labels])
        return given * counts.sum() / (given * counts).sum()

    def strata(self, table: Table, roles: Roles) -> np.ndarray | None:
        """Class ids; numbers and rare combinations are not stratified."""
        if not isinstance(roles.label, str):
            return None
        position: dict[str, int] = {}
        ids = np.asarray([position.setdefault(str(v), len(position)) for v in table.column(roles.label)], np.int64)
        return ids if len(position) <= max(2, len(ids) // 3) else None

    def labels_to_keep(self, table: Table, roles: Roles, names: Sequence[str] | None) -> list[set[str]] | None:
        if not isinstance(roles.label, str):
            return None
        values = [v for v in table.column(roles.label) if not is_missing(v)]
        if not values or (kind := self.problem_type or guess_problem_type(values, names)[0]) == "regression":
            return None
        return [labels_in(value, kind) for value in table.column(roles.label)]

    def label_names(self, table: Table) -> list[Any]:
        return [self.targets.names(row, self.roles.label) for row in table]

    def continue_from(self, targets: LabelSpace, config: Any, name: str) -> tuple[LabelSpace, list[str]]:
        return continued(targets, config, name)

    def relabelled(self, table: Table, names: Sequence[str]) -> Table:
        label = self.roles.label
        return self.targets.relabelled(table, label, names) if isinstance(label, str) else table

    def check_labels(self, table: Table, split: str) -> None:
        """A label that only validation or test rows have can neither be learned nor scored."""
        space: LabelSpace = self.targets
        if not isinstance(self.roles.label, str) or space.problem_type == "regression":
            return
        unseen: dict[str, list[str]] = {}
        for row in table:
            try:
                space.target(row, self.roles.label)
            except DataError as error:
                if error.code != "DATA-LABEL-UNSEEN":
                    raise
                unseen.setdefault(str(row.values[self.roles.label]), []).append(row.place)
        if unseen:
            listed = "; ".join(f"{k!r} ({len(v)} rows, first {v[0]})" for k, v in sorted(unseen.items())[:8])
            raise DataError(
                "DATA-LABEL-UNSEEN",
                f"labels of the {split} rows that no training row has: {listed}",
                where=next(iter(unseen.values()))[0],
                remedy=did_you_mean(next(iter(unseen)), space.labels) + "\nor add training rows with these labels",
            )

    # the head ----------------------------------------------------------------------------------------------------

    def _head(self) -> dict[str, Any]:
        space: LabelSpace = self.targets
        names = dict(enumerate(space.labels or ("value",)))
        return {"n_labels": space.width, "problem_type": space.problem_type, "id2label": names}

    @property
    def _may_keep_head(self) -> bool:
        """A regression head that gives values in the data's unit (see `finish`) cannot go on with scaled targets."""
        return self.targets.scale == 1.0

    def finish(self, model: torch.nn.Module) -> None:
        """Let a regression head give values in the data's unit, so that any tool reads them right.

        The heads of decoders have no bias: there the centre stays with the task, and other tools read values around 0.
        """
        space: LabelSpace = self.targets
        if space.problem_type != "regression" or (space.center, space.scale) == (0.0, 1.0):
            return
        output = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1][-1]
        with torch.no_grad():
            output.weight.mul_(space.scale)
            if output.bias is not None:
                output.bias.mul_(space.scale).add_(space.center)
        self.targets = space.unscaled(center=space.center if output.bias is None else 0.0)

    # rows --------------------------------------------------------------------------------------------------------

    def _target_of(self, row: Row, *, train: bool) -> Any:
        """A label is not looked at unless it is needed: rows to predict may have any column of that name."""
        target = self.targets.target(row, self.roles.label) if train else None
        if target is None and train:
            raise DataError("DATA-LABEL", f"there is no label in column {self.roles.label!r}", where=row.place)
        return target

    def _batch(self, inputs: dict[str, torch.Tensor], examples: Sequence[Example], size_tokens: int) -> Batch:
        """Inputs of all examples, with their targets where all have one."""
        rows = np.asarray([e.row for e in examples], dtype=np.int64)
        parts = np.asarray([e.parts for e in examples], dtype=np.int64) if self.averages_windows else None
        shares = np.ones(len(examples)) if parts is None else 1 / parts
        targets, weight = None, float(shares.sum())
        if all(e.target is not None for e in examples):
            single = self.targets.problem_type == "single_label_classification"
            class_weights = self.weights_of_classes() if single else None
            if any(isinstance(e.target, MixedTarget) for e in examples):
                array = np.stack([self._as_shares(e.target) for e in examples])
                of_rows = None if class_weights is None else array @ class_weights
            else:
                array = np.asarray([e.target for e in examples], dtype=np.int64 if single else None)
                of_rows = None if class_weights is None else class_weights[array]
            targets = torch.from_numpy(array if array.dtype == np.int64 else array.astype(np.float32))
            if of_rows is not None:
                weight = float((of_rows * shares).sum())
        return Batch(inputs, targets, rows, {"rows": weight}, size_tokens, parts=parts)

    def _as_shares(self, target: Any) -> np.ndarray:
        """How much of each class a target has, (classes,)."""
        if isinstance(target, MixedTarget):
            first, second = self._as_shares(target.first), self._as_shares(target.second)
            return np.asarray(target.share * first + (1 - target.share) * second)
        if self.targets.problem_type == "single_label_classification":
            return np.eye(self.targets.width)[int(target)]
        return np.asarray(target, dtype=np.float64)

    # the model's answers -----------------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossOutput:
        logits = model(**batch.inputs).logits  # (batch, classes)
        if batch.parts is None:
            total = self._losses(logits.float(), batch.targets, "sum")
        else:
            # Each row counts as one, however many windows it has.
            losses = self._losses(logits.float(), batch.targets, "none")
            total = (losses.reshape(len(losses), -1).sum(1) / torch.from_numpy(batch.parts).to(losses)).sum()
        return LossOutput({"loss": LossTerm(total)}, logits)

    def _losses(self, logits: torch.Tensor, targets: torch.Tensor, reduction: str) -> torch.Tensor:
        kind = self.targets.problem_type
        if kind == "regression":
            return F.mse_loss(logits.squeeze(-1), targets, reduction=reduction)
        if kind == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, targets, reduction=reduction) / logits.shape[-1]
        weights = self.weights_of_classes()
        tensor = None if weights is None else torch.as_tensor(weights, dtype=logits.dtype, device=logits.device)
        return F.cross_entropy(logits, targets, tensor, reduction=reduction, label_smoothing=self.label_smoothing)

    def probabilities(self, logits: torch.Tensor) -> np.ndarray:
        """(batch, classes) probabilities, or (batch,) values in the data's unit for regression."""
        space: LabelSpace = self.targets
        logits = logits.detach().float().cpu()
        if space.problem_type == "regression":
            return (logits.squeeze(-1) * space.scale + space.center).numpy()
        if space.problem_type == "multi_label_classification":
            return logits.sigmoid().numpy()
        return logits.softmax(-1).numpy()

    def decode(self, outputs: torch.Tensor, batch: Batch) -> list[Prediction]:
        values = self.probabilities(outputs)
        return [self._prediction(int(row), value) for row, value in zip(batch.rows, values, strict=True)]

    def _prediction(self, row: int, value: Any) -> Prediction:
        space: LabelSpace = self.targets
        if space.problem_type == "regression":
            return Prediction(row, float(value))
        order = np.argsort(-value, kind="stable")
        scores = {space.labels[i]: float(value[i]) for i in order}
        if space.problem_type == "single_label_classification":
            return Prediction(row, space.labels[order[0]], float(value[order[0]]), scores)
        thresholds = self.thresholds()
        chosen = [space.labels[i] for i in order if value[i] >= thresholds[i]]
        return Prediction(row, chosen, min((scores[c] for c in chosen), default=None), scores)

    def merge(self, parts: Sequence[Prediction]) -> list[Prediction]:
        """The windows' probabilities, or numbers, averaged."""
        if len(parts) == 1:
            return list(parts)
        names = self.targets.labels
        values = [[p.scores[name] for name in names] if names else p.label for p in parts]
        return [self._prediction(parts[0].row, np.mean(values, axis=0))]

    def answers(self, outputs: torch.Tensor, batch: Batch) -> Any:
        """Class ids (batch,), 0/1 decisions (batch, classes), or numbers in the data's unit (batch,).

        Of windows that are averaged probabilities, (batch, classes), which `whole_answer` decides about.
        """
        values = self.probabilities(outputs)
        return values if batch.parts is not None else self._decided(values)

    def whole_answer(self, parts: Sequence[Any]) -> Any:
        return self._decided(np.mean(parts, axis=0)[None])[0] if self.averages_windows else parts[0]

    def _decided(self, values: np.ndarray) -> Any:
        if self.targets.problem_type == "single_label_classification":
            return values.argmax(-1)
        if self.targets.problem_type == "multi_label_classification":
            return (values >= self.thresholds()).astype(np.int64)
        return values

    def baselines(self, material: Material) -> dict[str, Callable[[], Baseline]]:
        """Of those in `compares_with`: the same answer for all rows, and a linear model on pretrained features."""
        space: LabelSpace = self.targets
        kind, width = space.problem_type, space.width
        targets, n_test = self._true(material.train), len(material.test)
        return {
            "majority": lambda: majority(targets, n_test, kind, width),
            "frozen features": lambda: _on_features(material, targets, kind, width),
        }

    def comparison(self, table: Table, answers: Sequence[Any]) -> Callable[[Baseline], PairedState]:
        space: LabelSpace = self.targets
        true, ours = self._true(table), np.stack(list(answers))

        def beside(baseline: Baseline) -> PairedState:
            paired = PairedState(space.problem_type, n_labels=space.width)
            given = np.asarray(baseline.predictions)
            paired.update(true, ours, _decided(given, true) if true.ndim == 2 else given)
            return paired

        return beside

    def _true(self, table: Table) -> np.ndarray:
        """Class ids (rows,), 0/1 vectors (rows, classes), or numbers in the data's unit (rows,)."""
        space: LabelSpace = self.targets
        values = np.stack([np.asarray(space.target(row, self.roles.label)) for row in table])
        if space.problem_type == "regression":
            return values.astype(np.float64) * space.scale + space.center
        return values.astype(np.int64)

    def target_shown(self, target: Any) -> str:
        space: LabelSpace = self.targets
        return f"{self.name_of(target)!r} of {len(space.labels)} classes" if space.labels else repr(target)

    def mistake(self, row: Row, answer: Any) -> tuple[str, str] | None:
        true = self.targets.target(row, self.roles.label)
        return (self.name_of(true), self.name_of(answer)) if self.is_wrong(true, answer) else None

    def is_wrong(self, true: Any, answer: Any) -> bool:
        """Whether an answer is a mistake; a number is one when it is not exactly right."""
        if self.targets.problem_type == "regression":
            return float(true) != float(answer)
        return not np.array_equal(np.asarray(true, dtype=np.int64), np.asarray(answer))

    def name_of(self, value: Any) -> str:
        """A target or an answer as a person reads it."""
        space: LabelSpace = self.targets
        if space.problem_type == "regression":
            return f"{float(value):.4g}"
        if space.problem_type == "multi_label_classification":
            return ", ".join(name for name, bit in zip(space.labels, value, strict=True) if bit) or "(none)"
        return space.labels[int(value)]

    def surprise(self, outputs: torch.Tensor, batch: Batch) -> np.ndarray:
        """Negative log-probability of the label in nats (summed over classes for multi-label), or absolute error."""
        values, targets = self.probabilities(outputs), batch.targets.cpu().numpy()
        space: LabelSpace = self.targets
        if space.problem_type == "regression":
            return np.abs(values - (targets * space.scale + space.center))
        likelihood = np.where(targets > 0.5, values, 1 - values) if values.ndim == targets.ndim else None
        if likelihood is None:
            likelihood = values[np.arange(len(targets)), targets][:, None]
        return -np.log(np.maximum(likelihood, 1e-12)).sum(-1)

    def thresholds(self) -> np.ndarray:
        """Multi-label decision thresholds, (classes,)."""
        space: LabelSpace = self.targets
        return np.asarray(space.thresholds if space.thresholds is not None else [0.5] * len(space.labels))

    # scores ------------------------------------------------------------------------------------------------------

    def metric(self) -> _LabelMetric:
        return _LabelMetric(self)

    @property
    def headline_metric(self) -> str:
        """What the summary leads with, by problem type."""
        return {"regression": "mae", "multi_label_classification": "f1"}.get(self.targets.problem_type, "accuracy")

    @property
    def chooses_on_validation(self) -> bool:
        return self.targets.problem_type == "multi_label_classification"

    @property
    def selection(self) -> tuple[str, bool]:
        metrics = {"regression": ("mse", False), "multi_label_classification": ("f1_micro", True)}
        return metrics.get(self.targets.problem_type, ("accuracy", True))

    def adjust(self, metric: Any) -> None:
        """Choose the multi-label thresholds on the validation rows that `metric` has seen."""
        if self.targets.problem_type == "multi_label_classification":
            self.targets = self.targets.with_thresholds(metric.state.choose_thresholds())


class _LabelMetric:
    """Feeds a batch's outputs into the state of its problem type."""

    def __init__(self, task: ClassificationTask) -> None:
        self.task = task
        self.rows = WholeRows[np.ndarray]()
        space: LabelSpace = task.targets
        labels = list(space.labels)
        self.state: Any
        if space.problem_type == "regression":
            self.state = RegressionState()
        elif space.problem_type == "multi_label_classification":
            self.state = MultiLabelState(labels, thresholds=task.thresholds())
        else:
            self.state = ClassificationState(labels)

    def update(self, outputs: torch.Tensor, batch: Batch) -> None:
        values, targets, rows = self.task.probabilities(outputs), batch.targets.cpu().numpy(), batch.rows
        if batch.parts is not None:
            whole, values = self._joined(values, batch)
            targets, rows = targets[whole], rows[whole]
            if not whole:
                return
        space: LabelSpace = self.task.targets
        if space.problem_type == "regression":
            self.state.update(targets * space.scale + space.center, values, rows=rows)
        elif space.problem_type == "multi_label_classification":
            self.state.update(targets, values, rows=rows)
        else:
            self.state.update(targets, values.argmax(-1), values)

    def _joined(self, values: np.ndarray, batch: Batch) -> tuple[list[int], np.ndarray]:
        """Positions in the batch at which a row's last window has come, and the averages over the row's windows."""
        found = {}
        assert batch.parts is not None
        for position, (row, value, parts) in enumerate(zip(batch.rows, values, batch.parts, strict=True)):
            whole = self.rows.add(int(row), value, int(parts))
            if whole is not None:
                found[position] = np.mean(whole, axis=0)
        return list(found), np.asarray(list(found.values()))

    def merge(self, other: _LabelMetric) -> None:
        self.rows.check_merge(other.rows)
        self.state.merge(other.state)

    def compute(self) -> dict[str, float | None]:
        return self.state.compute()

    def intervals(self) -> dict[str, tuple[float, float]]:
        return self.state.intervals()

    def details(self) -> dict[str, Any]:
        found: dict[str, Any] = {"reasons": dict(self.state.reasons)}
        if hasattr(self.state, "per_class"):
            found["per_class"] = self.state.per_class()
        if isinstance(self.state, ClassificationState):
            found["confusion"] = self.state.confusion().tolist()
            found["calibration"] = self.state.calibration()
        return found


def _on_features(material: Material, targets: np.ndarray, kind: str, width: int) -> Baseline:
    train, test = material.features()
    return linear_probe(train, targets, test, kind, width, seed=material.seed)


def _decided(chances: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Multi-label decisions of a baseline: its thresholds are the best ones for these very rows.

    The run's own thresholds were chosen on validation rows; the baseline is given the better of the two worlds, so that
    the comparison errs on its side.
    """
    chances = np.asarray(chances, dtype=np.float64)
    state = MultiLabelState([str(i) for i in range(true.shape[1])])
    state.update(true, chances)
    return (chances >= state.choose_thresholds()).astype(np.int64)
