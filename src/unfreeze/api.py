"""The way of the data on one page: what every command, page and launcher calls.

Recipe -> data -> Task -> LayerGroups -> Plan -> Engine -> Evaluation -> Report
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from unfreeze import durable
from unfreeze.activations.rows import Rows
from unfreeze.costs import expect, lacking_disk
from unfreeze.data.sources import keep, kept, read
from unfreeze.data.table import Table
from unfreeze.durable import MAKE_ROOM
from unfreeze.errors import (
    Interrupted,
    ModelError,
    RequestError,
    UnfreezeError,
)
from unfreeze.evaluation import evaluate_rows, predict_rows
from unfreeze.machine import (
    LESS_MEMORY,
    ONE_ROW_IS_TOO_MUCH,
    Machine,
    find_machine,
    foreseen,
    give_back_device_memory,
    most_threads,
    peak_device_memory_bytes,
    peak_memory_bytes,
    set_up,
)
from unfreeze.models.identity import as_started
from unfreeze.models.layers import LayerGroups
from unfreeze.models.loading import LoadedModel
from unfreeze.plan import Plan, attention_dropout_name, identity, make, model_config
from unfreeze.preparation import Prepared, prepare
from unfreeze.randomness import seed_all
from unfreeze.recipe import RUNS_FOLDER, Recipe
from unfreeze.results import RecordedOf, measure
from unfreeze.run import KEPT_DATA, KEPT_TEST, Run, Status, check_is_free
from unfreeze.schedule import Schedule
from unfreeze.serving import predictor
from unfreeze.serving.matching import labelled_roles, readable, rows_to_use, text_roles
from unfreeze.serving.predictor import Predictor
from unfreeze.training.engine import Engine
from unfreeze.training.interruption import STOPPING, STOPPING_AFTER_THE_STEP, StopFlag, stop_on_signals
from unfreeze.training.observers import Observer, ProgressBar
from unfreeze.training.sources import Sources
from unfreeze.types import Prediction

# What a plan's identity names, as a sentence begins.
_IDENTITY = {
    "data": "the data are",
    "labels": "the labels are",
    "weights": "the model's weights are",
    "processor": "the model's tokenizer or processor is",
}


class TrainedRun(Run):
    """A run that can be used: `predict`, `evaluate`, `report`.

    Example:
        >>> run = TrainedRun("runs/reviews")  # doctest: +SKIP
        >>> run.predict(["Works as promised."])[0].label  # doctest: +SKIP
        'positive'
    """

    _predictor: Predictor | None = None
    allows_remote_code = False

    @property
    def predictor(self) -> Predictor:
        """The fine-tuned model with its task; loaded once.

        Raises:
            RequestError: E-RUN-STATE, when the run has not come as far as writing its model.
            ModelError: E-MODEL-BROKEN, when the files are damaged.
        """
        if self._predictor is None:
            if not self.model_folder.is_dir():
                raise RequestError(
                    "RUN-STATE",
                    f"this run has no model yet: it is {self.status.state}",
                    where=str(self.folder),
                    remedy=self.resume_command,
                )
            self._predictor = Predictor.load(self.model_folder, allow_remote_code=self.allows_remote_code)
        return self._predictor

    def predict(
        self, inputs: Sequence[str] | Sequence[Sequence[str]] | Sequence[Mapping[str, Any]]
    ) -> list[Prediction]:
        """Answers for texts, in order; see `Predictor.predict`."""
        return self.predictor.predict([inputs] if isinstance(inputs, str) else inputs)

    def evaluate(self, data: Any, *, encoding: str | None = None) -> dict[str, Any]:
        """Metrics on other labelled rows; see `evaluate`."""
        return evaluate(self, data, encoding=encoding)

    def report(self) -> Path:
        """Write report.html anew and return where it is."""
        return report(self)


# the main road ---------------------------------------------------------------------------------------------------


def train(
    data: Any = None,
    *,
    task: str | None = None,
    model: str | Path | Run | None = None,
    schedule: str | Schedule | Sequence[Any] | None = None,
    test: Any = None,
    output: str | Path | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    recipe: str | Path | None = None,
    allow_remote_code: bool = False,
    observers: Sequence[Observer] = (),
    console: Console | None = None,
    **values: Any,
) -> TrainedRun:
    """Fine-tune a pretrained model on the user's rows.

    Args:
        data: A file, folder or Hub id; or a DataFrame, a `datasets.Dataset`, a list of dicts.
        task: Its name on the Hub, such as ``token-classification``; default: seen from the rows.
        model: A Hub id (``org/name@revision``), a folder, a finished run to go on from, ``builtin:text`` or
            ``builtin:image``; default: the one of these two that reads what the task is about, if it can do the task.
        schedule: ``head``, ``last(k)``, ``gradual``, ``full``, a `Schedule`, or a list of phases.
        test: Rows for the reported figure, of the same kinds as `data`.
        output: Folder of the run; default: a new one under ``runs/``.
        seed: Of every draw; default 0.
        settings: Texts such as ``train.learning_rate=1e-4``.
        recipe: A YAML recipe; the arguments win over it.
        allow_remote_code: Run code that the model's repository brings, or a task of somebody's own that a recipe names.
            Only where you trust its authors.
        observers: Called with every `Event`: phase, step, evaluation, checkpoint, notice ...; one that returns True
            stops the run after this step, with a checkpoint.
        console: Where progress is shown; None: nowhere.
        **values: Recipe sections or keys, such as ``train={"epochs": 3}``.

    Returns:
        The finished run.

    Raises:
        RequestError: The recipe, the data or the task is wrong; nothing was written. But E-DATA-CHANGED, a file that
            has changed while training ran, ends the run.
        ModelError, NumericsError, ResourceError: See `unfreeze.errors`; the run's status says what to do.
        Interrupted: After a checkpoint; `resume` goes on. A second signal raises KeyboardInterrupt at once.
    """
    asked = _recipe(data, task, model, schedule, test, output, seed, settings, recipe, values)
    with stop_on_signals(_plainly(console)) as stop:
        prepared, plan_ = _plan(asked, data, test, allow_remote_code, console, stop.check)
        _show_plan(plan_, console)
        if (shortage := lacking_disk(plan_, asked.output or RUNS_FOLDER)) is not None:
            raise shortage
        stop.check()
        run = _new_run(asked, prepared.name, plan_, data, test)
        with run.held():
            return _carry_out(run, prepared, plan_, stop, observers, console)


def plan(
    data: Any = None,
    *,
    task: str | None = None,
    model: str | Path | Run | None = None,
    schedule: str | Schedule | Sequence[Any] | None = None,
    test: Any = None,
    output: str | Path | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    recipe: str | Path | None = None,
    allow_remote_code: bool = False,
    console: Console | None = None,
    **values: Any,
) -> Plan:
    """What `train` would do with the same arguments; trains and writes nothing.

    Args:
        data, task, model, schedule, test, output, seed, settings, recipe, allow_remote_code, console: As for `train`.
        **values: Recipe sections or keys.

    Raises:
        RequestError: The recipe, the data or the task is wrong.
        ModelError: The model is not there or not usable.
    """
    asked = _recipe(data, task, model, schedule, test, output, seed, settings, recipe, values)
    return _plan(asked, data, test, allow_remote_code, console)[1]


def resume(
    run: str | Path | Run,
    *,
    allow_remote_code: bool = False,
    observers: Sequence[Observer] = (),
    console: Console | None = None,
) -> TrainedRun:
    """Go on with an interrupted or failed run from its newest checkpoint; a finished one is returned as it is.

    Args:
        run: A run or its folder.
        allow_remote_code: Run code that came with the model, or the run's task, where that is somebody's own.
        observers, console: As for `train`.

    Raises:
        RequestError: E-RUN-MISSING; E-RUN-CHANGED, when data, labels, weights, tokenizer or recipe.yaml are not those
            it was started with. A Hub model is taken at the commit of the start. E-RUN-STATE, another process works on
            it.
    """
    found = TrainedRun(run.folder if isinstance(run, Run) else run)
    if found.status.state == "done" and _is_written(found):
        if (say := _plainly(console)) is not None:
            say(f"{found.folder} is finished already; there is nothing to do")
        return found
    with stop_on_signals(_plainly(console)) as stop, found.held():
        for folder in (found.folder, found.model_folder):
            for sentence in durable.recover(folder):
                _tell(found, sentence, console)
        has_begun = any(found.checkpoints_folder.glob("step-*")) or any(found.events("step"))
        if not has_begun and not _is_written(found):
            _tell(found, "it was ended before its first checkpoint: training starts from the beginning", console)
        plan_ = Plan.from_json(found.plan)
        _refuse_another_recipe(found)
        asked = Recipe.from_file(found.recipe_path)
        asked = asked.model_copy(update={"model": as_started(asked.model, plan_.identity["weights"])})
        check = functools.partial(stop.check, str(found.folder))
        threads = min(plan_.settings.threads, most_threads())
        set_up(threads)
        data, test = kept(found.folder / KEPT_DATA), kept(found.folder / KEPT_TEST)
        prepared = prepare(asked, data, test=test, allow_remote_code=allow_remote_code, say=_say(console), check=check)
        now = identity(prepared)
        _refuse_changes(plan_, now, found)
        for difference in _differences(plan_, now, find_machine(threads)):
            _tell(found, f"{difference}: not bit for bit the same", console)
        found.set_status(Status("running", step=found.status.step))
        return _carry_out(found, prepared, plan_, stop, observers, console)


def _carry_out(
    run: TrainedRun,
    prepared: Prepared,
    plan_: Plan,
    stop: StopFlag,
    observers: Sequence[Observer],
    console: Console | None,
) -> TrainedRun:
    """Train, write the model, measure, judge, report: each step leaves its records, so that any may be the last.

    Whoever calls it holds the run.
    """
    say, check = _say(console), functools.partial(stop.check, str(run.folder))
    with _recording_the_end(run):
        if not _is_written(run):
            _write_model(run, prepared, plan_, _fine_tuned(run, prepared, plan_, stop, observers, console))
            # Trap: engine and sources know each other, and the model through both. It is read back below.
            gc.collect()
            give_back_device_memory()
        run.set_status(Status("trained", step=_trained_steps(run)))
        run.allows_remote_code = prepared.task.allows_remote_code
        using = run.predictor
        task = using.task
        measure(
            run,
            prepared,
            task,
            using.model,
            pretrained=lambda: _pretrained(prepared, plan_).model,
            check=check,
            say=say,
            recorded=_recorded_rows(run, prepared, plan_, using, check),
        )
        _note_memory(run)
        _judge_and_report(run, say)
        run.set_status(Status("done", step=_trained_steps(run), exit_status=0))
    return run


def _fine_tuned(
    run: TrainedRun,
    prepared: Prepared,
    plan_: Plan,
    stop: StopFlag,
    observers: Sequence[Observer],
    console: Console | None,
) -> torch.nn.Module:
    """The model with its best weights, and the task's thresholds chosen."""
    started = time.monotonic()
    loaded = _pretrained(prepared, plan_)
    model = loaded.model
    validation = Rows(prepared.task, prepared.validation_examples) if prepared.validation_examples else None
    bar = ProgressBar(console) if console is not None else nullcontext()
    with bar as shown:
        watching = [*observers, *([shown] if shown is not None else [])]
        engine = Engine(
            prepared.task,
            model,
            plan_.phases,
            plan_.settings,
            Rows(prepared.task, prepared.train_examples),
            validation,
            run,
            observers=watching,
            stop=stop,
            notes=loaded.notes,
        )
        stop.answer = STOPPING_AFTER_THE_STEP
        engine.train()
        stop.answer = STOPPING
        if validation is not None and prepared.task.chooses_on_validation:
            prepared.task.adjust(engine.evaluate().metric)
    steps = run.steps()
    last = [loss for loss, _ in steps[-max(1, len(steps) // 10) :]]
    run.write_results(
        "train",
        {
            "runtime": round(engine.state.seconds, 3),
            "process_seconds": round(time.monotonic() - started, 3),
            "samples": len(prepared.train),
            "steps": engine.state.step,
            "stopped_phases": list(engine.state.stopped_phases),
            "epochs": round(
                engine.state.step / max(1, -(-len(prepared.train_examples) // plan_.settings.batch_size)), 3
            ),
            "loss": float(np.mean(last)) if last else None,
            "tokens_per_second": sum(tokens for _, tokens in steps) / max(engine.state.seconds, 1e-9),
            **_peaks(),
        },
    )
    return model


def _peaks() -> dict[str, int]:
    device = peak_device_memory_bytes()
    return {"peak_memory_bytes": peak_memory_bytes(), **({"peak_device_memory_bytes": device} if device else {})}


def _note_memory(run: Run) -> None:
    """The peaks of the whole run, what comes after training included; of a resumed one that of its processes."""
    stored = {key.removeprefix("train_"): value for key, value in run.results("train").items()}
    peaks = {key: max(value, stored.get(key) or 0) for key, value in _peaks().items()}
    run.write_results("train", {**stored, **peaks})


def _recorded_rows(
    run: TrainedRun, prepared: Prepared, plan_: Plan, using: Predictor, check: Callable[[], None]
) -> RecordedOf | None:
    """Rows to measure from what is recorded of their frozen part; None where the plan records nothing."""
    if not plan_.settings.cache.reuse or not any(phase.boundary for phase in plan_.phases):
        return None

    def tell(kind: str, **values: Any) -> None:
        run.log(kind, _trained_steps(run), **values)

    return Sources(
        using.task,
        using.model,
        LayerGroups.of(using.model),
        plan_.phases,
        plan_.settings,
        Rows(using.task, prepared.train_examples),
        None,
        tell=tell,
        check_stop=check,
    ).after_training


def _pretrained(prepared: Prepared, plan_: Plan) -> LoadedModel:
    """The model as it is before training: pretrained backbone, new head drawn by the run's seed."""
    seed_all(plan_.settings.seed, "new head")
    config = model_config(prepared.config, plan_.settings)
    return prepared.task.build(prepared.source, config)


def _write_model(run: TrainedRun, prepared: Prepared, plan_: Plan, model: torch.nn.Module) -> None:
    prepared.task.finish(model)
    model.eval().to("cpu")
    if (name := attention_dropout_name(prepared.config)) is not None:
        setattr(model.config, name, getattr(prepared.config, name))
    extra = {"base_model": plan_.model, "identity": plan_.identity}
    task_class = prepared.recipe.task or prepared.task.name
    durable.publish(run.model_folder, lambda staging: predictor.save(staging, prepared.task, task_class, model, extra))
    _check_written(run, prepared, model)


def _check_written(run: TrainedRun, prepared: Prepared, model: torch.nn.Module) -> None:
    """The model that was written must answer as the one in memory.

    Raises:
        ModelError: E-MODEL-BROKEN.
    """
    examples = (prepared.validation_examples or prepared.train_examples)[:8]
    batch = prepared.task.collate(examples)
    allowed = prepared.task.allows_remote_code
    again = Predictor.load(run.model_folder, device="cpu", allow_remote_code=allowed)
    with torch.inference_mode():
        before = prepared.task.predict(model, batch)
        after = again.task.predict(again.model, batch)
    if not torch.equal(before, after):
        difference = float((before - after).abs().max())
        raise ModelError(
            "MODEL-BROKEN",
            f"the model that was written answers differently from the one in memory (by up to {difference:.2g})",
            where=str(run.model_folder),
        )


def _judge_and_report(run: TrainedRun, say: Any) -> None:
    from unfreeze.report.card import write_card
    from unfreeze.report.findings import judge

    say("writing the report")
    run.write_findings(judge(run))
    write_card(run, run.model_folder)
    report(run)


# using a run -----------------------------------------------------------------------------------------------------


def evaluate(
    run: str | Path | Run,
    data: Any,
    *,
    encoding: str | None = None,
    drop_broken: bool = False,
    allow_remote_code: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Metrics of a finished run on other labelled rows.

    Args:
        run: A run or its folder.
        data: As for `train`; where it has test rows, those are used, otherwise all its rows.
        encoding: Of text files that are not UTF-8.
        drop_broken: Leave out rows whose files cannot be read, counted.
        allow_remote_code: Run code that came with the base model, or the run's task, where that is somebody's own.
        console: Told what is left out.

    Returns:
        Hugging Face's names: ``eval_loss``, ``eval_accuracy`` ..., with ``eval_intervals``.

    Raises:
        DataError: Columns or labels that do not fit the run; files that cannot be read.
    """
    using = as_run(run, allow_remote_code).predictor
    given = rows_to_use(data, encoding)
    table, label = given.train, using.task.roles.label
    if isinstance(label, str):
        table = using.task.completed(table, label)
    task = using.task.reading(labelled_roles(using.task, table))
    table = readable(task, table, task.roles, drop=drop_broken, say=_say(console))
    if (names := given.names_of(label)) is not None:
        table = task.relabelled(table, names)
    task.check_labels(table, "given")
    result = evaluate_rows(task, using.model, table)
    return {f"eval_{k}": v for k, v in result.to_json().items()}


def predict(
    run: str | Path | Run,
    data: Any,
    *,
    encoding: str | None = None,
    drop_broken: bool = False,
    allow_remote_code: bool = False,
    console: Console | None = None,
) -> Iterator[Prediction]:
    """Answers for every row of a file, a folder or an object; labels are not needed.

    The rows are read and checked when the first answer is asked for.

    Args:
        run: A run or its folder.
        data: As for `train`; its test rows where there are some, otherwise all.
        encoding: Of text files that are not UTF-8.
        drop_broken: Leave out rows whose files cannot be read, counted.
        allow_remote_code: Run code that came with the base model, or the run's task, where that is somebody's own.
        console: Told where a column of another name is read, and what is left out.

    Raises:
        DataError: The text columns of the run are not there, and no other could be meant; files that cannot be read.
    """
    found = as_run(run, allow_remote_code)
    yield from answered(found, data, encoding=encoding, drop_broken=drop_broken, console=console)[1]


def answered(
    run: TrainedRun, data: Any, *, encoding: str | None, drop_broken: bool, console: Console | None
) -> tuple[Table, Iterator[Prediction]]:
    """The rows that `predict` answers, once all of them are known to be readable, and their answers as they come."""
    using, say = run.predictor, _say(console)
    table = rows_to_use(data, encoding, to_predict=True).train
    task = using.task.reading(text_roles(using.task, table, say))
    # What is not needed for an answer, a mask, is not looked at.
    table = readable(task, table, replace(task.roles, label=None), drop=drop_broken, say=say)
    return table, predict_rows(task, using.model, table)


def report(run: str | Path | Run) -> Path:
    """Write report.html from the run's records and return where it is."""
    from unfreeze.report.build import build

    return build(as_run(run))


def as_run(run: str | Path | Run, allow_remote_code: bool = False) -> TrainedRun:
    """The run of a folder; one that is open already stays what it is."""
    found = run if isinstance(run, TrainedRun) else TrainedRun(run.folder if isinstance(run, Run) else run)
    found.allows_remote_code = found.allows_remote_code or allow_remote_code
    return found


# before training -------------------------------------------------------------------------------------------------


def _recipe(
    data: Any,
    task: str | None,
    model: str | Path | Run | None,
    schedule: Any,
    test: Any,
    output: str | Path | None,
    seed: int | None,
    settings: Sequence[str],
    recipe: str | Path | None,
    values: Mapping[str, Any],
) -> Recipe:
    named: dict[str, Any] = {
        **values,
        "task": task,
        "model": str(model.folder) if isinstance(model, Run) else (str(model) if model is not None else None),
        "schedule": schedule,
        "output": str(output) if output is not None else None,
        "seed": seed,
    }
    for key, value in (("data.source", data), ("data.test", test)):
        if isinstance(value, str | Path):
            named[key] = str(value)
    return Recipe.build(named, settings=settings, file=recipe)


def _plan(
    asked: Recipe,
    data: Any,
    test: Any,
    allow_remote_code: bool,
    console: Console | None,
    check: Callable[[], None] = lambda: None,
) -> tuple[Prepared, Plan]:
    started = time.perf_counter()
    if asked.output is not None:
        check_is_free(Path(asked.output))
    machine = find_machine(asked.train.threads)
    set_up(machine.threads)
    objects = [None if isinstance(v, str | Path) else v for v in (data, test)]
    prepared = prepare(
        asked, objects[0], test=objects[1], allow_remote_code=allow_remote_code, say=_say(console), check=check
    )
    plan_ = make(prepared, machine)
    expect(plan_, prepared, asked.output or RUNS_FOLDER, started=started)
    return prepared, plan_


def _new_run(asked: Recipe, name: str, plan_: Plan, data: Any, test: Any) -> TrainedRun:
    """The folder of the run, with rows that were given as Python objects, since `resume` could not read them again."""
    given = {KEPT_DATA: data, KEPT_TEST: test}
    given = {key: rows for key, rows in given.items() if rows is not None and not isinstance(rows, str | Path)}

    def keep_rows(folder: Path) -> None:
        for key, rows in given.items():
            splits = read(rows, wanted="train" if key == KEPT_DATA else "test")
            durable.publish(folder / key, functools.partial(keep, splits))

    records: dict[str, Any] = {
        "recipe_yaml": _with_absolute_paths(asked).to_yaml(),
        "plan": plan_.to_json(),
        "more": keep_rows,
    }
    if asked.output:
        run = TrainedRun.create(asked.output, **records)
    else:
        run = TrainedRun.create_numbered(RUNS_FOLDER, name, **records)
    for key in given:
        run.log("notice", 0, text=f"the rows are kept in the run's folder {key}/, so that it can be resumed")
    return run


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """Paths that hold from any working folder, so that `resume` may be called from anywhere."""

    def absolute(value: Any) -> Any:
        return str(Path(value).absolute()) if isinstance(value, str) and Path(value).exists() else value

    data = recipe.data.model_copy(
        update={k: absolute(getattr(recipe.data, k)) for k in ("source", "test", "validation")}
    )
    return recipe.model_copy(update={"data": data, "model": absolute(recipe.model)})


def _refuse_another_recipe(run: Run) -> None:
    """What was asked for decides what a resumed run does as much as the rows do."""
    path = run.recipe_path
    noted = run.plan.get("recipe_sha256")  # by earlier versions it was not
    if path.is_file() and noted is not None and durable.sha256_of_file(path) != noted:
        raise RequestError(
            "RUN-CHANGED",
            "recipe.yaml is not what this run was started with",
            where=str(path),
            remedy=f"put it back; or start a new run with it, under another name: {run.command_anew()}",
        )


def _refuse_changes(before: Plan, now: Mapping[str, Any], run: Run) -> None:
    for key, what in _IDENTITY.items():
        if before.identity.get(key, now[key]) != now[key]:
            raise RequestError(
                "RUN-CHANGED",
                f"{what} not what this run was started with",
                where=str(run.folder),
                remedy=f"put back what was changed; or start a new run: {run.command_anew()}",
            )


def _differences(before: Plan, now: Mapping[str, Any], machine: Machine) -> Iterator[str]:
    """What a resumed run may find otherwise, and then adds up in another order."""
    changed = [name for name, version in before.identity["versions"].items() if now["versions"].get(name) != version]
    if changed:
        yield f"another version of {', '.join(changed)} than at the start"
    then = {"device": machine.device, "name": machine.name, **before.machine}
    if then["device"] != machine.device or (then["name"] and machine.name and then["name"] != machine.name):
        yield f"{machine.device} ({machine.name}) instead of {then['device']} ({then['name']})"
    if machine.threads != before.settings.threads:
        yield f"{machine.threads} threads instead of {before.settings.threads}, more than this machine can use"


def _is_written(run: TrainedRun) -> bool:
    return run.model_folder.is_dir() and durable.verify(run.model_folder) is None and bool(run.results("train"))


@contextmanager
def _recording_the_end(run: TrainedRun) -> Iterator[None]:
    """Whatever happens, status.json says how the run ended and what to do next.

    Raises:
        ResourceError: Memory or disk, whatever error says so.
    """
    try:
        yield
    except BaseException as error:
        told = foreseen(error)
        if told is not None:
            told.remedy = _what_to_do(run, told)
        run.set_status(_ending(run, error, told))
        if told is None or told is error:
            raise
        raise told from error


def _ending(run: Run, error: BaseException, told: UnfreezeError | None) -> Status:
    step = _last_step(run)
    if isinstance(error, KeyboardInterrupt):
        return Status("interrupted", "stopped at once", step, run.resume_command, 130)
    if told is None:
        return Status("failed", f"{type(error).__name__}: {error}", step, run.resume_command, 1)
    next_ = told.remedy or run.resume_command
    if isinstance(told, Interrupted):
        return Status("interrupted", told.what, step, next_, told.exit_status)
    return Status("failed", f"E-{told.code}: {told.what}", step, next_, told.exit_status)


def _what_to_do(run: Run, error: UnfreezeError) -> str:
    """About a run that is there: what is advised without one does not fit it."""
    if error.remedy == MAKE_ROOM:
        return f"{MAKE_ROOM}, then: {run.resume_command}"
    if error.remedy in (LESS_MEMORY, ONE_ROW_IS_TOO_MUCH):
        smaller = run.command_anew("model=MODEL")
        return f"with more memory free: {run.resume_command}\nor with a smaller model, in a new run: {smaller}"
    return error.remedy or run.resume_command


def _trained_steps(run: Run) -> int:
    """Of a run whose training has ended: fewer than planned, where a phase ended early."""
    return int(run.results("train")["train_steps"])


def _last_step(run: Run) -> int:
    """The last step that is part of the weights: a resumed run takes back what came after its checkpoint."""
    last = 0
    for event in run.events():
        if event.kind in ("step", "resumed"):
            last = event.step
    return last


def _say(console: Console | None) -> Any:
    if console is None:
        return lambda text: None
    return lambda text: console.print(f"[dim]{text} ...[/dim]", highlight=False)


def _tell(run: Run, text: str, console: Console | None) -> None:
    """As the engine tells what is done unasked."""
    run.log("notice", run.status.step, text=text)
    if console is not None:
        console.print(f"  note: {text}", highlight=False, markup=False, soft_wrap=True)


def _plainly(console: Console | None) -> Callable[[str], None] | None:
    if console is None:
        return None
    return functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)


def _show_plan(plan_: Plan, console: Console | None) -> None:
    if console is not None:
        from unfreeze.planview import print_plan

        print_plan(plan_, console)
