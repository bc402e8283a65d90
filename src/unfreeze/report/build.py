"""The report of a run: one self-contained HTML file, readable on a phone, on paper and without a network.

Nothing on the page is active: there is no script, its content security policy forbids all but inline style and images
that are part of the file, and every expression of the templates passes through `visible` and the escaper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze import durable
from unfreeze.errors import visible
from unfreeze.report import plots, wording
from unfreeze.report.records import PhaseRecord, RecordingRecord, Records
from unfreeze.run import Run
from unfreeze.types import is_number

if TYPE_CHECKING:
    import jinja2

REPORT = "report.html"
_TEXT_LENGTH = 400
# What a mistake may show beside its text; nothing else becomes the source of an image, or its colour.
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_PICTURE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*")
_ROWS_OF_CLASSES_IN_ORDER = 20


def build(run: Run) -> Path:
    """Write ``RUN/report.html`` from whatever records the run has; an unfinished run gets a report, too.

    Returns:
        The file.

    Raises:
        ResourceError: E-DISK, when it cannot be written; an older report is then still there.
    """
    path = run.folder / REPORT
    durable.write_text(path, render(Records(run)))
    return path


def render(records: Records) -> str:
    """The page as text."""
    page = environment().get_template("report.html")
    return page.render(
        records=records,
        status=records.status,
        headline=records.headline,
        lead=_lead(records),
        so_far=_best_so_far(records),
        figures=_figures(records),
        comparisons=records.comparisons,
        timeline=records.timeline,
        classes=_classes(records),
        confusion=_confusion(records),
        calibration=_calibration(records),
        mistakes=_mistakes(records),
        legend=_legend(records),
        data=_data(records),
        phases=_phases(records),
        run_facts=list(_run_facts(records)),
        images=_images(records),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


@cache
def environment() -> jinja2.Environment:
    """The templates of this package; whatever an expression yields is made visible, then escaped."""
    import jinja2
    from markupsafe import Markup

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("unfreeze.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        count=wording.count,
        percent=wording.percent,
        duration=wording.duration,
        shown=wording.shown_value,
        pathless=wording.without_paths,
        metric_name=wording.metric_name,
        text_lines=wording.visible_lines,
    )
    found.globals["figure"] = wording.figure
    found.globals["interval"] = wording.interval
    return found


# what the page says --------------------------------------------------------------------------------------------------


def _lead(records: Records) -> str:
    """What was trained on what."""
    parts = [f"{model_name(records.model)} for {records.task}" if records.model else records.task or "A run"]
    if name := records.data.get("name"):
        rows = records.rows.get("train")
        parts.append(f"fine-tuned on {wording.without_paths(name)}" + (f", {rows:,} training rows" if rows else ""))
    return ", ".join(parts) + "."


def model_name(model: str) -> str:
    """A model as it may be shown to others: of a local folder its last part only."""
    is_path = re.match(r"[/~.]|[A-Za-z]:[\\/]", model) or "\\" in model or model.count("/") > 1
    return re.split(r"[\\/]", model.rstrip("\\/"))[-1] if is_path else model


def _best_so_far(records: Records) -> str:
    best = records.timeline.best
    if records.headline is not None or best is None:
        return ""
    shown = ", ".join(f"{wording.metric_name(k)} {wording.figure(k, v)}" for k, v in best.metrics.items())
    return f"Best so far, on the validation rows after step {best.step}: {shown}."


def _figures(records: Records) -> list[dict[str, Any]]:
    """Every metric of the reported rows, with interval or the reason why there is none."""
    reasons = records.details.get("reasons") or {}
    intervals = records.results.get("intervals") or {}
    return [
        {
            "metric": metric,
            "value": wording.figure(metric, value),
            "interval": wording.interval(metric, *span) if (span := intervals.get(metric)) else "",
            "remark": reasons.get(metric) or reasons.get(f"{metric} interval") or "",
        }
        for metric, value in records.metrics.items()
    ]


def _classes(records: Records) -> list[dict[str, Any]]:
    """Rows of the per class table, numbered; of many classes the worst come first."""
    rows = [
        {"number": number, "label": str(c.get("label", "")), "support": c.get("support")}
        | {k: wording.percent(c.get(k)) if c.get(k) is not None else "\u2013" for k in ("precision", "recall", "f1")}
        | {"iou": wording.percent(c["iou"]) if c.get("iou") is not None else None}
        | {"rank": -1.0 if c.get("f1") is None else c["f1"], "threshold": c.get("threshold")}
        for number, c in enumerate(records.details.get("per_class") or [], start=1)
    ]
    return rows if len(rows) <= _ROWS_OF_CLASSES_IN_ORDER else sorted(rows, key=lambda r: r["rank"])


def _confusion(records: Records) -> dict[str, Any] | None:
    """The matrix and its labels, and the pairs that are most often taken for each other."""
    matrix = np.array(records.details.get("confusion") or [], dtype=np.int64)
    of_classes = [str(c.get("label", "")) for c in records.details.get("per_class") or []]
    labels = records.details.get("confusion_labels") or of_classes or records.labels
    if matrix.ndim != 2 or matrix.shape != (len(labels), len(labels)) or not len(labels):
        return None
    is_drawn = len(labels) <= plots.CLASSES_IN_MATRIX
    return {"labels": labels, "matrix": matrix, "is_drawn": is_drawn, "pairs": plots.most_confused(labels, matrix)}


def _calibration(records: Records) -> list[dict[str, Any]]:
    return [b for b in (records.details.get("calibration") or {}).get("bins") or [] if b.get("count")]


def _mistakes(records: Records) -> list[dict[str, str]]:
    """Rows of the table of mistakes, texts shortened."""
    return [
        {
            "place": wording.without_paths(m.get("place", "")),
            "picture": str(m.get("picture") or "") if _PICTURE.fullmatch(str(m.get("picture") or "")) else "",
            "text": wording.shortened(str(m.get("text", "")), _TEXT_LENGTH),
            "true": wording.shortened(wording.answer(m.get("true")), 120),
            "predicted": wording.shortened(wording.answer(m.get("predicted")), 120),
            "probability": wording.percent(m.get("probability")) if m.get("probability") is not None else "",
            "surprise": f"{m['surprise']:.3g}" if is_number(m.get("surprise")) else "\u2013",
        }
        for m in records.mistakes
    ]


def _legend(records: Records) -> list[tuple[str, str]]:
    """What the colours in the pictures of mistakes stand for, and the colours; empty without such pictures."""
    stored = records.summary.get("legend") or []
    if not any(m.get("picture") for m in records.mistakes):
        return []
    return [(wording.shortened(str(name), 60), str(c)) for name, c in stored if _COLOUR.fullmatch(str(c))]


def _data(records: Records) -> dict[str, Any]:
    data = records.data
    roles = {k: wording.answer(v) for k, v in (data.get("roles") or {}).items() if v}
    return {
        "rows": records.rows,
        "roles": roles,
        "sentences": [wording.without_paths(s) for s in data.get("sentences") or []],
        "notes": [wording.without_paths(n) for n in data.get("notes") or []],
        "warnings": [wording.without_paths(w) for w in records.plan.get("warnings") or []],
    }


def _phases(records: Records) -> list[dict[str, Any]]:
    """The plan's phases, each with what came of it."""
    happened = {p.number: p for p in records.timeline.phases}
    stopped = records.training.get("stopped_phases") or []
    return [
        {
            **phase,
            "span": wording.answer(phase.get("span")),
            "rates": _rates(phase.get("learning_rates") or {}, records.groups_from_head),
            "happened": _happened(happened.get(number), phase, stopped),
            "inputs": _inputs(happened.get(number), records.timeline.recordings),
        }
        for number, phase in enumerate(records.phases, start=1)
    ]


