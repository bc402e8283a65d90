"""Where a phase's inputs come from: the rows themselves, or what was recorded of their frozen part.

The plan says which phases are to be recorded; here the boundary is found, checked on a probe, recorded once for all
phases that can share the pass, and refused, with the reason, where the check does not agree. Rows that are measured and
not trained on are recorded in float32, so that their figures are the whole model's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unfreeze.activations.boundary import Boundary
from unfreeze.activations.fingerprint import Fingerprints, key_of
from unfreeze.activations.record import (
    Checked,
    OverBudget,
    Overflow,
    Refused,
    check,
    find_boundary,
    inputs_like,
    kept_lengths,
    over_budget,
    probe_rows,
    record,
)
from unfreeze.activations.replay import Replay
from unfreeze.activations.rows import RecordedRows, Rows, Views
from unfreeze.activations.store import DTYPES, Store, about, stored_bytes
from unfreeze.errors import ResourceError, command
from unfreeze.machine import forward_tokens, is_out_of_memory
from unfreeze.models.layers import LayerGroups, device_of
from unfreeze.plan import PlannedPhase, Settings
from unfreeze.tasks.base import Task

# Where the disk is short, a phase's own recording may still have its place.
_ROOM_FOR_LESS = (OverBudget, ResourceError, OSError)
# A folder that cannot be used, a row that has another shape than the others: no reason not to train.
_TRAIN_ANYHOW = (Refused, ResourceError, OSError, ValueError, RuntimeError)
FROM_ROWS = "rows"
EXACT = "float32"
# Of rows that are measured once and not trained on, at most so many numbers each are worth their disk: a vector for the
# head, of any model.
_NUMBERS_OF_A_MEASURED_ROW = 4096


@dataclass(frozen=True)
class Source:
    """The inputs of one phase.

    Attributes:
        train, validation: Of one kind, recorded or not.
        description: ``rows``, or boundary and precision; part of the training state.
    """

    train: Rows
    validation: Rows | None
    description: str


class Sources:
    """Gives each phase its source.

    Args:
        task, model, groups: As the engine has them.
        phases, settings: Of the plan.
        train, validation: The rows as they are.
        tell: Gets ``notice`` and ``recorded`` events.
        check_stop: Called while recording; may raise.
    """

    def __init__(
        self,
        task: Task,
        model: torch.nn.Module,
        groups: LayerGroups,
        phases: Sequence[PlannedPhase],
        settings: Settings,
        train: Rows,
        validation: Rows | None,
        tell: Callable[..., None],
        check_stop: Callable[[], None],
    ) -> None:
        self.task, self.model, self.groups = task, model, groups
        self.phases, self.settings = list(phases), settings
        self.rows = Source(train, validation, FROM_ROWS)
        # What is recorded of the training rows.
        self.viewed = Rows(task, Views(train, task.recorded_views)) if task.recorded_views > 1 else train
        self.tell, self.check_stop = tell, check_stop
        self._made: dict[str, tuple[Checked, list[Store]]] = {}
        # Boundary to the reason why it is not recorded, as far as this process knows it.
        self._refused: dict[str, str] = {}
        # Boundary to the precision that was decided before this process.
        self._begun: dict[str, str] = {}
        # Keys of all that this run has recorded or used.
        self._own: set[str] = set()

    @property
    def decided(self) -> dict[str, str]:
        """Of each boundary that was looked at, the precision of its recording, or ``rows`` where it was refused."""
        made = {boundary: checked.dtype for boundary, (checked, _) in self._made.items()}
        return {**self._begun, **made, **dict.fromkeys(sorted(self._refused), FROM_ROWS)}

    def keep_to(self, decided: Mapping[str, str]) -> None:
        """Go by what was decided before a resume: with a head that has trained since, it might be otherwise."""
        self._refused |= {boundary: "decided before" for boundary, found in decided.items() if found == FROM_ROWS}
        self._begun |= {boundary: found for boundary, found in decided.items() if found != FROM_ROWS}

    def of(self, index: int, begun_with: str = "") -> Source:
        """The source of a phase.

        Args:
            index: Of the phase; the model is in the state in which it begins, or goes on.
            begun_with: `Source.description` of a phase that goes on: rows stay rows though they could be recorded now.
        """
        boundary = self.phases[index].boundary
        if boundary is None or boundary in self._refused or begun_with == FROM_ROWS:
            return self.rows
        if boundary not in self._made:
            self._record_from(index)
        if boundary not in self._made:
            return self.rows
        checked, stores = self._made[boundary]
        replay = self._replay(checked)
        train = RecordedRows(self.rows.train, checked, stores[0], replay)
        rows = self.rows.validation
        validation = RecordedRows(rows, checked, stores[1], replay) if rows is not None else None
        return Source(train, validation, f"{checked.boundary.group}, {checked.dtype}")

    def refusal(self, index: int) -> str:
        """Why a phase that was to be recorded is not; empty where it is."""
        return self._refused.get(self.phases[index].boundary or "", "")

    def after_training(self, encoded: Callable[[], Rows], *, were_held_out: bool) -> Rows | None:
        """Rows to measure, from the highest recorded boundary below which no phase has trained.

        Another run with the same frozen part, of another rate or seed, finds them there. None: they go through the
        whole model, and need not be encoded all at once for it.

        Args:
            encoded: Encodes the rows.
            were_held_out: Whether they were measured during training, and so lie recorded already.
        """
        if self._measured is None:
            return None
        checked, replay = self._measured
        # What takes much disk is quicker to compute once than to write, and would drive out what is trained on.
        is_small = checked.boundary.reads != "all" and checked.boundary.width <= _NUMBERS_OF_A_MEASURED_ROW
        if not is_small and not were_held_out:
            return None
        rows = encoded()
        if not is_small and not self._lies_there(checked, rows):
            return None
        try:
            (store,) = self._recorded([checked], rows, is_measured=True)
        except _TRAIN_ANYHOW as error:
            self._refuse_recording([checked], error)
            return None
        return RecordedRows(rows, checked, store, replay)

    def _lies_there(self, checked: Checked, rows: Rows) -> bool:
        return self._place(checked.boundary, EXACT, rows).is_dir()

    @functools.cached_property
    def _prints(self) -> Fingerprints:
        return Fingerprints(self.model, self.groups, self.task, self._tokens_at_once)  # once it is on its device

    def _place(self, boundary: Boundary, dtype: str, rows: Rows) -> Path:
        return Path(self.settings.cache.folder) / key_of(self._prints.facts(boundary, dtype, rows.examples))

    @functools.cached_property
    def _measured(self) -> tuple[Checked, Replay] | None:
        """Checked once for validation and test rows; None where they go through the whole model."""
        boundary = self._never_trained_below()
        checked = self._checked(boundary) if boundary is not None else None
        return (checked, self._replay(checked)) if checked is not None else None

    def _never_trained_below(self) -> str | None:
        order = list(self.groups.names)
        lowest = min(order.index(group) for phase in self.phases for group in phase.learning_rates)
        found = {p.boundary for p in self.phases if p.boundary is not None and order.index(p.boundary) <= lowest}
        return max(found, key=order.index, default=None)

    def _replay(self, checked: Checked) -> Replay:
        inputs = inputs_like(self.task, self.model, self.rows.train.examples)
        return Replay(self.model, self.groups, checked.boundary, inputs)

    # recording ---------------------------------------------------------------------------------------------------

    def _record_from(self, index: int) -> None:
        """Record this phase's boundary and, in the same pass, those of later phases that are still untouched."""
        self._prints.forget()
        wanted = [b for b in self._sharing(index) if b not in self._refused]
        checked = [c for c in map(self._checked, wanted) if c is not None]
        own = [c for c in checked if c.boundary.group == self.phases[index].boundary]
        try:
            try:
                checked, stores = self._recorded_whole(checked)
            except _ROOM_FOR_LESS as error:
                if not own or own == checked:
                    raise
                # Later phases do without, rather than all.
                self._refuse_recording([c for c in checked if c not in own], error)
                checked = own
                checked, stores = self._recorded_whole(checked)
        except _TRAIN_ANYHOW as error:
            self._refuse_recording(checked, error)
            return
        self._keep(checked, stores)

    def _recorded_whole(self, checked: Sequence[Checked]) -> tuple[list[Checked], list[list[Store]]]:
        """Stores of the training rows and of the validation rows, one for each boundary.

        Returns:
            The boundaries in the precision that was recorded; the stores.
        """
        checked = list(checked)
        while True:
            self._check_budget(checked)
            try:
                stores = [self._recorded(checked, self.viewed)] if checked else []
                break
            except Overflow as overflow:
                if all(c.dtype == EXACT for c in checked if c.boundary.group == overflow.group):
                    raise  # no precision holds what is not finite
                # The few rows of the check had no such value. In single precision, which is what the design promises.
                self.tell("notice", text=f"{overflow}: recorded in {EXACT}")
                checked = [replace(c, dtype=EXACT) if c.boundary.group == overflow.group else c for c in checked]
        if checked and self.rows.validation is not None:
            stores.append(self._recorded(checked, self.rows.validation, is_measured=True))
        return checked, stores

    def _check_budget(self, checked: Sequence[Checked]) -> None:
        """Raises OverBudget before a pass over the training rows, where those held out would not fit beside them."""
        rows: list[tuple[Rows, str | None]] = [(self.viewed, None)]
        if self.rows.validation is not None:
            rows.append((self.rows.validation, EXACT))
        wanted = sum(
            stored_bytes(kept_lengths(c.boundary, r.lengths), c.boundary.width, dtype or c.dtype)
            for r, dtype in rows
            for c in checked
        )
        if wanted > self.settings.cache.budget_bytes:
            raise over_budget(wanted, self.settings.cache.budget_bytes)

    def _keep(self, checked: Sequence[Checked], stores: Sequence[Sequence[Store]]) -> None:
        for position, c in enumerate(checked):
            of_both = [made[position] for made in stores]
            self._made[c.boundary.group] = (c, of_both)
            size = sum(s.bytes for s in of_both)
            self.tell(
                "recorded",
                boundary=c.boundary.group,
                reads=c.boundary.reads,
                precision=c.dtype,
                bytes=size,
                error=c.error,
            )

    def _sharing(self, index: int) -> list[str]:
        """Boundaries of this and later phases below which nothing trains in between, from the input upwards."""
        order = list(self.groups.names)
        found: set[str] = set()
        trained: set[str] = set()
        for phase in self.phases[index:]:
            boundary = phase.boundary
            if boundary is not None and not trained & set(order[: order.index(boundary)]):
                found.add(boundary)
            trained |= set(phase.learning_rates)
        return sorted(found, key=order.index)

    def _checked(self, group: str) -> Checked | None:
        probe = probe_rows(self.rows.train.examples, self.settings.seed)
        try:
            boundary = find_boundary(self.task, self.model, self.groups, group, probe)
            known = self._checked_before(boundary)
            if known is not None:
                return known
            return check(self.task, self.model, self.groups, boundary, probe, self._begun.get(group))
        except Refused as refusal:
            self._refuse([group], str(refusal))
        except Exception as error:
            # Whatever keeps a model from being recorded must not keep it from being trained.
            is_memory = is_out_of_memory(error)
            what = "there is not enough memory" if is_memory else f"{type(error).__name__}: {error}"
            self._refuse([group], f"its boundary cannot be checked: {what}")
        return None

    def _checked_before(self, boundary: Boundary) -> Checked | None:
        """What a run found that checked this very model, weights above the boundary included; its recording is there.

        What lies above decides whether half precision is good enough. Of a phase that is resumed it has been decided,
        with a head that has trained since.
        """
        if not self._may_reuse(boundary.group):
            return None
        above = self._prints.above(boundary)
        # See `check`: where a shortened row would not do, the whole one is kept.
        kept = {boundary.keeps_inputs, boundary.reads != "all"}
        for place in (replace(boundary, keeps_inputs=k) for k in sorted(kept)):
            begun = self._begun.get(boundary.group)
            for dtype in (begun,) if begun in DTYPES else DTYPES:
                known = about(self._place(place, dtype, self.viewed))
                is_known = known.get("above") == above or boundary.group in self._begun
                if is_known and isinstance(known.get("error"), float):
                    return Checked(place, dtype, known["error"])
        return None

    def _may_reuse(self, group: str) -> bool:
        """What this very run has recorded before it was resumed is its own."""
        return self.settings.cache.reuse or group in self._begun

    def _refuse(self, groups: Sequence[str], reason: str) -> None:
        self._refused |= dict.fromkeys(groups, reason)
        self.tell("notice", text=f"not recorded at {', '.join(groups)}: {reason}; the rows go through the whole model")

    def _refuse_recording(self, checked: Sequence[Checked], error: Exception) -> None:
        """What keeps rows from being recorded must not keep the model from being trained."""
        if isinstance(error, ResourceError):
            reason = error.what
        else:
            reason = str(error) if isinstance(error, Refused | OSError) else f"{type(error).__name__}: {error}"
        self._refuse([c.boundary.group for c in checked], reason)

    def _recorded(self, checked: Sequence[Checked], rows: Rows, *, is_measured: bool = False) -> list[Store]:
        if is_measured:
            checked = [replace(c, dtype=EXACT) for c in checked]
        facts = [self._prints.facts(c.boundary, c.dtype, rows.examples) for c in checked]
        shown = [self._about(rows) for _ in checked]
        if not is_measured:
            for known, c in zip(shown, checked, strict=True):
                known |= {"error": c.error, "above": self._prints.above(c.boundary)}
        folder = Path(self.settings.cache.folder)
        places = [folder / key_of(f) for f in facts]
        reuse = {p.name for p, c in zip(places, checked, strict=True) if self._may_reuse(c.boundary.group)}
        reuse |= self._own
        self._own |= {place.name for place in places}
        started: list[int] = []

        def on_row(done: int) -> None:
            self.check_stop()
            if not started:
                started.append(done)
                self.tell(
                    "notice",
                    text=f"recording {len(rows.examples):,} rows at {', '.join(c.boundary.group for c in checked)}",
                )

        return record(
            self.task,
            self.model,
            checked,
            rows.examples,
            places,
            [{**f, "about": a} for f, a in zip(facts, shown, strict=True)],
            budget_bytes=self.settings.cache.budget_bytes,
            budget_tokens=self._tokens_at_once,
            reuse=reuse,
            say=lambda text: self.tell("notice", text=text),
            on_row=on_row,
            keep=self._own,
            check_stop=self.check_stop,
        )

    @property
    def _tokens_at_once(self) -> int:
        return forward_tokens(device_of(self.model).type, self.settings.micro_batch_tokens)

    def _about(self, rows: Rows) -> dict[str, Any]:
        """What `unfreeze cache` shows of a store; nothing recorded depends on it.

        That of training rows also has the ``error`` its check found, and a digest of the weights ``above``: another run
        of the same model need not check it again.
        """
        return {"model": getattr(self.model.config, "_name_or_path", ""), "rows": len(rows.examples)}


def check_same_source(before: str, now: str, why: str, where: str) -> None:
    """A phase that was begun with recorded inputs goes on with the same, or stops.

    Args:
        why: What keeps them from being recorded now.

    Raises:
        ResourceError: E-DISK.
    """
    if before and before != now:
        raise ResourceError(
            "DISK",
            f"this phase was begun with inputs from '{before}'; going on with '{now}' would not be the same to the bit"
            + (f" ({why})" if why else ""),
            where=where,
            remedy=f"make room for the recorded activations (unfreeze cache), then: {command('resume', where)}",
        )
