"""Run: the folder of one run, and its records: Event, Finding, Status.

::

    RUN/ recipe.yaml  plan.json  status.json  events.jsonl
         checkpoints/step-000120/   model/   train_results.json  eval_results.json  test_results.json
         all_results.json  findings.json  report.html
         data/  test-data/                                  rows that were given as Python objects

Only records are read here, never a model: reports and web pages stand on this module alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from unfreeze import durable
from unfreeze.errors import RequestError, ResourceError, command, did_you_mean

State = Literal["running", "trained", "done", "interrupted", "failed"]
FORMAT_VERSION = 1
# Folders of rows that were given as Python objects.
KEPT_DATA, KEPT_TEST = "data", "test-data"


@dataclass(frozen=True)
class Event:
    """One line of events.jsonl.

    Attributes:
        kind: What happened: ``step``, ``evaluation``, ``phase``, ``checkpoint``, ``notice`` ...
        step: Optimizer steps done when it happened.
        seconds: Seconds of this process since the run was started or resumed.
        values: The facts.
    """

    kind: str
    step: int
    seconds: float
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One judged statement about a run.

    Attributes:
        code: Stable name, such as ``BASE001``.
        severity: ``good``, ``info``, ``warning`` or ``bad``.
        sentence: What was found, with its figures.
        evidence: The figures by name.
        advice: What to type or change; empty where there is nothing to do.
    """

    code: str
    severity: Literal["good", "info", "warning", "bad"]
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""


@dataclass(frozen=True)
class Status:
    """How a run stands or ended.

    Attributes:
        state: ``running``, ``trained`` (the model is written, not yet measured), ``done``, ``interrupted`` or
            ``failed``.
        cause: Why it stopped; empty while it runs and where it is done.
        step: The last optimizer step that is part of the weights.
        next: What to do next, as a command where there is one.
        exit_status: The process's exit status, None while it runs.
    """

    state: State
    cause: str = ""
    step: int = 0
    next: str = ""
    exit_status: int | None = None
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    time: float = field(default_factory=time.time)


# Records that are objects; the others may be lists.
_OBJECTS = ("status.json", "plan.json", "all_results.json", "summary.json")


