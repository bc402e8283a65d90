"""The end of a run, as a few lines for the terminal."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from rich.markup import escape

from unfreeze.errors import visible
from unfreeze.report.findings import next_attempts
from unfreeze.report.records import Comparison, Records
from unfreeze.report.wording import figure, metric_name, shortened, without_paths
from unfreeze.run import Run

_FINDINGS_SHOWN = 2


def summary_lines(run: Run) -> list[str]:
    """What a person wants to know when a run has ended, about ten lines.

    The result with its interval and its rows, each baseline with the paired difference, whether fine-tuning was worth
    it, the gravest findings, where the files lie, and what to try where it was not.

    Returns:
        Lines with rich markup escaped and control characters made visible; print them as they are.
    """
    records = Records(run)
    lines = [
        *_result(records),
        *_baselines(records),
        *_findings(records),
        *_places(records),
        *_next(records),
    ]
    return [escape(visible(line)) for line in lines]


def _result(records: Records) -> list[str]:
    status, headline = records.status, records.headline
    lines = []
    if status.state in ("failed", "interrupted"):
        cause = f": {without_paths(status.cause).splitlines()[0]}" if status.cause.strip() else ""
        lines.append(
            f"The run {'failed' if status.state == 'failed' else 'was interrupted'} after step {status.step}{cause}"
        )
    if headline is not None:
        lines.append(f"Result: {headline}")
    elif (best := records.timeline.best) is not None:
        shown = ", ".join(f"{metric_name(k)} {figure(k, v)}" for k, v in list(best.metrics.items())[:3])
        lines.append(f"Best so far, on the validation rows after step {best.step}: {shown}")
    else:
        lines.append("Nothing was evaluated, so there is no result to show.")
    if records.selection_remark:
        lines.append(f"  {records.selection_remark}")
    return lines


def _baselines(records: Records) -> list[str]:
    if not records.comparisons:
        return [records.verdict] if records.verdict else []
    metric = records.comparisons[0].metric
    unit = " in points" if "%" in figure(metric, 0.0) else ""
    width = max(len(_name(c)) for c in records.comparisons)
    lines = [f"Baselines by {metric_name(metric)}, and this run's difference{unit} (95 % interval) on the same rows:"]
    for c in records.comparisons:
        lines.append(f"  {_name(c):<{width}}  {figure(c.metric, c.value):>8}  {c.difference_text:<24} {_judged(c)}")
    return [*lines, records.verdict]


def _name(comparison: Comparison) -> str:
    return visible(shortened(comparison.title.removeprefix("the "), 30))


def _judged(comparison: Comparison) -> str:
    return {"better": "beaten", "worse": "not beaten: better than this run"}.get(comparison.verdict, comparison.verdict)


def _findings(records: Records) -> list[str]:
    """The gravest, without those that the lines above have said already."""
    said = ("BASE", "SEL")
    grave = [f for f in records.findings if f.severity in ("bad", "warning") and not f.code.startswith(said)]
    lines = [f"{f.code} {f.sentence}" for f in grave[:_FINDINGS_SHOWN]]
    if len(grave) > _FINDINGS_SHOWN:
        lines.append(f"{len(grave) - _FINDINGS_SHOWN} more in the report")
    return lines


def _places(records: Records) -> list[str]:
    """The files that are there, relative to the current folder."""
    folder = records.run.folder
    named = (("Report", folder / "report.html"), ("Model", records.run.model_folder))
    shown = [f"{what}: {_relative(path)}" for what, path in named if path.exists()]
    return ["   ".join(shown)] if shown else []


def _relative(path: Path) -> str:
    try:
        return os.path.relpath(path)
    except ValueError:  # another drive on Windows: there is no relative way
        return str(path)


def _next(records: Records) -> list[str]:
    status = records.status
    if status.state in ("failed", "interrupted"):
        return [f"Next: {without_paths(status.next)}"] if status.next else []
    if records.strongest is not None and records.strongest.verdict != "better":
        return [f"Next, the same command with {attempt}" for attempt in next_attempts(records)[:1]]
    roles = records.data.get("roles") or {}
    inputs = '"..."' if len(roles.get("text") or ()) == 1 else "FILE"
    return [f"Next: unfreeze predict {shlex.quote(_relative(records.run.folder))} {inputs}"] if records.headline else []
