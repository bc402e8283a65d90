"""The engine: phases, steps, accumulation, precision. Nothing else changes weights; whoever else changes modes or
``requires_grad`` (evaluation, a check of what is to be recorded) gives them back.

::

    for phase in plan.phases[state.phase:]:          resume enters here
        enter   freeze; frozen groups to eval(); parameter groups; optimizer state carried over by name
        steps   micro-batches -> task.loss -> backward -> clip -> step -> rate; evaluate, checkpoint, maybe stop
        leave   restore the best weights so far; release the optimizer

A task gives loss *sums*; the totals that divide them are known from `Batch.weights` before the first backward, and only
this module divides. Cutting a batch into micro-batches therefore changes memory, not the gradient.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradScalerKwargs

from unfreeze.activations.rows import Rows
from unfreeze.activations.unread import Unread
from unfreeze.data.loading import epoch_batches, micro_batches, steps_per_epoch
from unfreeze.errors import NumericsError, RequestError, command
from unfreeze.evaluation import Evaluation, autocast, evaluate_examples
from unfreeze.machine import (
    device_type,
    forward_tokens,
    give_back_device_memory,
    is_out_of_memory,
    not_enough_memory,
)
from unfreeze.models.layers import HEAD, LayerGroups, hold_statistics, modes_kept
from unfreeze.plan import PlannedPhase, Settings
from unfreeze.randomness import generator, seed_all
from unfreeze.run import Run
from unfreeze.tasks.base import Task
from unfreeze.training.checkpoints import Best, Checkpoint, Checkpoints, TrainState
from unfreeze.training.dropout import Dropout
from unfreeze.training.interruption import StopFlag
from unfreeze.training.observers import Observer
from unfreeze.training.optimization import (
    build_optimizer,
    drop_partial_moments,
    moments_by_name,
    rate_factor,
    restore_moments,
    set_rates,
)
from unfreeze.training.sources import Sources, check_same_source
from unfreeze.training.vocabulary import SeenWords
from unfreeze.types import Batch, Example

# A loss so many times the run's first one (or 1, where that was less) in so many steps in a row is a divergence. One
# strange batch is not, nor is a loss that has only risen from nearly nothing.
DIVERGED_FACTOR, DIVERGED_STEPS = 20.0, 3
# In float16 the loss is scaled up, and a step whose gradients overflow is left out and halves the scale (Micikevicius
# et al. 2018, arXiv 1710.03740, section 3.2). So many in a row take the first scale below 1: then it is not the scale.
FIRST_LOSS_SCALE, MOST_SKIPPED = 65536.0, 20


class Engine:
    """Trains a model through the phases of a plan.

    Args:
        task: Bound to roles, targets and processor.
        model: With its head; changed in place.
        phases, settings: From the plan.
        train: Encoded training rows.
        validation: Encoded validation rows, or None: then the last weights are kept.
        run: Gets events and checkpoints.
        observers: See the events.
        stop: Looked at between steps.
        notes: What loading the model had to say; told before anything else.
    """

    def __init__(
        self,
        task: Task,
        model: torch.nn.Module,
        phases: Sequence[PlannedPhase],
        settings: Settings,
        train: Rows,
        validation: Rows | None,
        run: Run,
        *,
        observers: Sequence[Observer] = (),
        stop: StopFlag | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.task, self.model, self.phases, self.settings = task, model, list(phases), settings
        self.train_rows, self.validation_rows = train, validation
        self.run, self.observers, self.stop = run, list(observers), stop if stop is not None else StopFlag()
        self.groups = LayerGroups.of(model)
        self.state = TrainState()
        self.notes = list(notes)
        self.checkpoints = Checkpoints(run, notice=lambda text: self._tell("notice", text=text))
        self.moments: dict[str, torch.Tensor] = {}
        self.sources = Sources(
            task,
            model,
            self.groups,
            self.phases,
            settings,
            train,
            validation,
            tell=self._tell,
            check_stop=self._check_stop,
        )
        self.source = self.sources.rows
        self.dropout = Dropout(model)
        self.words: SeenWords | None = None
        self._asked_to_stop = False
        self._has_told_of_the_log = False
        self._cause = ""
        self._batches: tuple[int, list[np.ndarray]] = (-1, [])
        self._chosen: tuple[int, int, np.ndarray] | None = None  # of the step that is being made
        self.accelerator = self._new_accelerator()
        if self.accelerator.num_processes > 1:
            what = "training in several processes is not built yet"
            raise RequestError(
                "DISTRIBUTED", what, remedy=f"start one process, without a launcher: {run.resume_command}"
            )
        check_device(self.accelerator.device.type, run.resume_command)

    def _new_accelerator(self) -> Accelerator:
        precision = {"fp32": "no"}.get(self.settings.precision, self.settings.precision)
        state = AcceleratorState._shared_state
        if state and state.get("_mixed_precision") != precision:
            # Trap: Accelerate keeps the first precision of a process, and refuses the next run's. There is no public
            # way to take it back; its own notebooks call this.
            AcceleratorState._reset_state()
        scale = self.state.loss_scale or FIRST_LOSS_SCALE
        return Accelerator(mixed_precision=precision, kwargs_handlers=[GradScalerKwargs(init_scale=scale)])

    def _on_the_device(self) -> torch.nn.Module:
        """The model as Accelerate prepares it, but for mixed precision.

        Trap: that is put around the model's forward, once a phase, and stays there: the model that is written would not
        answer as the one in memory. Loss and evaluation have an autocast of their own.
        """
        own = self.model.__dict__.get("forward")
        model: torch.nn.Module = self.accelerator.prepare_model(self.model)
        self.model.__dict__.pop("_original_forward", None)
        self.model.__dict__.pop("forward", None)
        if own is not None:
            self.model.forward = own
        return model

    # the run -----------------------------------------------------------------------------------------------------

    def train(self) -> torch.nn.Module:
        """Run what is left of the phases; afterwards the model holds the best weights.

        Raises:
            NumericsError: E-NOT-FINITE; no update was made with the number in question.
            Interrupted: E-INTERRUPTED, after a checkpoint.
        """
        for note in self.notes:
            self._tell("notice", text=note)
        # Trap: before the checkpoint's weights are there, or a resumed run might find another answer than the first.
        unread = Unread.find(self.task, self.model, self.groups, self.train_rows.examples)
        if unread.modules:
            self._tell(
                "notice", text=f"the head reads the first token alone: from {unread.modules[0]} on no other is kept"
            )
        self.words = self._seen_words()
        self._continue_from_checkpoint()
        self.model.to(self.accelerator.device)
        words = self.words.installed() if self.words is not None else contextlib.nullcontext()
        with unread.skipped(), self.dropout.installed(), words:
            self._run_phases()
        return self.model

    def _seen_words(self) -> SeenWords | None:
        """The words that are trained, where a phase trains words and not nearly all of them occur."""
        trained = {name for phase in self.phases for name in self.groups.select(phase.span)}
        found = SeenWords.find(self.task, self.model, trained, self.train_rows.examples)
        if found is not None:
            occur, known = len(found.ids), found.table.num_embeddings
            self._tell("notice", text=f"{occur:,} of the model's {known:,} words occur: the others stay as they are")
        return found

    def _run_phases(self) -> None:
        started, before = time.monotonic(), self.state.seconds
        self._clock: Callable[[], float] = lambda: before + time.monotonic() - started
        if self.state.step == 0 and self.state.phase == 0:
            self._try_widest_step()
            self._save()
        for index in range(self.state.phase, len(self.phases)):
            self._run_phase(index)

    def _run_phase(self, index: int) -> None:
        phase = self.phases[index]
        self._take_source(index)
        trainable = self._freeze_all_but(phase)
        self._begin_to_touch(index, trainable)
        # Trap: an Accelerator keeps every optimizer that it has prepared until free_memory(), which goes through all of
        # Python's garbage: a tenth of a second, or two. Every phase has an Accelerator of its own.
        self.accelerator = self._new_accelerator()
        built = build_optimizer(self.groups, phase, trainable, self.settings.weight_decay)
        optimizer: Any = self.accelerator.prepare(built)
        model = self._on_the_device()
        restore_moments(optimizer.optimizer, self.moments)
        self.moments = {k: v for k, v in self.moments.items() if k.rpartition("/")[0] not in trainable}
        self._tell(
            "phase",
            number=index + 1,
            of=len(self.phases),
            name=phase.name,
            steps=phase.steps,
            done=self.state.phase_step,
            trainable=sum(p.numel() for p in trainable.values()),
            rates=phase.learning_rates,
            source=self.source.description,
        )
        with self.source.train.open():
            self._run_steps(model, optimizer, phase, list(trainable.values()))
        # Trap: recorded rows mean something only while their replay is installed.
        self.source = self.sources.rows
        self.moments |= moments_by_name(optimizer.optimizer)
        # Trap: the wrapped optimizer lies in a cycle, and its moments with it.
        built.state.clear()
        built.zero_grad(set_to_none=True)
        self._leave_phase(index)

    def _run_steps(
        self,
        model: torch.nn.Module,
        optimizer: Any,
        phase: PlannedPhase,
        trainable: list[torch.nn.Parameter],
    ) -> None:
        last_save = time.monotonic()
        while self.state.phase_step < phase.steps:
            self._step(model, optimizer, phase, trainable)
            if self._evaluation_is_due(phase) and self._evaluate_and_judge(model, phase):
                break
            if self.stop or self._asked_to_stop:
                self.moments |= moments_by_name(optimizer.optimizer)
                self._save()
                self._check_stop()
            every = self.settings.checkpoint_steps
            # One follows at the phase's end anyway.
            is_due = every and self.state.step % every == 0 and self.state.phase_step < phase.steps
            if is_due or time.monotonic() - last_save > self.settings.checkpoint_minutes * 60:
                self.moments |= moments_by_name(optimizer.optimizer)
                self._save()
                last_save = time.monotonic()

    def _check_stop(self) -> None:
        """Raise `Interrupted` where a signal or an observer has asked for it."""
        if self._asked_to_stop:
            self.stop.signal_name = self.stop.signal_name or "an observer"
        self.stop.check(str(self.run.folder))

    def _take_source(self, index: int) -> None:
        """The phase's inputs; a phase that is resumed must get the same again."""
        self.source = self.sources.of(index, self.state.source if self.state.phase_step else "")
        if self.state.phase_step:
            why = self.sources.refusal(index)
            check_same_source(self.state.source, self.source.description, why, str(self.run.folder))
        self.state = replace(self.state, source=self.source.description, decided=self.sources.decided)

    def _begin_to_touch(self, index: int, trainable: Mapping[str, torch.nn.Parameter]) -> None:
        touched = tuple(dict.fromkeys([*self.state.touched, *trainable]))
        is_wider = len(touched) > len(self.state.touched)
        self.state = replace(self.state, phase=index, touched=touched)
        if is_wider and self.state.best is not None:
            # Trap: the best weights so far hold only what was trained by then. Going back to them must undo this phase
            # too, so what it begins to train joins them as it is now; the model holds the best weights between phases.
            self.checkpoints.save_best(self.state, self._weights())

    def _leave_phase(self, index: int) -> None:
        best = self.state.best
        if best is not None and best.step != self.state.step:
            self._load(self.checkpoints.best_weights(best))
            self._tell("notice", text=f"back to the best weights, those of step {best.step}")
        if self.words is not None:
            self.words.leave()
        give_back_device_memory()
        self.state = replace(self.state, phase=index + 1, phase_step=0, stale_evaluations=0)
        self._save()

    # one step ----------------------------------------------------------------------------------------------------

    def _step(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        phase: PlannedPhase,
        trainable: list[torch.nn.Parameter],
    ) -> None:
        started = time.monotonic()
        factor = rate_factor(self.state.phase_step, phase.steps, phase.warmup_steps, phase.decay)
        set_rates(optimizer, factor)
        chosen = self._chosen_rows()[1]
        while (done := self._try_update(model, optimizer, trainable)) is None:
            self._use_less_memory(chosen, optimizer)
        loss, norm, tokens = done
        first = loss if self.state.first_loss is None else self.state.first_loss
        self.state = replace(
            self.state,
            step=self.state.step + 1,
            phase_step=self.state.phase_step + 1,
            seconds=self._clock(),
            first_loss=first,
            steps_above=self.state.steps_above + 1 if loss > DIVERGED_FACTOR * max(first, 1.0) else 0,
        )
        self._tell(
            "step",
            phase=phase.name,
            phase_step=self.state.phase_step,
            loss=loss,
            rate=factor * max(phase.learning_rates.values()),
            gradient_norm=norm,
            tokens=tokens,
            step_seconds=round(time.monotonic() - started, 4),
        )
        if self.state.steps_above >= DIVERGED_STEPS:
            self._end_divergence(loss, first, sorted(self.train_rows.examples[int(i)].row for i in chosen))

    def _end_divergence(self, loss: float, first: float, rows: Sequence[int]) -> None:
        self._tell("diverged", loss=loss, first_loss=first, rows=list(rows))
        raise NumericsError(
            "DIVERGED",
            f"the loss is {loss:.3g} after {self.state.step} steps, it was {first:.3g} at the start: training diverges",
            where=_place(self.run, self.state.step, rows),
            remedy=self._slower(),
        )

    def _slower(self) -> str:
        rates = [phase.learning_rates for phase in self.phases]
        body = [rate for phase in rates for group, rate in phase.items() if group != HEAD]
        head = [phase[HEAD] for phase in rates if HEAD in phase]
        settings = [f"train.learning_rate={max(body or head) / 10:.1g}"]
        settings += [f"train.head_learning_rate={max(head) / 10:.1g}"] if head else []
        where = "in a new run (or in the recipe, where its phases have rates of their own)"
        return f"a tenth of the rates, {where}: {self.run.command_anew(*settings)}"

    def _try_update(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, trainable: list[torch.nn.Parameter]
    ) -> tuple[float, float, int] | None:
        """Loss, gradient norm and tokens of one update; None where memory was not enough, and nothing was updated."""
        try:
            return self._update(model, optimizer, trainable)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._cause = str(error)
        # Trap: inside the handler the traceback still holds the tensors that did not fit.
        return None

    def _update(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, trainable: list[torch.nn.Parameter]
    ) -> tuple[float, float, int]:
        batches = self._micro_batches()
        totals = _totals(batches)
        loss = 0.0
        scaler = self.accelerator.scaler
        for number, batch in enumerate(batches):
            self._seed("step", self.state.step, number)
            output = self._loss(model, batch, totals)
            # As Accelerate does, but for its division by 1 and its look at the settings of other machines.
            scaled = output if scaler is None else scaler.scale(output)
            scaled.backward()  # type: ignore[no-untyped-call]
            loss += float(output.detach())
        norm = self._clip(trainable, optimizer)
        overflows = scaler is not None and math.isfinite(loss) and not math.isfinite(norm)
        skipped = self.state.skipped_in_a_row + 1 if overflows else 0
        if not math.isfinite(loss) or (not math.isfinite(norm) and not overflows) or skipped > MOST_SKIPPED:
            self._refuse_update(loss, norm, batches, optimizer)
        self._apply(optimizer)
        if overflows:
            assert scaler is not None
            self._tell("skipped", scale=scaler.get_scale(), in_a_row=skipped)
        self.state = replace(
            self.state,
            skipped_in_a_row=skipped,
            loss_scale=scaler.get_scale() if scaler is not None else 0.0,
        )
        for parameter in trainable:
            parameter.grad = None
        return loss, norm, sum(b.size_tokens for b in batches)

    def _apply(self, optimizer: Any) -> None:
        """The update; a scaler whose gradients have overflowed leaves the weights and halves its scale.

        Trap: Accelerate's own step looks on the disk, twice, whether a package is installed: on recorded inputs a
        tenth of a step. Beside that it only asks the scaler, where there is one.
        """
        if self.accelerator.scaler is None:
            optimizer.optimizer.step()
        else:
            optimizer.step()

    def _use_less_memory(self, chosen: np.ndarray, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Halve what goes through the model at once; steps, order and batch stay as they are.

        Args:
            chosen: Positions of the rows that were too much together.
            optimizer: Whose gradients and half-made moments are dropped.

        Raises:
            ResourceError: E-MEMORY, where the rows go one by one already.
        """
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)  # what part of the batch has added
            drop_partial_moments(optimizer)
            if (scaler := self.accelerator.scaler) is not None:
                # Trap: what it noted of these gradients would keep it from looking at the next ones. It has a scale to
                # update only once it has scaled something.
                scaler.scale(torch.zeros((), device=self.accelerator.device))
                scaler.update(scaler.get_scale())
        give_back_device_memory()
        lengths = np.asarray([self.source.train.examples[int(i)].length for i in chosen])
        parts = micro_batches(lengths, self._budget_tokens, whole=self.task.couples_rows)
        if max(map(len, parts)) < 2 or self.task.couples_rows:
            longest = int(chosen[int(lengths.argmax())])
            row = self.source.train.examples[longest].row
            where = f"{self.run.folder}, training row {row}, {int(lengths.max())} tokens"
            raise not_enough_memory(self._cause, where, self._smaller(int(lengths.max())))
        budget = max(1, max(len(part) * int(lengths[part].max()) for part in parts) // 2)
        self.state = replace(self.state, micro_batch_tokens=budget)
        self._tell("notice", text=f"memory was not enough; from here on {budget} tokens go through the model at once")

    def _smaller(self, longest: int) -> str:
        if self.task.couples_rows:
            setting = f"train.batch_size={max(1, self.settings.batch_size // 2)}"
        elif self.task.modality == "text":
            setting = f"train.max_length={max(4, longest // 2)}"
        else:
            setting = "schedule=head"
        free = f"with more memory free: {self.run.resume_command}"
        return f"with less, in a new run: {self.run.command_anew(setting)}\nor with a smaller model\nor {free}"

    @property
    def _budget_tokens(self) -> int:
        return self.state.micro_batch_tokens or self.settings.micro_batch_tokens

    def _seed(self, *names: str | int) -> None:
        seed_all(self.settings.seed, *names)
        self.dropout.seed(lambda: generator(self.settings.seed, "dropout", *names))

    def _clip(self, trainable: Sequence[torch.nn.Parameter], optimizer: Any) -> float:
        """Scale the gradients down to the largest norm allowed; returns the norm before.

        A step whose norm is within it is not multiplied by one: for a large vocabulary that is a pass over memory.
        """
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(optimizer.optimizer)
        gradients = [p.grad for p in trainable if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        found = float(norm)
        if not found <= self.settings.max_gradient_norm:
            torch.nn.utils.clip_grads_with_norm_(trainable, self.settings.max_gradient_norm, norm)
        return found

    def _loss(self, model: torch.nn.Module, batch: Batch, totals: Mapping[str, float]) -> torch.Tensor:
        """A micro-batch's part of the step's loss: the only division."""
        with autocast(self.accelerator.device, self.settings.precision):
            terms = self.source.train.loss(model, batch.to(self.accelerator.device)).terms.values()
            first, *others = [t.sum.float() * (t.coefficient / totals[t.per]) for t in terms]
            return torch.stack([first, *others]).sum() if others else first

    def _chosen_rows(self) -> tuple[int, np.ndarray]:
        """The epoch, and the positions of the rows of the next step."""
        if self._chosen is not None and self._chosen[0] == self.state.step:
            return self._chosen[1:]
        per_epoch = steps_per_epoch(len(self.train_rows.lengths), self.settings.batch_size)
        epoch, position = divmod(self.state.step, per_epoch)
        if self._batches[0] != epoch:
            order = epoch_batches(
                self.train_rows.lengths, self.settings.batch_size, seed=self.settings.seed, epoch=epoch
            )
            self._batches = (epoch, order)
        chosen = self._batches[1][position]
        # By their length as rows, though recorded ones may be shorter: where the batch is one micro-batch, dropout then
        # draws the same masks for them.
        ordered = chosen[np.argsort(-self.train_rows.lengths[chosen], kind="stable")]
        self._chosen = (self.state.step, epoch, ordered)
        return epoch, ordered

    def _micro_batches(self) -> list[Batch]:
        epoch, chosen = self._chosen_rows()
        view = epoch % self._views
        examples = [self._varied(int(i), epoch, view) for i in chosen]
        lengths = np.asarray([e.length for e in examples])
        parts = micro_batches(lengths, self._budget_tokens, whole=self.task.couples_rows)
        return [self.source.train.batch([examples[i] for i in part], view) for part in parts]

    def _varied(self, position: int, epoch: int, view: int) -> Example:
        example = self.source.train.example(position, view)
        if not self.task.augments or not self._varies_rows:
            return example
        seed, place = self.settings.seed, (epoch, example.row, example.part)
        varied = self.task.augment(example, generator(seed, "augment", *place))
        if not self.task.mixes:
            return varied
        draws = generator(seed, "mix", *place)
        other = self.source.train.example(int(draws.integers(len(self.source.train.examples))))
        return self.task.mixed(varied, self.task.augment(other, draws), draws)

    @property
    def _views(self) -> int:
        """Variants that are taken in turn, as planned: the same where a recording was refused."""
        index = self.state.phase
        return self.phases[index].views if index < len(self.phases) else 1

    @property
    def _varies_rows(self) -> bool:
        """As planned, even where a recording was refused: what is trained must not depend on the disk."""
        index = self.state.phase
        return index < len(self.phases) and self.phases[index].varies_rows

    def _refuse_update(
        self, loss: float, norm: float, batches: Sequence[Batch], optimizer: torch.optim.Optimizer
    ) -> None:
        optimizer.zero_grad(set_to_none=True)
        rows = sorted(int(r) for b in batches for r in b.rows)
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        step = self.state.step + 1
        self._tell("not_finite", loss=repr(loss), gradient_norm=repr(norm), rows=rows)
        first = command("inspect", *self.run.arguments, "--row", rows[0])
        raise NumericsError(
            "NOT-FINITE",
            f"{what} in step {step}; no update was made with it",
            where=_place(self.run, step, rows),
            remedy=f"{self._slower()}\nor look at the rows: {first}",
        )

    def _try_widest_step(self) -> None:
        """Forward and backward of the longest micro-batch with everything trainable that ever will be.

        What cannot work (memory, a shape, a missing gradient) fails here and not after an hour. Where the widest phase
        is the first and recorded, its own first step tells as much, and recording begins with the longest rows.
        """
        widest = max(self.phases, key=lambda p: p.trainable_parameters)
        if widest is self.phases[0] and widest.boundary is not None:
            return
        trainable = list(self._freeze_all_but(widest).values())
        longest = np.argsort(-self.train_rows.lengths, kind="stable")[: self.settings.batch_size]
        while not self._try_rows(longest, trainable):
            self._use_less_memory(longest)

    def _try_rows(self, chosen: np.ndarray, trainable: Sequence[torch.nn.Parameter]) -> bool:
        """Forward and backward of the first micro-batch of these rows; False where memory was not enough."""
        try:
            self._forward_and_backward(chosen)
            return True
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._cause = str(error)
        finally:
            for parameter in trainable:
                parameter.grad = None
        return False

    def _forward_and_backward(self, chosen: np.ndarray) -> None:
        examples = [self._varied(int(i), 0, 0) for i in chosen]
        lengths = np.asarray([e.length for e in examples])
        part = micro_batches(lengths, self._budget_tokens, whole=self.task.couples_rows)[0]
        batch = self.task.collate([examples[i] for i in part])
        self._seed("trial step")
        started = time.monotonic()
        loss = self._loss(self.model, batch, _totals([batch]))
        loss.backward()  # type: ignore[no-untyped-call]
        self._tell("trial", tokens=batch.size_tokens, trial_seconds=round(time.monotonic() - started, 4))

    # freezing ----------------------------------------------------------------------------------------------------

    def _freeze_all_but(self, phase: PlannedPhase) -> dict[str, torch.nn.Parameter]:
        """Set ``requires_grad`` and modes for a phase; returns the trainable parameters by name.

        Frozen groups are in eval mode, so that what they compute is a pure function of the row; normalisation
        statistics never move.
        """
        if self.words is not None:
            self.words.leave()
        chosen = self.groups.select(phase.span)
        trainable: dict[str, torch.nn.Parameter] = {}
        for group in self.groups.names:
            for name, parameter in self.groups.parameters(group).items():
                parameter.requires_grad_(name in chosen)
                if name in chosen:
                    trainable[name] = parameter
        if self.words is not None and self.words.name in trainable:
            trainable[self.words.name] = self.words.enter()
        self.groups.set_modes({self.groups.group_of(name) for name in chosen})
        hold_statistics(self.model)
        return trainable

    # evaluation --------------------------------------------------------------------------------------------------

    def _evaluation_is_due(self, phase: PlannedPhase) -> bool:
        if self.validation_rows is None or not phase.evaluate_every:
            return False
        return self.state.phase_step % phase.evaluate_every == 0 or self.state.phase_step == phase.steps

    def _evaluate_and_judge(self, model: torch.nn.Module, phase: PlannedPhase) -> bool:
        """Evaluate on the validation rows, keep the weights if they are the best; True ends the phase."""
        if self.words is not None:
            self.words.write_back()
        with modes_kept(self.model):
            found = self.evaluate()
        is_best = self._is_better(found)
        if is_best:
            loss = found.loss if math.isfinite(found.loss) else math.inf
            best = Best(self.state.step, self.state.phase, self._value(found), loss)
            self.state = replace(self.state, best=best, stale_evaluations=0)
            self.checkpoints.save_best(self.state, self._weights())
        else:
            self.state = replace(self.state, stale_evaluations=self.state.stale_evaluations + 1)
        self._tell("evaluation", phase=phase.name, is_best=is_best, metrics={"loss": found.loss, **found.metrics})
        is_at_its_end = self.state.phase_step == phase.steps
        if phase.patience is not None and self.state.stale_evaluations >= phase.patience and not is_at_its_end:
            self.state = replace(self.state, stopped_phases=(*self.state.stopped_phases, phase.name))
            self._tell(
                "notice", text=f"no better for {phase.patience} evaluations: the phase '{phase.name}' ends early"
            )
            return True
        return False

    def evaluate(self) -> Evaluation:
        """One pass over the validation rows with the weights as they are."""
        source = self.source.validation
        assert source is not None
        return evaluate_examples(
            self.task,
            self.model,
            source.examples,
            source=source,
            budget_tokens=forward_tokens(self.accelerator.device.type, self._budget_tokens),
            precision=self.settings.precision,
            intervals=False,
            answers=False,
        )

    def _value(self, found: Evaluation) -> float:
        name, greater_is_better = self.task.selection
        value = found.loss if name == "loss" else found.metrics.get(name)
        # Trap: an undefined metric must never look like the best one.
        worst = -math.inf if greater_is_better else math.inf
        return worst if value is None or not math.isfinite(value) else value

    def _is_better(self, found: Evaluation) -> bool:
        best, value = self.state.best, self._value(found)
        if best is None:
            return True
        sign = 1 if self.task.selection[1] else -1
        return (sign * value, -found.loss) > (sign * best.value, -best.loss)

    # state -------------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, torch.Tensor]:
        """What training has touched so far, by canonical name."""
        if self.words is not None:
            self.words.write_back()
        touched = set(self.state.touched)
        return {n: p.detach().cpu() for n, p in self.model.named_parameters() if n in touched}

    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in weights.items():
                parameters[name].copy_(tensor)
        if self.words is not None:
            self.words.read_again()

    def _save(self) -> None:
        # After the last phase no step follows that would need the moments, and they are twice as large as the weights.
        moments = self.moments if self.state.phase < len(self.phases) else {}
        self._tell_of_the_log(self.run.sync_log())
        self.checkpoints.save(Checkpoint(self.state, self._weights(), moments))
        self._tell("checkpoint", phase=self.state.phase, phase_step=self.state.phase_step)

    def _continue_from_checkpoint(self) -> None:
        found = self.checkpoints.newest()
        if found is None:
            return
        self.state, self.moments = found.state, found.moments
        self.sources.keep_to(self.state.decided)
        self._load(found.weights)
        self._tell("resumed", phase=self.state.phase, phase_step=self.state.phase_step)

    def _tell(self, kind: str, **values: object) -> None:
        event = self.run.log(kind, self.state.step, **values)
        for observer in self.observers:
            if observer(event):
                self._asked_to_stop = True
        self._tell_of_the_log(self.run.log_failure)

    def _tell_of_the_log(self, failure: str | None) -> None:
        """Once: it may fail with every event."""
        if failure is not None and not self._has_told_of_the_log:
            self._has_told_of_the_log = True
            self._tell("notice", text=f"{failure}; training goes on, and the log is tried again with every event")


def check_device(taken: str, resume: str) -> None:
    """Accelerate has its own way to a device: it knows kinds that we do not plan for, and obeys settings of its own.

    Args:
        taken: The kind that it has taken.
        resume: The command that goes on with the run.

    Raises:
        RequestError: E-RECIPE-CONFLICT, it has taken another one than was planned for.
    """
    planned = device_type()
    if taken != planned:
        change = "export ACCELERATE_USE_CPU=true" if planned == "cpu" else "unset ACCELERATE_USE_CPU"
        raise RequestError(
            "RECIPE-CONFLICT",
            f"the plan is for {planned}, and Accelerate takes {taken}",
            where="the environment variable ACCELERATE_USE_CPU, or the settings of accelerate config",
            remedy=f"{change}, then: {resume}",
        )


def _place(run: Run, step: int, rows: Sequence[int]) -> str:
    listed = ", ".join(map(str, rows[:8])) + (" ..." if len(rows) > 8 else "")
    return f"{run.folder}, step {step}, training rows {listed}"


def _totals(batches: Sequence[Batch]) -> dict[str, float]:
    """The normalisers of a whole step; at least a tiny number, so that a batch without targets divides to 0."""
    totals: dict[str, float] = {}
    for batch in batches:
        for name, weight in batch.weights.items():
            totals[name] = totals.get(name, 0.0) + weight
    return {name: max(total, 1e-12) for name, total in totals.items()}
