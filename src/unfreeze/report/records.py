"""Records: what a run has written so far, in the shape that page, card, terminal and findings need.

Any record may be missing, because a run may have failed anywhere; a damaged one counts as missing and is named in
`Records.damaged`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from unfreeze.errors import RequestError
from unfreeze.report.wording import LOWER_IS_BETTER, distance, figure, interval, metric_name, signed
from unfreeze.run import Event, Finding, Run, Status
from unfreeze.types import is_number

Verdict = Literal["better", "not distinguishable", "worse", "not compared"]
_SEVERITIES = ("bad", "warning", "info", "good")
_TITLES = {
    "tfidf": "TF-IDF",
    "majority": "the majority answer",
    "untouched": "the model as it was before",
    "lead-3": "the first three sentences",
    "copy": "the text as it was read",
}
# What a task leads with, most telling first; for runs that ended before they wrote a summary.
_LEADING = (
    ("f1_micro", "f1"),
    ("frame_accuracy", "frame_accuracy"),
    ("overall_f1", "overall_f1"),
    ("answer_f1", "answer_f1"),
    ("rougeL", "rougeL"),
    ("mean_iou", "mean_iou"),
    ("wer", "wer"),
    ("mae", "mae"),
    ("perplexity", "perplexity"),
    ("accuracy", "accuracy"),
    ("loss", "loss"),
)
SPLIT_NAMES = {"test": "test", "eval": "validation"}


@dataclass(frozen=True)
class Headline:
    """The figure a run leads with.

    Attributes:
        split: ``test``, or ``eval`` for the validation rows.
        interval: 95 % interval, None where there is none.
        selected_on_same_rows: Whether the weights were chosen on these very rows.
        reason: Why there is no value; empty where there is one.
    """

    metric: str
    value: float | None
    interval: tuple[float, float] | None
    split: str
    samples: int | None
    selected_on_same_rows: bool
    reason: str = ""

    @property
    def rows(self) -> str:
        """Which rows, in words: ``3,000 test rows``."""
        n = f"{self.samples:,} " if self.samples is not None else "the "
        return f"{n}{SPLIT_NAMES.get(self.split, self.split)} rows"

    def __str__(self) -> str:
        text = f"{metric_name(self.metric)} {figure(self.metric, self.value)}"
        if self.interval:
            text += f" (95 % interval {interval(self.metric, *self.interval)})"
        if self.reason:
            text += f" ({self.reason})"
        return f"{text} on {self.rows}"


@dataclass(frozen=True)
class Comparison:
    """The run beside one baseline, on the same rows.

    Attributes:
        difference: Run minus baseline: value, low and high of the paired 95 % interval; None where not computed.
    """

    name: str
    sentence: str
    metric: str
    value: float | None
    difference: tuple[float, float, float] | None
    rows: int | None
    seconds: float | None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The baseline's name in a sentence."""
        return _TITLES.get(self.name, self.name)

    @property
    def lead(self) -> tuple[float, float, float] | None:
        """`difference`, turned so that above 0 the run is better, whatever the metric; low below high."""
        if self.difference is None or self.metric not in LOWER_IS_BETTER:
            return self.difference
        value, low, high = self.difference
        return -value, -high, -low

    @property
    def verdict(self) -> Verdict:
        """Whether the interval of the difference leaves no room for "equal"."""
        if self.lead is None:
            return "not compared"
        _, low, high = self.lead
        return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"

    @property
    def difference_text(self) -> str:
        """``+1.3 (0.2 to 2.4)``, in points for shares."""
        if self.difference is None:
            return "n/a"
        value, low, high = (signed(self.metric, d) for d in self.difference)
        return f"{value} ({low} to {high})"

    def __str__(self) -> str:
        """The verdict as a sentence."""
        if self.lead is None:
            return f"Fine-tuning was not compared with {self.title} row by row."
        value, low, high = self.lead
        span = f"95 % interval {signed(self.metric, low)} to {signed(self.metric, high)}"
        by = distance(self.metric, value)
        if self.verdict == "better":
            return f"Fine-tuning beats {self.title} by {by} of {metric_name(self.metric)} ({span})."
        if self.verdict == "worse":
            return f"Fine-tuning did not beat {self.title}: it is worse by {by} of {metric_name(self.metric)} ({span})."
        way = "equal" if value == 0 else f"{'better' if value > 0 else 'worse'} by {by} of {metric_name(self.metric)}"
        sure = "statistically indistinguishable from no difference"
        return f"Fine-tuning did not beat {self.title}: it is {way}, {sure} ({span})."