def _happened(record: PhaseRecord | None, phase: Mapping[str, Any], stopped: list[str]) -> str:
    if record is None:
        return "not reached"
    planned = phase.get("steps") or record.planned_steps
    if record.steps >= planned:
        return "as planned"
    return f"{record.steps:,} of {planned:,} steps" + (", stopped early" if record.name in stopped else "")


def _inputs(record: PhaseRecord | None, recordings: Mapping[str, RecordingRecord]) -> str:
    """What went into the phase's trained part, and how true it was."""
    if record is None or not record.source:
        return ""
    boundary, _, precision = record.source.partition(", ")
    recording = recordings.get(boundary)
    if recording is None:
        return "the rows, through the whole model"
    return (
        f"recorded at {boundary}: {wording.size(recording.bytes)} of {precision}; checked, "
        f"outputs differ by at most {recording.error:.1g} of the largest"
    )


def _rates(rates: Mapping[str, float], groups: list[str]) -> str:
    """Peak rates from the head down, shortened where there are many groups."""
    # Trap: JSON records are stored with sorted keys, so the order of the groups is not that of `rates`.
    order = sorted(rates, key=lambda g: groups.index(g) if g in groups else len(groups))
    shown = [f"{group} {rates[group]:.3g}" for group in order]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:2], "...", shown[-1]])