class Run:
    """The folder of one run.

    Args:
        folder: Must hold a run; `Run.create` makes a new one.

    Raises:
        RequestError: E-RUN-MISSING, with near names.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "status.json").is_file():
            raise _not_a_run(self.folder)
        self._started = time.monotonic()
        self._unwritten: list[str] = []
        self.log_failure: str | None = None

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        recipe_yaml: str,
        plan: Mapping[str, Any],
        more: Callable[[Path], None] | None = None,
    ) -> Self:
        """Make the folder with its recipe and plan; it must not exist or be empty.

        Args:
            folder: Of the run.
            recipe_yaml, plan: What was asked, and what was decided.
            more: Writes into the folder what the run cannot be resumed without.

        Raises:
            RequestError: E-RUN-EXISTS. Nothing is ever overwritten.
        """
        path = Path(folder)
        # Trap: looked for before looking into it, or what another process makes in between would be written into.
        is_there = path.is_dir()
        check_is_free(path)
        write = functools.partial(_write_records, recipe_yaml, plan, more)
        try:
            with _or_elsewhere():
                if is_there:
                    _fill(path, write)
                else:
                    durable.publish(path, write, manifest=False, replace=False)
        except durable.Occupied:
            raise _taken(path) from None
        return cls(path)

    @classmethod
    def create_numbered(
        cls,
        parent: str | Path,
        name: str,
        *,
        recipe_yaml: str,
        plan: Mapping[str, Any],
        more: Callable[[Path], None] | None = None,
    ) -> Self:
        """Make the run in the first free one of ``name``, ``name-2`` ...; of two processes each gets its own.

        Args:
            parent: Folder of the runs.
            name: Of the run, if it is free.
            recipe_yaml, plan, more: As for `create`.

        Raises:
            RequestError: E-RUN-EXISTS, `parent` is no folder.
        """
        write = functools.partial(_write_records, recipe_yaml, plan, more)
        while True:
            path = free_folder(parent, name)
            _check_way(path)
            with contextlib.suppress(durable.Occupied), _or_elsewhere():
                durable.publish(path, write, manifest=False, replace=False)
                return cls(path)

    # records -----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def model_folder(self) -> Path:
        """The fine-tuned model, as `from_pretrained` reads it."""
        return self.folder / "model"

    @property
    def checkpoints_folder(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def recipe_path(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def arguments(self) -> list[str]:
        """What it was started with, as arguments of train and inspect: its recipe, and the rows that it keeps."""
        kept = {"data.source": self.folder / KEPT_DATA, "data.test": self.folder / KEPT_TEST}
        settings = [("--set", f"{key}={place}") for key, place in kept.items() if place.is_dir()]
        return [str(self.recipe_path), *itertools.chain(*settings)]

    @property
    def resume_command(self) -> str:
        """What goes on with it."""
        return command("resume", self.folder)

    def command_anew(self, *settings: str) -> str:
        """What starts a new run like this one, with other settings such as ``train.epochs=3``."""
        own = self.folder if self.folder.name not in ("", "..") else self.folder.resolve()
        changes = itertools.chain(*(("--set", setting) for setting in settings))
        return command("train", *self.arguments, *changes, "--output", free_folder(own.parent, own.name))

    @property
    def plan(self) -> dict[str, Any]:
        """The stored plan, as plain data."""
        return self.read_json("plan.json")

    @property
    def status(self) -> Status:
        known = Status.__dataclass_fields__
        return Status(**{k: v for k, v in self.read_json("status.json").items() if k in known})

    def set_status(self, status: Status) -> None:
        durable.write_json(self.folder / "status.json", asdict(status))

    @property
    def metrics(self) -> dict[str, Any]:
        """All results, named as the Hugging Face Trainer names them: ``eval_accuracy``, ``test_f1``."""
        return self.read_json("all_results.json", {})

    @property
    def findings(self) -> list[Finding]:
        return [Finding(**item) for item in self.read_json("findings.json", [])]

    def write_findings(self, findings: list[Finding]) -> None:
        durable.write_json(self.folder / "findings.json", [asdict(f) for f in findings])

    def write_results(self, split: str, results: Mapping[str, Any]) -> None:
        """Store the results of one split and merge their numbers into all_results.json.

        Args:
            split: ``train``, ``eval`` or ``test``.
            results: Names without prefix; the prefix is added where a value is a number.
        """
        named = {f"{split}_{k}": v for k, v in results.items()}
        durable.write_json(self.folder / f"{split}_results.json", named)
        numbers = {k: v for k, v in named.items() if isinstance(v, int | float) or v is None}
        durable.write_json(self.folder / "all_results.json", {**self.metrics, **numbers})

    def results(self, split: str) -> dict[str, Any]:
        """Everything stored about one split, with prefixed names; empty where it was not evaluated."""
        return self.read_json(f"{split}_results.json", {})

    # events ------------------------------------------------------------------------------------------------------

    def log(self, kind: str, step: int, **values: Any) -> Event:
        """Append an event.

        A log that cannot be written is no reason to stop training: its lines wait in memory, are tried again with every
        event, and `log_failure` says why.
        """
        event = Event(kind, step, round(time.monotonic() - self._started, 3), values)
        record = {"kind": kind, "step": step, "seconds": event.seconds, "time": round(time.time(), 3), **values}
        self._unwritten.append(durable.to_json(record, indent=None))
        try:
            self._write_what_waits()
            self.log_failure = None
        except ResourceError as error:
            self.log_failure = error.what
        return event

    def _write_what_waits(self) -> None:
        while self._unwritten:
            durable.append_line(self.folder / "events.jsonl", self._unwritten[0])
            del self._unwritten[0]

    def sync_log(self) -> str | None:
        """Flush the log to the disk: what a checkpoint stands on must be as durable as the checkpoint.

        Returns:
            Why that cannot be done, or None.
        """
        path = self.folder / "events.jsonl"
        try:
            self._write_what_waits()
            if path.is_file():
                durable.sync_log(path)
        except ResourceError as error:
            return error.what
        return None

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """All events in order, or those of one kind; a torn last line is passed over."""
        for line in self._lines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if kind is None or record.get("kind") == kind:
                values = {k: v for k, v in record.items() if k not in ("kind", "step", "seconds")}
                yield Event(record["kind"], record["step"], record["seconds"], values)

    def steps(self) -> list[tuple[float, int]]:
        """Loss and tokens of each step, in order, once: a killed run does some steps again when it is resumed."""
        return list({e.step: (e.values["loss"], e.values["tokens"]) for e in self.events("step")}.values())

    def _lines(self) -> Iterator[str]:
        path = self.folder / "events.jsonl"
        if path.is_file():
            with open(path, encoding="utf-8", errors="replace") as handle:
                yield from handle
        yield from list(self._unwritten)

    def read_json(self, name: str, default: Any = None) -> Any:
        """A record by file name; `default` where it is not there.

        Raises:
            RequestError: E-RUN-MISSING, when the record has no default and is missing or damaged.
        """
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
            if name in _OBJECTS and not isinstance(found, dict):
                raise ValueError("not an object")
            return found
        except FileNotFoundError:
            if default is not None:
                return default
            raise RequestError("RUN-MISSING", f"the run has no {name}", where=str(self.folder)) from None
        except ValueError:
            raise RequestError("RUN-MISSING", f"{name} is damaged", where=str(self.folder)) from None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block no other process works on this run; the hold goes with the process, so it is never stale.

        On a file system without locks nobody is kept out, which is said.

        Raises:
            RequestError: E-RUN-STATE, with the process that holds it.
        """
        with open(self.folder / ".lock", "a+b", buffering=0) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().decode("utf-8", "replace").strip()
                raise RequestError(
                    "RUN-STATE",
                    f"another process works on this run: {holder or 'unknown'}",
                    where=str(self.folder),
                    remedy="wait for it, or stop it",
                ) from None
            except OSError as error:
                text = f"nothing keeps another process from this run: no locks on this file system ({error.strerror})"
                self.log("notice", self.status.step, text=text)
            else:
                with contextlib.suppress(OSError):  # a full disk: who holds it is told to people only
                    lock.truncate(0)
                    lock.write(f"{os.getpid()} on {socket.gethostname()}".encode("utf-8", "backslashreplace"))
            yield

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.status.state})"


