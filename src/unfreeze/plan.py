"""Plan: what will happen, decided before anything happens; every inferred value with its reason.

A plan is plain data: it is printed, stored in the run, read back by `unfreeze resume`, and a run follows it to the
letter. Nothing is decided later on.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unfreeze.activations.boundary import Entry, encoder_of, entering_groups
from unfreeze.activations.decision import FLOPS_PER_SECOND, RowFacts, decide
from unfreeze.activations.rows import Rows, Views
from unfreeze.activations.store import bytes_held, default_folder, recorded_groups
from unfreeze.data.loading import steps_per_epoch
from unfreeze.errors import ModelError, RecipeError
from unfreeze.machine import Machine, forward_tokens, free_disk_bytes, share_a_disk
from unfreeze.models.identity import identity_of
from unfreeze.models.layers import HEAD, STEM, LayerGroups
from unfreeze.preparation import Prepared
from unfreeze.randomness import seeded
from unfreeze.recipe import RUNS_FOLDER
from unfreeze.schedule import Phase, Schedule, Span, gradual
from unfreeze.types import Duration

# Rates: 4e-5 at BERT-base's width of 768, the upper half of what its authors advise, and inversely to the width
# elsewhere, as Adam's best rate of hidden weights goes (Yang et al. 2022, arXiv 2203.03466, table 8).
BASE_RATE, BASE_WIDTH, LARGEST_RATE = 4e-5, 768, 5e-4
HEAD_ONLY_RATE = 1e-3
HEAD_RATE_FACTOR = 5
LAYER_DECAY = 0.85
WEIGHT_DECAY = 0.01
WARMUP_FRACTION = 0.1
MAX_GRADIENT_NORM = 1.0
# Evaluations of a phase, at least, and fewer, where those would take more than this share of its training; a forward is
# a third of a step over as many rows.
EVALUATIONS_PER_PHASE, FEWEST_EVALUATIONS, EVALUATIONS_SHARE = 4, 2, 0.05
PATIENCE = 3
BATCH_ROWS = 16
FEWEST_EPOCHS, MOST_EPOCHS = 3, 20
# banking77 (77 classes): 22 updates a class gave 0.82 with the builtin model, 73 gave 0.89.
UPDATES_PER_CLASS = 70
# Measured on two cores: 2,300 tokens at once are as quick as 4,500 and take half the memory.
MICRO_BATCH_TOKENS = {"cpu": 2048, "cuda": 16384, "mps": 8192}
HIGHEST_SENSIBLE_RATE = 0.1
CHECKPOINT_MINUTES = 10.0
# Written, synced and read back for its checksum.
CHECKPOINT_BYTES_PER_SECOND = 3e8
MOST_CACHE_BYTES = 20_000_000_000
# Where configurations keep the dropout of attention weights.
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "attention_dropout_prob")


@dataclass(frozen=True)
class Choice:
    """One value of the plan.

    Attributes:
        key: The recipe key that would change it.
        value: As shown.
        source: ``recipe.yaml:3``, ``--set``, ``argument``, or ``plan`` where it was inferred.
        reason: Why; for inferred values always a sentence.
    """

    key: str
    value: Any
    source: str
    reason: str = ""


@dataclass(frozen=True)
class Settings:
    """What holds in all phases.

    Attributes:
        batch_size: Examples for one optimizer step.
        micro_batch_tokens: That go through the model at once, padding included.
        max_length_tokens: Longer inputs are cut.
        attention_dropout: During training; None leaves the model's own.
        checkpoint_minutes: Between checkpoints.
        checkpoint_steps: Optimizer steps between checkpoints, beside those by time; None: by time alone.
    """

    seed: int
    batch_size: int
    micro_batch_tokens: int
    max_length_tokens: int
    weight_decay: float
    max_gradient_norm: float
    precision: str
    attention_dropout: float | None
    checkpoint_minutes: float
    threads: int
    cache: CacheSettings
    checkpoint_steps: int | None = None


@dataclass(frozen=True)
class CacheSettings:
    """Recorded activations.

    Attributes:
        folder: Where the stores lie, shared between runs.
        budget_bytes: Of all stores together.
        reuse: Whether a store of another run may be used.
    """

    folder: str
    budget_bytes: int
    reuse: bool


@dataclass(frozen=True)
class PlannedPhase:
    """One phase, with nothing left open.

    Attributes:
        name: For display.
        span: As in `Phase.span`, with ``last(half)`` resolved.
        steps, epochs: Length.
        learning_rates: Layer group to peak rate, for the groups that train.
        warmup_steps, decay: Shape of the rate.
        evaluate_every: In steps; 0: never.
        patience: Evaluations without improvement that end the phase; None: it never ends early.
        trainable_parameters: Number of weights that train.
        boundary: The layer group at whose input recorded tensors enter, or None: the rows go through the whole model.
        source_reason: Why they are recorded, or why not.
        recorded_bytes: Disk that the recorded tensors of this boundary take.
        is_recorded: Whether an earlier run has recorded them, by the name of its model; the engine looks closer.
        varies_rows: Whether training rows are varied at random (`Task.augment`); never where they are recorded.
        views: Variants of each row that are taken in turn (`Task.view`), where they are recorded.
    """

    name: str
    span: Span
    steps: int
    epochs: float
    learning_rates: Mapping[str, float]
    warmup_steps: int
    decay: str
    evaluate_every: int
    patience: int | None
    trainable_parameters: int
    boundary: str | None = None
    source_reason: str = ""
    recorded_bytes: int = 0
    is_recorded: bool = False
    varies_rows: bool = False
    views: int = 1


@dataclass
class Plan:
    """What will happen.

    Attributes:
        task, model: Names.
        data: Name, rows of each split, facts and notes.
        choices: Every value with source and reason, in the order shown.
        settings, phases: What the engine follows.
        groups: Name, parameters of each layer group; of pictures and sound also ``share_below``, the part of a
            forward's operations that come before it.
        expected: ``train_seconds``, ``total_seconds``, ``peak_memory_bytes``, ``disk_bytes``, and how they came about.
        machine: Where the plan was made.
        identity: Hashes that a resumed run must find again.
        warnings: Sentences the user should read before starting.
    """

    task: str
    model: str
    data: dict[str, Any]
    choices: list[Choice]
    settings: Settings
    phases: list[PlannedPhase]
    groups: list[dict[str, Any]]
    machine: dict[str, Any]
    identity: dict[str, Any]
    expected: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        values = {k: v for k, v in stored.items() if k in cls.__dataclass_fields__}
        return cls(
            **{
                **values,
                "choices": [Choice(**c) for c in stored["choices"]],
                "settings": Settings(**{**stored["settings"], "cache": CacheSettings(**stored["settings"]["cache"])}),
                "phases": [PlannedPhase(**p) for p in stored["phases"]],
            }
        )

    @property
    def total_steps(self) -> int:
        return sum(p.steps for p in self.phases)


def run_bytes(phases: Sequence[PlannedPhase], sizes: Mapping[str, int]) -> int:
    """Disk of a run without recordings: the model, two checkpoints with moments, two sets of best weights."""
    largest = max(p.trainable_parameters for p in phases)
    return 4 * sum(sizes.values()) + 2 * checkpoint_bytes(phases, sizes) + 2 * 4 * largest


def checkpoint_bytes(phases: Sequence[PlannedPhase], sizes: Mapping[str, int]) -> int:
    """At most, of one checkpoint: all groups that have trained by the last phase, and their two moments in float32."""
    return 3 * 4 * sum(sizes[group] for group in {g for p in phases for g in p.learning_rates})


def entries_of_a_row(prepared: Prepared) -> dict[str, Entry]:
    """What a row brings to the input of each layer group, by one forward of a model of this shape."""
    with seeded(0, "entries of a row"):
        model = prepared.task.skeleton(prepared.config).eval()
    groups = LayerGroups.of(model)
    inputs = prepared.task.collate(prepared.train_examples[:1]).inputs
    return entering_groups(groups, model, inputs)


def attention_dropout_name(config: Any) -> str | None:
    """Where this configuration keeps the dropout of attention weights."""
    return next((name for name in _ATTENTION_DROPOUT if hasattr(config, name)), None)


def model_config(config: Any, settings: Settings) -> Any:
    """The configuration to train with: a copy with the plan's attention dropout."""
    changed = copy.deepcopy(config)
    name = attention_dropout_name(config)
    if name is not None and settings.attention_dropout is not None:
        setattr(changed, name, settings.attention_dropout)
    return changed