def _run_facts(records: Records) -> Iterator[tuple[str, str, str]]:
    """What, what the plan expected, what happened."""
    plan, training, timeline = records.plan, records.training, records.timeline
    expected = dict(plan.get("expected") or {})
    seconds, memory = expected.pop("train_seconds", None), expected.pop("peak_memory_bytes", None)
    planned = sum(p.get("steps") or 0 for p in records.phases)
    taken = training.get("steps", timeline.last_step or None)
    yield "Optimizer steps", wording.count(planned), wording.count(taken)
    yield "Training time", _if_known(seconds, wording.duration), _if_known(training.get("runtime"), wording.duration)
    if (whole := expected.pop("total_seconds", None)) is not None:
        yield "Whole run", wording.duration(whole), ""
    yield "Peak memory", _if_known(memory, wording.size), _if_known(training.get("peak_memory_bytes"), wording.size)
    if (device := training.get("peak_device_memory_bytes")) is not None:
        yield "Peak memory of the GPU", "", wording.size(device)
    if (disk := expected.pop("disk_bytes", None)) is not None:
        yield "Disk", wording.size(disk), ""
    if (speed := training.get("tokens_per_second")) is not None:
        yield "Tokens a second, padding included", "", wording.count(speed)
    if timeline.times_resumed:
        yield "Resumed", "", f"{timeline.times_resumed} times"
    for name, value in expected.items():
        yield name.replace("_", " ").capitalize(), wording.shown_value(value), ""
    for name, value in (plan.get("machine") or {}).items():
        shown = wording.size(value) if name.endswith("_bytes") else wording.shown_value(value)
        yield f"Machine: {name.removesuffix('_bytes').replace('_', ' ')}", "", shown
    for name, version in records.versions.items():
        yield f"Version of {name}", "", str(version)


def _if_known(value: Any, write: Any) -> str:
    return "" if value is None else str(write(value))


# what the page shows -------------------------------------------------------------------------------------------------


def _images(records: Records) -> dict[str, str]:
    """Plot name to data URI, for the plots that the records allow."""
    images = {}
    if any(c.difference is not None for c in records.comparisons):
        images["baselines"] = plots.data_uri(plots.baseline_differences(records.comparisons))
    timeline = records.timeline
    if timeline.steps or timeline.evaluations:
        metric = records.headline.metric if records.headline else _first_metric(records)
        images["curves"] = plots.data_uri(plots.curves(timeline, metric))
    confusion = _confusion(records)
    if confusion is not None and confusion["is_drawn"]:
        images["confusion"] = plots.data_uri(plots.confusion_matrix(confusion["labels"], confusion["matrix"]))
    if bins := _calibration(records):
        images["calibration"] = plots.data_uri(plots.calibration(bins))
    return images


def _first_metric(records: Records) -> str | None:
    seen = records.timeline.evaluations[-1].metrics if records.timeline.evaluations else {}
    return next((name for name in seen if name != "loss"), None)