def _write_records(
    recipe_yaml: str, plan: Mapping[str, Any], more: Callable[[Path], None] | None, folder: Path
) -> None:
    """What a run begins with; the status, which makes a folder a run, comes last."""
    if more is not None:
        more(folder)
    durable.write_text(folder / "recipe.yaml", recipe_yaml)
    asked = durable.sha256_of_file(folder / "recipe.yaml")
    durable.write_json(folder / "plan.json", {"format": FORMAT_VERSION, "recipe_sha256": asked, **plan})
    durable.write_json(folder / "status.json", asdict(Status("running")))


@contextlib.contextmanager
def _or_elsewhere() -> Iterator[None]:
    """What cannot be written here may lie elsewhere, as long as there is no run to resume."""
    try:
        yield
    except ResourceError as error:
        error.remedy = f"{error.remedy}, or choose another folder: --output RUN"
        raise


def _fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Write into an empty folder, which cannot be replaced: the person may stand in it.

    Raises:
        Occupied: Another process does so, too.
    """
    claim = folder / ".staging-run"
    try:
        claim.mkdir()
    except FileExistsError:
        raise durable.Occupied(str(folder)) from None
    try:
        write(folder)
    finally:
        claim.rmdir()


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a run."""
    return (Path(folder) / "status.json").is_file() and (Path(folder) / "plan.json").is_file()


def check_is_free(folder: Path) -> None:
    """Refuse a folder that holds anything.

    Raises:
        RequestError: E-RUN-EXISTS.
    """
    _check_way(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise _taken(folder)


def _check_way(folder: Path) -> None:
    # Not only files: sockets, devices (/dev/null), links to nowhere.
    in_the_way = next((p for p in (folder, *folder.parents) if os.path.lexists(p) and not p.is_dir()), None)
    if in_the_way is not None:
        what = f"{in_the_way} is no folder, so no run can be written there"
        raise RequestError("RUN-EXISTS", what, where=str(folder), remedy="choose another folder: --output RUN")


def _taken(folder: Path) -> RequestError:
    kind = "another run" if is_run(folder) else "files"
    remedy = f"choose another folder: --output {shlex.quote(f'{folder}-2')}"
    if is_run(folder):
        remedy += f"\nor go on with that run: {command('resume', folder)}"
    return RequestError(
        "RUN-EXISTS", f"the output folder holds {kind}; it is not overwritten", where=str(folder), remedy=remedy
    )


def free_folder(parent: str | Path, name: str) -> Path:
    """The first of ``name``, ``name-2``, ``name-3`` ... that does not exist under `parent`."""
    number, path = 1, Path(parent) / name
    while path.exists():
        number += 1
        path = Path(parent) / f"{name}-{number}"
    return path


def _not_a_run(folder: Path) -> RequestError:
    what = "this folder is not a run" if folder.is_dir() else "there is no such run"
    siblings = [p.name for p in folder.parent.iterdir() if is_run(p)] if folder.parent.is_dir() else []
    remedy = did_you_mean(folder.name, siblings) if siblings else "start one with: unfreeze train DATA"
    return RequestError("RUN-MISSING", what, where=str(folder), remedy=remedy)
