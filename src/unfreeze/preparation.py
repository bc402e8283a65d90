"""From a recipe to rows with a meaning: what the plan decides about.

read -> roles -> division into train, validation, test -> labels (from the training rows alone) -> model's configuration
and processor -> encoded rows -> facts. No weights are loaded and nothing is written here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unfreeze import tasks
from unfreeze.data.columns import FILE_NOUNS, Roles, file_columns
from unfreeze.data.quality import (
    DataFacts,
    check_rows,
    duplicate_sets,
    facts,
    is_missing,
    unlabelled_rows,
    without_broken,
)
from unfreeze.data.sources import read
from unfreeze.data.splits import Splits, divide
from unfreeze.data.table import Table
from unfreeze.errors import DataError, ModelError, RecipeError
from unfreeze.models.catalog import RECOMMENDED
from unfreeze.models.loading import ModelSource, check_weights, load_config, resolve
from unfreeze.randomness import generator
from unfreeze.recipe import Recipe
from unfreeze.tasks.base import Task
from unfreeze.types import Example, Row

DEFAULT_TASK = "text-classification"
# What the facts call a row's inputs.
NOUNS = {"text": "texts", **FILE_NOUNS}
HELD_OUT_FRACTION = 0.1
_LEAVE_OUT = "or leave out what cannot be read, counted: --set data.drop_broken=true"
# From so many rows on, a part that no choice ever sees gives the reported figure.
ROWS_FOR_A_THIRD_PART = 500


@dataclass
class Prepared:
    """Everything the plan looks at.

    Attributes:
        recipe: As asked.
        name: Short name of the data.
        train, validation, test: Tables; validation and test may be None.
        task: Bound to roles, targets, processor and longest input.
        source, config: The model's place and its configuration.
        train_examples, validation_examples: Encoded rows.
        data_facts: Rows, classes, lengths, duplicates.
        notes: What was recognised, divided or assumed, as sentences.
        fingerprints: SHA-256 of each split's content.
        max_length_reason: Why the longest input is what it is.
    """

    recipe: Recipe
    name: str
    train: Table
    validation: Table | None
    test: Table | None
    task: Task
    source: ModelSource
    config: Any
    train_examples: list[Example]
    validation_examples: list[Example]
    data_facts: DataFacts
    notes: list[str] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    max_length_reason: str = ""

    @property
    def train_lengths(self) -> np.ndarray:
        """Tokens of each training example, (examples,)."""
        return np.asarray([e.length for e in self.train_examples], dtype=np.int64)


def prepare(
    recipe: Recipe,
    data: Any = None,
    *,
    test: Any = None,
    allow_remote_code: bool = False,
    say: Callable[[str], None] = lambda text: None,
    check: Callable[[], None] = lambda: None,
) -> Prepared:
    """Read and check everything that can be wrong before work starts.

    Args:
        recipe: What was asked.
        data, test: Objects from Python (a DataFrame, a list of dicts); None: what the recipe names.
        allow_remote_code: The permission of the command line.
        say: Told what is being done.
        check: Called between what takes time; may raise to end it.

    Raises:
        RequestError: Recipe, data or task do not fit.
        ModelError: The model is not there or not usable.
    """
    task = _task(recipe, _named(recipe.task, recipe, allow_remote_code)) if recipe.task is not None else None
    if recipe.model is not None:
        source = resolve(recipe.model)
    say("reading the data")
    splits = read_rows(recipe, data, test)
    check()
    recognised: list[str] = []
    if task is None:
        task, recognised = _recognised(recipe, splits.train)
    if recipe.model is None:
        source = resolve(_default_model(task))
    _check_applies(recipe, task)
    task.allows_remote_code = allow_remote_code
    roles = task.find_roles(splits.train, recipe.data, needs_label=task.needs_label)
    if isinstance(label := roles.label, str):
        splits = splits.changed(lambda table: task.completed(table, label))
    # Of the files that rows name, only those of the columns that are read are ever opened.
    splits = splits.changed(lambda table: table.reading(task.files_read(roles)))
    is_test_named = test is not None or recipe.data.test is not None
    splits, unasked = (splits, []) if is_test_named else _without_test_rows_that_have_no_label(splits, task, roles)
    splits, notes = _with_usable_labels(splits, task, roles, drop=recipe.data.drop_unlabelled)
    notes = [*unasked, *notes]
    splits, broken = _with_readable_inputs(splits, task, roles, drop=recipe.data.drop_broken)
    check()
    splits, more = _sampled(splits, task, roles, recipe)
    listed = {name: splits.names_of(roles.label, name) for name in splits.tables()}
    splits, division = _divided(splits, task, roles, recipe)
    targets = task.learn(splits.train, roles, splits.names_of(roles.label))
    config = load_config(source, allow_remote_code=allow_remote_code)
    targets, continued = task.continue_from(targets, config, source.name)
    processor = task.load_processor(source)
    check_weights(source)
    check()
    task.bind(roles=roles, targets=targets, processor=processor, max_length=task.most_tokens)
    limit, reason = task.longest_input(recipe.train.max_length, splits.train, config)
    task.max_length = limit
    splits = _relabelled(splits, task, listed)
    for name, table in (("validation", splits.validation), ("test", splits.test)):
        if table is not None:
            task.check_labels(table, name)
    say(f"encoding {len(splits.train):,} rows")
    train_examples = encoded(task, splits.train, check)
    validation = splits.validation
    validation_examples = encoded(task, validation or (), check)
    # One that is cut counts as longer than the limit, whatever it was and whichever of its parts was cut.
    lengths = {"train": np.asarray([limit + 1 if e.is_cut else e.length for e in train_examples])}
    tables = {"train": splits.train, "validation": validation, "test": splits.test}
    present = {k: t for k, t in tables.items() if t is not None}
    labels = {k: names for k, t in present.items() if (names := task.label_names(t)) is not None}
    found = facts(
        present,
        roles if labels else dataclasses.replace(roles, label=None),  # texts to write are no labels to count
        labels or None,
        lengths if task.modality == "text" else None,
        limit,
        contents=task.contents,
        noun=NOUNS[task.modality],
        options=_advisable(task, roles),
    )
    return Prepared(
        recipe=recipe,
        name=splits.name,
        train=splits.train,
        validation=validation,
        test=splits.test,
        task=task,
        source=source,
        config=config,
        train_examples=train_examples,
        validation_examples=validation_examples,
        data_facts=found,
        notes=[
            *splits.notes,
            *recognised,
            *(f"{k}: {why}" for k, why in roles.reasons.items()),
            *notes,
            *broken,
            *more,
            *division,
            *continued,
        ],
        fingerprints={k: t.fingerprint for k, t in present.items()},
        max_length_reason=reason,
    )


def encoded(task: Task, rows: Iterable[Row], check: Callable[[], None] = lambda: None) -> list[Example]:
    """Examples of labelled rows, in their order; `check` is called for each and may raise to end it."""
    found: list[Example] = []
    for row in rows:
        check()
        found += task.encode(row, train=True)
    return found


def _default_model(task: Task) -> str:
    if task.default_model is not None:
        return task.default_model
    known = [entry.id for entry in RECOMMENDED if task.name in entry.tasks]
    raise ModelError(
        "MODEL-UNKNOWN",
        f"no model for {task.name} comes with unfreeze yet; name one",
        where="model",
        remedy="\nor ".join(f"--model {name}" for name in known) or "--model HUB_ID",
    )


def _named(name: str, recipe: Recipe, allow_remote_code: bool) -> type[Task]:
    """The task that was asked for.

    Raises:
        RecipeError: E-RECIPE-VALUE, it is code that a file names; which code runs is for the person at the keyboard to
            say.
    """
    place = recipe.sources.get("task", "argument")
    if place not in ("argument", "--set") and not tasks.may_be_looked_up(name, allow_remote_code=allow_remote_code):
        raise RecipeError(
            "RECIPE-VALUE",
            f"the task {name} is code of somebody's own, which no file makes run unless you allow it",
            where=f"task ({place})",
            remedy=f"read that code, then add --allow-remote-code; to train, --task {name} says the same",
        )
    return tasks.find(name)


def _task(recipe: Recipe, task_class: type[Task]) -> Task:
    return task_class.with_options(_task_options(recipe, task_class))


def _recognised(recipe: Recipe, train: Table) -> tuple[Task, list[str]]:
    """The one task that the rows can be meant for, said; `DEFAULT_TASK` where none says so of itself."""
    found = {name: why for name in tasks.names() if (why := tasks.find(name).recognises(train)) is not None}
    if len(found) > 1:
        raise DataError(
            "DATA-COLUMN",
            f"these rows could be meant for {' or '.join(found)}",
            where=train.place(0),
            remedy="\nor ".join(f"--task {name}" for name in found),
        )
    notes = [f"task: {name}, since {why}" for name, why in found.items()]
    if not found:
        for kind, noun in FILE_NOUNS.items():
            notes += [
                f"the {noun} of column {name!r} are not read, since there are texts with labels; to learn from them: "
                f"--task {kind}-classification"
                for name in file_columns(train, kind)
            ]
    return _task(recipe, tasks.find(next(iter(found), DEFAULT_TASK))), notes


def _task_options(recipe: Recipe, task_class: type[Task]) -> dict[str, Any]:
    """The recipe's options and those ``train`` settings that are the task's to interpret."""
    options = dict(recipe.options)
    for key in ("class_weights", "label_smoothing"):
        value = getattr(recipe.train, key)
        if value is not None:
            if key not in _fields(task_class):
                raise RecipeError("RECIPE-CONFLICT", f"the task {task_class.name} has no {key}", where=f"train.{key}")
            options[key] = value
    return options


def _advisable(task: Task, roles: Roles) -> list[str]:
    """Options that could be set and are not; windows are of one column of texts."""
    names = [name for name in _fields(type(task)) if not getattr(task, name)]
    return [name for name in names if name != "windows" or len(roles.text) == 1]


def _fields(task_class: type[Task]) -> Mapping[str, Any]:
    return getattr(task_class, "__dataclass_fields__", {})


def _check_applies(recipe: Recipe, task: Task) -> None:
    """Refuse settings of the data that mean nothing for this task.

    Raises:
        RecipeError: E-RECIPE-CONFLICT.
    """
    others = [role for role in ("text", "image", "audio") if role != task.input_role]
    named = [f"data.{role}" for role in others if getattr(recipe.data, role) is not None]
    if named:
        what = f"the task {task.name} reads data.{task.input_role}, not {named[0]}"
        raise RecipeError("RECIPE-CONFLICT", what, where=named[0], remedy=f"--set data.{task.input_role}=COLUMN")
    if recipe.data.drop_broken and task.modality == "text":
        what = "data.drop_broken leaves out files that cannot be read, and these rows are texts"
        raise RecipeError("RECIPE-CONFLICT", what, where="data.drop_broken", remedy="leave it out")


def read_rows(recipe: Recipe, data: Any = None, test: Any = None) -> Splits:
    """The rows as they lie, of all files that the recipe names.

    Args:
        recipe: What was asked.
        data, test: Objects from Python; None: what the recipe names.

    Raises:
        DataError: See `data.sources.read`; E-DATA-MISSING, no data was named.
    """
    source = data if data is not None else recipe.data.source
    if source is None:
        what, remedy = "no data was named", "name a file, a folder or a Hub id, as in: unfreeze train FILE_OR_FOLDER"
        raise DataError("DATA-MISSING", what, remedy=remedy)
    validation = recipe.data.validation if isinstance(recipe.data.validation, str) else None
    return read(
        source,
        test=test if test is not None else recipe.data.test,
        validation=validation,
        encoding=recipe.data.encoding,
        config_name=recipe.data.config_name,
    )


def _without_test_rows_that_have_no_label(splits: Splits, task: Task, roles: Roles) -> tuple[Splits, list[str]]:
    """Competitions and many data sets of the Hub keep the labels of their test rows back: those are for `predict`."""
    table, labels = splits.test, (roles.label,) if isinstance(roles.label, str) else roles.label or ()
    if table is None or not len(table) or not task.needs_label:
        return splits, []
    there = [name for name in labels if name in table.columns]

    def is_none(value: Any) -> bool:
        # Where empty texts name no class, a column of nothing else is still one whose labels were kept back.
        return task.is_unlabelled(value) or (task.decodes_labels and is_missing(value))

    if not all(is_none(value) for name in there for value in table.column(name)):
        return splits, []  # some have labels: what is wrong with the others is told as ever
    if not there and set(table.columns) - set(splits.train.columns):
        return splits, []  # the label may be there under another name, which is suggested
    note = f"none of the {len(table):,} test rows has a label: they are left out, and are there for unfreeze predict"
    return _replaced(splits, "test", None), [note]


def _with_usable_labels(splits: Splits, task: Task, roles: Roles, *, drop: bool) -> tuple[Splits, list[str]]:
    notes = []
    for name in ("train", "validation", "test"):
        table = getattr(splits, name)
        if table is None:
            continue
        if drop:
            kept = np.setdiff1d(np.arange(len(table)), unlabelled_rows(table, roles, task.is_unlabelled))
            if 2 * len(kept) < len(table):
                what = f"{len(table) - len(kept):,} of {len(table):,} {name} rows have no label: too many to leave out"
                raise DataError(
                    "DATA-LABEL", what, remedy="give more rows a label, or take those without out of the file"
                )
            if len(kept) < len(table):
                notes.append(f"{len(table) - len(kept):,} rows of {name} without a label were left out, as asked")
                table = table.select(kept)
                splits = _replaced(splits, name, table)
        check_rows(table, roles, split=name, noun=NOUNS[task.modality], is_unlabelled=task.is_unlabelled)
    return splits, notes


def _with_readable_inputs(splits: Splits, task: Task, roles: Roles, *, drop: bool) -> tuple[Splits, list[str]]:
    """Refuse files that cannot be read, all named at once; or leave them out, counted, as asked.

    Raises:
        DataError: See `without_broken`.
    """
    notes = []
    for name, table in splits.tables().items():
        kept, note = without_broken(table, task.unreadable(table, roles), name, drop=drop, advice=_LEAVE_OUT)
        if note:
            notes.append(note)
            splits = _replaced(splits, name, kept)
    return splits, notes


def _replaced(splits: Splits, name: str, table: Table | None) -> Splits:
    changes: dict[str, Any] = {name: table}
    return dataclasses.replace(splits, **changes)


def _relabelled(splits: Splits, task: Task, names: Mapping[str, Sequence[str] | None]) -> Splits:
    """Splits with ids of their own, as `Task.relabelled` has them.

    Args:
        names: Of the classes, of the splits that were found; what was divided off since has those of training.
    """
    for name, table in splits.tables().items():
        own = names.get(name)
        if name != "train" and own is not None:
            splits = _replaced(splits, name, task.relabelled(table, own))
    return splits


def _sampled(splits: Splits, task: Task, roles: Roles, recipe: Recipe) -> tuple[Splits, list[str]]:
    wanted, n = recipe.data.train_rows, len(splits.train)
    if wanted is None or wanted >= n:
        return splits, [] if wanted is None else [f"all {n:,} training rows are used: no more are there"]
    draw = generator(recipe.seed, "train rows")
    chosen = draw.choice(n, wanted, replace=False)
    if (labels := task.labels_to_keep(splits.train, roles, splits.names_of(roles.label))) is not None:
        chosen = _with_every_label(chosen, labels, draw.permutation(n))
    return _replaced(splits, "train", splits.train.select(np.sort(chosen))), [
        f"{wanted:,} of {n:,} training rows, drawn by seed"
    ]


def _with_every_label(chosen: np.ndarray, labels: Sequence[Collection[str]], order: np.ndarray) -> np.ndarray:
    """As many rows, some exchanged for the first ones in `order` that bring missing labels, while there is room."""
    counts = Counter(label for i in chosen for label in labels[i])
    kept, added = [int(i) for i in chosen], []
    for candidate in map(int, order):
        if all(label in counts for label in labels[candidate]):
            continue
        spare = next((i for i in kept if all(counts[label] > 1 for label in labels[i])), None)
        if spare is None:
            break  # more labels than rows
        kept.remove(spare)
        counts.subtract(labels[spare])
        counts.update(labels[candidate])
        added.append(candidate)
    return np.asarray(kept + added, dtype=np.int64)


def _divided(splits: Splits, task: Task, roles: Roles, recipe: Recipe) -> tuple[Splits, list[str]]:
    """Hold out what the user did not provide: see `ROWS_FOR_A_THIRD_PART`."""
    asked = recipe.data.validation
    unnamed = asked if isinstance(asked, float | int) else HELD_OUT_FRACTION
    fraction = 0.0 if splits.validation is not None else unnamed
    rows = len(splits.train)
    test_fraction = HELD_OUT_FRACTION if splits.test is None and rows >= ROWS_FOR_A_THIRD_PART and asked != 0 else 0.0
    if not fraction and not test_fraction:
        return splits, []
    table = splits.train
    together = task.keeps_together(table, roles)
    division = divide(
        rows,
        strata=task.strata(table, roles),
        labels=task.labels_to_keep(table, roles, splits.names_of(roles.label)),
        groups=table.column(roles.group) if roles.group else together,
        duplicates=duplicate_sets(map(str, together) if roles.group and together else task.contents(table, roles)),
        fraction=fraction,
        test_fraction=test_fraction,
        seed=recipe.seed,
    )
    if len(division.train) < 2:
        what = f"{rows} row{'s are' if rows != 1 else ' is'} too few to hold some out"
        raise DataError("DATA-SPLIT", what, remedy="--set data.validation=0")
    parts = _replaced(splits, "train", table.select(division.train))
    notes = list(division.notes)
    if fraction and len(division.validation):
        parts = _replaced(parts, "validation", table.select(division.validation))
        notes.append(f"{len(division.validation):,} training rows are held out to choose the best weights")
    if test_fraction and len(division.test):
        parts = _replaced(parts, "test", table.select(division.test))
        notes.append(f"{len(division.test):,} further rows are held out, which no choice sees, for the reported figure")
    return parts, notes