@dataclass
class PhaseRecord:
    """A phase as it went: from `start` (steps done before it) to `end`.

    `source` says what its inputs were: ``rows``, or a boundary of the layers and the precision that was recorded.
    """

    number: int
    name: str
    start: int
    end: int
    planned_steps: int
    rates: dict[str, float]
    trainable: int | None
    source: str

    @property
    def steps(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class RecordingRecord:
    """What was recorded of the frozen part at a boundary: size, precision, and the check's largest error."""

    boundary: str
    bytes: int
    precision: str
    error: float


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step; numbers that were not finite are NaN."""

    step: int
    phase: str
    loss: float
    rate: float
    gradient_norm: float


@dataclass(frozen=True)
class EvaluationRecord:
    """One pass over the validation rows."""

    step: int
    phase: str
    is_best: bool
    metrics: dict[str, float]


@dataclass
class Timeline:
    """What happened, in order, with the detours that a resumed run took back left out."""

    phases: list[PhaseRecord] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    notices: list[tuple[int, str]] = field(default_factory=list)
    recordings: dict[str, RecordingRecord] = field(default_factory=dict)
    times_resumed: int = 0

    @property
    def last_step(self) -> int:
        return self.steps[-1].step if self.steps else 0

    @property
    def best(self) -> EvaluationRecord | None:
        """The evaluation whose weights were kept."""
        return next((e for e in reversed(self.evaluations) if e.is_best), None)

    def evaluations_of(self, phase: PhaseRecord) -> list[EvaluationRecord]:
        return [e for e in self.evaluations if phase.start < e.step <= phase.end]

    def mean_loss(self, after: int, until: int) -> float | None:
        """Mean training loss of the steps in (after, until]; None without any."""
        losses = [s.loss for s in self.steps if after < s.step <= until and np.isfinite(s.loss)]
        return float(np.mean(losses)) if losses else None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Timeline:
        """Read the events of a run.

        A process that died had perhaps gone on after its last checkpoint; what it did then is not part of the weights.
        So a ``resumed`` event takes back whatever lies after its step, and of two records of a step the later wins.
        """
        found = cls()
        steps: dict[int, StepRecord] = {}
        evaluations: dict[int, EvaluationRecord] = {}
        phases: list[PhaseRecord] = []
        skipped: set[int] = set()
        for event in events:
            values = event.values
            if event.kind == "resumed":
                found.times_resumed += 1
                steps = {k: v for k, v in steps.items() if k <= event.step}
                evaluations = {k: v for k, v in evaluations.items() if k <= event.step}
                phases = [p for p in phases if p.start <= event.step]
            elif event.kind == "step":
                steps[event.step] = _step_record(event)
            elif event.kind == "evaluation":
                evaluations[event.step] = EvaluationRecord(
                    event.step,
                    str(values.get("phase", "")),
                    bool(values.get("is_best")),
                    _numbers(values.get("metrics")),
                )
            elif event.kind == "phase":
                phase = _phase_record(event)
                phases = [*(p for p in phases if p.number != phase.number), phase]
            elif event.kind == "recorded":
                recording = _recording(event)
                found.recordings[recording.boundary] = recording
            elif event.kind == "notice":
                found.notices.append((event.step, str(values.get("text", ""))))
            elif event.kind == "not_finite":
                text = f"loss {values.get('loss')}, gradient norm {values.get('gradient_norm')}: no update was made"
                found.notices.append((event.step, text))
            elif event.kind == "skipped":
                skipped.add(event.step)
        if skipped:
            text = f"{len(skipped)} steps were left out: their gradients overflowed in float16"
            found.notices.append((max(skipped), text))
        found.steps = [steps[k] for k in sorted(steps)]
        found.evaluations = [evaluations[k] for k in sorted(evaluations)]
        found.phases = sorted(phases, key=lambda p: p.number)
        found._set_ends()
        return found

    def _set_ends(self) -> None:
        ends = [*(p.start for p in self.phases[1:]), self.last_step]
        for phase, end in zip(self.phases, ends, strict=False):
            phase.end = max(phase.start, end)


def _step_record(event: Event) -> StepRecord:
    values = event.values
    loss, rate, norm = (_number_or_nan(values.get(k)) for k in ("loss", "rate", "gradient_norm"))
    return StepRecord(event.step, str(values.get("phase", "")), loss, rate, norm)


def _number_or_nan(value: Any) -> float:
    return float(value) if is_number(value) else float("nan")


def _phase_record(event: Event) -> PhaseRecord:
    values = event.values
    start = event.step - int(values.get("done") or 0)
    return PhaseRecord(
        number=int(values.get("number") or 0),
        name=str(values.get("name", "")),
        start=start,
        end=start,
        planned_steps=int(values.get("steps") or 0),
        rates=_numbers(values.get("rates")),
        trainable=values.get("trainable"),
        source=str(values.get("source", "")),
    )


def _recording(event: Event) -> RecordingRecord:
    values = event.values
    return RecordingRecord(
        boundary=str(values.get("boundary", "")),
        bytes=int(values["bytes"]) if is_number(values.get("bytes")) else 0,
        precision=str(values.get("precision", "")),
        error=_number_or_nan(values.get("error")),
    )


def _numbers(values: Any) -> dict[str, float]:
    return {str(k): float(v) for k, v in values.items() if is_number(v)} if isinstance(values, Mapping) else {}


class Records:
    """All records of a run, read once.

    Attributes:
        damaged: Names of records that are there but cannot be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.damaged: list[str] = []
        self.plan: dict[str, Any] = self._read("plan.json", {})
        self.summary: dict[str, Any] = self._read("summary.json", {})
        self.split: str | None = self._reported_split()
        self.results = self._results(self.split) if self.split else {}
        self.training = self._results("train")
        self.mistakes: list[dict[str, Any]] = self._read("mistakes.json", [])

    def _read(self, name: str, default: Any) -> Any:
        try:
            found = self.run.read_json(name, default)
        except RequestError:
            self.damaged.append(name)
            return default
        if not isinstance(found, type(default)):
            self.damaged.append(name)
            return default
        return found

    def _reported_split(self) -> str | None:
        if self.summary.get("split") in SPLIT_NAMES:
            return str(self.summary["split"])
        return next((s for s in ("test", "eval") if (self.run.folder / f"{s}_results.json").is_file()), None)

    def _results(self, split: str) -> dict[str, Any]:
        """The results of a split, names without prefix."""
        stored = self._read(f"{split}_results.json", {})
        return {k.removeprefix(f"{split}_"): v for k, v in stored.items()}

    @cached_property
    def status(self) -> Status:
        return self.run.status

    @cached_property
    def timeline(self) -> Timeline:
        return Timeline.of(self.run.events())

    @cached_property
    def findings(self) -> list[Finding]:
        """Stored findings, the gravest first."""
        stored = [Finding(**f) for f in self._read("findings.json", [])]
        return sorted(stored, key=lambda f: _SEVERITIES.index(f.severity))

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What was asked, as plain data; empty where the recipe cannot be read."""
        import yaml

        try:
            found = yaml.safe_load(self.run.recipe_path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            self.damaged.append("recipe.yaml")
            return {}
        return found if isinstance(found, dict) else {}

    # parts of the plan -------------------------------------------------------------------------------------------

    @property
    def task(self) -> str:
        return str(self.plan.get("task", ""))

    @property
    def model(self) -> str:
        return str(self.plan.get("model", ""))

    @property
    def data(self) -> dict[str, Any]:
        found = self.plan.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of the rows, see `unfreeze.data.quality.DataFacts.to_json`."""
        found = self.data.get("facts")
        return found if isinstance(found, dict) else {}

    @property
    def rows(self) -> dict[str, int]:
        """Split name to number of rows, train first."""
        found = dict(self.data.get("rows") or {})
        return {k: found.pop(k) for k in ("train", "validation", "test") if k in found} | found

    @property
    def choices(self) -> list[dict[str, Any]]:
        return list(self.plan.get("choices") or [])

    def choice(self, key: str) -> dict[str, Any]:
        """The plan's entry for a recipe key; empty where there is none."""
        return next((c for c in self.choices if c.get("key") == key), {})

    @property
    def phases(self) -> list[dict[str, Any]]:
        return list(self.plan.get("phases") or [])

    @property
    def planned_epochs(self) -> float:
        return float(sum(p.get("epochs") or 0 for p in self.phases))

    @property
    def versions(self) -> dict[str, str]:
        return dict((self.plan.get("identity") or {}).get("versions") or {})

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the model's outputs; empty for numbers and for language models."""
        found = self.summary.get("labels") or (self.plan.get("identity") or {}).get("labels") or []
        return [str(label) for label in found]

    @property
    def reads_tokens(self) -> bool:
        """Whether the length of an input is counted in tokens of its text, and not made up of pixels or seconds."""
        return not self.task.startswith(("image-", "audio-", "automatic-speech"))

    @property
    def training_counts(self) -> dict[str, int]:
        """Class name, or type of span, to how often the training rows have it.

        Empty where the facts count something else (combinations, numbers).
        """
        counted = ((self.facts.get("splits") or {}).get("train") or {}).get("classes") or {}
        if not set(counted) <= set(self.labels) and all(k.isdecimal() and int(k) < len(self.labels) for k in counted):
            counted = {self.labels[int(k)]: n for k, n in counted.items()}
        spans = {label.partition("-")[2] for label in self.labels}
        return dict(counted) if set(counted) <= {*self.labels, *spans} else {}

    @property
    def groups_from_head(self) -> list[str]:
        """Names of the layer groups, the head first."""
        return [str(g.get("name", "")) for g in reversed(self.plan.get("groups") or [])]

    # results -----------------------------------------------------------------------------------------------------

    @property
    def details(self) -> dict[str, Any]:
        found = self.results.get("details")
        return found if isinstance(found, dict) else {}

    @property
    def is_multi_label(self) -> bool:
        return "f1_micro" in self.results

    @cached_property
    def headline(self) -> Headline | None:
        """The figure to lead with; None where nothing has been evaluated."""
        if self.split is None:
            return None
        metric = self.summary.get("metric") or next((m for sign, m in _LEADING if sign in self.results), None)
        if metric is None:
            return None
        value: Any = self.summary.get("value", self.results.get(metric))
        span = self.summary.get("interval") or (self.results.get("intervals") or {}).get(metric)
        samples: Any = self.summary.get("samples", self.results.get("samples"))
        return Headline(
            metric=str(metric),
            value=float(value) if is_number(value) else None,
            interval=(float(span[0]), float(span[1])) if is_number(value) and span else None,
            split=self.split,
            samples=int(samples) if is_number(samples) else None,
            selected_on_same_rows=bool(self.summary.get("selected_on_same_rows", self.split == "eval")),
            reason="" if is_number(value) else str((self.details.get("reasons") or {}).get(metric, "undefined")),
        )

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Every metric of the reported rows, the headline's first; None where undefined."""
        outside = {"samples", "rows_cut", "runtime", "samples_per_second"}
        found = {k: v for k, v in self.results.items() if k not in outside and (v is None or is_number(v))}
        first = self.headline.metric if self.headline else ""
        return {k: found[k] for k in sorted(found, key=lambda k: k != first)}

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The baselines, as stored."""
        return [_comparison(b) for b in self._read("baselines.json", [])]

    @cached_property
    def strongest(self) -> Comparison | None:
        """The baseline that leaves the run the smallest lead."""
        compared = [c for c in self.comparisons if c.lead is not None]
        return min(compared, key=lambda c: c.lead[0] if c.lead else 0.0, default=None)

    @property
    def verdict(self) -> str:
        """Whether fine-tuning was worth it, as one sentence."""
        if self.strongest is not None:
            return str(self.strongest)
        if self.headline is None:
            return ""
        return "No baseline was compared with it, so the figure stands alone."

    @property
    def selection_remark(self) -> str:
        """What a reader of the figure must know about its rows; empty where they are untouched."""
        if self.headline is None or not self.headline.selected_on_same_rows:
            return ""
        return "The weights were selected on the same rows; expect a little less on new ones."


def _comparison(stored: Mapping[str, Any]) -> Comparison:
    difference = stored.get("difference") or {}
    numbers = [n for k in ("value", "low", "high") if is_number(n := difference.get(k))]
    value, rows, seconds = (v if is_number(v := stored.get(k)) else None for k in ("value", "rows", "seconds"))
    return Comparison(
        name=str(stored.get("name", "")),
        sentence=str(stored.get("sentence", "")),
        metric=str(stored.get("metric", "")),
        value=value,
        difference=(numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None,
        rows=None if rows is None else round(rows),
        seconds=seconds,
        notes=tuple(map(str, stored.get("notes") or ())),
    )