def make(prepared: Prepared, machine: Machine) -> Plan:
    """Decide everything.

    Raises:
        RecipeError: A span or pattern that matches nothing, phases that cannot be, settings that contradict each other.
        ModelError: E-MODEL-BROKEN, for a configuration that contradicts itself.
    """
    return _Decisions(prepared, machine).plan()


def identity(prepared: Prepared) -> dict[str, Any]:
    """What a resumed run must find again, whatever machine it is resumed on; see `Plan.identity`."""
    import transformers

    import unfreeze

    targets = prepared.task.targets
    return {
        "data": prepared.fingerprints,
        "labels": list(targets.labels) if targets is not None else None,
        "model": prepared.source.name,
        **identity_of(prepared.source),
        "versions": {
            "unfreeze": unfreeze.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


class _Decisions:
    """Collects choices while they are made."""

    def __init__(self, prepared: Prepared, machine: Machine) -> None:
        self.prepared, self.machine, self.recipe = prepared, machine, prepared.recipe
        self.choices: list[Choice] = []
        self.warnings = [*prepared.data_facts.warnings(), *prepared.task.warnings(prepared.train)]
        try:
            with torch.device("meta"):
                model = prepared.task.skeleton(prepared.config)
            self.groups = LayerGroups.of(model)
            layers = [name for name in self.groups.names if name not in (STEM, HEAD)]
            self._decoder = frozenset(name for name in layers if encoder_of(self.groups, model, name) is not None)
            # The work of a convolution does not show in its weights: it is counted.
            self._entries = entries_of_a_row(prepared) if prepared.task.modality != "text" else None
        except (ValueError, RuntimeError, TypeError) as error:
            what = f"no model can be made of this configuration: {str(error).splitlines()[0]}"
            raise ModelError("MODEL-BROKEN", what, where=prepared.source.name) from error

    def plan(self) -> Plan:
        self._said("model", self.prepared.source.name, self.recipe.sources.get("model"), self._why_model())
        self._said("task", self.prepared.task.name, self.recipe.sources.get("task"), self._why_task())
        settings = self._settings()
        schedule = self._schedule()
        phases = self._phases(schedule, settings)
        self._say_cost_of_checkpoints(phases)
        self._warn_of_rates(phases)
        return Plan(
            task=self.prepared.task.name,
            model=self.prepared.source.name,
            data=self._data(),
            choices=self.choices,
            settings=settings,
            phases=phases,
            groups=self._groups(),
            machine=self.machine.to_json(),
            identity=identity(self.prepared),
            warnings=self.warnings,
        )

    def _groups(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"name": name, "parameters": size} for name, size in self._sizes.items()]
        entries = self._entries or {}
        return [{**g, "share_below": entries[g["name"]].share} if g["name"] in entries else g for g in found]

    # values ------------------------------------------------------------------------------------------------------

    def _said(self, key: str, value: Any, source: str | None, reason: str) -> None:
        self.choices.append(Choice(key, value, source or "plan", reason))

    def _choose(self, key: str, inferred: Any, reason: str) -> Any:
        """The recipe's value of ``train.<key>`` where there is one, else `inferred`; either way written down."""
        asked = getattr(self.recipe.train, key)
        value = inferred if asked is None else asked
        source = self.recipe.sources.get(f"train.{key}") if asked is not None else None
        self._said(f"train.{key}", value, source, "" if asked is not None else reason)
        return value

    def _why_model(self) -> str:
        if self.recipe.model is not None:
            return ""
        if self.prepared.source.kind != "builtin":
            return "what the task takes where none is named"
        from unfreeze.models.catalog import stronger_than

        entry = stronger_than(self.prepared.task.modality)
        is_text = self.prepared.task.modality == "text"
        language, others = ("English ", "; other languages: --model xlm-roberta-base") if is_text else ("", "")
        return (
            f"the {language}model that comes with unfreeze; a stronger one: --model {entry.id} "
            f"({entry.parameters_millions:g} M parameters, {entry.download_mb:g} MB to download){others}"
        )

    def _why_task(self) -> str:
        targets = self.prepared.task.targets
        if targets is None:
            return ""
        kind = targets.problem_type.replace("_", " ").replace("classification", "").strip()
        named = f"{len(targets.labels)} classes, " if targets.labels else ""
        return f"{kind}: {named}{targets.reason}"

    def _settings(self) -> Settings:
        machine, lengths = self.machine, self.prepared.train_lengths
        rows = len(lengths)
        batch = self._choose("batch_size", min(BATCH_ROWS, max(4, rows // 8)), self._why_batch(rows))
        length = self.prepared.task.max_length
        asked = self.recipe.sources.get("train.max_length")
        key = "train.max_length" if self.prepared.task.modality == "text" else "tokens of an input"
        self._said(key, length, asked, self.prepared.max_length_reason)
        for option, value, reason in self.prepared.task.planned():
            is_asked = option.removeprefix("options.") in self.recipe.options
            source = self.recipe.sources.get(option) or self.recipe.sources.get("options")
            self._said(option, value, source if is_asked else None, reason)
        precision = self._choose("precision", *self._best_precision())
        if precision == "fp16" and machine.device == "cpu":
            raise RecipeError(
                "RECIPE-CONFLICT", "fp16 needs a GPU", where="train.precision", remedy="--set train.precision=fp32"
            )
        return Settings(
            seed=self.recipe.seed,
            batch_size=batch,
            micro_batch_tokens=self._choose(
                "micro_batch_tokens",
                max(MICRO_BATCH_TOKENS[machine.device], length),
                f"quick on {machine.device} and small in memory; it changes no gradient",
            ),
            max_length_tokens=length,
            weight_decay=self._choose("weight_decay", WEIGHT_DECAY, "usual for Adam with decoupled decay"),
            max_gradient_norm=self._choose("max_gradient_norm", MAX_GRADIENT_NORM, "usual for fine-tuning"),
            precision=precision,
            attention_dropout=self._attention_dropout(),
            checkpoint_minutes=self._choose("checkpoint_minutes", CHECKPOINT_MINUTES, "and one at each phase's end"),
            threads=self._choose("threads", machine.threads, "all cores that torch sees"),
            checkpoint_steps=self._choose("checkpoint_steps", None, "") if self.recipe.train.checkpoint_steps else None,
            cache=self._cache(),
        )

    def _warn_of_rates(self, phases: Sequence[PlannedPhase]) -> None:
        for phase in phases:
            highest = max(phase.learning_rates.values())
            if highest > HIGHEST_SENSIBLE_RATE:
                self.warnings.append(
                    f"the phase '{phase.name}' has a learning rate of {highest:g}; fine-tuning uses 1e-5 to 1e-2, and "
                    "with more a model may lose what it has learned"
                )

    def _say_cost_of_checkpoints(self, phases: Sequence[PlannedPhase]) -> None:
        """How large one gets, and how long training waits for it: beside the time between them."""
        size = checkpoint_bytes(phases, self._sizes)
        cost = f"each of at most {size / 1e6:,.0f} MB, about {size / CHECKPOINT_BYTES_PER_SECOND:.1f} s"
        for number, choice in enumerate(self.choices):
            if choice.key == "train.checkpoint_minutes":
                reason = "; ".join(filter(None, (choice.reason, cost)))
                self.choices[number] = replace(choice, reason=reason)

    @functools.cached_property
    def _cache_folder(self) -> Path:
        asked = self.recipe.cache.folder
        return Path(asked).expanduser().absolute() if asked else default_folder()

    @functools.cached_property
    def _room_for_caches(self) -> int:
        """Disk, in bytes. What is recorded already counts as free: the same command must be planned alike again."""
        return free_disk_bytes(self._cache_folder) + bytes_held(self._cache_folder)

    @functools.cached_property
    def _sizes(self) -> dict[str, int]:
        """Parameters of each layer group, from the input."""
        return {g.name: g.parameters for g in self.groups.describe()}

    def _cache(self) -> CacheSettings:
        asked = self.recipe.cache
        if not asked.enabled:
            for key in ("cache.budget", "cache.folder", "cache.reuse"):
                if key in self.recipe.sources:
                    what = f"{key} changes nothing: cache.enabled is false, so nothing is recorded"
                    raise RecipeError("RECIPE-CONFLICT", what, where=key, remedy="leave one of them out")
        folder, there = self._cache_folder, self._room_for_caches
        budget = min(asked.budget if asked.budget is not None else min(MOST_CACHE_BYTES, there // 2), there)
        if asked.enabled:
            source = self.recipe.sources.get("cache.budget")
            self._said(
                "cache.budget",
                f"{budget / 1e9:.1f} GB",
                source,
                f"for recorded activations; {free_disk_bytes(folder) / 1e9:.0f} GB are free",
            )
        return CacheSettings(str(folder), int(budget), asked.reuse)

    @staticmethod
    def _why_batch(rows: int) -> str:
        if rows // 8 < BATCH_ROWS:
            return f"small, so that {rows} rows give at least 8 steps an epoch"
        return "small batches generalise well and give many updates"

    def _best_precision(self) -> tuple[str, str]:
        if self.machine.device == "cuda":
            if self.machine.supports_bf16:
                return "bf16", "quick on this GPU"
            return "fp16", "this GPU has no bfloat16; a run that is resumed is then not the same to the bit"
        return "fp32", f"half precision is slower on {self.machine.device}"

    def _attention_dropout(self) -> float | None:
        name = attention_dropout_name(self.prepared.config)
        own = getattr(self.prepared.config, name) if name else None
        asked = self.recipe.train.attention_dropout
        if asked is not None and own is None:
            raise RecipeError(
                "RECIPE-CONFLICT",
                "this model has no attention dropout that can be set",
                where="train.attention_dropout",
            )
        if own is None:
            return None
        if self.machine.device == "cpu" and own:
            reason = f"off instead of the model's {own:g}: with it attention on a CPU is up to 5 times slower"
            return float(self._choose("attention_dropout", 0.0, reason))
        return float(self._choose("attention_dropout", float(own), "the model's own"))

    # phases ------------------------------------------------------------------------------------------------------

    def _schedule(self) -> Schedule:
        is_new = not self.prepared.task.brings_its_head
        asked = self.recipe.schedule if self.recipe.schedule is not None else gradual()
        chosen = asked if is_new else asked.for_a_head_that_is_there()
        if self.recipe.schedule is None:
            order = "head first, then the upper half" if is_new else "the upper half"
            self._said("schedule", chosen.name, None, f"{order}, then all, lower layers at lower rates")
        else:
            why = "" if chosen is asked else "the model brings its head, which no phase trains alone"
            self._said("schedule", chosen.name, self.recipe.sources.get("schedule"), why)
        return chosen

    def _phases(self, schedule: Schedule, settings: Settings) -> list[PlannedPhase]:
        per_epoch = steps_per_epoch(len(self.prepared.train_lengths), settings.batch_size)
        fixed = sum(p.epochs.steps(per_epoch) for p in schedule.phases if p.epochs is not None)
        total = self._total_length(schedule, per_epoch, fixed)
        shares = sum(p.share for p in schedule.phases if p.epochs is None)
        left = total.steps(per_epoch) - fixed if total is not None else 0
        self._refuse_settings_without_effect(schedule)
        base_rate, layer_decay = self._rates(schedule)
        self._evaluation_choices()
        phases = []
        for number, phase in enumerate(schedule.phases, start=1):
            steps = phase.epochs.steps(per_epoch) if phase.epochs else max(1, round(left * phase.share / shares))
            phases.append(self._phase(phase, number, steps, per_epoch, base_rate, layer_decay))
        found = self._with_sources(phases, settings)
        self._refuse_variation_without_effect(found)
        return found

    def _with_sources(self, phases: list[PlannedPhase], settings: Settings) -> list[PlannedPhase]:
        """Where each phase's inputs come from; see `activations.decision.decide`."""
        task = self.prepared.task
        if not self.recipe.cache.enabled:
            why = "not recorded: cache.enabled is false"
            return [replace(p, source_reason=why, varies_rows=task.augments) for p in phases]
        room = self._room_beside(phases)
        facts = RowFacts(
            train_tokens=int(self.prepared.train_lengths.sum()),
            train_rows=len(self.prepared.train_lengths),
            held_out_tokens=sum(e.length for e in self.prepared.validation_examples),
            held_out_rows=len(self.prepared.validation_examples),
            width=int(getattr(self.prepared.config, "hidden_size", BASE_WIDTH)),
            are_drawn_anew=task.augments and task.varies_recorded_rows,
            views=task.recorded_views,
            entries=self._entries,
            head_reads_tokens=task.answers_every_token,
            flops_per_second=FLOPS_PER_SECOND[self.machine.device],
            budget_bytes=min(settings.cache.budget_bytes, room),
            limit="the budget (cache.budget)"
            if room >= settings.cache.budget_bytes
            else "the disk that the run leaves",
            decoder=self._decoder,
            recorded=self._recorded_before(settings),
        )
        wanted = [(set(p.learning_rates), p.epochs, p.steps, p.evaluate_every) for p in phases]
        decisions = decide(wanted, self._sizes, facts)
        seen = f", each row in {task.recorded_views} variants" if task.recorded_views > 1 else ", as they are"
        return [
            replace(
                p,
                boundary=d.boundary,
                source_reason=d.reason + (seen if d.boundary is not None and task.augments else ""),
                recorded_bytes=d.stored_bytes,
                is_recorded=d.is_there,
                varies_rows=task.augments and d.boundary is None,
                views=task.recorded_views if d.boundary is not None else 1,
            )
            for p, d in zip(phases, decisions, strict=True)
        ]

    def _room_beside(self, phases: Sequence[PlannedPhase]) -> int:
        """Disk that stays free beside the run itself; without a recording it is slower, without a checkpoint lost."""
        shared = share_a_disk(self.recipe.output or RUNS_FOLDER, self._cache_folder)
        return max(0, self._room_for_caches - (run_bytes(phases, self._sizes) if shared else 0))

    def _refuse_settings_without_effect(self, schedule: Schedule) -> None:
        """Raises RecipeError where settings that were asked for would change nothing in these phases."""
        phases = [(phase, self._trained_groups(phase)) for phase in schedule.phases]
        has_rates = all(phase.learning_rate is not None for phase, _ in phases)
        has_no_head = all(HEAD not in trained for _, trained in phases)
        has_one_rate = all(phase.layer_decay is not None or len(trained - {HEAD}) < 2 for phase, trained in phases)
        for key, is_idle, why in (
            ("learning_rate", has_rates, "every phase of the schedule has its own"),
            ("head_learning_rate", has_no_head, "no phase trains weights of a head"),
            ("layer_decay", has_one_rate, "no phase without its own trains more than one pretrained group"),
        ):
            if is_idle and getattr(self.recipe.train, key) is not None:
                what = f"train.{key} changes nothing: {why}"
                raise RecipeError("RECIPE-CONFLICT", what, where=f"train.{key}", remedy="leave it out")

    def _refuse_variation_without_effect(self, phases: Sequence[PlannedPhase]) -> None:
        """Raises RecipeError where options of the task would change nothing in these phases."""
        task = self.prepared.task
        if task.mixes and not any(p.varies_rows for p in phases):
            what = "rows are mixed where they are varied, and in every phase they are recorded as they are"
            remedy = "--set options.augmentation=always, or another schedule, or leave it out"
            raise RecipeError("RECIPE-CONFLICT", what, where="options.mix", remedy=remedy)
        if task.recorded_views > 1 and not any(p.boundary for p in phases):
            what = f"variants are of recorded rows, and no phase is recorded: {phases[0].source_reason}"
            raise RecipeError("RECIPE-CONFLICT", what, where="options.views", remedy="leave it out")

    def _recorded_before(self, settings: Settings) -> frozenset[str]:
        if not settings.cache.reuse:
            return frozenset()
        name, folder = getattr(self.prepared.config, "_name_or_path", ""), Path(settings.cache.folder)
        train = Rows(self.prepared.task, self.prepared.train_examples)
        viewed = Views(train, self.prepared.task.recorded_views)
        splits = [s for s in (viewed, self.prepared.validation_examples) if s]
        at_once = forward_tokens(self.machine.device, settings.micro_batch_tokens)
        found = [recorded_groups(folder, name, s, at_once) for s in splits]
        return frozenset.intersection(*found)

    def _total_length(self, schedule: Schedule, per_epoch: int, fixed: int) -> Duration | None:
        """The length of all phases together; None where each has its own, `fixed` is the steps of those that have."""
        rows = len(self.prepared.train_lengths)
        unset = [p for p in schedule.phases if p.epochs is None]
        if not unset:
            if self.recipe.train.epochs is not None:
                raise RecipeError(
                    "RECIPE-CONFLICT",
                    "train.epochs is the length of all phases together, but every phase of the schedule has its own",
                    where="train.epochs",
                    remedy="leave one of them out",
                )
            return None
        by_rows = round(2.5 + 5000 / rows)
        reason = f"{rows:,} rows: few rows need more passes to give enough updates; the best weights are kept"
        targets = self.prepared.task.targets
        classes = len(targets.labels) if targets is not None else 0
        by_classes = math.ceil(UPDATES_PER_CLASS * classes / per_epoch)
        if by_classes > max(by_rows, FEWEST_EPOCHS):
            reason = f"{classes} classes: each needs about {UPDATES_PER_CLASS} updates; the best weights are kept"
        inferred = Duration(float(np.clip(max(by_rows, by_classes), FEWEST_EPOCHS, MOST_EPOCHS)))
        share = sum(p.share for p in unset) / sum(p.share for p in schedule.phases)
        least = fixed + math.ceil(share * inferred.steps(per_epoch))
        if least > inferred.steps(per_epoch):
            reason += "; phases with a length of their own take nothing from the others' share"
            inferred = Duration(round(least / per_epoch, 3))
        total = Duration.parse(self._choose("epochs", inferred, reason))
        steps = total.steps(per_epoch)
        if self.recipe.train.epochs is not None and fixed and steps - fixed < len(unset):
            last = unset[-1].name
            raise RecipeError(
                "RECIPE-CONFLICT",
                f"phases with a length of their own take {fixed} of {steps} steps: nothing is left for '{last}'",
                where="train.epochs",
                remedy=f"--set 'train.epochs={fixed + per_epoch} steps', or more; or leave a phase's length out",
            )
        return total

    def _rates(self, schedule: Schedule) -> tuple[float, float]:
        self.head_alone = all(self._trained_groups(phase) == {HEAD} for phase in schedule.phases)
        width = getattr(self.prepared.config, "hidden_size", None)
        if isinstance(width, int):
            inferred = float(f"{min(LARGEST_RATE, BASE_RATE * BASE_WIDTH / width):.1g}")
            reason = f"of the topmost pretrained group; for a model {width} wide"
        else:
            inferred, reason = LARGEST_RATE, "of the topmost pretrained group; for a convolutional network"
        if self.head_alone:
            inferred, reason = HEAD_ONLY_RATE, "of the head, which alone trains"
        rate = self._choose("learning_rate", inferred, reason)
        widest_is_first = len(schedule.phases) == 1
        inferred_decay = 1.0 if widest_is_first else LAYER_DECAY
        reason = "one rate for all groups" if widest_is_first else "lower groups move less (discriminative rates)"
        return rate, self._choose("layer_decay", inferred_decay, reason)

    def _evaluation_choices(self) -> None:
        if self.prepared.validation is None:
            for key, what in (
                ("early_stopping", "early stopping needs"),
                ("evaluations_per_epoch", "evaluations need"),
            ):
                if getattr(self.recipe.train, key):
                    remedy = "--set data.validation=0.1, or leave it out"
                    raise RecipeError("RECIPE-CONFLICT", f"{what} validation rows", where=f"train.{key}", remedy=remedy)
            return
        self._choose("early_stopping", PATIENCE, "evaluations without improvement end a phase")
        self._choose(
            "evaluations_per_epoch",
            None,
            f"once an epoch, and at least {EVALUATIONS_PER_PHASE} times a phase, or {FEWEST_EVALUATIONS} times "
            f"where more would take over {EVALUATIONS_SHARE:.0%} of it",
        )

    def _phase(
        self, phase: Phase, number: int, steps: int, per_epoch: int, base_rate: float, layer_decay: float
    ) -> PlannedPhase:
        span = self._resolved(phase.span)
        chosen = self.groups.select(span)
        members = {g: [n for n in self.groups.parameters(g) if n in chosen] for g in self.groups.names}
        training = [g for g in self.groups.names if members[g]]
        sizes = {n: p.numel() for g in training for n, p in self.groups.parameters(g).items() if n in chosen}
        warmup = phase.warmup_fraction
        if warmup is None:
            warmup = self.recipe.train.warmup_fraction
        if warmup is None:
            warmup = WARMUP_FRACTION
        return PlannedPhase(
            name=phase.name or f"phase {number}",
            span=span,
            steps=steps,
            epochs=round(steps / per_epoch, 3),
            learning_rates=self._group_rates(phase, training, base_rate, layer_decay),
            warmup_steps=round(steps * warmup),
            decay=phase.decay,
            evaluate_every=self._evaluate_every(steps, per_epoch),
            patience=self._patience(),
            trainable_parameters=sum(sizes.values()),
        )

    def _trained_groups(self, phase: Phase) -> set[str]:
        return {self.groups.group_of(name) for name in self.groups.select(self._resolved(phase.span))}

    def _resolved(self, span: Span) -> Span:
        return f"last({max(1, self.groups.n_groups // 2)})" if span == "last(half)" else span

    def _group_rates(
        self, phase: Phase, training: Sequence[str], base_rate: float, layer_decay: float
    ) -> dict[str, float]:
        """The head's rate, then from the topmost pretrained group down each `layer_decay` times the one above."""
        body = [g for g in reversed(training) if g != HEAD]
        rate = phase.learning_rate or base_rate
        decay = phase.layer_decay or layer_decay
        asked = phase.head_learning_rate or self.recipe.train.head_learning_rate
        if body:
            head = asked or min(HEAD_ONLY_RATE, rate * HEAD_RATE_FACTOR)
        else:
            # A rate that is named for a phase of the head, or where the head alone ever trains, is meant for it.
            head = asked or phase.learning_rate or (base_rate if self.head_alone else HEAD_ONLY_RATE)
        rates = {HEAD: head} if HEAD in training else {}
        return {**rates, **{g: rate * decay**i for i, g in enumerate(body)}}

    def _evaluate_every(self, steps: int, per_epoch: int) -> int:
        if self.prepared.validation is None:
            return 0
        asked = self.recipe.train.evaluations_per_epoch
        if asked is not None:
            return max(1, round(per_epoch / asked))
        epochs = steps / per_epoch
        one = len(self.prepared.validation) / (3 * epochs * len(self.prepared.train))
        fewest = min(max(FEWEST_EVALUATIONS, int(EVALUATIONS_SHARE / one)), EVALUATIONS_PER_PHASE)
        every = math.ceil(steps / max(fewest, math.ceil(epochs)))
        # The last of them is the phase's end; one a step before it would tell nothing more.
        while every > 1 and steps % every == 1:
            every += 1
        return every

    def _patience(self) -> int | None:
        asked = self.recipe.train.early_stopping
        if self.prepared.validation is None or asked is False:
            return None
        return PATIENCE if asked is None or asked is True else int(asked)

    # records -----------------------------------------------------------------------------------------------------

    def _data(self) -> dict[str, Any]:
        prepared = self.prepared
        tables = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
        return {
            "name": prepared.name,
            "rows": {k: len(t) for k, t in tables.items() if t is not None},
            "roles": {
                prepared.task.input_role: list(prepared.task.roles.text),
                "label": prepared.task.roles.label,
                "group": prepared.task.roles.group,
            },
            "facts": prepared.data_facts.to_json(),
            "sentences": prepared.data_facts.sentences(),
            "notes": prepared.notes,
        }
