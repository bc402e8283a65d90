"""Findings: what the records of a run say about it, as judged statements with evidence and something to type.

Overfitting is judged on the validation loss, since it moves before the accuracy does (a network that grows surer of its
mistakes; Guo et al. 2017, arXiv 1706.04599, section 3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

from unfreeze.report.records import SPLIT_NAMES, Comparison, EvaluationRecord, PhaseRecord, Records
from unfreeze.report.wording import (
    count,
    figure,
    listed,
    metric_name,
    percent,
    shown_value,
)
from unfreeze.run import Finding, Run
from unfreeze.types import is_number

# Every code with what was found; docs/findings.md is made of it.
CODES = {
    "BASE001": "fine-tuning beats its strongest baseline: the interval of the difference is above 0",
    "BASE002": "it is statistically indistinguishable from its strongest baseline: the interval of the difference "
    "holds 0",
    "BASE003": "it is worse than its strongest baseline",
    "SEL001": "the figure comes from the rows by which the weights were chosen, so it is slightly optimistic",
    "CAL001": "probabilities are not frequencies: the expected calibration error is above 0.1, and above what chance "
    "gives on so many rows",
    "CLS001": "classes that are never recognised",
    "OVF001": "training went on after the validation loss had turned: it has risen over three evaluations",
    "CUT001": "more than 1 % of the texts are longer than the model takes, and are cut",
    "DUP001": "reported rows are training rows, too; a warning where they are more than 1 %",
    "GRP001": "reported rows are of groups (speakers, patients) that are among the training rows: the figure is for "
    "known groups",
    "UNE001": "uneven classes, more than 5 to 1; a warning where the small ones pay: accuracy well above macro F1",
}
CALIBRATION_LIMIT = 0.1
# A calibration error this many times what chance alone gives on so many rows is none of chance.
CALIBRATION_CHANCE_FACTOR = 2.0
RISING_EVALUATIONS = 3
RISE_LIMIT = 0.05  # of the lowest validation loss
CUT_LIMIT = 0.01
SHARED_LIMIT = 0.01
UNEVEN_LIMIT = 5.0
UNEVEN_GAP = 0.05  # accuracy above macro F1: the small classes pay
FEW_ROWS = 1000
FEW_ROWS_OF_A_CLASS = 5

Severity = Literal["good", "info", "warning", "bad"]
_BASELINE_CODES: dict[str, tuple[str, Severity]] = {
    "better": ("BASE001", "good"),
    "not distinguishable": ("BASE002", "warning"),
    "worse": ("BASE003", "bad"),
}


def judge(run: Run) -> list[Finding]:
    """Every finding that the records of a run support, by code; nothing is computed anew."""
    records = Records(run)
    checks = (
        _against_baseline,
        _selected_on_same_rows,
        _miscalibrated,
        _unrecognised_classes,
        _overfits,
        _cut,
        _shared_rows,
        _shared_groups,
        _uneven,
    )
    return [finding for check in checks if (finding := check(records)) is not None]


# baselines


def _against_baseline(records: Records) -> Finding | None:
    strongest = records.strongest
    if strongest is None or strongest.difference is None:
        return None
    code, severity = _BASELINE_CODES[strongest.verdict]
    value, low, high = strongest.difference
    evidence: dict[str, Any] = {
        "baseline": strongest.name,
        "metric": strongest.metric,
        "baseline_value": strongest.value,
        "difference": value,
        "low": low,
        "high": high,
        "rows": strongest.rows,
    }
    advice = "" if strongest.verdict == "better" else " \u00b7 ".join(next_attempts(records))
    return Finding(code, severity, _baseline_sentence(strongest, records), evidence, advice)


def _baseline_sentence(strongest: Comparison, records: Records) -> str:
    run = records.headline.value if records.headline and records.headline.metric == strongest.metric else None
    text = str(strongest)
    if run is not None and strongest.value is not None:
        name = metric_name(strongest.metric)
        text += f" {name[:1].upper()}{name[1:]}: {figure(strongest.metric, run)} against "
        text += f"{figure(strongest.metric, strongest.value)}."
    return text


def next_attempts(records: Records) -> list[str]:
    """What to add to the same command where fine-tuning did not pay, most promising first; never empty."""
    attempts = [*_longer(records), *_stronger_model(records), *_deeper(records)]
    rows = records.rows.get("train", 0)
    if rows < FEW_ROWS:
        attempts.append(f"more labelled rows: {count(rows)} are few")
    return attempts or ["another rate: --set train.learning_rate=... (a third, or three times the plan's)"]


def _longer(records: Records) -> Iterable[str]:
    """More passes, where the very last evaluation was still the best."""
    timeline = records.timeline
    best = timeline.best
    if best is None or len(timeline.evaluations) < 2 or best.step != timeline.evaluations[-1].step:
        return
    if records.choice("train.epochs"):
        passes = max(2, round(2 * records.planned_epochs))
        yield f"more passes, the last weights were the best: --set train.epochs={passes}"
    else:
        yield "longer phases in the schedule: the last weights were the best"


def _stronger_model(records: Records) -> Iterable[str]:
    named = re.search(r"--model (\S+)", str(records.choice("model").get("reason", "")))
    if named:
        yield f"a stronger model: --model {named[1]}"
    elif records.model.startswith("builtin:"):
        yield "a stronger model: --model HUB_ID"


def _deeper(records: Records) -> Iterable[str]:
    spans = [p.get("span") for p in records.phases]
    if spans and "all" not in spans:
        yield "train all layers: --schedule gradual"
    elif len(spans) > 1:
        yield "train all layers from the start: --schedule full"


# the figure


def _selected_on_same_rows(records: Records) -> Finding | None:
    headline = records.headline
    if headline is None or not headline.selected_on_same_rows:
        return None
    sentence = (
        f"The weights were selected on the same {headline.rows} that the figure is from, so it is slightly optimistic."
    )
    advice = "score rows that no choice has seen: --test FILE"
    return Finding("SEL001", "info", sentence, {"split": headline.split, "rows": headline.samples}, advice)


def _miscalibrated(records: Records) -> Finding | None:
    error: Any = records.results.get("ece")
    bins = [b for b in (records.details.get("calibration") or {}).get("bins") or [] if b.get("count")]
    rows = sum(b["count"] for b in bins)
    if not rows or not is_number(error) or error <= CALIBRATION_LIMIT:
        return None
    chance = _calibration_by_chance(bins, rows)
    if error <= CALIBRATION_CHANCE_FACTOR * chance:
        return None
    ahead = sum(b["count"] * (b["confidence"] - b["accuracy"]) for b in bins) / rows
    manner = "too sure of itself" if ahead > 0 else "not sure enough of itself"
    sentence = (
        f"The model is {manner}: its probabilities are {percent(error)} off the rate at which it is right "
        f"(calibration error {error:.3f} on {rows:,} rows; {chance:.3f} would be chance)."
    )
    advice = "do not use probabilities as they are for decisions" + (
        "; try --set train.label_smoothing=0.1, or fewer epochs" if ahead > 0 else "; try more epochs"
    )
    evidence = {"ece": error, "rows": rows, "by_chance": round(chance, 4), "confidence_minus_accuracy": round(ahead, 4)}
    return Finding("CAL001", "warning", sentence, evidence, advice)


def _calibration_by_chance(bins: list[dict[str, Any]], rows: int) -> float:
    """The calibration error that a perfectly calibrated model shows on so many rows, in expectation.

    The rate of a bin of n rows scatters by sqrt(c (1 - c) / n) around its confidence c, and the mean absolute value of
    a normal variable is sqrt(2 / pi) times that.
    """
    return sum(
        b["count"] / rows * math.sqrt(2 / math.pi * b["confidence"] * (1 - b["confidence"]) / b["count"]) for b in bins
    )


def _unrecognised_classes(records: Records) -> Finding | None:
    classes = [c for c in records.details.get("per_class") or [] if c.get("support")]
    missed = [c for c in classes if c.get("recall") == 0]
    if not missed or len(classes) < 2:
        return None
    never = [c for c in missed if c.get("precision") is None]
    rows = sum(c["support"] for c in missed)
    names = [str(c["label"]) for c in missed]
    which = "class is" if len(missed) == 1 else "classes are"
    sentence = (
        f"{len(missed)} of {len(classes)} {which} never recognised: {listed(names)} "
        f"({count(rows)} rows; {len(never)} never predicted at all)."
    )
    is_luck = all(c["support"] < FEW_ROWS_OF_A_CLASS for c in missed)
    evidence = {"classes": names, "rows": rows, "never_predicted": [str(c["label"]) for c in never]}
    return Finding("CLS001", "info" if is_luck else "warning", sentence, evidence, _advice_for_small_classes(records))


def _advice_for_small_classes(records: Records) -> str:
    """Weights where the task has them and they are not set already."""
    has_weights = records.task.endswith("-classification") and records.task != "token-classification"
    if has_weights and not records.is_multi_label and not _has_class_weights(records):
        return "--set train.class_weights=balanced, or more rows of these classes"
    more = max(2, round(2 * records.planned_epochs))
    longer = f", or more passes: --set train.epochs={more}" if records.choice("train.epochs") else ""
    return f"more rows of these classes{longer}"


def _has_class_weights(records: Records) -> bool:
    train = records.recipe.get("train")
    return isinstance(train, dict) and train.get("class_weights") is not None


# training


def _overfits(records: Records) -> Finding | None:
    timeline = records.timeline
    turned = [t for p in timeline.phases if (t := _turn(records, p)) is not None]
    if not turned:
        return None
    phase, lowest, last, before, after = max(turned, key=lambda t: t[2].metrics["loss"] / t[1].metrics["loss"])
    low, high = lowest.metrics["loss"], last.metrics["loss"]
    overall = min(e.metrics["loss"] for e in timeline.evaluations if "loss" in e.metrics)
    best = timeline.best
    kept = best.metrics.get("loss") if best else None
    is_harmless = kept is not None and kept <= overall * (1 + RISE_LIMIT)
    ending = "the last weights were kept"
    if best is not None:
        why = "from before" if is_harmless else "chosen by another measure"
        ending = f"the weights kept are those of step {best.step}, {why}"
    sentence = (
        f"Training overfitted in the phase '{phase.name}': from step {lowest.step} to {last.step} the training loss "
        f"fell from {before:.3g} to {after:.3g} while the validation loss rose from {low:.3g} to {high:.3g}; {ending}."
    )
    evidence = {
        "phase": phase.name,
        "lowest_step": lowest.step,
        "last_step": last.step,
        "train_loss": [before, after],
        "validation_loss": [low, high],
        "kept_step": best.step if best else None,
    }
    advice = _advice_against_overfitting(records, lowest)
    return Finding("OVF001", "info" if is_harmless else "warning", sentence, evidence, advice)


def _turn(
    records: Records, phase: PhaseRecord
) -> tuple[PhaseRecord, EvaluationRecord, EvaluationRecord, float, float] | None:
    """The phase, its lowest and its last evaluation, and the training loss before each; None where nothing turned.

    Within one phase only: at the end of a phase the best weights come back, so the curves jump between phases.
    """
    timeline = records.timeline
    evaluations = [e for e in timeline.evaluations_of(phase) if "loss" in e.metrics]
    if len(evaluations) <= RISING_EVALUATIONS:
        return None
    at = min(range(len(evaluations)), key=lambda i: evaluations[i].metrics["loss"])
    lowest, last = evaluations[at], evaluations[-1]
    if len(evaluations) - 1 - at < RISING_EVALUATIONS:
        return None
    if last.metrics["loss"] <= lowest.metrics["loss"] * (1 + RISE_LIMIT):
        return None
    width = max(1, (last.step - phase.start) // len(evaluations))
    before = timeline.mean_loss(lowest.step - width, lowest.step)
    after = timeline.mean_loss(last.step - width, last.step)
    return (phase, lowest, last, before, after) if before is not None and after is not None and after < before else None


def _advice_against_overfitting(records: Records, lowest: EvaluationRecord) -> str:
    steps = sum(p.get("steps") or 0 for p in records.phases)
    advice = "more rows, or --set train.weight_decay=0.1"
    if records.choice("train.epochs") and steps:
        passes = max(1, round(records.planned_epochs * lowest.step / steps))
        if passes < records.planned_epochs:
            return f"fewer passes: --set train.epochs={passes}; {advice}"
    return advice


# data


def _cut(records: Records) -> Finding | None:
    rows, cut = records.results.get("samples"), records.results.get("rows_cut")
    split = records.split
    if not (is_number(rows) and rows and is_number(cut)):
        split = "train"
        facts = (records.facts.get("splits") or {}).get("train") or {}
        rows, cut = facts.get("rows"), facts.get("cut")
    if not (is_number(rows) and rows and is_number(cut)) or cut / rows <= CUT_LIMIT:
        return None
    limit: Any = (records.plan.get("settings") or {}).get("max_length_tokens")
    name = SPLIT_NAMES.get(str(split), split)
    longer = f"{count(cut)} of {count(rows)} {name} rows ({percent(cut / rows)}) are longer than"
    if records.reads_tokens:
        sentence = f"{longer} {shown_value(limit)} tokens: their ends are not read."
        advice = "put what matters first, or choose a model that reads more: --model HUB_ID with "
        advice += "--set train.max_length=..."
        if is_number(limit) and records.choice("train.max_length").get("source") not in (None, "plan"):
            advice = f"--set train.max_length={2 * limit}, as far as the model goes"
        if records.task == "text-classification":
            advice += "; --set options.windows=true reads them whole, in windows"
    else:
        sentence, advice = f"{longer} what is heard of them.", "--set options.seconds=..., as far as the model goes"
    evidence = {"split": name, "rows": rows, "rows_cut": cut, "max_length_tokens": limit}
    return Finding("CUT001", "warning", sentence, evidence, advice)


def _shared_rows(records: Records) -> Finding | None:
    name = SPLIT_NAMES.get(records.split or "test", "test")
    found = (records.facts.get("shared") or {}).get(f"train and {name}") or {}
    shared, rows = found.get("count"), records.rows.get(name)
    if not is_number(shared) or not shared or not rows:
        return None
    share = shared / rows
    what = "have a text that is" if records.reads_tokens else "are"
    sentence = (
        f"{count(shared)} of {count(rows)} {name} rows ({percent(share)}) {what} among the training rows, too: on them "
        "the model may remember rather than understand."
    )
    evidence = {"split": name, "shared": shared, "rows": rows, "places": list(found.get("places") or [])}
    without = records.summary.get("without_known") or {}
    if is_number(without.get("value")) and records.headline is not None:
        metric, value, of_all = records.headline.metric, without["value"], records.headline.value
        evidence |= {"rows_without": without.get("rows"), "metric": metric, "value": value, "value_of_all": of_all}
        with_them, without_them = figure(metric, of_all), figure(metric, value)
        sentence += f" With them {metric_name(metric)} is {with_them}, without them {without_them}."
    advice = "take these rows out of one of the two files; unfreeze inspect DATA lists them"
    return Finding("DUP001", "warning" if share > SHARED_LIMIT else "info", sentence, evidence, advice)


def _shared_groups(records: Records) -> Finding | None:
    name, column = SPLIT_NAMES.get(records.split or "test", "test"), records.facts.get("group")
    values, shared = (records.facts.get("shared_groups") or {}).get(f"train and {name}") or (0, 0)
    if not shared:
        return None
    is_named = bool(records.facts.get("is_group_named"))
    kind = "the group" if is_named else "which looks like a group"
    sentence = (
        f"{count(shared)} of the {count(values)} values of {listed([str(column)])}, {kind}, in the {name} rows are "
        "among the training rows, too: the figure is one of known ones, new ones may do much worse."
    )
    evidence = {"split": name, "column": column, "values": values, "shared": shared}
    advice = "give test rows of groups that no training row has: --test FILE"
    if not is_named:
        advice = f"--set data.group={column} holds whole groups out, where no test rows are given"
    return Finding("GRP001", "warning", sentence, evidence, advice)


def _uneven(records: Records) -> Finding | None:
    classes = records.training_counts
    if len(classes) < 2 or (ratio := max(classes.values()) / max(1, min(classes.values()))) <= UNEVEN_LIMIT:
        return None
    largest, smallest = max(classes, key=lambda c: classes[c]), min(classes, key=lambda c: classes[c])
    # Of several labels a row, accuracy asks for all at once: it says nothing about the small ones.
    comparable = {} if records.is_multi_label else records.results
    accuracy, f1 = comparable.get("accuracy"), comparable.get("f1")
    gap = accuracy - f1 if is_number(accuracy) and is_number(f1) else 0.0
    sentence = (
        f"The classes are uneven: {listed([largest])} has {count(classes[largest])} training rows, "
        f"{listed([smallest])} {count(classes[smallest])}"
    )
    if gap > UNEVEN_GAP:
        sentence += f"; the small ones pay for it (accuracy {percent(accuracy)}, macro F1 {percent(f1)})"
    advice = "judge by macro F1 beside accuracy"
    if gap > UNEVEN_GAP or records.is_multi_label:
        advice = _advice_for_small_classes(records)
    evidence = {"ratio": ratio, "largest": largest, "smallest": smallest, "accuracy_minus_f1": round(gap, 4)}
    return Finding("UNE001", "warning" if gap > UNEVEN_GAP else "info", sentence + ".", evidence, advice)
